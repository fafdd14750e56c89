//! One client of a sharded database, from its first query to its last.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use tokio::task::JoinHandle;

use crate::exec::transaction::{Policy, Status, Transaction};
use crate::net::dialogue::Dialogue;
use crate::net::prove::Secret;
use crate::pool::settings::{Reported, Settings};
use crate::proxy::clients::{Seat, deliver};
use crate::proxy::crew::{Crew, Guest};
use crate::proxy::database::Database;
use crate::proxy::guard::Guard;
use crate::proxy::login::Registered;
use crate::proxy::meter::Tier;
use crate::proxy::meter::habits::Habits;
use crate::proxy::pulse::{Over, Phase};
use crate::proxy::sharded::link::Link;
use crate::proxy::sharded::names::Names;
use crate::proxy::sharded::prepare::Foreseen;
use crate::proxy::sharded::snapshot::Shared;
use crate::sql::lexer::LexOptions;
use crate::sql::template::{Scanner, TemplateKey};
use crate::wire::frame;
use crate::wire::message::{self, Failure};

/// Answers are sent once this many bytes are waiting, and whenever there is nothing more to add.
const SEND_AT: usize = 16 * 1024;

/// A client that has logged in.
#[derive(Debug)]
pub struct Visitor {
    /// Its connection.
    pub dialogue: Dialogue,
    /// The database it asked for.
    pub database: Arc<Database>,
    /// The database's sharding.
    pub shared: Arc<Shared>,
    /// Its name, and what it can be proven to servers with.
    pub login: (String, Secret),
    /// The worker that serves it.
    pub home: usize,
    /// The workers.
    pub crew: Arc<Crew>,
    /// What it asked for at startup.
    pub settings: Arc<Settings>,
    /// What it was told of the server's parameters.
    pub told: Arc<Reported>,
    /// The longest message taken from it, in bytes.
    pub max_message: usize,
    /// Its place among the clients.
    pub guard: Registered,
    /// Its counted connection.
    pub seat: Seat,
}

/// Why a statement has no answer of its own.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The proxy's own error.
    Reply(Failure),
    /// A server's error: the ErrorResponse, byte for byte.
    Server(Vec<u8>),
    /// The connection to this shard was lost.
    Lost(usize),
    /// The client was told already.
    Told,
    /// The session cannot go on; the client is told why.
    Fatal(Failure),
    /// The client is gone.
    Gone,
    /// The session goes on, on that worker.
    Moves(usize),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        if failure.fatal { Self::Reply(Failure { fatal: false, ..failure }) } else { Self::Reply(failure) }
    }
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// One client's conversation with a sharded database.
#[derive(Debug)]
pub struct ShardedSession {
    pub(super) client: Dialogue,
    pub(super) to_client: Vec<u8>,
    pub(super) database: Arc<Database>,
    pub(super) shared: Arc<Shared>,
    pub(super) login: (String, Secret),
    pub(super) home: usize,
    crew: Arc<Crew>,
    /// The last order to move that was heeded.
    heeded: u32,
    pub(super) startup: Arc<Settings>,
    /// What the client has set, and what it had set when its transaction began.
    pub(super) want: Arc<Settings>,
    pub(super) want_before: Option<Arc<Settings>>,
    pub(super) told: Arc<Reported>,
    pub(super) max_message: usize,
    pub(super) guard: Registered,
    pub(super) transaction: Transaction,
    /// The block was opened by the proxy and ends with the statement, the query string or Sync.
    pub(super) implicit: bool,
    /// The block has changed definitions.
    pub(super) changed_definitions: bool,
    pub(super) links: Vec<Option<Link>>,
    /// Commits that were answered before they were finished, by shard.
    pub(super) finishing: Vec<(usize, JoinHandle<()>)>,
    pub(super) names: Names,
    pub(super) scanner: Scanner,
    /// The template of the statement that runs, where it is the client's own text.
    pub(super) counted_as: Option<TemplateKey>,
    /// When the query began that runs, where it went, and whether it has failed.
    pub(super) query: (Option<u64>, Tier, bool),
    /// Its loops and pauses.
    pub(super) habits: Habits,
    /// The rules that its statements are held against before they run.
    pub(super) guarded_by: Option<Arc<Guard>>,
    /// Messages of the extended protocol that were not run yet.
    pub(super) batch: Vec<(u8, Vec<u8>)>,
    pub(super) batch_bytes: usize,
    /// What a Parse of the batch has found out of its Bind.
    pub(super) foreseen: Option<Foreseen>,
    /// After an error in the extended protocol, until Sync.
    pub(super) skipping: bool,
    /// Counts what the client does, for [`Phase`]s.
    answered: u32,
    _seat: Seat,
}

