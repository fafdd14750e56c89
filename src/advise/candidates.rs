//! Possible indexes of one statement, from what it asks of each table's columns.
//!
//! Equality columns come first, the most selective in front; then one range column or the ORDER BY columns; join
//! columns alone and with them; GROUP BY, DISTINCT and MIN/MAX columns; all pairs where there are few columns; and,
//! where the statement takes only some columns, each of these with the rest as INCLUDE. What exists already,
//! as an index or as the beginning of one, is left out.

use std::collections::BTreeSet;

use super::columns::{Uses, uses};
use super::existing::answers;
use super::expressions::{Computed, computed};
use super::model::{Definition, Key, Method, Options};
use super::partial::conditions;
use crate::sql::catalog::{Catalog, Column, Table};
use crate::sql::facts::Facts;

/// Pairs of all columns are tried up to this many columns of one table occurrence.
const MAX_PAIRED_COLUMNS: usize = 7;
/// Rows that lie less in the order of a column are on too many ranges of pages.
const MIN_CORRELATION: f64 = 0.95;
/// Smaller tables are read whole nearly as fast (pages of 8 kB).
const MIN_SUMMARIZED_PAGES: u64 = 1_000;
/// INCLUDE columns at most.
const MAX_INCLUDE: usize = 8;
/// Wider keys than this many bytes on average cost more than they bring, and B-tree refuses some of them.
const MAX_KEY_BYTES: u32 = 400;

/// Possible indexes for a statement, of this text, in a fixed order, without repeats.
pub fn candidates(facts: &Facts, sql: &str, catalog: &Catalog, options: &Options) -> Vec<Definition> {
    let mut found = BTreeSet::new();
    let uses = uses(facts, catalog);
    for one in computed(facts, sql, catalog) {
        found.extend(with_computed(&one, uses.get(&one.relation), options));
    }
    for occurrence in uses.values() {
        let table = catalog.table(occurrence.table);
        for keys in key_lists(occurrence, table, options.max_width) {
            let narrow = Definition::new(occurrence.table, keys);
            if let Some(include) = covering_columns(occurrence, table, &narrow).filter(|_| options.covering) {
                found.insert(Definition { include, ..narrow.clone() });
            }
            found.insert(narrow);
        }
    }
    for occurrence in uses.values() {
        found.extend(ranges_of_pages(occurrence, catalog.table(occurrence.table)));
    }
    for (relation, condition) in conditions(facts, catalog) {
        let Some(occurrence) = uses.get(&relation) else { continue };
        for keys in key_lists(occurrence, catalog.table(occurrence.table), options.max_width) {
            let keys = condition.without(keys);
            let predicate = Some(condition.sql.clone());
            found.insert(Definition { predicate, ..Definition::new(occurrence.table, keys) });
        }
    }
    found.retain(|definition| !exists(definition, catalog));
    found.into_iter().collect()
}

/// A column that is searched by ranges, and in whose order the rows lie: of a large table, BRIN holds a summary of each range of pages.
fn ranges_of_pages(uses: &Uses, table: &Table) -> Vec<Definition> {
    let in_order = |name: &&String| {
        table.column(name).and_then(|column| column.correlation).is_some_and(|order| order.abs() >= MIN_CORRELATION)
    };
    let large = table.pages.is_some_and(|pages| pages >= MIN_SUMMARIZED_PAGES);
    let names = uses.ranges.iter().filter(|_| large).filter(in_order);
    let definition = |name: &String| Definition {
        method: Method::Brin,
        ..Definition::new(uses.table, vec![Key::ascending(name.as_str())])
    };
    names.map(definition).collect()
}

/// A key that is computed: alone, and behind the columns that are compared for equality; before them where it is too.
fn with_computed(one: &Computed, uses: Option<&Uses>, options: &Options) -> Vec<Definition> {
    let equal: Vec<Key> = uses.map_or(&[][..], |uses| &uses.equal).iter().map(Key::ascending).collect();
    let own = [one.key.clone()];
    let mut lists = vec![own.to_vec()];
    if !equal.is_empty() && equal.len() < options.max_width {
        lists.push([&equal[..], &own].concat());
        if one.equal {
            lists.push([&own, &equal[..]].concat());
        }
    }
    lists.into_iter().map(|keys| Definition::new(one.table, keys)).collect()
}

/// True when a real index does what this one would.
pub fn exists(definition: &Definition, catalog: &Catalog) -> bool {
    catalog.table(definition.table).indexes.iter().any(|index| answers(index, definition))
}

fn covering_columns(uses: &Uses, table: &Table, narrow: &Definition) -> Option<Vec<String>> {
    let mentioned = uses.mentioned.as_ref()?;
    let rest: Vec<String> =
        mentioned.iter().filter(|name| !narrow.keys.iter().any(|key| key.holds(name))).cloned().collect();
    let known = rest.iter().all(|name| table.column(name).is_some());
    (!rest.is_empty() && rest.len() <= MAX_INCLUDE && known && rest.len() + narrow.keys.len() < table.columns.len())
        .then_some(rest)
}

