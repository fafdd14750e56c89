//! Simple queries that speak of prepared statements by name: PREPARE, EXECUTE, DEALLOCATE.
//!
//! The server gets the text with its own names in it. A name that PREPARE gives, or DEALLOCATE takes, changes when the
//! server says that this command is done, which it does once for each statement of a text. What EXECUTE needs and
//! the server connection lacks is prepared there first, in messages whose answers the client never sees;
//! its Query waits for them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::pool::server::ServerState;
use crate::pool::statements::{Kind, Missing, PREFIX, Statement};
use crate::proxy::analyzer::Analyzer;
use crate::proxy::care::{Care, Effect};
use crate::proxy::commands::Change;
use crate::proxy::conversation::{Conversation, Next};
use crate::proxy::expect::Expect;
use crate::proxy::from_client::Ways;
use crate::proxy::mentions::{Mention, Verb};
use crate::proxy::meter::templates::Place;
use crate::proxy::sequences::Draw;
use crate::proxy::statements::{Entry, MAX_STATEMENTS};
use crate::wire::message::{self, Failure};

/// What the server's answers to a text of named statements mean.
#[derive(Debug, Default)]
pub struct NamedQuery {
    /// What each PREPARE and DEALLOCATE does, in order.
    changes: VecDeque<Change>,
    /// The names that were exchanged.
    pub names: Vec<Renamed>,
    /// Where names of another length stand in the text that was sent.
    pub shifts: Vec<Shift>,
}

/// A name on the server and the client's for it.
#[derive(Debug)]
pub struct Renamed {
    /// On the server.
    pub server: Box<[u8]>,
    /// The client's.
    pub client: Box<[u8]>,
}

/// A place behind which the server's text is longer, or shorter, than the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// In characters of the server's text.
    pub at: usize,
    /// By so many characters.
    pub by: isize,
}

/// A text as the server gets it, and what that takes.
#[derive(Default)]
struct Plan {
    text: Vec<u8>,
    query: NamedQuery,
    /// Must be on the server connection before.
    needed: Vec<Arc<Statement>>,
    /// Must not be there, as the text makes them.
    made: Vec<Arc<Statement>>,
    /// What runs, and what it needs.
    run: Vec<Entry>,
    /// Names as they are after the mentions read so far.
    names: Vec<(Box<[u8]>, Option<Entry>)>,
    cleared: bool,
}

impl Plan {
    fn resolve(&self, talk: &Conversation, name: &[u8]) -> Option<Entry> {
        if let Some((_, meaning)) = self.names.iter().rev().find(|(other, _)| **other == *name) {
            return meaning.clone();
        }
        if self.cleared { None } else { talk.statements.get(name).cloned() }
    }

    fn need(&mut self, statement: &Arc<Statement>) {
        if !self.needed.contains(statement) && !self.made.contains(statement) {
            self.needed.push(statement.clone());
        }
    }

    /// Appends the text up to a name, and another name for it.
    fn splice(&mut self, sql: &[u8], from: usize, span: &Range<usize>, name: &[u8]) {
        self.text.extend_from_slice(sql.get(from..span.start).unwrap_or_default());
        self.text.extend_from_slice(name);
        let old = characters(sql.get(span.clone()).unwrap_or_default());
        let by = characters(name).cast_signed() - old.cast_signed();
        self.query.shifts.push(Shift { at: characters(&self.text), by });
    }

