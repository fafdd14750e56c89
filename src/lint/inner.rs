//! Statements within statements, which run with them: those of PREPARE, DECLARE and EXPLAIN ANALYZE, and what changes rows
//! in WITH or COPY.

use std::ops::Range;

use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};

/// Where statements stand within a statement, outermost first.
pub(super) fn inner(sql: &str) -> Vec<Range<usize>> {
    let tokens: Vec<Token> = Lexer::new(sql.as_bytes(), LexOptions::default()).collect();
    let leading = word(sql, tokens.first());
    let mut found = Vec::new();
    found.extend(proper(sql, &leading, &tokens));
    for (at, pair) in tokens.windows(2).enumerate() {
        let [before, token] = pair else { continue };
        let begins = before.kind == TokenKind::LeftParen && (changes(sql, token) || leading == "copy" && at == 1);
        if begins {
            let end = closing(tokens.get(at + 1..).unwrap_or_default()).unwrap_or(sql.len());
            found.push(token.start as usize..end);
        }
    }
    found
}

/// The statement that a command is about.
fn proper(sql: &str, leading: &str, tokens: &[Token]) -> Option<Range<usize>> {
    let begins = |token: &Token| {
        matches!(word(sql, Some(token)).as_str(), "select" | "with" | "values" | "table") || changes(sql, token)
    };
    let behind = |wanted: &str| {
        let mut pairs = tokens.windows(2);
        pairs.find_map(|pair| match pair {
            [before, token] => (word(sql, Some(before)) == wanted && begins(token)).then_some(*token),
            _ => None,
        })
    };
    let first = match leading {
        "prepare" => behind("as"),
        "declare" => behind("for"),
        // It runs its statement only when it is asked to.
        "explain" => {
            let at = tokens.iter().skip(1).position(begins)? + 1;
            let asked = |token: &Token| matches!(word(sql, Some(token)).as_str(), "analyze" | "analyse");
            tokens.get(..at)?.iter().any(asked).then(|| tokens.get(at).copied())?
        }
        _ => None,
    }?;
    Some(first.start as usize..sql.len())
}

fn word(sql: &str, token: Option<&Token>) -> String {
    let token = token.filter(|token| token.kind == TokenKind::Ident);
    token.map(|token| String::from_utf8_lossy(token.bytes(sql.as_bytes())).to_ascii_lowercase()).unwrap_or_default()
}

/// Begins what changes rows.
fn changes(sql: &str, token: &Token) -> bool {
    matches!(word(sql, Some(token)).as_str(), "insert" | "update" | "delete" | "merge")
}

/// Where the parenthesis is closed that these tokens stand in.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0;
    tokens.iter().find_map(|token| {
        match token.kind {
            TokenKind::LeftParen => depth += 1,
            TokenKind::RightParen if depth == 0 => return Some(token.start as usize),
            TokenKind::RightParen => depth -= 1,
            _ => {}
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_within_a_statement_is_found() {
        let all = |sql: &str| inner(sql).into_iter().map(|range| sql[range].to_owned()).collect::<Vec<_>>();
        for (sql, found) in [
            ("PREPARE d (int, text) AS DELETE FROM t", &["DELETE FROM t"][..]),
            ("explain (analyze, costs off) delete from t", &["delete from t"]),
            ("EXPLAIN ANALYZE VERBOSE SELECT * FROM t", &["SELECT * FROM t"]),
            ("explain delete from t", &[]),
            ("declare c scroll cursor with hold for select * from t for update", &["select * from t for update"]),
            (
                "with x as (delete from t where f(1) returning id), y as (select 1) select * from x",
                &["delete from t where f(1) returning id"],
            ),
            ("copy (select * from t) to stdout", &["select * from t"]),
            ("select 'delete from t', (select 1) from t for update", &[]),
            ("insert into t (a) values (1) on conflict (a) do update set a = 2", &[]),
            (
                "prepare p as with x as (update t set a = 1 returning 1) select 1",
                &["with x as (update t set a = 1 returning 1) select 1", "update t set a = 1 returning 1"],
            ),
        ] {
            assert_eq!(all(sql), found, "{sql}");
        }
    }
}
