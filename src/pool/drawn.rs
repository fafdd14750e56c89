//! Keeping a connection for a moment for the client that has drawn from a sequence on it, and may ask next what it drew.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::server::ServerConn;
use crate::pool::{Pool, State, lock};

/// How long others wait rather than get it: longer than an application takes from INSERT to `currval()`.
const HOLD: Duration = Duration::from_millis(20);

impl State {
    /// The idle connection on which `drawn` was drawn, if it is there; else the one that was given back first, so that others keep theirs.
    pub(super) fn pop_drawn(&mut self, home: usize, drawn: u64) -> Option<Box<ServerConn>> {
        if drawn != 0 {
            let own = self.idle.iter_mut().find_map(|idle| {
                let at = idle.iter().position(|conn| conn.state.drawn == drawn)?;
                Some(idle.remove(at))
            });
            if let Some(mut own) = own {
                own.state.hold = false;
                return Some(own);
            }
        }
        #[allow(clippy::vec_box, reason = "as in the pool")]
        let free = |idle: &mut Vec<Box<ServerConn>>| {
            let at = idle.iter().position(|conn| !conn.state.hold)?;
            Some(idle.remove(at))
        };
        self.idle.get_mut(home).and_then(free).or_else(|| self.idle.iter_mut().find_map(free))
    }
}

impl Pool {
    /// Lets others have a connection that was held.
    pub(super) async fn let_go(self: Arc<Self>, home: usize, id: u64) {
        tokio::time::sleep(HOLD).await;
        let mut state = lock(&self.state);
        let Some(idle) = state.idle.get_mut(home) else { return };
        let Some(at) = idle.iter().position(|conn| conn.cancel.id == id && conn.state.hold) else { return };
        if let Some(conn) = idle.get_mut(at) {
            conn.state.hold = false;
        }
        if let Some(waiter) = state.next_waiter(home)
            && let Some(idle) = state.idle.get_mut(home)
        {
            let conn = idle.remove(at);
            waiter.give(Ok(conn));
        }
    }
}
