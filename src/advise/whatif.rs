//! Remembered costs, so that the planner is asked as seldom as possible.
//!
//! Two facts save most questions. A statement's cost depends only on the indexes on its tables. And when a plan under
//! the set `asked` uses only `used` of it, then every set between the two gives that same plan: what was removed was not
//! used, and what was added was no better (the reuse rule of INUM and its successors).

use std::collections::{BTreeMap, BTreeSet};

use super::columns::uses;
use super::model::{CostFailure, CostModel, Definition, Priced, Statement};
use super::partial::{is_flat, is_safe};
use crate::error::Error;
use crate::sql::catalog::{Catalog, TableId};
use crate::sql::explain::PlanNode;

/// A set of pool positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Set(Vec<u64>);

impl Set {
    pub(super) fn contains(&self, item: usize) -> bool {
        self.0.get(item / 64).is_some_and(|word| word >> (item % 64) & 1 == 1)
    }

    pub(super) fn insert(&mut self, item: usize) {
        let word = item / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (item % 64);
        }
    }

    pub(super) fn remove(&mut self, item: usize) {
        if let Some(word) = self.0.get_mut(item / 64) {
            *word &= !(1 << (item % 64));
        }
        // Equal sets are equal words.
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    pub(super) fn with(&self, item: usize) -> Self {
        let mut set = self.clone();
        set.insert(item);
        set
    }

    pub(super) fn without(&self, item: usize) -> Self {
        let mut set = self.clone();
        set.remove(item);
        set
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                // Clears the lowest bit that is set; of none, there is none.
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn is_within(&self, wider: &Self) -> bool {
        self.0.iter().enumerate().all(|(at, word)| word & !wider.0.get(at).copied().unwrap_or(0) == 0)
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<T: IntoIterator<Item = usize>>(items: T) -> Self {
        let mut set = Self::default();
        items.into_iter().for_each(|item| set.insert(item));
        set
    }
}

/// One answer of the model.
struct Known {
    asked: Set,
    used: Set,
    cost: f64,
}

/// What a statement can see of the pool.
struct View {
    /// Tables it can touch; `None`: any.
    tables: Option<BTreeSet<TableId>>,
    /// Columns it mentions of each table; a table that is not here: any.
    columns: Vec<(TableId, BTreeSet<String>)>,
    /// It can be planned with partial indexes.
    is_flat: bool,
}

impl View {
    fn of(statement: &Statement, catalog: &Catalog) -> Self {
        let tables = statement.tables(catalog);
        let mut columns: Vec<(TableId, BTreeSet<String>)> = Vec::new();
        let mut all = BTreeSet::new();
        if let (Some(facts), Some(_)) = (&statement.facts, &tables) {
            for uses in uses(facts, catalog).into_values() {
                match uses.mentioned {
                    Some(mentioned) => match columns.iter_mut().find(|(table, _)| *table == uses.table) {
                        Some((_, known)) => known.extend(mentioned),
                        None => columns.push((uses.table, mentioned)),
                    },
                    None => {
                        all.insert(uses.table);
                    }
                }
            }
        }
        columns.retain(|(table, _)| !all.contains(table));
        let is_flat = statement.facts.as_ref().is_some_and(|facts| is_flat(facts, catalog));
        Self { tables, columns, is_flat }
    }

    /// An index can matter when it is on a table of the statement and begins with a column it mentions.
    fn sees(&self, definition: &Definition) -> bool {
        if !is_safe(definition, self.is_flat) {
            return false;
        }
        let Some(tables) = &self.tables else { return true };
        let first = definition.keys.first().map(|key| &key.column);
        tables.contains(&definition.table)
            && self
                .columns
                .iter()
                .find(|(table, _)| *table == definition.table)
                .is_none_or(|(_, columns)| first.is_some_and(|first| columns.contains(first)))
    }
}

/// The model behind its memory.
pub(super) struct WhatIf<'a> {
    model: &'a mut dyn CostModel,
    statements: &'a [Statement],
    views: Vec<View>,
    known: Vec<Vec<Known>>,
    sizes: Vec<Option<u64>>,
    positions: BTreeMap<Definition, usize>,
    /// Every possible index; sets speak of positions here.
    pub(super) pool: Vec<Definition>,
    /// Pool members the model cannot do.
    pub(super) banned: Set,
    /// Real indexes that plans without possible ones use, by name.
    pub(super) in_use: BTreeSet<String>,
    /// Questions that reached the model.
    pub(super) priced: usize,
}

impl<'a> WhatIf<'a> {
    pub(super) fn new(model: &'a mut dyn CostModel, statements: &'a [Statement], catalog: &Catalog) -> Self {
        Self {
            model,
            statements,
            views: statements.iter().map(|statement| View::of(statement, catalog)).collect(),
            known: statements.iter().map(|_| Vec::new()).collect(),
            sizes: Vec::new(),
            positions: BTreeMap::new(),
            pool: Vec::new(),
            banned: Set::default(),
            in_use: BTreeSet::new(),
            priced: 0,
        }
    }

    /// The position of a definition, which is added when it is new.
    pub(super) fn add(&mut self, definition: &Definition) -> usize {
        if let Some(at) = self.positions.get(definition) {
            return *at;
        }
        let at = self.pool.len();
        self.positions.insert(definition.clone(), at);
        self.pool.push(definition.clone());
        self.sizes.push(None);
        at
    }

    /// True when the index can change this statement's plan.
    pub(super) fn sees(&self, statement: usize, index: usize) -> bool {
        match (self.views.get(statement), self.pool.get(index)) {
            (Some(view), Some(definition)) => view.sees(definition),
            _ => false,
        }
    }

    /// The evidence of costs on the index's table.
    pub(super) fn evidence(&self, index: usize) -> super::model::Evidence {
        let table = self.pool.get(index).map_or(TableId(0), |definition| definition.table);
        self.model.evidence(table)
    }

    /// The cost of one call and the members of `set` its plan uses.
    pub(super) fn price(&mut self, statement: usize, set: &Set) -> Result<(f64, Set), CostFailure> {
        let mut asked: Set =
            set.iter().filter(|item| !self.banned.contains(*item) && self.sees(statement, *item)).collect();
        loop {
            if let Some(known) = self.recall(statement, &asked) {
                return Ok((known.cost, known.used.clone()));
            }
            match self.ask(statement, &asked) {
                Ok(()) => {}
                Err(CostFailure::Index(at, _)) => {
                    // Without the one that cannot be done there is a cost again.
                    let Some(item) = asked.iter().nth(at) else {
                        return Err(CostFailure::Fatal(Error::internal(
                            "a cost model named an index it was not asked about",
                        )));
                    };
                    self.banned.insert(item);
                    asked.remove(item);
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn recall(&self, statement: usize, asked: &Set) -> Option<&Known> {
        let known = self.known.get(statement)?;
        known.iter().find(|known| known.used.is_within(asked) && asked.is_within(&known.asked))
    }

    fn ask(&mut self, statement: usize, asked: &Set) -> Result<(), CostFailure> {
        let items: Vec<usize> = asked.iter().collect();
        let definitions: Vec<&Definition> = items.iter().filter_map(|item| self.pool.get(*item)).collect();
        let Some(what) = self.statements.get(statement) else {
            return Err(CostFailure::Statement("no such statement".to_owned()));
        };
        let Priced { cost, used, existing } = self.model.price(what, &definitions)?;
        self.priced += 1;
        if asked.is_empty() {
            self.in_use.extend(existing);
        }
        let used = used.iter().filter_map(|at| items.get(*at).copied()).collect();
        if let Some(known) = self.known.get_mut(statement) {
            known.push(Known { asked: asked.clone(), used, cost });
        }
        Ok(())
    }

    /// What is known of a statement: members needed, and the cost of one call.
    pub(super) fn known(&self, statement: usize) -> Vec<(Set, f64)> {
        let known = self.known.get(statement).map_or(&[][..], Vec::as_slice);
        known.iter().map(|known| (known.used.clone(), known.cost)).collect()
    }

    /// A statement's plan under these pool members, under names by position.
    pub(super) fn plan(&mut self, statement: usize, set: &[usize]) -> Option<PlanNode> {
        let seen: Vec<(usize, &Definition)> = set
            .iter()
            .enumerate()
            .filter(|(_, index)| self.sees(statement, **index))
            .filter_map(|(at, index)| Some((at, self.pool.get(*index)?)))
            .collect();
        let definitions: Vec<&Definition> = seen.iter().map(|(_, definition)| *definition).collect();
        let mut plan = self.model.plan(self.statements.get(statement)?, &definitions)?;
        let mut nodes = vec![&mut plan];
        while let Some(node) = nodes.pop() {
            let at = node.index.as_deref().and_then(|name| name.strip_prefix('#')).and_then(|at| at.parse().ok());
            if let Some((position, _)) = at.and_then(|at: usize| seen.get(at)) {
                node.index = Some(format!("#{position}"));
            }
            nodes.extend(&mut node.children);
        }
        Some(plan)
    }

    /// The size of a pool member; `None` when the model cannot do it, which bans it.
    pub(super) fn size(&mut self, index: usize) -> Result<Option<u64>, CostFailure> {
        if let Some(size) = self.sizes.get(index).copied().flatten() {
            return Ok(Some(size));
        }
        let Some(definition) = self.pool.get(index) else { return Ok(None) };
        match self.model.size(definition) {
            Ok(size) => {
                // An index has a page at least; a size of zero would make its benefit per byte infinite.
                let size = size.max(8_192);
                if let Some(slot) = self.sizes.get_mut(index) {
                    *slot = Some(size);
                }
                Ok(Some(size))
            }
            Err(CostFailure::Index(..) | CostFailure::Statement(_)) => {
                self.banned.insert(index);
                Ok(None)
            }
            Err(fatal) => Err(fatal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Set;

    #[test]
    fn sets_behave() {
        let set: Set = [3, 64, 130].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 64, 130]);
        assert!(set.without(130).is_within(&set) && !set.is_within(&set.without(130)));
        assert!(!set.contains(131) && set.with(131).contains(131));
        assert!(Set::default().is_empty() && set.without(3).without(64).without(130).is_empty());
    }
}
