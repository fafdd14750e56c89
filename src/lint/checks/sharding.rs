//! What a sharded database pays for: statements that name no key, keys that change.

use crate::lint::evidence::Evidence;
use crate::lint::matching::target_span;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject};
use crate::sql::facts::{Access, Comparison, JoinKind, Operand, Predicate, Relation, RelationId, RelationSource};
use crate::sql::lexer::LexOptions;
use crate::sql::template::Scanner;

/// The sharding key of a relation occurrence, when its table is sharded.
fn key_of(subject: &Subject<'_>, relation: &Relation) -> Option<String> {
    match &relation.source {
        RelationSource::Table { name, .. } => subject.sharding.keys.get(name).cloned(),
        _ => None,
    }
}

/// Reads or writes of a sharded table that fix no key: every shard is asked.
pub(super) fn missing_sharding_key(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let facts = subject.facts;
    if facts.insert.is_some() || facts.unknown.is_some() {
        return Vec::new();
    }
    let sharded: Vec<(RelationId, &Relation, String)> = facts
        .relations
        .iter()
        .enumerate()
        .filter_map(|(at, relation)| Some((RelationId(at), relation, key_of(subject, relation)?)))
        .collect();
    // Keys known to be constant, spread along key equalities of inner joins until nothing changes.
    let mut known: Vec<RelationId> =
        sharded.iter().filter(|(id, _, key)| fixed(subject, *id, key)).map(|(id, ..)| *id).collect();
    let links: Vec<(RelationId, RelationId)> = key_links(subject, &sharded);
    for _ in 0..sharded.len() {
        for (one, other) in &links {
            for (from, to) in [(one, other), (other, one)] {
                if known.contains(from) && !known.contains(to) {
                    known.push(*to);
                }
            }
        }
    }
    let missing = sharded.iter().find(|(id, ..)| !known.contains(id));
    let Some((_, relation, key)) = missing else { return Vec::new() };
    let name = relation.visible_name().unwrap_or("the table");
    let message = format!("nothing fixes {name}.{key}, the sharding key: every shard is asked");
    vec![
        Hit::new(relation.span, message)
            .by(Evidence::Schema)
            .instead(format!("add {name}.{key} = .. where the application knows it")),
    ]
}

fn fixed(subject: &Subject<'_>, id: RelationId, key: &str) -> bool {
    subject.facts.predicates.iter().any(|predicate| {
        let is_key = |operand: &Operand| {
            operand.column().is_some_and(|column| column.relation == Some(id) && column.name == key)
        };
        let equal = matches!(predicate.comparison, Comparison::Eq | Comparison::In);
        let right = predicate.right.as_ref();
        predicate.conjunctive
            && equal
            && ((is_key(&predicate.left) && right.is_some_and(Operand::is_constant))
                || (right.is_some_and(is_key) && predicate.left.is_constant()))
    })
}

fn key_links(subject: &Subject<'_>, sharded: &[(RelationId, &Relation, String)]) -> Vec<(RelationId, RelationId)> {
    let keyed = |operand: &Operand| {
        let column = operand.column()?;
        let (id, ..) = sharded.iter().find(|(id, _, key)| column.relation == Some(*id) && column.name == *key)?;
        Some(*id)
    };
    let equal = subject
        .facts
        .predicates
        .iter()
        .filter(|predicate| predicate.conjunctive && predicate.comparison == Comparison::Eq);
    equal.filter_map(|predicate| Some((keyed(&predicate.left)?, keyed(predicate.right.as_ref()?)?))).collect()
}

/// UPDATE that sets the sharding key: the row would have to move.
pub(super) fn sharding_key_update(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let hit = |(column, _): &(crate::sql::facts::ColumnRef, Operand)| {
        let target = subject
            .facts
            .relations
            .iter()
            .find(|relation| relation.access == Access::Write && relation.join != JoinKind::Left)?;
        let key = key_of(subject, target)?;
        (column.name == key).then(|| {
            let name = target.visible_name().unwrap_or("the table");
            Hit::new(column.span, format!("{key} is {name}'s sharding key: a new value moves the row to another shard"))
                .by(Evidence::Schema)
                .instead("keep the key as it is; when it must change, delete the row and insert it anew")
        })
    };
    subject.facts.assignments.iter().filter_map(hit).collect()
}

