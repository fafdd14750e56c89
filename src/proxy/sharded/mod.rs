//! A client of a sharded database: every statement is planned, and goes to the shards its plan names.
//!
//! ```text
//! simple     Query                    one statement, or several that all go the same way
//! extended   Parse, Bind, ... Sync    Parse waits for the Bind that says where it goes
//! planner    plans by template, and the catalog they rest on
//! link       one shard's connection, held for a statement or a transaction
//! ```
//!
//! Steps are taken one after the other: messages for the same shards go out together, and their answers are read before
//! anything goes to other shards. So answers come in order, an error stops what follows it, and what a statement on
//! several shards answers is said only when all of them have answered. Transactions over shards are
//! [`exec::transaction`](crate::exec::transaction)'s.

mod extended;
mod link;
pub mod planner;
mod simple;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use crate::config::CommitMode;
use crate::exec::transaction::{Policy, Status, Transaction};
use crate::net::dialogue::Dialogue;
use crate::pool::reset::Hygiene;
use crate::pool::settings::{Reported, Settings, Value, set};
use crate::pool::{Interned, Pool, Taken};
use crate::proxy::care::Effect;
use crate::proxy::clients::Seat;
use crate::proxy::login::Registered;
use crate::proxy::session::Access;
use crate::proxy::sharded::extended::{Portal, Prepared};
use crate::proxy::sharded::link::Link;
use crate::proxy::sharded::planner::Planner;
use crate::route::{Refusal, SessionFacts};
use crate::sql::lexer::LexOptions;
use crate::sql::template::Scanner;
use crate::wire::message::{self, Failure};

/// Bytes held for the client before they are sent.
const FLUSH_ABOVE: usize = 32 * 1024;
/// Most bytes of one shard's answer that are held until the other shards have answered.
const MAX_HELD: usize = 64 * 1024 * 1024;

/// One client of a sharded database.
pub struct ShardedSession {
    client: Dialogue,
    /// Bytes for the client.
    out: Vec<u8>,
    access: Access,
    planner: Arc<Planner>,
    pools: Vec<Arc<Pool>>,
    links: Vec<Option<Link>>,
    transaction: Transaction,
    policy: Policy,
    /// The open block is ours: around one statement on several shards, or a pipeline segment with one.
    implicit: bool,
    /// Shards that were written on since the last Sync, outside any block.
    segment_writers: Vec<usize>,
    scanner: Scanner,
    startup: Arc<Settings>,
    want: Arc<Settings>,
    told: Arc<Reported>,
    interned: Arc<Interned>,
    prepared: HashMap<Vec<u8>, Arc<Prepared>>,
    portals: HashMap<Vec<u8>, Portal>,
    /// A Parse that was not answered yet.
    unanswered: Option<Arc<Prepared>>,
    /// Shards that the messages since the last flush go to.
    target: Vec<usize>,
    /// After an error in the extended protocol, until Sync.
    skipping: bool,
    /// Definitions changed; plans rest on the old ones until the catalog is read again.
    redefined: bool,
    max_message: usize,
    guard: Registered,
    _seat: Seat,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    Goodbye,
    ClientGone,
    Failed(Failure),
}

/// An error of one statement: the session goes on.
#[derive(Debug)]
enum Trouble {
    /// A shard's own ErrorResponse, as a whole frame.
    Server(Vec<u8>),
    /// Ours.
    Own(Failure),
    /// The session cannot go on.
    Over(End),
}

impl From<End> for Trouble {
    fn from(end: End) -> Self {
        Self::Over(end)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Own(failure)
    }
}

/// What a sharded session is made of.
pub struct Parts {
    /// The client's socket.
    pub dialogue: Dialogue,
    /// What it may use; its pool is the first shard's.
    pub access: Access,
    /// Plans.
    pub planner: Arc<Planner>,
    /// One pool for each shard.
    pub pools: Vec<Arc<Pool>>,
    /// What it asked for at startup.
    pub settings: Arc<Settings>,
    /// What it was told of the server.
    pub told: Arc<Reported>,
    /// Shared values.
    pub interned: Arc<Interned>,
    /// The longest message taken from it.
    pub max_message: usize,
}

