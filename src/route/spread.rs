//! Writes that several shards do, each for its own rows.
//!
//! The statement's text differs from shard to shard only where it must: rows of VALUES go to the shard of their key, tables that are read
//! become subqueries over collected rows (see [`super::collect`]), and the time is one for all.

use super::collect::{Collect, Shipped};
use super::copy::KeyField;
use super::placement::ShardId;
use super::plan::Occurrence;
use crate::sql::facts::Span;

/// How a write is split over shards. Spans are those of the text that was planned.
#[derive(Debug, Clone)]
pub struct Spread {
    /// What it reads besides the rows that it writes.
    pub collect: Collect,
    /// The table that is written; its pins say on which shards rows can be found. Not for INSERT.
    pub(super) target: Occurrence,
    /// Rows of VALUES, each on its key's shard.
    pub(super) rows: Vec<Row>,
    /// Of INSERT .. SELECT: the query, and the rows' key.
    pub(super) query: Option<Selected>,
    /// What is written in another way for all shards: words that mean the time, and defaults that do.
    pub(super) edits: Vec<Edit>,
    /// Rows come back.
    pub(super) returning: bool,
    /// Each row of VALUES comes back once.
    pub(super) returns_each: bool,
    /// How rows move that get another key.
    pub(super) moved: Option<Moved>,
    /// Columns that the first shard makes up for all rows.
    pub(super) filled: Option<Filled>,
}

/// Columns whose values the first shard makes up: what it is asked for has one for each row of VALUES.
#[derive(Debug, Clone)]
pub struct Filled {
    pub(super) columns: Vec<Filling>,
    /// The sharding key among them, if it is.
    pub(super) key: Option<KeyField>,
}

/// How one column is made up.
#[derive(Debug, Clone)]
pub(super) struct Filling {
    /// Its default.
    pub expression: String,
    /// Its type as `format_type` prints it.
    pub type_name: String,
}

impl Filling {
    fn sql(&self) -> String {
        format!("({})::{}", self.expression, self.type_name)
    }
}

impl Filled {
    /// The key among the values, if it is one of them.
    pub fn key(&self) -> Option<&KeyField> {
        self.key.as_ref()
    }

    /// Asks for the values of so many rows, as text.
    pub fn question(&self, rows: usize) -> String {
        let one = |filling: &Filling| format!("{}::pg_catalog.text", filling.sql());
        let columns: Vec<String> = self.columns.iter().map(one).collect();
        format!("SELECT {} FROM pg_catalog.generate_series(1, {rows})", columns.join(", "))
    }

    /// A value as a constant.
    fn constant(&self, at: usize, value: Option<&[u8]>) -> String {
        let kind = self.columns.get(at).map_or("pg_catalog.text", |filling| filling.type_name.as_str());
        match value {
            None => format!("NULL::{kind}"),
            Some(text) => {
                let text = String::from_utf8_lossy(text).replace('\\', "\\\\").replace('\'', "''");
                format!("E'{text}'::{kind}")
            }
        }
    }
}

/// How rows go to another shard. What the statement returns has two columns more then: where the row lies, and its key.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The table, with its schema, in quotes.
    pub(super) table: String,
    /// Its columns that are stored.
    pub(super) columns: Vec<Shipped>,
    /// The key among them.
    pub(super) key: KeyField,
    /// The client's own rows come back too.
    pub(super) returning: bool,
}

impl Moved {
    /// The key among the fields of a row.
    pub fn key(&self) -> &KeyField {
        &self.key
    }

    /// The client asked for rows.
    pub fn is_returning(&self) -> bool {
        self.returning
    }

    /// Asks what would notice that rows are taken out and stored elsewhere; NULL for nothing.
    pub fn hindrance(&self) -> String {
        format!(
            "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) \
             THEN 'it has triggers' WHEN c.relrowsecurity THEN 'it has row security' \
             WHEN EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid) THEN 'it has rules' \
             WHEN EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhparent, i.inhrelid)) THEN 'others inherit from it, or it does' \
             WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint AS f WHERE f.confrelid = c.oid AND f.contype = 'f' \
             AND (f.confupdtype NOT IN ('a', 'r') OR f.condeferrable)) THEN 'a foreign key follows its rows' END \
             FROM pg_catalog.pg_class AS c WHERE c.oid = E'{}'::pg_catalog.regclass",
            self.table.replace('\\', "\\\\").replace('\'', "''")
        )
    }

