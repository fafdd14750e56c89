//! Server to client: each frame is passed on, unless it answers a message of our own.

use crate::pool::reset::report;
use crate::pool::server::ServerState;
use crate::proxy::care::{Care, Effect};
use crate::proxy::conversation::{Conversation, Passing};
use crate::proxy::expect::Expect;
use crate::proxy::shapes::{changed, is_description};
use crate::wire::body::{Reader, error_fields};
use crate::wire::frame::{self, HEADER_LEN, Header, MAX_BODY};
use crate::wire::message::{self, Failure};

/// Longest message of a server that is held until it is whole.
const MAX_HELD: usize = 64 * 1024;
/// Most parameters that a server may report; PostgreSQL has about fifteen.
const MAX_PARAMETERS: usize = 500;

/// What happens to one frame of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Forward,
    Drop,
}

/// Passes a notification on. Clients compare its sender with the process ids that they were told, so the server's
/// process becomes the client that it works for (or worked for last: it may have been lent again meanwhile).
fn notification(body: &[u8], state: &ServerState, to_client: &mut Vec<u8>) -> Fate {
    let Some((pid, rest)) = body.split_first_chunk() else { return Fate::Forward };
    let Some(client) = state.roll.client_of(u32::from_be_bytes(*pid)) else { return Fate::Forward };
    message::frame(to_client, b'A', |out| {
        out.extend_from_slice(&client.to_be_bytes());
        out.extend_from_slice(rest);
    });
    Fate::Drop
}

impl Conversation {
    /// Takes a server's bytes as far as they are understood; gives how many were taken.
    ///
    /// # Errors
    /// The server said something that cannot be; nothing it says may be believed any more.
    pub fn server_bytes(
        &mut self,
        bytes: &[u8],
        state: &mut ServerState,
        to_client: &mut Vec<u8>,
    ) -> Result<usize, Failure> {
        // Neighbouring frames that are passed on are copied as one run.
        let (mut at, mut run) = (0, 0);
        let copy = |run: usize, at: usize, to_client: &mut Vec<u8>| {
            to_client.extend_from_slice(bytes.get(run..at).unwrap_or_default());
        };
        let failure = loop {
            let rest = bytes.get(at..).unwrap_or_default();
            // Never inside a frame, and before anything that the server says next, whatever came of its last words.
            if self.expects.local_is_due() && self.answering.left == 0 {
                copy(run, at, to_client);
                run = at;
                self.deliver(to_client);
            }
            if self.answering.left > 0 {
                let count = self.answering.left.min(rest.len());
                if self.answering.dropped {
                    copy(run, at, to_client);
                    run = at + count;
                }
                self.answering.left -= count;
                at += count;
                if self.answering.left > 0 {
                    break None;
                }
                continue;
            }
            let (header, body) = match next_frame(rest, self.expects.head()) {
                Ok(Some(found)) => found,
                Ok(None) => break None,
                Err(failure) => break Some(failure),
            };
            // Words of our own may come with these, and go behind what was passed on so far.
            if matches!(header.tag, b'Z' | b'E' | b'A') || self.holds_parameters() {
                copy(run, at, to_client);
                run = at;
            }
            let fate = self.server_frame(header, body, state, to_client);
            if matches!(fate, Ok(Fate::Forward)) && !matches!(header.tag, b'N' | b'S' | b'A') {
                self.answer_passed();
            }
            match fate {
                // The usual case, in short.
                Ok(Fate::Forward) if header.total() <= rest.len() => at += header.total(),
                Ok(fate) => self.answering = Passing { left: header.total(), dropped: fate == Fate::Drop },
                Err(failure) => break Some(failure),
            }
        };
        // Also before a failure: what the client is told next must not stand in the middle of a frame.
        copy(run, at, to_client);
        // Whatever it still owes, nobody may have this connection after a server broke the protocol.
        self.suspect |= failure.is_some();
        failure.map_or(Ok(at), Err)
    }

