//! F: what a client did to its own session is still there in its next transaction.

use super::Watch;
use crate::proxy::raw::Raw;

/// What a client does, and what it sees of it afterwards.
const OWN: &[(&[&str], &str, &str)] = &[
    (&["set my.tenant = 'own'"], "select current_setting('my.tenant')", "own"),
    (&["begin", "set my.tenant = 'own'", "commit"], "select current_setting('my.tenant')", "own"),
    (&["begin", "set my.tenant = 'own'", "rollback"], "select coalesce(current_setting('my.tenant', true), '')", ""),
    (
        &["begin", "set local my.tenant = 'own'", "commit"],
        "select coalesce(current_setting('my.tenant', true), '')",
        "",
    ),
    (&["set search_path = elsewhere"], "show search_path", "elsewhere"),
    (&["set time zone 'Asia/Tokyo'"], "show timezone", "Asia/Tokyo"),
    (&["set default_transaction_read_only = on"], "show transaction_read_only", "on"),
    (&["set role plain"], "select current_user", "plain"),
    (&["set my.tenant = 'own'", "reset my.tenant"], "select coalesce(current_setting('my.tenant', true), '')", ""),
    (&["create temp table mine as select 7 as x"], "select x from mine", "7"),
    (
        &["begin", "declare c cursor with hold for select generate_series(1, 9)", "commit"],
        "select count(*) from pg_cursors",
        "1",
    ),
    (&["prepare mine as select 'own'"], "execute mine", "own"),
    (&["select pg_advisory_lock(77)"], "select pg_try_advisory_lock(77)", "t"),
    (&["listen mine"], "select pg_listening_channels()", "mine"),
];

#[test]
fn f_a_session_keeps_what_it_did() {
    let watch = Watch::new(3);
    watch.cluster.query("postgres", "create role plain").unwrap();
    let mut busy: Vec<Raw> = (0..2).map(|_| watch.client()).collect();
    for (does, question, answer) in OWN {
        let mut raw = watch.client();
        for sql in *does {
            let heard = raw.query(sql);
            assert!(!heard.contains("E:"), "{sql}: {heard}");
        }
        for round in 0..6 {
            // Others take the server connection that it had, where they can.
            let other = &mut busy[round % 2];
            other.query("begin");
            assert_eq!(raw.value(question), *answer, "{does:?}, {question}");
            other.query("commit");
        }
    }
    watch.finish();
}

#[test]
fn f_a_lock_is_held_until_its_owner_leaves() {
    let watch = Watch::new(3);
    let (mut owner, mut other) = (watch.client(), watch.client());
    assert_eq!(owner.query("select pg_advisory_lock(5)"), "T D: C:SELECT_1 Z:I");
    for _ in 0..5 {
        assert_eq!(other.value("select pg_try_advisory_lock(5)"), "f");
        assert_eq!(owner.value("select 1"), "1");
    }
    drop(owner);
    let since = std::time::Instant::now();
    while other.value("select pg_try_advisory_lock(5)") != "t" {
        assert!(since.elapsed().as_secs() < 5, "the lock outlives its owner");
    }
    assert_eq!(other.value("select pg_advisory_unlock(5)"), "t");
    watch.finish();
}