    /// Takes out the rows at these places, as text.
    pub fn take(&self, places: &[String]) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{}::pg_catalog.text", column.name)).collect();
        let places: Vec<String> = places.iter().map(|place| format!("\"{place}\"")).collect();
        let (table, places, columns) = (&self.table, places.join(","), columns.join(", "));
        format!("DELETE FROM ONLY {table} WHERE ctid = ANY ('{{{places}}}'::pg_catalog.tid[]) RETURNING {columns}")
    }

    /// Stores rows that come as arrays of text, one for each column.
    pub fn put(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let values: Vec<String> =
            self.columns.iter().enumerate().map(|(at, column)| format!("c{at}::{}", column.type_name)).collect();
        let arrays: Vec<String> =
            (1..=names.len()).map(|number| format!("pg_catalog.unnest(${number}::pg_catalog.text[])")).collect();
        let own: Vec<String> = (0..names.len()).map(|at| format!("c{at}")).collect();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM ROWS FROM ({}) AS moved({})",
            self.table,
            names.join(", "),
            values.join(", "),
            arrays.join(", "),
            own.join(", ")
        )
    }
}

/// The query of INSERT .. SELECT, whose rows are known when it has run.
#[derive(Debug, Clone)]
pub(super) struct Selected {
    /// Where it stands.
    pub span: Span,
    /// The key among its columns.
    pub key: KeyField,
    /// The types of the columns that its values are stored in.
    pub stored_as: Vec<String>,
    /// Columns that are computed besides.
    pub made: Option<Made>,
}

/// Columns that neither the query nor a shard that stores the rows makes up, but the one on which the query runs.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// Where the list of columns closes, and what is added to it.
    pub list_end: u32,
    pub list: String,
    /// What stands in front of the rows.
    pub overriding: &'static str,
    pub fillings: Vec<Filling>,
}

/// One row of VALUES.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// With its parentheses.
    pub span: Span,
    /// Its key.
    pub occurrence: Occurrence,
}

/// A place where something else is written.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    /// What it replaces; empty where something is added.
    pub span: Span,
    /// What is written.
    pub pieces: Vec<Piece>,
}

/// A part of what is written.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// This.
    Text(String),
    /// The time, with this cast of a `timestamp with time zone`; empty for none.
    Time(&'static str),
    /// The n-th of the values that were made up for a row of VALUES.
    Filled { row: usize, at: usize },
}

impl Piece {
    /// The same for another row.
    pub fn of_row(&self, row: usize) -> Self {
        match self {
            Self::Filled { at, .. } => Self::Filled { row, at: *at },
            other => other.clone(),
        }
    }
}

/// Values that were made up, of each row.
pub type Values = [Vec<Option<Vec<u8>>>];

impl Spread {
    /// INSERT of rows that are written out.
    pub(super) fn of_rows(target: Occurrence, rows: Vec<Row>, edits: Vec<Edit>, returning: bool) -> Self {
        Self {
            collect: Collect::default(),
            target,
            rows,
            query: None,
            edits,
            returning,
            returns_each: false,
            moved: None,
            filled: None,
        }
    }

    /// The columns that the first shard makes up, and for how many rows.
    pub fn filled(&self) -> Option<(&Filled, usize)> {
        self.filled.as_ref().map(|filled| (filled, self.rows.len()))
    }

