//! Conditions that mean something else than they say: NULLs, constants, optional parameters.

use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject};
use crate::sql::facts::{Clause, ColumnRef, Comparison, Literal, Operand, Predicate, Projection, ScopeId};

/// `a NOT IN (SELECT b ..)` where b may be NULL: one NULL makes the whole condition unknown.
pub(super) fn not_in_nullable_subquery(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let not_in = subject.facts.predicates.iter().filter(|predicate| predicate.comparison == Comparison::NotIn);
    let hit = |predicate: &Predicate| {
        let Some(Operand::Subquery(scope, _)) = predicate.right else { return None };
        let never_null = |column: &ColumnRef| {
            subject.column(column).is_some_and(|(table, known)| {
                known.not_null
                    || table.constraints.iter().any(|constraint| {
                        constraint.kind == crate::sql::catalog::ConstraintKind::PrimaryKey
                            && constraint.columns.contains(&known.name)
                    })
            }) && column.relation.and_then(|id| subject.relation(id)).is_some_and(|relation| !relation.nullable)
        };
        let value = match subject.facts.scopes.get(scope.0)?.projection.as_slice() {
            [Projection::Item { value, .. }] => value,
            _ => return None,
        };
        let evidence = match value {
            Operand::Column(column) if never_null(column) || tested_not_null(subject, scope, column) => return None,
            Operand::Column(column) if subject.column(column).is_some() => Evidence::Schema,
            Operand::Column(_) => Evidence::Syntax,
            Operand::Literal { value, .. } if *value != Literal::Null => return None,
            _ => Evidence::Syntax,
        };
        let (left, inner) = (subject.text(predicate.left.span()), subject.text(value.span()));
        Some(
            Hit::new(
                predicate.span,
                format!("when one {inner} of the subquery is NULL, {left} NOT IN (..) is true for no row at all"),
            )
            .by(evidence)
            .instead(format!("WHERE NOT EXISTS (SELECT .. WHERE {inner} = {left})")),
        )
    };
    not_in.filter_map(hit).collect()
}

/// The subquery keeps NULLs out itself, by IS NOT NULL or by any comparison that NULL does not pass.
fn tested_not_null(subject: &Subject<'_>, scope: ScopeId, column: &ColumnRef) -> bool {
    subject.predicates_of(scope).any(|predicate| {
        let same = |operand: &Operand| {
            operand.column().is_some_and(|other| other.name == column.name && other.relation == column.relation)
        };
        let strict = !matches!(
            predicate.comparison,
            Comparison::IsNull | Comparison::Distinct { .. } | Comparison::Exists { .. }
        );
        predicate.conjunctive && strict && (same(&predicate.left) || predicate.right.as_ref().is_some_and(same))
    })
}

/// `OR 1 = 1`: a condition that does not depend on the row, where it can open the whole table.
pub(super) fn constant_predicate(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let constant = |predicate: &&Predicate| {
        let literal = |operand: &Operand| matches!(operand, Operand::Literal { .. });
        let sides = match &predicate.right {
            Some(right) => literal(&predicate.left) && literal(right),
            None => predicate.comparison == Comparison::Truth && is_true(&predicate.left),
        };
        // `WHERE 1 = 1 AND ..` is how query builders begin; under OR it is how injections end.
        sides && predicate.disjunction.is_some() && matches!(predicate.clause, Clause::Where | Clause::Having)
    };
    let hit = |predicate: &Predicate| {
        let written = subject.text(predicate.span);
        Hit::new(predicate.span, format!("OR {written} does not depend on the row: it decides for all of them"))
    };
    subject.facts.predicates.iter().filter(constant).map(hit).collect()
}

fn is_true(operand: &Operand) -> bool {
    matches!(operand, Operand::Literal { value: Literal::Bool(true), .. })
}

/// `$1 IS NULL OR c = $1`: one plan for "all rows" and for "one row".
pub(super) fn optional_parameter(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let facts = subject.facts;
    let parameter =
        |operand: &Operand| if let Operand::Parameter { number, .. } = operand { Some(*number) } else { None };
    let asks = facts.predicates.iter().filter(|predicate| predicate.comparison == Comparison::IsNull);
    let hit = |ask: &Predicate| {
        let number = parameter(&ask.left)?;
        let arm = facts.predicates.iter().find(|predicate| {
            let pair = predicate.right.as_ref().map(|right| (&predicate.left, right));
            predicate.disjunction == ask.disjunction
                && ask.disjunction.is_some()
                && predicate.scope == ask.scope
                && pair.is_some_and(|(left, right)| {
                    (left.column().is_some() && parameter(right) == Some(number))
                        || (right.column().is_some() && parameter(left) == Some(number))
                })
        })?;
        let span =
            crate::sql::facts::Span { start: ask.span.start.min(arm.span.start), end: ask.span.end.max(arm.span.end) };
        let condition = subject.text(arm.span);
        Some(
            Hit::new(
                span,
                format!("whether ${number} is NULL is not known when a generic plan is made: it must fit all rows"),
            )
            .instead(format!("leave {condition} out of the statement when there is nothing to filter by")),
        )
    };
    asks.filter_map(hit).collect()
}
