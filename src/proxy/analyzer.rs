//! Reads each statement once per template: what it does to the session it runs in.
//!
//! One scan gives the template's key; what a template does is looked up by it. Only statements that change settings are
//! read anew each time, because their constants matter. A template that is not known is read by its tokens, not by a
//! parser: that works for every statement, also for those that no parser but PostgreSQL's understands.

use std::collections::HashMap;
use std::sync::Arc;

use crate::proxy::care::{Care, Effect, Verdict};
use crate::proxy::changes::{Change, change, name};
use crate::proxy::functions::Functions;
use crate::proxy::given::Given;
use crate::proxy::guard::{Guard, Ruling, Rulings};
use crate::proxy::mentions::{Mention, mentions};
use crate::proxy::meter::Meter;
use crate::proxy::meter::seen::Seen;
use crate::proxy::meter::templates::Place;
use crate::proxy::{alone, strangers, traces};
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};
use crate::sql::template::{Keyword, Scanner, TemplateKey};
use crate::wire::body::Reader;

/// Templates kept before the cache starts anew.
const MAX_TEMPLATES: usize = 50_000;

/// Reads statements; one per worker thread.
#[derive(Debug)]
pub struct Analyzer {
    scanner: Scanner,
    options: LexOptions,
    known: HashMap<(u64, TemplateKey), (Care, bool)>,
    functions: Arc<Functions>,
    seen: Seen,
    rulings: Rulings,
    /// Databases that statements need to themselves which are about to be sent.
    pub alone: Vec<String>,
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
            rulings: Rulings::default(),
            alone: Vec::new(),
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

    /// What a guard says of a text.
    pub fn ruling(&mut self, guard: &Guard, sql: &[u8]) -> Option<Arc<Ruling>> {
        let scan = self.scanner.scan(sql);
        self.rulings.of(guard, &scan, sql)
    }

