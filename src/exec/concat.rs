//! The rows of several shards, one shard after the other, as the answer to one SELECT.
//!
//! The first shard leads: its description of the columns is the client's, as are its answers to the messages around the statement. The
//! others must describe the same columns. Nothing is held: rows go on as they come, and a shard whose turn it is not
//! yet waits, as its socket is not read.

use crate::wire::body::Reader;
use crate::wire::message::{self, Failure};

/// The first number of a type that a user has defined (`FirstNormalObjectId`): others' numbers differ from shard to shard.
const FIRST_OF_USERS: u32 = 16384;
/// Rows and arrays of them, whose binary form holds the numbers of their columns' types.
const RECORDS: &[u32] = &[2249, 2287];
/// Types whose values speak of other objects by their numbers: `oid`, `tid`, `xid`, `cid`, the `reg..` types, and arrays of these.
const LOCAL_TYPES: &[u32] = &[
    24, 26, 27, 28, 29, 210, 1008, 1010, 1011, 1012, 1028, 2202, 2203, 2204, 2205, 2206, 2207, 2208, 2209, 2210, 2211,
    3734, 3735, 3769, 3770, 4089, 4090, 4096, 4097, 4191, 4192, 5069, 271,
];

/// Bytes of a column in RowDescription behind its name.
const FIELD_LEN: usize = 18;

/// A column as RowDescription says it, without what differs from shard to shard (the table's number).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: Vec<u8>,
    kind: u32,
    size: u16,
    modifier: u32,
    format: u16,
}

impl Column {
    /// Its values mean something else on another shard, or may have numbers of types inside in binary form.
    fn is_local(&self) -> bool {
        let has_numbers = self.kind >= FIRST_OF_USERS || RECORDS.contains(&self.kind);
        has_numbers && self.format != 0 || LOCAL_TYPES.contains(&self.kind)
    }

    /// Whether two shards' columns are one to the client, who knows types of users by the first shard's numbers.
    fn are_alike((one, other): (&Self, &Self)) -> bool {
        let users = one.kind >= FIRST_OF_USERS && other.kind >= FIRST_OF_USERS;
        let kind = if users { one.kind } else { other.kind };
        *one == Self { kind, ..other.clone() }
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it now.
    Forward,
    /// The client gets it behind the command tag.
    Later,
    /// Nobody gets it.
    Drop,
}

/// The answer in the making.
#[derive(Debug)]
pub struct Concat {
    limit: Option<u64>,
    /// So many rows are wanted now.
    most: Option<u64>,
    rows: u64,
    /// The first command tag without its number, and the sum of all numbers.
    tag: Vec<u8>,
    total: u64,
    columns: Option<Vec<Column>>,
    /// The client asked what the columns are.
    described: bool,
    leads: bool,
    completed: bool,
    failure: Option<Failure>,
}

impl Concat {
    /// An answer of at most `limit` rows, with a RowDescription in it where the client is to hear of it.
    pub fn new(limit: Option<u64>, described: bool) -> Self {
        Self {
            limit,
            most: None,
            rows: 0,
            tag: Vec::new(),
            total: 0,
            columns: None,
            described,
            leads: true,
            completed: false,
            failure: None,
        }
    }

    /// Lets only the first `most` rows through, as Execute does; 0 for all.
    pub fn limit_to(&mut self, most: u32) {
        self.most = (most > 0).then_some(u64::from(most));
    }

    /// As many rows as are wanted have passed.
    pub fn is_full(&self) -> bool {
        [self.limit, self.most].into_iter().flatten().any(|most| self.rows >= most)
    }

    /// Takes one whole frame of the shard whose turn it is; errors and ReadyForQuery are the caller's.
    pub fn take(&mut self, frame: &[u8]) -> Verdict {
        let tag = frame.first().copied().unwrap_or_default();
        match tag {
            b'T' => {
                let fits = self.check(frame.get(5..).unwrap_or_default());
                if fits && self.leads && self.described { Verdict::Forward } else { Verdict::Drop }
            }
            b'D' if self.failure.is_some() || self.is_full() => Verdict::Drop,
            b'D' => {
                self.rows += 1;
                Verdict::Forward
            }
            b'C' | b's' => {
                self.completed = true;
                self.note_tag(frame.get(5..).unwrap_or_default());
                Verdict::Drop
            }
            // What the others say besides would be repetitions.
            _ if !self.leads => Verdict::Drop,
            _ if self.completed => Verdict::Later,
            _ => Verdict::Forward,
        }
    }

