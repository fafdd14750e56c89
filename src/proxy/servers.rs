//! The servers of a database that has replicas: their fleet, and what of the catalog reads may use.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config::{Balance, Database as Settings, Reads, unlimited_if_zero};
use crate::net::connect::ServerTarget;
use crate::pool::Pool;
use crate::pool::fleet::{Choosing, Fleet, FleetOptions, ServerStatus};
use crate::pool::lane::{Lane, hash_of_client};
use crate::pool::watch::watch;
use crate::proxy::readable::{Readable, read};

/// How often the catalog is read again; a definition that another way brought in is not known in between.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Longest that reading it may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The servers of one database.
#[derive(Debug)]
pub struct Servers {
    /// How they are.
    pub fleet: Arc<Fleet>,
    /// Where and as whom they are asked; not known before the first client where a URL names no user.
    targets: OnceLock<Vec<Arc<ServerTarget>>>,
    watched: AtomicBool,
    catalog: Arc<Catalog>,
}

/// What reads may use, and which check a replica must have replayed to know the same.
#[derive(Debug)]
struct Catalog {
    readable: ArcSwap<Readable>,
    floor: AtomicU64,
    /// Counts reasons to read it again.
    wanted: AtomicU64,
    /// Definitions under way, during which it is not read.
    defining: AtomicUsize,
    state: Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Reading {
    under_way: bool,
    /// The reasons that the last reading knew of.
    answered: u64,
    last: Option<Instant>,
}

impl Servers {
    /// The servers of a database with replicas, which are asked over these targets, if they are known.
    pub fn new(settings: &Settings, targets: Option<Vec<Arc<ServerTarget>>>) -> Self {
        let choosing = match settings.balance {
            Balance::RoundRobin => Choosing::RoundRobin,
            Balance::LeastConnections => Choosing::LeastConnections,
            Balance::ClientIpHash => Choosing::ClientIpHash,
        };
        let options = FleetOptions {
            choosing,
            max_lag: settings.max_lag,
            check_interval: settings.check_interval,
            patience: settings.failover_timeout.min(unlimited_if_zero(settings.pool.wait_timeout)),
        };
        // The first one is the primary now, and has a share like others after a failover.
        let weights = std::iter::once(1).chain(settings.replicas.iter().map(|replica| replica.weight));
        let addresses = settings.servers().map(|(_, url)| url.address());
        let catalog = Catalog {
            readable: ArcSwap::from_pointee(Readable::default()),
            floor: AtomicU64::new(0),
            wanted: AtomicU64::new(1),
            defining: AtomicUsize::new(0),
            state: Mutex::default(),
        };
        Self {
            fleet: Fleet::new(addresses.zip(weights), options),
            targets: targets.map_or_else(OnceLock::new, OnceLock::from),
            watched: AtomicBool::new(false),
            catalog: Arc::new(catalog),
        }
    }

    /// A session's way to the servers, over its role's pools.
    pub fn lane(&self, pools: Vec<Arc<Pool>>, client: Option<IpAddr>, reads: Reads) -> Lane {
        pools.iter().enumerate().for_each(|(server, pool)| self.fleet.enlist(server, pool));
        self.targets.get_or_init(|| pools.iter().map(|pool| pool.target.clone()).collect());
        Lane::new(self.fleet.clone(), pools.into(), hash_of_client(client), reads == Reads::Balanced)
    }

    /// Starts asking the servers, and reads the catalog when it is time to. Call it a few times a second on one worker.
    pub fn look_after(&self) {
        let Some(targets) = self.targets.get() else { return };
        if !self.watched.swap(true, Ordering::Relaxed) {
            watch(&self.fleet, targets.iter().cloned());
        }
        if self.fleet.take_change() {
            self.catalog.forget();
        }
        let Some(target) = self.fleet.primary().and_then(|primary| targets.get(primary)).cloned() else { return };
        let Some(wanted) = self.catalog.begin() else { return };
        let (catalog, fleet) = (self.catalog.clone(), self.fleet.clone());
        tokio::spawn(async move {
            let found = tokio::time::timeout(LIMIT, read(&target)).await;
            let found = found.unwrap_or_else(|_| Err("it took too long".to_owned()));
            if let Err(reason) = &found {
                tracing::warn!(server = ?target, reason, "the catalog could not be read: all goes to the primary");
            }
            catalog.end(wanted, found.ok(), &fleet);
        });
    }

    /// What reads may use.
    pub fn readable(&self) -> Arc<Readable> {
        self.catalog.readable.load_full()
    }

    /// The check that a replica must have replayed to know what [`Self::readable`] says.
    pub fn floor(&self) -> u64 {
        self.catalog.floor.load(Ordering::Acquire)
    }

    /// Notes that statements may soon mean something else: nothing is proven until what this gives is dropped and the
    /// catalog was read again.
    pub fn define(&self) -> Defining {
        self.catalog.defining.fetch_add(1, Ordering::AcqRel);
        self.catalog.forget();
        Defining(self.catalog.clone())
    }

    /// What is known of the servers, in the configuration's order.
    pub fn status(&self) -> Vec<ServerStatus> {
        self.fleet.status()
    }
}

/// A definition that is under way.
#[derive(Debug)]
pub struct Defining(Arc<Catalog>);

impl Drop for Defining {
    fn drop(&mut self) {
        self.0.forget();
        self.0.defining.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Catalog {
    fn forget(&self) {
        self.wanted.fetch_add(1, Ordering::AcqRel);
        self.readable.store(Arc::default());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a reading when it is time for one.
    fn begin(&self) -> Option<u64> {
        let mut state = self.lock();
        let wanted = self.wanted.load(Ordering::Acquire);
        let due = state.last.is_none_or(|last| last.elapsed() >= REFRESH_EVERY);
        let waits = state.under_way || self.defining.load(Ordering::Acquire) > 0;
        if waits || !due && state.answered == wanted {
            return None;
        }
        state.under_way = true;
        Some(wanted)
    }

    /// Ends a reading that was begun for these reasons.
    fn end(&self, wanted: u64, found: Option<Readable>, fleet: &Fleet) {
        let mut state = self.lock();
        state.under_way = false;
        state.last = Some(Instant::now());
        // What was read while something changed may be of before the change.
        let current = self.wanted.load(Ordering::Acquire) == wanted;
        match found.filter(|_| current) {
            Some(readable) => {
                state.answered = wanted;
                if !readable.says_the_same(&self.readable.load()) {
                    self.floor.store(fleet.begun(), Ordering::Release);
                    self.readable.store(Arc::new(readable));
                }
            }
            None => self.readable.store(Arc::default()),
        }
        // A change that came between the comparison and the store wins.
        if self.wanted.load(Ordering::Acquire) != wanted {
            self.readable.store(Arc::default());
        }
    }
}
