//! Whether a statement still is what its clients were told: see [`crate::pool::shape`].
//!
//! What clients are told of a statement is remembered with it. When it is prepared once more, on another server
//! connection or after the one that was there is out of date, it is described once more, for us alone, and a client
//! that uses it waits for the answer. Where that differs, using it fails with PostgreSQL's own error.

use std::sync::Arc;

use crate::pool::server::ServerState;
use crate::pool::statements::{Kind, Statement};
use crate::proxy::conversation::{Conversation, Next};
use crate::proxy::expect::{Expect, Subject};
use crate::proxy::from_client::Ways;
use crate::proxy::heal::result_has_changed;
use crate::wire::message::{self, Failure};

use super::from_server::Fate;

/// The portal that was bound last, where its description is worth remembering.
#[derive(Debug)]
pub(super) struct Bound {
    portal: Box<[u8]>,
    statement: Arc<Statement>,
}

/// What PostgreSQL says when it finds the same.
pub(super) fn changed() -> Failure {
    Failure {
        routine: Some("RevalidateCachedQuery"),
        ..Failure::error("0A000", "cached plan must not change result type")
    }
}

/// ParameterDescription, RowDescription, NoData.
pub(super) fn is_description(tag: u8) -> bool {
    matches!(tag, b't' | b'T' | b'n')
}

impl Conversation {
    /// After a shared statement was prepared: has it described, when clients were told what it is.
    pub(super) fn check_shape(&mut self, statement: &Arc<Statement>, to_server: &mut Vec<u8>) {
        if statement.shape.is_known() {
            message::named(to_server, b'D', b'S', &statement.name);
            self.expects.push(Expect::Check(Subject::Shared(statement.clone())));
        }
    }

    /// The same for the unnamed one, when it was prepared again.
    pub(super) fn check_unnamed(&mut self, to_server: &mut Vec<u8>) {
        if self.statements.unnamed_shape.is_known() {
            message::named(to_server, b'D', b'S', b"");
            self.expects.push(Expect::Check(Subject::Unnamed(self.statements.unnamed_count)));
        }
    }

    /// Whether a statement that is there may be used; it is refused where it has changed.
    ///
    /// # Errors
    /// That is to be waited for.
    pub(super) fn settle_shape(&mut self, statement: &Statement, ways: &mut Ways<'_>) -> Result<bool, Next> {
        let Some(state) = ways.state.as_deref_mut() else { return Err(Next::NeedServer) };
        if self.expects.checks > 0 {
            return Err(Next::Stall);
        }
        let fits = !state.prepared.has_changed(statement);
        if !fits {
            self.refuse_changed(ways);
        }
        Ok(fits)
    }

    /// The same of the unnamed one.
    pub(super) fn settle_unnamed(&mut self, ways: &mut Ways<'_>) -> Result<bool, Next> {
        if self.expects.checks > 0 {
            return Err(Next::Stall);
        }
        if self.is_again() {
            self.statements.forget_shape();
        }
        let fits = !self.statements.unnamed_changed;
        if !fits {
            self.refuse_changed(ways);
        }
        Ok(fits)
    }

    fn refuse_changed(&mut self, ways: &mut Ways<'_>) {
        message::execute(ways.to_server, b"_pgweir_refused");
        self.expects.push(Expect::Changed);
        self.unsynced = true;
    }

    /// What is done again is done with a statement of today.
    pub(super) fn renew(&mut self, name: &[u8]) {
        if !self.is_again() {
            return;
        }
        let Some(mut entry) = self.statements.get(name).cloned() else { return };
        let (kind, rest, now) = (entry.statement.kind, &entry.statement.rest, self.meaning_now());
        if entry.command.is_none() && entry.statement.context != now {
            let renewed = match kind {
                Kind::Protocol => Statement::new(rest, now),
                Kind::Sql => Statement::sql(rest, now),
            };
            entry.statement = self.interned.statements.intern(renewed);
            self.statements.set(name, Some(entry));
        }
    }

