//! L: what one client leaves in its session never reaches another.

use super::{Watch, reset};
use crate::proxy::raw::{Raw, bind, execute, parse, query, sync};

/// What a client does, and a question whose answer shows whether it did it to somebody else.
struct Leak {
    does: &'static [&'static str],
    question: &'static str,
    answer: &'static str,
}

const LEAKS: &[Leak] = &[
    leak(&["set my.tenant = 'leak'"], TENANT, ""),
    leak(&["begin", "set my.tenant = 'leak'", "commit"], TENANT, ""),
    leak(&["begin", "set my.tenant = 'leak'", "rollback"], TENANT, ""),
    leak(&["begin", "set local my.tenant = 'leak'"], TENANT, ""),
    leak(&["select 1; set my.tenant = 'leak'; select 2"], TENANT, ""),
    leak(&["select set_config('my.tenant', 'leak', false)"], TENANT, ""),
    leak(&["do $$ begin perform set_config('my.tenant', 'leak', false); end $$"], TENANT, ""),
    leak(&["select spoil()"], TENANT, ""),
    leak(&["call spoil_too()"], TENANT, ""),
    leak(
        &["set search_path = pg_catalog"],
        "select replace(current_setting('search_path'), ' ', '')",
        "\"$user\",public",
    ),
    leak(&["set standard_conforming_strings = off"], "show standard_conforming_strings", "on"),
    leak(&["set backslash_quote = off; set escape_string_warning = off"], "show backslash_quote", "safe_encoding"),
    leak(&["set client_encoding = latin1"], "show client_encoding", "UTF8"),
    leak(&["set names 'latin1'"], "show client_encoding", "UTF8"),
    leak(&["set time zone 'Asia/Tokyo'"], "select current_setting('timezone') <> 'Asia/Tokyo'", "t"),
    leak(&["set datestyle = 'German'"], "select date '2020-01-31'", "2020-01-31"),
    leak(&["set statement_timeout = 1"], "show statement_timeout", "0"),
    leak(&["set role plain"], "select current_user", "postgres"),
    leak(&["set session authorization plain"], "select session_user", "postgres"),
    leak(&["set session authorization plain; set role plain"], "select current_user", "postgres"),
    leak(&["set default_transaction_read_only = on"], "show transaction_read_only", "off"),
    leak(&["set session characteristics as transaction read only"], "show transaction_read_only", "off"),
    leak(
        &["set session characteristics as transaction isolation level serializable"],
        "show transaction_isolation",
        "read",
    ),
    leak(&["begin isolation level serializable"], "show transaction_isolation", "read"),
    leak(&["create temp table mine (x int)"], "select to_regclass('mine') is null", "t"),
    leak(&["create table pg_temp.mine (x int)"], "select to_regclass('mine') is null", "t"),
    leak(&["select 1 as x into temp mine"], "select to_regclass('mine') is null", "t"),
    leak(&["create temp view mine as select 1"], "select to_regclass('mine') is null", "t"),
    leak(&["select make_temp()"], "select to_regclass('mine') is null", "t"),
    leak(&["begin", "declare c cursor with hold for select 'leak'", "commit"], "select count(*) from pg_cursors", "0"),
    leak(&["begin", "declare c cursor for select 'leak'"], "select count(*) from pg_cursors", "0"),
    leak(&["prepare mine as select 'leak'"], "select count(*) from pg_prepared_statements where name = 'mine'", "0"),
    leak(&["listen leak"], "select count(*) from pg_listening_channels()", "0"),
    leak(&["begin", "listen leak", "commit"], "select count(*) from pg_listening_channels()", "0"),
    leak(&["select pg_advisory_lock(42)"], LOCKS, "0"),
    leak(&["select pg_advisory_lock_shared(42)"], LOCKS, "0"),
    leak(&["select lock_it()"], LOCKS, "0"),
    leak(&["begin", "select pg_advisory_xact_lock(42)"], LOCKS, "0"),
    leak(
        &["load 'plpgsql'", "set plpgsql.extra_errors = 'all'"],
        "select coalesce(current_setting('plpgsql.extra_errors', true), '') = 'all'",
        "f",
    ),
    leak(&["begin", "select 1/0"], "select 'not failed'", "not"),
];

