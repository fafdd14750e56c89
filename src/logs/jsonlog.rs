//! `log_destination = jsonlog` (PostgreSQL 15 and later): one flat JSON object a line.

use super::feed::{Context, End};
use super::prefix::{decimal, session_of};
use super::record::{Emitter, Record};
use super::severity::Severity;
use super::stderr::trim_line;
use super::time::Clock;

/// Reads jsonlog.
#[derive(Debug, Default)]
pub(super) struct JsonLog {
    clock: Clock,
    emitter: Emitter,
    message: Vec<u8>,
    detail: Vec<u8>,
    statement: Vec<u8>,
    /// The rest of a line that was too long is being dropped.
    skipping: bool,
}

/// The values that are read, as they stand between their quotes.
#[derive(Debug, Default, Clone, Copy)]
struct Values<'a> {
    timestamp: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    database: Option<&'a [u8]>,
    pid: Option<&'a [u8]>,
    session: Option<&'a [u8]>,
    severity: Option<&'a [u8]>,
    message: Option<&'a [u8]>,
    detail: Option<&'a [u8]>,
    statement: Option<&'a [u8]>,
    application: Option<&'a [u8]>,
}

impl JsonLog {
    /// True when a line is a message of this format.
    pub(super) fn recognises(line: &[u8]) -> bool {
        read_object(line).is_some_and(|values| values.severity.and_then(Severity::of).is_some())
    }

    /// Reads whole lines out of `data`; answers how many bytes are done with.
    pub(super) fn feed(&mut self, data: &[u8], end: End, context: &mut Context<'_>) -> usize {
        let mut position = 0;
        while let Some(rest) = data.get(position..).filter(|rest| !rest.is_empty()) {
            let newline = memchr::memchr(b'\n', rest);
            if newline.is_none() && end == End::More {
                break;
            }
            let next = newline.map_or(data.len(), |at| position + at + 1);
            let line = trim_line(data.get(position..next).unwrap_or_default());
            if self.skipping {
                self.skipping = newline.is_none();
            } else {
                self.line(line, context);
                if newline.is_none() && end == End::Overflow {
                    context.report.truncated += 1;
                    self.skipping = true;
                }
            }
            context.line += u64::from(newline.is_some());
            position = next;
        }
        position
    }

    fn line(&mut self, line: &[u8], context: &mut Context<'_>) {
        let values = read_object(line);
        let known = values.and_then(|values| Some((values, Severity::of(values.severity?)?)));
        let Some((values, severity)) = known else {
            return context.report.not_understood(context.line, line);
        };
        context.report.lines += 1;
        context.report.understood += 1;
        let session = values.session.map(session_of).or_else(|| values.pid.and_then(decimal)).unwrap_or(0);
        let record = Record {
            severity,
            message: unescape(values.message.unwrap_or_default(), &mut self.message),
            detail: values.detail.map(|text| unescape(text, &mut self.detail)),
            statement: values.statement.map(|text| unescape(text, &mut self.statement)),
            tabbed: false,
            line: context.line,
            at_ms: values.timestamp.and_then(|text| self.clock.read(text)).map(|(at, _)| at),
            session,
            user: values.user,
            database: values.database,
            application: values.application,
        };
        let emitted = self.emitter.emit(&record, context.file, context.sink);
        context.report.statements += u64::from(emitted);
    }
}

