//! Conditions that the indexes at hand do not fit.

use crate::lint::evidence::Evidence;
use crate::lint::matching::target_span;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject, usable};
use crate::sql::catalog::{Catalog, ConstraintKind, Table};
use crate::sql::facts::{Access, Clause, ColumnRef, Comparison, Operand, Predicate, RelationId, StatementKind};

/// Comparisons that a b-tree answers when the other side is fixed.
pub(super) fn indexable(comparison: &Comparison) -> bool {
    matches!(
        comparison,
        Comparison::Eq
            | Comparison::Lt
            | Comparison::Le
            | Comparison::Gt
            | Comparison::Ge
            | Comparison::In
            | Comparison::Between
    )
}

/// The column and the other side of an indexable condition.
pub(super) fn column_and_value(predicate: &Predicate) -> Option<(&ColumnRef, &Operand)> {
    let right = predicate.right.as_ref()?;
    if !indexable(&predicate.comparison) {
        return None;
    }
    match (predicate.left.column(), right.column()) {
        (Some(column), _) => Some((column, right)),
        (None, Some(column)) => Some((column, &predicate.left)),
        _ => None,
    }
}

/// Some usable index has this column first.
pub(super) fn leads_an_index(table: &Table, column: &str) -> bool {
    let first = table.indexes.iter().filter(|index| usable(index)).filter_map(|index| index.keys.first());
    let constraint =
        table.constraints.iter().filter(|it| matches!(it.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique));
    first.into_iter().any(|key| key.column.as_deref() == Some(column))
        || constraint.into_iter().any(|it| it.columns.first().is_some_and(|name| name == column))
}

/// `WHERE b = 1` where the only index with b is on (a, b).
pub(super) fn composite_index_leading_column_missing(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let facts = subject.facts;
    let mut hits = Vec::new();
    for id in (0..facts.relations.len()).map(RelationId) {
        let Some(table) = subject.table(id) else { continue };
        if table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0)) {
            continue;
        }
        let of_table = |predicate: &&Predicate| {
            predicate.conjunctive && column_and_value(predicate).is_some_and(|(column, _)| column.relation == Some(id))
        };
        let conditions: Vec<&Predicate> = facts.predicates.iter().filter(of_table).collect();
        let names: Vec<&str> = conditions.iter().filter_map(|it| Some(column_and_value(it)?.0.name.as_str())).collect();
        if names.iter().any(|name| leads_an_index(table, name)) {
            continue;
        }
        let fixed = conditions.iter().filter(|it| column_and_value(it).is_some_and(|(_, value)| value.is_constant()));
        let found = fixed.filter_map(|predicate| {
            let (column, _) = column_and_value(predicate)?;
            let index =
                table.indexes.iter().filter(|index| usable(index) && index.method == "btree").find(|index| {
                    index.keys.iter().skip(1).any(|key| key.column.as_deref() == Some(column.name.as_str()))
                })?;
            let first = index.keys.first()?.column.clone()?;
            Some((predicate, column, index, first))
        });
        if let Some((predicate, column, index, first)) = found.into_iter().next() {
            let keys = index.key_columns().unwrap_or_default().join(", ");
            let level = if table.rows.is_some() { Evidence::Stats } else { Evidence::Schema };
            hits.push(
                Hit::new(
                    predicate.span,
                    format!("the index {} ({keys}) begins with {first}, which the statement does not fix", index.name),
                )
                .by(level)
                .instead(format!("add a condition on {first}, or CREATE INDEX ON {} ({})", table.name, column.name)),
            );
        }
    }
    hits
}

/// `a = 1 OR b = 2` where one of the two has no index: the whole table is read.
pub(super) fn or_across_columns(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let facts = subject.facts;
    let mut hits = Vec::new();
    let mut seen: Vec<u32> = Vec::new();
    for predicate in facts.predicates.iter().filter(|predicate| predicate.clause == Clause::Where) {
        let Some(or) = predicate.disjunction.filter(|or| !seen.contains(or)) else { continue };
        seen.push(or);
        let arms: Vec<&Predicate> = facts.predicates.iter().filter(|it| it.disjunction == Some(or)).collect();
        let columns: Option<Vec<(&ColumnRef, &Predicate)>> = arms
            .iter()
            .map(|arm| column_and_value(arm).filter(|(_, value)| value.is_constant()).map(|(column, _)| (column, *arm)))
            .collect();
        let Some([(first, _), rest @ ..]) = columns.as_deref() else { continue };
        let Some(relation) = first.relation else { continue };
        if rest.is_empty() || rest.iter().any(|(column, _)| column.relation != first.relation) {
            continue;
        }
        let differ = rest.iter().any(|(column, _)| column.name != first.name);
        let Some(table) = subject.table(relation).filter(|_| differ) else { continue };
        let all = columns.iter().flatten();
        // Some arm must have an index: otherwise it is unindexed-scan's finding.
        let missing = all.clone().find(|(column, _)| !leads_an_index(table, &column.name));
        let narrowed = facts.predicates.iter().any(|it| {
            it.conjunctive
                && column_and_value(it)
                    .is_some_and(|(column, _)| column.relation == Some(relation) && leads_an_index(table, &column.name))
        });
        let small = table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0));
        if let Some((column, arm)) = missing
            .filter(|_| all.clone().any(|(column, _)| leads_an_index(table, &column.name)) && !narrowed && !small)
        {
            let level = if table.rows.is_some() { Evidence::Stats } else { Evidence::Schema };
            hits.push(
                Hit::new(
                    arm.span,
                    format!(
                        "{} has no index: because of OR the whole of {} is read, though the other arms have theirs",
                        column.name, table.name
                    ),
                )
                .by(level)
                .instead(format!(
                    "CREATE INDEX ON {} ({}), so that PostgreSQL can combine the indexes",
                    table.name, column.name
                )),
            );
        }
    }
    hits
}

/// DELETE on a table that others reference by columns without an index.
pub(super) fn unindexed_foreign_key(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    if subject.facts.kind != StatementKind::Delete {
        return Vec::new();
    }
    let target = subject.facts.relations.iter().enumerate().find(|(_, relation)| relation.access == Access::Write);
    let Some(table) = target.and_then(|(at, _)| subject.table(RelationId(at))) else { return Vec::new() };
    let Some((child, columns)) = unindexed_child(subject.catalog, table, rule.threshold("rows", 1000.0)) else {
        return Vec::new();
    };
    let columns = columns.join(", ");
    let level = if child.rows.is_some() { Evidence::Stats } else { Evidence::Schema };
    let message = format!(
        "for each row deleted, all of {} is searched for rows that reference it: {columns} has no index",
        child.name
    );
    vec![
        Hit::new(target_span(subject), message)
            .by(level)
            .instead(format!("CREATE INDEX ON {} ({columns})", child.name)),
    ]
}

/// A table with a foreign key to `table` whose columns lead no index.
fn unindexed_child<'a>(catalog: &'a Catalog, table: &Table, least_rows: f64) -> Option<(&'a Table, &'a [String])> {
    catalog.tables().map(|(_, child)| child).find_map(|child| {
        if child.rows.is_some_and(|rows| rows < least_rows) {
            return None;
        }
        let references = child.constraints.iter().filter(|constraint| {
            matches!(&constraint.kind, ConstraintKind::ForeignKey { table: parent, .. } if *parent == table.name)
        });
        let bare = references
            .into_iter()
            .find(|constraint| !constraint.columns.iter().any(|column| leads_an_index(child, column)))?;
        Some((child, bare.columns.as_slice()))
    })
}
