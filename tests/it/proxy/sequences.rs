//! What currval() and lastval() say is the client's own, or an error.

use std::sync::Barrier;

use super::Stage;
use super::raw::{Raw, bind, execute, frame, parse, sync};

const CURRENT: &str = "select currval('t_id_seq')";

fn stage(size: usize) -> Stage {
    let stage = Stage::new(size);
    let mut direct = Raw::login(stage.cluster.port(), "postgres", "postgres", "postgres", &[]);
    for sql in [
        "create table t (id serial, note text)",
        "create sequence other",
        "create table asking (id serial, last bigint default currval('t_id_seq'))",
        "create function draws() returns bigint language plpgsql as $$ begin insert into t default values; return 0; end $$",
        "create function asks() returns bigint language sql as $$ select currval('t_id_seq') $$",
    ] {
        assert!(!direct.query(sql).contains("E:"), "{sql}");
    }
    stage
}

/// From here on the proxy follows who draws.
fn follow(stage: &Stage) {
    let mut raw = stage.client();
    raw.query(CURRENT);
    raw.query(CURRENT);
}

fn refused(heard: &str) -> bool {
    heard.contains("E:55000")
}

#[test]
fn the_first_question_is_not_answered_with_anothers_value() {
    for size in [1, 2] {
        let stage = stage(size);
        let (mut a, mut b) = (stage.client(), stage.client());
        a.query("insert into t default values");
        b.query("insert into t default values; insert into t default values");
        a.query("select 1");
        for question in [CURRENT, "select lastval()", "begin; select lastval()"] {
            let heard = stage.client().query(question);
            assert!(refused(&heard), "{question}: {heard}");
        }
        let heard = a.query(CURRENT);
        assert!(refused(&heard) || heard.contains("D:1 "), "{heard}");
        // Who has never drawn hears what PostgreSQL says.
        let mut raw = stage.client();
        raw.send(&super::raw::query(CURRENT));
        let (_, body) = raw.until_ready(1).into_iter().find(|(tag, _)| *tag == b'E').unwrap();
        assert!(super::raw::field(&body, b'M').starts_with("currval of sequence \"t_id_seq\" is not yet defined"));
    }
}

#[test]
fn the_client_hears_what_it_drew_itself() {
    for size in [1, 2] {
        let stage = stage(size);
        follow(&stage);
        let (mut a, mut b) = (stage.client(), stage.client());
        for round in 0..5 {
            let mut last = String::new();
            for how in ["simple", "extended", "prepared", "execute", "function"] {
                let drawn = match how {
                    "simple" => a.value("insert into t default values returning id"),
                    "extended" => {
                        let insert = [parse("", "insert into t default values"), bind("", &[]), execute(), sync()];
                        assert!(a.talk(&insert, 1).contains("INSERT_0_1"));
                        b.value("select last_value from t_id_seq")
                    }
                    "function" => {
                        a.value("select draws()");
                        b.value("select last_value from t_id_seq")
                    }
                    "prepared" => {
                        let name = format!("p{round}");
                        a.talk(&[parse(&name, "insert into t default values returning id"), sync()], 1);
                        let heard = a.talk(&[bind(&name, &[]), execute(), sync()], 1);
                        heard.split("D:").nth(1).unwrap().split(' ').next().unwrap().to_owned()
                    }
                    _ => a.value("prepare x as insert into t default values returning id; execute x; deallocate x"),
                };
                // The other reads between, and does not draw.
                assert_eq!(b.value("select 'read'"), "read");
                assert_eq!(a.value(CURRENT), drawn, "{how}, pool of {size}");
                assert_eq!(a.value("select lastval()"), drawn);
                assert_eq!(a.value("select asks()"), drawn);
                let question = [parse("", CURRENT), bind("", &[]), execute(), sync()];
                assert_eq!(a.talk(&question, 1), format!("1 2 D:{drawn} C:SELECT_1 Z:I"));
                last = drawn;
            }
            b.query("insert into t default values");
            let heard = a.query(CURRENT);
            assert!(refused(&heard) || size == 2 && heard.contains(&format!("D:{last} ")), "{heard}");
        }
    }
}

