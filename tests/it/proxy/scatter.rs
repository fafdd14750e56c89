//! The same queries on one PostgreSQL and over 2, 3 and 5 shards: equal answers, or a refusal.

use pgweir::db::local::{Auth, Cluster, Options};

use super::raw::{Frame, Raw, bind, execute, field, frame, parse, query, shown, statement, sync};
use crate::support::{Proxy, repository};

/// One PostgreSQL with all rows, and a proxy before as many shards.
pub(super) struct Both {
    pub cluster: Cluster,
    pub proxy: Proxy,
}

pub(super) fn lines(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository("fixtures/scatter").join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

impl Both {
    pub fn new(shards: usize) -> Self {
        let both = Self::with_commit(shards, "best-effort");
        both.fill();
        both
    }

    /// Without any table.
    pub fn with_commit(shards: usize, commit: &str) -> Self {
        let sharding = "{tables: {customers: {key: id}, orders: {key: customer_id}, items: {key: customer_id}, \
                        moods: {key: id}}, reference: [countries]}";
        Self::with_sharding(shards, commit, sharding)
    }

    /// Without any table, for these.
    pub fn with_sharding(shards: usize, commit: &str, sharding: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        cluster.query("postgres", "create database one").unwrap();
        let mut servers = Vec::new();
        for shard in 0..shards {
            cluster.query("postgres", &format!("create database s{shard}")).unwrap();
            // So that numbers of tables and types differ.
            for number in 0..shard {
                cluster.query(&format!("s{shard}"), &format!("create type early{number} as (x int)")).unwrap();
            }
            let port = cluster.port();
            servers.push(format!(
                "{{name: s{shard}, primary: \"postgres://postgres:postgres@127.0.0.1:{port}/s{shard}?sslmode=disable\"}}"
            ));
        }
        let proxy = Proxy::start(&format!(
            "users: {{app: {{password: secret}}}}\ndatabases:\n  shop:\n    shards: [{}]\n    commit: {commit}\n    \
             pool: {{size: 4, wait_timeout: 3s}}\n    sharding: {sharding}\n",
            servers.join(", ")
        ));
        Self { cluster, proxy }
    }

    fn fill(&self) {
        let (mut one, mut several) = (self.one(), self.several());
        let mut run = |sql: &str| {
            let (expected, heard) = (one.query(sql), several.query(sql));
            assert!(!expected.contains("E:") && expected == heard, "{sql}: {expected} / {heard}");
        };
        lines("schema.sql").iter().for_each(|sql| run(sql));
        for (code, name) in [("de", "Germany"), ("fr", "France"), ("xx", "nobody")] {
            run(&format!("insert into countries values ('{code}', '{name}')"));
        }
        for id in 1..=45 {
            let name = if id % 7 == 0 { "null".to_owned() } else { format!("'n{id}ä'") };
            let country = ["'de'", "'fr'", "'it'", "null"][id % 4];
            run(&format!(
                "insert into customers values ({id}, {name}, {country}, {}, date '1980-01-01' + {id}, {id} / 7.0::float8)",
                id % 3 == 0
            ));
            for order in 0..id % 4 {
                run(&format!(
                    "insert into orders values ({id}, {}, {}.50, '2026-01-0{}T10:00:00Z', '{{x,y{id}}}', '{{\"a\": {}, \"b\": [1, null]}}')",
                    id * 10 + order,
                    id * 3 + order,
                    order + 1,
                    order % 2
                ));
                run(&format!(
                    "insert into items values ({id}, {}, {order}, '00000000-0000-0000-0000-0000000000{id:02}', {order}, '\\x00{id:02}')",
                    id * 10 + order
                ));
            }
        }
    }

    pub fn one(&self) -> Raw {
        Raw::login(self.cluster.port(), "postgres", "postgres", "one", &[])
    }

    pub fn several(&self) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", "shop", &[])
    }
}

