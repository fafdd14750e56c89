//! A database that clients may ask for: its pools, and what its servers say at startup.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::config::{
    ChannelBinding, Config, Database as Settings, PoolMode, Reads, ServerUrl, SslMode, unlimited_if_zero,
};
use crate::error::{Error, Result};
use crate::net::connect::ServerTarget;
use crate::net::prove::{Binding, Secret, Wallet};
use crate::net::tls::{self, IdentityFiles, ServerTls, Verify};
use crate::pool::cap::{Counted, Share};
use crate::pool::lane::Lane;
use crate::pool::reset::Hygiene;
use crate::pool::server::ServerConn;
use crate::pool::settings::{Reported, Settings as SessionSettings};
use crate::pool::{Interned, Pool, PoolOptions};
use crate::proxy::guard::Guards;
use crate::proxy::lookup::Lookup;
use crate::proxy::meter::Meter;
use crate::proxy::meter::templates::Templates;
use crate::proxy::servers::Servers;
use crate::proxy::sharded::Shared;
use crate::proxy::watch::{FunctionWatch, Unread};

/// How often the functions are looked at where nobody gives connections back.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// Most settings whose greeting is remembered.
const MAX_GREETINGS: usize = 1000;

/// What proves a service user whose password the configuration does not give.
const UNUSED: Secret = Secret::Nothing("the server's URL names a user and gives no password");

/// A role and what it set at startup.
type Greeted = (String, Arc<SessionSettings>);

/// One database.
#[derive(Debug)]
pub struct Database {
    /// The name clients know.
    pub name: String,
    /// Its settings.
    pub config: Settings,
    /// Most connections to a server as one user, by name and for all others.
    most: (HashMap<String, u32>, u32),
    /// One per server, and per user where the server's URL names none.
    pools: Mutex<HashMap<(usize, String), Arc<Pool>>>,
    /// What servers report to a session of this role with these settings.
    greetings: Mutex<HashMap<Greeted, Arc<Reported>>>,
    /// Where users are looked up who are not in the configuration.
    pub lookup: Option<Lookup>,
    /// Functions that may change the session they run in.
    pub functions: Arc<FunctionWatch>,
    pub(super) interned: Arc<Interned>,
    pub(super) workers: usize,
    /// What its clients share when its tables lie on shards.
    pub sharded: Option<Arc<Shared>>,
    /// What statements of which users do not get through.
    pub guards: Arc<Guards>,
    /// What passes through it.
    pub meter: Arc<Meter>,
    /// Nobody is served before RESUME (PAUSE, KILL).
    pub paused: AtomicBool,
    /// How its servers are, where there are several that hold the same data.
    pub servers: Option<Arc<Servers>>,
    /// New clients are turned away (DISABLE).
    pub disabled: AtomicBool,
    /// It is served by what the configuration says for databases that it does not name.
    pub(super) is_automatic: bool,
    /// The same database in a later configuration.
    pub(super) successor: OnceLock<Arc<Self>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    /// A database without connections yet. Secrets and certificates are looked up, so that what is wrong with them is
    /// known before the first client comes.
    pub fn new(
        name: &str,
        config: &Config,
        settings: &Settings,
        interned: Arc<Interned>,
        templates: Option<Arc<Templates>>,
        workers: usize,
    ) -> Result<Self> {
        let mut database = Self {
            name: name.to_owned(),
            config: settings.clone(),
            most: {
                let given = config.users.iter().filter_map(|(name, user)| Some((name.clone(), user.max_connections?)));
                (given.collect(), config.limits.max_user_connections)
            },
            pools: Mutex::default(),
            greetings: Mutex::default(),
            lookup: None,
            functions: Arc::default(),
            interned,
            workers,
            guards: Arc::new(Guards::new(name, &settings.guard)?),
            meter: Arc::new(Meter::new(name, workers, templates)),
            paused: AtomicBool::new(false),
            servers: None,
            disabled: AtomicBool::new(false),
            is_automatic: false,
            successor: OnceLock::new(),
            sharded: settings.is_sharded().then(|| Shared::new(name, settings.clone()).map(Arc::new)).transpose()?,
        };
        let mut targets = Vec::new();
        for (server, (shard, url)) in settings.servers().enumerate() {
            let user = url.user.clone().or_else(|| config.users.keys().next().cloned()).unwrap_or_default();
            let at = |error: Error| error.at(format!("databases.{name}, server {shard}"));
            targets.push(Arc::new(database.target(url, &user, &UNUSED).map_err(at)?));
            if settings.pool.min_size > 0 && url.user.is_some() {
                database.pool(server, &user, &UNUSED)?;
            }
        }
        if !settings.replicas.is_empty() {
            // Where a server's URL names nobody, it is asked as the first client to come.
            let known = settings.servers().all(|(_, url)| url.user.is_some());
            database.servers = Some(Arc::new(Servers::new(settings, known.then_some(targets))));
        }
        database.lookup = database.lookup(name)?;
        Ok(database)
    }

