//! The shape of SELECT: stars, limits, sorts, counts.

use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject};
use crate::sql::facts::{
    JoinKind, Literal, Operand, Projection, Relation, RelationId, RelationSource, Scope, ScopeId, ScopeKind, Shape,
    StatementKind,
};

fn scopes<'a>(subject: &'a Subject<'_>) -> impl Iterator<Item = (ScopeId, &'a Scope)> {
    subject.facts.scopes.iter().enumerate().map(|(at, scope)| (ScopeId(at), scope))
}

/// A scope whose rows reach the client (an arm of a top-level UNION too).
fn reaches_client(subject: &Subject<'_>, id: ScopeId) -> bool {
    let Some(scope) = subject.facts.scopes.get(id.0) else { return false };
    match (scope.parent, &scope.kind) {
        (None, _) => matches!(subject.facts.kind, StatementKind::Select),
        (Some(parent), ScopeKind::SetArm) => reaches_client(subject, parent),
        _ => false,
    }
}

/// `SELECT *` that reaches the client.
pub(super) fn select_star(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (id, scope) in scopes(subject).filter(|(id, _)| reaches_client(subject, *id)) {
        for projection in &scope.projection {
            let (span, relations): (_, Vec<RelationId>) = match projection {
                Projection::Star(span) => (*span, subject.relations_of(id).map(|(id, _)| id).collect()),
                Projection::QualifiedStar(span, relation) => (*span, relation.iter().copied().collect()),
                Projection::Item { .. } => continue,
            };
            let named = |id: &RelationId| {
                let source = subject.relation(*id).map(|relation| &relation.source);
                // A subquery, CTE or VALUES list names its columns itself.
                !matches!(source, Some(RelationSource::Derived(inner) | RelationSource::Cte(inner)) if lists_columns(subject, *inner))
                    && !matches!(source, Some(RelationSource::Values | RelationSource::Function(_)))
            };
            let open: Vec<RelationId> = relations.iter().copied().filter(named).collect();
            if open.is_empty() {
                continue;
            }
            hits.extend(star_hit(subject, rule, span, &open));
        }
    }
    hits
}

fn lists_columns(subject: &Subject<'_>, scope: ScopeId) -> bool {
    subject.facts.scopes.get(scope.0).is_some_and(|scope| {
        !scope.projection.is_empty() && scope.projection.iter().all(|item| matches!(item, Projection::Item { .. }))
    })
}

fn star_hit(
    subject: &Subject<'_>,
    rule: &Rule,
    span: crate::sql::facts::Span,
    relations: &[RelationId],
) -> Option<Hit> {
    let tables: Vec<_> = relations.iter().filter_map(|id| subject.table(*id)).collect();
    let columns: Vec<&str> =
        tables.iter().flat_map(|table| &table.columns).map(|column| column.name.as_str()).collect();
    if tables.len() < relations.len() || columns.is_empty() {
        return Some(Hit::new(span, "every column is read and sent, those added later too"));
    }
    // A narrow table has nothing to leave out.
    if (columns.len() as f64) < rule.threshold("columns", 3.0) {
        return None;
    }
    let wide = |name: &str| matches!(name, "text" | "jsonb" | "json" | "bytea" | "xml") || name.ends_with("[]");
    let heavy: Vec<&str> = tables
        .iter()
        .flat_map(|table| &table.columns)
        .filter(|column| wide(&column.type_name))
        .map(|column| column.name.as_str())
        .collect();
    let mut message = format!("all {} columns are read and sent, those added later too", columns.len());
    if !heavy.is_empty() {
        message.push_str(&format!("; {} may be large", heavy.join(", ")));
    }
    let shown = columns.iter().take(6).copied().collect::<Vec<_>>().join(", ");
    let more = if columns.len() > 6 { ", .." } else { "" };
    Some(
        Hit::new(span, message)
            .by(Evidence::Schema)
            .instead(format!("name the columns that are used, of {shown}{more}")),
    )
}

/// LIMIT without ORDER BY: which rows come is chance.
pub(super) fn limit_without_order_by(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (id, scope) in scopes(subject) {
        let Some(limit) = &scope.limit else { continue };
        let harmless = !scope.order_by.is_empty()
            || matches!(scope.kind, ScopeKind::Exists { .. } | ScopeKind::Source)
            || is_number(limit, 0.0)
            || (scope.aggregate && scope.group_by.is_empty())
            || inside_exists(subject, id)
            || !matches!(subject.facts.kind, StatementKind::Select);
        if harmless || returns_one_row(subject, id) || only_ordered_inputs(subject, id) || selects_no_column(scope) {
            continue;
        }
        // Without FROM there is one row.
        if subject.relations_of(id).next().is_none()
            && scope.projection.iter().all(|item| matches!(item, Projection::Item { .. }))
        {
            continue;
        }
        hits.push(Hit::new(
            limit.span(),
            "without ORDER BY, which rows LIMIT keeps is chance: it changes with the plan and with every write",
        ));
    }
    hits
}

