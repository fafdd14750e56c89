//! Where a text speaks of prepared statements by name: PREPARE, EXECUTE and DEALLOCATE.
//!
//! The names are a client's own, and servers know its statements by others. A name is therefore exchanged where
//! it stands, by its place in the text; nothing of the statement is ever printed anew.

use std::ops::Range;

use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind, decode_identifier};

/// What a statement does with the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// `PREPARE name [(types)] AS statement`.
    Prepare {
        /// What follows the name.
        tail: Range<usize>,
        /// The statement after AS.
        inner: Range<usize>,
    },
    /// `EXECUTE name`, also behind EXPLAIN or CREATE TABLE .. AS.
    Execute,
    /// `DEALLOCATE name`.
    Deallocate,
    /// `DEALLOCATE ALL`.
    DeallocateAll,
}

/// One name in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// What is done.
    pub verb: Verb,
    /// The name as PostgreSQL folds it; empty for ALL.
    pub name: Box<[u8]>,
    /// Where it stands.
    pub span: Range<usize>,
}

/// The statements of `sql` that speak of prepared statements; `None` when a name cannot be read.
pub fn mentions(sql: &[u8], options: LexOptions) -> Option<Vec<Mention>> {
    let tokens: Vec<Token> = Lexer::new(sql, options).collect();
    let (mut found, mut depth) = (Vec::new(), 0usize);
    let ends = |token: &Token| {
        match token.kind {
            TokenKind::LeftParen => depth += 1,
            TokenKind::RightParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        token.kind == TokenKind::Semicolon && depth == 0
    };
    for statement in tokens.split(ends) {
        match (Statement { sql, tokens: statement }).mention() {
            Ok(mention) => found.extend(mention),
            Err(Unreadable) => return None,
        }
    }
    Some(found)
}

/// A name is there that cannot be decoded.
struct Unreadable;

struct Statement<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
}