    /// The `auth_query` on the first server.
    fn lookup(&self, name: &str) -> Result<Option<Lookup>> {
        let Some((settings, (_, url))) = self.config.auth_query.as_ref().zip(self.config.servers().next()) else {
            return Ok(None);
        };
        let at = |error: Error| error.at(format!("databases.{name}.auth_query"));
        let user = settings.user.clone().or_else(|| url.user.clone()).unwrap_or_default();
        let mut url = url.clone();
        if settings.user.as_ref().is_some_and(|user| Some(user) != url.user.as_ref()) {
            url.password = None;
        }
        url.password = settings.password.clone().or(url.password);
        url.database = settings.database.clone().or(url.database);
        let nothing = Secret::Nothing("auth_query and the server's URL give no password");
        let target = self.target(&url, &user, &nothing).map_err(at)?;
        Ok(Some(Lookup::new(target, settings.query.clone(), settings.cache)))
    }

    /// A session's way among the servers, where there are several that hold the same data.
    pub fn lane(&self, (user, secret): (&str, &Secret), client: Option<IpAddr>, reads: Reads) -> Result<Option<Lane>> {
        let Some(servers) = &self.servers else { return Ok(None) };
        let pools =
            (0..servers.fleet.len()).map(|server| self.pool(server, user, secret)).collect::<Result<Vec<_>>>()?;
        Ok(Some(servers.lane(pools, client, reads)))
    }

    /// The pool of server number `server`, for a client who logged in as `user` and can be proven with `secret`.
    pub fn pool(&self, server: usize, user: &str, secret: &Secret) -> Result<Arc<Pool>> {
        let url = self.config.servers().nth(server).map(|(_, url)| url);
        let url = url.ok_or_else(|| Error::internal(format!("{} has no server number {server}", self.name)))?;
        // A service user is not proven by what a client with another name showed.
        let (role, secret) = match &url.user {
            Some(role) if role != user => (role, &UNUSED),
            _ => (&user.to_owned(), secret),
        };
        let mut pools = lock(&self.pools);
        if let Some(pool) = pools.get(&(server, role.clone())) {
            if url.password.is_none() {
                pool.target.wallet.renew(secret);
            }
            return Ok(pool.clone());
        }
        let pool = Pool::new(self.target(url, role, secret)?, self.options(server, role), self.interned.clone());
        if self.paused.load(Ordering::SeqCst) {
            pool.pause();
        }
        pools.insert((server, role.clone()), pool.clone());
        Ok(pool)
    }

