//! The servers that hold copies of one database: which is the primary, and which replicas may serve reads.
//!
//! ```text
//! watch   asks each server a few times a second        -> Report
//! note    one report: judges anew                       -> primary, schedule of replicas, what each has replayed
//! lane    a session's choice among them (`lane.rs`)     -> a pool
//! ```
//!
//! **One primary.** A server is written to only while its last check found it out of recovery, and only when no other
//! server with a higher timeline was ever seen: an old primary that comes back after a failover is left alone.
//!
//! **Read-your-writes.** Checks are numbered when they begin. A write that has ended when check `n` was the last to begin is
//! covered by the position in the log that any later check found on the primary: a replica that has replayed
//! that position has the write. So a session keeps one number, and a write costs nothing. On a quiet primary the end of the
//! log may wait to be flushed until somebody commits, and replicas do not get it before; what the log's writer
//! promises to have flushed of asynchronous commits by then covers a check as well.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::pool::Pool;
use crate::wire::message::Failure;

/// How replicas are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choosing {
    /// One after the other.
    RoundRobin,
    /// The least busy one.
    LeastConnections,
    /// By the client's address.
    ClientIpHash,
}

/// How a fleet behaves.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// How replicas are chosen.
    pub choosing: Choosing,
    /// A replica further behind gets no reads.
    pub max_lag: Duration,
    /// How often servers are asked.
    pub check_interval: Duration,
    /// How long writes wait for a primary.
    pub patience: Duration,
}

/// What a server said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// It follows another server.
    pub in_recovery: bool,
    /// A primary's position: all that was written is before it.
    pub insert: u64,
    /// A primary's position: all before it is on its way to replicas.
    pub flush: u64,
    /// A replica's position: all before it can be read there.
    pub replay: u64,
    /// Within this time all asynchronous commits are flushed.
    pub flushed_within: Duration,
    /// The history it is on; not every role may see it on a replica.
    pub timeline: Option<u32>,
    /// Tells clusters apart; empty where the role may not see it.
    pub system: String,
    /// Its sessions begin serializable, which no replica can serve.
    pub serializable: bool,
}

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It was not asked yet.
    Unknown,
    /// It answered when it was last asked.
    Up,
    /// It did not.
    Down,
}

/// One server, for those who show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Host and port.
    pub address: String,
    /// Writes go to it.
    pub is_primary: bool,
    /// Reads may go to it as a replica.
    pub is_readable: bool,
    /// Whether it answers.
    pub health: Health,
    /// Since when that is so.
    pub since: Instant,
    /// Why it is used for nothing, if so.
    pub trouble: Option<String>,
    /// How far a replica is behind, in time and in bytes of the log.
    pub lag: Option<(Duration, u64)>,
    /// Its share of reads.
    pub weight: u32,
}

/// A position of the primary that was seen by the check of this number.
#[derive(Debug, Clone, Copy)]
struct Sample {
    number: u64,
    begun: Instant,
    insert: u64,
    flush: u64,
    flushed_within: Duration,
}

/// Most positions that are remembered: a replica that lags more than these is read again only when it covers newer ones.
const MAX_SAMPLES: usize = 8192;

#[derive(Debug)]
struct Standing {
    address: String,
    weight: u32,
    health: Health,
    since: Instant,
    trouble: Option<String>,
    report: Option<Report>,
    lag: Option<(Duration, u64)>,
    lagging: bool,
    /// The last check that had begun when it gave its report.
    asked: u64,
    /// It was seen to have what the primary has not.
    astray: bool,
    pools: Vec<Weak<Pool>>,
}

#[derive(Debug)]
struct State {
    servers: Vec<Standing>,
    samples: VecDeque<Sample>,
    /// The highest timeline of a primary so far, and its cluster.
    timeline: u32,
    system: String,
    /// The last thing that was said about an unclear primary, so that it is said once.
    complaint: String,
    wakers: Vec<Waker>,
}

