//! Prepared statements that clients share on a server connection.
//!
//! A client's name means nothing to a server connection that serves another client next. Statements are
//! therefore prepared under a name made of their content (text, parameter types, and the settings
//! that decide what its constants mean), each connection remembers which it has, and prepares what is missing.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::pool::shape::Shape;

/// Prefix of names on servers; clients may not use it.
pub const PREFIX: &[u8] = b"_pgweir_";

/// How a statement is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// By a Parse message.
    Protocol,
    /// By SQL's PREPARE, which names its types.
    Sql,
}

/// One statement as Parse or PREPARE gave it.
#[derive(Debug)]
pub struct Statement {
    /// Its key: a keyed hash of all that follows.
    pub key: u128,
    /// Its name on server connections.
    pub name: Box<[u8]>,
    /// Text, terminator and parameter types, as in Parse; or what follows the name in PREPARE.
    pub rest: Box<[u8]>,
    /// How it is prepared.
    pub kind: Kind,
    /// Tells apart sessions in which the same text means different things.
    pub context: usize,
    /// What clients were told of it.
    pub shape: Shape,
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.kind == other.kind && self.context == other.context && self.rest == other.rest
    }
}

impl Eq for Statement {}

impl Hash for Statement {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl Statement {
    /// The statement of a Parse body without its name.
    pub fn new(rest: &[u8], context: usize) -> Self {
        Self::of(Kind::Protocol, rest, context)
    }

    /// The statement of a Parse without a name, which no connection keeps under a name of the proxy's: it has neither name nor key.
    pub fn unnamed(rest: &[u8], context: usize) -> Self {
        let name = Box::default();
        Self { key: 0, name, rest: rest.into(), kind: Kind::Protocol, context, shape: Shape::default() }
    }

    /// The statement of a PREPARE, from behind its name.
    pub fn sql(tail: &[u8], context: usize) -> Self {
        Self::of(Kind::Sql, tail, context)
    }

    fn of(kind: Kind, rest: &[u8], context: usize) -> Self {
        // Two keyed 64-bit hashes: nobody outside can find two texts that collide, and equality is checked besides.
        static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(|| (RandomState::new(), RandomState::new()));
        let whole = (kind, rest, context);
        let (high, low) = (KEYS.0.hash_one(whole), KEYS.1.hash_one(whole));
        let key = (u128::from(high) << 64) | u128::from(low);
        let name = [PREFIX, format!("{key:032x}").as_bytes()].concat().into_boxed_slice();
        Self { key, name, rest: rest.into(), kind, context, shape: Shape::default() }
    }

    /// The PREPARE that makes a [`Kind::Sql`] statement.
    pub fn prepare(&self) -> Vec<u8> {
        [b"PREPARE ", &*self.name, &*self.rest].concat()
    }
}

/// A key is a hash already: its own bits serve.
#[derive(Debug, Default)]
struct KeyBits(u64);

impl Hasher for KeyBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

#[derive(Debug)]
struct Known {
    statement: Arc<Statement>,
    used: u64,
    /// It is there, but its plan may be out of date in a way that the server does not mend by itself.
    stale: bool,
    /// Here it takes or returns something else than clients were told.
    changed: bool,
}

/// What one server connection has prepared, the least recently used going first.
#[derive(Debug)]
pub struct Prepared {
    known: HashMap<u128, Known, BuildHasherDefault<KeyBits>>,
    clock: u64,
    limit: usize,
}

/// What must be sent before a statement can be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: it is there.
    Nothing,
    /// Prepare it, after closing this other one when there is one.
    Parse(Option<Arc<Statement>>),
}

impl Prepared {
    /// Holds at most `limit` statements.
    pub fn new(limit: usize) -> Self {
        Self { known: HashMap::default(), clock: 0, limit: limit.max(1) }
    }

