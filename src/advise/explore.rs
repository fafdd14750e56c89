//! Questions to the planner: what each statement could use, and what lies around a set.

use super::candidates::candidates;
use super::model::{CostFailure, Definition, Options, Statement};
use super::select::Spent;
use super::whatif::Set;
use super::worth::Chooser;
use crate::error::Result;
use crate::sql::catalog::Catalog;

/// How often a statement's used indexes are taken away and the planner asked again, for each tier.
const SEED_ROUNDS: usize = 3;
/// All parts of a plan's indexes are asked about up to this many.
const MAX_SPLIT: usize = 4;
/// Questions for the seeds of a whole workload, shared out by cost ..
const SEED_QUESTIONS: f64 = 4_000.0;
/// .. with this many at least, and at most, for each statement.
const FEWEST_QUESTIONS: f64 = 24.0;
const MOST_QUESTIONS: f64 = 240.0;
/// A neighbour is asked about when it could bring this share of the workload's cost.
const MIN_NEIGHBOUR_GAIN: f64 = 0.0005;
/// Columns of a merged index at most, beside its keys.
const MAX_MERGED_INCLUDE: usize = 12;

/// Asks, and remembers what can be chosen.
pub(super) struct Explorer<'a> {
    pub chooser: Chooser<'a>,
    /// Candidates seen.
    pub looked_at: usize,
    /// Questions are left out once this share of the time is spent.
    pub until: f64,
    /// Set when a question was left out.
    pub stopped: bool,
    catalog: &'a Catalog,
    options: &'a Options,
    /// The share of the time that is spent.
    pub spent: Spent<'a>,
}

impl<'a> Explorer<'a> {
    /// An explorer that asks until all time is spent.
    pub fn new(chooser: Chooser<'a>, catalog: &'a Catalog, options: &'a Options, spent: Spent<'a>) -> Self {
        Self { chooser, looked_at: 0, until: 1.0, stopped: false, catalog, options, spent }
    }

    fn is_over(&mut self) -> bool {
        let over = (self.spent)() >= self.until;
        self.stopped |= over;
        over
    }

