//! Conditions that wrap the column: a plain index on it cannot be used.

use super::indexes::indexable;
use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject, normal_expression, usable};
use crate::sql::catalog::Table;
use crate::sql::facts::{Clause, Comparison, Operand, Predicate, Shape};

/// A side of a condition that wraps exactly one column, compared with something that does not depend on the row.
struct Wrapped<'a> {
    predicate: &'a Predicate,
    /// The wrapping expression.
    operand: &'a Operand,
    shape: &'a Shape,
    /// The column's name as written.
    column: &'a crate::sql::facts::ColumnRef,
    other: &'a Operand,
}

/// Conditions in WHERE or ON whose one side is an expression over one column and whose other is constant.
fn wrapped<'a>(subject: &'a Subject<'_>) -> impl Iterator<Item = Wrapped<'a>> {
    let filters = |predicate: &&Predicate| {
        matches!(predicate.clause, Clause::Where | Clause::InnerOn | Clause::OuterOn)
            && indexable(&predicate.comparison)
    };
    subject.facts.predicates.iter().filter(filters).filter_map(move |predicate| {
        let right = predicate.right.as_ref()?;
        [(&predicate.left, right), (right, &predicate.left)].into_iter().find_map(|(operand, other)| {
            let Operand::Expression { columns, shape, aggregate: false, .. } = operand else { return None };
            let [column] = columns.as_slice() else { return None };
            // The other side must not depend on the same table's row.
            other_is_fixed(other, column).then_some(Wrapped { predicate, operand, shape, column, other })
        })
    })
}

fn other_is_fixed(other: &Operand, column: &crate::sql::facts::ColumnRef) -> bool {
    match other {
        Operand::Expression { columns, .. } => columns.is_empty(),
        Operand::Column(theirs) => theirs.relation != column.relation,
        Operand::Subquery(..) => false,
        _ => other.is_constant(),
    }
}

/// The catalog says that an index helps, or that none is needed.
fn refuted(subject: &Subject<'_>, found: &Wrapped<'_>, rule: &Rule) -> bool {
    let Some((table, _)) = subject.column(found.column) else { return false };
    let small = table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0));
    small || has_expression_index(subject, table, found) || already_one_row(subject, found)
}

/// An index on the same expression.
fn has_expression_index(subject: &Subject<'_>, table: &Table, found: &Wrapped<'_>) -> bool {
    let written = subject.text(found.operand.span());
    let bare = match &found.column.qualifier {
        Some(qualifier) => written.replace(&format!("{qualifier}."), ""),
        None => written.to_owned(),
    };
    let wanted = normal_expression(&bare);
    let keys = table.indexes.iter().filter(|index| usable(index)).flat_map(|index| &index.keys);
    keys.filter_map(|key| key.expression.as_deref()).any(|expression| normal_expression(expression) == wanted)
}

/// Another condition already finds the row by a unique key.
fn already_one_row(subject: &Subject<'_>, found: &Wrapped<'_>) -> bool {
    found.predicate.conjunctive && found.column.relation.is_some_and(|relation| subject.at_most_one_row(relation))
}

/// The level of evidence: a catalog that knows a plain index on the column makes the loss certain.
fn level(subject: &Subject<'_>, found: &Wrapped<'_>) -> Evidence {
    let indexed = subject.column(found.column).is_some_and(|(table, column)| {
        let mut keys = table.indexes.iter().filter(|index| usable(index)).filter_map(|index| index.keys.first());
        keys.any(|key| key.column.as_deref() == Some(column.name.as_str()))
    });
    if indexed { Evidence::Schema } else { Evidence::Syntax }
}

fn hits(
    subject: &Subject<'_>,
    rule: &Rule,
    message: impl Fn(&Wrapped<'_>) -> Option<(String, Option<String>)>,
) -> Vec<Hit> {
    let found = wrapped(subject).filter(|found| !refuted(subject, found, rule));
    let hit = |found: Wrapped<'_>| {
        let (message, suggestion) = message(&found)?;
        let hit = Hit::new(found.predicate.span, message).by(level(subject, &found));
        Some(Hit { suggestion, ..hit })
    };
    found.filter_map(hit).collect()
}

