//! What Bind has behind its names: values of parameters, and the formats of the result's columns.

use crate::wire::body::{Malformed, Reader};

/// Bind's parameters.
pub(super) struct Given<'a> {
    /// Their values.
    pub values: Vec<Option<&'a [u8]>>,
    formats: Vec<u16>,
    /// What follows them: the formats of the result's columns.
    pub result_formats: &'a [u8],
}

impl<'a> Given<'a> {
    /// Reads them.
    ///
    /// # Errors
    /// The message does not hold what its type promises.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = reader.u16()?;
        let formats: Vec<u16> = (0..count).map(|_| reader.u16()).collect::<Result<_, _>>()?;
        let count = reader.u16()?;
        let mut values = Vec::new();
        for _ in 0..count {
            let length = reader.u32()?.cast_signed();
            values.push(match usize::try_from(length) {
                Ok(length) => Some(reader.bytes(length)?),
                Err(_) if length == -1 => None,
                Err(_) => return Err(Malformed),
            });
        }
        Ok(Self { values, formats, result_formats: reader.rest() })
    }

    /// Whether some column of the answer is wanted in binary form.
    pub fn asks_binary(&self) -> bool {
        self.result_formats.get(2..).is_some_and(|formats| formats.iter().any(|byte| *byte != 0))
    }

    /// The format code of a parameter (PostgreSQL: none given means text, one given means all).
    pub fn format(&self, index: usize) -> u16 {
        match self.formats.as_slice() {
            [] => 0,
            [all] => *all,
            each => each.get(index).copied().unwrap_or(0),
        }
    }

    /// The values as PostgreSQL logs them, `$1 = '42', $2 = NULL`; `types` are those that Parse declared. `None` where a value in binary form is of no known type,
    /// or all are too long.
    pub fn shown(&self, types: &[u32]) -> Option<String> {
        const LONGEST: usize = 512;
        let mut out = String::new();
        for (index, value) in self.values.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let binary = self.format(index) == 1;
            let text = match value {
                None => "NULL".to_owned(),
                Some(bytes) if !binary => quoted(std::str::from_utf8(bytes).ok()?),
                Some(bytes) => quoted(&from_binary(bytes, types.get(index).copied().unwrap_or_default())?),
            };
            out.push_str(&format!("{comma}${} = {text}", index + 1));
            if out.len() > LONGEST {
                return None;
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value of a plain type as text, by the type's number.
fn from_binary(bytes: &[u8], kind: u32) -> Option<String> {
    Some(match kind {
        16 => if bytes == [1] { "t" } else { "f" }.to_owned(),
        20 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        21 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        23 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        700 => f32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        701 => f64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        25 | 1042 | 1043 => std::str::from_utf8(bytes).ok()?.to_owned(),
        2950 if bytes.len() == 16 => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(formats: &[u16], values: &[Option<&[u8]>], types: &[u32]) -> Option<String> {
        let mut body = (formats.len() as u16).to_be_bytes().to_vec();
        formats.iter().for_each(|format| body.extend(format.to_be_bytes()));
        body.extend((values.len() as u16).to_be_bytes());
        for value in values {
            body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            body.extend(value.unwrap_or_default());
        }
        body.extend([0, 1, 0, 1]);
        let given = Given::read(&mut Reader::new(&body)).unwrap();
        assert!(given.asks_binary());
        given.shown(types)
    }

    #[test]
    fn values_are_shown_as_postgresql_logs_them() {
        let text = shown(&[], &[Some(b"o'x"), None], &[]);
        assert_eq!(text.as_deref(), Some("$1 = 'o''x', $2 = NULL"));
        let binary = shown(&[1], &[Some(&7i32.to_be_bytes()), Some(&[1]), Some(b"a")], &[23, 16, 25]);
        assert_eq!(binary.as_deref(), Some("$1 = '7', $2 = 't', $3 = 'a'"));
        assert_eq!(shown(&[1], &[Some(&[0, 0, 0, 7])], &[]), None);
        assert_eq!(shown(&[], &[Some(&[b'x'; 600])], &[]), None);
        assert_eq!(shown(&[], &[], &[]), None);
    }
}
