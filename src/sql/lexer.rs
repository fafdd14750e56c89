//! PostgreSQL's lexical rules over bytes, without building anything.
//!
//! [`Lexer`] cuts a statement into [`Token`]s as `scan.l` of PostgreSQL does: nested comments, every string form and
//! its continuation over a newline, dollar quotes, `standard_conforming_strings`, operators by longest match. It takes any bytes,
//! never fails and never allocates; what PostgreSQL would reject comes out as [`TokenKind::Junk`] or
//! [`TokenKind::Other`], or leaves [`Lexer::is_complete`] false.
//!
//! - Versions differ: numbers follow PostgreSQL 16 (`0x1F`, `1_000`), and digits glued to letters (`12ab`), an error since 15, are one
//!   `Junk` token, so that no reading of them is ever taken for a constant.
//! - The bytes must be in an encoding where an ASCII byte always is that character (UTF-8, all of PostgreSQL's server encodings).
//!   Of the client encodings, SJIS, BIG5, GBK, UHC, JOHAB, SHIFT_JIS_2004 and GB18030 are not: there `\` or `'` may be half of a
//!   character, and text must not be judged by this lexer.
//! - Offsets are `u32`. Of a text of 4 GiB or more only the first 4 GiB - 1 are read, and it counts as incomplete; PostgreSQL itself
//!   takes less than 1 GiB.

mod literal;
mod number;
mod split;
#[cfg(test)]
mod tests;

use memchr::{memchr, memchr2};

pub use literal::{LiteralError, decode_identifier, decode_integer, decode_string};
pub(super) use split::Bodies;
pub use split::split_statements;

/// Settings of the session that change how text is cut into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LexOptions {
    /// The session's `standard_conforming_strings`: when off, `\` escapes in plain strings too.
    pub standard_conforming_strings: bool,
}

impl Default for LexOptions {
    fn default() -> Self {
        Self { standard_conforming_strings: true }
    }
}

/// How a string constant is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StringKind {
    /// `'..'`
    Plain,
    /// `E'..'`
    Escape,
    /// `U&'..'`, with its UESCAPE clause if one follows.
    Unicode,
    /// `N'..'`
    National,
    /// `B'..'`
    Bit,
    /// `X'..'`
    Hex,
    /// `$tag$..$tag$`
    Dollar,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberKind {
    /// `42`, `1_000`, `0x2A`, `0o52`, `0b101010`
    Integer,
    /// `1.5`, `.5`, `1e10`
    Decimal,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A name or a keyword, unquoted.
    Ident,
    /// `".."`
    QuotedIdent,
    /// `U&".."`, with its UESCAPE clause if one follows.
    UnicodeIdent,
    /// A number, without sign.
    Number(NumberKind),
    /// A string constant, with all its continuations.
    String(StringKind),
    /// `$n`, at most 2147483647.
    Param(u32),
    /// An operator, also `=`, `*`, `<`, `-`.
    Op,
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// `(`
    LeftParen,
    /// `)`
    RightParen,
    /// `[`
    LeftBracket,
    /// `]`
    RightBracket,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// `:`
    Colon,
    /// `::`
    Cast,
    /// `:=`
    Assign,
    /// `=>`
    Arrow,
    /// Digits glued to letters (`12ab`, `$1a`, `0x`) or a parameter number out of range: an error, or read in different ways by different versions.
    Junk,
    /// A byte that begins no token.
    Other,
}

/// One token: what it is and which bytes it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Token {
    /// The bytes it covers, empty when it does not fit `sql`.
    pub fn bytes<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        sql.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// What a token may begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    /// A letter that may be a string's prefix: b e n u x.
    Prefix,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Dot,
    Colon,
    Operator,
    Single(TokenKind),
    Other,
}

