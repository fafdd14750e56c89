//! What a server still owes, in order.
//!
//! Every message sent to a server is noted here, so that each answer is known for what it is: the client's,
//! or one to a message of our own that the client must not see. A connection whose queue is not empty
//! belongs to its client, and is closed with it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::pool::settings::Settings;
use crate::pool::statements::Statement;
use crate::proxy::by_name::NamedQuery;
use crate::proxy::care::Effect;
use crate::proxy::commands::Undo;
use crate::proxy::guard::Ruling;
use crate::proxy::meter::templates::Place;
use crate::proxy::probe::Probe;
use crate::proxy::statements::Entry;
use crate::wire::message::Failure;

/// One answer, or several up to a ReadyForQuery.
#[derive(Debug)]
pub enum Expect {
    /// A Query of ours: all up to its ReadyForQuery is ours.
    Injected,
    /// A Query of ours that gives these settings back after a reset; it fails where the transaction has.
    Restored(Box<Settings>),
    /// A question of ours about the session.
    Probe(Box<Probe>),
    /// ParseComplete of a statement that we prepared for the client; its key unless it is the unnamed one.
    HiddenParse(Option<u128>),
    /// BindComplete or CloseComplete on the way to the next.
    Hidden(u8),
    /// CommandComplete of a PREPARE of ours; the statement's key.
    HiddenPrepare(u128),
    /// CommandComplete of our DISCARD SEQUENCES.
    HiddenForget,
    /// CloseComplete of a statement that we closed to make room.
    HiddenClose(Arc<Statement>),
    /// ParseComplete of an unnamed statement, by the client's count of them.
    ParseUnnamed(u64),
    /// ParseComplete of a named statement, which is confirmed on the server connection by it.
    ParseNamed(Box<Named>),
    /// An error: this name is taken.
    NameTaken(Box<[u8]>),
    /// ParseComplete or CloseComplete that the proxy gives itself, when it is its turn.
    Local(u8, Option<Box<Named>>),
    /// No answer: what a guard says of the statement that comes next.
    Comment(Arc<Ruling>),
    /// BindComplete; by what the statement's text meant when it was prepared, 0 where that is not known, and by a hash of the
    /// client's name for it.
    Bind(usize, u32),
    /// RowDescription or NoData, perhaps after ParameterDescription; of whom, where that is to be remembered.
    Describe(Option<Subject>),
    /// The same, asked by us: whether it is still what clients were told.
    Check(Subject),
    /// Rows up to CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// The same of PREPARE or DEALLOCATE.
    ExecuteCommand(Box<Undo>),
    /// CloseComplete of a portal, or of a statement that the server knows by the client's name.
    Close,
    /// An error, which stands for this refusal of ours.
    Refusal(Box<Failure>),
    /// An error, which stands for PostgreSQL's "cached plan must not change result type".
    Changed,
    /// No answer: the client ended a COPY here.
    CopyEnd,
    /// ReadyForQuery.
    Sync,
    /// All up to ReadyForQuery.
    Query(Option<Box<Effect>>),
    /// The same of a text that speaks of prepared statements by name.
    NamedQuery(Box<NamedQuery>),
    /// ReadyForQuery after an error that the client does not hear of.
    Failed,
    /// All up to ReadyForQuery is ours: a statement that the next message of the client needs.
    Ahead(Arc<Statement>),
}

/// What is described.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A statement that clients share.
    Shared(Arc<Statement>),
    /// The unnamed one, by the client's count of them.
    Unnamed(u64),
}

/// A change to the client's names that is undone when the server skips it.
#[derive(Debug)]
pub struct Named {
    /// The client's name.
    pub name: Box<[u8]>,
    /// What the name meant before.
    pub previous: Option<Entry>,
    /// The statement's key on the server connection, when this Parse prepares it.
    pub key: Option<u128>,
}

/// The queue of a client's conversation with its server.
#[derive(Debug, Default)]
pub struct Expects {
    queue: VecDeque<Expect>,
    /// Parse messages of the client, those for the server, and Bind messages since somebody asked.
    pub parsed: (u32, u32, u32),
    /// Where each Execute and Query in the queue is counted, in order.
    places: VecDeque<Place>,
    /// Where the next one is.
    pub place: Place,
    /// Where the one is that was taken last.
    pub taken: Place,
    /// Entries that change names or prepared statements and are not confirmed yet.
    pub changes: usize,
    /// Descriptions that are being compared with earlier ones.
    pub checks: usize,
}

