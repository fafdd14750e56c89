//! Prepared statements: what the client calls them, what the server knows them by, and which of them it knows.

use std::sync::Arc;

use crate::pool::statements::{Kind, Missing, PREFIX, Statement};
use crate::proxy::care::Care;
use crate::proxy::commands::command;
use crate::proxy::conversation::{Conversation, Next};
use crate::proxy::expect::{Expect, Named};
use crate::proxy::from_client::{Ways, malformed};
use crate::proxy::statements::{Entry, MAX_STATEMENTS};
use crate::wire::body::Reader;
use crate::wire::message::{self, Failure};

impl Conversation {
    pub(super) fn parse(&mut self, body: &[u8], ways: &mut Ways<'_>) -> Result<Option<Next>, Next> {
        let (name, sql, rest) = split_parse(body).ok_or_else(|| malformed("Parse"))?;
        let verdict = ways.analyzer.analyze(sql);
        let place = ways.analyzer.place();
        if let Some(failure) = self.refused_here(sql, &verdict) {
            self.refuse(failure, ways);
            return Ok(None);
        }
        let (care, read) = (verdict.extended_care(), ways.analyzer.functions_id());
        let command = if verdict.speaks && !self.plain { command(sql, rest, ways.analyzer) } else { None };
        if (command.is_some() || !name.is_empty()) && self.names_unsettled() {
            return Ok(Some(Next::Stall));
        }
        let derived = command.as_deref().map(|command| self.derive(command, ways.analyzer));
        if let Some(needs) = derived.as_ref().and_then(|derived| derived.needs.as_ref()) {
            self.ensure(needs, ways);
        }
        let rest = derived.as_ref().map_or(rest, |derived| &derived.rest);
        let Some(state) = ways.state.as_deref_mut() else { return Ok(Some(Next::NeedServer)) };
        if name.is_empty() {
            self.unnamed_place = place;
            self.unnamed_segment = self.segment;
            message::parse(ways.to_server, b"", rest);
            self.statements.set_unnamed(rest, (care, read), command);
            state.unnamed = (self.id, self.statements.unnamed_count);
            return Ok(self.extended(b"", Expect::ParseUnnamed(self.statements.unnamed_count), ways));
        }
        if self.plain && self.statements.len() < MAX_STATEMENTS {
            self.plain_parse(name, rest, (care, read), ways);
            return Ok(None);
        }
        if let Some(entry) = self.statements.get(name) {
            // The server refuses it after it has looked at the text.
            let taken = entry.statement.clone();
            self.ensure(&taken, ways);
            message::parse(ways.to_server, &taken.name, rest);
            return Ok(self.extended(b"", Expect::NameTaken(name.into()), ways));
        }
        if self.statements.len() >= MAX_STATEMENTS {
            let failure = Failure::error("53400", format!("more than {MAX_STATEMENTS} prepared statements"));
            self.refuse(failure.hint("close those that are not needed any more"), ways);
            return Ok(None);
        }
        let statement = self.interned.statements.intern(Statement::new(rest, self.meaning_now()));
        let missing = match state.prepared.require(&statement) {
            Missing::Nothing if self.may_have_failed() => Missing::Parse(Some(statement.clone())),
            missing => missing,
        };
        let previous = self.statements.set(name, Some(Entry { statement: statement.clone(), care, read, command }));
        let named = |key| Box::new(Named { name: name.into(), previous, key });
        match missing {
            Missing::Nothing => self.expects.push(Expect::Local(b'1', Some(named(None)))),
            Missing::Parse(evicted) => {
                self.close_evicted(evicted, ways);
                message::parse(ways.to_server, &statement.name, rest);
                self.expects.push(Expect::ParseNamed(named(Some(statement.key))));
                self.check_shape(&statement, ways.to_server);
                self.unsynced = true;
            }
        }
        self.change_segment = self.segment;
        Ok(None)
    }

    pub(super) fn close_evicted(&mut self, evicted: Option<Arc<Statement>>, ways: &mut Ways<'_>) {
        if let Some(evicted) = evicted {
            message::named(ways.to_server, b'C', b'S', &evicted.name);
            self.expects.push(Expect::HiddenClose(evicted));
        }
    }

