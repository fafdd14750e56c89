//! Joins that multiply, vanish, or are too many.

use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject};
use crate::sql::facts::{
    Clause, Comparison, JoinKind, Operand, Predicate, Relation, RelationId, RelationSource, ScopeId, ScopeKind,
};

/// `FROM a, b` where nothing connects a and b.
pub(super) fn implicit_cross_join(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let facts = subject.facts;
    if facts.unknown.is_some() {
        return Vec::new();
    }
    // Over all scopes at once: a subquery that mentions two outer tables connects them too.
    let mut connected: Vec<Vec<RelationId>> = (0..facts.relations.len()).map(|at| vec![RelationId(at)]).collect();
    for predicate in &facts.predicates {
        connect(&mut connected, &relations_in(predicate));
    }
    let mut hits = Vec::new();
    for scope in (0..facts.scopes.len()).map(ScopeId) {
        let all: Vec<(RelationId, &Relation)> = subject.relations_of(scope).collect();
        let mut groups = connected.clone();
        // NATURAL and USING joins, and whatever is joined by words, say themselves what connects them.
        for pair in all.windows(2) {
            match pair {
                [(left, _), (right, relation)] if !matches!(relation.join, JoinKind::First | JoinKind::Comma) => {
                    connect(&mut groups, &[*left, *right]);
                }
                _ => {}
            }
        }
        let counts = |id: &RelationId| all.iter().any(|(own, relation)| own == id && multiplies(subject, relation));
        groups.iter_mut().for_each(|group| group.retain(counts));
        groups.retain(|group| !group.is_empty());
        let [first, second, ..] = groups.as_slice() else { continue };
        let names =
            |group: &[RelationId]| group.first().and_then(|id| subject.relation(*id)).and_then(Relation::visible_name);
        let Some(relation) = second.first().and_then(|id| subject.relation(*id)) else { continue };
        let single = |group: &[RelationId]| group.iter().all(|id| subject.at_most_one_row(*id));
        if groups.iter().filter(|group| !single(group)).count() < 2 {
            continue;
        }
        let (Some(one), Some(other)) = (names(first), names(second)) else { continue };
        hits.push(
            Hit::new(
                relation.span,
                format!("nothing connects {other} with {one}: every row of one is paired with every row of the other"),
            )
            .instead(format!("join them with ON, or say CROSS JOIN {other} when it is meant")),
        );
    }
    hits
}

/// Rows of it multiply the rows of the others: not functions, VALUES, LATERAL, nor subqueries of one row.
fn multiplies(subject: &Subject<'_>, relation: &Relation) -> bool {
    match &relation.source {
        RelationSource::Table { .. } => true,
        RelationSource::Derived(scope) | RelationSource::Cte(scope) => {
            let Some(scope) = subject.facts.scopes.get(scope.0) else { return false };
            let lateral = matches!(scope.kind, ScopeKind::Derived { lateral: true });
            let one_row = (scope.aggregate && scope.group_by.is_empty()) || scope.limit.is_some();
            let small = scope.projection.is_empty();
            !(lateral || one_row || small)
        }
        RelationSource::Function(_) | RelationSource::Values | RelationSource::Other => false,
    }
}

/// Relation occurrences that a condition mentions.
fn relations_in(predicate: &Predicate) -> Vec<RelationId> {
    let mut found = Vec::new();
    let mut operands: Vec<&Operand> = predicate.right.iter().chain([&predicate.left]).collect();
    while let Some(operand) = operands.pop() {
        match operand {
            Operand::Column(column) => found.extend(column.relation),
            Operand::Expression { columns, .. } => found.extend(columns.iter().filter_map(|column| column.relation)),
            Operand::List(items, _) => operands.extend(items),
            _ => {}
        }
    }
    found
}

/// Makes one group of all groups that hold one of `members`.
fn connect(groups: &mut Vec<Vec<RelationId>>, members: &[RelationId]) {
    let (mut touched, apart): (Vec<_>, Vec<_>) =
        groups.drain(..).partition(|group: &Vec<RelationId>| group.iter().any(|id| members.contains(id)));
    let joined: Vec<RelationId> = touched.drain(..).flatten().collect();
    if !joined.is_empty() {
        groups.push(joined);
    }
    groups.extend(apart);
    groups.sort();
}

/// `LEFT JOIN b .. WHERE b.x = 1`: the condition throws away the rows that LEFT kept.
pub(super) fn left_join_nullified(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let strict = |comparison: &Comparison| {
        matches!(
            comparison,
            Comparison::Eq
                | Comparison::Ne
                | Comparison::Lt
                | Comparison::Le
                | Comparison::Gt
                | Comparison::Ge
                | Comparison::In
                | Comparison::Between
                | Comparison::Like
                | Comparison::ILike
                | Comparison::IsNotNull
        )
    };
    let filters = subject.facts.predicates.iter().filter(|predicate| {
        predicate.clause == Clause::Where && predicate.conjunctive && strict(&predicate.comparison)
    });
    let hit = |predicate: &Predicate| {
        let sides = [Some(&predicate.left), predicate.right.as_ref()];
        let column = sides.into_iter().flatten().filter_map(Operand::column).find(|column| {
            let relation = column.relation.and_then(|id| subject.relation(id));
            // In the scope of the join itself: a subquery may well ask for the joined row.
            relation.is_some_and(|relation| relation.join == JoinKind::Left && relation.scope == predicate.scope)
        })?;
        let table = column.relation.and_then(|id| subject.relation(id)).and_then(Relation::visible_name)?;
        let written = subject.text(predicate.span);
        Some(
            Hit::new(
                predicate.span,
                format!("{written} is never true for the rows that the LEFT JOIN of {table} adds: it is an inner join"),
            )
            .instead(format!("move the condition to ON, or write JOIN {table}")),
        )
    };
    filters.filter_map(hit).collect()
}

/// More relations in one FROM than the planner orders exhaustively.
pub(super) fn too_many_joins(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let limit = rule.threshold("relations", 8.0);
    let scopes = (0..subject.facts.scopes.len()).map(ScopeId);
    let hit = |scope: ScopeId| {
        let relations: Vec<&Relation> = subject.relations_of(scope).map(|(_, relation)| relation).collect();
        let last = relations.last().filter(|_| relations.len() as f64 > limit)?;
        Some(Hit::new(
            last.span,
            format!("{} relations are joined: beyond {limit} the planner no longer tries every order", relations.len()),
        ))
    };
    scopes.filter_map(hit).collect()
}
