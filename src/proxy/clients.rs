//! All connected clients: whom a cancel request means, and whom to wake at shutdown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use ring::rand::SecureRandom;

use crate::net::scram::equal;
use crate::pool::server::CancelTarget;
use crate::proxy::about::{About, Activity};
use crate::proxy::pins::{Pins, Reason};

/// One connected client, as others see it.
#[derive(Debug)]
pub struct Client {
    /// Its number, unique in this process.
    pub id: u64,
    /// The process id it was told.
    pub pid: u32,
    /// The secret it was told.
    pub secret: [u8; 4],
    /// Who it is and where it came from.
    pub about: About,
    /// What it is doing.
    pub activity: Activity,
    /// Why it keeps its server connection, as [`Pins`]' bits.
    pins: AtomicU8,
    serving: Mutex<Option<Arc<CancelTarget>>>,
    waker: Mutex<Option<Waker>>,
}

/// The clients of this process.
#[derive(Debug, Default)]
pub struct Clients {
    by_pid: Mutex<HashMap<u32, Arc<Client>>>,
    next: AtomicU64,
    connected: AtomicUsize,
    stopping: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Notes which server connection works for this client, if any.
    pub fn serve(&self, target: Option<Arc<CancelTarget>>) {
        if let Some(target) = &target {
            target.lend_to(self.pid);
        }
        *lock(&self.serving) = target;
    }

    /// The server connection that works for it.
    pub fn served_by(&self) -> Option<Arc<CancelTarget>> {
        lock(&self.serving).clone()
    }

    /// What it is doing: `idle`, `active` (a server connection works for it) or `waiting` for one.
    pub fn state(&self) -> &'static str {
        match self.activity.wait() {
            Some(_) => "waiting",
            None if self.served_by().is_some() => "active",
            None => "idle",
        }
    }

    /// Ends its session: it notices when its task runs next, which is now.
    pub fn kill(&self) {
        self.activity.kill();
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
    }

    /// Notes why it keeps its server connection.
    pub fn show_pins(&self, pins: Pins) {
        self.pins.store(pins.bits(), Ordering::Relaxed);
    }

    /// Why it keeps its server connection.
    pub fn pins(&self) -> Pins {
        Pins::from_bits(self.pins.load(Ordering::Relaxed))
    }

    /// Remembers how to wake the client's task.
    pub fn wake_by(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
    }
}

impl Clients {
    /// Counts a connection that is not yet authenticated; `None` above `limit`.
    pub fn connect(self: &Arc<Self>, limit: usize) -> Option<Seat> {
        let before = self.connected.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self.clone());
        (before < limit).then_some(seat)
    }

    /// Registers an authenticated client under a random process id and secret.
    pub fn register(&self, about: About) -> Option<Arc<Client>> {
        let random = ring::rand::SystemRandom::new();
        let mut by_pid = lock(&self.by_pid);
        loop {
            let (mut pid, mut secret) = ([0u8; 4], [0u8; 4]);
            random.fill(&mut pid).ok()?;
            random.fill(&mut secret).ok()?;
            // Positive, as process ids are.
            let pid = (u32::from_be_bytes(pid) & 0x7fff_ffff).max(1);
            if by_pid.contains_key(&pid) {
                continue;
            }
            let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
            let (serving, waker) = (Mutex::default(), Mutex::default());
            let client = Client {
                id,
                pid,
                secret,
                about,
                activity: Activity::default(),
                pins: AtomicU8::new(0),
                serving,
                waker,
            };
            let client = Arc::new(client);
            by_pid.insert(pid, client.clone());
            return Some(client);
        }
    }

    /// All that are logged in, by their number.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = lock(&self.by_pid).values().cloned().collect();
        all.sort_by_key(|client| client.id);
        all
    }

    /// Forgets a client.
    pub fn unregister(&self, client: &Client) {
        client.serve(None);
        lock(&self.by_pid).remove(&client.pid);
    }

    /// The server connection that works for the holder of this key right now. It is announced to it, so
    /// that it works for nobody else before the request was delivered.
    pub fn cancel_target(&self, pid: u32, secret: &[u8]) -> Option<Arc<CancelTarget>> {
        let client = lock(&self.by_pid).get(&pid).cloned()?;
        if !equal(&client.secret, secret) {
            return None;
        }
        let serving = lock(&client.serving);
        let target = serving.clone()?;
        target.announce();
        Some(target)
    }

    /// The clients that keep their server connections, in the order in which they came.
    pub fn pinned(&self) -> Vec<Arc<Client>> {
        let by_pid = lock(&self.by_pid);
        let mut pinned: Vec<_> = by_pid.values().filter(|client| !client.pins().is_empty()).cloned().collect();
        pinned.sort_by_key(|client| client.id);
        pinned
    }

    /// How many clients keep their server connections for each reason.
    pub fn pin_counts(&self) -> [(Reason, usize); Reason::ALL.len()] {
        let pinned = self.pinned();
        Reason::ALL.map(|reason| (reason, pinned.iter().filter(|client| client.pins().has(reason)).count()))
    }

    /// Tells all clients that the proxy stops; the idle ones leave at once.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for client in lock(&self.by_pid).values() {
            if let Some(waker) = &*lock(&client.waker) {
                waker.wake_by_ref();
            }
        }
    }

    /// Whether the proxy stops.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Connections of clients, authenticated or not.
    pub fn count(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

/// A counted connection; counts itself out.
#[derive(Debug)]
pub struct Seat(Arc<Clients>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}
