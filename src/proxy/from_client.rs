//! Client to server: each frame is passed on, rewritten, or answered here.

use crate::pool::server::ServerState;
use crate::proxy::alone;
use crate::proxy::analyzer::Analyzer;
use crate::proxy::care::{Care, Effect};
use crate::proxy::conversation::{Conversation, Next, Passing};
use crate::proxy::expect::Expect;
use crate::proxy::meter::templates::Place;
use crate::proxy::sequences::Draw;
use crate::proxy::statements::hash_of;
use crate::wire::body::Reader;
use crate::wire::frame::{self, HEADER_LEN, Header};
use crate::wire::message::{self, Failure};

/// Frames above this are passed on in pieces where they can be.
const STREAM_ABOVE: usize = 16 * 1024;
/// Most answers that may be outstanding before a client is not read any further.
const MAX_EXPECTED: usize = 20_000;

/// Where a client's frame goes.
pub struct Ways<'a> {
    /// The attached server connection's state; `None` when there is none.
    pub state: Option<&'a mut ServerState>,
    /// Bytes for the server.
    pub to_server: &'a mut Vec<u8>,
    /// Bytes for the client.
    pub to_client: &'a mut Vec<u8>,
    /// Reads statements.
    pub analyzer: &'a mut Analyzer,
}

/// What became of one frame.
enum Step {
    /// It is done with; this many bytes of the input.
    Done(usize),
    /// It stays where it is.
    Wait(Next),
}

type Stepped = Result<Step, Next>;

pub(super) fn malformed(what: &str) -> Next {
    Next::Fail(Failure::fatal("08P01", format!("malformed {what} message")))
}

impl Conversation {
    /// Takes the client's bytes as far as possible; gives how many were taken, and why no more.
    pub fn client_bytes(&mut self, bytes: &[u8], ways: &mut Ways<'_>) -> (usize, Next) {
        if let Some(again) = self.take_again() {
            let (at, next) = self.take_frames(&again, ways);
            if let Some(rest) = again.get(at..).filter(|rest| !rest.is_empty()) {
                self.put_again(rest);
                return (0, next);
            }
        }
        self.take_frames(bytes, ways)
    }

