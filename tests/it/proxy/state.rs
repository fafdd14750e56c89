//! Session state in transaction pooling: never another's, never lost, and given back as soon as it is gone.

use super::Stage;
use super::raw::{Raw, bind, execute, frame, parse, query, shown, sync};

/// A statement through the extended protocol.
fn extended(raw: &mut Raw, sql: &str) -> String {
    raw.talk(&[parse("", sql), bind("", &[]), frame(b'D', b"P\0"), execute(), sync()], 1)
}

/// A custom setting's value.
fn tenant(raw: &mut Raw) -> String {
    raw.value("select coalesce(nullif(current_setting('app.tenant', true), ''), '-')")
}

/// Holds one of the pool's connections while it lives.
fn hold(stage: &Stage) -> Raw {
    let mut raw = stage.client();
    raw.query("begin");
    raw
}

#[test]
fn what_is_set_in_a_transaction_is_kept_when_it_commits() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    a.query("begin");
    a.query("set app.tenant = 'one'");
    a.query("savepoint s");
    a.query("set work_mem = '9MB'");
    a.query("rollback to s");
    a.query("set search_path to pg_catalog, \"X y\"");
    a.query("commit");
    assert_eq!(
        (tenant(&mut b), b.value("show work_mem"), b.value("show search_path")),
        ("-".into(), "4MB".into(), "\"$user\",".into())
    );
    assert_eq!((tenant(&mut a), a.value("show work_mem")), ("one".into(), "4MB".into()));
    assert_eq!(a.query("show search_path"), "T D:pg_catalog, \"X y\" C:SHOW Z:I");
    a.query("begin; set app.tenant = 'two'; reset work_mem; rollback");
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "one".into()));
    a.query("begin; set app.tenant = 'two'; reset all");
    a.query("commit");
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "-".into()));
    assert_eq!(a.query("show search_path"), "T D:\"$user\", public C:SHOW Z:I");
    // Several statements in one string, and what lives as long as its transaction.
    a.query("set app.tenant = 'three'; set work_mem = '5MB'");
    a.query("begin; set local work_mem = '6MB'; set transaction read only; commit");
    a.query("set session characteristics as transaction read only");
    assert_eq!((tenant(&mut b), b.value("show work_mem")), ("-".into(), "4MB".into()));
    assert_eq!(b.value("show transaction_read_only"), "off");
    assert_eq!((tenant(&mut a), a.value("show work_mem")), ("three".into(), "5MB".into()));
    assert_eq!(a.value("show transaction_read_only"), "on");
    assert_eq!(a.query("discard all"), "C:DISCARD_ALL Z:I");
    assert_eq!(
        (tenant(&mut b), tenant(&mut a), a.value("show transaction_read_only")),
        ("-".into(), "-".into(), "off".into())
    );
}

#[test]
fn the_extended_protocol_sets_like_the_simple_one() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    assert_eq!(extended(&mut a, "set app.tenant = 'one'"), "1 2 n C:SET Z:I");
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "one".into()));
    // The name of a setting is a parameter.
    let by_parameter =
        [parse("s", "select set_config($1, $2, false)"), bind("s", &["app.tenant", "two"]), execute(), sync()];
    assert_eq!(a.talk(&by_parameter, 1), "1 2 D:two C:SELECT_1 Z:I");
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "two".into()));
    a.query("begin");
    assert_eq!(extended(&mut a, "set app.tenant = 'three'"), "1 2 n C:SET Z:T");
    a.query("rollback");
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "two".into()));
    assert_eq!(extended(&mut a, "reset all"), "1 2 n C:RESET Z:I");
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "-".into()));
    extended(&mut a, "set app.tenant = 'four'");
    assert_eq!(extended(&mut a, "discard all"), "1 2 n C:DISCARD_ALL Z:I");
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "-".into()));
    // An error in the same implicit transaction undoes it.
    let failing = [
        parse("", "set app.tenant = 'five'"),
        bind("", &[]),
        execute(),
        parse("", "select 1/0"),
        bind("", &[]),
        execute(),
        sync(),
    ];
    assert_eq!(a.talk(&failing, 1), "1 2 C:SET 1 E:22012 Z:I");
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "-".into()));
}

