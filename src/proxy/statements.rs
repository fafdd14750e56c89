//! A client's own names of prepared statements.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pool::statements::Statement;
use crate::proxy::care::Care;

/// Most named statements of one client.
pub const MAX_STATEMENTS: usize = 10_000;

/// Named statements and what each needs when it runs.
type Named = HashMap<Box<[u8]>, (Arc<Statement>, Care)>;

/// What a client has prepared.
#[derive(Debug, Default)]
pub struct Statements {
    /// Named ones; no map at all for the many clients that have none.
    named: Option<Box<Named>>,
    /// The unnamed one: text, terminator and types; empty when there is none.
    unnamed: Vec<u8>,
    /// What the unnamed one needs when it runs.
    pub unnamed_care: Care,
    /// Counts unnamed statements, so that a server connection's can be told from a later one.
    pub unnamed_count: u64,
}

impl Statements {
    /// The statement of that name.
    pub fn get(&self, name: &[u8]) -> Option<&(Arc<Statement>, Care)> {
        self.named.as_ref()?.get(name)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.named.as_ref().map_or(0, |named| named.len())
    }

    /// True when no statement has a name.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives a name its meaning, or takes it away; what it meant before is returned.
    pub fn set(&mut self, name: &[u8], statement: Option<(Arc<Statement>, Care)>) -> Option<(Arc<Statement>, Care)> {
        match statement {
            Some(statement) => self.named.get_or_insert_default().insert(name.into(), statement),
            None => self.named.as_mut()?.remove(name),
        }
    }

    /// Forgets all names.
    pub fn clear(&mut self) {
        self.named = None;
    }

    /// Replaces the unnamed statement.
    pub fn set_unnamed(&mut self, rest: &[u8], care: Care) {
        self.unnamed.clear();
        self.unnamed.extend_from_slice(rest);
        self.unnamed_care = care;
        self.unnamed_count += 1;
    }

    /// Forgets the unnamed statement, as a simple Query does.
    pub fn drop_unnamed(&mut self) {
        if self.unnamed.capacity() > 4096 {
            self.unnamed = Vec::new();
        }
        self.unnamed.clear();
    }

    /// The unnamed statement: text, terminator and types.
    pub fn unnamed(&self) -> Option<&[u8]> {
        (!self.unnamed.is_empty()).then_some(self.unnamed.as_slice())
    }
}
