//! Server connections: checked out for a transaction, returned only in a known clean state.
//!
//! ```text
//! take() -> an idle connection of this worker   (no system call, one short lock)
//!        -> an idle one of another worker       (its socket moves to this worker's event loop)
//!        -> a place in the queue, and a connection being opened when fewer than `size` are open
//! release() -> the first waiter of this worker, or the first of all when it was passed over too often
//!           -> the idle ones of its worker
//! ```
//!
//! The workers share one pool so that its size is one number, but each keeps to the sockets of its own
//! event loop while it can: waking another thread costs more than a query's share of everything else.
//! No lock is held across an await, and there is no timer per checkout: [`Pool::tick`] expires waiters.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::net::connect::{Link, ServerTarget, connect};
use crate::wire::message::Failure;

pub mod cap;
mod circuit;
mod date_style;
mod drawn;
pub mod fleet;
pub mod lane;
mod leave;
mod pause;
pub mod reset;
pub mod roll;
pub mod server;
pub mod settings;
pub mod shape;
pub mod statements;
pub mod watch;

use cap::{Permit, Share};
use circuit::Failing;
use roll::Roll;
use server::{CancelTarget, ServerConn, ServerState};
use settings::{Interner, Reported, Settings};
use statements::{Prepared, Statement};

/// How often the first waiter may be passed over for one on the releasing worker.
const MAX_PASSED_OVER: u32 = 8;
/// How far behind the first waiter one on the releasing worker is looked for.
const LOOK_AHEAD: usize = 16;

/// How a pool behaves.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Most server connections.
    pub size: usize,
    /// Connections that are kept open, idle or not.
    pub min_size: usize,
    /// Longest wait for one.
    pub wait_timeout: Duration,
    /// How long connection failures are retried while nothing is open, before waiters are told.
    pub connect_patience: Duration,
    /// Idle connections are closed after this.
    pub idle_timeout: Duration,
    /// Connections are closed after this, once they are idle.
    pub lifetime: Duration,
    /// A connection serves one client after another.
    pub reuse: bool,
    /// Most prepared statements on one connection.
    pub statements: usize,
    /// Workers that share the pool.
    pub workers: usize,
    /// The server is one of several, of which clients shall not notice whether it is the primary.
    pub has_replicas: bool,
    /// Limits that it shares with other pools.
    pub shares: Arc<[Share]>,
}

/// The connections to one server under one account.
#[derive(Debug)]
pub struct Pool {
    /// Where they go.
    pub target: Arc<ServerTarget>,
    /// Settings in use, shared by all pools of the process.
    pub interned: Arc<Interned>,
    options: ArcSwap<PoolOptions>,
    state: Mutex<State>,
    checkouts: AtomicU64,
    roll: Arc<Roll>,
}

/// Values shared by reference.
#[derive(Debug, Default)]
pub struct Interned {
    /// What sessions set.
    pub settings: Interner<Settings>,
    /// Definitions (CREATE, ALTER, ...) committed so far through this process.
    pub definitions: AtomicU64,
    /// What servers reported.
    pub reported: Interner<Reported>,
    /// What clients have prepared.
    pub statements: Interner<Statement>,
    pools: leave::Registry,
    caps: cap::Caps,
}

#[derive(Debug)]
struct State {
    /// Idle connections by the worker that owns their socket. Boxed, as they go from hand to hand.
    #[allow(clippy::vec_box, reason = "a connection moves between here and its session without being copied")]
    idle: Vec<Vec<Box<ServerConn>>>,
    waiters: VecDeque<Arc<Waiter>>,
    /// Open, being opened, or checked out.
    open: usize,
    opening: usize,
    closed: bool,
    paused: bool,
    /// Set while no connection is open and none can be opened.
    failing: Option<Failing>,
    /// More could be opened if a limit did not forbid it that is shared with other pools.
    contends: bool,
    /// Nothing is kept idle until then.
    quiet_until: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    home: usize,
    since: Instant,
    slot: Mutex<Slot>,
}

#[derive(Debug)]
enum Slot {
    Waiting(Option<Waker>, u32),
    Given(Result<Box<ServerConn>, Failure>),
    Taken,
}

/// A place in the queue; leaving it hands back what it was given.
#[derive(Debug)]
pub struct Ticket {
    pool: Arc<Pool>,
    waiter: Arc<Waiter>,
}

