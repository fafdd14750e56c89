//! The same messages to pgweir and to PostgreSQL itself: the answers must be the same.
//!
//! A seed makes a sequence of messages, valid and not so valid, in rounds. One client sends it directly, another through a pool
//! of one connection in transaction mode, with a third client using that connection between rounds. Frames are
//! compared whole but for what names a place in a server's source, and table OIDs. `PGWEIR_SEQUENCES=n` runs n sequences,
//! `PGWEIR_SEED=n` starts at that seed. A sequence that fails is cut down to what it takes to fail.

use std::time::Duration;

use super::Stage;
use super::raw::{Frame, Raw, frame, query, sync};
use pgweir::db::local::{Cluster, Options};

/// Small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

const NAMES: &[&str] = &["", "", "s1", "s2", "s3"];
const PORTALS: &[&str] = &["", "", "", "p1", "p2"];
const VALUES: &[&str] = &["0", "1", "7", "x"];
/// Statements with the number of their parameters.
const EXTENDED: &[(&str, usize)] = &[
    ("select 1", 0),
    ("select $1::int + 1", 1),
    ("select $1::text || $2::text", 2),
    ("select generate_series(1, 5)", 0),
    ("insert into t values ($1::int)", 1),
    ("insert into t values (1)", 0),
    ("select count(*) from t", 0),
    ("select * from t", 0),
    ("select 1 / $1::int", 1),
    ("select nope", 0),
    ("bogus", 0),
    ("", 0),
    ("begin", 0),
    ("commit", 0),
    ("rollback", 0),
    ("select 1; select 2", 0),
    ("copy t from stdin", 0),
    ("copy (select generate_series(1, 3)) to stdout", 0),
    ("set local my.x = 'extended'", 0),
    ("select coalesce(current_setting('my.x', true), '')", 0),
    ("prepare x1 as select 1", 0),
    ("prepare x2 (int) as select $1 + 1", 0),
    ("execute x1", 0),
    ("execute x2 (1)", 0),
    ("explain (costs off) execute s1", 0),
    ("deallocate x1", 0),
    ("deallocate prepare s2", 0),
    ("deallocate all", 0),
];
const SIMPLE: &[&str] = &[
    "select 1",
    "",
    ";",
    "select nope",
    "bogus",
    "select 1; select 2",
    "select 1; select 1 / 0; select 3",
    "select 1; bogus",
    "begin",
    "begin",
    "commit",
    "rollback",
    "savepoint a",
    "rollback to a",
    "begin; select 1; commit",
    "begin; select 1 / 0",
    "commit; select 1",
    "insert into t values (1)",
    "insert into t values (2); select count(*) from t",
    "insert into t values (3); select 1 / 0",
    "select count(*) from t",
    "copy t from stdin",
    "copy t from stdin; select 1",
    "copy t to stdout",
    "copy t to stdout (format csv, header)",
    "copy (select generate_series(1, 3)) to stdout (format binary)",
    "do $$ begin raise notice 'noted'; end $$",
    "set local my.x = 'simple'",
    "select coalesce(current_setting('my.x', true), '')",
    "declare c cursor for select generate_series(1, 9)",
    "fetch 2 from c",
    "prepare s1 as select 1",
    "prepare s2 (int) as select $1 + 1",
    "prepare s2 as select $1::text",
    "prepare s3 as insert into t values (4)",
    "prepare s3 as select nope",
    "prepare s1 as select 1; execute s1; deallocate s1",
    "prepare a as select 1; prepare b as select 1; execute a; deallocate a; execute b; deallocate b; execute b",
    "begin; prepare s1 as select 1; rollback; execute s1",
    "execute s1",
    "execute x1",
    "prepare x2 as select $1::text",
    "deallocate x2",
    "execute s2 (1)",
    "execute s2 (nope)",
    "execute s2",
    "execute s3; select 1",
    "explain (costs off) execute s1",
    "deallocate s1",
    "deallocate prepare s2",
    "deallocate all",
    "deallocate all; execute s1",
    "discard all",
];

/// One message, and how it reads in a report.
#[derive(Clone)]
struct Message {
    bytes: Vec<u8>,
    shown: String,
}