/// `lower(email) = $1`
pub(super) fn function_on_column(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    hits(subject, rule, |found| {
        let Shape::Function(name) = found.shape else { return None };
        // Has a rule of its own, or is indexed by its own means.
        if matches!(
            name.as_str(),
            "date_trunc" | "extract" | "date_part" | "date" | "coalesce" | "to_tsvector" | "similarity"
        ) || name.starts_with("st_")
        {
            return None;
        }
        let (written, column) = (subject.text(found.operand.span()), &found.column.name);
        let table = table_word(subject, found);
        let message = format!("{written} is computed for every row: a plain index on {column} cannot be used");
        let bare = unqualified(found, written);
        Some((message, Some(format!("compare {column} itself, or CREATE INDEX ON {table} (({bare}))"))))
    })
}

/// `date_trunc('day', created_at) = $1`, `created_at::date = $1`, `extract(year FROM created_at) = 2024`
pub(super) fn date_trunc_filter(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    hits(subject, rule, |found| {
        let cut = match found.shape {
            Shape::Function(name) => matches!(name.as_str(), "date_trunc" | "date" | "extract" | "date_part"),
            Shape::Cast(name) => name == "date" && !is_type(subject, found, &["date"]),
            _ => false,
        };
        let written = subject.text(found.operand.span());
        let column = subject.text(found.column.span);
        cut.then(|| {
            let message =
                format!("{written} is computed for every row: an index on {} cannot be used", found.column.name);
            (message, Some(format!("write a half-open range: {column} >= start AND {column} < start + interval")))
        })
    })
}

fn is_type(subject: &Subject<'_>, found: &Wrapped<'_>, names: &[&str]) -> bool {
    subject.column(found.column).is_some_and(|(_, column)| names.contains(&column.type_name.as_str()))
}

/// `id::text = $1`
pub(super) fn cast_on_column(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    hits(subject, rule, |found| {
        let Shape::Cast(target) = found.shape else { return None };
        if target == "date" {
            return None;
        }
        // PostgreSQL relabels these without computing anything: the index stays usable.
        let same = |from: &str| {
            let text =
                |name: &str| name == "text" || name.starts_with("character varying") || name.starts_with("varchar");
            from == target.as_str() || (text(from) && text(target))
        };
        if subject.column(found.column).is_some_and(|(_, column)| same(&column.type_name)) {
            return None;
        }
        let written = subject.text(found.operand.span());
        let column = &found.column.name;
        let other = subject.text(found.other.span());
        let message = format!("{written} is computed for every row: an index on {column} cannot be used");
        Some((message, Some(format!("cast the other side to {column}'s type, {other}, or change the column's type"))))
    })
}

/// `price * 1.2 > 100`
pub(super) fn arithmetic_on_column(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    hits(subject, rule, |found| {
        let Shape::Arithmetic(_) = found.shape else { return None };
        let written = subject.text(found.operand.span());
        let column = &found.column.name;
        let message = format!("{written} is computed for every row: an index on {column} cannot be used");
        Some((message, Some(format!("move the arithmetic to the other side, so that {column} stands alone"))))
    })
}

/// `coalesce(status, 'x') = 'y'`
pub(super) fn coalesce_on_column(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    hits(subject, rule, |found| {
        let coalesce = matches!(found.shape, Shape::Coalesce)
            || matches!(found.shape, Shape::Function(name) if name == "coalesce");
        let column = &found.column.name;
        coalesce.then(|| {
            let written = subject.text(found.operand.span());
            let never_null = subject.column(found.column).is_some_and(|(_, column)| column.not_null);
            let message = format!("{written} is computed for every row: an index on {column} cannot be used");
            let advice = match never_null {
                true => format!("{column} is NOT NULL: compare it directly"),
                false => format!("write ({column} = x OR {column} IS NULL), or compare {column} directly when the default is not asked for"),
            };
            (message, Some(advice))
        })
    })
}

