//! An answer of the console as rows, and those rows as messages of the protocol.

use crate::wire::message::{cstr, frame};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number of 8 bytes.
    Number,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing is known.
    Null,
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    /// As PgBouncer shows it.
    fn from(is: bool) -> Self {
        Self::Number(is.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A column's name and what it holds.
pub type Column = (&'static str, Kind);

/// Rows under their columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table without rows. A column whose name begins with `#` holds numbers.
    pub fn new(columns: &[&'static str]) -> Self {
        let column = |name: &&'static str| match name.strip_prefix('#') {
            Some(name) => (name, Kind::Number),
            None => (*name, Kind::Text),
        };
        Self { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, values: [Value; N]) {
        self.rows.push(values.into());
    }

    /// Appends RowDescription; `formats` as a Bind gives them.
    pub fn describe(columns: &[Column], formats: &[u16], out: &mut Vec<u8>) {
        frame(out, b'T', |out| {
            out.extend_from_slice(&u16::try_from(columns.len()).unwrap_or(u16::MAX).to_be_bytes());
            for (at, (name, kind)) in columns.iter().enumerate() {
                cstr(out, name.as_bytes());
                // Of no table, in no column of it.
                out.extend_from_slice(&[0; 6]);
                // The types' object ids and lengths: int8 and text.
                let (oid, length) = match kind {
                    Kind::Number => (20u32, 8i16),
                    Kind::Text => (25, -1),
                };
                out.extend_from_slice(&oid.to_be_bytes());
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&(-1i32).to_be_bytes());
                out.extend_from_slice(&format(formats, at).to_be_bytes());
            }
        });
    }

    /// Appends one DataRow.
    pub fn data(row: &[Value], formats: &[u16], out: &mut Vec<u8>) {
        frame(out, b'D', |out| {
            out.extend_from_slice(&u16::try_from(row.len()).unwrap_or(u16::MAX).to_be_bytes());
            for (at, value) in row.iter().enumerate() {
                match value {
                    Value::Null => out.extend_from_slice(&(-1i32).to_be_bytes()),
                    Value::Text(text) => sized(out, text.as_bytes()),
                    Value::Number(number) if format(formats, at) == 1 => sized(out, &number.to_be_bytes()),
                    Value::Number(number) => sized(out, number.to_string().as_bytes()),
                }
            }
        });
    }
}

/// The format of column `at`: none given means text, one is for all.
fn format(formats: &[u16], at: usize) -> u16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(at).copied().unwrap_or_default(),
    }
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sent_as_asked_for() {
        let mut out = Vec::new();
        Table::data(&[Value::Number(258), Value::Null, "x".into()], &[1, 0, 0], &mut out);
        assert_eq!(out, b"D\0\0\0\x1b\0\x03\0\0\0\x08\0\0\0\0\0\0\x01\x02\xff\xff\xff\xff\0\0\0\x01x");
        out.clear();
        Table::data(&[Value::Number(-7)], &[], &mut out);
        assert_eq!(out, b"D\0\0\0\x0c\0\x01\0\0\0\x02-7");
    }

    #[test]
    fn columns_say_their_type() {
        let mut out = Vec::new();
        let table = Table::new(&["name", "#count"]);
        assert_eq!(table.columns, [("name", Kind::Text), ("count", Kind::Number)]);
        Table::describe(&table.columns, &[1], &mut out);
        let (header, body) = crate::wire::frame::whole(&out, 1000).unwrap().unwrap();
        assert_eq!((header.tag, &body[..7]), (b'T', &b"\0\x02name\0"[..]));
        assert_eq!(body[body.len() - 12..], [0, 0, 0, 20, 0, 8, 255, 255, 255, 255, 0, 1]);
    }
}
