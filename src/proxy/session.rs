//! The sockets of one client: reads, lets the conversation decide, writes.
//!
//! One task per client, driven by readiness alone. Each turn of [`Session::poll`] moves whatever can move and stops
//! when nothing could. A poll of a socket that is not ready costs no system call, so a transaction takes four:
//! read and write on either side.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

use crate::net::dialogue::Dialogue;
use crate::net::prove::Secret;
use crate::net::stream::Stream;
use crate::pool::reset::Hygiene;
use crate::pool::server::ServerConn;
use crate::pool::{Pool, Ticket};
use crate::proxy::analyzer::Analyzer;
use crate::proxy::backlog::Backlog;
use crate::proxy::bulk::Bulk;
use crate::proxy::clients::{Seat, deliver};
use crate::proxy::conversation::{Conversation, Next};
use crate::proxy::crew::{Crew, Guest};
use crate::proxy::database::Database;
use crate::proxy::from_client::Ways;
use crate::proxy::keeping::Parting;
use crate::proxy::login::Registered;
use crate::proxy::meter::Counters;
use crate::proxy::meter::timing::{Timing, now};
use crate::proxy::pins::Pins;
use crate::proxy::pulse::{Over, Phase};
use crate::proxy::reads::Reader;
use crate::proxy::watch::Unread;
use crate::wire::message::Failure;

mod route;
mod settling;

pub use route::Route;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Bytes read at once of a long answer.
const BULK_CHUNK: usize = 4 * CHUNK;
/// More than the beginning of a frame that is held until the rest has come.
const MAX_HELD: usize = 2 * CHUNK;
/// Memory for bytes on their way that a worker keeps.
const KEPT: usize = BULK_CHUNK + MAX_HELD;
/// What a session may hold of a client's bytes while these have to wait.
const MAX_STASH: usize = 64 * 1024;

/// Memory of a worker thread that its sessions use in turn.
struct Scratch {
    input: Vec<u8>,
    work: Work,
}

#[derive(Default)]
struct Work {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    analyzer: Analyzer,
    /// Queries begun, to take a sample of them.
    queries: u32,
    reader: Reader,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { input: vec![0; MAX_HELD + BULK_CHUNK], work: Work::default() });
}

/// What a client may use.
#[derive(Debug)]
pub struct Access {
    /// The database it asked for.
    pub database: Arc<Database>,
    /// The connections to its server.
    pub pool: Arc<Pool>,
    /// The worker that serves it.
    pub home: usize,
    /// The workers.
    pub crew: Arc<Crew>,
    /// Who it is.
    pub user: String,
    /// What it can be proven to servers with.
    pub secret: Secret,
    /// Its way among the servers, where the database has several.
    pub route: Option<Box<Route>>,
}

/// One client and, while it needs one, its server connection.
pub struct Session {
    client: Stream,
    /// Bytes of the client that were not taken yet.
    stash: Vec<u8>,
    /// Bytes for the client that its socket did not take yet.
    backlog: Backlog,
    talk: Conversation,
    timing: Timing,
    serving: Option<Serving>,
    ticket: Option<Ticket>,
    /// The database's functions are being read, because this client has changed them.
    reading: Option<JoinHandle<()>>,
    /// It has sent a definition that nobody has read yet.
    unread: Option<Unread>,
    /// The number of the functions with which its statements were thought of.
    read_with: u64,
    /// What it had sent when that was doubted.
    judged: u64,
    /// Why it keeps its server connection, as others were told.
    shown: Pins,
    blocked: Blocked,
    /// The client said good-bye.
    leaving: bool,
    /// The last order to move that was heeded.
    heeded: u32,
    route: Option<Box<Route>>,
    access: Access,
    guard: Registered,
    _seat: Seat,
}

struct Serving {
    conn: Box<ServerConn>,
    /// The beginning of a frame.
    stash: Vec<u8>,
    backlog: Backlog,
    bulk: Bulk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    No,
    /// By answers that must come first, or by the lack of a server connection.
    Waiting,
    /// It was blocked, and is to be tried again.
    Retry,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    Goodbye,
    ClientGone,
    Failed(Failure),
    /// It goes on, on that worker.
    Moves(usize),
}

