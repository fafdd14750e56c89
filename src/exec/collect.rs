//! Rows of several shards on their way to the one that computes an answer from them.
//!
//! Shards send rows as `Collect::question` asks for them; they become arrays of text, one for each column, which `Collect::answer` takes as
//! parameters. What is held is bounded: beyond that there is an error, and no answer.

use crate::route::collect::{SETTINGS_ROW, TEXT_SETTINGS};
use crate::wire::body::{Malformed, Reader};
use crate::wire::message::Failure;

/// The arrays in the making.
#[derive(Debug)]
pub struct Collected {
    /// For each part, for each column, the elements so far, with commas.
    parts: Vec<Vec<Vec<u8>>>,
    rows: u64,
    bytes: u64,
    most: u64,
}

impl Collected {
    /// Parts with so many columns, of `most` bytes together.
    pub fn new(widths: &[usize], most: u64) -> Self {
        Self { parts: widths.iter().map(|width| vec![Vec::new(); *width]).collect(), rows: 0, bytes: 0, most }
    }

    /// Takes one row, as the body of its DataRow.
    ///
    /// # Errors
    /// It is more than may be held (54000), the shard's session writes values in a form that does not read back (0A000), or it is no such
    /// row (08P01).
    pub fn take(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.row(body)
            .unwrap_or_else(|Malformed| Err(Failure::error("08P01", "a shard sent a row that was not asked for")))
    }

    fn row(&mut self, body: &[u8]) -> Result<Result<(), Failure>, Malformed> {
        let mut reader = Reader::new(body);
        let _columns = reader.u16()?;
        let number = value(&mut reader)?.ok_or(Malformed)?;
        if number == SETTINGS_ROW {
            return settings(&mut reader);
        }
        let number: usize = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)?;
        let width = self.parts.get(number).ok_or(Malformed)?.len();
        let values: Vec<Option<&[u8]>> = (0..width).map(|_| value(&mut reader)).collect::<Result<_, _>>()?;
        Ok(self.push(number, &values))
    }

    /// Adds a row to a part.
    ///
    /// # Errors
    /// It is more than may be held (54000).
    pub fn push(&mut self, part: usize, values: &[Option<&[u8]>]) -> Result<(), Failure> {
        for (column, value) in self.parts.get_mut(part).into_iter().flatten().zip(values) {
            let before = column.len();
            let comma: &[u8] = if column.is_empty() { b"" } else { b"," };
            column.extend_from_slice(comma);
            match value {
                None => column.extend_from_slice(b"NULL"),
                Some(text) => quote(column, text),
            }
            self.bytes += (column.len() - before) as u64;
        }
        self.rows += 1;
        if self.bytes > self.most { Err(self.too_much()) } else { Ok(()) }
    }

    /// How many rows there are.
    pub fn count(&self) -> u64 {
        self.rows
    }

    /// Whether a part has rows.
    pub fn has_rows(&self, part: usize) -> bool {
        self.parts.get(part).and_then(|columns| columns.first()).is_some_and(|column| !column.is_empty())
    }

    /// The arrays of each part.
    pub fn arrays_by_part(self) -> Vec<Vec<Vec<u8>>> {
        let array = |elements: Vec<u8>| [b"{", &elements[..], b"}"].concat();
        self.parts.into_iter().map(|part| part.into_iter().map(array).collect()).collect()
    }

    fn too_much(&self) -> Failure {
        let what = format!("this query needs more than {} MB of rows from all shards in one place", self.most >> 20);
        Failure::error("54000", what)
            .detail(format!("It was given up after {} rows.", self.rows))
            .hint("Compare the sharding key with a constant, add conditions that leave fewer rows, or raise sharding.max_collected.")
    }

    /// The arrays, in the order of the parts and their columns.
    pub fn arrays(self) -> impl Iterator<Item = Vec<u8>> {
        self.arrays_by_part().into_iter().flatten()
    }
}

/// The next value of a DataRow.
pub fn value<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    let length = reader.u32()?.cast_signed();
    match usize::try_from(length) {
        Ok(length) => reader.bytes(length).map(Some),
        Err(_) => Ok(None),
    }
}

fn settings(reader: &mut Reader<'_>) -> Result<Result<(), Failure>, Malformed> {
    for (name, beginnings) in TEXT_SETTINGS {
        let now = value(reader)?.ok_or(Malformed)?;
        if !beginnings.iter().any(|beginning| now.starts_with(beginning.as_bytes())) {
            let shown = String::from_utf8_lossy(now).into_owned();
            let what =
                format!("refused: while {name} is {shown}, values cannot be sent from shard to shard as they are");
            return Ok(Err(Failure::error("0A000", what)
                .detail("Rule: collect-rows.")
                .hint(format!("SET {name} = '{}'.", beginnings.first().unwrap_or(&"")))));
        }
    }
    Ok(Ok(()))
}

/// An element of an array, as `array_in` reads it.
fn quote(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<&str>]) -> Vec<u8> {
        let mut out = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            out.extend(value.map_or(-1, |text| text.len() as i32).to_be_bytes());
            out.extend(value.unwrap_or_default().as_bytes());
        }
        out
    }

    #[test]
    fn rows_become_arrays() {
        let mut collected = Collected::new(&[2, 1], 100);
        for values in [
            vec![Some("-1"), Some("1"), Some("ISO, MDY"), Some("postgres")],
            vec![Some("0"), Some("a"), Some("x\"y\\z"), None],
            vec![Some("1"), Some(""), None, None],
            vec![Some("0"), None, Some("NULL"), None],
        ] {
            collected.take(&row(&values)).unwrap();
        }
        let arrays: Vec<String> = collected.arrays().map(|array| String::from_utf8(array).unwrap()).collect();
        assert_eq!(arrays, [r#"{"a",NULL}"#, r#"{"x\"y\\z","NULL"}"#, r#"{""}"#]);
    }

    #[test]
    fn too_much_and_odd_rows_are_errors() {
        let code = |values: &[Option<&str>]| {
            Collected::new(&[1], 10).take(&row(values)).map_err(|failure| failure.code).unwrap_err()
        };
        assert_eq!(code(&[Some("0"), Some("123456789")]), "54000");
        assert_eq!(code(&[Some("1"), Some("1")]), "08P01");
        assert_eq!(code(&[None]), "08P01");
        assert_eq!(code(&[Some("0")]), "08P01");
        assert_eq!(code(&[Some("-1"), Some("0"), Some("ISO, MDY"), Some("postgres")]), "0A000");
        assert_eq!(code(&[Some("-1"), Some("1"), Some("SQL, DMY"), Some("postgres")]), "0A000");
    }
}