    fn server_frame(
        &mut self,
        header: Header,
        body: &[u8],
        state: &mut ServerState,
        to_client: &mut Vec<u8>,
    ) -> Result<Fate, Failure> {
        let injected = self.expects.head().is_some_and(Expect::is_own);
        let ours = injected || matches!(self.expects.head(), Some(Expect::Ahead(_) | Expect::Failed));
        let fate = if ours { Fate::Drop } else { Fate::Forward };
        match header.tag {
            b'D' if injected => {
                self.expects.probe_row(body);
                Ok(Fate::Drop)
            }
            tag if is_description(tag) && self.is_described() => {
                Ok(self.described(tag, (body, header.body == body.len()), state, to_client))
            }
            b'C' if !ours => {
                self.tally.command(body);
                // A COPY that succeeds has taken them.
                self.copy_took_syncs = 0;
                self.answer(header.tag, body, state)
            }
            b'D' | b'd' | b'c' | b'V' | b'H' | b'C' | b's' | b'I' | b'T' | b'n' | b't' | b'G' | b'1' | b'2' | b'3' => {
                self.answer(header.tag, body, state)
            }
            b'Z' => {
                self.ready(body, state, to_client)?;
                self.rounds = self.rounds.wrapping_add(1);
                self.cancelled = None;
                Ok(fate)
            }
            // A server that ends the connection says so to the client.
            b'E' if injected && matches!(error_fields(body).severity, b"FATAL" | b"PANIC") => {
                self.errored = true;
                Ok(Fate::Forward)
            }
            b'E' if injected && !matches!(self.expects.head(), Some(Expect::Injected)) => {
                self.failed = true;
                Ok(Fate::Drop)
            }
            b'E' if injected => Err(Failure::fatal("22023", "the session's settings could not be applied to a server")
                .detail(String::from_utf8_lossy(error_fields(body).message))),
            b'E' => {
                match self.expects.head() {
                    Some(Expect::Refusal(own)) => self.tally.error(false, own.code.as_bytes()),
                    Some(Expect::Changed) => self.tally.error(false, b"0A000"),
                    _ => self.tally.error(true, error_fields(body).code),
                }
                self.refused_write |= error_fields(body).code == b"25006";
                let fate = self.error(body, state, to_client);
                if self.cancelled.is_some() && error_fields(body).code == b"57014" && matches!(fate, Fate::Forward) {
                    self.cancelled.take().into_iter().for_each(|failure| failure.write(to_client));
                    return Ok(Fate::Drop);
                }
                Ok(fate)
            }
            b'S' => {
                self.parameter(body, state)?;
                if !injected {
                    self.note_told(state);
                }
                Ok(fate)
            }
            b'N' => Ok(fate),
            // Only a client that keeps the connection, or is about to, can have asked for it.
            b'A' if self.may_listen() => Ok(notification(body, state, to_client)),
            b'A' => Ok(Fate::Drop),
            tag => Err(unexpected(&format!("message type 0x{tag:02X}"))),
        }
    }

    /// An answer that must belong to the head.
    fn answer(&mut self, tag: u8, body: &[u8], state: &mut ServerState) -> Result<Fate, Failure> {
        self.answered |= matches!(tag, b'C' | b'I' | b'V');
        let Some(head) = self.expects.head() else { return Err(unexpected("an answer to nothing")) };
        match (tag, head) {
            (_, own) if own.is_own() => return Ok(Fate::Drop),
            (b'1' | b'C', Expect::Ahead(_)) => return Ok(Fate::Drop),
            (b'C', Expect::NamedQuery(_)) => {
                self.command_done(body, state);
                return Ok(Fate::Forward);
            }
            (b'D' | b'd' | b'c' | b'H' | b'T' | b'C' | b'I' | b'V', Expect::Query(_) | Expect::NamedQuery(_)) => {
                return Ok(Fate::Forward);
            }
            (b'D' | b'd' | b'c' | b'H', Expect::Execute) | (b't', Expect::Describe(None)) => return Ok(Fate::Forward),
            (b'G', Expect::Query(_) | Expect::NamedQuery(_)) => {
                let (dropped, ended) = self.expects.drop_syncs_in_copy();
                self.copy_took_syncs += dropped;
                self.copy_in = !ended;
                return Ok(Fate::Forward);
            }
            (b'G', Expect::Execute) => {
                let (dropped, ended) = self.expects.drop_syncs_in_copy();
                self.copy_took_syncs += dropped;
                self.copy_in = !ended;
                self.unsynced |= dropped > 0 && !self.expects.has_sync();
                return Ok(Fate::Forward);
            }
            (b'1', Expect::ParseUnnamed(_) | Expect::ParseNamed(_))
            | (b'2', Expect::Bind(..))
            | (b'3', Expect::Close)
            | (b'C' | b's' | b'I', Expect::Execute)
            | (b'T' | b'n', Expect::Describe(None)) => {
                if let Some(Expect::Execute) = self.expects.pop() {
                    self.tally.finished(self.expects.taken, false);
                }
                return Ok(Fate::Forward);
            }
            (b'C' | b's' | b'I', Expect::ExecuteCommand(_)) => {
                self.expects.pop();
                self.tally.finished(self.expects.taken, false);
                return Ok(Fate::Forward);
            }
            (tag, Expect::Hidden(hidden)) if tag == *hidden => {
                self.expects.pop();
                return Ok(Fate::Drop);
            }
            (b'1', Expect::HiddenParse(_))
            | (b'3', Expect::HiddenClose(_))
            | (b'C', Expect::HiddenPrepare(_) | Expect::HiddenForget) => {
                self.expects.pop();
                return Ok(Fate::Drop);
            }
            _ => {}
        }
        Err(unexpected(&format!("message type 0x{tag:02X} out of turn")))
    }

