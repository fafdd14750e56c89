//! M: messages that no honest client sends, and honest ones in numbers or orders that proxies got wrong.

use super::{Watch, refused, reset};
use crate::proxy::raw::{Frame, Raw, bind, execute, field, frame, parse, query, shown, statement, sync};

fn flush() -> Vec<u8> {
    frame(b'H', b"")
}

/// Execute of a named portal with a row limit.
fn fetch(portal: &str, rows: u32) -> Vec<u8> {
    frame(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

/// Bind of a portal to a statement without parameters.
fn open(portal: &str, name: &str) -> Vec<u8> {
    frame(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes())
}

fn portal(tag: u8, name: &str) -> Vec<u8> {
    frame(tag, format!("P{name}\0").as_bytes())
}

/// Bind with these counts of formats, parameters and result formats, and the bytes that follow each.
fn counts(formats: &[u8], parameters: &[u8], results: &[u8]) -> Vec<u8> {
    frame(b'B', &[b"\0\0", formats, parameters, results].concat())
}

#[test]
fn m_malformed_messages_end_the_connection() {
    let watch = Watch::new(2);
    for (what, bytes) in [
        ("an unknown type", frame(b'~', b"x")),
        ("type 0", frame(0, b"")),
        ("a server's message", frame(b'Z', b"I")),
        ("a password", frame(b'p', b"x\0")),
        ("length 0", vec![b'Q', 0, 0, 0, 0]),
        ("length 3", vec![b'Q', 0, 0, 0, 3]),
        ("a negative length", vec![b'Q', 0xff, 0xff, 0xff, 0xff]),
        ("a huge length", vec![b'Q', 0x7f, 0xff, 0xff, 0xff]),
        ("huge COPY data", vec![b'd', 0x7f, 0xff, 0xff, 0xff]),
        ("a query without terminator", frame(b'Q', b"select 1")),
        ("a query without a byte", frame(b'Q', b"")),
        ("a Parse without a byte", frame(b'P', b"")),
        ("a Parse without text", frame(b'P', b"a\0")),
        ("a Parse without terminator", frame(b'P', b"a\0select 1")),
        ("a Parse without types", frame(b'P', b"a\0select 1\0")),
        ("a Parse that promises 65,535 types", frame(b'P', b"a\0select 1\0\xff\xff")),
        ("a Parse with bytes behind", frame(b'P', b"a\0select 1\0\0\0x")),
        ("a Bind without a byte", frame(b'B', b"")),
        ("a Bind without names", frame(b'B', b"abc")),
        ("a Bind with one name", frame(b'B', b"a\0b")),
        ("a large Bind without names", frame(b'B', &vec![b'x'; 100_000])),
        ("a Describe of nothing", frame(b'D', b"")),
        ("a Describe without terminator", frame(b'D', b"Sa")),
        ("a Describe of a what", frame(b'D', b"Xa\0")),
        ("a Describe with bytes behind", frame(b'D', b"Sa\0x")),
        ("a Close of nothing", frame(b'C', b"")),
        ("a Close without terminator", frame(b'C', b"Sabc")),
        ("a Close of a what", frame(b'C', b"Xabc\0")),
    ] {
        // Outside a transaction, inside one, and behind other messages.
        for before in [vec![], query("begin"), [parse("", "select 1"), bind("", &[])].concat()] {
            let mut raw = watch.client();
            raw.send(&[before, bytes.clone()].concat());
            let mut code = String::new();
            while let Some((tag, body)) = raw.try_read() {
                if tag == b'E' {
                    code = field(&body, b'C');
                }
            }
            assert_eq!(code, "08P01", "{what}");
        }
    }
    watch.calms();
    watch.finish();
}

#[test]
fn m_what_the_server_refuses_is_the_senders_alone() {
    let watch = Watch::new(2);
    let mut raw = watch.client();
    let one = b"\0\x01\0\0\0\x011";
    let none = b"\0\0";
    let types = |count: u16| [&count.to_be_bytes()[..], &vec![0; 2 * count as usize]].concat();
    let nulls = |count: u16| [&count.to_be_bytes()[..], &vec![0xff; 4 * count as usize]].concat();
    for (what, bytes, codes) in [
        ("too few parameters", counts(none, none, none), "08P01"),
        ("too many parameters", counts(none, &nulls(2), none), "08P01"),
        ("65,535 parameters", counts(none, &nulls(65_535), none), "08P01"),
        ("two formats for one parameter", counts(&types(2), one, none), "08P01"),
        ("65,535 formats", counts(&types(65_535), one, none), "08P01"),
        ("65,535 result formats", counts(none, one, &types(65_535)), "08P01"),
        ("an unknown format", counts(b"\0\x01\0\x07", one, none), "22023"),
        ("result formats of an unknown kind", counts(none, one, b"\0\x02\0\x07\0\x07"), "08P01"),
        ("more parameters promised than there are", counts(none, b"\0\x01", none), "08P01"),
        ("a parameter longer than the message", counts(none, b"\0\x01\0\0\xff\xff1", none), "08P01"),
        ("a parameter of length -2", counts(none, b"\0\x01\xff\xff\xff\xfe", none), "08P01"),
        ("bytes behind", counts(none, one, b"\0\0xyz"), "08P01"),
        ("binary that is too long", counts(b"\0\x01\0\x01", b"\0\x01\0\0\0\x05abcde", none), "22P03"),
        ("text that is no number", counts(none, b"\0\x01\0\0\0\x01x", none), "22P02"),
        ("an Execute without a limit", frame(b'E', b"\0"), "08P01"),
        ("an Execute without a byte", frame(b'E', b""), "08P01"),
        ("an unknown portal", fetch("nope", 0), "34000"),
        ("an unknown statement", open("", "nope"), "26000"),
        ("an unknown statement to describe", statement(b'D', "nope"), "26000"),
        ("an unknown portal to describe", portal(b'D', "nope"), "34000"),
        ("a name that is reserved", open("", "_pgweir_00000000000000000000000000000000"), "26000"),
    ] {
        let heard = raw.talk(&[parse("", "select $1::int"), bytes, execute(), sync()], 1);
        assert_eq!(heard, format!("1 E:{codes} Z:I"), "{what}");
        assert_eq!(raw.value("select 'still'"), "still", "{what}");
    }
    watch.finish();
}

#[test]
fn m_odd_but_allowed() {
    let watch = Watch::new(2);
    let mut raw = watch.client();
    // Messages of a COPY that is not, Flush and Sync that nobody needs, empty texts.
    let stray = [frame(b'd', b"1\tx\n"), frame(b'c', b""), frame(b'f', b"no\0"), flush(), sync()];
    assert_eq!(raw.talk(&stray, 1), "Z:I");
    assert_eq!(raw.talk(&[frame(b'd', &vec![b'x'; 300_000]), query("select 1")], 1), "T D:1 C:SELECT_1 Z:I");
    assert_eq!(
        raw.talk(&[parse("", "select 2"), frame(b'd', b"x"), bind("", &[]), execute(), sync()], 1),
        "1 2 D:2 C:SELECT_1 Z:I"
    );
    assert_eq!(raw.query(""), "I Z:I");
    assert_eq!(raw.query(" ; -- nothing\n;"), "I Z:I");
    assert_eq!(raw.talk(&[parse("", ""), bind("", &[]), execute(), sync()], 1), "1 2 I Z:I");
    // Flush without Sync, and an answer for it.
    raw.send(&[parse("", "select 3"), bind("", &[]), execute(), flush()].concat());
    let frames: Vec<Frame> = (0..4).map(|_| raw.read()).collect();
    assert_eq!(shown(&frames), "1 2 D:3 C:SELECT_1");
    assert_eq!(raw.talk(&[sync()], 1), "Z:I");
    watch.finish();
}

#[test]
fn m_sync_storm() {
    let watch = Watch::new(2);
    let mut raw = watch.client();
    let storm = sync().repeat(20_000);
    assert_eq!(raw.talk(std::slice::from_ref(&storm), 20_000), vec!["Z:I"; 20_000].join(" "));
    raw.query("begin");
    assert_eq!(raw.talk(&[storm], 20_000), vec!["Z:T"; 20_000].join(" "));
    assert_eq!(raw.talk(&[flush().repeat(20_000), query("rollback")], 1), "C:ROLLBACK Z:I");
    // Answers that nobody reads stop the sender, not the proxy.
    let mut deaf = watch.client();
    deaf.stream.set_nonblocking(true).unwrap();
    let storm = query("select repeat('x', 1000)").repeat(3000);
    let mut sent = 0;
    while let Ok(count) = std::io::Write::write(&mut deaf.stream, &storm[sent..]) {
        sent += count;
        if sent == storm.len() {
            break;
        }
    }
    watch.sentinels[0].served_again();
    reset(&deaf);
    drop(deaf);
    watch.calms();
    watch.finish();
}

#[test]
fn m_a_parse_of_64_megabytes() {
    let watch = Watch::new(2);
    let mut raw = watch.client();
    let text = format!("select length('{}')", "x".repeat(64 << 20));
    let messages = [parse("", &text), bind("", &[]), execute(), sync()];
    assert_eq!(raw.talk(&messages, 1), format!("1 2 D:{} C:SELECT_1 Z:I", 64 << 20));
    // More than is allowed is refused by its length alone.
    let mut raw = watch.client();
    raw.send(&[b'P', 0x20, 0, 0, 0]);
    assert_eq!(refused(raw), "08P01");
    watch.finish();
}

#[test]
fn m_an_error_skips_to_sync_and_no_further() {
    let watch = Watch::new(2);
    let mut raw = watch.client();
    let good = |value: &str| [parse("", "select $1::text"), bind("", &[value]), execute()].concat();
    let bad = [parse("", "select 1 / (random() * 0)::int"), bind("", &[]), execute()].concat();
    for _ in 0..20 {
        let pipeline = [
            good("a"),
            sync(),
            good("b"),
            bad.clone(),
            good("never"),
            query("select 'never'"),
            sync(),
            good("c"),
            sync(),
        ];
        let answer = "1 2 D:a C:SELECT_1 Z:I 1 2 D:b C:SELECT_1 1 2 E:22012 Z:I 1 2 D:c C:SELECT_1 Z:I";
        assert_eq!(raw.talk(&pipeline, 3), answer);
        // The same for what the proxy itself answers: names.
        let pipeline =
            [parse("n", "select 1"), bad.clone(), statement(b'C', "n"), sync(), open("", "n"), execute(), sync()];
        let heard = raw.talk(&pipeline, 2);
        assert_eq!(heard, "1 1 2 E:22012 Z:I 2 D:1 C:SELECT_1 Z:I");
        assert_eq!(raw.talk(&[statement(b'C', "n"), sync()], 1), "3 Z:I");
    }
    watch.finish();
}

#[test]
fn m_a_statement_is_found_on_every_server_connection() {
    let watch = Watch::new(3);
    let mut clients: Vec<Raw> = (0..4).map(|_| watch.client()).collect();
    // Unnamed and named ones, the names the same everywhere and their texts not.
    for (number, raw) in clients.iter_mut().enumerate() {
        let named = parse("s", &format!("select {number}, $1::text"));
        let unnamed = parse("", &format!("select 'unnamed {number}', $1::text"));
        assert_eq!(raw.talk(&[named, sync(), unnamed, sync()], 2), "1 Z:I 1 Z:I");
    }
    let mut servers = std::collections::HashSet::new();
    for round in 0..20 {
        for number in 0..clients.len() {
            // Who holds a connection in a transaction makes the next one use another.
            let holder = (number + round) % clients.len();
            if holder != number {
                clients[holder].query("begin");
            }
            let raw = &mut clients[number];
            let heard = raw.talk(&[bind("s", &["x"]), execute(), sync()], 1);
            assert_eq!(heard, format!("2 D:{number},x C:SELECT_1 Z:I"));
            if round == 0 {
                let heard = raw.talk(&[bind("", &["y"]), execute(), sync()], 1);
                assert_eq!(heard, format!("2 D:unnamed {number},y C:SELECT_1 Z:I"));
            }
            servers.insert(raw.value("select pg_backend_pid()"));
            if holder != number {
                clients[holder].query("rollback");
            }
        }
    }
    assert!(servers.len() > 1, "all ran on one server connection");
    watch.finish();
}

#[test]
fn m_names_and_texts_are_compared_and_not_their_hashes() {
    let watch = Watch::new(1);
    // Pairs that collide under 32-bit hashes in wide use: FNV-1a, CRC-32 and Java's.
    let pairs = [
        ("costarring", "liquid"),
        ("declinate", "macallums"),
        ("plumless", "buckeroo"),
        ("Aa", "BB"),
        ("AaAa", "BBBB"),
    ];
    for (one, other) in pairs {
        let (mut a, mut b) = (watch.client(), watch.client());
        for (raw, name, text) in [(&mut a, one, other), (&mut b, other, one)] {
            let sql = format!("select '{text}'");
            assert_eq!(raw.talk(&[parse(name, &sql), sync()], 1), "1 Z:I");
        }
        assert_eq!(a.talk(&[open("", one), execute(), sync()], 1), format!("2 D:{other} C:SELECT_1 Z:I"));
        assert_eq!(b.talk(&[open("", other), execute(), sync()], 1), format!("2 D:{one} C:SELECT_1 Z:I"));
        assert_eq!(a.talk(&[open("", other), sync()], 1), "E:26000 Z:I");
    }
    watch.finish();
}

#[test]
fn m_a_portal_and_a_statement_of_one_name() {
    let watch = Watch::new(2);
    let mut raw = watch.client();
    raw.query("begin");
    let messages = [parse("x", "select generate_series(1, 4)"), open("x", "x"), fetch("x", 1), sync()];
    assert_eq!(raw.talk(&messages, 1), "1 2 D:1 s Z:T");
    // The portal stays over Sync, and over the statement's end as far as PostgreSQL lets it.
    assert_eq!(raw.talk(&[fetch("x", 1), portal(b'D', "x"), sync()], 1), "D:2 s T Z:T");
    assert_eq!(raw.talk(&[portal(b'C', "x"), sync()], 1), "3 Z:T");
    assert_eq!(raw.talk(&[statement(b'D', "x"), sync()], 1), "t T Z:T");
    assert_eq!(raw.talk(&[open("x", "x"), fetch("x", 2), sync()], 1), "2 D:1 D:2 s Z:T");
    assert_eq!(raw.talk(&[statement(b'C', "x"), sync()], 1), "3 Z:T");
    assert_eq!(raw.talk(&[open("", "x"), sync()], 1), "E:26000 Z:E");
    raw.query("rollback");
    assert_eq!(raw.talk(&[fetch("x", 1), sync()], 1), "E:34000 Z:I");
    // Twice, and of nothing, is no error.
    let messages = [portal(b'C', "x"), statement(b'C', "x"), statement(b'C', ""), portal(b'C', ""), sync()];
    assert_eq!(raw.talk(&messages, 1), "3 3 3 3 Z:I");
    watch.finish();
}

#[test]
fn m_terminate_in_the_middle() {
    let watch = Watch::new(2);
    let insert = [parse("", "insert into t values (1, 'left')"), bind("", &[]), execute()].concat();
    let copy = query("copy t from stdin");
    let extended_copy = [parse("", "copy t from stdin"), bind("", &[]), execute()].concat();
    let cases = [
        vec![insert.clone()],
        vec![insert.clone(), flush()],
        vec![parse("", "select 1")],
        vec![parse("n", "select 1"), open("", "n")],
        vec![copy.clone()],
        vec![copy, frame(b'd', b"1\tleft\n")],
        vec![extended_copy.clone()],
        vec![extended_copy, sync(), frame(b'd', b"1\tleft\n")],
        vec![query("begin"), insert, sync()],
        vec![parse("", "select 1/0"), bind("", &[]), execute()],
    ];
    for (number, messages) in cases.iter().cycle().take(3 * cases.len()).enumerate() {
        let mut raw = watch.client();
        raw.send(&[messages.concat(), frame(b'X', b""), query("select 'never'")].concat());
        let since = std::time::Instant::now();
        while let Some((_, body)) = raw.try_read() {
            assert!(!String::from_utf8_lossy(&body).contains("never"));
        }
        assert!(since.elapsed().as_secs() < 5, "case {} is not ended", number % cases.len());
    }
    watch.calms();
    assert_eq!(watch.server("select count(*) from t"), "0");
    watch.finish();
}

#[test]
fn m_the_pool_runs_out_while_messages_are_pipelined() {
    let watch = Watch::new(1);
    let mut holder = watch.client();
    holder.query("begin");
    let mut waiting: Vec<Raw> = (0..20).map(|_| watch.client()).collect();
    for (number, raw) in waiting.iter_mut().enumerate() {
        let piece = |at: u32| {
            [
                parse("s", "select $1::text"),
                bind("s", &[&format!("{number}.{at}")]),
                execute(),
                statement(b'C', "s"),
                sync(),
            ]
        };
        raw.send(&(0..50).flat_map(|at| piece(at).concat()).collect::<Vec<u8>>());
    }
    holder.query("commit");
    for (number, raw) in waiting.iter_mut().enumerate() {
        let answer: Vec<String> = (0..50).map(|at| format!("1 2 D:{number}.{at} C:SELECT_1 3 Z:I")).collect();
        assert_eq!(shown(&raw.until_ready(50)), answer.join(" "));
    }
    watch.finish();
}

#[test]
fn m_nobody_gets_what_a_reset_client_left() {
    let watch = Watch::new(1);
    for round in 0..300 {
        let mut raw = watch.client();
        let messages: Vec<u8> = match round % 3 {
            0 => (0..16).flat_map(|at| query(&format!("select 'left {round}.{at}'"))).collect(),
            1 => {
                (0..16).flat_map(|_| [parse("", "select 'left'"), bind("", &[]), execute(), sync()].concat()).collect()
            }
            _ => [parse("s", "select 'left'").as_slice(), &[open("", "s"), execute()].concat().repeat(16)].concat(),
        };
        raw.send(&messages);
        reset(&raw);
        drop(raw);
        if round % 10 == 0 {
            let mut next = watch.client();
            assert_eq!(next.query(&format!("select 'mine {round}'")), format!("T D:mine {round} C:SELECT_1 Z:I"));
            assert_eq!(next.talk(&[open("", "s"), sync()], 1), "E:26000 Z:I");
        }
    }
    watch.sentinels[0].served_again();
    watch.finish();
}