fn message(shown: impl Into<String>, bytes: Vec<u8>) -> Message {
    Message { bytes, shown: shown.into() }
}

fn parse(name: &str, sql: &str) -> Message {
    message(format!("Parse {name:?} {sql:?}"), super::raw::parse(name, sql))
}

fn bind(random: &mut Random, portal: &str, statement: &str, count: usize) -> Message {
    let count = if random.one_in(25) { random.below(3) } else { count };
    let values: Vec<&str> = (0..count).map(|_| if random.one_in(8) { random.of(VALUES) } else { "1" }).collect();
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend((values.len() as u16).to_be_bytes());
    for value in &values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    match random.below(3) {
        0 => body.extend([0, 1, 0, 1]),
        _ => body.extend([0, 0]),
    }
    message(format!("Bind {portal:?} {statement:?} {values:?}"), frame(b'B', &body))
}

fn execute(random: &mut Random, portal: &str) -> Message {
    let rows = random.of(&[&0u32, &0, &0, &1, &2]);
    let body = [portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat();
    message(format!("Execute {portal:?} {rows}"), frame(b'E', &body))
}

fn named(tag: char, kind: char, name: &str) -> Message {
    let verb = if tag == 'D' { "Describe" } else { "Close" };
    message(format!("{verb} {kind} {name:?}"), frame(tag as u8, format!("{kind}{name}\0").as_bytes()))
}

fn synced() -> Message {
    message("Sync", sync())
}

/// int4pl(a, b), or a function that does not exist.
fn function_call(random: &mut Random) -> Message {
    let oid = if random.one_in(4) { 4_000_000u32 } else { 177 };
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 2]);
    for value in ["3", "4"] {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    message(format!("FunctionCall {oid}"), frame(b'F', &body))
}

fn copy_data(random: &mut Random) -> Vec<Message> {
    // A Sync between data may be read before or after the server gives up: only one before all data is certain.
    let mut messages = if random.one_in(4) { vec![synced()] } else { Vec::new() };
    for _ in 0..random.below(3) {
        let line = random.of(&["5\n", "6\n7\n", "x\n"]);
        messages.push(message(format!("CopyData {line:?}"), frame(b'd', line.as_bytes())));
    }
    match random.below(4) {
        0 => messages.push(message("CopyFail", frame(b'f', b"enough\0"))),
        _ => messages.push(message("CopyDone", frame(b'c', b""))),
    }
    messages
}

/// What a client may have meant, more or less.
fn some_messages(random: &mut Random) -> Vec<Message> {
    let (portal, name) = (random.of(PORTALS), random.of(NAMES));
    let (sql, count) = EXTENDED[random.below(EXTENDED.len())];
    // EXECUTE of a statement that is itself a PREPARE is refused here.
    let speaks = ["prepare", "execute", "deallocate", "explain"].iter().any(|word| sql.starts_with(word));
    let name = if speaks && !name.is_empty() { "command" } else { name };
    let mut messages = match random.below(14) {
        0..=4 => {
            let sql = random.of(SIMPLE);
            vec![message(format!("Query {sql:?}"), query(sql))]
        }
        5..=7 => {
            let mut messages = vec![parse(name, sql), bind(random, portal, name, count)];
            if random.one_in(2) {
                messages.push(named('D', 'P', portal));
            }
            messages.push(execute(random, portal));
            messages
        }
        8 => vec![bind(random, portal, name, count), execute(random, portal)],
        9 => vec![parse(name, sql)],
        10 => vec![named(*random.of(&[&'D', &'C']), *random.of(&[&'S', &'P']), random.of(NAMES))],
        11 => vec![execute(random, portal)],
        12 => vec![named('C', 'S', name), parse(name, sql), named('D', 'S', name)],
        _ => match random.below(4) {
            0 => vec![message("Flush", frame(b'H', b""))],
            1 => vec![function_call(random)],
            2 => copy_data(random),
            _ => vec![synced()],
        },
    };
    if messages.iter().any(|message| message.shown.contains("copy t from")) && !random.one_in(10) {
        messages.extend(copy_data(random));
    }
    if !messages[0].shown.starts_with("Query") && !random.one_in(3) {
        messages.push(synced());
    }
    messages
}

