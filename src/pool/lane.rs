//! One session's choice among the servers of its database.
//!
//! What is proven to be a read goes to a replica that has all that this session has written; everything else goes to
//! the primary. A server that turns out to be unreachable before anything was sent is passed over.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::pool::fleet::{Choosing, Fleet};
use crate::pool::server::ServerConn;
use crate::pool::{Pool, Taken};
use crate::wire::message::Failure;

/// A session's way to the servers of its database.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The servers.
    pub fleet: Arc<Fleet>,
    /// The pool of each, for this session's role.
    pools: Arc<[Arc<Pool>]>,
    /// A hash of the client's address.
    client: u64,
    /// Its reads may go to replicas.
    balanced: bool,
    /// The last check that had begun when its last write ended.
    mark: u64,
    /// The server in use, or the last one.
    at: usize,
    /// Whether that is used as the primary.
    writing: bool,
    /// Something else than proven reads was sent to it.
    wrote: bool,
    /// Servers that failed while a connection is looked for, a bit each.
    avoid: u64,
    /// Since when a connection is looked for in vain.
    since: Option<Instant>,
}

impl Lane {
    /// A lane over these pools, one for each server of the fleet.
    pub fn new(fleet: Arc<Fleet>, pools: Arc<[Arc<Pool>]>, client: u64, balanced: bool) -> Self {
        let writing = true;
        Self { fleet, pools, client, balanced, mark: 0, at: 0, writing, wrote: false, avoid: 0, since: None }
    }

