//! From a fresh socket to a client that is ready for queries.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::config::{Config, Reads, unlimited_if_zero};
use crate::error::Result;
use crate::net::accept::{Arrival, open};
use crate::net::dialogue::Dialogue;
use crate::net::prove::Secret;
use crate::net::stream::{Peer, Stream};
use crate::pool::lane::Lane;
use crate::pool::settings::{Reported, Settings, Value, normalize};
use crate::pool::{Interned, Pool, Taken};
use crate::proxy::about::About;
use crate::proxy::admin;
use crate::proxy::automatic::{ANY, any};
use crate::proxy::clients::{Client, Clients, Quota, Seat};
use crate::proxy::conversation::Conversation;
use crate::proxy::crew::{Crew, Guest};
use crate::proxy::database::Database;
use crate::proxy::examination::Examination;
use crate::proxy::findings;
use crate::proxy::gate::{Gate, Origin};
use crate::proxy::kin;
use crate::proxy::logins::{Login, Logins};
use crate::proxy::meter::templates::Templates;
use crate::proxy::renew::Ties;
use crate::proxy::session::{Access, Route, Session};
use crate::proxy::sharded::{ShardedSession, Visitor};
use crate::wire::message::{self, Failure};
use crate::wire::startup::Startup;

/// Highest minor version of protocol 3 that is served.
const MINOR: u16 = 2;

/// What all clients share.
#[derive(Debug)]
pub struct House {
    /// The configuration.
    pub config: Config,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// Who serves them.
    pub crew: Arc<Crew>,
    /// The databases of the configuration by the name clients know.
    pub databases: HashMap<String, Arc<Database>>,
    /// What serves databases of other names.
    pub(super) any: Option<Arc<Database>>,
    /// Statements without their constants, unless they are not counted.
    pub templates: Option<Arc<Templates>>,
    /// What these are examined with.
    pub(super) examination: Arc<Examination>,
    pub(super) interned: Arc<Interned>,
    /// Who is let in, and how; replaced when certificates and secrets are read again.
    pub(super) gate: ArcSwap<Gate>,
    pub(super) logins: Arc<Logins>,
    /// What it has in common with the houses before and after it.
    pub(super) ties: Arc<Ties>,
}

impl House {
    /// Reads secrets and certificates, so that what is wrong with them is said before anybody connects.
    pub fn new(config: Config, workers: usize) -> Result<Self> {
        let interned = Arc::new(Interned::default());
        let gate = ArcSwap::from_pointee(Gate::new(&config)?);
        let examination = Arc::new(Examination::of(&config)?);
        let templates =
            (config.stats.templates > 0).then(|| Arc::new(Templates::new(config.stats.templates as usize, workers)));
        templates.iter().for_each(findings::examine);
        let mut databases = HashMap::new();
        for (name, settings) in config.databases.iter().filter(|(name, _)| *name != ANY) {
            let database = Database::new(name, &config, settings, interned.clone(), templates.clone(), workers)?;
            databases.insert(name.clone(), Arc::new(database));
        }
        let clients = Arc::new(Clients::default());
        let logins = Logins::new(Self::most_logins(&config));
        let crew = Arc::new(Crew::new(workers));
        let any = None;
        let mut house = Self {
            config,
            clients,
            crew,
            databases,
            any,
            templates,
            examination,
            interned,
            gate,
            logins,
            ties: Arc::default(),
        };
        house.any = house.any_of(&house.config)?;
        Ok(house)
    }

    /// What serves the databases that the configuration does not name.
    pub(super) fn any_of(&self, config: &Config) -> Result<Option<Arc<Database>>> {
        let Some(settings) = any(config) else { return Ok(None) };
        let (interned, templates) = (self.interned.clone(), self.templates.clone());
        let mut database = Database::new(ANY, config, settings, interned, templates, self.crew.size())?;
        database.is_automatic = true;
        Ok(Some(Arc::new(database)))
    }

    /// Slow logins must leave seats to others.
    pub(super) fn most_logins(config: &Config) -> usize {
        config.limits.max_logins.min(config.limits.max_clients.div_ceil(2)) as usize
    }

    /// All pools of all databases.
    pub fn pools(&self) -> impl Iterator<Item = (Arc<Database>, Arc<Pool>)> {
        self.all_databases()
            .into_iter()
            .flat_map(|database| database.pools().into_iter().map(move |pool| (database.clone(), pool)))
    }

