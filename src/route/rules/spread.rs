//! Writes that several shards do, each for its own rows.

use crate::route::collect::{Collect, Moment, quoted};
use crate::route::context::{Context, Use, table_name};

use crate::route::functions::Steadiness;
use crate::route::infer::is_placed;
use crate::route::plan::{Action, Occurrence, TemplatePlan};
use crate::route::rules::collect::{occurrence, part};
use crate::route::rules::insert::{row_occurrences, table_of};
use crate::route::rules::key::by_key;
use crate::route::rules::moments::{default_moment, is_moment, moments};
use crate::route::rules::scatter::OF_SESSION;
use crate::route::spread::{Edit, Piece, Row, Spread};
use crate::route::words::Words;
use crate::sql::catalog::{Column, Table, TableKind};
use crate::sql::facts::{InsertFacts, Relation, ScopeId, Span, StatementKind};
use crate::sql::lexer::TokenKind;

/// Functions whose values may differ from row to row, wherever that row is.
const BY_ROW: &[&str] = &["random", "gen_random_uuid", "clock_timestamp", "timeofday"];

/// UPDATE and DELETE change each row by itself: which rows of the target are changed, and to what, is a function of the row and of what the
/// statement reads besides. A row of the target lies on one shard. So if each shard runs the statement on its own rows and is
/// given everything else that it reads as the one database has it (sharded tables as collected rows, see [`super::collect`]; reference tables
/// are there), the changes together are those of the one database, and so are the rows that come back, and the number of them.
///
/// What is read must say the same to each shard: the time is made one, and nothing in a subquery may depend on the order of rows
/// (LIMIT, DISTINCT ON, windows, aggregates that keep an order) or be volatile. Volatile functions of the row itself may differ from row to row anyway.
pub(super) fn spread(context: &Context<'_>) -> Option<TemplatePlan> {
    let is_write = matches!(context.facts.kind, StatementKind::Update | StatementKind::Delete);
    let (_, relation, used) = context.target()?;
    if !is_write || !is_placed(used) || !is_usable(context, relation) {
        return None;
    }
    let Some(spread) = split(context) else { return unsettled(context) };
    let pinned =
        spread.collect.occurrences.iter().chain([&spread.target]).all(|occurrence| !occurrence.pins.is_empty());
    let rule = if pinned { "key-equality" } else { "spread-write" };
    Some(context.plan(rule, Action::Spread(Box::new(spread))))
}

/// How UPDATE or DELETE is split over shards; `None` where what it reads could be another on each.
pub(super) fn split(context: &Context<'_>) -> Option<Spread> {
    let (target, relation, used) = context.target()?;
    if !is_usable(context, relation) {
        return None;
    }
    let words = Words::of(context.around.sql);
    let (mut occurrences, mut parts) = (Vec::new(), Vec::new());
    for (id, relation, used) in context.relations().filter(|(id, _, used)| *id != target && is_placed(used)) {
        parts.push(part(context, &words, &[], id, relation, used)?);
        occurrences.push(occurrence(context, id, relation, used)?);
    }
    let mut edits = timed(context, &words).filter(|_| are_subqueries_settled(context))?;
    edits.extend(assigned_defaults(context, &words, relation)?);
    let target = occurrence(context, target, relation, used)?;
    Some(Spread {
        collect: Collect { occurrences, parts, ..Collect::default() },
        target,
        rows: Vec::new(),
        query: None,
        edits,
        returning: context.facts.returning,
        returns_each: false,
        moved: None,
        filled: None,
    })
}

/// What two shards could see differently is for one shard, or for none.
fn unsettled(context: &Context<'_>) -> Option<TemplatePlan> {
    let of_keys = by_key(context)?;
    of_keys.refusal()?;
    let reason = "over several shards, a part of it could say something else on each: LIMIT, a window, an aggregate that keeps an order, \
                  DEFAULT or a volatile function";
    let hint = "name the sharding key's value, or read first and write the rows that were read by their keys";
    Some(context.refuse("spread-write", None, reason, hint))
}