impl Session {
    /// A session of a client that was told it is ready.
    pub fn new(dialogue: Dialogue, mut talk: Conversation, mut access: Access, guard: Registered, seat: Seat) -> Self {
        // What came right behind the password is the first of its messages.
        talk.guard = access.database.guards.of(&access.user);
        let blocked = if dialogue.pending.is_empty() { Blocked::No } else { Blocked::Retry };
        Self {
            client: dialogue.stream,
            // An empty buffer of the login would stay with the client for as long as it is idle.
            stash: if dialogue.pending.is_empty() { Vec::new() } else { dialogue.pending },
            backlog: Backlog::default(),
            talk,
            timing: Timing::default(),
            serving: None,
            ticket: None,
            reading: None,
            unread: None,
            read_with: 0,
            judged: 0,
            shown: Pins::default(),
            blocked,
            leaving: false,
            heeded: 0,
            route: access.route.take(),
            access,
            guard,
            _seat: seat,
        }
    }

    /// Serves the client until it leaves.
    pub async fn run(mut self: Box<Self>) {
        poll_fn(|cx| {
            self.guard.client.wake_by(cx.waker());
            Poll::Ready(())
        })
        .await;
        let end = poll_fn(|cx| {
            SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
                Ok(mut scratch) => self.poll(cx, &mut scratch),
                Err(_) => Poll::Ready(End::Failed(Failure::fatal("XX000", "a session was polled inside another"))),
            })
        })
        .await;
        match end {
            End::Moves(to) => {
                let crew = self.access.crew.clone();
                crew.hand_over(Guest::Plain(self), to);
            }
            end => self.finish(end),
        }
    }

    /// Takes the client's socket to the event loop of the calling thread, worker `home`'s.
    ///
    /// # Errors
    /// The system does not let it be watched there.
    pub fn rehome(mut self: Box<Self>, home: usize) -> io::Result<Box<Self>> {
        self.client = self.client.rehome()?;
        self.access.home = home;
        Ok(self)
    }

    fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<End> {
        self.wake_route();
        match self.turns(cx, scratch) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Moves what can move, until nothing can.
    fn turns(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<(), End> {
        loop {
            let mut moved = self.backlog.flush(&mut self.client, cx).map_err(|_| End::ClientGone)?;
            if let Some(Serving { conn, backlog, .. }) = &mut self.serving {
                moved |= backlog.flush(&mut conn.stream, cx).map_err(|_| self.server_gone())?;
            }
            moved |= self.await_server(cx, &mut scratch.work)?;
            moved |= self.reading.is_some() && self.await_reading(cx);
            moved |= self.read_client(cx, scratch)?;
            moved |= self.read_server(cx, scratch)?;
            moved |= self.probe(cx, &mut scratch.work)?;
            moved |= self.settle()?;
            if !moved {
                if self.guard.client.activity.is_killed() {
                    return Err(End::Failed(Failure::fatal("57P01", "terminated by the administrator")));
                }
                self.heed_limits()?;
                if self.ticket.is_some() && self.guard.client.activity.is_unwanted() {
                    self.stop_waiting(cx, &mut scratch.work)?;
                    continue;
                }
                let resting = self.serving.is_none() && self.ticket.is_none() && self.stash.is_empty();
                let between = resting || self.talk.is_idle() && self.ticket.is_none() && self.stash.is_empty();
                if between && self.guard.clients().is_stopping() {
                    return Err(End::Failed(Failure::fatal("57P01", "the proxy is shutting down")));
                }
                // A server that waits for COPY data will never answer a client that said good-bye.
                let answered = self.talk.expects.is_empty() || self.talk.awaits_copy_data();
                if self.leaving && self.backlog.is_empty() && answered {
                    return Err(End::Goodbye);
                }
                if resting && self.backlog.is_empty() {
                    let called = self.access.crew.calls(self.access.home, &mut self.heeded);
                    return called.map_or(Ok(()), |to| Err(End::Moves(to)));
                }
                return Ok(());
            }
        }
    }

    /// Notes what the client is doing, and ends or cancels what it has been doing for too long.
    fn heed_limits(&mut self) -> Result<(), End> {
        let phase = match &self.serving {
            None if self.ticket.is_some() => Phase::Waiting,
            None => Phase::Resting,
            Some(_) if !self.talk.expects.is_empty() => Phase::Running,
            Some(_) if self.talk.is_idle() => Phase::Resting,
            Some(_) => Phase::Holding,
        };
        let pulse = &self.guard.client.pulse;
        pulse.beat(phase, self.talk.rounds);
        match pulse.order() {
            None => Ok(()),
            Some(Over::Query) if self.talk.cancelled.is_some() => Ok(()),
            Some(Over::Query) => {
                self.talk.cancelled = Some(Box::new(Over::Query.failure()));
                tokio::spawn(deliver(self.guard.client.announced()));
                Ok(())
            }
            Some(over) => Err(End::Failed(over.failure())),
        }
    }

    fn attach(&mut self, mut conn: Box<ServerConn>, work: &mut Work) {
        self.guard.client.serve(Some(conn.cancel.clone()));
        self.timing.assign(self.access.database.meter.at(self.access.home));
        self.talk.attach(&mut conn.state, &mut work.to_server, &mut work.to_client);
        self.talk.keep_connection(self.access.database.keeps_connections());
        self.serving = Some(Serving { conn, stash: Vec::new(), backlog: Backlog::default(), bulk: Bulk::default() });
    }

    fn read_client(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        let server_is_slow = self.serving.as_ref().is_some_and(|serving| !serving.backlog.is_empty());
        if self.leaving || self.reading.is_some() {
            return Ok(false);
        }
        if self.blocked == Blocked::Retry && !server_is_slow {
            let stash = std::mem::take(&mut self.stash);
            let taken = self.take(&stash, cx, &mut scratch.work)?;
            self.keep(stash, taken);
            return Ok(true);
        }
        let waits = self.blocked != Blocked::No || server_is_slow;
        if waits && self.stash.len() >= MAX_STASH || !self.backlog.is_empty() {
            return Ok(false);
        }
        let Some(chunk) = scratch.input.get_mut(..CHUNK) else { return Ok(false) };
        let count = match self.client.poll_read(cx, chunk) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => return Err(End::ClientGone),
            Poll::Ready(Ok(count)) => count,
        };
        if let Some(counters) = self.counters() {
            counters.from_clients.add(count as u64);
        }
        let bytes = scratch.input.get(..count).unwrap_or_default();
        if waits {
            self.stash.extend_from_slice(bytes);
        } else if self.stash.is_empty() {
            let taken = self.take(bytes, cx, &mut scratch.work)?;
            self.stash.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        } else {
            let mut stash = std::mem::take(&mut self.stash);
            stash.extend_from_slice(bytes);
            let taken = self.take(&stash, cx, &mut scratch.work)?;
            self.keep(stash, taken);
        }
        Ok(true)
    }

    /// Keeps what was not taken, and no memory when all was.
    fn keep(&mut self, mut bytes: Vec<u8>, taken: usize) {
        if taken < bytes.len() {
            bytes.drain(..taken);
            self.stash = bytes;
        }
    }

    /// Lets the conversation take the client's bytes, getting a server connection when it needs one.
    fn take(&mut self, bytes: &[u8], cx: &mut Context<'_>, work: &mut Work) -> Result<usize, End> {
        let mut taken = 0;
        self.blocked = Blocked::No;
        if self.access.database.successor().is_some() && self.serving.is_none() && self.ticket.is_none() {
            self.access.follow().map_err(End::Failed)?;
            self.follow_route()?;
            self.talk.guard_by(self.access.database.guards.of(&self.access.user), &mut work.analyzer);
        }
        self.begin(work);
        work.analyzer.count_for(&self.access.database.meter);
        {
            let functions = self.access.database.functions.current();
            if self.serving.is_none() || self.talk.is_idle() {
                self.read_with = functions.id;
            }
            work.analyzer.follow(self.talk.has_conforming_strings(), &functions);
        }
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let Some(allowed) = self.allowed_now(rest, cx, work)? else {
                self.blocked = Blocked::Waiting;
                break;
            };
            let mut ways = Ways {
                state: self.serving.as_mut().map(|serving| &mut serving.conn.state),
                to_server: &mut work.to_server,
                to_client: &mut work.to_client,
                analyzer: &mut work.analyzer,
            };
            let (count, next) = self.talk.client_bytes(rest.get(..allowed).unwrap_or_default(), &mut ways);
            taken += count;
            match next {
                Next::NeedMore if count == allowed && allowed < rest.len() => {}
                Next::NeedMore => break,
                Next::Stall => {
                    self.talk.hasten(&mut work.to_server);
                    self.blocked = Blocked::Waiting;
                    break;
                }
                Next::Terminate => {
                    // What was not synced is undone, but the answers to it end this session.
                    self.talk.hasten(&mut work.to_server);
                    self.leaving = true;
                    break;
                }
                Next::NeedServer => {
                    if !self.find_server(rest.get(count..).unwrap_or_default(), cx, work)? {
                        self.blocked = Blocked::Waiting;
                        break;
                    }
                }
                Next::Fail(failure) => {
                    self.write_all(cx, work)?;
                    return Err(End::Failed(failure));
                }
            }
        }
        if !work.analyzer.alone.is_empty() {
            self.leave_alone(work);
        }
        self.write_all(cx, work)?;
        self.begun();
        Ok(taken)
    }

    fn counters(&self) -> Option<&Counters> {
        self.access.database.meter.at(self.access.home)
    }

    /// Looks at the clock when bytes come from a client with nothing under way.
    fn begin(&mut self, work: &mut Work) {
        if self.timing.is_idle() && self.talk.expects.is_empty() {
            work.queries = work.queries.wrapping_add(1);
            let now = now();
            self.timing.begin(now, work.queries);
            if self.talk.status != b'I' {
                let templates = self.access.database.meter.templates.as_deref();
                self.talk.tally.habits.goes_on(now, templates, self.access.home);
            }
            self.guard.client.activity.requested(now / 1000);
        }
    }

    /// The bytes that came are taken: there is a query under way, or there was none in them.
    fn begun(&mut self) {
        if self.ticket.is_some() {
            return;
        }
        if self.talk.expects.is_empty() {
            self.timing.cancel();
        } else if self.timing.is_sampled() {
            self.timing.worked(None);
        }
    }

    fn wait(&mut self) {
        let now = now();
        self.timing.wait(now);
        self.guard.client.activity.waits(now / 1000);
    }

    /// Accounts for the queries that were answered in this turn.
    fn account(&mut self) {
        let more = !self.talk.expects.is_empty();
        let meter = &self.access.database.meter;
        let Some(counters) = meter.at(self.access.home) else { return };
        self.talk.tally.parsed = std::mem::take(&mut self.talk.expects.parsed);
        let times = self.timing.answered(self.talk.tally.counts(), more, counters);
        self.talk.tally.settle(meter, self.access.home, times);
    }

    /// Sends what the conversation wants sent.
    fn write_all(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Result<(), End> {
        self.announce();
        if let Some(Serving { conn, backlog, .. }) = &mut self.serving
            && !work.to_server.is_empty()
        {
            if let Some(counters) = self.access.database.meter.at(self.access.home) {
                counters.to_servers.add(work.to_server.len() as u64);
            }
            let written = backlog.write(&mut conn.stream, cx, &work.to_server);
            work.to_server.clear();
            work.to_server.shrink_to(KEPT);
            written.map_err(|_| self.server_gone())?;
        }
        if !work.to_client.is_empty() {
            if let Some(counters) = self.counters() {
                counters.to_clients.add(work.to_client.len() as u64);
            }
            let written = self.backlog.write(&mut self.client, cx, &work.to_client);
            work.to_client.clear();
            work.to_client.shrink_to(KEPT);
            written.map_err(|_| End::ClientGone)?;
        }
        Ok(())
    }

    fn read_server(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        // A client that does not read stops its server from being read, as it would without a proxy.
        let Some(serving) = self.serving.as_mut().filter(|_| self.backlog.is_empty()) else { return Ok(false) };
        serving.bulk.poll(&serving.conn.stream, cx);
        let held = serving.stash.len();
        let Some((front, room)) = scratch.input.split_at_mut_checked(held) else { return Ok(false) };
        front.copy_from_slice(&serving.stash);
        let most = if serving.bulk.is_on() { BULK_CHUNK } else { CHUNK };
        let room = room.get_mut(..most).unwrap_or_default();
        let count = match serving.conn.stream.poll_read(cx, room) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => return Err(self.server_gone()),
            Poll::Ready(Ok(count)) => count,
        };
        if let Some(counters) = self.access.database.meter.at(self.access.home) {
            counters.from_servers.add(count as u64);
        }
        let came = self.timing.is_sampled().then(now);
        let bytes = scratch.input.get(..held + count).unwrap_or_default();
        let taken = self.talk.server_bytes(bytes, &mut serving.conn.state, &mut scratch.work.to_client);
        if let Ok(taken) = taken {
            serving.stash.clear();
            serving.stash.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        }
        if std::mem::take(&mut self.talk.refused_write) {
            self.route.iter().for_each(|route| route.suspect());
        }
        if self.talk.expects.is_empty() {
            serving.bulk.end(&serving.conn.stream);
        } else {
            serving.bulk.received(&serving.conn.stream, count);
        }
        self.write_all(cx, &mut scratch.work)?;
        taken.map_err(End::Failed)?;
        if self.talk.has_again() {
            self.blocked = Blocked::Retry;
        }
        if came.is_some() {
            self.timing.worked(came);
        }
        if self.talk.tally.is_due() {
            self.account();
        }
        if self.blocked == Blocked::Waiting && self.ticket.is_none() {
            self.blocked = Blocked::Retry;
        }
        Ok(true)
    }

    fn server_gone(&self) -> End {
        self.suspect_server();
        if self.talk.has_errored() {
            // The server said why itself.
            return End::Goodbye;
        }
        let failure = Failure::fatal("08006", "the server closed the connection unexpectedly");
        End::Failed(failure.hint("connect again; whether the last statement took effect is not known"))
    }

    /// Says the last words and gives back, or closes, the server connection.
    fn finish(mut self: Box<Self>, end: End) {
        tracing::debug!(client = self.talk.id, user = self.access.user, ?end, "left");
        self.talk.tally.settle(&self.access.database.meter, self.access.home, (0, now()));
        if let End::Failed(failure) = &end {
            self.access.database.meter.error("pgweir", failure.code.as_bytes());
        }
        // In the middle of a frame our words would be taken for its rest: the end of the connection says enough.
        if let End::Failed(failure) = &end
            && !self.talk.is_inside_a_frame()
        {
            let mut out = Vec::new();
            failure.write(&mut out);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            // Best effort: nobody waits for a client that does not read.
            let _ = self.backlog.write(&mut self.client, &mut cx, &out);
        }
        self.doubt();
        self.announce();
        self.read_functions(!self.talk.is_idle());
        self.access.pool.forget_drawn(self.talk.drew);
        let Some(Serving { mut conn, stash, backlog, mut bulk }) = self.serving.take() else { return };
        bulk.end(&conn.stream);
        self.guard.client.serve(None);
        if self.talk.is_idle() && stash.is_empty() && backlog.is_empty() {
            return match self.talk.part(&mut conn.state) {
                Parting::Clean => self.access.pool.release_after(conn, Hygiene::Clean),
                Parting::Discard => self.access.pool.release_after(conn, Hygiene::Discard),
                Parting::Close => self.access.pool.discard(conn),
            };
        }
        if !self.talk.expects.is_empty() {
            // Nobody waits for the answer: do not let the server work for it.
            let target = conn.cancel.clone();
            target.announce();
            tokio::spawn(async move {
                let _ = target.deliver().await;
            });
        }
        self.access.pool.discard(conn);
    }
}