fn rounds(seed: u64) -> Vec<Vec<Message>> {
    let mut random = Random(seed);
    (0..1 + random.below(4))
        .map(|_| (0..1 + random.below(5)).flat_map(|_| some_messages(&mut random)).collect())
        .collect()
}

const ENDS: usize = 6;

/// Sends a round and gives all answers; an end that both servers reach is put behind it.
fn answers(client: &mut Raw, round: &[Message]) -> Vec<Frame> {
    let mut bytes: Vec<u8> = round.iter().flat_map(|message| message.bytes.clone()).collect();
    bytes.extend([frame(b'f', b"end\0"), sync()].concat());
    // An empty query is answered in failed transactions too; so many in a row are not made otherwise.
    bytes.extend(query("").repeat(ENDS));
    client.send(&bytes);
    let (mut frames, mut empty) = (Vec::new(), 0);
    while let Some(frame) = client.try_read() {
        match frame.0 {
            b'I' => empty += 1,
            b'Z' => {}
            _ => empty = 0,
        }
        let last = empty == ENDS && frame.0 == b'Z';
        frames.push(frame);
        if last {
            break;
        }
    }
    frames
}

/// A frame without what may differ.
fn shown((tag, body): &Frame) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "|");
    match tag {
        b'S' => None,
        b'E' | b'N' => {
            let fields = body.split(|byte| *byte == 0);
            let kept = fields.filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R' | b'W' | b'q' | b'p')));
            let shown = format!("{} {}", *tag as char, kept.map(text).collect::<Vec<_>>().join("|"));
            // Which message it is that ends a COPY: a Parse that is not needed is not sent.
            let (front, back) = shown.split_once("unexpected message type 0x").unwrap_or((&shown, ""));
            Some(format!("{front}{}", back.get(2..).unwrap_or_default()))
        }
        b'T' => {
            // Name, table, column, type, size, modifier, format.
            let (mut out, mut rest) = (String::from("T"), &body[2..]);
            while let Some(end) = rest.iter().position(|byte| *byte == 0) {
                out.push_str(&format!(" {} {:?}", text(&rest[..end]), &rest[end + 5..end + 19]));
                rest = &rest[end + 19..];
            }
            Some(out)
        }
        _ => Some(format!("{} {}", *tag as char, text(body))),
    }
}

struct Pair {
    stage: Stage,
    direct: Cluster,
}

const SCHEMA: &str = "drop table if exists t; create table t (k int)";

impl Pair {
    fn new() -> Self {
        let direct = Cluster::start_with(&Options::default()).unwrap();
        Self { stage: Stage::new(1), direct }
    }

    fn login(port: u16, user: &str, password: &str, database: &str) -> Raw {
        let client = Raw::login(port, user, password, database, &[]);
        client.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client
    }

    fn direct(&self, port: u16) -> Raw {
        Self::login(port, "postgres", "postgres", "postgres")
    }

    /// Where the answers differ, if they do.
    fn difference(&self, rounds: &[Vec<Message>]) -> Option<String> {
        let (mut plain, mut setup) = (self.direct(self.direct.port()), self.direct(self.stage.cluster.port()));
        let proxy = self.stage.proxy.port();
        let mut pooled = Self::login(proxy, "app", "secret", "app");
        let mut other = Self::login(proxy, "app", "secret", "app");
        let select = message("select", query("select 'other'"));
        setup.query(SCHEMA);
        plain.query(SCHEMA);
        for (number, round) in rounds.iter().enumerate() {
            let mut said = [Vec::new(), Vec::new()];
            let mut alive = true;
            for (client, said) in [&mut plain, &mut pooled].into_iter().zip(&mut said) {
                let frames = answers(client, round);
                alive &= frames.last().is_some_and(|(tag, _)| *tag == b'Z');
                *said = frames.iter().filter_map(shown).collect();
            }
            if said[0] != said[1] {
                let at = said[0].iter().zip(&said[1]).take_while(|(a, b)| a == b).count();
                let context = |said: &[String]| said[at.saturating_sub(3)..said.len().min(at + 4)].join("\n    ");
                return Some(format!(
                    "round {number}, answer {at}:\n  PostgreSQL said\n    {}\n  pgweir said\n    {}",
                    context(&said[0]),
                    context(&said[1])
                ));
            }
            if !alive {
                return None;
            }
            if said[0].last().is_some_and(|last| last == "Z I") {
                let heard = format!(
                    "{:?}",
                    answers(&mut other, std::slice::from_ref(&select)).iter().filter_map(shown).collect::<Vec<_>>()
                );
                if !heard.contains("other") {
                    return Some(format!("round {number}: another client heard {heard}"));
                }
            }
        }
        None
    }