    /// Notes what was bound to a portal, so that the portal's description is known for the statement's.
    pub(super) fn note_bound(&mut self, portal: &[u8], statement: Option<&Arc<Statement>>) {
        self.bound_to = statement
            .filter(|statement| !self.plain && !statement.shape.is_described())
            .map(|statement| Bound { portal: portal.into(), statement: statement.clone() });
    }

    /// Whose description a portal's is, where that is worth remembering.
    pub(super) fn described_portal(&self, portal: &[u8]) -> Option<Subject> {
        let bound = self.bound_to.as_ref().filter(|bound| *bound.portal == *portal)?;
        Some(Subject::Shared(bound.statement.clone()))
    }

    /// Whose description a statement's is.
    pub(super) fn subject(&self, name: &[u8], statement: Option<Arc<Statement>>) -> Option<Subject> {
        match statement {
            Some(statement) => Some(Subject::Shared(statement)),
            None => name.is_empty().then_some(Subject::Unnamed(self.statements.unnamed_count)),
        }
    }

    /// Whether the head is a description that is to be looked at.
    pub(super) fn is_described(&self) -> bool {
        matches!(self.expects.head(), Some(Expect::Describe(Some(_)) | Expect::Check(_)))
    }

    /// Looks at a description, which may be too long to be there as a whole.
    pub(super) fn described(
        &mut self,
        tag: u8,
        (body, whole): (&[u8], bool),
        state: &mut ServerState,
        to_client: &mut Vec<u8>,
    ) -> Fate {
        let (subject, asked_by_us) = match self.expects.head() {
            Some(Expect::Check(subject)) => (subject.clone(), true),
            Some(Expect::Describe(Some(subject))) => (subject.clone(), false),
            _ => return Fate::Forward,
        };
        if tag != b't' {
            self.expects.pop();
        }
        let shape = match &subject {
            Subject::Shared(statement) => Some(&statement.shape),
            // A newer one has taken its place.
            Subject::Unnamed(count) if *count != self.statements.unnamed_count => None,
            Subject::Unnamed(_) => Some(&self.statements.unnamed_shape),
        };
        // One that is too long to be looked at is not remembered, and is none that was.
        let fits = match shape {
            Some(shape) if asked_by_us => {
                if whole {
                    shape.agrees(tag, body)
                } else {
                    !shape.is_known()
                }
            }
            Some(shape) => !whole || shape.learn(tag, body),
            None => true,
        };
        match subject {
            _ if fits => {}
            Subject::Shared(statement) => {
                state.prepared.mark_changed(statement.key);
                self.outdate(statement.context);
            }
            Subject::Unnamed(_) => self.statements.unnamed_changed = asked_by_us,
        }
        if asked_by_us || tag == b't' && whole && self.hold_parameters(body) {
            return Fate::Drop;
        }
        self.give_parameters(to_client);
        Fate::Forward
    }

    /// Whether an error says that a statement is not what it was, which also holds for what others have prepared.
    pub(super) fn is_about_change(&mut self, body: &[u8], state: &mut ServerState) -> bool {
        if matches!(self.expects.head(), Some(Expect::Changed)) {
            return true;
        }
        if !result_has_changed(body) {
            return false;
        }
        // Whatever else uses the same table is out of date too.
        state.prepared.distrust();
        state.forget_unnamed();
        let context = match self.expects.head() {
            Some(Expect::Bind(context, _)) => *context,
            Some(Expect::Describe(Some(Subject::Shared(statement)))) => statement.context,
            _ => 0,
        };
        self.outdate(context);
        true
    }

    /// What is prepared from now on is not what was prepared with that meaning: it was defined anew, and not through here.
    fn outdate(&mut self, context: usize) {
        if context == self.meaning_now() {
            self.interned.definitions.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        }
    }
}