/// `SELECT 1 FROM t WHERE .. LIMIT 1` asks whether there is a row, not which.
fn selects_no_column(scope: &Scope) -> bool {
    !scope.projection.is_empty()
        && scope.projection.iter().all(|item| matches!(item, Projection::Item { value, .. } if value.is_constant()))
}

fn is_number(operand: &Operand, number: f64) -> bool {
    number_of(operand) == Some(number)
}

fn number_of(operand: &Operand) -> Option<f64> {
    match operand {
        Operand::Literal { value: Literal::Number(number), .. } => number.parse().ok(),
        _ => None,
    }
}

fn inside_exists(subject: &Subject<'_>, id: ScopeId) -> bool {
    let mut next = Some(id);
    while let Some(scope) = next.and_then(|id| subject.facts.scopes.get(id.0)) {
        if matches!(scope.kind, ScopeKind::Exists { .. }) {
            return true;
        }
        next = scope.parent;
    }
    false
}

/// Every relation is found by a unique key; or, where no catalog is at hand, the only one by `id = ..`.
fn returns_one_row(subject: &Subject<'_>, id: ScopeId) -> bool {
    let relations: Vec<(RelationId, &Relation)> = subject.relations_of(id).collect();
    let one = |(id, _): &(RelationId, &Relation)| {
        subject.at_most_one_row(*id)
            || (subject.table(*id).is_none()
                && subject.fixed_columns(*id).iter().any(|name| *name == "id" || *name == "uuid"))
    };
    let first = relations.iter().filter(|(_, relation)| relation.join != JoinKind::Left);
    !relations.is_empty() && first.clone().count() > 0 && first.clone().all(one)
}

/// FROM has only subqueries that sort their rows themselves.
fn only_ordered_inputs(subject: &Subject<'_>, id: ScopeId) -> bool {
    let mut relations = subject.relations_of(id).peekable();
    relations.peek().is_some()
        && relations.all(|(_, relation)| match relation.source {
            RelationSource::Derived(inner) | RelationSource::Cte(inner) => {
                subject.facts.scopes.get(inner.0).is_some_and(|scope| !scope.order_by.is_empty())
            }
            RelationSource::Function(_) | RelationSource::Values => true,
            _ => false,
        })
}

/// `OFFSET 10000`
pub(super) fn offset_pagination(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let least = rule.threshold("rows", 1000.0);
    let mut hits = Vec::new();
    for (_, scope) in scopes(subject) {
        let Some(offset) = &scope.offset else { continue };
        let (rows, evidence) = match offset {
            Operand::Parameter { number, .. } => (seen_number(subject, *number), Evidence::Workload),
            other => (number_of(other), Evidence::Syntax),
        };
        if let Some(rows) = rows.filter(|rows| *rows >= least) {
            let message = format!(
                "{rows} rows are computed and thrown away before the first is returned; each page costs more than the one before"
            );
            let key = scope.order_by.first().map_or("id", |key| subject.text(key.value.span()));
            hits.push(
                Hit::new(offset.span(), message)
                    .by(evidence)
                    .instead(format!("remember the last row's key: WHERE {key} > last ORDER BY {key} LIMIT ..")),
            );
        }
    }
    hits
}

/// The largest value that the log saw for a parameter.
fn seen_number(subject: &Subject<'_>, number: u32) -> Option<f64> {
    let opening = format!("${number} = '");
    let values = subject.template.parameters.iter().filter_map(|set| set.split_once(&opening));
    values.filter_map(|(_, rest)| rest.split('\'').next()?.parse().ok()).reduce(f64::max)
}

/// `SELECT count(*) FROM large`
pub(super) fn count_star_on_large_table(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let least = rule.threshold("rows", 1_000_000.0);
    let counts =
        |scope: &Scope| scope.projection.len() == 1 && scope.group_by.is_empty() && !scope.has_where && scope.aggregate;
    let hit = |(id, scope): (ScopeId, &Scope)| {
        let call =
            subject.facts.functions.iter().find(|call| call.scope == id && call.name == "count" && !call.window)?;
        let mut relations = subject.relations_of(id);
        let (Some((relation, _)), None) = (relations.next(), relations.next()) else { return None };
        let table = subject.table(relation)?;
        let rows = table.rows.filter(|rows| *rows >= least && counts(scope))?;
        Some(
            Hit::new(call.span, format!("all of {}'s {rows:.0} rows are read to be counted", table.name))
                .by(Evidence::Stats)
                .instead(format!("an estimate: SELECT reltuples FROM pg_class WHERE oid = '{}'::regclass", table.name)),
        )
    };
    scopes(subject).filter_map(hit).collect()
}

/// A whole large table is sent to the client.
pub(super) fn unbounded_select(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let least = rule.threshold("rows", 10_000.0);
    let hit = |(id, scope): (ScopeId, &Scope)| {
        let bounded = scope.has_where
            || scope.limit.is_some()
            || scope.aggregate
            || !scope.group_by.is_empty()
            || scope.distinct
            || scope.distinct_on;
        if bounded || !reaches_client(subject, id) || !subject.facts.set_operations.is_empty() {
            return None;
        }
        let mut relations = subject.relations_of(id);
        let (Some((relation, occurrence)), None) = (relations.next(), relations.next()) else { return None };
        let table = subject.table(relation)?;
        let rows = table.rows.filter(|rows| *rows >= least)?;
        Some(
            Hit::new(occurrence.span, format!("all of {}'s {rows:.0} rows are sent to the client", table.name))
                .by(Evidence::Stats),
        )
    };
    scopes(subject).filter_map(hit).collect()
}

