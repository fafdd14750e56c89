//! What all clients of a sharded database share: its topology with the plans made on it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hashbrown::HashMap;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Mutex as AsyncMutex;

use crate::config::{CommitMode, Database as Settings, ServerUrl, Shard};
use crate::db;
use crate::error::{Error, Result};
use crate::exec::commit_atomic::{MAX_SHARD_NAME, is_usable_name};
use crate::proxy::analyzer::Analyzer;
use crate::proxy::functions::{CALLERS, Definitions, FUNCTIONS, Functions, REACHES};
use crate::proxy::sharded::deadlock::Deadlocks;
use crate::proxy::sharded::numbers::{self, NUMBERS, Numbers};
use crate::proxy::sharded::planned::Planned;
use crate::proxy::sharded::post::{Post, lock};
use crate::proxy::sharded::recovery::Recovery;
use crate::route::{self, SessionFacts, TemplatePlan, Topology};
use crate::sql::template::{Scan, TemplateKey};
use crate::wire::message::Failure;

/// Bytes of SQL whose plans are kept before the cache starts anew. A plan is about as large as its statement.
const MAX_PLANNED_BYTES: usize = 64 << 20;
/// Time between two looks for definitions that were changed past this process.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// What a plan takes besides, in bytes.
const PLAN_OVERHEAD: usize = 1024;

/// Plans by template, and by what they depend on of the session.
#[derive(Debug, Default)]
struct Plans {
    known: HashMap<(TemplateKey, SessionFacts), Arc<Planned>>,
    bytes: usize,
}

/// One reading of the catalog, with the plans that hold while it does.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Its number; a later reading has a higher one.
    pub generation: u64,
    /// See [`db::catalog::fingerprint`].
    fingerprint: String,
    topology: Topology,
    /// What functions and triggers leave in their sessions, on the first shard and therefore on all.
    functions: Arc<Functions>,
    /// For each shard but the first, if it could be asked.
    numbers: Vec<Option<Arc<Numbers>>>,
    plans: Mutex<Plans>,
}

