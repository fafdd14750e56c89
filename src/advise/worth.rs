//! What a set of indexes is worth, by the model's own costs, and the removal of what is not worth its place.

use std::collections::BTreeSet;

use super::model::{CostFailure, Options, Statement};
use super::solve::Problem;
use super::whatif::{Set, WhatIf};
use crate::error::Result;

/// What takes this share off the workload's cost is worth it, however small its share of the statements that use it.
const LARGE_GAIN: f64 = 0.005;

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

/// Judges sets by what the model says of them.
pub(super) struct Chooser<'a> {
    pub what_if: WhatIf<'a>,
    statements: &'a [Statement],
    options: &'a Options,
    base: Vec<Option<f64>>,
    /// The workload's cost today.
    pub today: f64,
    /// Size by pool position; 0 for what was not picked.
    sizes: Vec<u64>,
    /// Statements that can see a pool member.
    seen_by: Vec<Vec<usize>>,
    /// Bytes of all tables of the workload.
    table_bytes: f64,
}

impl<'a> Chooser<'a> {
    /// A chooser that knows of no index yet.
    pub fn new(
        what_if: WhatIf<'a>,
        statements: &'a [Statement],
        options: &'a Options,
        base: &[Option<f64>],
        table_bytes: f64,
    ) -> Self {
        let today = statements.iter().zip(base).map(|(statement, base)| statement.calls * base.unwrap_or(0.0)).sum();
        let (sizes, seen_by) = (Vec::new(), Vec::new());
        Self { what_if, statements, options, base: base.to_vec(), today, sizes, seen_by, table_bytes }
    }

    /// Makes a pool member one that can be chosen; one the model cannot size stays out.
    pub fn pick(&mut self, index: usize) -> Result<()> {
        if self.bytes(index) > 0 {
            return Ok(());
        }
        let size = match self.what_if.size(index) {
            Ok(size) => size.unwrap_or(0),
            Err(CostFailure::Fatal(error)) => return Err(error),
            Err(_) => 0,
        };
        let seen =
            (0..self.statements.len()).filter(|at| self.is_costed(*at) && self.what_if.sees(*at, index)).collect();
        if self.sizes.len() <= index {
            self.sizes.resize(index + 1, 0);
            self.seen_by.resize(index + 1, Vec::new());
        }
        if let (Some(slot), Some(by)) = (self.sizes.get_mut(index), self.seen_by.get_mut(index)) {
            *slot = size;
            *by = seen;
        }
        Ok(())
    }

    /// True when the statement has a cost today.
    pub fn is_costed(&self, statement: usize) -> bool {
        self.base.get(statement).is_some_and(Option::is_some)
    }

    /// Statements of which a plan is known that uses one of these.
    pub fn users(&self, indexes: &[usize]) -> Vec<usize> {
        let uses = |at: &usize| {
            self.what_if.known(*at).iter().any(|(needed, _)| indexes.iter().any(|index| needed.contains(*index)))
        };
        (0..self.statements.len()).filter(|at| self.is_costed(*at)).filter(uses).collect()
    }

    /// The choice as a problem over all that is known, within this budget.
    pub fn problem(&self, budget: Option<u64>) -> Problem {
        let known = (0..self.statements.len()).map(|at| {
            let calls = if self.is_costed(at) { self.calls(at) } else { 0.0 };
            self.what_if.known(at).into_iter().map(|(needed, cost)| (needed, cost * calls)).collect()
        });
        let mut sizes = self.sizes.clone();
        sizes
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| self.what_if.banned.contains(*at))
            .for_each(|(_, size)| *size = 0);
        let mut problem = Problem::new(known.collect(), sizes);
        problem.budget = budget;
        problem.byte_price = if budget.is_some() { 0.0 } else { self.storage_cost(1 << 20) / 1_048_576.0 };
        problem.least_gain = self.today * self.options.min_workload_gain;
        problem
    }

    /// No index chosen.
    pub fn start(&self) -> State {
        let costs: Vec<f64> = self.base.iter().map(|base| base.unwrap_or(0.0)).collect();
        let total = costs.iter().enumerate().map(|(at, cost)| cost * self.calls(at)).sum();
        State { set: Set::default(), costs, total, bytes: 0 }
    }

    /// What the workload costs under a set; one that exceeds the budget is not looked at.
    pub fn judge(&mut self, set: &Set) -> Result<Option<State>> {
        let bytes = set.iter().map(|index| self.bytes(index)).sum();
        if self.options.storage_budget_bytes.is_some_and(|budget| bytes > budget) {
            return Ok(None);
        }
        let mut state = State { set: set.clone(), bytes, ..self.start() };
        self.recost(&mut state, self.touched(set.iter()))?;
        Ok(Some(state))
    }

    /// The size of a picked index.
    pub fn bytes(&self, index: usize) -> u64 {
        self.sizes.get(index).copied().unwrap_or(0)
    }

    /// How often a statement ran.
    pub fn calls(&self, statement: usize) -> f64 {
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
    pub fn prune(&mut self, start: State) -> Result<State> {
        let mut state = start;
        loop {
            let mut worst: Option<(f64, usize)> = None;
            for index in state.set.iter().collect::<Vec<_>>() {
                let worth = self.worth(&state, index)?;
                let gain = worth.before - worth.after;
                let enough = gain >= self.least_gain(self.bytes(index))
                    && (gain >= worth.before * self.options.min_statement_gain || gain >= self.today * LARGE_GAIN);
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