    /// One cost and what the plan uses; `None` when this statement has none under the set, and after the stop.
    fn ask(&mut self, at: usize, set: &Set) -> Result<Option<(f64, Set)>> {
        if self.is_over() {
            return Ok(None);
        }
        match self.chooser.what_if.price(at, set) {
            Ok(priced) => Ok(Some(priced)),
            Err(CostFailure::Fatal(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Learns what the statement could use of its own candidates.
    pub fn seed(&mut self, at: usize, statement: &Statement) -> Result<()> {
        let Some(facts) = &statement.facts else { return Ok(()) };
        let found = candidates(facts, &statement.sql, self.catalog, self.options);
        self.looked_at += found.len();
        let Some((base, _)) = self.ask(at, &Set::default())? else { return Ok(()) };
        let share = base * self.chooser.calls(at) / self.chooser.today.max(f64::MIN_POSITIVE);
        // Small and positive.
        let questions = (share * SEED_QUESTIONS).clamp(FEWEST_QUESTIONS, MOST_QUESTIONS) as usize;
        let limit = self.chooser.what_if.priced + questions;
        let tiers: [fn(&Definition) -> bool; 4] = [
            |_| true,
            |index| index.include.is_empty(),
            |index| index.keys.len() <= 2 && index.include.is_empty(),
            |index| index.keys.len() == 1 && index.include.is_empty(),
        ];
        let mut plans = Vec::new();
        for tier in tiers {
            let pool = &mut self.chooser.what_if;
            let mut left: Set = found.iter().filter(|index| tier(index)).map(|index| pool.add(index)).collect();
            for _ in 0..SEED_ROUNDS {
                let Some((cost, used)) = self.ask(at, &left)? else { break };
                if used.is_empty() || cost >= base * (1.0 - self.options.min_workload_gain) {
                    break;
                }
                for item in used.iter() {
                    self.chooser.pick(item)?;
                }
                if !plans.iter().any(|(_, known)| *known == used) {
                    plans.push((left.clone(), used.clone()));
                }
                used.iter().for_each(|item| left.remove(item));
            }
        }
        for (_, used) in &plans {
            self.split(at, used, limit)?;
        }
        self.substitutes(at, &plans, limit)
    }

    /// What the parts of a plan's indexes bring without the rest.
    fn split(&mut self, at: usize, used: &Set, limit: usize) -> Result<()> {
        let items: Vec<usize> = used.iter().collect();
        if items.len() <= MAX_SPLIT {
            for bits in 1..(1_usize << items.len()) {
                let part: Set =
                    items.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, item)| *item).collect();
                if self.chooser.what_if.priced < limit {
                    self.ask(at, &part)?;
                }
            }
            return Ok(());
        }
        for item in &items {
            if self.chooser.what_if.priced < limit {
                self.ask(at, &used.without(*item))?;
                self.ask(at, &Set::default().with(*item))?;
            }
        }
        Ok(())
    }

    /// What takes the place of each index of a plan when it alone is taken away.
    fn substitutes(&mut self, at: usize, plans: &[(Set, Set)], limit: usize) -> Result<()> {
        for (asked, used) in plans {
            for item in used.iter() {
                if self.chooser.what_if.priced >= limit {
                    return Ok(());
                }
                if let Some((_, others)) = self.ask(at, &asked.without(item))? {
                    for other in others.iter() {
                        self.chooser.pick(other)?;
                    }
                    self.split(at, &others, limit)?;
                }
            }
        }
        Ok(())
    }

    /// Asks about a set with one more or one less index, where that could matter, and about other forms of its indexes.
    pub fn look_around(&mut self, set: &Set, order: &[usize]) -> Result<()> {
        let least = self.chooser.today * MIN_NEIGHBOUR_GAIN;
        for at in order {
            let Some((now, used)) = self.ask(*at, set)? else { continue };
            for item in used.iter() {
                self.ask(*at, &set.without(item))?;
            }
            let mut near = Set::default();
            for (needed, cost) in self.chooser.what_if.known(*at) {
                if (now - cost) * self.chooser.calls(*at) > least {
                    needed.iter().filter(|item| !set.contains(*item)).for_each(|item| near.insert(item));
                }
            }
            for item in near.iter().filter(|item| self.fits(*item)).collect::<Vec<_>>() {
                self.ask(*at, &set.with(item))?;
            }
        }
        self.vary(set)
    }

    fn fits(&self, index: usize) -> bool {
        let bytes = self.chooser.bytes(index);
        bytes > 0 && self.options.storage_budget_bytes.is_none_or(|budget| bytes <= budget)
    }

    /// Asks about other forms of a set's indexes: two merged into one, and one with fewer columns.
    pub fn vary(&mut self, set: &Set) -> Result<()> {
        let items: Vec<usize> = set.iter().collect();
        let mut forms: Vec<(Definition, Vec<usize>)> = Vec::new();
        for (at, first) in items.iter().enumerate() {
            let Some(definition) = self.chooser.what_if.pool.get(*first) else { continue };
            forms.extend(shorter(definition).into_iter().map(|form| (form, vec![*first])));
            for second in items.iter().skip(at + 1) {
                let Some(other) = self.chooser.what_if.pool.get(*second) else { continue };
                forms.extend(merged(definition, other, self.options).into_iter().map(|f| (f, vec![*first, *second])));
            }
        }
        for (form, replaced) in forms {
            if self.is_over() {
                break;
            }
            if super::candidates::exists(&form, self.catalog) {
                continue;
            }
            let index = self.chooser.what_if.add(&form);
            self.chooser.pick(index)?;
            if !self.fits(index) {
                continue;
            }
            let mut other = set.with(index);
            replaced.iter().filter(|item| **item != index).for_each(|item| other.remove(*item));
            for at in self.chooser.users(&replaced) {
                self.ask(at, &other)?;
                self.ask(at, &Set::default().with(index))?;
            }
        }
        Ok(())
    }
}

/// The same index without its last key, or without INCLUDE.
fn shorter(definition: &Definition) -> Vec<Definition> {
    let mut forms = Vec::new();
    if !definition.include.is_empty() {
        forms.push(Definition { include: Vec::new(), ..definition.clone() });
    } else if let Some((_, keys)) = definition.keys.split_last()
        && !keys.is_empty()
    {
        forms.push(Definition { keys: keys.to_vec(), ..definition.clone() });
    }
    forms
}

/// One index that does the work of two on the same table: either's keys, with the other's columns behind them, as keys
/// where they continue the same beginning, otherwise as INCLUDE.
fn merged(a: &Definition, b: &Definition, options: &Options) -> Vec<Definition> {
    let mut forms: Vec<Definition> = Vec::new();
    if a.table != b.table || !a.is_plain() || !b.is_plain() {
        return forms;
    }
    for (first, second) in [(a, b), (b, a)] {
        let is_key = |name: &String| first.keys.iter().any(|key| &key.column == name);
        let others = first.include.iter().chain(second.keys.iter().map(|key| &key.column)).chain(&second.include);
        let mut include: Vec<String> = others.filter(|name| !is_key(name)).cloned().collect();
        include.sort();
        include.dedup();
        let allowed = include.is_empty() || (options.covering && include.len() <= MAX_MERGED_INCLUDE);
        let form = Definition { include, ..Definition::new(first.table, first.keys.clone()) };
        if allowed && !forms.contains(&form) && form != *a && form != *b {
            forms.push(form);
        }
        let mut keys = first.keys.clone();
        keys.extend(second.keys.iter().filter(|key| !is_key(&key.column)).cloned());
        let both_plain = first.include.is_empty() && second.include.is_empty();
        let form = Definition::new(first.table, keys);
        if both_plain && form.keys.len() <= options.max_width && !forms.contains(&form) && form != *a && form != *b {
            forms.push(form);
        }
    }
    forms
}
