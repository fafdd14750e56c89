//! Limits on server connections that several pools share: of one database, and of one user.
//!
//! Each connection holds a [`Permit`] from before it is opened until it is closed. A pool that gets none is noted as a
//! contender, by how long its first client has waited. Others then make room: what is idle is closed, what is given back
//! is closed unless older clients of its own pool wait for it, and nobody takes a place that an older contender can use. A
//! contender holds no place while it waits, so that none waits for another.
//!
//! Locks: the book may be locked while a pool is, and never the other way round.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::pool::server::{MANY, ServerConn};
use crate::pool::{Interned, Pool, State, Waiter, lock};

/// How long a contender waits before connections are closed for it that older clients than its own do not need, but
/// younger ones do: opening one takes much longer than a transaction.
const PATIENCE: Duration = Duration::from_millis(250);

/// Whose connections are counted together, at one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Those of a database, of all its users.
    Database(String, String),
    /// Those that logged in as one user, of all databases.
    User(String, String),
}

/// A limit that a pool shares.
#[derive(Debug, Clone)]
pub struct Share {
    /// What it counts.
    pub counted: Counted,
    /// As many as there may be.
    pub limit: usize,
}

/// What is counted, in the whole process.
#[derive(Debug, Default)]
pub(super) struct Caps {
    book: Mutex<Book>,
    /// How many contenders there are.
    contended: AtomicUsize,
}

#[derive(Debug, Default)]
struct Book {
    used: HashMap<Counted, usize>,
    /// The one that has waited longest is the first.
    contenders: Vec<Contender>,
}

#[derive(Debug)]
struct Contender {
    pool: Weak<Pool>,
    shares: Arc<[Share]>,
    since: Instant,
    wants: usize,
}

/// The right to one connection.
#[derive(Debug)]
pub struct Permit {
    shares: Arc<[Share]>,
    interned: Arc<Interned>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut book = lock(&self.interned.caps.book);
        for share in self.shares.iter() {
            if let Some(used) = book.used.get_mut(&share.counted) {
                *used = used.saturating_sub(1);
            }
        }
        // What is not used any more is forgotten, as databases and users come and go.
        for share in self.shares.iter() {
            if book.used.get(&share.counted) == Some(&0) {
                book.used.remove(&share.counted);
            }
        }
    }
}

impl Book {
    fn used(&self, share: &Share) -> usize {
        self.used.get(&share.counted).copied().unwrap_or_default()
    }

    fn is_full(&self, share: &Share) -> bool {
        self.used(share) >= share.limit
    }

    /// Whether a connection more fits, besides those that are `promised` to others.
    fn fits(&self, shares: &[Share], promised: &[&Counted]) -> bool {
        shares.iter().all(|share| {
            let promised = promised.iter().filter(|counted| **counted == &share.counted).count();
            self.used(share).saturating_add(promised) < share.limit
        })
    }

    /// The same when those who have waited for longer than `since` get theirs first.
    fn admits(&self, pool: &Arc<Pool>, shares: &[Share], since: Option<Instant>) -> bool {
        let mut promised = Vec::new();
        for other in &self.contenders {
            let older = since.is_none_or(|since| other.since < since);
            if !older || other.is(pool) || other.pool.strong_count() == 0 {
                continue;
            }
            for _ in 0..other.wants {
                if !self.fits(&other.shares, &promised) {
                    break;
                }
                promised.extend(other.shares.iter().map(|share| &share.counted));
            }
        }
        self.fits(shares, &promised)
    }
}

impl Contender {
    fn is(&self, pool: &Arc<Pool>) -> bool {
        self.pool.as_ptr() == Arc::as_ptr(pool)
    }

    /// Whether a connection with these shares stands in its way.
    fn needs(&self, shares: &[Share], book: &Book) -> bool {
        self.shares.iter().any(|share| book.is_full(share) && shares.iter().any(|other| other.counted == share.counted))
    }
}

impl Caps {
    fn count(&self, book: &Book) {
        self.contended.store(book.contenders.len(), Ordering::Relaxed);
    }

    fn is_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed) > 0
    }
}

