//! What a column's type makes of a statement: padding, zones, whole numbers, casts that the index does not follow.

use super::indexes::column_and_value;
use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject};
use crate::sql::catalog::Column;
use crate::sql::ddl::catalog_from_ddl;
use crate::sql::facts::{Clause, Literal, Operand, Predicate, Projection, Shape, Span, StatementKind};

/// Columns that a CREATE TABLE makes, of a type that `is` accepts, with the place of their names.
fn created(subject: &Subject<'_>, is: fn(&str) -> bool) -> Vec<(String, String, Span)> {
    if subject.facts.kind != StatementKind::Ddl || !subject.facts.command.starts_with("CREATE TABLE") {
        return Vec::new();
    }
    let (catalog, _) = catalog_from_ddl(subject.sql);
    let columns = catalog.tables().flat_map(|(_, table)| &table.columns).filter(|column| is(&column.type_name));
    columns
        .filter_map(|column| Some((column.name.clone(), column.type_name.clone(), place(subject, column)?)))
        .collect()
}

/// Where a column's definition begins, up to the end of its line.
fn place(subject: &Subject<'_>, column: &Column) -> Option<Span> {
    let word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let (at, _) = subject.sql.match_indices(column.name.as_str()).find(|(at, name)| {
        let before = subject.sql.get(..*at).and_then(|text| text.chars().next_back());
        let after = subject.sql.get(at + name.len()..).and_then(|text| text.chars().next());
        let opens = subject.sql.get(..*at).map(|text| text.trim_end_matches('"').trim_end());
        !before.is_some_and(word)
            && !after.is_some_and(word)
            && opens.is_some_and(|text| text.ends_with(['(', ',']) || text.ends_with('\n'))
    })?;
    let rest = subject.sql.get(at..)?;
    let end = at + rest.find([',', '\n']).unwrap_or(rest.len());
    Some(Span { start: u32::try_from(at).ok()?, end: u32::try_from(end).ok()? })
}

fn is_padded(name: &str) -> bool {
    name == "character" || name.starts_with("character(") || name == "bpchar"
}

/// `code char(10)`: padded with blanks, compared without them.
pub(super) fn char_n(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    // One letter, such as a flag, is never padded.
    let padded: fn(&str) -> bool = |name| is_padded(name) && name != "character(1)" && name != "character";
    let made = created(subject, padded).into_iter().map(|(name, kind, span)| {
        Hit::new(span, format!("{name} is {kind}: every value is padded with blanks to that length, or refused"))
            .instead(format!("{name} text, with CHECK (length({name}) <= n) where a limit is meant"))
    });
    let matched = subject.facts.predicates.iter().filter_map(|predicate| {
        use crate::sql::facts::Comparison::{ILike, Like, NotLike, Regex};
        let (_, known) = subject.column(predicate.left.column()?)?;
        let pattern = matches!(predicate.comparison, Like | NotLike | ILike | Regex);
        let hit = || {
            let message = format!("{} is {}: its padding takes part in the match", known.name, known.type_name);
            Hit::new(predicate.span, message).by(Evidence::Schema)
        };
        (pattern && padded(&known.type_name)).then(hit)
    });
    made.chain(matched).collect()
}

/// `created_at timestamp`, and comparing one with an instant.
pub(super) fn timestamp_without_time_zone(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let local: fn(&str) -> bool = |name| name.starts_with("timestamp") && name.ends_with("without time zone");
    let made = created(subject, local);
    let made = made.into_iter().map(|(name, _, span)| {
        let message =
            format!("{name} is a timestamp without time zone: which instant it means depends on who reads it");
        Hit::new(span, message).instead(format!("{name} timestamptz"))
    });
    let compared = subject.facts.predicates.iter().filter_map(|predicate| {
        let right = predicate.right.as_ref()?;
        let sides = [(&predicate.left, right), (right, &predicate.left)];
        sides.into_iter().find_map(|(side, other)| {
            let (_, known) = subject.column(side.column()?)?;
            let written = subject.text(other.span());
            (local(&known.type_name) && is_instant(written)).then(|| {
                let message = format!(
                    "{} has no time zone, {written} has: the comparison depends on the session's TimeZone setting",
                    known.name
                );
                Hit::new(predicate.span, message).by(Evidence::Schema)
            })
        })
    });
    made.chain(compared).collect()
}

fn is_instant(written: &str) -> bool {
    let lower = written.to_ascii_lowercase();
    let instant =
        ["now()", "current_timestamp", "clock_timestamp()", "statement_timestamp()", "transaction_timestamp()"];
    instant.iter().any(|name| lower.starts_with(name))
        && !lower.contains("at time zone")
        && !lower.contains("::timestamp")
        && !lower.contains("::date")
}

/// `current_time`: a time with an offset, but without the date that the offset depends on.
pub(super) fn current_time_timetz(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let called = subject.facts.functions.iter().filter(|call| call.name == "current_time");
    let message = "current_time is a time with time zone: without a date the offset means nothing, and cannot be compared across summer time";
    called.map(|call| Hit::new(call.span, message)).collect()
}

/// Operands of the SELECT lists of all scopes.
fn projected<'a>(subject: &'a Subject<'_>) -> impl Iterator<Item = &'a Operand> {
    subject.facts.scopes.iter().flat_map(|scope| &scope.projection).filter_map(|item| match item {
        Projection::Item { value, .. } => Some(value),
        _ => None,
    })
}

