//! What passes through: counts, bytes, times. Cheap enough for every query.
//!
//! ```text
//! session   Timing: when this query began; the clock is read once when it begins and once when it is answered
//! talk      Tally: what the answers of one turn said; settled with the Meter in one go
//! database  Meter: per worker numbers that only that worker changes, added up by whoever asks
//! ```
//!
//! No lock and no locked instruction is on the way of a query that succeeds.

pub mod habits;
pub mod histogram;
pub mod period;
pub mod seen;
pub mod tally;
pub mod templates;
pub mod timing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::proxy::guard::Ruling;
use histogram::{Counted, Histogram, Tick};
use period::Periods;
use templates::Templates;

/// Most SQLSTATEs that are told apart: servers' own functions can make up any.
const MAX_STATES: usize = 300;

/// Where a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// To the one server of an unsharded database.
    Direct,
    /// To the one shard that has its rows.
    Single,
    /// To any shard.
    Any,
    /// To several shards, or to one for rows of others.
    Several,
    /// To all shards.
    All,
    /// To the shard that answers for the catalog.
    Catalog,
    /// To none: BEGIN, COMMIT, SET and the like.
    Control,
    /// To none: no rule proves where it could go.
    Refused,
}

impl Tier {
    /// All of them with their names.
    pub const ALL: [(Self, &str); 8] = [
        (Self::Direct, "direct"),
        (Self::Single, "single"),
        (Self::Any, "any"),
        (Self::Several, "several"),
        (Self::All, "all"),
        (Self::Catalog, "catalog"),
        (Self::Control, "control"),
        (Self::Refused, "refused"),
    ];
}

/// The numbers of one worker. Aligned so that no two workers write to one line of the cache.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Transactions ended.
    pub transactions: Tick,
    /// Bytes read from clients.
    pub from_clients: Tick,
    /// Bytes written to clients.
    pub to_clients: Tick,
    /// Bytes read from servers.
    pub from_servers: Tick,
    /// Bytes written to servers.
    pub to_servers: Tick,
    /// Nanoseconds in transactions, from the server connection's assignment on.
    pub transaction_nanos: Tick,
    /// Server connections lent.
    pub assignments: Tick,
    /// Parse messages of clients, those sent to servers, and Bind messages.
    pub client_parses: Tick,
    /// See above.
    pub server_parses: Tick,
    /// See above.
    pub binds: Tick,
    /// Queries answered, by tier: all, and those that ended in an error.
    pub queries: [(Tick, Tick); 8],
    /// From a query's first byte to its answer's last, as the client sees it.
    pub client: Histogram,
    /// The same without the wait for a server connection.
    pub server: Histogram,
    /// Waits for a server connection.
    pub wait: Histogram,
    /// What the proxy itself took of a query, of one in [`timing::SAMPLE`].
    pub own: Histogram,
}

impl Counters {
    /// Counts queries answered.
    #[inline]
    pub fn answered(&self, tier: Tier, count: u64, failed: u64) {
        if let Some((all, errors)) = self.queries.get(tier as usize) {
            all.add(count);
            if failed > 0 {
                errors.add(failed);
            }
        }
    }
}