    /// The next shard's turn.
    pub fn next(&mut self) {
        self.leads = false;
    }

    /// Appends the end of the answer: the command tag, or that there may be more rows.
    ///
    /// # Errors
    /// The shards' columns are not the same, or of types that mean something else on each.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if self.most.is_some_and(|most| self.rows >= most) {
            message::empty(out, b's');
            return Ok(());
        }
        let selects = self.tag.is_empty() || self.tag == b"SELECT";
        let (tag, number) = if selects { (&b"SELECT"[..], self.rows) } else { (&self.tag[..], self.total) };
        message::command_complete(out, &[tag, b" ", number.to_string().as_bytes()].concat());
        Ok(())
    }

    fn note_tag(&mut self, tag: &[u8]) {
        let tag = tag.strip_suffix(b"\0").unwrap_or(tag);
        let Some(space) = tag.iter().rposition(|byte| *byte == b' ') else { return };
        let (words, number) = tag.split_at(space);
        let number = std::str::from_utf8(number).ok().and_then(|number| number.trim().parse::<u64>().ok());
        self.total = self.total.saturating_add(number.unwrap_or_default());
        self.tag = words.to_vec();
    }

    fn check(&mut self, body: &[u8]) -> bool {
        let Some(columns) = columns(body) else {
            self.failure =
                Some(Failure::error("08P01", "a shard described its columns in a way that is not understood"));
            return false;
        };
        let local = columns.iter().find(|column| column.is_local());
        let failure = match &self.columns {
            _ if local.is_some() => local.map(|column| {
                let name = String::from_utf8_lossy(&column.name).into_owned();
                let what =
                    format!("refused: the column {name} has a type whose values several shards do not mean alike");
                Failure::error("0A000", what)
                    .detail(format!("Rule: scatter-rows. The type's OID is {}.", column.kind))
                    .hint("Cast it to text in the SELECT list, or ask for it in text format.")
            }),
            Some(first) if first.len() != columns.len() || !first.iter().zip(&columns).all(Column::are_alike) => Some(
                Failure::error("XX001", "the shards do not agree on the columns of this statement")
                    .hint("Compare the table's definition on the shards, and repair the one that differs."),
            ),
            _ => None,
        };
        let fits = failure.is_none();
        self.failure = self.failure.take().or(failure);
        self.columns.get_or_insert(columns);
        fits
    }
}

/// The columns of a result.
#[derive(Debug)]
pub struct Columns;

impl Columns {
    /// What the client is told where one RowDescription was promised and another one comes: the first with the formats of the second; `None` when
    /// they differ in more than tables and formats.
    pub fn of_both(promised: &[u8], come: &[u8]) -> Option<Vec<u8>> {
        let (first, second) = (columns(promised)?, columns(come)?);
        let alike = |(one, other): (&Column, &Column)| *one == Column { format: one.format, ..other.clone() };
        if first.len() != second.len() || !first.iter().zip(&second).all(alike) {
            return None;
        }
        let (mut out, mut at) = (promised.to_vec(), 2);
        for (one, other) in first.iter().zip(&second) {
            at += one.name.len() + 1 + FIELD_LEN;
            out.get_mut(at - 2..at)?.copy_from_slice(&other.format.to_be_bytes());
        }
        Some(out)
    }
}

/// Name, type and modifier of each column of a RowDescription.
pub fn named_types(body: &[u8]) -> Option<Vec<(String, (u32, i32))>> {
    let one = |column: Column| {
        let name = String::from_utf8(column.name).ok()?;
        Some((name, (column.kind, column.modifier.cast_signed())))
    };
    columns(body)?.into_iter().map(one).collect()
}

/// Whether one of the columns has values that mean something else on another shard, in these formats (as Bind has them, one for each).
pub fn has_local(body: &[u8], formats: &[u8]) -> bool {
    let codes = formats.get(2..).unwrap_or_default().chunks_exact(2).map(|code| u16::from(code != [0, 0]));
    let columns = columns(body).unwrap_or_default();
    columns.into_iter().zip(codes).any(|(column, format)| Column { format, ..column }.is_local())
}

/// A RowDescription's body without its last columns.
pub fn without_last(body: &[u8], count: usize) -> Option<Vec<u8>> {
    let columns = columns(body)?;
    let kept = columns.get(..columns.len().checked_sub(count)?)?;
    let bytes: usize = kept.iter().map(|column| column.name.len() + 1 + FIELD_LEN).sum();
    let mut out = u16::try_from(kept.len()).ok()?.to_be_bytes().to_vec();
    out.extend_from_slice(body.get(2..2 + bytes)?);
    Some(out)
}

