//! What a pool does while its server cannot be reached.
//!
//! One attempt at a time, with growing pauses. Clients wait for a while; when the server has been away for longer than
//! that, they hear of it with the next attempt that fails.

use std::time::{Duration, Instant};

use crate::net::connect::ConnectError;
use crate::pool::{Pool, State, lock};
use crate::wire::message::Failure;

/// Pauses between attempts grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// A server that cannot be reached.
#[derive(Debug)]
pub(super) struct Failing {
    since: Instant,
    last: Instant,
    pause: Duration,
    failure: Failure,
}

impl State {
    /// Whether another attempt to connect may be made now.
    pub(super) fn may_try(&self) -> bool {
        self.failing.as_ref().is_none_or(|failing| self.opening == 0 && failing.last.elapsed() >= failing.pause)
    }
}

impl Pool {
    /// Tells waiters that the server cannot be reached: at once when trying again cannot help, otherwise those who have
    /// been patient, and only while no connection is open that could serve them. Gives the pause before the next attempt.
    pub(super) fn report(&self, state: &mut State, error: &ConnectError, started: Instant) -> Duration {
        tracing::warn!(server = ?self.target, code = error.code, error = error.message, "cannot connect to the server");
        // 28xxx: authentication; 3D000: no such database. Starting up, too many connections and network errors pass.
        let hopeless = error.code.starts_with("28") || ["3D000", "42501", "42704"].contains(&error.code.as_str());
        if !hopeless && state.open > state.opening {
            return PAUSES.0 * 2;
        }
        let failure = match error.code.as_str() {
            // The server's own words: it can be reached, but there is no such database, or it is not for this user.
            code @ ("3D000" | "42501") => {
                Failure::fatal(if code == "3D000" { "3D000" } else { "42501" }, &error.message)
                    .detail(format!("The server {:?} says so.", self.target))
            }
            _ => Failure::fatal("08006", format!("the server {:?} cannot be reached: {}", self.target, error.message))
                .detail(format!("SQLSTATE of the attempt: {}", error.code)),
        };
        let now = Instant::now();
        let mut patience = self.options.load().connect_patience;
        let mut pause = PAUSES.1;
        if hopeless {
            patience = Duration::ZERO;
        } else if let Some(failing) = &mut state.failing {
            // Several attempts may have begun before the first of them failed.
            if started >= failing.last {
                failing.pause = (failing.pause * 2).min(PAUSES.1);
            }
            failing.last = now;
            failing.failure = failure.clone();
            pause = failing.pause;
            if failing.since.elapsed() >= patience {
                patience = Duration::ZERO;
            }
        } else {
            pause = PAUSES.0;
            state.failing = Some(Failing { since: now, last: now, pause, failure: failure.clone() });
        }
        state.waiters.retain(|waiter| waiter.since.elapsed() < patience || !waiter.give(Err(failure.clone())));
        pause
    }

    /// Sends away all who wait: the server cannot serve them.
    pub fn evict(&self, failure: &Failure) {
        lock(&self.state).waiters.drain(..).for_each(|waiter| {
            waiter.give(Err(failure.clone()));
        });
    }

    /// How many connections are in use or waited for.
    pub fn load(&self) -> usize {
        let state = lock(&self.state);
        let idle: usize = state.idle.iter().map(Vec::len).sum();
        state.open.saturating_sub(idle) + state.waiters.len()
    }
}
