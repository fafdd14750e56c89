//! Queries that one shard computes from rows of all.

use crate::route::collect::{Collect, First, Moment, Part, Shipped, quoted};
use crate::route::context::{Context, Use, table_name};
use crate::route::infer::{Key, Knowledge, is_placed};
use crate::route::placement::ShardId;
use crate::route::plan::{Action, Occurrence, Pin, TemplatePlan};
use crate::route::rules::fold::fold;
use crate::route::rules::key::by_key;
use crate::route::rules::moments::moments;
use crate::route::rules::scatter::{are_words_alike, is_call_alike, looks_further};
use crate::route::words::Words;
use crate::sql::catalog::{Column, Table, TableKind};
use crate::sql::facts::{
    Clause, Comparison, Literal, Operand, Predicate, Projection, Relation, RelationId, RelationSource, SortKey, Span,
    StatementKind,
};

/// Types whose values mean something else on another server, or do not read back from text as they were.
const UNSHIPPED_TYPES: &[&str] =
    &["money", "aclitem", "tid", "cid", "xid", "xid8", "bpchar", "refcursor", "pg_snapshot", "txid_snapshot"];

/// A SELECT that writes and locks nothing reads of each table a multiset of rows, and nothing else of it. So one shard computes the answer of the
/// one database when each occurrence of a table that lies on shards is replaced by a relation that has the same columns (names, types with
/// modifiers, collations) and the same rows, those of all shards; reference tables are the same there. Only what names a table otherwise
/// than as a relation can tell the difference: system columns, `ONLY`, samples, whole rows of the table's type (whose description
/// then differs, which is noticed), functions that read tables by name (refused by an earlier rule), `GROUP BY` a primary key (an error then).
///
/// Functions and operators run on one server, in one session, so that volatile ones are as good as there.
///
/// Rows are left out where a condition that is AND-ed to the WHERE clause of their block, or to an inner join's ON, compares a column
/// of theirs with constants, and they are not on the nullable side of an outer join: the block's rows are made of
/// rows that satisfy it only.
pub(super) fn collect(context: &Context<'_>) -> Option<TemplatePlan> {
    let facts = context.facts;
    if facts.kind == StatementKind::Select && facts.scopes.iter().any(|scope| scope.locking.is_some()) {
        return locking(context);
    }
    let plain = facts.kind == StatementKind::Select && !context.writes();
    if !plain {
        return None;
    }
    let times = times(context);
    let (occurrences, parts) = rows_of_all(context, &times)?;
    // Where keys name one shard, they decide.
    let pinned = occurrences.iter().all(|occurrence| !occurrence.pins.is_empty());
    let fold = fold(context, &times);
    let by_time = |filter: &Span| times.iter().any(|moment| is_within(moment.span, *filter));
    let chosen_by_time = fold.is_some() || parts.iter().any(|part| part.filters.iter().any(by_time));
    let moments = if chosen_by_time { times } else { Vec::new() };
    let rule = match &fold {
        _ if pinned => "key-equality",
        Some(_) => "fold-groups",
        None => "collect-rows",
    };
    Some(context.plan(rule, Action::Collect(Box::new(Collect { occurrences, parts, fold, moments }))))
}

/// The words that mean the time, where another can stand in their place: a column that is computed would lose its name.
fn times(context: &Context<'_>) -> Vec<Moment> {
    let words = Words::of(context.around.sql);
    let found = moments(context, &words).unwrap_or_default();
    let mut items = context.facts.scopes.iter().flat_map(|scope| &scope.projection);
    let is_item = |item: &Projection| {
        let Projection::Item { span, .. } = item else { return false };
        found.iter().any(|moment| is_within(moment.span, *span))
    };
    if items.any(is_item) { Vec::new() } else { found }
}

