//! Growing, swapping and pruning a set of indexes.

use std::collections::BTreeSet;

use super::model::{CostFailure, Options, Statement};
use super::whatif::{Set, WhatIf};
use crate::error::Result;

/// How often all swaps are tried.
const SWAP_PASSES: usize = 3;
/// A swap must bring this share of the workload's cost: less is noise and would only churn.
const MIN_SWAP_GAIN: f64 = 0.0005;

/// A set of indexes and what the workload costs under it.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// What is chosen.
    pub set: Set,
    /// Cost of one call of each statement.
    pub costs: Vec<f64>,
    /// Their sum, times calls.
    pub total: f64,
    /// Bytes of the set.
    pub bytes: u64,
}

/// What one index of a set is worth.
#[derive(Debug, Clone)]
pub(super) struct Worth {
    /// Cost of its users without it, times calls.
    pub before: f64,
    /// The same with it.
    pub after: f64,
    /// Statements whose plans use it, largest gain first.
    pub users: Vec<usize>,
}

/// A change of a set.
struct Move {
    add: usize,
    remove: Vec<usize>,
    gain: f64,
    bytes: u64,
}

pub(super) struct Chooser<'a> {
    pub what_if: WhatIf<'a>,
    statements: &'a [Statement],
    options: &'a Options,
    base: Vec<Option<f64>>,
    /// The workload's cost today.
    today: f64,
    /// Pool positions worth trying, in the order of their definitions.
    picked: Vec<usize>,
    /// Size by pool position; 0 for what was not picked.
    sizes: Vec<u64>,
    /// Statements that can see a pool member.
    seen_by: Vec<Vec<usize>>,
    /// Bytes of all tables of the workload.
    table_bytes: f64,
}

impl<'a> Chooser<'a> {
    /// Sizes everything picked; what the model cannot size is left out.
    pub fn new(
        mut what_if: WhatIf<'a>,
        statements: &'a [Statement],
        options: &'a Options,
        base: &[Option<f64>],
        picked: &Set,
        table_bytes: f64,
    ) -> Result<Self> {
        let mut sizes = vec![0; what_if.pool.len()];
        let mut seen_by = vec![Vec::new(); what_if.pool.len()];
        let mut kept = Vec::new();
        for index in picked.iter() {
            let size = match what_if.size(index) {
                Ok(size) => size,
                Err(CostFailure::Fatal(error)) => return Err(error),
                Err(_) => None,
            };
            if let (Some(size), Some(slot), Some(seen)) = (size, sizes.get_mut(index), seen_by.get_mut(index)) {
                *slot = size;
                *seen = (0..statements.len())
                    .filter(|at| base.get(*at).is_some_and(Option::is_some) && what_if.sees(*at, index))
                    .collect();
                kept.push(index);
            }
        }
        kept.sort_by(|a, b| what_if.pool.get(*a).cmp(&what_if.pool.get(*b)));
        let today = statements.iter().zip(base).map(|(statement, base)| statement.calls * base.unwrap_or(0.0)).sum();
        Ok(Self { what_if, statements, options, base: base.to_vec(), today, picked: kept, sizes, seen_by, table_bytes })
    }

    /// No index chosen.
    pub fn start(&self) -> State {
        let costs: Vec<f64> = self.base.iter().map(|base| base.unwrap_or(0.0)).collect();
        let total = costs.iter().enumerate().map(|(at, cost)| cost * self.calls(at)).sum();
        State { set: Set::default(), costs, total, bytes: 0 }
    }

    /// Grows from nothing, prunes, swaps, and fills what that freed.
    pub fn choose(&mut self, by_byte: bool) -> Result<State> {
        let grown = self.grow(self.start(), by_byte)?;
        let mut best = self.prune(grown)?;
        for _ in 0..SWAP_PASSES {
            let before = self.burden(&best);
            best = self.swap(best)?;
            best = self.grow(best, by_byte)?;
            best = self.prune(best)?;
            if self.burden(&best) >= before {
                break;
            }
        }
        Ok(best)
    }

    /// The size of a picked index.
    pub fn bytes(&self, index: usize) -> u64 {
        self.sizes.get(index).copied().unwrap_or(0)
    }

    fn calls(&self, statement: usize) -> f64 {
        self.statements.get(statement).map_or(0.0, |statement| statement.calls)
    }

    /// Cost of one call; a statement that fails only under this set counts as unhelped.
    fn cost(&mut self, statement: usize, set: &Set) -> Result<f64> {
        match self.what_if.price(statement, set) {
            Ok((cost, _)) => Ok(cost),
            Err(CostFailure::Fatal(error)) => Err(error),
            Err(_) => Ok(self.base.get(statement).copied().flatten().unwrap_or(0.0)),
        }
    }

    /// Statements whose plan could change when these come or go.
    fn touched(&self, indexes: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        indexes.into_iter().filter_map(|index| self.seen_by.get(index)).flatten().copied().collect()
    }

    fn gain(&mut self, state: &State, set: &Set, touched: &BTreeSet<usize>) -> Result<f64> {
        let mut gain = 0.0;
        for at in touched {
            let before = state.costs.get(*at).copied().unwrap_or(0.0);
            gain += self.calls(*at) * (before - self.cost(*at, set)?);
        }
        Ok(gain)
    }

    /// Adding `index`, which takes the place of those it covers.
    fn addition(&mut self, state: &State, index: usize) -> Result<Option<Move>> {
        let Some(definition) = self.what_if.pool.get(index) else { return Ok(None) };
        let covered =
            |known: &usize| self.what_if.pool.get(*known).is_some_and(|known| known.is_covered_by(definition));
        let remove: Vec<usize> = state.set.iter().filter(covered).collect();
        self.consider(state, index, remove)
    }

