//! One statement's text to its tree, with byte positions; or the reason why not.
//!
//! ```text
//! text -> tokens -> misread? -> rewrite -> tree
//!                -> Unparsed { reason, span } -> tables_mentioned, classify: what its tokens say
//! ```
//!
//! A statement that the parser is known to read otherwise than PostgreSQL does comes back as [`Unparsed`]: a tree that
//! lies is worse than none. The tree's own printed form is never sent to a server; what needs rewriting is spliced by span.

mod extent;
mod misread;
mod rewrite;
mod tokens;
mod unparsed;

use std::fmt;
use std::sync::Arc;

use sqlparser::ast;
use sqlparser::parser::{Parser, ParserError, ParserOptions};
use sqlparser::tokenizer::{Location, Token, Tokenizer};

pub use unparsed::{Mentioned, classify, concurrent_index, stands_alone, tables_mentioned};

pub(crate) use tokens::{TokenClass, Tokens};

use crate::sql::dialect::PgDialect;
use crate::sql::facts::Span;

/// How deep the parser may recurse before it gives up with an error.
const RECURSION_LIMIT: usize = 50;

/// The longest statement that is parsed, in bytes. A longer one is answered from its tokens.
const LONGEST_STATEMENT_BYTES: usize = 16 << 20;

/// A statement with its tree.
#[derive(Debug)]
pub struct Parsed {
    /// The statement as it arrived.
    pub text: Arc<str>,
    /// Its tree.
    pub ast: ast::Statement,
    pub(crate) tokens: Tokens,
    /// What was left out of the tree, if anything was.
    pub(crate) unknown: Option<&'static str>,
}

/// Why a statement has no tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unparsed {
    /// What was not understood, for people.
    pub reason: String,
    /// Where, as far as it is known.
    pub span: Option<Span>,
}

impl Unparsed {
    fn new(reason: impl Into<String>, span: Option<Span>) -> Self {
        Self { reason: reason.into(), span }
    }
}

impl fmt::Display for Unparsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unparsed {}

/// Parses exactly one statement; semicolons after it are fine.
pub fn parse(sql: &str) -> Result<Parsed, Unparsed> {
    if sql.len() > LONGEST_STATEMENT_BYTES {
        return Err(Unparsed::new("the statement is longer than 16 MiB", None));
    }
    let raw = Tokenizer::new(&PgDialect, sql)
        .with_unescape(false)
        .tokenize_with_location()
        .map_err(|error| Unparsed::new(error.message, position_span(sql, error.location)))?;
    let tokens = Tokens::new(sql, &raw);
    if let Some(unparsed) = misread::not_a_command(sql, &tokens).or_else(|| misread::find(sql, &tokens)) {
        return Err(unparsed);
    }
    let (raw, unknown) = rewrite::rewrite(raw);
    let mut parser = Parser::new(&PgDialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .with_options(ParserOptions::new().with_unescape(false))
        .with_tokens_with_locations(raw);
    let ast = parser.parse_statement().map_err(|error| from_parser(sql, &error))?;
    while parser.consume_token(&Token::SemiColon) {}
    let next = parser.peek_token();
    if next.token != Token::EOF {
        let span = tokens.starting_at(next.span.start).map(|index| tokens.span(index));
        return Err(Unparsed::new(format!("\"{}\" was not expected here", next.token), span));
    }
    Ok(Parsed { text: Arc::from(sql), ast, tokens, unknown })
}

fn from_parser(sql: &str, error: &ParserError) -> Unparsed {
    match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (message, position) = split_position(message);
            Unparsed::new(message, position.and_then(|position| position_span(sql, position)))
        }
        ParserError::RecursionLimitExceeded => Unparsed::new("the statement is nested too deeply", None),
    }
}

/// The parser writes the place into its message: `.. at Line: 1, Column: 15`.
fn split_position(message: &str) -> (&str, Option<Location>) {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (message, None) };
    match (line.parse(), column.parse()) {
        (Ok(line), Ok(column)) => (text, Some(Location { line, column })),
        _ => (message, None),
    }
}

/// The character at the parser's line and column.
fn position_span(sql: &str, position: Location) -> Option<Span> {
    let mut line = 1;
    let mut column = 1;
    for (start, ch) in sql.char_indices() {
        if (line, column) == (position.line, position.column) {
            return Some(Span { start: u32::try_from(start).ok()?, end: u32::try_from(start + ch.len_utf8()).ok()? });
        }
        if ch == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests;