#[test]
fn roles_follow_their_client() {
    let stage = Stage::new(2);
    let mut a = stage.client();
    a.query("create role low; create role other; create table rows (owner text); grant select on rows to low, other");
    a.query("insert into rows values ('low'), ('other'), ('other')");
    a.query("alter table rows enable row level security");
    a.query("create policy own on rows using (owner = current_user)");
    let (mut b, mut c) = (stage.client(), stage.client());
    assert_eq!(a.query("set role low"), "C:SET Z:I");
    b.query("begin; set role other; commit");
    b.query("set work_mem = '6MB'");
    for _ in 0..3 {
        let _held = hold(&stage);
        assert_eq!(a.value("select current_user || count(*) from rows"), "low1");
        assert_eq!(b.value("select current_user || count(*) from rows"), "other2");
        assert_eq!(c.value("select current_user || count(*) from rows"), "postgres3");
    }
    a.query("reset role");
    b.query("set role none");
    assert_eq!(a.value("select current_user"), "postgres");
    assert_eq!(b.value("select current_user"), "postgres");
    // A session of another user, with a role of its own; a setting that only the superuser may change.
    a.query("grant other to low");
    a.query("set log_min_messages = 'debug1'; set session authorization low");
    a.query("set role other");
    let seen = "select session_user || ' ' || current_user || ' ' || current_setting('log_min_messages')";
    assert_eq!(c.query(seen), "T D:postgres postgres warning C:SELECT_1 Z:I");
    assert_eq!(a.query(seen), "T D:low other debug1 C:SELECT_1 Z:I");
    a.send(&query("reset session authorization"));
    let frames = a.until_ready(1);
    // The client is told who it is.
    assert!(frames.iter().any(|(tag, body)| *tag == b'S' && body == b"is_superuser\0on\0"), "{frames:?}");
    assert_eq!(a.query(seen), "T D:postgres postgres debug1 C:SELECT_1 Z:I");
    a.query("discard all");
    assert_eq!(a.query(seen), "T D:postgres postgres warning C:SELECT_1 Z:I");
}

#[test]
fn what_functions_and_triggers_set_is_kept() {
    let stage = Stage::new(1);
    let mut a = stage.client();
    a.query("create function sets(x text) returns text language plpgsql as $$ begin return set_config('app.tenant', x, false); end $$");
    // The client that has defined it may use it at once.
    assert_eq!(a.value("select sets('one')"), "one");
    let mut b = stage.client();
    assert_eq!((tenant(&mut b), tenant(&mut a)), ("-".into(), "one".into()));
    a.query(
        "create function fires() returns trigger language plpgsql as $$ begin perform sets(new.x); return new; end $$",
    );
    a.query("create table noted (x text); create view seen as select * from noted");
    a.query("create trigger t before insert on noted for each row execute function fires()");
    assert_eq!(b.query("insert into seen values ('two')"), "C:INSERT_0_1 Z:I");
    assert_eq!((tenant(&mut a), tenant(&mut b)), ("one".into(), "two".into()));
    a.query("do $$ begin execute 'set app.tenant = ' || quote_literal('three'); set work_mem = '8MB'; end $$");
    assert_eq!((tenant(&mut b), b.value("show work_mem")), ("two".into(), "4MB".into()));
    assert_eq!((tenant(&mut a), a.value("show work_mem")), ("three".into(), "8MB".into()));
    // A setting that nobody can know the name of is lost, but never another's.
    a.query("do $$ begin perform set_config('hid' || 'den' || '.' || 'name', 'x', false); end $$");
    assert_eq!(b.value("select coalesce(nullif(current_setting('hidden.name', true), ''), '-')"), "-");
    // Harmless functions cost nothing: the connection is not looked at.
    a.query("create function harmless() returns int language plpgsql as $$ declare x int; begin select 1 into x; return x; end $$");
    assert_eq!(a.value("select harmless()"), "1");
}

#[test]
fn temporary_tables_pin_until_they_are_gone() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    for (make, drop) in [
        ("create temp table mine (x int)", "drop table mine"),
        ("begin; set local search_path to pg_temp; create table mine (x int); commit", "drop table pg_temp.mine"),
        ("select 1 as x into temp mine", "discard temp"),
        ("create temp view mine as select 1 as x", "discard all"),
        ("do $$ begin create temp table mine (x int); end $$", "begin; drop table mine; commit"),
    ] {
        a.query(make);
        assert!(a.query("select count(x) from mine").ends_with("C:SELECT_1 Z:I"), "{make}");
        b.send(&query("select 'free'"));
        assert!(a.query("select count(x) from mine").ends_with("C:SELECT_1 Z:I"), "{make}");
        a.query(drop);
        assert_eq!(shown(&b.until_ready(1)), "T D:free C:SELECT_1 Z:I", "{drop}");
        assert_eq!(b.query("select * from mine"), "E:42P01 Z:I");
    }
    a.query("create temp table mine (x int) on commit drop");
    assert_eq!(b.value("select 1"), "1");
}

