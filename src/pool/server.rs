//! One server connection and all that is known of its state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;

use crate::net::connect::{ConnectError, Link, ServerTarget, cancel};
use crate::net::stream::{Ends, Stream};
use crate::pool::cap::Permit;
use crate::pool::roll::Roll;
use crate::pool::settings::{Reported, Settings};
use crate::pool::statements::Prepared;

/// One server connection. Whoever holds it alone talks to the server.
#[derive(Debug)]
pub struct ServerConn {
    /// The socket.
    pub stream: Stream,
    /// The worker whose event loop watches the socket.
    pub home: usize,
    /// What is known of the session at its other end.
    pub state: ServerState,
    /// Where to cancel what it does.
    pub cancel: Arc<CancelTarget>,
    /// When it was opened.
    pub opened: Instant,
    /// When it was last given back.
    pub released: Instant,
    /// Counts it among those that there may be.
    pub permit: Permit,
}

/// Several clients have drawn from sequences.
pub const MANY: u64 = u64::MAX;

/// What is known of the session on a server connection.
#[derive(Debug)]
pub struct ServerState {
    /// Who logged in on it.
    pub user: Arc<str>,
    /// What the server reported last.
    pub reported: Arc<Reported>,
    /// What has been set on it, on top of the server's defaults.
    pub settings: Arc<Settings>,
    /// Shared statements that are prepared on it.
    pub prepared: Prepared,
    /// Whose unnamed statement it holds: a client's number and its count of unnamed statements.
    pub unnamed: (u64, u64),
    /// Who has drawn from sequences on it: 0 is nobody, and [`MANY`] several.
    pub drawn: u64,
    /// Who draws may ask next, and shall find it.
    pub hold: bool,
    /// The connections of its pool.
    pub roll: Arc<Roll>,
}

impl ServerState {
    /// Notes that the server has no unnamed statement: any Query drops it, ours too.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = (0, 0);
    }
}

impl ServerConn {
    /// False when the server has closed it, or said something nobody asked for, while it was idle.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0u8; 1];
        self.stream.poll_read(&mut Context::from_waker(Waker::noop()), &mut byte).is_pending()
    }
}

/// Where a running statement can be cancelled.
#[derive(Debug)]
pub struct CancelTarget {
    server: Arc<ServerTarget>,
    /// Its number, unique in this process.
    pub id: u64,
    /// The server's process.
    pub pid: u32,
    secret: Vec<u8>,
    /// Both ends of the socket, and whether it is encrypted.
    pub ends: (Ends, bool),
    /// When it was opened.
    pub since: SystemTime,
    /// Which of its pool's times it belongs to.
    pub epoch: u64,
    /// The process id that the client was told which has it, or had it last; 0 for nobody yet.
    lent_to: AtomicU32,
    under_way: AtomicUsize,
    /// A request was sent, and it is not known whether it has arrived or still will.
    in_doubt: AtomicBool,
    delivered: Notify,
}

impl CancelTarget {
    /// The process of `server` at the other end of `link`.
    pub fn new(server: Arc<ServerTarget>, link: &Link, epoch: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            server,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            pid: link.pid,
            secret: link.secret.clone(),
            ends: (link.stream.ends(), link.stream.is_tls()),
            since: SystemTime::now(),
            epoch,
            lent_to: AtomicU32::new(0),
            under_way: AtomicUsize::new(0),
            in_doubt: AtomicBool::new(false),
            delivered: Notify::new(),
        }
    }

    /// The server.
    pub fn server(&self) -> &ServerTarget {
        &self.server
    }

    /// Notes who works with the connection from now on, by the process id it was told.
    pub fn lend_to(&self, client: u32) {
        self.lent_to.store(client, Ordering::Relaxed);
    }

    /// The process id that the client was told which has it, or had it last.
    pub fn lent_to(&self) -> Option<u32> {
        Some(self.lent_to.load(Ordering::Relaxed)).filter(|&client| client != 0)
    }

    /// Announces a cancel request. Call it where the connection is known to be in use; it then is not
    /// given to anybody else before the request has arrived.
    pub fn announce(&self) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
    }

    /// Delivers an announced request.
    pub async fn deliver(&self) -> Result<(), ConnectError> {
        let done = cancel(&self.server, self.pid, &self.secret).await;
        if done.is_err() {
            self.in_doubt.store(true, Ordering::SeqCst);
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.delivered.notify_waiters();
        done
    }

    /// Whether a request is on its way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }

    /// Whether a request may still arrive: the connection cannot serve anybody else.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::SeqCst)
    }

    /// Waits until no request is on its way.
    pub async fn settled(&self) {
        loop {
            let delivered = self.delivered.notified();
            if !self.is_under_way() {
                return;
            }
            delivered.await;
        }
    }
}