impl Snapshot {
    /// What a shard's numbers of types and tables are on the first; none for the first.
    ///
    /// # Errors
    /// The shard could not be asked.
    pub fn numbers(&self, shard: usize) -> Result<Option<&Arc<Numbers>>, Failure> {
        let unknown = || Failure::error("08006", "a shard could not be asked for the numbers of its types");
        match shard.checked_sub(1) {
            None => Ok(None),
            Some(at) => self.numbers.get(at).and_then(Option::as_ref).map(Some).ok_or_else(unknown),
        }
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan of a statement; made once per template.
    pub fn plan(&self, sql: &str, scan: &Scan<'_>, session: SessionFacts) -> Result<Arc<Planned>, Failure> {
        let key = (scan.key, session);
        let cacheable = scan.complete && scan.statements == 1;
        if cacheable && let Some(planned) = self.plans().known.get(&key) {
            return Ok(planned.clone());
        }
        let plan = route::plan(sql, scan.bindings, &self.topology, session);
        let mut analyzer = Analyzer::default();
        analyzer.follow(session.standard_conforming_strings, &self.functions);
        let mut planned = Planned::new(sql, plan, &mut analyzer)?;
        planned.reads_views =
            session.standard_conforming_strings && route::expand_refused(&planned.plan, sql, &self.topology).is_some();
        let planned = Arc::new(planned);
        if cacheable {
            let mut plans = self.plans();
            if plans.bytes > MAX_PLANNED_BYTES {
                *plans = Plans::default();
            }
            plans.bytes += sql.len() + PLAN_OVERHEAD;
            plans.known.insert(key, planned.clone());
        }
        Ok(planned)
    }

    /// Whether that search path, or the one there is without it, finds what the catalog's finds, when `"$user"` may stand for
    /// any of these users.
    pub fn searches(&self, path: Option<&str>, users: &[&str]) -> bool {
        let catalog = self.topology.catalog();
        let bare = |name: &str| name.trim().trim_matches(['"', '\'']).to_owned();
        let has_schema = |name: &str| {
            catalog.search_path.iter().any(|schema| schema == name)
                || catalog.tables().any(|(_, table)| table.name.schema == name)
        };
        let is_users = path.is_none_or(|path| path.contains("$user"));
        if is_users && users.iter().any(|user| has_schema(&bare(user))) {
            return false;
        }
        let Some(path) = path else { return true };
        // A quoted string is one name, with whatever commas are in it.
        if path.contains('\'') && path.contains(',') {
            return false;
        }
        let is_plain = |name: &String| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let named: Vec<String> = path.split(',').map(bare).filter(|name| name != "$user").collect();
        named.iter().all(is_plain) && catalog.search_path == named
    }

    /// The statement with the queries of its views in their places.
    pub fn expand(&self, sql: &str) -> Option<String> {
        route::expand(sql, &self.topology)
    }

    /// The plan of a statement with places in this very text.
    pub fn plan_afresh(&self, sql: &str, scan: &Scan<'_>, session: SessionFacts) -> TemplatePlan {
        route::plan(sql, scan.bindings, &self.topology, session)
    }
}

/// The shared side of one sharded database.
#[derive(Debug)]
pub struct Shared {
    settings: Settings,
    /// Connection string of the first shard, whose catalog is read.
    catalog_url: String,
    current: ArcSwapOption<Snapshot>,
    stale: AtomicBool,
    generations: AtomicU64,
    reading: AsyncMutex<()>,
    posts: Arc<Vec<Post>>,
    looked: Mutex<Option<Instant>>,
    /// Where commits are atomic.
    recovery: Option<Arc<Recovery>>,
    deadlocks: Arc<Deadlocks>,
}

impl Shared {
    /// Reads nothing yet; the catalog is read when the first statement comes.
    ///
    /// # Errors
    /// A shard's URL names no user: the catalog could then not be read as the user who is going to use it.
    pub fn new(name: &str, settings: Settings) -> Result<Self> {
        if let Some(shard) = settings.shards.iter().find(|shard| shard.primary.user.is_none()) {
            return Err(Error::config("the URL of a shard names no user")
                .at(format!("databases.{name}.shards, {}", shard.name))
                .hint("write postgres://USER@HOST/DATABASE: plans depend on that user's search_path"));
        }
        let catalog_url = match settings.shards.first() {
            Some(first) => connection_string(&first.primary, name)?,
            None => return Err(Error::config("a sharded database needs shards").at(format!("databases.{name}"))),
        };
        let posts = Arc::new(posts(name, &settings)?);
        let is_atomic = settings.commit == CommitMode::Atomic;
        let instance = if is_atomic { Some(random_hex::<8>()?) } else { None };
        Ok(Self {
            recovery: is_atomic.then(|| Arc::new(Recovery::new(name, posts.clone()))),
            deadlocks: Arc::new(Deadlocks::new(name, posts.clone(), instance)),
            settings,
            catalog_url,
            current: ArcSwapOption::empty(),
            stale: AtomicBool::new(false),
            generations: AtomicU64::new(1),
            reading: AsyncMutex::new(()),
            posts,
            looked: Mutex::default(),
        })
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.settings.shards.len()
    }

    /// Who finishes what commits over shards leave behind; nobody where they are not atomic.
    pub fn recovery(&self) -> Option<&Arc<Recovery>> {
        self.recovery.as_ref()
    }

    /// Who ends deadlocks over shards.
    pub fn deadlocks(&self) -> &Arc<Deadlocks> {
        &self.deadlocks
    }

    /// Who reads the catalog.
    pub fn user(&self) -> &str {
        self.settings.shards.first().and_then(|shard| shard.primary.user.as_deref()).unwrap_or_default()
    }

    /// A shard's name, for messages.
    pub fn shard_name(&self, shard: usize) -> &str {
        self.settings.shards.get(shard).map_or("?", |shard| shard.name.as_str())
    }

    /// How many bytes a query may collect.
    pub(super) fn max_collected(&self) -> u64 {
        self.settings.sharding.as_ref().map_or(0, |sharding| sharding.max_collected.0)
    }

    /// Plans made from now on need the catalog to be read again: definitions have changed, or seem to have.
    pub fn expire(&self) {
        self.stale.store(true, Ordering::SeqCst);
    }

