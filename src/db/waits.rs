//! Who waits for whom: on one server, and what instances tell each other of transactions over several.

use tokio_postgres::Client;

use super::fault::explain_failure;
use crate::error::Result;

/// Pairs of backends of which the first, one of `pids`, waits for the second, perhaps through others.
///
/// # Errors
/// The server is lost.
pub async fn blocked(client: &Client, pids: &[i32]) -> Result<Vec<(i32, i32)>> {
    let sql = "WITH RECURSIVE w (root, pid) AS ( \
                 SELECT p, pg_catalog.unnest(pg_catalog.pg_blocking_pids(p)) FROM pg_catalog.unnest($1::int4[]) AS u (p) \
                 UNION SELECT root, pg_catalog.unnest(pg_catalog.pg_blocking_pids(pid)) FROM w WHERE pid > 0) \
               SELECT root, pid FROM w";
    let rows = client.query(sql, &[&pids]).await;
    let rows = rows.map_err(|error| explain_failure(&error, "the server could not be asked who waits for whom"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Tells the other instances of transactions that wait (each with its backends), and asks what they have told lately.
///
/// # Errors
/// The server is lost, or `pgweir init` was not run on it.
pub async fn exchange(client: &Client, own: &[(String, String)]) -> Result<Vec<(String, String)>> {
    let failed = |error: tokio_postgres::Error| explain_failure(&error, "waiting transactions could not be exchanged");
    let (ids, backends): (Vec<&str>, Vec<&str>) = own.iter().map(|(id, at)| (id.as_str(), at.as_str())).unzip();
    let tell = "INSERT INTO pgweir.waits (transaction, backends) SELECT * FROM unnest($1::text[], $2::text[]) \
                ON CONFLICT (transaction) DO UPDATE SET backends = excluded.backends, seen = clock_timestamp()";
    client.execute(tell, &[&ids, &backends]).await.map_err(failed)?;
    let forget = "DELETE FROM pgweir.waits WHERE seen < clock_timestamp() - interval '1 minute'";
    client.execute(forget, &[]).await.map_err(failed)?;
    let ask = "SELECT transaction, backends FROM pgweir.waits WHERE seen > clock_timestamp() - interval '2500 ms'";
    let rows = client.query(ask, &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
