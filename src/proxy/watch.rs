//! Knowing a database's functions as they are now.
//!
//! What a statement leaves is thought of before it runs, from functions as they were read last. That thought holds when
//! the connection is given back if nothing has been defined meanwhile ([`FunctionWatch::is_settled`]): a definition counts from
//! the moment it is sent ([`FunctionWatch::announce`]) until the functions have been read after it, and then they have another
//! number. Where it may not hold the session is asked. What is defined past this process is looked for once a second, on a
//! connection that was just given back.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::net::connect::ServerTarget;
use crate::pool::server::ServerConn;
use crate::pool::{Pool, Taken};
use crate::proxy::functions::{CALLERS, Definitions, FUNCTIONS, Functions, NAMES, REACHES, Rows};
use crate::wire::message::Failure;

/// How often it is looked whether functions have changed, while there is traffic.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look may take this part of the time.
const SHARE: u32 = 50;
/// How long a definition may take to be committed whose author has left.
const LINGER: Duration = Duration::from_secs(1);
/// Pause between two attempts to read them.
const PAUSE: Duration = Duration::from_millis(500);

/// How long it is tried to read functions after a definition.
const TRIES: u32 = 600;

/// Catalogs that say what functions there are and who calls them, with what tells one of their rows from what it was before.
const CATALOGS: [(&str, &str, &str); 11] = [
    ("pg_proc", "oid", ""),
    ("pg_trigger", "oid", ""),
    ("pg_rewrite", "oid", ""),
    ("pg_attrdef", "oid", ""),
    ("pg_constraint", "oid", ""),
    ("pg_policy", "oid", ""),
    ("pg_operator", "oid", ""),
    ("pg_cast", "oid", ""),
    ("pg_event_trigger", "oid", ""),
    ("pg_inherits", "inhrelid", ""),
    ("pg_class", "oid", "relname"),
];

/// The functions of one database, read now and then.
#[derive(Debug)]
pub struct FunctionWatch {
    current: ArcSwap<Functions>,
    /// The number of `current`.
    id: AtomicU64,
    /// Definitions that were sent and have not been read.
    unread: AtomicUsize,
    /// The last reading has failed, or there was none.
    stale: AtomicBool,
    /// It is time for a look.
    due: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When it was looked last, and how long that took.
    looked: Option<(Instant, Duration)>,
    /// Readings that were begun, and the number of the newest that has been heeded.
    begun: u64,
    newest: u64,
    /// What [`fingerprint`] said then.
    print: Rows,
}

impl Default for FunctionWatch {
    fn default() -> Self {
        Self {
            current: ArcSwap::from_pointee(Functions::default()),
            id: AtomicU64::new(0),
            unread: AtomicUsize::new(0),
            stale: AtomicBool::new(true),
            due: AtomicBool::new(true),
            state: Mutex::default(),
        }
    }
}

