//! Joins, subqueries and CTEs that do more than is asked for, and operators whose index is missing.

use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject, usable};
use crate::sql::catalog::Table;
use crate::sql::facts::{
    Clause, Comparison, JoinKind, Operand, Predicate, Projection, Relation, RelationId, RelationSource, Scope, ScopeId,
    ScopeKind, Span,
};

/// `NOT IN (SELECT ..)` over a result too large to be hashed in work_mem.
pub(super) fn not_in_subquery_slow(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let hit = |predicate: &Predicate| {
        let Some(Operand::Subquery(scope, _)) = predicate.right else { return None };
        if predicate.comparison != Comparison::NotIn {
            return None;
        }
        let inner = subject.facts.scopes.get(scope.0)?;
        let mut relations = subject.relations_of(scope);
        let (Some((id, _)), None) = (relations.next(), relations.next()) else { return None };
        let table = subject.table(id)?;
        let rows = table.rows.filter(|rows| *rows >= rule.threshold("rows", 100_000.0))?;
        if inner.has_where || inner.limit.is_some() || inner.aggregate || !inner.group_by.is_empty() {
            return None;
        }
        let message = format!(
            "NOT IN cannot be an anti-join: when {}'s {rows:.0} values do not fit into work_mem, they are searched anew for every row",
            table.name
        );
        Some(Hit::new(predicate.span, message).by(Evidence::Stats).instead("NOT EXISTS (SELECT FROM .. WHERE ..)"))
    };
    subject.facts.predicates.iter().filter_map(hit).collect()
}

/// `data @> '{..}'` without a GIN index.
pub(super) fn jsonb_operator_without_gin(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let hit = |predicate: &Predicate| {
        let Comparison::Operator(operator) = &predicate.comparison else { return None };
        if !matches!(operator.as_str(), "@>" | "?" | "?|" | "?&" | "@?" | "@@") {
            return None;
        }
        let column = predicate.left.column()?;
        let (table, known) = subject.column(column)?;
        let small = table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0));
        let one = column.relation.is_some_and(|id| subject.at_most_one_row(id));
        if known.type_name != "jsonb" || small || one || !predicate.right.as_ref()?.is_constant() {
            return None;
        }
        let answers = |index: &&crate::sql::catalog::Index| {
            usable(index)
                && index.method == "gin"
                && index.keys.iter().any(|key| {
                    // jsonb_path_ops knows containment and paths, not keys.
                    key.column.as_deref() == Some(known.name.as_str())
                        && (!operator.starts_with('?') || key.operator_class.as_deref() != Some("jsonb_path_ops"))
                })
        };
        if table.indexes.iter().any(|index| answers(&index)) || other_index(subject, table, predicate) {
            return None;
        }
        let name = &known.name;
        let level = if table.rows.is_some() { Evidence::Stats } else { Evidence::Schema };
        let message = format!("no GIN index on {name} answers {operator}: every document of {} is read", table.name);
        let advice = format!("CREATE INDEX ON {} USING gin ({name})", table.name);
        Some(Hit::new(predicate.span, message).by(level).instead(advice))
    };
    let filters = |it: &&Predicate| it.conjunctive && matches!(it.clause, Clause::Where | Clause::InnerOn);
    subject.facts.predicates.iter().filter(filters).filter_map(hit).collect()
}

/// Another condition of the statement finds the table's rows by an index.
fn other_index(subject: &Subject<'_>, table: &Table, own: &Predicate) -> bool {
    let relation = own.left.column().and_then(|column| column.relation);
    let conditions = subject.facts.predicates.iter().filter(|it| it.conjunctive);
    let mut columns = conditions.filter_map(super::indexes::column_and_value).map(|(column, _)| column);
    columns.any(|column| column.relation == relation && super::indexes::leads_an_index(table, &column.name))
}