/// The numbers of one database.
#[derive(Debug)]
pub struct Meter {
    /// The database's name.
    pub database: String,
    /// Its number, unique in this process.
    pub id: u64,
    workers: Box<[Counters]>,
    /// Where templates are counted, unless they are not.
    pub templates: Option<Arc<Templates>>,
    errors: Mutex<BTreeMap<(&'static str, [u8; 5]), u64>>,
    /// Statements in which a guard's rules found something.
    rulings: Mutex<BTreeMap<(Arc<str>, &'static str), u64>>,
    periods: Periods,
}

impl Meter {
    /// Nothing was counted yet.
    pub fn new(database: &str, workers: usize, templates: Option<Arc<Templates>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            database: database.to_owned(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            workers: (0..workers.max(1)).map(|_| Counters::default()).collect(),
            templates,
            errors: Mutex::default(),
            rulings: Mutex::default(),
            periods: Periods::default(),
        }
    }

    /// The numbers of worker `home`; `None` when there is no such worker.
    #[inline]
    pub fn at(&self, home: usize) -> Option<&Counters> {
        self.workers.get(home)
    }

    /// Counts an error: a server's, or pgweir's own.
    pub fn error(&self, source: &'static str, code: &[u8]) {
        let code = <[u8; 5]>::try_from(code).ok().filter(|code| code.iter().all(u8::is_ascii_alphanumeric));
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (source, code.unwrap_or(*b"other"));
        if errors.len() >= MAX_STATES && !errors.contains_key(&key) {
            key.1 = *b"other";
        }
        *errors.entry(key).or_default() += 1;
    }

    /// Counts a guard's ruling on a statement.
    pub fn ruled(&self, ruling: &Ruling) {
        let mut rulings = self.rulings.lock().unwrap_or_else(PoisonError::into_inner);
        for (rule, action) in &ruling.rules {
            *rulings.entry((rule.clone(), action.word())).or_default() += 1;
        }
    }

    /// Statements by the guard's rule that found something and what became of them.
    pub fn rulings(&self) -> BTreeMap<(Arc<str>, &'static str), u64> {
        self.rulings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Errors by source and SQLSTATE.
    pub fn errors(&self) -> Vec<(&'static str, String, u64)> {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |((source, code), count): (&(&'static str, [u8; 5]), &u64)| {
            (*source, String::from_utf8_lossy(code).into_owned(), *count)
        };
        errors.iter().map(shown).collect()
    }

    /// The numbers of all workers.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in &self.workers {
            totals.transactions += worker.transactions.get();
            totals.from_clients += worker.from_clients.get();
            totals.to_clients += worker.to_clients.get();
            totals.from_servers += worker.from_servers.get();
            totals.to_servers += worker.to_servers.get();
            totals.transaction_nanos += worker.transaction_nanos.get();
            totals.assignments += worker.assignments.get();
            totals.client_parses += worker.client_parses.get();
            totals.server_parses += worker.server_parses.get();
            totals.binds += worker.binds.get();
            for ((all, failed), sum) in worker.queries.iter().zip(&mut totals.queries) {
                sum.0 += all.get();
                sum.1 += failed.get();
            }
            worker.client.add_to(&mut totals.client);
            worker.server.add_to(&mut totals.server);
            worker.wait.add_to(&mut totals.wait);
            worker.own.add_to(&mut totals.own);
        }
        totals
    }
}

/// The numbers of one database, added up over workers; see [`Counters`].
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "as in Counters")]
pub struct Totals {
    pub transactions: u64,
    pub from_clients: u64,
    pub to_clients: u64,
    pub from_servers: u64,
    pub to_servers: u64,
    pub transaction_nanos: u64,
    pub assignments: u64,
    pub client_parses: u64,
    pub server_parses: u64,
    pub binds: u64,
    pub queries: [(u64, u64); 8],
    pub client: Counted,
    pub server: Counted,
    pub wait: Counted,
    pub own: Counted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_bounded_and_plain() {
        let meter = Meter::new("app", 1, None);
        meter.error("server", b"23505");
        meter.error("server", b"23505");
        meter.error("pgweir", b"a\"b\n}");
        meter.error("server", b"");
        for number in 0..1000 {
            meter.error("server", format!("{number:05}").as_bytes());
        }
        let errors = meter.errors();
        assert!(errors.contains(&("server", "23505".to_owned(), 2)));
        assert!(errors.contains(&("pgweir", "other".to_owned(), 1)));
        assert!(errors.len() <= MAX_STATES + 1, "{}", errors.len());
        assert_eq!(errors.iter().map(|error| error.2).sum::<u64>(), 1004);
    }
}
