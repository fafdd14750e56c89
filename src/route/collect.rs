//! Queries that one shard computes from rows which all shards send.
//!
//! Every occurrence of a table that lies on shards becomes a subquery over arrays of its rows: PostgreSQL itself then groups,
//! sorts, joins and counts, so that collations, NULLs, types and their arithmetic are its own. A value travels as text, cast to the
//! column's type again, as in a dump.

use std::fmt::Write as _;

use super::fold::Fold;
use super::placement::ShardId;
use super::plan::Occurrence;
use super::spread::write_edited;
use crate::sql::facts::Span;

/// Settings of the session on which the text of a value depends, and the beginnings of those values with which the text reads back as the same
/// value (as `pg_dump` sets them).
pub const TEXT_SETTINGS: [(&str, &[&str]); 3] =
    [("extra_float_digits", &["1", "2", "3"]), ("DateStyle", &["ISO"]), ("IntervalStyle", &["postgres", "iso_8601"])];
/// The number of the row that tells these settings.
pub const SETTINGS_ROW: &[u8] = b"-1";

/// Which rows one shard needs to compute a query. Spans are those of the text that was planned.
#[derive(Debug, Clone, Default)]
pub struct Collect {
    /// Where the rows of each part lie.
    pub(super) occurrences: Vec<Occurrence>,
    /// As many as occurrences.
    pub(super) parts: Vec<Part>,
    /// How groups of rows can be collected instead.
    pub(super) fold: Option<Fold>,
    /// Words that mean the time, where rows are chosen by it: it is one for all shards and the answer.
    pub(super) moments: Vec<Moment>,
}

/// A word that means the time.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Where it stands.
    pub span: Span,
    /// What it is of a `timestamp with time zone` as a cast; empty for that itself.
    pub cast: &'static str,
}

/// The rows of one occurrence of a table.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Where its name stands.
    pub name: Span,
    /// The only shard that has any.
    pub on: Option<ShardId>,
    /// The table, with its schema, in quotes.
    pub table: String,
    /// What columns may be qualified by, in quotes.
    pub called: String,
    /// The statement names it by an alias.
    pub aliased: bool,
    /// The columns that the statement may read; at least one.
    pub columns: Vec<Shipped>,
    /// Conditions that every row of it must satisfy which the answer depends on: a column compared with constants.
    pub filters: Vec<Span>,
    /// Only the first rows of each shard can be among those that the statement wants.
    pub first: Option<First>,
}

/// The first rows in some order.
#[derive(Debug, Clone)]
pub(super) struct First {
    /// ORDER BY's keys, as they are written in SQL.
    pub order: Vec<String>,
    /// Constants whose sum is the number of rows: LIMIT's and OFFSET's.
    pub amounts: Vec<Span>,
}

/// A column whose values travel.
#[derive(Debug, Clone)]
pub(super) struct Shipped {
    /// Its name, in quotes.
    pub name: String,
    /// Its type as `format_type` prints it.
    pub type_name: String,
    /// See `Column::compared_by`.
    pub compared_by: Option<String>,
}

/// A name as SQL has it, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The SELECT that gives [`SETTINGS_ROW`], without its semicolon.
pub fn settings_question() -> String {
    let mut text = format!("SELECT {}", String::from_utf8_lossy(SETTINGS_ROW));
    for (setting, _) in TEXT_SETTINGS {
        let _ = write!(text, ", pg_catalog.current_setting('{setting}')");
    }
    text
}

impl Collect {
    /// How many columns each part's rows have.
    pub fn widths(&self) -> Vec<usize> {
        self.parts.iter().map(|part| part.columns.len()).collect()
    }

    /// Some rows are left out because of constants.
    pub(super) fn filters(&self) -> bool {
        self.fold.is_some() || self.parts.iter().any(|part| !part.filters.is_empty())
    }

    /// Whether the questions, and the answer, take the time as a parameter: in a question behind the client's own, in the answer the last.
    pub fn asks_the_time(&self) -> bool {
        !self.moments.is_empty()
    }

