//! Where an expression begins and ends, to the token.
//!
//! The parser's own spans are the union of some leaves: `count(*)` ends before its parenthesis, `a IS NULL` after the `a`,
//! `x::date` before the type. Here the first and the last token of an expression are found from
//! its leaves and the parentheses around them. Left-deep chains are walked in a loop, so that their length costs no stack.

use sqlparser::ast::{
    CastKind, Expr, Function, FunctionArguments, Ident, Interval, Query, SetExpr, Statement, UnaryOperator,
};

use super::Parsed;
use super::tokens::{TokenClass, TokenIndex};
use crate::sql::facts::Span;

/// The first and the last token of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first token.
    pub first: TokenIndex,
    /// The last token, included.
    pub last: TokenIndex,
}

impl Parsed {
    /// The bytes of an expression; empty when its tokens could not be found.
    pub(crate) fn expr_span(&self, expr: &Expr) -> Span {
        self.expr_extent(expr).map(|extent| self.tokens.between(extent.first, extent.last)).unwrap_or_default()
    }

    /// The tokens of an expression.
    pub(crate) fn expr_extent(&self, expr: &Expr) -> Option<Extent> {
        let extent = Extent { first: self.first(expr)?, last: self.last(expr)? };
        (extent.first <= extent.last).then_some(extent)
    }

    /// The bytes of a name.
    pub(crate) fn ident_span(&self, ident: &Ident) -> Span {
        self.ident_token(ident).map(|index| self.tokens.span(index)).unwrap_or_default()
    }

    fn ident_token(&self, ident: &Ident) -> Option<TokenIndex> {
        self.tokens.starting_at(ident.span.start)
    }

    /// The bytes of a query, without the parentheses around it.
    pub(crate) fn query_span(&self, query: &Query) -> Span {
        let Some(first) = self.query_first(query) else { return Span::default() };
        let last = match self.tokens.around(first).and_then(|open| self.tokens.mate(open)) {
            Some(close) => close.saturating_sub(1),
            None => self.last_of_statement(),
        };
        self.tokens.between(first, last)
    }

    /// The bytes of a body: up to the set operation, the clause or the parenthesis that ends it.
    pub(crate) fn body_span(&self, body: &SetExpr) -> Span {
        let Some(first) = self.body_first(body) else { return Span::default() };
        let around = self.tokens.around(first);
        let ends = |index: TokenIndex| {
            self.tokens.around(index) == around
                && ["UNION", "INTERSECT", "EXCEPT", "ORDER", "LIMIT", "OFFSET", "FETCH", "FOR"]
                    .iter()
                    .any(|word| self.tokens.is_word(index, &self.text, word))
                || Some(index) == around.and_then(|open| self.tokens.mate(open))
                || self.tokens.class(index) == Some(TokenClass::Semicolon)
        };
        let end = (first..self.tokens.len()).find(|index| ends(*index)).unwrap_or(self.tokens.len());
        self.tokens.between(first, end.saturating_sub(1))
    }

    /// The bytes of the statement, without the semicolon.
    pub(crate) fn statement_span(&self) -> Span {
        self.tokens.between(0, self.last_of_statement())
    }

    fn last_of_statement(&self) -> TokenIndex {
        let mut last = self.tokens.len().saturating_sub(1);
        while last > 0 && self.tokens.class(last) == Some(TokenClass::Semicolon) {
            last -= 1;
        }
        last
    }

    /// The bytes of a call with all that belongs to it.
    pub(crate) fn function_span(&self, function: &Function) -> Span {
        let first = function.name.0.first().and_then(|part| part.as_ident()).and_then(|ident| self.ident_token(ident));
        match (first, self.function_last(function)) {
            (Some(first), Some(last)) => self.tokens.between(first, last),
            _ => Span::default(),
        }
    }

