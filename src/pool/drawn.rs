//! Keeping a connection for a moment for the client that has drawn from a sequence on it, and may ask next what it drew.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::server::{MANY, ServerConn};
use crate::pool::{Pool, State, lock};

/// How long others wait rather than get it: longer than an application takes from INSERT to `currval()`.
const HOLD: Duration = Duration::from_millis(20);

impl State {
    /// The idle connection on which `drawn` was drawn, if it is there; else one that nobody can ask any more; else, unless another
    /// may be opened, the one that was given back first, so that others keep theirs.
    pub(super) fn pop_drawn(&mut self, home: usize, drawn: u64, may_grow: bool) -> Option<Box<ServerConn>> {
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
        let free = self.pop_where(home, |conn| matches!(conn.state.drawn, 0 | MANY) && !conn.state.hold);
        if free.is_some() || may_grow {
            return free;
        }
        self.pop_where(home, |conn| !conn.state.hold)
    }

    fn pop_where(&mut self, home: usize, fits: impl Fn(&ServerConn) -> bool) -> Option<Box<ServerConn>> {
        #[allow(clippy::vec_box, reason = "as in the pool")]
        let first = |idle: &mut Vec<Box<ServerConn>>| {
            let at = idle.iter().position(|conn| fits(conn))?;
            Some(idle.remove(at))
        };
        self.idle.get_mut(home).and_then(first).or_else(|| self.idle.iter_mut().find_map(first))
    }
}

impl Pool {
    /// Whether a connection that is given back is left to the client that drew on it, rather than given to who waits.
    pub(super) fn is_left(&self, conn: &ServerConn, state: &State) -> bool {
        let owned = !matches!(conn.state.drawn, 0 | MANY) && self.roll.follows_sequences();
        conn.state.hold || owned && state.opening >= state.waiters.len()
    }

    /// Notes that nobody will ask any more what `drawn` was.
    pub fn forget_drawn(&self, drawn: u64) {
        if drawn == 0 || drawn == MANY || !self.roll.follows_sequences() {
            return;
        }
        for conn in lock(&self.state).idle.iter_mut().flatten().filter(|conn| conn.state.drawn == drawn) {
            conn.state.drawn = MANY;
        }
    }

    /// Gives waiters what was left to those who drew on it, as no more connections can be opened.
    pub(super) fn hand_out(&self, state: &mut State, home: usize) {
        while !state.waiters.is_empty()
            && let Some(conn) = state.pop_where(home, |conn| !conn.state.hold)
            && let Some(waiter) = state.next_waiter(conn.home)
        {
            waiter.give(Ok(conn));
        }
    }

    /// Lets others have a connection that was held.
    pub(super) async fn let_go(self: Arc<Self>, home: usize, id: u64) {
        tokio::time::sleep(HOLD).await;
        let mut state = lock(&self.state);
        let Some(idle) = state.idle.get_mut(home) else { return };
        let Some(at) = idle.iter().position(|conn| conn.cancel.id == id && conn.state.hold) else { return };
        if let Some(conn) = idle.get_mut(at) {
            conn.state.hold = false;
        }
        if state.opening < state.waiters.len()
            && let Some(waiter) = state.next_waiter(home)
            && let Some(idle) = state.idle.get_mut(home)
        {
            let conn = idle.remove(at);
            waiter.give(Ok(conn));
        }
    }
}