impl ShardedSession {
    /// A session of a client that was told it is ready.
    pub fn new(parts: Parts, guard: Registered, seat: Seat) -> Self {
        let policy = match parts.access.database.config.commit {
            CommitMode::Refuse => Policy::Refuse,
            CommitMode::BestEffort => Policy::BestEffort,
        };
        let shards = parts.pools.len();
        Self {
            client: parts.dialogue,
            out: Vec::new(),
            access: parts.access,
            planner: parts.planner,
            links: (0..shards).map(|_| None).collect(),
            pools: parts.pools,
            transaction: Transaction::new(policy),
            policy,
            implicit: false,
            segment_writers: Vec::new(),
            scanner: Scanner::new(LexOptions::default()),
            startup: parts.settings.clone(),
            want: parts.settings,
            told: parts.told,
            interned: parts.interned,
            prepared: HashMap::new(),
            portals: HashMap::new(),
            unanswered: None,
            target: Vec::new(),
            skipping: false,
            redefined: false,
            max_message: parts.max_message,
            guard,
            _seat: seat,
        }
    }

    /// Serves the client until it leaves.
    pub async fn run(mut self: Box<Self>) {
        let end = self.serve().await;
        tracing::debug!(client = self.guard.client.id, user = self.access.user, ?end, "left");
        if let End::Failed(failure) = &end {
            failure.write(&mut self.out);
            // Best effort: the client may be gone.
            let _ = self.flush_client().await;
        }
        self.guard.client.serve(None);
        for link in self.links.iter_mut().filter_map(Option::take) {
            // Nobody can commit it any more: the server rolls back what is open when its connection ends.
            give_back(link);
        }
    }

    async fn serve(&mut self) -> End {
        loop {
            let (tag, body) = match self.next_message().await {
                Ok(message) => message,
                Err(end) => return end,
            };
            if let Err(end) = self.message(tag, body).await {
                return end;
            }
        }
    }

    async fn message(&mut self, tag: u8, body: Vec<u8>) -> Result<(), End> {
        if self.skipping && !matches!(tag, b'S' | b'X') {
            return Ok(());
        }
        match tag {
            b'X' => return Err(End::Goodbye),
            // COPY data without COPY: ignored, as the protocol says.
            b'd' | b'c' | b'f' => return Ok(()),
            b'Q' => self.query(&body).await?,
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => self.extended(tag, &body).await?,
            b'F' => {
                let failure = Failure::error("0A000", "function call messages are not available in a sharded database");
                failure.hint("call the function with SELECT").write(&mut self.out);
                self.transaction.fail();
                let status = self.status();
                message::ready(&mut self.out, status);
            }
            tag => return Err(End::Failed(Failure::fatal("08P01", format!("invalid frontend message type {tag}")))),
        }
        // More of the client's messages may be here already; their answers go out together.
        if matches!(tag, b'Q' | b'S' | b'H' | b'F') || self.out.len() > FLUSH_ABOVE {
            self.flush_client().await?;
        }
        Ok(())
    }

    /// The client's next message; while it has nothing open, the end of the proxy ends it.
    async fn next_message(&mut self) -> Result<(u8, Vec<u8>), End> {
        loop {
            match crate::wire::frame::whole(&self.client.pending, self.max_message) {
                Ok(Some((header, body))) => {
                    let taken = (header.tag, body.to_vec());
                    self.client.pending.drain(..header.total());
                    return Ok(taken);
                }
                Ok(None) => {}
                Err(error) => return Err(End::Failed(Failure::fatal("08P01", error.to_string()))),
            }
            let idle = self.client.pending.is_empty() && self.links.iter().all(Option::is_none);
            let (client, guard) = (&mut self.client, &self.guard);
            let filled = poll_fn(|cx| {
                guard.client.wake_by(cx.waker());
                if idle && guard.clients().is_stopping() {
                    return Poll::Ready(None);
                }
                client.poll_fill(cx).map(Some)
            });
            match filled.await {
                None => return Err(End::Failed(Failure::fatal("57P01", "the proxy is shutting down"))),
                Some(Err(_)) => return Err(End::ClientGone),
                Some(Ok(_)) => {}
            }
        }
    }