impl ShardedSession {
    /// A session of a client that was told it is ready.
    pub fn new(visitor: Visitor) -> Self {
        let policy = match visitor.database.config.commit {
            crate::config::CommitMode::Refuse => Policy::Refuse,
            crate::config::CommitMode::BestEffort => Policy::BestEffort,
            crate::config::CommitMode::Atomic => Policy::Atomic,
        };
        let links = (0..visitor.shared.shards()).map(|_| None).collect();
        let guarded_by = visitor.database.guards.of(&visitor.login.0);
        Self {
            client: visitor.dialogue,
            to_client: Vec::new(),
            database: visitor.database,
            shared: visitor.shared,
            login: visitor.login,
            home: visitor.home,
            crew: visitor.crew,
            heeded: 0,
            want: visitor.settings.clone(),
            startup: visitor.settings,
            want_before: None,
            told: visitor.told,
            max_message: visitor.max_message,
            guard: visitor.guard,
            transaction: Transaction::new(policy),
            implicit: false,
            changed_definitions: false,
            links,
            finishing: Vec::new(),
            names: Names::default(),
            scanner: Scanner::new(LexOptions::default()),
            counted_as: None,
            query: (None, Tier::Control, false),
            habits: Habits::default(),
            guarded_by,
            batch: Vec::new(),
            batch_bytes: 0,
            foreseen: None,
            skipping: false,
            answered: 0,
            _seat: visitor.seat,
        }
    }

    /// Serves the client until it leaves or moves. Whatever is open when it leaves is rolled back.
    pub async fn run(mut self: Box<Self>) {
        let client = self.guard.client.clone();
        let end = {
            let mut talk = std::pin::pin!(self.talk());
            let mut waked = false;
            poll_fn(|cx| {
                if !std::mem::replace(&mut waked, true) {
                    client.wake_by(cx.waker());
                }
                if client.activity.is_killed() {
                    let failure = Failure::fatal("57P01", "terminated by the administrator");
                    return Poll::Ready(Err(Trouble::Fatal(failure)));
                }
                match client.pulse.order() {
                    None => {}
                    Some(Over::Query | Over::Deadlock) if client.activity.is_cancelled() => {}
                    Some(Over::Query | Over::Deadlock) => {
                        client.activity.cancelled(true);
                        tokio::spawn(deliver(client.announced()));
                    }
                    Some(over) => return Poll::Ready(Err(Trouble::Fatal(over.failure()))),
                }
                talk.as_mut().poll(cx)
            })
            .await
        };
        if let Err(Trouble::Moves(to)) = end {
            let crew = self.crew.clone();
            return crew.hand_over(Guest::Sharded(self), to);
        }
        self.guard.client.serve(None);
        for link in self.links.iter_mut().filter_map(Option::take) {
            // Outside a transaction a link was given back already; what is left has something open.
            link.discard();
        }
        if let Err(Trouble::Fatal(failure)) = end {
            failure.write(&mut self.to_client);
            // Whoever is gone cannot be told.
            let _ = self.send().await;
        }
    }

    /// Takes the client's socket to the event loop of the calling thread, worker `home`'s.
    ///
    /// # Errors
    /// The system does not let it be watched there.
    pub fn rehome(mut self: Box<Self>, home: usize) -> io::Result<Box<Self>> {
        self.client.stream = self.client.stream.rehome()?;
        self.home = home;
        Ok(self)
    }

    async fn talk(&mut self) -> Result<(), Trouble> {
        loop {
            if self.links.iter().all(Option::is_none)
                && let Some(to) = self.crew.calls(self.home, &mut self.heeded)
            {
                return Err(Trouble::Moves(to));
            }
            let (tag, body) = self.message().await?;
            self.follow()?;
            self.begin_query(tag);
            match tag {
                // PostgreSQL too reads on to Sync, whatever comes.
                b'Q' | b'F' if self.skipping => {}
                b'Q' => {
                    self.run_batch(false).await?;
                    self.simple(&body).await?;
                }
                b'P' | b'B' | b'D' | b'E' | b'C' => self.collect(tag, body).await?,
                b'H' => {
                    self.run_batch(false).await?;
                    self.send().await?;
                }
                b'S' => self.sync().await?,
                b'X' => return Ok(()),
                // What is left of a COPY that failed; PostgreSQL ignores it too.
                b'd' | b'c' | b'f' => {}
                b'F' => {
                    self.report(Trouble::Reply(
                        Failure::error("0A000", "function calls are not supported in a sharded database")
                            .hint("Call the function in a SELECT."),
                    ))?;
                    self.ready();
                }
                other => {
                    let what = format!("unexpected message type 0x{other:02X}");
                    return Err(Trouble::Fatal(Failure::fatal("08P01", what)));
                }
            }
        }
    }

