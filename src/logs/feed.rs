//! What every format's reader shares: it is fed bytes, says how many it is done with, and counts.
//!
//! Readers know no files and no sockets: [`pump`] moves bytes from a `Read` through one buffer that is
//! used again. A message longer than the buffer may grow is cut, counted, and its rest dropped.

use std::io::Read;

use super::counts::Counts;
use super::csvlog::CsvLog;
use super::jsonlog::JsonLog;
use super::pgbouncer;
use super::sqlfile::SqlFile;
use super::stderr::Stderr;
use super::wrapped::Wrapped;
use crate::error::{Error, Result};
use crate::workload::Sink;

/// What follows the data at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// More data.
    More,
    /// More data, but the buffer may not grow: what is incomplete must be cut.
    Overflow,
    /// Nothing.
    Eof,
}

/// Where a reader puts what it finds.
pub(super) struct Context<'a> {
    pub(super) file: &'a str,
    /// The number of the line at which the data begins, from 1.
    pub(super) line: u64,
    pub(super) report: &'a mut Report,
    pub(super) sink: &'a mut dyn Sink,
}

/// What was read of one file, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The file's name as given; `-` for standard input.
    pub file: String,
    /// The format in words, with the prefix where there is one.
    pub format: String,
    /// Bytes read, after decompression.
    pub bytes: u64,
    /// Lines (of .sql files: statements).
    pub lines: u64,
    /// Lines that were understood.
    pub understood: u64,
    /// The first few others, with their numbers.
    pub samples: Vec<(u64, String)>,
    /// Statements found, in any role.
    pub statements: u64,
    /// Messages cut because they were too long.
    pub truncated: u64,
    /// A log of another program, which cannot hold statements.
    pub foreign: bool,
}

/// Samples of lines not understood that are kept.
const MAX_SAMPLES: usize = 5;
const MAX_SAMPLE_LETTERS: usize = 160;

impl Report {
    /// Counts a line that no reader can make sense of.
    pub(super) fn not_understood(&mut self, number: u64, line: &[u8]) {
        self.lines += 1;
        if self.samples.len() < MAX_SAMPLES && !line.trim_ascii().is_empty() {
            let text = String::from_utf8_lossy(line.get(..line.len().min(4 * MAX_SAMPLE_LETTERS)).unwrap_or_default());
            let text = text.chars().filter(|letter| !letter.is_control()).take(MAX_SAMPLE_LETTERS).collect();
            self.samples.push((number, text));
        }
    }
}

/// A reader of one format.
pub(super) enum Reader {
    Stderr(Box<Stderr>),
    Csv(Box<CsvLog>),
    Json(JsonLog),
    Sql(SqlFile),
    Wrapped(Box<Wrapped>),
    Counts(Box<Counts>),
    /// PgBouncer's log, which holds no statements.
    Bouncer,
}

impl Reader {
    /// Reads what is complete; answers how many bytes are done with (all, unless more data follows).
    pub(super) fn feed(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        match self {
            Self::Stderr(reader) => reader.feed(data, end, context),
            Self::Csv(reader) => reader.feed(data, end, context),
            Self::Json(reader) => reader.feed(data, end, context),
            Self::Sql(reader) => reader.feed(data, end, context),
            Self::Wrapped(reader) => reader.feed(data, end, context),
            Self::Counts(reader) => reader.feed(data, end, context),
            Self::Bouncer => pgbouncer::feed(data, end, context),
        }
    }
}

/// The buffer's size to begin with.
const CHUNK: usize = 1 << 20;
/// The longest message that is read whole.
pub(super) const MAX_MESSAGE: usize = 8 << 20;
/// How much is looked at to tell the format.
const SAMPLE: usize = 256 << 10;

/// A `Read` with a buffer whose unread bytes are always contiguous.
pub(super) struct Pump<'a> {
    input: &'a mut dyn Read,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    eof: bool,
}

impl<'a> Pump<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> Self {
        Self { input, buffer: vec![0; CHUNK], start: 0, end: 0, eof: false }
    }

    /// Reads at least one byte more, if there is one; makes room first.
    fn fill(&mut self) -> std::io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            let size = (self.buffer.len() * 2).min(MAX_MESSAGE);
            self.buffer.resize(size, 0);
        }
        while !self.eof && self.end < self.buffer.len() {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.input.read(room) {
                Ok(0) => self.eof = true,
                Ok(count) => {
                    self.end += count.min(room.len());
                    break;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The first bytes, for detection; a byte-order mark is dropped.
    pub(super) fn sample(&mut self, file: &str) -> Result<&[u8]> {
        while !self.eof && self.end < SAMPLE {
            self.fill().map_err(|error| unreadable(file, &error))?;
        }
        if self.unread().starts_with(b"\xef\xbb\xbf") {
            self.start += 3;
        }
        Ok(self.unread())
    }

    /// Feeds everything to the reader.
    pub(super) fn run(&mut self, reader: &mut Reader, context: &mut Context<'_>) -> Result<()> {
        loop {
            let full = self.end - self.start >= MAX_MESSAGE;
            let end = if self.eof {
                End::Eof
            } else if full {
                End::Overflow
            } else {
                End::More
            };
            let consumed = reader.feed(self.unread(), end, context).min(self.end - self.start);
            self.start += consumed;
            context.report.bytes += consumed as u64;
            if end == End::Eof {
                return Ok(());
            }
            self.fill().map_err(|error| unreadable(context.file, &error))?;
        }
    }
}

pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Error {
    Error::input(format!("cannot read {file}: {error}"))
        .at(file)
        .hint("is it complete, and of the format its name says?")
}
