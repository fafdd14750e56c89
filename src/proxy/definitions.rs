//! Tells statements that were prepared before a definition changed from those prepared after it.
//!
//! PostgreSQL fixes the types of a statement's parameters when it is prepared, and refuses to run it once its columns
//! would be others. Clients share prepared statements here, so one that prepares `INSERT INTO t VALUES ($1)` after `t` was
//! made anew must not be given what another client prepared before. What a statement is known by therefore holds a
//! number that rises with every definition committed through this process; and inside a transaction that has defined
//! something, or next to temporary tables, a number that nobody else has.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::pool::settings::{Settings, context};
use crate::proxy::care::Care;
use crate::proxy::conversation::Conversation;

/// What one client has defined.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// Statements so far that may have defined something.
    count: u32,
    /// There were some since it got its server connection.
    here: bool,
    /// Others may see them as soon as the transaction is over.
    shared: bool,
}

/// Tells apart sessions, and times, in which the same text may be prepared differently.
pub fn meaning(settings: &Settings, definitions: u64, own: Option<(u64, u32)>) -> usize {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one((context(settings), definitions, own)) as usize
}

impl Conversation {
    /// Notes what a statement may define.
    pub(super) fn see_definition(&mut self, care: Care) {
        if care.has(Care::DEFINES) {
            self.definitions.count = self.definitions.count.wrapping_add(1);
            self.definitions.here = true;
            // Temporary tables are nobody else's.
            self.definitions.shared |= care.has(Care::CREATES) || !care.has(Care::STATE);
        }
    }

    /// Lets others see what a transaction has defined that is over.
    pub(super) fn publish_definitions(&mut self) {
        if std::mem::take(&mut self.definitions.shared) {
            self.interned.definitions.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Notes that the server connection was taken away.
    pub(super) fn leave_definitions(&mut self) {
        self.publish_definitions();
        self.definitions.here = false;
    }

    /// What a statement means that is prepared now.
    pub(super) fn meaning_now(&self) -> usize {
        let own = self.definitions.here.then_some((self.id, self.definitions.count));
        meaning(&self.want, number(&self.interned.definitions), own)
    }
}

/// The number of definitions that are committed.
pub fn number(definitions: &AtomicU64) -> u64 {
    definitions.load(Ordering::Acquire)
}
