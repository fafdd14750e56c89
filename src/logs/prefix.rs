//! `log_line_prefix` as a matcher: compiled once from its `%` escapes, run on every line.
//!
//! The escapes are those of PostgreSQL 18's manual, section 19.8. After a prefix a severity must
//! follow, which is what makes a match certain. `%q` ends the prefix for background processes.

use memchr::memmem;

use super::severity::{self, Severity};
use super::time::{Clock, Millis};
use crate::error::{Error, Result};

/// What a line's prefix says, and where its message begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Header<'a> {
    /// When, in milliseconds of the log's clock.
    pub(super) at: Option<Millis>,
    /// Tells sessions apart: the process id, or a hash of the session id; 0 when the prefix has neither.
    pub(super) session: u64,
    /// User name.
    pub(super) user: Option<&'a [u8]>,
    /// Database name.
    pub(super) database: Option<&'a [u8]>,
    /// Application name.
    pub(super) application: Option<&'a [u8]>,
    /// What the line is.
    pub(super) severity: Severity,
    /// The message's first byte in the line.
    pub(super) message: usize,
}

impl Header<'_> {
    pub(super) fn new(severity: Severity, message: usize) -> Self {
        Self { at: None, session: 0, user: None, database: None, application: None, severity, message }
    }
}

/// What a stretch of the prefix means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    User,
    Database,
    Application,
    SessionId,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Op {
    Literal(Vec<u8>),
    /// `%m %t %s`
    Time,
    /// `%n`: seconds since 1970 with milliseconds.
    Epoch,
    /// `%p`
    Pid,
    /// `%l %x %Q %P`: digits, perhaps none.
    Digits,
    /// `%q`
    SessionsOnly,
    /// Anything up to the next literal.
    Text(Field),
    /// Blanks that a width such as `%-10u` or `%5p` adds.
    Padding,
}

/// A compiled `log_line_prefix`.
#[derive(Debug, Clone)]
pub(super) struct Prefix {
    ops: Vec<Op>,
    clock: Clock,
    /// As the setting has it.
    pub(super) source: String,
}

impl Prefix {
    /// Compiles a `log_line_prefix`; an escape that PostgreSQL does not know is an error of usage.
    pub(super) fn compile(source: &str) -> Result<Self> {
        let mut ops = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = source.bytes().peekable();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                literal.push(byte);
                continue;
            }
            let mut padded = false;
            while bytes.peek().is_some_and(|next| *next == b'-' || next.is_ascii_digit()) {
                padded = true;
                bytes.next();
            }
            let Some(escape) = bytes.next() else { break };
            if escape == b'%' {
                literal.push(b'%');
                continue;
            }
            let op = op_of(escape).ok_or_else(|| {
                Error::usage(format!("log_line_prefix has no escape %{}", char::from(escape)))
                    .at(format!("--log-line-prefix '{source}'"))
                    .hint("copy the value that SHOW log_line_prefix prints on the server")
            })?;
            if !literal.is_empty() {
                ops.push(Op::Literal(std::mem::take(&mut literal)));
            }
            if padded {
                ops.extend([Op::Padding, op, Op::Padding]);
            } else {
                ops.push(op);
            }
        }
        if !literal.is_empty() {
            ops.push(Op::Literal(literal));
        }
        Ok(Self { ops, clock: Clock::default(), source: source.to_owned() })
    }

    /// Reads a line that begins with this prefix and a severity.
    pub(super) fn read<'a>(&mut self, line: &'a [u8]) -> Option<Header<'a>> {
        let mut header = Header::new(Severity::Log, 0);
        step(&self.ops, &mut self.clock, line, 0, &mut header).then_some(header)
    }

    /// How much the prefix says, to prefer the more telling of two that match.
    pub(super) fn weight(&self) -> usize {
        self.ops.len()
    }
}

fn op_of(escape: u8) -> Option<Op> {
    Some(match escape {
        b'm' | b't' | b's' => Op::Time,
        b'n' => Op::Epoch,
        b'p' => Op::Pid,
        b'l' | b'x' | b'Q' | b'P' => Op::Digits,
        b'q' => Op::SessionsOnly,
        b'u' => Op::Text(Field::User),
        b'd' => Op::Text(Field::Database),
        b'a' => Op::Text(Field::Application),
        b'c' => Op::Text(Field::SessionId),
        b'h' | b'r' | b'b' | b'i' | b'v' | b'e' | b'L' => Op::Text(Field::Other),
        _ => return None,
    })
}

/// How many ends of a text field are tried before giving up on a line: an application's name may hold the literal.
const MAX_TRIES: usize = 8;