    /// Looks, when it is time to, whether something was defined past this process. Call it a few times a second on one worker.
    pub fn watch(self: &Arc<Self>) {
        let now = Instant::now();
        let mut looked = lock(&self.looked);
        let Some(current) = self.fresh().filter(|_| looked.is_none_or(|at| now - at >= WATCH_EVERY)) else { return };
        *looked = Some(now);
        let shared = self.clone();
        tokio::spawn(async move {
            let Some(first) = shared.posts.first() else { return };
            match first.try_ask(db::catalog::fingerprint).await {
                Ok(found) if found == current.fingerprint => {}
                Ok(_) => {
                    tracing::debug!(shard = first.name, "definitions have changed");
                    shared.expire();
                }
                Err(error) => tracing::debug!(shard = first.name, %error, "definitions could not be looked at"),
            }
        });
    }

    /// The last reading, if there was one.
    pub(super) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// The last reading, if nothing has changed since as far as this process knows.
    pub(super) fn fresh(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full().filter(|_| !self.stale.load(Ordering::SeqCst))
    }

    /// The topology as of the last change that this process knows of.
    pub(super) async fn snapshot(&self) -> Result<Arc<Snapshot>, Failure> {
        if let Some(current) = self.fresh() {
            return Ok(current);
        }
        let _one_reader = self.reading.lock().await;
        if let Some(current) = self.fresh() {
            return Ok(current);
        }
        // Cleared before reading: a change that comes while the catalog is read makes it stale again.
        self.stale.store(false, Ordering::SeqCst);
        match self.read().await {
            Ok(snapshot) => {
                let snapshot = Arc::new(snapshot);
                self.current.store(Some(snapshot.clone()));
                Ok(snapshot)
            }
            Err(error) => {
                self.expire();
                tracing::warn!(error = %error.what, "the catalog of the first shard could not be read");
                Err(Failure::error("08006", format!("the catalog of shard {} could not be read", self.shard_name(0)))
                    .detail(error.to_string()))
            }
        }
    }

    async fn read(&self) -> Result<Snapshot> {
        let client = db::connect(&self.catalog_url).await?;
        let fingerprint = db::catalog::fingerprint(&client).await?;
        let mut catalog = db::catalog::load(&client).await?;
        let (first, enums) = numbers::named(db::catalog::text_rows(&client, NUMBERS).await?);
        catalog.enums = enums;
        let topology =
            Topology::new(&self.settings, Arc::new(catalog)).map_err(|error| Error::config(error.to_string()))?;
        for problem in topology.problems() {
            tracing::warn!(problem, "a sharded table cannot be used");
        }
        let definitions = Definitions::new(&db::catalog::text_rows(&client, FUNCTIONS).await?);
        let callers = db::catalog::text_rows(&client, CALLERS).await?;
        let functions = definitions.finish(&callers, &db::catalog::text_rows(&client, REACHES).await?);
        let functions = Arc::new(functions);
        let mut numbers = Vec::new();
        for post in self.posts.iter().skip(1) {
            let asked = post.try_ask(async |client: &_| db::catalog::text_rows(client, NUMBERS).await).await;
            if let Err(error) = &asked {
                tracing::warn!(shard = post.name, %error, "the numbers of its types could not be read");
            }
            numbers.push(asked.ok().map(|rows| Arc::new(Numbers::new(&first, &numbers::named(rows).0))));
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        Ok(Snapshot { generation, fingerprint, topology, functions, numbers, plans: Mutex::default() })
    }
}

/// The shards as the proxy itself asks them.
fn posts(name: &str, settings: &Settings) -> Result<Vec<Post>> {
    let unusable = |shard: &&Shard| settings.commit == CommitMode::Atomic && !is_usable_name(&shard.name);
    if let Some(shard) = settings.shards.iter().find(unusable) {
        return Err(Error::config(format!("`commit: atomic` cannot use the shard name `{}`", shard.name))
            .at(format!("databases.{name}.shards"))
            .hint(format!("use at most {MAX_SHARD_NAME} letters, digits, `-`, `_` and `.`: it names transactions")));
    }
    let post = |shard: &Shard| {
        let url = connection_string(&shard.primary, name)?;
        Ok(Post::new(&shard.name, &shard.primary, url))
    };
    settings.shards.iter().map(post).collect()
}

/// Random bytes, as twice as many digits.
///
/// # Errors
/// The system gives none.
pub(super) fn random_hex<const BYTES: usize>() -> Result<String> {
    let mut bytes = [0u8; BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::internal("the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A server's URL for the control path.
fn connection_string(server: &ServerUrl, database: &str) -> Result<String> {
    let named = server.database.clone().or_else(|| Some(database.to_owned()));
    ServerUrl { database: named, ..server.clone() }.with_password()
}
