//! What one worker counts in one place.

use crate::proxy::meter::histogram::Tick;
use crate::workload::{LOOP_LENGTH, Latency};

/// Numbers of one place on one worker.
#[derive(Debug, Default)]
pub(super) struct Row {
    calls: Tick,
    nanos: Tick,
    rows: Tick,
    errors: Tick,
    latency: [Tick; Latency::BUCKETS],
    loops: Tick,
    longest_run: Tick,
    idles: Tick,
    longest_idle: Tick,
}

/// A template's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// How often it ran.
    pub calls: u64,
    /// How long it took in all, in nanoseconds.
    pub nanos: u64,
    /// Rows it gave or changed.
    pub rows: u64,
    /// How often it failed.
    pub errors: u64,
}

/// What sessions made of a template.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traits {
    /// Loops it ran in, and the longest.
    pub loops: u64,
    pub longest_run: u64,
    /// Transactions that stood idle after it, and for how long at most, in nanoseconds.
    pub idles: u64,
    pub longest_idle: u64,
}

impl Numbers {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            nanos: self.nanos + other.nanos,
            rows: self.rows + other.rows,
            errors: self.errors + other.errors,
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(other.calls),
            nanos: self.nanos.saturating_sub(other.nanos),
            rows: self.rows.saturating_sub(other.rows),
            errors: self.errors.saturating_sub(other.errors),
        }
    }
}

impl Traits {
    /// What may make rules see it with other eyes when it changes.
    pub fn tells(self) -> (bool, u64) {
        (self.loops > 0, self.longest_idle / 1_000_000_000)
    }
}

impl Row {
    /// Counts executions that took so long together, each as long as the others.
    #[inline]
    pub fn add(&self, numbers: Numbers) {
        self.calls.add(numbers.calls);
        self.nanos.add(numbers.nanos);
        if let Some(tick) = self.latency.get(Latency::bucket(numbers.nanos)) {
            tick.add(numbers.calls);
        }
        if numbers.rows > 0 {
            self.rows.add(numbers.rows);
        }
        if numbers.errors > 0 {
            self.errors.add(numbers.errors);
        }
    }

    /// Counts the `run`th execution in a row.
    pub fn looped(&self, run: u32) {
        self.loops.add(u64::from(run == LOOP_LENGTH));
        self.longest_run.raise(run.into());
    }

    /// Counts a pause in a transaction.
    pub fn idled(&self, nanos: u64) {
        self.idles.add(1);
        self.longest_idle.raise(nanos);
    }

    /// The place goes to another template.
    pub fn forget_traits(&self) {
        [&self.loops, &self.longest_run, &self.idles, &self.longest_idle].into_iter().for_each(Tick::reset);
    }

    pub fn numbers(&self) -> Numbers {
        Numbers { calls: self.calls.get(), nanos: self.nanos.get(), rows: self.rows.get(), errors: self.errors.get() }
    }

    pub fn add_to(&self, latency: &mut [u64; Latency::BUCKETS], traits: &mut Traits) {
        latency.iter_mut().zip(&self.latency).for_each(|(sum, tick)| *sum += tick.get());
        traits.loops += self.loops.get();
        traits.idles += self.idles.get();
        traits.longest_run = traits.longest_run.max(self.longest_run.get());
        traits.longest_idle = traits.longest_idle.max(self.longest_idle.get());
    }
}
