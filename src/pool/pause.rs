//! A pool that is held, kept warm, or given other limits while clients use it.

use std::sync::Arc;
use std::time::Instant;

use crate::pool::{Pool, PoolOptions, State, lock, say_goodbye};

impl Pool {
    /// Holds back whoever asks for a connection from now on, and closes each connection when it is not in use.
    pub fn pause(&self) {
        let idle: Vec<_> = {
            let mut state = lock(&self.state);
            state.paused = true;
            let idle: Vec<_> = state.idle.iter_mut().flat_map(std::mem::take).collect();
            state.open = state.open.saturating_sub(idle.len());
            idle
        };
        for mut conn in idle {
            say_goodbye(&mut conn);
        }
    }

    /// Serves again those who wait and those who come. Waiters get their connections within a tick.
    pub fn resume(&self) {
        lock(&self.state).paused = false;
    }

    /// Whether clients are held back.
    pub fn is_paused(&self) -> bool {
        lock(&self.state).paused
    }

    /// Whether no connection is open: after [`Pool::pause`], everybody has given theirs back.
    pub fn is_drained(&self) -> bool {
        lock(&self.state).open == 0
    }

    /// Whether the least that is to be kept is open.
    pub fn is_warm(&self) -> bool {
        let (state, options) = (lock(&self.state), self.options.load());
        state.closed || state.open.saturating_sub(state.opening) >= options.min_size.min(options.size)
    }

    /// Changes limits and times. What is open beyond a smaller size is closed when it is given back.
    pub fn set_options(&self, options: PoolOptions) {
        self.options.store(Arc::new(options));
    }

    /// Opens connections below the least that is to be kept. Call it on the first worker.
    pub(super) fn keep_up(self: &Arc<Self>, state: &mut State, options: &PoolOptions) {
        if state.is_quiet(Instant::now()) {
            return;
        }
        while state.open < options.min_size.min(options.size) && !state.closed && !state.paused {
            let Some(permit) = self.permit(state) else { return };
            self.begin(state, 0, permit);
        }
    }
}
