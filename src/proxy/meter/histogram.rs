//! Times in log-linear buckets: each is at most a quarter longer than the one before.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread changes and others read. Adding takes no lock and no locked instruction.
#[derive(Debug, Default)]
pub struct Tick(AtomicU64);

impl Tick {
    /// Adds; on the thread that owns it.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Makes it no less than this; on the thread that owns it.
    pub fn raise(&self, least: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).max(least), Ordering::Relaxed);
    }

    /// Makes it 0. What its owner adds meanwhile may be lost.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The shortest bucket is 2^8 = 256 nanoseconds wide.
const UNIT_BITS: u32 = 8;
/// Buckets that are one unit wide.
const LINEAR: usize = 8;
/// Four to each power of two from there on.
const STEPS: usize = 4;
/// The largest power of two, in units: 2^33 of 256 ns are 36 minutes. Longer times count as that long.
const MAX_POWER: usize = 33;
const BUCKETS: usize = LINEAR + (MAX_POWER - 2) * STEPS;

/// Powers of two, in units, that [`Histogram::below`] is asked for by those who show it: 1 microsecond to 69 seconds.
pub const SHOWN: std::ops::RangeInclusive<u32> = 2..=28;

/// How often something took how long.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Tick; BUCKETS]>,
    nanos: Tick,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new(std::array::from_fn(|_| Tick::default())), nanos: Tick::default() }
    }
}

fn bucket(nanos: u64) -> usize {
    let units = nanos >> UNIT_BITS;
    if units < LINEAR as u64 {
        return units as usize;
    }
    let power = units.ilog2() as usize;
    if power > MAX_POWER {
        return BUCKETS - 1;
    }
    let step = (units >> (power - 2)) as usize & (STEPS - 1);
    LINEAR + (power - 3) * STEPS + step
}

impl Histogram {
    /// Notes that something took so long, `count` times; on the thread that owns it.
    #[inline]
    pub fn record(&self, nanos: u64, count: u64) {
        if let Some(bucket) = self.buckets.get(bucket(nanos)) {
            bucket.add(count);
        }
        self.nanos.add(nanos.wrapping_mul(count));
    }

    /// Adds what is here to `sum`.
    pub fn add_to(&self, sum: &mut Counted) {
        for (bucket, sum) in self.buckets.iter().zip(&mut sum.buckets) {
            *sum += bucket.get();
        }
        sum.nanos += self.nanos.get();
    }
}

/// Histograms of several threads, added up.
#[derive(Debug, Clone)]
pub struct Counted {
    buckets: Vec<u64>,
    /// All times together.
    pub nanos: u64,
}

impl Default for Counted {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], nanos: 0 }
    }
}

impl Counted {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How many were shorter than 2^`power` units, and how long that is in seconds.
    pub fn below(&self, power: u32) -> (u64, f64) {
        let units = 1u64 << power;
        let count = self.buckets.iter().take(bucket(units << UNIT_BITS)).sum();
        (count, (units << UNIT_BITS) as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_by_a_quarter_and_miss_nothing() {
        assert_eq!((bucket(0), bucket(255), bucket(256), bucket(7 << 8)), (0, 0, 1, 7));
        let mut last = (0, 0u64);
        for nanos in (0..100_000u64).chain((17..60).map(|bits| 1 << bits)) {
            let at = bucket(nanos);
            assert!(at >= last.0 && at < BUCKETS, "{nanos}");
            if at > last.0 && nanos < 100_000 {
                assert_eq!(at, last.0 + 1, "{nanos}");
                assert!(nanos <= 2048 || nanos as f64 <= last.1 as f64 * 1.26, "{nanos} after {}", last.1);
                last = (at, nanos);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_is_below_a_limit_is_counted() {
        let histogram = Histogram::default();
        histogram.record(1_000, 2);
        histogram.record(1_100, 1);
        histogram.record(3_000_000_000, 1);
        let mut sum = Counted::default();
        histogram.add_to(&mut sum);
        histogram.add_to(&mut sum);
        assert_eq!((sum.count(), sum.nanos), (8, 2 * 3_000_003_100));
        assert_eq!(sum.below(2), (4, 1.024e-6));
        assert_eq!(sum.below(3).0, 6);
        assert_eq!(sum.below(23).0, 6);
        assert_eq!(sum.below(24).0, 8);
    }
}
