//! SET, RESET, DEALLOCATE and DISCARD, read by their tokens.

use crate::pool::settings::{ROLE, SESSION_AUTHORIZATION, Value};
use crate::proxy::care::Effect;
use crate::sql::lexer::{LexOptions, Token, TokenKind, decode_identifier, decode_string};

/// What a statement about the session does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing that outlives the transaction.
    Nothing,
    /// An effect that can be followed from its text alone.
    Follow(Effect),
    /// These settings get values that only the server can say.
    Named(Vec<String>),
    /// Some setting may get some value.
    Any,
}

/// Settings that live as long as the transaction, although plain SET may name them.
const OF_TRANSACTION: [&str; 3] = ["transaction_isolation", "transaction_read_only", "transaction_deferrable"];

/// A statement's tokens with its text.
#[derive(Clone, Copy)]
struct Words<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
}

/// A name as PostgreSQL folds it; empty for what is no name.
pub fn name(sql: &[u8], token: Option<&Token>) -> String {
    let Some(token) = token else { return String::new() };
    // What cannot be decoded is no name that anything asks for.
    decode_identifier(token.bytes(sql)).unwrap_or_default()
}

/// What a statement that begins with SET, RESET, DEALLOCATE or DISCARD does; `None` for others.
pub fn change(sql: &[u8], tokens: &[Token]) -> Option<Change> {
    let words = Words { sql, tokens };
    let (second, third) = (words.at(1), words.at(2));
    Some(match (words.at(0).as_str(), second.as_str(), tokens.len()) {
        ("discard", "all", 2) => Change::Follow(Effect::DiscardAll),
        ("discard", "sequences", 2) => Change::Follow(Effect::DiscardSequences),
        ("deallocate", "all", 2) => Change::Follow(Effect::DeallocateAll),
        ("deallocate", "prepare", 3) if third == "all" => Change::Follow(Effect::DeallocateAll),
        ("deallocate", "prepare", 3) => Change::Follow(Effect::Deallocate(third.into_bytes())),
        ("deallocate", _, 2) => Change::Follow(Effect::Deallocate(second.into_bytes())),
        ("deallocate" | "discard", ..) => Change::Nothing,
        ("reset", "all", 2) => Change::Follow(Effect::ResetAll),
        ("reset", ..) => words.reset(),
        ("set", ..) => words.set(),
        _ => return None,
    })
}

