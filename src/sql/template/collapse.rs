//! Collapses lists while a statement's words go by.
//!
//! It sees tokens one at a time, knows the one or two before and a stack of open brackets, and can only shorten what it
//! has put out: when an element of a list equals the one before, the words are cut back to the end of that one.

use super::hash::{self, tag};
use super::keyword::Keyword;
use super::text::{Piece, PieceKind};
use crate::sql::lexer::Token;

/// Brackets nested deeper than this are counted, not understood. PostgreSQL's parser gives up long before.
const DEPTH_LIMIT: usize = 1 << 12;

/// What stood before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing, an operator, or punctuation after which an expression begins.
    Start,
    /// A comma.
    Comma,
    /// `(` or `[`.
    Open,
    /// `.`
    Dot,
    /// A value, a closing bracket, a quoted name.
    Operand,
    /// An unquoted name or keyword.
    Word(Keyword),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    /// Nothing special.
    Plain,
    /// `IN (..)`: equal elements collapse.
    InList,
    /// `ARRAY[..]`: equal elements collapse, NULL and TRUE are constants.
    Array,
    /// `(..)` of VALUES.
    Row,
    /// `(..)` of a type: integers are kept.
    Modifier,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    bracket: Bracket,
    /// Inside ORDER BY, GROUP BY or DISTINCT ON: integers are positions.
    positions: bool,
    /// VALUES has been read, rows follow.
    rows: bool,
    /// More than one element has been kept.
    several: bool,
    /// Where the current element or row begins.
    element: usize,
    /// The last element or row that was kept; empty when there is none.
    kept: (usize, usize),
}

impl Frame {
    const fn new(bracket: Bracket, positions: bool, element: usize) -> Self {
        Self { bracket, positions, rows: false, several: false, element, kept: (0, 0) }
    }
}

/// How far a type's name has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TypeName {
    No,
    /// After `::` or AS, or a dot in a type's name.
    Expected,
    /// After the name.
    Read,
}

/// Takes a statement's words, keeps them collapsed.
#[derive(Debug)]
pub(super) struct Collapser {
    words: Vec<u64>,
    pieces: Vec<Piece>,
    frames: Vec<Frame>,
    top: Frame,
    /// Open brackets beyond the limit.
    beyond: u32,
    before: Before,
    /// The word before the word before.
    earlier: Keyword,
    type_name: TypeName,
    /// Where the sign's word begins, when the token before is one.
    sign: Option<usize>,
}

impl Default for Collapser {
    fn default() -> Self {
        Self {
            words: Vec::new(),
            pieces: Vec::new(),
            frames: Vec::new(),
            top: Frame::new(Bracket::Plain, false, 0),
            beyond: 0,
            before: Before::Start,
            earlier: Keyword::None,
            type_name: TypeName::No,
            sign: None,
        }
    }
}

impl Collapser {
    /// Forgets the last text, and memory beyond `kept` words.
    pub fn reset(&mut self, kept: usize) {
        self.words.clear();
        self.words.shrink_to(kept);
        self.pieces.clear();
        self.begin_statement();
    }

    pub fn begin_statement(&mut self) {
        self.frames.clear();
        self.top = Frame::new(Bracket::Plain, false, self.words.len());
        self.beyond = 0;
        self.set_before(Before::Start);
        self.earlier = Keyword::None;
        self.type_name = TypeName::No;
    }

