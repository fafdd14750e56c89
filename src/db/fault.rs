//! What a server's refusal means for the reader: the message, and what to do about it.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use crate::error::Error;

/// Turns a driver's error into ours: `what`, then what the server (or the system) said, and a hint where one helps.
pub fn explain_failure(error: &tokio_postgres::Error, what: &str) -> Error {
    let Some(db) = error.as_db_error() else {
        return Error::server(format!("{what}: {}", innermost(error))).hint(
            "check the host and port in the URL, that the server runs, and that a firewall or pg_hba.conf lets you in",
        );
    };
    let mut answer = Error::server(format!("{what}: {} (SQLSTATE {})", db.message(), db.code().code()));
    if let Some(hint) = hint(db.code()).map(str::to_owned).or_else(|| db.hint().map(str::to_owned)) {
        answer = answer.hint(hint);
    }
    answer
}

/// One line of what a server said, for lists of skipped statements.
pub(super) fn short(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => innermost(error),
    }
}

/// The driver's own words are as general as "error connecting to server"; the cause is inside.
fn innermost(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

fn hint(code: &SqlState) -> Option<&'static str> {
    Some(match code.code() {
        "28P01" => "check the user and the password in the URL (or in PGPASSWORD)",
        "28000" => "the role does not exist, or pg_hba.conf refuses this user, database or address",
        "3D000" => "check the database's name at the end of the URL",
        "53300" => "the server has no connection left: raise max_connections or close some",
        "57P03" => "the server is starting or stopping: try again in a moment",
        "42501" => "connect as a role that may read this, for example a member of pg_monitor",
        "55P03" => "someone holds a strong lock on a table (ALTER TABLE, VACUUM FULL): try again when it is done",
        "57014" => "it took longer than the statement timeout: try again when the server is less busy",
        _ => return None,
    })
}