impl Words<'_> {
    fn at(&self, index: usize) -> String {
        name(self.sql, self.tokens.get(index))
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn reset(&self) -> Change {
        let reset = |setting: &str| Change::Follow(Effect::Set(setting.to_owned(), None));
        match (self.at(1).as_str(), self.at(2).as_str(), self.len()) {
            ("session", "authorization", 3) => self.authorize(None),
            ("transaction", ..) => Change::Nothing,
            ("time", "zone", 3) => reset("timezone"),
            _ => match self.setting(1) {
                Some((setting, end)) if end == self.len() => reset(&setting),
                _ => Change::Any,
            },
        }
    }

    /// `SET SESSION AUTHORIZATION` also takes the role back.
    fn authorize(&self, user: Option<Value>) -> Change {
        let user = Effect::Set(SESSION_AUTHORIZATION.to_owned(), user);
        Change::Follow(Effect::Several(vec![user, Effect::Set(ROLE.to_owned(), None)]))
    }

    fn set(&self) -> Change {
        let first = if self.at(1) == "session" && !self.is_of_session() { 2 } else { 1 };
        let (second, third) = (self.at(first), self.at(first + 1));
        let has_value = self.len() > first + 1;
        match (second.as_str(), third.as_str()) {
            ("local" | "transaction" | "constraints", _) => Change::Nothing,
            ("session", "characteristics") => {
                let settings = OF_TRANSACTION.iter().map(|setting| format!("default_{setting}"));
                Change::Named(settings.collect())
            }
            ("session", "authorization") => match self.identity(first + 2) {
                Some(user) => self.authorize(user),
                None => Change::Named(vec![SESSION_AUTHORIZATION.to_owned(), ROLE.to_owned()]),
            },
            ("role", _) if has_value && !self.is_assignment(first + 1) => match self.identity(first + 1) {
                Some(role) => Change::Follow(Effect::Set(ROLE.to_owned(), role.or(Some(Value::Text("none".into()))))),
                None => Change::Named(vec![ROLE.to_owned()]),
            },
            ("names", _) => self.value("client_encoding", first + 1),
            ("schema", _) => self.value("search_path", first + 1),
            ("xml", "option") => self.value("xmloption", first + 2),
            ("time", "zone") => self.value("timezone", first + 2),
            _ => match self.setting(first) {
                Some((setting, _)) if OF_TRANSACTION.contains(&setting.as_str()) => Change::Nothing,
                Some((setting, end)) if self.is_assignment(end) => self.value(&setting, end + 1),
                _ => Change::Any,
            },
        }
    }

    /// `SET SESSION CHARACTERISTICS` and `SET SESSION AUTHORIZATION`, where SESSION is not just how long.
    fn is_of_session(&self) -> bool {
        matches!(self.at(2).as_str(), "characteristics" | "authorization")
    }

    fn is_assignment(&self, at: usize) -> bool {
        self.at(at) == "to" || self.tokens.get(at).is_some_and(|token| token.bytes(self.sql) == b"=")
    }

    /// The rest of `SET name TO ...`.
    fn value(&self, setting: &str, at: usize) -> Change {
        let effect = |value| Change::Follow(Effect::Set(setting.to_owned(), value));
        let word = self.at(at);
        let (Some(first), Some(last)) = (self.tokens.get(at), self.tokens.last()) else { return effect(None) };
        let alone = self.len() == at + 1;
        if alone
            && first.kind != TokenKind::QuotedIdent
            && (word == "default" || word == "local" && setting == "timezone")
        {
            return effect(None);
        }
        // INTERVAL '..' HOUR TO MINUTE exists only in SET TIME ZONE's own syntax; these three mean more than their text.
        let special = matches!(setting, ROLE | SESSION_AUTHORIZATION) || word == "interval";
        let parenthesis = self.tokens.iter().any(|token| token.kind == TokenKind::LeftParen);
        // What a backslash or a byte beyond ASCII means depends on settings that may have changed when it is replayed.
        let plain = |text: &&[u8]| text.is_ascii() && !text.contains(&b'\\');
        let text = self.sql.get(first.start as usize..last.end as usize).filter(plain);
        match text.and_then(|text| std::str::from_utf8(text).ok()) {
            Some(text) if !special && !parenthesis => effect(Some(Value::Sql(text.to_owned()))),
            _ => Change::Named(vec![setting.to_owned()]),
        }
    }

    /// A role as the only word that is left: `Some(None)` is DEFAULT or NONE.
    fn identity(&self, at: usize) -> Option<Option<Value>> {
        let token = self.tokens.get(at).filter(|_| self.len() == at + 1)?;
        let text = match token.kind {
            // What a backslash means depends on a setting.
            TokenKind::String(_) if token.bytes(self.sql).contains(&b'\\') => return None,
            TokenKind::String(_) => decode_string(token.bytes(self.sql), LexOptions::default()).ok()?,
            TokenKind::Ident if matches!(self.at(at).as_str(), "default" | "none") => return Some(None),
            _ => self.at(at),
        };
        (!text.is_empty()).then_some(Some(Value::Text(text)))
    }

    /// A setting's name, perhaps with a prefix, and the place after it.
    fn setting(&self, at: usize) -> Option<(String, usize)> {
        let mut setting = Some(self.at(at)).filter(|name| !name.is_empty())?;
        let mut end = at + 1;
        while self.tokens.get(end).is_some_and(|token| token.kind == TokenKind::Dot) {
            setting.push('.');
            setting.push_str(&Some(self.at(end + 1)).filter(|name| !name.is_empty())?);
            end += 2;
        }
        Some((setting.to_ascii_lowercase(), end))
    }
}
