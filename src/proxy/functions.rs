//! Functions that may change the session they run in, without anybody seeing it in the statement.
//!
//! A function of PostgreSQL's own is known by its name (`traces`). Of those that users have defined, the ones in C
//! come with extensions and do what they say; those in SQL and PL/pgSQL are read (`bodies`), and one in any other language may do
//! anything. So that a connection is looked at after a call of one that leaves something, and ordinary statements pay
//! nothing, their names are read from the server, with those of the tables and views that call them unseen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::net::connect::ServerTarget;
use crate::pool::server::ServerConn;
use crate::pool::{Pool, Taken};
use crate::proxy::bodies::{Defined, judge, spread};
use crate::proxy::care::Care;
use crate::wire::message::Failure;

/// How often the functions are read again while there are clients; one that is defined in between past this process is not known.
pub const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// Every function that users have defined in another language than C, and whether an event trigger calls it.
pub const FUNCTIONS: &str = "SELECT p.proname, l.lanname, CASE WHEN p.prosrc OPERATOR(pg_catalog.=) '' \
     THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END, \
     EXISTS (SELECT FROM pg_catalog.pg_event_trigger e WHERE e.evtfoid OPERATOR(pg_catalog.=) p.oid)::pg_catalog.text \
     FROM pg_catalog.pg_proc p \
     JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang \
     WHERE p.pronamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace \
     AND p.pronamespace OPERATOR(pg_catalog.<>) 'information_schema'::pg_catalog.regnamespace \
     AND l.lanname OPERATOR(pg_catalog.<>) 'c' AND p.prokind OPERATOR(pg_catalog.<>) 'a'";

/// Names of tables, views and aggregates, and the functions that these call by themselves.
pub const CALLERS: &str = "WITH d AS (SELECT d.classid, d.objid, p.proname \
     FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) d.refobjid \
     WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass), \
     o AS (SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass::pg_catalog.oid AS class, t.oid, t.tgrelid AS rel FROM pg_catalog.pg_trigger t \
     UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid, r.ev_class FROM pg_catalog.pg_rewrite r \
     UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid, a.adrelid FROM pg_catalog.pg_attrdef a \
     UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid, c.conrelid FROM pg_catalog.pg_constraint c \
     UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, y.oid, y.polrelid FROM pg_catalog.pg_policy y) \
     SELECT DISTINCT r.relname, d.proname FROM d JOIN o ON o.class OPERATOR(pg_catalog.=) d.classid \
     AND o.oid OPERATOR(pg_catalog.=) d.objid JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) o.rel \
     UNION SELECT a.proname, d.proname FROM d JOIN pg_catalog.pg_proc a ON a.oid OPERATOR(pg_catalog.=) d.objid \
     WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND a.prokind OPERATOR(pg_catalog.=) 'a'";

/// Which relation's use may touch which other: views what they read, parents their partitions, keys those that refer to them.
pub const REACHES: &str = "SELECT DISTINCT v.relname, t.relname FROM pg_catalog.pg_depend d \
     JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) d.objid \
     JOIN pg_catalog.pg_class v ON v.oid OPERATOR(pg_catalog.=) r.ev_class \
     JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) d.refobjid \
     WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
     AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
     AND v.oid OPERATOR(pg_catalog.<>) t.oid AND v.relnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace \
     UNION SELECT p.relname, c.relname FROM pg_catalog.pg_inherits i \
     JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) i.inhparent \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid \
     UNION SELECT p.relname, c.relname FROM pg_catalog.pg_constraint k \
     JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) k.confrelid \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.conrelid";

/// What a call may leave in its session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trait {
    /// What has to be seen to.
    pub care: Care,
    /// Settings that it may change.
    pub settings: Vec<String>,
}

impl Trait {
    /// Adds what another call may leave; true when that is more than was known.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = (self.care, self.settings.len());
        self.care.add(other.care);
        for name in &other.settings {
            if !self.settings.contains(name) {
                self.settings.push(name.clone());
            }
        }
        before != (self.care, self.settings.len())
    }
}

/// Such functions, and tables, by name, as plans are cached by them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Tells this set apart from every other.
    pub id: u64,
    /// An event trigger calls one of them, so that every definition does.
    pub watch_definitions: bool,
    functions: HashMap<String, Trait>,
    tables: HashMap<String, Trait>,
}

impl Functions {
    /// These, under a number of their own.
    pub fn new(functions: HashMap<String, Trait>, tables: HashMap<String, Trait>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), watch_definitions: false, functions, tables }
    }

    /// What a function of this name may leave in its session; `None` when nothing.
    pub fn function(&self, name: &str) -> Option<&Trait> {
        self.functions.get(name)
    }

    /// What the use of a table or view of this name may leave.
    pub fn table(&self, name: &str) -> Option<&Trait> {
        self.tables.get(name)
    }

    /// True when no function leaves anything.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.tables.is_empty()
    }

    /// These functions, with what else is known.
    pub fn with(known: &Self, functions: HashMap<String, Trait>) -> Self {
        Self { functions, tables: known.tables.clone(), id: known.id, watch_definitions: known.watch_definitions }
    }

    /// All functions that leave something.
    pub fn functions(&self) -> &HashMap<String, Trait> {
        &self.functions
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.functions == other.functions
            && self.tables == other.tables
            && self.watch_definitions == other.watch_definitions
    }
}

