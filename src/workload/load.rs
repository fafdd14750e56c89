//! How many statements ran when, and how long: the load over the source's time, in a bounded number of steps.

use serde::{Deserialize, Serialize};

/// Most steps; when there would be more, each becomes twice as long.
const MOST: usize = 240;
/// The shortest step, in milliseconds.
const FINEST_MS: i64 = 1000;

/// Statements and their time by steps of equal length. Times may come in any order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// When the first step begins, in milliseconds of the source's clock.
    pub start_ms: i64,
    /// How long a step is, in milliseconds; 0 while there is none.
    pub width_ms: i64,
    /// Of each step the statements and their milliseconds.
    pub steps: Vec<(u64, f64)>,
    /// The step of the last statement, and when it begins and ends.
    #[serde(skip)]
    last: usize,
    #[serde(skip)]
    within: (i64, i64),
}

impl Load {
    /// Nothing that ran had a time.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Counts a statement.
    #[inline]
    pub fn note(&mut self, at_ms: i64, duration_ms: Option<f64>) {
        // Most are within the step of the one before.
        if at_ms < self.within.0 || at_ms >= self.within.1 {
            self.last = self.step_of(at_ms);
            let begins = self.start_ms + self.width_ms * self.last as i64;
            self.within = (begins, begins + self.width_ms);
        }
        if let Some(step) = self.steps.get_mut(self.last) {
            step.0 += 1;
            step.1 += duration_ms.unwrap_or_default();
        }
    }

    /// Adds the time of a statement that was counted before; to the last one's step, as it has not been long since.
    pub fn took(&mut self, milliseconds: f64) {
        if let Some(step) = self.steps.get_mut(self.last) {
            step.1 += milliseconds;
        }
    }

    /// Adds another source's.
    pub fn merge(&mut self, other: &Self) {
        while self.width_ms > 0 && self.width_ms < other.width_ms {
            self.double();
        }
        for (at, (statements, milliseconds)) in (0i64..).zip(&other.steps) {
            let step = self.step_of(other.start_ms + at * other.width_ms);
            if let Some(step) = self.steps.get_mut(step) {
                step.0 += statements;
                step.1 += milliseconds;
            }
        }
        (self.last, self.within) = (0, (0, 0));
    }

    /// The step of a time, which is made where there is none.
    fn step_of(&mut self, at_ms: i64) -> usize {
        if self.steps.is_empty() {
            self.width_ms = self.width_ms.max(FINEST_MS);
            self.start_ms = at_ms - at_ms.rem_euclid(self.width_ms);
            self.steps.push((0, 0.0));
        }
        loop {
            let first = at_ms.min(self.start_ms).div_euclid(self.width_ms);
            let last = (at_ms.div_euclid(self.width_ms))
                .max(self.start_ms.div_euclid(self.width_ms) + self.steps.len() as i64 - 1);
            if (last - first) < MOST as i64 {
                let missing = (self.start_ms.div_euclid(self.width_ms) - first).max(0);
                self.steps.splice(0..0, std::iter::repeat_n((0, 0.0), missing as usize));
                self.start_ms -= missing * self.width_ms;
                let at = ((at_ms - self.start_ms) / self.width_ms) as usize;
                if self.steps.len() <= at {
                    self.steps.resize(at + 1, (0, 0.0));
                }
                return at;
            }
            self.double();
        }
    }

    /// Makes steps twice as long.
    fn double(&mut self) {
        let width = self.width_ms * 2;
        let start = self.start_ms - self.start_ms.rem_euclid(width);
        let mut steps: Vec<(u64, f64)> = Vec::with_capacity(self.steps.len() / 2 + 1);
        for (at, (statements, milliseconds)) in (0i64..).zip(&self.steps) {
            let step = ((self.start_ms + at * self.width_ms - start) / width) as usize;
            if steps.len() <= step {
                steps.resize(step + 1, (0, 0.0));
            }
            if let Some(step) = steps.get_mut(step) {
                step.0 += statements;
                step.1 += milliseconds;
            }
        }
        (self.start_ms, self.width_ms, self.steps) = (start, width, steps);
        (self.last, self.within) = (0, (0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(load: &Load) -> (u64, f64) {
        load.steps.iter().fold((0, 0.0), |sum, step| (sum.0 + step.0, sum.1 + step.1))
    }

    #[test]
    fn steps_grow_with_the_time_that_is_covered() {
        let mut load = Load::default();
        assert!(load.is_empty());
        for second in 0..200 {
            load.note(5_000_000 + second * 1000, Some(2.0));
        }
        assert_eq!((load.start_ms, load.width_ms, load.steps.len(), sum(&load)), (5_000_000, 1000, 200, (200, 400.0)));
        // A day later, and before all others.
        load.note(5_000_000 + 86_400_000, None);
        load.took(7.0);
        load.note(4_000_123, Some(1.0));
        assert!(load.steps.len() <= MOST && load.width_ms == 512_000, "{load:?}");
        assert_eq!((sum(&load), load.steps.first().unwrap().0), ((202, 408.0), 1));
        assert_eq!(load.start_ms % load.width_ms, 0);
        assert_eq!(load.steps.last(), Some(&(1, 7.0)));
    }

    #[test]
    fn sources_are_put_together_whatever_their_steps() {
        let (mut one, mut other) = (Load::default(), Load::default());
        (0..10).for_each(|at| one.note(at * 1000, Some(1.0)));
        (0..10).for_each(|at| other.note(at * 100_000, Some(1.0)));
        let (mut both, mut again) = (one.clone(), other.clone());
        both.merge(&other);
        again.merge(&one);
        assert_eq!((sum(&both), both.steps.clone()), ((20, 20.0), again.steps.clone()));
        assert_eq!((both.width_ms, both.start_ms), (again.width_ms, again.start_ms));
        let mut none = Load::default();
        none.merge(&one);
        assert_eq!(none.steps, one.steps);
        one.merge(&Load::default());
        assert_eq!(none.steps, one.steps);
    }
}
