//! A template as people read it.

use super::Scanner;
use super::keyword::Keyword;
use crate::sql::lexer::LexOptions;

/// What a piece of a template is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// An unquoted name or keyword.
    Ident(Keyword),
    /// A quoted name that is the same without quotes.
    PlainQuoted,
    /// A constant or parameter: `?`.
    Constant,
    /// The constants of a list: `...`.
    Ellipsis,
    /// Brackets, commas, dots.
    Punctuation,
    /// An operator.
    Operator,
    /// The end of a statement that others follow.
    Semicolon,
    /// Anything else, as written.
    Verbatim,
}

/// A token that is left in the template.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub kind: PieceKind,
    pub start: u32,
    pub end: u32,
    /// How many words the template had after it.
    pub words: usize,
}

/// The template of `sql` for people: constants and parameters as `?`, lists of constants as `...`, keywords in
/// capitals, names in lower case, one space, no comments. Texts with equal fingerprints have equal template texts.
pub fn template_text(sql: &str, options: LexOptions) -> String {
    let mut scanner = Scanner::new(options);
    scanner.run::<true>(sql.as_bytes());
    let mut text = String::with_capacity(sql.len().min(4096));
    let mut before = Spacing::Tight;
    let mut after_dot = false;
    for piece in scanner.collapser.pieces() {
        let written = sql.get(piece.start as usize..piece.end as usize).unwrap_or_default();
        let (spaced, next) = spacing(piece.kind, written, before);
        if spaced {
            text.push(' ');
        }
        match piece.kind {
            PieceKind::Ident(keyword) if keyword.is_shown_in_capitals() && !after_dot => {
                text.push_str(&written.to_ascii_uppercase())
            }
            PieceKind::Ident(_) => text.push_str(&written.to_ascii_lowercase()),
            PieceKind::PlainQuoted => text.push_str(written.trim_matches('"')),
            PieceKind::Constant => text.push('?'),
            PieceKind::Ellipsis => text.push_str("..."),
            PieceKind::Semicolon => text.push(';'),
            PieceKind::Punctuation | PieceKind::Operator | PieceKind::Verbatim => text.push_str(written),
        }
        after_dot = written == "." && piece.kind == PieceKind::Punctuation;
        before = next;
    }
    text
}

/// What the text ends with, as far as the next space depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spacing {
    /// Nothing yet, an opening bracket, a dot, `::`: what follows is glued to it.
    Tight,
    /// A name that may be a function's, a type's or a table's: an opening bracket is glued to it.
    Name,
    /// Anything else.
    Loose,
}

/// Whether a space comes before the piece, and what it leaves behind.
fn spacing(kind: PieceKind, written: &str, before: Spacing) -> (bool, Spacing) {
    let loose = before != Spacing::Tight;
    match kind {
        PieceKind::Punctuation => match written {
            "." | "::" | ":" | "[" => (false, Spacing::Tight),
            "(" => (before == Spacing::Loose, Spacing::Tight),
            "," | ";" => (false, Spacing::Loose),
            ")" | "]" => (false, Spacing::Loose),
            _ => (loose, Spacing::Loose),
        },
        PieceKind::Semicolon => (false, Spacing::Loose),
        PieceKind::Ident(keyword) if keyword.is_shown_in_capitals() => (loose, Spacing::Loose),
        PieceKind::Ident(_) | PieceKind::PlainQuoted => (loose, Spacing::Name),
        PieceKind::Verbatim if written.starts_with('"') => (loose, Spacing::Name),
        _ => (loose, Spacing::Loose),
    }
}
