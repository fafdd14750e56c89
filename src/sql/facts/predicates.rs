//! Conditions to atomic [`Predicate`]s: AND is taken apart, OR and NOT end the certainty.

use sqlparser::ast::{BinaryOperator, Expr, Query, UnaryOperator};

use super::build::Builder;
use super::operand::row_items;
use super::{Clause, Comparison, Operand, Predicate, ScopeKind, Span};

/// Where a condition stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) clause: Clause,
    pub(super) conjunctive: bool,
    pub(super) disjunction: Option<u32>,
}

impl Place {
    /// In a CASE, a FILTER, the SELECT list, ...
    pub(super) const ELSEWHERE: Self = Self { clause: Clause::Elsewhere, conjunctive: false, disjunction: None };

    /// The top of a clause.
    pub(super) fn top(clause: Clause) -> Self {
        Self { clause, conjunctive: clause != Clause::Elsewhere, disjunction: None }
    }
}

impl Builder<'_> {
    /// Notes every atomic condition in `expr`.
    pub(super) fn condition(&mut self, expr: &Expr, place: Place) {
        self.deeper(|builder| builder.condition_at(expr, place));
    }

    fn condition_at(&mut self, expr: &Expr, place: Place) {
        match expr {
            Expr::Nested(inner) => self.condition(inner, place),
            Expr::BinaryOp { op: BinaryOperator::And, .. } => {
                for arm in arms(expr, &BinaryOperator::And) {
                    self.condition(arm, place);
                }
            }
            Expr::BinaryOp { op: BinaryOperator::Or, .. } => {
                self.disjunctions += 1;
                let place = Place { conjunctive: false, disjunction: Some(self.disjunctions), ..place };
                for arm in arms(expr, &BinaryOperator::Or) {
                    self.condition(arm, place);
                }
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } => self.negation(expr, inner, place),
            // True exactly when the inside is.
            Expr::IsTrue(inner) => self.condition(inner, place),
            Expr::IsFalse(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner) => self.condition(inner, Place { conjunctive: false, ..place }),
            _ => self.atom(expr, place, false, self.parsed.expr_span(expr)),
        }
    }

    /// NOT of IN, EXISTS, BETWEEN and LIKE is a comparison of its own; NOT of anything else only ends the certainty.
    fn negation(&mut self, whole: &Expr, inner: &Expr, place: Place) {
        let mut bare = inner;
        while let Expr::Nested(nested) = bare {
            bare = nested;
        }
        match bare {
            Expr::Exists { .. }
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::Like { any: false, .. }
            | Expr::ILike { any: false, .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_) => self.atom(bare, place, true, self.parsed.expr_span(whole)),
            _ => self.condition(inner, Place { conjunctive: false, ..place }),
        }
    }

    fn atom(&mut self, expr: &Expr, place: Place, negate: bool, span: Span) {
        match expr {
            Expr::BinaryOp { left, op, right } => match (comparison(op), row_items(left), row_items(right)) {
                (Some(Comparison::Eq), Some(lefts), Some(rights)) if lefts.len() == rights.len() => {
                    for (left, right) in lefts.into_iter().zip(rights) {
                        self.compare(place, left, Comparison::Eq, Some(right), span);
                    }
                }
                (Some(comparison), ..) => self.compare(place, left, comparison, Some(right), span),
                (None, ..) if is_boolean_operator(op) => {
                    self.compare(place, left, Comparison::Operator(op.to_string()), Some(right), span);
                }
                (None, ..) => self.compare(place, expr, Comparison::Truth, None, span),
            },
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                let comparison =
                    pick(matches!(expr, Expr::IsNull(_)) != negate, Comparison::IsNull, Comparison::IsNotNull);
                self.compare(place, inner, comparison, None, span);
            }
            Expr::IsDistinctFrom(left, right) => {
                self.compare(place, left, Comparison::Distinct { negated: false }, Some(right), span);
            }
            Expr::IsNotDistinctFrom(left, right) => {
                self.compare(place, left, Comparison::Distinct { negated: true }, Some(right), span);
            }
            Expr::InList { expr, list, negated } => {
                let left = self.operand(expr);
                let list_span = self.list_span(span);
                let right = Operand::List(list.iter().map(|item| self.operand(item)).collect(), list_span);
                self.note(place, left, pick(*negated != negate, Comparison::NotIn, Comparison::In), Some(right), span);
            }
            Expr::InSubquery { expr, subquery, negated } => {
                let negated = *negated != negate;
                let left = self.operand(expr);
                let right = self.queried(subquery, ScopeKind::InSubquery { negated });
                self.note(place, left, pick(negated, Comparison::NotIn, Comparison::In), Some(right), span);
            }
            Expr::Exists { subquery, negated } => {
                let negated = *negated != negate;
                let left = self.queried(subquery, ScopeKind::Exists { negated });
                self.note(place, left, Comparison::Exists { negated }, None, span);
            }
            Expr::Between { expr, negated, low, high } => {
                let left = self.operand(expr);
                let low = self.operand(low);
                let high = self.operand(high);
                let list_span = Span { start: low.span().start, end: high.span().end };
                let right = Operand::List(vec![low, high], list_span);
                let comparison = pick(*negated != negate, Comparison::NotBetween, Comparison::Between);
                self.note(place, left, comparison, Some(right), span);
            }
            other => self.pattern(other, place, negate, span),
        }
    }

    /// LIKE and its kin, ANY and ALL, and whatever is a truth value by itself.
    fn pattern(&mut self, expr: &Expr, place: Place, negate: bool, span: Span) {
        match expr {
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                let comparison = pick(*negated != negate, Comparison::NotLike, Comparison::Like);
                self.compare(place, expr, comparison, Some(pattern), span);
                self.all(escape_char.as_deref());
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                let comparison = pick(*negated != negate, Comparison::NotILike, Comparison::ILike);
                self.compare(place, expr, comparison, Some(pattern), span);
                self.all(escape_char.as_deref());
            }
            Expr::SimilarTo { negated, expr, pattern, escape_char } => {
                let comparison = pick(*negated, Comparison::NotRegex, Comparison::Regex);
                self.compare(place, expr, comparison, Some(pattern), span);
                self.all(escape_char.as_deref());
            }
            Expr::Like { negated, any: true, expr, pattern, .. } => {
                let name = if *negated { "NOT LIKE ANY" } else { "LIKE ANY" };
                self.compare(place, expr, Comparison::Operator(name.to_owned()), Some(pattern), span);
            }
            Expr::ILike { negated, any: true, expr, pattern, .. } => {
                let name = if *negated { "NOT ILIKE ANY" } else { "ILIKE ANY" };
                self.compare(place, expr, Comparison::Operator(name.to_owned()), Some(pattern), span);
            }
            Expr::AnyOp { left, compare_op, right, .. } => {
                let kind = match compare_op {
                    BinaryOperator::Eq => Comparison::In,
                    other => Comparison::Operator(format!("{other} ANY")),
                };
                self.compare(place, left, kind, Some(right), span);
            }
            Expr::AllOp { left, compare_op, right } => {
                let kind = match compare_op {
                    BinaryOperator::NotEq => Comparison::NotIn,
                    other => Comparison::Operator(format!("{other} ALL")),
                };
                self.compare(place, left, kind, Some(right), span);
            }
            Expr::IsJson { expr, .. } => {
                self.compare(place, expr, Comparison::Operator("IS JSON".to_owned()), None, span);
            }
            Expr::IsNormalized { expr, .. } => {
                self.compare(place, expr, Comparison::Operator("IS NORMALIZED".to_owned()), None, span);
            }
            other => self.compare(place, other, Comparison::Truth, None, span),
        }
    }

    fn compare(&mut self, place: Place, left: &Expr, comparison: Comparison, right: Option<&Expr>, span: Span) {
        let left = self.operand(left);
        let right = right.map(|right| self.operand(right));
        self.note(place, left, comparison, right, span);
    }

    /// Notes one atomic condition.
    pub(super) fn note(
        &mut self,
        place: Place,
        left: Operand,
        comparison: Comparison,
        right: Option<Operand>,
        span: Span,
    ) {
        let Place { clause, conjunctive, disjunction } = place;
        let scope = self.scope();
        self.facts.predicates.push(Predicate {
            scope,
            clause,
            conjunctive,
            disjunction,
            left,
            comparison,
            right,
            span,
        });
    }

    fn queried(&mut self, subquery: &Query, kind: ScopeKind) -> Operand {
        let scope = self.subquery(subquery, kind);
        let tokens = &self.parsed.tokens;
        let open = self.parsed.query_first(subquery).and_then(|first| first.checked_sub(1));
        let span = open.and_then(|open| Some(tokens.between(open, tokens.mate(open)?))).unwrap_or_default();
        Operand::Subquery(scope, span)
    }

    /// The list of an IN that ends at the span's end.
    fn list_span(&self, whole: Span) -> Span {
        let tokens = &self.parsed.tokens;
        let open = tokens.containing(whole.end.saturating_sub(1)).and_then(|close| tokens.mate(close));
        open.map(|open| Span { start: tokens.span(open).start, end: whole.end }).unwrap_or_default()
    }
}

