//! Queries whose groups are computed where their rows lie, and put together on one shard.

use std::collections::BTreeMap;

use crate::route::collect::Moment;
use crate::route::context::Context;
use crate::route::fold::{Call, FOLDED, Fold, Folded, GroupKey};
use crate::route::rules::clauses::Clauses;
use crate::route::rules::collect::{is_within, shipped};
use crate::route::rules::scatter::{is_computed_alike, occurrences};
use crate::route::words::Words;
use crate::sql::catalog::Column;
use crate::sql::facts::{
    Clause, ColumnRef, FunctionCall, Literal, Operand, Projection, RelationSource, Scope, Span, is_aggregate,
};
use crate::sql::lexer::TokenKind;

/// One block over one sharded table, or several that are joined by equal keys: its joined rows are those of the shards' own joins (see
/// [`super::scatter::concat`]), so that a group is the union of the shards' groups with the same key, and an aggregate over it the
/// combination of the aggregates over those; see [`crate::route::fold`]. What stands outside of FROM and WHERE must look at
/// nothing but keys and aggregates. `count(DISTINCT x)` and the like see the same values when rows are grouped by x besides.
pub(super) fn fold(context: &Context<'_>, times: &[Moment]) -> Option<Fold> {
    let [scope] = context.facts.scopes.as_slice() else { return None };
    let groups = scope.aggregate || scope.distinct || !scope.group_by.is_empty();
    let odd = scope.grouping_sets || scope.distinct_on || scope.window || !context.facts.set_operations.is_empty();
    if !groups || odd || !is_computed_alike(context, times) {
        return None;
    }
    occurrences(context)?;
    let words = Words::of(context.around.sql);
    let clauses = Clauses::of(&words)?;
    if !times.iter().all(|moment| is_within(moment.span, clauses.body)) {
        return None;
    }
    Folder { context, words: &words, clauses: &clauses, refs: references(context, scope) }.fold(scope)
}

/// The columns that are named outside of FROM and WHERE; of those behind ORDER BY, names of the answer's own columns are none.
fn references(context: &Context<'_>, scope: &Scope) -> Vec<ColumnRef> {
    let projected = scope.projection.iter().filter_map(|item| match item {
        Projection::Item { value, .. } => Some(value),
        Projection::Star(_) | Projection::QualifiedStar(..) => None,
    });
    let having = context.facts.predicates.iter().filter(|predicate| predicate.clause == Clause::Having);
    let having = having.flat_map(|predicate| [Some(&predicate.left), predicate.right.as_ref()]).flatten();
    let is_output = |value: &&Operand| {
        !value.column().is_some_and(|column| column.relation.is_none() && column.qualifier.is_none())
    };
    let sorted = scope.order_by.iter().map(|key| &key.value).filter(is_output);
    let mut refs = Vec::new();
    for operand in projected.chain(having).chain(&scope.group_by).chain(sorted) {
        mentioned(operand, &mut refs);
    }
    refs.sort_by_key(|column| column.span);
    refs.dedup_by_key(|column| column.span);
    refs
}

fn mentioned(operand: &Operand, refs: &mut Vec<ColumnRef>) {
    match operand {
        Operand::Column(column) => refs.push(column.clone()),
        Operand::Expression { columns, .. } => refs.extend(columns.iter().cloned()),
        Operand::List(items, _) => items.iter().for_each(|item| mentioned(item, refs)),
        Operand::Literal { .. } | Operand::Parameter { .. } | Operand::Subquery(..) => {}
    }
}

struct Folder<'a> {
    context: &'a Context<'a>,
    words: &'a Words<'a>,
    clauses: &'a Clauses,
    refs: Vec<ColumnRef>,
}

/// A call in parts.
struct Parts<'a> {
    distinct: bool,
    argument: Span,
    filter: &'a str,
}