fn columns(body: &[u8]) -> Option<Vec<Column>> {
    let mut reader = Reader::new(body);
    let count = reader.u16().ok()?;
    let column = |reader: &mut Reader<'_>| {
        let name = reader.cstr().ok()?.to_vec();
        let (_table, _number) = (reader.u32().ok()?, reader.u16().ok()?);
        let kind = reader.u32().ok()?;
        let (size, modifier) = (reader.u16().ok()?, reader.u32().ok()?);
        Some(Column { name, kind, size, modifier, format: reader.u16().ok()? })
    };
    (0..count).map(|_| column(&mut reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str, kind: u32) -> Vec<u8> {
        let mut out = Vec::new();
        message::frame(&mut out, b'T', |out| {
            out.extend([0, 1]);
            message::cstr(out, name.as_bytes());
            // Another table's number for each.
            out.extend((kind * 7).to_be_bytes());
            out.extend([0, 1]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 4, 255, 255, 255, 255, 0, 0]);
        });
        out
    }

    const ROW: &[u8] = b"D\0\0\0\x06\0\0";
    const TAG: &[u8] = b"C\0\0\0\x0dSELECT 2\0";

    #[test]
    fn rows_follow_one_another_up_to_the_limit() {
        let mut concat = Concat::new(Some(3), true);
        let parsed = b"1\0\0\0\x04";
        let first: Vec<_> = [&parsed[..], &described("a", 23), ROW, ROW, TAG, b"3\0\0\0\x04"]
            .iter()
            .map(|frame| concat.take(frame))
            .collect();
        use Verdict::{Drop, Forward, Later};
        assert_eq!(first, [Forward, Forward, Forward, Forward, Drop, Later]);
        concat.next();
        let second: Vec<_> = [&parsed[..], &described("a", 23), ROW, ROW, TAG, b"3\0\0\0\x04"]
            .iter()
            .map(|frame| concat.take(frame))
            .collect();
        assert_eq!(second, [Drop, Drop, Forward, Drop, Drop, Drop]);
        assert_eq!(end_of(concat), Ok("C SELECT 3".to_owned()));
    }

    fn end_of(concat: Concat) -> Result<String, &'static str> {
        let mut out = Vec::new();
        concat.finish(&mut out).map_err(|failure| failure.code)?;
        let text = String::from_utf8_lossy(out.get(5..).unwrap_or_default()).trim_end_matches('\0').to_owned();
        Ok(format!("{} {text}", char::from(out[0])))
    }

    #[test]
    fn numbers_of_rows_written_are_added_and_rows_wanted_are_no_more() {
        let mut concat = Concat::new(None, true);
        concat.take(b"C\0\0\0\x0dUPDATE 2\0");
        concat.next();
        concat.take(b"C\0\0\0\x0eUPDATE 40\0");
        assert_eq!(end_of(concat), Ok("C UPDATE 42".to_owned()));

        let mut concat = Concat::new(None, true);
        concat.limit_to(2);
        let frames: [&[u8]; 5] = [ROW, b"C\0\0\0\x0dSELECT 1\0", ROW, ROW, b"s\0\0\0\x04"];
        let verdicts = frames.map(|frame| concat.take(frame));
        use Verdict::{Drop, Forward};
        assert_eq!(verdicts, [Forward, Drop, Forward, Drop, Drop]);
        assert_eq!(end_of(concat), Ok("s ".to_owned()));
    }

    #[test]
    fn columns_must_mean_the_same() {
        let ends = |first: &[u8], second: &[u8]| {
            let mut concat = Concat::new(None, false);
            assert_eq!(concat.take(first), Verdict::Drop);
            concat.next();
            concat.take(second);
            let row = concat.take(ROW);
            (end_of(concat), row)
        };
        assert_eq!(ends(&described("a", 23), &described("a", 23)), (Ok("C SELECT 1".to_owned()), Verdict::Forward));
        for (first, second, code) in [
            (described("a", 23), described("a", 25), "XX001"),
            (described("a", 23), described("b", 23), "XX001"),
            (described("a", 16400), described("b", 16401), "XX001"),
            (described("a", 16400), described("a", 23), "XX001"),
            (described("a", 2205), described("a", 2205), "0A000"),
        ] {
            assert_eq!(ends(&first, &second), (Err(code), Verdict::Drop));
        }
        assert_eq!(Concat::new(None, true).take(b"T\0\0\0\x06\0\x01"), Verdict::Drop);
    }
}
