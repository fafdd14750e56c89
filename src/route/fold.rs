//! Groups and sums that each shard computes of its own rows, and one shard of all.
//!
//! Every shard is asked for its *partial* groups: `SELECT keys, partial aggregates FROM .. WHERE .. GROUP BY keys`, the client's own FROM and WHERE. The
//! computing shard runs the client's statement over those rows: in the place of FROM and WHERE stand the partial groups, in the place of
//! each aggregate its combination (a count is the sum of counts), in the place of each grouped expression the key. HAVING, ORDER BY,
//! LIMIT and what is computed with the aggregates stay as they are, PostgreSQL's own.
//!
//! Combinations are exact (`numeric.c`, `int8_avg`, `numeric_avg`: an average is the quotient of the sum and the count as numerics); sums of floating
//! point numbers depend on the order of addition, there as here. Types come from PostgreSQL: [`Fold::probe`] is described, never run.

use std::fmt::Write as _;

use super::collect::{Collect, Part, Shipped, TEXT_SETTINGS, quoted, settings_question};
use super::spread::write_edited;
use crate::sql::facts::Span;

/// What the rows of partial groups are called in the statement that combines them.
const NAME: &str = "\"partial groups\"";

/// How a query is computed from partial groups. Spans are those of the text that was planned.
#[derive(Debug, Clone)]
pub struct Fold {
    /// FROM and WHERE.
    pub(super) body: Span,
    /// What rows are grouped by.
    pub(super) keys: Vec<GroupKey>,
    /// Different aggregates.
    pub(super) calls: Vec<Call>,
    /// Where keys and aggregates stand outside of the body.
    pub(super) places: Vec<(Span, Folded)>,
    /// For each column of the answer, where an alias is to be put.
    pub(super) unnamed: Vec<Option<u32>>,
}

/// What stands in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folded {
    /// The n-th key.
    Key(usize),
    /// The n-th aggregate.
    Call(usize),
}

/// An expression that rows are grouped by.
#[derive(Debug, Clone)]
pub(super) struct GroupKey {
    /// As it is written.
    pub text: String,
    /// It is this column.
    pub column: Option<Shipped>,
    /// Its columns are compared by the database's own collation.
    pub plain_collation: bool,
}

/// An aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Its function.
    pub name: String,
    /// Its argument, or a star.
    pub argument: String,
    /// FILTER and what follows, or nothing.
    pub filter: String,
    /// The collation of its argument, where that is a column with one of its own; `None` where it is not known.
    pub compared_by: Option<Option<String>>,
}

