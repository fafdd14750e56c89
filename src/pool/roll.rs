//! Which connections a pool has, for those who ask: the console, RECONNECT, KILL.
//!
//! Nothing here costs a connection more when it is lent or taken back than a comparison of two numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::pool::server::{CancelTarget, ServerConn};
use crate::pool::{Pool, lock};

/// The connections by their cancel keys, which live as long as they do.
#[derive(Debug, Default)]
pub struct Roll {
    all: Mutex<Vec<Weak<CancelTarget>>>,
    /// Connections that were opened in an earlier epoch are closed when they are given back.
    epoch: AtomicU64,
    /// Why the last attempt to connect failed; nothing when it did not.
    trouble: Mutex<Option<String>>,
    /// Somebody has asked what was drawn from a sequence.
    sequences: AtomicBool,
}

/// One open connection.
#[derive(Debug, Clone)]
pub struct Member {
    /// The connection, as those know it who may cancel what it does.
    pub target: Arc<CancelTarget>,
    /// It waits in the pool.
    pub idle: bool,
    /// It will be closed when it is given back.
    pub outdated: bool,
}

impl Roll {
    /// The epoch of connections that are begun now.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether it is followed who draws from sequences.
    pub fn follows_sequences(&self) -> bool {
        self.sequences.load(Ordering::Relaxed)
    }

    /// From now on it is; gives whether it was.
    pub fn follow_sequences(&self) -> bool {
        self.follows_sequences() || self.sequences.swap(true, Ordering::Relaxed)
    }

    /// Notes that the server could not be reached.
    pub fn fail(&self, why: &str) {
        *lock(&self.trouble) = Some(why.to_owned());
    }

    /// Notes a new connection; forgets those that are gone.
    pub fn enter(&self, target: &Arc<CancelTarget>) {
        *lock(&self.trouble) = None;
        let mut all = lock(&self.all);
        all.retain(|target| target.strong_count() > 0);
        all.push(Arc::downgrade(target));
    }

    /// The process id that the client was told for whom the server's process `pid` works, or worked last.
    pub fn client_of(&self, pid: u32) -> Option<u32> {
        let all = lock(&self.all);
        let found = all.iter().filter_map(Weak::upgrade).find(|target| target.pid == pid)?;
        found.lent_to()
    }

    /// Whether the connection is to be closed as soon as nobody uses it.
    pub fn is_outdated(&self, conn: &ServerConn) -> bool {
        conn.cancel.epoch != self.epoch()
    }
}

impl Pool {
    /// Closes every connection as soon as nobody uses it; new ones may be opened meanwhile.
    pub fn reconnect(&self) {
        self.roll.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that there may be.
    pub fn size(&self) -> usize {
        self.options.load().size
    }

    /// Why the server cannot be reached, if that is so: the last attempt failed, and no connection is open.
    pub fn trouble(&self) -> Option<String> {
        let why = lock(&self.roll.trouble).clone()?;
        let counts = self.counts();
        (counts.open <= counts.opening).then_some(why)
    }

    /// The connections that are open.
    pub fn members(&self) -> Vec<Member> {
        let idle: Vec<_> = {
            let state = lock(&self.state);
            state.idle.iter().flatten().map(|conn| Arc::as_ptr(&conn.cancel)).collect()
        };
        let epoch = self.roll.epoch();
        let all: Vec<_> = lock(&self.roll.all).iter().filter_map(Weak::upgrade).collect();
        let member = |target: Arc<CancelTarget>| Member {
            idle: idle.contains(&Arc::as_ptr(&target)),
            outdated: target.epoch != epoch,
            target,
        };
        all.into_iter().map(member).collect()
    }
}
