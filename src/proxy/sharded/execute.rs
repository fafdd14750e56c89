//! PREPARE and EXECUTE as statements: EXECUTE runs the prepared text with the values in their places.
//!
//! A server checks PREPARE and tells its parameters' types; nothing of it stays there. Each value becomes a constant of
//! its parameter's type, so that the router sees keys. Where that would be read otherwise than PostgreSQL reads a value of EXECUTE
//! (an expression, or a constant of another kind of type), it is refused. So is what PostgreSQL reads once, at PREPARE, and
//! would here be read anew at each EXECUTE: `'now'`, and constants under settings by which times are read otherwise.

use std::sync::Arc;

use crate::proxy::sharded::collect::COMPUTES;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::names_the_present;
use crate::sql::catalog::Catalog;
use crate::sql::facts::{Operand, Projection, Span, facts};
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind, decode_identifier};
use crate::sql::parse;
use crate::sql::template::Keyword;
use crate::wire::message::{self, Failure};

/// A statement that PREPARE has named.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its text.
    pub sql: Box<str>,
    /// The types of its parameters, as SQL has them.
    types: Vec<String>,
    /// Where columns end that are nothing but a parameter: a constant would get its type's name.
    unnamed: Vec<usize>,
    /// What [`READS_TIMES`] were, where the text has constants that may depend on them.
    read_under: Option<Vec<String>>,
}

/// Settings by which the text of times is read.
const READS_TIMES: [&str; 3] = ["DateStyle", "IntervalStyle", "TimeZone"];

impl ShardedSession {
    /// PREPARE: notes the statement once a server has found it right.
    pub(super) async fn prepare_statement(&mut self, sql: &str) -> Result<(), Trouble> {
        let (name, body) = prepared(sql).ok_or_else(|| not_read("PREPARE"))?;
        self.check_name(name.as_bytes())?;
        let constants = constants(body);
        if constants.iter().any(|constant| names_the_present(constant)) {
            return Err(Failure::error(
                "0A000",
                "refused: PREPARE of a constant that may mean the present, such as 'now'",
            )
            .hint("Write now() or current_date, or give the time as a parameter.")
            .into());
        }
        self.attach(&[COMPUTES], false).await?;
        self.each(&[COMPUTES], sql).await?;
        let literal = name.replace('\'', "''");
        let question = format!(
            "SELECT pg_catalog.string_agg(u.t::pg_catalog.regtype::pg_catalog.text, E'\\n' ORDER BY u.n) FROM \
             pg_catalog.pg_prepared_statements AS p, pg_catalog.unnest(p.parameter_types) WITH ORDINALITY AS u(t, n) \
             WHERE p.name = E'{}'",
            literal.replace('\\', "\\\\")
        );
        let types = self.ask_for_one(COMPUTES, &question).await?.unwrap_or_default();
        self.each(&[COMPUTES], &format!("DEALLOCATE \"{}\"", name.replace('"', "\"\""))).await?;
        let types = String::from_utf8_lossy(&types).lines().map(str::to_owned).collect();
        let unnamed = unnamed(body).ok_or_else(|| not_read("PREPARE"))?;
        let read_under = (!constants.is_empty()).then(|| self.how_times_are_read());
        self.names.prepared.insert(name, Arc::new(Prepared { sql: body.into(), types, unnamed, read_under }));
        message::command_complete(&mut self.to_client, b"PREPARE");
        Ok(())
    }

    fn how_times_are_read(&self) -> Vec<String> {
        READS_TIMES.iter().map(|name| self.reported(name).unwrap_or_default().to_owned()).collect()
    }

    /// The statement that EXECUTE runs, with its values.
    pub(super) fn text_to_execute(&self, sql: &str) -> Result<String, Failure> {
        let (name, values) = execution(sql).ok_or_else(|| not_read("EXECUTE"))?;
        let Some(prepared) = self.names.prepared.get(&name) else {
            if self.names.statements.contains_key(name.as_bytes()) {
                return Err(Failure::error("0A000", "refused: EXECUTE of a statement that Parse has prepared")
                    .hint("Bind and execute it by messages, or use PREPARE."));
            }
            return Err(Failure::error("26000", format!("prepared statement \"{name}\" does not exist")));
        };
        if values.len() != prepared.types.len() {
            let what = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("Expected {} parameters but got {}.", prepared.types.len(), values.len());
            return Err(Failure::error("42601", what).detail(detail));
        }
        if prepared.read_under.as_ref().is_some_and(|before| *before != self.how_times_are_read()) {
            let what = format!("refused: \"{name}\" was prepared under another {}", READS_TIMES.join(", or "));
            return Err(Failure::error("0A000", what).hint("PREPARE it again."));
        }
        let values: Option<Vec<String>> =
            values.iter().zip(&prepared.types).map(|(value, kind)| constant(value, kind)).collect();
        let values = values.ok_or_else(|| {
            Failure::error("0A000", "refused: a value of EXECUTE is not a plain constant of its parameter's type")
                .hint("Write numbers, strings, NULL, TRUE or FALSE.")
        })?;
        Ok(with_values(prepared, &values))
    }
}