    /// Notes that `statement` is about to be used, and says what must be sent first.
    pub fn require(&mut self, statement: &Arc<Statement>) -> Missing {
        self.clock += 1;
        let clock = self.clock;
        if let Some(known) = self.known.get_mut(&statement.key) {
            known.used = clock;
            // The same text is nearly always the same allocation.
            let same = Arc::ptr_eq(&known.statement, statement) || *known.statement == **statement;
            if same && !known.stale {
                return Missing::Nothing;
            }
            known.stale = false;
            known.changed = false;
            let other = std::mem::replace(&mut known.statement, statement.clone());
            return Missing::Parse(Some(other));
        }
        let evicted = self.make_room();
        self.note(statement.clone());
        Missing::Parse(evicted)
    }

    /// Takes the least recently used statement away when there is no room for another: it must be closed.
    pub fn make_room(&mut self) -> Option<Arc<Statement>> {
        if self.known.len() < self.limit {
            return None;
        }
        let oldest = *self.known.iter().min_by_key(|(_, known)| known.used)?.0;
        self.forget(oldest)
    }

    /// Whether it is there already, fit for use.
    pub fn has(&self, statement: &Statement) -> bool {
        self.known.get(&statement.key).is_some_and(|known| !known.stale && *known.statement == *statement)
    }

    /// Forgets a statement that is not there, or is about to be closed.
    pub fn forget(&mut self, key: u128) -> Option<Arc<Statement>> {
        self.known.remove(&key).map(|known| known.statement)
    }

    /// Notes that a statement is there.
    pub fn note(&mut self, statement: Arc<Statement>) {
        self.known.insert(statement.key, Known { statement, used: self.clock, stale: false, changed: false });
    }

    /// Notes that a statement is still there, since its Close was skipped; the Parse behind it may be skipped yet.
    pub fn restore(&mut self, statement: Arc<Statement>) {
        self.known.insert(statement.key, Known { statement, used: self.clock, stale: true, changed: false });
    }

    /// Notes that a statement is not there after all, since its Parse failed or was skipped.
    pub fn undo(&mut self, key: u128) {
        if self.known.get(&key).is_some_and(|known| !known.stale) {
            self.known.remove(&key);
        }
    }

    /// Has every statement prepared anew before its next use: tables have changed under them.
    pub fn distrust(&mut self) {
        for known in self.known.values_mut() {
            known.stale = true;
        }
    }

    /// Notes that a statement is not what clients were told, here.
    pub fn mark_changed(&mut self, key: u128) {
        if let Some(known) = self.known.get_mut(&key) {
            known.changed = true;
        }
    }

    /// Whether it takes or returns something else here than clients were told.
    pub fn has_changed(&self, statement: &Statement) -> bool {
        self.known.get(&statement.key).is_some_and(|known| known.changed)
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
        assert!(!prepared.has(&liar));
        assert_eq!(prepared.require(&liar), Missing::Parse(Some(a)));
    }

    #[test]
    fn what_is_distrusted_is_closed_and_prepared_anew() {
        let a = Arc::new(Statement::sql(b" as select 1", 0));
        let mut prepared = Prepared::new(9);
        prepared.require(&a);
        prepared.distrust();
        assert!(!prepared.has(&a));
        assert_eq!(prepared.require(&a), Missing::Parse(Some(a.clone())));
        assert_eq!(prepared.require(&a), Missing::Nothing);
        // Both messages were skipped: it is still there, and still to be closed first.
        prepared.restore(a.clone());
        prepared.undo(a.key);
        assert_eq!(prepared.require(&a), Missing::Parse(Some(a.clone())));
        prepared.undo(a.key);
        assert_eq!(prepared.require(&a), Missing::Parse(None));
    }

    #[test]
    fn context_keeps_apart() {
        assert_ne!(Statement::new(b"a", 0).key, Statement::new(b"a", 1).key);
        assert_ne!(Statement::new(b"a", 0).key, Statement::sql(b"a", 0).key);
    }
}