/// The aggregates that can be put together from parts.
pub(super) const FOLDED: &[&str] =
    &["avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "count", "every", "max", "min", "sum"];

/// A type as Describe tells it: its number and its modifier.
pub type TypeOf = (u32, i32);

const INT8: u32 = 20;
const NUMERIC: u32 = 1700;
const FLOAT8: u32 = 701;

/// The statements, once the types are known.
#[derive(Debug, Clone)]
pub struct Folding {
    columns: Vec<Shipped>,
    /// What each column is computed as on a shard.
    partials: Vec<String>,
    /// For each aggregate, how its columns are put together.
    combined: Vec<String>,
}

impl Fold {
    /// A statement with a column for each key and each aggregate, to be described.
    pub fn probe(&self, sql: &str) -> String {
        let calls = self.calls.iter().map(|call| format!("{}({}){}", call.name, call.argument, call.filter));
        let columns: Vec<String> = self.keys.iter().map(|key| key.text.clone()).chain(calls).collect();
        self.grouped(sql, &columns, &[])
    }

    fn grouped(&self, sql: &str, columns: &[String], moments: &[(Span, String)]) -> String {
        let mut text = String::from("SELECT ");
        for (at, column) in columns.iter().enumerate() {
            let _ = write!(text, "{}{column} AS c{at}", if at == 0 { "" } else { ", " });
        }
        text.push(' ');
        write_edited(&mut text, sql, moments, self.body.start as usize, self.body.end as usize);
        text.push('\n');
        for at in 1..=self.keys.len() {
            let _ = write!(text, "{}{at}", if at == 1 { "GROUP BY " } else { ", " });
        }
        text
    }

    /// The statements for these types of the probe's columns; `None` where one does not travel.
    pub fn with_types(&self, types: &[TypeOf]) -> Option<Folding> {
        if types.len() != self.keys.len() + self.calls.len() {
            return None;
        }
        let (keys, calls) = types.split_at(self.keys.len());
        let mut folding = Folding { columns: Vec::new(), partials: Vec::new(), combined: Vec::new() };
        for (key, kind) in self.keys.iter().zip(keys) {
            let known = key.column.as_ref().map(|column| (column.type_name.clone(), column.compared_by.clone()));
            let (type_name, compared_by) = match known {
                Some(known) => known,
                None if is_collated(kind.0) && !key.plain_collation => return None,
                None if kind.1 != -1 => return None,
                None => (type_name(kind.0)?.to_owned(), None),
            };
            folding.add(key.text.clone(), type_name, compared_by);
        }
        for (call, kind) in self.calls.iter().zip(calls) {
            let combined = folding.combine(call, *kind)?;
            folding.combined.push(combined);
        }
        Some(folding)
    }

    /// What is grouped and computed, for the printed plan.
    pub(super) fn leaf(&self) -> String {
        let calls: Vec<String> =
            self.calls.iter().map(|call| format!("{}({}){}", call.name, call.argument, call.filter)).collect();
        let keys: Vec<&str> = self.keys.iter().map(|key| key.text.as_str()).collect();
        let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
        let calls = if calls.is_empty() { "each once".to_owned() } else { calls.join(", ") };
        format!("groups: {calls}{by}").split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Folding {
    /// How many columns the rows have.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// What each shard is asked; see [`Collect::question`].
    pub fn question(&self, collect: &Collect, fold: &Fold, sql: &str, time: usize) -> String {
        let settings = TEXT_SETTINGS.len();
        let width = self.width().max(settings);
        let mut text = settings_question();
        text.push_str(&", NULL".repeat(width - settings));
        text.push_str(" UNION ALL (SELECT 0");
        for at in 0..self.width() {
            let _ = write!(text, ", c{at}::pg_catalog.text");
        }
        text.push_str(&", NULL".repeat(width - self.width()));
        let _ = write!(text, " FROM ({}) AS {NAME})", fold.grouped(sql, &self.partials, &collect.timed(time)));
        text
    }

    /// The client's statement over partial groups, which come as arrays of text from the parameter `first` on; its columns are to have these names.
    pub fn answer(&self, fold: &Fold, sql: &str, first: usize, names: &[String]) -> String {
        let mut rows = String::from("FROM ");
        let part = Part::of_columns(NAME, self.columns.clone());
        part.write_rows(&mut rows, first);
        rows.push(' ');
        let mut edits = vec![(fold.body, rows)];
        for (span, folded) in &fold.places {
            edits.push((
                *span,
                match folded {
                    Folded::Key(at) => format!("{NAME}.\"{at}\""),
                    Folded::Call(at) => self.combined.get(*at).cloned().unwrap_or_default(),
                },
            ));
        }
        for (end, name) in fold.unnamed.iter().zip(names).filter_map(|(end, name)| end.map(|end| (end, name))) {
            edits.push((Span { start: end, end }, format!(" AS {}", quoted(name))));
        }
        // An alias comes behind what ends where it stands.
        edits.sort_by_key(|(span, _)| (span.start, span.end));
        let mut text = String::new();
        write_edited(&mut text, sql, &edits, 0, sql.len());
        text
    }

    fn add(&mut self, partial: String, type_name: String, compared_by: Option<String>) -> String {
        let name = format!("\"{}\"", self.columns.len());
        let column = format!("{NAME}.{name}");
        self.columns.push(Shipped { name, type_name, compared_by });
        self.partials.push(partial);
        column
    }

    /// Adds the parts of an aggregate; how they are put together.
    fn combine(&mut self, call: &Call, (kind, modifier): TypeOf) -> Option<String> {
        let Call { name, argument, filter, compared_by } = call;
        let own = |argument: &str| format!("pg_catalog.{name}({argument}){filter}");
        let known = type_name(kind).filter(|_| modifier == -1)?.to_owned();
        match name.as_str() {
            "count" => {
                let part = self.add(own(argument), known, None);
                Some(format!("(coalesce(pg_catalog.sum({part}), 0)::pg_catalog.int8)"))
            }
            "sum" => {
                let part = self.add(own(argument), known.clone(), None);
                // Of eight byte sums it is a numeric.
                matches!(kind, INT8 | NUMERIC | 700 | FLOAT8).then(|| format!("(pg_catalog.sum({part})::{known})"))
            }
            "avg" => {
                let (of, known) = match kind {
                    NUMERIC => (argument.clone(), "numeric"),
                    FLOAT8 => (format!("({argument}\n)::pg_catalog.float8"), "double precision"),
                    _ => return None,
                };
                let sum = self.add(format!("(pg_catalog.sum({of}){filter})::{known}"), known.to_owned(), None);
                let count = self.add(format!("pg_catalog.count({argument}){filter}"), "bigint".to_owned(), None);
                Some(format!("(pg_catalog.sum({sum}) / pg_catalog.sum({count})::{known})"))
            }
            _ => {
                let compared_by = match compared_by {
                    Some(known) => known.clone(),
                    None if is_collated(kind) => return None,
                    None => None,
                };
                let part = self.add(own(argument), known, compared_by);
                Some(format!("pg_catalog.{name}({part})"))
            }
        }
    }
}

fn is_collated(kind: u32) -> bool {
    matches!(kind, 25 | 1043)
}

/// Types whose values read back from text as they were.
fn type_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        16 => "boolean",
        17 => "bytea",
        INT8 => "bigint",
        21 => "smallint",
        23 => "integer",
        25 => "text",
        700 => "real",
        FLOAT8 => "double precision",
        869 => "inet",
        1043 => "character varying",
        1082 => "date",
        1083 => "time without time zone",
        1114 => "timestamp without time zone",
        1184 => "timestamp with time zone",
        1186 => "interval",
        NUMERIC => "numeric",
        2950 => "uuid",
        3802 => "jsonb",
        _ => return None,
    })
}