/// `name LIKE 'abc%'` where the b-tree's collation is not C.
pub(super) fn like_prefix_collation(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let hit = |predicate: &Predicate| {
        let column = predicate.left.column()?;
        let (table, known) = subject.column(column)?;
        let Some(Operand::Literal { value: crate::sql::facts::Literal::Text(pattern), .. }) = &predicate.right else {
            return None;
        };
        let prefix = pattern.find(['%', '_']).filter(|at| *at > 0)?;
        if predicate.comparison != Comparison::Like || !pattern.get(prefix..)?.trim_matches('%').is_empty() {
            return None;
        }
        let keys = || {
            table.indexes.iter().filter(|index| usable(index)).filter_map(|index| Some((index, index.keys.first()?)))
        };
        let mut own = keys().filter(|(_, key)| key.column.as_deref() == Some(known.name.as_str()));
        let plain_c = |name: Option<&str>| matches!(name, Some("C" | "POSIX"));
        let fits = |key: &crate::sql::catalog::IndexKey| {
            plain_c(key.collation.as_deref())
                || (key.collation.is_none() && plain_c(known.collation.as_deref()))
                || key
                    .operator_class
                    .as_deref()
                    .is_some_and(|class| class.ends_with("pattern_ops") || class.ends_with("trgm_ops"))
        };
        let (index, _) = own.next()?;
        let small = table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0));
        if small || keys().any(|(_, key)| key.column.as_deref() == Some(known.name.as_str()) && fits(key)) {
            return None;
        }
        let planned = subject.plan().map(|plan| plan.walk().iter().any(|node| node.index_condition.is_some()));
        if planned == Some(true) || other_index_than(subject, table, predicate, &known.name) {
            return None;
        }
        let level = if planned.is_some() { Evidence::Plan } else { Evidence::Schema };
        let message = format!(
            "the index {} is sorted by the language's rules: it answers a prefix only where the database's collation is C",
            index.name
        );
        let advice = format!("CREATE INDEX ON {} ({} text_pattern_ops)", table.name, known.name);
        Some(Hit::new(predicate.span, message).by(level).instead(advice))
    };
    subject.facts.predicates.iter().filter(|it| it.conjunctive && it.clause == Clause::Where).filter_map(hit).collect()
}

fn other_index_than(subject: &Subject<'_>, table: &Table, own: &Predicate, name: &str) -> bool {
    let relation = own.left.column().and_then(|column| column.relation);
    let conditions = subject.facts.predicates.iter().filter(|it| it.conjunctive);
    let mut columns = conditions.filter_map(super::indexes::column_and_value).map(|(column, _)| column);
    columns.any(|it| it.relation == relation && it.name != name && super::indexes::leads_an_index(table, &it.name))
}

/// DISTINCT that takes back what a join multiplied.
pub(super) fn distinct_hides_fan_out(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let hit = |(at, scope): (usize, &Scope)| {
        if !scope.distinct || scope.aggregate || !scope.group_by.is_empty() {
            return None;
        }
        let columns: Option<Vec<RelationId>> = scope.projection.iter().map(projected_relation).collect();
        let columns = columns?;
        let kept = *columns.first()?;
        if columns.iter().any(|id| *id != kept) {
            return None;
        }
        let fans = |(id, relation): &(RelationId, &Relation)| {
            *id != kept
                && matches!(relation.join, JoinKind::Inner | JoinKind::Left | JoinKind::Comma | JoinKind::First)
                && subject.table(*id).is_some_and(|table| !table.is_unique_by(&joined_columns(subject, *id)))
        };
        let (id, other) = subject.relations_of(ScopeId(at)).find(fans)?;
        // The kept side must itself be distinct without the join, or DISTINCT has work of its own.
        let names: Vec<&str> = scope
            .projection
            .iter()
            .filter_map(|item| match item {
                Projection::Item { value, .. } => Some(value.column()?.name.as_str()),
                _ => None,
            })
            .collect();
        subject.table(kept).filter(|table| table.is_unique_by(&names))?;
        let name = other.visible_name().unwrap_or("the joined table");
        let message = format!("the join with {name} repeats rows, and DISTINCT sorts or hashes all to drop them again");
        let _ = id;
        Some(
            Hit::new(other.span, message)
                .by(Evidence::Schema)
                .instead(format!("WHERE EXISTS (SELECT FROM {name} ..) instead of the join")),
        )
    };
    subject.facts.scopes.iter().enumerate().filter_map(hit).collect()
}

