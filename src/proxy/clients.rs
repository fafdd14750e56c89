//! All connected clients: whom a cancel request means, and whom to wake at shutdown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use ring::rand::SecureRandom;

use crate::config::Limits;
use crate::net::scram::equal;
use crate::pool::server::CancelTarget;
use crate::proxy::about::{About, Activity};
use crate::proxy::kin::Kin;
use crate::proxy::pins::{Pins, Reason};
use crate::proxy::pulse::Pulse;
use crate::wire::message::Failure;

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
    /// How long it has been doing it.
    pub pulse: Pulse,
    serving: Mutex<Serving>,
    waker: Mutex<Option<Waker>>,
}

/// The server connections that work for a client: several of them only where there are shards.
#[derive(Debug, Default)]
struct Serving {
    first: Option<Arc<CancelTarget>>,
    more: Vec<Arc<CancelTarget>>,
}

/// How many clients of one user and of one database there may be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quota {
    /// Of the user.
    pub user: Option<u32>,
    /// Of the database.
    pub database: Option<u32>,
}

/// Clients that are logged in, and how many there are of whom.
#[derive(Debug, Default)]
struct Register {
    by_pid: HashMap<u32, Arc<Client>>,
    users: HashMap<Box<str>, u32>,
    databases: HashMap<Box<str>, u32>,
}

impl Register {
    /// Why one more may not come in.
    fn refusal(&self, about: &About, quota: Quota) -> Option<Failure> {
        let full = |counts: &HashMap<Box<str>, u32>, name: &str, most: Option<u32>| {
            most.is_some_and(|most| counts.get(name).copied().unwrap_or_default() >= most)
        };
        let refuse = |kind: &str, name: &str, setting: String| {
            let what = format!("too many clients of {kind} \"{name}\"");
            Failure::fatal("53300", what).hint(format!("raise {setting}"))
        };
        let (user, database) = (&*about.user, &*about.database);
        if full(&self.users, user, quota.user) {
            return Some(refuse("user", user, format!("users.{user}.max_clients")));
        }
        full(&self.databases, database, quota.database)
            .then(|| refuse("database", database, format!("databases.{database}.max_clients")))
    }

    fn enter(&mut self, client: &Arc<Client>) {
        *self.users.entry(client.about.user.clone()).or_default() += 1;
        *self.databases.entry(client.about.database.clone()).or_default() += 1;
        self.by_pid.insert(client.pid, client.clone());
    }

    fn leave(&mut self, client: &Client) {
        if self.by_pid.remove(&client.pid).is_none() {
            return;
        }
        let one_less = |counts: &mut HashMap<Box<str>, u32>, name: &str| {
            if let Some(count) = counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(name);
                }
            }
        };
        one_less(&mut self.users, &client.about.user);
        one_less(&mut self.databases, &client.about.database);
    }
}