/// `SELECT (SELECT count(*) FROM o WHERE o.c = c.id) FROM c`
pub(super) fn correlated_select_list_subquery(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (id, scope) in scopes(subject) {
        for item in &scope.projection {
            let Projection::Item { value: Operand::Subquery(inner, span), .. } = item else { continue };
            let outer = |relation: Option<RelationId>| {
                relation.and_then(|at| subject.relation(at)).is_some_and(|relation| relation.scope == id)
            };
            let reaches_out = subject.predicates_of(*inner).any(|predicate| {
                let sides = [Some(&predicate.left), predicate.right.as_ref()];
                sides.into_iter().flatten().filter_map(Operand::column).any(|column| outer(column.relation))
            });
            let many = subject.relations_of(id).any(|(relation, _)| !subject.at_most_one_row(relation));
            // A page of rows runs it a page's times.
            let paged = scope.limit.as_ref().and_then(number_of).is_some_and(|rows| rows <= 100.0);
            if reaches_out && many && !paged && !returns_one_row(subject, id) {
                hits.push(Hit::new(*span, "the subquery runs once for every row of the outer query"));
            }
        }
    }
    hits
}

/// A condition in HAVING that WHERE could have tested before grouping.
pub(super) fn having_without_aggregate(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let plain = |operand: &Operand| match operand {
        Operand::Expression { aggregate, volatile, columns, .. } => !aggregate && !volatile && !columns.is_empty(),
        Operand::Subquery(..) => false,
        _ => true,
    };
    let having = subject.facts.predicates.iter().filter(|predicate| {
        let column = predicate.left.column().or_else(|| predicate.right.as_ref().and_then(Operand::column));
        predicate.clause == crate::sql::facts::Clause::Having
            && predicate.conjunctive
            && column.is_some()
            && plain(&predicate.left)
            && predicate.right.as_ref().is_none_or(plain)
    });
    let hit = |predicate: &crate::sql::facts::Predicate| {
        let written = subject.text(predicate.span);
        Hit::new(predicate.span, format!("{written} needs no aggregate, but is tested after grouping"))
            .instead(format!("WHERE {written}"))
    };
    having.map(hit).collect()
}

/// A subquery sorts rows that its outside does not read in order.
pub(super) fn order_by_in_subquery(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (_, scope) in scopes(subject) {
        let useless = matches!(scope.kind, ScopeKind::InSubquery { .. } | ScopeKind::Exists { .. })
            || (matches!(scope.kind, ScopeKind::Derived { lateral: false }) && outer_forgets_order(subject, scope));
        if !useless || scope.limit.is_some() || scope.offset.is_some() || scope.distinct_on || scope.locking.is_some() {
            continue;
        }
        if let Some(key) = scope.order_by.first() {
            hits.push(
                Hit::new(key.span, "the subquery is sorted, but nothing outside depends on its order")
                    .instead("leave ORDER BY out of the subquery"),
            );
        }
    }
    hits
}

/// The outer query sorts or aggregates anew (order-dependent aggregates apart).
fn outer_forgets_order(subject: &Subject<'_>, scope: &Scope) -> bool {
    let Some((id, outer)) = scope.parent.and_then(|id| Some((id, subject.facts.scopes.get(id.0)?))) else {
        return false;
    };
    let ordered = [
        "array_agg",
        "string_agg",
        "json_agg",
        "jsonb_agg",
        "json_object_agg",
        "jsonb_object_agg",
        "xmlagg",
        "first",
        "last",
    ];
    let calls = || subject.facts.functions.iter().filter(|call| call.scope == id);
    let depends = calls().any(|call| call.window || ordered.contains(&call.name.as_str()));
    !depends && (!outer.order_by.is_empty() || (outer.aggregate && outer.group_by.is_empty()))
}

/// A queue's `SELECT .. FOR UPDATE LIMIT 1` whose workers wait for each other.
pub(super) fn for_update_without_skip_locked(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (id, scope) in scopes(subject) {
        let (Some(false), Some(limit)) = (scope.locking, &scope.limit) else { continue };
        let is_queue = !scope.order_by.is_empty()
            && !returns_one_row(subject, id)
            && scope.projection.iter().all(|item| !is_aggregate(item));
        if is_queue {
            hits.push(
                Hit::new(limit.span(), "all workers wait for the lock on the same first row")
                    .instead("add SKIP LOCKED after FOR UPDATE, so that each worker takes another row"),
            );
        }
    }
    hits
}

fn is_aggregate(item: &Projection) -> bool {
    matches!(
        item,
        Projection::Item { value: Operand::Expression { aggregate: true, shape: Shape::Function(_), .. }, .. }
    )
}
