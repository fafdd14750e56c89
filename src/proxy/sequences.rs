//! `currval()` and `lastval()`: what a session drew from sequences last, which PostgreSQL keeps with its server connection.
//!
//! A connection knows who drew on it: nobody, one client since it was clean, or several. What it would answer is a
//! client's own only in the second case, and where the client has not drawn elsewhere since. Until somebody asks, this is only
//! noted. From the first question on, a pool's connections forget what was drawn (`DISCARD SEQUENCES`) in front
//! of the first statement of another client that may draw, and a client who asks is given the connection on which it drew last. Where that is
//! taken it hears why there is no answer; it never hears another's.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pool::server::{MANY, ServerState};
use crate::pool::statements::PREFIX;
use crate::proxy::care::Care;
use crate::proxy::conversation::{Conversation, Next};
use crate::proxy::expect::Expect;
use crate::proxy::from_client::Ways;
use crate::wire::message::{self, Failure};

const COMMAND: &[u8] = b"DISCARD SEQUENCES";
const HINT: &str = "use INSERT ... RETURNING, or ask in the transaction that draws the value";

/// What a statement may be sent with.
pub(super) enum Draw {
    /// As it is.
    Sent,
    /// Not at all.
    Refused(Failure),
}

/// A number that no other client has, nor this one at another time.
fn token() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Conversation {
    /// Before a Query that may draw from sequences, or ask what was drawn, is sent.
    ///
    /// # Errors
    /// Answers have to be waited for.
    pub(super) fn draw_by_query(&mut self, care: Care, ways: &mut Ways<'_>) -> Result<Draw, Next> {
        if !care.has(Care::DRAWS | Care::ASKS) || self.status == b'E' {
            return Ok(Draw::Sent);
        }
        let Some(state) = ways.state.as_deref_mut() else { return Err(Next::NeedServer) };
        if let Err(failure) = self.check_question(care, state) {
            return Ok(Draw::Refused(failure));
        }
        self.draw_now(care, ways)?;
        Ok(Draw::Sent)
    }

    /// Before a function is called by its number.
    ///
    /// # Errors
    /// Answers have to be waited for.
    pub(super) fn draw_by_call(&mut self, oid: u32, ways: &mut Ways<'_>) -> Result<Draw, Next> {
        match oid {
            // nextval and setval.
            1574 | 1576 | 1765 => self.draw_by_query(Care::DRAWS, ways),
            // currval and lastval.
            1575 | 2559 => self.draw_by_query(Care::ASKS, ways),
            // The others that are PostgreSQL's own do neither.
            0..16384 => Ok(Draw::Sent),
            _ if self.status == b'E' => Ok(Draw::Sent),
            _ => self.draw_now(Care::DRAWS | Care::ASKS, ways).map(|()| Draw::Sent),
        }
    }

    fn draw_now(&mut self, care: Care, ways: &mut Ways<'_>) -> Result<(), Next> {
        let Some(state) = ways.state.as_deref_mut() else { return Err(Next::NeedServer) };
        if self.must_forget(care, state) {
            // Whether a transaction has failed is known when all is answered.
            if !self.expects.is_empty() {
                return Err(Next::Stall);
            }
            message::query(ways.to_server, COMMAND);
            state.forget_unnamed();
            self.expects.push(Expect::Injected);
            state.drawn = 0;
        }
        self.note_drawing(care, state);
        Ok(())
    }

    /// The same before a Bind of such a statement.
    pub(super) fn draw_by_bind(&mut self, care: Care, ways: &mut Ways<'_>) -> Draw {
        let Some(state) = ways.state.as_deref_mut().filter(|_| care.has(Care::DRAWS | Care::ASKS)) else {
            return Draw::Sent;
        };
        if let Err(failure) = self.check_question(care, state) {
            return Draw::Refused(failure);
        }
        if self.must_forget(care, state) {
            message::parse(ways.to_server, b"", &[COMMAND, b"\0\0\0"].concat());
            message::frame(ways.to_server, b'B', |out| {
                message::cstr(out, PREFIX);
                out.extend_from_slice(&[0; 7]);
            });
            message::execute(ways.to_server, PREFIX);
            message::named(ways.to_server, b'C', b'P', PREFIX);
            self.expects.push(Expect::HiddenParse(None));
            self.expects.push(Expect::Hidden(b'2'));
            self.expects.push(Expect::HiddenForget);
            self.expects.push(Expect::Hidden(b'3'));
            state.forget_unnamed();
            state.drawn = 0;
            self.unsynced = true;
        }
        self.note_drawing(care, state);
        Draw::Sent
    }

    /// Whether the connection holds what this client drew last, and nothing else.
    fn is_own(&self, state: &ServerState) -> bool {
        self.drew != 0 && self.drew != MANY && state.drawn == self.drew
    }

    /// Whether a question may be answered.
    fn check_question(&self, care: Care, state: &ServerState) -> Result<(), Failure> {
        if !care.has(Care::ASKS) {
            return Ok(());
        }
        let followed = state.roll.follow_sequences();
        if self.is_own(state) || self.keeps {
            return Ok(());
        }
        // What draws as well may be asking for that.
        if !followed && state.drawn != 0 && !care.has(Care::DRAWS) {
            let what = "it is not known whose value currval() or lastval() would give, as nobody has asked before";
            let hint = "try again from the statement that draws the value: from now on it is followed";
            return Err(Failure::error("55000", what).hint(format!("{hint}; or {HINT}")));
        }
        if self.drew != 0 && !care.has(Care::DRAWS) {
            let what = "the server connection on which this session drew from a sequence last has served others since";
            return Err(Failure::error("55000", what)
                .detail("currval() and lastval() would give another client's value, or none")
                .hint(HINT));
        }
        Ok(())
    }

    /// Whether what was drawn on the connection has to go.
    fn must_forget(&self, care: Care, state: &ServerState) -> bool {
        let others = state.drawn != 0 && !self.is_own(state) && !self.keeps;
        others && (care.has(Care::ASKS) || state.roll.follows_sequences())
    }

    /// Notes that this client may have drawn on the connection, or not.
    pub(super) fn may_have_drawn(&mut self, state: &mut ServerState) {
        if self.drew == 0 {
            self.note_drawing(Care::DRAWS, state);
        } else if !self.is_own(state) {
            (state.drawn, self.drew) = (MANY, MANY);
        }
    }

    /// Notes who draws.
    fn note_drawing(&mut self, care: Care, state: &mut ServerState) {
        if !care.has(Care::DRAWS) {
            return;
        }
        state.hold = state.roll.follows_sequences();
        if self.is_own(state) {
            return;
        }
        if state.drawn == 0 {
            state.drawn = token();
            self.drew = state.drawn;
        } else {
            (state.drawn, self.drew) = (MANY, MANY);
        }
    }
}