    fn ready(&mut self, body: &[u8], state: &mut ServerState, to_client: &mut Vec<u8>) -> Result<(), Failure> {
        let [status @ (b'I' | b'T' | b'E')] = *body else { return Err(unexpected("a malformed ReadyForQuery")) };
        if self.is_late_sync() {
            self.copy_took_syncs -= 1;
            return Ok(());
        }
        let failed = std::mem::take(&mut self.failed);
        let answered = std::mem::take(&mut self.answered) || failed;
        let ready = self.expects.pop();
        let owes = ready
            .as_ref()
            .is_some_and(|ready| ready.is_own() || matches!(ready, Expect::Query(_) | Expect::NamedQuery(_)));
        if owes && !answered {
            // What it owes would come later, and be taken for the answer to something else.
            return Err(unexpected("ReadyForQuery before an answer"));
        }
        match ready {
            Some(Expect::Injected) => {
                self.tell_parameters(state, to_client);
                return Ok(());
            }
            Some(Expect::Restored(settings)) => {
                if !failed && status == b'I' {
                    self.restored(&settings, state);
                }
                self.tell_parameters(state, to_client);
                return Ok(());
            }
            Some(Expect::Probe(probe)) => {
                self.probed(*probe, failed, state);
                return Ok(());
            }
            Some(Expect::Sync) => {}
            Some(Expect::Failed) => return Ok(()),
            Some(Expect::Ahead(_)) => {
                self.status = status;
                return Ok(());
            }
            Some(Expect::NamedQuery(_)) => {
                self.copy_in = false;
                self.tally.finished(self.expects.taken, failed);
            }
            Some(Expect::Query(effect)) => {
                self.copy_in = false;
                self.tally.finished(self.expects.taken, failed);
                if let Some(effect) = effect {
                    // The names are forgotten already; the server must not have them either.
                    if failed && matches!(*effect, Effect::DeallocateAll | Effect::DiscardAll) {
                        self.care.add(Care::FORGETS);
                    }
                    if !failed && self.status == b'I' && status == b'I' {
                        self.apply(*effect, state);
                    }
                }
            }
            _ => return Err(unexpected("ReadyForQuery out of turn")),
        }
        self.status = status;
        self.check_single(status)?;
        if status == b'I' {
            self.publish_definitions();
        }
        self.errored = false;
        self.tally.ready(status);
        if status == b'I' && !self.portals.is_empty() {
            self.portals.clear();
        }
        Ok(())
    }

    /// Whether a ReadyForQuery can only be for a Sync that was thought to be ignored as a part of COPY, but came behind the
    /// data that made it fail.
    fn is_late_sync(&self) -> bool {
        let may_be = self.suspect && self.copy_took_syncs > 0;
        may_be
            && match self.expects.head() {
                Some(Expect::Query(_) | Expect::NamedQuery(_)) => !self.answered && !self.failed,
                Some(Expect::Sync) => false,
                _ => true,
            }
    }

    /// An error: what was sent after it, up to the next Sync, is skipped by the server.
    fn error(&mut self, body: &[u8], state: &mut ServerState, to_client: &mut Vec<u8>) -> Fate {
        if let Some(Expect::Ahead(statement)) = self.expects.head() {
            state.prepared.undo(statement.key);
            self.ahead_failed = Some(self.in_client_words(body).unwrap_or_else(|| body.into()));
            return Fate::Drop;
        }
        if self.is_about_change(body, state) && self.expects.is_last_segment() && self.heal() {
            while let Some(skipped) = self.expects.pop_unready() {
                self.undo(skipped, state);
            }
            self.expects.fail_head();
            return Fate::Drop;
        }
        self.errored = true;
        self.give_parameters(to_client);
        let fate = match self.in_client_words(body) {
            Some(words) if !matches!(self.expects.head(), Some(Expect::Refusal(_) | Expect::Changed)) => {
                message::frame(to_client, b'E', |out| out.extend_from_slice(&words));
                Fate::Drop
            }
            _ => Fate::Forward,
        };
        let fate = match self.expects.head() {
            Some(Expect::Query(_) | Expect::NamedQuery(_)) => {
                self.failed = true;
                self.suspect |= self.copy_took_syncs > 0;
                return fate;
            }
            None | Some(Expect::Sync) => return fate,
            Some(Expect::Refusal(failure)) => {
                failure.write(to_client);
                Fate::Drop
            }
            Some(Expect::Changed) => {
                changed().write(to_client);
                Fate::Drop
            }
            Some(_) => fate,
        };
        self.suspect |= self.copy_took_syncs > 0;
        self.copy_in = false;
        if let Some(Expect::Execute) = self.expects.head() {
            self.expects.pop();
            self.tally.finished(self.expects.taken, true);
        }
        // The newest first: a name may have changed twice.
        let skipped: Vec<Expect> = std::iter::from_fn(|| self.expects.pop_skipped()).collect();
        for skipped in skipped.into_iter().rev() {
            self.undo(skipped, state);
        }
        self.skipping = self.expects.is_empty();
        fate
    }