    fn first(&self, expr: &Expr) -> Option<TokenIndex> {
        let mut expr = expr;
        while let Some(left) = leftmost(expr) {
            expr = left;
        }
        let back = |index: TokenIndex, by: usize| index.checked_sub(by);
        match expr {
            Expr::Identifier(ident) => self.ident_token(ident),
            Expr::CompoundIdentifier(idents) => self.ident_token(idents.first()?),
            Expr::Nested(inner) => back(self.first(inner)?, 1),
            Expr::UnaryOp { expr, .. } => back(self.first(expr)?, 1),
            Expr::Value(value) => self.tokens.starting_at(value.span.start),
            Expr::TypedString(typed) => self.typed_first(self.tokens.starting_at(typed.value.span.start)?),
            Expr::Function(function) => self.ident_token(function.name.0.first()?.as_ident()?),
            Expr::Interval(interval) => back(self.first(&interval.value)?, 1),
            Expr::Case { case_token, .. } => self.tokens.starting_at(case_token.0.span.start),
            Expr::Exists { subquery, negated } => back(self.query_first(subquery)?, if *negated { 3 } else { 2 }),
            Expr::Subquery(query) => back(self.query_first(query)?, 1),
            Expr::Tuple(items) => back(self.first(items.first()?)?, 1),
            Expr::Array(array) => back(self.first(array.elem.first()?)?, if array.named { 2 } else { 1 }),
            Expr::Wildcard(token) => self.tokens.starting_at(token.0.span.start),
            Expr::QualifiedWildcard(name, _) => self.ident_token(name.0.first()?.as_ident()?),
            other => back(self.tokens.around(self.first(in_parentheses(other)?)?)?, 1),
        }
    }

