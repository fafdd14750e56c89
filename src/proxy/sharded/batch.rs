//! The messages of one group on their way to one server, and which of its answers are the client's.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::pool::server::ServerState;
use crate::pool::statements::{Missing, Statement};
use crate::proxy::sharded::link::Frame;
use crate::proxy::sharded::names::Named;
use crate::wire::message;

/// An answer that a server owes, or one that is given in its place.
#[derive(Debug)]
enum Owed {
    /// ParseComplete of this statement; the client hears of it or not.
    Parse(Option<Arc<Statement>>, bool),
    /// CloseComplete of a statement that made room; the client does not hear of it.
    Evicted(Arc<Statement>),
    /// ParseComplete in the server's place: the statement is there already.
    Known,
    /// BindComplete, CloseComplete of a portal, a description, or the end of an Execute.
    Plain,
}

/// The answers owed for one group by one server.
#[derive(Debug, Default)]
pub(super) struct Owing {
    queue: VecDeque<Owed>,
}

/// What a frame is to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// ParseCompletes to be given before it.
    pub known: usize,
    /// It is passed on.
    pub forward: bool,
    /// It ends the group (ReadyForQuery).
    pub last: bool,
}

impl Owing {
    /// Queues Parse for a statement, unless the server has it.
    pub fn parse(&mut self, named: &Named, client: u64, state: &mut ServerState, out: &mut Vec<u8>) {
        if named.unnamed {
            state.unnamed = (client, named.count);
            message::parse(out, b"", &named.statement.rest);
            self.queue.push_back(Owed::Parse(None, true));
        } else if !self.require(named, state, out, true) {
            self.queue.push_back(Owed::Known);
        }
    }

    /// Makes sure that the server has a statement, without the client hearing of it; returns its name there.
    pub fn provide<'a>(
        &mut self,
        named: &'a Named,
        client: u64,
        state: &mut ServerState,
        out: &mut Vec<u8>,
    ) -> &'a [u8] {
        if named.unnamed {
            if state.unnamed != (client, named.count) {
                state.unnamed = (client, named.count);
                message::parse(out, b"", &named.statement.rest);
                self.queue.push_back(Owed::Parse(None, false));
            }
            return b"";
        }
        self.require(named, state, out, false);
        &named.statement.name
    }

    /// Sends Parse when the statement is missing; true when it did.
    fn require(&mut self, named: &Named, state: &mut ServerState, out: &mut Vec<u8>, heard: bool) -> bool {
        let Missing::Parse(evicted) = state.prepared.require(&named.statement) else { return false };
        if let Some(old) = evicted {
            message::named(out, b'C', b'S', &old.name);
            self.queue.push_back(Owed::Evicted(old));
        }
        message::parse(out, &named.statement.name, &named.statement.rest);
        self.queue.push_back(Owed::Parse(Some(named.statement.clone()), heard));
        true
    }

    /// Notes a message that has one answer.
    pub fn plain(&mut self) {
        self.queue.push_back(Owed::Plain);
    }

    fn known_at_front(&mut self) -> usize {
        let mut known = 0;
        while matches!(self.queue.front(), Some(Owed::Known)) {
            self.queue.pop_front();
            known += 1;
        }
        known
    }

    /// What an answer is to the client.
    pub fn hear(&mut self, frame: Frame<'_>) -> Heard {
        let known = self.known_at_front();
        let mut heard = Heard { known, forward: true, last: false };
        match frame.tag {
            b'1' | b'3' => {
                heard.forward = match self.queue.pop_front() {
                    Some(Owed::Parse(_, client_hears)) => client_hears,
                    Some(Owed::Evicted(_)) => false,
                    _ => true,
                };
            }
            b'2' | b'T' | b'n' | b'C' | b'I' | b's' => drop(self.queue.pop_front()),
            b'Z' => {
                heard.last = true;
                heard.forward = false;
            }
            _ => {}
        }
        heard
    }

    /// After the group: takes back what a server that failed did not do. The rest of the queue is what it skipped.
    pub fn settle(self, state: &mut ServerState) {
        for skipped in self.queue {
            match skipped {
                Owed::Parse(Some(statement), _) => state.prepared.undo(statement.key),
                Owed::Parse(None, _) => state.unnamed = (0, 0),
                Owed::Evicted(statement) => state.prepared.restore(statement),
                Owed::Known | Owed::Plain => {}
            }
        }
    }
}
