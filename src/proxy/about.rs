//! A client as the console and the metrics show it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::net::stream::Ends;
use crate::proxy::meter::timing::now;

/// Who a client is and where it came from.
#[derive(Debug)]
pub struct About {
    /// The user.
    pub user: Box<str>,
    /// The database it asked for.
    pub database: Box<str>,
    /// Its `application_name` at startup.
    pub application: Box<str>,
    /// Both ends of its socket.
    pub ends: Ends,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// When it logged in.
    pub since: SystemTime,
}

/// What a client is doing. Written by its own task alone, but for the order to leave.
#[derive(Debug, Default)]
pub struct Activity {
    /// When its last request came, and since when it waits for a server connection (0: it does not), in microseconds of [`clock`].
    request: AtomicU64,
    waiting: AtomicU64,
    killed: AtomicBool,
    cancelled: AtomicBool,
}

/// Marks a time since which a client waits whose statement is to be cancelled.
const UNWANTED: u64 = 1 << 63;

impl Activity {
    /// Notes a request.
    pub fn requested(&self, at: u64) {
        self.request.store(at, Ordering::Relaxed);
    }

    /// Notes that it waits for a server connection since then; 0 when it does no more.
    pub fn waits(&self, since: u64) {
        self.waiting.store(since, Ordering::SeqCst);
    }

    /// Cancels the statement with which it waits for a server connection; false when it does not wait.
    pub fn cancel_waiting(&self) -> bool {
        let mark = |since| (since > 0).then_some(since | UNWANTED);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, mark).is_ok()
    }

    /// Whether that was asked for since it began to wait.
    pub fn is_unwanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) & UNWANTED != 0
    }

    /// Notes that it has a server connection; true when its statement was cancelled before.
    pub fn stops_waiting(&self) -> bool {
        self.waiting.swap(0, Ordering::SeqCst) & UNWANTED != 0
    }

    /// When its last request came, if there was one.
    pub fn last_request(&self) -> Option<SystemTime> {
        let at = self.request.load(Ordering::Relaxed);
        (at > 0).then(|| SystemTime::now() - Duration::from_micros(clock().saturating_sub(at)))
    }

    /// How long it has been waiting, if it is.
    pub fn wait(&self) -> Option<Duration> {
        let since = self.waiting.load(Ordering::Relaxed) & !UNWANTED;
        (since > 0).then(|| Duration::from_micros(clock().saturating_sub(since)))
    }

    /// Notes that the proxy has cancelled its statement, or that it is at the next one.
    pub fn cancelled(&self, cancelled: bool) {
        self.cancelled.store(cancelled, Ordering::Relaxed);
    }

    /// Whether the proxy has cancelled its statement.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Orders it to leave.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }

    /// Whether it was ordered to leave.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

/// Microseconds since the process looked first; never 0.
pub fn clock() -> u64 {
    now() / 1000 + 1
}
