//! Reads each statement once per template: what it does to the session it runs in.
//!
//! One scan gives the template's key; what a template does is looked up by it. Only statements about
//! the session itself (SET, RESET, DEALLOCATE, DISCARD) are read anew each time, because their constants matter.
//! A template that is not known is read by its tokens, not by a parser: that works for every statement,
//! also for those that no parser but PostgreSQL's understands.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pool::settings::Value;
use crate::proxy::care::{Care, Effect, Verdict};
use crate::proxy::functions::Functions;
use crate::proxy::meter::Meter;
use crate::proxy::meter::seen::Seen;
use crate::proxy::meter::templates::Place;
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind, decode_identifier};
use crate::sql::template::{Keyword, Scanner, TemplateKey};

/// Templates kept before the cache starts anew.
const MAX_TEMPLATES: usize = 50_000;

/// Reads statements; one per worker thread.
#[derive(Debug)]
pub struct Analyzer {
    scanner: Scanner,
    options: LexOptions,
    known: HashMap<(u64, TemplateKey), Care>,
    functions: Arc<Functions>,
    seen: Seen,
}

impl Default for Analyzer {
    fn default() -> Self {
        let options = LexOptions::default();
        Self {
            scanner: Scanner::new(options),
            options,
            known: HashMap::new(),
            functions: Arc::default(),
            seen: Seen::default(),
        }
    }
}

impl Analyzer {
    /// Turns to another session: its `standard_conforming_strings`, and what is known of its database's functions.
    pub fn follow(&mut self, conforming_strings: bool, functions: &Arc<Functions>) {
        if self.options.standard_conforming_strings != conforming_strings {
            self.options.standard_conforming_strings = conforming_strings;
            self.scanner.set_options(self.options);
        }
        if self.functions.id != functions.id {
            self.functions = functions.clone();
        }
    }

    /// Turns to a session of the database with these numbers.
    pub fn count_for(&mut self, meter: &Arc<Meter>) {
        self.seen.follow(meter);
    }

    /// Where the statement is counted that was analyzed last.
    pub fn place(&self) -> Place {
        self.seen.last
    }

    /// Where a prepared statement is counted; `rest` begins with its text.
    pub fn place_of(&mut self, key: u128, rest: &[u8]) -> Place {
        if let Some(place) = self.seen.prepared(key) {
            return place;
        }
        let sql = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        let scan = self.scanner.scan(sql);
        self.seen.note(&scan, sql, self.options);
        self.seen.remember(key);
        self.seen.last
    }

    /// What a text, of one statement or several, does to its session.
    pub fn analyze(&mut self, sql: &[u8]) -> Verdict {
        let scan = self.scanner.scan(sql);
        self.seen.note(&scan, sql, self.options);
        if matches!(scan.leading[0], Keyword::Set | Keyword::Reset | Keyword::Deallocate | Keyword::Discard) {
            let effect = (scan.statements == 1 && scan.complete).then(|| effect(sql, self.options)).flatten();
            if let Some(effect) = effect {
                return Verdict { care: Care::Clean, effect: Some(Box::new(effect)) };
            }
        }
        if let Some(&care) = self.known.get(&(self.functions.id, scan.key)) {
            return Verdict { care, effect: None };
        }
        let key = (self.functions.id, scan.key);
        let care = care(sql, self.options, &self.functions);
        if self.known.len() >= MAX_TEMPLATES {
            self.known.clear();
        }
        self.known.insert(key, care);
        Verdict { care, effect: None }
    }
}

/// A name as PostgreSQL folds it; empty for what is no name.
fn name(sql: &[u8], token: Option<&Token>) -> String {
    let Some(token) = token else { return String::new() };
    // What cannot be decoded is no name that anything below asks for.
    decode_identifier(token.bytes(sql)).unwrap_or_default()
}