/// What must be equal: columns without the table's number, rows in any order, tags, and of errors their code and message.
pub(super) fn essence(frames: &[Frame]) -> Vec<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = frames.iter().filter(|(tag, _)| *tag == b'D').map(|(_, body)| body.clone()).collect();
    rows.sort();
    let mut out: Vec<Vec<u8>> = Vec::new();
    for (tag, body) in frames {
        match tag {
            b'D' => out.append(&mut rows),
            b'S' | b'N' => {}
            b'T' => out.push(columns(body)),
            b'E' => out.push(format!("E {} {}", field(body, b'C'), field(body, b'M')).into_bytes()),
            _ => out.push([&[*tag][..], body].concat()),
        }
    }
    out
}

fn columns(body: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (body[..2].to_vec(), &body[2..]);
    while !rest.is_empty() {
        let name = rest.iter().position(|byte| *byte == 0).unwrap() + 1;
        out.extend(&rest[..name]);
        let kind = u32::from_be_bytes(rest[name + 6..name + 10].try_into().unwrap());
        // Types of users have other numbers in another database.
        out.extend(kind.min(16384).to_be_bytes());
        out.extend(&rest[name + 10..name + 18]);
        rest = &rest[name + 18..];
    }
    out
}

/// The ways in which a query can be asked.
fn ways(sql: &str) -> Vec<(&'static str, Vec<u8>)> {
    let binary = frame(b'B', b"\0\0\0\0\0\0\0\x01\0\x01");
    let portal = frame(b'D', b"P\0");
    vec![
        ("simple", query(sql)),
        ("extended", [parse("", sql), bind("", &[]), portal.clone(), execute(), sync()].concat()),
        ("undescribed", [parse("", sql), bind("", &[]), execute(), sync()].concat()),
        ("statement described", [parse("", sql), statement(b'D', ""), bind("", &[]), execute(), sync()].concat()),
        ("binary", [parse("", sql), binary, portal, execute(), sync()].concat()),
    ]
}

pub(super) fn is_refused(frames: &[Frame]) -> bool {
    frames
        .iter()
        .any(|(tag, body)| *tag == b'E' && field(body, b'C') == "0A000" && field(body, b'M').contains("refused:"))
}

#[test]
fn answers_are_those_of_one_database() {
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let runs: Vec<_> = [2, 3, 5].map(|shards| scope.spawn(move || compare(shards))).into_iter().collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (answered, refused) in counts {
        println!("{answered} answered, {refused} refused");
        // A refusal is a gap, and fewer answers than there were is a step back.
        assert!(answered >= 49, "{answered} answered, {refused} refused");
    }
}

