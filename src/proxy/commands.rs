//! PREPARE, EXECUTE and DEALLOCATE as statements of the extended protocol.
//!
//! Such a statement means what its name means when it runs. The client's text is kept, and each Parse, Bind and
//! Describe makes the server's text of it anew. What its Execute changes is applied as it is sent, and undone when the
//! server refuses or skips it.

use std::sync::Arc;

use crate::pool::server::ServerState;
use crate::pool::statements::{PREFIX, Statement};
use crate::proxy::analyzer::Analyzer;
use crate::proxy::care::Care;
use crate::proxy::conversation::Conversation;
use crate::proxy::expect::Expect;
use crate::proxy::from_client::Ways;
use crate::proxy::mentions::{Mention, Verb};
use crate::proxy::statements::{Entry, Names};
use crate::wire::body::Reader;
use crate::wire::message;

/// A statement that speaks of another one by its name.
#[derive(Debug)]
pub struct Command {
    /// Text, terminator and parameter types, as in the client's Parse.
    pub rest: Box<[u8]>,
    /// The name in it.
    pub mention: Mention,
    /// What the statement that PREPARE prepares needs when it runs.
    pub care: Care,
}

/// What Execute of a command changes.
#[derive(Debug)]
pub enum Change {
    /// PREPARE gives a name.
    Prepare(Box<[u8]>, Entry),
    /// DEALLOCATE takes it; the server drops a statement that was made to be dropped.
    Deallocate(Box<[u8]>, Arc<Statement>),
    /// DEALLOCATE ALL.
    DeallocateAll,
}

/// How to take a change back.
#[derive(Debug)]
pub enum Undo {
    /// What a name meant.
    Name(Box<[u8]>, Option<Entry>, Arc<Statement>),
    /// All names.
    All(Names),
}

impl Undo {
    /// The client's name of a statement that servers know as `server_name`, among those that were taken.
    pub fn former_name(&self, server_name: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Name(name, previous, _) => {
                previous.as_ref().filter(|entry| *entry.statement.name == *server_name).map(|_| &**name)
            }
            Self::All(names) => {
                let mut named = names.iter().flat_map(|named| named.iter());
                named.find(|(_, entry)| *entry.statement.name == *server_name).map(|(name, _)| &**name)
            }
        }
    }
}

/// A command with the server's names.
pub(super) struct Derived {
    /// Text, terminator and parameter types.
    pub rest: Vec<u8>,
    /// What has to be on the server connection.
    pub needs: Option<Arc<Statement>>,
    /// What its Execute changes.
    pub change: Option<Change>,
    /// What it needs when it runs.
    pub care: Care,
}

/// The command that a text of the extended protocol is.
pub(super) fn command(sql: &[u8], rest: &[u8], analyzer: &mut Analyzer) -> Option<Arc<Command>> {
    let mention = analyzer.mentions(sql).into_iter().next()?;
    let care = match &mention.verb {
        Verb::Prepare { inner, .. } => analyzer.analyze(sql.get(inner.clone())?).extended_care(),
        _ => Care::CLEAN,
    };
    Some(Arc::new(Command { rest: rest.into(), mention, care }))
}

impl Conversation {
    /// True when what a name means is not known before earlier answers are in.
    pub(super) fn names_unsettled(&self) -> bool {
        !self.plain && self.expects.changes > 0 && self.change_segment < self.segment
    }

    /// Whether the transaction may have failed: then it takes no Parse, which is for the server to say.
    pub(super) fn may_have_failed(&self) -> bool {
        self.status == b'E' || self.status == b'T' && !self.expects.is_empty()
    }

    /// Prepares a statement of SQL's PREPARE between other messages. The portal's name is no client's; the unnamed
    /// statement is made anew when it is needed.
    pub(super) fn prepare_inline(&mut self, statement: &Statement, to_server: &mut Vec<u8>) {
        message::parse(to_server, b"", &[&*statement.prepare(), b"\0\0\0"].concat());
        message::frame(to_server, b'B', |out| {
            message::cstr(out, PREFIX);
            out.extend_from_slice(&[0; 7]);
        });
        message::execute(to_server, PREFIX);
        message::named(to_server, b'C', b'P', PREFIX);
        self.expects.push(Expect::HiddenParse(None));
        self.expects.push(Expect::Hidden(b'2'));
        self.expects.push(Expect::HiddenPrepare(statement.key));
        self.expects.push(Expect::Hidden(b'3'));
    }

