//! What stands around a line of PostgreSQL's own where something else has carried it: syslog, journald,
//! containers, clouds. One physical line (or journal entry) becomes a piece of a message.

use std::borrow::Cow;

use super::jsonlog::{plain, string, unescape};
use super::prefix::decimal;
use super::severity;
use super::time::{Clock, Millis, month_day};

/// Who carried the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// syslog, of RFC 3164 or 5424.
    Syslog,
    /// `journalctl -o export`.
    Journal,
    /// A JSON object a line, the text in one of its members: containers, clouds, `journalctl -o json`.
    Json,
    /// A time before each line: CRI, `docker logs -t`, CloudWatch.
    Stamps,
}

impl Carrier {
    /// The format in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Syslog => "syslog",
            Self::Journal => "journald export",
            Self::Json => "lines wrapped in JSON",
            Self::Stamps => "lines after a time",
        }
    }
}

/// How a piece goes on from what was read before under the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joint {
    /// It opens a message.
    Opens,
    /// It is a further line.
    Line,
    /// It goes on in the middle of a line.
    Middle,
}

/// What one line carries.
#[derive(Debug, PartialEq)]
pub(super) struct Piece<'a> {
    /// Tells writers apart, whose lines may be interleaved.
    pub(super) writer: u64,
    /// The session, when the carrier knows it.
    pub(super) session: u64,
    pub(super) at: Option<Millis>,
    pub(super) text: Cow<'a, [u8]>,
    pub(super) joint: Joint,
    /// The text's line goes on in the writer's next piece.
    pub(super) partial: bool,
}

impl<'a> Piece<'a> {
    /// A text of a writer and a time unknown.
    pub(super) fn of(text: Cow<'a, [u8]>) -> Self {
        let joint = joint(&text);
        Self { writer: 0, session: 0, at: None, text, joint, partial: false }
    }

    /// The piece with another text.
    pub(super) fn with(self, text: Vec<u8>) -> Piece<'static> {
        let Piece { writer, session, at, partial, .. } = self;
        Piece { writer, session, at, partial, ..Piece::of(Cow::Owned(text)) }
    }

    /// It opens a message, or is numbered as part of one: PostgreSQL wrote it.
    pub(super) fn is_certain(&self) -> bool {
        self.joint == Joint::Opens
    }
}

/// How a text without a number goes on.
fn joint(text: &[u8]) -> Joint {
    match severity::anywhere(text) {
        _ if text.starts_with(b"\t") => Joint::Line,
        Some((severity, ..)) if severity.is_primary() => Joint::Opens,
        Some(_) => Joint::Line,
        None => Joint::Middle,
    }
}

/// `[7-2] text`: the part's number, and the text. Numbers are off with `syslog_sequence_numbers = off`.
fn numbered(text: &[u8]) -> Option<(u64, &[u8])> {
    let inside = text.strip_prefix(b"[")?;
    let close = memchr::memchr(b']', inside.get(..inside.len().min(24))?)?;
    let (numbers, rest) = (inside.get(..close)?, inside.get(close + 1..)?);
    let dash = memchr::memchr(b'-', numbers)?;
    decimal(numbers.get(..dash)?)?;
    Some((decimal(numbers.get(dash + 1..)?)?, rest.strip_prefix(b" ").unwrap_or(rest)))
}

/// A text as syslog carries it: numbered, split at 900 bytes and at newlines, control characters escaped.
fn syslog_piece(text: &[u8]) -> Piece<'_> {
    let Some((part, rest)) = numbered(text) else { return Piece::of(without_escapes(text)) };
    let text = without_escapes(rest);
    let joint = match part {
        1 => Joint::Opens,
        // A split inside a line falls before a blank.
        _ if text.starts_with(b" ") => Joint::Middle,
        _ if text.starts_with(b"\t") => Joint::Line,
        _ => match severity::anywhere(&text) {
            Some((severity, ..)) if !severity.is_primary() => Joint::Line,
            _ => Joint::Middle,
        },
    };
    Piece { writer: 0, session: 0, at: None, text, joint, partial: false }
}