/// A join of sharded tables that their keys do not connect: no shard has the rows of both.
pub(super) fn cross_shard_join(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let facts = subject.facts;
    if facts.insert.is_some() || facts.unknown.is_some() {
        return Vec::new();
    }
    let with_ids = facts.relations.iter().enumerate();
    let sharded: Vec<(RelationId, &Relation, String)> =
        with_ids.filter_map(|(at, relation)| Some((RelationId(at), relation, key_of(subject, relation)?))).collect();
    let Some((first, one, one_key)) = sharded.first() else { return Vec::new() };
    let mut together = vec![*first];
    let links = key_links(subject, &sharded);
    for _ in 0..sharded.len() {
        for (from, to) in links.iter().flat_map(|(one, other)| [(one, other), (other, one)]) {
            if together.contains(from) && !together.contains(to) {
                together.push(*to);
            }
        }
    }
    // Two keys that are each compared with a value are a matter of these values.
    let apart = |(id, _, key): &&(RelationId, &Relation, String)| {
        !(together.contains(id) || fixed(subject, *first, one_key) && fixed(subject, *id, key))
    };
    let Some((_, other, key)) = sharded.iter().find(apart) else { return Vec::new() };
    // The router may know better: equal keys through other tables, a subquery of its own.
    if subject.routed().is_some_and(|routed| !routed.collects) {
        return Vec::new();
    }
    let name = |relation: &Relation| relation.visible_name().unwrap_or("the table").to_owned();
    let (one, other_name) = (name(one), name(other));
    let message = format!(
        "{one} and {other_name} are not joined by their sharding keys: rows of all shards are collected to join them"
    );
    vec![Hit::new(other.span, message).by(Evidence::Schema).instead(format!(
        "join them by {one}.{one_key} = {other_name}.{key} too, or make one of them a reference table"
    ))]
}

/// A write to a table of which every shard has a copy.
pub(super) fn reference_table_write(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let written = subject.facts.relations.iter().filter(|relation| relation.access == Access::Write);
    let hit = |relation: &Relation| {
        let RelationSource::Table { name, .. } = &relation.source else { return None };
        subject.sharding.reference.contains(name).then(|| {
            let message = format!("{name} has a copy on every shard: each write is a transaction over all of them");
            Hit::new(relation.span, message).by(Evidence::Schema)
        })
    };
    written.filter_map(hit).collect()
}

/// What the proxy would answer with an error.
pub(super) fn refused_statement(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let Some(refusal) = subject.routed().and_then(|routed| routed.refusal) else { return Vec::new() };
    let span = refusal.span.unwrap_or_else(|| target_span(subject));
    let message = format!("a sharded database refuses it: {}", refusal.reason);
    vec![Hit::new(span, message).by(Evidence::Schema).instead(refusal.hint)]
}

/// One value of the key in most of the executions, as far as the log shows values.
pub(super) fn hot_key(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let mut scanner = Scanner::new(LexOptions::default());
    let constants = scanner.scan(subject.sql.as_bytes()).bindings;
    let key_and_value = |predicate: &Predicate| {
        let is_key = |operand: &Operand| {
            let column = operand.column()?;
            let key = key_of(subject, subject.relation(column.relation?)?)?;
            (column.name == key).then_some(key)
        };
        let right = predicate.right.as_ref()?;
        let (key, value) = match (is_key(&predicate.left), is_key(right)) {
            (Some(key), None) => (key, right.span()),
            (None, Some(key)) => (key, predicate.left.span()),
            _ => return None,
        };
        let index = constants.iter().position(|it| value.start <= it.start && it.end <= value.end)?;
        Some((key, subject.template.values.get(index)?))
    };
    let by_key = subject.facts.predicates.iter().filter(|it| it.conjunctive && it.comparison == Comparison::Eq);
    let hit = |predicate: &Predicate| {
        let (key, values) = key_and_value(predicate)?;
        let (value, count) = values.most()?;
        let share = count as f64 / values.seen.max(1) as f64;
        let enough =
            values.seen as f64 >= rule.threshold("executions", 1000.0) && share >= rule.threshold("share", 0.5);
        enough.then(|| {
            let quoted = format!("'{}'", value.trim_matches('\''));
            let percent = 100.0 * share;
            let message =
                format!("{key} = {quoted} in {percent:.0} % of {} executions: one shard does that work", values.seen);
            Hit::new(predicate.span, message).by(Evidence::Workload).quoting(quoted)
        })
    };
    by_key.filter_map(hit).collect()
}
