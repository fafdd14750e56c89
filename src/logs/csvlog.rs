//! `log_destination = csvlog`: one record a message, quoted fields that may span lines.
//!
//! Columns were only ever added at the end: 23 in 9.0, 24 (backend_type) in 13, 26 (leader_pid, query_id)
//! in 14 to 18; the ones read here have kept their places.

use super::feed::{Context, End};
use super::prefix::{decimal, session_of};
use super::record::{Emitter, Record};
use super::severity::Severity;
use super::stderr::trim_line;
use super::time::Clock;

/// Fields a record may have; more are not looked at.
const MAX_FIELDS: usize = 32;
const MIN_FIELDS: usize = 22;
const USER: usize = 1;
const DATABASE: usize = 2;
const PID: usize = 3;
const SESSION: usize = 5;
const SEVERITY: usize = 11;
const MESSAGE: usize = 13;
const DETAIL: usize = 14;
const QUERY: usize = 19;
const APPLICATION: usize = 22;

/// One field: where its text stands, and whether it holds doubled quotes.
#[derive(Debug, Clone, Copy, Default)]
struct Field {
    start: usize,
    end: usize,
    doubled: bool,
}

/// Reads csvlog.
#[derive(Debug)]
pub(super) struct CsvLog {
    clock: Clock,
    emitter: Emitter,
    fields: [Field; MAX_FIELDS],
    /// Texts of a record whose doubled quotes had to be undone.
    message: Vec<u8>,
    detail: Vec<u8>,
    query: Vec<u8>,
    /// The rest of a record that was too long is being dropped.
    skipping: bool,
}

/// How reading a record ended.
enum Outcome {
    /// A record of so many fields; the next begins at the second number.
    Record(usize, usize),
    /// The data ends inside; so many fields were begun.
    Incomplete(usize),
    /// Not a record.
    Malformed,
}

impl CsvLog {
    pub(super) fn new() -> Self {
        Self {
            clock: Clock::default(),
            emitter: Emitter::default(),
            fields: [Field::default(); MAX_FIELDS],
            message: Vec::new(),
            detail: Vec::new(),
            query: Vec::new(),
            skipping: false,
        }
    }

    /// True when `data` begins with a record of this format (it may be cut).
    pub(super) fn recognises(&mut self, data: &[u8]) -> bool {
        self.begins_record(data)
            && match self.read(data, 0) {
                Outcome::Record(fields, _) => fields >= MIN_FIELDS && self.severity(data).is_some(),
                Outcome::Incomplete(fields) => fields > SEVERITY && self.severity(data).is_some(),
                Outcome::Malformed => false,
            }
    }

    /// Reads whole records out of `data`; answers how many bytes are done with.
    pub(super) fn feed(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        let mut position = 0;
        while let Some(rest) = data.get(position..).filter(|rest| !rest.is_empty()) {
            let newline = memchr::memchr(b'\n', rest);
            if newline.is_none() && end == End::More {
                break;
            }
            let line_end = newline.map_or(data.len(), |at| position + at + 1);
            if !self.begins_record(rest) {
                self.strange_line(data.get(position..line_end).unwrap_or_default(), context);
                position = line_end;
                continue;
            }
            self.skipping = false;
            match self.read(data, position) {
                Outcome::Record(fields, next) if fields >= MIN_FIELDS && self.severity(data).is_some() => {
                    self.record(data, fields, position..next, context);
                    position = next;
                }
                Outcome::Incomplete(_) if end == End::More => break,
                // The last line of a file may lack its newline.
                Outcome::Incomplete(fields)
                    if end == End::Eof && fields >= MIN_FIELDS && self.severity(data).is_some() =>
                {
                    self.record(data, fields, position..data.len(), context);
                    position = data.len();
                }
                Outcome::Incomplete(fields) if end == End::Overflow && fields > MESSAGE => {
                    context.report.truncated += 1;
                    self.record(data, fields, position..data.len(), context);
                    self.skipping = true;
                    position = data.len();
                }
                _ => {
                    self.strange_line(data.get(position..line_end).unwrap_or_default(), context);
                    position = line_end;
                }
            }
        }
        position
    }

    fn strange_line(&mut self, line: &[u8], context: &mut Context<'_>) {
        if self.skipping {
            context.report.lines += 1;
            context.report.understood += 1;
        } else {
            context.report.not_understood(context.line, trim_line(line));
        }
        context.line += u64::from(line.ends_with(b"\n"));
    }