/// `data->>'kind' = 'x'`
pub(super) fn jsonb_arrow_equality(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    hits(subject, rule, |found| {
        let Shape::Operator(operator) = found.shape else { return None };
        if !matches!(operator.as_str(), "->" | "->>" | "#>" | "#>>") {
            return None;
        }
        let written = subject.text(found.operand.span());
        let (column, table) = (&found.column.name, table_word(subject, found));
        let message =
            format!("{written} is taken out of every row's document: no index on {column} answers it, not even GIN");
        let bare = unqualified(found, written);
        Some((
            message,
            Some(format!("CREATE INDEX ON {table} (({bare})), or write {column} @> '{{..}}' with a GIN index")),
        ))
    })
}

fn table_word(subject: &Subject<'_>, found: &Wrapped<'_>) -> String {
    let relation = found.column.relation.and_then(|id| subject.relation(id));
    match relation.map(|relation| &relation.source) {
        Some(crate::sql::facts::RelationSource::Table { name, .. }) => name.clone(),
        _ => "the table".to_owned(),
    }
}

fn unqualified(found: &Wrapped<'_>, written: &str) -> String {
    match &found.column.qualifier {
        Some(qualifier) => written.replace(&format!("{qualifier}."), ""),
        None => written.to_owned(),
    }
}

/// `created_at BETWEEN '2024-01-01' AND '2024-01-31'` on a timestamp: the last day is cut off after its first instant.
pub(super) fn between_timestamp(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let between = subject.facts.predicates.iter().filter(|predicate| predicate.comparison == Comparison::Between);
    let hit = |predicate: &Predicate| {
        let column = predicate.left.column()?;
        let (_, known) = subject.column(column)?;
        if !known.type_name.starts_with("timestamp") {
            return None;
        }
        let Some(Operand::List(bounds, _)) = &predicate.right else { return None };
        let upper = bounds.get(1)?;
        is_bare_date(upper).then(|| {
            let name = subject.text(column.span);
            let (from, to) =
                (bounds.first().map_or("", |lower| subject.text(lower.span())), subject.text(upper.span()));
            Hit::new(
                predicate.span,
                format!(
                    "{name} is a timestamp: BETWEEN ends at midnight as {to} begins, the rest of that day is missing"
                ),
            )
            .by(Evidence::Schema)
            .instead(format!("{name} >= {from} AND {name} < the day after {to}"))
        })
    };
    between.filter_map(hit).collect()
}

/// A literal of a date without a time: `'2024-01-31'`, `DATE '2024-01-31'`.
fn is_bare_date(operand: &Operand) -> bool {
    let Operand::Literal { value: crate::sql::facts::Literal::Text(text), .. } = operand else { return false };
    let digits = |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = text.trim().split('-').collect();
    matches!(parts.as_slice(), [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2))
}

/// `ratio = 0.1` on a floating-point column.
pub(super) fn float_equality(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let compared = subject.facts.predicates.iter().filter(|predicate| {
        matches!(predicate.comparison, Comparison::Eq | Comparison::Ne | Comparison::In)
            && predicate.clause != Clause::Elsewhere
    });
    let hit = |predicate: &Predicate| {
        let right = predicate.right.as_ref()?;
        let (operand, other) =
            if predicate.left.column().is_some() { (&predicate.left, right) } else { (right, &predicate.left) };
        let column = operand.column()?;
        let (_, known) = subject.column(column)?;
        let floating = matches!(known.type_name.as_str(), "double precision" | "real");
        // Whole numbers compare exactly.
        let fraction = match other {
            Operand::Literal { value: crate::sql::facts::Literal::Number(number), .. } => number.contains('.'),
            _ => false,
        };
        (floating && fraction).then(|| {
            let name = subject.text(column.span);
            Hit::new(
                predicate.span,
                format!("{name} is {}: most decimal fractions are not stored exactly", known.type_name),
            )
            .by(Evidence::Schema)
            .instead(format!("compare within a tolerance, abs({name} - x) < 1e-9, or make the column numeric"))
        })
    };
    compared.filter_map(hit).collect()
}