/// A definition that was sent and has not been read.
#[derive(Debug)]
pub struct Unread(Arc<FunctionWatch>);

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.unread.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock(mutex: &Mutex<State>) -> MutexGuard<'_, State> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FunctionWatch {
    /// What is known now.
    pub fn current(&self) -> arc_swap::Guard<Arc<Functions>> {
        self.current.load()
    }

    /// Notes that a definition is about to be sent; drop it when the functions were read after its end.
    pub fn announce(self: &Arc<Self>) -> Unread {
        self.unread.fetch_add(1, Ordering::SeqCst);
        Unread(self.clone())
    }

    /// Whether what was thought with functions number `id` holds for all that was answered so far.
    pub fn is_settled(&self, id: u64) -> bool {
        self.unread.load(Ordering::SeqCst) == 0
            && !self.stale.load(Ordering::SeqCst)
            && self.id.load(Ordering::SeqCst) == id
    }

    /// Whether they were never read; the caller then does.
    pub fn is_new(&self) -> bool {
        self.stale.load(Ordering::Relaxed) && lock(&self.state).begun == 0
    }

    /// Looks at the clock, a few times a second.
    pub fn tick(&self) {
        let looked = lock(&self.state).looked;
        if looked.is_none_or(|(at, took)| at.elapsed() >= LOOK_EVERY.max(took * SHARE)) {
            self.due.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it is time for a look: the caller then has to.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.due.load(Ordering::Relaxed) && self.due.swap(false, Ordering::SeqCst)
    }

    /// Reads the functions over a connection at hand where they may have changed; false when that failed.
    pub async fn look_over(&self, pool: &Pool, conn: &mut ServerConn) -> bool {
        let started = Instant::now();
        let number = {
            let mut state = lock(&self.state);
            state.begun += 1;
            state.begun
        };
        let looked = self.look(pool, conn, number).await;
        let mut state = lock(&self.state);
        state.looked = Some((Instant::now(), started.elapsed()));
        drop(state);
        if let Err(failure) = &looked {
            warn(&pool.target, &failure.message);
        }
        looked.is_ok()
    }

    async fn look(&self, pool: &Pool, conn: &mut ServerConn, number: u64) -> Result<(), Failure> {
        // Before the rest, so that what changes meanwhile is seen the next time.
        let print = pool.rows(conn, fingerprint().as_bytes()).await?;
        let is_known = !self.stale.load(Ordering::SeqCst) && lock(&self.state).print == print;
        let functions = if is_known { None } else { Some(read(pool, conn).await?) };
        let mut state = lock(&self.state);
        // A slow one that began before a definition must not take back what a later one has found.
        if number > state.newest {
            state.newest = number;
            if let Some(functions) = functions {
                state.print = print;
                if !functions.says_the_same(&self.current.load()) {
                    self.current.store(Arc::new(functions));
                    self.id.store(self.current.load().id, Ordering::SeqCst);
                }
            }
            self.stale.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Looks over connections of the pool until it has worked.
    pub async fn insist(&self, pool: Arc<Pool>, home: usize) {
        for _ in 0..TRIES {
            let taken = match pool.take(home) {
                Taken::Now(conn) => Ok(conn),
                Taken::Later(mut ticket) => std::future::poll_fn(|cx| ticket.poll(cx)).await,
            };
            match taken {
                Ok(mut conn) => match self.look_over(&pool, &mut conn).await {
                    true => return pool.release(conn),
                    false => pool.discard(conn),
                },
                Err(failure) => warn(&pool.target, &failure.message),
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.stale.store(true, Ordering::SeqCst);
    }

    /// The same where a connection was lost in the middle of a definition, which may yet take effect.
    pub async fn insist_later(&self, pool: Arc<Pool>, home: usize) {
        tokio::time::sleep(LINGER).await;
        self.insist(pool, home).await;
    }

    /// Whether nobody has looked for so long, as no connection was given back.
    pub fn is_neglected(&self, after: Duration) -> bool {
        let mut state = lock(&self.state);
        let neglected = state.looked.is_none_or(|(at, _)| at.elapsed() >= after);
        if neglected {
            state.looked = Some((Instant::now(), Duration::ZERO));
        }
        neglected
    }
}

/// A query whose answer changes when anything has changed that matters here.
fn fingerprint() -> String {
    let part = |(catalog, key, value): (&str, &str, &str)| {
        let hash = match value {
            "" => "hashint8extended(xmin::pg_catalog.text::pg_catalog.int8".to_owned(),
            column => format!("hashtextextended({column}::pg_catalog.text"),
        };
        let tables = if catalog == "pg_class" { " AND relkind NOT IN ('i', 't', 'S', 'c', 'I')" } else { "" };
        // What initdb made has lower numbers.
        format!(
            "SELECT pg_catalog.count(*), pg_catalog.sum(pg_catalog.{hash}, {key}::pg_catalog.int8)) \
             FROM pg_catalog.{catalog} WHERE {key} OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid{tables}"
        )
    };
    CATALOGS.map(part).join(" UNION ALL ")
}

async fn read(pool: &Pool, conn: &mut ServerConn) -> Result<Functions, Failure> {
    let names = pool.rows(conn, NAMES.as_bytes()).await?;
    let definitions = Definitions::new(&pool.rows(conn, FUNCTIONS.as_bytes()).await?);
    let callers = pool.rows(conn, CALLERS.as_bytes()).await?;
    let reaches = pool.rows(conn, REACHES.as_bytes()).await?;
    Ok(definitions.finish(&callers, &reaches).among(&names))
}

fn warn(target: &ServerTarget, reason: &str) {
    tracing::warn!(server = ?target, reason, "the database's functions could not be read; what was known stays");
}