/// The functions of one database, read now and then.
#[derive(Debug)]
pub struct FunctionWatch {
    current: ArcSwap<Functions>,
    read: Mutex<Option<Instant>>,
    /// Readings that were begun, and the number of the newest that has been heeded.
    begun: AtomicU64,
    newest: Mutex<u64>,
}

impl Default for FunctionWatch {
    fn default() -> Self {
        Self {
            current: ArcSwap::from_pointee(Functions::default()),
            read: Mutex::new(None),
            begun: AtomicU64::new(0),
            newest: Mutex::new(0),
        }
    }
}

impl FunctionWatch {
    /// Begins with what `other` knows, until the names are read.
    pub fn begin_with(&self, other: &Self) {
        self.current.store(other.current.load_full());
    }

    /// What is known now.
    pub fn current(&self) -> arc_swap::Guard<Arc<Functions>> {
        self.current.load()
    }

    /// Whether it is time to read them again; the caller then does.
    pub fn is_due(&self, after: Duration) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let due = read.is_none_or(|read| read.elapsed() >= after);
        if due {
            *read = Some(Instant::now());
        }
        due
    }

    /// Reads them over a connection at hand; false when that failed.
    pub async fn read_over(&self, pool: &Pool, conn: &mut ServerConn) -> bool {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        match look(pool, conn).await {
            Ok(functions) => {
                let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
                // A slow one that began before a definition must not take back what a later one has found.
                if number > *newest {
                    *newest = number;
                    if !functions.says_the_same(&self.current.load()) {
                        self.current.store(Arc::new(functions));
                    }
                }
                true
            }
            Err(failure) => {
                warn(&pool.target, &failure.message);
                false
            }
        }
    }

    /// Reads them over a connection of the pool.
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

/// Rows as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// A database's functions as they are read: first [`FUNCTIONS`], then, where some of them matter, who calls them.
#[derive(Debug)]
pub struct Definitions {
    defined: Vec<Defined>,
    /// Those that event triggers call.
    watching: Vec<String>,
    found: HashMap<String, Trait>,
}

impl Definitions {
    /// From the rows of [`FUNCTIONS`].
    pub fn new(rows: &Rows) -> Self {
        let defined = rows.iter().map(|row| Defined { name: text(row, 0), language: text(row, 1), body: text(row, 2) });
        let defined: Vec<Defined> = defined.collect();
        let watching = rows.iter().filter(|row| text(row, 3) == "true").map(|row| text(row, 0)).collect();
        let found = judge(&defined, &Functions::default());
        Self { defined, watching, found }
    }

    /// True when no function leaves anything; who calls them does not matter then.
    pub fn is_harmless(&self) -> bool {
        self.found.is_empty()
    }

    /// The functions that matter, and the tables, given the rows of [`CALLERS`] and [`REACHES`].
    pub fn finish(self, callers: &Rows, reaches: &Rows) -> Functions {
        let pairs = |rows: &Rows| -> Vec<_> { rows.iter().map(|row| (text(row, 0), text(row, 1))).collect() };
        let (callers, reaches) = (pairs(callers), pairs(reaches));
        let (mut functions, mut tables) = (self.found, HashMap::new());
        // A function that writes into a table with a trigger does what the trigger does, and so on.
        loop {
            let found = spread(&functions, &callers, &reaches);
            let done = found == tables;
            tables = found;
            if done {
                break;
            }
            functions = judge(&self.defined, &Functions { tables: tables.clone(), ..Functions::default() });
        }
        let watch_definitions = self.watching.iter().any(|name| functions.contains_key(name));
        Functions { watch_definitions, ..Functions::new(functions, tables) }
    }
}

fn text(row: &[Option<String>], at: usize) -> String {
    row.get(at).cloned().flatten().unwrap_or_default()
}

async fn look(pool: &Pool, conn: &mut ServerConn) -> Result<Functions, Failure> {
    let definitions = Definitions::new(&pool.rows(conn, FUNCTIONS.as_bytes()).await?);
    if definitions.is_harmless() {
        return Ok(Functions::new(HashMap::new(), HashMap::new()));
    }
    let callers = pool.rows(conn, CALLERS.as_bytes()).await?;
    let reaches = pool.rows(conn, REACHES.as_bytes()).await?;
    Ok(definitions.finish(&callers, &reaches))
}

fn warn(target: &ServerTarget, reason: &str) {
    tracing::warn!(server = ?target, reason, "the database's functions could not be read; what was known stays");
}