/// The string constants of a statement.
fn constants(sql: &str) -> Vec<&[u8]> {
    let of = |token: Token| matches!(token.kind, TokenKind::String(_)).then(|| token.bytes(sql.as_bytes()));
    tokens(sql).into_iter().filter_map(of).collect()
}

/// Whether a statement is PREPARE, not of a transaction.
pub(super) fn is_prepare(leading: [Keyword; 3]) -> bool {
    leading[0] == Keyword::Prepare && leading[1] != Keyword::Transaction
}

fn not_read(command: &str) -> Failure {
    Failure::error("0A000", format!("refused: this {command} was not understood"))
        .hint("Write PREPARE name (types) AS statement, and EXECUTE name (constants).")
}

fn tokens(sql: &str) -> Vec<Token> {
    Lexer::new(sql.as_bytes(), LexOptions::default()).collect()
}

fn name_of(sql: &str, token: &Token) -> Option<String> {
    let is_name = matches!(token.kind, TokenKind::Ident | TokenKind::QuotedIdent);
    is_name.then(|| decode_identifier(token.bytes(sql.as_bytes())).ok()).flatten()
}

/// The name and the text of `PREPARE name [(types)] AS statement`.
fn prepared(sql: &str) -> Option<(String, &str)> {
    let tokens = tokens(sql);
    let name = name_of(sql, tokens.get(1)?)?;
    let is_as = |token: &&Token| token.bytes(sql.as_bytes()).eq_ignore_ascii_case(b"as");
    let after = tokens.iter().skip(2).find(is_as)?;
    Some((name, sql.get(after.end as usize..)?.trim().trim_end_matches(';')))
}

/// The name and the values of `EXECUTE name [(values)]`.
fn execution(sql: &str) -> Option<(String, Vec<&str>)> {
    let tokens: Vec<Token> = tokens(sql).into_iter().filter(|token| token.kind != TokenKind::Semicolon).collect();
    let name = name_of(sql, tokens.get(1)?)?;
    let (Some(open), Some(close)) = (tokens.get(2), tokens.last()) else { return Some((name, Vec::new())) };
    if open.kind != TokenKind::LeftParen || close.kind != TokenKind::RightParen {
        return None;
    }
    let (mut values, mut start, mut depth) = (Vec::new(), open.end as usize, 0);
    for token in tokens.get(3..)? {
        match token.kind {
            TokenKind::LeftParen | TokenKind::LeftBracket => depth += 1,
            TokenKind::RightParen | TokenKind::RightBracket if depth > 0 => depth -= 1,
            TokenKind::Comma | TokenKind::RightParen if depth == 0 => {
                values.push(sql.get(start..token.start as usize)?.trim());
                start = token.end as usize;
            }
            _ => {}
        }
    }
    Some((name, values))
}