/// INSERT of several rows: each goes to the shard of its key. It reads nothing from sharded tables, and the time, also in defaults, is made one.
pub(super) fn insert(context: &Context<'_>) -> Option<TemplatePlan> {
    let facts = context.facts.insert.as_ref()?;
    let (target, relation, used) = context.target()?;
    let Use::Sharded(sharded) = used else { return None };
    let reads = context.relations().any(|(id, _, used)| id != target && is_placed(used));
    if facts.rows.len() < 2 || facts.query.is_some() || reads || !is_usable(context, relation) {
        return None;
    }
    let occurrences = row_occurrences(context, relation, sharded, facts)?;
    let words = Words::of(context.around.sql);
    let spans = values(&words, facts.rows.len())?;
    let mut edits = timed(context, &words)?;
    if !are_subqueries_settled(context) {
        return None;
    }
    edits.extend(defaults(context, &words, relation, facts, &spans, &[])?);
    let rows = spans.into_iter().zip(occurrences).map(|(span, occurrence)| Row { span, occurrence }).collect();
    let target = Occurrence { name: table_name(relation), span: relation.span, pins: Vec::new() };
    let mut spread = Spread::of_rows(target, rows, edits, context.facts.returning);
    spread.returns_each = facts.on_conflict.is_none();
    Some(context.plan("insert-by-key", Action::Spread(Box::new(spread))))
}

pub(super) fn is_usable(context: &Context<'_>, target: &Relation) -> bool {
    let stored =
        table_of(context, target).is_some_and(|table| matches!(table.kind, TableKind::Table | TableKind::Partitioned));
    stored
        && context.reading.is_parsed
        && context.reading.default_path
        && context.around.utf8
        && !context.facts.writes_in_cte
        && Words::of(context.around.sql).are_plain()
}

/// Whether no subquery has an answer that another shard would find otherwise.
pub(super) fn are_subqueries_settled(context: &Context<'_>) -> bool {
    let unsettled = context.facts.scopes.iter().any(|scope| {
        scope.limit.is_some() || scope.offset.is_some() || scope.distinct_on || scope.window || scope.locking.is_some()
    });
    let calls = context.facts.functions.iter().all(|call| {
        let name = call.name.as_str();
        match context.steadiness(call) {
            _ if ORDERED.contains(&name) => false,
            Some(Steadiness::Immutable) => true,
            Some(Steadiness::Stable) => OF_SESSION.contains(&name) || is_moment(name),
            Some(Steadiness::Volatile) => call.scope == ScopeId(0) && BY_ROW.contains(&name),
            _ => false,
        }
    });
    !unsettled && calls
}

/// Aggregates whose values depend on the order of their rows.
const ORDERED: &[&str] = &[
    "array_agg",
    "string_agg",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "xmlagg",
    "mode",
    "range_agg",
    "first_value",
    "last_value",
    "nth_value",
];

/// The words that mean the time, each of which becomes the same.
pub(super) fn timed(context: &Context<'_>, words: &Words<'_>) -> Option<Vec<Edit>> {
    let edit = |moment: Moment| Edit { span: moment.span, pieces: vec![Piece::Time(moment.cast)] };
    Some(moments(context, words)?.into_iter().map(edit).collect())
}

