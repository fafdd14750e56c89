//! Commands that need a database which nobody else is connected to: DROP DATABASE, CREATE DATABASE from a template, and
//! some of ALTER DATABASE.
//!
//! Connections that merely wait in a pool would make them fail, where an application that has closed its own does not
//! expect any. They are closed before such a command is sent; those that serve somebody stay, as they would without a pool.

use crate::pool::server::CancelTarget;
use crate::proxy::care::Care;
use crate::proxy::changes::name;
use crate::proxy::conversation::Conversation;
use crate::proxy::from_client::Ways;
use crate::sql::lexer::{LexOptions, Token, TokenKind, decode_string};

/// Whether a statement may be such a command.
pub fn is_asked_for(sql: &[u8], tokens: &[Token]) -> bool {
    matches!(name(sql, tokens.first()).as_str(), "drop" | "create" | "alter") && name(sql, tokens.get(1)) == "database"
}

/// The databases that a statement needs nobody connected to.
pub fn databases(sql: &[u8], tokens: &[Token], options: LexOptions) -> Vec<String> {
    if !is_asked_for(sql, tokens) {
        return Vec::new();
    }
    let word = |at: usize| name(sql, tokens.get(at));
    let found = match word(0).as_str() {
        "drop" if word(2) == "if" && word(3) == "exists" => word(4),
        "drop" => word(2),
        "alter" if word(3) == "rename" || word(3) == "set" && word(4) == "tablespace" => word(2),
        "alter" => return Vec::new(),
        _ => template(sql, tokens, options),
    };
    Vec::from_iter(Some(found).filter(|found| !found.is_empty()))
}

/// What CREATE DATABASE copies.
fn template(sql: &[u8], tokens: &[Token], options: LexOptions) -> String {
    // The first three words are the command and the new name.
    let named = (3..tokens.len()).find(|at| name(sql, tokens.get(*at)) == "template");
    let Some(at) = named else { return "template1".to_owned() };
    let is_sign = |token: &&Token| token.bytes(sql) == b"=";
    let value = tokens.get(at + 1).filter(|token| !is_sign(token)).or_else(|| tokens.get(at + 2));
    match value {
        Some(value) if matches!(value.kind, TokenKind::String(_)) => {
            decode_string(value.bytes(sql), options).unwrap_or_default()
        }
        value => Some(name(sql, value)).filter(|value| value != "default").unwrap_or_else(|| "template1".to_owned()),
    }
}

/// Notes what a statement needs to itself that is about to be sent; gives what else there is to see to. `text` may be followed by
/// a terminator and more.
pub(super) fn note(care: Care, text: &[u8], ways: &mut Ways<'_>) -> Care {
    if care.has(Care::ALONE) {
        ways.analyzer.want_alone(text.split(|byte| *byte == 0).next().unwrap_or_default());
    }
    care.without(Care::ALONE)
}

impl Conversation {
    /// Closes what waits in pools with a connection to one of these databases on `server`.
    pub(super) fn leave_alone(&self, server: &CancelTarget, databases: impl Iterator<Item = String>) {
        for database in databases {
            for pool in self.interned.pools_of(server.server(), &database) {
                pool.leave();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::Lexer;

    #[test]
    fn databases_are_read_from_the_command() {
        for (sql, expected) in [
            ("DROP DATABASE shop", "shop"),
            ("drop database if exists \"Shop\" with (force)", "Shop"),
            ("create database a template = 'b''c'", "b'c"),
            ("create database a with owner x template B encoding 'utf8'", "b"),
            ("create database template", "template1"),
            ("create database a template default", "template1"),
            ("alter database a rename to b", "a"),
            ("alter database a set tablespace x", "a"),
            ("alter database a set work_mem = 1", ""),
            ("drop table database", ""),
            ("select 'drop database x'", ""),
            ("drop database", ""),
        ] {
            let options = LexOptions::default();
            let tokens: Vec<Token> = Lexer::new(sql.as_bytes(), options).collect();
            assert_eq!(databases(sql.as_bytes(), &tokens, options).concat(), expected, "{sql}");
        }
    }
}