/// The servers of one database.
#[derive(Debug)]
pub struct Fleet {
    /// How it behaves.
    pub options: FleetOptions,
    state: Mutex<State>,
    /// Number of the primary, the last one there was when there is none; `NOBODY` before the first.
    primary: AtomicUsize,
    /// The primary may be written to.
    open: AtomicBool,
    /// Checks begun.
    begun: AtomicU64,
    /// The newest check whose position each server has replayed.
    covers: Vec<AtomicU64>,
    /// Servers that may serve reads, as often as their weights say.
    pub(super) schedule: ArcSwap<Vec<usize>>,
    pub(super) turn: AtomicUsize,
    /// Wakes the watch of each server.
    alarms: Vec<Notify>,
    /// The primary changed since this was last asked.
    changed: AtomicBool,
}

const NOBODY: usize = usize::MAX;

impl Fleet {
    /// Servers at these addresses with these shares of reads, none of which was asked yet.
    pub fn new(servers: impl IntoIterator<Item = (String, u32)>, options: FleetOptions) -> Arc<Self> {
        let now = Instant::now();
        let standing = |(address, weight)| Standing {
            address,
            weight,
            health: Health::Unknown,
            since: now,
            trouble: None,
            report: None,
            lag: None,
            lagging: false,
            asked: 0,
            astray: false,
            pools: Vec::new(),
        };
        let servers: Vec<Standing> = servers.into_iter().map(standing).collect();
        let (covers, alarms) = servers.iter().map(|_| (AtomicU64::new(0), Notify::new())).unzip();
        let (samples, wakers) = (VecDeque::new(), Vec::new());
        Arc::new(Self {
            options,
            state: Mutex::new(State {
                servers,
                samples,
                timeline: 0,
                system: String::new(),
                complaint: String::new(),
                wakers,
            }),
            primary: AtomicUsize::new(NOBODY),
            open: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            covers,
            schedule: ArcSwap::from_pointee(Vec::new()),
            turn: AtomicUsize::new(0),
            alarms,
            changed: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many servers there are.
    pub fn len(&self) -> usize {
        self.covers.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.covers.is_empty()
    }

    /// The server that may be written to.
    pub fn primary(&self) -> Option<usize> {
        let primary = self.primary.load(Ordering::Acquire);
        (primary != NOBODY && self.open.load(Ordering::Acquire)).then_some(primary)
    }

    /// Whether another server than this one has become the primary.
    pub fn was_replaced(&self, server: usize) -> bool {
        self.primary.load(Ordering::Acquire) != server
    }

    /// The number of the last check that has begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether a server has replayed all that was written before check `mark` had ended... that is, a later one's position.
    pub fn covers(&self, server: usize, mark: u64) -> bool {
        self.covers.get(server).is_some_and(|covers| covers.load(Ordering::Acquire) > mark)
    }

    /// Begins a check: gives its number.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Has a server asked at once: something has gone wrong with it.
    pub fn suspect(&self, server: usize) {
        if let Some(alarm) = self.alarms.get(server) {
            alarm.notify_one();
        }
    }

    /// Waits until somebody suspects a server.
    pub async fn suspected(&self, server: usize) {
        match self.alarms.get(server) {
            Some(alarm) => alarm.notified().await,
            None => std::future::pending().await,
        }
    }

    /// True once after each change of the primary.
    pub fn take_change(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// Counts a pool among a server's: clients that wait in it are sent elsewhere when the server cannot serve them.
    pub fn enlist(&self, server: usize, pool: &Arc<Pool>) {
        if let Some(standing) = self.lock().servers.get_mut(server) {
            let known = Arc::downgrade(pool);
            if !standing.pools.iter().any(|other| other.ptr_eq(&known)) {
                standing.pools.retain(|pool| pool.strong_count() > 0);
                standing.pools.push(known);
            }
        }
    }

    /// Wakes this task at the next news.
    pub fn wake_at_news(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state.wakers.iter().any(|other| other.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
    }

    /// Why there is no primary, for a client.
    pub fn no_primary(&self) -> Failure {
        let state = self.lock();
        let say = |server: &Standing| match (&server.trouble, server.health) {
            (Some(trouble), _) => format!("{}: {trouble}", server.address),
            (None, Health::Unknown) => format!("{}: not asked yet", server.address),
            (None, _) => format!("{}: a replica", server.address),
        };
        let servers: Vec<String> = state.servers.iter().map(say).collect();
        Failure::fatal("08006", "no server of this database is a primary that can be reached")
            .detail(servers.join("; "))
            .hint("try again, or set default_transaction_read_only only where replicas may answer")
    }

    /// What is known of the servers, in the configuration's order.
    pub fn status(&self) -> Vec<ServerStatus> {
        let primary = self.primary();
        let schedule = self.schedule.load();
        let state = self.lock();
        let status = |(at, server): (usize, &Standing)| ServerStatus {
            address: server.address.clone(),
            is_primary: primary == Some(at),
            is_readable: schedule.contains(&at),
            health: server.health,
            since: server.since,
            trouble: server.trouble.clone(),
            lag: server.lag,
            weight: server.weight,
        };
        state.servers.iter().enumerate().map(status).collect()
    }

    /// Takes what check `number`, begun at `begun`, found out of a server, and judges anew.
    pub fn note(&self, server: usize, number: u64, begun: Instant, found: Result<Report, String>) {
        let mut moved = Vec::new();
        {
            let mut state = self.lock();
            if state.observe(server, found, self.begun()) {
                moved.extend(state.pools_of(server));
            }
            if let Some(before) = self.choose_primary(&mut state) {
                moved.extend(state.pools_of(before));
            }
            let primary = self.primary();
            if primary == Some(server)
                && let Some(report) = state.servers.get(server).and_then(|standing| standing.report.clone())
            {
                let Report { insert, flush, flushed_within, .. } = report;
                state.sample(Sample { number, begun, insert, flush, flushed_within });
            }
            self.judge_replicas(&mut state, primary);
            moved.extend(state.wakers.drain(..).map(Moved::Waker));
        }
        for moved in moved {
            moved.go();
        }
    }

    /// Finds the primary; gives the number of the one that it replaces.
    fn choose_primary(&self, state: &mut State) -> Option<usize> {
        let current = self.primary.load(Ordering::Acquire);
        let (chosen, complaint) = state.claimant(current);
        if state.complaint != complaint {
            if !complaint.is_empty() {
                tracing::error!("{complaint}");
            }
            state.complaint = complaint;
        }
        let Some(chosen) = chosen else {
            if self.open.swap(false, Ordering::AcqRel) {
                tracing::warn!("there is no primary: writes wait");
            }
            return None;
        };
        let (address, report) =
            state.servers.get(chosen).map(|server| (server.address.clone(), server.report.clone()))?;
        let report = report?;
        if chosen != current || report.timeline.is_some_and(|timeline| timeline > state.timeline) {
            state.timeline = report.timeline.unwrap_or(state.timeline);
            // Positions of another history mean nothing now.
            state.samples.clear();
            state.servers.iter_mut().for_each(|server| server.astray = false);
            self.covers.iter().for_each(|covers| covers.store(0, Ordering::Release));
        }
        if state.system.is_empty() {
            state.system = report.system;
        }
        let reopened = !self.open.load(Ordering::Acquire);
        self.primary.store(chosen, Ordering::Release);
        self.open.store(true, Ordering::Release);
        if chosen != current {
            tracing::info!(server = address, timeline = state.timeline, "writes go to this primary");
            self.changed.store(true, Ordering::Release);
            return (current != NOBODY).then_some(current);
        }
        if reopened {
            tracing::info!(server = address, "the primary is back");
        }
        None
    }

    /// How far each replica is, and which may serve reads.
    fn judge_replicas(&self, state: &mut State, primary: Option<usize>) {
        let now = Instant::now();
        let State { servers, samples, timeline, system, .. } = state;
        let mut shares = Vec::new();
        for (at, server) in servers.iter_mut().enumerate() {
            let Some(report) = server.report.as_ref().filter(|_| server.health == Health::Up) else { continue };
            if !report.in_recovery {
                server.lag = None;
                continue;
            }
            let (covered, lag) = progress(samples, report.replay, now);
            if let Some(slot) = self.covers.get(at) {
                slot.store(covered, Ordering::Release);
            }
            // Without a primary nothing can be measured, and nothing newer can be read anywhere.
            if primary.is_some() {
                server.lag = lag;
            }
            // A position asked for after the replica had answered cannot be before the replica's.
            let later = samples.back().filter(|sample| sample.number > server.asked);
            server.astray |= later.is_some_and(|sample| sample.insert < report.replay);
            let trouble = server.judge(report, (*timeline, system), &self.options);
            server.lagging =
                trouble.is_some() && server.lag.is_some_and(|(behind, _)| behind > self.options.max_lag / 2);
            if server.trouble != trouble {
                match &trouble {
                    Some(trouble) => tracing::warn!(server = server.address, trouble, "no reads for this replica"),
                    None => tracing::info!(server = server.address, "this replica serves reads again"),
                }
                server.trouble = trouble;
            }
            if server.trouble.is_none() && server.weight > 0 && covered > 0 {
                shares.push((at, server.weight));
            }
        }
        let schedule = interleave(&shares);
        if **self.schedule.load() != schedule {
            self.schedule.store(Arc::new(schedule));
        }
    }
}

/// Whom to move once the lock is released.
enum Moved {
    Pool(Arc<Pool>, Failure),
    Waker(Waker),
}

impl Moved {
    fn go(self) {
        match self {
            Self::Pool(pool, failure) => pool.evict(&failure),
            Self::Waker(waker) => waker.wake(),
        }
    }
}

impl Standing {
    /// Why a replica serves no reads.
    fn judge(&self, report: &Report, (timeline, system): (u32, &str), options: &FleetOptions) -> Option<String> {
        if report.serializable {
            return Some("its sessions begin serializable, which replicas cannot serve".to_owned());
        }
        if !system.is_empty() && report.system != system {
            return Some("it belongs to another cluster than the primary".to_owned());
        }
        if report.timeline.is_some_and(|own| own != timeline) {
            return Some("it follows another timeline than the primary's".to_owned());
        }
        if self.astray {
            return Some("it is ahead of the primary, so that it cannot be following it".to_owned());
        }
        let (behind, bytes) = self.lag?;
        // Taken back only when it is well inside, so that it does not come and go.
        let limit = if self.lagging { options.max_lag / 2 } else { options.max_lag };
        (behind > limit).then(|| format!("it is {:.1} s and {bytes} bytes behind", behind.as_secs_f32()))
    }
}

impl State {
    /// Takes what a check found; true when the server is lost by it.
    fn observe(&mut self, server: usize, found: Result<Report, String>, asked: u64) -> bool {
        let Some(standing) = self.servers.get_mut(server) else { return false };
        let health = if found.is_ok() { Health::Up } else { Health::Down };
        let changed = standing.health != health;
        if changed {
            standing.health = health;
            standing.since = Instant::now();
        }
        match found {
            Ok(report) => {
                if changed {
                    tracing::info!(server = standing.address, in_recovery = report.in_recovery, "the server answers");
                    standing.trouble = None;
                    standing.astray = false;
                }
                standing.asked = asked;
                if !report.in_recovery {
                    standing.trouble = None;
                }
                standing.report = Some(report);
                false
            }
            Err(reason) => {
                if changed {
                    tracing::warn!(server = standing.address, reason, "the server is down");
                }
                standing.trouble = Some(reason);
                standing.lag = None;
                changed
            }
        }
    }

    /// The pools of a server, whose waiters are to look for another.
    fn pools_of(&self, server: usize) -> Vec<Moved> {
        let Some(standing) = self.servers.get(server) else { return Vec::new() };
        let reason = standing.trouble.as_deref().unwrap_or("it is not the primary any more");
        let failure = Failure::fatal("08006", format!("the server {} cannot be used: {reason}", standing.address));
        standing.pools.iter().filter_map(Weak::upgrade).map(|pool| Moved::Pool(pool, failure.clone())).collect()
    }

    /// The one server that may be written to, and what is wrong with those that claim to be it.
    fn claimant(&self, current: usize) -> (Option<usize>, String) {
        if current == NOBODY && self.servers.iter().any(|server| server.health == Health::Unknown) {
            return (None, String::new());
        }
        let claims = self.servers.iter().enumerate().filter(|(_, server)| server.health == Health::Up);
        let claims = claims.filter_map(|(at, server)| Some((at, server, server.report.as_ref()?)));
        let mut claims: Vec<_> = claims.filter(|(_, _, report)| !report.in_recovery).collect();
        claims.sort_by_key(|(_, _, report)| report.timeline);
        let Some(&(best, server, report)) = claims.last() else { return (None, String::new()) };
        let timeline = report.timeline.unwrap_or_default();
        let named = |claims: &[(usize, &Standing, &Report)]| {
            let say = |(_, server, report): &(usize, &Standing, &Report)| {
                format!("{} (timeline {})", server.address, report.timeline.unwrap_or_default())
            };
            claims.iter().map(say).collect::<Vec<_>>().join(" and ")
        };
        if !self.system.is_empty() && report.system != self.system {
            return (None, format!("{} belongs to another cluster than the primary before it", server.address));
        }
        let rivals = claims.iter().filter(|(_, _, report)| report.timeline.unwrap_or_default() == timeline).count();
        if rivals > 1 {
            let stays = claims.iter().any(|(at, ..)| *at == current) && timeline == self.timeline;
            let what = if stays { "the one in use stays" } else { "neither is written to" };
            return (stays.then_some(current), format!("{} both claim to be the primary: {what}", named(&claims)));
        }
        if best == current && timeline >= self.timeline || timeline > self.timeline {
            let others = if claims.len() > 1 {
                format!("{} claim to be the primary: the higher timeline is believed", named(&claims))
            } else {
                String::new()
            };
            return (Some(best), others);
        }
        let what = format!(
            "{} claims to be the primary, but is of an older timeline than {}: it is not written to",
            named(&claims),
            self.timeline
        );
        (None, what)
    }

    fn sample(&mut self, sample: Sample) {
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.drain(..MAX_SAMPLES / 2);
        }
        if self.samples.back().is_none_or(|last| last.number < sample.number) {
            self.samples.push_back(sample);
        }
        // What every replica has replayed is needed no more, but for the newest of it.
        let replicas = self.servers.iter().filter(|server| server.health == Health::Up);
        let replayed = replicas.filter_map(|server| server.report.as_ref().filter(|report| report.in_recovery));
        if let Some(least) = replayed.map(|report| report.replay).min() {
            let covered = self.samples.iter().take_while(|sample| sample.insert <= least).count();
            self.samples.drain(..covered.saturating_sub(1));
        }
    }
}

/// The newest check that a replica at `replay` covers (0 for none), and how far it is behind.
fn progress(samples: &VecDeque<Sample>, replay: u64, now: Instant) -> (u64, Option<(Duration, u64)>) {
    let Some(last) = samples.back() else { return (0, None) };
    let nth = |count: usize| count.checked_sub(1).and_then(|at| samples.get(at));
    let written = nth(samples.partition_point(|sample| end_of_record(sample.insert) <= replay));
    let flushed = samples.partition_point(|sample| end_of_record(sample.flush) <= replay);
    let settled = nth(flushed).and_then(|flushed| {
        nth(samples.partition_point(|sample| sample.begun + flushed.flushed_within <= flushed.begun))
    });
    let covered = written.into_iter().chain(settled).map(|sample| sample.number).max();
    let behind = samples.get(flushed).map_or(Duration::ZERO, |sample| now.saturating_duration_since(sample.begun));
    (covered.unwrap_or_default(), Some((behind, last.flush.saturating_sub(replay))))
}

/// A primary's position is where the next record would begin; right behind a page's header, the last one ended before it.
fn end_of_record(position: u64) -> u64 {
    const PAGE: u64 = 8192;
    const HEADER: u64 = 24;
    if position % PAGE == HEADER { position - HEADER } else { position }
}

/// A round in which each server comes as often as its weight, evenly spread.
fn interleave(shares: &[(usize, u32)]) -> Vec<usize> {
    let total: i64 = shares.iter().map(|(_, weight)| i64::from(*weight)).sum();
    let mut credits: Vec<(usize, i64, i64)> = shares.iter().map(|(at, weight)| (*at, i64::from(*weight), 0)).collect();
    let mut round = Vec::new();
    for _ in 0..total {
        credits.iter_mut().for_each(|(_, weight, credit)| *credit += *weight);
        if let Some((at, _, credit)) =
            credits.iter_mut().max_by_key(|(at, _, credit)| (*credit, std::cmp::Reverse(*at)))
        {
            *credit -= total;
            round.push(*at);
        }
    }
    round
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(max_lag: Duration) -> Arc<Fleet> {
        let options = FleetOptions {
            choosing: Choosing::RoundRobin,
            max_lag,
            check_interval: Duration::from_millis(10),
            patience: Duration::ZERO,
        };
        Fleet::new(["a", "b", "c"].map(|address| (address.to_owned(), 1)), options)
    }

    fn primary(insert: u64, timeline: u32) -> Report {
        Report {
            in_recovery: false,
            insert,
            flush: insert,
            replay: 0,
            flushed_within: Duration::from_secs(1),
            timeline: Some(timeline),
            system: "1".to_owned(),
            serializable: false,
        }
    }

    fn replica(replay: u64) -> Report {
        Report { in_recovery: true, replay, timeline: None, ..primary(0, 0) }
    }

    fn note(fleet: &Fleet, server: usize, report: Result<Report, String>) -> u64 {
        let number = fleet.begin();
        fleet.note(server, number, Instant::now(), report);
        number
    }

    #[test]
    fn the_primary_is_found_once_all_were_asked() {
        let fleet = fleet(Duration::from_secs(1));
        note(&fleet, 1, Ok(primary(100, 1)));
        assert_eq!(fleet.primary(), None);
        note(&fleet, 0, Ok(replica(100)));
        note(&fleet, 2, Err("down".to_owned()));
        assert_eq!(fleet.primary(), Some(1));
        assert!(fleet.no_primary().detail.is_some_and(|detail| detail.contains("c: down")));
    }

    #[test]
    fn an_old_primary_is_never_believed_again() {
        let fleet = fleet(Duration::from_secs(1));
        note(&fleet, 0, Ok(primary(100, 1)));
        note(&fleet, 1, Ok(replica(100)));
        note(&fleet, 2, Ok(replica(100)));
        assert_eq!(fleet.primary(), Some(0));
        note(&fleet, 0, Err("down".to_owned()));
        assert_eq!(fleet.primary(), None);
        note(&fleet, 1, Ok(primary(120, 2)));
        assert_eq!(fleet.primary(), Some(1));
        assert!(fleet.was_replaced(0));
        // It comes back, first beside the new one, then alone.
        note(&fleet, 0, Ok(primary(500, 1)));
        assert_eq!(fleet.primary(), Some(1));
        note(&fleet, 1, Err("down".to_owned()));
        assert_eq!(fleet.primary(), None);
        // Two of one timeline: the one in use stays, and neither is taken anew.
        note(&fleet, 1, Ok(primary(130, 2)));
        note(&fleet, 2, Ok(primary(130, 2)));
        assert_eq!(fleet.primary(), Some(1));
        note(&fleet, 1, Ok(replica(130)));
        assert_eq!(fleet.primary(), None, "a timeline that is not newer than the last primary's");
        note(&fleet, 2, Ok(primary(140, 3)));
        assert_eq!(fleet.primary(), Some(2));
    }

    #[test]
    fn another_cluster_is_neither_written_nor_read() {
        let fleet = fleet(Duration::from_secs(1));
        note(&fleet, 1, Ok(replica(100)));
        note(&fleet, 2, Ok(Report { system: "2".to_owned(), ..replica(100) }));
        note(&fleet, 0, Ok(primary(100, 1)));
        note(&fleet, 0, Ok(primary(100, 1)));
        assert_eq!(**fleet.schedule.load(), [1]);
        note(&fleet, 0, Err("down".to_owned()));
        note(&fleet, 2, Ok(Report { system: "2".to_owned(), ..primary(900, 7) }));
        assert_eq!(fleet.primary(), None);
    }

    #[test]
    fn a_write_is_covered_by_what_was_asked_after_it() {
        let fleet = fleet(Duration::from_secs(1));
        note(&fleet, 1, Ok(replica(100)));
        note(&fleet, 2, Ok(replica(100)));
        note(&fleet, 0, Ok(primary(100, 1)));
        assert!(fleet.covers(1, 0));
        // The write ends here; the primary's position is 200 by now, but was not asked for since.
        let mark = fleet.begun();
        assert!(!fleet.covers(1, mark));
        note(&fleet, 1, Ok(replica(150)));
        assert!(!fleet.covers(1, mark));
        note(&fleet, 0, Ok(primary(200, 1)));
        assert!(!fleet.covers(1, mark), "it has replayed 150 of 200");
        note(&fleet, 1, Ok(replica(200)));
        assert!(fleet.covers(1, mark) && !fleet.covers(2, mark));
        // A promotion makes all positions new ones.
        note(&fleet, 2, Ok(primary(10, 2)));
        assert!(fleet.schedule.load().is_empty(), "what it has replayed is no part of the new history");
    }

    #[test]
    fn positions_that_are_not_flushed_yet_are_covered_in_time() {
        let begun = Instant::now();
        let sample = |number, millis, insert, flush| Sample {
            number,
            begun: begun + Duration::from_millis(millis),
            insert,
            flush,
            flushed_within: Duration::from_millis(800),
        };
        let samples = VecDeque::from([sample(1, 0, 110, 100), sample(2, 500, 110, 100), sample(3, 900, 110, 100)]);
        let (covered, lag) = progress(&samples, 100, begun + Duration::from_secs(1));
        assert_eq!((covered, lag), (1, Some((Duration::ZERO, 0))));
        assert_eq!(progress(&samples, 110, begun).0, 3);
        let (covered, lag) = progress(&samples, 99, begun + Duration::from_secs(1));
        assert_eq!((covered, lag), (0, Some((Duration::from_secs(1), 1))));
        assert_eq!(end_of_record(8192 + 24), 8192);
        assert_eq!(end_of_record(8192 + 40), 8192 + 40);
    }

    #[test]
    fn a_replica_that_went_astray_is_left_out() {
        let fleet = fleet(Duration::from_secs(1));
        note(&fleet, 1, Ok(replica(200)));
        note(&fleet, 2, Ok(replica(300)));
        note(&fleet, 0, Ok(primary(200, 1)));
        assert_eq!(**fleet.schedule.load(), [1]);
        note(&fleet, 0, Ok(primary(400, 1)));
        note(&fleet, 2, Ok(replica(300)));
        assert!(!fleet.schedule.load().contains(&2), "it is not believed because the numbers fit now");
    }

    #[test]
    fn shares_are_spread_evenly() {
        assert_eq!(interleave(&[(1, 1), (2, 1)]), [1, 2]);
        assert_eq!(interleave(&[(1, 3), (2, 1)]), [1, 1, 2, 1]);
        assert_eq!(interleave(&[]), Vec::<usize>::new());
    }
}
