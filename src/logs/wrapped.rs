//! Plain-text logs that something else has carried: pieces are put together to messages again, per writer.
//!
//! Writers' lines may be interleaved, so a message is open until its writer begins another, or has been
//! silent for [`PATIENCE`] lines.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use rustc_hash::FxHasher;

use super::feed::{Context, End, MAX_MESSAGE};
use super::stderr::{Stderr, trim_line};
use super::time::{Clock, Millis};
use super::unwrap::{self, Carrier, Joint, Piece};

/// Lines of others after which a writer's message is taken to be complete.
const PATIENCE: u64 = 500;
/// Bytes of open messages that are held at most.
const MAX_HELD: usize = 16 << 20;

/// A message whose end is not yet known.
#[derive(Debug)]
struct Open {
    text: Vec<u8>,
    /// Its first line in the file, and how many lines it has there.
    line: u64,
    lines: u64,
    /// Its last line's number.
    last: u64,
    session: u64,
    at: Option<Millis>,
    truncated: bool,
}

/// Reads logs that were carried.
#[derive(Debug)]
pub(super) struct Wrapped {
    carrier: Carrier,
    clock: Clock,
    inner: Box<Stderr>,
    open: HashMap<u64, Open, BuildHasherDefault<FxHasher>>,
    held: usize,
    skipping: bool,
    /// The beginning of a line whose end is in a later piece, and the pieces so far.
    cut: Vec<u8>,
    cut_lines: u64,
}

/// The carrier of a sample, and the sample's texts without what it put around them.
pub(super) fn recognise(sample: &[u8]) -> Option<(Carrier, Vec<u8>)> {
    let mut clock = Clock::default();
    let head = sample.get(..sample.len().min(4096)).unwrap_or_default();
    let is_journal = memchr::memmem::find(head, b"__REALTIME_TIMESTAMP=").is_some()
        && (sample.starts_with(b"__CURSOR=") || sample.starts_with(b"__REALTIME"));
    if is_journal {
        let mut texts = Vec::new();
        let mut at = 0;
        while let Some((piece, length)) = unwrap::journal(sample.get(at..)?, false) {
            at += length;
            piece.iter().for_each(|piece| add_line(&mut texts, &piece.text));
        }
        return Some((Carrier::Journal, texts));
    }
    let carriers = [Carrier::Syslog, Carrier::Json, Carrier::Stamps];
    let lines = || sample.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).take(400);
    let fits = |carrier: &Carrier, clock: &mut Clock| {
        lines().any(|line| piece_of(*carrier, clock, line).is_some_and(|piece| piece.is_certain()))
    };
    let carrier = carriers.into_iter().find(|carrier| fits(carrier, &mut clock))?;
    let mut texts = Vec::new();
    for line in lines() {
        if let Some(piece) = piece_of(carrier, &mut clock, line) {
            add_line(&mut texts, &piece.text);
        }
    }
    Some((carrier, texts))
}

fn add_line(texts: &mut Vec<u8>, text: &[u8]) {
    texts.extend_from_slice(text);
    texts.push(b'\n');
}

fn piece_of<'a>(carrier: Carrier, clock: &mut Clock, line: &'a [u8]) -> Option<Piece<'a>> {
    match carrier {
        Carrier::Syslog => unwrap::syslog(clock, line),
        Carrier::Json => unwrap::json(line),
        Carrier::Stamps => unwrap::stamped(clock, line),
        Carrier::Journal => None,
    }
}

impl Wrapped {
    /// A reader of what `carrier` brought; `inner` reads the lines themselves.
    pub(super) fn new(carrier: Carrier, inner: Stderr) -> Self {
        let inner = Box::new(inner);
        Self {
            carrier,
            clock: Clock::default(),
            inner,
            open: HashMap::default(),
            held: 0,
            skipping: false,
            cut: Vec::new(),
            cut_lines: 0,
        }
    }

    /// Reads whole lines out of `data`; answers how many bytes are done with.
    pub(super) fn feed(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        let done = if self.carrier == Carrier::Journal {
            self.entries(data, end, context)
        } else {
            self.lines(data, end, context)
        };
        if end == End::Eof {
            if self.cut_lines > 0 {
                // The file ends inside a line.
                let text = std::mem::take(&mut self.cut);
                let lines = std::mem::take(&mut self.cut_lines);
                self.take(Some(Piece::of(text.into())), b"", lines, context);
            }
            self.close_all(u64::MAX, context);
        }
        done
    }