#[test]
fn locks_cursors_and_listeners_pin_until_they_are_gone() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    a.query("create function locks() returns void language sql as $$ select pg_advisory_lock(7) $$");
    for (make, probe, end) in [
        ("select pg_advisory_lock(7)", "select 1", "select pg_advisory_unlock(7)"),
        ("begin; select locks(); rollback", "select 1", "select pg_advisory_unlock_all()"),
        ("declare c cursor with hold for select generate_series(1, 9)", "fetch 1 from c", "close c"),
        ("begin; declare c cursor with hold for values (1), (2); commit", "fetch 1 from c", "close all"),
        ("listen news", "select 1", "unlisten *"),
        ("begin; listen news; listen other; commit", "select 1", "unlisten news; unlisten other"),
        ("listen news", "select 1", "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;"),
    ] {
        a.query(make);
        assert!(a.query(probe).ends_with("_1 Z:I"), "{make}");
        b.send(&query("select 'free'"));
        assert!(a.query(probe).ends_with("_1 Z:I"), "{make}");
        a.query(end);
        assert_eq!(shown(&b.until_ready(1)), "T D:free C:SELECT_1 Z:I", "{end}");
    }
    assert_eq!(b.value("select pg_try_advisory_xact_lock(7)"), "t");
    // A lock of the transaction, and a notification, pin nothing.
    a.query("begin; select pg_advisory_xact_lock(7); notify news; commit");
    assert_eq!(b.value("select 1"), "1");
}

#[test]
fn a_pinned_client_sets_as_it_likes_and_keeps_it() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    a.query("listen news");
    a.query("begin; set app.tenant = 'one'; commit");
    extended(&mut a, "set work_mem = '6MB'");
    a.query("unlisten *");
    assert_eq!((tenant(&mut b), b.value("show work_mem")), ("-".into(), "4MB".into()));
    assert_eq!((tenant(&mut a), a.value("show work_mem")), ("one".into(), "6MB".into()));
}

#[test]
fn an_idle_listener_hears_at_once() {
    let stage = Stage::new(2);
    let (mut a, mut b) = (stage.client(), stage.client());
    assert_eq!(a.query("listen news"), "C:LISTEN Z:I");
    for word in ["one", "two"] {
        assert_eq!(b.query(&format!("begin; notify news, '{word}'; commit")), "C:BEGIN C:NOTIFY C:COMMIT Z:I");
        let (tag, body) = a.read();
        assert_eq!((tag, &body[4..]), (b'A', format!("news\0{word}\0").as_bytes()));
    }
    a.query("unlisten news");
    b.query("notify news");
    assert_eq!(a.query("select 1"), "T D:1 C:SELECT_1 Z:I");
}

#[test]
fn startup_settings_are_a_clients_defaults() {
    for mode in ["transaction", "session"] {
        let stage = Stage::in_mode(1, mode);
        let options = [("options", "-c work_mem=7MB -c app.tenant=zero"), ("TimeZone", "Asia/Tokyo")];
        let mut a = Raw::login(stage.proxy.port(), "app", "secret", "app", &options);
        let now = |a: &mut Raw| format!("{} {} {}", tenant(a), a.value("show work_mem"), a.value("show timezone"));
        let startup = "zero 7MB Asia/Tokyo";
        assert_eq!(now(&mut a), startup, "{mode}");
        for reset in ["reset all", "discard all", "reset work_mem; reset app.tenant; set time zone default"] {
            a.query("set work_mem = '5MB'; set app.tenant = 'one'; set timezone = 'UTC'");
            assert_eq!(now(&mut a), "one 5MB UTC", "{mode}");
            a.query(reset);
            assert_eq!(now(&mut a), startup, "{mode}: {reset}");
            extended(&mut a, "set work_mem = '5MB'");
            extended(&mut a, reset.split(';').next().unwrap());
            assert_eq!(now(&mut a), startup, "{mode}: {reset}");
        }
        a.query("begin; set work_mem = '5MB'; savepoint s; reset work_mem");
        assert_eq!(a.value("show work_mem"), "7MB");
        a.query("rollback to s");
        assert_eq!(a.value("show work_mem"), "5MB");
        a.query("rollback");
        assert_eq!(now(&mut a), startup, "{mode}");
    }
}

