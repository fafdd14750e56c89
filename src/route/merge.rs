//! Queries whose rows several shards send in order.
//!
//! Each shard runs the statement with its sort keys as columns more, behind its own, and sends no more rows than can be among those that
//! the client wants: LIMIT's and OFFSET's together. The rows are merged by the keys (see `exec::merge`), which go no further.

use std::fmt::Write as _;

use super::spread::write_edited;
use crate::sql::facts::Span;

/// How a query's rows are merged. Spans are those of the text that was planned.
#[derive(Debug, Clone)]
pub struct Merge {
    /// ORDER BY's keys.
    pub(super) keys: Vec<SortedBy>,
    /// Where the SELECT list ends.
    pub(super) list_end: u32,
    /// LIMIT and OFFSET, to the end of the statement.
    pub(super) tail: Span,
    /// Constants whose sum is the number of rows, where it is limited.
    pub(super) amounts: Vec<Span>,
}

/// A sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortedBy {
    /// The column, as it is written.
    pub(super) column: String,
    /// DESC.
    pub descending: bool,
    /// NULLs come first.
    pub nulls_first: bool,
}

impl Merge {
    /// ORDER BY's keys, in order.
    pub fn keys(&self) -> &[SortedBy] {
        &self.keys
    }

    /// What each shard is asked.
    pub fn question(&self, sql: &str) -> String {
        let mut columns = String::new();
        for key in &self.keys {
            let _ = write!(columns, ", {}", key.column);
        }
        let mut limit = String::new();
        if !self.amounts.is_empty() {
            // Their sum may be more than LIMIT takes.
            let sum: Vec<String> =
                self.amounts.iter().map(|amount| format!("({})::pg_catalog.numeric", amount.of(sql))).collect();
            let _ = write!(limit, " LIMIT least({}, {})::pg_catalog.int8", sum.join(" + "), i64::MAX);
        }
        let end = Span { start: self.list_end, end: self.list_end };
        let mut text = String::new();
        write_edited(&mut text, sql, &[(end, columns), (self.tail, limit)], 0, sql.len());
        text
    }

    /// The order, for the printed plan.
    pub(super) fn leaf(&self) -> String {
        let one = |key: &SortedBy| {
            let direction = if key.descending { " desc" } else { "" };
            let nulls = match (key.descending, key.nulls_first) {
                (true, false) => " nulls last",
                (false, true) => " nulls first",
                _ => "",
            };
            format!("{}{direction}{nulls}", key.column)
        };
        let keys: Vec<String> = self.keys.iter().map(one).collect();
        format!("merge by {}", keys.join(", "))
    }
}