/// `first || ' ' || last` where one of them may be NULL.
pub(super) fn concat_null(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let hit = |operand: &Operand| {
        let Operand::Expression { shape: Shape::Operator(operator), columns, span, .. } = operand else { return None };
        let written = subject.text(*span).to_ascii_lowercase();
        if operator != "||"
            || ["coalesce", "concat", "case", "array", "jsonb"].iter().any(|word| written.contains(word))
        {
            return None;
        }
        let text = |name: &str| name == "text" || name.starts_with("character") || name == "citext";
        let known: Option<Vec<&Column>> = columns.iter().map(|column| Some(subject.column(column)?.1)).collect();
        let known = known.filter(|all| all.iter().all(|column| text(&column.type_name)))?;
        let tested = |name: &str| {
            subject.facts.predicates.iter().any(|predicate| {
                predicate.conjunctive && predicate.left.column().is_some_and(|column| column.name == name)
            })
        };
        let primary = |name: &str| {
            columns.iter().filter_map(|column| subject.column(column)).any(|(table, _)| table.is_unique_by(&[name]))
        };
        let column = known.iter().find(|it| !it.not_null && !tested(&it.name) && !primary(&it.name))?;
        let message = format!("when {} is NULL, the whole of {} is NULL", column.name, subject.text(*span));
        let advice = format!("coalesce({}, ''), or concat_ws(' ', ..), which leaves NULLs out", column.name);
        Some(Hit::new(*span, message).by(Evidence::Schema).instead(advice))
    };
    projected(subject).filter_map(hit).collect()
}

fn is_integer(name: &str) -> bool {
    matches!(name, "integer" | "bigint" | "smallint")
}

/// `done / total` of integers.
pub(super) fn integer_division(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let hit = |operand: &Operand| {
        let Operand::Expression { shape: Shape::Arithmetic(_), columns, span, .. } = operand else { return None };
        let written = subject.text(*span);
        let lower = written.to_ascii_lowercase();
        let fraction = lower.split(|letter: char| !(letter.is_ascii_digit() || letter == '.'));
        let exact = lower.contains("::")
            || lower.contains("cast(")
            || lower.contains("round(")
            || fraction.into_iter().any(|word| word.len() > 1 && word.contains('.') && word != ".");
        // One integer over a constant makes buckets, and is meant.
        let [_, _, ..] = columns.as_slice() else { return None };
        let integers =
            columns.iter().all(|it| subject.column(it).is_some_and(|(_, known)| is_integer(&known.type_name)));
        let divisor =
            lower.split_once('/').map(|(_, rest)| rest.trim_start().starts_with(|it: char| it.is_ascii_digit()));
        if exact || !integers || divisor != Some(false) || lower.contains('%') {
            return None;
        }
        let message = format!("{written} divides integers: what is behind the point is cut off, 1 / 2 is 0");
        let last = columns.last().map_or("total", |column| subject.text(column.span));
        Some(Hit::new(*span, message).by(Evidence::Schema).instead(format!("cast one side: .. / {last}::numeric")))
    };
    projected(subject).filter_map(hit).collect()
}

/// `id = $1::numeric` or `id = 5.0` on an integer column: the column is cast, its index is not used.
pub(super) fn implicit_cast_parameter(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let hit = |predicate: &Predicate| {
        let (column, value) = column_and_value(predicate)?;
        let (table, known) = subject.column(column)?;
        if !is_integer(&known.type_name) || table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0)) {
            return None;
        }
        let broad = |name: &str| {
            matches!(name, "numeric" | "decimal" | "double precision" | "real" | "float8" | "float4")
                || name.starts_with("numeric(")
        };
        let kind = match value {
            Operand::Parameter { cast: Some(cast), .. } | Operand::Literal { cast: Some(cast), .. } if broad(cast) => {
                cast
            }
            Operand::Literal { value: Literal::Number(number), cast: None, .. } if number.contains('.') => "numeric",
            _ => return None,
        };
        let name = &known.name;
        let message = format!(
            "{name} is {}, the other side {kind}: {name} is cast for every row, and its index cannot be used",
            known.type_name
        );
        let advice = format!("give the value {name}'s type: {}::{}", bare(subject.text(value.span())), known.type_name);
        Some(Hit::new(predicate.span, message).by(Evidence::Schema).instead(advice))
    };
    let filters = |it: &&Predicate| matches!(it.clause, Clause::Where | Clause::InnerOn | Clause::OuterOn);
    subject.facts.predicates.iter().filter(filters).filter_map(hit).collect()
}

fn bare(written: &str) -> &str {
    written.split("::").next().unwrap_or(written)
}

/// An integer key made by a sequence that has used most of its range.
pub(super) fn sequence_near_overflow(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    if subject.facts.kind != StatementKind::Insert {
        return Vec::new();
    }
    let share = rule.threshold("share", 0.5);
    let target = subject.facts.relations.iter().enumerate().find_map(|(at, relation)| {
        let write = relation.access == crate::sql::facts::Access::Write;
        Some((relation, subject.table(crate::sql::facts::RelationId(at)).filter(|_| write)?))
    });
    let Some((relation, table)) = target else { return Vec::new() };
    let Some(rows) = table.rows else { return Vec::new() };
    let full = table.columns.iter().find_map(|column| {
        let limit = match column.type_name.as_str() {
            "smallint" => 32_767.0,
            "integer" => 2_147_483_647.0,
            _ => return None,
        };
        let numbered = column.default.as_deref().is_some_and(|default| default.contains("nextval("));
        (numbered && rows >= limit * share).then_some((column, limit))
    });
    let hit = |(column, limit): (&Column, f64)| {
        let message = format!(
            "{}.{} is {} and numbered by a sequence: {rows:.0} of {limit:.0} numbers are rows already",
            table.name, column.name, column.type_name
        );
        Hit::new(relation.span, message)
            .by(Evidence::Stats)
            .instead(format!("make {} bigint before inserts fail", column.name))
    };
    full.map(hit).into_iter().collect()
}