fn projected_relation(item: &Projection) -> Option<RelationId> {
    match item {
        Projection::Item { value, .. } => value.column()?.relation,
        _ => None,
    }
}

/// Columns of a relation that conditions set equal to something.
fn joined_columns<'a>(subject: &'a Subject<'_>, id: RelationId) -> Vec<&'a str> {
    let equal = subject.facts.predicates.iter().filter(|it| it.conjunctive && it.comparison == Comparison::Eq);
    let sides = equal.flat_map(|it| [Some(&it.left), it.right.as_ref()]).flatten().filter_map(Operand::column);
    sides.filter(|column| column.relation == Some(id)).map(|column| column.name.as_str()).collect()
}

/// A LEFT JOIN that nothing reads from.
pub(super) fn unused_join(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let hit = |(at, relation): (usize, &Relation)| {
        let id = RelationId(at);
        let table = subject.table(id)?;
        let scope = subject.facts.scopes.get(relation.scope.0)?;
        let star = scope.projection.iter().any(|item| !matches!(item, Projection::Item { .. }));
        if relation.join != JoinKind::Left || star || subject.facts.unknown.is_some() || scope.aggregate {
            return None;
        }
        let on: Vec<Span> = subject
            .facts
            .predicates
            .iter()
            .filter(|it| it.clause == Clause::OuterOn && mentions(it, id))
            .map(|it| it.span)
            .collect();
        let name = relation.visible_name()?;
        if on.is_empty() || mentioned_outside(subject.sql, name, table, with_alias(subject, relation), &on) {
            return None;
        }
        let unique = table.is_unique_by(&joined_columns(subject, id));
        let message = match unique {
            true => format!("nothing of {name} is read: the join is without effect"),
            false => format!("nothing of {name} is read, but each of its rows repeats the row it is joined to"),
        };
        Some(Hit::new(relation.span, message).by(Evidence::Schema).instead(format!("leave the join with {name} out")))
    };
    subject.facts.relations.iter().enumerate().filter_map(hit).collect()
}

/// A relation's place with its alias.
fn with_alias(subject: &Subject<'_>, relation: &Relation) -> Span {
    let Some(alias) = &relation.alias else { return relation.span };
    let rest = subject.sql.get(relation.span.end as usize..).unwrap_or("");
    let length = rest.to_ascii_lowercase().find(alias.as_str()).map_or(0, |at| at + alias.len());
    Span { end: relation.span.end + u32::try_from(length).unwrap_or(0), ..relation.span }
}

fn mentions(predicate: &Predicate, id: RelationId) -> bool {
    let sides = [Some(&predicate.left), predicate.right.as_ref()];
    sides.into_iter().flatten().filter_map(Operand::column).any(|column| column.relation == Some(id))
}

/// The name, or one of the columns, stands as a word somewhere else than in the join itself.
fn mentioned_outside(sql: &str, name: &str, table: &Table, own: Span, on: &[Span]) -> bool {
    let inside =
        |at: u32| (own.start..own.end).contains(&at) || on.iter().any(|span| (span.start..span.end).contains(&at));
    let mut before = String::new();
    for token in crate::sql::lexer::Lexer::new(sql.as_bytes(), crate::sql::lexer::LexOptions::default()) {
        let text = String::from_utf8_lossy(token.bytes(sql.as_bytes())).trim_matches('"').to_ascii_lowercase();
        let qualified = before == ".";
        let known = text == name.to_ascii_lowercase() || (!qualified && table.columns.iter().any(|it| it.name == text));
        if known && !inside(token.start) {
            return true;
        }
        before = text;
    }
    false
}

