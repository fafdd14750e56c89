//! A server's errors in the client's words: names of prepared statements, and places in texts that names were put into.

use crate::pool::statements::PREFIX;
use crate::proxy::by_name::Shift;
use crate::proxy::conversation::Conversation;
use crate::proxy::expect::Expect;
use crate::wire::body::Reader;

/// Digits of a key in a statement's name.
const DIGITS: usize = 32;

impl Conversation {
    /// An error's body with the client's names and places; `None` when it holds nothing of the kind.
    pub(super) fn in_client_words(&self, body: &[u8]) -> Option<Box<[u8]>> {
        let shifts = match self.expects.head() {
            Some(Expect::NamedQuery(query)) => query.shifts.as_slice(),
            _ => &[],
        };
        if shifts.is_empty() && memchr::memmem::find(body, PREFIX).is_none() {
            return None;
        }
        let mut reader = Reader::new(body);
        let mut out = Vec::with_capacity(body.len());
        while let Ok(tag @ 1..) = reader.u8() {
            let value = reader.cstr().ok()?;
            out.push(tag);
            match tag {
                b'P' => out.extend_from_slice(&place(value, shifts)),
                _ => self.renamed(value, &mut out),
            }
            out.push(0);
        }
        out.push(0);
        Some(out.into())
    }

    /// What the client calls a statement: as it just did, or any of its names.
    fn client_name(&self, name: &[u8]) -> Option<&[u8]> {
        match self.expects.head() {
            Some(Expect::NameTaken(taken)) => return Some(taken),
            Some(Expect::NamedQuery(query)) => {
                if let Some(renamed) = query.names.iter().find(|renamed| *renamed.server == *name) {
                    return Some(&renamed.client);
                }
            }
            _ => {}
        }
        let bound = match self.expects.head() {
            Some(Expect::Bind(_, hash)) => Some(*hash),
            _ => None,
        };
        self.statements.name_of(name, bound).or_else(|| self.expects.former_name(name))
    }

    fn renamed(&self, mut text: &[u8], out: &mut Vec<u8>) {
        while let Some(at) = memchr::memmem::find(text, PREFIX) {
            let end = at + PREFIX.len() + DIGITS;
            let name = text.get(at..end).and_then(|name| self.client_name(name));
            let (end, name) = match name {
                Some(name) => (end, name),
                None => (at + PREFIX.len(), PREFIX),
            };
            out.extend_from_slice(text.get(..at).unwrap_or_default());
            out.extend_from_slice(name);
            text = text.get(end..).unwrap_or_default();
        }
        out.extend_from_slice(text);
    }
}

/// A position of the server's text as one of the client's.
fn place(value: &[u8], shifts: &[Shift]) -> Vec<u8> {
    let Some(at) = std::str::from_utf8(value).ok().and_then(|text| text.parse::<isize>().ok()) else {
        return value.to_vec();
    };
    let before = shifts.iter().filter(|shift| at > shift.at.cast_signed());
    (at - before.map(|shift| shift.by).sum::<isize>()).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_back_by_what_was_put_in_before_them() {
        let shifts = [Shift { at: 48, by: 39 }, Shift { at: 100, by: -2 }];
        for (server, client) in [("5", "5"), ("48", "48"), ("49", "10"), ("101", "64"), ("x", "x")] {
            assert_eq!(place(server.as_bytes(), &shifts), client.as_bytes(), "{server}");
        }
    }
}