static CLASSES: [Class; 256] = classes();
/// Bytes that go on an identifier.
static IDENT: [bool; 256] = ident_bytes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => Class::Space,
            b'b' | b'B' | b'e' | b'E' | b'n' | b'N' | b'u' | b'U' | b'x' | b'X' => Class::Prefix,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'.' => Class::Dot,
            b':' => Class::Colon,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<'
            | b'>' | b'=' => Class::Operator,
            b',' => Class::Single(TokenKind::Comma),
            b';' => Class::Single(TokenKind::Semicolon),
            b'(' => Class::Single(TokenKind::LeftParen),
            b')' => Class::Single(TokenKind::RightParen),
            b'[' => Class::Single(TokenKind::LeftBracket),
            b']' => Class::Single(TokenKind::RightBracket),
            _ => Class::Other,
        };
        byte += 1;
    }
    table
}

const fn ident_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'0'..=b'9' | 0x80..=0xFF);
        byte += 1;
    }
    table
}

fn is_ident(byte: u8) -> bool {
    IDENT[byte as usize]
}

fn is_ident_start(byte: u8) -> bool {
    matches!(CLASSES[byte as usize], Class::Letter | Class::Prefix)
}

fn is_operator(byte: u8) -> bool {
    matches!(CLASSES[byte as usize], Class::Operator)
}

fn is_space(byte: u8) -> bool {
    matches!(CLASSES[byte as usize], Class::Space)
}

/// Cuts SQL text into tokens; comments and white space are skipped.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    options: LexOptions,
    complete: bool,
    hint: Option<(u32, u32)>,
}

impl<'a> Lexer<'a> {
    /// A lexer at the beginning of `sql`.
    pub fn new(sql: &'a [u8], options: LexOptions) -> Self {
        let limit = u32::MAX as usize;
        match sql.get(..limit) {
            Some(bytes) if sql.len() > limit => Self { bytes, at: 0, options, complete: false, hint: None },
            _ => Self { bytes: sql, at: 0, options, complete: true, hint: None },
        }
    }

    /// False when, so far, a string, quoted identifier or comment was found that has no end.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Where the first `pgweir:` comment so far has its text: what follows the colon, up to the comment's end.
    pub fn hint(&self) -> Option<(u32, u32)> {
        self.hint
    }

