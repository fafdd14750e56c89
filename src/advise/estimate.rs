//! Costs without a planner: an estimate from the catalog's statistics, for databases without HypoPG.
//!
//! Deliberately small: for each table occurrence the cheaper of a full scan, an index lookup by its own conditions, and
//! (when it is joined) one lookup for each row of the most selective partner; plus the sort that an index
//! could have saved. Units are PostgreSQL's defaults (a sequential page is 1, a random one 4, a tuple 0.01). What
//! rests on this is labelled `stats`, or `schema` where a table was never analyzed, and is never called a plan.

use std::collections::BTreeMap;

use super::columns::{Uses, uses};
use super::model::{CostFailure, CostModel, Definition, Evidence, Key, Priced, Statement};
use crate::sql::catalog::{Catalog, Index, Table, TableId};
use crate::sql::facts::{Facts, RelationId};

/// Rows of a table nobody ever counted.
const UNKNOWN_ROWS: f64 = 10_000.0;
/// Distinct values of a column nobody ever counted (PostgreSQL's own default).
const UNKNOWN_DISTINCT: f64 = 200.0;
/// Share of the rows a range keeps (PostgreSQL's DEFAULT_INEQ_SEL for one bound).
const RANGE_SHARE: f64 = 1.0 / 3.0;
/// Rows a LIMIT is taken to want.
const LIMIT_ROWS: f64 = 100.0;
const PAGE_BYTES: f64 = 8_192.0;
const RANDOM_PAGE: f64 = 4.0;
const TUPLE: f64 = 0.01;
const INDEX_TUPLE: f64 = 0.005;
const COMPARISON: f64 = 0.0025;
/// Bytes of a B-tree entry beside its columns: tuple header and line pointer; and how full its pages are.
const ENTRY_BYTES: f64 = 12.0;
const FILL: f64 = 0.9;

/// [`CostModel`] over a catalog.
pub struct Estimate<'a> {
    catalog: &'a Catalog,
}

impl<'a> Estimate<'a> {
    /// A model for tables of this catalog.
    pub fn new(catalog: &'a Catalog) -> Self {
        Self { catalog }
    }
}

impl CostModel for Estimate<'_> {
    fn evidence(&self, table: TableId) -> Evidence {
        if self.catalog.table(table).rows.is_some() { Evidence::Stats } else { Evidence::Schema }
    }

    fn price(&mut self, statement: &Statement, set: &[&Definition]) -> Result<Priced, CostFailure> {
        let facts = match &statement.facts {
            Some(facts) if facts.unknown.is_none() => facts,
            _ => return Err(CostFailure::Statement("not understood, and there is no planner to ask".to_owned())),
        };
        let occurrences = uses(facts, self.catalog);
        let kept: BTreeMap<RelationId, f64> =
            occurrences.iter().map(|(id, uses)| (*id, kept_rows(uses, self.catalog.table(uses.table)))).collect();
        let limited = facts.scopes.first().is_some_and(|scope| scope.limit.is_some());
        let mut priced = Priced { cost: TUPLE, used: Vec::new(), existing: Vec::new() };
        for uses in occurrences.values() {
            let access = cheapest(uses, self.catalog.table(uses.table), set, &kept, limited && !has_groups(facts));
            priced.cost += access.cost;
            match access.by {
                By::Scan => {}
                By::Possible(at) => priced.used.push(at),
                By::Real(name) => priced.existing.push(name),
            }
        }
        priced.used.sort_unstable();
        priced.used.dedup();
        Ok(priced)
    }

    fn size(&mut self, definition: &Definition) -> Result<u64, CostFailure> {
        let table = self.catalog.table(definition.table);
        let names = definition.keys.iter().map(|key| &key.column).chain(&definition.include);
        let width: f64 = names.map(|name| column_width(table, name)).sum();
        let bytes = rows(table) * (width + ENTRY_BYTES) / FILL;
        // Whole pages; far below 2^52, where f64 counts exactly, and never negative.
        Ok(((bytes / PAGE_BYTES).ceil() + 1.0) as u64 * 8_192)
    }
}

fn has_groups(facts: &Facts) -> bool {
    facts.scopes.first().is_some_and(|scope| scope.aggregate || !scope.group_by.is_empty() || scope.distinct)
}

fn rows(table: &Table) -> f64 {
    table.rows.unwrap_or(UNKNOWN_ROWS).max(1.0)
}

fn column_width(table: &Table, name: &str) -> f64 {
    table.column(name).and_then(|column| column.avg_width).map_or(8.0, f64::from)
}

fn pages(table: &Table) -> f64 {
    let from_width = rows(table) * table.columns.iter().map(|column| column_width(table, &column.name)).sum::<f64>();
    // Page counts are far below 2^52.
    table.pages.map_or(from_width / PAGE_BYTES, |pages| pages as f64).max(1.0)
}

/// Share of the rows that equality with one value keeps.
fn equal_share(table: &Table, name: &str) -> f64 {
    let count = match table.column(name).and_then(|column| column.n_distinct) {
        Some(fraction) if fraction < 0.0 => -fraction * rows(table),
        Some(count) if count > 0.0 => count,
        _ if table.is_unique_by(&[name]) => rows(table),
        _ => UNKNOWN_DISTINCT,
    };
    1.0 / count.clamp(1.0, rows(table))
}

