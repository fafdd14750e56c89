//! Statements on a cluster of ours, blocking, from any thread.

use tokio::runtime::Builder;
use tokio_postgres::SimpleQueryMessage;

use super::super::connect::Target;
use crate::db::explain_failure;
use crate::error::{Error, Result};

/// The rows of every statement of a simple query, as text.
pub(super) type TextRows = Vec<Vec<Option<String>>>;

/// Runs `sql` (one or more statements) on the server of `url`.
///
/// The conversation has a thread of its own, because a runtime cannot block inside another.
pub(super) fn query_text(url: &str, sql: &str) -> Result<TextRows> {
    std::thread::scope(|scope| {
        let conversation = scope.spawn(|| {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Error::internal(format!("the runtime could not be started: {error}")))?;
            runtime.block_on(converse(url, sql))
        });
        conversation.join().unwrap_or_else(|_| Err(Error::internal("the conversation with PostgreSQL panicked")))
    })
}

async fn converse(url: &str, sql: &str) -> Result<TextRows> {
    let target = Target::parse(url)?;
    let client = target.connect().await?;
    let messages = client
        .simple_query(sql)
        .await
        .map_err(|error| explain_failure(&error, "the statement failed").at(target.label()))?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}