const TENANT: &str = "select coalesce(current_setting('my.tenant', true), '')";
const LOCKS: &str = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";

const fn leak(does: &'static [&'static str], question: &'static str, answer: &'static str) -> Leak {
    Leak { does, question, answer }
}

fn stage() -> Watch {
    let watch = Watch::new(3);
    for sql in [
        "create role plain",
        "grant all on all tables in schema public to plain",
        "create function spoil() returns void language plpgsql as $$ begin perform set_config('my.tenant', 'leak', false); end $$",
        "create procedure spoil_too() language plpgsql as $$ begin set my.tenant = 'leak'; end $$",
        "create function make_temp() returns void language plpgsql as $$ begin create temp table mine (x int); end $$",
        "create function lock_it() returns void language sql as $$ select pg_advisory_lock(42) $$",
    ] {
        let heard = watch.client().query(sql);
        assert!(!heard.contains("E:"), "{sql}: {heard}");
    }
    watch
}

/// Asks over every server connection that there is to be had.
fn nobody_else(others: &mut [Raw], leak: &Leak, when: &str) {
    for _ in 0..2 {
        for other in others.iter_mut() {
            let heard = other.value(leak.question);
            assert_eq!(heard, leak.answer, "{:?} reached another {when}", leak.does);
            other.query("begin");
        }
        for other in others.iter_mut() {
            assert_eq!(other.query("commit"), "C:COMMIT Z:I", "{:?} {when}", leak.does);
        }
    }
}

#[test]
fn l_nothing_of_a_session_reaches_another() {
    let watch = stage();
    let mut others = vec![watch.client(), watch.client()];
    for (number, leak) in LEAKS.iter().enumerate() {
        let mut raw = watch.client();
        for sql in leak.does {
            let heard = raw.query(sql);
            assert!(!heard.contains("E:") || heard.contains("22012"), "{sql}: {heard}");
        }
        nobody_else(&mut others, leak, "while it was there");
        match number % 2 {
            0 => drop(raw),
            _ => reset(&raw),
        }
        nobody_else(&mut others, leak, "when it was gone");
    }
    watch.finish();
}

#[test]
fn l_nor_by_the_extended_protocol() {
    let watch = stage();
    let mut others = vec![watch.client(), watch.client()];
    let one_statement = |leak: &&Leak| leak.does.iter().all(|sql| sql.starts_with("do") || !sql.contains("; "));
    for leak in LEAKS.iter().filter(one_statement) {
        let mut raw = watch.client();
        let messages: Vec<Vec<u8>> = leak
            .does
            .iter()
            .enumerate()
            .flat_map(|(at, sql)| {
                let name = format!("s{at}");
                [parse(&name, sql), bind(&name, &[]), execute(), sync()]
            })
            .collect();
        raw.talk(&messages, leak.does.len());
        nobody_else(&mut others, leak, "while it was there");
        drop(raw);
        nobody_else(&mut others, leak, "when it was gone");
    }
    watch.finish();
}

#[test]
fn l_notifications_reach_their_listener_alone() {
    let watch = stage();
    let mut listener = watch.client();
    assert_eq!(listener.query("listen news"), "C:LISTEN Z:I");
    let mut others = [watch.client(), watch.client()];
    for round in 0..30 {
        let heard = others[round % 2].query(&format!("notify news, '{round}'"));
        assert_eq!(heard, "C:NOTIFY Z:I");
        assert_eq!(others[(round + 1) % 2].query("select 1"), "T D:1 C:SELECT_1 Z:I");
        let (tag, body) = listener.read();
        assert!(tag == b'A' && body[4..].starts_with(format!("news\0{round}\0").as_bytes()), "{tag} {body:?}");
    }
    drop(listener);
    for round in 0..30 {
        for other in &mut others {
            assert_eq!(
                other.talk(&[query("notify news"), query("select 2")], 2),
                "C:NOTIFY Z:I T D:2 C:SELECT_1 Z:I",
                "{round}"
            );
        }
    }
    watch.finish();
}