    /// Prepares a statement on the server connection when it is not there.
    pub(super) fn ensure(&mut self, statement: &Arc<Statement>, ways: &mut Ways<'_>) {
        let Some(state) = ways.state.as_deref_mut() else { return };
        if let Missing::Parse(evicted) = state.prepared.require(statement) {
            if statement.kind == Kind::Sql {
                state.forget_unnamed();
            }
            self.close_evicted(evicted, ways);
            match statement.kind {
                Kind::Protocol => {
                    message::parse(ways.to_server, &statement.name, &statement.rest);
                    self.expects.push(Expect::HiddenParse(Some(statement.key)));
                }
                Kind::Sql => self.prepare_inline(statement, ways.to_server),
            }
            self.check_shape(statement, ways.to_server);
            self.change_segment = self.segment;
            self.unsynced = true;
        }
    }

    /// The name that the server knows a statement by, prepared there when need be; `None` when the
    /// client's own name is to be used. The outer error says what to wait for; the inner one was refused.
    pub(super) fn server_name(
        &mut self,
        name: &[u8],
        ways: &mut Ways<'_>,
    ) -> Result<Result<Option<Arc<Statement>>, ()>, Next> {
        if ways.state.is_none() {
            return Err(Next::NeedServer);
        }
        self.change = None;
        self.statements.renew_care(name, ways.analyzer);
        if name.is_empty() {
            if self.statements.command(name).is_some() {
                if self.names_unsettled() {
                    return Err(Next::Stall);
                }
                self.change = self.refresh(name, ways).map(Box::new);
            }
            if !self.statements.unnamed_care.is_clean() {
                let text = self.statements.unnamed().unwrap_or_default().to_vec();
                self.use_care(self.statements.unnamed_care, &text, ways);
            }
            return self.unnamed(ways);
        }
        if self.names_unsettled() {
            return Err(Next::Stall);
        }
        if self.statements.get(name).is_some_and(|entry| entry.command.is_some()) {
            self.change = self.refresh(name, ways).map(Box::new);
        }
        self.renew(name);
        match self.statements.get(name) {
            Some(entry) => {
                let (statement, care) = (entry.statement.clone(), entry.care);
                self.use_care(care, &statement.rest, ways);
                if self.plain {
                    return Ok(Ok(Some(statement)));
                }
                self.ensure(&statement, ways);
                // What forgets all statements would have it checked for ever.
                let settled = if care.has(Care::FORGETS) { Ok(true) } else { self.settle_shape(&statement, ways) };
                settled.map(|fits| if fits { Ok(Some(statement)) } else { Err(()) })
            }
            // The server knows it by this name only if SQL's PREPARE made it, on a connection that is pinned.
            None if self.plain || !name.starts_with(PREFIX) => Ok(Ok(None)),
            None => {
                let shown = String::from_utf8_lossy(name);
                let message = format!("prepared statement \"{shown}\" does not exist");
                self.refuse(Failure::error("26000", message), ways);
                Ok(Err(()))
            }
        }
    }

    fn unnamed(&mut self, ways: &mut Ways<'_>) -> Result<Result<Option<Arc<Statement>>, ()>, Next> {
        let Some(state) = ways.state.as_deref_mut() else { return Err(Next::NeedServer) };
        if self.unnamed_segment != self.segment && !self.expects.is_empty() {
            return Err(Next::Stall);
        }
        if state.unnamed == (self.id, self.statements.unnamed_count) {
            return self.settle_unnamed(ways).map(|fits| if fits { Ok(None) } else { Err(()) });
        }
        if let Some(rest) = self.statements.unnamed() {
            message::parse(ways.to_server, b"", rest);
            state.unnamed = (self.id, self.statements.unnamed_count);
            self.expects.push(Expect::HiddenParse(None));
            self.unnamed_segment = self.segment;
            self.change_segment = self.segment;
            self.unsynced = true;
            self.check_unnamed(ways.to_server);
            return self.settle_unnamed(ways).map(|fits| if fits { Ok(None) } else { Err(()) });
        }
        self.refuse(Failure::error("26000", "unnamed prepared statement does not exist"), ways);
        Ok(Err(()))
    }
}

/// Name, text, and text with its terminator and the parameter types, of a well-formed Parse.
fn split_parse(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut reader = Reader::new(body);
    let name = reader.cstr().ok()?;
    let rest = reader.rest();
    let sql = reader.cstr().ok()?;
    let count = reader.u16().ok()? as usize;
    (reader.rest().len() == 4 * count).then_some((name, sql, rest))
}