/// The effect of a single SET, RESET, DEALLOCATE or DISCARD, where it is one that can be followed.
fn effect(sql: &[u8], options: LexOptions) -> Option<Effect> {
    let mut tokens: Vec<Token> = Lexer::new(sql, options).collect();
    while tokens.last().is_some_and(|token| token.kind == TokenKind::Semicolon) {
        tokens.pop();
    }
    let word = |at: usize| name(sql, tokens.get(at));
    match (word(0).as_str(), word(1).as_str(), tokens.len()) {
        ("discard", "all", 2) => Some(Effect::DiscardAll),
        ("deallocate", "all", 2) => Some(Effect::DeallocateAll),
        ("deallocate", "prepare", 3) if word(2) == "all" => Some(Effect::DeallocateAll),
        ("deallocate", "prepare", 3) => Some(Effect::Deallocate(word(2).into_bytes())),
        ("deallocate", _, 2) => Some(Effect::Deallocate(word(1).into_bytes())),
        ("reset", "all", 2) => Some(Effect::ResetAll),
        ("reset", "role" | "session" | "transaction", _) => None,
        ("reset", _, _) => {
            let (setting, end) = setting_name(sql, &tokens, 1)?;
            (end == tokens.len()).then_some(Effect::Set(setting, None))
        }
        ("set", _, _) => set(sql, &tokens),
        _ => None,
    }
}

/// `SET [SESSION] name {TO | =} value` and `SET [SESSION] TIME ZONE value`.
fn set(sql: &[u8], tokens: &[Token]) -> Option<Effect> {
    let word = |at: usize| name(sql, tokens.get(at));
    let first = if word(1) == "session" { 2 } else { 1 };
    let (setting, value) = match (word(first).as_str(), word(first + 1).as_str()) {
        ("time", "zone") => ("timezone".to_owned(), first + 2),
        // These are statements of their own, or settings that reach further than their name.
        (
            "local"
            | "transaction"
            | "constraints"
            | "characteristics"
            | "authorization"
            | "role"
            | "session_authorization",
            _,
        ) => {
            return None;
        }
        _ => {
            let (setting, end) = setting_name(sql, tokens, first)?;
            let assigns = word(end) == "to" || tokens.get(end).is_some_and(|token| token.bytes(sql) == b"=");
            (assigns.then_some(setting)?, end + 1)
        }
    };
    let (start, end) = (tokens.get(value)?.start as usize, tokens.last()?.end as usize);
    if word(value) == "default" || word(value) == "local" && setting == "timezone" {
        return (tokens.len() == value + 1).then_some(Effect::Set(setting, None));
    }
    // INTERVAL '..' HOUR TO MINUTE exists only in SET TIME ZONE's own syntax.
    if tokens.get(value..)?.iter().any(|token| matches!(token.kind, TokenKind::LeftParen)) || word(value) == "interval"
    {
        return None;
    }
    let text = std::str::from_utf8(sql.get(start..end)?).ok()?;
    Some(Effect::Set(setting, Some(Value::Sql(text.to_owned()))))
}

/// A setting's name, perhaps with a prefix, and the place after it.
fn setting_name(sql: &[u8], tokens: &[Token], at: usize) -> Option<(String, usize)> {
    let mut setting = Some(name(sql, tokens.get(at))).filter(|name| !name.is_empty())?;
    let mut end = at + 1;
    while tokens.get(end).is_some_and(|token| token.kind == TokenKind::Dot) {
        setting.push('.');
        setting.push_str(&Some(name(sql, tokens.get(end + 1))).filter(|name| !name.is_empty())?);
        end += 2;
    }
    Some((setting, end))
}

/// What the statements of a text do to their session, by their tokens.
fn care(sql: &[u8], options: LexOptions, functions: &Functions) -> Care {
    let mut lexer = Lexer::new(sql, options);
    let tokens: Vec<Token> = (&mut lexer).collect();
    let unfinished = if lexer.is_complete() { Care::Clean } else { Care::Taint };
    let several = tokens.iter().filter(|token| token.kind == TokenKind::Semicolon).count() > 0;
    tokens
        .split(|token| token.kind == TokenKind::Semicolon)
        .map(|statement| command_care(sql, statement, several).max(calls_care(sql, statement, functions)))
        .fold(unfinished, Care::max)
}

