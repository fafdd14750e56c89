//! Statements that the parser reads otherwise than PostgreSQL does, told by their tokens.
//!
//! Each case was found by comparing the tree with PostgreSQL's own reading; its test shows the wrong tree. What is found
//! here is refused by [`super::parse`], so that no proof is ever built on it.

use super::Unparsed;
use super::tokens::{TokenClass, TokenIndex, Tokens};

/// Links of one chain of operators (`a + b + c`, `a AND b AND c`) that are still parsed. The tree of a chain is as deep
/// as the chain is long, and dropping a tree takes stack in proportion: measured 4,000 are fine on 1 MiB.
const LONGEST_CHAIN: u32 = 4_000;

/// PostgreSQL's commands; the parser knows others, of other databases.
const COMMANDS: &[&str] = &[
    "ABORT",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "IMPORT",
    "INSERT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "REASSIGN",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "TRUNCATE",
    "UNLISTEN",
    "UPDATE",
    "VACUUM",
    "VALUES",
    "WITH",
];

/// A statement that begins with no command, or wraps a wrapped statement.
pub(super) fn not_a_command(text: &str, tokens: &Tokens) -> Option<Unparsed> {
    let word = tokens.text(0, text).to_uppercase();
    let is_command = COMMANDS.contains(&word.as_str()) || tokens.class(0) == Some(TokenClass::Open);
    if tokens.len() > 0 && !is_command && tokens.class(0) != Some(TokenClass::Semicolon) {
        return Some(Unparsed::new(format!("{word} is no command of PostgreSQL"), Some(tokens.span(0))));
    }
    let wraps = |index: TokenIndex| ["EXPLAIN", "PREPARE"].iter().any(|wrapper| tokens.is_word(index, text, wrapper));
    // Each level would cost the parser a large frame of its stack.
    let second = (1..tokens.len()).find(|index| wraps(*index) && !tokens.is_word(index - 1, text, "FROM"));
    second
        .filter(|_| wraps(0))
        .map(|index| Unparsed::new("EXPLAIN and PREPARE cannot hold one another", Some(tokens.span(index))))
}

/// The first construct in the statement that would be misread.
pub(super) fn find(text: &str, tokens: &Tokens) -> Option<Unparsed> {
    (0..tokens.len())
        .find_map(|index| misread_at(text, tokens, index).map(|reason| (index, reason)))
        .map(|(index, reason)| Unparsed::new(reason, Some(tokens.span(index))))
        .or_else(|| too_long_chain(text, tokens))
}

fn misread_at(text: &str, tokens: &Tokens, index: TokenIndex) -> Option<&'static str> {
    let class = tokens.class(index)?;
    let touches_next = tokens.span(index).end == tokens.span(index + 1).start;
    let next = tokens.class(index + 1);
    match class {
        TokenClass::Number if touches_next && matches!(next, Some(TokenClass::Word | TokenClass::Quoted)) => {
            Some("a number runs into a word, which PostgreSQL's versions read differently")
        }
        TokenClass::Number if tokens.text(index, text).contains('_') => {
            Some("an underscore inside a number, which PostgreSQL's versions read differently")
        }
        TokenClass::Text if tokens.text(index, text).starts_with('0') => {
            Some("a hexadecimal number, which PostgreSQL's versions read differently")
        }
        TokenClass::Word
            if touches_next && tokens.is_word(index, text, "U") && is_unicode_name(text, tokens, index) =>
        {
            Some("a U&\"...\" name is not understood")
        }
        _ => None,
    }
}

fn is_unicode_name(text: &str, tokens: &Tokens, index: TokenIndex) -> bool {
    tokens.text(index + 1, text) == "&"
        && tokens.class(index + 2) == Some(TokenClass::Quoted)
        && tokens.span(index + 1).end == tokens.span(index + 2).start
}

/// Counts operators between two commas or parentheses of one level.
fn too_long_chain(text: &str, tokens: &Tokens) -> Option<Unparsed> {
    let mut outer: Vec<u32> = Vec::new();
    let mut links = 0_u32;
    for index in 0..tokens.len() {
        match tokens.class(index)? {
            TokenClass::Open => {
                outer.push(links);
                links = 0;
            }
            TokenClass::Close => links = outer.pop().unwrap_or(0),
            TokenClass::Comma | TokenClass::Semicolon => links = 0,
            TokenClass::Operator | TokenClass::OpenBracket => links += 1,
            TokenClass::Word if is_link(tokens.text(index, text)) => links += 1,
            _ => {}
        }
        if links > LONGEST_CHAIN {
            return Some(Unparsed::new("a chain of operators is too long", Some(tokens.span(index))));
        }
    }
    None
}

/// Words that chain as operators do (the parser knows more of them than PostgreSQL).
fn is_link(word: &str) -> bool {
    const LINKS: [&str; 25] = [
        "and",
        "or",
        "not",
        "is",
        "isnull",
        "notnull",
        "like",
        "ilike",
        "in",
        "between",
        "similar",
        "collate",
        "at",
        "union",
        "intersect",
        "except",
        "minus",
        "xor",
        "div",
        "regexp",
        "rlike",
        "glob",
        "match",
        "overlaps",
        "member",
    ];
    LINKS.iter().any(|link| word.eq_ignore_ascii_case(link))
}
