//! Prepared statements that clients share on a server connection.
//!
//! A client's name means nothing to a server connection that serves another client next. Statements are
//! therefore prepared under a name made of their content (text, parameter types, and the settings
//! that decide what its constants mean), each connection remembers which it has, and prepares what is missing.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

/// Prefix of names on servers; clients may not use it.
pub const PREFIX: &[u8] = b"_pgweir_";

/// One statement as Parse gave it.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its key: a keyed hash of all that follows.
    pub key: u128,
    /// Its name on server connections.
    pub name: Box<[u8]>,
    /// Text, terminator and parameter types, as in Parse.
    pub rest: Box<[u8]>,
    /// Tells apart sessions in which the same text means different things.
    pub context: usize,
}

impl Statement {
    /// The statement of a Parse body without its name.
    pub fn new(rest: &[u8], context: usize) -> Self {
        // Two keyed 64-bit hashes: nobody outside can find two texts that collide, and equality is checked besides.
        static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(|| (RandomState::new(), RandomState::new()));
        let (high, low) = (KEYS.0.hash_one((rest, context)), KEYS.1.hash_one((rest, context)));
        let key = (u128::from(high) << 64) | u128::from(low);
        let name = [PREFIX, format!("{key:032x}").as_bytes()].concat().into_boxed_slice();
        Self { key, name, rest: rest.into(), context }
    }
}

/// What one server connection has prepared, the least recently used going first.
#[derive(Debug)]
pub struct Prepared {
    known: HashMap<u128, (Arc<Statement>, u64)>,
    clock: u64,
    limit: usize,
}

/// What must be sent before a statement can be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: it is there.
    Nothing,
    /// Parse it, after closing this other one when there is one.
    Parse(Option<Arc<Statement>>),
}

impl Prepared {
    /// Holds at most `limit` statements.
    pub fn new(limit: usize) -> Self {
        Self { known: HashMap::new(), clock: 0, limit: limit.max(1) }
    }

    /// Notes that `statement` is about to be used, and says what must be sent first.
    pub fn require(&mut self, statement: &Arc<Statement>) -> Missing {
        self.clock += 1;
        let clock = self.clock;
        if let Some((known, used)) = self.known.get_mut(&statement.key) {
            if **known == **statement {
                *used = clock;
                return Missing::Nothing;
            }
            let other = std::mem::replace(known, statement.clone());
            return Missing::Parse(Some(other));
        }
        let evicted = if self.known.len() >= self.limit { self.evict() } else { None };
        self.known.insert(statement.key, (statement.clone(), clock));
        Missing::Parse(evicted)
    }

    fn evict(&mut self) -> Option<Arc<Statement>> {
        let oldest = *self.known.iter().min_by_key(|(_, (_, used))| *used)?.0;
        self.known.remove(&oldest).map(|(statement, _)| statement)
    }

    /// Whether it is there already.
    pub fn has(&self, statement: &Statement) -> bool {
        self.known.get(&statement.key).is_some_and(|(known, _)| **known == *statement)
    }

    /// Forgets a statement that turned out not to be there.
    pub fn forget(&mut self, key: u128) {
        self.known.remove(&key);
    }

    /// Notes that a statement is there after all (its Close was skipped).
    pub fn restore(&mut self, statement: Arc<Statement>) {
        self.known.insert(statement.key, (statement, self.clock));
    }

    /// Forgets all (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepares_what_is_missing_and_evicts_the_oldest() {
        let [a, b, c] = ["a", "b", "c"].map(|text| Arc::new(Statement::new(text.as_bytes(), 0)));
        let mut prepared = Prepared::new(2);
        assert_eq!(prepared.require(&a), Missing::Parse(None));
        assert_eq!(prepared.require(&b), Missing::Parse(None));
        assert_eq!(prepared.require(&a), Missing::Nothing);
        assert_eq!(prepared.require(&c), Missing::Parse(Some(b.clone())));
        assert!(prepared.has(&a) && !prepared.has(&b));
    }

    #[test]
    fn a_colliding_key_is_never_mistaken() {
        let a = Arc::new(Statement::new(b"a", 0));
        let liar = Arc::new(Statement { rest: (*b"b").into(), ..Statement::new(b"a", 0) });
        let mut prepared = Prepared::new(9);
        prepared.require(&a);
        assert_eq!(prepared.require(&liar), Missing::Parse(Some(a)));
    }

    #[test]
    fn context_keeps_apart() {
        assert_ne!(Statement::new(b"a", 0).key, Statement::new(b"a", 1).key);
    }
}