/// What [`Pool::take`] found.
#[derive(Debug)]
pub enum Taken {
    /// A connection, now yours.
    Now(Box<ServerConn>),
    /// A place in the queue.
    Later(Ticket),
}

/// Counts for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Open connections.
    pub open: usize,
    /// Of these, still logging in.
    pub opening: usize,
    /// Of these, idle.
    pub idle: usize,
    /// Clients in the queue.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub longest_wait: Duration,
    /// Checkouts since the start.
    pub checkouts: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// An empty pool.
    pub fn new(target: ServerTarget, options: PoolOptions, interned: Arc<Interned>) -> Arc<Self> {
        let idle = (0..options.workers.max(1)).map(|_| Vec::new()).collect();
        let state = State {
            idle,
            waiters: VecDeque::new(),
            open: 0,
            opening: 0,
            closed: false,
            paused: false,
            failing: None,
            contends: false,
            quiet_until: None,
        };
        let pool = Arc::new(Self {
            target: Arc::new(target),
            interned,
            options: ArcSwap::from_pointee(options),
            state: Mutex::new(state),
            checkouts: AtomicU64::new(0),
            roll: Arc::default(),
        });
        pool.interned.enter(&pool);
        pool
    }

    /// A connection for a client of worker `home`, now or later. Call it on that worker.
    pub fn take(self: &Arc<Self>, home: usize) -> Taken {
        self.take_drawn(home, 0)
    }

    /// The same, if it can be had the one on which `drawn` was drawn from sequences.
    pub fn take_drawn(self: &Arc<Self>, home: usize, drawn: u64) -> Taken {
        self.checkouts.fetch_add(1, Ordering::Relaxed);
        loop {
            let mut state = lock(&self.state);
            let drawn = self.roll.follows_sequences().then_some(drawn);
            let idle = match drawn {
                _ if state.paused => None,
                None => state.pop_idle(home),
                Some(drawn) => {
                    let may_grow = self.may_open(&state) && state.may_try() && self.has_room();
                    state.pop_drawn(home, drawn, may_grow)
                }
            };
            let Some(mut conn) = idle else { return Taken::Later(self.enqueue(&mut state, home)) };
            drop(state);
            if conn.is_quiet() && !self.roll.is_outdated(&conn) {
                match self.bring_home(conn, home) {
                    Some(conn) => return Taken::Now(conn),
                    None => continue,
                }
            }
            conn.home = home;
            self.discard(conn);
        }
    }

    /// Moves a connection's socket to the calling worker.
    fn bring_home(&self, conn: Box<ServerConn>, home: usize) -> Option<Box<ServerConn>> {
        if conn.home == home {
            return Some(conn);
        }
        let ServerConn { stream, state, cancel, opened, released, permit, .. } = *conn;
        match stream.rehome() {
            Ok(stream) => Some(Box::new(ServerConn { stream, home, state, cancel, opened, released, permit })),
            Err(error) => {
                tracing::warn!(server = ?self.target, %error, "a server connection could not change its thread");
                self.forget();
                None
            }
        }
    }

    fn enqueue(self: &Arc<Self>, state: &mut State, home: usize) -> Ticket {
        let slot = Mutex::new(Slot::Waiting(None, 0));
        let waiter = Arc::new(Waiter { home, since: Instant::now(), slot });
        state.waiters.push_back(waiter.clone());
        self.grow(state, home);
        Ticket { pool: self.clone(), waiter }
    }

    /// Opens connections while there are more waiters than are being opened, up to the pool's size.
    fn grow(self: &Arc<Self>, state: &mut State, home: usize) {
        while state.opening < state.waiters.len() && self.may_open(state) && state.may_try() {
            let contended = state.contends;
            let Some(permit) = self.permit(state) else {
                if !contended {
                    tokio::spawn(self.clone().clear_the_way(home));
                }
                return;
            };
            self.begin(state, home, permit);
        }
        self.contend_no_more(state);
    }

    fn begin(self: &Arc<Self>, state: &mut State, home: usize, permit: Permit) {
        state.open += 1;
        state.opening += 1;
        tokio::spawn(self.clone().open(home, permit));
    }

    fn may_open(&self, state: &State) -> bool {
        state.open < self.options.load().size && !state.closed && !state.paused
    }

    async fn open(self: Arc<Self>, home: usize, permit: Permit) {
        let (epoch, started) = (self.roll.epoch(), Instant::now());
        let result = connect(&self.target).await;
        let pause = {
            let mut state = lock(&self.state);
            state.opening -= 1;
            match &result {
                Ok(_) => state.failing.take().map(|_| Duration::ZERO),
                Err(error) => {
                    self.roll.fail(&error.message);
                    state.open -= 1;
                    let pause = self.report(&mut state, error, started);
                    self.hand_out(&mut state, home);
                    Some(pause)
                }
            }
        };
        if let Ok(link) = result {
            self.lend(self.adopt(link, home, epoch, permit), &self.options.load());
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
            self.grow(&mut lock(&self.state), home);
        }
    }

    fn adopt(&self, link: Link, home: usize, epoch: u64, permit: Permit) -> Box<ServerConn> {
        let cancel = Arc::new(CancelTarget::new(self.target.clone(), &link, epoch));
        self.roll.enter(&cancel);
        let mut reported = link.parameters;
        if self.options.load().has_replicas {
            reported.retain(|(name, _)| name != "in_hot_standby");
            reported.push(("in_hot_standby".to_owned(), "off".to_owned()));
        }
        reported.sort();
        reported.dedup_by(|a, b| a.0 == b.0);
        let now = Instant::now();
        Box::new(ServerConn {
            stream: link.stream,
            home,
            state: ServerState {
                user: self.target.user.as_str().into(),
                reported: self.interned.reported.intern(reported),
                settings: self.interned.settings.intern(Settings::new()),
                prepared: Prepared::new(self.options.load().statements),
                unnamed: (0, 0),
                drawn: 0,
                hold: false,
                roll: self.roll.clone(),
            },
            cancel,
            opened: now,
            released: now,
            permit,
        })
    }

    /// Gives a clean connection to the next waiter or puts it away. Its state must be known to be clean.
    pub fn release(self: &Arc<Self>, mut conn: Box<ServerConn>) {
        let options = self.options.load();
        if !options.reuse {
            return self.discard(conn);
        }
        conn.released = Instant::now();
        self.lend(conn, &options);
    }

    fn lend(self: &Arc<Self>, conn: Box<ServerConn>, options: &PoolOptions) {
        let now = conn.released;
        if now.duration_since(conn.opened) > options.lifetime || self.roll.is_outdated(&conn) {
            return self.discard(conn);
        }
        let mut state = lock(&self.state);
        if state.closed || state.paused || state.open > options.size {
            drop(state);
            return self.discard(conn);
        }
        if self.gives_way(state.waiters.front()) {
            drop(state);
            return self.discard(conn);
        }
        let waiter = if self.is_left(&conn, &state) { None } else { state.next_waiter(conn.home) };
        match waiter {
            Some(waiter) => drop(waiter.give(Ok(conn))),
            None if state.is_quiet(now) => {
                drop(state);
                self.discard(conn);
            }
            None => {
                let home = conn.home;
                if conn.state.hold {
                    tokio::spawn(self.clone().let_go(home, conn.cancel.id));
                }
                if let Some(idle) = state.idle.get_mut(home) {
                    idle.push(conn);
                }
            }
        }
    }

    /// Closes a connection: it is not in a state that another client may see.
    pub fn discard(self: &Arc<Self>, mut conn: Box<ServerConn>) {
        say_goodbye(&mut conn);
        let home = conn.home;
        drop(conn);
        self.lost(home);
    }

    /// Counts a connection as gone that was dropped on its way; another is opened if one is waited for.
    fn lost(self: &Arc<Self>, home: usize) {
        self.forget();
        self.let_contenders_grow(home);
        self.grow(&mut lock(&self.state), home);
    }

    fn forget(&self) {
        let mut state = lock(&self.state);
        state.open = state.open.saturating_sub(1);
    }

    /// Expires waiters and closes idle connections of worker `home` that are old or dead. Call it a few
    /// times a second on that worker.
    pub fn tick(self: &Arc<Self>, home: usize) {
        let mut dead = Vec::new();
        let options = self.options.load_full();
        {
            let mut state = lock(&self.state);
            let failure = Failure::error(
                "53300",
                format!("no server connection became free within {} s", options.wait_timeout.as_secs_f32()),
            )
            .hint(if state.contends {
                "max_connections of the database or of the user are open: raise it or pool.wait_timeout, or shorten transactions"
            } else {
                "raise pool.size or pool.wait_timeout, or shorten transactions"
            });
            let limit = options.wait_timeout;
            state.waiters.retain(|waiter| waiter.since.elapsed() < limit || !waiter.give(Err(failure.clone())));
            let mut spare = state.open.saturating_sub(options.min_size);
            if let Some(idle) = state.idle.get_mut(home) {
                dead.extend(idle.extract_if(.., |conn| {
                    let unused = spare > 0 && conn.released.elapsed() > options.idle_timeout;
                    spare -= usize::from(unused);
                    unused
                        || conn.opened.elapsed() > options.lifetime
                        || self.roll.is_outdated(conn)
                        || !conn.is_quiet()
                }));
            }
            self.grow(&mut state, home);
            if state.contends {
                tokio::spawn(self.clone().clear_the_way(home));
            }
            if home == 0 {
                self.keep_up(&mut state, &options);
            }
        }
        for conn in dead {
            self.discard(conn);
        }
    }

    /// Closes what is idle, and everything else as soon as it is given back.
    pub fn close(&self) {
        let idle: Vec<_> = {
            let mut state = lock(&self.state);
            state.closed = true;
            self.contend_no_more(&mut state);
            state.idle.iter_mut().flat_map(std::mem::take).collect()
        };
        for mut conn in idle {
            say_goodbye(&mut conn);
        }
    }

    /// Counts for metrics.
    pub fn counts(&self) -> PoolCounts {
        let state = lock(&self.state);
        PoolCounts {
            open: state.open,
            opening: state.opening,
            longest_wait: state.waiters.front().map(|waiter| waiter.since.elapsed()).unwrap_or_default(),
            idle: state.idle.iter().map(Vec::len).sum(),
            waiting: state.waiters.len(),
            checkouts: self.checkouts.load(Ordering::Relaxed),
        }
    }
}

