//! Statements that carry too much, or what they should not carry.

use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject};
use crate::sql::facts::{Comparison, Operand, Predicate, Span, StatementKind};

/// `id IN (1, 2, .. 500)`
pub(super) fn huge_in_list(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let limit = rule.threshold("items", 200.0);
    let lists = subject
        .facts
        .predicates
        .iter()
        .filter(|predicate| matches!(predicate.comparison, Comparison::In | Comparison::NotIn));
    let hit = |predicate: &Predicate| {
        let Some(Operand::List(items, span)) = &predicate.right else { return None };
        // The longest list seen counts, not the example's.
        let seen = subject.template.max_bindings as usize;
        let (count, evidence) = if seen as f64 >= limit && items.len() as f64 >= limit.min(2.0) && seen > items.len() {
            (seen, Evidence::Workload)
        } else {
            (items.len(), Evidence::Syntax)
        };
        if (count as f64) < limit {
            return None;
        }
        let (left, end) = (subject.text(predicate.left.span()), span.end.min(span.start + 60));
        let span = Span { start: predicate.span.start, end: end.max(predicate.left.span().end) };
        let message = format!(
            "a list of {count} values is parsed, planned and compared one by one; each length is a statement of its own"
        );
        Some(
            Hit::new(span, message)
                .by(evidence)
                .instead(format!("{left} = ANY($1) with one array parameter, or a join with unnest($1)")),
        )
    };
    lists.filter_map(hit).collect()
}

/// `INSERT .. VALUES` of thousands of rows.
pub(super) fn values_explosion(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let Some(insert) = &subject.facts.insert else { return Vec::new() };
    let limit = rule.threshold("rows", 1000.0);
    let rows = insert.rows.len();
    if (rows as f64) < limit {
        return Vec::new();
    }
    let span = crate::lint::matching::target_span(subject);
    vec![Hit::new(span, format!("{rows} rows in one VALUES list are parsed and planned as one huge statement"))]
}

/// `CREATE ROLE .. PASSWORD 'secret'`: the log now holds it.
pub(super) fn password_literal(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let roles = ["CREATE ROLE", "CREATE USER", "ALTER ROLE", "ALTER USER"];
    if subject.facts.kind != StatementKind::Ddl
        || !roles.iter().any(|command| subject.facts.command.starts_with(command))
    {
        return Vec::new();
    }
    let lower = subject.sql.to_ascii_lowercase();
    let found = lower.match_indices("password").find_map(|(at, word)| {
        let rest = lower.get(at + word.len()..)?;
        let blanks = rest.len() - rest.trim_start().len();
        let literal = rest.trim_start().strip_prefix('\'')?;
        let length = literal.find('\'')?;
        // A verifier is no secret that could be typed.
        let hashed = literal.starts_with("scram-sha-256$") || literal.starts_with("md5");
        (blanks > 0 && length > 0 && !hashed).then_some((at, at + word.len() + blanks + length + 2))
    });
    let Some((start, end)) = found else { return Vec::new() };
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    vec![Hit::new(
        Span { start: offset(start), end: offset(end) },
        "the password stands in the statement, and so in this log, in pg_stat_activity and in shell history",
    )]
}
