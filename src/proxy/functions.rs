//! Functions that may change the session they run in, without anybody seeing it in the statement.
//!
//! A function of PostgreSQL's own is known by its name (`analyzer`). Of those that users have defined, the ones in C
//! come with extensions and do what they say; one in SQL or a procedural language that is VOLATILE, or that speaks of
//! `set_config`, may leave settings, locks or temporary tables behind. Their names are read from the server,
//! so that a connection is reset after a call of one, and ordinary statements pay nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::net::connect::ServerTarget;
use crate::pool::server::ServerConn;
use crate::pool::{Pool, Taken};

/// How often the names are read again while there are clients; a function that is defined in between is not known.
pub const REFRESH_EVERY: Duration = Duration::from_secs(30);

const NAMES: &str = "SELECT DISTINCT p.proname FROM pg_catalog.pg_proc p \
     JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
     WHERE p.pronamespace <> 'pg_catalog'::regnamespace AND p.pronamespace <> 'information_schema'::regnamespace \
     AND l.lanname NOT IN ('c', 'internal') AND p.prokind <> 'a' \
     AND (p.provolatile = 'v' OR p.prosrc ILIKE '%set_config%')";

/// Names of such functions, as plans are cached by them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Tells this set apart from every other.
    pub id: u64,
    names: HashSet<String>,
}

impl Functions {
    /// These names, under a number of their own.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), names: names.into_iter().collect() }
    }

    /// Whether a function of this name may change its session.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// The functions of one database, read now and then.
#[derive(Debug)]
pub struct FunctionWatch {
    current: ArcSwap<Functions>,
    read: Mutex<Option<Instant>>,
}

impl Default for FunctionWatch {
    fn default() -> Self {
        Self { current: ArcSwap::from_pointee(Functions::default()), read: Mutex::new(None) }
    }
}

impl FunctionWatch {
    /// What is known now.
    pub fn current(&self) -> arc_swap::Guard<Arc<Functions>> {
        self.current.load()
    }

    /// Whether it is time to read the names again; the caller then does.
    pub fn is_due(&self, after: Duration) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let due = read.is_none_or(|read| read.elapsed() >= after);
        if due {
            *read = Some(Instant::now());
        }
        due
    }

    /// Reads the names over a connection at hand.
    pub async fn read_over(&self, pool: &Pool, conn: &mut ServerConn) -> bool {
        match pool.column(conn, NAMES.as_bytes()).await {
            Ok(names) => {
                let names: HashSet<String> = names.into_iter().collect();
                if names != self.current.load().names {
                    self.current.store(Arc::new(Functions::new(names)));
                }
                true
            }
            Err(failure) => {
                warn(&pool.target, &failure.message);
                false
            }
        }
    }

    /// Reads the names over a connection of the pool.
    pub async fn read(&self, pool: Arc<Pool>, home: usize) {
        let taken = match pool.take(home) {
            Taken::Now(conn) => Ok(conn),
            Taken::Later(mut ticket) => std::future::poll_fn(|cx| ticket.poll(cx)).await,
        };
        match taken {
            Ok(mut conn) => match self.read_over(&pool, &mut conn).await {
                true => pool.release(conn),
                false => pool.discard(conn),
            },
            Err(failure) => warn(&pool.target, &failure.message),
        }
    }
}

fn warn(target: &ServerTarget, reason: &str) {
    tracing::warn!(server = ?target, reason, "the names of functions could not be read; the old ones stay");
}
