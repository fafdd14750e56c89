//! SQL's PREPARE, EXECUTE and DEALLOCATE in transaction mode, over one server connection that all clients share.

use super::Stage;
use super::raw::{bind, execute, parse, query, statement, sync};

#[test]
fn sql_names_follow_their_client() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    // Neither holds the connection: the other one's answers come at once.
    assert_eq!(a.query("prepare p (int) as select $1 + 1"), "C:PREPARE Z:I");
    assert_eq!(b.query("PREPARE P AS SELECT 'b'"), "C:PREPARE Z:I");
    assert_eq!(a.value("execute p(1)"), "2");
    assert_eq!(b.value("execute \"p\""), "b");
    assert_eq!(a.query("prepare p as select 1"), "E:42P05 Z:I");
    assert_eq!(b.query("execute nope"), "E:26000 Z:I");
    // One namespace with the protocol's names, both ways.
    assert_eq!(a.talk(&[bind("p", &["41"]), execute(), sync()], 1), "2 D:42 C:SELECT_1 Z:I");
    assert_eq!(a.talk(&[parse("q", "select $1::text || 'q'"), sync()], 1), "1 Z:I");
    assert_eq!(a.value("execute q('x')"), "xq");
    assert_eq!(a.talk(&[statement(b'C', "p"), sync()], 1), "3 Z:I");
    assert_eq!(a.query("execute p(1)"), "E:26000 Z:I");
    assert_eq!(b.value("execute p"), "b");
    // The connection lost them all, and nobody notices.
    assert_eq!(a.query("discard all"), "C:DISCARD_ALL Z:I");
    assert_eq!(b.value("execute p"), "b");
    assert_eq!(b.query("create table made as execute p"), "C:SELECT_1 Z:I");
    assert_eq!(b.query("deallocate all"), "C:DEALLOCATE_ALL Z:I");
    assert_eq!(b.query("execute p"), "E:26000 Z:I");
}

#[test]
fn prepared_statements_outlive_their_transaction() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    assert_eq!(a.query("begin"), "C:BEGIN Z:T");
    assert_eq!(a.query("prepare p as select 'kept'"), "C:PREPARE Z:T");
    assert_eq!(a.query("prepare q as select nope"), "E:42703 Z:E");
    assert_eq!(a.query("prepare r as select 1"), "E:25P02 Z:E");
    assert_eq!(a.query("rollback"), "C:ROLLBACK Z:I");
    assert_eq!(b.query("discard all"), "C:DISCARD_ALL Z:I");
    assert_eq!(a.value("execute p"), "kept");
    assert_eq!(a.query("execute r"), "E:26000 Z:I");
    // The inner statement counts when it is executed, not before.
    assert_eq!(a.query("prepare lock as select pg_advisory_lock(1)"), "C:PREPARE Z:I");
    assert_eq!(b.value("select 'free'"), "free");
    a.query("execute lock");
    b.send(&query("select 1"));
    let (tag, body) = b.read();
    assert_eq!(
        (tag, super::raw::field(&body, b'C').as_str()),
        (b'E', "53300"),
        "an advisory lock keeps its connection"
    );
}

#[test]
fn sql_commands_work_in_the_extended_protocol() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    let run = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    let messages = [run("prepare p as select 'a'"), run("execute p"), sync()];
    assert_eq!(a.talk(&messages, 1), "1 2 C:PREPARE 1 2 D:a C:SELECT_1 Z:I");
    assert_eq!(b.talk(&[run("prepare p as select 'b'"), sync()], 1), "1 2 C:PREPARE Z:I");
    // A statement that executes another means what the name means then, wherever it runs.
    assert_eq!(a.talk(&[parse("run", "execute p"), sync()], 1), "1 Z:I");
    assert_eq!(b.query("discard all"), "C:DISCARD_ALL Z:I");
    assert_eq!(a.talk(&[bind("run", &[]), execute(), sync()], 1), "2 D:a C:SELECT_1 Z:I");
    assert_eq!(
        a.talk(&[run("deallocate p"), run("prepare p as select 'new'"), sync()], 1),
        "1 2 C:DEALLOCATE 1 2 C:PREPARE Z:I"
    );
    assert_eq!(a.talk(&[bind("run", &[]), execute(), sync()], 1), "2 D:new C:SELECT_1 Z:I");
    // What is skipped after an error has not happened.
    let messages = [run("select 1/0"), run("deallocate all"), run("prepare z as select 1"), sync(), query("execute z")];
    assert_eq!(a.talk(&messages, 2), "1 E:22012 Z:I E:26000 Z:I");
    assert_eq!(a.value("execute p"), "new");
    assert_eq!(a.talk(&[run("deallocate all"), sync()], 1), "1 2 C:DEALLOCATE_ALL Z:I");
    assert_eq!(a.query("execute p"), "E:26000 Z:I");
}