impl Expects {
    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// True when only answers to ourselves are owed.
    pub fn only_own(&self) -> bool {
        self.queue.iter().all(Expect::is_own)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// The entry whose answer comes next.
    pub fn head(&self) -> Option<&Expect> {
        self.queue.front()
    }

    /// The same, for keeping count of what has been answered.
    pub fn head_mut(&mut self) -> Option<&mut Expect> {
        self.queue.front_mut()
    }

    /// Whether nothing but one ReadyForQuery, or one Query, is owed.
    pub fn is_last_segment(&self) -> bool {
        let ends = |expect: &&Expect| matches!(expect, Expect::Sync | Expect::Query(_) | Expect::NamedQuery(_));
        self.queue.iter().filter(ends).count() == 1 && self.queue.back().as_ref().is_some_and(ends)
    }

    /// The ReadyForQuery at the head is not for the client.
    pub fn fail_head(&mut self) {
        self.pop();
        self.queue.push_front(Expect::Failed);
    }

    /// Notes a message that was sent.
    pub fn push(&mut self, expect: Expect) {
        self.changes += usize::from(expect.is_change());
        self.checks += usize::from(matches!(expect, Expect::Check(_)));
        match expect {
            Expect::Execute | Expect::Query(_) => self.places.push_back(self.place),
            Expect::Bind(..) => self.parsed.2 += 1,
            Expect::ParseUnnamed(_) | Expect::ParseNamed(_) => {
                self.parsed.0 += 1;
                self.parsed.1 += 1;
            }
            Expect::HiddenParse(_) => self.parsed.1 += 1,
            Expect::Local(b'1', _) => self.parsed.0 += 1,
            _ => {}
        }
        self.queue.push_back(expect);
    }

    /// Takes the entry whose answer is complete.
    pub fn pop(&mut self) -> Option<Expect> {
        let taken = self.queue.pop_front()?;
        self.changes -= usize::from(taken.is_change());
        self.checks -= usize::from(matches!(taken, Expect::Check(_)));
        if taken.is_counted() {
            self.taken = self.places.pop_front().unwrap_or_default();
        }
        Some(taken)
    }

    /// Gives a row to the question that it answers.
    pub fn probe_row(&mut self, body: &[u8]) {
        if let Some(Expect::Probe(probe)) = self.queue.front_mut() {
            probe.row(body);
        }
    }

    /// The newest entry.
    pub fn last(&self) -> Option<&Expect> {
        self.queue.back()
    }

    /// Whether the head needs no answer of the server.
    pub fn local_is_due(&self) -> bool {
        matches!(self.head(), Some(Expect::Local(..) | Expect::Comment(_) | Expect::CopyEnd))
    }

    /// Takes the head when it is complete without an answer of the server.
    pub fn pop_local(&mut self) -> Option<Expect> {
        if self.local_is_due() { self.pop() } else { None }
    }

    /// The next entry that the server skips after an error: anything before the next Sync.
    pub fn pop_skipped(&mut self) -> Option<Expect> {
        if matches!(self.head(), Some(Expect::Sync) | None) { None } else { self.pop() }
    }

    /// The next entry before a ReadyForQuery.
    pub fn pop_unready(&mut self) -> Option<Expect> {
        let ready = matches!(self.head(), Some(Expect::Sync | Expect::Query(_) | Expect::NamedQuery(_)) | None);
        if ready { None } else { self.pop() }
    }

    /// After the head's Execute turned out to be COPY FROM: Syncs that the server will read as part of the
    /// copy, and ignore. Gives their number and whether the copy's end was sent already.
    pub fn drop_syncs_in_copy(&mut self) -> (usize, bool) {
        let end = self.queue.iter().position(|expect| matches!(expect, Expect::CopyEnd));
        let (mut at, mut dropped) = (0, 0);
        let limit = end.unwrap_or(self.queue.len());
        // A text may hold several copies, each with an end of its own.
        let end = end.filter(|&end| self.queue.remove(end).is_some());
        self.queue.retain(|expect| {
            let drop = at < limit && matches!(expect, Expect::Sync);
            at += 1;
            dropped += usize::from(drop);
            !drop
        });
        (dropped, end.is_some())
    }

    /// The client's name of a statement until a message took it that is not answered yet.
    pub fn former_name(&self, server_name: &[u8]) -> Option<&[u8]> {
        self.queue.iter().find_map(|expect| match expect {
            Expect::ParseNamed(named) | Expect::Local(_, Some(named)) => {
                let was = named.previous.as_ref().filter(|entry| *entry.statement.name == *server_name);
                was.map(|_| &*named.name)
            }
            Expect::ExecuteCommand(undo) => undo.former_name(server_name),
            _ => None,
        })
    }

    /// Whether the server was asked to be ready again.
    pub fn has_sync(&self) -> bool {
        self.queue.iter().any(|expect| matches!(expect, Expect::Sync))
    }

    /// Frees memory that a burst of messages took.
    pub fn shrink(&mut self) {
        if self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
            self.places = VecDeque::new();
        }
    }
}

impl Expect {
    /// True for what runs a statement of the client's.
    fn is_counted(&self) -> bool {
        matches!(self, Self::Execute | Self::ExecuteCommand(_) | Self::Query(_) | Self::NamedQuery(_))
    }

    /// True for what is answered to us alone, up to its ReadyForQuery.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Injected | Self::Restored(_) | Self::Probe(_))
    }

    fn is_change(&self) -> bool {
        match self {
            Self::Check(_)
            | Self::HiddenParse(_)
            | Self::HiddenPrepare(_)
            | Self::HiddenClose(_)
            | Self::ParseNamed(_)
            | Self::ExecuteCommand(_)
            | Self::NamedQuery(_) => true,
            Self::Local(_, named) => named.is_some(),
            _ => false,
        }
    }
}