    fn take_frames(&mut self, bytes: &[u8], ways: &mut Ways<'_>) -> (usize, Next) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if self.passing.left > 0 {
                let count = self.passing.left.min(rest.len());
                if !self.passing.dropped {
                    ways.to_server.extend_from_slice(rest.get(..count).unwrap_or_default());
                }
                self.passing.left -= count;
                at += count;
                if self.passing.left > 0 {
                    return (at, Next::NeedMore);
                }
                continue;
            }
            let header = match frame::header(rest, self.max_message) {
                Ok(Some(header)) => header,
                Ok(None) => return (at, Next::NeedMore),
                Err(error) => return (at, Next::Fail(Failure::fatal("08P01", error.to_string()))),
            };
            let care = self.care;
            match self.client_frame(header, rest, ways) {
                Ok(Step::Done(count)) => at += count,
                Ok(Step::Wait(next)) | Err(next) => {
                    // It was not sent, and will be looked at again.
                    self.care = care;
                    return (at, next);
                }
            }
        }
    }

    fn client_frame(&mut self, header: Header, rest: &[u8], ways: &mut Ways<'_>) -> Stepped {
        match header.tag {
            b'X' => return Ok(Step::Wait(Next::Terminate)),
            b'd' | b'c' | b'f' => return Ok(self.copy_frame(header, rest, ways)),
            b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'F' => {}
            tag => {
                let message = format!("invalid frontend message type {tag}");
                return Err(Next::Fail(Failure::fatal("08P01", message)));
            }
        }
        if self.copy_in && !matches!(header.tag, b'S' | b'H') {
            // The server says so, and ends the connection.
            self.passing = Passing { left: header.total(), dropped: false };
            return Ok(Step::Done(0));
        }
        if self.expects.len() > MAX_EXPECTED || self.must_learn() {
            return Ok(Step::Wait(Next::Stall));
        }
        if self.skipping && header.tag != b'S' {
            self.passing = Passing { left: header.total(), dropped: true };
            return Ok(Step::Done(0));
        }
        if ways.state.is_none() {
            match header.tag {
                b'S' if header.body == 0 => {
                    self.skipping = false;
                    message::ready(ways.to_client, self.status);
                    return Ok(Step::Done(HEADER_LEN));
                }
                b'H' if header.body == 0 => return Ok(Step::Done(HEADER_LEN)),
                _ => return Ok(Step::Wait(Next::NeedServer)),
            }
        }
        if matches!(header.tag, b'B' | b'F') && header.body > STREAM_ABOVE {
            return self.streamed(header, rest, ways);
        }
        let Some(whole) = rest.get(..header.total()) else { return Ok(Step::Wait(Next::NeedMore)) };
        let kept = self.keep_frame(whole);
        let stepped = match self.guard {
            None => self.whole_frame(header, whole, ways),
            Some(_) => self.guarded_frame(header, whole, ways),
        };
        if !matches!(stepped, Ok(None)) {
            // It will come again.
            self.keep_less(kept);
        }
        self.deliver(ways.to_client);
        Ok(stepped?.map_or(Step::Done(header.total()), Step::Wait))
    }

    pub(super) fn whole_frame(
        &mut self,
        header: Header,
        whole: &[u8],
        ways: &mut Ways<'_>,
    ) -> Result<Option<Next>, Next> {
        let body = whole.get(HEADER_LEN..).unwrap_or_default();
        match header.tag {
            b'Q' => self.query(whole, body, ways),
            b'P' => self.parse(body, ways),
            b'B' => self.bind(header, body, ways),
            b'D' | b'C' => self.describe_or_close(whole, body, ways),
            b'E' => Ok(self.execute(whole, body, ways)),
            b'S' => Ok(self.sync(whole, ways)),
            b'F' => self.function_call(whole, body, ways),
            // Flush
            _ => {
                ways.to_server.extend_from_slice(whole);
                Ok(None)
            }
        }
    }

    /// COPY data: for the server while it may want it, nothing otherwise (as the protocol says of data after an error).
    fn copy_frame(&mut self, header: Header, _rest: &[u8], ways: &mut Ways<'_>) -> Step {
        let wanted = ways.state.is_some() && !self.skipping && (self.copy_in || !self.expects.is_empty());
        if wanted && header.tag != b'd' {
            // Where the copy is not known to have begun, Syncs before this may yet turn out to be a part of it.
            if self.unsynced || !self.copy_in {
                self.expects.push(Expect::CopyEnd);
            }
            self.copy_in = false;
        }
        self.passing = Passing { left: header.total(), dropped: !wanted };
        Step::Done(0)
    }

    /// Gives the answers that are ours to give and due, unless the client is in the middle of a frame of the server's.
    pub(super) fn deliver(&mut self, to_client: &mut Vec<u8>) {
        if self.answering.left > 0 {
            return;
        }
        while let Some(expect) = self.expects.pop_local() {
            match expect {
                Expect::Local(tag, _) => {
                    message::empty(to_client, tag);
                    self.answer_passed();
                }
                Expect::Comment(ruling) => ruling.comment(to_client),
                _ => {}
            }
        }
    }

    pub(super) fn extended(&mut self, whole: &[u8], expect: Expect, ways: &mut Ways<'_>) -> Option<Next> {
        ways.to_server.extend_from_slice(whole);
        self.expects.push(expect);
        self.unsynced = true;
        None
    }

    fn execute(&mut self, whole: &[u8], body: &[u8], ways: &mut Ways<'_>) -> Option<Next> {
        let expect = if self.portals.is_empty() { Expect::Execute } else { self.execute_command(body, ways) };
        self.expects.place = self.bound;
        self.extended(whole, expect, ways)
    }

    pub(super) fn sync(&mut self, whole: &[u8], ways: &mut Ways<'_>) -> Option<Next> {
        if self.copy_in {
            // A server that reads COPY data ignores it, so it is not even sent.
            return None;
        }
        ways.to_server.extend_from_slice(whole);
        self.expects.push(Expect::Sync);
        self.skipping = false;
        self.unsynced = false;
        self.segment += 1;
        self.restore_after_sync(ways);
        None
    }

    fn function_call(&mut self, whole: &[u8], body: &[u8], ways: &mut Ways<'_>) -> Result<Option<Next>, Next> {
        let oid = Reader::new(body).u32().unwrap_or(u32::MAX);
        if let Draw::Refused(failure) = self.draw_by_call(oid, ways)? {
            self.refuse(failure, ways);
            self.sync(b"S\0\0\0\x04", ways);
            return Ok(None);
        }
        ways.to_server.extend_from_slice(whole);
        self.expects.place = Place::default();
        self.expects.push(Expect::Query(None));
        self.see_to(Care::UNSEEN, Vec::new());
        self.segment += 1;
        Ok(None)
    }

    /// Makes the server fail here, as if it had refused by itself: what came before in the transaction is
    /// undone and what follows is skipped; the client sees our words instead of the server's.
    pub(super) fn refuse(&mut self, failure: Failure, ways: &mut Ways<'_>) {
        message::execute(ways.to_server, b"_pgweir_refused");
        self.expects.push(Expect::Refusal(Box::new(failure)));
        self.unsynced = true;
    }

    /// Answers without a server connection the message that waits for one, at the head of `bytes`: its client has cancelled it.
    pub fn refuse_waiting(&mut self, bytes: &[u8], to_client: &mut Vec<u8>) {
        let Ok(Some(header)) = frame::header(bytes, self.max_message) else { return };
        Failure::error("57014", "canceling statement due to user request")
            .detail("It was waiting for a server connection.")
            .write(to_client);
        if matches!(header.tag, b'Q' | b'F') {
            self.passing = Passing { left: header.total(), dropped: true };
            message::ready(to_client, self.status);
        } else {
            self.skipping = true;
        }
    }

    fn query(&mut self, whole: &[u8], body: &[u8], ways: &mut Ways<'_>) -> Result<Option<Next>, Next> {
        let Some((0, sql)) = body.split_last() else { return Err(malformed("Query")) };
        let verdict = ways.analyzer.analyze(sql);
        let place = ways.analyzer.place();
        if let Some(failure) = self.refused_here(sql, &verdict) {
            self.refuse(failure, ways);
            self.sync(b"S\0\0\0\x04", ways);
            return Ok(None);
        }
        let mut effect = None;
        if let Some(found) = verdict.effect.as_deref() {
            // What an effect means depends on what came before it, and its answer does not go into a frame of the server.
            if !self.expects.is_empty() || self.answering.left > 0 {
                return Ok(Some(Next::Stall));
            }
            if let Some(tag) = self.deallocate(found) {
                message::command_complete(ways.to_client, tag);
                message::ready(ways.to_client, self.status);
                return Ok(None);
            }
            effect = Some(Box::new(found.clone()));
        }
        if let Draw::Refused(failure) = self.draw_by_query(verdict.care, ways)? {
            self.refuse(failure, ways);
            self.sync(b"S\0\0\0\x04", ways);
            return Ok(None);
        }
        self.see_to(alone::note(verdict.care, sql, ways), verdict.names);
        if verdict.speaks && !self.plain {
            self.keep_query(whole);
            let mentions = ways.analyzer.mentions(sql);
            let next = self.named_query(sql, &mentions, place, ways)?;
            if matches!(self.expects.last(), Some(Expect::NamedQuery(_))) {
                self.restore_all(&verdict.effect, &verdict.resets, ways);
            }
            return Ok(next);
        }
        if let Some(found) = effect.as_deref() {
            self.before(found, ways);
        }
        ways.to_server.extend_from_slice(whole);
        self.sent_query(Expect::Query(effect), place, ways);
        self.restore_all(&verdict.effect, &verdict.resets, ways);
        Ok(None)
    }

    /// Gives back what a Query that was just sent resets.
    fn restore_all(&mut self, effect: &Option<Box<Effect>>, resets: &Option<Box<Effect>>, ways: &mut Ways<'_>) {
        for found in effect.as_deref().into_iter().chain(resets.as_deref()) {
            self.restore(found, ways);
        }
    }

    /// Notes a Query that was sent, and where it is counted.
    pub(super) fn sent_query(&mut self, expect: Expect, place: Place, ways: &mut Ways<'_>) {
        self.expects.place = place;
        self.expects.push(expect);
        self.unsynced = false;
        self.segment += 1;
        self.statements.drop_unnamed();
        if let Some(state) = &mut ways.state {
            state.forget_unnamed();
        }
    }

    /// Notes what a statement of this text leaves when it runs; `rest` is the text, its terminator and more.
    pub(super) fn use_care(&mut self, care: Care, rest: &[u8], ways: &mut Ways<'_>) {
        let care = alone::note(care, rest, ways);
        if care.has(Care::BY_NAME) {
            let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            let verdict = ways.analyzer.read_again(text);
            self.see_to(care, verdict.names);
            if let Some(effect) = verdict.effect {
                self.see_to(Care::CLEAN, effect.names());
                self.restore_later(&effect);
            }
        } else if !care.is_clean() {
            self.see_to(care, Vec::new());
        }
        if care.has(Care::FORGETS) {
            self.statements.clear();
            if let Some(state) = &mut ways.state {
                state.prepared.clear();
            }
        }
    }

    fn bind(&mut self, header: Header, body: &[u8], ways: &mut Ways<'_>) -> Result<Option<Next>, Next> {
        let mut reader = Reader::new(body);
        let (Ok(portal), Ok(name)) = (reader.cstr(), reader.cstr()) else { return Err(malformed("Bind")) };
        if self.names_unsettled() && !(name.is_empty() && self.statements.command(name).is_none()) {
            return Err(Next::Stall);
        }
        self.statements.renew_care(name, ways.analyzer);
        if let Draw::Refused(failure) = self.draw_by_bind(self.statements.care_of(name), ways) {
            self.refuse(failure, ways);
            return Ok(None);
        }
        let Ok(statement) = self.server_name(name, ways)? else { return Ok(None) };
        if self.care.has(Care::SETTINGS) {
            self.see_parameters(reader.rest());
        }
        self.bound = match &statement {
            Some(statement) => ways.analyzer.place_of(statement.key, &statement.rest),
            None if name.is_empty() => self.unnamed_place,
            None => Place::default(),
        };
        if ways.analyzer.wants_sample(self.bound) {
            let rest = statement.as_ref().map_or(&[][..], |statement| &statement.rest);
            ways.analyzer.sample(self.bound, rest, reader.rest());
        }
        let change = self.change.take();
        if change.is_some() || !self.portals.is_empty() {
            self.note_portal(portal, change.map(|change| *change));
        }
        self.note_bound(portal, statement.as_ref());
        let (context, called) = (statement.as_ref().map_or(0, |statement| statement.context), hash_of(name));
        let name = statement.as_ref().filter(|_| !self.plain).map_or(name, |statement| &statement.name);
        message::bind(ways.to_server, header.body - (body.len() - reader.rest().len()), portal, name);
        ways.to_server.extend_from_slice(reader.rest());
        self.expects.push(Expect::Bind(context, called));
        self.unsynced = true;
        Ok(None)
    }

    /// A Bind or FunctionCall that is passed on in pieces, after its names.
    fn streamed(&mut self, header: Header, rest: &[u8], ways: &mut Ways<'_>) -> Stepped {
        if header.tag == b'F' {
            let Some(body) = rest.get(HEADER_LEN..HEADER_LEN + 4) else { return Ok(Step::Wait(Next::NeedMore)) };
            if let Some(next) = self.function_call(&[], body, ways)? {
                return Ok(Step::Wait(next));
            }
            let dropped = !matches!(self.expects.last(), Some(Expect::Query(_)));
            self.passing = Passing { left: header.total(), dropped };
            return Ok(Step::Done(0));
        }
        let body = rest.get(HEADER_LEN..rest.len().min(header.total())).unwrap_or_default();
        let mut reader = Reader::new(body);
        if reader.cstr().and_then(|_| reader.cstr()).is_err() {
            let too_long = body.len() >= STREAM_ABOVE;
            return if too_long { Err(malformed("Bind")) } else { Ok(Step::Wait(Next::NeedMore)) };
        }
        let names = body.len() - reader.rest().len();
        let body = body.get(..names).unwrap_or_default();
        if let Some(next) = self.bind(header, body, ways)? {
            return Ok(Step::Wait(next));
        }
        let refused = matches!(self.expects.last(), Some(Expect::Refusal(_)));
        self.passing = Passing { left: header.body - names, dropped: refused };
        Ok(Step::Done(HEADER_LEN + names))
    }
}
