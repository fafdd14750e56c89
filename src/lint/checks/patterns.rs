//! LIKE, ILIKE and regular expressions that no b-tree can answer.

use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject, usable};
use crate::sql::facts::{Clause, ColumnRef, Comparison, Literal, Operand, Predicate};

/// Matches of a column in WHERE or ON, by one of these comparisons.
fn matches<'a>(
    subject: &'a Subject<'_>,
    fits: fn(&Comparison) -> bool,
) -> impl Iterator<Item = (&'a Predicate, &'a ColumnRef, &'a Operand)> {
    let filters = move |predicate: &&Predicate| {
        fits(&predicate.comparison) && matches!(predicate.clause, Clause::Where | Clause::InnerOn | Clause::OuterOn)
    };
    subject
        .facts
        .predicates
        .iter()
        .filter(filters)
        .filter_map(|predicate| Some((predicate, predicate.left.column()?, predicate.right.as_ref()?)))
}

/// What the catalog makes of it: `None` when an index answers it or the table is small, else the evidence.
fn evidence(subject: &Subject<'_>, rule: &Rule, column: &ColumnRef) -> Option<Evidence> {
    let Some((table, known)) = subject.column(column) else { return Some(Evidence::Syntax) };
    let trigram = table.indexes.iter().filter(|index| usable(index)).flat_map(|index| &index.keys).any(|key| {
        key.column.as_deref() == Some(known.name.as_str())
            && key.operator_class.as_deref().is_some_and(|class| class.ends_with("trgm_ops"))
    });
    let small = table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0));
    let one_row = column.relation.is_some_and(|relation| subject.at_most_one_row(relation));
    if trigram || small || one_row {
        return None;
    }
    Some(if table.rows.is_some() { Evidence::Stats } else { Evidence::Schema })
}

/// The pattern: its text when the statement holds it, or what the log saw for its parameter.
fn pattern(subject: &Subject<'_>, operand: &Operand) -> Option<String> {
    match operand {
        Operand::Literal { value: Literal::Text(text), .. } => Some(text.clone()),
        Operand::Parameter { number, .. } => {
            let opening = format!("${number} = '");
            let set = subject.template.parameters.iter().find_map(|set| set.split_once(&opening))?;
            Some(set.1.split('\'').next().unwrap_or("").to_owned())
        }
        // '%' || $1: a literal before the operator opens the pattern.
        Operand::Expression { span, .. } => {
            let written = subject.text(*span);
            let inside = written.strip_prefix('\'')?;
            let (opening, _) = inside.split_once('\'').filter(|(text, _)| !text.is_empty())?;
            // Something follows it.
            Some(format!("{opening}?"))
        }
        _ => None,
    }
}

/// `name LIKE '%smith'`
pub(super) fn leading_wildcard_like(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let found = matches(subject, |comparison| *comparison == Comparison::Like);
    let hit = |(predicate, column, right): (&Predicate, &ColumnRef, &Operand)| {
        let pattern = pattern(subject, right)?;
        if !pattern.starts_with(['%', '_']) || pattern.chars().all(|letter| letter == '%') {
            return None;
        }
        let level = evidence(subject, rule, column)?;
        let name = &column.name;
        let message =
            format!("a pattern that begins with a wildcard is tested on every row: a b-tree on {name} cannot be used");
        Some(Hit::new(predicate.span, message).by(level).instead(format!(
            "CREATE EXTENSION pg_trgm and an index USING gin ({name} gin_trgm_ops), or full-text search"
        )))
    };
    found.filter_map(hit).collect()
}

/// `email ILIKE 'a@b'`
pub(super) fn ilike_without_trigram(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let found = matches(subject, |comparison| *comparison == Comparison::ILike);
    let hit = |(predicate, column, right): (&Predicate, &ColumnRef, &Operand)| {
        let level = evidence(subject, rule, column)?;
        let name = &column.name;
        let wild = pattern(subject, right).is_none_or(|pattern| pattern.contains(['%', '_']));
        let advice = match wild {
            true => format!("CREATE EXTENSION pg_trgm and an index USING gin ({name} gin_trgm_ops)"),
            false => format!("lower({name}) = lower(..) with an index on (lower({name})), or the type citext"),
        };
        let message = format!("ILIKE ignores case: a b-tree on {name} cannot be used, every row is tested");
        Some(Hit::new(predicate.span, message).by(level).instead(advice))
    };
    found.filter_map(hit).collect()
}

/// `name ~ 'smith'`
pub(super) fn unanchored_regex(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let found = matches(subject, |comparison| *comparison == Comparison::Regex);
    let hit = |(predicate, column, right): (&Predicate, &ColumnRef, &Operand)| {
        let written = subject.text(predicate.span).to_ascii_lowercase();
        // SIMILAR TO is anchored at both ends; its patterns are LIKE's.
        if written.contains(" similar ")
            || pattern(subject, right).is_none_or(|pattern| pattern.starts_with(['^', '(']))
        {
            return None;
        }
        let level = evidence(subject, rule, column)?;
        let name = &column.name;
        let message = format!(
            "a regular expression that is not anchored by ^ is tested on every row: a b-tree on {name} cannot be used"
        );
        Some(
            Hit::new(predicate.span, message).by(level).instead(format!(
                "anchor it, or CREATE EXTENSION pg_trgm and an index USING gin ({name} gin_trgm_ops)"
            )),
        )
    };
    found.filter_map(hit).collect()
}