    /// Counts a ruling on a statement.
    pub fn count_ruling(&self, ruling: &Ruling) {
        self.seen.meter().into_iter().for_each(|meter| meter.ruled(ruling));
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

    /// Whether the values that a statement is bound to are wanted.
    #[inline]
    pub fn wants_sample(&self, place: Place) -> bool {
        self.seen
            .meter()
            .and_then(|meter| meter.templates.as_ref())
            .is_some_and(|templates| templates.wants_sample(place))
    }

    /// Keeps the values that a statement is bound to: `rest` is its text with the types of its parameters, `bound` what Bind has behind the names.
    pub fn sample(&self, place: Place, rest: &[u8], bound: &[u8]) {
        let Some(templates) = self.seen.meter().and_then(|meter| meter.templates.as_ref()) else { return };
        let mut reader = Reader::new(rest);
        let count = reader.cstr().and_then(|_| reader.u16()).unwrap_or_default();
        let types: Vec<u32> = (0..count).map_while(|_| reader.u32().ok()).collect();
        templates.sample(place, Given::read(&mut Reader::new(bound)).ok().and_then(|given| given.shown(&types)));
    }

    /// What a text, of one statement or several, does to its session.
    pub fn analyze(&mut self, sql: &[u8]) -> Verdict {
        let scan = self.scanner.scan(sql);
        self.seen.note(&scan, sql, self.options);
        if matches!(scan.leading[0], Keyword::Set | Keyword::Reset | Keyword::Deallocate | Keyword::Discard) {
            return self.read(sql).0;
        }
        let key = (self.functions.id, scan.key);
        match self.known.get(&key) {
            Some(&(care, speaks)) if !care.has(Care::BY_NAME) => Verdict { care, speaks, ..Verdict::default() },
            Some(_) => self.read(sql).0,
            None => {
                let (verdict, care) = self.read(sql);
                if self.known.len() >= MAX_TEMPLATES {
                    self.known.clear();
                }
                self.known.insert(key, (care, verdict.speaks));
                verdict
            }
        }
    }

    /// The number of the functions that are known.
    pub fn functions_id(&self) -> u64 {
        self.functions.id
    }

    /// Knows of no function that users have defined any more.
    pub fn forget_functions(&mut self) {
        self.functions = Arc::default();
    }

    /// The names of prepared statements in a text that [`Verdict::speaks`] of them.
    pub fn mentions(&self, sql: &[u8]) -> Vec<Mention> {
        mentions(sql, self.options).unwrap_or_default()
    }

    /// The same for a text that was analyzed before, where its constants matter; it does not count as seen again.
    pub fn read_again(&self, sql: &[u8]) -> Verdict {
        self.read(sql).0
    }

    /// Notes the databases that a text needs to itself.
    pub fn want_alone(&mut self, sql: &[u8]) {
        let tokens: Vec<Token> = Lexer::new(sql, self.options).collect();
        for statement in tokens.split(|token| token.kind == TokenKind::Semicolon) {
            self.alone.extend(alone::databases(sql, statement, self.options));
        }
    }

    /// Reads a text token by token; the second is what is known of its template.
    fn read(&self, sql: &[u8]) -> (Verdict, Care) {
        let mut lexer = Lexer::new(sql, self.options);
        let tokens: Vec<Token> = (&mut lexer).collect();
        let statements = tokens.split(|token| token.kind == TokenKind::Semicolon).filter(|tokens| !tokens.is_empty());
        let mut reading = Reading { complete: lexer.is_complete(), ..Reading::default() };
        for statement in statements {
            reading.statement(sql, statement, &self.functions);
        }
        match mentions(sql, self.options) {
            _ if !reading.complete => {}
            Some(found) => reading.speaks = !found.is_empty(),
            // A name that cannot be read is left to the server, which then keeps it for this client.
            None => reading.care.add(Care::STATE),
        }
        reading.verdict(sql)
    }
}

/// What was read so far of a text.
#[derive(Default)]
struct Reading {
    complete: bool,
    statements: usize,
    /// What has to be seen to, effects apart.
    care: Care,
    effects: Vec<Effect>,
    names: Vec<String>,
    /// There is a statement that begins or ends transactions, and one that may undo others.
    controls: bool,
    undoes: bool,
    speaks: bool,
}

impl Reading {
    fn statement(&mut self, sql: &[u8], tokens: &[Token], functions: &Functions) {
        self.statements += 1;
        match change(sql, tokens) {
            Some(Change::Follow(effect)) => self.effects.push(effect),
            Some(Change::Named(names)) => {
                self.care.add(Care::NAMED);
                self.names.extend(names);
            }
            Some(Change::Any) => self.care.add(Care::SETTINGS),
            Some(Change::Nothing) | None => {}
        }
        if name(sql, tokens.first()) == "prepare" && name(sql, tokens.get(1)) != "transaction" {
            // What it prepares counts when it is executed.
            return;
        }
        if alone::is_asked_for(sql, tokens) {
            self.care.add(Care::ALONE);
        }
        self.controls |= matches!(
            name(sql, tokens.first()).as_str(),
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" | "prepare"
        );
        self.undoes |= matches!(name(sql, tokens.first()).as_str(), "rollback" | "abort");
        let command = traces::of_command(sql, tokens);
        let mut calls = traces::of_calls(sql, tokens, functions, &mut self.names);
        if strangers::are_called(sql, tokens, functions) {
            calls.add(Care::STRANGE);
        }
        // Whatever comes to call such a function has to be known as well.
        if command.has(Care::DEFINES) && !calls.without(Care::ENDS).is_clean() {
            self.care.add(Care::TEACHES);
        }
        if calls.has(Care::STRANGE | Care::SETTINGS) {
            calls.add(Care::DRAWS);
        }
        self.care.add(command | calls);
    }