    /// Goes on with the database as it is configured now, between two transactions.
    fn follow(&mut self) -> Result<(), Trouble> {
        let resting = self.transaction.status() == Status::Idle && self.batch.is_empty();
        if !resting || self.links.iter().any(Option::is_some) {
            return Ok(());
        }
        while let Some(next) = self.database.successor().cloned() {
            if !next.sharded.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, &self.shared)) {
                // What was prepared may have to go elsewhere.
                let failure = Failure::fatal("57P01", "the shards of this database were configured anew");
                return Err(Trouble::Fatal(failure.hint("connect again")));
            }
            self.database = next;
            self.follow_guard();
        }
        Ok(())
    }

    /// The client's next message. Everything that waits for the client is sent before it is waited for.
    pub(super) async fn message(&mut self) -> Result<(u8, Vec<u8>), Trouble> {
        loop {
            match frame::whole(&self.client.pending, self.max_message) {
                Ok(Some((header, body))) => {
                    let taken = (header.tag, body.to_vec());
                    self.client.pending.drain(..header.total());
                    return Ok(taken);
                }
                Ok(None) => {}
                Err(error) => return Err(Trouble::Fatal(Failure::fatal("08P01", error.to_string()))),
            }
            self.send().await?;
            if self.client.pending.is_empty() {
                // Thousands of idle clients: keep nothing that is not needed.
                self.client.pending = Vec::new();
                self.to_client = Vec::new();
            }
            let resting = self.transaction.status() == Status::Idle && self.links.iter().all(Option::is_none);
            self.beat(if resting { Phase::Resting } else { Phase::Holding });
            self.fill().await?;
            self.goes_on();
            self.beat(Phase::Running);
        }
    }

    /// Notes what the client is doing.
    fn beat(&mut self, phase: Phase) {
        self.answered = self.answered.wrapping_add(1);
        self.guard.client.pulse.beat(phase, self.answered);
        self.guard.client.activity.cancelled(false);
    }

    async fn fill(&mut self) -> Result<(), Trouble> {
        let idle = self.transaction.status() == Status::Idle && self.client.pending.is_empty() && self.batch.is_empty();
        let count = poll_fn(|cx| {
            self.guard.client.wake_by(cx.waker());
            if idle && self.guard.clients().is_stopping() {
                return Poll::Ready(Err(Trouble::Fatal(Failure::fatal(
                    "57P01",
                    "terminating connection: the proxy is shutting down",
                ))));
            }
            self.client.stream.poll_read_onto(cx, &mut self.client.pending).map_err(Trouble::from)
        })
        .await?;
        if count == 0 {
            return Err(Trouble::Gone);
        }
        self.counters().into_iter().for_each(|counters| counters.from_clients.add(count as u64));
        Ok(())
    }

    /// Sends what waits for the client.
    pub(super) async fn send(&mut self) -> Result<(), Trouble> {
        if !self.to_client.is_empty() {
            let out = std::mem::take(&mut self.to_client);
            self.client.send(&out).await?;
            self.counters().into_iter().for_each(|counters| counters.to_clients.add(out.len() as u64));
            self.to_client = out;
            self.to_client.clear();
        }
        Ok(())
    }

    /// Sends what waits for the client when it is much.
    pub(super) async fn send_if_full(&mut self) -> Result<(), Trouble> {
        if self.to_client.len() >= SEND_AT { self.send().await } else { Ok(()) }
    }

    /// Tells the client that it may send the next query.
    pub(super) fn ready(&mut self) {
        message::ready(&mut self.to_client, self.transaction.status().byte());
        self.end_query();
    }

    /// Tells the client of an error of one statement; the transaction it stands in has failed.
    ///
    /// # Errors
    /// The session cannot go on after it.
    pub(super) fn report(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        self.count_error(&trouble);
        match trouble {
            Trouble::Reply(failure) => failure.write(&mut self.to_client),
            Trouble::Server(frame) if self.was_cancelled(&frame) => {
                self.guard.client.pulse.order().unwrap_or(Over::Query).failure().write(&mut self.to_client);
            }
            Trouble::Server(frame) => {
                self.suspect_definitions(&frame);
                self.to_client.extend_from_slice(&frame);
            }
            Trouble::Lost(shard) => {
                let name = self.shared.shard_name(shard).to_owned();
                let failure = Failure::error("08006", format!("the connection to shard {name} was lost"));
                if self.transaction.status() != Status::Idle && !self.implicit {
                    let detail = "The transaction is rolled back on every shard.";
                    return Err(Trouble::Fatal(Failure { fatal: true, ..failure.detail(detail) }));
                }
                failure.detail("Whether the statement took effect there is not known.").write(&mut self.to_client);
            }
            Trouble::Told => {}
            other => return Err(other),
        }
        self.transaction.fail();
        Ok(())
    }

    /// Whether this is a server's word that the proxy has cancelled the statement.
    fn was_cancelled(&self, frame: &[u8]) -> bool {
        let fields = crate::wire::body::error_fields(frame.get(frame::HEADER_LEN..).unwrap_or_default());
        fields.code == b"57014" && self.guard.client.activity.is_cancelled()
    }

    /// An error that says a table or column is not as planned makes the next plan read the catalog again.
    fn suspect_definitions(&self, frame: &[u8]) {
        let fields = crate::wire::body::error_fields(frame.get(frame::HEADER_LEN..).unwrap_or_default());
        // Class 42 without privileges and syntax: undefined or ambiguous tables, columns, functions, types.
        if fields.code.starts_with(b"42") && fields.code != b"42501" && fields.code != b"42601" {
            self.shared.expire();
        }
    }
}