/// Rows that pass the occurrence's own conditions.
fn kept_rows(uses: &Uses, table: &Table) -> f64 {
    let equal: f64 = uses.equal.iter().map(|name| equal_share(table, name)).product();
    let ranges = RANGE_SHARE.powi(i32::try_from(uses.ranges.len()).unwrap_or(i32::MAX));
    (rows(table) * equal * ranges).max(1.0)
}

/// What an occurrence is read by.
enum By {
    Scan,
    Possible(usize),
    Real(String),
}

struct Access {
    cost: f64,
    by: By,
}

fn cheapest(
    uses: &Uses,
    table: &Table,
    set: &[&Definition],
    kept: &BTreeMap<RelationId, f64>,
    limited: bool,
) -> Access {
    let sort = if uses.order.is_empty() { 0.0 } else { sort_cost(kept_rows(uses, table)) };
    let mut best = Access { cost: pages(table) + rows(table) * TUPLE + sort, by: By::Scan };
    let mut offer = |keys: &[Key], include: &[String], by: By| {
        for cost in lookups(uses, table, keys, include, kept, limited) {
            if cost < best.cost {
                best.cost = cost;
            } else {
                continue;
            }
            best.by = match &by {
                By::Scan => By::Scan,
                By::Possible(at) => By::Possible(*at),
                By::Real(name) => By::Real(name.clone()),
            };
        }
    };
    for index in
        table.indexes.iter().filter(|index| index.valid && index.predicate.is_none() && index.method == "btree")
    {
        offer(&plain_keys(index), &index.include, By::Real(index.name.clone()));
    }
    for (at, definition) in set.iter().enumerate() {
        // Of expressions the statistics say nothing.
        if definition.table == uses.table && definition.is_plain() {
            offer(&definition.keys, &definition.include, By::Possible(at));
        }
    }
    best
}

/// The keys up to the first expression or special operator class.
fn plain_keys(index: &Index) -> Vec<Key> {
    let keys = index.keys.iter().map_while(|key| match (&key.column, &key.operator_class) {
        (Some(column), None) => {
            let (descending, nulls_first) = (key.descending, key.nulls_first);
            Some(Key { descending, nulls_first, ..Key::ascending(column.clone()) })
        }
        _ => None,
    });
    keys.collect()
}

fn sort_cost(rows: f64) -> f64 {
    2.0 * COMPARISON * rows * rows.max(2.0).log2()
}

/// Costs of reading the occurrence by an index: by its own conditions, and by each join.
fn lookups(
    uses: &Uses,
    table: &Table,
    keys: &[Key],
    include: &[String],
    kept: &BTreeMap<RelationId, f64>,
    limited: bool,
) -> Vec<f64> {
    let covering = uses.mentioned.as_ref().is_some_and(|mentioned| {
        mentioned.iter().all(|name| include.contains(name) || keys.iter().any(|key| &key.column == name))
    });
    let mut costs = Vec::new();
    let own = matched(table, keys, &uses.equal, &uses.ranges);
    let equal_prefix = keys.iter().take_while(|key| uses.equal.contains(&key.column)).count();
    let sorted = !uses.order.is_empty() && keys.get(equal_prefix..).is_some_and(|rest| starts_with(rest, &uses.order));
    if own.is_some() || sorted {
        let mut fetched = own.unwrap_or(1.0) * rows(table);
        if sorted && limited {
            fetched = fetched.min(LIMIT_ROWS * rows(table) * own.unwrap_or(1.0) / kept_rows(uses, table)).max(1.0);
        }
        let sort = if uses.order.is_empty() || sorted { 0.0 } else { sort_cost(kept_rows(uses, table)) };
        costs.push(fetch(table, fetched, covering) + sort);
    }
    for (partner, columns) in &uses.joins {
        let equal: Vec<String> = uses.equal.iter().chain(columns).cloned().collect();
        let leads = keys.first().is_some_and(|key| columns.contains(&key.column) || uses.equal.contains(&key.column));
        if let (Some(share), Some(driving), true) =
            (matched(table, keys, &equal, &uses.ranges), kept.get(partner), leads)
        {
            costs.push(driving * fetch(table, (share * rows(table)).max(1.0), covering));
        }
    }
    costs
}

/// ORDER BY keys read forwards or backwards.
fn starts_with(keys: &[Key], order: &[Key]) -> bool {
    let reversed: Vec<Key> = order.iter().map(Key::reversed).collect();
    keys.starts_with(order) || keys.starts_with(&reversed)
}

/// Share of the rows that the index's leading keys select; `None` when they select nothing.
fn matched(table: &Table, keys: &[Key], equal: &[String], ranges: &[String]) -> Option<f64> {
    let mut share = None;
    for key in keys {
        if equal.contains(&key.column) {
            share = Some(share.unwrap_or(1.0) * equal_share(table, &key.column));
        } else {
            if ranges.contains(&key.column) {
                share = Some(share.unwrap_or(1.0) * RANGE_SHARE);
            }
            break;
        }
    }
    share
}

/// Reading that many rows through an index: the descent, its entries, and the table's pages unless it covers.
fn fetch(table: &Table, wanted: f64, covering: bool) -> f64 {
    let heap = if covering { 0.0 } else { wanted.min(pages(table)) * RANDOM_PAGE + wanted * TUPLE };
    RANDOM_PAGE + wanted * INDEX_TUPLE + heap
}
