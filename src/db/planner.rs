//! Plans of statements without running them.
//!
//! Each plan is asked for in a short transaction of its own that is READ ONLY and has a statement and a
//! lock timeout, and that ends with ROLLBACK, so that the AccessShare locks planning takes are let go at once.
//! EXPLAIN never gets ANALYZE. What comes from a log is untrusted: it travels by the extended protocol, whose
//! Parse message takes exactly one statement, behind `EXPLAIN (..)` or `PREPARE .. AS`, whose grammar
//! takes no transaction control and no utility commands; values travel as bound parameters.
//!
//! A statement with `$n` is planned generically (`plan_cache_mode = force_generic_plan`, which works on every
//! supported version and needs no values), or with the values a log recorded.

use bytes::BytesMut;
use serde_json::Value;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error as PgError, Row};

use super::fault::{explain_failure, short};
use crate::error::Error;
use crate::sql::explain::PlanNode;

/// How long one plan may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds until the server gives up a plan.
    pub statement_timeout_ms: u32,
    /// Milliseconds a plan waits for someone's strong lock.
    pub lock_timeout_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { statement_timeout_ms: 5_000, lock_timeout_ms: 500 }
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanFailure {
    /// Not a statement that has a plan (SELECT, VALUES, INSERT, UPDATE, DELETE, MERGE), and so never sent.
    NotPlannable(String),
    /// The server refused it: a table is gone, the type of `$1` cannot be told, a timeout. What it said.
    Refused(String),
    /// The connection is gone: no further plan will come.
    Lost(Error),
}

impl std::fmt::Display for PlanFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotPlannable(word) => write!(f, "{word} has no plan"),
            Self::Refused(said) => f.write_str(said),
            Self::Lost(error) => write!(f, "{error}"),
        }
    }
}

/// Asks one connection's server for plans.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    client: &'a Client,
    limits: Limits,
}

/// The name of the one prepared statement; it never outlives the transaction that made it.
const PREPARED: &str = "pgweir_plan";

impl<'a> Planner<'a> {
    /// A planner on `client`, which must not be inside a transaction.
    pub fn new(client: &'a Client, limits: Limits) -> Self {
        Self { client, limits }
    }

    /// The plan PostgreSQL would use whatever the values of `$n` are; for a statement without `$n`, its plan.
    ///
    /// # Errors
    /// See [`PlanFailure`].
    pub async fn generic(&self, sql: &str) -> Result<PlanNode, PlanFailure> {
        plannable(sql)?;
        let begin = self.begin("; set local plan_cache_mode = 'force_generic_plan'");
        let prepare = format!("PREPARE {PREPARED} AS {sql}");
        let count = format!(
            "select cardinality(parameter_types) from pg_catalog.pg_prepared_statements where name = '{PREPARED}'"
        );
        let (begun, prepared, counted) = tokio::join!(
            self.client.batch_execute(&begin),
            self.client.query_typed(&prepare, &[]),
            self.client.query_typed(&count, &[])
        );
        let outcome = begun.and(prepared).and(counted);
        let parameters = match outcome {
            Ok(rows) => rows.first().and_then(|row| row.try_get::<_, i32>(0).ok()).unwrap_or(0),
            Err(error) => {
                let ended = self.client.batch_execute("rollback").await;
                return Err(self.failure(&ended.err().unwrap_or(error)));
            }
        };
        let nulls = vec!["NULL"; usize::try_from(parameters).unwrap_or(0)].join(", ");
        let arguments = if nulls.is_empty() { String::new() } else { format!(" ({nulls})") };
        let explain = format!("EXPLAIN (FORMAT JSON, VERBOSE) EXECUTE {PREPARED}{arguments}");
        // The savepoint lets DEALLOCATE through after a failed EXPLAIN: behind a pooler nothing may stay behind.
        let finish = format!("rollback to savepoint pgweir; deallocate {PREPARED}; rollback");
        let (saved, explained, finished) = tokio::join!(
            self.client.batch_execute("savepoint pgweir"),
            self.client.query_typed(&explain, &[]),
            self.client.batch_execute(&finish)
        );
        let rows = saved.and(explained).map_err(|error| self.failure(&error))?;
        finished.map_err(|error| self.failure(&error))?;
        plan_of(&rows)
    }