/// A CTE that is computed in full though only some rows of it are read.
pub(super) fn materialized_cte_barrier(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let hit = |(at, scope): (usize, &Scope)| {
        let ScopeKind::Cte { name, recursive: false } = &scope.kind else { return None };
        let whole = scope.has_where || scope.limit.is_some() || scope.aggregate || scope.distinct || scope.window;
        let reads: Vec<RelationId> = subject
            .facts
            .relations
            .iter()
            .enumerate()
            .filter(|(_, relation)| relation.source == RelationSource::Cte(ScopeId(at)))
            .map(|(at, _)| RelationId(at))
            .collect();
        let explicit = explicitly_materialized(subject.sql, name);
        if whole || !scope.group_by.is_empty() || reads.is_empty() || !(explicit || reads.len() > 1) {
            return None;
        }
        let narrows = |id: &RelationId| {
            subject.facts.predicates.iter().find(|it| {
                it.conjunctive
                    && it.clause == Clause::Where
                    && it.left.column().is_some_and(|column| column.relation == Some(*id))
                    && it.right.as_ref().is_some_and(Operand::is_constant)
            })
        };
        let found: Option<Vec<&Predicate>> = reads.iter().map(narrows).collect();
        let first = found?.first().copied()?;
        subject
            .relations_of(ScopeId(at))
            .find(|(_, relation)| matches!(relation.source, RelationSource::Table { .. }))?;
        let why = if explicit { "MATERIALIZED" } else { "read twice, and so materialized" };
        let message = format!("{name} is {why}: all of it is computed before {} is tested", subject.text(first.span));
        let advice = format!("WITH {name} AS NOT MATERIALIZED (..), or move the condition into it");
        Some(Hit::new(first.span, message).instead(advice))
    };
    subject.facts.scopes.iter().enumerate().filter_map(hit).collect()
}

fn explicitly_materialized(sql: &str, name: &str) -> bool {
    let words: Vec<String> = sql
        .split(|letter: char| !(letter.is_alphanumeric() || letter == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words
        .windows(3)
        .any(|three| matches!(three, [one, two, three] if *one == name && two == "as" && three == "materialized"))
}

/// A sort that the planner expects to be larger than work_mem.
pub(super) fn sort_spill(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let Some(scope) = subject.facts.scopes.first().filter(|scope| scope.limit.is_none()) else { return Vec::new() };
    let Some(key) = scope.order_by.first() else { return Vec::new() };
    let Some(plan) = subject.plan() else { return Vec::new() };
    let least = rule.threshold("bytes", 4_194_304.0);
    let size = |node: &crate::sql::explain::PlanNode| node.rows * f64::from(node.width.max(8));
    if let Some(bytes) = plan.walk().into_iter().filter_map(|node| node.disk_bytes).max() {
        let megabytes = bytes as f64 / 1_048_576.0;
        let message = format!("by the plan in the log, the sort wrote {megabytes:.1} MiB to disk");
        return vec![Hit::new(key.span, message).by(Evidence::Plan)];
    }
    let sorts = plan.walk().into_iter().filter(|node| node.node_type == "Sort").map(|node| (node.rows, size(node)));
    let Some((rows, bytes)) =
        sorts.filter(|(_, bytes)| *bytes >= least).reduce(|one, other| if one.1 >= other.1 { one } else { other })
    else {
        return Vec::new();
    };
    let megabytes = bytes / 1_048_576.0;
    let message = format!(
        "the planner expects to sort {rows:.0} rows, {megabytes:.0} MiB: more than work_mem holds by default, so on disk"
    );
    let name = subject.text(key.value.span());
    vec![
        Hit::new(key.span, message)
            .by(Evidence::Plan)
            .instead(format!("an index on {name}, fewer rows, or a larger work_mem for this query")),
    ]
}