/// Terminate, so that the server does not log a lost connection; nobody waits for it.
fn say_goodbye(conn: &mut ServerConn) {
    let _ = conn.stream.poll_write(&mut Context::from_waker(Waker::noop()), b"X\0\0\0\x04");
}

impl State {
    fn pop_idle(&mut self, home: usize) -> Option<Box<ServerConn>> {
        if let Some(conn) = self.idle.get_mut(home).and_then(Vec::pop) {
            return Some(conn);
        }
        self.idle.iter_mut().find_map(Vec::pop)
    }

    /// The first waiter of worker `home` that is near the front, unless the first of all was passed over too often.
    fn next_waiter(&mut self, home: usize) -> Option<Arc<Waiter>> {
        let first = self.waiters.front()?;
        let near = self.waiters.iter().take(LOOK_AHEAD).position(|waiter| waiter.home == home);
        let at = near.filter(|&at| at == 0 || first.pass_over()).unwrap_or(0);
        self.waiters.remove(at)
    }
}

impl Waiter {
    /// Counts one more who was served before; false when that happened too often.
    fn pass_over(&self) -> bool {
        match &mut *lock(&self.slot) {
            Slot::Waiting(_, passed) => {
                *passed += 1;
                *passed <= MAX_PASSED_OVER
            }
            _ => true,
        }
    }