    /// The plan for exactly these values: the constants in the text, and `parameters` for `$1`, `$2`, .. in their text
    /// form (`None` is NULL).
    ///
    /// # Errors
    /// See [`PlanFailure`]; a wrong number of parameters is [`PlanFailure::Refused`].
    pub async fn custom(&self, sql: &str, parameters: &[Option<&str>]) -> Result<PlanNode, PlanFailure> {
        plannable(sql)?;
        let values: Vec<TextValue<'_>> = parameters.iter().copied().map(TextValue).collect();
        let typed: Vec<(&(dyn ToSql + Sync), Type)> =
            values.iter().map(|value| (value as &(dyn ToSql + Sync), Type::UNKNOWN)).collect();
        let explain = format!("EXPLAIN (FORMAT JSON, VERBOSE) {sql}");
        let begin = self.begin("");
        let (begun, explained, ended) = tokio::join!(
            self.client.batch_execute(&begin),
            self.client.query_typed(&explain, &typed),
            self.client.batch_execute("rollback")
        );
        let rows = begun.and(explained).map_err(|error| self.failure(&error))?;
        ended.map_err(|error| self.failure(&error))?;
        plan_of(&rows)
    }

    fn begin(&self, more: &str) -> String {
        let Limits { statement_timeout_ms, lock_timeout_ms } = self.limits;
        format!(
            "begin read only; set local statement_timeout = {statement_timeout_ms}; set local lock_timeout = {lock_timeout_ms}{more}"
        )
    }

    fn failure(&self, error: &PgError) -> PlanFailure {
        if self.client.is_closed() || error.is_closed() {
            return PlanFailure::Lost(explain_failure(error, "the server went away while it was asked for a plan"));
        }
        PlanFailure::Refused(short(error))
    }
}

fn plan_of(rows: &[Row]) -> Result<PlanNode, PlanFailure> {
    let document: Option<Value> = rows.first().and_then(|row| row.try_get(0).ok());
    document
        .as_ref()
        .and_then(PlanNode::from_json)
        .ok_or_else(|| PlanFailure::Refused("EXPLAIN answered something that is not a plan".to_owned()))
}

/// Lets through what EXPLAIN may be asked about. The server's grammar is the real guard (see the module's head);
/// this one saves the round trip and words the reason.
fn plannable(sql: &str) -> Result<(), PlanFailure> {
    let word = leading_word(sql).to_ascii_uppercase();
    match word.as_str() {
        "SELECT" | "VALUES" | "TABLE" | "WITH" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" => Ok(()),
        "" => Err(PlanFailure::NotPlannable("an empty statement".to_owned())),
        _ => Err(PlanFailure::NotPlannable(word)),
    }
}

/// The first word after blanks, comments and opening parentheses.
fn leading_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once(['\n', '\r']).map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = after_block_comment(comment);
        } else {
            break;
        }
    }
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    rest.get(..end).unwrap_or("")
}

/// What follows a block comment whose opening is already gone; PostgreSQL's nest.
fn after_block_comment(text: &str) -> &str {
    let mut depth = 1_u32;
    let mut rest = text;
    while depth > 0 {
        let Some(at) = rest.find(['*', '/']) else { return "" };
        rest = rest.get(at..).unwrap_or("");
        if let Some(after) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else {
            rest = rest.get(1..).unwrap_or("");
        }
    }
    rest
}

/// A value in its text form, for a parameter of any type.
#[derive(Debug)]
struct TextValue<'a>(Option<&'a str>);

impl ToSql for TextValue<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.0 {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_through_what_has_a_plan() {
        for sql in [
            "select 1",
            " /* a /* b */ c */ -- d\n ((SELECT 1))",
            "with a as (select 1) table a",
            "values (1)",
            "MERGE into t",
        ] {
            assert_eq!(plannable(sql), Ok(()), "{sql}");
        }
        for sql in [
            "",
            "-- select",
            "/* select */",
            "/* /* */ select 1",
            "drop table t",
            "analyze select 1",
            "explain select 1",
            "selects",
            "é",
        ] {
            assert!(plannable(sql).is_err(), "{sql}");
        }
    }
}