fn compare(shards: usize) -> (usize, usize) {
    let both = Both::new(shards);
    let (mut one, mut several) = (both.one(), both.several());
    let (mut answered, mut refused, mut wrong) = (0, 0, Vec::new());
    for (file, must) in [
        ("answered.sql", true),
        ("groups.sql", true),
        ("views.sql", true),
        ("ordered.sql", true),
        ("free.sql", true),
        ("either.sql", false),
    ] {
        for sql in lines(file) {
            let mut refusals = 0;
            for (way, messages) in ways(&sql) {
                one.send(&messages);
                several.send(&messages);
                let (expected, heard) = (one.until_ready(1), several.until_ready(1));
                let is_free = is_refused(&heard) && !must;
                refusals += usize::from(is_free);
                let right = if file == "ordered.sql" {
                    expected.iter().map(comparable).eq(heard.iter().map(comparable))
                } else if file == "free.sql" {
                    shape(&expected) == shape(&heard)
                } else {
                    is_equal(&sql, &expected, &heard)
                };
                if !is_free && !right {
                    let errors: Vec<String> =
                        heard.iter().filter(|(tag, _)| *tag == b'E').map(|(_, body)| field(body, b'M')).collect();
                    let (expected, heard, errors) = (shown(&expected), shown(&heard), errors.join(" "));
                    wrong.push(format!("over {shards} shards, {way}: {sql}\n{expected}\n{heard} {errors}"));
                }
            }
            // Formats may be refused one by one.
            if refusals > 0 {
                println!("refused: {sql}");
                refused += 1;
            } else {
                answered += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    (answered, refused)
}

/// The messages, where the values are left to chance.
fn shape(frames: &[Frame]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| if frame.0 == b'D' { vec![b'D'] } else { comparable(frame) }).collect()
}

/// A frame as it must be on both sides.
fn comparable(frame: &Frame) -> Vec<u8> {
    essence(std::slice::from_ref(frame)).concat()
}

/// Equal answers; where LIMIT leaves the choice, as many rows. Which rows come before an error is left to the server.
fn is_equal(sql: &str, expected: &[Frame], heard: &[Frame]) -> bool {
    let errors =
        |frames: &[Frame]| essence(frames).into_iter().filter(|frame| frame.starts_with(b"E")).collect::<Vec<_>>();
    if !errors(expected).is_empty() {
        return errors(expected) == errors(heard);
    }
    let free = sql.contains(" limit ") || sql.contains(" fetch first ");
    if !free || sql.contains("order by") {
        return essence(expected) == essence(heard);
    }
    let rows = |frames: &[Frame]| frames.iter().filter(|(tag, _)| *tag == b'D').count();
    let rest = |frames: &[Frame]| {
        let other: Vec<Frame> = frames.iter().filter(|(tag, _)| *tag != b'D').cloned().collect();
        essence(&other)
    };
    rows(expected) == rows(heard) && rest(expected) == rest(heard)
}

#[test]
fn parameters_choose_the_shards_and_the_amount() {
    let both = Both::new(3);
    let (mut one, mut several) = (both.one(), both.several());
    for raw in [&mut one, &mut several] {
        let sql = "select id from customers where id = any($1::bigint[]) or country = $2 limit $3";
        let described = [parse("p", sql), statement(b'D', "p"), sync()].concat();
        raw.send(&described);
        raw.until_ready(1);
    }
    for values in [["{1,2,3}", "it", "100"], ["{}", "none", "5"], ["{4,5,6,7,8}", "none", "0"], ["{1}", "none", "9"]] {
        let messages = [bind("p", &values), execute(), sync()].concat();
        one.send(&messages);
        several.send(&messages);
        let (expected, heard) = (one.until_ready(1), several.until_ready(1));
        assert_eq!(essence(&expected), essence(&heard), "{values:?}");
    }
    // As many as wanted where more are there.
    let heard = several.talk(&[bind("p", &["{1,2,3,4,5,6}", "de", "4"]), execute(), sync()], 1);
    assert!(heard.ends_with("C:SELECT_4 Z:I") && heard.matches("D:").count() == 4, "{heard}");
    for (values, word) in [(["{1,2}", "NOW", "4"], "now"), (["{1,2}", "de", "-1"], "LIMIT")] {
        several.send(&[bind("p", &values), execute(), sync()].concat());
        let heard = several.until_ready(1);
        assert!(
            is_refused(&heard) && field(&heard.last().unwrap_or(&heard[0]).1, b'X').is_empty(),
            "{word}: {}",
            shown(&heard)
        );
    }
}

#[test]
fn transactions_pipelines_and_errors() {
    let both = Both::new(3);
    let mut raw = both.several();
    raw.query("begin");
    assert!(raw.query("insert into customers values (900, 'new')").starts_with("C:INSERT_0_1"));
    let heard = raw.query("select id from customers where name = 'new'");
    assert_eq!(heard, "T D:900 C:SELECT_1 Z:T");
    let heard = raw.query("select 1/(id - 5) from customers");
    assert!(heard.ends_with("E:22012 Z:E"), "{heard}");
    assert_eq!(raw.query("select id from customers"), "E:25P02 Z:E");
    raw.query("rollback");
    assert_eq!(raw.query("select id from customers where name = 'new'"), "T C:SELECT_0 Z:I");
    // After an error of some shards all of them are ready again.
    for _ in 0..3 {
        assert!(raw.query("select 1/(id - 5) from customers").ends_with("E:22012 Z:I"));
        assert_eq!(raw.query("select name from customers where name = 'n9ä'"), "T D:n9ä C:SELECT_1 Z:I");
    }
    let one = "select id from customers where name = 'n9ä'";
    let pipeline = [parse("", one), bind("", &[]), execute(), parse("", one), bind("", &[]), execute(), sync()];
    assert_eq!(raw.talk(&pipeline, 1), "1 2 D:9 C:SELECT_1 1 2 D:9 C:SELECT_1 Z:I");
    // Rows that are locked are locked where they are.
    raw.query("begin");
    assert!(raw.query("select id from customers where id in (1, 2, 3, 4, 5) for update").ends_with("C:SELECT_5 Z:T"));
    let mut other = both.several();
    for id in 1..=5 {
        assert_eq!(
            other.query(&format!("select id from customers where id = {id} for update nowait")),
            "T E:55P03 Z:I"
        );
    }
    assert!(other.query("select id from customers where id < 8 for update skip locked").ends_with("C:SELECT_2 Z:I"));
    raw.query("rollback");
    // The first rows are to be had, but not those after them.
    let two = frame(b'E', b"\0\0\0\0\x02");
    for sql in [
        "select id from customers",
        "select id from customers order by id",
        "select id from customers where id in (1, 2, 3, 4)",
    ] {
        let heard = raw.talk(&[parse("", sql), bind("", &[]), two.clone(), sync()], 1);
        assert!(heard.ends_with("s Z:I") && heard.matches("D:").count() == 2, "{sql}: {heard}");
        let heard = raw.talk(&[parse("", sql), bind("", &[]), two.clone(), two.clone(), sync()], 1);
        assert!(heard.ends_with("E:0A000 Z:I"), "{sql}: {heard}");
    }
    assert_eq!(raw.value("select id from customers where name = 'n9ä'"), "9");
    let closing = [parse("x", one), bind("x", &[]), execute(), frame(b'C', b"P\0"), statement(b'C', "x"), sync()];
    assert_eq!(raw.talk(&closing, 1), "1 2 D:9 C:SELECT_1 3 3 Z:I");
}

#[test]
fn types_of_users_are_not_mixed() {
    let both = Both::new(2);
    let mut raw = both.several();
    raw.query("create type mood as enum ('sad', 'happy')");
    raw.query("create table moods (id bigint primary key, mood mood)");
    for id in 1..6 {
        assert_eq!(raw.query(&format!("insert into moods values ({id}, 'happy')")), "C:INSERT_0_1 Z:I");
    }
    // The first shard's number of the type, which catalogs tell too, and the values as text; in binary form numbers may be inside.
    for sql in ["select mood from moods", "select mood from moods order by mood limit 5"] {
        raw.send(&query(sql));
        let heard = raw.until_ready(1);
        assert!(shown(&heard).ends_with("C:SELECT_5 Z:I"), "{}", shown(&heard));
        let number = u32::from_be_bytes(heard[0].1[2 + 5 + 6..][..4].try_into().unwrap());
        assert_eq!(number.to_string(), raw.value("select oid from pg_type where typname = 'mood'"));
    }
    let binary = |sql: &str| [parse("", sql), frame(b'B', b"\0\0\0\0\0\0\0\x01\0\x01"), execute(), sync()];
    let all = raw.talk(&binary("select mood from moods"), 1);
    assert!(all.ends_with("C:SELECT_5 Z:I") && all.contains("D:happy"), "{all}");
    // Of rows that are written each shard says what they are.
    assert_eq!(raw.talk(&binary("update moods set mood = 'sad' returning mood"), 1), "1 2 E:0A000 Z:I");
    assert!(raw.talk(&binary("select mood from moods order by id"), 1).ends_with("C:SELECT_5 Z:I"));
    assert_eq!(raw.value("select count(*) from moods where mood = 'happy'"), "5");
    assert_eq!(raw.value("select max(mood)::text from moods"), "happy");
    assert_eq!(raw.value("select mood from moods where id = 3"), "happy");
}

#[test]
fn many_rows_pass_through_at_the_clients_pace() {
    let both = Both::new(3);
    for shard in 0..3 {
        let fill = "insert into items select 1000 + n, n, 1, null, 1, repeat('x', 500)::bytea from generate_series(1, 20000) n";
        both.cluster.query(&format!("s{shard}"), fill).unwrap();
    }
    let mut raw = both.several();
    raw.send(&query("select * from items where order_id > 0 and raw is not null"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    let heard = raw.until_ready(1);
    assert!(heard.iter().filter(|(tag, _)| *tag == b'D').count() >= 60_000);
    // One that leaves in the middle leaves nothing behind.
    let mut gone = both.several();
    gone.send(&query("select * from items"));
    gone.read();
    drop(gone);
    assert_eq!(raw.value("select name from customers where name = 'n9ä'"), "n9ä");
}

/// A client knows types and tables by the first shard's numbers, whichever shard answers.
#[test]
fn numbers_of_types_and_tables_are_the_first_shards() {
    let both = Both::new(3);
    let mut raw = both.several();
    raw.query("create type mood as enum ('sad', 'happy')");
    raw.query("create type pair as (a int, m mood)");
    raw.query("create table moods (id bigint primary key, m mood, ms mood[], p pair)");
    for id in 1..=12 {
        let row = format!("insert into moods values ({id}, 'happy', '{{sad,happy}}', row({id}, 'sad'))");
        assert_eq!(raw.query(&row), "C:INSERT_0_1 Z:I");
    }
    let mut number = |sql: &str| raw.value(sql).parse::<u32>().unwrap();
    let (table, mood, moods, pair) = (
        number("select oid from pg_class where relname = 'moods'"),
        number("select oid from pg_type where typname = 'mood'"),
        number("select oid from pg_type where typname = '_mood'"),
        number("select oid from pg_type where typname = 'pair'"),
    );
    let described = |frames: &[Frame]| -> Vec<(u32, u32)> {
        let (_, body) = frames.iter().find(|(tag, _)| *tag == b'T').expect("a description");
        let (mut out, mut rest) = (Vec::new(), &body[2..]);
        while !rest.is_empty() {
            let name = rest.iter().position(|byte| *byte == 0).unwrap() + 1;
            let word = |at: usize| u32::from_be_bytes(rest[name + at..name + at + 4].try_into().unwrap());
            out.push((word(0), word(6)));
            rest = &rest[name + 18..];
        }
        out
    };
    let expected = [(table, 20), (table, mood), (table, moods), (table, pair)];
    let binary = |sql: &str, id: i64| {
        let mut bind = b"\0\0\0\x01\0\x01\0\x01\0\0\0\x08".to_vec();
        bind.extend(id.to_be_bytes());
        bind.extend(b"\0\x01\0\x01");
        [parse("", sql), frame(b'B', &bind), frame(b'D', b"P\0"), execute(), sync()].concat()
    };
    for id in 1..=12_i64 {
        raw.send(&query(&format!("select id, m, ms, p from moods where id = {id}")));
        assert_eq!(described(&raw.until_ready(1)), expected, "{id}");
        raw.send(&binary("select id, m, ms, p from moods where id = $1", id));
        let heard = raw.until_ready(1);
        assert_eq!(described(&heard), expected, "{id}");
        let (_, row) = heard.iter().find(|(tag, _)| *tag == b'D').unwrap();
        // Within arrays and rows as well.
        let inside = |number: u32| row.windows(4).any(|bytes| bytes == number.to_be_bytes());
        assert!(inside(mood), "{id}: {}", shown(&heard));
        // A type that the client declares.
        let declared = [
            b"\0select id from moods where id = $1 and m = $2\0\0\x02\0\0\0\x14".to_vec(),
            mood.to_be_bytes().to_vec(),
        ]
        .concat();
        raw.send(&[frame(b'P', &declared), bind("", &[&id.to_string(), "happy"]), execute(), sync()].concat());
        assert!(shown(&raw.until_ready(1)).contains(&format!("D:{id} C:SELECT_1")), "{id}");
        let update = format!("update moods set m = m where id = {id} returning ms");
        let heard = raw.talk(&[parse("", &update), frame(b'B', b"\0\0\0\0\0\0\0\x01\0\x01"), execute(), sync()], 1);
        assert!(heard.contains("C:UPDATE_1") || heard.contains("E:0A000"), "{heard}");
    }
    raw.send(&query("select id, m, ms, p from moods where id in (2, 3, 5, 7, 11)"));
    assert_eq!(described(&raw.until_ready(1)), expected);
    assert!(raw.query("copy moods to stdout (format binary)").starts_with("E:0A000"));
    // What parameters are, too.
    raw.send(&[parse("s", "select id from moods where id = 3 and m = $1"), frame(b'D', b"Ss\0"), sync()].concat());
    let heard = raw.until_ready(1);
    let (_, told) = heard.iter().find(|(tag, _)| *tag == b't').unwrap();
    assert_eq!(told[2..], mood.to_be_bytes());
}
