//! unindexed-scan: a filter that no index answers, by three levels of evidence.
//!
//! The planner, when it can be asked, has the last word: no scan of a large table in its plan, no
//! finding. Without it row counts decide, and without these the catalog alone.

use super::indexes::{column_and_value, leads_an_index};
use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject};
use crate::sql::catalog::{Table, TableKind};
use crate::sql::explain::PlanNode;
use crate::sql::facts::{Clause, ColumnRef, Literal, Operand, Predicate, RelationId, RelationSource, StatementKind};

/// What reading and testing one row of usual width costs, in the planner's units, with its part of a page.
const COST_OF_ROW: f64 = 0.025;

/// The check.
pub(super) fn unindexed_scan(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let reads = matches!(
        subject.facts.kind,
        StatementKind::Select | StatementKind::Update | StatementKind::Delete | StatementKind::Insert
    );
    if !reads {
        return Vec::new();
    }
    if !subject.knows_schema() {
        return by_plan_alone(subject, rule);
    }
    let suspects: Vec<Suspect<'_>> =
        (0..subject.facts.relations.len()).filter_map(|at| suspect(subject, rule, RelationId(at))).collect();
    if suspects.is_empty() {
        return Vec::new();
    }
    match subject.plan() {
        Some(plan) => suspects.iter().filter_map(|suspect| by_plan(rule, suspect, plan)).collect(),
        None => suspects.iter().filter_map(|suspect| by_catalog(suspect)).collect(),
    }
}

/// What a plan shows, where nothing is known of the tables: it was measured, or says what it expects.
fn by_plan_alone(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let Some(plan) = subject.plan() else { return Vec::new() };
    let scans = plan.walk().into_iter().filter(|node| node.node_type == "Seq Scan" && node.filter.is_some());
    let hit = |node: &PlanNode| {
        let name = node.relation.as_deref()?;
        let predicate = subject.facts.predicates.iter().find(|predicate| {
            let of_table = |operand: &Operand| {
                let Some(column) = operand.column() else { return false };
                match column.relation.and_then(|id| subject.relation(id)) {
                    Some(relation) => {
                        matches!(&relation.source, RelationSource::Table { name: own, .. } if own == name)
                    }
                    // Whose it is cannot be told without a catalog, unless the filter says.
                    None => node.filter.as_deref().is_some_and(|filter| filter.contains(&column.name)),
                }
            };
            let compares = column_and_value(predicate).is_some_and(|(_, value)| value.is_constant());
            let here = of_table(&predicate.left) || predicate.right.as_ref().is_some_and(of_table);
            predicate.conjunctive && compares && here
        })?;
        let (read, kept) = match (node.actual_rows, node.removed_rows) {
            (Some(kept), Some(removed)) => (kept + removed, kept),
            (Some(kept), None) => (kept, kept),
            _ => (node.total_cost / COST_OF_ROW, node.rows),
        };
        if read < rule.threshold("rows", 1000.0) || kept > read * rule.threshold("fraction", 0.2) {
            return None;
        }
        let filter = node.filter.as_deref().unwrap_or_default();
        let about = if node.actual_rows.is_some() { "" } else { "about " };
        let message =
            format!("by the plan in the log, {about}{read:.0} rows of {name} are read to keep {kept:.0} by {filter}");
        let column = predicate.left.column().or_else(|| predicate.right.as_ref()?.column())?;
        let instead = format!("CREATE INDEX ON {name} ({})", column.name);
        Some(Hit::new(predicate.span, message).by(Evidence::Plan).instead(instead))
    };
    scans.filter_map(hit).collect()
}

/// A table whose filter no index seems to answer.
struct Suspect<'a> {
    table: &'a Table,
    alias: Option<&'a str>,
    predicate: &'a Predicate,
    columns: Vec<&'a ColumnRef>,
}