    async fn flush_client(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let sent = self.client.send(&self.out).await;
        self.out = Vec::new();
        sent.map_err(|_| End::ClientGone)
    }

    /// What plans depend on in this session.
    fn session_facts(&mut self) -> SessionFacts {
        let reported = |name: &str| {
            let at = self.told.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
            self.told.get(at).map(|(_, value)| value.as_str())
        };
        let conforming = reported("standard_conforming_strings") != Some("off");
        let utf8 = reported("client_encoding").is_some_and(|value| value.eq_ignore_ascii_case("UTF8"));
        self.scanner.set_options(LexOptions { standard_conforming_strings: conforming });
        SessionFacts {
            default_search_path: !self.want.iter().any(|(name, _)| name == "search_path"),
            standard_conforming_strings: conforming,
            utf8,
        }
    }

    /// Where the client stands: a block of ours is none of its.
    fn status(&self) -> u8 {
        if self.implicit { b'I' } else { self.transaction.status().byte() }
    }

    /// Whether the client itself has a block open.
    fn in_block(&self) -> bool {
        !self.implicit && self.transaction.status() != Status::Idle
    }

    /// Makes sure that there are connections to these shards with the session's settings, inside the transaction if
    /// one is open, and that a write on them is allowed.
    async fn reach(&mut self, shards: &[usize], writes: bool) -> Result<(), Trouble> {
        for &shard in shards {
            self.check_out(shard).await?;
        }
        if self.transaction.status() != Status::Idle {
            for (shard, begin) in self.transaction.join(shards, writes)? {
                if let Err(trouble) = self.run_quietly(shard, &begin).await {
                    self.transaction.leave(shard);
                    return Err(trouble);
                }
            }
        } else if writes {
            let new = shards.iter().filter(|shard| !self.segment_writers.contains(shard)).count();
            if self.policy == Policy::Refuse && self.segment_writers.len() + new > 1 {
                let failure = Failure::error("0A000", "this would write on more than one shard before Sync");
                return Err(failure.hint("send Sync between the statements, or set `commit: best-effort`").into());
            }
            self.segment_writers.extend(shards);
        }
        Ok(())
    }

    async fn check_out(&mut self, shard: usize) -> Result<(), Trouble> {
        if !self.links.get(shard).is_some_and(Option::is_none) {
            return Ok(());
        }
        let pool = self.pools.get(shard).cloned().ok_or_else(|| Failure::error("XX000", "no such shard"))?;
        let taken = match pool.take(self.access.home) {
            Taken::Now(conn) => Ok(conn),
            Taken::Later(mut ticket) => poll_fn(|cx| ticket.poll(cx)).await,
        };
        let mut conn = taken.map_err(|failure| Failure { fatal: false, ..failure })?;
        if let Err(failure) = pool.apply(&mut conn, &self.want).await {
            pool.discard(conn);
            return Err(Failure { fatal: false, ..failure }.into());
        }
        self.guard.client.serve(Some(conn.cancel.clone()));
        if let Some(slot) = self.links.get_mut(shard) {
            *slot = Some(Link::new(conn, pool));
        }
        Ok(())
    }

