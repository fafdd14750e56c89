//! Where the clauses of a statement stand, by its words.

use crate::route::words::Words;
use crate::sql::facts::Span;
use crate::sql::lexer::TokenKind;

/// Where the clauses of a statement of one block stand.
pub(super) struct Clauses {
    /// FROM and WHERE.
    pub body: Span,
    /// The ends of the SELECT list's items.
    pub ends: Vec<u32>,
    /// LIMIT, OFFSET and FETCH, to the end; empty where there are none.
    pub amounts: Span,
}

impl Clauses {
    /// `None` where there is no FROM.
    pub fn of(words: &Words<'_>) -> Option<Self> {
        let mut clauses = Self { body: Span::default(), ends: Vec::new(), amounts: Span::default() };
        let (mut depth, mut from, mut end, mut last) = (0, None, None, 0);
        let (mut amounts, mut close) = (None, None);
        for (at, token) in words.tokens.iter().enumerate() {
            match token.kind {
                TokenKind::LeftParen | TokenKind::LeftBracket => depth += 1,
                TokenKind::RightParen | TokenKind::RightBracket => depth -= 1,
                TokenKind::Comma if depth == 0 && from.is_none() => clauses.ends.push(u32::try_from(last).ok()?),
                TokenKind::Semicolon => {
                    end = end.or(Some(last));
                    close = close.or(Some(last));
                }
                TokenKind::Ident if depth == 0 => match token.bytes(words.sql).to_ascii_lowercase().as_slice() {
                    b"from" if from.is_none() && !is_comparison(words, at) => {
                        clauses.ends.push(u32::try_from(last).ok()?);
                        from = Some(token.start);
                    }
                    word @ (b"group" | b"having" | b"window" | b"order" | b"limit" | b"offset" | b"fetch" | b"for")
                        if from.is_some() =>
                    {
                        end = end.or(Some(last));
                        if matches!(word, b"limit" | b"offset" | b"fetch") {
                            amounts = amounts.or(Some(token.start));
                        }
                    }
                    _ => {}
                },
                _ => {}
            }
            last = token.end as usize;
        }
        clauses.body = Span { start: from?, end: u32::try_from(end.unwrap_or(last)).ok()? };
        let close = u32::try_from(close.unwrap_or(last)).ok()?;
        clauses.amounts = Span { start: amounts.unwrap_or(close), end: close };
        Some(clauses)
    }
}

/// `IS [NOT] DISTINCT FROM`.
fn is_comparison(words: &Words<'_>, from: usize) -> bool {
    let word = |back: usize| from.checked_sub(back).and_then(|at| words.word(at)).unwrap_or_default();
    word(1) == "distinct" && matches!(word(2).as_str(), "is" | "not")
}
