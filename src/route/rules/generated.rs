//! Values that a shard would make up for itself: those of sequences, and of keys that are left out.

use crate::route::collect::quoted;
use crate::route::context::{Context, Use};
use crate::route::copy::KeyField;
use crate::route::infer::is_placed;
use crate::route::plan::{Action, Occurrence, TemplatePlan};
use crate::route::rules::insert::{row_occurrences, table_of};
use crate::route::rules::selected::selected;
use crate::route::rules::spread::{are_subqueries_settled, defaults, is_usable, timed, values};
use crate::route::spread::{Edit, Filled, Filling, Piece, Row, Spread};
use crate::route::topology::Sharded;
use crate::route::words::Words;
use crate::sql::catalog::{Column, Table};
use crate::sql::facts::{InsertFacts, Projection, Relation, Span, StatementKind};
use crate::sql::lexer::TokenKind;

use super::copy::is_computed;

/// A sequence counts on each shard for itself, and a key that has no value has no shard. So the first shard makes up the values, as the one database
/// would: it is asked for the columns' own defaults, a row of them for each row of VALUES, in their order, and the values are
/// written into the statement. Everything else about the statement is that of [`super::spread::insert`].
///
/// INSERT .. SELECT computes them beside its query, which runs on the first shard.
///
/// Where that cannot be done (COPY, SET column = DEFAULT, rows of which some have the value), a counting column must be given. A configuration that accepts
/// numbers that repeat (`sequence-per-shard`) has each shard count its own.
pub(super) fn generated(context: &Context<'_>) -> Option<TemplatePlan> {
    let (_, relation, used) = context.target()?;
    let Use::Sharded(sharded) = used else { return None };
    let table = table_of(context, relation)?;
    let made_up = |column: &&Column| is_made_up(sharded, column);
    let left: Vec<&Column> = match (context.facts.kind, &context.facts.insert, &context.facts.copy) {
        (StatementKind::Insert, Some(facts), _) => {
            let positions = table.columns.iter().enumerate();
            let left = positions.filter(|(at, column)| made_up(column) && !is_given(context, facts, column, *at));
            left.map(|(_, column)| column).chain(set_to_default(context, table).filter(made_up)).collect()
        }
        (StatementKind::Update, ..) => set_to_default(context, table).filter(made_up).collect(),
        (StatementKind::CopyFrom, _, Some(copy)) => {
            let named = |column: &&Column| copy.columns.as_ref().is_none_or(|names| names.contains(&column.name));
            table.columns.iter().filter(|column| made_up(column) && !named(column)).collect()
        }
        _ => return None,
    };
    if left.is_empty() {
        return None;
    }
    let plan = match context.facts.insert.as_ref().and_then(|facts| facts.query) {
        Some(_) => selected_with(context, table, &left),
        None => filled(context, relation, sharded, &left),
    };
    if plan.is_some() {
        return plan;
    }
    // Without its key a row is refused by the rules for that, which know more of it.
    let counted = left.iter().find(|column| column.name != sharded.key)?;
    let reason = format!("{}.{} would count on each shard for itself", sharded.name, counted.name);
    let hint = format!("give {} a value, or leave it out in INSERT .. VALUES of one form for all rows", counted.name);
    Some(context.refuse("generated", Some(relation.span), reason, hint))
}

/// Whether a value of the column that is left out must come from the first shard.
pub(super) fn is_made_up(sharded: &Sharded, column: &Column) -> bool {
    let counts = || {
        let by_default = column.default.as_ref().is_some_and(|default| default.contains("nextval"));
        is_identity(column) || by_default || column.type_name.contains("serial")
    };
    match column.name == sharded.key {
        true => column.default.is_some() && !is_computed(column) || is_identity(column),
        false => !sharded.accept.contains(&crate::config::PerShard::Sequence) && counts(),
    }
}

fn is_identity(column: &Column) -> bool {
    column.generated && column.default.is_none()
}