    /// The rule that decides when it runs on several shards.
    pub(super) fn rule(&self) -> &'static str {
        match (&self.query, self.rows.is_empty()) {
            _ if self.moved.is_some() => "key-update",
            _ if self.filled.is_some() => "generated",
            (Some(_), _) => "spread-select",
            (None, false) => "spread-rows",
            (None, true) => "spread-write",
        }
    }

    /// Every shard runs the statement as it was written.
    pub fn is_plain(&self) -> bool {
        self.rows.is_empty() && self.query.is_none() && self.edits.is_empty() && self.collect.parts.is_empty()
    }

    /// The key's field among the rows that INSERT .. SELECT stores.
    pub fn key_of_query(&self) -> Option<&KeyField> {
        self.query.as_ref().map(|query| &query.key)
    }

    /// How rows move that get another key, where they do.
    pub fn moved(&self) -> Option<&Moved> {
        self.moved.as_ref()
    }

    /// The query of INSERT .. SELECT, over collected rows as [`Collect::answer`] has them.
    pub fn query(&self, sql: &str, first: usize) -> String {
        let mut out = String::new();
        let Some(Selected { span, made, .. }) = &self.query else { return out };
        let fillings = made.iter().flat_map(|made| &made.fillings).map(Filling::sql);
        let more: String = fillings.map(|value| format!(", {value}")).collect();
        if !more.is_empty() {
            out.push_str(&format!("SELECT selected.*{more} FROM ("));
        }
        write_edited(&mut out, sql, &self.collect.edits(first), span.start as usize, span.end as usize);
        if !more.is_empty() {
            out.push_str("\n) AS selected");
        }
        out
    }

    /// INSERT of rows that come as arrays of text, a parameter for each column from `first` on; `types` are the columns' types as SQL has them.
    pub fn store(&self, sql: &str, first: usize, types: &[String]) -> String {
        let Some(Selected { span, stored_as, made, .. }) = &self.query else { return sql.to_owned() };
        // A constant of no type is text to a query that stands alone, and of the column's type in front of it.
        let kind = |at: usize, selected: &String| match stored_as.get(at) {
            Some(column) if selected == "text" && !is_textual(column) => column.clone(),
            _ => selected.clone(),
        };
        let columns: Vec<String> =
            types.iter().enumerate().map(|(at, selected)| format!("c{at}::{}", kind(at, selected))).collect();
        let arrays: Vec<String> = (first..first + types.len())
            .map(|number| format!("pg_catalog.unnest(${number}::pg_catalog.text[])"))
            .collect();
        let names: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
        let added: Vec<(Span, String)> =
            made.iter().map(|made| (Span { start: made.list_end, end: made.list_end }, made.list.clone())).collect();
        let mut head = String::new();
        write_edited(&mut head, sql, &added, 0, span.start as usize);
        head.push_str(made.as_ref().map_or("", |made| made.overriding));
        format!(
            "{head}SELECT {} FROM ROWS FROM ({}) AS selected({}){}",
            columns.join(", "),
            arrays.join(", "),
            names.join(", "),
            sql.get(span.end as usize..).unwrap_or_default()
        )
    }

    /// Whether the time is a parameter, which then is the last one: `timestamp with time zone` as text.
    pub fn asks_the_time(&self) -> bool {
        self.edits.iter().flat_map(|edit| &edit.pieces).any(|piece| matches!(piece, Piece::Time(_)))
    }

    /// Whether the rows that come back are those of VALUES, in their order.
    pub fn returns_in_order(&self) -> bool {
        self.returning && self.returns_each
    }

    /// One shard's text, given which rows of VALUES are its own, and what was made up for all of them. Parameters from `first` are the arrays of `collect`, then the time.
    pub fn text(&self, sql: &str, first: usize, own: &[bool], made_up: &Values) -> String {
        let time = first + self.collect.widths().into_iter().sum::<usize>();
        let mut edits = self.collect.edits(first);
        edits.extend(self.edits.iter().map(|edit| {
            let pieces = edit.pieces.iter().map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Time(cast) => format!("${time}::pg_catalog.timestamptz{cast}"),
                Piece::Filled { row, at } => {
                    let value = made_up.get(*row).and_then(|row| row.get(*at)?.as_deref());
                    self.filled.as_ref().map(|filled| filled.constant(*at, value)).unwrap_or_default()
                }
            });
            (edit.span, pieces.collect())
        }));
        edits.sort_by_key(|(span, _)| (span.start, span.end));
        let mut out = String::new();
        let (Some(head), Some(tail)) = (self.rows.first(), self.rows.last()) else {
            write_edited(&mut out, sql, &edits, 0, sql.len());
            return out;
        };
        write_edited(&mut out, sql, &edits, 0, head.span.start as usize);
        let mut comma = "";
        for (row, _) in self.rows.iter().zip(own).filter(|(_, own)| **own) {
            out.push_str(comma);
            comma = ", ";
            write_edited(&mut out, sql, &edits, row.span.start as usize, row.span.end as usize);
        }
        write_edited(&mut out, sql, &edits, tail.span.end as usize, sql.len());
        out
    }

    pub(super) fn leaves(&self, sql: &str) -> Vec<String> {
        let mut leaves = self.collect.leaves(sql);
        if self.asks_the_time() {
            leaves.push("one time for all shards".to_owned());
        }
        leaves.extend(self.filled.as_ref().map(|filled| made_up(&filled.columns)));
        let made = self.query.as_ref().and_then(|query| query.made.as_ref());
        leaves.extend(made.map(|made| made_up(&made.fillings)));
        leaves.extend(self.moved.as_ref().map(|_| "rows move to the shard of their new key".to_owned()));
        leaves
    }

    /// Which rows of VALUES `is_on` says are one shard's.
    pub(super) fn own(&self, is_on: impl Fn(&Occurrence) -> Option<ShardId>, shard: ShardId) -> Vec<bool> {
        self.rows.iter().map(|row| is_on(&row.occurrence) == Some(shard)).collect()
    }
}

