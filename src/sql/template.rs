//! Splits a statement into its template and its bindings in one pass, without building a tree.
//!
//! ```text
//! bytes -> Lexer -> tokens -+-> key          exact shape, keyed per process      caches are looked up by it
//!                           +-> fingerprint  lists collapsed, the same everywhere   reports are grouped by it
//!                           +-> bindings     the constants' places
//! ```
//!
//! What is part of the template, and what is a binding:
//!
//! - Bindings are numbers, strings, bit strings and `$n`. `NULL`, `TRUE`, `FALSE` and `DEFAULT` are part of the template: a
//!   predicate on them means something else than one on a value.
//! - An integer that stands as an element of ORDER BY, GROUP BY or DISTINCT ON is a column's position and part of the template. To
//!   err on the safe side so is an integer that begins an expression there. The same holds for type modifiers
//!   (`varchar(10)`, `x::numeric(10, 2)`) and for [`TokenKind::Junk`].
//! - The **key** keeps everything else of the text but white space, comments, the case of unquoted names and a trailing `;`: the lengths of lists,
//!   signs, how each constant is written, each `$n`. A name in quotes is the same name as without where PostgreSQL says so
//!   (`"orders"` and `Orders`), unless it is spelled like a keyword or goes beyond ASCII. It does not keep how large a number is: what depends
//!   on that (int4, int8 or numeric) must look at the binding.
//! - The **fingerprint** does not tell one constant, or `$n`, from another; takes a sign before a number as part of the number; takes
//!   neighbouring equal elements of `IN (..)` and `ARRAY[..]`, and neighbouring equal rows of `VALUES`, as one; and takes NULL, TRUE and
//!   FALSE as constants inside rows of VALUES and ARRAY. `!=` and `<>` are different texts and stay different.
//!
//! A text that is not [`Scan::complete`], or holds more than one statement, has a key and a fingerprint too, but no plan should be
//! cached for it.

mod collapse;
mod hash;
mod keyword;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;

use crate::sql::lexer::{Bodies, LexOptions, Lexer, NumberKind, StringKind, Token, TokenKind};
use collapse::Collapser;
use hash::{KeyHash, tag};

pub use keyword::Keyword;
pub use text::template_text;

/// A template's hash, the same in every run and on every machine; lists are collapsed.
///
/// Whoever can choose statements can make two of them collide, so it groups reports, and never decides what is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A statement's exact shape, hashed under a secret of this process: good for caches, worthless elsewhere.
///
/// Two different shapes of n tokens share a key with a probability below n^2 / 2^118, whoever chose them (see `hash`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TemplateKey(u128);

impl TemplateKey {
    /// 64 evenly spread bits, for hash tables that need no further hashing.
    pub fn low_bits(self) -> u64 {
        self.0 as u64
    }
}

/// What a binding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindingKind {
    /// A number, without sign.
    Number,
    /// A string in any form but the next; its span covers the prefix, all continuations and a UESCAPE clause.
    String,
    /// `B'..'` or `X'..'`.
    BitString,
    /// `$n`.
    Param(u32),
}

/// A constant or parameter and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binding {
    /// What it is.
    pub kind: BindingKind,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Binding {
    /// The constant as written, empty when it does not fit `sql`.
    pub fn bytes<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        sql.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// What one pass over a statement found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The exact shape.
    pub key: TemplateKey,
    /// The shape for reports.
    pub fingerprint: Fingerprint,
    /// Constants and parameters in the text's order.
    pub bindings: &'a [Binding],
    /// Statements that are not empty.
    pub statements: u32,
    /// No string, quoted identifier or comment is left open.
    pub complete: bool,
    /// The first three tokens of the first statement, opening parentheses apart: keywords as such,
    /// [`Keyword::Word`] for other names, [`Keyword::None`] for what is no unquoted name or not there.
    pub leading: [Keyword; 3],
    /// The setting that the text was read under.
    pub standard_conforming_strings: bool,
    /// Where the first `pgweir:` comment has its text. It is not part of the key.
    pub hint: Option<(u32, u32)>,
}

/// Scans statements one after another in the same memory.
#[derive(Debug)]
pub struct Scanner {
    options: LexOptions,
    collapser: Collapser,
    bindings: Vec<Binding>,
}

/// What a scanner keeps of its memory, in elements, after a statement that needed more.
const KEPT: usize = 1 << 17;

impl Scanner {
    /// A scanner for sessions with these settings.
    pub fn new(options: LexOptions) -> Self {
        Self { options, collapser: Collapser::default(), bindings: Vec::new() }
    }

    /// Changes the settings, when the session's have changed.
    pub fn set_options(&mut self, options: LexOptions) {
        self.options = options;
    }

