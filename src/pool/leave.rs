//! Pools by where their connections go, and leaving a database alone for a moment.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::net::connect::ServerTarget;
use crate::pool::{Interned, Pool, State, lock, say_goodbye};

/// How long nothing is kept open that nobody waits for. PostgreSQL waits 5 s for connections that are about to end.
const QUIET: Duration = Duration::from_secs(6);

/// All pools of the process.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<Vec<Weak<Pool>>>);

impl Interned {
    /// Notes a pool; forgets those that are gone.
    pub(super) fn enter(&self, pool: &Arc<Pool>) {
        let mut all = lock(&self.pools.0);
        all.retain(|pool| pool.strong_count() > 0);
        all.push(Arc::downgrade(pool));
    }

    /// All pools there are.
    pub(super) fn pools(&self) -> Vec<Arc<Pool>> {
        lock(&self.pools.0).iter().filter_map(Weak::upgrade).collect()
    }

    /// The pools of connections to `database` at the same address as `server`.
    pub fn pools_of(&self, server: &ServerTarget, database: &str) -> Vec<Arc<Pool>> {
        let all = lock(&self.pools.0);
        let is_there = |pool: &Arc<Pool>| {
            let target = &pool.target;
            (target.host.as_str(), target.port, target.database.as_str())
                == (server.host.as_str(), server.port, database)
        };
        all.iter().filter_map(Weak::upgrade).filter(is_there).collect()
    }
}

impl State {
    /// Whether nothing is to be kept that nobody waits for.
    pub(super) fn is_quiet(&mut self, now: Instant) -> bool {
        match self.quiet_until {
            Some(until) if now < until => true,
            Some(_) => {
                self.quiet_until = None;
                false
            }
            None => false,
        }
    }
}

impl Pool {
    /// Closes what is idle, and keeps nothing idle for some seconds. Clients that come are served.
    pub fn leave(&self) {
        let idle: Vec<_> = {
            let mut state = lock(&self.state);
            state.quiet_until = Some(Instant::now() + QUIET);
            let idle: Vec<_> = state.idle.iter_mut().flat_map(std::mem::take).collect();
            state.open = state.open.saturating_sub(idle.len());
            idle
        };
        for mut conn in idle {
            say_goodbye(&mut conn);
        }
    }
}