#[test]
fn a_client_that_leaves_takes_its_state_along() {
    let stage = Stage::new(1);
    for leave in [
        "set app.tenant = 'x'",
        "begin; set app.tenant = 'x'; commit",
        "set role pg_monitor",
        "listen news",
        "select pg_advisory_lock(3)",
        "create temp table mine (x int)",
        "load 'auto_explain'",
        "select setseed(0.5)",
        "declare c cursor with hold for select 1",
        "prepare p as select 1",
    ] {
        let mut a = stage.client();
        a.query(leave);
        a.query("select 1");
        drop(a);
        let mut b = stage.client();
        let left = "select current_user || coalesce(current_setting('app.tenant', true), '') \
             || (select count(*) from pg_listening_channels()) || (select count(*) from pg_cursors) \
             || (select count(*) from pg_locks where locktype = 'advisory') \
             || (select count(*) from pg_prepared_statements where left(name, 8) <> '_pgweir_') \
             || (select count(*) from pg_class where relname = 'mine') \
             || coalesce(current_setting('auto_explain.log_format', true), '')";
        assert_eq!(b.value(left), "postgres00000", "{leave}");
    }
    // A client that is cut off right behind its statement.
    for _ in 0..10 {
        let mut a = stage.client();
        a.send(&query("select set_config('app.tenant', 'x', false), pg_advisory_lock(3)"));
        drop(a);
        let mut b = stage.client();
        assert_eq!(
            (tenant(&mut b), b.value("select count(*) from pg_locks where locktype = 'advisory'")),
            ("-".into(), "0".into())
        );
    }
}

#[test]
fn a_question_that_cannot_be_answered_pins() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    // The server cannot say a value that has no character in the client's encoding.
    a.query("set client_encoding to 'LATIN1'");
    a.send(&frame(b'Q', b"begin; set app.tenant = '\xe9'; commit\0"));
    a.until_ready(1);
    assert_eq!(a.value("select length(current_setting('app.tenant'))"), "1");
    b.send(&query("select 'free'"));
    assert_eq!(a.value("select length(current_setting('app.tenant'))"), "1");
    drop(a);
    assert_eq!(shown(&b.until_ready(1)), "T D:free C:SELECT_1 Z:I");
    assert_eq!(tenant(&mut b), "-");
}

/// Random steps of a client, from a seed.
struct Steps(u64);

impl Steps {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    fn one_of(&mut self, of: &[&str]) -> String {
        of[self.next(of.len())].to_owned()
    }

    fn statement(&mut self) -> String {
        let settings = [
            ("app.one", &["'x'", "'y z'", "''"][..]),
            ("app.two", &["'it''s'", "'E\u{e9}'"]),
            ("work_mem", &["'5MB'", "'64kB'", "'nonsense'"]),
            ("search_path", &["a, \"B c\"", "'pg_catalog'", "public"]),
            ("timezone", &["'UTC'", "'Asia/Tokyo'"]),
            ("statement_timeout", &["'60s'", "120000"]),
            ("default_transaction_read_only", &["on", "off"]),
        ];
        let (name, values) = settings[self.next(settings.len())];
        let value = self.one_of(values);
        match self.next(20) {
            0 | 1 => "begin".to_owned(),
            2 => "commit".to_owned(),
            3 => "rollback".to_owned(),
            4 => "savepoint s".to_owned(),
            5 => "rollback to s".to_owned(),
            6 => format!("set local {name} = {value}"),
            7 => format!("reset {name}"),
            8 => self.one_of(&["reset all", "discard all", "set work_mem to default", "reset role"]),
            9 => {
                self.one_of(&["set role low", "set role none", "set role nobody", "set session authorization default"])
            }
            10 => "set session authorization low".to_owned(),
            11 => format!("select set_config('{name}', 'UTC', {})", self.one_of(&["true", "false"])),
            12 => self.one_of(&["set app.one = 'm'; set work_mem = '7MB'", "begin; set app.two = 'n'; commit"]),
            13 => self.one_of(&["select sets('app.one', 'f')", "do $$ begin set app.two = 'd'; end $$", "select 1/0"]),
            14 => self.one_of(&["create temp table mine (x int)", "drop table mine", "listen c", "unlisten *"]),
            _ => format!("set {name} = {value}"),
        }
    }
}