/// The rows of VALUES, with their parentheses.
pub(super) fn values(words: &Words<'_>, count: usize) -> Option<Vec<Span>> {
    let mut at = (0..words.tokens.len()).find(|at| {
        words.kind(*at) == Some(TokenKind::Ident)
            && words.word(*at).is_some_and(|word| word == "values")
            && words.kind(at + 1) == Some(TokenKind::LeftParen)
    })? + 1;
    let mut rows = Vec::new();
    loop {
        let start = words.tokens.get(at).filter(|token| token.kind == TokenKind::LeftParen)?.start;
        let mut depth = 0_usize;
        let end = loop {
            let token = words.tokens.get(at)?;
            at += 1;
            match token.kind {
                TokenKind::LeftParen | TokenKind::LeftBracket => depth += 1,
                TokenKind::RightParen | TokenKind::RightBracket => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth == 0 {
                break token.end;
            }
        };
        rows.push(Span { start, end });
        if words.kind(at) != Some(TokenKind::Comma) {
            break;
        }
        at += 1;
    }
    (rows.len() == count).then_some(rows)
}

/// What a column's default is when it is left out.
pub(super) enum Default {
    /// The same everywhere, or each row's own.
    Settled,
    /// The time.
    Moment(&'static str),
    /// It may be another one on another shard.
    Unsettled,
}

pub(super) fn default_of(column: &Column) -> Default {
    let Some(text) = &column.default else { return Default::Settled };
    let text = text.to_ascii_lowercase();
    if let Some(cast) = default_moment(&text) {
        return Default::Moment(cast);
    }
    let is_by_row = BY_ROW.iter().any(|name| text == format!("{name}()"));
    let is_counted = text.starts_with("nextval(") && text.matches('(').count() == 1;
    let words = ["current_", "local", "session_user", "user", "now"];
    if is_by_row || is_counted || !text.contains('(') && !words.iter().any(|word| text.starts_with(word)) {
        return Default::Settled;
    }
    Default::Unsettled
}

/// `SET column = DEFAULT`, where the default is the time; `None` when a default may be another one on another shard.
fn assigned_defaults(context: &Context<'_>, words: &Words<'_>, target: &Relation) -> Option<Vec<Edit>> {
    let (table, mut edits, mut seen) = (table_of(context, target)?, Vec::new(), 0);
    for (column, value) in &context.facts.assignments {
        let span = value.span();
        if !span.of(context.around.sql).eq_ignore_ascii_case("default") {
            continue;
        }
        seen += 1;
        let column = table.column(&column.name)?;
        match default_of(column) {
            Default::Moment(cast) if !column.generated => edits.push(Edit { span, pieces: vec![Piece::Time(cast)] }),
            Default::Unsettled if !column.generated => return None,
            _ => {}
        }
    }
    (words.count("default") == seen).then_some(edits)
}

/// What is added for columns that are left out and whose default is the time, or which are `filled`; `None` when a default may be another one on another shard.
pub(super) fn defaults(
    context: &Context<'_>,
    words: &Words<'_>,
    target: &Relation,
    facts: &InsertFacts,
    rows: &[Span],
    filled: &[&str],
) -> Option<Vec<Edit>> {
    let table: &Table = table_of(context, target)?;
    let width = facts.rows.first()?.len();
    let given: Vec<&str> = match &facts.columns {
        Some(columns) => columns.iter().map(String::as_str).collect(),
        None => table.columns.iter().take(width).map(|column| column.name.as_str()).collect(),
    };
    // DEFAULT in a row is a default too.
    let spelled = |at: usize| facts.rows.iter().any(|row| matches!(row.get(at), Some(None)));
    let all_settled = given
        .iter()
        .enumerate()
        .filter(|(at, name)| spelled(*at) && !filled.contains(name))
        .all(|(_, name)| table.column(name).is_some_and(|column| matches!(default_of(column), Default::Settled)));
    if !all_settled {
        return None;
    }
    let is_left_out = |column: &&Column| !given.contains(&column.name.as_str());
    let (mut names, mut values, mut tells) = (String::new(), Vec::new(), false);
    for column in table.columns.iter().filter(is_left_out) {
        match default_of(column) {
            _ if filled.contains(&column.name.as_str()) => {
                tells = true;
                names.push_str(&format!(", {}", quoted(&column.name)));
                let at = filled.iter().position(|name| *name == column.name)?;
                values.extend([Piece::Text(", ".to_owned()), Piece::Filled { row: 0, at }]);
            }
            Default::Unsettled if !column.generated => return None,
            Default::Moment(cast) if !column.generated => {
                tells = true;
                names.push_str(&format!(", {}", quoted(&column.name)));
                values.extend([Piece::Text(", ".to_owned()), Piece::Time(cast)]);
            }
            // Without a list of columns, those in between must be given as well.
            _ if facts.columns.is_none() => values.push(Piece::Text(", DEFAULT".to_owned())),
            _ => {}
        }
    }
    if !tells {
        return Some(Vec::new());
    }
    let mut edits = Vec::new();
    if facts.columns.is_some() {
        let end = list_end(words, target.span)?;
        edits.push(Edit { span: Span { start: end, end }, pieces: vec![Piece::Text(names)] });
    }
    edits.extend(rows.iter().enumerate().map(|(row, span)| {
        let end = span.end.saturating_sub(1);
        let pieces = values.iter().map(|piece| piece.of_row(row)).collect();
        Edit { span: Span { start: end, end }, pieces }
    }));
    Some(edits)
}

/// Where the list of columns behind the target's name closes.
pub(super) fn list_end(words: &Words<'_>, target: Span) -> Option<u32> {
    let name = words.tokens.iter().position(|token| token.end == target.end)?;
    let open = (name + 1..name + 4).find(|at| words.kind(*at) == Some(TokenKind::LeftParen))?;
    let close = (open..words.tokens.len()).find(|at| words.kind(*at) == Some(TokenKind::RightParen))?;
    words.tokens.get(close).map(|token| token.start)
}
