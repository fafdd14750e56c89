//! COPY both ways, in both protocols, ended in every way.

use super::Stage;
use super::raw::{bind, execute, frame, parse, query, shown, sync};

#[test]
fn copy_in_and_out() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    b.query("create table t (x int)");

    a.send(&query("copy t from stdin"));
    assert_eq!(a.read().0, b'G');
    a.send(&[frame(b'd', b"1\n"), frame(b'd', b"2\n3\n"), frame(b'c', b"")].concat());
    assert_eq!(shown(&a.until_ready(1)), "C:COPY_3 Z:I");

    // libpq in the extended protocol: Sync goes out before the data, and again after it.
    a.send(&[parse("", "copy t from stdin"), bind("", &[]), execute(), sync()].concat());
    assert_eq!([a.read().0, a.read().0, a.read().0], *b"12G");
    a.send(&[frame(b'd', b"4\n"), frame(b'c', b""), sync()].concat());
    assert_eq!(shown(&a.until_ready(1)), "C:COPY_1 Z:I");
    assert_eq!(b.value("select count(*) from t"), "4");

    assert_eq!(a.query("copy (select x from t order by x) to stdout"), "H d d d d c C:COPY_4 Z:I");

    // Failed by the client, and by the data.
    a.send(&query("copy t from stdin"));
    assert_eq!(a.read().0, b'G');
    a.send(&[frame(b'd', b"5\n"), frame(b'f', b"no more\0")].concat());
    assert_eq!(shown(&a.until_ready(1)), "E:57014 Z:I");
    a.send(&query("copy t from stdin"));
    assert_eq!(a.read().0, b'G');
    a.send(&[frame(b'd', b"five\n"), frame(b'd', b"6\n"), frame(b'c', b"")].concat());
    assert_eq!(shown(&a.until_ready(1)), "E:22P02 Z:I");
    a.send(&[parse("", "copy t from stdin"), bind("", &[]), execute(), sync()].concat());
    assert_eq!([a.read().0, a.read().0, a.read().0], *b"12G");
    a.send(&[frame(b'd', b"six\n"), frame(b'c', b""), sync()].concat());
    assert_eq!(shown(&a.until_ready(1)), "E:22P02 Z:I");

    // Data that nobody asked for is ignored.
    a.send(&[frame(b'd', b"7\n"), frame(b'c', b"")].concat());
    assert_eq!(a.value("select count(*) from t"), "4");
    assert_eq!(b.value("select count(*) from t"), "4");

    // A client that leaves in the middle leaves nothing.
    a.send(&query("copy t from stdin"));
    assert_eq!(a.read().0, b'G');
    a.send(&frame(b'd', b"8\n"));
    drop(a);
    assert_eq!(b.value("select count(*) from t"), "4");
}

#[test]
fn a_goodbye_in_the_middle_frees_the_connection() {
    let stage = Stage::new(1);
    let mut b = stage.client();
    b.query("create table t (x int)");
    // The only connection of the pool is free again, whatever the server still waited for.
    let starts = [
        query("begin; insert into t values (1); copy t from stdin"),
        [parse("", "copy t from stdin"), bind("", &[]), execute(), sync()].concat(),
        [parse("", "insert into t values (1)"), bind("", &[]), execute()].concat(),
    ];
    for start in starts {
        let mut a = stage.client();
        a.send(&[start, frame(b'X', b"")].concat());
        assert_eq!(b.value("select count(*) from t"), "0");
    }
}

#[test]
fn a_large_result_streams_and_an_abandoned_one_ends() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    a.send(&query("select repeat('x', 1000) from generate_series(1, 50000)"));
    let rows = a.until_ready(1).iter().filter(|(tag, body)| *tag == b'D' && body.len() == 1006).count();
    assert_eq!(rows, 50_000);
    a.send(&query("select repeat('y', 1000000) from generate_series(1, 200)"));
    a.read();
    drop(a);
    assert_eq!(b.value("select 'mine'"), "mine");
}
