//! Which worker serves whom: as few workers as the load needs, and live moves between them.
//!
//! A worker that is half idle wakes up for nearly every message; one that is busy finds several each time it looks.
//! Two half-busy workers therefore cost more than one busy one, and clients stay together until their
//! worker has really enough to do. Then some of them move: a client at rest (no server connection, nothing read and not
//! taken, nothing unsent) takes its socket along to another event loop between two transactions. Server connections
//! follow by being taken from there.
//!
//! Load is the CPU time of a worker's thread, read a few times a second. What to do about it is decided by
//! [`Balance`], which knows neither threads nor clocks.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::net::listener::Caller;
use crate::proxy::admin::Console;
use crate::proxy::session::Session;
use crate::proxy::sharded::ShardedSession;

/// All of something that is counted in thousandths: a worker's time, or a worker's clients.
const ALL: u32 = 1000;
/// A worker above this has enough to do.
const HIGH: u32 = 750;
/// One worker less is enough when those that are left would stay below this.
const LOW: u32 = 500;
/// Workers that differ by more than this are made more even, when one of them is above [`LOW`].
const UNEVEN: u32 = 300;
/// Ticks that a load must last before another worker joins.
const JOIN_AFTER: u32 = 2;
/// Ticks that a slack must last before a worker leaves.
const LEAVE_AFTER: u32 = 12;
/// Ticks after an order before the next.
const PAUSE: u32 = 4;

/// A client that is served by one worker after the other.
pub enum Guest {
    /// Of a database with one server.
    Plain(Box<Session>),
    /// Of a database with shards.
    Sharded(Box<ShardedSession>),
    /// Of the admin console; stays where it is.
    Console(Box<Console>),
}

impl Guest {
    /// Serves the client until it leaves or moves away from worker `home`.
    pub async fn run(self, crew: Arc<Crew>, home: usize) {
        let _presence = Presence::new(crew, home);
        match self {
            Self::Plain(session) => session.run().await,
            Self::Sharded(session) => Box::pin(session.run()).await,
            Self::Console(console) => Box::pin(console.run()).await,
        }
    }

    /// Takes the client's socket to the event loop of the calling thread, which is worker `home`'s.
    ///
    /// # Errors
    /// The system does not let the socket be watched there.
    pub fn settle(self, home: usize) -> io::Result<Self> {
        Ok(match self {
            Self::Plain(session) => Self::Plain(session.rehome(home)?),
            Self::Sharded(session) => Self::Sharded(session.rehome(home)?),
            console @ Self::Console(_) => console,
        })
    }
}

/// What comes to a worker.
pub enum Arrival {
    /// A client that was just accepted.
    Fresh(Caller),
    /// A client from another worker.
    Moved(Guest),
    /// The order to end.
    Stop,
}

/// What a worker's clients are told: this share of them moves to that worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The worker whose clients are meant.
    pub from: usize,
    /// Where they go.
    pub to: usize,
    /// How many of them, in thousandths; none takes an earlier order back.
    pub share: u32,
}

/// The workers, as seen by whoever deals with them.
#[derive(Debug)]
pub struct Crew {
    posts: Vec<Post>,
    /// Clients that were accepted and that no worker has seen yet.
    arriving: AtomicUsize,
    active: AtomicUsize,
    orders: AtomicU32,
    balance: Mutex<Balance>,
}

#[derive(Debug)]
struct Post {
    sender: UnboundedSender<Arrival>,
    receiver: Mutex<Option<UnboundedReceiver<Arrival>>>,
    /// Share of the time that it worked, as of its last tick.
    busy: AtomicU32,
    /// Clients it was dealt since.
    dealt: AtomicU32,
    clients: AtomicUsize,
    /// Number, destination and share of the order that holds for its clients.
    order: AtomicU64,
    /// Adds up shares, so that the right number of clients moves.
    asked: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    /// A crew of `count` workers.
    pub fn new(count: usize) -> Self {
        let post = || {
            let (sender, receiver) = unbounded_channel();
            let receiver = Mutex::new(Some(receiver));
            Post {
                sender,
                receiver,
                busy: AtomicU32::default(),
                dealt: AtomicU32::default(),
                clients: AtomicUsize::default(),
                order: AtomicU64::default(),
                asked: AtomicU32::default(),
            }
        };
        let posts = (0..count.max(1)).map(|_| post()).collect();
        let arriving = AtomicUsize::default();
        Self { posts, arriving, active: AtomicUsize::new(1), orders: AtomicU32::new(0), balance: Mutex::default() }
    }

