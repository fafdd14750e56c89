//! Rows that several shards send in order, merged into one order.
//!
//! Each row ends with its sort keys in binary form. A key is rewritten so that comparing bytes compares values as PostgreSQL's operators do (`btint8cmp`,
//! `btfloat8cmp`: NaN is the greatest, `numeric_cmp`, `byteacmp`, text under the collation C), with NULLS FIRST and DESC worked in: the smallest string of
//! bytes is the next row.

use crate::exec::collect::value;
use crate::wire::body::{Malformed, Reader};

/// How the values of a type are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Signed numbers of two, four or eight bytes, also dates and times.
    Signed,
    /// Numbers without a sign, booleans, and uuids, whose bytes are in order already.
    Plain,
    Float,
    Numeric,
    /// Strings of bytes, of any length.
    Bytes,
}

/// One sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    kind: Kind,
    descending: bool,
    nulls_first: bool,
}

impl Key {
    /// A key of the type of this number; `None` where such values are not compared here.
    pub fn new(type_oid: u32, descending: bool, nulls_first: bool) -> Option<Self> {
        let kind = match type_oid {
            20 | 21 | 23 | 1082 | 1083 | 1114 | 1184 => Kind::Signed,
            16 | 26 | 2950 => Kind::Plain,
            700 | 701 => Kind::Float,
            1700 => Kind::Numeric,
            17 | 19 | 25 | 1043 => Kind::Bytes,
            _ => return None,
        };
        Some(Self { kind, descending, nulls_first })
    }

    fn write(&self, out: &mut Vec<u8>, value: Option<&[u8]>) -> Result<(), Malformed> {
        let Some(value) = value else {
            out.push(if self.nulls_first { 0 } else { 2 });
            return Ok(());
        };
        out.push(1);
        let start = out.len();
        match self.kind {
            Kind::Plain => out.extend_from_slice(value),
            Kind::Signed => {
                out.extend_from_slice(value);
                flip_sign(out, start);
            }
            Kind::Float => float(out, value)?,
            Kind::Numeric => numeric(out, value)?,
            Kind::Bytes => bytes(out, value),
        }
        if self.descending {
            invert(out, start);
        }
        Ok(())
    }
}

fn flip_sign(out: &mut [u8], at: usize) {
    if let Some(first) = out.get_mut(at) {
        *first ^= 0x80;
    }
}

fn invert(out: &mut [u8], from: usize) {
    out.iter_mut().skip(from).for_each(|byte| *byte = !*byte);
}

fn float(out: &mut Vec<u8>, value: &[u8]) -> Result<(), Malformed> {
    let number = match value.len() {
        4 => f64::from(f32::from_be_bytes(value.try_into().map_err(|_| Malformed)?)),
        _ => f64::from_be_bytes(value.try_into().map_err(|_| Malformed)?),
    };
    // NaN equals itself, and zero its negative.
    let number = if number.is_nan() { f64::NAN.abs() } else { number + 0.0 };
    let bits = number.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.extend(ordered.to_be_bytes());
    Ok(())
}

/// `numeric_send`: the number of digits, the weight, the sign, the scale, then digits in base 10000.
fn numeric(out: &mut Vec<u8>, value: &[u8]) -> Result<(), Malformed> {
    const NEGATIVE: u16 = 0x4000;
    let mut reader = Reader::new(value);
    let (count, weight, sign, _scale) = (reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?);
    let start = out.len();
    match sign {
        0xF000 => out.push(0),
        0xD000 => out.push(4),
        0xC000 => out.push(5),
        _ if count == 0 => out.push(2),
        _ => {
            out.push(3);
            out.extend((weight ^ 0x8000).to_be_bytes());
            for _ in 0..count {
                out.extend(reader.u16()?.wrapping_add(1).to_be_bytes());
            }
            // Less than any digit that may follow in another number.
            out.extend([0, 0]);
            if sign == NEGATIVE {
                invert(out, start);
                if let Some(class) = out.get_mut(start) {
                    *class = 1;
                }
            }
        }
    }
    Ok(())
}

/// A zero byte ends a string; one inside is told from that.
fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend([0, 0]);
}

/// The first row of a shard that was not sent on yet.
#[derive(Debug, Default)]
pub struct Head {
    /// The row as the client gets it, the body of its DataRow.
    pub row: Vec<u8>,
    key: Vec<u8>,
    waits: bool,
}

/// Rows in the making of one order.
#[derive(Debug)]
pub struct Merge {
    keys: Vec<Key>,
    visible: u16,
    heads: Vec<Head>,
}

impl Merge {
    /// Of so many shards, whose rows have so many columns in front of their keys.
    pub fn new(keys: Vec<Key>, visible: u16, shards: usize) -> Self {
        Self { keys, visible, heads: (0..shards).map(|_| Head::default()).collect() }
    }

    /// Takes the next row of a shard, the body of its DataRow.
    ///
    /// # Errors
    /// It has other columns.
    pub fn take(&mut self, shard: usize, body: &[u8]) -> Result<(), Malformed> {
        let head = self.heads.get_mut(shard).ok_or(Malformed)?;
        let mut reader = Reader::new(body);
        if usize::from(reader.u16()?) != usize::from(self.visible) + self.keys.len() {
            return Err(Malformed);
        }
        for _ in 0..self.visible {
            value(&mut reader)?;
        }
        let end = body.len() - reader.rest().len();
        head.key.clear();
        let mut keys = Reader::new(body.get(end..).unwrap_or_default());
        for key in &self.keys {
            key.write(&mut head.key, value(&mut keys)?)?;
        }
        head.row.clear();
        head.row.extend(self.visible.to_be_bytes());
        head.row.extend_from_slice(body.get(2..end).unwrap_or_default());
        head.waits = true;
        Ok(())
    }