/// rsyslog writes control characters as `#011`.
fn without_escapes(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(text, b"#0").is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, b"#0") {
        let (before, escape) = rest.split_at(at);
        plain.extend_from_slice(before);
        match escape.get(2..4) {
            Some([high @ b'0'..=b'3', low @ b'0'..=b'7']) => {
                plain.push((high - b'0') * 8 + (low - b'0'));
                rest = escape.get(4..).unwrap_or_default();
            }
            _ => {
                plain.extend_from_slice(b"#0");
                rest = escape.get(2..).unwrap_or_default();
            }
        }
    }
    plain.extend_from_slice(rest);
    Cow::Owned(plain)
}

/// The next word, and what follows the blank after it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', text)?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

/// A line of syslog: `Nov 22 22:41:36 host postgres[42]: text`, or `<134>1 2026-11-22T22:41:36Z host postgres 42 - - text`.
pub(super) fn syslog<'a>(clock: &mut Clock, line: &'a [u8]) -> Option<Piece<'a>> {
    let rest = match line.strip_prefix(b"<") {
        Some(inside) => {
            let close = memchr::memchr(b'>', inside.get(..inside.len().min(4))?)?;
            decimal(inside.get(..close)?)?;
            inside.get(close + 1..)?
        }
        None => line,
    };
    if let Some(rest) = rest.strip_prefix(b"1 ") {
        let (at, length) = clock.read(rest)?;
        let (_host, rest) = word(rest.get(length..)?.strip_prefix(b" ")?)?;
        let (_application, rest) = word(rest)?;
        let (process, rest) = word(rest)?;
        let (_message, rest) = word(rest)?;
        let text = match rest.first()? {
            b'[' => rest.get(memchr::memmem::find(rest, b"] ")? + 2..)?,
            _ => word(rest)?.1,
        };
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        return Some(by(syslog_piece(text), decimal(process).unwrap_or(0), Some(at)));
    }
    let (at, length) = month_day(rest).or_else(|| clock.read(rest).filter(|_| rest.get(10) == Some(&b'T')))?;
    let (_host, rest) = word(rest.get(length..)?.strip_prefix(b" ")?)?;
    let (tag, text) = word(rest)?;
    let tag = tag.strip_suffix(b":")?;
    let process = match memchr::memrchr(b'[', tag) {
        Some(open) => decimal(tag.get(open + 1..)?.strip_suffix(b"]")?)?,
        None => 0,
    };
    // Solaris writes `[ID 748848 local0.info]` before the text.
    let text = match text.strip_prefix(b"[ID ") {
        Some(_) => text.get(memchr::memmem::find(text, b"] ")? + 2..)?,
        None => text,
    };
    Some(by(syslog_piece(text), process, Some(at)))
}

fn by(piece: Piece<'_>, process: u64, at: Option<Millis>) -> Piece<'_> {
    Piece { writer: process, session: process, at, ..piece }
}

/// A line after a time: `2026-11-22T22:41:36.123456789Z stderr F text`.
pub(super) fn stamped<'a>(clock: &mut Clock, line: &'a [u8]) -> Option<Piece<'a>> {
    let (at, length) = clock.read(line).filter(|_| line.get(10) == Some(&b'T'))?;
    let rest = line.get(length..)?;
    let rest = rest.strip_prefix(b" ").or_else(|| rest.strip_prefix(b"\t"))?;
    let stream = rest.strip_prefix(b"stderr ").or_else(|| rest.strip_prefix(b"stdout "));
    let (partial, text) = match stream {
        Some(rest) if rest.starts_with(b"P ") => (true, rest.get(2..)?),
        Some(rest) if rest.starts_with(b"F ") => (false, rest.get(2..)?),
        Some(rest) => (false, rest),
        None => (false, rest),
    };
    Some(Piece { at: Some(at), partial, ..Piece::of(Cow::Borrowed(text)) })
}