    /// One mention; gives the name that the server's text has for it, if another one.
    fn mention(
        &mut self,
        talk: &Conversation,
        mention: &Mention,
        sql: &[u8],
        analyzer: &mut Analyzer,
    ) -> Option<Vec<u8>> {
        let known = self.resolve(talk, &mention.name);
        match (&mention.verb, known) {
            (Verb::DeallocateAll, _) => {
                self.cleared = true;
                self.names.clear();
                self.query.changes.push_back(Change::DeallocateAll);
                None
            }
            (Verb::Prepare { tail, inner }, None) => {
                let care = analyzer.analyze(sql.get(inner.clone()).unwrap_or_default()).extended_care();
                let tail = sql.get(tail.clone()).unwrap_or_default();
                let read = analyzer.functions_id();
                Some(self.prepare(talk, &mention.name, tail, (care, read)))
            }
            // The server refuses a name that is taken, after it has looked at the statement.
            (Verb::Prepare { .. }, Some(entry)) => {
                self.need(&entry.statement);
                Some(entry.statement.name.to_vec())
            }
            // EXECUTE of a statement that is itself about a name: what it would do cannot be followed, so it is refused.
            (Verb::Execute, Some(entry)) if entry.command.is_some() => Some(PREFIX.to_vec()),
            (Verb::Execute, Some(entry)) => {
                self.need(&entry.statement);
                let name = entry.statement.name.to_vec();
                self.run.push(entry);
                Some(name)
            }
            (Verb::Deallocate, Some(_)) => {
                // Others use the same statement: something else is dropped in its place.
                let tail = format!(" AS SELECT {}", self.query.changes.len());
                let dummy = Arc::new(Statement::sql(tail.as_bytes(), 0));
                self.need(&dummy);
                self.names.push((mention.name.clone(), None));
                let name = dummy.name.to_vec();
                self.query.changes.push_back(Change::Deallocate(mention.name.clone(), dummy));
                Some(name)
            }
            // The server does not know it either, unless it is one of ours.
            (Verb::Execute | Verb::Deallocate, None) => mention.name.starts_with(PREFIX).then(|| PREFIX.to_vec()),
        }
    }

    fn prepare(&mut self, talk: &Conversation, name: &[u8], tail: &[u8], (care, read): (Care, u64)) -> Vec<u8> {
        let mut tail = tail.to_vec();
        let statement = loop {
            let statement = talk.interned.statements.intern(Statement::sql(&tail, talk.meaning_now()));
            if !self.made.contains(&statement) && !self.needed.contains(&statement) {
                break statement;
            }
            // Another name for the same text within this one.
            tail.push(b' ');
        };
        self.made.push(statement.clone());
        let server_name = statement.name.to_vec();
        let entry = Entry { statement, care, read, command: None };
        self.names.push((name.into(), Some(entry.clone())));
        self.query.changes.push_back(Change::Prepare(name.into(), entry));
        server_name
    }
}

/// Characters of a text in UTF-8.
fn characters(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
}