/// Reads a flat object's values; `None` when the line is no object.
fn read_object(line: &[u8]) -> Option<Values<'_>> {
    let mut values = Values::default();
    let mut rest = line.trim_ascii().strip_prefix(b"{")?;
    loop {
        rest = rest.trim_ascii_start();
        if rest.first() == Some(&b'}') {
            return Some(values);
        }
        let (key, after) = string(rest)?;
        rest = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let value;
        (value, rest) = if rest.first() == Some(&b'"') { string(rest)? } else { plain(rest)? };
        match key {
            // CloudNativePG wraps csvlog's columns under their own names.
            b"record" if value.starts_with(b"{") => return read_object(value),
            b"timestamp" | b"log_time" => values.timestamp = Some(value),
            b"user" | b"user_name" => values.user = Some(value),
            b"dbname" | b"database_name" => values.database = Some(value),
            b"pid" | b"process_id" => values.pid = Some(value),
            b"session_id" => values.session = Some(value),
            b"error_severity" => values.severity = Some(value),
            b"message" => values.message = Some(value),
            b"detail" => values.detail = Some(value),
            b"statement" | b"query" => values.statement = Some(value),
            b"application_name" => values.application = Some(value),
            _ => {}
        }
        rest = rest.trim_ascii_start();
        match rest.split_first()? {
            (b',', after) => rest = after,
            (b'}', _) => return Some(values),
            _ => return None,
        }
    }
}

/// A string: what stands between its quotes, and what follows it.
pub(super) fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = text.strip_prefix(b"\"")?;
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', inside.get(from..)?)?;
        if inside.get(at) == Some(&b'"') {
            return Some((inside.get(..at)?, inside.get(at + 1..)?));
        }
        from = at + 2;
    }
}

/// A number, a word, or a nested value (skipped as a whole).
pub(super) fn plain(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                let (_, rest) = string(text.get(at..)?)?;
                at = text.len() - rest.len();
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b',' | b'}' | b']' | b' ' | b'\t' if depth == 0 => break,
            _ => {}
        }
        at += 1;
    }
    Some(text.split_at(at))
}

/// Undoes JSON's escapes.
pub(super) fn unescape<'a>(text: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(mut backslash) = memchr::memchr(b'\\', text) else { return text };
    scratch.clear();
    let mut rest = text;
    loop {
        let (kept, tail) = rest.split_at(backslash);
        scratch.extend_from_slice(kept);
        let (escape, after) = tail.get(1..).and_then(<[u8]>::split_first).unwrap_or((&b'\\', &[]));
        rest = after;
        match escape {
            b'n' => scratch.push(b'\n'),
            b't' => scratch.push(b'\t'),
            b'r' => scratch.push(b'\r'),
            b'b' => scratch.push(8),
            b'f' => scratch.push(12),
            b'u' => rest = unicode(after, scratch),
            other => scratch.push(*other),
        }
        match memchr::memchr(b'\\', rest) {
            Some(next) => backslash = next,
            None => break,
        }
    }
    scratch.extend_from_slice(rest);
    scratch
}

/// `\uXXXX`, perhaps the first half of a surrogate pair; answers what follows.
fn unicode<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let hex = |text: &[u8]| {
        let digits = text.get(..4).and_then(|digits| std::str::from_utf8(digits).ok())?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(mut code) = hex(text) else { return text };
    let mut rest = text.get(4..).unwrap_or_default();
    let second = rest.strip_prefix(b"\\u").and_then(|low| Some((hex(low)?, low.get(4..)?)));
    if let Some((low @ 0xdc00..0xe000, after)) = second.filter(|_| (0xd800..0xdc00).contains(&code)) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        rest = after;
    }
    let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_and_skips_what_is_nested() {
        let line = br#"{"pid":12,"x":{"message":"no","y":[1,"}"]},"message":"a\"b","error_severity":"LOG"}"#;
        let values = read_object(line).expect("an object");
        assert_eq!((values.pid, values.message), (Some(b"12".as_slice()), Some(br#"a\"b"#.as_slice())));
        assert!(JsonLog::recognises(line));
        assert!(read_object(br#"{"message":"cut of"#).is_none());
        assert!(read_object(br#"{"a":1 "b":2}"#).is_none());
    }

    #[test]
    fn undoes_escapes() {
        let mut scratch = Vec::new();
        assert_eq!(
            unescape(br#"a\n\t\"\\\/\u00e9\ud83d\ude00\ud800!"#, &mut scratch),
            "a\n\t\"\\/é😀\u{fffd}!".as_bytes()
        );
        assert_eq!(unescape(br"end\", &mut scratch), b"end\\");
    }
}