    /// The shard whose row is next; among equals the first shard's. Its place is free afterwards.
    pub fn first(&mut self) -> Option<(usize, &[u8])> {
        let waiting = self.heads.iter().enumerate().filter(|(_, head)| head.waits);
        let shard = waiting.min_by(|(_, one), (_, other)| one.key.cmp(&other.key)).map(|(shard, _)| shard)?;
        let head = self.heads.get_mut(shard)?;
        head.waits = false;
        Some((shard, &head.row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(oid: u32, descending: bool, value: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        Key::new(oid, descending, false).unwrap().write(&mut out, value).unwrap();
        out
    }

    /// Ascending values of a type, as they are sent.
    fn check(oid: u32, values: &[Vec<u8>]) {
        for (at, one) in values.iter().enumerate() {
            for (other_at, other) in values.iter().enumerate() {
                for descending in [false, true] {
                    let (first, second) = (encoded(oid, descending, Some(one)), encoded(oid, descending, Some(other)));
                    let expected = if descending { other_at.cmp(&at) } else { at.cmp(&other_at) };
                    assert_eq!(first.cmp(&second), expected, "{oid}: {one:?} {other:?}");
                    // What follows does not change it.
                    let more = |key: &[u8], byte: u8| [key, &[byte]].concat();
                    if expected.is_ne() {
                        assert_eq!(more(&first, 255).cmp(&more(&second, 0)), expected);
                    }
                }
            }
            assert!(encoded(oid, false, Some(one)) < encoded(oid, false, None));
            assert!(encoded(oid, true, Some(one)) < encoded(oid, true, None));
        }
    }

    fn numeric_of(sign: u16, weight: i16, digits: &[u16]) -> Vec<u8> {
        let head = [digits.len() as u16, weight as u16, sign, 5];
        head.iter().chain(digits).flat_map(|part| part.to_be_bytes()).collect()
    }

    #[test]
    fn keys_are_ordered_as_values() {
        check(20, &[i64::MIN, -5, -1, 0, 1, 256, i64::MAX].map(|number| number.to_be_bytes().to_vec()));
        check(21, &[i16::MIN, -1, 0, 1, 300].map(|number| number.to_be_bytes().to_vec()));
        let floats = [f64::NEG_INFINITY, -2.5, -1e-300, 0.0, 1e-300, 1.0, 1e300, f64::INFINITY, f64::NAN];
        check(701, &floats.map(|number| number.to_be_bytes().to_vec()));
        check(700, &floats.map(|number| (number as f32).to_be_bytes().to_vec())[..2]);
        check(25, &["", "\u{1}", "A", "AB", "B", "a", "ab", "ä"].map(|text| text.as_bytes().to_vec()));
        check(17, &[&b""[..], b"\0", b"\0\0", b"\0\x01", b"\x01", b"\xff", b"\xff\xff"].map(<[u8]>::to_vec));
        check(
            1700,
            &[
                numeric_of(0xF000, 0, &[]),
                numeric_of(0x4000, 1, &[1, 1]),
                numeric_of(0x4000, 1, &[1]),
                numeric_of(0x4000, 0, &[2, 5000]),
                numeric_of(0x4000, 0, &[2]),
                numeric_of(0x4000, -1, &[1]),
                numeric_of(0, 0, &[]),
                numeric_of(0, -2, &[9999]),
                numeric_of(0, -1, &[1]),
                numeric_of(0, 0, &[1]),
                numeric_of(0, 0, &[1, 0, 1]),
                numeric_of(0, 0, &[1, 1]),
                numeric_of(0, 0, &[9999, 9999]),
                numeric_of(0, 1, &[1]),
                numeric_of(0xD000, 0, &[]),
                numeric_of(0xC000, 0, &[]),
            ],
        );
        let zeros = [0.0_f64, -0.0].map(|zero| encoded(701, false, Some(&zero.to_be_bytes())));
        assert_eq!(zeros[0], zeros[1]);
        assert_eq!(Key::new(1186, false, false), None);
        assert_eq!(Key::new(114, false, false), None);
    }

    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            out.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            out.extend(value.unwrap_or_default());
        }
        out
    }

    #[test]
    fn rows_come_in_order_without_their_keys() {
        let shards: [&[(&str, Option<i32>)]; 3] =
            [&[("a", None), ("b", Some(3)), ("c", Some(1))], &[], &[("d", None), ("e", Some(7)), ("f", Some(1))]];
        let key = Key::new(23, true, true).unwrap();
        let mut merge = Merge::new(vec![key], 1, 3);
        let mut sent = [0; 3];
        let mut feed = |merge: &mut Merge, shard: usize| {
            if let Some((name, number)) = shards[shard].get(sent[shard]) {
                let number = number.map(i32::to_be_bytes);
                let body = row(&[Some(name.as_bytes()), number.as_ref().map(|number| &number[..])]);
                merge.take(shard, &body).unwrap();
                sent[shard] += 1;
            }
        };
        (0..3).for_each(|shard| feed(&mut merge, shard));
        let mut heard = Vec::new();
        while let Some((shard, body)) = merge.first() {
            heard.push(body.to_vec());
            feed(&mut merge, shard);
        }
        assert_eq!(heard, ["a", "d", "e", "b", "c", "f"].map(|name| row(&[Some(name.as_bytes())])));
        assert!(merge.take(0, &row(&[None])).is_err());
    }
}