/// What an entry of the journal, or a JSON object, says.
#[derive(Debug, Default)]
pub(super) struct Entry<'a> {
    text: Option<Cow<'a, [u8]>>,
    process: Option<u64>,
    /// It came over syslog(3), so that the process is the session's own.
    syslog: bool,
    at: Option<Millis>,
    /// It is of a container, which cuts long lines.
    cut: bool,
}

impl<'a> Entry<'a> {
    fn member(&mut self, name: &[u8], value: Cow<'a, [u8]>) {
        match name {
            b"MESSAGE" | b"message" | b"textPayload" | b"msg" => self.text = Some(value),
            b"log" => {
                self.cut = !value.ends_with(b"\n");
                self.text = Some(value);
            }
            b"_PID" => self.process = decimal(&value),
            b"_TRANSPORT" => self.syslog = &*value == b"syslog",
            b"__REALTIME_TIMESTAMP" => self.at = decimal(&value).map(|micros| (micros / 1000) as Millis),
            _ => {}
        }
    }

    fn piece(self) -> Option<Piece<'a>> {
        let mut text = self.text?;
        if text.ends_with(b"\n") {
            text.to_mut().pop();
        }
        let piece = match text {
            Cow::Borrowed(text) => syslog_piece(text),
            Cow::Owned(text) => {
                let Piece { text, joint, .. } = syslog_piece(&text);
                Piece { text: Cow::Owned(text.into_owned()), joint, writer: 0, session: 0, at: None, partial: false }
            }
        };
        let writer = self.process.unwrap_or(0);
        let session = if self.syslog { writer } else { 0 };
        Some(Piece { writer, session, at: self.at, partial: self.cut, ..piece })
    }
}

/// A JSON object with a line of text in it.
pub(super) fn json(line: &[u8]) -> Option<Piece<'_>> {
    let mut entry = Entry::default();
    members(line, &mut entry)?;
    entry.piece()
}

fn members<'a>(line: &'a [u8], entry: &mut Entry<'a>) -> Option<()> {
    let mut rest = line.trim_ascii().strip_prefix(b"{")?;
    loop {
        rest = rest.trim_ascii_start();
        if rest.first()? == &b'}' {
            return Some(());
        }
        let (key, after) = string(rest)?;
        rest = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        if rest.first()? == &b'"' {
            let (value, after) = string(rest)?;
            let mut scratch = Vec::new();
            let plain = match memchr::memchr(b'\\', value) {
                None => Cow::Borrowed(value),
                Some(_) => Cow::Owned(unescape(value, &mut scratch).to_vec()),
            };
            entry.member(key, plain);
            rest = after;
        } else {
            let (value, after) = plain(rest)?;
            match value.first() {
                Some(b'{') if key == b"jsonPayload" => members(value, entry)?,
                Some(b'[') => entry.member(key, Cow::Owned(bytes(value)?)),
                _ => entry.member(key, Cow::Borrowed(value)),
            }
            rest = after;
        }
        match rest.trim_ascii_start().split_first()? {
            (b',', after) => rest = after,
            (b'}', _) => return Some(()),
            _ => return None,
        }
    }
}

/// journald writes a text that is no UTF-8 as numbers; other lists are of no interest.
fn bytes(list: &[u8]) -> Option<Vec<u8>> {
    let numbers = list.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let each = numbers.split(|byte| *byte == b',').map(|number| u8::try_from(decimal(number.trim_ascii())?).ok());
    Some(each.collect::<Option<Vec<u8>>>().unwrap_or_default())
}

