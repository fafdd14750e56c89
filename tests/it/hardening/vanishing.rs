//! V: clients that disappear.

use super::Watch;
use crate::proxy::raw::{Raw, bind, execute, frame, parse, query, sync};

/// Every way to be gone, after these messages.
fn vanish(watch: &Watch, prepare: &[&str], messages: &[Vec<u8>], readies: usize) {
    for ending in ["close", "reset", "terminate", "half"] {
        let mut raw = watch.client();
        for sql in prepare {
            raw.query(sql);
        }
        raw.send(&messages.concat());
        raw.until_ready(readies);
        gone(raw, ending);
        watch.sentinels[0].served_again();
    }
}

fn gone(mut raw: Raw, ending: &str) {
    match ending {
        "reset" => super::reset(&raw),
        "terminate" => raw.send(&frame(b'X', b"")),
        // Only its writing side: it could still read.
        "half" => {
            raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
            while raw.try_read().is_some() {}
        }
        _ => {}
    }
}

fn rows(watch: &Watch) -> String {
    watch.server("select count(*) from t")
}

#[test]
fn v_mid_transaction() {
    let watch = Watch::new(2);
    vanish(&watch, &["begin", "insert into t values (1, 'gone')"], &[], 0);
    vanish(&watch, &["begin", "savepoint s", "insert into t values (1, 'gone')", "select 1/0"], &[], 0);
    vanish(&watch, &["begin", "insert into t values (1, 'gone')"], &[query("select pg_sleep(2)")], 0);
    // Nobody else can commit it.
    let mut other = watch.client();
    for _ in 0..5 {
        assert_eq!(other.query("commit"), "C:COMMIT Z:I");
    }
    watch.calms();
    assert_eq!(rows(&watch), "0");
    watch.finish();
}

#[test]
fn v_mid_extended_protocol() {
    let watch = Watch::new(2);
    let insert = [parse("", "insert into t values (1, 'gone')"), bind("", &[]), execute()].concat();
    // Without Sync; it was run, and must not stay.
    vanish(&watch, &[], std::slice::from_ref(&insert), 0);
    vanish(&watch, &[], &[insert.clone(), frame(b'H', b"")], 0);
    // With an open portal.
    let portal = [parse("", "select generate_series(1, 1000)"), bind("", &[]), frame(b'E', b"\0\0\0\0\x05")].concat();
    vanish(&watch, &["begin"], &[portal.clone(), sync()], 1);
    vanish(&watch, &[], &[portal], 0);
    // Half a message.
    vanish(&watch, &["begin"], &[insert[..insert.len() - 3].to_vec()], 0);
    let large = frame(b'B', &[b"\0\0\0\0\0\x01\0\x03\0\0".as_slice(), &[b'x'; 200_000]].concat());
    vanish(&watch, &[], &[parse("", "select $1::text"), large[..100_000].to_vec()], 0);
    watch.calms();
    assert_eq!(rows(&watch), "0");
    watch.finish();
}

#[test]
fn v_mid_pipeline() {
    let watch = Watch::new(2);
    let piece = [parse("", "select pg_sleep(0.2)"), bind("", &[]), execute(), sync()].concat();
    vanish(&watch, &[], &vec![piece; 16], 0);
    vanish(&watch, &[], &vec![query("select pg_sleep(0.2)"); 16], 0);
    vanish(&watch, &["begin"], &vec![query("insert into t select 1, 'gone' from pg_sleep(0.2)"); 3], 0);
    watch.calms();
    assert_eq!(rows(&watch), "0");
    watch.finish();
}

#[test]
fn v_mid_copy() {
    let watch = Watch::new(2);
    let data = |id: u32| frame(b'd', format!("{id}\tgone\n").as_bytes());
    let copy = query("copy t from stdin");
    vanish(&watch, &[], std::slice::from_ref(&copy), 0);
    vanish(&watch, &[], &[copy.clone(), data(1), data(2)], 0);
    vanish(&watch, &[], &[copy.clone(), data(1), data(2)[..4].to_vec()], 0);
    vanish(&watch, &["begin"], &[copy, data(1)], 0);
    let extended = [parse("", "copy t from stdin"), bind("", &[]), execute()].concat();
    vanish(&watch, &[], &[extended.clone(), data(1)], 0);
    vanish(&watch, &[], &[extended, sync(), data(1)], 0);
    vanish(&watch, &[], &[query("copy (select generate_series(1, 300000)) to stdout")], 0);
    watch.calms();
    assert_eq!(rows(&watch), "0");
    watch.finish();
}

#[test]
fn v_mid_result() {
    let watch = Watch::new(2);
    let result = query("select repeat('x', 1000), generate_series(1, 100000)");
    vanish(&watch, &[], std::slice::from_ref(&result), 0);
    for ending in ["close", "reset"] {
        let mut raw = watch.client();
        raw.send(&result);
        for _ in 0..10 {
            raw.read();
        }
        gone(raw, ending);
        watch.sentinels[1].served_again();
    }
    watch.calms();
    watch.finish();
}

#[test]
fn v_while_waiting_for_a_connection() {
    let watch = Watch::new(1);
    let mut holder = watch.client();
    holder.query("begin");
    for ending in ["close", "reset", "half"].into_iter().cycle().take(30) {
        let mut raw = watch.client();
        raw.send(&query("insert into t values (1, 'gone')"));
        gone(raw, ending);
    }
    holder.query("commit");
    watch.sentinels[0].served_again();
    watch.sentinels[1].served_again();
    watch.calms();
    assert_eq!(rows(&watch), "0");
    watch.finish();
}
