//! Asks each server of a fleet, a few times a second, how it is.
//!
//! One task and one connection per server. A connection that breaks is noticed at once, not at the next question; one that
//! cannot be opened is tried again with growing pauses.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::net::connect::{ServerTarget, connect};
use crate::net::dialogue::Dialogue;
use crate::pool::fleet::{Fleet, Report};
use crate::wire::body::{Reader, error_fields};
use crate::wire::message;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Pauses between attempts to connect grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));
/// Longest message of an answer.
const MAX_ANSWER: usize = 64 << 20;

/// One row; `pg_walfile_name` begins with the timeline that a primary writes, right after a promotion too.
const QUESTION: &str = "SELECT s.r, \
     CASE WHEN NOT s.r THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0') END, \
     CASE WHEN NOT s.r THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0') END, \
     CASE WHEN s.r THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0') END, \
     CASE WHEN s.r THEN (SELECT pg_catalog.to_hex(received_tli) FROM pg_catalog.pg_stat_wal_receiver) \
          ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END, \
     (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
     pg_catalog.current_setting('default_transaction_isolation'), pg_catalog.current_setting('wal_writer_delay') \
     FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) s";

/// Starts the tasks that ask the servers, on the calling thread's event loop; they end with the fleet.
pub fn watch(fleet: &Arc<Fleet>, targets: impl IntoIterator<Item = Arc<ServerTarget>>) {
    for (server, target) in targets.into_iter().enumerate() {
        let mut target = (*target).clone();
        target.timeout = target.timeout.min(LIMIT);
        tokio::spawn(look_after(Arc::downgrade(fleet), server, target));
    }
}

async fn look_after(fleet: Weak<Fleet>, server: usize, target: ServerTarget) {
    let mut pause = PAUSES.0;
    loop {
        let failed = match connect(&target).await {
            Ok(link) => {
                pause = PAUSES.0;
                let mut dialogue = Dialogue::new(link.stream);
                let ended = ask_on(&fleet, server, &mut dialogue).await;
                let _ = dialogue.send(b"X\0\0\0\x04").await;
                match ended {
                    Ended::Gone => return,
                    // Perhaps only this connection was lost: a new one tells.
                    Ended::Broken if pause == PAUSES.0 => match connect(&target).await {
                        Ok(_) => continue,
                        Err(error) => error.message,
                    },
                    Ended::Broken => "it ended the connection".to_owned(),
                    Ended::Failed(failed) => failed,
                }
            }
            Err(error) => error.message,
        };
        let Some(fleet) = fleet.upgrade() else { return };
        let number = fleet.begin();
        fleet.note(server, number, Instant::now(), Err(failed));
        // Not all proxies at once, when a server comes back.
        let jitter = f64::from(u32::try_from(number % 64).unwrap_or_default()) / 128.0;
        let pausing = pause.mul_f64(0.75 + jitter);
        pause = (pause * 2).min(PAUSES.1);
        drop(fleet);
        tokio::time::sleep(pausing).await;
    }
}

/// Why asking over a connection came to its end.
enum Ended {
    /// Nobody wants to know any more.
    Gone,
    /// The connection broke.
    Broken,
    /// The server did not answer, or not as expected.
    Failed(String),
}

/// Asks over one connection until that breaks.
async fn ask_on(fleet: &Weak<Fleet>, server: usize, dialogue: &mut Dialogue) -> Ended {
    loop {
        let Some(fleet) = fleet.upgrade() else { return Ended::Gone };
        let (number, begun) = (fleet.begin(), Instant::now());
        match tokio::time::timeout(LIMIT, ask(dialogue, QUESTION)).await {
            Ok(Ok(rows)) => match rows.first().and_then(report) {
                Some(report) => fleet.note(server, number, begun, Ok(report)),
                None => return Ended::Failed("it answered in an unknown way".to_owned()),
            },
            // A server that is being promoted in the middle of the question cannot answer it.
            Ok(Err(Unanswered::Refused(reason))) => return Ended::Failed(reason),
            Ok(Err(Unanswered::Lost)) => return Ended::Broken,
            Err(_) => return Ended::Failed(format!("no answer within {} s", LIMIT.as_secs())),
        }
        tokio::select! {
            () = tokio::time::sleep(fleet.options.check_interval) => {}
            () = fleet.suspected(server) => {}
            said = dialogue.frame(MAX_ANSWER) => match said {
                // Settings were changed, or a notice.
                Ok((b'S' | b'N', _)) => {}
                _ => return Ended::Broken,
            }
        }
    }
}

/// Why there are no rows.
#[derive(Debug)]
pub enum Unanswered {
    /// The server's own error.
    Refused(String),
    /// The connection broke.
    Lost,
}

/// A row of text values.
pub type Row = Vec<Option<String>>;

/// Runs one statement of ours and gives its rows.
///
/// # Errors
/// The server refused it, or the connection broke.
pub async fn ask(dialogue: &mut Dialogue, sql: &str) -> Result<Vec<Row>, Unanswered> {
    let mut out = Vec::new();
    message::query(&mut out, sql.as_bytes());
    dialogue.send(&out).await.map_err(|_| Unanswered::Lost)?;
    let (mut rows, mut failed) = (Vec::new(), None);
    loop {
        let (tag, body) = dialogue.frame(MAX_ANSWER).await.map_err(|_| Unanswered::Lost)?;
        match tag {
            b'D' => rows.push(row(&body).ok_or(Unanswered::Lost)?),
            b'E' => failed = Some(String::from_utf8_lossy(error_fields(&body).message).into_owned()),
            b'Z' => return failed.map_or(Ok(rows), |reason| Err(Unanswered::Refused(reason))),
            _ => {}
        }
    }
}

fn row(body: &[u8]) -> Option<Row> {
    let mut reader = Reader::new(body);
    let count = reader.u16().ok()?;
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let length = reader.u32().ok()?;
        values.push(match length {
            u32::MAX => None,
            length => Some(String::from_utf8_lossy(reader.bytes(length as usize).ok()?).into_owned()),
        });
    }
    Some(values)
}

fn report(row: &Row) -> Option<Report> {
    let text = |at: usize| row.get(at).and_then(|value| value.as_deref());
    let position = |at: usize| text(at).map_or(Some(0), |text| text.parse().ok());
    let in_recovery = text(0)? == "t";
    let report = Report {
        in_recovery,
        insert: position(1)?,
        flush: position(2)?,
        replay: position(3)?,
        timeline: text(4).and_then(|text| u32::from_str_radix(text, 16).ok()),
        system: text(5).unwrap_or_default().to_owned(),
        serializable: text(6) == Some("serializable"),
        // PostgreSQL promises three times its log writer's delay.
        flushed_within: duration(text(7)?) * 4,
    };
    (report.in_recovery || report.insert > 0 && report.timeline.is_some()).then_some(report)
}

/// A time as PostgreSQL shows it: `200ms`, `1s`; its longest when that is not understood.
fn duration(text: &str) -> Duration {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    match (number.parse(), unit) {
        (Ok(number), "ms" | "") => Duration::from_millis(number),
        (Ok(number), "s") => Duration::from_secs(number),
        _ => Duration::from_secs(10),
    }
}