/// A value as a constant of a type; `None` where PostgreSQL could read it otherwise, or not at all.
fn constant(value: &str, kind: &str) -> Option<String> {
    const WHOLE: [&str; 3] = ["smallint", "integer", "bigint"];
    let tokens = tokens(value);
    let text = |token: &Token| token.bytes(value.as_bytes()).to_ascii_lowercase();
    let signed = tokens.first().is_some_and(|first| first.kind == TokenKind::Op && text(first) == b"-");
    let [only] = tokens.get(usize::from(signed)..)? else { return None };
    let is_number = WHOLE.contains(&kind) || matches!(kind, "numeric" | "real" | "double precision");
    match only.kind {
        TokenKind::Number(_) => {
            let digits = String::from_utf8(text(only)).ok()?;
            let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
            let fits = whole || is_number && !WHOLE.contains(&kind);
            let sign = if signed { "-" } else { "" };
            (fits && (is_number || kind == "text")).then(|| format!("'{sign}{digits}'::{kind}"))
        }
        TokenKind::String(_) if !signed => Some(format!("{value}::{kind}")),
        TokenKind::Ident if !signed => match text(only).as_slice() {
            b"null" => Some(format!("NULL::{kind}")),
            word @ (b"true" | b"false") if kind == "boolean" => {
                Some(format!("'{}'::boolean", String::from_utf8_lossy(word)))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Where columns end that are nothing but a parameter; `None` where a column's name could be another with a constant in it.
fn unnamed(sql: &str) -> Option<Vec<usize>> {
    let tokens = tokens(sql);
    let is_collated = |pair: &[Token]| {
        matches!(pair, [one, other] if matches!(one.kind, TokenKind::Param(_) | TokenKind::RightParen)
            && other.bytes(sql.as_bytes()).eq_ignore_ascii_case(b"collate"))
    };
    let parsed = parse::parse(sql).ok().filter(|_| !tokens.windows(2).any(is_collated))?;
    let facts = facts(&parsed, &Catalog::default());
    let bare = facts.scopes.iter().flat_map(|scope| &scope.projection).filter_map(|item| match item {
        Projection::Item { value: Operand::Parameter { cast: None, span, .. }, alias: None, .. } => Some(*span),
        _ => None,
    });
    let end = |span: Span| {
        let at = tokens.iter().position(|token| token.start == span.start)?;
        let kind = |at: Option<usize>| at.and_then(|at| tokens.get(at)).map(|token| token.kind);
        // `($1)` is one too.
        let around = |by: usize| {
            kind(at.checked_sub(by)) == Some(TokenKind::LeftParen) && kind(Some(at + by)) == Some(TokenKind::RightParen)
        };
        let by = (1..).find(|by| !around(*by))? - 1;
        tokens.get(at + by).map(|token| token.end as usize)
    };
    bare.map(end).collect()
}

/// The text with values in the place of `$1`, `$2`, ...
fn with_values(prepared: &Prepared, values: &[String]) -> String {
    let sql = &*prepared.sql;
    let (mut out, mut done) = (String::new(), 0);
    for token in tokens(sql) {
        let (start, end) = (token.start as usize, token.end as usize);
        if let TokenKind::Param(number) = token.kind
            && let Some(value) = usize::try_from(number).ok().and_then(|number| values.get(number.checked_sub(1)?))
        {
            out.push_str(sql.get(done..start).unwrap_or_default());
            // In parentheses, as a subscript may follow.
            out.push_str(&format!("({value})"));
            done = end;
        }
        if prepared.unnamed.contains(&end) {
            out.push_str(sql.get(done..end).unwrap_or_default());
            out.push_str(" AS \"?column?\"");
            done = end;
        }
    }
    out.push_str(sql.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_apart() {
        let sql = "prepare \"P 1\" (int, numeric(3,1)) AS select $1, '$2', $2 -- $1\n;";
        let (name, body) = prepared(sql).unwrap();
        assert_eq!((name.as_str(), body), ("P 1", "select $1, '$2', $2 -- $1\n"));
        let unnamed = unnamed(body).unwrap();
        let prepared = Prepared { sql: body.into(), types: Vec::new(), unnamed, read_under: None };
        assert_eq!(
            with_values(&prepared, &["'1'::int".into(), "NULL::numeric".into()]),
            "select ('1'::int) AS \"?column?\", '$2', (NULL::numeric) AS \"?column?\" -- $1\n"
        );
        let of = |sql: &str| super::unnamed(sql).map(|ends| ends.iter().map(|end| &sql[*end..]).collect::<String>());
        assert_eq!(of("select (($1)) from t").as_deref(), Some(" from t"));
        assert_eq!(of("select $1::date, $1 + 1, f($1), $1 as a from t").as_deref(), Some(""));
        assert_eq!(of("select $1 collate \"C\""), None);
        assert_eq!(execution("EXECUTE p"), Some(("p".to_owned(), vec![])));
        let values = vec!["1", "'a,)'", "f(2, 3)", "-4"];
        assert_eq!(execution("execute P (1, 'a,)', f(2, 3), -4);"), Some(("p".to_owned(), values)));
        assert_eq!(execution("execute p 1"), None);
    }

    #[test]
    fn constants_are_read_as_postgresql_does_or_not_at_all() {
        for (value, kind, read) in [
            ("1", "bigint", Some("'1'::bigint")),
            ("-1", "integer", Some("'-1'::integer")),
            ("1.5", "numeric", Some("'1.5'::numeric")),
            ("1.5", "integer", None),
            ("1", "boolean", None),
            ("1", "text", Some("'1'::text")),
            ("1", "date", None),
            ("'1'", "bigint", Some("'1'::bigint")),
            ("E'\\n'", "text", Some("E'\\n'::text")),
            ("null", "date", Some("NULL::date")),
            ("TRUE", "boolean", Some("'true'::boolean")),
            ("true", "text", None),
            ("1 + 1", "integer", None),
            ("now()", "date", None),
            ("-'1'", "integer", None),
        ] {
            assert_eq!(constant(value, kind).as_deref(), read, "{value} as {kind}");
        }
    }
}