#[test]
fn it_is_never_anothers() {
    for size in [1, 2] {
        let stage = stage(size);
        follow(&stage);
        let start = Barrier::new(6);
        let refusals: usize = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..6)
                .map(|number| {
                    let (mut raw, start) = (stage.client(), &start);
                    scope.spawn(move || {
                        start.wait();
                        let mut refusals = 0;
                        for round in 0..60 {
                            let drawn = match (round + number) % 3 {
                                0 => raw.value("insert into t default values returning id"),
                                1 => raw.value("select nextval('other')"),
                                _ => {
                                    raw.query("begin");
                                    let drawn = raw.value("insert into t default values returning id");
                                    assert_eq!(raw.value(CURRENT), drawn);
                                    raw.query("commit");
                                    drawn
                                }
                            };
                            let heard = raw.query("select lastval()");
                            if refused(&heard) {
                                refusals += 1;
                            } else {
                                assert_eq!(heard, format!("T D:{drawn} C:SELECT_1 Z:I"));
                            }
                        }
                        refusals
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        // A connection is kept for its client for a moment.
        assert!(refusals < 60, "{refusals} of 360 were refused, pool of {size}");
    }
}

#[test]
fn a_value_of_an_older_connection_is_not_taken_for_the_last() {
    let stage = stage(2);
    follow(&stage);
    let (mut a, mut b) = (stage.client(), stage.client());
    let first: u64 = a.value("select nextval('t_id_seq')").parse().unwrap();
    // On another connection while somebody has the first.
    std::thread::sleep(std::time::Duration::from_millis(60));
    let mut c = stage.client();
    b.query("begin");
    c.query("begin");
    b.query("commit");
    let second: u64 = a.value("select nextval('t_id_seq')").parse().unwrap();
    c.query("commit");
    assert!(second > first);
    let heard = a.query(CURRENT);
    assert!(heard.contains(&format!("D:{second} ")) || refused(&heard), "{heard}");
    // Where it drew only from another sequence.
    let mut d = stage.client();
    d.value("select nextval('other')");
    assert!(refused(&d.query(CURRENT)));
}

#[test]
fn a_failed_transaction_forgets_nothing() {
    let stage = stage(1);
    follow(&stage);
    let (mut a, mut b) = (stage.client(), stage.client());
    b.value("select nextval('t_id_seq')");
    a.query("begin");
    a.query("select 1/0");
    let insert = [parse("", "insert into t default values"), bind("", &[]), execute(), sync()];
    assert!(a.talk(&insert, 1).contains("25P02"));
    assert!(a.query("insert into t default values").contains("25P02"));
    a.query("rollback");
    let bound = [
        parse("", "select 1/0"),
        bind("", &[]),
        execute(),
        parse("", "insert into t default values"),
        bind("", &[]),
        execute(),
        sync(),
    ];
    assert!(a.talk(&bound, 1).contains("22012"));
    assert!(refused(&a.query(CURRENT)));
    // By the number of the function.
    b.value("select nextval('t_id_seq')");
    let lastval = [&2559u32.to_be_bytes()[..], &[0, 0, 0, 0, 0, 0]].concat();
    let heard = a.talk(&[frame(b'F', &lastval)], 1);
    assert!(refused(&heard), "{heard}");
}

#[test]
fn a_pool_with_room_leaves_everybody_the_own_connection() {
    let stage = stage(20);
    follow(&stage);
    let mut clients: Vec<_> = (0..10).map(|_| stage.client()).collect();
    let drawn: Vec<_> =
        clients.iter_mut().map(|client| client.value("insert into t default values returning id")).collect();
    // Longer than a connection is held where others wait for it.
    std::thread::sleep(std::time::Duration::from_millis(60));
    for client in &mut clients {
        client.query("select 1");
    }
    for (client, drawn) in clients.iter_mut().zip(&drawn) {
        assert_eq!(client.value("insert into asking default values returning last"), *drawn);
        assert_eq!(client.value(&format!("select last from asking where last = {drawn}")), *drawn);
        // Forgotten by the client itself, so that PostgreSQL has the last word.
        client.query("discard sequences");
        assert!(client.query(CURRENT).contains("E:55000"));
        client.send(&super::raw::query(CURRENT));
        let (_, body) = client.until_ready(1).into_iter().find(|(tag, _)| *tag == b'E').unwrap();
        assert!(super::raw::field(&body, b'M').starts_with("currval of sequence"), "{body:?}");
    }
    // Only who asks is told that it is not known.
    let mut other = stage.client();
    other.value("select nextval('other')");
    drop(clients);
    assert_eq!(other.query("select last from asking where false"), "T C:SELECT_0 Z:I");
}
