//! What a message says about statements, the same for every log format.

use memchr::memmem;

use super::severity::Severity;
use crate::sql::explain::{Logged, PlanNode};
use crate::workload::{Observation, Outcome, Sink};

/// Bytes of a plan that are read.
const MAX_PLAN: usize = 256 << 10;

/// One log message with its companions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) severity: Severity,
    /// The primary message. `tabbed` ones have a tab after each newline.
    pub(super) message: &'a [u8],
    pub(super) detail: Option<&'a [u8]>,
    /// The statement that the message is about.
    pub(super) statement: Option<&'a [u8]>,
    pub(super) tabbed: bool,
    pub(super) line: u64,
    pub(super) at_ms: Option<i64>,
    pub(super) session: u64,
    pub(super) user: Option<&'a [u8]>,
    pub(super) database: Option<&'a [u8]>,
    pub(super) application: Option<&'a [u8]>,
}

/// Turns records into observations. Holds only memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Emitter {
    sql: Vec<u8>,
    parameters: Vec<u8>,
}

/// What a primary message is.
#[derive(Debug, PartialEq)]
enum Message<'a> {
    /// A statement, perhaps with its duration.
    Statement(&'a [u8], Option<f64>),
    /// A statement's plan, and how long it ran.
    Plan(&'a [u8], f64),
    /// A duration without its statement.
    Duration(f64),
    /// Nothing about an execution.
    Other,
}

impl Emitter {
    /// Hands what a record says to the sink; true when a statement was in it.
    pub(super) fn emit(&mut self, record: &Record<'_>, file: &str, sink: &mut dyn Sink) -> bool {
        if record.severity == Severity::Log {
            match read_message(record.message) {
                Message::Statement(sql, duration_ms) => {
                    self.statement(record, sql, Outcome::Executed, duration_ms, file, sink);
                    return true;
                }
                Message::Plan(logged, milliseconds) => return self.plan(record, logged, milliseconds, file, sink),
                Message::Duration(milliseconds) => {
                    sink.duration(record.session, milliseconds);
                    return false;
                }
                Message::Other => {}
            }
        }
        if record.severity == Severity::Error && is_idle_timeout(record.message) {
            sink.idled_out(record.session, record.at_ms);
            return false;
        }
        let Some(sql) = record.statement else { return false };
        let Some(outcome) = outcome_of(record) else { return false };
        self.statement(record, sql, outcome, None, file, sink);
        true
    }

    /// What auto_explain says of an execution.
    fn plan(&mut self, record: &Record<'_>, logged: &[u8], ms: f64, file: &str, sink: &mut dyn Sink) -> bool {
        let logged = if record.tabbed { untab(logged, &mut self.sql) } else { logged };
        let logged = String::from_utf8_lossy(logged.get(..logged.len().min(MAX_PLAN)).unwrap_or_default());
        let Some(Logged { sql, parameters, plan }) = PlanNode::from_log(&logged) else { return false };
        let parameters = parameters.as_deref().map(str::as_bytes);
        let seen = observation(record, sql.as_bytes(), Outcome::Executed, file);
        sink.planned(&Observation { duration_ms: Some(ms), parameters, ..seen }, plan);
        true
    }

    fn statement(
        &mut self,
        record: &Record<'_>,
        sql: &[u8],
        outcome: Outcome,
        duration_ms: Option<f64>,
        file: &str,
        sink: &mut dyn Sink,
    ) {
        let mut sql = if record.tabbed { untab(sql, &mut self.sql) } else { sql };
        let mut parameters = None;
        if let Some(detail) = record.detail {
            let detail = if record.tabbed { untab(detail, &mut self.parameters) } else { detail };
            parameters = strip(detail, &[b"parameters: ", b"Parameters: "]);
            if let Some(prepared) = strip(detail, &[b"prepare: "]).and_then(after_as) {
                sql = prepared;
            }
        }
        sink.observe(&Observation { duration_ms, parameters, ..observation(record, sql, outcome, file) });
    }
}

/// A statement of which a record tells.
fn observation<'a>(record: &Record<'a>, sql: &'a [u8], outcome: Outcome, file: &'a str) -> Observation<'a> {
    Observation {
        sql,
        outcome,
        duration_ms: None,
        parameters: None,
        file,
        line: record.line,
        user: record.user,
        database: record.database,
        application: record.application,
        session: record.session,
        at_ms: record.at_ms,
    }
}

/// Whether a session was ended for standing idle in a transaction; servers say it in their language, but the number stands for it where
/// log_error_verbosity is verbose.
fn is_idle_timeout(message: &[u8]) -> bool {
    message.starts_with(b"25P03: ") || message.ends_with(b"due to idle-in-transaction timeout")
}

/// What happened to the statement that a message was logged for; `None` when it was no event of an execution.
fn outcome_of(record: &Record<'_>) -> Option<Outcome> {
    if record.severity == Severity::Error {
        return Some(Outcome::Failed);
    }
    if record.message.starts_with(b"temporary file: ") {
        let size = memmem::rfind(record.message, b"size ")?;
        let digits = record.message.get(size + 5..)?.split(|byte| !byte.is_ascii_digit()).next()?;
        return Some(Outcome::TempFile(super::prefix::decimal(digits)?));
    }
    // "process 1 acquired ShareLock on transaction 7 after 1200.123 ms": the wait's end, logged once a wait.
    if record.message.starts_with(b"process ") && memmem::find(record.message, b" acquired ").is_some() {
        let after = memmem::rfind(record.message, b" after ")?;
        return Some(Outcome::LockWait(milliseconds(record.message.get(after + 7..)?)?.0));
    }
    None
}