/// Runs `ops` from `at`, filling `header`; true when they and a severity match.
fn step<'a>(ops: &[Op], clock: &mut Clock, line: &'a [u8], at: usize, header: &mut Header<'a>) -> bool {
    let Some(text) = line.get(at..) else { return false };
    let Some((op, rest)) = ops.split_first() else { return finish(text, at, header) };
    let digits = |from: usize| text.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    match op {
        Op::Literal(literal) => text.starts_with(literal) && step(rest, clock, line, at + literal.len(), header),
        Op::Time => {
            let Some((millis, length)) = clock.read(text) else { return false };
            // The first of %m and %s is the line's time, the other the session's start; %m comes first in practice.
            header.at = header.at.or(Some(millis));
            step(rest, clock, line, at + length, header)
        }
        Op::Epoch => {
            let whole = digits(0);
            let fraction = if text.get(whole) == Some(&b'.') { 1 + digits(whole + 1) } else { 0 };
            header.at = decimal(text.get(..whole).unwrap_or_default()).map(|seconds| {
                seconds as Millis * 1000
                    + decimal(text.get(whole + 1..whole + fraction).unwrap_or_default()).unwrap_or(0) as Millis
            });
            whole > 0 && step(rest, clock, line, at + whole + fraction, header)
        }
        Op::Pid => {
            let length = digits(0);
            let Some(pid) = decimal(text.get(..length).unwrap_or_default()) else { return false };
            header.session = pid;
            step(rest, clock, line, at + length, header)
        }
        Op::Digits => {
            let sign = usize::from(text.first() == Some(&b'-'));
            step(rest, clock, line, at + sign + digits(sign), header)
        }
        Op::Padding => {
            let blanks = text.iter().take_while(|byte| **byte == b' ').count();
            // The literal behind may begin with blanks too: take as many as still let it match.
            (0..=blanks).rev().any(|taken| step(rest, clock, line, at + taken, header))
        }
        Op::SessionsOnly => step(rest, clock, line, at, header) || finish(text, at, header),
        Op::Text(field) => text_field(*field, rest, clock, line, at, header),
    }
}

/// A field of free text: ends where what follows matches.
fn text_field<'a>(
    field: Field,
    rest: &[Op],
    clock: &mut Clock,
    line: &'a [u8],
    at: usize,
    header: &mut Header<'a>,
) -> bool {
    let Some(text) = line.get(at..) else { return false };
    let mut try_end = |end: usize, header: &mut Header<'a>| {
        if !step(rest, clock, line, at + end, header) {
            return false;
        }
        let value = text.get(..end).unwrap_or_default();
        keep(field, value, header);
        true
    };
    match rest.iter().find(|op| !matches!(op, Op::Padding | Op::SessionsOnly)) {
        Some(Op::Literal(literal)) => memmem::find_iter(text, literal).take(MAX_TRIES).any(|end| try_end(end, header)),
        Some(_) => {
            // Two fields without anything between: the first ends at a character class's border; only the second is wanted.
            let end = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            try_end(end, header)
        }
        None => severity::anywhere(text).is_some_and(|(_, start, _)| try_end(start, header)),
    }
}

fn keep<'a>(field: Field, value: &'a [u8], header: &mut Header<'a>) {
    let known = |value: &'a [u8]| Some(value.trim_ascii()).filter(|value| !value.is_empty() && *value != b"[unknown]");
    match field {
        Field::User => header.user = known(value),
        Field::Database => header.database = known(value),
        Field::Application => header.application = known(value),
        Field::SessionId => {
            if header.session == 0 {
                header.session = session_of(value);
            }
        }
        Field::Other => {}
    }
}

/// A session's number out of its id (`6741a2b3.1c2d`: start time and process id in hexadecimal).
pub(super) fn session_of(id: &[u8]) -> u64 {
    id.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn finish(text: &[u8], at: usize, header: &mut Header<'_>) -> bool {
    let Some((severity, length)) = severity::at_start(text) else { return false };
    header.severity = severity;
    header.message = at + length;
    true
}

/// Digits as a number.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// Two groups of hexadecimal digits around a dot.
fn dotted(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = memchr::memchr(b'.', word)?;
    let (whole, fraction) = (word.get(..dot)?, word.get(dot + 1..)?);
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_hexdigit);
    (digits(whole) && digits(fraction)).then_some((whole, fraction))
}

