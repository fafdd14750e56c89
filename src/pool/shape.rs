//! What a client was told that a statement takes and returns.
//!
//! PostgreSQL never runs a prepared statement whose columns have become others since it was prepared ("cached plan must
//! not change result type", `RevalidateCachedQuery` in plancache.c), and keeps the types of its parameters. A statement that is prepared
//! once more, on another connection, has no such memory, so the proxy has it: a client that does not ask for a
//! description again would read the bytes of one type as another's.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::body::{Malformed, Reader};

/// Digests of a statement's descriptions; 0 for what nobody was told yet.
#[derive(Debug, Default)]
pub struct Shape {
    takes: AtomicU64,
    returns: AtomicU64,
}

impl Shape {
    /// Whether anybody was told anything.
    pub fn is_known(&self) -> bool {
        self.returns.load(Ordering::Relaxed) != 0 || self.takes.load(Ordering::Relaxed) != 0
    }

    /// Whether anybody was told of its columns.
    pub fn is_described(&self) -> bool {
        self.returns.load(Ordering::Relaxed) != 0
    }

    /// Notes a description (`tag` and body of ParameterDescription, RowDescription or NoData); false when another was
    /// given before.
    pub fn learn(&self, tag: u8, body: &[u8]) -> bool {
        let digest = digest(tag, body);
        match self.place(tag).compare_exchange(0, digest, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(before) => before == digest,
        }
    }

    /// Whether a description is the one that was given before, if any was.
    pub fn agrees(&self, tag: u8, body: &[u8]) -> bool {
        let before = self.place(tag).load(Ordering::Relaxed);
        before == 0 || before == digest(tag, body)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.takes.store(0, Ordering::Relaxed);
        self.returns.store(0, Ordering::Relaxed);
    }

    fn place(&self, tag: u8) -> &AtomicU64 {
        if tag == b't' { &self.takes } else { &self.returns }
    }
}

/// A digest, never 0, of what matters to whoever reads rows: names, types and their modifiers. Where a column comes
/// from and the format that was asked for are left out, as PostgreSQL's `equalTupleDescs` does.
fn digest(tag: u8, body: &[u8]) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let columns = if tag == b'T' { columns(body).ok() } else { None };
    let digest = match columns {
        Some(columns) => KEY.hash_one(columns),
        None => KEY.hash_one((tag, body)),
    };
    digest.max(1)
}

/// Name, type and modifier of a column.
type Column<'a> = (&'a [u8], u32, u32);

/// The columns of a RowDescription.
fn columns(body: &[u8]) -> Result<Vec<Column<'_>>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let name = reader.cstr()?;
        let (_table, _attribute) = (reader.u32()?, reader.u16()?);
        let (oid, _length) = (reader.u32()?, reader.u16()?);
        let (modifier, _format) = (reader.u32()?, reader.u16()?);
        columns.push((name, oid, modifier));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, table: u32, oid: u32, format: u8) -> Vec<u8> {
        let mut body = vec![0, 1];
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(&table.to_be_bytes());
        body.extend_from_slice(&[0, 1]);
        body.extend_from_slice(&oid.to_be_bytes());
        body.extend_from_slice(&[0, 4, 255, 255, 255, 255, 0, format]);
        body
    }

    #[test]
    fn only_what_a_reader_sees_counts() {
        let shape = Shape::default();
        assert!(!shape.is_known() && shape.agrees(b'T', &row("a", 1, 23, 0)) && !shape.is_described());
        assert!(shape.learn(b'T', &row("a", 1, 23, 0)) && shape.is_described());
        assert!(shape.agrees(b'T', &row("a", 2, 23, 1)) && shape.learn(b'T', &row("a", 2, 23, 1)));
        assert!(!shape.agrees(b'T', &row("b", 1, 23, 0)) && !shape.agrees(b'T', &row("a", 1, 25, 0)));
        assert!(!shape.agrees(b'n', &[]) && !shape.learn(b'T', &row("a", 1, 25, 0)));
        // Parameters are a matter of their own.
        assert!(shape.learn(b't', &[0, 1, 0, 0, 0, 23]) && !shape.agrees(b't', &[0, 1, 0, 0, 0, 25]));
        shape.clear();
        assert!(!shape.is_known());
    }
}
