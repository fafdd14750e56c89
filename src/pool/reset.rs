//! Makes a connection clean again after statements whose effects on the session are not known.

use std::sync::Arc;
use std::time::Duration;

use crate::net::dialogue::Dialogue;
use crate::pool::Pool;
use crate::pool::server::ServerConn;
use crate::pool::settings::{Settings, difference};
use crate::wire::body::{Reader, error_fields};
use crate::wire::frame::MAX_BODY;
use crate::wire::message::{self, Failure};

/// Longest a reset may take before the connection is closed instead.
const LIMIT: Duration = Duration::from_secs(5);

/// What a connection needs before another client may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hygiene {
    /// Nothing.
    #[default]
    Clean,
    /// Everything a session can hold must go.
    Discard,
}

impl Pool {
    /// Gives a connection back that needs `hygiene` first. It must be idle, outside a transaction.
    pub fn release_after(self: &Arc<Self>, conn: Box<ServerConn>, hygiene: Hygiene) {
        if conn.cancel.is_in_doubt() {
            return self.discard(conn);
        }
        if hygiene == Hygiene::Clean && !conn.cancel.is_under_way() {
            return self.release(conn);
        }
        let pool = self.clone();
        let home = conn.home;
        tokio::spawn(async move {
            // A cancel request that is still on its way must not hit the next client's statement.
            conn.cancel.settled().await;
            if conn.cancel.is_in_doubt() {
                return pool.discard(conn);
            }
            if hygiene == Hygiene::Clean {
                return pool.release(conn);
            }
            match tokio::time::timeout(LIMIT, pool.discard_all(conn)).await {
                Ok(Some(conn)) => pool.release(conn),
                _ => pool.lost(home),
            }
        });
    }

    /// DISCARD ALL; `None` (and the socket closed) when that did not work.
    async fn discard_all(&self, mut conn: Box<ServerConn>) -> Option<Box<ServerConn>> {
        self.command(&mut conn, b"DISCARD ALL").await.ok()?;
        conn.state.prepared.clear();
        conn.state.settings = self.interned.settings.intern(Settings::new());
        conn.state.forget_unnamed();
        conn.state.drawn = 0;
        Some(conn)
    }

    /// Makes a connection's settings these.
    ///
    /// # Errors
    /// The server's own error, as one that ends the connection of whoever asked for such settings.
    pub async fn apply(&self, conn: &mut ServerConn, settings: &Arc<Settings>) -> Result<(), Failure> {
        let sql = difference(&conn.state.settings, settings);
        if !sql.is_empty() {
            self.command(conn, sql.as_bytes()).await?;
            conn.state.settings = settings.clone();
        }
        Ok(())
    }

    /// A query's rows, each value as text.
    ///
    /// # Errors
    /// The query failed, or the connection is lost.
    pub async fn rows(&self, conn: &mut ServerConn, sql: &[u8]) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let mut rows = Vec::new();
        self.run(conn, sql, |body| rows.push(values(body))).await?;
        Ok(rows)
    }

    async fn command(&self, conn: &mut ServerConn, sql: &[u8]) -> Result<(), Failure> {
        self.run(conn, sql, |_| {}).await
    }

    /// Runs SQL of our own on an idle connection and follows what the server reports; `row` sees each DataRow.
    async fn run(&self, conn: &mut ServerConn, sql: &[u8], mut row: impl FnMut(&[u8])) -> Result<(), Failure> {
        let lost = |_| Failure::fatal("08006", "the connection to the server was lost");
        let mut out = Vec::new();
        message::query(&mut out, sql);
        conn.state.forget_unnamed();
        let mut dialogue = Dialogue::over(&mut conn.stream);
        dialogue.send(&out).await.map_err(lost)?;
        let mut values = (*conn.state.reported).clone();
        let mut error = None;
        loop {
            let (tag, body) = dialogue.frame(MAX_BODY).await.map_err(lost)?;
            let mut reader = Reader::new(&body);
            match tag {
                b'S' => {
                    let mut text = || reader.cstr().map(|text| String::from_utf8_lossy(text).into_owned());
                    if let (Ok(name), Ok(value)) = (text(), text()) {
                        report(&mut values, name, value);
                    }
                }
                b'E' => error = Some(server_failure(&body)),
                b'Z' if body == b"I" && dialogue.pending.is_empty() => break,
                b'D' => row(&body),
                b'C' | b'N' | b'A' | b'T' | b'I' => {}
                _ => return Err(Failure::fatal("08P01", "the server broke the protocol")),
            }
        }
        conn.state.reported = self.interned.reported.intern(values);
        error.map_or(Ok(()), Err)
    }
}

/// The values of a DataRow, as text; those that are not whole are left out.
pub fn values(body: &[u8]) -> Vec<Option<String>> {
    let mut reader = Reader::new(body);
    let count = reader.u16().unwrap_or(0);
    let value = |_| match reader.u32() {
        Ok(u32::MAX) => Some(None),
        Ok(length) => reader.bytes(length as usize).ok().map(|text| Some(String::from_utf8_lossy(text).into_owned())),
        Err(_) => None,
    };
    (0..count).map_while(value).collect()
}

/// A server's error as one of ours, for a session that has not begun.
fn server_failure(body: &[u8]) -> Failure {
    let fields = error_fields(body);
    // SQLSTATEs are static in ours; these are what a session's settings can cause.
    let known = ["22023", "42704", "42501", "55P02", "42602", "22007", "57P01", "57P03", "53300"];
    let code = known.into_iter().find(|code| code.as_bytes() == fields.code).unwrap_or("08006");
    Failure::fatal(code, String::from_utf8_lossy(fields.message))
}

/// Notes a ParameterStatus.
pub fn report(values: &mut Vec<(String, String)>, name: String, value: String) {
    match values.binary_search_by(|(other, _)| other.cmp(&name)) {
        Ok(at) => {
            if let Some(slot) = values.get_mut(at) {
                slot.1 = value;
            }
        }
        Err(at) => values.insert(at, (name, value)),
    }
}