    /// How many workers there are.
    pub fn size(&self) -> usize {
        self.posts.len()
    }

    /// What comes to worker `home`; for that worker, once.
    pub fn arrivals(&self, home: usize) -> Option<UnboundedReceiver<Arrival>> {
        lock(&self.posts.get(home)?.receiver).take()
    }

    /// Gives a fresh client to the worker that has the least to do, of those that work at all.
    pub fn deal(&self, caller: Caller) {
        let active = self.active.load(Ordering::Relaxed);
        let load = |post: &&Post| post.busy.load(Ordering::Relaxed) + post.dealt.load(Ordering::Relaxed);
        if let Some(post) = self.posts.iter().take(active).min_by_key(load) {
            post.dealt.fetch_add(1, Ordering::Relaxed);
            self.arriving.fetch_add(1, Ordering::Relaxed);
            // It ends after whoever deals.
            let _ = post.sender.send(Arrival::Fresh(caller));
        }
    }

    /// Notes that a client that was dealt is counted among those connected, or has left.
    pub fn seated(&self) {
        self.arriving.fetch_sub(1, Ordering::Release);
    }

    /// Clients that were dealt and are not counted elsewhere yet. Ask this before those that are connected: then nobody is missed
    /// on the way from here to there.
    pub fn arriving(&self) -> usize {
        self.arriving.load(Ordering::Acquire)
    }

    /// Sends a client at rest to another worker.
    pub fn hand_over(&self, guest: Guest, to: usize) {
        if let Some(post) = self.posts.get(to) {
            // It ends after its clients have left.
            let _ = post.sender.send(Arrival::Moved(guest));
        }
    }

    /// Tells all workers to end.
    pub fn stop(&self) {
        for post in &self.posts {
            // One that has ended already needs no telling.
            let _ = post.sender.send(Arrival::Stop);
        }
    }

    /// Clients of each worker.
    pub fn clients(&self) -> Vec<usize> {
        self.posts.iter().map(|post| post.clients.load(Ordering::Relaxed)).collect()
    }

    /// Where a client of worker `home` is to go that is at rest. `heeded` is the last order it was asked about:
    /// each client is asked once per order, so that it is those with something to do who move.
    pub fn calls(&self, home: usize, heeded: &mut u32) -> Option<usize> {
        let post = self.posts.get(home)?;
        let (number, to, share) = unpack(post.order.load(Ordering::Relaxed));
        // Only newer ones count: between two standing orders a client would go to and fro for ever.
        if number.wrapping_sub(*heeded).cast_signed() <= 0 {
            return None;
        }
        *heeded = number;
        let before = post.asked.fetch_add(share, Ordering::Relaxed) % ALL;
        (before + share >= ALL && to != home).then_some(to)
    }

    /// Makes an order known to the clients it is for.
    pub fn order(&self, order: Order) {
        let number = self.orders.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if let Some(post) = self.posts.get(order.from) {
            post.asked.store(0, Ordering::Relaxed);
            post.order.store(pack(number, order.to, order.share), Ordering::Relaxed);
        }
    }

    /// Notes a worker's load; the first one also decides what is to be done. Call it a few times a second on each.
    pub fn tick(&self, home: usize, busy: u32) {
        let Some(post) = self.posts.get(home) else { return };
        post.busy.store(busy.min(ALL), Ordering::Relaxed);
        post.dealt.store(0, Ordering::Relaxed);
        if home != 0 || self.posts.len() == 1 {
            return;
        }
        let busy: Vec<u32> = self.posts.iter().map(|post| post.busy.load(Ordering::Relaxed)).collect();
        let mut balance = lock(&self.balance);
        let before = balance.active;
        let orders = balance.tick(&busy);
        if balance.active != before {
            tracing::debug!(workers = balance.active, ?busy, "another number of workers serves the clients");
            self.active.store(balance.active, Ordering::Relaxed);
        }
        orders.into_iter().for_each(|order| self.order(order));
    }
}

/// Counts a client of a worker while it is there.
struct Presence(Arc<Crew>, usize);

