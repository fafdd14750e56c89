//! Queries whose rows several shards compute, each its own part.

use crate::route::collect::{Collect, Moment};
use crate::route::context::{Context, Use};
use crate::route::functions::Steadiness;
use crate::route::infer::{Key, Knowledge};
use crate::route::merge::{Merge, SortedBy};
use crate::route::plan::{Action, Amount, Occurrence, Scatter, TemplatePlan};
use crate::route::rules::clauses::Clauses;
use crate::route::rules::collect::{is_within, rows_of_all};
use crate::route::topology::Placed;
use crate::route::words::Words;
use crate::sql::catalog::{Column, TableKind};
use crate::sql::facts::{
    FunctionCall, JoinKind, Literal, Operand, Projection, Relation, RelationId, RelationSource, Scope, ScopeId,
    SortKey, StatementKind,
};
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};

/// Operators of PostgreSQL's own types, which compute the same everywhere.
pub(in crate::route) const OPERATORS: &[&str] = &[
    "=", "<>", "!=", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "^", "||", "~", "~*", "!~", "!~*", "~~", "!~~",
    "~~*", "!~~*", "&", "|", "#", "<<", ">>", "->", "->>", "#>", "#>>", "@>", "<@", "&&", "-|-", "@", "?", "?|", "?&",
];

/// Functions that PostgreSQL calls stable because they depend on settings of the session (`TimeZone`, `DateStyle`), which
/// are the same on all shards, and on nothing else; `length` because of a rare form of it.
pub(super) const OF_SESSION: &[&str] = &[
    "array_to_string",
    "concat",
    "concat_ws",
    "date_part",
    "date_trunc",
    "extract",
    "format",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "length",
    "quote_literal",
    "quote_nullable",
    "row_to_json",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
];