    /// How groups of rows are collected instead, where they can be.
    pub fn fold(&self) -> Option<&Fold> {
        self.fold.as_ref()
    }

    /// The one statement that a shard is asked, so that all rows are of one snapshot: each row has its part's number and then the values as text. One
    /// row more, [`SETTINGS_ROW`], tells the values of [`TEXT_SETTINGS`]. The time is the parameter `time`.
    pub fn question(&self, sql: &str, shard: ShardId, time: usize) -> String {
        let moments = self.timed(time);
        let width = self.widths().into_iter().chain([TEXT_SETTINGS.len()]).max().unwrap_or_default();
        let mut text = settings_question();
        text.push_str(&", NULL".repeat(width.saturating_sub(TEXT_SETTINGS.len())));
        for (number, part) in self.parts.iter().enumerate() {
            if part.on.is_some_and(|on| on != shard) {
                continue;
            }
            let _ = write!(text, " UNION ALL (SELECT {number}");
            for column in &part.columns {
                let _ = write!(text, ", {}.{}::pg_catalog.text", part.called, column.name);
            }
            text.push_str(&", NULL".repeat(width.saturating_sub(part.columns.len())));
            let _ = write!(text, " FROM {} AS {}", part.table, part.called);
            for (at, filter) in part.filters.iter().enumerate() {
                text.push_str(if at == 0 { " WHERE (" } else { " AND (" });
                write_edited(&mut text, sql, &moments, filter.start as usize, filter.end as usize);
                text.push_str("\n)");
            }
            if let Some(first) = &part.first {
                first.write(&mut text, sql);
            }
            text.push(')');
        }
        text
    }

    /// The statement over rows that come as parameters, an array of text for each column of each part, the first one's number being `first`; then the time.
    pub fn answer(&self, sql: &str, first: usize) -> String {
        let mut text = String::new();
        let mut edits = self.edits(first);
        let time = first + self.widths().into_iter().sum::<usize>();
        edits.extend(self.timed(time));
        edits.sort_by_key(|(span, _)| span.start);
        write_edited(&mut text, sql, &edits, 0, sql.len());
        text
    }

    /// What stands in the place of words that mean the time when it is this parameter.
    pub(super) fn timed(&self, parameter: usize) -> Vec<(Span, String)> {
        let edit = |moment: &Moment| (moment.span, format!("${parameter}::pg_catalog.timestamptz{}", moment.cast));
        self.moments.iter().map(edit).collect()
    }

    /// What stands in the place of each table's name, in the order of the places.
    pub(super) fn edits(&self, first: usize) -> Vec<(Span, String)> {
        let (mut edits, mut next) = (Vec::new(), first);
        for part in &self.parts {
            let mut text = String::new();
            part.write_rows(&mut text, next);
            edits.push((part.name, text));
            next += part.columns.len();
        }
        edits.sort_by_key(|(span, _)| span.start);
        edits
    }

    /// What is collected, for the printed plan.
    pub(super) fn leaves(&self, sql: &str) -> Vec<String> {
        let one = |part: &Part| {
            let columns: Vec<&str> = part.columns.iter().map(|column| column.name.as_str()).collect();
            let filters: Vec<&str> = part.filters.iter().map(|filter| filter.of(sql)).collect();
            let filters = if filters.is_empty() { String::new() } else { format!(" where {}", filters.join(" and ")) };
            let first = match &part.first {
                Some(first) if first.order.is_empty() => " the first".to_owned(),
                Some(first) => format!(" the first by {}", first.order.join(", ")),
                None => String::new(),
            };
            format!("rows: {} {} ({}){filters}{first}", part.table, part.called, columns.join(", ")).replace('"', "")
        };
        self.fold.iter().map(Fold::leaf).chain(self.parts.iter().filter(|_| self.fold.is_none()).map(one)).collect()
    }
}

