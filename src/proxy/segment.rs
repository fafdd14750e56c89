//! The next messages of a client, up to where they end for the server too: a Query, or all up to a Sync.
//!
//! Where such a segment may go is decided before any of it is sent. What has not arrived in full is not judged: it may be a
//! write.

use std::sync::Arc;

use crate::proxy::readable::Readable;
use crate::proxy::reads::{Reader, Reads};
use crate::proxy::statements::Statements;
use crate::wire::body::Reader as Body;
use crate::wire::frame::{self, MAX_BODY};

/// What is known of the next messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// What they are to a replica: [`Reads::Proven`] when all of their statements are.
    pub reads: Reads,
    /// Bytes up to their end, as far as they have arrived.
    pub length: usize,
}

/// Whoever judges segments.
pub struct Judge<'a> {
    /// Reads texts.
    pub reader: &'a mut Reader,
    /// What they may use.
    pub readable: &'a Arc<Readable>,
    /// What the client prepared before.
    pub statements: &'a Statements,
}

impl Judge<'_> {
    /// The segment at the start of `bytes`, which begin with a frame.
    pub fn judge(&mut self, bytes: &[u8]) -> Segment {
        let unknown = |length| Segment { reads: Reads::Unknown, length };
        let mut texts: Vec<(&[u8], Reads)> = Vec::new();
        let mut found: Option<Reads> = None;
        let mut at = 0;
        while let Ok(Some((header, body))) = frame::whole(bytes.get(at..).unwrap_or_default(), MAX_BODY) {
            at += header.total();
            let reads = match header.tag {
                b'Q' if at == header.total() => return Segment { reads: self.query(body), length: at },
                b'X' if at == header.total() => return Segment { reads: Reads::Proven, length: at },
                b'S' => return Segment { reads: found.unwrap_or(Reads::Proven), length: at },
                b'P' => {
                    let Some((name, sql)) = name_and_text(body) else { return unknown(bytes.len()) };
                    let reads = self.reader.read(sql, self.readable);
                    texts.retain(|(other, _)| *other != name);
                    texts.push((name, reads));
                    Some(reads)
                }
                b'B' => match statement_of_bind(body) {
                    Some(name) => Some(self.prepared(name, &texts)),
                    None => return unknown(bytes.len()),
                },
                b'D' if body.first() == Some(&b'S') => {
                    let name = body.get(1..).and_then(|name| name.strip_suffix(b"\0")).unwrap_or_default();
                    Some(self.prepared(name, &texts))
                }
                b'D' | b'C' | b'E' | b'H' => None,
                // A function call, COPY data, or a Query in the middle of extended messages.
                _ => Some(Reads::Unknown),
            };
            if let Some(reads) = reads {
                found = Some(found.map_or(reads, |found| together(found, reads)));
            }
        }
        unknown(bytes.len())
    }

    fn query(&mut self, body: &[u8]) -> Reads {
        body.split_last().map_or(Reads::Unknown, |(_, sql)| self.reader.read(sql, self.readable))
    }

    /// What a statement is that was prepared earlier, in this segment or before it.
    fn prepared(&mut self, name: &[u8], texts: &[(&[u8], Reads)]) -> Reads {
        if let Some((_, reads)) = texts.iter().find(|(other, _)| *other == name) {
            return *reads;
        }
        let rest = if name.is_empty() {
            self.statements.unnamed()
        } else {
            self.statements.get(name).filter(|entry| entry.command.is_none()).map(|entry| &*entry.statement.rest)
        };
        let sql = rest.and_then(|rest| rest.split(|byte| *byte == 0).next());
        sql.map_or(Reads::Unknown, |sql| self.reader.read(sql, self.readable))
    }
}

/// What two statements of one segment are together.
fn together(first: Reads, second: Reads) -> Reads {
    match (first, second) {
        (Reads::Locks, _) | (_, Reads::Locks) => Reads::Locks,
        (Reads::Defines, _) | (_, Reads::Defines) => Reads::Defines,
        (Reads::Proven, Reads::Proven) => Reads::Proven,
        // The beginning is met twice, in its Parse and in its Bind; reads may follow it.
        (Reads::Begin, Reads::Begin | Reads::Proven) => Reads::Begin,
        (Reads::End, Reads::End) => Reads::End,
        _ => Reads::Unknown,
    }
}

/// Bytes up to the end of a segment whose beginning was sent already; all when its end has not arrived.
pub fn rest_of_segment(bytes: &[u8], passing: usize) -> usize {
    let mut at = passing;
    while let Ok(Some(header)) = frame::header(bytes.get(at..).unwrap_or_default(), MAX_BODY) {
        at = at.saturating_add(header.total());
        if header.tag == b'S' && at <= bytes.len() {
            return at;
        }
    }
    bytes.len()
}