    /// What a change would bring; `None` when it breaks the budget.
    fn consider(&mut self, state: &State, add: usize, remove: Vec<usize>) -> Result<Option<Move>> {
        let freed: u64 = remove.iter().map(|index| self.bytes(*index)).sum();
        let bytes = (state.bytes + self.bytes(add)).saturating_sub(freed);
        if self.options.storage_budget_bytes.is_some_and(|budget| bytes > budget) {
            return Ok(None);
        }
        let mut set = state.set.with(add);
        remove.iter().for_each(|index| set.remove(*index));
        let touched = self.touched(remove.iter().copied().chain([add]));
        let gain = self.gain(state, &set, &touched)?;
        Ok(Some(Move { add, remove, gain, bytes }))
    }

    fn apply(&mut self, state: &State, change: &Move) -> Result<State> {
        let mut next = state.clone();
        next.set.insert(change.add);
        change.remove.iter().for_each(|index| next.set.remove(*index));
        self.recost(&mut next, self.touched(change.remove.iter().copied().chain([change.add])))?;
        next.bytes = change.bytes;
        Ok(next)
    }

    fn recost(&mut self, state: &mut State, touched: BTreeSet<usize>) -> Result<()> {
        for at in touched {
            let cost = self.cost(at, &state.set)?;
            if let Some(slot) = state.costs.get_mut(at) {
                *slot = cost;
            }
        }
        state.total = state.costs.iter().enumerate().map(|(at, cost)| cost * self.calls(at)).sum();
        Ok(())
    }

    /// What so many bytes cost in the workload's currency; nothing under a budget, which is there to be used.
    fn storage_cost(&self, bytes: u64) -> f64 {
        match self.options.storage_budget_bytes {
            Some(_) => 0.0,
            // Bytes and costs are far below 2^52, where f64 is exact.
            None => self.today * self.options.storage_price * bytes as f64 / self.table_bytes,
        }
    }

    /// The workload's cost under a state, and its storage's: what is made small.
    pub fn burden(&self, state: &State) -> f64 {
        state.total + self.storage_cost(state.bytes)
    }

    /// The gain below which an addition of so many bytes is not worth it.
    fn least_gain(&self, bytes: u64) -> f64 {
        (self.today * self.options.min_workload_gain).max(self.storage_cost(bytes))
    }

    fn grow(&mut self, start: State, by_byte: bool) -> Result<State> {
        let mut state = start;
        loop {
            let mut best: Option<(f64, Move)> = None;
            for index in self.picked.clone() {
                if state.set.contains(index) {
                    continue;
                }
                let Some(change) = self.addition(&state, index)? else { continue };
                let grows_by = change.bytes.saturating_sub(state.bytes).max(8_192);
                let least = self.least_gain(grows_by);
                let score = if by_byte { change.gain / grows_by as f64 } else { change.gain };
                if change.gain > least && best.as_ref().is_none_or(|(known, _)| score > *known) {
                    best = Some((score, change));
                }
            }
            let Some((_, change)) = best else { return Ok(state) };
            state = self.apply(&state, &change)?;
        }
    }

    /// Replaces one chosen index by another where that is better: by more than it takes, or smaller for little loss.
    fn swap(&mut self, start: State) -> Result<State> {
        let mut state = start;
        let chosen: Vec<usize> = state.set.iter().collect();
        for old in chosen {
            let mut best: Option<(f64, Move)> = None;
            for new in self.picked.clone() {
                if state.set.contains(new) {
                    continue;
                }
                let Some(change) = self.consider(&state, new, vec![old])? else { continue };
                let net = change.gain + self.storage_cost(state.bytes) - self.storage_cost(change.bytes);
                if net > best.as_ref().map_or(self.today * MIN_SWAP_GAIN, |(known, _)| *known) {
                    best = Some((net, change));
                }
            }
            if let Some((_, change)) = best {
                state = self.apply(&state, &change)?;
            }
        }
        Ok(state)
    }

    /// What a chosen index is worth with all others in place.
    pub fn worth(&mut self, state: &State, index: usize) -> Result<Worth> {
        let without = state.set.without(index);
        let mut users = Vec::new();
        let (mut before, mut after) = (0.0, 0.0);
        for at in self.touched([index]) {
            let used = match self.what_if.price(at, &state.set) {
                Ok((_, used)) => used.contains(index),
                Err(CostFailure::Fatal(error)) => return Err(error),
                Err(_) => false,
            };
            if used {
                let with = state.costs.get(at).copied().unwrap_or(0.0) * self.calls(at);
                let gone = self.cost(at, &without)? * self.calls(at);
                before += gone;
                after += with;
                users.push((gone - with, at));
            }
        }
        users.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        Ok(Worth { before, after, users: users.into_iter().map(|(_, at)| at).collect() })
    }

    /// Drops, least worth first, what does not clear the thresholds with all others in place.
    fn prune(&mut self, start: State) -> Result<State> {
        let mut state = start;
        loop {
            let mut worst: Option<(f64, usize)> = None;
            for index in state.set.iter().collect::<Vec<_>>() {
                let worth = self.worth(&state, index)?;
                let gain = worth.before - worth.after;
                let enough = gain >= self.least_gain(self.bytes(index))
                    && gain >= worth.before * self.options.min_statement_gain;
                if (!enough || worth.users.is_empty()) && worst.is_none_or(|(known, _)| gain < known) {
                    worst = Some((gain, index));
                }
            }
            let Some((_, index)) = worst else { return Ok(state) };
            state.set.remove(index);
            state.bytes = state.bytes.saturating_sub(self.bytes(index));
            self.recost(&mut state, self.touched([index]))?;
        }
    }
}