/// What a row does not keep when it lies elsewhere.
pub(in crate::route) const SYSTEM_COLUMNS: &[&str] = &["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// One block that reads one sharded table, or several that are joined by equal keys, and that has nothing which looks at more than
/// one row of the join: no grouping, order, DISTINCT, window or subquery. Then each row of its answer
/// is computed from one row of each occurrence. Rows of sharded tables whose keys are equal lie on the same shard, and of the
/// others every shard has a copy, so that the join on all rows is the union of the joins on each shard's rows; no row of it is on two
/// shards, as one of a sharded table, which is not on the nullable side of an outer join, is in it. What the SELECT list
/// computes depends on that row and constants alone: functions and operators are immutable and PostgreSQL's own.
///
/// Without ORDER BY, LIMIT n takes any n rows of them: those that come first. FOR UPDATE locks each row on its shard.
///
/// With ORDER BY by columns, each shard's rows come in that order, and merging them gives the whole order: of the first n rows of all,
/// each is among the first n of its shard. The order must be one that [`crate::exec::merge`] knows, which for text is that of the collation C.
pub(super) fn concat(context: &Context<'_>) -> Option<TemplatePlan> {
    let [scope] = context.facts.scopes.as_slice() else { return None };
    let plain = context.facts.kind == StatementKind::Select
        && context.reading.is_parsed
        && !context.writes()
        && context.facts.set_operations.is_empty();
    if !plain || looks_further(scope) || !is_computed_alike(context, &[]) {
        return None;
    }
    if scope.order_by.is_empty() && scope.offset.is_some() || scope.locking.is_some() && !scope.order_by.is_empty() {
        return None;
    }
    // Which rows are locked must not depend on which shard is asked first, and a lock must be where the next one looks for it.
    let reads_copies = context.relations().any(|(_, _, used)| matches!(used, Use::Reference));
    if scope.locking.is_some() && (scope.limit.is_some() || reads_copies) {
        return None;
    }
    let amount_of = |operand: &Option<Operand>| match operand {
        None => Some(None),
        Some(operand) => amount(context, operand).map(Some),
    };
    let (limit, offset) = (amount_of(&scope.limit)?, amount_of(&scope.offset)?);
    let order = match scope.order_by.as_slice() {
        [] => None,
        keys => Some(Box::new(merge(context, scope, keys)?)),
    };
    let instead = match order.is_some() || scope.locking.is_none() && context.has_types_of_users() {
        true => rows_of_all(context, &[])
            .map(|(occurrences, parts)| Box::new(Collect { occurrences, parts, ..Collect::default() })),
        false => None,
    };
    let occurrences = occurrences(context)?;
    // Where keys name the shards, they decide.
    let pinned = occurrences.iter().all(|occurrence| !occurrence.pins.is_empty());
    let rule = match &order {
        _ if pinned => "key-equality",
        Some(_) => "merge-rows",
        None => "scatter-rows",
    };
    Some(context.plan(rule, Action::Scatter(Scatter { occurrences, limit, offset, order, instead })))
}

/// The types by which rows are merged, as `format_type` prints them; those of text, where the collation is C.
const MERGED: &[&str] =
    &["bigint", "boolean", "date", "double precision", "integer", "oid", "real", "smallint", "uuid", "bytea"];
const MERGED_TEXT: &[&str] = &["text", "name", "character varying"];

fn is_merged(column: &Column) -> bool {
    let kind = column.type_name.as_str();
    let base = kind.split('(').next().unwrap_or(kind).trim_end();
    let of_time = kind.starts_with("timestamp") || kind.starts_with("time") && kind.ends_with("without time zone");
    let text = MERGED_TEXT.contains(&base) && column.compared_by.as_deref() == Some("pg_catalog.\"C\"");
    MERGED.contains(&kind) || base == "numeric" && !kind.ends_with(']') || of_time && !kind.ends_with(']') || text
}

fn merge(context: &Context<'_>, scope: &Scope, keys: &[SortKey]) -> Option<Merge> {
    let words = Words::of(context.around.sql);
    let clauses = Clauses::of(&words)?;
    let sorted_by = |key: &SortKey| {
        let place = match &key.value {
            Operand::Literal { value: Literal::Number(number), negative: false, cast: None, .. } => {
                match scope.projection.get(number.parse::<usize>().ok()?.checked_sub(1)?)? {
                    Projection::Item { value, .. } => value.column(),
                    // Which column it is is not seen.
                    Projection::Star(_) | Projection::QualifiedStar(..) => None,
                }
            }
            value => value.column(),
        };
        let column = place?;
        let RelationSource::Table { table: Some(table), .. } = &context.facts.relations.get(column.relation?.0)?.source
        else {
            return None;
        };
        let stored = context.topology.catalog().table(*table).columns.iter().find(|stored| stored.name == column.name);
        is_merged(stored?).then(|| SortedBy {
            column: column.span.of(context.around.sql).to_owned(),
            descending: key.descending,
            nulls_first: key.nulls_first.unwrap_or(key.descending),
        })
    };
    // With a star in front of it, a position is not the item's.
    let stars = scope.projection.iter().any(|item| !matches!(item, Projection::Item { .. }));
    let by_position = keys.iter().any(|key| matches!(key.value, Operand::Literal { .. }));
    let constant = |operand: &Operand| match operand {
        Operand::Literal { value: Literal::Null, .. } => None,
        other => Some(other.span()),
    };
    let offset = scope.offset.as_ref().and_then(constant);
    let amounts = match &scope.limit {
        Some(limit) => constant(limit).into_iter().chain(offset).collect(),
        None => Vec::new(),
    };
    let limited = scope.limit.as_ref().is_some_and(|limit| constant(limit).is_some());
    Some(Merge {
        keys: keys.iter().map(sorted_by).collect::<Option<Vec<_>>>().filter(|_| !(stars && by_position))?,
        list_end: *clauses.ends.last()?,
        tail: clauses.amounts,
        amounts: if limited { amounts } else { Vec::new() },
    })
}

/// Whether a block looks at more than one row for one of its answer.
pub(super) fn looks_further(scope: &Scope) -> bool {
    scope.distinct
        || scope.distinct_on
        || !scope.group_by.is_empty()
        || scope.grouping_sets
        || scope.having
        || scope.aggregate
        || scope.window
}

/// Whether no word of the statement means something else on another shard, if these mean the same time.
pub(super) fn is_computed_alike(context: &Context<'_>, times: &[Moment]) -> bool {
    let steady = context.facts.functions.iter().all(|call| is_call_alike(context, call, times));
    steady && are_words_alike(context, context.around.sql.as_bytes())
}

pub(super) fn is_call_alike(context: &Context<'_>, call: &FunctionCall, times: &[Moment]) -> bool {
    match context.steadiness(call) {
        Some(Steadiness::Immutable) => true,
        Some(Steadiness::Stable) => {
            OF_SESSION.contains(&call.name.as_str()) || times.iter().any(|moment| is_within(call.span, moment.span))
        }
        _ => false,
    }
}

pub(super) fn are_words_alike(context: &Context<'_>, sql: &[u8]) -> bool {
    let tokens: Vec<Token> = Lexer::new(sql, LexOptions::default()).collect();
    let word = |at: usize| {
        let bytes = tokens.get(at).map(|token| token.bytes(sql)).unwrap_or_default();
        String::from_utf8_lossy(bytes).trim_matches('"').to_ascii_lowercase()
    };
    // What a text says of a time may depend on when it is read, and of a table or a function on who reads it.
    let is_cast_alike = |value: usize, target: usize| {
        let constant = matches!(
            tokens.get(value).map(|token| token.kind),
            Some(TokenKind::String(_) | TokenKind::Number(_) | TokenKind::Param(_))
        );
        let target = word(target);
        let of_time = constant || is_time(context, &word(value));
        PLAIN_TARGETS.contains(&target.as_str())
            || of_time && (target.starts_with("date") || target.starts_with("time"))
    };
    (0..tokens.len()).all(|at| match tokens.get(at).map(|token| token.kind) {
        Some(TokenKind::Op) => OPERATORS.contains(&word(at).as_str()),
        Some(TokenKind::UnicodeIdent | TokenKind::Junk | TokenKind::Other) => false,
        Some(TokenKind::Ident | TokenKind::QuotedIdent) => match word(at).as_str() {
            // Of a constant or a column.
            "cast" => word(at + 3) == "as" && is_cast_alike(at + 2, at + 4),
            // OPERATOR(..) may name anybody's; a sample is another one each time.
            "operator" | "tablesample" | "collate" => false,
            word => !SYSTEM_COLUMNS.contains(&word),
        },
        Some(TokenKind::Cast) => at.checked_sub(1).is_some_and(|before| is_cast_alike(before, at + 1)),
        _ => true,
    })
}

/// Types to which a value is cast by itself alone.
const PLAIN_TARGETS: &[&str] = &[
    "int", "int2", "int4", "int8", "integer", "bigint", "smallint", "numeric", "decimal", "float", "float4", "float8",
    "double", "real", "text", "varchar", "bool", "boolean", "uuid", "json", "jsonb",
];

/// Whether a word is the name of columns that hold times only, which are read by nothing but the session's settings.
fn is_time(context: &Context<'_>, name: &str) -> bool {
    let named = |relation: &Relation| match &relation.source {
        RelationSource::Table { table: Some(table), .. } => {
            let table = context.topology.catalog().table(*table);
            table.columns.iter().find(|column| column.name == name).map(|column| column.type_name.clone())
        }
        _ => None,
    };
    let mut types = context.facts.relations.iter().filter_map(named).peekable();
    types.peek().is_some() && types.all(|kind| kind.starts_with("timestamp") || kind == "date")
}

/// LIMIT's amount, where it is one plain constant.
fn amount(context: &Context<'_>, operand: &Operand) -> Option<Amount> {
    match operand {
        Operand::Literal { value: Literal::Null, .. } => Some(Amount::None),
        Operand::Literal { value: Literal::Number(_), negative: false, cast: None, literal, .. } => {
            let constants = context.around.constants.iter();
            let index = constants.clone().position(|constant| constant.start == literal.start)?;
            Some(Amount::Constant(index))
        }
        Operand::Parameter { number, cast: None, .. } => Some(Amount::Parameter(*number)),
        _ => None,
    }
}

/// All occurrences that lie on shards, each row of the join with one of each.
pub(super) fn occurrences(context: &Context<'_>) -> Option<Vec<Occurrence>> {
    let mut known = Knowledge::of(context, ScopeId(0));
    let mut found: Vec<Occurrence> = Vec::new();
    let mut first: Option<(RelationId, &str, &Placed)> = None;
    for (id, relation, used) in context.relations() {
        if !is_plain_table(context, relation) || !is_joined_forward(relation) {
            return None;
        }
        let sharded = match used {
            Use::Sharded(sharded) => sharded,
            Use::Reference => continue,
            _ => return None,
        };
        let placed = sharded.placed.as_ref().ok()?;
        if relation.nullable || relation.join == JoinKind::Left {
            return None;
        }
        match first {
            None => first = Some((id, &sharded.key, placed)),
            Some((other, key, anchor)) => {
                let together =
                    anchor.is_alike(placed) && known.are_equal((other, key.to_owned()), (id, sharded.key.clone()));
                if !together {
                    return None;
                }
            }
        }
        let key = Key { column: &sharded.key, key: placed.key, placement: placed.placement.clone() };
        let name = relation.alias.clone().unwrap_or_else(|| crate::route::context::table_name(relation));
        let pins = known.pins(id, &key, false);
        found.push(Occurrence { name, span: relation.span, pins });
    }
    (!found.is_empty()).then_some(found)
}

/// A table as it is stored, with rows of its own.
fn is_plain_table(context: &Context<'_>, relation: &Relation) -> bool {
    let RelationSource::Table { table: Some(table), .. } = &relation.source else { return false };
    matches!(context.topology.catalog().table(*table).kind, TableKind::Table | TableKind::Partitioned)
}

/// Whether what stands before it keeps its rows whatever is in this one.
fn is_joined_forward(relation: &Relation) -> bool {
    !matches!(relation.join, JoinKind::Right | JoinKind::Full)
}
