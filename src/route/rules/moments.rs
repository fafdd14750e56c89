//! Words that mean the transaction's time, which is made one for all shards.

use crate::route::collect::Moment;
use crate::route::context::Context;
use crate::route::words::Words;
use crate::sql::facts::Span;
use crate::sql::lexer::TokenKind;

/// The words, whether they are calls, and what they are of a `timestamp with time zone` as a cast.
const MOMENTS: &[(&str, bool, &str)] = &[
    ("now", true, ""),
    ("transaction_timestamp", true, ""),
    ("current_timestamp", false, ""),
    ("current_date", false, "::pg_catalog.date"),
    ("localtimestamp", false, "::pg_catalog.timestamp"),
];

pub(super) fn is_moment(name: &str) -> bool {
    MOMENTS.iter().any(|(word, _, _)| *word == name)
}

/// What a column's default is of the time, if it is nothing but that.
pub(super) fn default_moment(text: &str) -> Option<&'static str> {
    let word = text.trim_end_matches("()");
    let found = MOMENTS.iter().find(|(moment, called, _)| *moment == word && *called == text.ends_with("()"))?;
    Some(found.2)
}

/// The words that mean the time; `None` when one of them cannot be replaced.
pub(super) fn moments(context: &Context<'_>, words: &Words<'_>) -> Option<Vec<Moment>> {
    let mut found = Vec::new();
    for at in 0..words.tokens.len() {
        let Some(word) = words.word(at) else { continue };
        let Some((_, called, cast)) = MOMENTS.iter().find(|(moment, _, _)| *moment == word) else { continue };
        let opens = words.kind(at + 1) == Some(TokenKind::LeftParen);
        let closes = words.kind(at + 2) == Some(TokenKind::RightParen);
        let is_qualified = at.checked_sub(1).and_then(|before| words.kind(before)) == Some(TokenKind::Dot);
        let start = words.tokens.get(at)?.start;
        let end = words.tokens.get(if *called { at + 2 } else { at })?.end;
        match (called, words.kind(at)) {
            // A column may be called so.
            (true, _) if !opens => {}
            (true, _) if closes && !is_qualified => found.push(Moment { span: Span { start, end }, cast }),
            (false, Some(TokenKind::Ident)) if !opens && !is_qualified => {
                found.push(Moment { span: Span { start, end }, cast });
            }
            (false, Some(TokenKind::QuotedIdent)) => {}
            _ => return None,
        }
    }
    // The parser's view is the same.
    let calls = context.facts.functions.iter().filter(|call| is_moment(&call.name)).count();
    (calls <= found.len()).then_some(found)
}
