//! Decisions about transactions over shards, on the shards: `pgweir.commits`, and what is prepared there.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::fault::explain_failure;
use crate::error::Result;

/// What `pgweir init` creates on each shard.
pub const SCHEMA: &str = "\
CREATE SCHEMA IF NOT EXISTS pgweir;
CREATE TABLE IF NOT EXISTS pgweir.deployment (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    id text NOT NULL,
    shard text NOT NULL
);
CREATE TABLE IF NOT EXISTS pgweir.commits (
    gid text PRIMARY KEY,
    committed boolean NOT NULL,
    participants text[] NOT NULL,
    made timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS pgweir.confirmed (
    shard text PRIMARY KEY,
    until bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS pgweir.waits (
    transaction text PRIMARY KEY,
    backends text NOT NULL,
    seen timestamptz NOT NULL DEFAULT clock_timestamp()
);
";

const IS_INSTALLED: &str = "SELECT pg_catalog.to_regclass('pgweir.deployment') IS NOT NULL \
     AND pg_catalog.to_regclass('pgweir.commits') IS NOT NULL AND pg_catalog.to_regclass('pgweir.confirmed') IS NOT NULL \
     AND pg_catalog.to_regclass('pgweir.waits') IS NOT NULL";

/// What a session that decides must not be without, and how long it waits for a decider in flight.
const SESSION: &str = "SET synchronous_commit = 'on'; SET lock_timeout = '1s'; SET statement_timeout = '10s'; \
     SET search_path = 'pg_catalog'; SET default_transaction_isolation = 'read committed'";

/// What a shard says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The deployment it belongs to, and its name there; none before `pgweir init`.
    pub deployment: Option<(String, String)>,
    /// How many transactions may be prepared at once.
    pub max_prepared: i64,
}

/// A decision: its key, whether it is yes, and the shards that had prepared.
pub type Decision = (String, bool, Vec<String>);

/// The backend that is to decide something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Its process id.
    pub pid: i32,
    /// When it began, in microseconds since 1970.
    pub started_us: i64,
}

/// What a decision says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Committed.
    Yes,
    /// Not committed, and never to be.
    No,
    /// Not decided; the backend that would was told to end.
    InFlight,
    /// It is not there, and may have been swept.
    Swept,
}

/// SQL that makes a shard part of a deployment, for somebody who may create schemas; `role` is who pgweir logs in as.
pub fn script(id: &str, shard: &str, role: &str) -> String {
    let (role, id, shard) = (role.replace('"', "\"\""), id.replace('\'', "''"), shard.replace('\'', "''"));
    format!(
        "{SCHEMA}INSERT INTO pgweir.deployment (id, shard) VALUES ('{id}', '{shard}') ON CONFLICT DO NOTHING;\n\
         GRANT USAGE ON SCHEMA pgweir TO \"{role}\";\nGRANT SELECT ON pgweir.deployment TO \"{role}\";\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON pgweir.commits, pgweir.confirmed, pgweir.waits TO \"{role}\";\n"
    )
}

/// Readies a session for what follows.
///
/// # Errors
/// The server refuses, or is lost.
pub async fn open(client: &Client) -> Result<()> {
    client.batch_execute(SESSION).await.map_err(|error| explain_failure(&error, "the session could not be set up"))
}

/// Asks a shard what it is.
///
/// # Errors
/// The role may not read it, or the server is lost.
pub async fn standing(client: &Client) -> Result<Standing> {
    let failed = |error| explain_failure(&error, "the shard could not be asked for its deployment");
    let limit = "SELECT pg_catalog.current_setting('max_prepared_transactions')::int8";
    let max_prepared = client.query_one(limit, &[]).await.map_err(failed)?.get(0);
    let installed: bool = client.query_one(IS_INSTALLED, &[]).await.map_err(failed)?.get(0);
    if !installed {
        return Ok(Standing { deployment: None, max_prepared });
    }
    let row = client.query_opt("SELECT id, shard FROM pgweir.deployment", &[]).await.map_err(failed)?;
    Ok(Standing { deployment: row.map(|row| (row.get(0), row.get(1))), max_prepared })
}

/// Creates what is missing on a shard.
///
/// # Errors
/// The role may not create it.
pub async fn install(client: &Client, id: &str, shard: &str, role: &str) -> Result<()> {
    client.batch_execute(&script(id, shard, role)).await.map_err(|error| {
        explain_failure(&error, "the tables of pgweir could not be created")
            .hint("let somebody who may create schemas run what `pgweir init --print` prints for this shard")
    })
}

