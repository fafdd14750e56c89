//! A key's type, and a key's value as a statement gives it.
//!
//! What PostgreSQL's input functions accept is wider than what is read here: only forms whose meaning depends on no
//! setting and involves no rounding are taken. Everything else is "not proven", and the reason says what to write.

use std::borrow::Cow;

use super::{hash, time};
use crate::sql::catalog::Column;

/// The types that a sharding key may have, by how they compare and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// smallint, integer, bigint, by their size in bytes.
    Integer(u8),
    /// text, and varchar with its longest length in characters.
    Text(Option<u32>),
    /// character(n): trailing blanks do not count.
    Blanked,
    /// uuid.
    Uuid,
    /// date.
    Date,
    /// timestamp without time zone.
    Timestamp,
    /// timestamp with time zone.
    TimestampTz,
}

/// A key's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyValue<'a> {
    /// A whole number.
    Integer(i64),
    /// Text as the database compares it.
    Text(Cow<'a, str>),
    /// A uuid's bytes.
    Uuid([u8; 16]),
    /// Days since 2000-01-01.
    Date(i32),
    /// Microseconds since 2000-01-01 00:00, with a time zone in UTC.
    Time(i64),
    /// NULL, which equals nothing.
    Null,
}

/// How a value stands in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written<'a> {
    /// A numeric literal, with its sign taken off.
    Number {
        /// The digits.
        text: &'a str,
        /// A minus sign stands before it.
        negative: bool,
    },
    /// A string literal or a parameter in text form: of unknown type until compared.
    Text(&'a str),
    /// A parameter in binary form.
    Binary(&'a [u8]),
}

impl KeyType {
    /// The key type of a column; the error says why it can be none.
    pub fn of_column(column: &Column) -> Result<Self, String> {
        let name = column.type_name.as_str();
        let base = name.split('(').next().unwrap_or(name).trim();
        let length = name.split_once('(').and_then(|(_, rest)| rest.trim_end_matches(')').trim().parse().ok());
        let key = match base {
            "smallint" | "int2" | "smallserial" | "serial2" => Self::Integer(2),
            "integer" | "int" | "int4" | "serial" | "serial4" => Self::Integer(4),
            "bigint" | "int8" | "bigserial" | "serial8" => Self::Integer(8),
            "text" => Self::Text(None),
            "character varying" | "varchar" => Self::Text(length),
            "character" | "char" | "bpchar" => Self::Blanked,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "timestamp" | "timestamp without time zone" if !name.contains('(') => Self::Timestamp,
            "timestamptz" | "timestamp with time zone" if !name.contains('(') => Self::TimestampTz,
            _ => {
                return Err(format!(
                    "a key of type {name} is not available in this version; integers, text, varchar, char, uuid, date and timestamps of full precision are"
                ));
            }
        };
        match &column.collation {
            Some(collation) if !is_deterministic(collation) => Err(format!(
                "the key's collation {collation} may call different bytes equal, so that their hash cannot place a row"
            )),
            _ => Ok(key),
        }
    }

    /// True when equal values of the two types hash alike and compare by the same rules.
    pub fn is_comparable_with(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// True when a cast to this type name leaves the value as it was given.
    pub fn allows_cast(self, cast: &str) -> bool {
        let cast = cast.trim();
        match self {
            Self::Integer(_) => {
                matches!(cast, "int" | "integer" | "int4" | "bigint" | "int8" | "smallint" | "int2")
            }
            Self::Text(_) => matches!(cast, "text" | "varchar" | "character varying"),
            Self::Blanked => matches!(cast, "bpchar"),
            Self::Uuid => cast == "uuid",
            Self::Date => cast == "date",
            Self::Timestamp => matches!(cast, "timestamp" | "timestamp without time zone"),
            Self::TimestampTz => matches!(cast, "timestamptz" | "timestamp with time zone"),
        }
    }

    /// True when a parameter declared with this type's OID may be compared with the key by its value.
    /// 0 is "not declared": the server then takes the key's own type.
    pub fn allows_parameter(self, oid: u32) -> bool {
        match self {
            Self::Integer(_) => matches!(oid, 0 | 20 | 21 | 23),
            Self::Text(_) => matches!(oid, 0 | 25 | 705 | 1043),
            Self::Blanked => matches!(oid, 0 | 1042),
            Self::Uuid => matches!(oid, 0 | 2950),
            Self::Date => matches!(oid, 0 | 1082),
            Self::Timestamp => matches!(oid, 0 | 1114),
            Self::TimestampTz => matches!(oid, 0 | 1184),
        }
    }

    /// The value of what is written, as the key's type reads it.
    pub fn read<'a>(self, written: Written<'a>) -> Result<KeyValue<'a>, String> {
        match (self, written) {
            (Self::Integer(_), Written::Number { text, negative }) => integer(text, negative),
            (Self::Integer(size), Written::Text(text)) => {
                let (digits, negative) = match text.strip_prefix('-') {
                    Some(digits) => (digits, true),
                    None => (text, false),
                };
                let value = integer(digits, negative)?;
                let limit = 1_i128 << (u32::from(size) * 8 - 1);
                match value {
                    KeyValue::Integer(n) if i128::from(n) >= -limit && i128::from(n) < limit => Ok(value),
                    _ => Err(format!("'{text}' is out of range for the key's type")),
                }
            }
            (Self::Integer(_), Written::Binary(bytes)) => match *bytes {
                [a, b] => Ok(KeyValue::Integer(i16::from_be_bytes([a, b]).into())),
                [a, b, c, d] => Ok(KeyValue::Integer(i32::from_be_bytes([a, b, c, d]).into())),
                [a, b, c, d, e, f, g, h] => Ok(KeyValue::Integer(i64::from_be_bytes([a, b, c, d, e, f, g, h]))),
                _ => Err(format!("a binary integer has 2, 4 or 8 bytes, not {}", bytes.len())),
            },
            (Self::Text(_), Written::Text(text)) => Ok(KeyValue::Text(Cow::Borrowed(text))),
            (Self::Blanked, Written::Text(text)) => Ok(KeyValue::Text(Cow::Borrowed(text.trim_end_matches(' ')))),
            (Self::Text(_) | Self::Blanked, Written::Binary(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => self.read(Written::Text(text)),
                Err(_) => Err("the key's text is not UTF-8".to_owned()),
            },
            (Self::Uuid, Written::Text(text)) => uuid(text),
            (Self::Uuid, Written::Binary(bytes)) => bytes
                .try_into()
                .map(KeyValue::Uuid)
                .map_err(|_| format!("a binary uuid has 16 bytes, not {}", bytes.len())),
            (Self::Date, Written::Text(text)) => date(text),
            (Self::Date, Written::Binary(bytes)) => bytes
                .try_into()
                .map(|bytes| KeyValue::Date(i32::from_be_bytes(bytes)))
                .map_err(|_| format!("a binary date has 4 bytes, not {}", bytes.len())),
            (Self::Timestamp, Written::Text(text)) => time::of_civil(text).map(KeyValue::Time),
            (Self::TimestampTz, Written::Text(text)) => time::of_instant(text).map(KeyValue::Time),
            (Self::Timestamp | Self::TimestampTz, Written::Binary(bytes)) => {
                match bytes.try_into().map(i64::from_be_bytes) {
                    Ok(i64::MIN | i64::MAX) => Err("infinity has no place".to_owned()),
                    Ok(micros) => Ok(KeyValue::Time(micros)),
                    Err(_) => Err(format!("a binary timestamp has 8 bytes, not {}", bytes.len())),
                }
            }
            (_, Written::Number { text, .. }) => {
                Err(format!("the number {text} is compared with a key that is no number"))
            }
        }
    }

    /// True when storing this value in the key's column keeps it as it is: a varchar(n) drops blanks beyond n.
    pub fn stores(self, value: &KeyValue<'_>) -> bool {
        match (self, value) {
            (Self::Text(Some(longest)), KeyValue::Text(text)) => text.chars().count() <= longest as usize,
            _ => true,
        }
    }
}

impl KeyValue<'_> {
    /// PostgreSQL's partition hash of it; `None` for NULL.
    pub fn hash(&self) -> Option<u64> {
        match self {
            Self::Integer(value) => Some(hash::of_integer(*value)),
            Self::Text(text) => Some(hash::of_bytes(text.as_bytes())),
            Self::Uuid(bytes) => Some(hash::of_bytes(bytes)),
            Self::Date(days) => Some(hash::of_word(*days as u32)),
            Self::Time(micros) => Some(hash::of_integer(*micros)),
            Self::Null => None,
        }
    }
}

