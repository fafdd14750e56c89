//! The parser's tokens with exact byte positions, and which parentheses belong together.
//!
//! The parser gives positions as line and column (in characters) and gives its nodes the spans of some of their leaves only.
//! This table turns a position into a token and a token into bytes, so that the span of a node can be
//! completed: a call to its closing parenthesis, a cast to the end of its type.

use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Whitespace};

use crate::sql::facts::Span;

/// What a token is, as far as completing spans needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenClass {
    /// A keyword or a name without quotes.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A number.
    Number,
    /// A string constant of any form.
    Text,
    /// `$n`.
    Parameter,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `[`
    OpenBracket,
    /// `]`
    CloseBracket,
    /// `,`
    Comma,
    /// `.`
    Dot,
    /// `;`
    Semicolon,
    /// Anything else: an operator.
    Operator,
}

/// One token that is neither space nor comment.
#[derive(Debug, Clone, Copy)]
struct Entry {
    class: TokenClass,
    line: u32,
    column: u32,
    span: Span,
    /// The matching parenthesis or bracket, itself for anything else.
    mate: u32,
    /// The innermost open parenthesis or bracket around it, itself when there is none.
    around: u32,
}

/// A token's place among the tokens that are neither space nor comment.
pub(crate) type TokenIndex = usize;

/// All tokens of one statement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens {
    entries: Vec<Entry>,
}

/// Follows the parser's line and column through the text.
struct Cursor<'a> {
    text: &'a str,
    byte: usize,
    line: u64,
    column: u64,
}

impl Cursor<'_> {
    /// The byte at a position that is not before the last one asked for.
    fn byte_at(&mut self, position: Location) -> usize {
        let mut rest = self.text.get(self.byte..).unwrap_or("").chars();
        while (self.line, self.column) < (position.line, position.column) {
            let Some(ch) = rest.next() else { break };
            self.byte += ch.len_utf8();
            if ch == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.byte
    }
}

fn class_of(token: &Token) -> Option<TokenClass> {
    Some(match token {
        Token::EOF | Token::Whitespace(_) => return None,
        Token::Word(word) if word.quote_style.is_some() => TokenClass::Quoted,
        Token::Word(_) => TokenClass::Word,
        Token::Number(..) => TokenClass::Number,
        Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::SingleQuotedByteStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_) => TokenClass::Text,
        Token::Placeholder(_) => TokenClass::Parameter,
        Token::LParen => TokenClass::Open,
        Token::RParen => TokenClass::Close,
        Token::LBracket => TokenClass::OpenBracket,
        Token::RBracket => TokenClass::CloseBracket,
        Token::Comma => TokenClass::Comma,
        Token::Period => TokenClass::Dot,
        Token::SemiColon => TokenClass::Semicolon,
        _ => TokenClass::Operator,
    })
}

impl Tokens {
    /// The table of `tokens`, which must be all of `text` in order.
    pub(crate) fn new(text: &str, tokens: &[TokenWithSpan]) -> Self {
        let mut cursor = Cursor { text, byte: 0, line: 1, column: 1 };
        let mut entries: Vec<Entry> = Vec::with_capacity(tokens.len() / 2 + 1);
        let mut open: Vec<usize> = Vec::new();
        for TokenWithSpan { token, span } in tokens {
            let Some(class) = class_of(token) else { continue };
            let start = cursor.byte_at(span.start);
            let end = cursor.byte_at(span.end);
            let index = entries.len();
            let around = open.last().copied().unwrap_or(index);
            let mut entry = Entry {
                class,
                line: u32::try_from(span.start.line).unwrap_or(u32::MAX),
                column: u32::try_from(span.start.column).unwrap_or(u32::MAX),
                span: Span { start: byte(start), end: byte(end) },
                mate: byte(index),
                around: byte(around),
            };
            match class {
                TokenClass::Open | TokenClass::OpenBracket => open.push(index),
                TokenClass::Close | TokenClass::CloseBracket => {
                    if let Some(opened) = open.pop() {
                        entry.mate = byte(opened);
                        entry.around = entries.get(opened).map_or(byte(index), |mate| mate.around);
                        if let Some(mate) = entries.get_mut(opened) {
                            mate.mate = byte(index);
                        }
                    }
                }
                _ => {}
            }
            entries.push(entry);
        }
        Self { entries }
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the token is; `None` past either end.
    pub(crate) fn class(&self, index: TokenIndex) -> Option<TokenClass> {
        self.entries.get(index).map(|entry| entry.class)
    }

    /// The bytes of a token, empty past either end.
    pub(crate) fn span(&self, index: TokenIndex) -> Span {
        self.entries.get(index).map(|entry| entry.span).unwrap_or_default()
    }

    /// The bytes from one token to another, both included.
    pub(crate) fn between(&self, first: TokenIndex, last: TokenIndex) -> Span {
        Span { start: self.span(first).start, end: self.span(last).end }
    }

    /// The text of a token.
    pub(crate) fn text<'a>(&self, index: TokenIndex, text: &'a str) -> &'a str {
        self.span(index).of(text)
    }

    /// True when the token is this keyword (given in capitals), without quotes.
    pub(crate) fn is_word(&self, index: TokenIndex, text: &str, keyword: &str) -> bool {
        self.class(index) == Some(TokenClass::Word) && self.text(index, text).eq_ignore_ascii_case(keyword)
    }

    /// The parenthesis that belongs to this one.
    pub(crate) fn mate(&self, index: TokenIndex) -> Option<TokenIndex> {
        self.entries.get(index).map(|entry| entry.mate as usize).filter(|mate| *mate != index)
    }

    /// The innermost open parenthesis or bracket around a token.
    pub(crate) fn around(&self, index: TokenIndex) -> Option<TokenIndex> {
        self.entries.get(index).map(|entry| entry.around as usize).filter(|around| *around != index)
    }

    /// The token that starts at the parser's position.
    pub(crate) fn starting_at(&self, position: Location) -> Option<TokenIndex> {
        let wanted = (u32::try_from(position.line).ok()?, u32::try_from(position.column).ok()?);
        self.entries.binary_search_by_key(&wanted, |entry| (entry.line, entry.column)).ok()
    }

    /// The token that covers a byte.
    pub(crate) fn containing(&self, position: u32) -> Option<TokenIndex> {
        let index = self.entries.partition_point(|entry| entry.span.start <= position).checked_sub(1)?;
        (self.span(index).end > position).then_some(index)
    }
}

/// Statements longer than 4 GiB are refused before they come here.
fn byte(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// True for a space or a comment.
pub(crate) fn is_space(token: &Token) -> bool {
    matches!(
        token,
        Token::Whitespace(
            Whitespace::Space
                | Whitespace::Newline
                | Whitespace::Tab
                | Whitespace::SingleLineComment { .. }
                | Whitespace::MultiLineComment(_)
        )
    )
}