fn suspect<'a>(subject: &'a Subject<'_>, rule: &Rule, id: RelationId) -> Option<Suspect<'a>> {
    let table = subject.table(id)?;
    let stored = matches!(table.kind, TableKind::Table | TableKind::Partitioned | TableKind::MaterializedView);
    if !stored || table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0)) {
        return None;
    }
    let mine =
        |predicate: &&Predicate| predicate.conjunctive && matches!(predicate.clause, Clause::Where | Clause::InnerOn);
    let mut columns: Vec<&ColumnRef> = Vec::new();
    let mut first = None;
    for predicate in subject.facts.predicates.iter().filter(mine) {
        let right_column = predicate.right.as_ref().and_then(|right| right.column());
        let here =
            [predicate.left.column(), right_column].into_iter().flatten().find(|column| column.relation == Some(id));
        let Some(column) = here.filter(|_| column_and_value(predicate).is_some()) else { continue };
        // An index on any column of a condition, a join's too, may find the rows.
        if leads_an_index(table, &column.name) {
            return None;
        }
        // `column = NULL` is never true, which is another rule's finding.
        let compares =
            |value: &Operand| value.is_constant() && !matches!(value, Operand::Literal { value: Literal::Null, .. });
        if column_and_value(predicate).is_some_and(|(_, value)| compares(value)) {
            first.get_or_insert(predicate);
            columns.push(column);
        }
    }
    // A column of few values is not worth an index.
    let few = |column: &&ColumnRef| {
        let distinct = table.column(&column.name).and_then(|known| known.n_distinct);
        distinct.is_some_and(|count| count > 0.0 && count < rule.threshold("distinct", 20.0))
    };
    let boolean = |column: &&ColumnRef| table.column(&column.name).is_some_and(|known| known.type_name == "boolean");
    if columns.iter().all(|column| few(column) || boolean(column)) {
        return None;
    }
    columns.retain(|column| !boolean(column));
    let alias = subject.relation(id).and_then(|relation| relation.alias.as_deref());
    Some(Suspect { table, alias, predicate: first?, columns })
}

fn by_catalog(suspect: &Suspect<'_>) -> Option<Hit> {
    let table = suspect.table;
    let columns = names(suspect);
    let indexed = |column: &&ColumnRef| {
        table
            .indexes
            .iter()
            .any(|index| index.keys.iter().any(|key| key.column.as_deref() == Some(column.name.as_str())))
    };
    // An index that has the column further back is composite-index-leading-column-missing's finding.
    if suspect.columns.iter().any(indexed) {
        return None;
    }
    let hit = match table.rows {
        Some(rows) => Hit::new(
            suspect.predicate.span,
            format!("no index of {} begins with {columns}: all of its {rows:.0} rows are read", table.name),
        )
        .by(Evidence::Stats),
        None => Hit::new(
            suspect.predicate.span,
            format!("no index of {} begins with {columns}: the whole table is read", table.name),
        )
        .by(Evidence::Schema),
    };
    Some(hit.instead(advice(suspect)))
}

fn names(suspect: &Suspect<'_>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for column in &suspect.columns {
        if !names.contains(&column.name.as_str()) {
            names.push(&column.name);
        }
    }
    names.join(" or ")
}

fn advice(suspect: &Suspect<'_>) -> String {
    format!("CREATE INDEX ON {} ({})", suspect.table.name, names(suspect).replace(" or ", ", "))
}

/// The planner reads the table row by row, and keeps few of the rows.
fn by_plan(rule: &Rule, suspect: &Suspect<'_>, plan: &PlanNode) -> Option<Hit> {
    let table = suspect.table;
    let nodes = plan.walk();
    let node = nodes.into_iter().find(|node| {
        node.node_type == "Seq Scan"
            && node.filter.is_some()
            && node.relation.as_deref() == Some(table.name.name.as_str())
            && (suspect.alias.is_none() || node.alias.is_none() || node.alias.as_deref() == suspect.alias)
    })?;
    let read = table.rows.unwrap_or(node.rows);
    // Where most rows pass, reading them all is right.
    if read < rule.threshold("rows", 1000.0) || node.rows > read * rule.threshold("fraction", 0.2) {
        return None;
    }
    let filter = node.filter.as_deref().unwrap_or_default();
    let message =
        format!("the planner reads all {read:.0} rows of {} to keep about {:.0} by {filter}", table.name, node.rows);
    Some(Hit::new(suspect.predicate.span, message).by(Evidence::Plan).instead(advice(suspect)))
}
