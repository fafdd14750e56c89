//! From a fresh socket to a client that is ready for queries.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use ring::hmac;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::config::{ClientTlsMode, Config};
use crate::error::{Error, Result};
use crate::net::accept::{Arrival, authenticate, open};
use crate::net::dialogue::Dialogue;
use crate::net::scram::Verifier;
use crate::pool::settings::{Reported, Settings, Value, normalize};
use crate::pool::{Interned, Pool, Taken};
use crate::proxy::about::About;
use crate::proxy::admin;
use crate::proxy::clients::{Client, Clients, Seat};
use crate::proxy::conversation::Conversation;
use crate::proxy::database::Database;
use crate::proxy::meter::templates::Templates;
use crate::proxy::session::{Access, Session};
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
    /// The databases by the name clients know.
    pub databases: HashMap<String, Arc<Database>>,
    /// Statements without their constants, unless they are not counted.
    pub templates: Option<Arc<Templates>>,
    interned: Arc<Interned>,
    users: HashMap<String, User>,
    tls: Option<TlsAcceptorDebug>,
    mock: MockSecret,
}

#[derive(Debug)]
struct User {
    verifier: Verifier,
    /// Known when the configuration gives the password itself, for servers whose URL names no user.
    password: Option<String>,
}

struct MockSecret(hmac::Key);
struct TlsAcceptorDebug(TlsAcceptor);

impl std::fmt::Debug for MockSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MockSecret(..)")
    }
}

impl std::fmt::Debug for TlsAcceptorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor(..)")
    }
}