    #[inline]
    fn peek(&self, offset: usize) -> Option<u8> {
        self.bytes.get(self.at + offset).copied()
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Moves to the end of the text, inside a construct that has none.
    fn run_out(&mut self) {
        self.at = self.bytes.len();
        self.complete = false;
    }

    #[inline]
    fn skip_ident(&mut self) {
        while let Some(byte) = self.peek(0)
            && is_ident(byte)
        {
            self.at += 1;
        }
    }

    /// True, and past it, when a comment begins here.
    fn skip_comment(&mut self) -> bool {
        match (self.peek(0), self.peek(1)) {
            (Some(b'-'), Some(b'-')) => {
                let start = self.at + 2;
                self.at = self.line_end(start);
                self.note_hint(start, self.at);
                true
            }
            (Some(b'/'), Some(b'*')) => {
                self.block_comment();
                true
            }
            _ => false,
        }
    }

    /// The first line break at or after `from`, or the text's end.
    fn line_end(&self, from: usize) -> usize {
        let rest = self.bytes.get(from..).unwrap_or_default();
        memchr2(b'\n', b'\r', rest).map_or(self.bytes.len(), |offset| from + offset)
    }

    fn block_comment(&mut self) {
        let start = self.at + 2;
        let mut depth = 1u32;
        self.at = start;
        while let Some(offset) = memchr2(b'*', b'/', self.rest()) {
            self.at += offset;
            match (self.peek(0), self.peek(1)) {
                (Some(b'*'), Some(b'/')) => {
                    self.at += 2;
                    depth -= 1;
                    if depth == 0 {
                        self.note_hint(start, self.at - 2);
                        return;
                    }
                }
                (Some(b'/'), Some(b'*')) => {
                    self.at += 2;
                    depth += 1;
                }
                _ => self.at += 1,
            }
        }
        self.run_out();
    }

    fn note_hint(&mut self, start: usize, end: usize) {
        const MARK: &[u8] = b"pgweir:";
        if self.hint.is_some() {
            return;
        }
        let inner = self.bytes.get(start..end).unwrap_or_default();
        let lead = inner.iter().take_while(|byte| is_space(**byte)).count();
        if inner.get(lead..).is_some_and(|text| text.starts_with(MARK)) {
            self.hint = Some(((start + lead + MARK.len()) as u32, end as u32));
        }
    }

    /// Skips white space and comments.
    fn skip_trivia(&mut self) {
        while let Some(byte) = self.peek(0) {
            if is_space(byte) {
                self.at += 1;
            } else if !self.skip_comment() {
                return;
            }
        }
    }

    /// The rest of a string constant whose opening quote has been read.
    fn string_rest(&mut self, backslash: bool, doubling: bool) {
        loop {
            let found = if backslash { memchr2(b'\'', b'\\', self.rest()) } else { memchr(b'\'', self.rest()) };
            let Some(offset) = found else { return self.run_out() };
            self.at += offset;
            if self.peek(0) == Some(b'\\') {
                if self.peek(1).is_none() {
                    return self.run_out();
                }
                self.at += 2;
                continue;
            }
            self.at += 1;
            if doubling && self.peek(0) == Some(b'\'') {
                self.at += 1;
            } else if let Some(next) = self.continuation() {
                self.at = next;
            } else {
                return;
            }
        }
    }

    /// Where the string goes on, when only white space with a line break (and `--` comments) stands between the
    /// quote just read and the next one.
    fn continuation(&self) -> Option<usize> {
        let mut at = self.at;
        let mut broken = false;
        loop {
            match *self.bytes.get(at)? {
                b'\n' | b'\r' => {
                    broken = true;
                    at += 1;
                }
                byte if is_space(byte) => at += 1,
                b'\'' if broken => return Some(at + 1),
                b'-' if self.bytes.get(at + 1) == Some(&b'-') => at = self.line_end(at + 2),
                _ => return None,
            }
        }
    }

    /// The rest of a quoted identifier whose opening quote has been read.
    fn quoted_ident_rest(&mut self) {
        loop {
            let Some(offset) = memchr(b'"', self.rest()) else { return self.run_out() };
            self.at += offset + 1;
            if self.peek(0) != Some(b'"') {
                return;
            }
            self.at += 1;
        }
    }

    /// Takes in `UESCAPE '!'` when it follows.
    fn unicode_escape_clause(&mut self) {
        let before = self.clone();
        self.skip_trivia();
        let is_clause = self.rest().get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"uescape"))
            && !self.peek(7).is_some_and(is_ident);
        if is_clause {
            self.at += 7;
            self.skip_trivia();
            match (self.peek(0), self.peek(1)) {
                (Some(b'\''), _) => {
                    self.at += 1;
                    return self.string_rest(!self.options.standard_conforming_strings, true);
                }
                (Some(b'e' | b'E'), Some(b'\'')) => {
                    self.at += 2;
                    return self.string_rest(true, true);
                }
                (Some(b'$'), _) if self.dollar_string() => return,
                _ => {}
            }
        }
        *self = before;
    }

    /// True, and past it, when a dollar-quoted string begins here.
    fn dollar_string(&mut self) -> bool {
        let tag = self.bytes.get(self.at + 1..).unwrap_or_default();
        if tag.first().is_some_and(u8::is_ascii_digit) {
            return false;
        }
        let length = tag.iter().take_while(|byte| is_ident(**byte) && **byte != b'$').count();
        if tag.get(length) != Some(&b'$') {
            return false;
        }
        let delimiter = self.bytes.get(self.at..self.at + length + 2).unwrap_or_default();
        self.at += delimiter.len();
        // A tag has no `$` inside, so each byte is compared at most twice.
        while let Some(offset) = memchr(b'$', self.rest()) {
            self.at += offset;
            if self.rest().starts_with(delimiter) {
                self.at += delimiter.len();
                return true;
            }
            self.at += 1;
        }
        self.run_out();
        true
    }

    /// A letter that may begin a string: `b'` `e'` `n'` `x'` `u&'` `u&"`.
    fn prefixed(&mut self) -> TokenKind {
        let letter = self.peek(0).unwrap_or_default() | 0x20;
        match (letter, self.peek(1), self.peek(2)) {
            (b'u', Some(b'&'), Some(b'\'')) => {
                self.at += 3;
                self.string_rest(false, true);
                self.unicode_escape_clause();
                TokenKind::String(StringKind::Unicode)
            }
            (b'u', Some(b'&'), Some(b'"')) => {
                self.at += 3;
                self.quoted_ident_rest();
                self.unicode_escape_clause();
                TokenKind::UnicodeIdent
            }
            (b'b' | b'e' | b'n' | b'x', Some(b'\''), _) => {
                self.at += 2;
                let (kind, backslash, doubling) = match letter {
                    b'b' => (StringKind::Bit, false, false),
                    b'x' => (StringKind::Hex, false, false),
                    b'e' => (StringKind::Escape, true, true),
                    _ => (StringKind::National, !self.options.standard_conforming_strings, true),
                };
                self.string_rest(backslash, doubling);
                TokenKind::String(kind)
            }
            _ => {
                self.skip_ident();
                TokenKind::Ident
            }
        }
    }

    /// An operator by `scan.l`'s rules: the longest run, cut where a comment begins, and without a trailing `+` or `-`
    /// unless it holds a character that SQL's own operators do not.
    fn operator(&mut self) -> TokenKind {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek(0)
            && is_operator(byte)
            && !matches!((byte, self.peek(1)), (b'-', Some(b'-')) | (b'/', Some(b'*')))
        {
            self.at += 1;
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        let free =
            text.iter().any(|byte| matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'));
        if text.len() > 1 && !free {
            let trailing = text.iter().rev().take_while(|byte| matches!(byte, b'+' | b'-')).count();
            self.at -= trailing.min(text.len() - 1);
        }
        if self.bytes.get(start..self.at) == Some(b"=>") { TokenKind::Arrow } else { TokenKind::Op }
    }

    fn colon(&mut self) -> TokenKind {
        let (length, kind) = match self.peek(1) {
            Some(b':') => (2, TokenKind::Cast),
            Some(b'=') => (2, TokenKind::Assign),
            _ => (1, TokenKind::Colon),
        };
        self.at += length;
        kind
    }

    fn quote(&mut self) -> TokenKind {
        self.at += 1;
        self.string_rest(!self.options.standard_conforming_strings, true);
        TokenKind::String(StringKind::Plain)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        loop {
            let byte = self.peek(0)?;
            let start = self.at;
            let kind = match CLASSES[byte as usize] {
                Class::Space => {
                    self.at += 1;
                    continue;
                }
                Class::Letter => {
                    self.skip_ident();
                    TokenKind::Ident
                }
                Class::Prefix => self.prefixed(),
                Class::Single(kind) => {
                    self.at += 1;
                    kind
                }
                Class::Operator => {
                    if matches!(byte, b'-' | b'/') && self.skip_comment() {
                        continue;
                    }
                    self.operator()
                }
                Class::Digit => self.number(),
                Class::Quote => self.quote(),
                Class::DoubleQuote => {
                    self.at += 1;
                    self.quoted_ident_rest();
                    TokenKind::QuotedIdent
                }
                Class::Dot => self.dot(),
                Class::Colon => self.colon(),
                Class::Dollar => self.dollar(),
                Class::Other => {
                    self.at += 1;
                    TokenKind::Other
                }
            };
            return Some(Token { kind, start: start as u32, end: self.at as u32 });
        }
    }
}
