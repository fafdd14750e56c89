//! A statement's tokens, for what its tree does not tell.

use crate::route::rules::scatter::{OPERATORS, SYSTEM_COLUMNS};
use crate::sql::facts::Span;
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind, decode_identifier};

/// More operators of PostgreSQL's own types, whose answers may depend on the session.
const MORE_OPERATORS: &[&str] = &[
    "@@", "@@@", "<->", "|/", "||/", "@-@", "##", "<<|", "|>>", "&<", "&>", "&<|", "|&>", "<^", ">^", "?#", "?-",
    "?-|", "?||", "<<=", ">>=", "~=", "#-", "@?", "~<~", "~<=~", "~>~", "~>=~", "^@", "!!", "*=", "*<>",
];

/// The statement's tokens.
pub(super) struct Words<'a> {
    pub sql: &'a [u8],
    pub tokens: Vec<Token>,
}

/// What stands around a table's name.
pub(super) struct Place {
    /// `ONLY` before it, or a star behind.
    pub only: bool,
    /// Its alias has a list of columns.
    pub renames: bool,
}

impl<'a> Words<'a> {
    pub fn of(sql: &'a str) -> Self {
        Self { sql: sql.as_bytes(), tokens: Lexer::new(sql.as_bytes(), LexOptions::default()).collect() }
    }

    pub fn kind(&self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// The name that a token is, as PostgreSQL reads it.
    pub fn word(&self, at: usize) -> Option<String> {
        let token = self.tokens.get(at)?;
        matches!(token.kind, TokenKind::Ident | TokenKind::QuotedIdent | TokenKind::UnicodeIdent)
            .then(|| decode_identifier(token.bytes(self.sql)).ok())
            .flatten()
            .map(|name| name.to_string())
    }

    /// Whether nothing in it can see more of a table than its rows.
    pub fn are_plain(&self) -> bool {
        (0..self.tokens.len()).all(|at| match self.kind(at) {
            Some(TokenKind::Op) => {
                let operator = self.tokens.get(at).map(|token| token.bytes(self.sql)).unwrap_or_default();
                let operator = std::str::from_utf8(operator).unwrap_or_default();
                OPERATORS.contains(&operator) || MORE_OPERATORS.contains(&operator)
            }
            Some(TokenKind::Junk | TokenKind::Other | TokenKind::UnicodeIdent) => false,
            Some(TokenKind::Ident | TokenKind::QuotedIdent) => {
                self.word(at).is_some_and(|word| !SYSTEM_COLUMNS.contains(&word.as_str()) && word != "operator")
            }
            Some(TokenKind::Cast) => self.word(at + 1).is_none_or(|target| !target.starts_with("reg")),
            _ => true,
        })
    }

    pub fn has(&self, wanted: &str) -> bool {
        self.count(wanted) > 0
    }

    /// How often a word stands there, not in quotes.
    pub fn count(&self, wanted: &str) -> usize {
        let is = |token: &&Token| {
            token.kind == TokenKind::Ident && token.bytes(self.sql).eq_ignore_ascii_case(wanted.as_bytes())
        };
        self.tokens.iter().filter(is).count()
    }

    /// Whether `.*` stands somewhere: in an argument it is a whole row.
    pub fn has_star(&self) -> bool {
        (0..self.tokens.len()).any(|at| {
            let after = self.tokens.get(at + 1).map(|token| token.bytes(self.sql)).unwrap_or_default();
            self.kind(at) == Some(TokenKind::Dot) && after.starts_with(b"*")
        })
    }

    pub fn names(&self, name: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.word(at).is_some_and(|word| word == name))
    }

    /// What stands around a table's name; `None` when its place is not understood.
    pub fn place(&self, name: Span) -> Option<Place> {
        let first = self.tokens.iter().position(|token| token.start == name.start)?;
        let last = self.tokens.iter().position(|token| token.end == name.end)?;
        let is_only =
            |back: usize| first.checked_sub(back).and_then(|at| self.word(at)).is_some_and(|word| word == "only");
        let in_parentheses = first.checked_sub(1).and_then(|at| self.kind(at)) == Some(TokenKind::LeftParen);
        let star = self.tokens.get(last + 1).is_some_and(|token| token.bytes(self.sql) == b"*");
        let mut alias = last + 1;
        if self.tokens.get(alias).is_some_and(|token| token.bytes(self.sql).eq_ignore_ascii_case(b"as")) {
            alias += 1;
        }
        let renames = self.word(alias).is_some() && self.kind(alias + 1) == Some(TokenKind::LeftParen);
        Some(Place { only: star || is_only(1) || in_parentheses && is_only(2), renames })
    }

    /// Whether a relation's name stands somewhere for its whole rows: anywhere but in front of a dot and where it, or another
    /// of that name, is given.
    pub fn needs_rows(&self, called: &str, names: &[Span]) -> bool {
        let is_given = |at: usize| {
            names.iter().any(|name| {
                let last = self.tokens.iter().position(|token| token.end == name.end).unwrap_or_default();
                self.tokens.get(at).is_some_and(|token| token.start >= name.start && token.end <= name.end)
                    || (at == last + 1 || at == last + 2)
                        && self.word(last + 1).is_some_and(|word| word == called || word == "as")
            })
        };
        (0..self.tokens.len()).any(|at| {
            self.word(at).is_some_and(|word| word == called)
                && self.kind(at + 1) != Some(TokenKind::Dot)
                && !is_given(at)
        })
    }

    /// Whether a relation is named with its schema where a column is qualified: `public.t.a`.
    pub fn names_schema_of(&self, called: &str, name: Span) -> bool {
        (1..self.tokens.len()).any(|at| {
            let given = self.tokens.get(at).is_some_and(|token| token.start >= name.start && token.end <= name.end);
            let between_dots = self.kind(at - 1) == Some(TokenKind::Dot) && self.kind(at + 1) == Some(TokenKind::Dot);
            !given && between_dots && self.word(at).is_some_and(|word| word == called)
        })
    }

    /// Where the word TABLE stands in front of a name, if it does: the command, not a part of it.
    pub fn table_command(&self, name: Span) -> Option<u32> {
        let first = self.tokens.iter().position(|token| token.start == name.start)?;
        let before = self.tokens.get(first.checked_sub(1)?)?;
        before.bytes(self.sql).eq_ignore_ascii_case(b"table").then_some(before.start)
    }
}
