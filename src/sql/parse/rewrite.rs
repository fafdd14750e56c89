//! Constructs of PostgreSQL that the parser rejects, made acceptable by leaving out or replacing tokens.
//!
//! Only the parser's copy of the tokens changes; positions stay those of the text. A token is left out only when the tree without it
//! says the same of tables, columns and conditions, or with a note that becomes `Facts::unknown`.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::tokens::is_space;

/// Statements in which the parser itself knows ONLY.
const KNOW_ONLY: [&str; 6] = ["ALTER", "TRUNCATE", "LOCK", "GRANT", "REVOKE", "CLUSTER"];

/// The tokens to parse, and what leaving some out loses.
pub(super) fn rewrite(raw: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, Option<&'static str>) {
    let places: Vec<usize> = raw
        .iter()
        .enumerate()
        .filter(|(_, token)| !is_space(&token.token) && token.token != Token::EOF)
        .map(|(place, _)| place)
        .collect();
    let mut edits = Edits { raw: &raw, places, dropped: Vec::new(), replaced: Vec::new(), lost: None };
    edits.find();
    if edits.dropped.is_empty() && edits.replaced.is_empty() {
        return (raw, None);
    }
    let Edits { places, dropped, replaced, lost, .. } = edits;
    let dropped: Vec<usize> = dropped.iter().filter_map(|index| places.get(*index).copied()).collect();
    let replaced: Vec<(usize, &[&str])> =
        replaced.iter().filter_map(|(index, words)| Some((*places.get(*index)?, *words))).collect();
    let mut tokens = Vec::with_capacity(raw.len() + 8);
    for (place, token) in raw.into_iter().enumerate() {
        if dropped.binary_search(&place).is_ok() {
            continue;
        }
        match replaced.iter().find(|(at, _)| *at == place) {
            Some((_, words)) => {
                tokens.extend(words.iter().map(|word| TokenWithSpan { token: token_of(word), span: token.span }));
            }
            None => tokens.push(token),
        }
    }
    (tokens, lost)
}

fn token_of(word: &str) -> Token {
    if word == "*" { Token::Mul } else { Token::make_keyword(word) }
}

/// What is to be changed, by index among the tokens that are no space.
struct Edits<'a> {
    raw: &'a [TokenWithSpan],
    places: Vec<usize>,
    dropped: Vec<usize>,
    replaced: Vec<(usize, &'static [&'static str])>,
    lost: Option<&'static str>,
}

