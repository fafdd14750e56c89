//! Which server a session's next messages go to, where its database has several.
//!
//! Decided when a connection is needed, and again at each end of a segment while one is held: on a replica nothing passes
//! but what was proven to be a read, or belongs to a transaction that began as READ ONLY.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Blocked, End, Session, Work};
use crate::config::Reads as Wanted;
use crate::pool::Taken;
use crate::pool::lane::Lane;
use crate::pool::reset::Hygiene;
use crate::pool::server::ServerConn;
use crate::proxy::conversation::Conversation;
use crate::proxy::reads::{Reads, suits};
use crate::proxy::segment::{Judge, Segment, has_definition, rest_of_segment};
use crate::proxy::servers::Defining;
use crate::wire::message::Failure;

/// A session's way among several servers.
#[derive(Debug)]
pub struct Route {
    lane: Lane,
    /// The connection was chosen for the segment that comes next.
    granted: bool,
    /// No server can be had for now; the fleet wakes the session at its next news.
    awaiting: bool,
    /// A definition was sent, and its transaction is not over.
    defining: Option<Defining>,
}

impl Route {
    /// A way over this lane.
    pub fn new(lane: Lane) -> Box<Self> {
        Box::new(Self { lane, granted: false, awaiting: false, defining: None })
    }

    /// Has the server at hand asked how it is.
    pub(super) fn suspect(&self) {
        self.lane.suspect();
    }
}

/// What may be done with a client's bytes.
enum Allowed {
    /// Take this many of them.
    Take(usize),
    /// Wait for answers.
    Wait,
}

impl Session {
    /// Tries again after news of the servers.
    pub(super) fn wake_route(&mut self) {
        if let Some(route) = &mut self.route
            && std::mem::take(&mut route.awaiting)
        {
            self.guard.client.activity.waits(0);
            self.blocked = Blocked::Retry;
        }
    }

