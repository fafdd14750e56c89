//! How long a client may take: idle, idle in a transaction, for a query, for a transaction.
//!
//! No clock is read for it and no timer set while queries run. A session writes down what it is doing
//! ([`Pulse::beat`], one number, when that has changed), and a few times a second one worker compares the number with the one it
//! saw before ([`Pulse::check`]): as long as it is the same, the client has been at it since then. An order that comes of it
//! names the number it was given for, so that a session that has moved on meanwhile does not heed it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Limits;
use crate::wire::message::Failure;

/// How long after a query was cancelled its client is given up, where no answer has come.
const GRACE: Duration = Duration::from_secs(10);
/// Bits of a beat below the transaction's number.
const BELOW: u32 = 32;

/// What a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing, outside a transaction.
    Resting = 0,
    /// It waits for a server connection.
    Waiting = 1,
    /// A server works for it.
    Running = 2,
    /// Nothing, inside a transaction.
    Holding = 3,
}

impl Phase {
    fn of(beat: u64) -> Self {
        match beat & 3 {
            0 => Self::Resting,
            1 => Self::Waiting,
            2 => Self::Running,
            _ => Self::Holding,
        }
    }
}

/// A limit that a client has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// `limits.client_idle_timeout`.
    Idle = 1,
    /// `limits.idle_in_transaction_timeout`.
    Holding = 2,
    /// `limits.transaction_timeout`.
    Transaction = 3,
    /// `limits.query_timeout`: the query is cancelled.
    Query = 4,
    /// The same, and cancelling it has not helped.
    Stuck = 5,
    /// No limit: others wait for it and it for them, on several shards. The query is cancelled.
    Deadlock = 6,
}

impl Over {
    /// What the client is told.
    pub fn failure(self) -> Failure {
        match self {
            Self::Idle => Failure::fatal("57P05", "the client was idle for longer than limits.client_idle_timeout"),
            Self::Holding => {
                let what = "the transaction was idle for longer than limits.idle_in_transaction_timeout";
                Failure::fatal("25P03", what).hint("the transaction is rolled back; connect again")
            }
            Self::Transaction => {
                let what = "the transaction took longer than limits.transaction_timeout";
                Failure::fatal("25P04", what).hint("the transaction is rolled back; connect again")
            }
            Self::Query => Failure::error("57014", "the statement took longer than limits.query_timeout"),
            Self::Deadlock => Failure::error("40P01", "deadlock detected")
                .detail("Transactions on several shards wait for each other; this one was chosen to give way.")
                .hint(
                    "Run the transaction again. Transactions that lock rows in the same order do not meet like this.",
                ),
            Self::Stuck => {
                let what = "the statement took longer than limits.query_timeout and could not be cancelled";
                Failure::fatal("57014", what)
            }
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Idle, Self::Holding, Self::Transaction, Self::Query, Self::Stuck, Self::Deadlock]
            .into_iter()
            .find(|over| *over as u8 == code)
    }
}

/// What one client is doing, and since when as far as is known.
#[derive(Debug)]
pub struct Pulse {
    /// Written by the session: the number of its transaction, how many answers it had, its phase.
    beat: AtomicU64,
    /// Written by whoever checks, as is all that follows: the beat of the last look, since when it is the same and since when
    /// its transaction is, in milliseconds.
    seen: AtomicU64,
    since: AtomicU64,
    began: AtomicU64,
    /// The beat for which there is an order, and the order.
    ordered: AtomicU64,
    order: AtomicU8,
}

impl Default for Pulse {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let never = AtomicU64::new(u64::MAX);
        Self {
            beat: zero(),
            seen: AtomicU64::new(u64::MAX),
            since: zero(),
            began: zero(),
            ordered: never,
            order: 0.into(),
        }
    }
}

impl Pulse {
    /// Notes what the client is doing, after so many answers.
    #[inline]
    pub fn beat(&self, phase: Phase, answered: u32) {
        let before = self.beat.load(Ordering::Relaxed);
        let leaves = phase == Phase::Resting && Phase::of(before) != Phase::Resting;
        let transaction = (before >> BELOW) as u32;
        let transaction = transaction.wrapping_add(u32::from(leaves));
        let now = u64::from(transaction) << BELOW | u64::from(answered & 0x3fff_ffff) << 2 | phase as u64;
        if now != before {
            self.beat.store(now, Ordering::Relaxed);
        }
    }

    /// The limit that the client has reached by doing what it still does.
    #[inline]
    pub fn order(&self) -> Option<Over> {
        if self.ordered.load(Ordering::Acquire) != self.beat.load(Ordering::Relaxed) {
            return None;
        }
        Over::of(self.order.load(Ordering::Relaxed))
    }

    /// What the client does, as a number that changes with it, while a server works for it.
    pub fn running(&self) -> Option<u64> {
        let beat = self.beat.load(Ordering::Relaxed);
        (Phase::of(beat) == Phase::Running).then_some(beat)
    }