    /// Serves one client from its first byte to its last. It is counted from this call on, not from when the future runs.
    pub fn serve(self: Arc<Self>, stream: Stream, home: usize) -> impl Future<Output = ()> + Send + 'static {
        let seat = self.clients.connect(self.config.limits.max_clients as usize);
        self.serve_at(seat, stream, home)
    }

    async fn serve_at(self: Arc<Self>, seat: Option<Seat>, stream: Stream, home: usize) {
        let Some(seat) = seat else {
            let failure = Failure::fatal("53300", "too many clients").hint("raise limits.max_clients");
            let _ = tell(&mut Dialogue::new(stream), &failure).await;
            return;
        };
        let (place, leave) = self.logins.begin();
        // The timer is for the login alone; boxed, so that it takes no memory afterwards.
        let login = self.clone().login(stream, home, (seat, place));
        let login = Box::pin(tokio::time::timeout(unlimited_if_zero(self.config.limits.login_timeout), async move {
            tokio::select! {
                outcome = login => outcome,
                () = leave.notified() => Err(io::Error::other("too many clients were about to log in")),
            }
        }));
        let outcome = login.await;
        match outcome {
            Ok(Ok(Some(guest))) => guest.run(self.crew.clone(), home).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a client left during login"),
            Err(_) => tracing::debug!("a client took too long to log in"),
        }
    }

    async fn login(
        self: Arc<Self>,
        stream: Stream,
        home: usize,
        (seat, place): (Seat, Login),
    ) -> io::Result<Option<Guest>> {
        // One gate for the whole login: what was offered in the handshake is what is checked later.
        let gate = self.gate.load_full();
        let (mut dialogue, startup) = match open(stream, gate.door.as_ref()).await? {
            Arrival::Session(dialogue, startup) => (dialogue, startup),
            Arrival::Cancel { pid, secret } => {
                self.cancel(pid, &secret).await;
                return Ok(None);
            }
            Arrival::Gone => return Ok(None),
        };
        let outcome = match self.identify(&gate, &mut dialogue, &startup).await? {
            Ok(secret) => {
                // Waiting for a server is no slow login.
                drop((place, gate));
                self.admit((&dialogue, &startup), secret, home).await
            }
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(Admitted::Session(access, settings, greeting)) => {
                self.welcome(dialogue, &startup, access, (settings, greeting), seat).await
            }
            Ok(Admitted::Console(rights)) => {
                let guard = match self.register(&dialogue, &startup, Quota::default()) {
                    Ok(guard) => guard,
                    Err(failure) => return tell(&mut dialogue, &failure).await.map(|()| None),
                };
                greet(&mut dialogue, &admin::greeting(), &guard).await?;
                let guest = admin::Guest { dialogue, rights, guard, seat };
                Ok(Some(Guest::Console(Box::new(admin::Console::new(self, guest)))))
            }
            Err(failure) => {
                tracing::info!(user = startup.user, database = startup.database, reason = failure.message, "refused");
                tell(&mut dialogue, &failure).await?;
                Ok(None)
            }
        }
    }

    /// Has the client prove who it is; gives what it can be proven to servers with.
    async fn identify(
        &self,
        gate: &Gate,
        dialogue: &mut Dialogue,
        startup: &Startup,
    ) -> io::Result<Result<Secret, Failure>> {
        if startup.minor > MINOR || !startup.protocol_options.is_empty() {
            let mut out = Vec::new();
            message::negotiate_protocol(&mut out, startup.minor.min(MINOR), startup.protocol_options.clone());
            dialogue.send(&out).await?;
        }
        let origin = match dialogue.stream.peer() {
            Some(Peer::Tcp(address)) => Origin::Address(address.ip()),
            Some(Peer::Unix { .. }) => Origin::Local,
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        // Which databases there are is nobody's business yet.
        let asked = self.databases.get(&startup.database).or(self.any.as_ref());
        let lookup = asked.and_then(|database| database.lookup.as_ref());
        gate.admit(dialogue, startup, origin, lookup).await
    }

    /// Finds the database and asks a server what it says to such a session.
    async fn admit(
        self: &Arc<Self>,
        (dialogue, startup): (&Dialogue, &Startup),
        secret: Secret,
        home: usize,
    ) -> Result<Admitted, Failure> {
        if self.clients.is_stopping() {
            return Err(Failure::fatal("57P01", "the proxy is shutting down"));
        }
        if startup.replication {
            let failure = Failure::fatal("0A000", "replication connections are not supported");
            return Err(failure.hint("connect to the server itself"));
        }
        if let Some(rights) = admin::rights(&self.config, &startup.user, &startup.database) {
            return Ok(Admitted::Console(rights));
        }
        let database = self.wanted(&startup.database)?;
        if database.disabled.load(Ordering::Relaxed) {
            let message = format!("database \"{}\" is disabled", startup.database);
            return Err(Failure::fatal("57P03", message).hint("ENABLE it in the console"));
        }
        let pool = database.pool(0, &startup.user, &secret);
        let pool = pool.map_err(|error| Failure::fatal("08006", error.to_string()))?;
        let client = database.servers.as_ref().and_then(|_| dialogue.stream.ends().peer).map(|peer| peer.ip());
        let reads = self.config.users.get(&startup.user).map_or(Reads::Balanced, |user| user.reads);
        let lane = database.lane((&startup.user, &secret), client, reads);
        let lane = lane.map_err(|error| Failure::fatal("08006", error.to_string()))?;
        let given = startup.settings.iter().map(|(name, value)| (name.clone(), Value::Text(value.clone())));
        let settings = self.interned.settings.intern(normalize(given));
        let greeting = match database.greeting(&pool.target.user, &settings) {
            Some(greeting) => greeting,
            None => {
                let greeting = match self.greet(&database, (&pool, lane.clone()), &settings, home).await {
                    Ok(greeting) => greeting,
                    Err(failure) => {
                        self.unmade(database);
                        return Err(failure);
                    }
                };
                database.remember_greeting(&pool.target.user, settings.clone(), greeting.clone());
                greeting
            }
        };
        let access = Access {
            database,
            pool,
            home,
            crew: self.crew.clone(),
            user: startup.user.clone(),
            secret,
            route: lane.map(Route::new),
        };
        Ok(Admitted::Session(access, settings, greeting))
    }

    /// Opens a session with these settings on a server, to see that they are valid and what it reports.
    async fn greet(
        &self,
        database: &Database,
        (pool, lane): (&Arc<Pool>, Option<Lane>),
        settings: &Arc<Settings>,
        home: usize,
    ) -> Result<Arc<Reported>, Failure> {
        let (pool, mut conn) = match lane {
            Some(mut lane) => lane.any_connection(home).await?,
            None => match pool.take(home) {
                Taken::Now(conn) => (pool.clone(), conn),
                Taken::Later(mut ticket) => (pool.clone(), poll_fn(|cx| ticket.poll(cx)).await?),
            },
        };
        match pool.apply(&mut conn, settings).await {
            Ok(()) => {
                let reported = conn.state.reported.clone();
                let first = database.sharded.is_none() && database.functions.is_new();
                if first && !database.functions.look_over(&pool, &mut conn).await {
                    pool.discard(conn);
                } else {
                    pool.release(conn);
                }
                Ok(reported)
            }
            Err(failure) => {
                pool.discard(conn);
                Err(failure)
            }
        }
    }

    async fn welcome(
        &self,
        mut dialogue: Dialogue,
        startup: &Startup,
        access: Access,
        (settings, greeting): (Arc<Settings>, Arc<Reported>),
        seat: Seat,
    ) -> io::Result<Option<Guest>> {
        let quota = Quota {
            user: self.config.users.get(&startup.user).and_then(|user| user.max_clients),
            database: access.database.config.max_clients,
        };
        let guard = match self.register(&dialogue, startup, quota) {
            Ok(guard) => guard,
            Err(failure) => return tell(&mut dialogue, &failure).await.map(|()| None),
        };
        greet(&mut dialogue, &greeting, &guard).await?;
        tracing::debug!(user = startup.user, database = startup.database, client = guard.client.id, "connected");
        let limit = usize::try_from(self.config.limits.max_message.0).unwrap_or(usize::MAX);
        if let Some(shared) = access.database.sharded.clone() {
            let visitor = Visitor {
                dialogue,
                database: access.database,
                shared,
                login: (access.user, access.secret),
                home: access.home,
                crew: access.crew,
                settings,
                told: greeting,
                max_message: limit,
                guard,
                seat,
            };
            return Ok(Some(Guest::Sharded(Box::new(ShardedSession::new(visitor)))));
        }
        let mut talk = Conversation::new(guard.client.id, settings, greeting, self.interned.clone(), limit);
        talk.single = access.database.is_by_statement();
        Ok(Some(Guest::Plain(Box::new(Session::new(dialogue, talk, access, guard, seat)))))
    }

    fn register(&self, dialogue: &Dialogue, startup: &Startup, quota: Quota) -> Result<Registered, Failure> {
        let application = startup.settings.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("application_name"));
        let about = About {
            user: startup.user.as_str().into(),
            database: startup.database.as_str().into(),
            application: application.map(|(_, value)| value.as_str().into()).unwrap_or_default(),
            ends: dialogue.stream.ends(),
            tls: dialogue.stream.is_tls(),
            since: SystemTime::now(),
        };
        let client = self.clients.register(about, quota)?;
        Ok(Registered { clients: self.clients.clone(), client })
    }

    async fn cancel(&self, pid: u32, secret: &[u8]) {
        // Whoever asks with a wrong key learns nothing from the answer: there is none.
        self.clients.cancel(pid, secret, kin::Origin::Client).await;
    }
}

/// A client that may come in, and to what.
enum Admitted {
    Session(Access, Arc<Settings>, Arc<Reported>),
    Console(admin::Rights),
}

/// A registered client; unregisters itself.
#[derive(Debug)]
pub struct Registered {
    clients: Arc<Clients>,
    /// The client.
    pub client: Arc<Client>,
}

impl Registered {
    /// All clients.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.clients.unregister(&self.client);
    }
}

/// Says what a server says when a login is done.
async fn greet(dialogue: &mut Dialogue, greeting: &Reported, guard: &Registered) -> io::Result<()> {
    let mut out = Vec::new();
    for (name, value) in greeting {
        message::parameter_status(&mut out, name, value);
    }
    message::backend_key_data(&mut out, guard.client.pid, &guard.client.secret);
    message::ready(&mut out, b'I');
    dialogue.send(&out).await
}

async fn tell(dialogue: &mut Dialogue, failure: &Failure) -> io::Result<()> {
    let mut out = Vec::new();
    failure.write(&mut out);
    dialogue.send(&out).await
}
