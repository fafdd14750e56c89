//! Session mode: a client that has its server connection to itself prepares statements there under its own names.
//!
//! Nothing is shared, so nothing has to be exchanged, prepared again or healed: the server shows and says what it
//! would without a proxy. What the proxy notes of a statement is only what it needs when it runs. The connection is
//! emptied (DISCARD ALL) before it serves the next client.

use crate::pool::statements::Statement;
use crate::proxy::care::Care;
use crate::proxy::conversation::Conversation;
use crate::proxy::expect::{Expect, Named};
use crate::proxy::from_client::Ways;
use crate::proxy::statements::Entry;
use crate::wire::message;

impl Conversation {
    /// Notes whether the server connection that the client has just got is its own until it leaves.
    pub fn keep_connection(&mut self, keeps: bool) {
        self.keeps = keeps;
        // What it prepared while that was otherwise stays with the names it was given.
        self.plain = keeps && self.statements.is_empty() && self.statements.unnamed().is_none();
    }

    /// Parse of a named statement; whether the name is free is for the server to say.
    pub(super) fn plain_parse(&mut self, name: &[u8], rest: &[u8], (care, read): (Care, u64), ways: &mut Ways<'_>) {
        let statement = self.interned.statements.intern(Statement::new(rest, self.meaning_now()));
        let previous = self.statements.set(name, Some(Entry { statement, care, read, command: None }));
        message::parse(ways.to_server, name, rest);
        self.expects.push(Expect::ParseNamed(Box::new(Named { name: name.into(), previous, key: None })));
        self.unsynced = true;
    }
}