impl Folder<'_> {
    fn fold(&self, scope: &Scope) -> Option<Fold> {
        let mut fold = Fold {
            body: self.clauses.body,
            keys: Vec::new(),
            calls: Vec::new(),
            places: Vec::new(),
            unnamed: self.unnamed(scope)?,
        };
        let mut places: BTreeMap<Span, Folded> = BTreeMap::new();
        let mut spans = self.grouped_by(scope)?;
        for call in self.context.facts.functions.iter().filter(|call| is_aggregate(&call.name) && !call.window) {
            // A plain function may have an aggregate's name.
            let parts = self.parts(call).filter(|_| self.context.is_built_in(call))?;
            if parts.distinct {
                spans.push(parts.argument);
                continue;
            }
            let call_of = self.call(call, &parts)?;
            let known = fold.calls.iter().position(|other| *other == call_of);
            let at = known.unwrap_or(fold.calls.len());
            if known.is_none() {
                fold.calls.push(call_of);
            }
            places.insert(call.span, Folded::Call(at));
        }
        let mut columns = Vec::new();
        for span in spans {
            let (key, column) = self.key(span)?;
            let at = fold.keys.len();
            if !fold.keys.iter().any(|other| other.text == key.text) {
                fold.keys.push(key);
                match column {
                    Some(column) => columns.push((column, at)),
                    None => self.place_expression(span, scope, at, &mut places),
                }
            }
        }
        for column in &self.refs {
            let inside = |span: &Span| is_within(column.span, *span);
            if inside(&self.clauses.body) || places.keys().any(inside) {
                continue;
            }
            let is_same =
                |other: &&(&ColumnRef, usize)| other.0.relation == column.relation && other.0.name == column.name;
            let (_, at) = columns.iter().find(is_same).filter(|_| column.relation.is_some())?;
            places.insert(column.span, Folded::Key(*at));
        }
        fold.places = places.into_iter().collect();
        Some(fold)
    }

    /// Where each column of the answer needs a name of its own, which it loses with its expression.
    fn unnamed(&self, scope: &Scope) -> Option<Vec<Option<u32>>> {
        let items = scope.projection.iter().zip(&self.clauses.ends);
        let unnamed = items.map(|(item, end)| match item {
            Projection::Item { alias, .. } => Some(alias.is_none().then_some(*end)),
            Projection::Star(_) | Projection::QualifiedStar(..) => None,
        });
        (scope.projection.len() == self.clauses.ends.len()).then_some(())?;
        unnamed.collect()
    }

    /// What rows are grouped by: GROUP BY's expressions, or what DISTINCT tells apart.
    fn grouped_by(&self, scope: &Scope) -> Option<Vec<Span>> {
        let value = |at: usize| match scope.projection.get(at) {
            Some(Projection::Item { value, .. }) => Some(value),
            _ => None,
        };
        let by_place = |operand: &Operand| match operand {
            Operand::Literal { value: Literal::Number(number), negative: false, cast: None, .. } => {
                value(number.parse::<usize>().ok()?.checked_sub(1)?).map(Operand::span)
            }
            other => Some(other.span()),
        };
        if scope.distinct && scope.group_by.is_empty() && !scope.aggregate {
            return (0..scope.projection.len()).map(|at| value(at).map(Operand::span)).collect();
        }
        scope.group_by.iter().map(by_place).collect()
    }

    /// A key that stands there, with the column that it is.
    fn key(&self, span: Span) -> Option<(GroupKey, Option<&ColumnRef>)> {
        let text = span.of(self.context.around.sql).to_owned();
        if text.is_empty() {
            return None;
        }
        if let Some(column) = self.refs.iter().find(|column| column.span == span) {
            let stored = shipped(self.column(column)?)?;
            return Some((GroupKey { text, column: Some(stored), plain_collation: false }, Some(column)));
        }
        let within = || self.refs.iter().filter(|column| is_within(column.span, span));
        // Constants have no place in GROUP BY.
        within().next()?;
        let plain = |column: &ColumnRef| self.column(column).is_some_and(|column| column.compared_by.is_none());
        Some((GroupKey { text, column: None, plain_collation: within().all(plain) }, None))
    }

    fn column(&self, column: &ColumnRef) -> Option<&Column> {
        let relation = self.context.facts.relations.get(column.relation?.0)?;
        let RelationSource::Table { table: Some(table), .. } = &relation.source else { return None };
        let table = self.context.topology.catalog().table(*table);
        table.columns.iter().find(|stored| stored.name == column.name)
    }

    /// Notes where an expression stands: as a whole value of a clause, or, when it is one call, anywhere.
    fn place_expression(&self, span: Span, scope: &Scope, at: usize, places: &mut BTreeMap<Span, Folded>) {
        let tokens = |span: Span| -> Vec<Vec<u8>> {
            let tokens = self.words.tokens.iter();
            let within = tokens.filter(|token| span.start <= token.start && token.end <= span.end);
            let plain = |token: &crate::sql::lexer::Token| {
                let bytes = token.bytes(self.words.sql);
                if token.kind == TokenKind::Ident { bytes.to_ascii_lowercase() } else { bytes.to_vec() }
            };
            within.map(plain).collect()
        };
        let key = tokens(span);
        let values = scope.projection.iter().filter_map(|item| match item {
            Projection::Item { value, .. } => Some(value.span()),
            _ => None,
        });
        let values = values.chain(scope.group_by.iter().map(Operand::span));
        let values = values.chain(scope.order_by.iter().map(|key| key.value.span())).chain([span]);
        let is_outside = |span: &Span| span.end <= self.clauses.body.start || span.start >= self.clauses.body.end;
        for value in values.filter(|value| value.end > value.start && tokens(*value) == key) {
            places.insert(value, Folded::Key(at));
        }
        for call in self.context.facts.functions.iter().filter(|call| is_outside(&call.span)) {
            let free = !places.keys().any(|span| is_within(call.span, *span));
            if free && tokens(call.span) == key {
                places.insert(call.span, Folded::Key(at));
            }
        }
    }

    /// The parts of a call of an aggregate; `None` where order matters in it, or one argument is not all.
    fn parts(&self, call: &FunctionCall) -> Option<Parts<'_>> {
        let tokens = &self.words.tokens;
        let first = tokens.iter().position(|token| token.start == call.span.start)?;
        let last = tokens.iter().position(|token| token.end == call.span.end)?;
        let open = (first..last).find(|at| self.words.kind(*at) == Some(TokenKind::LeftParen))?;
        let mut depth = 0;
        let mut close = None;
        for at in open..=last {
            match self.words.kind(at)? {
                TokenKind::LeftParen => depth += 1,
                TokenKind::RightParen => depth -= 1,
                TokenKind::Comma if depth == 1 => return None,
                TokenKind::Ident if depth == 1 && self.words.word(at).is_some_and(|word| word == "order") => {
                    return None;
                }
                _ => {}
            }
            if depth == 0 {
                close = Some(at);
                break;
            }
        }
        let close = close?;
        let said = self.words.word(open + 1).filter(|_| self.words.kind(open + 1) == Some(TokenKind::Ident));
        let distinct = said.as_deref() == Some("distinct");
        let skipped = usize::from(distinct || said.as_deref() == Some("all"));
        let filtered = self.words.word(close + 1).is_some_and(|word| word == "filter");
        if close < last && (distinct || !filtered) || open + 1 + skipped >= close {
            return None;
        }
        let argument = Span { start: tokens.get(open + 1 + skipped)?.start, end: tokens.get(close - 1)?.end };
        let filter = Span { start: tokens.get(close)?.end, end: call.span.end };
        Some(Parts { distinct, argument, filter: filter.of(self.context.around.sql) })
    }

    fn call(&self, call: &FunctionCall, parts: &Parts<'_>) -> Option<Call> {
        let column = self.refs.iter().find(|column| column.span == parts.argument);
        Some(Call {
            name: FOLDED.contains(&call.name.as_str()).then(|| call.name.clone())?,
            argument: parts.argument.of(self.context.around.sql).to_owned(),
            filter: parts.filter.to_owned(),
            compared_by: column.and_then(|column| self.column(column)).map(|column| column.compared_by.clone()),
        })
    }
}
