//! Prepared statements and pipelines over a pool that is smaller than its clients.

use super::Stage;
use super::raw::{bind, execute, frame, parse, query, statement, sync};

#[test]
fn statements_follow_their_client() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());

    // The same name means different things to two clients, over one server connection.
    assert_eq!(a.talk(&[parse("s", "select 1 + $1::int"), sync()], 1), "1 Z:I");
    assert_eq!(b.talk(&[parse("s", "select 'b' || $1::text"), sync()], 1), "1 Z:I");
    assert_eq!(a.talk(&[bind("s", &["1"]), execute(), sync()], 1), "2 D:2 C:SELECT_1 Z:I");
    assert_eq!(b.talk(&[bind("s", &["1"]), execute(), sync()], 1), "2 D:b1 C:SELECT_1 Z:I");
    assert_eq!(a.talk(&[statement(b'D', "s"), sync()], 1), "t T Z:I");

    // A name exists or not as the client's own history says.
    assert_eq!(a.talk(&[parse("s", "select 2"), sync()], 1), "E:42P05 Z:I");
    assert_eq!(a.talk(&[statement(b'C', "s"), bind("s", &["1"]), execute(), sync()], 1), "3 E:26000 Z:I");
    assert_eq!(a.talk(&[parse("s", "select 3"), bind("s", &[]), execute(), sync()], 1), "1 2 D:3 C:SELECT_1 Z:I");
    assert_eq!(b.talk(&[bind("s", &["2"]), execute(), sync()], 1), "2 D:b2 C:SELECT_1 Z:I");

    // The unnamed statement survives another client's turn, and is nobody else's.
    assert_eq!(a.talk(&[parse("", "select 'mine'"), sync()], 1), "1 Z:I");
    assert_eq!(
        b.talk(&[parse("", "select 'theirs'"), bind("", &[]), execute(), sync()], 1),
        "1 2 D:theirs C:SELECT_1 Z:I"
    );
    assert_eq!(a.talk(&[bind("", &[]), execute(), sync()], 1), "2 D:mine C:SELECT_1 Z:I");
    assert_eq!(a.query("select 1"), "T D:1 C:SELECT_1 Z:I");
    assert_eq!(a.talk(&[bind("", &[]), execute(), sync()], 1), "E:26000 Z:I");

    // SQL's DEALLOCATE means the client's names.
    assert_eq!(b.query("deallocate s"), "C:DEALLOCATE Z:I");
    assert_eq!(b.talk(&[bind("s", &["2"]), sync()], 1), "E:26000 Z:I");
    assert_eq!(b.query("deallocate all"), "C:DEALLOCATE_ALL Z:I");
    assert_eq!(a.talk(&[bind("s", &[]), execute(), sync()], 1), "2 D:3 C:SELECT_1 Z:I");
    assert_eq!(b.query("discard all"), "C:DISCARD_ALL Z:I");
    assert_eq!(a.talk(&[bind("s", &[]), execute(), sync()], 1), "2 D:3 C:SELECT_1 Z:I");
}

#[test]
fn an_error_skips_to_sync_and_no_further() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    b.query("create table t (k int primary key)");
    assert_eq!(a.talk(&[parse("ins", "insert into t values ($1::int)"), sync()], 1), "1 Z:I");
    b.query("discard all");

    // The hidden Parse of `ins` is in the segment that fails: its names are settled before the next one uses them.
    let messages = [
        parse("bad", "select 1/$1::int"),
        bind("bad", &["0"]),
        execute(),
        bind("ins", &["1"]),
        execute(),
        parse("later", "select 5"),
        sync(),
        bind("ins", &["2"]),
        execute(),
        sync(),
        bind("later", &[]),
        sync(),
        bind("ins", &["3"]),
        execute(),
        sync(),
    ];
    let heard = a.talk(&messages, 4);
    assert_eq!(heard, "1 E:22012 Z:I 2 C:INSERT_0_1 Z:I E:26000 Z:I 2 C:INSERT_0_1 Z:I");
    assert_eq!(b.value("select string_agg(k::text, '+' order by k) from t"), "2+3");

    // A refusal of ours fails the transaction as the server's own error would.
    let messages = [query("begin"), bind("ins", &["7"]), execute(), bind("nope", &[]), sync(), query("commit")];
    assert_eq!(a.talk(&messages, 3), "C:BEGIN Z:T 2 C:INSERT_0_1 E:26000 Z:E C:ROLLBACK Z:I");
    assert_eq!(b.value("select count(*) from t"), "2");
}

#[test]
fn a_storm_of_syncs_is_answered_one_by_one() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    let burst: Vec<Vec<u8>> =
        (0..500).flat_map(|_| [parse("", "select 1"), bind("", &[]), execute(), sync()]).collect();
    a.send(&burst.concat());
    assert_eq!(b.value("select 'b'"), "b");
    assert_eq!(a.until_ready(500).iter().filter(|(tag, _)| *tag == b'D').count(), 500);
    assert_eq!(a.talk(&vec![sync(); 100], 100).matches("Z:I").count(), 100);
    // What has to wait for answers does not wait for a Sync that never comes.
    assert_eq!(a.talk(&[parse("", "select 1"), query("set my.x = '1'")], 1), "1 C:SET Z:I");
    // Flush without Sync answers, and keeps the connection until Sync.
    a.send(&[parse("", "select 'flushed'"), bind("", &[]), execute(), frame(b'H', b"")].concat());
    assert_eq!([a.read().0, a.read().0, a.read().0, a.read().0], *b"12DC");
    assert_eq!(a.talk(&[sync()], 1), "Z:I");
    assert_eq!(b.value("select 'b'"), "b");
}

#[test]
fn closing_a_portal_closes_no_statement() {
    let stage = Stage::new(1);
    let mut a = stage.client();
    assert_eq!(a.talk(&[parse("x", "select 1"), frame(b'C', b"Px\0"), sync()], 1), "1 3 Z:I");
    assert_eq!(a.talk(&[bind("x", &[]), execute(), sync()], 1), "2 D:1 C:SELECT_1 Z:I");
    // A large Bind goes through in pieces.
    let long = "x".repeat(3_000_000);
    assert_eq!(a.talk(&[parse("len", "select length($1)"), sync()], 1), "1 Z:I");
    assert_eq!(a.talk(&[bind("len", &[&long]), execute(), sync()], 1), "2 D:3000000 C:SELECT_1 Z:I");
    assert_eq!(a.value(&format!("select length('{long}')")), "3000000");
}