impl House {
    /// Reads secrets and certificates, so that what is wrong with them is said before anybody connects.
    pub fn new(config: Config, workers: usize) -> Result<Self> {
        let interned = Arc::new(Interned::default());
        let mut users = HashMap::new();
        for (name, user) in &config.users {
            let secret = user.password.resolve().map_err(|error| error.at(format!("users.{name}.password")))?;
            users.insert(name.clone(), self::user(name, secret)?);
        }
        let templates =
            (config.stats.templates > 0).then(|| Arc::new(Templates::new(config.stats.templates as usize, workers)));
        let mut databases = HashMap::new();
        for (name, settings) in &config.databases {
            let database = Database::new(name, &config, settings, interned.clone(), templates.clone(), workers)?;
            databases.insert(name.clone(), Arc::new(database));
        }
        let tls = match (&config.tls.mode, &config.tls.certificate, &config.tls.key) {
            (ClientTlsMode::Disable, ..) => None,
            (_, Some(certificate), Some(key)) => {
                Some(TlsAcceptorDebug(crate::net::tls::acceptor(certificate.as_ref(), key.as_ref())?))
            }
            _ => return Err(Error::config("TLS needs a certificate and a key").at("tls")),
        };
        let random = ring::rand::SystemRandom::new();
        let mock = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| Error::internal("the system gives no random numbers"))?;
        let clients = Arc::new(Clients::default());
        Ok(Self { config, clients, databases, templates, interned, users, tls, mock: MockSecret(mock) })
    }

    /// All pools of all databases.
    pub fn pools(&self) -> impl Iterator<Item = (&Arc<Database>, Arc<Pool>)> {
        self.databases.values().flat_map(|database| database.pools().into_iter().map(move |pool| (database, pool)))
    }

    /// Serves one client from its first byte to its last.
    pub async fn serve(self: Arc<Self>, tcp: TcpStream, home: usize) {
        crate::net::stream::tune(&tcp);
        let Some(seat) = self.clients.connect(self.config.limits.max_clients as usize) else {
            let failure = Failure::fatal("53300", "too many clients").hint("raise limits.max_clients");
            let _ = tell(&mut Dialogue::new(crate::net::stream::Stream::Plain(tcp)), &failure).await;
            return;
        };
        // The timer is for the login alone; boxed, so that it takes no memory afterwards.
        let login =
            Box::pin(tokio::time::timeout(self.config.limits.login_timeout, self.clone().login(tcp, home, seat)));
        let outcome = login.await;
        match outcome {
            Ok(Ok(Some(Guest::Plain(session)))) => session.run().await,
            Ok(Ok(Some(Guest::Sharded(session)))) => Box::pin(session.run()).await,
            Ok(Ok(Some(Guest::Console(console)))) => Box::pin(console.run()).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a client left during login"),
            Err(_) => tracing::debug!("a client took too long to log in"),
        }
    }

    async fn login(self: Arc<Self>, tcp: TcpStream, home: usize, seat: Seat) -> io::Result<Option<Guest>> {
        let (mut dialogue, startup) = match open(tcp, self.tls.as_ref().map(|tls| &tls.0)).await? {
            Arrival::Session(dialogue, startup) => (dialogue, startup),
            Arrival::Cancel { pid, secret } => {
                self.cancel(pid, &secret).await;
                return Ok(None);
            }
            Arrival::Gone => return Ok(None),
        };
        let outcome = self.admit(&mut dialogue, &startup, home).await?;
        match outcome {
            Ok(Admitted::Session(access, settings, greeting)) => {
                self.welcome(dialogue, &startup, access, (settings, greeting), seat).await.map(Some)
            }
            Ok(Admitted::Console(rights)) => {
                let guard = self.register(&dialogue, &startup)?;
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

    /// Authenticates, finds the database and asks a server what it says to such a session.
    async fn admit(
        &self,
        dialogue: &mut Dialogue,
        startup: &Startup,
        home: usize,
    ) -> io::Result<Result<Admitted, Failure>> {
        if self.config.tls.mode == ClientTlsMode::Require && !dialogue.stream.is_tls() {
            return Ok(Err(
                Failure::fatal("28000", "this server takes TLS connections only").hint("use sslmode=require")
            ));
        }
        if startup.minor > MINOR || !startup.protocol_options.is_empty() {
            let mut out = Vec::new();
            message::negotiate_protocol(&mut out, startup.minor.min(MINOR), startup.protocol_options.clone());
            dialogue.send(&out).await?;
        }
        let user = self.users.get(&startup.user);
        let verifier = user.map_or_else(|| Verifier::mock(&self.mock.0, &startup.user), |user| user.verifier.clone());
        if let Err(failure) = authenticate(dialogue, &startup.user, verifier).await? {
            return Ok(Err(failure));
        }
        if self.clients.is_stopping() {
            return Ok(Err(Failure::fatal("57P01", "the proxy is shutting down")));
        }
        if startup.replication {
            let failure = Failure::fatal("0A000", "replication connections are not supported");
            return Ok(Err(failure.hint("connect to the server itself")));
        }
        if let Some(rights) = admin::rights(&self.config, &startup.user, &startup.database) {
            return Ok(Ok(Admitted::Console(rights)));
        }
        let Some(database) = self.databases.get(&startup.database) else {
            let message = format!("database \"{}\" does not exist", startup.database);
            return Ok(Err(Failure::fatal("3D000", message).hint("add it to `databases` in pgweir.yaml")));
        };
        if database.disabled.load(Ordering::Relaxed) {
            let message = format!("database \"{}\" is disabled", startup.database);
            return Ok(Err(Failure::fatal("57P03", message).hint("ENABLE it in the console")));
        }
        let password = user.and_then(|user| user.password.as_deref());
        let pool = match database.pool(0, &startup.user, password) {
            Ok(pool) => pool,
            Err(error) => return Ok(Err(Failure::fatal("08006", error.to_string()))),
        };
        let given = startup.settings.iter().map(|(name, value)| (name.clone(), Value::Text(value.clone())));
        let settings = self.interned.settings.intern(normalize(given));
        let greeting = match database.greeting(&settings) {
            Some(greeting) => greeting,
            None => match self.greet(database, &pool, &settings, home).await {
                Ok(greeting) => {
                    database.remember_greeting(settings.clone(), greeting.clone());
                    greeting
                }
                Err(failure) => return Ok(Err(failure)),
            },
        };
        let access = Access { database: database.clone(), pool, home, user: startup.user.clone() };
        Ok(Ok(Admitted::Session(access, settings, greeting)))
    }

    /// Opens a session with these settings on a server, to see that they are valid and what it reports.
    async fn greet(
        &self,
        database: &Database,
        pool: &Arc<Pool>,
        settings: &Arc<Settings>,
        home: usize,
    ) -> Result<Arc<Reported>, Failure> {
        let mut conn = match pool.take(home) {
            Taken::Now(conn) => conn,
            Taken::Later(mut ticket) => poll_fn(|cx| ticket.poll(cx)).await?,
        };
        match pool.apply(&mut conn, settings).await {
            Ok(()) => {
                let reported = conn.state.reported.clone();
                let first = database.sharded.is_none() && database.functions.is_due(Duration::MAX);
                if first && !database.functions.read_over(pool, &mut conn).await {
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
    ) -> io::Result<Guest> {
        let guard = self.register(&dialogue, startup)?;
        greet(&mut dialogue, &greeting, &guard).await?;
        tracing::debug!(user = startup.user, database = startup.database, client = guard.client.id, "connected");
        let limit = usize::try_from(self.config.limits.max_message.0).unwrap_or(usize::MAX);
        if let Some(shared) = access.database.sharded.clone() {
            let password = self.users.get(&startup.user).and_then(|user| user.password.clone());
            let visitor = Visitor {
                dialogue,
                database: access.database,
                shared,
                login: (access.user, password),
                home: access.home,
                settings,
                told: greeting,
                max_message: limit,
                guard,
                seat,
            };
            return Ok(Guest::Sharded(Box::new(ShardedSession::new(visitor))));
        }
        let talk = Conversation::new(guard.client.id, settings, greeting, self.interned.clone(), limit);
        Ok(Guest::Plain(Box::new(Session::new(dialogue, talk, access, guard, seat))))
    }

    fn register(&self, dialogue: &Dialogue, startup: &Startup) -> io::Result<Registered> {
        let application = startup.settings.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("application_name"));
        let about = About {
            user: startup.user.as_str().into(),
            database: startup.database.as_str().into(),
            application: application.map(|(_, value)| value.as_str().into()).unwrap_or_default(),
            ends: dialogue.stream.ends(),
            tls: dialogue.stream.is_tls(),
            since: SystemTime::now(),
        };
        let client = self.clients.register(about).ok_or(io::ErrorKind::Other)?;
        Ok(Registered { clients: self.clients.clone(), client })
    }

    async fn cancel(&self, pid: u32, secret: &[u8]) {
        // Whoever asks with a wrong key learns nothing from the answer: there is none.
        let Some(target) = self.clients.cancel_target(pid, secret) else { return };
        if let Err(error) = target.deliver().await {
            tracing::warn!(error = error.message, "a cancel request could not be delivered");
        }
    }
}

/// A client that has logged in.
enum Guest {
    Plain(Box<Session>),
    Sharded(Box<ShardedSession>),
    Console(Box<admin::Console>),
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

fn user(name: &str, secret: String) -> Result<User> {
    let bad = || {
        Error::config("the password is neither a SCRAM-SHA-256 verifier nor a plain password")
            .at(format!("users.{name}.password"))
            .hint("copy the verifier from pg_authid.rolpassword, or write the password")
    };
    if secret.starts_with("SCRAM-SHA-256$") {
        return Ok(User { verifier: Verifier::parse(&secret).ok_or_else(bad)?, password: None });
    }
    if secret.len() == 35 && secret.starts_with("md5") {
        return Err(bad());
    }
    Ok(User { verifier: Verifier::of_password(&secret).ok_or_else(bad)?, password: Some(secret) })
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