impl Conversation {
    /// DEALLOCATE that needs no server: the command's tag, when it is one.
    pub(super) fn deallocate(&mut self, effect: &Effect) -> Option<&'static [u8]> {
        match effect {
            // The server has them by these names.
            _ if self.plain => None,
            Effect::Deallocate(name) if self.status != b'E' && self.statements.get(name).is_some() => {
                self.statements.set(name, None);
                Some(b"DEALLOCATE")
            }
            // A connection with state of its own may know names that the proxy does not.
            Effect::DeallocateAll if self.status != b'E' && self.care.is_clean() => {
                self.statements.clear();
                Some(b"DEALLOCATE ALL")
            }
            _ => None,
        }
    }

    /// A Query that speaks of prepared statements.
    pub(super) fn named_query(
        &mut self,
        sql: &[u8],
        mentions: &[Mention],
        place: Place,
        ways: &mut Ways<'_>,
    ) -> Result<Option<Next>, Next> {
        if !self.expects.is_empty() {
            return Ok(Some(Next::Stall));
        }
        if let Some(error) = self.ahead_failed.take() {
            message::frame(ways.to_client, b'E', |out| out.extend_from_slice(&error));
            message::ready(ways.to_client, self.status);
            return Ok(None);
        }
        mentions.iter().for_each(|mention| self.statements.renew_care(&mention.name, ways.analyzer));
        let mut plan = Plan::default();
        let mut at = 0;
        for mention in mentions {
            if let Some(name) = plan.mention(self, mention, sql, ways.analyzer) {
                plan.splice(sql, at, &mention.span, &name);
                plan.query.names.push(Renamed { server: name.into(), client: mention.name.clone() });
                at = mention.span.end;
            }
        }
        plan.text.extend_from_slice(sql.get(at..).unwrap_or_default());
        if self.statements.len() + plan.made.len() > MAX_STATEMENTS {
            let failure = Failure::error("53400", format!("more than {MAX_STATEMENTS} prepared statements"));
            self.refuse(failure.hint("DEALLOCATE those that are not needed any more"), ways);
            self.sync(b"S\0\0\0\x04", ways);
            return Ok(None);
        }
        let care = plan.run.iter().fold(Care::CLEAN, |care, entry| care | entry.care);
        if let Draw::Refused(failure) = self.draw_by_query(care, ways)? {
            self.refuse(failure, ways);
            self.sync(b"S\0\0\0\x04", ways);
            return Ok(None);
        }
        let Some(state) = ways.state.as_deref_mut() else { return Ok(Some(Next::NeedServer)) };
        if plan.needed.iter().any(|statement| !state.prepared.has(statement)) {
            for statement in &plan.needed {
                self.prepare_ahead(statement, ways);
            }
            return Ok(Some(Next::Stall));
        }
        for statement in &plan.made {
            let Some(state) = ways.state.as_deref_mut() else { break };
            let closed = state.prepared.forget(statement.key).or_else(|| state.prepared.make_room());
            self.close_evicted(closed, ways);
        }
        for entry in &plan.run {
            self.use_care(entry.care, &entry.statement.rest, ways);
        }
        if plan.run.iter().any(|entry| entry.care.has(Care::BY_NAME)) {
            self.see_parameters(sql);
        }
        message::query(ways.to_server, &plan.text);
        self.change_segment = self.segment;
        self.sent_query(Expect::NamedQuery(Box::new(plan.query)), place, ways);
        Ok(None)
    }

    /// What an effect changes as soon as it is sent.
    pub(super) fn before(&mut self, effect: &Effect, ways: &mut Ways<'_>) {
        match effect {
            // Inside a transaction it may yet be rolled back.
            Effect::Set(..) | Effect::ResetAll | Effect::Several(_) if self.status != b'I' || self.unsynced => {
                self.see_to(effect.care(), effect.names());
            }
            Effect::DeallocateAll | Effect::DiscardAll => {
                self.statements.clear();
                if let Some(state) = &mut ways.state {
                    state.prepared.clear();
                }
            }
            _ => {}
        }
    }

    /// Prepares a statement before the client's next message is sent.
    fn prepare_ahead(&mut self, statement: &Arc<Statement>, ways: &mut Ways<'_>) {
        let Some(state) = ways.state.as_deref_mut() else { return };
        let Missing::Parse(evicted) = state.prepared.require(statement) else { return };
        self.close_evicted(evicted, ways);
        match statement.kind {
            Kind::Sql => message::query(ways.to_server, &statement.prepare()),
            Kind::Protocol => {
                message::parse(ways.to_server, &statement.name, &statement.rest);
                message::sync(ways.to_server);
            }
        }
        self.sent_query(Expect::Ahead(statement.clone()), Place::default(), ways);
    }

    /// The server says that a command of the Query at the head is done.
    pub(super) fn command_done(&mut self, tag: &[u8], state: &mut ServerState) {
        let Some(Expect::NamedQuery(query)) = self.expects.head_mut() else { return };
        if !matches!(tag, b"PREPARE\0" | b"DEALLOCATE\0" | b"DEALLOCATE ALL\0") {
            return;
        }
        match query.changes.pop_front() {
            Some(Change::Prepare(name, entry)) => {
                state.prepared.note(entry.statement.clone());
                self.statements.set(&name, Some(entry));
            }
            Some(Change::Deallocate(name, dummy)) => {
                state.prepared.forget(dummy.key);
                self.statements.set(&name, None);
            }
            Some(Change::DeallocateAll) => {
                state.prepared.clear();
                self.statements.clear();
            }
            // Something the proxy did not see coming: nothing on this connection is certain any more.
            None => self.suspect = true,
        }
    }
}