    fn lines(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        let mut position = 0;
        while let Some(rest) = data.get(position..).filter(|rest| !rest.is_empty()) {
            let newline = memchr::memchr(b'\n', rest);
            if newline.is_none() && end == End::More {
                break;
            }
            let next = newline.map_or(data.len(), |at| position + at + 1);
            let line = trim_line(data.get(position..next).unwrap_or_default());
            let skip = std::mem::replace(&mut self.skipping, newline.is_none() && end == End::Overflow);
            if !skip {
                context.report.truncated += u64::from(self.skipping);
                let piece = piece_of(self.carrier, &mut self.clock, line);
                self.take(piece, line, u64::from(newline.is_some()), context);
            }
            context.line += u64::from(newline.is_some());
            position = next;
        }
        position
    }

    fn entries(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        let mut position = 0;
        while let Some(rest) = data.get(position..).filter(|rest| !rest.is_empty()) {
            let Some((piece, length)) = unwrap::journal(rest, end != End::More) else { break };
            let bytes = rest.get(..length).unwrap_or_default();
            let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
            let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            self.take(piece, first, lines, context);
            context.line += lines;
            position += length;
        }
        position
    }

    /// Joins a piece to its writer's message, or opens another.
    fn take(&mut self, piece: Option<Piece<'_>>, line: &[u8], lines: u64, context: &mut Context<'_>) {
        if context.line.is_multiple_of(PATIENCE / 2) || self.held > MAX_HELD {
            let patience = if self.held > MAX_HELD { 0 } else { PATIENCE };
            self.close_all(context.line.saturating_sub(patience), context);
        }
        let mut lines = lines.max(1);
        let Some(mut piece) = piece else {
            if line.is_empty() {
                context.report.lines += lines;
                context.report.understood += lines;
            } else {
                context.report.not_understood(context.line, line);
                context.report.lines += lines - 1;
            }
            return;
        };
        if piece.partial && self.cut.len() < MAX_MESSAGE {
            self.cut.extend_from_slice(&piece.text);
            self.cut_lines += lines;
            return;
        }
        if self.cut_lines > 0 {
            self.cut.extend_from_slice(&piece.text);
            piece = piece.with(std::mem::take(&mut self.cut));
            lines += std::mem::take(&mut self.cut_lines);
        }
        let first =
            if self.carrier == Carrier::Journal { context.line } else { (context.line + 1).saturating_sub(lines) };
        if piece.joint == Joint::Opens {
            self.close(piece.writer, context);
            self.held += piece.text.len();
            let mut text = Vec::with_capacity(piece.text.len() + 1);
            text.extend_from_slice(&piece.text);
            let Piece { writer, session, at, .. } = piece;
            let open = Open { text, line: first, lines, last: context.line, session, at, truncated: false };
            self.open.insert(writer, open);
            return;
        }
        let Some(open) = self.open.get_mut(&piece.writer) else {
            // Another program's line, or the end of a message that began before the file did.
            context.report.lines += lines;
            context.report.understood += lines;
            return;
        };
        (open.last, open.lines) = (context.line, open.lines + lines);
        if open.text.len() + piece.text.len() < MAX_MESSAGE {
            if piece.joint == Joint::Line || self.carrier != Carrier::Syslog {
                open.text.push(b'\n');
            }
            open.text.extend_from_slice(&piece.text);
            self.held += piece.text.len();
        } else if !std::mem::replace(&mut open.truncated, true) {
            context.report.truncated += 1;
        }
    }

    /// Hands on the messages whose writers have said nothing since line `before`, oldest first.
    fn close_all(&mut self, before: u64, context: &mut Context<'_>) {
        let old = self.open.iter().filter(|(_, open)| open.last < before);
        let mut writers: Vec<(u64, u64)> = old.map(|(writer, open)| (open.line, *writer)).collect();
        writers.sort_unstable();
        for (_, writer) in writers {
            self.close(writer, context);
        }
    }

    /// Hands on a writer's message.
    fn close(&mut self, writer: u64, context: &mut Context<'_>) {
        let Some(mut open) = self.open.remove(&writer) else { return };
        self.held = self.held.saturating_sub(open.text.len());
        open.text.push(b'\n');
        self.inner.within(open.session, open.at);
        let (lines, understood) = (context.report.lines, context.report.understood);
        let mut within =
            Context { file: context.file, line: open.line, report: &mut *context.report, sink: &mut *context.sink };
        self.inner.feed(&open.text, End::Eof, &mut within);
        // The file's lines are counted, not those that the message has by itself.
        let was_understood = context.report.understood > understood;
        context.report.lines = lines + open.lines;
        context.report.understood = understood + if was_understood { open.lines } else { 0 };
    }
}