    fn last(&self, expr: &Expr) -> Option<TokenIndex> {
        let mut expr = expr;
        while let Some(right) = rightmost(expr) {
            expr = right;
        }
        match expr {
            Expr::Identifier(ident) => self.ident_token(ident),
            Expr::CompoundIdentifier(idents) => self.ident_token(idents.last()?),
            Expr::Nested(_) | Expr::Tuple(_) => self.tokens.mate(self.first(expr)?),
            Expr::UnaryOp { op: UnaryOperator::PGPostfixFactorial, expr } => Some(self.last(expr)? + 1),
            Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner) => Some(self.last_of_is(self.last(inner)? + 1)),
            Expr::IsJson { expr, .. } | Expr::IsNormalized { expr, .. } => Some(self.last_of_is(self.last(expr)? + 1)),
            Expr::InList { expr, .. } | Expr::AnyOp { left: expr, .. } | Expr::AllOp { left: expr, .. } => {
                self.next_parenthesis(self.last(expr)? + 1)
            }
            Expr::InSubquery { subquery, .. } | Expr::Exists { subquery, .. } | Expr::Subquery(subquery) => {
                self.tokens.mate(self.query_first(subquery)?.checked_sub(1)?)
            }
            Expr::Like { any: true, expr, .. } | Expr::ILike { any: true, expr, .. } => {
                self.next_parenthesis(self.last(expr)? + 1)
            }
            Expr::Cast { kind: CastKind::DoubleColon, expr, .. } => Some(self.last_of_type(self.last(expr)? + 2)),
            Expr::Collate { collation, .. } => self.ident_token(collation.0.last()?.as_ident()?),
            Expr::Value(value) => Some(self.last_of_constant(self.tokens.starting_at(value.span.start)?)),
            Expr::TypedString(typed) => Some(self.last_of_constant(self.tokens.starting_at(typed.value.span.start)?)),
            Expr::Function(function) => self.function_last(function),
            Expr::Interval(interval) => self.interval_last(interval),
            Expr::Case { end_token, .. } => self.tokens.starting_at(end_token.0.span.start),
            Expr::Array(array) => self.tokens.mate(self.first(array.elem.first()?)?.checked_sub(1)?),
            Expr::CompoundFieldAccess { root, .. } => Some(self.last_of_access(self.last(root)?)),
            Expr::Wildcard(token) | Expr::QualifiedWildcard(_, token) => self.tokens.starting_at(token.0.span.start),
            other => self.tokens.mate(self.tokens.around(self.first(in_parentheses(other)?)?)?),
        }
    }

    /// The first token of a query, inside the parentheses around it.
    pub(crate) fn query_first(&self, query: &Query) -> Option<TokenIndex> {
        match &query.with {
            Some(with) => self.tokens.starting_at(with.with_token.0.span.start),
            None => self.body_first(&query.body),
        }
    }

    /// The first token of a query's body.
    pub(crate) fn body_first(&self, body: &SetExpr) -> Option<TokenIndex> {
        let mut body = body;
        while let SetExpr::SetOperation { left, .. } = body {
            body = left;
        }
        match body {
            SetExpr::Select(select) => self.tokens.starting_at(select.select_token.0.span.start),
            SetExpr::Query(query) => self.query_first(query)?.checked_sub(1),
            SetExpr::Values(values) => {
                self.tokens.starting_at(values.rows.first()?.opening_token.0.span.start)?.checked_sub(1)
            }
            SetExpr::Insert(Statement::Insert(insert)) => self.tokens.starting_at(insert.insert_token.0.span.start),
            SetExpr::Update(Statement::Update(update)) => self.tokens.starting_at(update.update_token.0.span.start),
            SetExpr::Delete(Statement::Delete(delete)) => self.tokens.starting_at(delete.delete_token.0.span.start),
            SetExpr::Merge(Statement::Merge(merge)) => self.tokens.starting_at(merge.merge_token.0.span.start),
            SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_)
            | SetExpr::Table(_)
            | SetExpr::SetOperation { .. } => None,
        }
    }

    /// `DATE '..'`, `TIMESTAMP WITH TIME ZONE '..'`: back from the constant to the type's first word.
    fn typed_first(&self, constant: TokenIndex) -> Option<TokenIndex> {
        let mut first = constant.checked_sub(1)?;
        if self.tokens.is_word(first, &self.text, "ZONE") {
            first = first.checked_sub(3)?;
        } else if self.tokens.is_word(first, &self.text, "PRECISION")
            || self.tokens.is_word(first, &self.text, "VARYING")
        {
            first = first.checked_sub(1)?;
        }
        if self.tokens.class(first) == Some(TokenClass::Close) {
            first = self.tokens.mate(first)?.checked_sub(1)?;
        }
        Some(first)
    }

    /// `IS [NOT] x`, `ISNULL`, `NOTNULL`, `NOT NULL`: the last word, from the first.
    fn last_of_is(&self, first: TokenIndex) -> TokenIndex {
        let is = |index, word| self.tokens.is_word(index, &self.text, word);
        let mut last = first;
        while is(last, "IS") || is(last, "NOT") {
            last += 1;
        }
        if is(last, "JSON") && ["VALUE", "ARRAY", "OBJECT", "SCALAR"].iter().any(|word| is(last + 1, word)) {
            last += 1;
        }
        last
    }

    /// The end of the next parenthesis: `[NOT] IN (..)`, `= ANY (..)`.
    fn next_parenthesis(&self, from: TokenIndex) -> Option<TokenIndex> {
        let open = (from..self.tokens.len().min(from + 8))
            .find(|index| self.tokens.class(*index) == Some(TokenClass::Open))?;
        self.tokens.mate(open)
    }

    /// A string constant goes on over following lines: `'a'` newline `'b'`.
    fn last_of_constant(&self, first: TokenIndex) -> TokenIndex {
        let mut last = first;
        while self.tokens.class(first) == Some(TokenClass::Text)
            && self.tokens.class(last + 1) == Some(TokenClass::Text)
        {
            last += 1;
        }
        last
    }

    /// The last token of a type whose first token is given.
    pub(crate) fn last_of_type(&self, first: TokenIndex) -> TokenIndex {
        let is = |index, word| self.tokens.is_word(index, &self.text, word);
        let mut last = first;
        while self.tokens.class(last + 1) == Some(TokenClass::Dot) {
            last += 2;
        }
        if is(last + 1, "PRECISION") && is(last, "DOUBLE") || is(last + 1, "VARYING") {
            last += 1;
        }
        if self.tokens.class(last + 1) == Some(TokenClass::Open) {
            last = self.tokens.mate(last + 1).unwrap_or(last);
        }
        if (is(last + 1, "WITH") || is(last + 1, "WITHOUT")) && is(last + 2, "TIME") && is(last + 3, "ZONE") {
            last += 3;
        }
        if is(last + 1, "ARRAY") {
            last += 1;
        }
        while self.tokens.class(last + 1) == Some(TokenClass::OpenBracket) {
            let Some(close) = self.tokens.mate(last + 1) else { break };
            last = close;
        }
        last
    }

    fn function_last(&self, function: &Function) -> Option<TokenIndex> {
        let name = self.ident_token(function.name.0.last()?.as_ident()?)?;
        if matches!(function.args, FunctionArguments::None) && self.tokens.class(name + 1) != Some(TokenClass::Open) {
            return Some(name);
        }
        let mut last = self.tokens.mate(name + 1)?;
        let is = |index, word| self.tokens.is_word(index, &self.text, word);
        if !function.within_group.is_empty() && is(last + 1, "WITHIN") {
            last = self.tokens.mate(last + 3)?;
        }
        if function.filter.is_some() && is(last + 1, "FILTER") {
            last = self.tokens.mate(last + 2)?;
        }
        if function.null_treatment.is_some() && (is(last + 1, "IGNORE") || is(last + 1, "RESPECT")) {
            last += 2;
        }
        if function.over.is_some() && is(last + 1, "OVER") {
            last = self.tokens.mate(last + 2).unwrap_or(last + 2);
        }
        Some(last)
    }

    fn interval_last(&self, interval: &Interval) -> Option<TokenIndex> {
        let mut last = self.last(&interval.value)?;
        if interval.leading_field.is_some() {
            last += 1;
        }
        if interval.last_field.is_some() {
            last += 2;
        }
        Some(last)
    }

    /// `.field` and `[subscript]` after something.
    fn last_of_access(&self, root: TokenIndex) -> TokenIndex {
        let mut last = root;
        loop {
            match self.tokens.class(last + 1) {
                Some(TokenClass::Dot) => last += 2,
                Some(TokenClass::OpenBracket) => match self.tokens.mate(last + 1) {
                    Some(close) => last = close,
                    None => return last,
                },
                _ => return last,
            }
        }
    }
}