    /// The pool to ask for a connection; `None` when there is none for now: the task is woken at the next news.
    /// A read may be answered by a replica that has replayed check `floor`.
    ///
    /// # Errors
    /// There was no primary for too long.
    pub fn choose(&mut self, is_read: bool, floor: u64, waker: &Waker) -> Result<Option<Arc<Pool>>, Failure> {
        self.wrote = false;
        if is_read && let Some(replica) = self.replica(floor) {
            self.writing = false;
            self.at = replica;
            return Ok(self.pools.get(replica).cloned());
        }
        if let Some(pool) = self.primary() {
            return Ok(Some(pool));
        }
        self.fleet.wake_at_news(waker);
        // News may have come before the waker was known.
        if let Some(pool) = self.primary() {
            return Ok(Some(pool));
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        // The next round tries all of them again.
        self.avoid = 0;
        if since.elapsed() < self.fleet.options.patience { Ok(None) } else { Err(self.fleet.no_primary()) }
    }

    /// A connection on which to ask what any of the servers would answer, and its pool.
    ///
    /// # Errors
    /// No server could be reached for too long.
    pub async fn any_connection(&mut self, home: usize) -> Result<(Arc<Pool>, Box<ServerConn>), Failure> {
        loop {
            let pool = poll_fn(|cx| match self.choose(true, 0, cx.waker()) {
                Ok(Some(pool)) => Poll::Ready(Ok(pool)),
                Ok(None) => Poll::Pending,
                Err(failure) => Poll::Ready(Err(failure)),
            });
            let pool = pool.await?;
            let taken = match pool.take(home) {
                Taken::Now(conn) => Ok(conn),
                Taken::Later(mut ticket) => poll_fn(|cx| ticket.poll(cx)).await,
            };
            match taken {
                Ok(conn) => {
                    self.got();
                    return Ok((pool, conn));
                }
                Err(failure) if failure.code == "08006" && self.failed() => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    fn primary(&mut self) -> Option<Arc<Pool>> {
        let primary = self.fleet.primary().filter(|&at| !self.avoids(at))?;
        self.writing = true;
        self.at = primary;
        self.pools.get(primary).cloned()
    }

    fn avoids(&self, server: usize) -> bool {
        self.avoid & bit(server) != 0
    }

    /// A replica that may answer this session's reads.
    fn replica(&self, floor: u64) -> Option<usize> {
        if !self.balanced {
            return None;
        }
        let mark = self.mark.max(floor);
        let schedule = self.fleet.schedule.load();
        let fits = |at: usize| !self.avoids(at) && self.fleet.covers(at, mark);
        match self.fleet.options.choosing {
            Choosing::RoundRobin => {
                let turn = self.fleet.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let length = schedule.len();
                let nth = |step: usize| schedule.get(turn.wrapping_add(step) % length.max(1)).copied();
                (0..length).filter_map(nth).find(|&at| fits(at))
            }
            Choosing::LeastConnections => {
                let load = |at: usize| {
                    let share = schedule.iter().filter(|&&other| other == at).count().max(1);
                    self.pools.get(at).map_or(usize::MAX, |pool| pool.load() * 1000 / share)
                };
                distinct(&schedule).filter(|&at| fits(at)).min_by_key(|&at| load(at))
            }
            Choosing::ClientIpHash => {
                let score = |at: usize| {
                    let share = schedule.iter().filter(|&&other| other == at).count().max(1);
                    // Rendezvous hashing: a client moves only when its own server comes or goes.
                    #[allow(clippy::cast_precision_loss, reason = "53 bits of a hash are plenty")]
                    let unit =
                        ((scramble(self.client ^ scramble(at as u64 + 1)) >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
                    #[allow(clippy::cast_precision_loss, reason = "shares are small")]
                    let share = share as f64;
                    share / -unit.ln()
                };
                distinct(&schedule).filter(|&at| fits(at)).max_by(|&a, &b| score(a).total_cmp(&score(b)))
            }
        }
    }

    /// Goes on over the servers of another lane, for the same client.
    pub fn renew(&mut self, other: Self) {
        if !Arc::ptr_eq(&self.fleet, &other.fleet) {
            // Checks are numbered anew there; whatever was written is before the next one.
            self.mark = other.fleet.begun();
            self.fleet = other.fleet;
        }
        self.pools = other.pools;
    }

    /// Whether the server in use was chosen as a replica.
    pub fn is_on_replica(&self) -> bool {
        !self.writing
    }

    /// Whether the connection that was got must not be used: its server is not what it was chosen as.
    pub fn is_outdated(&self) -> bool {
        self.writing && self.fleet.was_replaced(self.at)
    }

    /// Notes that a connection was got.
    pub fn got(&mut self) {
        self.avoid = 0;
        self.since = None;
    }

    /// Notes that the server in use cannot be reached; false when trying others is over.
    pub fn failed(&mut self) -> bool {
        self.avoid |= bit(self.at);
        self.fleet.suspect(self.at);
        let since = *self.since.get_or_insert_with(Instant::now);
        since.elapsed() < self.fleet.options.patience
    }

    /// Has the server in use asked how it is.
    pub fn suspect(&self) {
        self.fleet.suspect(self.at);
    }

    /// Notes that something else than proven reads is sent to the primary.
    pub fn writes(&mut self) {
        self.wrote = true;
    }

    /// Whether that was noted since the connection was chosen.
    pub fn has_written(&self) -> bool {
        self.wrote
    }

    /// Notes that the connection is given back: all that was sent has been answered.
    pub fn done(&mut self) {
        if std::mem::take(&mut self.wrote) {
            self.mark = self.fleet.begun();
        }
    }
}

fn bit(server: usize) -> u64 {
    u32::try_from(server).ok().and_then(|server| 1u64.checked_shl(server)).unwrap_or_default()
}

fn distinct(schedule: &[usize]) -> impl Iterator<Item = usize> {
    schedule
        .iter()
        .enumerate()
        .filter(|(at, server)| !schedule.iter().take(*at).any(|other| other == *server))
        .map(|(_, server)| *server)
}

/// Mixes the bits of a number (splitmix64's finisher).
fn scramble(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A hash of a client's address, the same for all its connections.
pub fn hash_of_client(address: Option<std::net::IpAddr>) -> u64 {
    let bits = match address {
        Some(std::net::IpAddr::V4(address)) => u128::from(address.to_bits()),
        Some(std::net::IpAddr::V6(address)) => address.to_bits(),
        None => 0,
    };
    scramble((bits >> 64) as u64 ^ scramble(bits as u64))
}