/// Collations under which only equal bytes are equal. Names of ICU's predefined collations end in `-x-icu`, those of
/// the C library have an encoding; both are always deterministic. A collation that a user made may not be.
fn is_deterministic(collation: &str) -> bool {
    let name = collation.rsplit('.').next().unwrap_or(collation).trim_matches('"');
    matches!(name, "default" | "C" | "POSIX" | "ucs_basic") || name.ends_with("-x-icu") || collation.contains(".utf8")
}

fn integer(digits: &str, negative: bool) -> Result<KeyValue<'static>, String> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{digits} is not a plain whole number"));
    }
    let magnitude: i128 = digits.parse().map_err(|_| format!("{digits} is too large for an integer"))?;
    i64::try_from(if negative { -magnitude } else { magnitude })
        .map(KeyValue::Integer)
        .map_err(|_| format!("{digits} is too large for an integer"))
}

/// The forms `8-4-4-4-12` and 32 hexadecimal digits.
fn uuid(text: &str) -> Result<KeyValue<'static>, String> {
    let bad = || format!("'{text}' is not a uuid in its usual form");
    let dashes: Vec<usize> =
        text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(index, _)| index).collect();
    if !(dashes.is_empty() || dashes == [8, 13, 18, 23]) {
        return Err(bad());
    }
    let digits: Vec<u32> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>().ok_or_else(bad)?;
    let mut bytes = [0_u8; 16];
    if digits.len() != 32 {
        return Err(bad());
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |value, digit| value << 4 | *digit as u8);
    }
    Ok(KeyValue::Uuid(bytes))
}