    /// Scans a text, usually one statement. Allocates only when the text is larger than those before it.
    pub fn scan(&mut self, sql: &[u8]) -> Scan<'_> {
        self.run::<false>(sql)
    }

    fn run<const PIECES: bool>(&mut self, sql: &[u8]) -> Scan<'_> {
        self.collapser.reset(KEPT);
        self.bindings.clear();
        self.bindings.shrink_to(KEPT);
        let mut pass = Pass::<PIECES> {
            sql,
            key: KeyHash::new(),
            out: &mut self.collapser,
            bindings: &mut self.bindings,
            statements: 0,
            pending_semicolon: false,
            in_statement: false,
            tokens: 0,
            leading: [Keyword::None; 3],
            bodies: Bodies::default(),
        };
        if !self.options.standard_conforming_strings {
            pass.key.push(tag::SETTING);
        }
        let mut lexer = Lexer::new(sql, self.options);
        for token in &mut lexer {
            pass.token(token);
        }
        let complete = lexer.is_complete();
        if !complete {
            pass.both(tag::INCOMPLETE);
        }
        let (statements, leading, key) = (pass.statements, pass.leading, pass.key.finish());
        Scan {
            key: TemplateKey(key),
            fingerprint: Fingerprint(self.collapser.finish()),
            bindings: &self.bindings,
            statements,
            complete,
            leading,
            standard_conforming_strings: self.options.standard_conforming_strings,
            hint: lexer.hint(),
        }
    }
}

/// One pass over one text. With `PIECES` it also notes which token each part of the fingerprint came from.
struct Pass<'a, const PIECES: bool> {
    sql: &'a [u8],
    key: KeyHash,
    out: &'a mut Collapser,
    bindings: &'a mut Vec<Binding>,
    statements: u32,
    /// A `;` has been read that counts only if something follows.
    pending_semicolon: bool,
    in_statement: bool,
    /// Tokens of the first statement, opening parentheses at its beginning apart, up to 3.
    tokens: usize,
    leading: [Keyword; 3],
    bodies: Bodies,
}