    fn parameter(&mut self, body: &[u8], state: &mut ServerState) -> Result<(), Failure> {
        let mut reader = Reader::new(body);
        let (Ok(name), Ok(value)) = (reader.cstr(), reader.cstr()) else {
            return Err(unexpected("a malformed ParameterStatus"));
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut values = (*state.reported).clone();
        report(&mut values, text(name), text(value));
        if values.len() > MAX_PARAMETERS {
            return Err(unexpected("too many parameters"));
        }
        state.reported = self.interned.reported.intern(values);
        Ok(())
    }
}

/// The next frame of a server, as far as it must be there to be understood.
fn next_frame<'a>(rest: &'a [u8], head: Option<&Expect>) -> Result<Option<(Header, &'a [u8])>, Failure> {
    let header = frame::header(rest, MAX_BODY).map_err(|error| unexpected(&error.to_string()))?;
    let Some(header) = header else { return Ok(None) };
    let asked = match head {
        Some(Expect::Probe(_)) => header.tag == b'D',
        Some(Expect::Describe(Some(_)) | Expect::Check(_)) => is_description(header.tag),
        _ => false,
    };
    Ok(held_body(header, rest, asked)?.map(|body| (header, body)))
}

/// The body of a frame that must be whole to be understood, `Some(&[])` for one that is passed on by its header alone.
fn held_body(header: Header, rest: &[u8], asked: bool) -> Result<Option<&[u8]>, Failure> {
    let whole = match header.tag {
        b'Z' | b'S' | b'A' => true,
        // An answer to ourselves that is too long counts as one that cannot be read.
        b'C' | b'E' => header.body <= MAX_HELD,
        _ => asked && header.body <= MAX_HELD,
    };
    if !whole {
        let available = rest.len().min(header.total());
        return Ok(Some(rest.get(HEADER_LEN..available).unwrap_or_default()));
    }
    if header.body > MAX_HELD {
        return Err(unexpected("a message of absurd length"));
    }
    Ok(rest.get(HEADER_LEN..header.total()))
}

fn unexpected(what: &str) -> Failure {
    Failure::fatal("08P01", format!("the server broke the protocol: {what}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pool::Interned;
    use crate::pool::statements::Prepared;
    use crate::wire::message;

    /// What a client is sent when the server says `answers`, which come in these pieces, to a client that is owed `expects`.
    fn sent(expects: Vec<Expect>, pieces: &[&[u8]]) -> Vec<u8> {
        let mut talk = Conversation::new(1, Arc::default(), Arc::default(), Arc::new(Interned::default()), 1000);
        expects.into_iter().for_each(|expect| talk.expects.push(expect));
        let mut state = ServerState {
            reported: Arc::default(),
            settings: Arc::default(),
            prepared: Prepared::new(9),
            unnamed: (0, 0),
            drawn: 0,
            hold: false,
            roll: Arc::default(),
            user: Default::default(),
        };
        let (mut to_client, mut held) = (Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            let taken = talk.server_bytes(&held, &mut state, &mut to_client).unwrap();
            held.drain(..taken);
        }
        assert!(talk.expects.is_empty() && held.is_empty());
        to_client
    }

    fn ready() -> Vec<u8> {
        let mut out = Vec::new();
        message::ready(&mut out, b'I');
        out
    }

    #[test]
    fn our_own_answer_follows_one_that_is_kept_from_the_client() {
        let servers = [&b"C\0\0\0\x08SET\0"[..], &ready(), &ready()].concat();
        let expected = [&b"1\0\0\0\x04"[..], &ready()].concat();
        let expects = || vec![Expect::Injected, Expect::Local(b'1', None), Expect::Sync];
        assert_eq!(sent(expects(), &[&servers]), expected);
        for at in 1..servers.len() {
            assert_eq!(sent(expects(), &[&servers[..at], &servers[at..]]), expected, "{at}");
        }
    }

    #[test]
    fn our_own_answer_is_never_inside_another() {
        let complete = b"C\0\0\0\x0dSELECT 1\0";
        let servers = [&complete[..], &ready()].concat();
        let expected = [&complete[..], b"3\0\0\0\x04", &ready()].concat();
        for at in 1..servers.len() {
            let expects = vec![Expect::Execute, Expect::Local(b'3', None), Expect::Sync];
            assert_eq!(sent(expects, &[&servers[..at], &servers[at..]]), expected, "{at}");
        }
    }
}
