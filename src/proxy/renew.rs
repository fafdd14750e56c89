//! A new configuration for a proxy that runs.
//!
//! A house is one reading of the configuration. A new reading makes a new house, which takes over what is still right: who
//! is connected, who serves them, and the connections to servers that are the same. Clients stay where they
//! are and look at the beginning of each transaction whether their database was replaced. What is wrong with the file is
//! said, and then nothing has changed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::config::{self, Config, Database as Settings, ServerUrl};
use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::proxy::automatic::{ANY, Automatic, any};
use crate::proxy::database::Database;
use crate::proxy::examination::Examination;
use crate::proxy::login::House;
use crate::proxy::saved::Saving;
use crate::proxy::session::Access;
use crate::wire::message::Failure;

/// Settings that are read when the process starts and not again.
const FIXED: &[&str] = &["workers", "admin", "pid_file", "unix_socket_permissions", "stats.templates"];

/// What is to be done by whoever looks after the whole process.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again; answer with what has changed.
    Reload(oneshot::Sender<Result<Vec<String>>>),
    /// End: at once, or when clients have finished their transactions.
    Stop {
        /// Nobody is waited for.
        at_once: bool,
    },
}

/// What ties the houses of one process together.
pub struct Ties {
    latest: ArcSwapOption<House>,
    sender: UnboundedSender<Order>,
    receiver: Mutex<Option<UnboundedReceiver<Order>>>,
    /// Pools of earlier houses, until nobody needs them.
    old: Mutex<Vec<(Arc<Database>, Arc<Pool>)>>,
    /// Databases that began when a client asked for them.
    pub(super) automatic: Automatic,
}

impl fmt::Debug for Ties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ties(..)")
    }
}