impl Pool {
    /// The right to open a connection, if there is one to be had; else the pool contends for it while clients wait.
    pub(super) fn permit(self: &Arc<Self>, state: &mut State) -> Option<Permit> {
        let shares = self.options.load().shares.clone();
        let since = state.waiters.front().map(|waiter| waiter.since);
        let mut book = lock(&self.interned.caps.book);
        if book.admits(self, &shares, since) {
            for share in shares.iter() {
                *book.used.entry(share.counted.clone()).or_default() += 1;
            }
            return Some(Permit { shares, interned: self.interned.clone() });
        }
        let since = since?;
        let wants = state.waiters.len().saturating_sub(state.opening);
        book.contenders.retain(|other| !other.is(self));
        let at = book.contenders.partition_point(|other| other.since <= since);
        book.contenders.insert(at, Contender { pool: Arc::downgrade(self), shares, since, wants });
        self.interned.caps.count(&book);
        state.contends = true;
        None
    }

    /// Whether a connection more could be opened.
    pub(super) fn has_room(self: &Arc<Self>) -> bool {
        let shares = self.options.load().shares.clone();
        lock(&self.interned.caps.book).admits(self, &shares, Some(Instant::now()))
    }

    /// Notes that nobody waits for a connection any more that could not be opened.
    pub(super) fn contend_no_more(&self, state: &mut State) {
        if std::mem::take(&mut state.contends) {
            let mut book = lock(&self.interned.caps.book);
            book.contenders.retain(|other| !std::ptr::eq(other.pool.as_ptr(), self) && other.pool.strong_count() > 0);
            self.interned.caps.count(&book);
        }
    }

    /// Whether a connection that is given back is to be closed for another pool rather than go to `waiter`.
    pub(super) fn gives_way(self: &Arc<Self>, waiter: Option<&Arc<Waiter>>) -> bool {
        if !self.interned.caps.is_contended() {
            return false;
        }
        let shares = self.options.load().shares.clone();
        let book = lock(&self.interned.caps.book);
        let mut others = book.contenders.iter().filter(|other| !other.is(self) && other.pool.strong_count() > 0);
        others.any(|other| {
            let goes_first =
                waiter.is_none_or(|waiter| other.since < waiter.since && other.since.elapsed() >= PATIENCE);
            goes_first && other.needs(&shares, &book)
        })
    }

    /// Has contenders open what they can now, the oldest first. Call it while no pool is locked.
    pub(super) fn let_contenders_grow(&self, home: usize) {
        if !self.interned.caps.is_contended() {
            return;
        }
        let contenders: Vec<_> =
            lock(&self.interned.caps.book).contenders.iter().filter_map(|other| other.pool.upgrade()).collect();
        for pool in contenders {
            pool.grow(&mut lock(&pool.state), home);
        }
    }

    /// Closes idle connections of other pools that stand in the way of this one's clients.
    pub(super) async fn clear_the_way(self: Arc<Self>, home: usize) {
        while let Some((pool, mut conn)) = self.pop_in_the_way() {
            conn.home = home;
            pool.discard(conn);
        }
    }

    /// An idle connection without which this pool could open one: rather one that nobody can ask what it drew from a
    /// sequence, and the one that has been idle for longest.
    fn pop_in_the_way(self: &Arc<Self>) -> Option<(Arc<Self>, Box<ServerConn>)> {
        let order = |conn: &ServerConn| (!matches!(conn.state.drawn, 0 | MANY), conn.released);
        let full: Vec<_> = {
            let book = lock(&self.interned.caps.book);
            let contender = book.contenders.iter().find(|other| other.is(self))?;
            let full = contender.shares.iter().filter(|share| book.is_full(share));
            full.map(|share| share.counted.clone()).collect()
        };
        let concerns = |pool: &Arc<Self>| pool.options.load().shares.iter().any(|share| full.contains(&share.counted));
        let pools: Vec<_> = self.interned.pools().into_iter().filter(concerns).collect();
        let first = |pool: &Arc<Self>| lock(&pool.state).idle.iter().flatten().map(|conn| order(conn)).min();
        let pool = pools.into_iter().filter_map(|pool| Some((first(&pool)?, pool))).min_by_key(|(first, _)| *first)?.1;
        let conn = {
            let mut state = lock(&pool.state);
            let some = state.idle.iter_mut().filter(|idle| !idle.is_empty());
            let idle = some.min_by_key(|idle| idle.iter().map(|conn| order(conn)).min())?;
            let at = idle.iter().enumerate().min_by_key(|(_, conn)| order(conn))?.0;
            idle.remove(at)
        };
        Some((pool, conn))
    }
}