    /// Takes away what the difference does not need.
    fn smallest(&self, mut rounds: Vec<Vec<Message>>, mut why: String) -> (Vec<Vec<Message>>, String) {
        let mut again = true;
        while again {
            again = false;
            for round in 0..rounds.len() {
                for at in (0..rounds[round].len()).rev() {
                    let mut fewer = rounds.clone();
                    fewer[round].remove(at);
                    if let Some(still) = self.difference(&fewer) {
                        (rounds, why, again) = (fewer, still, true);
                    }
                }
            }
        }
        (rounds, why)
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn answers_are_those_of_postgresql() {
    let pair = Pair::new();
    let first = number("PGWEIR_SEED", 1);
    for seed in first..first + number("PGWEIR_SEQUENCES", 300) {
        let rounds = rounds(seed);

        let Some(why) = pair.difference(&rounds) else { continue };
        eprintln!("seed {seed}\n{}  {why}\nlooking for a shorter one", report(&rounds));
        let (rounds, why) = pair.smallest(rounds, why);
        panic!("seed {seed}\n  sent, by rounds\n{}  {why}", report(&rounds));
    }
}

/// Sequences that once were answered otherwise than by PostgreSQL.
#[test]
fn what_was_wrong_once_stays_right() {
    let pair = Pair::new();
    let simple = |sql: &str| message(format!("Query {sql:?}"), query(sql));
    let cases = [
        // A message that has to wait for what comes before it, which is a COPY that it ends.
        vec![simple("copy t from stdin; select 1"), simple("deallocate s1")],
        vec![simple("copy t from stdin"), simple("prepare s1 as select 1")],
        vec![simple("begin; copy t from stdin"), parse("s1", "select 1")],
        // A Sync that is not a part of the COPY, as that has failed when it comes.
        vec![simple("copy t from stdin; select 1"), message("CopyData", frame(b'd', b"x\n")), message("Sync", sync())],
        // A name that is taken before the error that speaks of it has come.
        vec![
            parse("s2", "select 1"),
            message("Bind s2", frame(b'B', b"\0s2\0\0\0\0\x01\0\0\0\x01x\0\0")),
            parse("", "deallocate all"),
            message("Bind", frame(b'B', b"\0\0\0\0\0\0\0\0")),
            message("Execute", frame(b'E', b"\0\0\0\0\0")),
        ],
        vec![
            parse("s2", "select 1"),
            message("Bind s2", frame(b'B', b"\0s2\0\0\0\0\x01\0\0\0\x01x\0\0")),
            message("Close s2", frame(b'C', b"Ss2\0")),
        ],
        // One of two names for the same statement.
        vec![
            simple(
                "prepare s1 (int) as select $1 + 1; prepare s2 (int) as select $1 + 1; prepare s3 (int) as select $1 + 1",
            ),
            message("Bind s2", frame(b'B', b"\0s2\0\0\0\0\0\0\0")),
            message("Sync", sync()),
            message("Bind s3", frame(b'B', b"\0s3\0\0\0\0\0\0\0")),
        ],
    ];
    for round in cases.into_iter().cycle().take(60) {
        let rounds = [round];
        let difference = pair.difference(&rounds);
        assert!(difference.is_none(), "{}{}", report(&rounds), difference.unwrap_or_default());
    }
}

fn report(rounds: &[Vec<Message>]) -> String {
    let lines =
        |round: &Vec<Message>| round.iter().map(|message| format!("    {}\n", message.shown)).collect::<String>();
    rounds.iter().map(lines).collect::<Vec<_>>().join("    --\n")
}