    /// Takes the connection this client was waiting for.
    pub(super) fn await_server(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Result<bool, End> {
        let Some(ticket) = &mut self.ticket else { return Ok(false) };
        let Poll::Ready(result) = ticket.poll(cx) else { return Ok(false) };
        self.ticket = None;
        self.blocked = Blocked::Retry;
        match result {
            Ok(conn) => {
                // In this order, so that a cancel request finds either one who waits or the server that works for it.
                self.guard.client.serve(Some(conn.cancel.clone()));
                let unwanted = self.guard.client.activity.stops_waiting();
                if unwanted {
                    self.guard.client.serve(None);
                    self.access.pool.release_after(conn, Hygiene::Clean);
                    self.stop_waiting(cx, work)?;
                } else if let Some(conn) = self.accept(conn) {
                    self.attach(conn, work);
                    self.write_all(cx, work)?;
                } else {
                    self.guard.client.serve(None);
                }
            }
            Err(failure) => {
                self.guard.client.activity.waits(0);
                if !self.tries_another(&failure) {
                    return Err(End::Failed(failure));
                }
            }
        }
        Ok(true)
    }

    /// Gets a server connection for the messages in `bytes`; false when it has to be waited for.
    pub(super) fn find_server(&mut self, bytes: &[u8], cx: &mut Context<'_>, work: &mut Work) -> Result<bool, End> {
        let chosen = self.choose_pool(bytes, cx, work);
        if !self.or_last_words(chosen, cx, work)? {
            self.wait();
            return Ok(false);
        }
        match self.access.pool.take_drawn(self.access.home, self.talk.drew) {
            Taken::Now(conn) => {
                if let Some(conn) = self.accept(conn) {
                    self.attach(conn, work);
                }
                Ok(true)
            }
            Taken::Later(ticket) => {
                self.wait();
                self.ticket = Some(ticket);
                Ok(false)
            }
        }
    }

    /// How many of the client's bytes may be taken now; `None` when they have to wait for answers.
    pub(super) fn allowed_now(
        &mut self,
        bytes: &[u8],
        cx: &mut Context<'_>,
        work: &mut Work,
    ) -> Result<Option<usize>, End> {
        if self.route.is_none() {
            return Ok(Some(bytes.len()));
        }
        let allowed = self.allowed(bytes, work);
        match self.or_last_words(allowed, cx, work)? {
            Allowed::Take(count) => Ok(Some(count)),
            Allowed::Wait => Ok(None),
        }
    }

    /// What was said so far is sent before an end.
    fn or_last_words<T>(&mut self, result: Result<T, End>, cx: &mut Context<'_>, work: &mut Work) -> Result<T, End> {
        if result.is_err() {
            self.write_all(cx, work)?;
        }
        result
    }

    /// How many of the client's bytes may go to the server at hand.
    fn allowed(&mut self, bytes: &[u8], work: &mut Work) -> Result<Allowed, End> {
        let all = Ok(Allowed::Take(bytes.len()));
        let Some(route) = &mut self.route else { return all };
        if self.serving.is_none() || bytes.is_empty() {
            return all;
        }
        let talk = &self.talk;
        let at_boundary = !talk.unsynced && talk.passing.left == 0 && !talk.copy_in;
        if route.lane.has_written() {
            if route.lane.is_outdated() {
                return Err(End::Failed(replaced()));
            }
            if route.defining.is_none() && at_boundary && has_definition(bytes) {
                route.defining = self.access.database.servers.as_ref().map(|servers| servers.define());
            }
            return all;
        }
        if talk.copy_in {
            return all;
        }
        if !at_boundary {
            return Ok(Allowed::Take(rest_of_segment(bytes, talk.passing.left)));
        }
        let Some(servers) = &self.access.database.servers else { return all };
        let readable = servers.readable();
        let segment = judge(talk, bytes, work, &readable);
        let granted = std::mem::take(&mut route.granted);
        let (pending, inside) = (!talk.expects.is_empty(), talk.status != b'I');
        if !route.lane.is_on_replica() {
            let clean = match segment.reads {
                Reads::Proven => true,
                Reads::Begin => !inside,
                Reads::End => inside || pending,
                _ => false,
            };
            if clean {
                return Ok(Allowed::Take(segment.length));
            }
            route.lane.writes();
            if segment.reads == Reads::Defines || has_definition(bytes) {
                route.defining = Some(servers.define());
            }
            return all;
        }
        if granted || (!inside && segment.reads == Reads::Proven) {
            return Ok(Allowed::Take(segment.length));
        }
        if pending {
            return Ok(Allowed::Wait);
        }
        if inside {
            return if segment.reads == Reads::Locks {
                Err(End::Failed(stays()))
            } else {
                Ok(Allowed::Take(segment.length))
            };
        }
        self.doubt();
        if self.talk.wants_probe() {
            return Ok(Allowed::Wait);
        }
        // The transaction on the replica is over: what follows looks for its own server.
        if self.settle()? { Ok(Allowed::Take(bytes.len())) } else { Err(End::Failed(stays())) }
    }

    /// Chooses the pool for the segment at the start of `bytes`; false when there is no server for now.
    fn choose_pool(&mut self, bytes: &[u8], cx: &mut Context<'_>, work: &mut Work) -> Result<bool, End> {
        let Some(route) = &mut self.route else { return Ok(true) };
        let Some(servers) = &self.access.database.servers else { return Ok(true) };
        let readable = servers.readable();
        let may_read = self.talk.conforming && suits(&self.talk.want);
        let reads = if may_read { judge(&self.talk, bytes, work, &readable).reads } else { Reads::Unknown };
        let is_read = matches!(reads, Reads::Proven | Reads::Begin);
        let chosen = route.lane.choose(is_read, servers.floor(), cx.waker()).map_err(End::Failed)?;
        let Some(pool) = chosen else {
            route.awaiting = true;
            return Ok(false);
        };
        if !is_read {
            route.lane.writes();
        }
        route.granted = true;
        self.access.pool = pool;
        Ok(true)
    }

    /// Whether the connection that was got may be used; it goes back otherwise.
    fn accept(&mut self, conn: Box<ServerConn>) -> Option<Box<ServerConn>> {
        let Some(route) = &mut self.route else { return Some(conn) };
        if route.lane.is_outdated() {
            self.access.pool.release(conn);
            return None;
        }
        route.lane.got();
        Some(conn)
    }

    /// Whether another server is tried, after there was no connection for this reason.
    fn tries_another(&mut self, failure: &Failure) -> bool {
        let Some(route) = &mut self.route else { return false };
        failure.code == "08006" && route.lane.failed()
    }

    /// State that outlives a transaction cannot be left on a replica.
    pub(super) fn check_replica(&self) -> Result<(), End> {
        if self.is_on_replica() && self.serving.is_some() && !self.talk.pins.is_empty() {
            return Err(End::Failed(stays()));
        }
        Ok(())
    }

    /// Whether the connection at hand is one to a replica.
    pub(super) fn is_on_replica(&self) -> bool {
        self.route.as_ref().is_some_and(|route| route.lane.is_on_replica())
    }

    /// Notes that the connection was given back.
    pub(super) fn leave_server(&mut self, defined: bool) {
        let Some(route) = &mut self.route else { return };
        route.lane.done();
        let defining = route.defining.take();
        if let Some(servers) = self.access.database.servers.as_ref().filter(|_| defined && defining.is_none()) {
            // It was not seen before; from here on it counts.
            drop(servers.define());
        }
    }

    /// Goes on among the servers as they are configured now.
    pub(super) fn follow_route(&mut self) -> Result<(), End> {
        let Some(route) = &mut self.route else { return Ok(()) };
        let (user, secret) = (self.access.user.as_str(), &self.access.secret);
        let lane = self.access.database.lane((user, secret), None, Wanted::Balanced);
        match lane.map_err(|error| End::Failed(Failure::fatal("08006", error.to_string())))? {
            Some(lane) => route.lane.renew(lane),
            None => self.route = None,
        }
        Ok(())
    }

    /// Has the server at hand asked how it is.
    pub(super) fn suspect_server(&self) {
        if let Some(route) = &self.route {
            route.suspect();
        }
    }
}

fn judge(
    talk: &Conversation,
    bytes: &[u8],
    work: &mut Work,
    readable: &Arc<crate::proxy::readable::Readable>,
) -> Segment {
    Judge { reader: &mut work.reader, readable, statements: &talk.statements }.judge(bytes)
}

fn replaced() -> Failure {
    Failure::fatal("08006", "another server has become the primary in the middle of a transaction")
        .detail("nothing more is sent to the old one; what was committed there before stays there")
        .hint("connect again")
}

fn stays() -> Failure {
    Failure::fatal("0A000", "a READ ONLY transaction on a replica may not take locks or leave state behind")
        .detail("others look for a lock on the primary, and the client's next statement may go there")
        .hint("begin the transaction without READ ONLY, or set `reads: primary` for this user")
}