pub(super) fn is_given(context: &Context<'_>, facts: &InsertFacts, column: &Column, position: usize) -> bool {
    let at = match &facts.columns {
        Some(columns) => columns.iter().position(|name| *name == column.name),
        None => Some(position),
    };
    match (at, facts.query) {
        (None, _) => false,
        (Some(at), Some(scope)) => {
            facts.columns.is_some() || {
                let items =
                    context.facts.scopes.get(scope.0).map(|scope| scope.projection.as_slice()).unwrap_or_default();
                items.len() > at && items.iter().all(|item| matches!(item, Projection::Item { .. }))
            }
        }
        (Some(at), None) => !facts.default_values && facts.rows.iter().all(|row| matches!(row.get(at), Some(Some(_)))),
    }
}

pub(super) fn set_to_default<'a>(context: &'a Context<'_>, table: &'a Table) -> impl Iterator<Item = &'a Column> {
    let assigned = context.facts.assignments.iter();
    let defaults = assigned.filter(|(_, value)| value.span().of(context.around.sql).eq_ignore_ascii_case("default"));
    defaults.filter_map(|(column, _)| table.column(&column.name))
}

/// INSERT .. VALUES with the values filled in; `None` where it is of another form.
fn filled(context: &Context<'_>, relation: &Relation, sharded: &Sharded, left: &[&Column]) -> Option<TemplatePlan> {
    let facts = context.facts.insert.as_ref()?;
    let (target, ..) = context.target()?;
    let table = table_of(context, relation)?;
    let reads = context.relations().any(|(id, _, used)| id != target && is_placed(used));
    let words = Words::of(context.around.sql);
    let usable = is_usable(context, relation) && are_subqueries_settled(context) && !words.has("overriding");
    if reads || !usable || set_to_default(context, table).next().is_some() {
        return None;
    }
    let mut edits = timed(context, &words)?;
    let spans = match facts.default_values {
        true => vec![default_values(&words)?],
        false => values(&words, facts.rows.len())?,
    };
    let overriding = overriding(left);
    if facts.default_values {
        edits.push(in_place_of_all(table, left, overriding, *spans.first()?)?);
    } else {
        let names: Vec<&str> = left.iter().map(|column| column.name.as_str()).collect();
        edits.extend(spelled(&words, facts, table, &names, &spans)?);
        edits.extend(defaults(context, &words, relation, facts, &spans, &names)?);
        let start = words.tokens.iter().rfind(|token| token.end <= spans.first().map_or(0, |span| span.start))?.start;
        edits.push(Edit { span: Span { start, end: start }, pieces: vec![Piece::Text(overriding.to_owned())] });
    }
    let key = left.iter().position(|column| column.name == sharded.key);
    let nowhere = |span: Span| Occurrence { name: sharded.key.clone(), span, pins: Vec::new() };
    let occurrences = match key {
        Some(_) => spans.iter().map(|span| nowhere(*span)).collect(),
        None => row_occurrences(context, relation, sharded, facts)?,
    };
    let placed = sharded.placed.as_ref().ok()?;
    let fields = left.len();
    let key = key.map(|index| KeyField { index, fields, key: placed.key, placement: placed.placement.clone() });
    let columns = left.iter().map(|column| filling(table, column)).collect();
    let rows = spans.into_iter().zip(occurrences).map(|(span, occurrence)| Row { span, occurrence }).collect();
    let mut spread = Spread::of_rows(nowhere(relation.span), rows, edits, context.facts.returning);
    spread.returns_each = facts.on_conflict.is_none();
    spread.filled = Some(Filled { columns, key });
    Some(context.plan("generated", Action::Spread(Box::new(spread))))
}

/// INSERT .. SELECT, whose query runs on the first shard.
fn selected_with(context: &Context<'_>, table: &Table, left: &[&Column]) -> Option<TemplatePlan> {
    if set_to_default(context, table).next().is_some() || Words::of(context.around.sql).has("overriding") {
        return None;
    }
    let made_up = left.iter().map(|column| (*column, filling(table, column))).collect();
    let spread = selected(context, made_up, overriding(left))?;
    Some(context.plan("generated", Action::Spread(Box::new(spread))))
}

