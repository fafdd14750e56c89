//! Prepared statements and definitions that change under them.

use super::Stage;
use super::raw::{bind, execute, parse, query, shown, statement, sync};

/// Types of the parameters, as Describe says.
fn parameter_types(client: &mut super::raw::Raw, name: &str, sql: &str) -> Vec<u8> {
    client.send(&[parse(name, sql), statement(b'D', name), sync()].concat());
    let frames = client.until_ready(1);
    frames.iter().find(|(tag, _)| *tag == b't').unwrap_or_else(|| panic!("{}", shown(&frames))).1.clone()
}

const INT4: &[u8] = b"\0\x01\0\0\0\x17";
const TEXT: &[u8] = b"\0\x01\0\0\0\x19";
const DATE: &[u8] = b"\0\x01\0\0\x04\x3a";

#[test]
fn a_statement_prepared_after_a_definition_knows_it() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    let insert = "insert into t values ($1)";
    a.query("create table t (x int)");
    assert_eq!(parameter_types(&mut a, "one", insert), INT4);
    assert_eq!(parameter_types(&mut b, "one", insert), INT4);
    b.query("drop table t; create table t (x text)");
    assert_eq!(parameter_types(&mut a, "two", insert), TEXT);
    assert_eq!(parameter_types(&mut b, "two", insert), TEXT);
    // Inside the transaction that changes it, and after it was rolled back.
    b.query("begin");
    b.query("alter table t alter x type date using null");
    assert_eq!(parameter_types(&mut b, "three", insert), DATE);
    b.query("rollback");
    assert_eq!(parameter_types(&mut a, "four", insert), TEXT);
    assert_eq!(parameter_types(&mut b, "four", insert), TEXT);
    assert_eq!(a.talk(&[bind("four", &["x"]), execute(), sync()], 1), "2 C:INSERT_0_1 Z:I");
}

#[test]
fn a_temporary_table_is_not_mistaken_for_an_earlier_one() {
    let stage = Stage::new(2);
    let mut a = stage.client();
    a.query("create temp table mine (x int)");
    assert_eq!(parameter_types(&mut a, "one", "insert into mine values ($1)"), INT4);
    a.query("drop table mine");
    a.send(&query("create temp table mine (x text)"));
    a.until_ready(1);
    assert_eq!(parameter_types(&mut a, "two", "insert into mine values ($1)"), TEXT);
}

#[test]
fn what_follows_a_definition_waits_for_it_and_no_longer() {
    let stage = Stage::new(2);
    let (mut a, mut b) = (stage.client(), stage.client());
    // A message that came behind the definition, before anybody could know of it.
    let define = "create function f() returns int language sql as 'select 7'";
    a.send(&[query(define), query("select f()")].concat());
    assert!(shown(&a.until_ready(2)).contains("D:7"));
    a.query("prepare p as select 1 as a");
    // The connection that knows the statement is taken: it is prepared on another one, ahead of what is sent.
    b.query("begin; select 1");
    assert_eq!(a.query("create table made as execute p"), "C:SELECT_1 Z:I");
    assert_eq!(a.query("select * from made"), "T D:1 C:SELECT_1 Z:I");
    b.query("rollback");
}
