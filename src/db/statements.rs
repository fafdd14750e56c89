//! Reads the workload that pg_stat_statements has gathered for the connected database.

use tokio_postgres::Row;

use super::blocking::Session;
use super::fault::explain_failure;
use crate::error::{Error, Result};
use crate::sql::ident::quote;

/// One normalized statement with its counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The text, with `$n` for constants.
    pub sql: String,
    /// Executions since the counts were reset.
    pub calls: u64,
    /// Their time in milliseconds.
    pub total_ms: f64,
    /// Rows they gave or changed.
    pub rows: u64,
}

/// What is known of the server's own counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counting {
    /// The connected database.
    pub database: String,
    /// Since when index scans are counted, as the server writes it; `None`: since the database was made.
    pub since: Option<String>,
    /// How many days that is.
    pub days: Option<i64>,
    /// The server is a standby, which counts only its own scans.
    pub standby: bool,
}

const EXTENSION: &str = "
select n.nspname::text, exists (
         select from pg_catalog.pg_attribute a
         where a.attrelid = pg_catalog.to_regclass(pg_catalog.quote_ident(n.nspname) || '.pg_stat_statements')
           and a.attname = 'total_exec_time')
from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
where e.extname = 'pg_stat_statements'";

/// Statements of the connected database, most time first.
///
/// # Errors
/// The extension is not there or not loaded, or the role may not read it.
pub fn load(session: &Session) -> Result<Vec<Counted>> {
    let failure =
        |error: tokio_postgres::Error| explain_failure(&error, "reading pg_stat_statements failed").at(session.label());
    let found = session.block_on(|client| client.query_opt(EXTENSION, &[])).map_err(failure)?;
    let Some(extension) = found else {
        return Err(Error::server("this database does not have pg_stat_statements").at(session.label()).hint(
            "add it to shared_preload_libraries, restart, run CREATE EXTENSION pg_stat_statements, and come back when a \
             typical load has run; or give a log with --log",
        ));
    };
    let schema: String = extension.try_get(0).map_err(failure)?;
    // PostgreSQL 13 split planning time off and renamed the column.
    let time = if extension.try_get(1).map_err(failure)? { "total_exec_time" } else { "total_time" };
    let sql = format!(
        "select query, sum(calls)::int8, sum({time})::float8, sum(rows)::int8
         from {}.pg_stat_statements
         where dbid = (select oid from pg_catalog.pg_database where datname = current_database())
           and query is not null and query <> '<insufficient privilege>'
         group by query order by 3 desc, 1",
        quote(&schema)
    );
    let rows = session.block_on(|client| async move { client.query(&sql, &[]).await }).map_err(failure)?;
    rows.iter().map(|row| counted(row).map_err(failure)).collect()
}

fn counted(row: &Row) -> Result<Counted, tokio_postgres::Error> {
    let count = |at| row.try_get::<_, i64>(at).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(Counted { sql: row.try_get(0)?, calls: count(1)?, total_ms: row.try_get(2)?, rows: count(3)? })
}

/// Which database this is, and since when its index scans are counted.
///
/// # Errors
/// The server cannot be asked.
pub fn counting(session: &Session) -> Result<Counting> {
    const QUESTION: &str = "
        select current_database()::text, date_trunc('second', stats_reset)::text,
               extract(day from now() - stats_reset)::int8, pg_is_in_recovery()
        from pg_catalog.pg_stat_database where datname = current_database()";
    let failure = |error: tokio_postgres::Error| {
        explain_failure(&error, "asking for the age of the statistics failed").at(session.label())
    };
    let row = session.block_on(|client| client.query_one(QUESTION, &[])).map_err(failure)?;
    Ok(Counting {
        database: row.try_get(0).map_err(failure)?,
        since: row.try_get(1).map_err(failure)?,
        days: row.try_get(2).map_err(failure)?,
        standby: row.try_get(3).map_err(failure)?,
    })
}
