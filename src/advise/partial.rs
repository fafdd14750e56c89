//! Conditions that keep few rows and are always the same: what a partial index is for.
//!
//! `processed_at IS NULL`, `deleted_at IS NOT NULL` and boolean columns have no constant that another call could give otherwise. Conditions
//! that keep most rows are left to whole indexes. HypoPG must not plan a statement that reads a table through a view, or a subquery that
//! is pulled up, while a hypothetical partial index is on the table (its issue 116: the server crashes): only statements of one block over tables get them.

use super::model::{Definition, Key};
use crate::sql::catalog::{Catalog, Column, TableKind};
use crate::sql::facts::{Clause, Comparison, Facts, Predicate, RelationId, RelationSource};
use crate::sql::ident::quote;

/// A condition that keeps a larger share of the rows is not worth an index of its own.
const MAX_KEPT: f64 = 0.3;

/// A condition on one occurrence of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    column: String,
    /// As SQL, over the table's columns.
    pub sql: String,
}

impl Condition {
    /// Keys without the column whose value is known by the condition, unless it is all there is.
    pub fn without(&self, keys: Vec<Key>) -> Vec<Key> {
        let rest: Vec<Key> = keys.iter().filter(|key| key.column != self.column).cloned().collect();
        if rest.is_empty() { keys } else { rest }
    }
}

/// Whether a statement can be planned with hypothetical partial indexes.
pub(super) fn is_flat(facts: &Facts, catalog: &Catalog) -> bool {
    let is_table = |source: &RelationSource| match source {
        RelationSource::Table { table: Some(table), .. } => {
            matches!(catalog.table(*table).kind, TableKind::Table | TableKind::Partitioned)
        }
        _ => false,
    };
    facts.scopes.len() == 1
        && facts.set_operations.is_empty()
        && facts.unknown.is_none()
        && facts.relations.iter().all(|relation| is_table(&relation.source))
}

/// The conditions of a statement that hold for every row it wants and keep few.
pub(super) fn conditions(facts: &Facts, catalog: &Catalog) -> Vec<(RelationId, Condition)> {
    if !is_flat(facts, catalog) {
        return Vec::new();
    }
    facts.predicates.iter().filter_map(|predicate| condition(predicate, facts, catalog)).collect()
}

fn condition(predicate: &Predicate, facts: &Facts, catalog: &Catalog) -> Option<(RelationId, Condition)> {
    let column = predicate.left.column().filter(|_| predicate.conjunctive && predicate.clause == Clause::Where)?;
    let relation = column.relation?;
    let RelationSource::Table { table: Some(table), .. } = facts.relations.get(relation.0)?.source else { return None };
    let stored: &Column = catalog.table(table).column(&column.name)?;
    let (kept, words) = match predicate.comparison {
        Comparison::IsNull => (stored.null_fraction?, " IS NULL"),
        Comparison::IsNotNull => (1.0 - stored.null_fraction?, " IS NOT NULL"),
        Comparison::Truth if stored.type_name == "boolean" => (MAX_KEPT, ""),
        _ => return None,
    };
    let sql = format!("{}{words}", quote(&column.name));
    (kept <= MAX_KEPT).then(|| (relation, Condition { column: column.name.clone(), sql }))
}

/// Whether a statement may be planned while this index is a hypothesis.
pub(super) fn is_safe(definition: &Definition, is_flat: bool) -> bool {
    definition.predicate.is_none() || is_flat
}