impl First {
    fn write(&self, text: &mut String, sql: &str) {
        for (at, key) in self.order.iter().enumerate() {
            let _ = write!(text, "{} {key}", if at == 0 { " ORDER BY" } else { "," });
        }
        // Their sum may be more than LIMIT takes.
        let sum: Vec<String> =
            self.amounts.iter().map(|amount| format!("({})::pg_catalog.numeric", amount.of(sql))).collect();
        let most = i64::MAX;
        let _ = write!(text, " LIMIT least({}, {most})::pg_catalog.int8", sum.join(" + "));
    }
}

impl Part {
    /// Rows that are no table's.
    pub(super) fn of_columns(called: &str, columns: Vec<Shipped>) -> Self {
        let (name, table, called) = (Span::default(), String::new(), called.to_owned());
        Self { name, on: None, table, called, aliased: false, columns, filters: Vec::new(), first: None }
    }

    /// A subquery over arrays of its rows, the first one's parameter being `first`.
    pub(super) fn write_rows(&self, text: &mut String, first: usize) {
        text.push_str("(SELECT ");
        for (at, column) in self.columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}c{at}::{}", column.type_name);
            if let Some(collation) = &column.compared_by {
                let _ = write!(text, " COLLATE {collation}");
            }
            let _ = write!(text, " AS {}", column.name);
        }
        text.push_str(" FROM ROWS FROM (");
        for at in 0..self.columns.len() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}pg_catalog.unnest(${}::pg_catalog.text[])", first + at);
        }
        text.push_str(") AS collected(");
        for at in 0..self.columns.len() {
            let _ = write!(text, "{}c{at}", if at == 0 { "" } else { ", " });
        }
        text.push_str("))");
        if !self.aliased {
            let _ = write!(text, " AS {}", self.called);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_rows() {
        let sql = "select o.id from public.orders o, items where o.id > 3 and items.id = o.id";
        let span = |text: &str| {
            let start = sql.find(text).unwrap() as u32;
            Span { start, end: start + text.len() as u32 }
        };
        let column = |name: &str, type_name: &str| Shipped {
            name: quoted(name),
            type_name: type_name.to_owned(),
            compared_by: (type_name == "name").then(|| "pg_catalog.\"C\"".to_owned()),
        };
        let part = |name: &str, called: &str, columns: Vec<Shipped>, filters: Vec<Span>| Part {
            name: span(name),
            on: (called == "items").then_some(ShardId(1)),
            table: "\"public\".\"t\"".to_owned(),
            called: quoted(called),
            aliased: called == "o",
            columns,
            filters,
            first: (called == "o")
                .then(|| First { order: vec!["\"o\".\"id\" DESC".to_owned()], amounts: vec![span("3")] }),
        };
        let parts = vec![
            part("items", "items", vec![column("id", "bigint"), column("n", "name")], Vec::new()),
            part("public.orders", "o", vec![column("id", "bigint")], vec![span("o.id > 3")]),
        ];
        let collect = Collect { parts, ..Collect::default() };
        assert_eq!(collect.widths(), [2, 1]);
        assert_eq!(
            collect.answer(sql, 2),
            "select o.id from (SELECT c0::bigint AS \"id\" FROM ROWS FROM (pg_catalog.unnest($4::pg_catalog.text[])) AS collected(c0)) o, \
             (SELECT c0::bigint AS \"id\", c1::name COLLATE pg_catalog.\"C\" AS \"n\" FROM ROWS FROM (\
             pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) AS collected(c0, c1)) AS \"items\" \
             where o.id > 3 and items.id = o.id"
        );
        let question = collect.question(sql, ShardId(0), 1);
        assert!(question.ends_with(
            " UNION ALL (SELECT 1, \"o\".\"id\"::pg_catalog.text, NULL, NULL FROM \"public\".\"t\" AS \"o\" WHERE (o.id > 3\n) \
             ORDER BY \"o\".\"id\" DESC LIMIT least((3)::pg_catalog.numeric, 9223372036854775807)::pg_catalog.int8)"
        ));
        assert!(!question.contains("items") && collect.question(sql, ShardId(1), 1).contains("items"));
    }
}