/// The operand that an expression begins with, if it begins with one.
fn leftmost(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::BinaryOp { left, .. } | Expr::AnyOp { left, .. } | Expr::AllOp { left, .. } => Some(left),
        Expr::IsNull(expr)
        | Expr::IsNotNull(expr)
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr)
        | Expr::IsUnknown(expr)
        | Expr::IsNotUnknown(expr)
        | Expr::IsDistinctFrom(expr, _)
        | Expr::IsNotDistinctFrom(expr, _)
        | Expr::IsJson { expr, .. }
        | Expr::IsNormalized { expr, .. }
        | Expr::InList { expr, .. }
        | Expr::InSubquery { expr, .. }
        | Expr::InUnnest { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::Like { expr, .. }
        | Expr::ILike { expr, .. }
        | Expr::SimilarTo { expr, .. }
        | Expr::RLike { expr, .. }
        | Expr::Cast { kind: CastKind::DoubleColon, expr, .. }
        | Expr::AtTimeZone { timestamp: expr, .. }
        | Expr::Collate { expr, .. }
        | Expr::CompoundFieldAccess { root: expr, .. }
        | Expr::JsonAccess { value: expr, .. }
        | Expr::UnaryOp { op: UnaryOperator::PGPostfixFactorial, expr } => Some(expr),
        _ => None,
    }
}

/// The operand that an expression ends with, if it ends with one.
fn rightmost(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::BinaryOp { right, .. } | Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => {
            Some(right)
        }
        Expr::Between { high, .. } => Some(high),
        Expr::Like { any: false, pattern, escape_char, .. }
        | Expr::ILike { any: false, pattern, escape_char, .. }
        | Expr::SimilarTo { pattern, escape_char, .. } => Some(escape_char.as_deref().unwrap_or(pattern)),
        Expr::UnaryOp { op, expr } if *op != UnaryOperator::PGPostfixFactorial => Some(expr),
        Expr::AtTimeZone { time_zone, .. } => Some(time_zone),
        _ => None,
    }
}

/// An operand that stands directly inside the parentheses of a construct written like a call: `EXTRACT(x FROM y)`.
fn in_parentheses(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Cast { expr, .. }
        | Expr::Extract { expr, .. }
        | Expr::Ceil { expr, .. }
        | Expr::Floor { expr, .. }
        | Expr::Position { expr, .. }
        | Expr::Substring { expr, .. }
        | Expr::Trim { expr, .. }
        | Expr::Overlay { expr, .. } => Some(expr),
        _ => None,
    }
}