impl Edits<'_> {
    fn token(&self, index: usize) -> &Token {
        self.places.get(index).and_then(|place| self.raw.get(*place)).map_or(&Token::EOF, |token| &token.token)
    }

    fn before(&self, index: usize) -> &Token {
        index.checked_sub(1).map_or(&Token::EOF, |before| self.token(before))
    }

    fn is(&self, index: usize, word: &str) -> bool {
        is_word(self.token(index), word)
    }

    fn are(&self, index: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.is(index + offset, word))
    }

    fn drop(&mut self, from: usize, count: usize) {
        self.dropped.extend(from..from + count);
    }

    fn lose(&mut self, what: &'static str) {
        self.lost.get_or_insert(what);
    }

    fn find(&mut self) {
        let mut index = 0;
        while index < self.places.len() {
            if let Token::Word(Word { quote_style: None, keyword, .. }) = self.token(index) {
                let keyword = *keyword;
                index = self.at_word(index, keyword);
            } else {
                index += 1;
            }
        }
    }

    /// Looks at one word; answers where to go on.
    fn at_word(&mut self, index: usize, keyword: Keyword) -> usize {
        let dropped_before = self.dropped.len();
        match keyword {
            Keyword::ONLY => self.only(index),
            Keyword::TABLE if self.begins_query(index) => self.replaced.push((index, &["SELECT", "*", "FROM"])),
            Keyword::EXCLUDE => {
                let words = if self.are(index + 1, &["CURRENT", "ROW"]) || self.are(index + 1, &["NO", "OTHERS"]) {
                    3
                } else if self.is(index + 1, "GROUP") || self.is(index + 1, "TIES") {
                    2
                } else {
                    0
                };
                if words > 0 && *self.token(index + words) == Token::RParen {
                    self.drop(index, words);
                }
            }
            Keyword::SYMMETRIC if is_word(self.before(index), "BETWEEN") => {
                self.lose("BETWEEN SYMMETRIC");
                self.drop(index, 1);
            }
            Keyword::CONFLICT if *self.token(index + 1) == Token::LParen => self.conflict_target(index + 1),
            Keyword::FOR if self.are(index + 1, &["NO", "KEY", "UPDATE"]) => self.drop(index + 1, 2),
            Keyword::FOR if self.are(index + 1, &["KEY", "SHARE"]) => self.drop(index + 1, 1),
            Keyword::WITH if self.is(0, "CREATE") && self.is_materialized_tail(index) => {
                self.drop(index, self.places.len() - index);
            }
            Keyword::INCLUDING | Keyword::EXCLUDING if self.is(0, "CREATE") => self.drop(index, 2),
            _ => self.other_word(index),
        }
        index + (self.dropped.len() - dropped_before).max(1)
    }

    /// Words that the parser has no keyword for.
    fn other_word(&mut self, index: usize) {
        if self.is(index, "OVERRIDING") && self.is(index + 2, "VALUE") {
            if self.is(index + 1, "USER") {
                self.lose("OVERRIDING USER VALUE");
            }
            self.drop(index, 3);
        } else if (self.is(index, "ASYMMETRIC") && is_word(self.before(index), "BETWEEN"))
            || (self.is(index, "VARIADIC") && !self.is(0, "CREATE") && opens_argument(self.before(index)))
        {
            self.drop(index, 1);
        } else if self.is(index, "ISNULL") && *self.token(index + 1) != Token::LParen && ends_value(self.before(index))
        {
            self.replaced.push((index, &["IS", "NULL"]));
        }
    }

    /// FROM ONLY t: the table without its children. `ROWS ONLY` ends a FETCH.
    fn only(&mut self, index: usize) {
        let before = self.before(index);
        let is_fetch = is_word(before, "ROW") || is_word(before, "ROWS") || is_word(before, "READ");
        let knows = KNOW_ONLY.iter().any(|word| self.is(0, word));
        let names = matches!(self.token(index + 1), Token::Word(_) | Token::LParen);
        if names && !is_fetch && !knows {
            if !self.is(0, "CREATE") {
                self.lose("ONLY leaves out partitions and children");
            }
            self.drop(index, 1);
        }
    }

    /// `TABLE t` where a query may stand.
    fn begins_query(&self, index: usize) -> bool {
        let names = matches!(self.token(index + 1), Token::Word(_));
        let before = self.before(index);
        let after_words = ["UNION", "EXCEPT", "INTERSECT", "EXPLAIN"].iter().any(|word| is_word(before, word));
        let after_all = is_word(before, "ALL")
            && index
                .checked_sub(2)
                .is_some_and(|at| ["UNION", "EXCEPT", "INTERSECT"].iter().any(|word| is_word(self.token(at), word)));
        names && (index == 0 || *before == Token::LParen || after_words || after_all)
    }

    /// The target of ON CONFLICT names what to look for, which changes nothing that facts tell; the parser
    /// takes plain columns only.
    fn conflict_target(&mut self, open: usize) {
        let mut depth = 0_usize;
        let mut end = open;
        loop {
            match self.token(end) {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::EOF => return,
                _ if depth == 0 && self.is(end, "DO") => break,
                _ => {}
            }
            end += 1;
        }
        let is_plain = (open + 1..end - 1).all(|at| matches!(self.token(at), Token::Word(_) | Token::Comma))
            && !(open..end).any(|at| self.is(at, "COLLATE"))
            && *self.token(end - 1) == Token::RParen
            && self.single_words(open + 1, end - 1);
        if !is_plain {
            self.drop(open, end - open);
        }
    }

    /// Words between commas, one each.
    fn single_words(&self, from: usize, to: usize) -> bool {
        (from..to).all(|at| matches!(self.token(at), Token::Word(_)) == (at - from).is_multiple_of(2))
    }

    /// `WITH [NO] DATA` at the end.
    fn is_materialized_tail(&self, index: usize) -> bool {
        let rest = self.places.len() - index;
        let ends = |words: &[&str]| {
            self.are(index + 1, words)
                && (rest == words.len() + 1 || *self.token(index + words.len() + 1) == Token::SemiColon)
        };
        ends(&["DATA"]) || ends(&["NO", "DATA"])
    }
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

fn opens_argument(token: &Token) -> bool {
    matches!(token, Token::LParen | Token::Comma)
}

fn ends_value(token: &Token) -> bool {
    match token {
        Token::Word(word) => !["WHERE", "AND", "OR", "NOT", "ON", "SELECT", "WHEN", "HAVING"]
            .iter()
            .any(|key| word.value.eq_ignore_ascii_case(key)),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::Placeholder(_)
        | Token::RParen
        | Token::RBracket => true,
        _ => false,
    }
}
