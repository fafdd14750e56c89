//! `pool.mode: statement`: the server connection is given back after each statement, so a transaction is one statement
//! (or one string of several), and a session keeps nothing but its settings.

use crate::proxy::care::{Care, Verdict};
use crate::proxy::conversation::Conversation;
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};
use crate::wire::message::Failure;

const HINT: &str = "set pool.mode to transaction, or send the statements as one string";

impl Conversation {
    /// Why a text cannot run in this pool.
    pub(super) fn refused_here(&self, sql: &[u8], verdict: &Verdict) -> Option<Failure> {
        if !self.single {
            return None;
        }
        if begins_block(sql) {
            return Some(no_block(false));
        }
        verdict.care.has(Care::STATE | Care::STAYS).then(|| {
            let what = "what outlives its statement in the session is not kept with pool.mode: statement";
            Failure::error("0A000", what).hint("set pool.mode to transaction or session")
        })
    }

    /// Ends the session when a transaction block was left open.
    pub(super) fn check_single(&self, status: u8) -> Result<(), Failure> {
        if self.single && status != b'I' { Err(no_block(true)) } else { Ok(()) }
    }
}

fn no_block(fatal: bool) -> Failure {
    let what = "transaction blocks of several statements are not allowed with pool.mode: statement";
    let failure = Failure::error("0A000", what).hint(HINT);
    Failure { fatal, ..failure }
}

/// Whether a text is nothing but the beginning of a block.
fn begins_block(sql: &[u8]) -> bool {
    let tokens: Vec<Token> = Lexer::new(sql, LexOptions::default()).take(2000).collect();
    let mut statements = tokens.split(|token| token.kind == TokenKind::Semicolon).filter(|tokens| !tokens.is_empty());
    let (Some(first), None) = (statements.next(), statements.next()) else { return false };
    first.first().is_some_and(|token| {
        let word = token.bytes(sql);
        word.eq_ignore_ascii_case(b"begin") || word.eq_ignore_ascii_case(b"start")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_its_string_does_not_end() {
        assert!(begins_block(b"/* x */ BEGIN;") && begins_block(b"start transaction read only"));
        assert!(!begins_block(b"begin; select 1; commit") && !begins_block(b"select 1") && !begins_block(b""));
    }
}
