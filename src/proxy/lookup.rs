//! Looks up users who are not in the configuration on the server (`auth_query`).
//!
//! The query runs on a connection of its own, whose session begins with a `search_path` that nobody can
//! plant anything in; a client's settings never reach it, and its name only as a parameter.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::net::connect::{Link, ServerTarget, connect_with};
use crate::net::dialogue::Dialogue;
use crate::net::scram::Verifier;
use crate::proxy::account::Account;
use crate::wire::body::{Reader, error_fields};
use crate::wire::message::{self, Failure};

/// What every session begins with. `pg_temp` stands last, or temporary tables would be found first.
const SETTINGS: &[(&str, &str)] =
    &[("search_path", "pg_catalog, pg_temp"), ("client_encoding", "UTF8"), ("application_name", "pgweir auth_query")];
/// Longest message of an answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Most messages of an answer.
const MAX_MESSAGES: usize = 100;
/// Most users whose answers are remembered.
const MAX_KNOWN: usize = 10_000;

/// Answers by the user's name, and when they were given; `None` for nobody.
type Known = HashMap<String, (Instant, Option<Arc<Account>>)>;

/// The users of one server.
#[derive(Debug)]
pub struct Lookup {
    target: ServerTarget,
    query: String,
    cache: Duration,
    known: Mutex<Known>,
    /// One question at a time, over one connection that stays open.
    link: tokio::sync::Mutex<Option<Link>>,
}

impl Lookup {
    /// Asks `target` with this query; answers are good for `cache`.
    pub fn new(target: ServerTarget, query: String, cache: Duration) -> Self {
        Self { target, query, cache, known: Mutex::default(), link: tokio::sync::Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, user: &str) -> Option<Option<Arc<Account>>> {
        let known = self.known();
        known.get(user).filter(|(since, _)| since.elapsed() < self.cache).map(|(_, account)| account.clone())
    }

    /// The account of `user`, if the server knows one who may log in with a password.
    ///
    /// # Errors
    /// The server could not be asked.
    pub async fn find(&self, user: &str, mock: impl Fn() -> Verifier) -> Result<Option<Arc<Account>>, Failure> {
        if let Some(account) = self.remembered(user) {
            return Ok(account);
        }
        let mut link = self.link.lock().await;
        // Another client of that name may have asked meanwhile.
        if let Some(account) = self.remembered(user) {
            return Ok(account);
        }
        let asked = tokio::time::timeout(self.target.timeout, self.ask(&mut link, user)).await;
        let rows = asked.unwrap_or_else(|_| Err("no answer in time".to_owned())).map_err(|error| {
            *link = None;
            tracing::warn!(server = ?self.target, error, "auth_query failed");
            Failure::fatal("08006", "the user could not be looked up").hint("see pgweir's log")
        })?;
        let account = account(user, &rows, mock);
        self.remember(user, account.clone());
        Ok(account)
    }

    fn remember(&self, user: &str, account: Option<Arc<Account>>) {
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, (since, _)| since.elapsed() < self.cache);
        }
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(user.to_owned(), (Instant::now(), account));
    }

    /// Asks over the open connection; over a new one where there is none, or where it turns out to be lost.
    async fn ask(&self, slot: &mut Option<Link>, user: &str) -> Result<Vec<Row>, String> {
        // The connection may have been opened on another worker's event loop.
        let open = slot.take().and_then(|link| link.stream.rehome().ok().map(|stream| Link { stream, ..link }));
        if let Some(mut link) = open {
            match rows(&mut link, &self.query, user).await {
                Ok(answer) => {
                    *slot = Some(link);
                    return answer;
                }
                Err(error) => tracing::debug!(%error, "the auth_query connection was lost"),
            }
        }
        let mut link = connect_with(&self.target, SETTINGS).await.map_err(|error| error.message)?;
        let answer = rows(&mut link, &self.query, user).await.map_err(|error| error.to_string())?;
        *slot = Some(link);
        answer
    }
}