/// Reads a line of no known prefix: a severity anywhere, and what the text before it gives away.
pub(super) fn guess<'a>(clock: &mut Clock, line: &'a [u8]) -> Option<Header<'a>> {
    let (severity, start, message) = severity::anywhere(line)?;
    let mut header = Header::new(severity, message);
    let mut rest = line.get(..start)?;
    let skipped = rest.iter().take(3).take_while(|byte| matches!(byte, b'<' | b'[' | b' ')).count();
    if let Some((at, length)) = rest.get(skipped..).and_then(|text| clock.read(text)) {
        header.at = Some(at);
        rest = rest.get(skipped + length..)?;
    }
    let is_end = |byte: &u8| matches!(byte, b' ' | b',' | b']' | b'[' | b':' | b';' | b'|' | b'(' | b')' | b'<' | b'>');
    for word in rest.split(is_end).filter(|word| !word.is_empty()) {
        if let Some(pid) = decimal(word) {
            if header.session == 0 {
                header.session = pid;
            }
        } else if let Some((whole, fraction)) = dotted(word) {
            // `%n` is ten digits and three, `%c` hexadecimal digits of the session's start and process.
            match (decimal(whole), decimal(fraction)) {
                (Some(seconds), Some(millis)) if whole.len() == 10 && fraction.len() == 3 => {
                    header.at = header.at.or(Some(seconds as Millis * 1000 + millis as Millis));
                }
                _ if whole.len() == 8 && header.session == 0 => header.session = session_of(word),
                _ => {}
            }
        } else if let Some(equals) = memchr::memchr(b'=', word) {
            let (name, value) = (&word[..equals], &word[equals + 1..]);
            match name {
                b"user" | b"u" | b"usr" => keep(Field::User, value, &mut header),
                b"db" | b"database" | b"d" | b"dbname" => keep(Field::Database, value, &mut header),
                b"app" | b"application" | b"a" => keep(Field::Application, value, &mut header),
                b"pid" | b"p" => header.session = decimal(value).unwrap_or(header.session),
                _ => {}
            }
        } else if let Some(sign) = memchr::memchr(b'@', word).filter(|_| header.user.is_none()) {
            keep(Field::User, &word[..sign], &mut header);
            keep(Field::Database, &word[sign + 1..], &mut header);
        }
    }
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(prefix: &str, line: &'a str) -> Option<Header<'a>> {
        Prefix::compile(prefix).expect("a prefix").read(line.as_bytes())
    }

    fn said<'a>(header: &Header<'a>, line: &'a str) -> (u64, &'a str, &'a str, &'a str) {
        let text = |value: Option<&'a [u8]>| std::str::from_utf8(value.unwrap_or_default()).expect("UTF-8");
        (header.session, text(header.user), text(header.database), &line[header.message..])
    }

    #[test]
    fn reads_common_prefixes() {
        let cases = [
            ("%m [%p] ", "2026-11-22 22:41:36.123 UTC [42] LOG:  x", (42, "", "", "x")),
            ("%m [%p] %q%u@%d ", "2026-11-22 22:41:36.123 UTC [42] app@shop LOG:  x", (42, "app", "shop", "x")),
            ("%m [%p] %q%u@%d ", "2026-11-22 22:41:36.123 UTC [42] LOG:  x", (42, "", "", "x")),
            (
                "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ",
                "2026-11-22 22:41:36 UTC [42]: [7-1] user=app,db=shop,app=a, b,client=::1 ERROR:  x",
                (42, "app", "shop", "x"),
            ),
            (
                "%t:%r:%u@%d:[%p]:",
                "2026-11-22 22:41:36 UTC:10.0.0.1(55):app@shop:[42]:LOG:  x",
                (42, "app", "shop", "x"),
            ),
            (
                "%n %p %e %x %v %Q %i %b ",
                "1795387296.123 42 00000 0 3/7 -55 SELECT client backend LOG:  x",
                (42, "", "", "x"),
            ),
            ("%-10u|%5p|%% ", "app       |   42|% LOG:  x", (42, "app", "", "x")),
            ("", "LOG:  x", (0, "", "", "x")),
        ];
        for (prefix, line, expected) in cases {
            let header = read(prefix, line).unwrap_or_else(|| panic!("{prefix} does not read {line}"));
            assert_eq!(said(&header, line), expected, "{prefix}");
        }
    }

    #[test]
    fn another_prefix_does_not_match() {
        assert_eq!(read("%m [%p] ", "2026-11-22 22:41:36.123 UTC 42 LOG:  x"), None);
        assert_eq!(read("%m [%p] ", "2026-11-22 22:41:36.123 UTC [42] a@b LOG:  x"), None);
        assert!(Prefix::compile("%m %z").is_err());
    }

    #[test]
    fn guesses_what_a_strange_prefix_says() {
        let line = "< 2026-11-22 22:41:36.123 CET >[99] app@shop LOG:  x";
        let header = guess(&mut Clock::default(), line.as_bytes()).expect("a header");
        assert_eq!(said(&header, line), (99, "app", "shop", "x"));
        let line = "2026-11-22 22:41:36 UTC db=shop,user=app,pid=7 LOG:  x";
        let header = guess(&mut Clock::default(), line.as_bytes()).expect("a header");
        assert_eq!(said(&header, line), (7, "app", "shop", "x"));
        let line = "<1795387296.123|6741a2b3.2a|x|00000> LOG:  x";
        let header = guess(&mut Clock::default(), line.as_bytes()).expect("a header");
        assert_eq!((header.session, header.at), (session_of(b"6741a2b3.2a"), Some(1_795_387_296_123)));
    }
}
