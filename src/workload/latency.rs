//! How often something took how long, in few numbers: each limit is twice the one before.

use serde::{Deserialize, Serialize};

/// The first limit, as a power of two of nanoseconds: 66 microseconds.
const FIRST_BITS: u32 = 16;
/// Limits, and what is longer than the last one (17 seconds).
const BUCKETS: usize = 20;

/// Counts by duration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latency {
    /// Empty, or one for each of [`BUCKETS`].
    counts: Vec<u64>,
}

impl Latency {
    /// How many counts there are.
    pub const BUCKETS: usize = BUCKETS;

    /// Which count is for a duration.
    #[inline]
    pub fn bucket(nanos: u64) -> usize {
        let units = nanos >> FIRST_BITS;
        if units == 0 { 0 } else { (units.ilog2() as usize + 1).min(BUCKETS - 1) }
    }

    /// What was counted elsewhere, in order.
    pub fn of(counts: impl IntoIterator<Item = u64>) -> Self {
        Self { counts: counts.into_iter().take(BUCKETS).collect() }
    }

    /// Notes a duration in milliseconds.
    pub(super) fn note(&mut self, milliseconds: f64) {
        if self.counts.len() < BUCKETS {
            self.counts.resize(BUCKETS, 0);
        }
        if let Some(count) = self.counts.get_mut(Self::bucket((milliseconds * 1e6) as u64)) {
            *count += 1;
        }
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len().min(BUCKETS) {
            self.counts.resize(other.counts.len().min(BUCKETS), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, theirs)| *own += theirs);
    }

    /// Without those that were counted before.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        self.counts.iter_mut().zip(&before.counts).for_each(|(own, theirs)| *own = own.saturating_sub(*theirs));
        self
    }

    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// What took up to so many milliseconds, and how often, shortest first; the last one took that long or longer.
    pub fn steps(&self) -> impl Iterator<Item = (f64, u64)> {
        self.counts.iter().enumerate().map(|(at, count)| (limit(at), *count))
    }

    /// What was between the shortest and the longest, in milliseconds.
    pub fn bounds(&self) -> (f64, f64) {
        let used = |at: &usize| self.counts.get(*at).is_some_and(|count| *count > 0);
        let first = (0..self.counts.len()).find(used).unwrap_or_default();
        let last = (0..self.counts.len()).rev().find(used);
        (if first == 0 { 0.0 } else { limit(first - 1) }, last.map_or(0.0, limit))
    }

    /// What so large a part of them (0 to 1) was not longer than, in milliseconds, rounded up to a limit.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let all: u64 = self.counts.iter().sum();
        let wanted = (all as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.steps().find_map(|(limit, count)| {
            seen += count;
            (all > 0 && seen >= wanted).then_some(limit)
        })
    }
}

/// The limit of a count, in milliseconds.
fn limit(bucket: usize) -> f64 {
    (1u64 << FIRST_BITS << bucket.min(BUCKETS - 1)) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_below_their_limit_and_not_below_the_one_before() {
        for nanos in [0, 1, 65_535, 65_536, 131_071, 131_072, 999_999, 5_000_000_000] {
            let at = Latency::bucket(nanos);
            assert!((nanos as f64) < limit(at) * 1e6, "{nanos}");
            assert!(at == 0 || nanos as f64 >= limit(at - 1) * 1e6, "{nanos}");
        }
        assert_eq!(Latency::bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_bounds_follow_the_counts() {
        let mut latency = Latency::default();
        assert_eq!((latency.quantile(0.5), latency.bounds(), latency.is_empty()), (None, (0.0, 0.0), true));
        (0..99).for_each(|_| latency.note(1.0));
        latency.note(100.0);
        let near = |value: Option<f64>, wanted: f64| value.is_some_and(|it| it >= wanted && it <= wanted * 2.2);
        assert!(near(latency.quantile(0.5), 1.0) && near(latency.quantile(0.99), 1.0));
        assert!(near(latency.quantile(1.0), 100.0), "{:?}", latency.quantile(1.0));
        let mut both = Latency::of([5]);
        both.merge(&latency);
        assert_eq!(both.steps().map(|(_, count)| count).sum::<u64>(), 105);
        assert_eq!(both.bounds().0, 0.0);
    }
}
