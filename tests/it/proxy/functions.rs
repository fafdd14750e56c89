//! What functions leave in a session never reaches another client, however new they are.

use std::thread::sleep;
use std::time::Duration;

use super::Stage;
use super::raw::{Raw, bind, execute, parse, sync};

const TENANT: &str = "select coalesce(nullif(current_setting('app.tenant', true), ''), '-')";
/// After so long, what was defined past the proxy is known.
const KNOWN: Duration = Duration::from_millis(2500);

fn sets(name: &str, value: &str) -> String {
    format!(
        "create or replace function {name}() returns text language sql as \
         $$ select set_config('app.tenant', '{value}', false) $$"
    )
}

fn harmless(name: &str) -> String {
    format!("create or replace function {name}() returns text language sql as $$ select 'harmless'::text $$")
}

/// What the others see on every connection of a pool of three.
fn others(others: &mut [Raw; 3]) -> Vec<String> {
    let seen = others.iter_mut().map(|raw| {
        raw.query("begin");
        raw.value(TENANT)
    });
    let seen: Vec<String> = seen.collect();
    others.iter_mut().for_each(|raw| drop(raw.query("commit")));
    seen
}

fn clients(stage: &Stage) -> [Raw; 3] {
    [stage.client(), stage.client(), stage.client()]
}

fn done(raw: &mut Raw, sql: &str) {
    let heard = raw.query(sql);
    assert!(!heard.contains("E:"), "{sql}: {heard}");
}

fn prepared(raw: &mut Raw, name: &str) -> String {
    raw.talk(&[bind(name, &[]), execute(), sync()], 1)
}

#[test]
fn a_function_that_is_just_being_made_leaves_nothing_behind() {
    let stage = Stage::new(3);
    let (mut author, mut all) = (stage.client(), clients(&stage));
    for round in 0..25 {
        let mut caller = stage.client();
        let name = format!("f{}", round / 2);
        let call = format!("select {name}()");
        if round % 2 == 0 {
            done(&mut author, &harmless(&name));
            caller.talk(&[parse("s", &call), sync()], 1);
            assert!(prepared(&mut caller, "s").contains("D:harmless"));
        }
        // Another client uses it as soon as it is there, before its author has heard that it is.
        author.send(&super::raw::query(&sets(&name, &format!("leak{round}"))));
        for attempt in 0.. {
            let heard =
                if round % 2 == 0 && attempt % 2 == 0 { prepared(&mut caller, "s") } else { caller.query(&call) };
            if heard.contains("D:leak") {
                break;
            }
        }
        assert_eq!(others(&mut all), ["-", "-", "-"], "round {round}");
        author.until_ready(1);
        drop(caller);
        assert_eq!(others(&mut all), ["-", "-", "-"], "round {round}, when it was gone");
    }
}

#[test]
fn a_trigger_that_is_just_being_made_leaves_nothing_behind() {
    let stage = Stage::new(3);
    let (mut author, mut all) = (stage.client(), clients(&stage));
    done(&mut author, "create table t (a int)");
    done(
        &mut author,
        "create function fires() returns trigger language plpgsql as \
         $$ begin perform set_config('app.tenant', 'leak', false); return new; end $$",
    );
    let mut caller = stage.client();
    for round in 0..10 {
        author.send(&super::raw::query("create trigger x before insert on t for each row execute function fires()"));
        while !caller.query("insert into t values (1); select current_setting('app.tenant', true)").contains("D:leak") {
        }
        assert_eq!(others(&mut all), ["-", "-", "-"], "round {round}");
        author.until_ready(1);
        done(&mut author, "drop trigger x on t");
        done(&mut caller, "discard all");
    }
}

#[test]
fn what_is_defined_past_the_proxy_is_known_in_time() {
    let stage = Stage::new(3);
    let mut direct = Raw::login(stage.cluster.port(), "postgres", "postgres", "postgres", &[]);
    let (mut caller, mut all) = (stage.client(), clients(&stage));
    // A function that nobody has heard of is not trusted, from its first moment.
    for round in 0..5 {
        done(&mut direct, &sets(&format!("new{round}"), "leak"));
        assert!(caller.query(&format!("select new{round}()")).contains("D:leak"));
        assert_eq!(others(&mut all), ["-", "-", "-"], "round {round}");
    }
    // One that was harmless.
    done(&mut direct, &harmless("old"));
    sleep(KNOWN);
    caller.talk(&[parse("s", "select old()"), sync()], 1);
    assert!(prepared(&mut caller, "s").contains("D:harmless"));
    done(&mut direct, &sets("old", "leak"));
    sleep(KNOWN);
    assert!(prepared(&mut caller, "s").contains("D:leak"));
    assert_eq!(others(&mut all), ["-", "-", "-"]);
    // A trigger on a table that had none.
    done(&mut direct, "create table plain (a int)");
    done(
        &mut direct,
        "create function fires() returns trigger language plpgsql as $$ begin perform old(); return new; end $$",
    );
    done(&mut caller, "insert into plain values (1)");
    done(&mut direct, "create trigger x before insert on plain for each row execute function fires()");
    sleep(KNOWN);
    done(&mut caller, "insert into plain values (1)");
    assert_eq!(others(&mut all), ["-", "-", "-"]);
}

#[test]
fn what_calls_functions_without_their_names_is_known() {
    let stage = Stage::new(3);
    let (mut author, mut all) = (stage.client(), clients(&stage));
    for sql in [
        "create view direct as select set_config('app.tenant', 'view', false) as x",
        "create table defaults (a int, b text default set_config('app.tenant', 'default', false))",
        "create function by_int(int, int) returns text language sql as $$ select set_config('app.tenant', 'operator', false) $$",
        "create operator === (function = by_int, leftarg = int, rightarg = int)",
        "create function by_text(text) returns bool language sql as $$ select set_config('app.tenant', 'domain', false) <> '' $$",
        "create domain checked as text check (by_text(value))",
        "do $$ begin execute 'create function by_do() returns text language sql as ''select set_config(''''app.tenant'''', ''''do'''', false)'''; end $$",
        "discard all",
    ] {
        done(&mut author, sql);
    }
    for (sql, value) in [
        ("select * from direct", "view"),
        ("insert into defaults (a) values (1)", "default"),
        ("select 1 === 2", "operator"),
        ("select 'x'::checked", "domain"),
        ("select by_do()", "do"),
    ] {
        let mut caller = stage.client();
        done(&mut caller, sql);
        assert_eq!(others(&mut all), ["-", "-", "-"], "{sql}");
        assert_eq!(caller.value(TENANT), value, "{sql}");
    }
}
