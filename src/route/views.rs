//! Views: a statement that reads one is planned, and run, with the view's query in its place.
//!
//! That is what PostgreSQL's rewriter does (`rewriteHandler.c`, `ApplyRetrieveRule`): a view is a subquery under the view's name. One difference
//! there is: the tables below are read with the view owner's rights, and under the policies for the owner. So views over tables
//! with row security are not expanded, and missing rights are PostgreSQL's error.

use super::plan::TemplatePlan;
use super::topology::Topology;
use super::words::Words;
use crate::sql::catalog::{Table, TableKind};
use crate::sql::facts::{self, Access, RelationSource, Span, StatementKind};
use crate::sql::parse;

/// Views in views, and how long a statement may become.
const MAX_DEPTH: usize = 16;
const MAX_BYTES: usize = 1 << 20;

/// The statement with its views replaced, where they are why it was refused.
pub fn expand_refused(plan: &TemplatePlan, sql: &str, topology: &Topology) -> Option<String> {
    let by_table = |rule: &str| matches!(rule, "unlisted-table" | "unusable-table");
    plan.refusal().filter(|refusal| by_table(refusal.rule)).and_then(|_| expand(sql, topology))
}

/// The statement with all views replaced; `None` where there is none to replace, or one that cannot be: a subquery has
/// no rows of the view's type, and no schema.
pub fn expand(sql: &str, topology: &Topology) -> Option<String> {
    let mut text = sql.to_owned();
    for depth in 0..MAX_DEPTH {
        let parsed = parse::parse(&text).ok()?;
        let facts = facts::facts(&parsed, topology.catalog());
        if matches!(facts.kind, StatementKind::Ddl | StatementKind::Truncate) {
            return None;
        }
        let mut places = Vec::new();
        let names: Vec<Span> = facts.relations.iter().map(|relation| relation.span).collect();
        for relation in &facts.relations {
            let RelationSource::Table { table: Some(id), name, .. } = &relation.source else { continue };
            let table = topology.catalog().table(*id);
            if table.kind != TableKind::View {
                continue;
            }
            if relation.access != Access::Read {
                return None;
            }
            let words = Words::of(&text);
            let called = relation.visible_name()?;
            let is_odd = words.place(relation.span).is_none_or(|place| place.only)
                || words.needs_rows(called, &names)
                || words.names_schema_of(called, relation.span);
            if is_odd {
                return None;
            }
            let query = subquery(table, relation.alias.is_none().then_some(name))?;
            places.push(match words.table_command(relation.span) {
                Some(start) => (Span { start, ..relation.span }, format!("SELECT * FROM {query}")),
                None => (relation.span, query),
            });
        }
        if places.is_empty() {
            return (depth > 0).then_some(text);
        }
        places.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        for (span, query) in places {
            let place = usize::try_from(span.start).ok()?..usize::try_from(span.end).ok()?;
            text.get(place.clone())?;
            text.replace_range(place, &query);
        }
        if text.len() > MAX_BYTES {
            return None;
        }
    }
    None
}

/// A view's query as a subquery, which gets the view's name where it has no other.
fn subquery(view: &Table, name: Option<&String>) -> Option<String> {
    let query = view.definition.as_deref().filter(|_| view.is_plain_view)?;
    let query = query.trim().trim_end_matches(';');
    let alias = name.map(|name| format!(" AS \"{}\"", name.replace('"', "\"\""))).unwrap_or_default();
    Some(format!("({query}){alias}"))
}