    /// Puts a result into the waiter's hands and wakes it; true when it was still waiting.
    fn give(&self, result: Result<Box<ServerConn>, Failure>) -> bool {
        let previous = std::mem::replace(&mut *lock(&self.slot), Slot::Given(result));
        if let Slot::Waiting(waker, _) = previous {
            if let Some(waker) = waker {
                waker.wake();
            }
            return true;
        }
        false
    }
}

impl Ticket {
    /// The connection, or why there is none, once it is this client's turn.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<ServerConn>, Failure>> {
        let mut slot = lock(&self.waiter.slot);
        if let Slot::Waiting(waker, _) = &mut *slot {
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let given = std::mem::replace(&mut *slot, Slot::Taken);
        drop(slot);
        let Slot::Given(result) = given else {
            return Poll::Ready(Err(Failure::fatal("XX000", "a place in the queue was used twice")));
        };
        match result {
            Ok(conn) => match self.pool.bring_home(conn, self.waiter.home) {
                Some(conn) => Poll::Ready(Ok(conn)),
                None => Poll::Ready(Err(Failure::fatal("58000", "a server connection could not change its thread"))),
            },
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.pool.state);
            state.waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
        }
        let given = std::mem::replace(&mut *lock(&self.waiter.slot), Slot::Taken);
        if let Slot::Given(Ok(conn)) = given {
            self.pool.release(conn);
        }
    }
}