fn strip<'a>(text: &'a [u8], openings: &[&[u8]]) -> Option<&'a [u8]> {
    openings.iter().find_map(|opening| text.strip_prefix(*opening))
}

/// The statement in `PREPARE name (types) AS statement`.
fn after_as(prepare: &[u8]) -> Option<&[u8]> {
    let at = prepare.windows(4).position(|word| {
        word[0].is_ascii_whitespace() && word[1..3].eq_ignore_ascii_case(b"as") && word[3].is_ascii_whitespace()
    })?;
    prepare.get(at + 4..).map(<[u8]>::trim_ascii)
}

/// Removes the tab that PostgreSQL writes after each newline of a message.
fn untab<'a>(text: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(mut newline) = memchr::memchr(b'\n', text) else { return text };
    scratch.clear();
    let mut rest = text;
    loop {
        let (line, tail) = rest.split_at(newline + 1);
        scratch.extend_from_slice(line);
        rest = tail.strip_prefix(b"\t").unwrap_or(tail);
        match memchr::memchr(b'\n', rest) {
            Some(next) => newline = next,
            None => break,
        }
    }
    scratch.extend_from_slice(rest);
    scratch
}

/// `12.345 ms`: the number, and what follows the unit.
fn milliseconds(text: &[u8]) -> Option<(f64, &[u8])> {
    let (mut whole, mut scale, mut fraction, mut length) = (0u64, 1.0, false, 0);
    for byte in text.iter().take(24) {
        match byte {
            b'0'..=b'9' => {
                whole = whole.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
                if fraction {
                    scale *= 10.0;
                }
            }
            b'.' | b',' if !fraction => fraction = true,
            _ => break,
        }
        length += 1;
    }
    let rest = text.get(length..)?.strip_prefix(b" ms").filter(|_| length > 0)?;
    Some((whole as f64 / scale, rest))
}

/// Reads a LOG message. With `log_error_verbosity = verbose` an SQLSTATE stands before it.
fn read_message(message: &[u8]) -> Message<'_> {
    let message = match message.split_at_checked(7) {
        Some((state, rest)) if state.ends_with(b": ") && state[..5].iter().all(u8::is_ascii_alphanumeric) => rest,
        _ => message,
    };
    if let Some(rest) = message.strip_prefix(b"duration: ") {
        let Some((milliseconds, rest)) = milliseconds(rest) else { return Message::Other };
        if rest.trim_ascii().is_empty() {
            return Message::Duration(milliseconds);
        }
        if let Some(logged) = rest.trim_ascii_start().strip_prefix(b"plan:") {
            return Message::Plan(logged.trim_ascii_start(), milliseconds);
        }
        return match executed(rest.trim_ascii_start()) {
            Some(sql) => Message::Statement(sql, Some(milliseconds)),
            None => Message::Other,
        };
    }
    executed(message).map_or(Message::Other, |sql| Message::Statement(sql, None))
}

/// `statement: ..` and `execute name: ..`. Parse and bind steps, portal fetches and fast-path calls are not executions of
/// their own.
fn executed(text: &[u8]) -> Option<&[u8]> {
    if let Some(sql) = text.strip_prefix(b"statement: ") {
        return Some(sql);
    }
    let named = text.strip_prefix(b"execute ")?;
    if named.starts_with(b"fetch from ") {
        return None;
    }
    // A name may hold `: ` only when a client is playful; the unnamed statement is the common case.
    let colon = memmem::find(named, b": ")?;
    named.get(colon + 2..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_kind_of_message() {
        let sql = b"SELECT 1".as_slice();
        let cases: [(&[u8], Message<'_>); 11] = [
            (b"duration: 1.250 ms  statement: SELECT 1", Message::Statement(sql, Some(1.25))),
            (b"duration: 10 ms  execute <unnamed>: SELECT 1", Message::Statement(sql, Some(10.0))),
            (b"duration: 10.5 ms  execute S_1/C_2: SELECT 1", Message::Statement(sql, Some(10.5))),
            (b"duration: 0.1 ms  parse <unnamed>: SELECT 1", Message::Other),
            (b"duration: 0.1 ms  bind <unnamed>: SELECT 1", Message::Other),
            (b"duration: 0.5 ms  plan:\n\tQuery Text: x", Message::Plan(b"Query Text: x", 0.5)),
            (b"duration: 0.125 ms", Message::Duration(0.125)),
            (b"statement: SELECT 1", Message::Statement(sql, None)),
            (b"execute fetch from S_1/C_2: SELECT 1", Message::Other),
            (b"00000: execute S_1: SELECT 1", Message::Statement(sql, None)),
            (b"connection received: host=[local]", Message::Other),
        ];
        for (message, expected) in cases {
            assert_eq!(read_message(message), expected, "{}", String::from_utf8_lossy(message));
        }
    }

    #[test]
    fn removes_the_tabs_of_continuation_lines_only() {
        let mut scratch = Vec::new();
        assert_eq!(untab(b"SELECT\n\t\t1,\n\n\t2\tx", &mut scratch), b"SELECT\n\t1,\n\n2\tx");
        assert_eq!(untab(b"SELECT\t1", &mut scratch), b"SELECT\t1");
    }

    #[test]
    fn finds_the_statement_of_a_prepare() {
        assert_eq!(after_as(b"PREPARE q(int) AS SELECT $1;"), Some(b"SELECT $1;".as_slice()));
        assert_eq!(after_as(b"PREPARE q"), None);
    }
}