impl Default for Ties {
    fn default() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self {
            latest: ArcSwapOption::empty(),
            sender,
            receiver: Mutex::new(Some(receiver)),
            old: Mutex::default(),
            automatic: Automatic::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl House {
    /// Makes this the house that new clients come to.
    pub fn install(self) -> Arc<Self> {
        let house = Arc::new(self);
        if let Some(templates) = &house.templates {
            templates.save_at(Saving::of(&house.config));
            templates.examine_with(house.examination.clone());
        }
        house.ties.latest.store(Some(house.clone()));
        house
    }

    /// The house that new clients come to.
    pub fn current(self: &Arc<Self>) -> Arc<Self> {
        self.ties.latest.load_full().unwrap_or_else(|| self.clone())
    }

    /// Has the configuration file read again; gives what has changed, a line each. Clients stay connected.
    ///
    /// # Errors
    /// The file is wrong; everything stays as it was.
    pub async fn reload(&self) -> Result<Vec<String>> {
        let (sender, answer) = oneshot::channel();
        let nobody = || Error::internal("nobody looks after the configuration any more");
        self.ties.sender.send(Order::Reload(sender)).map_err(|_| nobody())?;
        answer.await.map_err(|_| nobody())?
    }

    /// Has the process end: at once, or as SIGTERM does, when transactions are finished.
    pub fn shut_down(&self, at_once: bool) {
        // Whoever would hear it has ended already.
        let _ = self.ties.sender.send(Order::Stop { at_once });
    }

    /// The orders that are given; for one listener, once.
    pub(super) fn orders(&self) -> Option<UnboundedReceiver<Order>> {
        lock(&self.ties.receiver).take()
    }

    /// Pools of earlier configurations that still serve somebody.
    pub fn old_pools(&self) -> Vec<Arc<Pool>> {
        lock(&self.ties.old).iter().map(|(_, pool)| pool.clone()).collect()
    }

    /// Forgets pools of earlier configurations that nobody needs any more.
    pub(super) fn sweep(&self) {
        self.sweep_automatic();
        lock(&self.ties.old).retain(|(database, pool)| {
            let counts = pool.counts();
            let deserted = database.successor().is_some() || Arc::strong_count(database) == 1;
            !(deserted && counts.open == 0 && counts.waiting == 0)
        });
    }

    /// A house for another configuration, of the same process. Nothing has changed before [`House::replace_by`].
    pub(super) fn renewed(&self, config: Config) -> Result<Self> {
        let gate = ArcSwap::from_pointee(self.gate.load().renewed(&config)?);
        let examination = Arc::new(Examination::of(&config)?);
        let mut databases = std::collections::HashMap::new();
        for (name, settings) in config.databases.iter().filter(|(name, _)| *name != ANY) {
            let database = match self.databases.get(name) {
                Some(old) => old.renewed(&config, settings)?,
                None => Database::new(
                    name,
                    &config,
                    settings,
                    self.interned.clone(),
                    self.templates.clone(),
                    self.crew.size(),
                )?,
            };
            databases.insert(name.clone(), Arc::new(database));
        }
        let any = match (&self.any, any(&config)) {
            (Some(old), Some(settings)) => Some(Arc::new(old.renewed(&config, settings)?)),
            (None, Some(_)) => self.any_of(&config)?,
            (_, None) => None,
        };
        let before = Self::most_logins(&self.config);
        let logins = match Self::most_logins(&config) {
            same if same == before => self.logins.clone(),
            limit => crate::proxy::logins::Logins::new(limit),
        };
        Ok(Self {
            config,
            databases,
            any,
            gate,
            logins,
            clients: self.clients.clone(),
            crew: self.crew.clone(),
            templates: self.templates.clone(),
            examination,
            interned: self.interned.clone(),
            ties: self.ties.clone(),
        })
    }

    /// Puts `next` in this house's place; gives it and what is different, a line each.
    pub(super) fn replace_by(&self, next: Self) -> (Arc<Self>, Vec<String>) {
        let changes = changes(&self.config, &next.config);
        for (name, database) in &next.databases {
            database.come_into_force(self.databases.get(name));
        }
        let next = self.hand_over(|| next.install());
        for (name, database) in &self.databases {
            self.succeed(database, next.databases.get(name));
        }
        (next, changes)
    }

    /// Puts `heir` in a database's place; what it does not take over is looked after until nobody needs it.
    pub(super) fn succeed(&self, database: &Arc<Database>, heir: Option<&Arc<Database>>) {
        if let Some(heir) = heir {
            database.set_successor(heir);
        }
        let kept = heir.map(|heir| heir.pools()).unwrap_or_default();
        for pool in database.pools().into_iter().filter(|pool| !kept.iter().any(|kept| Arc::ptr_eq(kept, pool))) {
            // Those who wait in it, or cannot follow, are still served.
            pool.reconnect();
            lock(&self.ties.old).push((database.clone(), pool));
        }
    }
}

/// What is different in `new`, by the names of settings. Secrets are not shown, so that a new one is not seen here.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (config::list(old).into_iter().collect(), config::list(new).into_iter().collect());
    let fixed = |path: &str| {
        let name = path.split('[').next().unwrap_or_default();
        if FIXED.contains(&name) { " (at the next start)" } else { "" }
    };
    let mut lines = Vec::new();
    for (path, value) in &new {
        match old.get(path) {
            Some(before) if before == value => {}
            Some(before) => lines.push(format!("{path}: {before} -> {value}{}", fixed(path))),
            None => lines.push(format!("{path}: {value}{}", fixed(path))),
        }
    }
    let gone = old.keys().filter(|path| !new.contains_key(*path));
    lines.extend(gone.map(|path| format!("{path}: removed{}", fixed(path))));
    lines
}

/// Whether both are the same server and account, whatever the password.
fn same_server(a: &ServerUrl, b: &ServerUrl) -> bool {
    let bare = |url: &ServerUrl| ServerUrl { password: None, ..url.clone() };
    bare(a) == bare(b)
}

/// Whether statements go to the same shards under both settings.
fn same_topology(a: &Settings, b: &Settings) -> bool {
    let servers =
        |settings: &Settings| settings.servers().map(|(name, url)| (name.to_owned(), url.clone())).collect::<Vec<_>>();
    a.sharding == b.sharding && servers(a) == servers(b) && a.commit == b.commit
}

/// Whether the servers are the same and are looked after in the same way.
fn same_replicas(a: &Settings, b: &Settings) -> bool {
    let times = |settings: &Settings| {
        (settings.max_lag, settings.check_interval, settings.failover_timeout, settings.pool.wait_timeout)
    };
    a.primary == b.primary && a.replicas == b.replicas && a.balance == b.balance && times(a) == times(b)
}

impl Database {
    /// This database with other settings. It has the connections to servers that are the same.
    pub(super) fn renewed(&self, config: &Config, settings: &Settings) -> Result<Self> {
        let mut next =
            Self::new(&self.name, config, settings, self.interned.clone(), self.meter.templates.clone(), self.workers)?;
        next.meter = self.meter.clone();
        if self.config.guard == settings.guard {
            next.guards = self.guards.clone();
        }
        next.is_automatic = self.is_automatic;
        next.disabled = AtomicBool::new(self.disabled.load(Ordering::Relaxed));
        next.paused = AtomicBool::new(self.paused.load(Ordering::SeqCst));
        next.functions = self.functions.clone();
        if self.sharded.is_some() && same_topology(&self.config, settings) {
            next.sharded = self.sharded.clone();
        }
        if self.servers.is_some() && same_replicas(&self.config, settings) {
            next.servers = self.servers.clone();
        }
        let servers: Vec<_> = self.config.servers().map(|(_, url)| url).zip(settings.servers()).collect();
        let mut carried = Vec::new();
        for (server, role, pool) in self.listed_pools() {
            let same = servers.get(server).is_some_and(|(old, (_, new))| same_server(old, new));
            if same && self.config.pool.connect_timeout == settings.pool.connect_timeout {
                carried.push(((server, role), pool));
            }
        }
        next.adopt(carried);
        Ok(next)
    }

    /// Applies what connections taken over from `old` have to heed from now on.
    pub(super) fn come_into_force(&self, old: Option<&Arc<Self>>) {
        if old.is_none() {
            return;
        }
        for (server, role, pool) in self.listed_pools() {
            pool.set_options(self.options(server, &role));
            let password = self.config.servers().nth(server).and_then(|(_, url)| url.password.as_ref());
            if let Some(Ok(password)) = password.map(|secret| secret.resolve()) {
                pool.target.wallet.renew(&crate::net::prove::Secret::Password(password));
            }
        }
    }

    /// Tells sessions of this database where to go on; those that cannot go on there stay until they leave.
    fn set_successor(self: &Arc<Self>, next: &Arc<Self>) {
        if self.sharded.is_some() == next.sharded.is_some() && !Arc::ptr_eq(self, next) {
            // There is one successor at most: a house is replaced once.
            let _ = self.successor.set(next.clone());
        }
    }
}

impl Access {
    /// Goes on with the database as it is configured now. Call it while no server connection is held.
    ///
    /// # Errors
    /// There is no way to the database's server with what the client has shown.
    pub fn follow(&mut self) -> Result<(), Failure> {
        while let Some(next) = self.database.successor() {
            self.database = next.clone();
        }
        let pool = self.database.pool(0, &self.user, &self.secret);
        self.pool = pool.map_err(|error| Failure::fatal("08006", error.to_string()))?;
        Ok(())
    }
}
