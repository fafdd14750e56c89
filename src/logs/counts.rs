//! `pg_stat_statements` as CSV: a header that names its columns, a row for each statement.
//!
//! `\copy (SELECT * FROM pg_stat_statements) TO 'file.csv' CSV HEADER` writes one, `psql --csv` too.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::feed::{Context, End};
use crate::workload::{Counts as Seen, Observation};

/// Where the columns of interest stand.
#[derive(Debug, Clone, Copy)]
struct Columns {
    query: usize,
    calls: usize,
    /// `total_exec_time`, or `total_time` before PostgreSQL 13.
    total: usize,
    min: Option<usize>,
    max: Option<usize>,
    rows: Option<usize>,
    user: Option<usize>,
    database: Option<usize>,
}

/// Reads rows of pg_stat_statements.
#[derive(Debug)]
pub(super) struct Counts {
    columns: Columns,
    separator: u8,
    /// The header has been passed.
    begun: bool,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

/// Columns of a row; a custom export has fewer than PostgreSQL's fifty.
const MAX_COLUMNS: usize = 256;

impl Counts {
    /// A reader, when `sample` begins with a header of pg_stat_statements.
    pub(super) fn recognise(sample: &[u8]) -> Option<Self> {
        let header = sample.split(|byte| *byte == b'\n').next().filter(|line| line.len() < 4096)?;
        let header = String::from_utf8_lossy(header).to_ascii_lowercase();
        let separator = [',', ';', '\t'].into_iter().find(|letter| header.contains(*letter))?;
        let names: Vec<&str> = header.trim().split(separator).map(|name| name.trim().trim_matches('"')).collect();
        let column = |wanted: &[&str]| names.iter().position(|name| wanted.contains(name));
        let columns = Columns {
            query: column(&["query"])?,
            calls: column(&["calls"])?,
            total: column(&["total_exec_time", "total_time"])?,
            min: column(&["min_exec_time", "min_time"]),
            max: column(&["max_exec_time", "max_time"]),
            rows: column(&["rows"]),
            user: column(&["rolname", "usename", "username"]),
            database: column(&["datname"]),
        };
        let separator = u8::try_from(separator).ok()?;
        Some(Self { columns, separator, begun: false, fields: vec![0; 4096], ends: vec![0; MAX_COLUMNS] })
    }

    /// Reads whole rows out of `data`; answers how many bytes are done with.
    pub(super) fn feed(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        let mut position = 0;
        while let Some(rest) = data.get(position..).filter(|rest| !rest.is_empty()) {
            let Some((length, fields)) = self.row(rest, end) else {
                if end == End::Overflow {
                    context.report.truncated += 1;
                    position = data.len();
                }
                break;
            };
            let bytes = rest.get(..length).unwrap_or_default();
            let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
            let understood = !self.begun || bytes.trim_ascii().is_empty() || self.seen(fields, context);
            self.begun = true;
            if understood {
                context.report.understood += lines.max(1);
                context.report.lines += lines.max(1);
            } else {
                context.report.not_understood(context.line, bytes);
                context.report.lines += lines.saturating_sub(1);
            }
            context.line += lines;
            position += length;
        }
        position
    }

    /// The bytes of the first row, and its number of fields; `None` when it is not complete.
    fn row(&mut self, data: &[u8], end: End) -> Option<(usize, usize)> {
        if self.fields.len() < data.len() {
            self.fields.resize(data.len(), 0);
        }
        let mut reader: Reader = ReaderBuilder::new().delimiter(self.separator).build();
        let (result, read, written, ends) = reader.read_record(data, &mut self.fields, &mut self.ends);
        match result {
            ReadRecordResult::Record => Some((read, ends)),
            ReadRecordResult::InputEmpty if end == End::Eof => {
                let rest = self.fields.get_mut(written..).unwrap_or_default();
                let (.., more) = reader.read_record(&[], rest, self.ends.get_mut(ends..).unwrap_or_default());
                Some((read, ends + more))
            }
            _ => None,
        }
    }

    /// Hands on a row; false when it is none.
    fn seen(&self, fields: usize, context: &mut Context<'_>) -> bool {
        let text = |index: usize| {
            let start = index.checked_sub(1).map_or(Some(&0), |before| self.ends.get(before))?;
            let end = self.ends.get(index).filter(|_| index < fields)?;
            self.fields.get(*start..*end).filter(|text| !text.is_empty())
        };
        let number = |index: usize| std::str::from_utf8(text(index)?).ok()?.trim().parse::<f64>().ok();
        let row = (text(self.columns.query), number(self.columns.calls), number(self.columns.total));
        let (Some(sql), Some(calls), Some(total_ms)) = row else { return false };
        let observation = Observation {
            sql,
            file: context.file,
            line: context.line,
            user: self.columns.user.and_then(text),
            database: self.columns.database.and_then(text),
            ..Observation::of("")
        };
        let calls = calls.max(0.0) as u64;
        let mean = if calls == 0 { 0.0 } else { total_ms / calls as f64 };
        let or_mean = |column: Option<usize>| column.and_then(number).unwrap_or(mean);
        let counts = Seen {
            calls,
            total_ms,
            min_ms: or_mean(self.columns.min),
            max_ms: or_mean(self.columns.max),
            rows: self.columns.rows.and_then(number).map_or(0, |rows| rows.max(0.0) as u64),
        };
        // The server does not show other users' statements to everyone.
        if sql != b"<insufficient privilege>" {
            context.sink.counted(&observation, counts);
            context.report.statements += 1;
        }
        true
    }
}
