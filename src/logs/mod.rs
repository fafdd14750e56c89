//! PostgreSQL logs of every format as one stream of statements, in constant memory.
//!
//! ```text
//! files, oldest first -> (gz, zst, bz2, xz) -> one buffer -> format (found by trying) -> (carrier) -> messages -> statements -> workload::Sink
//! ```
//!
//! Each format's reader is fed bytes and keeps nothing between messages but what a session's next line
//! needs, so a log's length does not matter. A statement is counted once: `parse` and `bind` lines are
//! not executions, an error's STATEMENT joins the statement logged before it, and a `duration:` line
//! joins the statement of its session. A file in which nothing is understood is an error that shows
//! what was seen and what was tried.

mod counts;
mod csvlog;
mod detect;
mod feed;
mod follow;
mod jsonlog;
mod open;
mod order;
mod pgbouncer;
mod piped;
mod prefix;
mod record;
mod severity;
mod sqlfile;
mod stderr;
mod time;
mod unwrap;
mod wrapped;

use std::io::Read;

pub use feed::Report;
pub use follow::Follower;
pub use order::{Input, inputs};
pub use piped::piped;

use crate::error::{Error, Result};
use crate::workload::Sink;
use feed::{Context, Pump};

/// A log's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Found by trying, for each file.
    #[default]
    Auto,
    /// Plain text with a `log_line_prefix`.
    Stderr,
    /// Comma-separated values.
    Csvlog,
    /// A JSON object a line.
    Jsonlog,
    /// SQL statements.
    Sql,
}

/// How to read logs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The format of all files.
    pub format: LogFormat,
    /// The server's `log_line_prefix`; detected when `None`.
    pub log_line_prefix: Option<String>,
}

/// Reads one file (`-` is standard input) into a sink; `progress` is told of the file's bytes as they are read.
///
/// Fails when the file cannot be read, or when it is not empty and nothing in it was understood.
pub fn read_file(file: &str, options: &Options, sink: &mut dyn Sink, progress: &dyn Fn(u64)) -> Result<Report> {
    let mut input = open::open(file, progress)?;
    read(&mut *input, file, options, sink)
}

/// Reads a stream into a sink; `file` is its name for people.
///
/// Fails as [`read_file`] does.
pub fn read(input: &mut dyn Read, file: &str, options: &Options, sink: &mut dyn Sink) -> Result<Report> {
    let mut report = Report { file: file.to_owned(), ..Report::default() };
    let mut pump = Pump::new(input);
    let sample = pump.sample(file)?;
    if sample.trim_ascii().is_empty() {
        "empty".clone_into(&mut report.format);
        return Ok(report);
    }
    let Some((mut reader, words)) = detect::reader(sample, file, options)? else {
        let head = sample.get(..sample.len().min(4096)).unwrap_or_default();
        head.split(|byte| *byte == b'\n').zip(1..).for_each(|(line, number)| report.not_understood(number, line));
        return Err(nothing_understood(
            &report,
            "stderr with 21 common prefixes and any other, csvlog, jsonlog, syslog, journald export, lines in JSON, pg_stat_statements as CSV, sql",
        ));
    };
    report.format = words;
    report.foreign = matches!(reader, feed::Reader::Bouncer);
    let mut context = Context { file, line: 1, report: &mut report, sink };
    pump.run(&mut reader, &mut context)?;
    if report.understood == 0 {
        return Err(nothing_understood(&report, &report.format));
    }
    Ok(report)
}

fn nothing_understood(report: &Report, tried: &str) -> Error {
    let mut what = format!("nothing in {} was understood; tried: {tried}; the lines begin", report.file);
    for (number, line) in &report.samples {
        what.push_str(&format!("\n  {number:>6} | {line}"));
    }
    Error::input(what)
        .at(report.file.clone())
        .hint("say what it is: --log-format stderr|csvlog|jsonlog|sql, or --log-line-prefix with what SHOW log_line_prefix prints")
}

#[cfg(test)]
mod carried;
#[cfg(test)]
mod tests;
