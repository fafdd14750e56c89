//! COPY's data, cut into rows with their key's field, so that each can go to its shard.
//!
//! The forms are those of PostgreSQL's `copyfromparse.c`: rows are passed on byte for byte, and only the key's field is looked into. What
//! PostgreSQL would read in another way than this does not come through: it is an error.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use crate::sql::facts::{CopyFacts, CopyFormat};
use crate::wire::message::Failure;

/// The longest row, in bytes.
const MAX_ROW: usize = 256 << 20;
/// What binary data begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// A row's key as the data has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key<'a> {
    /// NULL.
    Null,
    /// As text.
    Text(Cow<'a, [u8]>),
    /// In binary form.
    Binary(&'a [u8]),
}

/// A piece of the data.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// It is for every shard: a header.
    Everybody(&'a [u8]),
    /// A row, with its end.
    Row(&'a [u8], Key<'a>),
}

/// Cuts data that comes in pieces of any size.
#[derive(Debug)]
pub struct CopySplit {
    form: CopyFacts,
    /// The key's place among the fields, from 0.
    key: usize,
    /// How many fields a binary row has.
    fields: usize,
    /// The beginning of a row that has not come whole.
    rest: Vec<u8>,
    /// How much of it was looked at without finding its end, and whether that ends inside quotes.
    seen: (usize, bool),
    begun: bool,
    ended: bool,
    rows: u64,
}

impl CopySplit {
    /// Cuts data of this form, whose rows have so many fields, the key among them.
    pub fn new(form: CopyFacts, key: usize, fields: usize) -> Self {
        Self { form, key, fields, rest: Vec::new(), seen: (0, false), begun: false, ended: false, rows: 0 }
    }

    /// Takes more data and gives each whole row.
    ///
    /// # Errors
    /// The data is not of the form, or `each` gives one.
    pub fn feed(&mut self, data: &[u8], each: &mut dyn FnMut(Piece<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
        let whole = if self.rest.is_empty() {
            Cow::Borrowed(data)
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(data);
            Cow::Owned(rest)
        };
        let mut at = 0;
        while let Some(bytes) = whole.get(at..).filter(|bytes| !bytes.is_empty() && !self.ended) {
            let Some(length) = self.next(bytes)? else { break };
            let row = bytes.get(..length).unwrap_or_default();
            self.seen = (0, false);
            self.give(row, each)?;
            at += length;
        }
        if !self.ended {
            self.rest = whole.get(at..).unwrap_or_default().to_vec();
        }
        if self.rest.len() > MAX_ROW {
            return Err(self.wrong(&format!("a row is longer than {} MB", MAX_ROW >> 20)));
        }
        Ok(())
    }

    /// Takes the end of the data; the last row may have no end of its own.
    ///
    /// # Errors
    /// As [`CopySplit::feed`].
    pub fn finish(&mut self, each: &mut dyn FnMut(Piece<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() || self.ended {
            return Ok(());
        }
        if self.form.format == CopyFormat::Binary {
            return Err(self.wrong("unexpected end of the data"));
        }
        if self.seen.1 {
            return Err(Failure::error("22P04", "unterminated CSV quoted field"));
        }
        self.give(&rest, each)
    }

    fn wrong(&self, what: &str) -> Failure {
        Failure::error("22P04", format!("COPY, row {}: {what}", self.rows + 1))
    }

    /// How long the first row is, when it is there whole.
    fn next(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        match self.form.format {
            CopyFormat::Text => Ok(self.text_row(bytes)),
            CopyFormat::Csv { quote, escape } => Ok(self.csv_row(bytes, quote, escape)),
            CopyFormat::Binary => self.binary_row(bytes),
        }
    }

    /// A newline ends a row unless an odd number of backslashes stands before it.
    fn text_row(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = self.seen.0;
        while let Some(found) = memchr(b'\n', bytes.get(from..)?) {
            let newline = from + found;
            let before = bytes.get(..newline).unwrap_or_default();
            let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
            if backslashes % 2 == 0 {
                return Some(newline + 1);
            }
            from = newline + 1;
        }
        self.seen.0 = bytes.len();
        None
    }

    /// A newline outside quotes ends a row.
    fn csv_row(&mut self, bytes: &[u8], quote: u8, escape: u8) -> Option<usize> {
        let (mut at, mut quoted) = self.seen;
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'\n' if !quoted => return Some(at + 1),
                // What is escaped may be in the next piece of the data.
                _ if quoted && byte == escape && escape != quote => {
                    if bytes.get(at + 1).is_none() {
                        break;
                    }
                    at += usize::from(bytes.get(at + 1).is_some_and(|next| *next == quote || *next == escape));
                }
                _ if byte == quote => quoted = !quoted,
                _ => {}
            }
            at += 1;
        }
        self.seen = (at, quoted);
        None
    }

    fn binary_row(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(i32::from_be_bytes);
        if !self.begun {
            let signed = bytes.iter().zip(SIGNATURE).all(|(byte, sign)| byte == sign);
            let (Some(flags), Some(extension)) = (word(11), word(15)) else {
                return if signed { Ok(None) } else { Err(self.wrong("COPY file signature not recognized")) };
            };
            if !signed || flags != 0 || extension < 0 {
                return Err(self.wrong("COPY file header not recognized"));
            }
            let length = 19 + extension as usize;
            return Ok((bytes.len() >= length).then_some(length));
        }
        let Some(count) = bytes.get(..2).and_then(|count| count.try_into().ok()).map(i16::from_be_bytes) else {
            return Ok(None);
        };
        if count == -1 {
            return Ok(Some(2));
        }
        if usize::try_from(count) != Ok(self.fields) {
            return Err(self.wrong(&format!("row field count is {count}, expected {}", self.fields)));
        }
        let mut at = 2;
        for _ in 0..count {
            let Some(length) = word(at) else { return Ok(None) };
            at += 4;
            match usize::try_from(length) {
                Ok(length) => at += length,
                Err(_) if length == -1 => {}
                Err(_) => return Err(self.wrong("invalid field size")),
            }
        }
        Ok((bytes.len() >= at).then_some(at))
    }

    fn give(&mut self, row: &[u8], each: &mut dyn FnMut(Piece<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let is_header = !self.begun && (self.form.header || self.form.format == CopyFormat::Binary);
        self.begun = true;
        if is_header {
            return each(Piece::Everybody(row));
        }
        let key = match self.form.format {
            CopyFormat::Text => self.text_key(row),
            CopyFormat::Csv { quote, escape } => self.csv_key(row, quote, escape),
            CopyFormat::Binary => self.binary_key(row),
        };
        let Some(key) = key? else {
            self.ended = true;
            return Ok(());
        };
        each(Piece::Row(row, key))?;
        self.rows += 1;
        Ok(())
    }

    /// A row's fields without its end; `None` is the mark of the end of the data. A carriage return elsewhere could be a row's end as well.
    fn line<'a>(&self, row: &'a [u8]) -> Result<Option<&'a [u8]>, Failure> {
        let line = row.strip_suffix(b"\n").unwrap_or(row);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line == b"\\." {
            return Ok(None);
        }
        Ok(Some(line))
    }

    fn missing(&self) -> Failure {
        self.wrong("the sharding key's field is missing")
    }

    fn text_key<'a>(&self, row: &'a [u8]) -> Result<Option<Key<'a>>, Failure> {
        let Some(line) = self.line(row)? else { return Ok(None) };
        if memchr(b'\r', line).is_some() {
            return Err(self.wrong("literal carriage return found in data"));
        }
        let (mut at, mut start, mut field) = (0, 0, 0);
        let end = loop {
            let Some(found) = memchr2(self.form.delimiter, b'\\', line.get(at..).unwrap_or_default()) else {
                break line.len();
            };
            at += found;
            if line.get(at) == Some(&b'\\') {
                at += 2;
                continue;
            }
            if field == self.key {
                break at;
            }
            field += 1;
            at += 1;
            start = at;
        };
        if field != self.key {
            return Err(self.missing());
        }
        let text = line.get(start..end).unwrap_or_default();
        if text == self.form.null.as_bytes() {
            return Ok(Some(Key::Null));
        }
        if memchr(b'\\', text).is_none() {
            return Ok(Some(Key::Text(Cow::Borrowed(text))));
        }
        // Its escapes are PostgreSQL's to read.
        Err(self.wrong("the sharding key's field has a backslash in it: write it without escapes"))
    }

    fn csv_key<'a>(&self, row: &'a [u8], quote: u8, escape: u8) -> Result<Option<Key<'a>>, Failure> {
        let Some(line) = self.line(row)? else { return Ok(None) };
        let (mut field, mut text, mut quoted, mut was_quoted, mut at) = (0, Vec::new(), false, false, 0);
        while let Some(&byte) = line.get(at) {
            at += 1;
            let next = line.get(at).copied();
            match byte {
                _ if quoted && byte == escape && next.is_some_and(|next| next == quote || next == escape) => {
                    text.extend(next);
                    at += 1;
                }
                _ if byte == quote => {
                    quoted = !quoted;
                    was_quoted = true;
                }
                _ if byte == self.form.delimiter && !quoted => {
                    if field == self.key {
                        break;
                    }
                    field += 1;
                    text.clear();
                    was_quoted = false;
                }
                b'\r' if !quoted => return Err(self.wrong("unquoted carriage return found in data")),
                _ => text.push(byte),
            }
        }
        if field != self.key {
            return Err(self.missing());
        }
        let is_null = !was_quoted && text == self.form.null.as_bytes();
        Ok(Some(if is_null { Key::Null } else { Key::Text(Cow::Owned(text)) }))
    }

    fn binary_key<'a>(&self, row: &'a [u8]) -> Result<Option<Key<'a>>, Failure> {
        if row.len() == 2 && row == [255, 255] {
            return Ok(None);
        }
        let mut at = 2;
        for field in 0..=self.key {
            let length = row.get(at..at + 4).and_then(|word| word.try_into().ok()).map(i32::from_be_bytes);
            let length = length.ok_or_else(|| self.missing())?;
            at += 4;
            let Ok(length) = usize::try_from(length) else {
                if field == self.key {
                    return Ok(Some(Key::Null));
                }
                continue;
            };
            if field == self.key {
                return Ok(Some(Key::Binary(row.get(at..at + length).unwrap_or_default())));
            }
            at += length;
        }
        Err(self.missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(format: CopyFormat) -> CopyFacts {
        let is_csv = matches!(format, CopyFormat::Csv { .. });
        CopyFacts {
            columns: None,
            by_client: true,
            delimiter: if is_csv { b',' } else { b'\t' },
            null: if is_csv { String::new() } else { "\\N".to_owned() },
            format,
            header: is_csv,
            other: false,
        }
    }

    /// The same rows, however the data is cut.
    fn rows(form: &CopyFacts, key: usize, data: &[u8]) -> Vec<(String, String)> {
        let mut all: Vec<Vec<(String, String)>> = Vec::new();
        for size in 1..=data.len() {
            let mut split = CopySplit::new(form.clone(), key, 2);
            let mut found = Vec::new();
            let mut each = |piece: Piece<'_>| {
                found.push(match piece {
                    Piece::Everybody(bytes) => (String::from_utf8_lossy(bytes).into_owned(), "*".to_owned()),
                    Piece::Row(row, key) => {
                        let key = match key {
                            Key::Null => "NULL".to_owned(),
                            Key::Text(text) => String::from_utf8_lossy(&text).into_owned(),
                            Key::Binary(bytes) => format!("{bytes:?}"),
                        };
                        (String::from_utf8_lossy(row).into_owned(), key)
                    }
                });
                Ok(())
            };
            let fed = data.chunks(size).try_for_each(|chunk| split.feed(chunk, &mut each));
            if let Err(failure) = fed.and_then(|()| split.finish(&mut each)) {
                found.push((failure.code.to_owned(), "error".to_owned()));
            }
            all.push(found);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        all.pop().unwrap()
    }

    fn pairs(found: &[(String, String)]) -> Vec<(&str, &str)> {
        found.iter().map(|(row, key)| (row.as_str(), key.as_str())).collect()
    }

    #[test]
    fn text() {
        let found =
            rows(&form(CopyFormat::Text), 1, b"a\t1\nb\\\tc\t2\r\nd\\\ne\t3\nx\t\\N\n\\\\\t4\tmore\n\\.\ngone\t5\n");
        assert_eq!(
            pairs(&found),
            [
                ("a\t1\n", "1"),
                ("b\\\tc\t2\r\n", "2"),
                ("d\\\ne\t3\n", "3"),
                ("x\t\\N\n", "NULL"),
                ("\\\\\t4\tmore\n", "4")
            ]
        );
        assert_eq!(pairs(&rows(&form(CopyFormat::Text), 0, b"7\tx")), [("7\tx", "7")]);
        for bad in [&b"a\n"[..], b"a\t\\x31\n", b"a\t1\rb\t2\n"] {
            assert_eq!(pairs(&rows(&form(CopyFormat::Text), 1, bad)), [("22P04", "error")], "{bad:?}");
        }
    }

    #[test]
    fn csv() {
        let csv = form(CopyFormat::Csv { quote: b'"', escape: b'"' });
        let found = rows(&csv, 1, b"id,k\n\"a,\n\"\"b\",1\nc,\"2\"\r\nd,\ne,\"\"\nf,\"x\"\"y\"\n");
        assert_eq!(
            pairs(&found),
            [
                ("id,k\n", "*"),
                ("\"a,\n\"\"b\",1\n", "1"),
                ("c,\"2\"\r\n", "2"),
                ("d,\n", "NULL"),
                ("e,\"\"\n", ""),
                ("f,\"x\"\"y\"\n", "x\"y")
            ]
        );
        let csv = form(CopyFormat::Csv { quote: b'\'', escape: b'\\' });
        let found = rows(&csv, 0, b"k\n'a\\'\n,',2\n'b\\\\',1\n");
        assert_eq!(pairs(&found), [("k\n", "*"), ("'a\\'\n,',2\n", "a'\n,"), ("'b\\\\',1\n", "b\\")]);
        assert_eq!(pairs(&rows(&csv, 1, b"k\n1,'open\n")), [("k\n", "*"), ("22P04", "error")]);
    }

    #[test]
    fn binary() {
        let row = |fields: [Option<&[u8]>; 2]| {
            let mut out = vec![0, 2];
            for field in fields {
                out.extend(field.map_or(-1, |field| field.len() as i32).to_be_bytes());
                out.extend(field.unwrap_or_default());
            }
            out
        };
        let head = [SIGNATURE, &[0; 8]].concat();
        let data = [&head[..], &row([Some(b"x"), Some(&[0, 7])]), &row([None, None]), &[255, 255]].concat();
        let found = rows(&form(CopyFormat::Binary), 1, &data);
        assert_eq!(found.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), ["*", "[0, 7]", "NULL"]);
        let cut = rows(&form(CopyFormat::Binary), 1, &data[..data.len() - 3]);
        assert_eq!(cut.last().unwrap().1, "error");
        assert_eq!(pairs(&rows(&form(CopyFormat::Binary), 1, b"1\tx\n")), [("22P04", "error")]);
        let other = [&head[..], &[0, 3]].concat();
        assert_eq!(rows(&form(CopyFormat::Binary), 1, &other).last().unwrap().1, "error");
    }
}
