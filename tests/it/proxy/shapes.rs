//! A statement whose columns or parameters have changed: whoever relies on an earlier description hears PostgreSQL's
//! error, as without a proxy; whoever asks again is served.

use super::Stage;
use super::raw::{Raw, bind, execute, field, frame, parse, query, shown, statement, sync};

fn describe_portal() -> Vec<u8> {
    frame(b'D', b"P\0")
}

fn superuser(stage: &Stage) -> Raw {
    Raw::login(stage.cluster.port(), "postgres", "postgres", "postgres", &[])
}

/// Has the client hold a connection, so that another gets the pool's other one.
fn hold(client: &mut Raw) {
    assert_eq!(client.query("begin"), "C:BEGIN Z:T");
}

fn release(client: &mut Raw) {
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
}

const CHANGED: &str = "E:0A000 Z:I";

#[test]
fn who_describes_again_is_healed() {
    let stage = Stage::new(1);
    let (mut a, mut b, mut direct) = (stage.client(), stage.client(), superuser(&stage));
    direct.query("create table t as select 1 as k");
    assert_eq!(a.talk(&[parse("s", "select * from t"), statement(b'D', "s"), sync()], 1), "1 t T Z:I");
    assert_eq!(a.query("prepare p as select * from t"), "C:PREPARE Z:I");
    let run = [bind("s", &[]), describe_portal(), execute(), sync()];
    assert_eq!(a.talk(&run, 1), "2 T D:1 C:SELECT_1 Z:I");
    // Nobody told the proxy.
    direct.query("alter table t add l int default 2");
    assert_eq!(a.talk(&run, 1), "2 T D:1,2 C:SELECT_1 Z:I");
    direct.query("alter table t add m int default 3");
    assert_eq!(a.query("execute p"), "T D:1,2,3 C:SELECT_1 Z:I");
    assert_eq!(a.talk(&[statement(b'D', "s"), sync()], 1), "t T Z:I");
    assert_eq!(
        a.talk(&run[..1].iter().cloned().chain([execute(), sync()]).collect::<Vec<_>>(), 1),
        "2 D:1,2,3 C:SELECT_1 Z:I"
    );
    // In a transaction it is PostgreSQL's error.
    direct.query("alter table t add n int default 4");
    assert_eq!(a.query("begin"), "C:BEGIN Z:T");
    assert_eq!(a.talk(&run, 1), "E:0A000 Z:E");
    assert_eq!(a.query("rollback"), "C:ROLLBACK Z:I");
    assert_eq!(a.talk(&run, 1), "2 T D:1,2,3,4 C:SELECT_1 Z:I");
    assert_eq!(b.value("select 'b'"), "b");
}

/// What `change` does, done by `who`; all others must see that `s` is not what it was, on every connection.
fn goes_by_an_old_description(change: impl Fn(&Stage, &mut Raw)) {
    let stage = Stage::new(2);
    let (mut a, mut b, mut direct) = (stage.client(), stage.client(), superuser(&stage));
    direct.query("create table t as select 1 as k, 2 as l");
    let blind = [bind("s", &[]), execute(), sync()];
    assert_eq!(a.talk(&[parse("s", "select * from t"), statement(b'D', "s"), sync()], 1), "1 t T Z:I");
    assert_eq!(a.talk(&blind, 1), "2 D:1,2 C:SELECT_1 Z:I");
    change(&stage, &mut b);
    // On the connection that has it, and on the one that does not; again and again.
    for _ in 0..2 {
        assert_eq!(a.talk(&blind, 1), CHANGED);
        hold(&mut b);
        assert_eq!(a.talk(&blind, 1), CHANGED);
        release(&mut b);
    }
    a.send(&blind.concat());
    let frames = a.until_ready(1);
    let error = &frames.iter().find(|(tag, _)| *tag == b'E').unwrap().1;
    assert_eq!(field(error, b'M'), "cached plan must not change result type");
    // Drivers know it by this.
    assert_eq!(field(error, b'R'), "RevalidateCachedQuery");
    // In a transaction too, which fails.
    assert_eq!(a.query("begin"), "C:BEGIN Z:T");
    assert_eq!(a.talk(&blind, 1), "E:0A000 Z:E");
    assert_eq!(a.query("rollback"), "C:ROLLBACK Z:I");
    // Prepared anew it works, wherever; and so it does for somebody who never had the old one.
    let again = [parse("r", "select * from t"), statement(b'D', "r"), sync()];
    let anew = [bind("r", &[]), execute(), sync()];
    for client in [&mut a, &mut b] {
        assert_eq!(client.talk(&again, 1), "1 t T Z:I");
        assert_eq!(client.talk(&anew, 1), "2 D:1,x C:SELECT_1 Z:I");
    }
    hold(&mut b);
    assert_eq!(a.talk(&anew, 1), "2 D:1,x C:SELECT_1 Z:I");
    release(&mut b);
    hold(&mut a);
    assert_eq!(b.talk(&anew, 1), "2 D:1,x C:SELECT_1 Z:I");
    release(&mut a);
}

const CHANGE: &str = "alter table t alter l type text using 'x'";

