//! An expression to an [`Operand`]: plain columns and constants as such, anything else as what it mentions.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Interval, Query,
    Subscript, UnaryOperator, Value, ValueWithSpan,
};

use super::build::Builder;
use super::functions::{is_bare_call, is_volatile};
use super::literal::string_literal;
use super::predicates::{Place, comparison};
use super::resolve::folded;
use super::{FunctionCall, Literal, Operand, ScopeId, ScopeKind, Shape, Span};

/// How much had been met when an expression began.
pub(super) struct Mark {
    columns: usize,
    aggregates: u32,
    volatiles: u32,
}

impl Builder<'_> {
    /// What an expression is, its columns resolved; everything inside is walked and noted.
    pub(super) fn operand(&mut self, expr: &Expr) -> Operand {
        let span = self.parsed.expr_span(expr);
        self.deeper(|builder| builder.operand_at(expr, span)).unwrap_or_else(|| nothing_known(span))
    }

    fn operand_at(&mut self, expr: &Expr, span: Span) -> Operand {
        match expr {
            Expr::Identifier(ident) if ident.quote_style.is_none() && is_bare_call(&folded(ident)) => {
                let mark = self.mark();
                let name = folded(ident);
                self.note_function(None, &name, 0, false, span);
                self.expression(&mark, Shape::Function(name), span)
            }
            Expr::Identifier(ident) => Operand::Column(self.column(std::slice::from_ref(ident))),
            Expr::CompoundIdentifier(idents) => Operand::Column(self.column(idents)),
            Expr::Nested(inner) => self.operand(inner),
            Expr::Value(value) => self.constant(value, None, span),
            Expr::TypedString(typed) => {
                let first = self.parsed.tokens.starting_at(typed.value.span.start);
                let start = first.map(|first| self.parsed.tokens.span(first).start).unwrap_or_default();
                let literal = Span { start, end: span.end };
                let cast = Span { start: span.start, end: start }.of(&self.parsed.text).trim().to_lowercase();
                let value = self.literal(&typed.value, literal);
                Operand::Literal { value, negative: false, cast: Some(cast), span, literal }
            }
            Expr::Interval(interval) => self.interval(interval, span),
            Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr: inner } => {
                self.signed(expr, inner, span)
            }
            Expr::Cast { expr: inner, kind: CastKind::Cast | CastKind::DoubleColon, data_type, format: None } => {
                let cast = self.cast_text(expr, inner).unwrap_or_else(|| data_type.to_string().to_lowercase());
                self.cast(inner, cast, span)
            }
            Expr::Function(function) if row_items(expr).is_some() => {
                let FunctionArguments::List(list) = &function.args else { return nothing_known(span) };
                let items = list.args.iter().filter_map(plain_argument);
                Operand::List(items.map(|item| self.operand(item)).collect(), span)
            }
            Expr::Tuple(items) => Operand::List(items.iter().map(|item| self.operand(item)).collect(), span),
            Expr::Array(array) => Operand::List(array.elem.iter().map(|item| self.operand(item)).collect(), span),
            Expr::Subquery(query) => {
                let scope = self.subquery(query, ScopeKind::Scalar);
                Operand::Subquery(scope, span)
            }
            other => {
                let mark = self.mark();
                let shape = self.parts(other);
                self.expression(&mark, shape, span)
            }
        }
    }

    /// Remembers what has been met so far.
    pub(super) fn mark(&self) -> Mark {
        Mark { columns: self.mentioned.len(), aggregates: self.aggregates, volatiles: self.volatiles }
    }

    /// An expression of everything met since the mark.
    pub(super) fn expression(&self, mark: &Mark, shape: Shape, span: Span) -> Operand {
        Operand::Expression {
            columns: self.mentioned.get(mark.columns..).unwrap_or(&[]).to_vec(),
            shape,
            aggregate: self.aggregates > mark.aggregates,
            volatile: self.volatiles > mark.volatiles,
            span,
        }
    }

    /// A subquery in an expression, as a scope of its own. Of the columns inside only those that may belong to a
    /// block outside count as mentioned by the expression; aggregates inside are its own.
    pub(super) fn subquery(&mut self, query: &Query, kind: ScopeKind) -> ScopeId {
        let mark = self.mark();
        let scope = self.new_scope(Some(self.scope()), kind, self.parsed.query_span(query));
        self.deeper(|builder| builder.query(scope, query));
        let inside = self.mentioned.split_off(mark.columns);
        let relations = &self.facts.relations;
        let is_outer =
            |relation: super::RelationId| relations.get(relation.0).is_some_and(|relation| relation.scope < scope);
        self.mentioned.extend(inside.into_iter().filter(|column| column.relation.is_none_or(is_outer)));
        self.aggregates = mark.aggregates;
        scope
    }

    /// A constant's value, its text being all of `span`: a string may go on over several lines.
    fn literal(&self, value: &ValueWithSpan, span: Span) -> Literal {
        match &value.value {
            Value::Number(number, _) => Literal::Number(number.clone()),
            Value::Boolean(truth) => Literal::Bool(*truth),
            Value::Null => Literal::Null,
            _ => string_literal(span.of(&self.parsed.text)),
        }
    }

    fn constant(&mut self, value: &ValueWithSpan, cast: Option<String>, span: Span) -> Operand {
        if let Value::Placeholder(name) = &value.value {
            return match name.strip_prefix('$').and_then(|number| number.parse().ok()) {
                Some(number) if number > 0 => Operand::Parameter { number, cast, span },
                _ => {
                    self.unknown("a placeholder other than $n");
                    nothing_known(span)
                }
            };
        }
        let literal = self.literal(value, span);
        Operand::Literal { value: literal, negative: false, cast, span, literal: span }
    }

    /// `-1`, `+ 1`; a sign before anything else is arithmetic.
    fn signed(&mut self, whole: &Expr, inner: &Expr, span: Span) -> Operand {
        let minus = matches!(whole, Expr::UnaryOp { op: UnaryOperator::Minus, .. });
        let mark = self.mark();
        match self.operand(inner) {
            Operand::Literal { value: value @ Literal::Number(_), negative: false, cast, literal, .. } => {
                Operand::Literal { value, negative: minus, cast, span, literal }
            }
            _ => self.expression(&mark, Shape::Arithmetic(if minus { "-" } else { "+" }.to_owned()), span),
        }
    }

    /// The type of a cast as written: behind `::` or between AS and the parenthesis.
    fn cast_text(&self, whole: &Expr, inner: &Expr) -> Option<String> {
        let tokens = &self.parsed.tokens;
        let extent = self.parsed.expr_extent(whole)?;
        let behind = self.parsed.expr_extent(inner)?.last + 2;
        let last = if matches!(whole, Expr::Cast { kind: CastKind::DoubleColon, .. }) {
            extent.last
        } else {
            extent.last.checked_sub(1)?
        };
        (behind <= last).then(|| tokens.between(behind, last).of(&self.parsed.text).to_lowercase())
    }

    fn cast(&mut self, inner: &Expr, cast: String, span: Span) -> Operand {
        let mark = self.mark();
        match self.operand(inner) {
            Operand::Literal { value, negative, cast: None, literal, .. } => {
                Operand::Literal { value, negative, cast: Some(cast), span, literal }
            }
            Operand::Parameter { number, cast: None, .. } => Operand::Parameter { number, cast: Some(cast), span },
            Operand::List(items, _) if cast.ends_with("[]") && matches!(inner, Expr::Array(_)) => {
                let of = cast.trim_end_matches("[]").trim_end();
                Operand::List(items.into_iter().map(|item| with_cast(item, of)).collect(), span)
            }
            _ => self.expression(&mark, Shape::Cast(cast), span),
        }
    }

    fn interval(&mut self, interval: &Interval, span: Span) -> Operand {
        let mark = self.mark();
        match self.operand(&interval.value) {
            Operand::Literal { value, negative: false, cast: None, literal, .. } => {
                // INTERVAL '1' DAY: the fields behind the constant are part of the type.
                let fields = Span { start: literal.end, end: span.end }.of(&self.parsed.text).to_lowercase();
                let cast = format!("interval {}", fields.trim()).trim_end().to_owned();
                Operand::Literal { value, negative: false, cast: Some(cast), span, literal }
            }
            _ => {
                self.unknown("INTERVAL of something that is not a constant");
                self.expression(&mark, Shape::Other, span)
            }
        }
    }

    /// Walks all that an expression is made of and says what it looks like from outside.
    fn parts(&mut self, expr: &Expr) -> Shape {
        match expr {
            Expr::BinaryOp { op, .. } if comparison(op).is_none() && !is_logical(op) => self.chain(expr),
            Expr::Function(function) => self.function(function),
            Expr::Case { operand, conditions, else_result, .. } => {
                if let Some(operand) = operand {
                    self.operand(operand);
                }
                for when in conditions {
                    match operand {
                        Some(_) => _ = self.operand(&when.condition),
                        None => self.condition(&when.condition, Place::ELSEWHERE),
                    }
                    self.operand(&when.result);
                }
                self.all(else_result.as_deref());
                Shape::Case
            }
            Expr::Cast { expr, data_type, .. } => {
                self.operand(expr);
                Shape::Cast(data_type.to_string().to_lowercase())
            }
            Expr::UnaryOp { op: UnaryOperator::Not, .. } => self.truth(expr),
            Expr::UnaryOp { op, expr } => {
                self.operand(expr);
                Shape::Operator(op.to_string())
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                self.all([&**timestamp, &**time_zone]);
                Shape::Function("timezone".to_owned())
            }
            Expr::Collate { expr, .. } => {
                self.operand(expr);
                Shape::Other
            }
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                self.all(sets.iter().flatten());
                Shape::Other
            }
            Expr::Named { .. } | Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                self.unknown("a wildcard or a named argument where a value stands");
                Shape::Other
            }
            other => self.special_call(other),
        }
    }

    /// Constructs written as calls with words between their arguments.
    fn special_call(&mut self, expr: &Expr) -> Shape {
        let (name, arguments): (&str, Vec<&Expr>) = match expr {
            Expr::Extract { expr, .. } => ("extract", vec![expr]),
            Expr::Ceil { expr, .. } => ("ceil", vec![expr]),
            Expr::Floor { expr, .. } => ("floor", vec![expr]),
            Expr::Position { expr, r#in } => ("position", vec![expr, r#in]),
            Expr::Substring { expr, substring_from, substring_for, .. } => (
                "substring",
                [Some(expr), substring_from.as_ref(), substring_for.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(|e| &**e)
                    .collect(),
            ),
            Expr::Trim { expr, trim_what, trim_characters, .. } => {
                let characters = trim_characters.iter().flatten();
                ("trim", std::iter::once(&**expr).chain(trim_what.as_deref()).chain(characters).collect())
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                let first = [&**expr, &**overlay_what, &**overlay_from];
                ("overlay", first.into_iter().chain(overlay_for.as_deref()).collect())
            }
            other => return self.truth_or_unknown(other),
        };
        let span = self.parsed.expr_span(expr);
        self.note_function(None, name, arguments.len(), false, span);
        self.all(arguments);
        Shape::Function(name.to_owned())
    }

    /// A condition where a value stands: `SELECT a = 1`.
    fn truth_or_unknown(&mut self, expr: &Expr) -> Shape {
        match expr {
            Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::IsJson { .. }
            | Expr::IsNormalized { .. }
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::BinaryOp { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::SimilarTo { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
            | Expr::Exists { .. } => self.truth(expr),
            _ => {
                self.unknown(format!("an expression that is not understood: {}", self.excerpt(expr)));
                Shape::Other
            }
        }
    }

    fn truth(&mut self, expr: &Expr) -> Shape {
        self.condition(expr, Place::ELSEWHERE);
        Shape::Other
    }

    /// `a + b + c`: the left spine in a loop, for it may be long.
    fn chain(&mut self, expr: &Expr) -> Shape {
        let mut rights = Vec::new();
        let mut spine = expr;
        let mut outermost = None;
        while let Expr::BinaryOp { left, op, right } = spine {
            if comparison(op).is_some() || is_logical(op) {
                break;
            }
            outermost.get_or_insert(op);
            rights.push(&**right);
            spine = left;
        }
        self.operand(spine);
        for right in rights.into_iter().rev() {
            self.operand(right);
        }
        match outermost {
            Some(op) if is_arithmetic(op) => Shape::Arithmetic(op.to_string()),
            Some(op) => Shape::Operator(op.to_string()),
            None => Shape::Other,
        }
    }

    fn access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Shape {
        self.operand(root);
        for access in chain {
            match access {
                // A field of a composite value: a name, not a column.
                AccessExpr::Dot(Expr::Identifier(_)) => {}
                AccessExpr::Dot(other) => _ = self.operand(other),
                AccessExpr::Subscript(Subscript::Index { index }) => _ = self.operand(index),
                AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) => {
                    self.all([lower_bound, upper_bound, stride].into_iter().flatten());
                }
            }
        }
        Shape::Other
    }

    /// Walks expressions for what they mention.
    pub(super) fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) {
        for expr in exprs {
            self.operand(expr);
        }
    }

    /// Walks one argument of a call.
    pub(super) fn argument(&mut self, argument: &FunctionArg) {
        let value = match argument {
            FunctionArg::Unnamed(value) | FunctionArg::Named { arg: value, .. } => value,
            FunctionArg::ExprNamed { name, arg, .. } => {
                self.operand(name);
                arg
            }
        };
        match value {
            FunctionArgExpr::Expr(expr) => _ = self.operand(expr),
            FunctionArgExpr::Wildcard => {}
            FunctionArgExpr::QualifiedWildcard(name) => {
                let idents: Vec<_> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                if let Some((_, table)) = super::resolve::qualified(name) {
                    let relation = self.named_relation(None, &table);
                    let span = idents.first().map(|ident| self.parsed.ident_span(ident)).unwrap_or_default();
                    let qualifier = Some(table);
                    self.mentioned.push(super::ColumnRef { relation, qualifier, name: "*".to_owned(), span });
                }
            }
            FunctionArgExpr::WildcardWithOptions(_) => self.unknown("a wildcard with options"),
        }
    }

    /// Notes a call.
    pub(super) fn note_function(
        &mut self,
        schema: Option<String>,
        name: &str,
        arguments: usize,
        window: bool,
        span: Span,
    ) {
        if is_volatile(schema.as_deref(), name) {
            self.volatiles += 1;
        }
        let scope = self.scope();
        self.facts.functions.push(FunctionCall { scope, schema, name: name.to_owned(), arguments, window, span });
    }

    /// The beginning of an expression's text, for messages.
    pub(super) fn excerpt(&self, expr: &Expr) -> String {
        self.parsed.expr_span(expr).of(&self.parsed.text).chars().take(60).collect()
    }
}

/// An operand of which nothing is known.
fn nothing_known(span: Span) -> Operand {
    Operand::Expression { columns: Vec::new(), shape: Shape::Other, aggregate: false, volatile: true, span }
}

/// `ARRAY[1, 2]::bigint[]` casts each element.
fn with_cast(operand: Operand, of: &str) -> Operand {
    match operand {
        Operand::Literal { value, negative, cast: None, span, literal } => {
            Operand::Literal { value, negative, cast: Some(of.to_owned()), span, literal }
        }
        Operand::Parameter { number, cast: None, span } => {
            Operand::Parameter { number, cast: Some(of.to_owned()), span }
        }
        Operand::List(items, span) => Operand::List(items.into_iter().map(|item| with_cast(item, of)).collect(), span),
        other => other,
    }
}

/// The items of `(a, b)` or `ROW(a, b)`.
pub(super) fn row_items(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Tuple(items) => Some(items.iter().collect()),
        Expr::Function(function) => match (function.name.0.as_slice(), &function.args) {
            ([part], FunctionArguments::List(list)) => {
                let ident = part.as_ident()?;
                let is_row = ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("row");
                if is_row && function.over.is_none() { list.args.iter().map(plain_argument).collect() } else { None }
            }
            _ => None,
        },
        _ => None,
    }
}

fn plain_argument(argument: &FunctionArg) -> Option<&Expr> {
    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument { Some(expr) } else { None }
}

fn is_logical(op: &BinaryOperator) -> bool {
    matches!(op, BinaryOperator::And | BinaryOperator::Or)
}

fn is_arithmetic(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::PGExp
    )
}
