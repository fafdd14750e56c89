//! Statements that the parser rejects and pg_dump writes, read from their tokens.

use sqlparser::tokenizer::{Token, Tokenizer};

use super::Reader;
use crate::sql::dialect::PgDialect;

/// Tokens of a statement without space, names folded.
struct Words {
    words: Vec<Word>,
}

/// A token, as far as these statements need it.
#[derive(Debug, PartialEq)]
enum Word {
    /// A keyword or a name; keywords are compared in lower case.
    Name {
        text: String,
        quoted: bool,
    },
    Text(String),
    Other(String),
}

impl Words {
    fn of(text: &str) -> Option<Self> {
        let tokens = Tokenizer::new(&PgDialect, text).with_unescape(true).tokenize().ok()?;
        let words = tokens.iter().filter_map(|token| {
            Some(match token {
                Token::Whitespace(_) => return None,
                Token::Word(word) if word.quote_style.is_some() => {
                    Word::Name { text: word.value.clone(), quoted: true }
                }
                Token::Word(word) => Word::Name { text: word.value.to_ascii_lowercase(), quoted: false },
                Token::SingleQuotedString(text) => Word::Text(text.clone()),
                other => Word::Other(other.to_string()),
            })
        });
        Some(Self { words: words.collect() })
    }

    fn is(&self, at: usize, keyword: &str) -> bool {
        matches!(self.words.get(at), Some(Word::Name { text, quoted: false }) if text == keyword)
    }

    fn are(&self, at: usize, keywords: &[&str]) -> bool {
        keywords.iter().enumerate().all(|(offset, keyword)| self.is(at + offset, keyword))
    }

    fn skip(&self, at: usize, keyword: &str) -> usize {
        if self.is(at, keyword) { at + 1 } else { at }
    }

    /// A possibly qualified name at a place, and the place behind it.
    fn name(&self, at: usize) -> Option<(Option<String>, String, usize)> {
        let Word::Name { text: first, .. } = self.words.get(at)? else { return None };
        match (self.words.get(at + 1), self.words.get(at + 2)) {
            (Some(Word::Other(dot)), Some(Word::Name { text: second, .. })) if dot == "." => {
                Some((Some(first.clone()), second.clone(), at + 3))
            }
            _ => Some((None, first.clone(), at + 1)),
        }
    }
}

impl Reader {
    /// Reads what the parser could not; false when this cannot either.
    pub(super) fn by_tokens(&mut self, text: &str) -> bool {
        let Some(words) = Words::of(text) else { return false };
        if words.are(0, &["alter", "index"]) || words.is(0, "set") || words.is(0, "select") {
            return true;
        }
        if words.are(0, &["alter", "table"]) {
            return self.alter_by_tokens(&words);
        }
        // ALTER VIEW, ALTER MATERIALIZED VIEW: owners and options.
        words.is(0, "alter") && (words.is(1, "view") || words.is(1, "materialized"))
    }

    fn alter_by_tokens(&mut self, words: &Words) -> bool {
        let mut at = 2;
        if words.are(at, &["if", "exists"]) {
            at += 2;
        }
        at = words.skip(at, "only");
        let Some((schema, name, mut at)) = words.name(at) else { return false };
        if words.are(at, &["attach", "partition"]) {
            return self.attach(words, (schema, name), at + 2);
        }
        if words.are(at, &["cluster", "on"]) || words.are(at, &["set", "without"]) || words.is(at, "inherit") {
            return true;
        }
        if !words.is(at, "alter") {
            return false;
        }
        at = words.skip(at + 1, "column");
        let Some((None, column, at)) = words.name(at) else { return false };
        let is_storage = words.is(at, "set") && (words.is(at + 1, "statistics") || words.is(at + 1, "storage"));
        if is_storage || (words.is(at, "set") && words.words.get(at + 1) == Some(&Word::Other("(".to_owned()))) {
            return true;
        }
        if !words.are(at, &["add", "generated"]) {
            return false;
        }
        let Some(id) = self.find(schema.as_deref(), &name) else {
            self.problem(format!("{name} is not defined before this statement"));
            return true;
        };
        if let Some(column) = self.column_mut(id, &column) {
            column.generated = true;
            column.not_null = true;
        }
        true
    }

    /// `ALTER TABLE parent ATTACH PARTITION child`
    fn attach(&mut self, words: &Words, parent: (Option<String>, String), at: usize) -> bool {
        let Some((schema, child, _)) = words.name(at) else { return false };
        let parent = self.find(parent.0.as_deref(), &parent.1).map(|id| self.catalog.table(id).name.clone());
        match (self.find(schema.as_deref(), &child), parent) {
            (Some(id), Some(parent)) => self.catalog.table_mut(id).partition_of = Some(parent),
            _ => self.problem(format!("{child} or its parent is not defined before this statement")),
        }
        true
    }
}

/// The value that `set_config('name', 'value', ..)` gives to a setting.
pub(super) fn set_config_value(text: &str, setting: &str) -> Option<String> {
    let words = Words::of(text)?.words;
    let call = words.iter().position(|word| matches!(word, Word::Name { text, .. } if text == "set_config"))?;
    match words.get(call + 1..)? {
        [_, Word::Text(name), _, Word::Text(value), ..] if name == setting => Some(value.clone()),
        _ => None,
    }
}