/// What is prepared in the database of `client` under names that begin with `prefix`: the name, and seconds since.
///
/// # Errors
/// The server is lost.
pub async fn prepared(client: &Client, prefix: &str) -> Result<Vec<(String, f64)>> {
    let sql = "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_catalog.pg_prepared_xacts \
               WHERE database = current_database() AND starts_with(gid, $1)";
    let rows = client.query(sql, &[&prefix]).await;
    let rows = rows.map_err(|error| explain_failure(&error, "prepared transactions could not be listed"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The server's clock, in microseconds since 1970, and decisions older than `seconds`, the oldest first.
///
/// # Errors
/// The server is lost.
pub async fn decisions(client: &Client, seconds: f64) -> Result<(i64, Vec<Decision>)> {
    let failed = |error| explain_failure(&error, "decisions could not be listed");
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
    let now: i64 = client.query_one(now, &[]).await.map_err(failed)?.get(0);
    let sql = "SELECT gid, committed, participants FROM pgweir.commits \
               WHERE made < clock_timestamp() - make_interval(secs => $1) ORDER BY made LIMIT 20000";
    let rows = client.query(sql, &[&seconds]).await.map_err(failed)?;
    Ok((now, rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()))
}

/// Takes decisions away, and notes for each participant up to when.
///
/// # Errors
/// The server is lost.
pub async fn sweep(client: &Client, keys: &[String], confirmed: &[(String, i64)]) -> Result<()> {
    let (shards, until): (Vec<&str>, Vec<i64>) =
        confirmed.iter().map(|(shard, until)| (shard.as_str(), *until)).unzip();
    let sql = "WITH noted AS (INSERT INTO pgweir.confirmed AS c \
                 SELECT shard, max(until) FROM unnest($2::text[], $3::int8[]) AS n (shard, until) GROUP BY shard \
                 ON CONFLICT (shard) DO UPDATE SET until = greatest(c.until, excluded.until)) \
               DELETE FROM pgweir.commits WHERE gid = ANY ($1)";
    let done = client.execute(sql, &[&keys, &shards, &until]).await;
    done.map(drop).map_err(|error| explain_failure(&error, "decisions could not be swept"))
}

/// Writes something: what the server did before cannot be lost when this returns, on its synchronous standbys neither.
///
/// # Errors
/// The server is lost.
pub async fn persist(client: &Client) -> Result<()> {
    let done = client.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'pgweir', '')", &[]).await;
    done.map(drop).map_err(|error| explain_failure(&error, "nothing could be written"))
}

/// Whether the backend is there.
///
/// # Errors
/// The server is lost.
pub async fn lives(client: &Client, backend: Backend) -> Result<bool> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE pid = $1 \
               AND coalesce((extract(epoch FROM backend_start) * 1000000)::int8 = $2, true)";
    let row = client.query_one(sql, &[&backend.pid, &backend.started_us]).await;
    let row = row.map_err(|error| explain_failure(&error, "backends could not be listed"))?;
    Ok(row.get::<_, i64>(0) > 0)
}

/// The decision under `key`, for good: where there is none, it is no. While the decider is still at it, its backend
/// is told to end, so that the next try succeeds. `participants` have prepared it, `asked_us` is when it began.
///
/// # Errors
/// The server is lost, or refuses.
pub async fn fence(
    client: &Client,
    key: &str,
    decider: Backend,
    participants: &[&str],
    asked_us: i64,
) -> Result<Verdict> {
    let failed = |error: tokio_postgres::Error| explain_failure(&error, "the decision could not be found out");
    let no = "INSERT INTO pgweir.commits (gid, committed, participants) SELECT $1, false, '{}' \
              WHERE NOT EXISTS (SELECT FROM pgweir.confirmed WHERE shard = ANY ($2) AND until > $3) \
              ON CONFLICT DO NOTHING";
    match client.execute(no, &[&key, &participants, &asked_us]).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE pid = $1 \
                       AND (extract(epoch FROM backend_start) * 1000000)::int8 = $2";
            client.query(end, &[&decider.pid, &decider.started_us]).await.map_err(failed)?;
            return Ok(Verdict::InFlight);
        }
        Err(error) => return Err(failed(error)),
    }
    let row = client.query_opt("SELECT committed FROM pgweir.commits WHERE gid = $1", &[&key]).await.map_err(failed)?;
    match row.map(|row| row.get::<_, bool>(0)) {
        None => Ok(Verdict::Swept),
        Some(false) => Ok(Verdict::No),
        Some(true) => {
            // It may have become visible before a synchronous standby had it, if its backend was told to end. This comes
            // after it in the log, and waits for the standby.
            persist(client).await?;
            Ok(Verdict::Yes)
        }
    }
}

/// Ends a prepared transaction. One that is not there any more was ended by somebody else, in the same way.
///
/// # Errors
/// The server is lost, or refuses.
pub async fn end(client: &Client, gid: &str, commit: bool) -> Result<()> {
    let command = if commit { "COMMIT" } else { "ROLLBACK" };
    let gid = gid.replace('\'', "''");
    match client.batch_execute(&format!("{command} PREPARED '{gid}'")).await {
        Err(error) if error.code() != Some(&SqlState::UNDEFINED_OBJECT) => {
            Err(explain_failure(&error, "a prepared transaction could not be ended"))
        }
        _ => Ok(()),
    }
}