/// What the command itself does.
fn command_care(sql: &[u8], tokens: &[Token], several: bool) -> Care {
    let word = |at: usize| name(sql, tokens.get(at));
    let has = |wanted: [&str; 2]| (0..tokens.len()).any(|at| word(at) == wanted[0] && word(at + 1) == wanted[1]);
    let pinned_if = |pinned: bool| if pinned { Care::Pin } else { Care::Clean };
    match word(0).as_str() {
        "do" | "call" => Care::Taint,
        "listen" | "load" | "reset" => Care::Pin,
        "deallocate" | "discard" if several || matches!(word(1).as_str(), "all" | "prepare") => Care::Forget,
        "deallocate" | "discard" => Care::Pin,
        "prepare" => pinned_if(word(1) != "transaction"),
        "set" => {
            let session = matches!(word(1).as_str(), "session") && word(2) == "characteristics";
            pinned_if(session || !matches!(word(1).as_str(), "local" | "transaction" | "constraints"))
        }
        "declare" => pinned_if(has(["with", "hold"])),
        "create" => {
            // What may stand before TABLE, VIEW or SEQUENCE; a column may be called temp.
            let before = |word: &str| matches!(word, "or" | "replace" | "local" | "global" | "temp" | "temporary");
            let kind = (1..6).find(|at| !before(&word(*at))).unwrap_or_default();
            let temporary = (1..kind).any(|at| word(at).starts_with("temp"));
            pinned_if(temporary || (0..tokens.len()).any(|at| word(at) == "pg_temp"))
        }
        "select" | "with" | "table" | "values" | "(" => {
            pinned_if(has(["into", "temp"]) || has(["into", "temporary"]) || has(["into", "local"]))
        }
        _ => Care::Clean,
    }
}

/// What functions do that are called by name.
fn calls_care(sql: &[u8], tokens: &[Token], functions: &Functions) -> Care {
    let mut care = Care::Clean;
    for (at, pair) in tokens.windows(2).enumerate() {
        if pair[1].kind != TokenKind::LeftParen {
            continue;
        }
        let found = match pair[0].kind {
            TokenKind::UnicodeIdent => Care::Taint,
            TokenKind::Ident | TokenKind::QuotedIdent => match name(sql, Some(&pair[0])).as_str() {
                "set_config" if local_only(sql, tokens.get(at + 2..).unwrap_or_default()) => Care::Clean,
                "set_config"
                | "pg_advisory_lock"
                | "pg_advisory_lock_shared"
                | "pg_try_advisory_lock"
                | "pg_try_advisory_lock_shared"
                | "dblink_connect"
                | "dblink_connect_u" => Care::Pin,
                "setseed" | "set_limit" => Care::Taint,
                own if functions.contains(own) => Care::Taint,
                _ => Care::Clean,
            },
            _ => Care::Clean,
        };
        care = care.max(found);
    }
    care
}