/// One entry of a journal export at the start of `data`, and the bytes it takes; `None` when it is not complete.
///
/// A member is `NAME=text`, or `NAME`, a newline, eight bytes of length, and so many bytes.
pub(super) fn journal(data: &[u8], last: bool) -> Option<(Option<Piece<'_>>, usize)> {
    let mut entry = Entry::default();
    let mut at = 0;
    loop {
        let rest = data.get(at..)?;
        let Some(newline) = memchr::memchr(b'\n', rest) else {
            return last.then(|| (entry.piece(), data.len()));
        };
        let line = rest.get(..newline)?;
        at += newline + 1;
        if line.is_empty() {
            return Some((entry.piece(), at));
        }
        match memchr::memchr(b'=', line) {
            Some(equals) => entry.member(line.get(..equals)?, Cow::Borrowed(line.get(equals + 1..)?)),
            None => {
                let after = data.get(at..)?;
                let Some(length) = after.first_chunk::<8>().map(|length| u64::from_le_bytes(*length)) else {
                    return last.then(|| (entry.piece(), data.len()));
                };
                let end = usize::try_from(length).ok().and_then(|length| length.checked_add(8));
                let Some(value) = end.and_then(|end| after.get(8..end)) else {
                    return last.then(|| (entry.piece(), data.len()));
                };
                entry.member(line, Cow::Borrowed(value));
                at += 8 + value.len() + usize::from(after.get(8 + value.len()) == Some(&b'\n'));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<(u64, String, Joint)> {
        let piece = syslog(&mut Clock::default(), line.as_bytes())?;
        Some((piece.session, String::from_utf8_lossy(&piece.text).into_owned(), piece.joint))
    }

    #[test]
    fn reads_every_head_of_syslog() {
        let opens = Some((42, "LOG:  x".to_owned(), Joint::Opens));
        for line in [
            "Nov 22 22:41:36 db postgres[42]: [3-1] LOG:  x",
            "<134>Nov  2 22:41:36 db postgres[42]: [3-1] LOG:  x",
            "2026-11-22T22:41:36.123456+00:00 db postgres[42]: LOG:  x",
            "<134>1 2026-11-22T22:41:36.123Z db postgres 42 - - [3-1] LOG:  x",
            "<134>1 2026-11-22T22:41:36.123Z db postgres 42 id [a b=\"c\"] [3-1] LOG:  x",
            "Nov 22 22:41:36 db postgres[42]: [ID 748848 local0.info] [3-1] LOG:  x",
        ] {
            assert_eq!(read(line), opens, "{line}");
        }
        assert_eq!(read("2026-11-22 22:41:36.123 UTC [42] LOG:  x"), None);
        assert_eq!(read("Nov 22 22:41:36 db sshd[7]: bye").map(|(.., joint)| joint), Some(Joint::Middle));
    }

    #[test]
    fn knows_how_parts_of_a_message_go_on() {
        let joint_of = |text: &str| read(&format!("Nov 22 22:41:36 db postgres[42]: {text}"));
        assert_eq!(joint_of("[3-2] #011FROM t"), Some((42, "\tFROM t".to_owned(), Joint::Line)));
        assert_eq!(joint_of("[3-2]  FROM t"), Some((42, " FROM t".to_owned(), Joint::Middle)));
        assert_eq!(joint_of("[3-3] DETAIL:  x").map(|(.., joint)| joint), Some(Joint::Line));
        assert_eq!(joint_of("#0zz#011").map(|(_, text, _)| text), Some("#0zz\t".to_owned()));
    }

    #[test]
    fn reads_entries_of_a_journal() {
        let mut data = b"__REALTIME_TIMESTAMP=1795387296123000\n_TRANSPORT=syslog\n_PID=42\nMESSAGE\n".to_vec();
        data.extend(7u64.to_le_bytes());
        data.extend(b"LOG:  x\n\nMESSAGE=y");
        let (piece, length) = journal(&data, false).expect("an entry");
        let piece = piece.expect("a text");
        assert_eq!((piece.session, &*piece.text, piece.at), (42, b"LOG:  x".as_slice(), Some(1_795_387_296_123)));
        assert!(journal(&data[length..], false).is_none());
        assert!(journal(&data[..length - 4], false).is_none());
        assert!(journal(&data[length..], true).is_some());
    }
}
