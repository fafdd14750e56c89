//! PostgreSQL's plain-text log: a prefix, a severity, a message; further lines of a message begin with a tab.

use super::feed::{Context, End};
use super::pgbouncer;
use super::prefix::{Header, Prefix, guess};
use super::record::{Emitter, Record};
use super::severity::Severity;
use super::time::{Clock, Millis};

/// Reads plain-text logs.
#[derive(Debug)]
pub(super) struct Stderr {
    prefix: Option<Prefix>,
    /// Lines that the prefix does not match are read by guessing.
    guessing: bool,
    clock: Clock,
    emitter: Emitter,
    /// The rest of a message that was too long is being dropped.
    skipping: Skip,
    /// Session and time of lines whose prefix does not tell them.
    around: (u64, Option<Millis>),
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Skip {
    No,
    /// Up to the next line that has a header.
    ToHeader,
    /// Up to the next newline, then on to the next header.
    ToNewline,
}

/// A byte range of the data at hand.
type Range = std::ops::Range<usize>;

/// A message that is not yet known to be complete.
struct Group<'a> {
    start: usize,
    line: u64,
    /// Lines it has.
    lines: u64,
    header: Header<'a>,
    message: Range,
    detail: Option<Range>,
    statement: Option<Range>,
    /// What continuation lines now belong to.
    part: Severity,
}

impl Stderr {
    /// A reader of lines with this prefix, and of others too when `guessing`.
    pub(super) fn new(prefix: Option<Prefix>, guessing: bool) -> Self {
        Self {
            prefix,
            guessing,
            clock: Clock::default(),
            emitter: Emitter::default(),
            skipping: Skip::No,
            around: (0, None),
        }
    }

    /// What stands around the lines that come, and holds where their own prefix is silent.
    pub(super) fn within(&mut self, session: u64, at: Option<Millis>) {
        self.around = (session, at);
    }

    /// Reads the header of a line.
    fn header<'a>(&mut self, line: &'a [u8]) -> Option<Header<'a>> {
        // A crash may leave NUL bytes where a page was never written.
        let nuls = line.iter().take_while(|byte| **byte == 0).count();
        let text = line.get(nuls..)?;
        let known = self.prefix.as_mut().and_then(|prefix| prefix.read(text));
        let mut header = known.or_else(|| if self.guessing { guess(&mut self.clock, text) } else { None })?;
        header.message += nuls;
        if header.session == 0 {
            header.session = self.around.0;
        }
        header.at = header.at.or(self.around.1);
        Some(header)
    }

    /// Reads whole messages out of `data`; answers how many bytes are done with.
    pub(super) fn feed(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        let mut position = 0;
        let mut group: Option<Group<'_>> = None;
        let mut line_number = context.line;
        while let Some(rest) = data.get(position..).filter(|rest| !rest.is_empty()) {
            let newline = memchr::memchr(b'\n', rest);
            if newline.is_none() && end == End::More {
                break;
            }
            let next = newline.map_or(data.len(), |at| position + at + 1);
            let line = trim_line(data.get(position..next).unwrap_or_default());
            let range = position..position + line.len();
            if !self.skip(line, newline.is_some()) {
                self.line(data, line, range, line_number, &mut group, context);
            } else {
                context.report.understood += 1;
                context.report.lines += 1;
            }
            position = next;
            line_number += 1;
        }
        if end != End::More {
            if end == End::Overflow {
                context.report.truncated += u64::from(self.skipping == Skip::No);
                self.skipping = if data.ends_with(b"\n") { Skip::ToHeader } else { Skip::ToNewline };
                // The line that goes on in the next data is counted there.
                line_number -= u64::from(self.skipping == Skip::ToNewline);
            }
            self.flush(data, group.take(), context);
        }
        let (consumed, line) = group.map_or((position, line_number), |group| (group.start, group.line));
        context.line = line;
        consumed
    }

    /// Takes one line into the group, or starts another.
    fn line<'a>(
        &mut self,
        data: &'a [u8],
        line: &'a [u8],
        range: Range,
        number: u64,
        group: &mut Option<Group<'a>>,
        context: &mut Context<'_>,
    ) {
        if let (Some(b'\t'), Some(group)) = (line.first(), group.as_mut()) {
            return group.extend(range);
        }
        if let Some(header) = self.header(line) {
            let text = range.start + header.message..range.end;
            match group {
                Some(group) if !header.severity.is_primary() && group.header.session == header.session => {
                    group.add(header.severity, text);
                }
                _ => {
                    let part = header.severity;
                    let fresh = Group {
                        start: range.start,
                        line: number,
                        lines: 1,
                        header,
                        message: text,
                        detail: None,
                        statement: None,
                        part: if part.is_primary() { Severity::Log } else { Severity::Aside },
                    };
                    self.flush(data, group.replace(fresh), context);
                }
            }
            return;
        }
        match group {
            Some(group) if line.first().is_none_or(u8::is_ascii_whitespace) => group.extend(range),
            _ => {
                self.flush(data, group.take(), context);
                if pgbouncer::wrote(line) {
                    context.report.lines += 1;
                    context.report.understood += 1;
                } else {
                    context.report.not_understood(number, line);
                }
            }
        }
    }

    /// True when the line belongs to a message that was too long.
    fn skip(&mut self, line: &[u8], whole: bool) -> bool {
        match self.skipping {
            Skip::No => false,
            Skip::ToNewline => {
                if whole {
                    self.skipping = Skip::ToHeader;
                }
                true
            }
            Skip::ToHeader => {
                let skip = line.first() == Some(&b'\t')
                    || self.header(line).is_none_or(|header| !header.severity.is_primary());
                if !skip {
                    self.skipping = Skip::No;
                }
                skip
            }
        }
    }

    /// Hands on a complete message.
    fn flush(&mut self, data: &[u8], group: Option<Group<'_>>, context: &mut Context<'_>) {
        let Some(group) = group else { return };
        context.report.lines += group.lines;
        context.report.understood += group.lines;
        if !group.header.severity.is_primary() {
            return;
        }
        let text = |range: &Range| data.get(range.clone()).unwrap_or_default();
        let record = Record {
            severity: group.header.severity,
            message: text(&group.message),
            detail: group.detail.as_ref().map(text),
            statement: group.statement.as_ref().map(text),
            tabbed: true,
            line: group.line,
            at_ms: group.header.at,
            session: group.header.session,
            user: group.header.user,
            database: group.header.database,
            application: group.header.application,
        };
        let emitted = self.emitter.emit(&record, context.file, context.sink);
        context.report.statements += u64::from(emitted);
    }
}

impl Group<'_> {
    /// A further line of the part that was opened last.
    fn extend(&mut self, range: Range) {
        self.lines += 1;
        match self.part {
            Severity::Detail => {
                if let Some(detail) = &mut self.detail {
                    detail.end = range.end;
                }
            }
            Severity::Statement => {
                if let Some(statement) = &mut self.statement {
                    statement.end = range.end;
                }
            }
            Severity::Aside => {}
            Severity::Log | Severity::Warning | Severity::Error => self.message.end = range.end,
        }
    }

    /// A companion of the message: DETAIL, STATEMENT, ...
    fn add(&mut self, severity: Severity, text: Range) {
        self.lines += 1;
        self.part = severity;
        match severity {
            Severity::Detail => self.detail = Some(text),
            Severity::Statement => self.statement = Some(text),
            _ => {}
        }
    }
}

/// A line without its end.
pub(super) fn trim_line(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