    /// Gives an order to a client that does what it did at that beat; false when it does so no more.
    pub fn give(&self, beat: u64, over: Over) -> bool {
        self.order.store(over as u8, Ordering::Relaxed);
        self.ordered.store(beat, Ordering::Release);
        self.beat.load(Ordering::Relaxed) == beat
    }

    /// Looks at the client, at this time in milliseconds; true when there is an order that it has to be woken for.
    pub fn check(&self, now: u64, limits: &Limits) -> bool {
        let beat = self.beat.load(Ordering::Relaxed);
        let seen = self.seen.swap(beat, Ordering::Relaxed);
        if seen != beat {
            self.since.store(now, Ordering::Relaxed);
            if seen >> BELOW != beat >> BELOW || Phase::of(seen) == Phase::Resting {
                self.began.store(now, Ordering::Relaxed);
            }
        }
        let age = |since: &AtomicU64| Duration::from_millis(now.saturating_sub(since.load(Ordering::Relaxed)));
        let (step, whole) = (age(&self.since), age(&self.began));
        let beyond = |limit: Duration, age: Duration| !limit.is_zero() && age >= limit;
        let over = match Phase::of(beat) {
            Phase::Resting if beyond(limits.client_idle_timeout, step) => Over::Idle,
            Phase::Holding if beyond(limits.idle_in_transaction_timeout, step) => Over::Holding,
            Phase::Running | Phase::Holding if beyond(limits.transaction_timeout, whole) => Over::Transaction,
            Phase::Running if beyond(limits.query_timeout, step) => {
                if step >= limits.query_timeout + GRACE {
                    Over::Stuck
                } else {
                    Over::Query
                }
            }
            _ => return false,
        };
        let told = self.ordered.load(Ordering::Relaxed) == beat && self.order.load(Ordering::Relaxed) == over as u8;
        self.order.store(over as u8, Ordering::Relaxed);
        self.ordered.store(beat, Ordering::Release);
        !told
    }
}

/// Whether any limit is set that needs looking at clients.
pub fn is_needed(limits: &Limits) -> bool {
    let timeouts = [
        limits.client_idle_timeout,
        limits.idle_in_transaction_timeout,
        limits.transaction_timeout,
        limits.query_timeout,
    ];
    timeouts.iter().any(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(more: &str) -> Limits {
        let text = format!(
            "users: {{a: {{password: b}}}}\ndatabases: {{a: {{primary: \"postgres://h/x\"}}}}\nlimits: {{{more}}}\n"
        );
        crate::config::parse(&text, "test").unwrap().limits
    }

    #[test]
    fn whoever_does_the_same_for_too_long_is_told() {
        let limits = limits("idle_in_transaction_timeout: 5s, query_timeout: 2s");
        let pulse = Pulse::default();
        assert!(!pulse.check(0, &limits) && !pulse.check(100_000, &limits), "nobody minds who rests");
        pulse.beat(Phase::Running, 0);
        assert!(!pulse.check(100_000, &limits) && !pulse.check(101_900, &limits));
        // Another query, of the same kind.
        pulse.beat(Phase::Running, 1);
        assert!(!pulse.check(102_000, &limits) && !pulse.check(103_900, &limits));
        assert!(pulse.check(104_000, &limits));
        assert_eq!(pulse.order(), Some(Over::Query));
        assert!(!pulse.check(104_250, &limits), "once is enough");
        assert!(pulse.check(114_000, &limits), "until it is given up");
        assert_eq!(pulse.order(), Some(Over::Stuck));
        pulse.beat(Phase::Holding, 2);
        assert_eq!(pulse.order(), None, "it was meant for what the client did then");
        assert!(!pulse.check(114_250, &limits) && !pulse.check(119_000, &limits));
        assert!(pulse.check(119_250, &limits));
        assert_eq!(pulse.order(), Some(Over::Holding));
    }

    #[test]
    fn a_transaction_is_measured_as_a_whole() {
        let limits = limits("transaction_timeout: 5s");
        let pulse = Pulse::default();
        pulse.check(0, &limits);
        for second in 1..=5 {
            pulse.beat(Phase::Running, second as u32);
            assert!(!pulse.check(1000 * second, &limits));
            pulse.beat(Phase::Holding, second as u32);
            assert!(!pulse.check(1000 * second + 500, &limits));
        }
        assert!(pulse.check(6000, &limits));
        assert_eq!(pulse.order(), Some(Over::Transaction));

        let pulse = Pulse::default();
        for second in 1..=20 {
            // One after the other, and never seen at rest.
            pulse.beat(Phase::Running, second as u32);
            assert!(!pulse.check(1000 * second, &limits));
            pulse.beat(Phase::Resting, second as u32);
        }
    }
}
