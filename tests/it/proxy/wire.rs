//! What the protocol allows and drivers rarely do: the largest messages, binary COPY, function calls, portals in turns.

use std::io::Write;
use std::time::{Duration, Instant};

use super::Stage;
use super::raw::{Raw, bind, execute, field, frame, parse, query, shown, startup, sync};

fn flush() -> Vec<u8> {
    frame(b'H', b"")
}

/// Bind of a named portal to a statement without parameters.
fn open(portal: &str, statement: &str) -> Vec<u8> {
    frame(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn fetch(portal: &str, rows: u32) -> Vec<u8> {
    frame(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

/// Parse with types for its parameters.
fn parse_typed(sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = format!("\0{sql}\0").into_bytes();
    body.extend((types.len() as u16).to_be_bytes());
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    frame(b'P', &body)
}

#[test]
fn a_parameter_of_64_megabytes() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    let large = "x".repeat(64 << 20);
    let messages = [parse_typed("select length($1), right($1, 3)", &[25]), bind("", &[&large]), execute(), sync()];
    assert_eq!(a.talk(&messages, 1), format!("1 2 D:{},xxx C:SELECT_1 Z:I", 64 << 20));
    // And back again, while another client uses the same connection before and after.
    assert_eq!(b.value("select 'between'"), "between");
    a.send(&query(&format!("select repeat('y', {})", 64 << 20)));
    let frames = a.until_ready(1);
    assert_eq!(frames.iter().find(|(tag, _)| *tag == b'D').map(|(_, body)| body.len()), Some(6 + (64 << 20)));
    assert_eq!(b.value("select 'after'"), "after");
}

#[test]
fn as_many_parameters_as_there_may_be() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    let most = usize::from(u16::MAX);
    let values: Vec<String> = (1..=most).map(|number| number.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let list: Vec<String> = (1..=most).map(|number| format!("${number}")).collect();
    let sql = format!("select sum(x::int), count(*) from unnest(array[{}]) x", list.join(","));
    let messages = [parse_typed(&sql, &vec![25; most]), bind("", &values), execute(), sync()];
    assert_eq!(a.talk(&messages, 1), format!("1 2 D:{},{most} C:SELECT_1 Z:I", most * (most + 1) / 2));
    // One more has no number in the protocol: it reads as none at all, which the server refuses, and the session goes on.
    let mut body = b"\0\0\0\0\0\0".to_vec();
    body.extend([0, 0]);
    assert_eq!(a.talk(&[frame(b'B', &body), execute(), sync()], 1), "E:08P01 Z:I");
    let missing = [parse("", "select $65536::int"), sync()];
    assert_eq!(a.talk(&missing, 1), "E:42P18 Z:I");
    assert_eq!([a.value("select 'a'"), b.value("select 'b'")], ["a", "b"]);
}

#[test]
fn newer_protocols_work_after_they_are_negotiated() {
    let stage = Stage::new(2);
    for (minor, more) in [(2u8, &[][..]), (9, &[][..]), (0, &[("_pq_.unknown", "1")][..]), (2, &[("_pq_.x", "on")])] {
        let mut packet = startup("app", "app", more);
        packet[7] = minor;
        let mut raw = Raw::connect(stage.proxy.port()).log_in_by(&packet, "secret").unwrap_or_else(|error| {
            panic!("3.{minor}: {}", String::from_utf8_lossy(&error));
        });
        assert_eq!(raw.value("select 'here'"), "here");
        // 3.2 allows keys of up to 256 bytes; the one that was given works as it is.
        assert!((4..=256).contains(&raw.key.1.len()));
        raw.send(&query("select pg_sleep(30)"));
        let (since, mut heard) = (Instant::now(), None);
        raw.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while heard.is_none() {
            assert!(since.elapsed() < Duration::from_secs(15), "it is not cancelled");
            let mut request = (12 + raw.key.1.len() as u32).to_be_bytes().to_vec();
            request.extend(80_877_102u32.to_be_bytes());
            request.extend(raw.key.0.to_be_bytes());
            request.extend(&raw.key.1);
            let mut other = Raw::connect(stage.proxy.port());
            other.send(&request);
            assert_eq!(other.try_read(), None);
            let mut first = [0];
            heard = raw.stream.peek(&mut first).ok();
        }
        raw.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // It may be cancelled before it has begun to answer.
        assert!(shown(&raw.until_ready(1)).ends_with("E:57014 Z:I"));
    }
}

/// The header of binary COPY, and its end.
const BINARY: (&[u8], &[u8]) = (b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", b"\xff\xff");

/// A binary row of an int and a text.
fn binary_row(number: i32, text: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| (bytes as u32).to_be_bytes();
    [&[0, 2][..], &length(4), &number.to_be_bytes(), &length(text.len()), text].concat()
}

/// Begins a COPY IN by the simple or the extended protocol.
fn copy_in(client: &mut Raw, sql: &str, extended: bool) {
    if extended {
        client.send(&[parse("", sql), bind("", &[]), execute(), flush()].concat());
        assert_eq!([client.read().0, client.read().0], *b"12", "{sql}");
    } else {
        client.send(&query(sql));
    }
    assert_eq!(client.read().0, b'G', "{sql}");
}

#[test]
fn copy_in_every_format_and_with_every_end() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    b.query("create table t (id int, body text)");
    let data = |bytes: &[u8]| frame(b'd', bytes);
    let done = || frame(b'c', b"");
    for extended in [false, true] {
        let end = if extended { sync() } else { Vec::new() };
        b.query("truncate t");
        // Binary, with rows cut anywhere between messages.
        copy_in(&mut a, "copy t from stdin (format binary)", extended);
        let rows = [BINARY.0, &binary_row(1, b"one"), &binary_row(2, b"\xc3\xa9\n\\."), BINARY.1].concat();
        let pieces: Vec<Vec<u8>> = rows.chunks(7).map(data).collect();
        a.send(&[pieces.concat(), done(), end.clone()].concat());
        assert_eq!(shown(&a.until_ready(1)), "C:COPY_2 Z:I");
        copy_in(&mut a, "copy t from stdin (format csv, header)", extended);
        a.send(&[data(b"id,body\n3,\"a,\"\"b\"\"\n"), data(b"c\"\n4,\n"), done(), end.clone()].concat());
        assert_eq!(shown(&a.until_ready(1)), "C:COPY_2 Z:I");
        assert_eq!(
            b.value("select string_agg(coalesce(body, 'none'), '|' order by id) from t where id > 2"),
            "a,\"b\"\nc|none"
        );

        // Nothing at all; an empty message; and in binary, nothing is no stream.
        for empty in [&[][..], &[data(b"")]] {
            copy_in(&mut a, "copy t from stdin", extended);
            a.send(&[empty.concat(), done(), end.clone()].concat());
            assert_eq!(shown(&a.until_ready(1)), "C:COPY_0 Z:I");
        }
        copy_in(&mut a, "copy t from stdin (format binary)", extended);
        a.send(&[done(), end.clone()].concat());
        assert_eq!(shown(&a.until_ready(1)), "E:22P04 Z:I");

        // It fails in the middle: by its data, by its sender, and by a constraint at its end.
        copy_in(&mut a, "copy t from stdin (format binary)", extended);
        let broken = [BINARY.0, &binary_row(5, b"five"), b"\0\x07"].concat();
        a.send(&[data(&broken), data(&binary_row(6, b"six")), done(), end.clone()].concat());
        assert_eq!(shown(&a.until_ready(1)), "E:22P04 Z:I");
        copy_in(&mut a, "copy t from stdin (format binary)", extended);
        a.send(&[data(BINARY.0), frame(b'f', b"enough\0"), end.clone()].concat());
        let frames = a.until_ready(1);
        assert_eq!(shown(&frames), "E:57014 Z:I");
        assert!(field(&frames[0].1, b'M').contains("enough"));
        copy_in(&mut a, "copy t from stdin (format csv)", extended);
        a.send(&[data(b"7,seven\n"), data(b"eight,8\n"), done(), end.clone()].concat());
        assert_eq!(shown(&a.until_ready(1)), "E:22P02 Z:I");
        assert_eq!(b.value("select count(*) from t"), "4");
    }
    // Out, byte for byte what went in.
    a.send(&query("copy (select * from t where id = 1) to stdout (format binary)"));
    let frames = a.until_ready(1);
    let out: Vec<u8> = frames.iter().filter(|(tag, _)| *tag == b'd').flat_map(|(_, body)| body.clone()).collect();
    assert_eq!(out, [BINARY.0, &binary_row(1, b"one"), BINARY.1].concat());
    assert_eq!((frames[0].0, &frames[0].1[..]), (b'H', &[1, 0, 2, 0, 1, 0, 1][..]));
    // An empty one, and one that fails when rows have gone out.
    assert_eq!(a.query("copy (select 1 where false) to stdout"), "H c C:COPY_0 Z:I");
    let fails = a.query("copy (select 1 / (3 - x) from generate_series(1, 5) x) to stdout");
    assert!(fails.starts_with("H") && fails.ends_with("E:22012 Z:I") && !fails.contains('c'), "{fails}");
    assert_eq!(b.value("select 'mine'"), "mine");
}

#[test]
fn a_copy_whose_client_vanishes_leaves_nothing() {
    let stage = Stage::new(1);
    let mut b = stage.client();
    b.query("create table t (id int, body text)");
    for extended in [false, true] {
        for rest in [&b"d\0\0\0\x40\0\x02half"[..], b"d\0\0", b""] {
            let mut a = stage.client();
            copy_in(&mut a, "copy t from stdin (format binary)", extended);
            a.send(&frame(b'd', &[BINARY.0, &binary_row(1, b"one")].concat()));
            let _ = a.stream.write_all(rest);
            drop(a);
            assert_eq!(b.value("select count(*) from t"), "0");
        }
        let mut a = stage.client();
        a.send(&query("copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout (format binary)"));
        assert_eq!(a.read().0, b'H');
        drop(a);
        assert_eq!(b.value("select 'still mine'"), "still");
    }
}

#[test]
fn function_calls_in_text_and_binary() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    let oid: u32 = a.value("select 'int4pl(int, int)'::regprocedure::oid").parse().unwrap();
    let call = |oid: u32, binary: bool, values: &[&[u8]]| {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend([0, 1, 0, u8::from(binary)]);
        body.extend((values.len() as u16).to_be_bytes());
        for value in values {
            body.extend((value.len() as u32).to_be_bytes());
            body.extend(*value);
        }
        body.extend([0, u8::from(binary)]);
        frame(b'F', &body)
    };
    let mut answer = |message: Vec<u8>| {
        a.send(&message);
        let frames = a.until_ready(1);
        assert_eq!(b.value("select 'b'"), "b");
        frames.into_iter().filter(|(tag, _)| *tag != b'S').collect::<Vec<_>>()
    };
    let text = answer(call(oid, false, &[b"40", b"2"]));
    assert_eq!((text[0].0, &text[0].1[..]), (b'V', &b"\0\0\0\x0242"[..]));
    let binary = answer(call(oid, true, &[&40i32.to_be_bytes(), &2i32.to_be_bytes()]));
    assert_eq!((binary[0].0, &binary[0].1[..]), (b'V', &[0, 0, 0, 4, 0, 0, 0, 42][..]));
    assert_eq!(shown(&answer(call(oid, false, &[b"2147483647", b"1"]))), "E:22003 Z:I");
    assert_eq!(shown(&answer(call(1, false, &[]))), "E:42883 Z:I");
    assert_eq!(shown(&answer(call(oid, false, &[b"1"]))), "E:08P01 Z:I");
    // In a transaction, its error fails the transaction.
    let begun = [query("begin"), call(oid, false, &[b"x", b"1"]), query("select 1"), query("rollback")];
    assert_eq!(a.talk(&begun, 4), "C:BEGIN Z:T E:22P02 Z:E E:25P02 Z:E C:ROLLBACK Z:I");
}

#[test]
fn portals_take_turns_and_flush_needs_no_sync() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    let numbers = |from: u32| format!("select x from generate_series({from}, {}) x", from + 4);
    let begin =
        [query("begin"), parse("s", &numbers(1)), parse("t", &numbers(11)), open("p", "s"), open("q", "t"), flush()];
    a.send(&begin.concat());
    let mut heard: Vec<_> = (0..6).map(|_| a.read()).collect();
    assert_eq!(shown(&heard), "C:BEGIN Z:T 1 1 2 2");
    // Each Flush brings what was asked for so far, with no Sync in between.
    for (portal, rows, expected) in
        [("p", 2, "D:1 D:2 s"), ("q", 3, "D:11 D:12 D:13 s"), ("p", 2, "D:3 D:4 s"), ("q", 0, "D:14 D:15 C:SELECT_2")]
    {
        a.send(&[fetch(portal, rows), flush()].concat());
        heard = (0..expected.split(' ').count()).map(|_| a.read()).collect();
        // PortalSuspended is no row description here.
        assert_eq!(shown(&heard), expected);
    }
    let close = frame(b'C', b"Pq\0");
    assert_eq!(a.talk(&[fetch("p", 9), close, fetch("q", 1), sync()], 1), "D:5 C:SELECT_1 3 E:34000 Z:E");
    assert_eq!(a.query("rollback"), "C:ROLLBACK Z:I");
    // Outside a transaction a portal ends with the Sync.
    let messages = [open("p", "s"), fetch("p", 1), sync(), fetch("p", 1), sync()];
    assert_eq!(a.talk(&messages, 2), "2 D:1 s Z:I E:34000 Z:I");
    assert_eq!(b.value("select 'b'"), "b");
}

#[test]
fn errors_among_many_syncs_in_flight() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    b.query("create table t (k int primary key)");
    let (mut messages, mut expected) = (Vec::new(), Vec::new());
    for round in 0..40 {
        let good = [parse("", "insert into t values ($1::int)"), bind("", &[&round.to_string()]), execute()];
        messages.extend(good);
        match round % 4 {
            // The planner fails at Bind: the error undoes what came before it in its segment, and what follows is skipped.
            1 => {
                messages.extend([parse("", "select 1 / $1::int"), bind("", &["0"]), execute()]);
                messages.extend([parse("", "insert into t values (-1)"), bind("", &[]), execute()]);
                expected.push("1 2 C:INSERT_0_1 1 E:22012 Z:I");
            }
            2 => {
                messages.extend([parse("", "nonsense"), bind("", &[]), execute()]);
                expected.push("1 2 C:INSERT_0_1 E:42601 Z:I");
            }
            3 => {
                messages.extend([bind("missing", &[]), execute()]);
                expected.push("1 2 C:INSERT_0_1 E:26000 Z:I");
            }
            _ => expected.push("1 2 C:INSERT_0_1 Z:I"),
        }
        messages.push(sync());
        if round % 8 == 7 {
            messages.push(query("select 1; select 1 / 0; select 2"));
            expected.push("T D:1 C:SELECT_1 E:22012 Z:I");
        }
    }
    assert_eq!(a.talk(&messages, 45), expected.join(" "));
    assert_eq!(b.value("select count(*), min(k) from t"), "10,0");
}