    /// The command as it is to run now.
    pub(super) fn derive(&mut self, command: &Command, analyzer: &Analyzer) -> Derived {
        let mention = &command.mention;
        self.statements.renew_care(&mention.name, analyzer);
        let known = self.statements.get(&mention.name).cloned();
        let mut derived = Derived { rest: Vec::new(), needs: None, change: None, care: Care::CLEAN };
        let name = match (&mention.verb, known) {
            (Verb::DeallocateAll, _) => {
                derived.change = Some(Change::DeallocateAll);
                None
            }
            (Verb::Prepare { tail, .. }, None) => {
                let tail = command.rest.get(tail.clone()).unwrap_or_default();
                let statement = self.interned.statements.intern(Statement::sql(tail, self.meaning_now()));
                let name = statement.name.clone();
                // Thought of again when it runs.
                let entry = Entry { statement, care: command.care, read: 0, command: None };
                derived.change = Some(Change::Prepare(mention.name.clone(), entry));
                Some(name)
            }
            // The server refuses a name that is taken.
            (Verb::Prepare { .. }, Some(entry)) => {
                let name = entry.statement.name.clone();
                derived.needs = Some(entry.statement);
                Some(name)
            }
            // What EXECUTE of another command would do cannot be followed.
            (Verb::Execute, Some(entry)) if entry.command.is_some() => Some(PREFIX.into()),
            (Verb::Execute, Some(entry)) => {
                derived.care = entry.care;
                let name = entry.statement.name.clone();
                derived.needs = Some(entry.statement);
                Some(name)
            }
            (Verb::Deallocate, Some(_)) => {
                let dummy = Arc::new(Statement::sql(b" AS SELECT 'dropped'", 0));
                derived.change = Some(Change::Deallocate(mention.name.clone(), dummy.clone()));
                derived.needs = Some(dummy.clone());
                Some(dummy.name.clone())
            }
            (Verb::Execute | Verb::Deallocate, None) => mention.name.starts_with(PREFIX).then(|| PREFIX.into()),
        };
        match name {
            Some(name) => {
                derived.rest.extend_from_slice(command.rest.get(..mention.span.start).unwrap_or_default());
                derived.rest.extend_from_slice(&name);
                derived.rest.extend_from_slice(command.rest.get(mention.span.end..).unwrap_or_default());
            }
            None => derived.rest.extend_from_slice(&command.rest),
        }
        derived
    }

    /// Brings the command that a name (or the unnamed statement) stands for up to date, before it is used; gives what its Execute changes.
    pub(super) fn refresh(&mut self, name: &[u8], ways: &mut Ways<'_>) -> Option<Change> {
        let command = self.statements.command(name)?;
        let derived = self.derive(&command, ways.analyzer);
        if let Some(needs) = &derived.needs {
            self.ensure(needs, ways);
        }
        if let Some(needs) = derived.needs.as_ref().filter(|_| !derived.care.is_clean()) {
            self.use_care(derived.care, &needs.rest, ways);
            self.see_parameters(&command.rest);
        }
        if name.is_empty() {
            if self.statements.unnamed() != Some(derived.rest.as_slice()) {
                let care = (self.statements.unnamed_care, self.statements.unnamed_read);
                self.statements.set_unnamed(&derived.rest, care, Some(command));
            }
        } else if let Some(entry) = self.statements.get(name) {
            let (care, read) = (entry.care, entry.read);
            let statement = self.interned.statements.intern(Statement::new(&derived.rest, self.meaning_now()));
            self.statements.set(name, Some(Entry { statement, care, read, command: Some(command) }));
        }
        derived.change
    }

    /// Notes which portal runs a command.
    pub(super) fn note_portal(&mut self, portal: &[u8], change: Option<Change>) {
        self.portals.retain(|(name, _)| **name != *portal);
        self.portals.extend(change.map(|change| (portal.into(), change)));
    }

    /// Execute, when a portal runs a command.
    pub(super) fn execute_command(&mut self, body: &[u8], ways: &mut Ways<'_>) -> Expect {
        let portal = Reader::new(body).cstr().unwrap_or_default();
        let Some(at) = self.portals.iter().position(|(name, _)| **name == *portal) else { return Expect::Execute };
        let Some(state) = ways.state.as_deref_mut() else { return Expect::Execute };
        let undo = match self.portals.swap_remove(at).1 {
            Change::Prepare(name, entry) => {
                let statement = entry.statement.clone();
                let closed = state.prepared.forget(statement.key).or_else(|| state.prepared.make_room());
                state.prepared.note(statement.clone());
                self.close_evicted(closed, ways);
                Undo::Name(name.clone(), self.statements.set(&name, Some(entry)), statement)
            }
            Change::Deallocate(name, dummy) => {
                state.prepared.forget(dummy.key);
                Undo::Name(name.clone(), self.statements.set(&name, None), dummy)
            }
            Change::DeallocateAll => {
                // Gone or not: closing what is not there does no harm.
                state.prepared.distrust();
                Undo::All(self.statements.take())
            }
        };
        self.change_segment = self.segment;
        Expect::ExecuteCommand(Box::new(undo))
    }

    /// Takes a change back that the server refused or skipped.
    pub(super) fn take_back(&mut self, undo: Undo, state: &mut ServerState) {
        match undo {
            Undo::Name(name, previous, statement) => {
                // It may be there: an error may also have come after it was made.
                state.prepared.restore(statement);
                self.statements.set(&name, previous);
            }
            Undo::All(names) => self.statements.put_back(names),
        }
    }
}
