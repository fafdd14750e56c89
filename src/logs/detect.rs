//! Which format a file has, and which `log_line_prefix`: found by trying.

use super::counts::Counts;
use super::csvlog::CsvLog;
use super::feed::Reader;
use super::jsonlog::JsonLog;
use super::pgbouncer;
use super::prefix::Prefix;
use super::severity;
use super::sqlfile::SqlFile;
use super::stderr::{Stderr, trim_line};
use super::unwrap::Carrier;
use super::wrapped::{self, Wrapped};
use super::{LogFormat, Options};
use crate::error::Result;

/// Prefixes in wide use: PostgreSQL's defaults, distributions', pgBadger's advice, hosts'.
const COMMON_PREFIXES: &[&str] = &[
    "%m [%p] ",
    "%t [%p] ",
    "%m [%p] %q%u@%d ",
    "%m [%p] %q[user=%u,db=%d,app=%a] ",
    "%m [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ",
    "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ",
    "%t [%p]: [%l-1] user=%u,db=%d ",
    "%m [%p]: [%l-1] db=%d,user=%u ",
    "%t [%p]: user=%u,db=%d,app=%a,client=%h ",
    "%m [%p] user=%u,db=%d,app=%a,client=%h ",
    "%t [%p]: db=%d,user=%u,app=%a,client=%h ",
    "%t [%p]: [%l] ",
    "%t:%r:%u@%d:[%p]:",
    "%m:%r:%u@%d:[%p]:%l:%e:%s:%v:%x:%c:%q%a",
    "%t-%c-",
    "< %m >",
    "< %m %p >",
    "%p %t %u %d ",
    "%c %m %u@%d ",
    "%n [%p] ",
    "",
];

/// Lines of a sample that are looked at.
const MAX_LINES: usize = 400;

/// A reader for what `sample` shows, and the format in words; `None` when nothing fits.
pub(super) fn reader(sample: &[u8], file: &str, options: &Options) -> Result<Option<(Reader, String)>> {
    let given = match &options.log_line_prefix {
        Some(prefix) => Some(Prefix::compile(prefix)?),
        None => None,
    };
    if matches!(options.format, LogFormat::Auto | LogFormat::Stderr) {
        let counts =
            if options.format == LogFormat::Auto && given.is_none() { Counts::recognise(sample) } else { None };
        if let Some(counts) = counts {
            return Ok(Some((Reader::Counts(Box::new(counts)), "pg_stat_statements as CSV".to_owned())));
        }
        if let Some((carrier, texts)) = carried(sample, file) {
            let (inner, words) = plain(&texts, given);
            let words = format!("{}: {words}", carrier.words());
            return Ok(Some((Reader::Wrapped(Box::new(Wrapped::new(carrier, inner))), words)));
        }
    }
    let format = match options.format {
        LogFormat::Auto if given.is_some() => LogFormat::Stderr,
        LogFormat::Auto => match guess_format(sample, file) {
            Some(format) => format,
            None if is_pgbouncer(sample) => {
                return Ok(Some((Reader::Bouncer, "PgBouncer's log, which holds no statements".to_owned())));
            }
            None => return Ok(None),
        },
        format => format,
    };
    Ok(Some(match format {
        LogFormat::Csvlog => (Reader::Csv(Box::new(CsvLog::new())), "csvlog".to_owned()),
        LogFormat::Jsonlog => (Reader::Json(JsonLog::default()), "jsonlog".to_owned()),
        LogFormat::Sql => (Reader::Sql(SqlFile::default()), "sql".to_owned()),
        LogFormat::Stderr | LogFormat::Auto => {
            let (reader, words) = plain(sample, given);
            (Reader::Stderr(Box::new(reader)), words)
        }
    }))
}

/// A reader of plain text, with the prefix given or the one that fits best.
fn plain(sample: &[u8], given: Option<Prefix>) -> (Stderr, String) {
    if let Some(prefix) = given {
        let words = format!("stderr, log_line_prefix = '{}'", prefix.source);
        return (Stderr::new(Some(prefix), false), words);
    }
    let prefix = best_prefix(sample);
    let words = match &prefix {
        Some(prefix) => format!("stderr, log_line_prefix = '{}' (detected)", prefix.source),
        None => "stderr, log_line_prefix not recognised: severities found by their words".to_owned(),
    };
    (Stderr::new(prefix, true), words)
}