/// What a client sees of its session.
fn seen(raw: &mut Raw) -> String {
    raw.query(
        "select session_user, current_user, coalesce(current_setting('app.one', true), ''), \
         coalesce(current_setting('app.two', true), ''), current_setting('work_mem'), current_setting('search_path'), \
         current_setting('timezone'), current_setting('statement_timeout'), \
         current_setting('default_transaction_read_only'), current_setting('transaction_read_only')",
    )
}

/// Whether a direct session could not be carried to another server connection.
fn is_held(direct: &mut Raw) -> bool {
    let kept = "select count(*) from pg_listening_channels() \
         union all select count(*) from pg_class where relnamespace = pg_my_temp_schema() order by 1 desc";
    direct.query(kept) != "T D:0 D:0 C:SELECT_2 Z:I"
}

#[test]
fn random_sessions_over_a_pool_are_as_direct_ones() {
    let stage = Stage::new(2);
    let mut setup = stage.client();
    setup.query("create role low; grant low to postgres");
    setup.query("create function sets(text, text) returns text language sql as 'select set_config($1, $2, false)'");
    for seed in 1..=8u64 {
        let mut steps = Steps(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let port = stage.cluster.port();
        let direct = || Raw::login(port, "postgres", "postgres", "postgres", &[]);
        let mut pairs: Vec<(Raw, Raw)> = (0..3).map(|_| (stage.client(), direct())).collect();
        let mut history = Vec::new();
        for _ in 0..60 {
            let who = steps.next(3);
            // Several at once, so that later ones are on their way before earlier ones are answered.
            let statements: Vec<String> = (0..1 + steps.next(3)).map(|_| steps.statement()).collect();
            // Two that keep a connection would leave the third client none.
            let keeps = |sql: &String| sql == "begin" || sql.starts_with("create temp") || sql.starts_with("listen");
            let is_held = |pairs: &mut Vec<(Raw, Raw)>, other: usize| other != who && is_held(&mut pairs[other].1);
            if statements.iter().any(keeps) && (0..3).any(|other| is_held(&mut pairs, other)) {
                continue;
            }
            let messages: Vec<Vec<u8>> = statements
                .iter()
                .map(|sql| match sql.contains(';') || steps.next(2) == 0 {
                    true => query(sql),
                    false => [parse("", sql), bind("", &[]), frame(b'D', b"P\0"), execute(), sync()].concat(),
                })
                .collect();
            history.push(format!("{who} {statements:?}"));
            eprintln!("{seed} {}", history[history.len() - 1]);
            let (pooled, direct) = &mut pairs[who];
            let (left, right) = (pooled.talk(&messages, messages.len()), direct.talk(&messages, messages.len()));
            assert_eq!(left, right, "seed {seed}: {history:#?}");
            let (left, right) = (seen(pooled), seen(direct));
            assert_eq!(left, right, "seed {seed}: {history:#?}");
        }
    }
}

#[test]
fn functions_are_known_however_they_are_called() {
    let stage = Stage::new(1);
    let mut a = stage.client();
    for sql in [
        "create function sets(x text) returns text language sql as $$ select set_config('app.tenant', x, false) $$",
        "create function outer_one(x text) returns text language plpgsql as $$ begin return sets(x); end $$",
        "create function atomic(x text) returns text begin atomic; select sets(x); end",
        "create procedure proc(x text) language plpgsql as $$ begin perform outer_one(x); commit; end $$",
        "create function dynamic(x text) returns void language plpgsql as $$ begin execute 'select sets($1)' using x; end $$",
        "create function step(text, text) returns text language sql as 'select sets($2)'",
        "create aggregate agg(text) (sfunc = step, stype = text)",
        "create function fires() returns trigger language plpgsql as $$ begin perform sets(tg_table_name); return coalesce(new, old); end $$",
        "create function on_ddl() returns event_trigger language plpgsql as $$ begin perform sets('ddl'); end $$",
        "create view seen as select sets('view') as x",
        "create view seen_twice as select * from seen",
        "create table defaults (a int, b text default sets('default'))",
        "create table checks (a text check (sets(a) is not null))",
        "create table parents (a int primary key)",
        "create table children (a int references parents on delete cascade)",
        "create trigger t after delete on children for each row execute function fires()",
        "insert into parents values (1); insert into children values (1)",
        "create table whole (a int) partition by range (a)",
        "create table part partition of whole for values from (0) to (10)",
        "create trigger t before insert on part for each row execute function fires()",
        "create function writes() returns void language sql as $$ insert into whole values (2) $$",
        "create table ruled (a int); create rule r as on insert to ruled do also select sets('rule')",
        "discard all",
    ] {
        assert!(!a.query(sql).contains("E:"), "{sql}: {}", a.query(sql));
    }
    let mut b = stage.client();
    for (sql, value) in [
        ("select outer_one('one')", "one"),
        ("select atomic('two')", "two"),
        ("call proc('three')", "three"),
        ("select dynamic('four')", "four"),
        ("select agg(x) from (values ('five')) v (x)", "five"),
        ("select * from seen_twice", "view"),
        ("insert into defaults (a) values (1)", "default"),
        ("insert into checks values ('checked')", "checked"),
        ("delete from parents", "children"),
        ("insert into whole values (1)", "part"),
        ("select outer_one('six')", "six"),
        ("select writes()", "part"),
        ("insert into ruled values (1)", "rule"),
        ("prepare p as select sets('prepared'); execute p; deallocate p", "prepared"),
        ("explain analyze select sets('explained')", "explained"),
        ("create table made as select sets('made') as x", "made"),
        ("begin; declare c cursor for select sets('cursor'); fetch c; commit", "cursor"),
    ] {
        a.query("discard all");
        b.query(sql);
        let got = (tenant(&mut a), tenant(&mut b));
        assert_eq!(got, ("-".to_owned(), value.to_owned()), "{sql}");
    }
    a.query("create event trigger e on ddl_command_end execute function on_ddl()");
    b.query("create index on whole (a)");
    assert_eq!((tenant(&mut a), tenant(&mut b)), ("-".into(), "ddl".into()));
    // Function call messages name a function by its number.
    b.query("discard all");
    let oid: u32 = b.value("select 'sets(text)'::regprocedure::oid").parse().unwrap();
    let call = [&oid.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 4], b"call", &[0, 0]].concat();
    assert_eq!(b.talk(&[frame(b'F', &call)], 1), "V Z:I");
    assert_eq!(tenant(&mut a), "-");
}