/// A row's name and secret.
type Row = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Runs the query. The outer error is the connection's, the inner one the server's.
async fn rows(link: &mut Link, query: &str, user: &str) -> io::Result<Result<Vec<Row>, String>> {
    let mut out = Vec::new();
    message::parse(&mut out, b"", &[query.as_bytes(), b"\0\0\0"].concat());
    message::frame(&mut out, b'B', |out| {
        out.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&u32::try_from(user.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(user.as_bytes());
        out.extend_from_slice(&[0, 0]);
    });
    message::execute(&mut out, b"");
    message::sync(&mut out);
    let mut dialogue = Dialogue::over(&mut link.stream);
    dialogue.send(&out).await?;
    let (mut rows, mut error) = (Vec::new(), None);
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the server broke the protocol");
    for _ in 0..MAX_MESSAGES {
        let (tag, body) = dialogue.frame(MAX_ANSWER).await?;
        match tag {
            b'D' => rows.push(row(&body).ok_or_else(broken)?),
            b'E' => {
                let fields = error_fields(&body);
                if fields.severity != b"ERROR" {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                error = Some(String::from_utf8_lossy(fields.message).into_owned());
            }
            b'Z' if body == b"I" && dialogue.pending.is_empty() => return Ok(error.map_or(Ok(rows), Err)),
            b'1' | b'2' | b'C' | b'N' | b'S' | b'A' | b's' => {}
            _ => return Err(broken()),
        }
    }
    Err(broken())
}

fn row(body: &[u8]) -> Option<Row> {
    let mut reader = Reader::new(body);
    let columns = reader.u16().ok()?;
    let mut value = || match reader.u32() {
        Ok(u32::MAX) => Some(None),
        Ok(length) => reader.bytes(length as usize).ok().map(|bytes| Some(bytes.to_vec())),
        Err(_) => None,
    };
    if columns < 2 { None } else { Some((value()?, value()?)) }
}

/// The account in an answer. What cannot be understood is nobody's, and is logged.
fn account(user: &str, rows: &[Row], mock: impl Fn() -> Verifier) -> Option<Arc<Account>> {
    let (name, secret) = match rows {
        [] => return None,
        [row] => row,
        _ => {
            tracing::warn!(user, "auth_query gave several rows for one user, who is refused");
            return None;
        }
    };
    if name.as_deref() != Some(user.as_bytes()) {
        tracing::warn!(user, "auth_query gave another user than it was asked for, who is refused");
        return None;
    }
    let secret = std::str::from_utf8(secret.as_deref()?).ok().filter(|secret| !secret.is_empty())?;
    let account = Account::of_secret(user, secret, mock);
    if account.is_none() {
        tracing::warn!(user, "auth_query gave a secret that is no SCRAM verifier, MD5 hash or password");
    }
    account.map(Arc::new)
}

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::*;

    #[test]
    fn only_the_one_row_of_that_user_counts() {
        let mock = || Verifier::mock(&hmac::Key::new(hmac::HMAC_SHA256, b"x"), "app");
        let row = |name: &str, secret: Option<&str>| {
            (Some(name.as_bytes().to_vec()), secret.map(|secret| secret.as_bytes().to_vec()))
        };
        assert!(account("app", &[row("app", Some("secret"))], mock).is_some());
        assert!(account("app", &[], mock).is_none());
        assert!(account("app", &[row("app", None)], mock).is_none());
        assert!(account("app", &[row("app", Some(""))], mock).is_none());
        assert!(account("app", &[row("postgres", Some("secret"))], mock).is_none());
        assert!(account("app", &[(None, Some(b"secret".to_vec()))], mock).is_none());
        assert!(account("app", &[row("app", Some("a")), row("app", Some("b"))], mock).is_none());
        assert!(account("app", &[row("app", Some("SCRAM-SHA-256$broken"))], mock).is_none());
    }
}