    pub fn finish(&self) -> u64 {
        hash::fingerprint(&self.words)
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    #[inline(always)]
    pub fn push(&mut self, word: u64) {
        self.words.push(word);
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Notes which token the last words came from.
    pub fn piece(&mut self, kind: PieceKind, token: Token) {
        self.pieces.push(Piece { kind, start: token.start, end: token.end, words: self.words.len() });
    }

    /// No bracket is open.
    #[inline(always)]
    pub fn is_top_level(&self) -> bool {
        self.frames.is_empty() && self.beyond == 0
    }

    #[inline(always)]
    fn set_before(&mut self, before: Before) {
        self.earlier = if let Before::Word(keyword) = self.before { keyword } else { Keyword::None };
        self.before = before;
        self.sign = None;
    }

    fn cut(&mut self, length: usize) {
        self.words.truncate(length);
        while self.pieces.last().is_some_and(|piece| piece.words > length) {
            self.pieces.pop();
        }
    }

    /// An unquoted word, whose words begin at `first`.
    #[inline]
    pub fn ident(&mut self, keyword: Keyword, first: usize) {
        if self.before == Before::Dot {
            // After a dot any keyword is a name.
            self.type_name = if self.type_name == TypeName::Expected { TypeName::Read } else { TypeName::No };
            return self.set_before(Before::Operand);
        }
        if keyword == Keyword::Word {
            self.type_name = if self.type_name == TypeName::Expected { TypeName::Read } else { TypeName::No };
        } else {
            self.keyword(keyword, first);
        }
        self.set_before(Before::Word(keyword));
    }

    fn keyword(&mut self, keyword: Keyword, first: usize) {
        use Keyword::{
            As, By, Char, Character, Except, False, Fetch, For, Group, Having, Intersect, Limit, Null, Offset, Order,
            Precision, Returning, Select, Table, True, Union, Values, Varying, Window, With,
        };
        self.type_name = match (self.type_name, keyword) {
            (TypeName::Read, Varying | Precision | Character | Char) => TypeName::Read,
            (_, As) => TypeName::Expected,
            (TypeName::Expected, other) if !other.is_reserved() => TypeName::Read,
            _ => TypeName::No,
        };
        self.top.rows = false;
        if self.top.bracket == Bracket::Modifier {
            // No keyword stands in a type's modifier: this is `AS MATERIALIZED (SELECT ..)` or the like.
            self.top.bracket = Bracket::Plain;
        }
        match keyword {
            By => self.top.positions = matches!(self.before, Before::Word(Order | Group)),
            Having | Limit | Offset | Fetch | For | Window | Union | Intersect | Except | Returning => {
                self.top.positions = false
            }
            Select | Values | Table | With => {
                self.top.positions = false;
                if matches!(self.top.bracket, Bracket::InList | Bracket::Array) {
                    // IN (SELECT ..) is no list.
                    self.top.bracket = Bracket::Plain;
                }
                self.top.rows = keyword == Values;
                self.top.kept = (0, 0);
            }
            Null | True | False
                if matches!(self.top.bracket, Bracket::Row | Bracket::Array) && self.begins_element() =>
            {
                self.words.truncate(first);
                self.words.push(tag::CONSTANT);
                if let Some(piece) = self.pieces.last_mut() {
                    piece.kind = PieceKind::Constant;
                    piece.words = first + 1;
                }
            }
            _ => {}
        }
    }

    #[inline(always)]
    fn begins_element(&self) -> bool {
        matches!(self.before, Before::Comma | Before::Open)
    }

    /// True when an integer that comes now is part of the template.
    #[inline(always)]
    pub fn wants_integers_kept(&self) -> bool {
        self.top.bracket == Bracket::Modifier
            || self.top.positions
                && (self.begins_element()
                    || matches!(
                        (self.earlier, self.before),
                        (_, Before::Word(Keyword::By)) | (Keyword::By, Before::Word(Keyword::All | Keyword::Distinct))
                    ))
    }

    /// A sign right before a number is part of it.
    #[inline(always)]
    pub fn drop_sign(&mut self) {
        if let Some(length) = self.sign {
            self.cut(length);
        }
    }

    /// A constant, or a token about which nothing is known.
    #[inline(always)]
    pub fn operand(&mut self) {
        self.type_name = TypeName::No;
        self.set_before(Before::Operand);
    }

    /// A name in quotes.
    pub fn name(&mut self) {
        self.type_name = if self.type_name == TypeName::Expected { TypeName::Read } else { TypeName::No };
        self.set_before(Before::Operand);
    }

    /// An operator, whose words begin at `first`.
    #[inline]
    pub fn operator(&mut self, text: &[u8], first: usize) {
        let sign = matches!(text, b"-" | b"+")
            && match self.before {
                Before::Start | Before::Comma | Before::Open => true,
                Before::Word(keyword) => keyword.precedes_expression(),
                Before::Dot | Before::Operand => false,
            };
        self.separator();
        self.sign = sign.then_some(first);
    }

    /// Punctuation after which an expression may begin.
    #[inline(always)]
    pub fn separator(&mut self) {
        self.type_name = TypeName::No;
        self.set_before(Before::Start);
    }

    /// `::`
    #[inline(always)]
    pub fn cast(&mut self) {
        self.type_name = TypeName::Expected;
        self.set_before(Before::Operand);
    }

    /// `.`
    #[inline(always)]
    pub fn dot(&mut self) {
        self.type_name = if self.type_name == TypeName::Read { TypeName::Expected } else { TypeName::No };
        self.set_before(Before::Dot);
    }

    /// Called before a comma's word is put out.
    #[inline(always)]
    pub fn before_punctuation(&mut self, code: u8) {
        if code == b',' && matches!(self.top.bracket, Bracket::InList | Bracket::Array) {
            self.end_element();
        }
    }

    /// `,`
    #[inline(always)]
    pub fn comma(&mut self) {
        self.top.element = self.words.len();
        self.type_name = TypeName::No;
        self.set_before(Before::Comma);
    }

    /// `(`
    pub fn open_paren(&mut self) {
        use Keyword::{All, Cube, Distinct, In, On, Rollup, Sets};
        // The word of `(` is already there.
        let start = self.words.len() - 1;
        let positions = self.top.positions;
        let (bracket, positions) = match (self.earlier, self.before) {
            (_, Before::Word(In)) => (Bracket::InList, false),
            (_, before) if self.row_begins(before, start) => {
                self.top.element = start;
                (Bracket::Row, false)
            }
            (_, Before::Word(Rollup | Cube | Sets | Keyword::By)) => (Bracket::Plain, positions),
            (Keyword::By, Before::Word(All | Distinct)) => (Bracket::Plain, positions),
            (_, Before::Comma | Before::Open) => (Bracket::Plain, positions),
            (Distinct, Before::Word(On)) => (Bracket::Plain, true),
            (_, Before::Word(keyword)) if keyword.takes_modifier() || self.type_name == TypeName::Read => {
                (Bracket::Modifier, false)
            }
            (_, Before::Operand) if self.type_name == TypeName::Read => (Bracket::Modifier, false),
            _ => (Bracket::Plain, false),
        };
        self.open(bracket, positions);
    }

    /// True when the `(` whose word is at `start` begins a row of VALUES: the first one, or right after a row and a comma.
    fn row_begins(&self, before: Before, start: usize) -> bool {
        self.top.rows
            && match before {
                Before::Word(keyword) => keyword == Keyword::Values,
                Before::Comma => self.top.kept.1 + 1 == start,
                _ => false,
            }
    }

    /// `[`
    pub fn open_bracket(&mut self) {
        let nested = self.top.bracket == Bracket::Array && self.begins_element();
        let array = nested || self.before == Before::Word(Keyword::Array);
        self.open(if array { Bracket::Array } else { Bracket::Plain }, false);
    }

    fn open(&mut self, bracket: Bracket, positions: bool) {
        if self.frames.len() >= DEPTH_LIMIT {
            self.beyond = self.beyond.saturating_add(1);
        } else {
            self.frames.push(self.top);
            self.top = Frame::new(bracket, positions, self.words.len());
        }
        self.type_name = TypeName::No;
        self.set_before(Before::Open);
    }

    /// An element of a list ends: it goes when it equals the last one kept.
    #[inline]
    fn end_element(&mut self) {
        let Frame { element, kept: (start, end), .. } = self.top;
        let current = self.words.get(element..).unwrap_or_default();
        if end > start && self.words.get(start..end) == Some(current) {
            self.cut(end);
        } else {
            self.top.several = end > start;
            self.top.kept = (element, self.words.len());
        }
    }

    /// Called before a closing bracket's word is put out.
    pub fn end_list(&mut self) {
        if self.beyond > 0 || !matches!(self.top.bracket, Bracket::InList | Bracket::Array) {
            return;
        }
        self.end_element();
        let (start, end) = self.top.kept;
        if !self.top.several
            && self.words.get(start..end) == Some(&[tag::CONSTANT])
            && let Some(piece) = self.pieces.last_mut()
        {
            piece.kind = PieceKind::Ellipsis;
        }
    }

    /// `)` or `]`
    pub fn close(&mut self) {
        self.type_name = TypeName::No;
        self.set_before(Before::Operand);
        if self.beyond > 0 {
            self.beyond -= 1;
            return;
        }
        let closed = self.top.bracket;
        let Some(outer) = self.frames.pop() else { return };
        self.top = outer;
        if closed == Bracket::Row {
            self.end_element();
        }
    }
}