fn name_and_text(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Body::new(body);
    Some((reader.cstr().ok()?, reader.cstr().ok()?))
}

fn statement_of_bind(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Body::new(body);
    reader.cstr().ok()?;
    reader.cstr().ok()
}

/// Whether whole messages at the start of `bytes` hold a definition, by the first words of their texts.
pub fn has_definition(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Ok(Some((header, body))) = frame::whole(bytes.get(at..).unwrap_or_default(), MAX_BODY) {
        at += header.total();
        let text = match header.tag {
            b'Q' => Some(body),
            b'P' => name_and_text(body).map(|(_, text)| text),
            _ => None,
        };
        if text.is_some_and(|text| text.split(|byte| *byte == b';').any(begins_definition)) {
            return true;
        }
    }
    false
}

fn begins_definition(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    // What begins with a comment may be anything.
    text.starts_with(b"--")
        || text.starts_with(b"/*")
        || [&b"create"[..], b"alter", b"drop", b"do", b"call", b"import"]
            .iter()
            .any(|word| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::statements::Statement;
    use crate::proxy::care::Care;
    use crate::proxy::readable::tests::sample;
    use crate::proxy::statements::Entry;
    use crate::wire::message;

    const READ: &[u8] = b"select * from t where a = $1";
    const WRITE: &[u8] = b"insert into t values ($1)";

    fn parse(name: &[u8], sql: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message::parse(&mut out, name, &[sql, b"\0\0\0"].concat());
        out
    }

    fn bind(name: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message::frame(&mut out, b'B', |out| out.extend([b"\0", name, b"\0\0\0\0\0\0\0"].concat()));
        message::execute(&mut out, b"");
        out
    }

    fn query(sql: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message::query(&mut out, sql);
        out
    }

    fn judge(bytes: &[u8]) -> Segment {
        let mut statements = Statements::default();
        for (name, sql) in [(&b"r"[..], READ), (b"w", WRITE)] {
            let statement = Arc::new(Statement::new(&[sql, b"\0\0\0"].concat(), 0));
            statements.set(name, Some(Entry { statement, care: Care::CLEAN, read: 0, command: None }));
        }
        let readable = Arc::new(sample());
        Judge { reader: &mut Reader::default(), readable: &readable, statements: &statements }.judge(bytes)
    }

    #[test]
    fn a_query_is_a_segment() {
        let both = [query(READ), query(WRITE)].concat();
        assert_eq!(judge(&both), Segment { reads: Reads::Proven, length: query(READ).len() });
        assert_eq!(judge(&query(WRITE)).reads, Reads::Unknown);
        let half = &both[..10];
        assert_eq!(judge(half), Segment { reads: Reads::Unknown, length: 10 });
    }

    #[test]
    fn a_batch_is_read_only_when_all_of_it_is() {
        let sync = b"S\0\0\0\x04".to_vec();
        let reads = |parts: &[Vec<u8>]| judge(&parts.concat()).reads;
        assert_eq!(reads(&[parse(b"", READ), bind(b""), sync.clone()]), Reads::Proven);
        assert_eq!(reads(&[bind(b"r"), bind(b"r"), sync.clone()]), Reads::Proven);
        assert_eq!(reads(&[bind(b"r"), bind(b"w"), sync.clone()]), Reads::Unknown);
        assert_eq!(reads(&[bind(b"nobody"), sync.clone()]), Reads::Unknown);
        assert_eq!(reads(&[parse(b"r", WRITE), bind(b"r"), sync.clone()]), Reads::Unknown);
        assert_eq!(reads(&[parse(b"", READ), parse(b"", WRITE), bind(b""), sync.clone()]), Reads::Unknown);
        assert_eq!(reads(&[parse(b"", b"BEGIN READ ONLY"), bind(b""), bind(b"r"), sync.clone()]), Reads::Begin);
        assert_eq!(reads(&[parse(b"", b"BEGIN READ ONLY"), bind(b""), bind(b"w"), sync.clone()]), Reads::Unknown);
        assert_eq!(reads(&[bind(b"r")]), Reads::Unknown, "its end has not come");
        let two = [bind(b"r"), sync.clone(), bind(b"w"), sync].concat();
        assert_eq!(judge(&two), Segment { reads: Reads::Proven, length: bind(b"r").len() + 5 });
        assert_eq!(rest_of_segment(&two[9..], bind(b"r").len() - 9), bind(b"r").len() + 5 - 9);
    }

    #[test]
    fn definitions_are_noticed() {
        assert!(has_definition(&[query(READ), query(b" create view v as select 1")].concat()));
        assert!(has_definition(&query(b"select 1;\nDROP table x")));
        assert!(has_definition(&parse(b"", b"/* x */ alter table t add b int")));
        assert!(!has_definition(&[query(READ), parse(b"", WRITE)].concat()));
    }
}