/// What must be said for values of identity columns to be taken.
fn overriding(left: &[&Column]) -> &'static str {
    if left.iter().any(|column| is_identity(column)) { " OVERRIDING SYSTEM VALUE " } else { "" }
}

/// What the first shard computes for a column.
fn filling(table: &Table, column: &Column) -> Filling {
    let text = |name: &str| format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "''"));
    let expression = match &column.default {
        Some(default) => default.clone(),
        None => format!(
            "pg_catalog.nextval(pg_catalog.pg_get_serial_sequence({}, {}))",
            text(&format!("{}.{}", quoted(&table.name.schema), quoted(&table.name.name))),
            text(&column.name)
        ),
    };
    Filling { expression, type_name: column.type_name.clone() }
}

/// `DEFAULT VALUES` as a row.
fn default_values(words: &Words<'_>) -> Option<Span> {
    let is = |at: usize, wanted: &str| {
        words.kind(at) == Some(TokenKind::Ident) && words.word(at).is_some_and(|word| word == wanted)
    };
    let at = (0..words.tokens.len()).find(|at| is(*at, "default") && is(at + 1, "values"))?;
    Some(Span { start: words.tokens.get(at)?.start, end: words.tokens.get(at + 1)?.end })
}

/// A row in the place of DEFAULT VALUES; the time and what else is a default must be the same on all shards.
fn in_place_of_all(table: &Table, left: &[&Column], overriding: &str, span: Span) -> Option<Edit> {
    use crate::route::rules::spread::{Default, default_of};
    let (mut names, mut pieces) = (Vec::new(), Vec::new());
    for column in table.columns.iter().filter(|column| !is_computed(column)) {
        let piece = match left.iter().position(|other| other.name == column.name) {
            Some(at) => Piece::Filled { row: 0, at },
            None => match default_of(column) {
                Default::Moment(cast) => Piece::Time(cast),
                Default::Settled => continue,
                Default::Unsettled => return None,
            },
        };
        names.push(quoted(&column.name));
        pieces.extend([Piece::Text(if pieces.is_empty() { "" } else { ", " }.to_owned()), piece]);
    }
    let head = format!("({}) {overriding}VALUES (", names.join(", "));
    let pieces = [vec![Piece::Text(head)], pieces, vec![Piece::Text(")".to_owned())]].concat();
    Some(Edit { span, pieces })
}

/// Each DEFAULT that stands for one of the columns; `None` where not every row has it.
fn spelled(words: &Words<'_>, facts: &InsertFacts, table: &Table, names: &[&str], rows: &[Span]) -> Option<Vec<Edit>> {
    let mut edits = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let position = match &facts.columns {
            Some(columns) => columns.iter().position(|column| column == name),
            None => table.columns.iter().position(|column| column.name == *name),
        };
        let Some(position) = position.filter(|position| facts.rows.iter().any(|row| row.len() > *position)) else {
            continue;
        };
        for (row, (span, operands)) in rows.iter().zip(&facts.rows).enumerate() {
            let value = value_of_row(words, *span, position)?;
            if !matches!(operands.get(position), Some(None)) {
                return None;
            }
            edits.push(Edit { span: value, pieces: vec![Piece::Filled { row, at }] });
        }
    }
    Some(edits)
}

/// Where the n-th value of a row stands.
fn value_of_row(words: &Words<'_>, row: Span, position: usize) -> Option<Span> {
    let inside = words.tokens.iter().filter(|token| token.start >= row.start && token.end <= row.end);
    let (mut depth, mut at, mut found) = (0_usize, 0, None::<Span>);
    for token in inside {
        match token.kind {
            TokenKind::LeftParen | TokenKind::LeftBracket => depth += 1,
            TokenKind::RightParen | TokenKind::RightBracket => depth = depth.checked_sub(1)?,
            TokenKind::Comma if depth == 1 => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let is_edge = token.start == row.start || token.end == row.end;
        if at == position && !is_edge {
            found = Some(Span { start: found.map_or(token.start, |span| span.start), end: token.end });
        }
    }
    found
}
