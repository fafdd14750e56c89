//! When the query under way began, and what it waited for.

use std::sync::OnceLock;
use std::time::Instant;

use crate::proxy::meter::Counters;

/// Of how many queries one has the proxy's own time measured, which takes two more looks at the clock.
pub const SAMPLE: u32 = 64;

/// Nanoseconds since the process looked first; never 0.
#[inline]
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    start.elapsed().as_nanos() as u64 + 1
}

/// The times of one session. 0 stands for what is not under way.
#[derive(Debug, Default)]
pub struct Timing {
    /// The query's first byte.
    began: u64,
    /// The transaction's server connection was assigned.
    assigned: u64,
    /// The wait for one began.
    asked: u64,
    /// How long this query waited.
    waited: u64,
    /// This one's own time is measured: so much so far.
    own: Option<u64>,
}

impl Timing {
    /// Whether no query is under way.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.began == 0
    }

    /// A query begins, the `count`th of its worker.
    #[inline]
    pub fn begin(&mut self, now: u64, count: u32) {
        self.began = now;
        self.waited = 0;
        self.own = count.is_multiple_of(SAMPLE).then_some(0);
    }

    /// It was none after all.
    #[inline]
    pub fn cancel(&mut self) {
        self.began = 0;
    }

    /// The query has to wait for a server connection.
    pub fn wait(&mut self, now: u64) {
        self.asked = now;
        // The wait is not the proxy's own time, and it is not worth more looks at the clock.
        self.own = None;
    }

    /// A server connection was assigned.
    #[inline]
    pub fn assign(&mut self, counters: Option<&Counters>) {
        self.assigned = self.began;
        if self.asked > 0 {
            self.assigned = now();
            self.waited = self.assigned.saturating_sub(self.asked);
            self.asked = 0;
            if let Some(counters) = counters {
                counters.wait.record(self.waited, 1);
            }
        }
        if let Some(counters) = counters {
            counters.assignments.add(1);
        }
    }

    /// Whether this query's own time is measured.
    #[inline]
    pub fn is_sampled(&self) -> bool {
        self.own.is_some()
    }

    /// The proxy has worked on the query until now, since `from` or since it began.
    pub fn worked(&mut self, from: Option<u64>) {
        let from = from.unwrap_or(self.began);
        if let Some(own) = &mut self.own {
            *own += now().saturating_sub(from);
        }
    }

    /// So many queries were answered and transactions ended; `more` are under way. Gives the time they took on the server, and
    /// what time it is.
    #[inline]
    pub fn answered(&mut self, (queries, transactions): (u64, u64), more: bool, counters: &Counters) -> (u64, u64) {
        let now = now();
        let each = now.saturating_sub(self.began) / queries.max(1);
        let on_server = now.saturating_sub(self.began).saturating_sub(self.waited);
        counters.client.record(each, queries);
        counters.server.record(on_server / queries.max(1), queries);
        if transactions > 0 {
            counters.transaction_nanos.add(now.saturating_sub(self.assigned));
            self.assigned = now;
        }
        if let Some(own) = self.own.take() {
            counters.own.record(own, 1);
        }
        self.waited = 0;
        self.began = if more { now } else { 0 };
        (on_server, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::meter::Meter;

    #[test]
    fn the_wait_is_not_the_servers() {
        let meter = Meter::new("app", 1, None);
        let counters = meter.at(0);
        let mut timing = Timing::default();
        let start = now();
        timing.begin(start, 1);
        timing.wait(start);
        std::thread::sleep(std::time::Duration::from_millis(20));
        timing.assign(counters);
        let (on_server, _) = timing.answered((1, 1), false, counters.unwrap());
        assert!(timing.is_idle() && on_server < 15_000_000, "{on_server}");
        let totals = meter.totals();
        assert!(totals.client.nanos >= 20_000_000 && totals.wait.nanos >= 20_000_000);
        assert_eq!((totals.client.count(), totals.server.count(), totals.own.count()), (1, 1, 0));
        assert!(totals.transaction_nanos < 15_000_000);
    }

    #[test]
    fn one_in_many_is_measured_closely() {
        let meter = Meter::new("app", 1, None);
        let mut timing = Timing::default();
        for count in 0..2 * SAMPLE {
            timing.begin(now(), count);
            timing.assign(meter.at(0));
            if timing.is_sampled() {
                timing.worked(None);
                timing.worked(Some(now()));
            }
            timing.answered((1, 1), false, meter.at(0).unwrap());
        }
        let totals = meter.totals();
        assert_eq!((totals.client.count(), totals.own.count(), totals.assignments), (128, 2, 128));
    }
}