impl<const PIECES: bool> Pass<'_, PIECES> {
    #[inline]
    fn both(&mut self, word: u64) {
        self.key.push(word);
        self.out.push(word);
    }

    #[inline]
    fn piece(&mut self, piece: text::PieceKind, token: Token) {
        if PIECES {
            self.out.piece(piece, token);
        }
    }

    #[inline]
    fn token(&mut self, token: Token) {
        if token.kind == TokenKind::Semicolon && self.out.is_top_level() && !self.bodies.is_inside() {
            self.pending_semicolon = self.statements > 0;
            self.in_statement = false;
            return;
        }
        if !self.in_statement {
            self.begin_statement(token);
        }
        match token.kind {
            TokenKind::Ident => return self.ident(token),
            TokenKind::LeftParen if self.tokens == 0 => {}
            _ => self.tokens += 1,
        }
        match token.kind {
            TokenKind::Ident => {}
            TokenKind::Number(kind) => self.number(token, kind),
            TokenKind::String(kind) => {
                let code = tag::STRING | kind as u64;
                let kind = if matches!(kind, StringKind::Bit | StringKind::Hex) {
                    BindingKind::BitString
                } else {
                    BindingKind::String
                };
                self.constant(token, code, kind);
            }
            TokenKind::Param(number) => {
                self.constant(token, tag::PARAM | u64::from(number), BindingKind::Param(number))
            }
            TokenKind::Comma => self.punctuation(token, b',', Collapser::comma),
            TokenKind::LeftParen => self.punctuation(token, b'(', Collapser::open_paren),
            TokenKind::RightParen => self.closing(token, b')'),
            TokenKind::LeftBracket => self.punctuation(token, b'[', Collapser::open_bracket),
            TokenKind::RightBracket => self.closing(token, b']'),
            TokenKind::Dot => self.punctuation(token, b'.', Collapser::dot),
            TokenKind::Cast => self.punctuation(token, b'c', Collapser::cast),
            TokenKind::Semicolon => self.punctuation(token, b';', Collapser::separator),
            TokenKind::DotDot => self.punctuation(token, b'd', Collapser::separator),
            TokenKind::Colon => self.punctuation(token, b':', Collapser::separator),
            TokenKind::Assign => self.punctuation(token, b'=', Collapser::separator),
            TokenKind::Arrow => self.punctuation(token, b'>', Collapser::separator),
            TokenKind::Op => self.operator(token),
            TokenKind::QuotedIdent => self.quoted_ident(token),
            TokenKind::UnicodeIdent => self.verbatim(token, tag::UNICODE_IDENT),
            TokenKind::Junk => self.verbatim(token, tag::JUNK),
            TokenKind::Other => self.verbatim(token, tag::OTHER),
        }
    }

    #[cold]
    fn semicolon(&mut self) {
        self.pending_semicolon = false;
        self.both(tag::PUNCTUATION | u64::from(b';'));
        self.piece(text::PieceKind::Semicolon, Token { kind: TokenKind::Semicolon, start: 0, end: 0 });
    }

    fn begin_statement(&mut self, _token: Token) {
        if self.pending_semicolon {
            self.semicolon();
        }
        self.in_statement = true;
        self.statements = self.statements.saturating_add(1);
        self.bodies = Bodies::default();
        self.out.begin_statement();
        if self.statements > 1 {
            self.tokens = 3;
        }
    }

    #[inline]
    fn ident(&mut self, token: Token) {
        let (keyword, first) = {
            let chunks = hash::Chunks::folded(self.sql, token.start as usize, token.end as usize);
            let mut seen = [0u64; 3];
            let first = self.out.len();
            let mut at = 0;
            let mut word_tag = tag::IDENT;
            for chunk in chunks {
                if let Some(place) = seen.get_mut(at) {
                    *place = chunk;
                }
                at += 1;
                self.key.push(word_tag | chunk);
                self.out.push(word_tag | chunk);
                word_tag = tag::MORE;
            }
            (if at <= 3 { keyword::lookup(seen) } else { Keyword::Word }, first)
        };
        if let Some(place) = self.leading.get_mut(self.tokens) {
            *place = keyword;
        }
        self.tokens += 1;
        if self.bodies.is_watching() {
            self.bodies.word(token.bytes(self.sql));
        }
        self.piece(text::PieceKind::Ident(keyword), token);
        self.out.ident(keyword, first);
    }

    fn number(&mut self, token: Token, kind: NumberKind) {
        if kind == NumberKind::Integer && self.out.wants_integers_kept() {
            self.verbatim(token, tag::KEPT_INTEGER);
            return;
        }
        self.out.drop_sign();
        self.constant(token, tag::NUMBER | kind as u64, BindingKind::Number);
    }

    #[inline]
    fn constant(&mut self, token: Token, code: u64, kind: BindingKind) {
        self.key.push(code);
        self.out.push(tag::CONSTANT);
        self.piece(text::PieceKind::Constant, token);
        self.out.operand();
        self.bindings.push(Binding { kind, start: token.start, end: token.end });
    }

    #[inline]
    fn punctuation(&mut self, token: Token, code: u8, tell: impl Fn(&mut Collapser)) {
        let word = tag::PUNCTUATION | u64::from(code);
        self.key.push(word);
        self.out.before_punctuation(code);
        self.out.push(word);
        self.piece(text::PieceKind::Punctuation, token);
        tell(self.out);
    }

    fn closing(&mut self, token: Token, code: u8) {
        let word = tag::PUNCTUATION | u64::from(code);
        self.key.push(word);
        self.out.end_list();
        self.out.push(word);
        self.piece(text::PieceKind::Punctuation, token);
        self.out.close();
    }

    fn operator(&mut self, token: Token) {
        let text = token.bytes(self.sql);
        let first = self.out.len();
        self.chunks(token, tag::OPERATOR);
        self.piece(text::PieceKind::Operator, token);
        self.out.operator(text, first);
    }

    fn quoted_ident(&mut self, token: Token) {
        let inner =
            token.bytes(self.sql).strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or_default();
        let (start, end) = (token.start as usize + 1, token.start as usize + 1 + inner.len());
        if !hash::is_folded_name(inner) || hash::keyword_of(inner) != Keyword::Word {
            return self.verbatim(token, tag::QUOTED_IDENT);
        }
        let mut word_tag = tag::IDENT;
        let chunks = hash::Chunks::folded(self.sql, start, end);
        for chunk in chunks {
            self.both(word_tag | chunk);
            word_tag = tag::MORE;
        }
        self.piece(text::PieceKind::PlainQuoted, token);
        self.out.name();
    }

    /// A token whose bytes are part of the template as they are.
    fn verbatim(&mut self, token: Token, word_tag: u64) {
        self.chunks(token, word_tag);
        self.piece(text::PieceKind::Verbatim, token);
        if matches!(word_tag, tag::QUOTED_IDENT | tag::UNICODE_IDENT) { self.out.name() } else { self.out.operand() }
    }

    fn chunks(&mut self, token: Token, mut word_tag: u64) {
        let chunks = hash::Chunks::exact(self.sql, token.start as usize, token.end as usize);
        for chunk in chunks {
            self.both(word_tag | chunk);
            word_tag = tag::MORE;
        }
    }
}