pub(super) fn is_within(inner: Span, outer: Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Rows are locked where they lie, and not where they are computed with.
fn locking(context: &Context<'_>) -> Option<TemplatePlan> {
    by_key(context)?.refusal()?;
    let span = context.relations().find(|(_, _, used)| is_placed(used)).map(|(_, relation, _)| relation.span);
    let reason = "FOR UPDATE or FOR SHARE over several shards, with an order, a LIMIT, a subquery or a reference table, would lock other rows than it returns";
    let hint = "lock with nothing but a WHERE clause, or name the sharding key's value";
    Some(context.refuse("collect-rows", span, reason, hint))
}

/// Each occurrence of a table that lies on shards, with the rows that it needs; `None` when there is none, or one cannot be replaced.
pub(super) fn rows_of_all(context: &Context<'_>, times: &[Moment]) -> Option<(Vec<Occurrence>, Vec<Part>)> {
    if !context.reading.is_parsed || !context.reading.default_path || !context.around.utf8 {
        return None;
    }
    let words = Words::of(context.around.sql);
    if !words.are_plain() {
        return None;
    }
    let (mut occurrences, mut parts) = (Vec::new(), Vec::new());
    for (id, relation, used) in context.relations().filter(|(_, _, used)| is_placed(used)) {
        parts.push(part(context, &words, times, id, relation, used)?);
        occurrences.push(occurrence(context, id, relation, used)?);
    }
    (!parts.is_empty()).then_some((occurrences, parts))
}

pub(super) fn occurrence(context: &Context<'_>, id: RelationId, relation: &Relation, used: &Use) -> Option<Occurrence> {
    let pins = match used {
        Use::Local(shard) => vec![Pin::Local(*shard)],
        Use::Sharded(sharded) => {
            let placed = sharded.placed.as_ref().ok()?;
            let key = Key { column: &sharded.key, key: placed.key, placement: placed.placement.clone() };
            Knowledge::of(context, relation.scope).pins(id, &key, true)
        }
        _ => return None,
    };
    let name = relation.alias.clone().unwrap_or_else(|| table_name(relation));
    Some(Occurrence { name, span: relation.span, pins })
}

pub(super) fn part(
    context: &Context<'_>,
    words: &Words<'_>,
    times: &[Moment],
    id: RelationId,
    relation: &Relation,
    used: &Use,
) -> Option<Part> {
    let RelationSource::Table { table: Some(table), .. } = &relation.source else { return None };
    let table = context.topology.catalog().table(*table);
    let place = words.place(relation.span)?;
    if !matches!(table.kind, TableKind::Table | TableKind::Partitioned) || place.only {
        return None;
    }
    let called = relation.visible_name()?;
    let on: Option<ShardId> = if let Use::Local(shard) = used { Some(*shard) } else { None };
    let whole = place.renames
        || words.needs_rows(called, &[relation.span])
        || stars(context)
        || words.has_star()
        || words.has("natural");
    let read = |column: &&Column| whole || words.names(&column.name);
    let mut columns: Vec<&Column> = table.columns.iter().filter(read).collect();
    if columns.is_empty() {
        // So many rows there are.
        columns.extend(narrowest(table));
    }
    let columns: Option<Vec<Shipped>> = columns.into_iter().map(shipped).collect();
    let filter = |predicate: &&Predicate| !place.renames && is_filter(context, times, predicate, id, relation);
    let first = if place.renames { None } else { first_rows(context, times, id, relation, called) };
    Some(Part {
        name: relation.span,
        on,
        table: format!("{}.{}", quoted(&table.name.schema), quoted(&table.name.name)),
        called: quoted(called),
        aliased: relation.alias.is_some(),
        columns: columns.filter(|columns| !columns.is_empty())?,
        filters: context.facts.predicates.iter().filter(filter).map(|predicate| predicate.span).collect(),
        first,
    })
}

fn narrowest(table: &Table) -> Option<&Column> {
    table.columns.iter().find(|column| column.not_null).or(table.columns.first())
}

pub(super) fn shipped(column: &Column) -> Option<Shipped> {
    let base = column.type_name.trim_end_matches("[]");
    let local = UNSHIPPED_TYPES.contains(&base) || base.starts_with("reg");
    (!local).then(|| Shipped {
        name: quoted(&column.name),
        type_name: column.type_name.clone(),
        compared_by: column.compared_by.clone(),
    })
}

fn stars(context: &Context<'_>) -> bool {
    let is_star = |item: &Projection| matches!(item, Projection::Star(_) | Projection::QualifiedStar(..));
    context.facts.scopes.iter().any(|scope| scope.projection.iter().any(is_star))
}

/// A block that reads this relation alone, row by row, and wants its first rows: those are among the first rows of each shard in the same order. Its
/// WHERE must be nothing but filters, or the first rows of a shard might not pass it; and each row must give one row.
fn first_rows(
    context: &Context<'_>,
    times: &[Moment],
    id: RelationId,
    relation: &Relation,
    called: &str,
) -> Option<First> {
    let scope = context.facts.scopes.get(relation.scope.0)?;
    let alone = context.facts.relations.iter().filter(|other| other.scope == relation.scope).count() == 1;
    let conditions = || {
        let of_block = |one: &&Predicate| one.scope == relation.scope && one.clause == Clause::Where;
        context.facts.predicates.iter().filter(of_block)
    };
    let all_filter = conditions().all(|predicate| is_filter(context, times, predicate, id, relation));
    let by_row = context.facts.functions.iter().filter(|call| call.scope == relation.scope).all(|call| {
        ONE_ROW_EACH.contains(&call.name.as_str()) && matches!(call.schema.as_deref(), None | Some("pg_catalog"))
    });
    if !alone || !all_filter || !by_row || scope.has_where != conditions().next().is_some() || looks_further(scope) {
        return None;
    }
    let constant = |operand: &Operand| match operand {
        Operand::Literal { value: Literal::Number(_), negative: false, cast: None, span, .. }
        | Operand::Parameter { cast: None, span, .. } => Some(*span).filter(|span| span.end > span.start),
        _ => None,
    };
    let mut amounts = vec![constant(scope.limit.as_ref()?)?];
    if let Some(offset) = &scope.offset {
        amounts.push(constant(offset)?);
    }
    let key = |key: &SortKey| {
        let column = key.value.column().filter(|column| column.relation == Some(id) && column.name != "*")?;
        let direction = if key.descending { " DESC" } else { "" };
        let nulls = match key.nulls_first {
            Some(true) => " NULLS FIRST",
            Some(false) => " NULLS LAST",
            None => "",
        };
        // By the relation: a name alone would mean the value as text.
        Some(format!("{}.{}{direction}{nulls}", quoted(called), quoted(&column.name)))
    };
    let order: Option<Vec<String>> = scope.order_by.iter().map(key).collect();
    Some(First { order: order?, amounts })
}

/// Functions that give one row for each, of those that are often in a SELECT list.
const ONE_ROW_EACH: &[&str] = &[
    "abs",
    "ceil",
    "concat",
    "concat_ws",
    "date_part",
    "date_trunc",
    "extract",
    "floor",
    "format",
    "greatest",
    "initcap",
    "least",
    "left",
    "length",
    "lower",
    "md5",
    "now",
    "nullif",
    "replace",
    "right",
    "round",
    "substr",
    "substring",
    "to_char",
    "to_json",
    "to_jsonb",
    "trim",
    "trunc",
    "upper",
];

/// Whether an expression has the same value on all shards, given one time: it is made of constants.
fn is_settled(context: &Context<'_>, times: &[Moment], operand: &Operand) -> bool {
    let Operand::Expression { columns, aggregate: false, span, .. } = operand else { return false };
    let has_query = context.facts.scopes.iter().skip(1).any(|scope| is_within(scope.span, *span));
    let mut calls = context.facts.functions.iter().filter(|call| is_within(call.span, *span));
    columns.is_empty()
        && span.end > span.start
        && !has_query
        && calls.all(|call| is_call_alike(context, call, times))
        && are_words_alike(context, span.of(context.around.sql).as_bytes())
}

/// Whether a condition holds for every row of the relation that matters, and says the same where only that relation is at hand.
fn is_filter(
    context: &Context<'_>,
    times: &[Moment],
    predicate: &Predicate,
    id: RelationId,
    relation: &Relation,
) -> bool {
    let holds = predicate.conjunctive
        && predicate.scope == relation.scope
        && matches!(predicate.clause, Clause::Where | Clause::InnerOn)
        && !relation.nullable
        && predicate.span.end > predicate.span.start;
    let compares = matches!(
        predicate.comparison,
        Comparison::Eq
            | Comparison::Ne
            | Comparison::Lt
            | Comparison::Le
            | Comparison::Gt
            | Comparison::Ge
            | Comparison::In
            | Comparison::NotIn
            | Comparison::Between
            | Comparison::NotBetween
            | Comparison::Like
            | Comparison::NotLike
            | Comparison::ILike
            | Comparison::NotILike
            | Comparison::IsNull
            | Comparison::IsNotNull
    );
    let is_own = |operand: &Operand| {
        operand.column().is_some_and(|column| {
            let text = column.span.of(context.around.sql);
            column.relation == Some(id) && column.name != "*" && text.matches('.').count() < 2
        })
    };
    let is_plain = |operand: &Operand| is_own(operand) || operand.is_constant() || is_settled(context, times, operand);
    let sides = is_plain(&predicate.left) && predicate.right.as_ref().is_none_or(is_plain);
    let mentions = is_own(&predicate.left) || predicate.right.as_ref().is_some_and(is_own);
    holds && compares && sides && mentions
}
