//! "cached plan must not change result type": what a statement returns has changed since it was prepared.
//!
//! A segment of a client's messages that stands outside a transaction is kept while it is short. When it fails
//! for this reason before anything of its answer was passed on, and asks for a description of all that it runs, it is done
//! again with statements prepared anew. A client that relies on an earlier description would take the new bytes for the
//! old types: it hears the error, as from PostgreSQL, and what it prepares then is new.

use crate::proxy::conversation::Conversation;
use crate::wire::body::Reader;
use crate::wire::frame::HEADER_LEN;
use crate::wire::message;

/// Longest segment that is kept.
const MAX_KEPT: usize = 8 * 1024;

/// Memory that an idle client holds for the next one.
const MAX_IDLE: usize = 512;

/// What is kept of a client's segment.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    stage: Stage,
    /// What was bound last is described.
    described: bool,
    /// Something is run that is not described.
    blind: bool,
    /// A ParameterDescription that is not passed on before the columns are known, as they may not be what they were.
    parameters: Vec<u8>,
    /// To be done again.
    again: Option<Box<[u8]>>,
    /// It was done again already.
    tried: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is kept.
    #[default]
    Off,
    /// More of the segment will come.
    Open,
    /// It is all there.
    Whole,
}

impl Conversation {
    /// Keeps a frame that is about to be taken, when it may have to be done again. Only frames that use a
    /// named statement begin a segment worth keeping. Gives how much was kept before.
    pub(super) fn keep_frame(&mut self, whole: &[u8]) -> usize {
        let tag = whole.first().copied().unwrap_or_default();
        let begins = self.expects.is_empty() && self.status == b'I' && !self.unsynced && !self.plain;
        self.kept.stage = match (self.kept.stage, tag) {
            (_, b'B' | b'D') if begins => Stage::Open,
            (Stage::Open, b'S') => Stage::Whole,
            (Stage::Open, b'P' | b'B' | b'D' | b'E' | b'C' | b'H') => Stage::Open,
            _ => Stage::Off,
        };
        if begins {
            self.kept.bytes.clear();
            self.kept.blind = false;
        }
        match (tag, whole.get(HEADER_LEN)) {
            (b'B', _) => self.kept.described = false,
            (b'D', Some(b'P')) => self.kept.described = true,
            (b'E', _) => self.kept.blind |= !self.kept.described,
            _ => {}
        }
        let before = self.kept.bytes.len();
        if self.kept.bytes.len() + whole.len() > MAX_KEPT {
            self.kept.stage = Stage::Off;
        }
        if self.kept.stage != Stage::Off {
            self.kept.bytes.extend_from_slice(whole);
        }
        before
    }

    /// Keeps no more than that.
    pub(super) fn keep_less(&mut self, kept: usize) {
        self.kept.bytes.truncate(kept);
    }

    /// The same of a Query that speaks of prepared statements.
    pub(super) fn keep_query(&mut self, whole: &[u8]) {
        let begins = self.expects.is_empty() && self.status == b'I' && !self.unsynced;
        if begins && whole.len() <= MAX_KEPT {
            self.kept.bytes.clear();
            self.kept.bytes.extend_from_slice(whole);
            self.kept.stage = Stage::Whole;
            self.kept.blind = false;
        }
    }

    /// Something of the segment's answer was passed on.
    pub(super) fn answer_passed(&mut self) {
        self.kept.stage = Stage::Off;
        self.kept.tried = false;
    }

    /// Has the segment done again whose error this is; false when that cannot be.
    pub(super) fn heal(&mut self) -> bool {
        let whole = self.kept.stage == Stage::Whole && !self.kept.bytes.is_empty();
        if !whole || self.kept.blind || self.kept.tried || self.status != b'I' {
            return false;
        }
        self.kept.stage = Stage::Off;
        self.kept.tried = true;
        self.kept.parameters.clear();
        self.kept.again = Some(self.kept.bytes.as_slice().into());
        true
    }

    /// Keeps a ParameterDescription back, where it may have to be given again; false when it may not.
    pub(super) fn hold_parameters(&mut self, body: &[u8]) -> bool {
        let may_heal = self.kept.stage != Stage::Off && !self.kept.tried;
        if may_heal {
            self.kept.parameters.extend_from_slice(body);
        }
        may_heal
    }

    /// Whether one is kept back.
    pub(super) fn holds_parameters(&self) -> bool {
        !self.kept.parameters.is_empty()
    }

    /// Passes it on.
    pub(super) fn give_parameters(&mut self, to_client: &mut Vec<u8>) {
        if self.holds_parameters() {
            message::frame(to_client, b't', |out| out.append(&mut self.kept.parameters));
            self.answer_passed();
        }
    }

    /// Whether something is being done again.
    pub(super) fn is_again(&self) -> bool {
        self.kept.tried
    }

    /// What is to be done again.
    pub(super) fn take_again(&mut self) -> Option<Box<[u8]>> {
        self.kept.again.take()
    }

    /// Puts the rest of it back.
    pub(super) fn put_again(&mut self, rest: &[u8]) {
        self.kept.again = Some(rest.into());
    }

    /// Whether something is to be done again.
    pub fn has_again(&self) -> bool {
        self.kept.again.is_some()
    }

    /// Gives memory back that an idle client should not hold.
    pub(super) fn shrink_kept(&mut self) {
        if self.kept.bytes.capacity() > MAX_IDLE {
            self.kept.bytes = Vec::new();
        }
        if self.kept.parameters.capacity() > MAX_IDLE {
            self.kept.parameters = Vec::new();
        }
    }
}

/// Whether an error says that a statement's result has changed, in whatever language.
pub(super) fn result_has_changed(body: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    let (mut code, mut routine) = (false, false);
    while let Ok(tag @ 1..) = reader.u8() {
        let Ok(value) = reader.cstr() else { return false };
        match tag {
            b'C' => code = value == b"0A000",
            b'R' => routine = value == b"RevalidateCachedQuery",
            _ => {}
        }
    }
    code && routine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_known_by_what_is_not_translated() {
        let error = |code: &str, routine: &str| format!("SFEHLER\0C{code}\0MPlan\0R{routine}\0\0").into_bytes();
        assert!(result_has_changed(&error("0A000", "RevalidateCachedQuery")));
        assert!(!result_has_changed(&error("0A000", "transformStmt")));
        assert!(!result_has_changed(&error("42P01", "RevalidateCachedQuery")));
        assert!(!result_has_changed(b"C0A000"));
    }
}