    /// Holds back whoever needs a server connection, and closes each one when it is free.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.pools().iter().for_each(|pool| pool.pause());
    }

    /// Serves clients again.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.pools().iter().for_each(|pool| pool.resume());
    }

    /// All pools there are, each with the number of its server.
    pub fn numbered_pools(&self) -> Vec<(usize, Arc<Pool>)> {
        let mut all: Vec<_> = lock(&self.pools).iter().map(|((server, _), pool)| (*server, pool.clone())).collect();
        all.sort_by(|a, b| (a.0, &a.1.target.user).cmp(&(b.0, &b.1.target.user)));
        all
    }

    /// All pools there are, each with the number of its server and its role.
    pub(super) fn listed_pools(&self) -> Vec<(usize, String, Arc<Pool>)> {
        let listed = |(key, pool): (&(usize, String), &Arc<Pool>)| (key.0, key.1.clone(), pool.clone());
        lock(&self.pools).iter().map(listed).collect()
    }

    /// Takes pools over.
    pub(super) fn adopt(&mut self, pools: Vec<((usize, String), Arc<Pool>)>) {
        lock(&self.pools).extend(pools);
    }

    /// The same database in a later configuration, once there is one.
    pub fn successor(&self) -> Option<&Arc<Self>> {
        self.successor.get()
    }

    /// All pools there are.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        lock(&self.pools).values().cloned().collect()
    }

    /// Limits on connections to server number `server` as `role`.
    fn shares(&self, server: usize, role: &str) -> Arc<[Share]> {
        let address = self.config.servers().nth(server).map(|(_, url)| url.address()).unwrap_or_default();
        // A transaction has a connection to each shard: where two are on one server, they must not wait for each other.
        let address = if self.config.is_sharded() { format!("{address}, {}, {server}", self.name) } else { address };
        let limit = |most: u32| if most == 0 { usize::MAX } else { most as usize };
        let (by_name, others) = &self.most;
        let database = Counted::Database(self.name.clone(), address.clone());
        let user = Counted::User(role.to_owned(), address);
        [
            Share { counted: database, limit: limit(self.config.max_connections) },
            Share { counted: user, limit: limit(by_name.get(role).copied().unwrap_or(*others)) },
        ]
        .into()
    }

    pub(super) fn options(&self, server: usize, role: &str) -> PoolOptions {
        let pool = &self.config.pool;
        PoolOptions {
            size: pool.size as usize,
            min_size: pool.min_size as usize,
            wait_timeout: unlimited_if_zero(pool.wait_timeout),
            // Shorter than the wait, so that a client hears why there is no connection.
            connect_patience: Duration::from_secs(2).min(unlimited_if_zero(pool.wait_timeout) * 3 / 4),
            idle_timeout: unlimited_if_zero(pool.idle_timeout),
            lifetime: unlimited_if_zero(pool.lifetime),
            reuse: pool.reuse,
            statements: pool.prepared_statements as usize,
            workers: self.workers,
            has_replicas: !self.config.replicas.is_empty(),
            shares: self.shares(server, role),
        }
    }

    /// Sees to it that functions are looked at again and again; call it a few times a second.
    pub fn watch_functions(&self, pool: &Arc<Pool>, home: usize) {
        self.functions.tick();
        if self.sharded.is_none() && self.functions.is_neglected(REFRESH_EVERY) {
            let (functions, pool) = (self.functions.clone(), pool.clone());
            tokio::spawn(async move { functions.insist(pool, home).await });
        }
    }

    /// Looks at the functions over a connection that is given back: they have changed on it, as `unread` says, or it is
    /// time. What was done on it was thought of with functions number `id`, and it is cleaned where these have changed.
    pub async fn learn(self: Arc<Self>, pool: Arc<Pool>, mut conn: Box<ServerConn>, unread: Option<Unread>, id: u64) {
        if self.functions.look_over(&pool, &mut conn).await {
            let settled = unread.is_some() || self.functions.is_settled(id);
            let hygiene = if settled { Hygiene::Clean } else { Hygiene::Discard };
            return pool.release_after(conn, hygiene);
        }
        let home = conn.home;
        pool.discard(conn);
        if unread.is_some() {
            self.functions.insist(pool, home).await;
        }
    }

    /// Whether a client has its server connection for one statement only.
    pub fn is_by_statement(&self) -> bool {
        self.config.pool.mode == PoolMode::Statement
    }

    /// Whether a client keeps its server connection until it leaves.
    pub fn keeps_connections(&self) -> bool {
        self.config.pool.mode == PoolMode::Session
    }

    /// A server as this role, by the URL's own password or else by `secret`.
    fn target(&self, url: &ServerUrl, role: &str, secret: &Secret) -> Result<ServerTarget> {
        let own = url.password.as_ref().map(|secret| secret.resolve()).transpose()?;
        let verify = match url.sslmode {
            _ if url.is_unix() => None,
            SslMode::Disable => None,
            // As libpq: who names an authority wants it to be looked at.
            SslMode::Require if url.sslrootcert.is_some() => Some(Verify::Authority),
            SslMode::Prefer | SslMode::Require => Some(Verify::Nobody),
            SslMode::VerifyCa => Some(Verify::Authority),
            SslMode::VerifyFull => Some(Verify::Host),
        };
        let identity = url
            .identity
            .as_ref()
            .map(|(certificate, key)| IdentityFiles { certificate: Path::new(certificate), key: Path::new(key) });
        // libpq's word for the system's own authorities.
        let authorities = url.sslrootcert.as_deref().filter(|file| *file != "system").map(Path::new);
        let how = |verify| ServerTls { verify, authorities, identity, direct: url.direct };
        Ok(ServerTarget {
            host: url.host.clone(),
            port: url.port,
            database: url.database.clone().unwrap_or_else(|| self.name.clone()),
            user: role.to_owned(),
            wallet: Wallet::new(own.map_or_else(|| secret.clone(), Secret::Password)),
            tls: verify.map(|verify| tls::connector(&how(verify))).transpose()?,
            plain_allowed: url.sslmode == SslMode::Prefer,
            direct: url.direct,
            binding: match url.channel_binding {
                ChannelBinding::Disable => Binding::Disable,
                ChannelBinding::Prefer => Binding::Prefer,
                ChannelBinding::Require => Binding::Require,
            },
            timeout: unlimited_if_zero(self.config.pool.connect_timeout),
        })
    }

    /// What servers report to a session of `role` with these settings, if one was opened before.
    pub fn greeting(&self, role: &str, settings: &Arc<SessionSettings>) -> Option<Arc<Reported>> {
        lock(&self.greetings).get(&(role.to_owned(), settings.clone())).cloned()
    }

    /// Remembers what a server reported.
    pub fn remember_greeting(&self, role: &str, settings: Arc<SessionSettings>, reported: Arc<Reported>) {
        let mut greetings = lock(&self.greetings);
        if greetings.len() >= MAX_GREETINGS {
            greetings.clear();
        }
        greetings.insert((role.to_owned(), settings), reported);
    }
}