/// What carried the lines of a sample, unless they are of a format that is read as it is.
fn carried(sample: &[u8], file: &str) -> Option<(Carrier, Vec<u8>)> {
    let native = match guess_format(sample, file) {
        Some(LogFormat::Sql) => !sample.starts_with(b"__"),
        format => matches!(format, Some(LogFormat::Csvlog | LogFormat::Jsonlog)),
    };
    if native { None } else { wrapped::recognise(sample) }
}

fn is_pgbouncer(sample: &[u8]) -> bool {
    let (known, all) =
        lines(sample).fold((0, 0), |(known, all), line| (known + usize::from(pgbouncer::wrote(line)), all + 1));
    known * 2 > all
}

fn lines(sample: &[u8]) -> impl Iterator<Item = &[u8]> {
    sample.split_inclusive(|byte| *byte == b'\n').map(trim_line).filter(|line| !line.is_empty()).take(MAX_LINES)
}

fn guess_format(sample: &[u8], file: &str) -> Option<LogFormat> {
    let mut name = file.to_ascii_lowercase();
    for packed in [".gz", ".zst", ".bz2", ".xz"] {
        name.truncate(name.strip_suffix(packed).map_or(name.len(), str::len));
    }
    if name.ends_with(".sql") {
        return Some(LogFormat::Sql);
    }
    let mut position = 0;
    let mut csv = CsvLog::new();
    for line in sample.split_inclusive(|byte| *byte == b'\n').take(MAX_LINES) {
        let rest = sample.get(position..).unwrap_or_default();
        let text = trim_line(line);
        if text.starts_with(b"{") && JsonLog::recognises(text) {
            return Some(LogFormat::Jsonlog);
        }
        if csv.recognises(rest) {
            return Some(LogFormat::Csvlog);
        }
        if is_message(text) {
            return Some(LogFormat::Stderr);
        }
        position += line.len();
    }
    looks_like_sql(sample).then_some(LogFormat::Sql)
}

/// A severity, and before it no more than a prefix would take.
fn is_message(line: &[u8]) -> bool {
    severity::anywhere(line).is_some_and(|(_, start, _)| start < 400)
}

/// The first word outside comments opens a statement.
fn looks_like_sql(sample: &[u8]) -> bool {
    let word = lines(sample)
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"--") && !line.starts_with(b"\\"))
        .and_then(|line| line.split(|byte| !byte.is_ascii_alphabetic()).next())
        .unwrap_or_default()
        .to_ascii_lowercase();
    const OPENINGS: &[&[u8]] = &[
        b"select",
        b"insert",
        b"update",
        b"delete",
        b"with",
        b"create",
        b"alter",
        b"drop",
        b"begin",
        b"set",
        b"merge",
        b"copy",
        b"explain",
        b"values",
        b"truncate",
        b"start",
        b"comment",
        b"grant",
        b"table",
        b"do",
        b"call",
        b"commit",
    ];
    OPENINGS.contains(&word.as_slice())
}

/// The common prefix that reads the most messages of the sample; `None` when guessing reads more.
fn best_prefix(sample: &[u8]) -> Option<Prefix> {
    let messages: Vec<&[u8]> = lines(sample).filter(|line| !line.starts_with(b"\t") && is_message(line)).collect();
    let mut best: Option<(usize, Prefix)> = None;
    for source in COMMON_PREFIXES {
        let Ok(mut prefix) = Prefix::compile(source) else { continue };
        let score = messages.iter().filter(|line| prefix.read(line).is_some()).count();
        let better = best.as_ref().is_none_or(|(top, known)| (score, prefix.weight()) > (*top, known.weight()));
        if score > 0 && better {
            best = Some((score, prefix));
        }
    }
    best.filter(|(score, _)| score * 2 > messages.len()).map(|(_, prefix)| prefix)
}