/// The arms of a chain of AND or of OR, in order; the tree leans left, so its spine is walked in a loop.
fn arms<'e>(expr: &'e Expr, wanted: &BinaryOperator) -> Vec<&'e Expr> {
    let mut arms = Vec::new();
    let mut spine = expr;
    while let Expr::BinaryOp { left, op, right } = spine {
        if op != wanted {
            break;
        }
        arms.push(&**right);
        spine = left;
    }
    arms.push(spine);
    arms.reverse();
    arms
}

fn pick<T>(condition: bool, yes: T, no: T) -> T {
    if condition { yes } else { no }
}

/// The comparison an operator makes, for those that have a name here.
pub(super) fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Eq,
        BinaryOperator::NotEq => Comparison::Ne,
        BinaryOperator::Lt => Comparison::Lt,
        BinaryOperator::LtEq => Comparison::Le,
        BinaryOperator::Gt => Comparison::Gt,
        BinaryOperator::GtEq => Comparison::Ge,
        BinaryOperator::PGLikeMatch => Comparison::Like,
        BinaryOperator::PGNotLikeMatch => Comparison::NotLike,
        BinaryOperator::PGILikeMatch => Comparison::ILike,
        BinaryOperator::PGNotILikeMatch => Comparison::NotILike,
        BinaryOperator::PGRegexMatch | BinaryOperator::PGRegexIMatch => Comparison::Regex,
        BinaryOperator::PGRegexNotMatch | BinaryOperator::PGRegexNotIMatch => Comparison::NotRegex,
        BinaryOperator::PGCustomBinaryOperator(parts) => return qualified_comparison(parts),
        _ => return None,
    })
}

/// `OPERATOR(pg_catalog.=)` is `=`.
fn qualified_comparison(parts: &[String]) -> Option<Comparison> {
    match parts {
        [schema, name] if schema.eq_ignore_ascii_case("pg_catalog") => Some(match name.as_str() {
            "=" => Comparison::Eq,
            "<>" => Comparison::Ne,
            "<" => Comparison::Lt,
            "<=" => Comparison::Le,
            ">" => Comparison::Gt,
            ">=" => Comparison::Ge,
            "~~" => Comparison::Like,
            "!~~" => Comparison::NotLike,
            _ => return None,
        }),
        _ => None,
    }
}

/// Operators that, standing as a condition, are one; the others compute a value that is the condition.
fn is_boolean_operator(op: &BinaryOperator) -> bool {
    !matches!(
        op,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::PGExp
            | BinaryOperator::StringConcat
            | BinaryOperator::Arrow
            | BinaryOperator::LongArrow
            | BinaryOperator::HashArrow
            | BinaryOperator::HashLongArrow
            | BinaryOperator::HashMinus
            | BinaryOperator::And
            | BinaryOperator::Or
    )
}