/// Whether a call of set_config, given from behind its parenthesis, ends with the constant `true`.
fn local_only(sql: &[u8], arguments: &[Token]) -> bool {
    let mut depth = 0usize;
    let close = arguments.iter().position(|token| match token.kind {
        TokenKind::LeftParen => {
            depth += 1;
            false
        }
        TokenKind::RightParen if depth == 0 => true,
        TokenKind::RightParen => {
            depth -= 1;
            false
        }
        _ => false,
    });
    let Some(close) = close.filter(|&close| close >= 2) else { return false };
    name(sql, arguments.get(close - 1)) == "true"
        && arguments.get(close - 2).is_some_and(|token| token.kind == TokenKind::Comma)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn care_of(sql: &str) -> Care {
        Analyzer::default().analyze(sql.as_bytes()).care
    }

    fn effect_of(sql: &str) -> Option<Effect> {
        Analyzer::default().analyze(sql.as_bytes()).effect.map(|effect| *effect)
    }

    #[test]
    fn ordinary_statements_leave_no_trace() {
        for sql in [
            "SELECT abalance FROM t WHERE aid = 1",
            "insert into t (a, b) values (1, 'set_config(''a'')')",
            "begin; update t set a = 1; commit",
            "set local timezone = 'UTC'",
            "SELECT set_config('app.tenant', $1, true)",
            "select pg_advisory_xact_lock(1)",
            "declare c cursor for select 1",
            "create table t (temp int)",
            "",
            "-- listen x",
        ] {
            assert_eq!(care_of(sql), Care::Clean, "{sql}");
        }
    }

    #[test]
    fn session_state_pins() {
        for sql in [
            "LISTEN x",
            "create temp table t (a int)",
            "CREATE LOCAL TEMPORARY TABLE t AS SELECT 1",
            "create table pg_temp.t (a int)",
            "create or replace local temp view v as select 1",
            "create table if not exists pg_temp.t (a int)",
            "select 1 into temp t",
            "declare c cursor with hold for select 1",
            "select set_config('a.b', 'true', false)",
            "select \"set_config\"('a.b', 'x', is_local)",
            "select pg_catalog.pg_advisory_lock(1)",
            "prepare p as select 1",
            "set role x",
            "set session authorization x",
            "select 1; set a.b = 1",
            "set session characteristics as transaction read only",
        ] {
            assert_eq!(care_of(sql), Care::Pin, "{sql}");
        }
        assert_eq!(care_of("do $$ begin end $$"), Care::Taint);
        assert_eq!(care_of("select 'open"), Care::Taint);
        assert_eq!(care_of("select 1; discard all"), Care::Forget);
    }

    #[test]
    fn functions_that_users_defined_taint() {
        let mut analyzer = Analyzer::default();
        let sql = b"select (mine(1), \"Mine\"(2), other(3))";
        assert_eq!(analyzer.analyze(sql).care, Care::Clean);
        analyzer.follow(true, &Arc::new(Functions::new(["mine".to_owned()])));
        assert_eq!(analyzer.analyze(sql).care, Care::Taint);
        analyzer.follow(true, &Arc::new(Functions::new(["Mine".to_owned()])));
        assert_eq!(analyzer.analyze(sql).care, Care::Taint);
        analyzer.follow(true, &Arc::new(Functions::new(["MINE".to_owned()])));
        assert_eq!(analyzer.analyze(sql).care, Care::Clean);
    }

    #[test]
    fn plain_settings_are_followed() {
        let sql = |text: &str| Some(Value::Sql(text.to_owned()));
        assert_eq!(effect_of("SET search_path TO a, \"B\";"), Some(Effect::Set("search_path".into(), sql("a, \"B\""))));
        assert_eq!(effect_of("set session my.Var = 'x'"), Some(Effect::Set("my.var".into(), sql("'x'"))));
        assert_eq!(effect_of("set time zone 'UTC'"), Some(Effect::Set("timezone".into(), sql("'UTC'"))));
        assert_eq!(effect_of("set a to default"), Some(Effect::Set("a".into(), None)));
        assert_eq!(effect_of("reset a.b"), Some(Effect::Set("a.b".into(), None)));
        assert_eq!(effect_of("RESET ALL"), Some(Effect::ResetAll));
        assert_eq!(effect_of("deallocate \"X\""), Some(Effect::Deallocate(b"X".to_vec())));
        assert_eq!(effect_of("deallocate all"), Some(Effect::DeallocateAll));
        assert_eq!(effect_of("set role x"), None);
        assert_eq!(effect_of("set time zone interval '1' hour to minute"), None);
        assert_eq!(effect_of("set a = 1; set b = 2"), None);
    }
}