/// Collects key lists: cut to the width, without columns that cannot be keys.
struct KeyLists<'a> {
    table: &'a Table,
    max_width: usize,
    lists: BTreeSet<Vec<Key>>,
}

impl KeyLists<'_> {
    fn add<'k>(&mut self, keys: impl IntoIterator<Item = &'k Key>) {
        let mut list: Vec<Key> = Vec::new();
        for key in keys {
            if !self.table.column(&key.column).is_some_and(can_be_key) {
                return;
            }
            if !list.iter().any(|known| known.column == key.column) {
                list.push(key.clone());
            }
        }
        list.truncate(self.max_width);
        if !list.is_empty() {
            self.lists.insert(normal(list));
        }
    }
}

/// An index reads backwards as well: the form whose first key ascends stands for both, where that is the same index.
fn normal(keys: Vec<Key>) -> Vec<Key> {
    let all_default = keys.iter().all(|key| !key.descending && !key.nulls_first);
    let reversed: Vec<Key> = keys.iter().map(Key::reversed).collect();
    let reversed_default = reversed.iter().all(|key| !key.descending && !key.nulls_first);
    if !all_default && reversed_default { reversed } else { keys }
}

fn can_be_key(column: &Column) -> bool {
    let name = column.type_name.as_str();
    let without_order = matches!(
        name,
        "json" | "xml" | "point" | "line" | "lseg" | "box" | "path" | "polygon" | "circle" | "cid" | "xid" | "tsquery"
    );
    let wide = column.avg_width.is_some_and(|width| width > MAX_KEY_BYTES);
    // jsonb has a B-tree order that no predicate of use asks for, and entries beyond a page's third are refused.
    !without_order && !wide && name != "jsonb" && name != "bytea"
}

/// Distinct values of a column, for the order of equality columns; unknown counts as few.
fn distinct(table: &Table, name: &str) -> f64 {
    let rows = table.rows.unwrap_or(1_000.0).max(1.0);
    match table.column(name).and_then(|column| column.n_distinct) {
        Some(fraction) if fraction < 0.0 => -fraction * rows,
        Some(count) => count,
        None if table.is_unique_by(&[name]) => rows,
        None => 0.0,
    }
}

fn key_lists(uses: &Uses, table: &Table, max_width: usize) -> BTreeSet<Vec<Key>> {
    let ascending = |names: &[String]| -> Vec<Key> { names.iter().map(Key::ascending).collect() };
    let mut equal_names = uses.equal.clone();
    equal_names.sort_by(|a, b| distinct(table, b).total_cmp(&distinct(table, a)));
    let equal = ascending(&equal_names);
    let ranges = ascending(&uses.ranges);
    // Behind equality columns an order is read in either direction, so it has one form too.
    let order = normal(uses.order.iter().filter(|key| !uses.equal.contains(&key.column)).cloned().collect());
    let mut tails: Vec<Vec<Key>> = ranges.iter().map(|key| vec![key.clone()]).collect();
    tails.extend([order, ascending(&uses.groups)].into_iter().filter(|tail| !tail.is_empty()));
    tails.extend(ascending(&uses.extremes).into_iter().map(|key| vec![key]));
    let mut heads: Vec<Vec<Key>> =
        (1..=equal.len()).filter_map(|width| equal.get(..width)).map(<[Key]>::to_vec).collect();
    heads.extend(equal.iter().map(|key| vec![key.clone()]));
    for columns in uses.joins.values() {
        let join = ascending(columns);
        heads.extend(join.iter().map(|key| vec![key.clone()]));
        heads.push(join.clone());
        if !equal.is_empty() {
            heads.push(equal.iter().chain(&join).cloned().collect());
            heads.push(join.iter().chain(&equal).cloned().collect());
        }
    }
    let mut found = KeyLists { table, max_width, lists: BTreeSet::new() };
    for head in &heads {
        found.add(head);
        for tail in &tails {
            found.add(head.iter().chain(tail));
        }
    }
    for tail in &tails {
        found.add(tail);
    }
    for arm in ascending(&uses.arms) {
        found.add([&arm]);
        found.add(equal.iter().chain([&arm]));
    }
    pairs(uses, &mut found);
    found.lists
}

fn pairs(uses: &Uses, found: &mut KeyLists<'_>) {
    let mut columns: Vec<&String> = Vec::new();
    for name in uses.equal.iter().chain(uses.joins.values().flatten()).chain(&uses.ranges).chain(&uses.arms) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    if columns.len() > MAX_PAIRED_COLUMNS || found.max_width < 2 {
        return;
    }
    for first in &columns {
        for second in columns.iter().filter(|second| second != &first) {
            found.add([&Key::ascending(first.as_str()), &Key::ascending(second.as_str())]);
        }
    }
}
