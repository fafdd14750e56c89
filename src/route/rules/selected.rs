//! INSERT .. SELECT over shards.

use crate::route::collect::{Collect, quoted};
use crate::route::context::{Context, Use, table_name};
use crate::route::copy::KeyField;
use crate::route::infer::is_placed;
use crate::route::plan::{Action, Occurrence, TemplatePlan};
use crate::route::rules::collect::{occurrence, part};
use crate::route::rules::insert::{key_position, table_of};
use crate::route::rules::moments::moments;
use crate::route::rules::spread::{Default, default_of, is_usable, list_end};
use crate::route::spread::{Filling, Made, Selected, Spread};
use crate::route::words::Words;
use crate::sql::catalog::{Column, Table};
use crate::sql::facts::{InsertFacts, Span};
use crate::sql::lexer::TokenKind;

/// INSERT .. SELECT whose rows lie anywhere: the query runs first, on one shard over collected rows, and each of its rows goes to the shard of its key,
/// as rows of VALUES would. What else the statement says (ON CONFLICT, RETURNING) is about one row.
pub(super) fn insert_select(context: &Context<'_>) -> Option<TemplatePlan> {
    // One shard that has all of it, if that is proven, does it alone.
    context.facts.insert.as_ref()?.query?;
    super::insert::insert(context)?.refusal()?;
    Some(context.plan("spread-select", Action::Spread(Box::new(selected(context, Vec::new(), "")?))))
}

/// How its rows are split; columns that are `made_up` are computed for each row of the query where that runs.
pub(super) fn selected(
    context: &Context<'_>,
    made_up: Vec<(&Column, Filling)>,
    overriding: &'static str,
) -> Option<Spread> {
    let facts = context.facts.insert.as_ref()?;
    let (target, relation, used) = context.target()?;
    let (Use::Sharded(sharded), Some(query)) = (used, facts.query) else { return None };
    let (table, words) = (table_of(context, relation)?, Words::of(context.around.sql));
    let span = query_alone(&words, context.facts.scopes.get(query.0)?.span)?;
    let inside = |other: Span| other.start >= span.start && other.end <= span.end;
    let (mut occurrences, mut parts) = (Vec::new(), Vec::new());
    for (id, relation, used) in context.relations().filter(|(id, _, used)| *id != target && is_placed(used)) {
        parts.push(part(context, &words, &[], id, relation, used).filter(|part| inside(part.name))?);
        occurrences.push(occurrence(context, id, relation, used)?);
    }
    let times_inside = moments(context, &words)?.iter().all(|moment| inside(moment.span));
    let locks = context.facts.scopes.iter().any(|scope| scope.locking.is_some());
    let with_first = words.word(0).is_some_and(|word| word == "with");
    let names: Vec<&str> = made_up.iter().map(|(column, _)| column.name.as_str()).collect();
    let settled = are_defaults_settled(table, facts, &names);
    if !is_usable(context, relation) || !times_inside || locks || with_first || !settled {
        return None;
    }
    let placed = sharded.placed.as_ref().ok()?;
    let mut stored_as: Vec<String> = match &facts.columns {
        Some(columns) => columns
            .iter()
            .map(|name| table.column(name).map(|column| column.type_name.clone()))
            .collect::<Option<_>>()?,
        None => table.columns.iter().map(|column| column.type_name.clone()).collect(),
    };
    let of_key = names.iter().position(|name| *name == sharded.key).map(|at| stored_as.len() + at);
    let index = of_key.or_else(|| key_position(table, sharded, facts))?;
    let made = match made_up.is_empty() {
        true => None,
        false => {
            facts.columns.as_ref()?;
            stored_as.extend(made_up.iter().map(|(column, _)| column.type_name.clone()));
            let list = names.iter().map(|name| format!(", {}", quoted(name))).collect();
            let fillings = made_up.into_iter().map(|(_, filling)| filling).collect();
            Some(Made { list_end: list_end(&words, relation.span)?, list, overriding, fillings })
        }
    };
    let key = KeyField { index, fields: stored_as.len(), key: placed.key, placement: placed.placement.clone() };
    let target = Occurrence { name: table_name(relation), span: relation.span, pins: Vec::new() };
    let mut spread = Spread::of_rows(target, Vec::new(), Vec::new(), context.facts.returning);
    spread.collect = Collect { occurrences, parts, ..Collect::default() };
    spread.query = Some(Selected { span, key, stored_as, made });
    Some(spread)
}

/// The query without ON CONFLICT and RETURNING, which are the INSERT's.
fn query_alone(words: &Words<'_>, span: Span) -> Option<Span> {
    let (mut depth, mut end) = (0_usize, None);
    for at in 0..words.tokens.len() {
        let token = words.tokens.get(at)?;
        if token.start < span.start {
            continue;
        }
        let is = |at: usize, wanted: &str| {
            words.kind(at) == Some(TokenKind::Ident) && words.word(at).is_some_and(|word| word == wanted)
        };
        match token.kind {
            TokenKind::LeftParen => depth += 1,
            TokenKind::RightParen => depth = depth.checked_sub(1)?,
            TokenKind::Semicolon => break,
            _ if depth == 0 && (is(at, "returning") || is(at, "on") && is(at + 1, "conflict")) => break,
            _ => {}
        }
        end = Some(token.end);
    }
    Some(Span { start: span.start, end: end?.min(span.end) })
}

/// Whether columns that neither the query gives nor are made up have the same default everywhere.
fn are_defaults_settled(table: &Table, facts: &InsertFacts, made_up: &[&str]) -> bool {
    let given = |column: &Column| {
        made_up.contains(&column.name.as_str())
            || facts.columns.as_ref().is_none_or(|columns| columns.contains(&column.name))
    };
    table
        .columns
        .iter()
        .filter(|column| !given(column))
        .all(|column| column.generated || matches!(default_of(column), Default::Settled))
}