impl Statement<'_> {
    fn is(&self, at: usize, word: &str) -> bool {
        let unquoted = |token: &&Token| token.kind == TokenKind::Ident;
        let token = self.tokens.get(at).filter(unquoted);
        token.is_some_and(|token| token.bytes(self.sql).eq_ignore_ascii_case(word.as_bytes()))
    }

    fn kind(&self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    fn mention(&self) -> Result<Option<Mention>, Unreadable> {
        if self.is(0, "prepare") {
            return self.prepare();
        }
        if self.is(0, "deallocate") {
            // PREPARE is a noise word here, unless nothing follows it.
            let at = if self.is(1, "prepare") && self.tokens.len() > 2 { 2 } else { 1 };
            if self.is(at, "all") {
                return Ok(Some(Mention { verb: Verb::DeallocateAll, name: Box::default(), span: 0..0 }));
            }
            return self.named(at, Verb::Deallocate);
        }
        match self.execute_at() {
            Some(at) => self.named(at + 1, Verb::Execute),
            None => Ok(None),
        }
    }

    /// Where EXECUTE stands, when that is what this statement runs.
    fn execute_at(&self) -> Option<usize> {
        let mut at = 0;
        if self.is(0, "explain") {
            at = 1;
            while self.is(at, "analyze") || self.is(at, "analyse") || self.is(at, "verbose") {
                at += 1;
            }
            if self.kind(at) == Some(TokenKind::LeftParen) {
                at = self.behind_parentheses(at);
            }
        }
        if self.is(at, "create") {
            // The header of CREATE TABLE has no AS of its own outside of parentheses.
            at = self.first_as(at)? + 1;
        }
        self.is(at, "execute").then_some(at)
    }

    /// The first AS at `from` or later, outside of parentheses.
    fn first_as(&self, from: usize) -> Option<usize> {
        let mut at = from;
        while at < self.tokens.len() {
            if self.is(at, "as") {
                return Some(at);
            }
            at = if self.kind(at) == Some(TokenKind::LeftParen) { self.behind_parentheses(at) } else { at + 1 };
        }
        None
    }

    fn behind_parentheses(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.kind {
                TokenKind::LeftParen => depth += 1,
                TokenKind::RightParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.tokens.len()
    }

    fn prepare(&self) -> Result<Option<Mention>, Unreadable> {
        // PREPARE TRANSACTION 'name' is another statement.
        if self.is(1, "transaction") && matches!(self.kind(2), Some(TokenKind::String(_))) {
            return Ok(None);
        }
        let end = self.tokens.last().map_or(0, |token| token.end as usize);
        let Some(start) = self.tokens.get(1).map(|token| token.end as usize) else { return Ok(None) };
        // Without a statement it is a syntax error, as the server will say.
        let Some(inner) = self.first_as(2).and_then(|at| self.tokens.get(at + 1)) else { return Ok(None) };
        self.named(1, Verb::Prepare { tail: start..end, inner: inner.start as usize..end })
    }

    fn named(&self, at: usize, verb: Verb) -> Result<Option<Mention>, Unreadable> {
        let Some(token) = self.tokens.get(at) else { return Ok(None) };
        let name = match token.kind {
            TokenKind::Ident | TokenKind::QuotedIdent | TokenKind::UnicodeIdent => {
                decode_identifier(token.bytes(self.sql)).map_err(|_| Unreadable)?
            }
            _ => return Ok(None),
        };
        let span = token.start as usize..token.end as usize;
        Ok(Some(Mention { verb, name: clipped(name).into_bytes().into(), span }))
    }
}

/// An identifier as PostgreSQL cuts it, between characters.
fn clipped(mut name: String) -> String {
    let end = (0..=63.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    name.truncate(end);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sql: &str) -> Vec<String> {
        let mentions = mentions(sql.as_bytes(), LexOptions::default()).unwrap();
        let shown = |mention: Mention| {
            let name = String::from_utf8(mention.name.to_vec()).unwrap();
            let text = &sql[mention.span];
            match mention.verb {
                Verb::Prepare { tail, inner } => format!("prepare {name} [{text}] [{}] [{}]", &sql[tail], &sql[inner]),
                Verb::Execute => format!("execute {name} [{text}]"),
                Verb::Deallocate => format!("deallocate {name} [{text}]"),
                Verb::DeallocateAll => "deallocate all".to_owned(),
            }
        };
        mentions.into_iter().map(shown).collect()
    }

    #[test]
    fn names_are_found_where_they_stand() {
        assert_eq!(
            found("PREPARE P (int, text) AS SELECT $1 ; "),
            ["prepare p [P] [ (int, text) AS SELECT $1] [SELECT $1]"]
        );
        assert_eq!(found("/* execute no */ execute \"P\"(1, 'execute q')"), ["execute P [\"P\"]"]);
        assert_eq!(
            found("select 1; execute a; deallocate prepare b; deallocate all; deallocate prepare"),
            ["execute a [a]", "deallocate b [b]", "deallocate all", "deallocate prepare [prepare]"]
        );
        assert_eq!(found("explain (analyze, costs off) execute p(1)"), ["execute p [p]"]);
        assert_eq!(found("explain analyze verbose create table t (a, b) as execute p"), ["execute p [p]"]);
        assert_eq!(
            found("create temp table if not exists x with (fillfactor = 10) as execute U&\"p\"(1) with no data"),
            ["execute p [U&\"p\"]"]
        );
        let long = "x".repeat(70);
        assert_eq!(found(&format!("deallocate {long}")), [format!("deallocate {} [{long}]", "x".repeat(63))]);
    }

    #[test]
    fn what_only_looks_like_it_is_left_alone() {
        for sql in [
            "prepare transaction 'x'",
            "select 1 as execute from t",
            "create view v as select 1 as execute from t",
            "create trigger t after insert on x for each row execute function f()",
            "insert into t values ('execute p')",
            "explain select 1",
            "prepare",
            "prepare p",
            "execute 'p'",
            "select (execute)",
        ] {
            assert_eq!(found(sql), [""; 0], "{sql}");
        }
        assert_eq!(
            found("prepare transaction as select 1"),
            ["prepare transaction [transaction] [ as select 1] [select 1]"]
        );
        assert_eq!(mentions(b"execute \xff", LexOptions::default()), None);
    }
}