fn made_up(fillings: &[Filling]) -> String {
    let columns: Vec<&str> = fillings.iter().map(|filling| filling.expression.as_str()).collect();
    format!("values of the first shard: {}", columns.join(", "))
}

/// Whether text is stored in such a column as it is.
fn is_textual(column: &str) -> bool {
    let kinds = ["text", "character", "name", "bpchar", "\"char\"", "citext"];
    !column.ends_with(']') && kinds.iter().any(|name| column.starts_with(name))
}

/// Writes a part of a text with the edits that lie in it, in the order of their places.
pub(super) fn write_edited(out: &mut String, sql: &str, edits: &[(Span, String)], start: usize, end: usize) {
    let mut done = start;
    for (span, text) in edits {
        let (from, to) = (span.start as usize, span.end as usize);
        if from < done || to > end || from >= end && end < sql.len() {
            continue;
        }
        out.push_str(sql.get(done..from).unwrap_or_default());
        out.push_str(text);
        done = to;
    }
    out.push_str(sql.get(done..end).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_its_rows_and_the_time() {
        let sql = "insert into t (a, at) values (1, now()), (2, 'x'), (3, now()) returning a";
        let span = |text: &str, nth: usize| {
            let start = sql.match_indices(text).nth(nth).unwrap().0 as u32;
            Span { start, end: start + text.len() as u32 }
        };
        let target = Occurrence { name: "t".to_owned(), span: span("t", 3), pins: Vec::new() };
        let rows = ["(1, now())", "(2, 'x')", "(3, now())"];
        let rows = rows.map(|text| Row { span: span(text, 0), occurrence: target.clone() }).into();
        let edits = vec![
            Edit { span: span("now()", 0), pieces: vec![Piece::Time("")] },
            Edit { span: span("now()", 1), pieces: vec![Piece::Time("::pg_catalog.date")] },
            Edit {
                span: Span { start: span("(3", 0).end, end: span("(3", 0).end },
                pieces: vec![Piece::Text(", ".to_owned()), Piece::Time("")],
            },
        ];
        let mut spread = Spread::of_rows(target, rows, edits, true);
        spread.returns_each = true;
        let time = "$3::pg_catalog.timestamptz";
        assert_eq!(
            spread.text(sql, 3, &[true, true, false], &[]),
            format!("insert into t (a, at) values (1, {time}), (2, 'x') returning a")
        );
        assert_eq!(
            spread.text(sql, 3, &[false, false, true], &[]),
            format!("insert into t (a, at) values (3, {time}, {time}::pg_catalog.date) returning a")
        );
        assert!(spread.returns_in_order() && spread.asks_the_time() && spread.rule() == "spread-rows");
    }
}