#[test]
fn a_function_is_known_when_its_author_has_left() {
    let stage = Stage::new(2);
    let sets = |name: &str| {
        format!(
            "create function {name}(x text) returns text language sql as $$ select set_config('app.tenant', x, false) $$"
        )
    };
    let mut gone = stage.client();
    gone.send(&[query(&sets("one")), frame(b'X', b"")].concat());
    assert_eq!(gone.try_read().map(|frame| frame.0), Some(b'C'));
    while gone.try_read().is_some() {}
    let mut pinned = stage.client();
    pinned.query("listen news");
    pinned.query(&sets("two"));
    let (mut a, mut b) = (stage.client(), stage.client());
    let started = std::time::Instant::now();
    for name in ["one", "two"] {
        // It is read as soon as it can be, which nobody waits for.
        loop {
            a.query("discard all");
            a.value(&format!("select {name}('{name}')"));
            if (tenant(&mut b), tenant(&mut a)) == ("-".to_owned(), name.to_owned()) {
                break;
            }
            b.query("discard all");
            assert!(started.elapsed().as_secs() < 20);
        }
    }
}

#[test]
fn a_question_in_a_hurry_is_asked_again_or_pins() {
    let stage = Stage::new(1);
    let mut a = stage.client();
    a.query("create role low");
    // Whatever the client has set for its own statements, the proxy's question comes through or the client keeps its connection.
    a.query("set statement_timeout = 1; set role low; set search_path = nowhere; set default_transaction_isolation = serializable");
    a.query("begin; set app.tenant = 'x'; commit");
    for _ in 0..20 {
        a.query("begin; set app.tenant = 'y'; commit");
    }
    assert_eq!(tenant(&mut a), "y");
    a.query("reset statement_timeout");
    a.query("do $$ begin null; end $$");
    let mut b = stage.client();
    assert_eq!((tenant(&mut b), b.value("select current_user")), ("-".into(), "postgres".into()));
    assert_eq!((tenant(&mut a), a.value("select current_user")), ("y".into(), "low".into()));
}