    /// Every record opens with a time and a comma.
    fn begins_record(&mut self, data: &[u8]) -> bool {
        self.clock.read(data).is_some_and(|(_, length)| data.get(length) == Some(&b','))
    }

    fn severity(&self, data: &[u8]) -> Option<Severity> {
        Severity::of(data.get(self.fields[SEVERITY].start..self.fields[SEVERITY].end)?)
    }

    /// Reads the fields of the record at `position`.
    fn read(&mut self, data: &[u8], position: usize) -> Outcome {
        let mut at = position;
        let mut count = 0;
        loop {
            let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) else { return Outcome::Incomplete(count) };
            let (field, after) = if rest.first() == Some(&b'"') {
                let mut field = Field { start: at + 1, end: data.len(), doubled: false };
                let mut from = at + 1;
                let closing = loop {
                    let Some(quote) = data.get(from..).and_then(|text| memchr::memchr(b'"', text)) else { break None };
                    if data.get(from + quote + 1) != Some(&b'"') {
                        break Some(from + quote);
                    }
                    field.doubled = true;
                    from += quote + 2;
                };
                let Some(closing) = closing else {
                    self.keep(count, field);
                    return Outcome::Incomplete(count + 1);
                };
                field.end = closing;
                (field, closing + 1)
            } else {
                let Some(length) = memchr::memchr2(b',', b'\n', rest) else {
                    self.keep(count, Field { start: at, end: data.len(), doubled: false });
                    return Outcome::Incomplete(count + 1);
                };
                let trimmed = length - usize::from(rest.get(..length).is_some_and(|text| text.ends_with(b"\r")));
                (Field { start: at, end: at + trimmed, doubled: false }, at + length)
            };
            self.keep(count, field);
            count += 1;
            match (data.get(after), data.get(after + 1)) {
                (Some(b','), _) => at = after + 1,
                (Some(b'\n'), _) => return Outcome::Record(count, after + 1),
                (Some(b'\r'), Some(b'\n')) => return Outcome::Record(count, after + 2),
                // The last line of a file may lack its newline, or the data may end here for now.
                (None, _) | (Some(b'\r'), None) => return Outcome::Incomplete(count),
                _ => return Outcome::Malformed,
            }
        }
    }

    fn keep(&mut self, index: usize, field: Field) {
        if let Some(place) = self.fields.get_mut(index) {
            *place = field;
        }
    }

    /// Hands on the record whose fields were read last.
    fn record(&mut self, data: &[u8], count: usize, range: std::ops::Range<usize>, context: &mut Context<'_>) {
        let fields = self.fields;
        let raw = |index: usize| {
            let field = fields.get(index).filter(|_| index < count.min(MAX_FIELDS))?;
            data.get(field.start..field.end).filter(|text| !text.is_empty())
        };
        let doubled = |index: usize| fields.get(index).is_some_and(|field| field.doubled);
        let line = context.line;
        let lines = memchr::memchr_iter(b'\n', data.get(range.clone()).unwrap_or_default()).count() as u64;
        context.line += lines;
        context.report.lines += lines.max(1);
        context.report.understood += lines.max(1);
        let severity = self.severity(data).unwrap_or(Severity::Log);
        let session = raw(SESSION).map(session_of).or_else(|| raw(PID).and_then(decimal)).unwrap_or(0);
        let record = Record {
            severity,
            message: undouble(raw(MESSAGE).unwrap_or_default(), doubled(MESSAGE), &mut self.message),
            detail: raw(DETAIL).map(|text| undouble(text, doubled(DETAIL), &mut self.detail)),
            statement: raw(QUERY).map(|text| undouble(text, doubled(QUERY), &mut self.query)),
            tabbed: false,
            line,
            at_ms: data.get(range).and_then(|text| self.clock.read(text)).map(|(at, _)| at),
            session,
            user: raw(USER),
            database: raw(DATABASE),
            application: raw(APPLICATION),
        };
        let emitted = self.emitter.emit(&record, context.file, context.sink);
        context.report.statements += u64::from(emitted);
    }
}

/// Turns `""` into `"`.
fn undouble<'a>(text: &'a [u8], doubled: bool, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if !doubled {
        return text;
    }
    scratch.clear();
    let mut rest = text;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        let (kept, tail) = rest.split_at(quote + 1);
        scratch.extend_from_slice(kept);
        rest = tail.strip_prefix(b"\"").unwrap_or(tail);
    }
    scratch.extend_from_slice(rest);
    scratch
}