    /// Runs SQL on a shard that the client sees nothing of but its error.
    async fn run_quietly(&mut self, shard: usize, sql: &str) -> Result<(), Trouble> {
        let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else { return Ok(()) };
        let (status, error) = match link.pool.run(&mut link.conn, sql.as_bytes()).await {
            Ok(done) => done,
            Err(failure) => return Err(Trouble::Over(End::Failed(failure))),
        };
        link.status = status;
        match error {
            None => Ok(()),
            Some(body) => {
                let mut frame = Vec::new();
                message::frame(&mut frame, b'E', |out| out.extend_from_slice(&body));
                Err(Trouble::Server(frame))
            }
        }
    }

    /// Gives back what is not needed outside a transaction.
    fn release_links(&mut self) {
        if self.transaction.status() != Status::Idle {
            return;
        }
        self.guard.client.serve(None);
        for link in self.links.iter_mut().filter_map(Option::take) {
            give_back(link);
        }
    }

    /// Says an error to the client, and that the transaction has failed with it.
    fn say(&mut self, trouble: Trouble) -> Result<(), End> {
        match trouble {
            Trouble::Server(frame) => self.out.extend_from_slice(&frame),
            Trouble::Own(failure) => failure.write(&mut self.out),
            Trouble::Over(end) => return Err(end),
        }
        self.transaction.fail();
        Ok(())
    }

    /// Changes the session's settings, tried out on the first shard so that what is wrong with them is said now.
    async fn change_settings(&mut self, effect: &Effect) -> Result<(), Trouble> {
        let before = self.want.clone();
        match effect {
            Effect::Set(name, value) => self.set(name, value.clone()),
            Effect::ResetAll | Effect::DiscardAll => self.want = self.startup.clone(),
            Effect::Deallocate(_) | Effect::DeallocateAll => {}
        }
        if let Effect::DeallocateAll | Effect::DiscardAll = effect {
            self.prepared.clear();
        }
        if let Effect::Deallocate(name) = effect
            && self.prepared.remove(name).is_none()
        {
            let shown = String::from_utf8_lossy(name);
            return Err(Failure::error("26000", format!("prepared statement \"{shown}\" does not exist")).into());
        }
        if Arc::ptr_eq(&before, &self.want) {
            return Ok(());
        }
        let joined = self.check_out(0).await;
        if joined.is_err() {
            self.want = before;
            return joined;
        }
        if let Some(link) = self.links.first().and_then(Option::as_ref) {
            let reported = link.conn.state.reported.clone();
            for pair in reported.iter().filter(|pair| !self.told.contains(pair)) {
                message::parameter_status(&mut self.out, &pair.0, &pair.1);
            }
            self.told = reported;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Option<Value>) {
        let mut settings = (*self.want).clone();
        let initial = self.startup.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        set(&mut settings, name, value.or(initial));
        self.want = self.interned.settings.intern(settings);
    }

    /// Reads the catalog again when definitions have changed and nothing is open.
    async fn refresh(&mut self) {
        if !self.redefined || self.transaction.status() != Status::Idle {
            return;
        }
        self.redefined = false;
        let database = &self.access.database;
        if let Err(error) = self.planner.reload(&database.config, &self.access.pool.target).await {
            tracing::warn!(database = database.name, %error, "the catalog could not be read after definitions changed");
        }
    }
}

/// Gives a connection back when it is clean, and closes it otherwise.
fn give_back(link: Link) {
    if link.is_clean() {
        link.pool.clone().release_after(link.conn, Hygiene::Clean);
    } else {
        link.pool.clone().discard(link.conn);
    }
}

/// What the client is told of a refusal.
fn refused(refusal: &Refusal) -> Failure {
    Failure::error("0A000", refusal.reason.clone())
        .detail(format!("The statement was refused by the rule {}.", refusal.rule))
        .hint(refusal.hint.clone())
}

fn lost(_: io::Error) -> Trouble {
    Trouble::Over(End::Failed(
        Failure::fatal("08006", "the connection to a shard was lost")
            .hint("connect again; whether the last statement took effect is not known"),
    ))
}