impl Presence {
    fn new(crew: Arc<Crew>, home: usize) -> Self {
        if let Some(post) = crew.posts.get(home) {
            post.clients.fetch_add(1, Ordering::Relaxed);
        }
        Self(crew, home)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(post) = self.0.posts.get(self.1) {
            post.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn pack(number: u32, to: usize, share: u32) -> u64 {
    // No machine has 65,536 cores; a destination that does not exist is no destination.
    let to = u64::try_from(to).unwrap_or(0xffff) & 0xffff;
    (u64::from(number) << 32) | (to << 16) | u64::from(share.min(ALL))
}

fn unpack(order: u64) -> (u32, usize, u32) {
    ((order >> 32) as u32, (order >> 16 & 0xffff) as usize, (order & 0xffff) as u32)
}

/// Decides from the workers' loads how many of them serve clients, and who moves.
#[derive(Debug, PartialEq, Eq)]
pub struct Balance {
    /// Workers that serve clients; the others are empty, or their clients leave for the first as soon as they do anything.
    pub active: usize,
    pressure: u32,
    slack: u32,
    uneven: u32,
    pause: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self { active: 1, pressure: 0, slack: 0, uneven: 0, pause: 0 }
    }
}

impl Balance {
    /// What to do about these loads, in thousandths of each worker's time.
    pub fn tick(&mut self, busy: &[u32]) -> Vec<Order> {
        let working = busy.get(..self.active).unwrap_or(busy);
        let total: u32 = working.iter().sum();
        let load = |at: &usize| working.get(*at).copied().unwrap_or_default();
        let most = (0..working.len()).max_by_key(load).unwrap_or_default();
        let least = (0..working.len()).min_by_key(load).unwrap_or_default();
        let (high, low) = (load(&most), load(&least));
        let fewer = u32::try_from(self.active.saturating_sub(1)).unwrap_or(u32::MAX);
        let count = |counter: u32, more: bool| if more { counter.saturating_add(1) } else { 0 };
        self.pressure = count(self.pressure, high > HIGH && self.active < busy.len());
        self.slack = count(self.slack, self.active > 1 && total < LOW * fewer);
        self.uneven = count(self.uneven, high > LOW && high - low > UNEVEN);
        if self.pause > 0 {
            self.pause -= 1;
            // Whoever did nothing in all that time need not move for it any more.
            let over = |from| Order { from, to: from, share: 0 };
            return if self.pause == 0 { (0..self.active).map(over).collect() } else { Vec::new() };
        }
        let orders = if self.uneven >= JOIN_AFTER {
            vec![Order { from: most, to: least, share: (high - low) * ALL / 2 / high }]
        } else if self.pressure >= JOIN_AFTER {
            let joining = self.active;
            self.active += 1;
            let share = ALL / u32::try_from(self.active).unwrap_or(ALL);
            let to_it = |from| Order { from, to: joining, share };
            // It may have been told to send its clients away.
            (0..joining).map(to_it).chain([Order { from: joining, to: joining, share: 0 }]).collect()
        } else if self.slack >= LEAVE_AFTER {
            self.active -= 1;
            let to = (0..self.active).min_by_key(load).unwrap_or_default();
            vec![Order { from: self.active, to, share: ALL }]
        } else {
            return Vec::new();
        };
        *self = Self { active: self.active, pause: PAUSE, ..Self::default() };
        orders
    }
}

/// Tells how busy the calling thread was since it was asked last.
#[derive(Debug)]
pub struct Stopwatch {
    cpu: Duration,
    at: Instant,
}

impl Stopwatch {
    /// Starts now, on the calling thread.
    pub fn start() -> Self {
        Self { cpu: thread_cpu(), at: Instant::now() }
    }

    /// The share of the time since the last lap that the thread had a CPU, in thousandths.
    pub fn lap(&mut self) -> u32 {
        let now = Self::start();
        let cpu = now.cpu.saturating_sub(self.cpu).as_micros() * u128::from(ALL);
        let busy = cpu / now.at.duration_since(self.at).as_micros().max(1);
        *self = now;
        u32::try_from(busy).unwrap_or(ALL).min(ALL)
    }
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the type that the function writes, and lives until it returns.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    if done == 0 { Duration::new(part(time.tv_sec), part(time.tv_nsec) as u32) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(balance: &mut Balance, busy: &[u32], ticks: u32) -> Vec<Order> {
        (0..ticks).flat_map(|_| balance.tick(busy)).filter(|order| order.share > 0).collect()
    }

    #[test]
    fn one_worker_does_it_all_until_it_is_really_busy() {
        let mut balance = Balance::default();
        assert_eq!(repeat(&mut balance, &[700, 0], 1000), []);
        // A short rush is none.
        assert_eq!(repeat(&mut balance, &[990, 0], JOIN_AFTER - 1), []);
        assert_eq!(repeat(&mut balance, &[600, 0], 10), []);
        assert_eq!(balance.active, 1);
    }

    #[test]
    fn half_of_the_clients_go_to_a_worker_that_joins() {
        let mut balance = Balance::default();
        assert_eq!(repeat(&mut balance, &[990, 0], JOIN_AFTER), [Order { from: 0, to: 1, share: 500 }]);
        assert_eq!(balance.active, 2);
        // There is no third; nothing else happens however busy they are.
        assert_eq!(repeat(&mut balance, &[990, 990], 1000), []);
    }

    #[test]
    fn a_third_of_each_goes_to_the_third() {
        let mut balance = Balance { active: 2, ..Balance::default() };
        let to_it = |from| Order { from, to: 2, share: 333 };
        assert_eq!(repeat(&mut balance, &[900, 900, 0], JOIN_AFTER), [to_it(0), to_it(1)]);
    }

    #[test]
    fn a_worker_leaves_when_the_others_can_do_its_work() {
        let mut balance = Balance { active: 2, ..Balance::default() };
        assert_eq!(repeat(&mut balance, &[300, 250], 1000), [], "together they are above what one should have");
        assert_eq!(repeat(&mut balance, &[200, 200], LEAVE_AFTER - 1), []);
        assert_eq!(repeat(&mut balance, &[200, 200], 1), [Order { from: 1, to: 0, share: ALL }]);
        // Its idle clients may still be there, and the order with them.
        assert_eq!(balance.tick(&[200, 0]), []);
    }

    #[test]
    fn the_order_to_leave_holds_until_the_worker_joins_again() {
        let mut balance = Balance { active: 2, ..Balance::default() };
        let ordered: Vec<_> =
            (0..100).flat_map(|_| balance.tick(&[100, 100])).filter(|order| order.from == 1).collect();
        assert_eq!(ordered, [Order { from: 1, to: 0, share: ALL }]);
        let joined: Vec<_> = (0..JOIN_AFTER).flat_map(|_| balance.tick(&[900, 0])).collect();
        assert_eq!(joined, [Order { from: 0, to: 1, share: 500 }, Order { from: 1, to: 1, share: 0 }]);
    }

    #[test]
    fn uneven_workers_share_their_clients_anew() {
        let mut balance = Balance { active: 2, ..Balance::default() };
        assert_eq!(repeat(&mut balance, &[900, 300], JOIN_AFTER), [Order { from: 0, to: 1, share: 333 }]);
        assert_eq!(repeat(&mut balance, &[700, 500], 100), []);
        assert_eq!(repeat(&mut balance, &[400, 150], 100), [], "nobody has too much to do");
    }

    #[test]
    fn a_share_of_the_clients_moves_and_each_is_asked_once() {
        let crew = Crew::new(2);
        let mut heeded = [0u32; 10];
        let go = |heeded: &mut [u32]| -> Vec<usize> { heeded.iter_mut().filter_map(|at| crew.calls(0, at)).collect() };
        let nobody: [usize; 0] = [];
        assert_eq!(go(&mut heeded), nobody);
        crew.order(Order { from: 0, to: 1, share: 300 });
        assert_eq!(go(&mut heeded), [1, 1, 1]);
        assert_eq!(go(&mut heeded), nobody);
        crew.order(Order { from: 0, to: 1, share: ALL });
        assert_eq!(go(&mut heeded).len(), 10);
        crew.order(Order { from: 0, to: 0, share: 0 });
        assert_eq!(go(&mut heeded), nobody);
    }

    #[test]
    fn a_thread_that_spins_is_busy() {
        let mut stopwatch = Stopwatch::start();
        let end = Instant::now() + Duration::from_millis(30);
        while Instant::now() < end {}
        assert!(stopwatch.lap() > 0);
    }

    #[test]
    fn who_was_dealt_is_arriving_until_seated() {
        let crew = Crew::new(1);
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(crew.arriving(), 0);
        crew.deal(Caller::Unix(here));
        assert_eq!(crew.arriving(), 1);
        crew.seated();
        assert_eq!(crew.arriving(), 0);
    }
}