    fn verdict(mut self, sql: &[u8]) -> (Verdict, Care) {
        if !self.complete {
            self.care.add(Care::UNSEEN);
        }
        let simple = |effect: &Effect| matches!(effect, Effect::Set(..) | Effect::ResetAll | Effect::Several(_));
        let followed = !self.effects.is_empty() && self.complete && !self.controls;
        // Several statements take effect together or not at all; what else is among them must not matter.
        let together = self.care.without(Care::ENDS).is_clean() && self.effects.iter().all(simple);
        let effect = match (self.statements, followed) {
            (1, true) => self.effects.pop(),
            (_, true) if together => Some(Effect::Several(std::mem::take(&mut self.effects))),
            _ => None,
        };
        for effect in &self.effects {
            self.care.add(effect.care());
            self.names.extend(effect.names());
        }
        if self.care.has(Care::BY_NAME) {
            traces::dotted_names(sql, &mut self.names);
        }
        let of_template = effect.as_ref().map_or(self.care, |effect| self.care | effect.care());
        let resets = (!self.effects.is_empty() && !self.undoes).then(|| Box::new(Effect::Several(self.effects)));
        (
            Verdict { care: self.care, effect: effect.map(Box::new), resets, names: self.names, speaks: self.speaks },
            of_template,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::settings::Value;
    use crate::proxy::functions::Trait;

    fn verdict(sql: &str) -> Verdict {
        Analyzer::default().analyze(sql.as_bytes())
    }

    fn effect_of(sql: &str) -> Option<Effect> {
        verdict(sql).effect.map(|effect| *effect)
    }

    #[test]
    fn ordinary_statements_leave_no_trace() {
        for sql in [
            "SELECT abalance FROM t WHERE aid = 1",
            "insert into t (a, b) values (1, 'set_config(''a'')')",
            "begin; update t set a = 1; commit",
            "set local timezone = 'UTC'",
            "set local role x",
            "set transaction isolation level serializable",
            "set transaction_read_only = on",
            "set constraints all deferred",
            "SELECT set_config('app.tenant', $1, true)",
            "select pg_advisory_xact_lock(1)",
            "declare c cursor for select 1",
            "notify x, 'y'",
            "",
            "-- listen x",
        ] {
            let verdict = verdict(sql);
            assert!(verdict.care.is_clean(), "{sql}");
            assert_eq!(Verdict { care: Care::CLEAN, ..verdict }, Verdict::default(), "{sql}");
        }
    }

    #[test]
    fn session_state_is_marked() {
        for sql in [
            "LISTEN x",
            "create temp table t (a int)",
            "CREATE LOCAL TEMPORARY TABLE t AS SELECT 1",
            "create table pg_temp.t (a int)",
            "create or replace local temp view v as select 1",
            "create table if not exists pg_temp.t (a int)",
            "select 1 into temp t",
            "declare c cursor with hold for select 1",
            "select pg_catalog.pg_advisory_lock(1)",
        ] {
            assert_eq!(verdict(sql).care.without(Care::DEFINES), Care::STATE, "{sql}");
        }
        for sql in ["unlisten *", "drop table t", "close c", "select pg_advisory_unlock_all()", "discard temp"] {
            assert_eq!(verdict(sql).care, Care::ENDS, "{sql}");
        }
        for sql in ["do $$ begin end $$", "call p()", "select 'open", "select query_to_xml($1, true, true, '')"] {
            assert!(verdict(sql).care.has(Care::SETTINGS) && verdict(sql).care.has(Care::STATE), "{sql}");
        }
        assert!(verdict("create table t (temp int)").care.has(Care::CREATES));
        assert!(verdict("select 1 into t").care.has(Care::CREATES));
        assert_eq!(verdict("load 'auto_explain'").care, Care::STAYS);
        assert!(verdict("select 1; discard all").care.has(Care::FORGETS));
        assert!(verdict("create function f() returns int language sql as 'select 1'").care.has(Care::DEFINES));
    }

    #[test]
    fn what_is_drawn_and_asked_of_sequences_is_marked() {
        let of = |sql: &str| verdict(sql).care.only(Care::DRAWS | Care::ASKS);
        for sql in [
            "insert into t values (1)",
            "select nextval('s')",
            "with x as (update t set a = 1) select 1",
            "copy t from stdin",
        ] {
            assert_eq!(of(sql), Care::DRAWS, "{sql}");
        }
        for sql in ["select currval('s')", "select pg_catalog.\"lastval\" ()"] {
            assert_eq!(of(sql), Care::ASKS, "{sql}");
        }
        for sql in ["insert into t values (currval('s'))", "do $$ begin perform lastval(); end $$"] {
            assert_eq!(of(sql), Care::DRAWS | Care::ASKS, "{sql}");
        }
        for sql in
            ["select * from t", "begin", "create table currval as select 1", "select 'currval(1)'", "explain select 1"]
        {
            assert_eq!(of(sql), Care::CLEAN, "{sql}");
        }
    }

    #[test]
    fn changed_settings_are_named() {
        for (sql, names) in [
            ("select set_config('a.b', 'true', false)", &["a.b"][..]),
            ("select \"set_config\"('work_mem', 'x', is_local)", &["work_mem"]),
            ("select 1; set a.b = 1; select pg_advisory_lock(1)", &["a.b"]),
            ("set session characteristics as transaction read only", &["default_transaction_read_only"]),
            ("begin; set my.x = 1; set role y; commit", &["my.x", "role"]),
            ("set a.b = 'C:\\'", &["a.b"]),
            ("set time zone interval '1' hour to minute", &["timezone"]),
        ] {
            let verdict = verdict(sql);
            assert!(verdict.care.has(Care::NAMED) && !verdict.care.has(Care::SETTINGS), "{sql}");
            assert!(names.iter().all(|name| verdict.names.iter().any(|other| other == name)), "{sql}: {verdict:?}");
            assert_eq!(verdict.effect, None, "{sql}");
            assert_eq!(verdict.resets.is_some(), sql.contains("begin") || sql.contains("; set"), "{sql}");
        }
        let verdict = verdict("select set_config('app.' || x, $1, false), 'app.y'");
        assert!(verdict.care.has(Care::SETTINGS) && verdict.names.contains(&"app.y".to_owned()));
    }

    #[test]
    fn a_known_template_is_read_again_where_its_constants_matter() {
        let mut analyzer = Analyzer::default();
        for name in ["a.b", "c.d"] {
            let sql = format!("select set_config('{name}', 'x', false)");
            assert!(analyzer.analyze(sql.as_bytes()).names.contains(&name.to_owned()));
        }
    }

    #[test]
    fn functions_and_tables_of_users_count_as_what_they_do() {
        let functions = |name: &str| {
            let found = Trait { care: Care::STATE, settings: vec!["app.x".into()], ..Trait::default() };
            Arc::new(Functions::new([(name.to_owned(), found.clone())].into(), [("noted".to_owned(), found)].into()))
        };
        let mut analyzer = Analyzer::default();
        let sql = b"select (mine(1), \"Mine\"(2), other(3))";
        assert_eq!(analyzer.analyze(sql).care, Care::CLEAN);
        for (name, care) in [("mine", Care::STATE), ("Mine", Care::STATE), ("MINE", Care::CLEAN)] {
            analyzer.follow(true, &functions(name));
            assert_eq!(analyzer.analyze(sql).care, care);
        }
        assert_eq!(analyzer.analyze(b"insert into noted values (1)").care, Care::STATE | Care::DRAWS);
    }

    #[test]
    fn plain_settings_are_followed() {
        let sql = |text: &str| Some(Value::Sql(text.to_owned()));
        let set = |name: &str, value| Effect::Set(name.to_owned(), value);
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        for (statement, effect) in [
            ("SET search_path TO a, \"B\";", set("search_path", sql("a, \"B\""))),
            ("set session my.Var = 'x'", set("my.var", sql("'x'"))),
            ("set time zone 'UTC'", set("timezone", sql("'UTC'"))),
            ("set names 'LATIN1'", set("client_encoding", sql("'LATIN1'"))),
            ("set schema 'x'", set("search_path", sql("'x'"))),
            ("set a to default", set("a", None)),
            ("reset a.b", set("a.b", None)),
            ("RESET ALL", Effect::ResetAll),
            ("set role X", set("role", text("x"))),
            ("set session role 'X'", set("role", text("X"))),
            ("set role none", set("role", text("none"))),
            ("reset role", set("role", None)),
            (
                "set session authorization x",
                Effect::Several(vec![set("session_authorization", text("x")), set("role", None)]),
            ),
            ("deallocate \"X\"", Effect::Deallocate(b"X".to_vec())),
            ("deallocate all", Effect::DeallocateAll),
            ("set a = 1; ; reset b;", Effect::Several(vec![set("a", sql("1")), set("b", None)])),
        ] {
            assert_eq!(effect_of(statement), Some(effect), "{statement}");
            assert!(verdict(statement).care.without(Care::ENDS).is_clean(), "{statement}");
        }
        let drivers = "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;";
        assert_eq!(effect_of(drivers), Some(Effect::Several(vec![Effect::ResetAll])));
        assert_eq!(verdict(drivers).care, Care::ENDS);
        assert_eq!(effect_of("set a = 1; commit"), None);
    }
}
