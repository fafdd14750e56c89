//! Numbers of types and tables that users have made: what they are on each shard, and on the first one, by whose the client knows them.
//!
//! A client learns numbers from the catalogs, which the first shard answers for all. So every description that another shard sends is
//! given the first one's numbers, and types that the client declares are given those of the shard.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::wire::body::{Malformed, Reader};
use crate::wire::frame::{self, HEADER_LEN, MAX_BODY};

/// The first number of an object that a user has made (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16384;

/// Types and tables: kind, number, name, and the name of an enum as `format_type` prints it.
pub(super) const NUMBERS: &str = "
select 't', t.oid::text, pg_catalog.format('%I.%I', n.nspname, t.typname), case when t.typtype = 'e' then pg_catalog.format_type(t.oid, null) end
from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where t.oid >= 16384 and n.nspname !~ '^pg_(toast|temp)'
union all
select 'c', c.oid::text, pg_catalog.format('%I.%I', n.nspname, c.relname), null
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid >= 16384 and c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_(toast|temp)'";

/// One shard's numbers by kind and name.
pub(super) type Named = HashMap<(String, String), u32>;

/// The answer to [`NUMBERS`], and the names of enums.
pub(super) fn named(rows: Vec<Vec<Option<String>>>) -> (Named, BTreeSet<String>) {
    let (mut named, mut enums) = (Named::new(), BTreeSet::new());
    for row in rows {
        let mut fields = row.into_iter();
        let (kind, number, name, as_type) = (fields.next(), fields.next(), fields.next(), fields.next());
        if let (Some(Some(kind)), Some(Some(number)), Some(Some(name))) = (kind, number, name)
            && let Ok(number) = number.parse()
        {
            named.insert((kind, name), number);
        }
        enums.extend(as_type.flatten());
    }
    (named, enums)
}

/// What one shard's numbers are on the first, and back.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    types: HashMap<u32, u32>,
    tables: HashMap<u32, u32>,
    back: HashMap<u32, u32>,
}

impl Numbers {
    /// Of a shard, by the names that both have.
    pub fn new(first: &Named, own: &Named) -> Self {
        let mut numbers = Self::default();
        for (name, number) in own {
            let Some(there) = first.get(name) else { continue };
            if name.0 == "t" {
                numbers.types.insert(*number, *there);
                numbers.back.insert(*there, *number);
            } else {
                numbers.tables.insert(*number, *there);
            }
        }
        numbers
    }

    /// Gives RowDescription and ParameterDescription, whole frames, the first shard's numbers. A table that it does not have is none.
    ///
    /// # Errors
    /// It is not understood, or has a type that the first shard does not have.
    pub fn to_client(&self, frame: &mut [u8]) -> Result<(), Malformed> {
        let tag = frame.first().copied().unwrap_or_default();
        let body = frame.get_mut(HEADER_LEN..).unwrap_or_default();
        let mut places = Vec::new();
        let mut reader = Reader::new(body);
        let (whole, count) = (body.len(), reader.u16()?);
        for _ in 0..count {
            if tag == b'T' {
                reader.cstr()?;
                places.push((whole - reader.rest().len(), &self.tables, false));
                reader.bytes(6)?;
            }
            places.push((whole - reader.rest().len(), &self.types, true));
            reader.bytes(if tag == b'T' { 12 } else { 4 })?;
        }
        for (at, numbers, must) in places {
            let place = body.get_mut(at..at + 4).ok_or(Malformed)?;
            let own = u32::from_be_bytes(<[u8; 4]>::try_from(&*place).map_err(|_| Malformed)?);
            if own >= FIRST_OF_USERS {
                let there = match numbers.get(&own) {
                    Some(there) => *there,
                    None if must => return Err(Malformed),
                    None => 0,
                };
                place.copy_from_slice(&there.to_be_bytes());
            }
        }
        Ok(())
    }

    /// Gives the types that are declared in Parse messages the shard's numbers. `out` holds whole messages.
    pub fn to_server(&self, out: &mut [u8]) {
        let mut at = 0;
        while let Ok(Some((header, _))) = frame::whole(out.get(at..).unwrap_or_default(), MAX_BODY) {
            if header.tag == b'P'
                && let Some(body) = out.get_mut(at + HEADER_LEN..at + header.total())
            {
                // What is no Parse is for the server to say.
                let _ = self.declared(body);
            }
            at += header.total();
        }
    }

    fn declared(&self, body: &mut [u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        reader.cstr()?;
        reader.cstr()?;
        reader.u16()?;
        let start = body.len() - reader.rest().len();
        for place in body.get_mut(start..).unwrap_or_default().chunks_exact_mut(4) {
            let there = u32::from_be_bytes(<[u8; 4]>::try_from(&*place).map_err(|_| Malformed)?);
            if let Some(own) = self.back.get(&there) {
                place.copy_from_slice(&own.to_be_bytes());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message;

    #[test]
    fn numbers_are_those_of_the_first_shard() {
        let rows = |numbers: [&str; 2]| {
            let row = |kind: &str, number: &str, name: &str, of_enum: bool| {
                let text = |text: &str| Some(text.to_owned());
                vec![text(kind), text(number), text(name), of_enum.then(|| "mood".to_owned())]
            };
            named(vec![row("t", numbers[0], "public.mood", true), row("c", numbers[1], "public.mood", false)])
        };
        let ((first, enums), (own, _)) = (rows(["20000", "20001"]), rows(["30000", "30001"]));
        assert!(enums.contains("mood"));
        let numbers = Numbers::new(&first, &own);
        let described = |table: u32, kind: u32| {
            let mut out = Vec::new();
            message::frame(&mut out, b'T', |out| {
                out.extend([0, 1]);
                message::cstr(out, b"column");
                out.extend(table.to_be_bytes());
                out.extend([0, 1]);
                out.extend(kind.to_be_bytes());
                out.extend([0; 8]);
            });
            out
        };
        let mapped = |table, kind| {
            let mut frame = described(table, kind);
            numbers.to_client(&mut frame).map(|()| frame)
        };
        assert_eq!(mapped(30001, 30000).ok(), Some(described(20001, 20000)));
        assert_eq!(mapped(30001, 25).ok(), Some(described(20001, 25)));
        // A table that only this shard has is none; a type is an error.
        assert_eq!(mapped(31000, 25).ok(), Some(described(0, 25)));
        assert!(mapped(0, 31000).is_err());
        let parse = |kind: u32| {
            let mut out = Vec::new();
            message::sync(&mut out);
            message::parse(&mut out, b"s", &[b"select $1\0\0\x01", &kind.to_be_bytes()[..]].concat());
            message::sync(&mut out);
            out
        };
        let mut out = parse(20000);
        numbers.to_server(&mut out);
        assert_eq!(out, parse(30000));
    }
}