#[test]
fn errors_speak_of_the_clients_own_text() {
    let stage = Stage::new(1);
    let mut a = stage.client();
    assert_eq!(a.query("prepare p (int) as select $1"), "C:PREPARE Z:I");
    let mut error = |messages: &[Vec<u8>]| {
        a.send(&messages.concat());
        let frames = a.until_ready(1);
        let body = frames.into_iter().find(|(tag, _)| *tag == b'E').unwrap().1;
        (super::raw::field(&body, b'M'), super::raw::field(&body, b'P'))
    };
    let (message, place) = error(&[query("execute p(nope)")]);
    assert_eq!((message.as_str(), place.as_str()), ("column \"nope\" does not exist", "11"));
    let (message, _) = error(&[query("execute p")]);
    assert_eq!(message, "wrong number of parameters for prepared statement \"p\"");
    let (message, _) = error(&[bind("p", &[]), sync()]);
    assert_eq!(message, "bind message supplies 0 parameters, but prepared statement \"p\" requires 1");
}

#[test]
fn statement_mode_gives_the_connection_back_after_each_statement() {
    let stage = Stage::new(1);
    let config = super::config(&stage.cluster, 1).replace("pool: {", "pool: {mode: statement, ");
    let proxy = crate::support::Proxy::start(&config);
    let login = || super::raw::Raw::login(proxy.port(), "app", "secret", "app", &[]);
    let (mut a, mut b) = (login(), login());
    assert_eq!(a.query("begin"), "E:0A000 Z:I");
    assert_eq!(a.talk(&[parse("", "BEGIN"), bind("", &[]), execute(), sync()], 1), "E:0A000 Z:I");
    assert_eq!(a.query("create temp table x (k int)"), "E:0A000 Z:I");
    assert_eq!(b.query("begin; select 1; commit"), "C:BEGIN T D:1 C:SELECT_1 C:COMMIT Z:I");
    assert_eq!(a.query("set my.x = 'a'"), "C:SET Z:I");
    assert_eq!(b.value("select coalesce(current_setting('my.x', true), '')"), "");
    assert_eq!(a.value("show my.x"), "a");
    assert_eq!(
        a.talk(&[parse("s", "select 's'"), sync(), bind("s", &[]), execute(), sync()], 2),
        "1 Z:I 2 D:s C:SELECT_1 Z:I"
    );
    // A string that leaves its block open ends the session.
    a.send(&query("begin; select 1"));
    let frames: Vec<_> = std::iter::from_fn(|| a.try_read()).collect();
    assert_eq!(super::raw::shown(&frames), "C:BEGIN T D:1 C:SELECT_1 E:0A000");
    assert_eq!(b.value("select 'b'"), "b");
}

#[test]
fn session_mode_keeps_names_and_plans() {
    let stage = Stage::in_mode(1, "session");
    let names = "select string_agg(name, '+' order by name) from pg_prepared_statements";
    let mut a = stage.client();
    assert_eq!(a.query("create table t as select 1 as k; prepare p as select * from t"), "C:SELECT_1 C:PREPARE Z:I");
    assert_eq!(a.talk(&[parse("s", "select * from t"), statement(b'D', "s"), sync()], 1), "1 t T Z:I");
    assert_eq!(a.value(names), "p+s");
    assert_eq!(
        a.talk(&[bind("s", &[]), execute(), bind("p", &[]), execute(), sync()], 1),
        "2 D:1 C:SELECT_1 2 D:1 C:SELECT_1 Z:I"
    );
    assert_eq!(a.talk(&[parse("s", "select 2"), sync()], 1), "E:42P05 Z:I");
    assert_eq!(a.talk(&[parse("x", "select 2 +"), sync(), bind("x", &[]), sync()], 2), "E:42601 Z:I E:26000 Z:I");
    assert_eq!(a.query("do $$ begin execute 'execute p'; execute 'deallocate s'; end $$"), "C:DO Z:I");
    assert_eq!(a.value(names), "p");
    assert_eq!(a.talk(&[parse("s", "select 's'"), bind("s", &[]), execute(), sync()], 1), "1 2 D:s C:SELECT_1 Z:I");
    // As without a proxy, even where transaction mode would mend it.
    assert_eq!(a.query("alter table t add l int"), "C:ALTER_TABLE Z:I");
    assert_eq!(a.query("execute p"), "E:0A000 Z:I");
    assert_eq!(a.talk(&[statement(b'C', "s"), sync(), bind("s", &[]), sync()], 2), "3 Z:I E:26000 Z:I");
    assert_eq!(a.query("begin; select 1 / 0"), "C:BEGIN E:22012 Z:E");
    assert_eq!(a.query("discard all"), "E:25P02 Z:E");
    assert_eq!(a.query("rollback"), "C:ROLLBACK Z:I");
    assert_eq!(a.query("deallocate all"), "C:DEALLOCATE_ALL Z:I");
    assert_eq!(a.query("execute p"), "E:26000 Z:I");
    assert_eq!(a.query("prepare p as select 'a'"), "C:PREPARE Z:I");
    drop(a);
    // The next client gets the same connection, emptied.
    let mut b = stage.client();
    assert_eq!(b.value(&format!("select coalesce(({names}), 'none')")), "none");
    assert_eq!(b.query("prepare p as select 'b'"), "C:PREPARE Z:I");
    assert_eq!(b.value("execute p"), "b");
}