/// `YYYY-MM-DD`, which every DateStyle reads alike.
fn date(text: &str) -> Result<KeyValue<'static>, String> {
    let bad = || format!("'{text}' is not a date of the form 2026-01-31");
    time::days(text).map(KeyValue::Date).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_name: &str) -> Column {
        Column { name: "k".to_owned(), type_name: type_name.to_owned(), ..Column::default() }
    }

    #[test]
    fn only_plain_forms_are_read() {
        let int4 = KeyType::of_column(&column("integer")).unwrap();
        let number = |text, negative| int4.read(Written::Number { text, negative });
        assert_eq!(number("42", false), Ok(KeyValue::Integer(42)));
        assert_eq!(number("9223372036854775808", true), Ok(KeyValue::Integer(i64::MIN)));
        for bad in ["42.0", "4e1", "0x1f", "1_000", "9223372036854775808", ""] {
            number(bad, false).unwrap_err();
        }
        assert_eq!(int4.read(Written::Text("-7")), Ok(KeyValue::Integer(-7)));
        for bad in [" 42", "42 ", "+42", "4294967296", "--1", "42.0", ""] {
            int4.read(Written::Text(bad)).unwrap_err();
        }
        assert_eq!(int4.read(Written::Binary(&[255, 255])), Ok(KeyValue::Integer(-1)));
        int4.read(Written::Binary(&[1, 2, 3])).unwrap_err();

        let text = KeyType::of_column(&column("character varying(3)")).unwrap();
        assert_eq!(text, KeyType::Text(Some(3)));
        text.read(Written::Number { text: "42", negative: false }).unwrap_err();
        let value = text.read(Written::Text("abc ")).unwrap();
        assert!(!text.stores(&value) && text.stores(&KeyValue::Text("äbc".into())));
        let blanked = KeyType::of_column(&column("character(5)")).unwrap();
        assert_eq!(blanked.read(Written::Text("ab  ")), Ok(KeyValue::Text("ab".into())));

        let uuid = KeyType::Uuid;
        let plain = uuid.read(Written::Text("A0EEBC999C0B4EF8BB6D6BB9BD380A11")).unwrap();
        assert_eq!(uuid.read(Written::Text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")).unwrap(), plain);
        uuid.read(Written::Text("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}")).unwrap_err();
        assert_eq!(KeyType::Date.read(Written::Text("2000-01-02")), Ok(KeyValue::Date(1)));
        assert_eq!(KeyType::Date.read(Written::Text("1999-12-31")), Ok(KeyValue::Date(-1)));
        for bad in ["2000-02-30", "01-02-2000", "today", "2000-1-2", "20000101"] {
            KeyType::Date.read(Written::Text(bad)).unwrap_err();
        }
        KeyType::of_column(&column("numeric(10,2)")).unwrap_err();
        let odd = Column { collation: Some("case_insensitive".to_owned()), ..column("text") };
        KeyType::of_column(&odd).unwrap_err();
    }

    /// Values that PostgreSQL 15 printed for `hashint8extended(x, seed)` and `hashtextextended(x, seed)`.
    #[test]
    fn hashes_are_postgresqls() {
        let combined = |hash: i64| Some((hash as u64).wrapping_add(0x49a0_f4dd_15e5_a8e3));
        for (value, hash) in [
            (0, -4403592609991167795),
            (1, 5968994663651403477),
            (42, 7363975540656877951),
            (-1, -5017072347659237694),
            (-42, 6660635123915733087),
            (i64::MAX, 4938542303000433043),
            (i64::MIN, -6050265599104649060),
        ] {
            assert_eq!(KeyValue::Integer(value).hash(), combined(hash), "{value}");
        }
        for (times, hash) in [
            (0, -5700645584453517373),
            (1, -5137871236213389764),
            (2, -5165235957286729199),
            (7, 7757885354830909392),
            (11, -8124170051058393465),
            (12, 8431514540555473724),
            (13, 8918472018346470838),
            (19, 7067627814328212096),
        ] {
            let text = "aé".repeat(times);
            assert_eq!(KeyValue::Text(text.into()).hash(), combined(hash), "{times}");
        }
    }
}