/// The clients of this process.
#[derive(Debug, Default)]
pub struct Clients {
    /// The processes before and after this one.
    pub kin: Kin,
    register: Mutex<Register>,
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
        let mut serving = lock(&self.serving);
        serving.first = target;
        serving.more.clear();
    }

    /// Notes another server connection that works for this client.
    pub fn serve_too(&self, target: Arc<CancelTarget>) {
        target.lend_to(self.pid);
        let mut serving = lock(&self.serving);
        if serving.first.is_none() {
            serving.first = Some(target);
        } else {
            serving.more.push(target);
        }
    }

    /// The server connection that works for it; the first one, where there are several.
    pub fn served_by(&self) -> Option<Arc<CancelTarget>> {
        lock(&self.serving).first.clone()
    }

    /// The server connections that work for it, announced to each: none works for anybody else before it was
    /// [delivered](CancelTarget::deliver).
    pub fn announced(&self) -> Vec<Arc<CancelTarget>> {
        let serving = lock(&self.serving);
        let all: Vec<_> = serving.first.iter().chain(&serving.more).cloned().collect();
        all.iter().for_each(|target| target.announce());
        all
    }

    /// The server connections that work for it.
    pub fn targets(&self) -> Vec<Arc<CancelTarget>> {
        let serving = lock(&self.serving);
        serving.first.iter().chain(&serving.more).cloned().collect()
    }

    /// Wakes its task, to look for orders.
    pub fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
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
        self.wake();
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
    ///
    /// # Errors
    /// There are too many of its user or database already.
    pub fn register(&self, about: About, quota: Quota) -> Result<Arc<Client>, Failure> {
        let random = ring::rand::SystemRandom::new();
        let dry = |_| Failure::fatal("XX000", "the system gives no random numbers");
        let mut register = lock(&self.register);
        if let Some(failure) = register.refusal(&about, quota) {
            return Err(failure);
        }
        loop {
            let (mut pid, mut secret) = ([0u8; 4], [0u8; 4]);
            random.fill(&mut pid).map_err(dry)?;
            random.fill(&mut secret).map_err(dry)?;
            // Positive, as process ids are, and above those that Linux gives (`PID_MAX_LIMIT`, 2^22).
            let pid = u32::from_be_bytes(pid) & 0x7fff_ffff | 0x4000_0000;
            if register.by_pid.contains_key(&pid) {
                continue;
            }
            let client = Client {
                id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
                pid,
                secret,
                about,
                activity: Activity::default(),
                pins: AtomicU8::new(0),
                pulse: Pulse::default(),
                serving: Mutex::default(),
                waker: Mutex::default(),
            };
            let client = Arc::new(client);
            register.enter(&client);
            return Ok(client);
        }
    }

    /// Wakes those who have reached a limit. Call it a few times a second on one worker.
    pub fn check(&self, now: u64, limits: &Limits) {
        let register = lock(&self.register);
        let over = register.by_pid.values().filter(|client| client.pulse.check(now, limits));
        over.for_each(|client| client.wake());
    }

    /// Whether anybody is logged in to this database.
    pub fn are_of(&self, database: &str) -> bool {
        lock(&self.register).databases.contains_key(database)
    }

    /// Clients of this database for whom several server connections work.
    pub fn on_several(&self, database: &str) -> Vec<Arc<Client>> {
        let register = lock(&self.register);
        let several =
            |client: &&Arc<Client>| *client.about.database == *database && !lock(&client.serving).more.is_empty();
        register.by_pid.values().filter(several).cloned().collect()
    }

    /// All that are logged in, by their number.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = lock(&self.register).by_pid.values().cloned().collect();
        all.sort_by_key(|client| client.id);
        all
    }

    /// Forgets a client.
    pub fn unregister(&self, client: &Client) {
        client.serve(None);
        lock(&self.register).leave(client);
    }

    /// The client that was told this key.
    pub fn holder(&self, pid: u32, secret: &[u8]) -> Option<Arc<Client>> {
        let client = lock(&self.register).by_pid.get(&pid).cloned();
        client.filter(|client| equal(&client.secret, secret))
    }

    /// The clients that keep their server connections, in the order in which they came.
    pub fn pinned(&self) -> Vec<Arc<Client>> {
        let register = lock(&self.register);
        let mut pinned: Vec<_> = register.by_pid.values().filter(|client| !client.pins().is_empty()).cloned().collect();
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
        for client in lock(&self.register).by_pid.values() {
            client.wake();
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

/// Delivers cancel requests that were announced.
pub async fn deliver(targets: Vec<Arc<CancelTarget>>) {
    // All at once: one server that is slow to answer must not make the others wait.
    let deliveries: Vec<_> =
        targets.into_iter().map(|target| tokio::spawn(async move { target.deliver().await })).collect();
    for delivery in deliveries {
        if let Ok(Err(error)) = delivery.await {
            tracing::warn!(error = error.message, "a cancel request could not be delivered");
        }
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
