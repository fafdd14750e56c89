//! Plain SQL: statements up to their `;`, psql's backslash commands and COPY data left out.

use super::feed::{Context, End};
use crate::sql::lexer::{LexOptions, Lexer};
use crate::workload::Observation;

/// Reads .sql files.
#[derive(Debug, Default)]
pub(super) struct SqlFile {
    /// Inside the rows that follow COPY .. FROM STDIN.
    copying: bool,
    /// The rest of a statement that was too long is being dropped.
    skipping: bool,
}

impl SqlFile {
    /// Reads whole statements out of `data`; answers how many bytes are done with.
    pub(super) fn feed(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        let mut position = 0;
        loop {
            if self.copying || self.skipping {
                match self.skip(data.get(position..).unwrap_or_default(), end) {
                    0 => return position,
                    skipped => position = advance(data, position, position + skipped, context),
                }
                continue;
            }
            let rest = data.get(position..).unwrap_or_default();
            let Some(found) = first_statement(rest) else {
                // Only blanks and comments: done with when the data ends, and kept small otherwise.
                let keep = end == End::More;
                return if keep { position } else { advance(data, position, data.len(), context) };
            };
            match found {
                Found::Command(start) => {
                    let newline = memchr::memchr(b'\n', rest.get(start..).unwrap_or_default());
                    match newline {
                        Some(length) => position = advance(data, position, position + start + length + 1, context),
                        None if end == End::More => return position,
                        None => return advance(data, position, data.len(), context),
                    }
                }
                Found::Whole(start, stop, next) => {
                    let begin = advance(data, position, position + start, context);
                    self.statement(data.get(begin..position + stop).unwrap_or_default(), context);
                    position = advance(data, begin, position + next, context);
                }
                Found::Open(start) => {
                    if end == End::More {
                        return position;
                    }
                    let begin = advance(data, position, position + start, context);
                    self.statement(data.get(begin..).unwrap_or_default(), context);
                    if end == End::Overflow {
                        context.report.truncated += 1;
                        self.skipping = true;
                        self.copying = false;
                    }
                    return advance(data, begin, data.len(), context);
                }
            }
        }
    }

    fn statement(&mut self, sql: &[u8], context: &mut Context<'_>) {
        let sql = sql.trim_ascii();
        if sql.is_empty() {
            return;
        }
        context.report.lines += 1;
        context.report.understood += 1;
        context.report.statements += 1;
        self.copying = is_copy_from_stdin(sql);
        let observation = Observation { sql, file: context.file, line: context.line, ..Observation::of("") };
        context.sink.observe(&observation);
    }

    /// How many bytes of COPY data, or of a statement that was too long, stand at the start.
    fn skip(&mut self, data: &[u8], end: End) -> usize {
        let mut position = 0;
        while let Some(length) = memchr::memchr(b'\n', data.get(position..).unwrap_or_default()) {
            let line = data.get(position..position + length).unwrap_or_default().trim_ascii_end();
            position += length + 1;
            let over = if self.copying { line == b"\\." } else { line.ends_with(b";") };
            if over {
                self.copying = false;
                self.skipping = false;
                return position;
            }
        }
        if end == End::More { position } else { data.len() }
    }
}

/// What stands first in a text.
enum Found {
    /// A psql command at this byte.
    Command(usize),
    /// A statement: its first byte, its end, and where the next begins.
    Whole(usize, usize, usize),
    /// A statement that the text ends in.
    Open(usize),
}

fn first_statement(text: &[u8]) -> Option<Found> {
    let mut depth = 0usize;
    let mut start = None;
    for token in Lexer::new(text, LexOptions::default()) {
        let (from, to) = (token.start as usize, token.end as usize);
        let word = text.get(from..to).unwrap_or_default();
        if start.is_none() {
            match word.first() {
                Some(b'\\') => return Some(Found::Command(from)),
                // An empty statement.
                Some(b';') => return Some(Found::Whole(from, from, to)),
                _ => start = Some(from),
            }
        }
        match word {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            b";" if depth == 0 => return Some(Found::Whole(start.unwrap_or(from), from, to)),
            _ => {}
        }
    }
    start.map(Found::Open)
}

fn is_copy_from_stdin(sql: &[u8]) -> bool {
    let head = sql.get(..4).unwrap_or_default();
    head.eq_ignore_ascii_case(b"copy") && {
        let text = String::from_utf8_lossy(sql.get(..sql.len().min(16 << 10)).unwrap_or_default()).to_ascii_lowercase();
        let mut words = text.split(|letter: char| letter.is_ascii_whitespace() || letter == ';');
        words.by_ref().any(|word| word == "from") && words.find(|word| !word.is_empty()) == Some("stdin")
    }
}

/// Moves on to `to`, counting lines.
fn advance(data: &[u8], from: usize, to: usize, context: &mut Context<'_>) -> usize {
    let to = to.min(data.len());
    context.line += memchr::memchr_iter(b'\n', data.get(from..to).unwrap_or_default()).count() as u64;
    to
}