#[test]
fn a_description_outlives_no_definition_made_here() {
    goes_by_an_old_description(|_, other| assert_eq!(other.query(CHANGE), "C:ALTER_TABLE Z:I"));
}

#[test]
fn a_description_outlives_no_definition_made_elsewhere() {
    goes_by_an_old_description(|stage, _| assert_eq!(superuser(stage).query(CHANGE), "C:ALTER_TABLE Z:I"));
}

#[test]
fn the_description_of_a_portal_counts_as_well() {
    let stage = Stage::new(2);
    let (mut a, mut b, mut direct) = (stage.client(), stage.client(), superuser(&stage));
    direct.query("create table t as select 1 as k, 2 as l");
    assert_eq!(a.talk(&[parse("s", "select * from t"), sync()], 1), "1 Z:I");
    assert_eq!(a.talk(&[bind("s", &[]), describe_portal(), execute(), sync()], 1), "2 T D:1,2 C:SELECT_1 Z:I");
    direct.query(CHANGE);
    hold(&mut b);
    assert_eq!(a.talk(&[bind("s", &[]), execute(), sync()], 1), CHANGED);
    release(&mut b);
}

#[test]
fn parameters_keep_their_types() {
    let stage = Stage::new(2);
    let (mut a, mut b, mut c, mut direct) = (stage.client(), stage.client(), stage.client(), superuser(&stage));
    let process = "select pg_backend_pid()";
    direct.query("create table t (k int)");
    hold(&mut a);
    let there = a.value(process);
    let insert = "insert into t values ($1)";
    assert_eq!(a.talk(&[parse("s", insert), statement(b'D', "s"), sync()], 1), "1 t n Z:T");
    release(&mut a);
    b.query("drop table t; create table t (k real)");
    // The connection that has the statement keeps its types; so must the one that has not.
    hold(&mut b);
    if b.value(process) != there {
        hold(&mut c);
        release(&mut b);
    }
    // Four bytes of an integer would make a number of four bytes.
    assert_eq!(a.talk(&[bind("s", &["1"]), execute(), sync()], 1), CHANGED);
    assert_eq!(direct.value("select count(*) from t"), "0");
}

#[test]
fn the_unnamed_statement_is_what_it_was() {
    let stage = Stage::new(2);
    let (mut a, mut b, mut direct) = (stage.client(), stage.client(), superuser(&stage));
    direct.query("create table t as select 1 as k, 2 as l");
    let blind = [bind("", &[]), execute(), sync()];
    let prepare = [parse("", "select * from t"), statement(b'D', ""), sync()];
    assert_eq!(a.talk(&prepare, 1), "1 t T Z:I");
    hold(&mut b);
    assert_eq!(a.talk(&blind, 1), "2 D:1,2 C:SELECT_1 Z:I");
    direct.query(CHANGE);
    assert_eq!(a.talk(&blind, 1), CHANGED);
    release(&mut b);
    hold(&mut b);
    assert_eq!(a.talk(&blind, 1), CHANGED);
    release(&mut b);
    assert_eq!(a.talk(&prepare, 1), "1 t T Z:I");
    assert_eq!(a.talk(&blind, 1), "2 D:1,x C:SELECT_1 Z:I");
}

#[test]
fn the_proxys_own_queries_do_not_cost_the_unnamed_statement() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    assert_eq!(a.query("set my.x = 'a'"), "C:SET Z:I");
    assert_eq!(a.talk(&[parse("", "select 'mine'"), statement(b'D', ""), sync()], 1), "1 t T Z:I");
    // The settings change between these, which takes a query; a named statement leaves the unnamed one alone.
    assert_eq!(b.value("select coalesce(current_setting('my.x', true), '')"), "");
    assert_eq!(
        a.talk(&[parse("n", "select set_config('my.x', 'b', false)"), bind("n", &[]), execute(), sync()], 1),
        "1 2 D:b C:SELECT_1 Z:I"
    );
    assert_eq!(a.talk(&[bind("", &[]), execute(), sync()], 1), "2 D:mine C:SELECT_1 Z:I");
    // A Query of the client's own does.
    a.send(&query("select 1"));
    a.until_ready(1);
    assert_eq!(a.talk(&[bind("", &[]), execute(), sync()], 1), "E:26000 Z:I");
}

#[test]
fn a_pipeline_waits_for_what_is_compared() {
    let stage = Stage::new(2);
    let (mut a, mut b, mut direct) = (stage.client(), stage.client(), superuser(&stage));
    direct.query("create table t as select 1 as k");
    for name in ["s", "r"] {
        let text = format!("select k as {name} from t");
        assert_eq!(a.talk(&[parse(name, &text), statement(b'D', name), sync()], 1), "1 t T Z:I");
    }
    hold(&mut b);
    let both = [bind("s", &[]), execute(), bind("r", &[]), execute(), sync(), bind("s", &[]), execute(), sync()];
    let expected = "2 D:1 C:SELECT_1 2 D:1 C:SELECT_1 Z:I 2 D:1 C:SELECT_1 Z:I";
    assert_eq!(a.talk(&both, 2), expected);
    assert_eq!(a.talk(&both, 2), expected);
    release(&mut b);
    a.send(&both.concat());
    assert_eq!(shown(&a.until_ready(2)), expected);
}
