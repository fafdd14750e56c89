//! The same writes on one PostgreSQL and over 2, 3 and 5 shards: equal answers and equal rows afterwards, or a refusal that changes nothing.

use super::raw::{Raw, bind, execute, field, frame, parse, query, shown, sync};
use super::scatter::{Both, essence, is_refused, lines};

/// What the tables hold.
const CONTENTS: &[&str] = &[
    "select * from customers order by id",
    "select * from orders order by id, customer_id",
    "select * from items order by customer_id, order_id, line",
];

fn contents(raw: &mut Raw) -> Vec<String> {
    CONTENTS
        .iter()
        .map(|sql| {
            raw.send(&query(sql));
            shown(&raw.until_ready(1))
        })
        .collect()
}

#[test]
fn writes_are_those_of_one_database() {
    std::thread::scope(|scope| {
        let runs: Vec<_> = [2, 3, 5].map(|shards| scope.spawn(move || compare(shards))).into_iter().collect();
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
}

fn compare(shards: usize) {
    let both = Both::new(shards);
    let (mut one, mut several) = (both.one(), both.several());
    let before = contents(&mut one);
    assert_eq!(contents(&mut several), before);
    let mut wrong = Vec::new();
    for sql in lines("writes.sql") {
        let portal = frame(b'D', b"P\0");
        let extended = [parse("", &sql), bind("", &[]), portal, execute(), sync()].concat();
        let mut ways = vec![("simple", query(&sql))];
        if !sql.contains(';') {
            ways.push(("extended", extended));
        }
        for (way, messages) in ways {
            let mut seen = Vec::new();
            for raw in [&mut one, &mut several] {
                raw.query("begin");
                raw.send(&messages);
                let heard = raw.until_ready(1);
                let after = if shown(&heard).ends_with("Z:T") { contents(raw) } else { Vec::new() };
                let rolled_back = raw.query("rollback");
                seen.push((shown(&heard), errors(&heard), essence(&heard), after, rolled_back));
            }
            let (expected, heard) = (&seen[0], &seen[1]);
            let is_error = expected.0.contains("E:");
            let right = if is_error { expected.1 == heard.1 } else { expected.2 == heard.2 };
            if !right || expected.3 != heard.3 || expected.4 != heard.4 {
                let cut = |text: &str| text.chars().take(300).collect::<String>();
                let at = expected.3.iter().zip(&heard.3).position(|(one, other)| one != other);
                wrong.push(format!(
                    "over {shards} shards, {way}: {sql}\n{}\n{} {:?} {at:?}",
                    cut(&expected.0),
                    cut(&heard.0),
                    heard.1
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    // All of it was rolled back, on every shard.
    assert_eq!(contents(&mut several), before);
}

fn errors(frames: &[super::raw::Frame]) -> Vec<String> {
    let errors = frames.iter().filter(|(tag, _)| *tag == b'E');
    errors.map(|(_, body)| format!("{} {}", field(body, b'C'), field(body, b'M'))).collect()
}

#[test]
fn outside_a_block_all_or_nothing_is_written() {
    let both = Both::new(3);
    let mut raw = both.several();
    let inserted = "insert into customers (id, name) values (901, 'a'), (902, 'b'), (903, 'c'), (904, 'd')";
    assert_eq!(raw.query(inserted), "C:INSERT_0_4 Z:I");
    // One row is there already: none of the others is written.
    let again = "insert into customers (id, name) values (905, 'e'), (906, 'f'), (907, 'g'), (904, 'h')";
    assert_eq!(raw.query(again), "E:23505 Z:I");
    assert_eq!(raw.talk(&[parse("", again), bind("", &[]), execute(), sync()], 1), "1 2 E:23505 Z:I");
    assert_eq!(raw.value("select count(*) from customers where id > 900"), "4");
    let with_values = "insert into customers (id, name) values ($1, $2), ($3, $4), ($5, $6) returning id, name";
    let values = ["911", "x", "912", "y", "913", "z"];
    let heard = raw.talk(&[parse("", with_values), bind("", &values), execute(), sync()], 1);
    assert_eq!(heard, "1 2 D:911,x D:912,y D:913,z C:INSERT_0_3 Z:I");
    let update = "update customers set name = $1 where id > $2";
    let heard = raw.talk(&[parse("", update), bind("", &["q", "900"]), execute(), sync()], 1);
    assert_eq!(heard, "1 2 C:UPDATE_7 Z:I");
    // Some rows only are asked for, all are written.
    let delete = "delete from customers where id > 900 returning id";
    let two = frame(b'E', b"\0\0\0\0\x02");
    let heard = raw.talk(&[parse("", delete), bind("", &[]), two, sync()], 1);
    assert!(heard.ends_with("s Z:I") && heard.matches("D:").count() == 2, "{heard}");
    assert_eq!(raw.value("select count(*) from customers where id > 900"), "0");
}

#[test]
fn one_time_holds_on_all_shards() {
    let both = Both::new(3);
    let mut raw = both.several();
    let table = "create table moods (id bigint primary key, at timestamptz default now(), day date default current_date, n int)";
    assert_eq!(raw.query(table), "C:CREATE_TABLE Z:I");
    let times = "select concat_ws(',', count(distinct at), count(distinct day), count(*), count(at)) from moods";
    for (sql, expected) in [
        ("insert into moods (id) values (1), (2), (3), (4), (5)", "1,1,5,5"),
        ("insert into moods values (11), (12), (13), (14), (15)", "1,1,5,5"),
        ("insert into moods (id, n, at) values (21, 1, now()), (22, 2, now()), (23, 2, current_timestamp)", "1,1,3,3"),
    ] {
        raw.query(sql);
        assert_eq!(raw.value(times), expected, "{sql}");
        assert_eq!(
            raw.query("update moods set at = now(), day = current_date"),
            format!("C:UPDATE_{} Z:I", expected.split(',').nth(2).unwrap())
        );
        assert_eq!(raw.value("select count(distinct at) from moods"), "1");
        raw.query("update moods set at = default, day = default, n = default");
        assert_eq!(raw.value("select count(distinct at) + count(distinct day) + count(n) from moods"), "2");
        raw.query("delete from moods");
    }
    for refused in [
        "insert into moods (id, at) values (1, statement_timestamp()), (2, null), (3, null), (4, null), (5, null)",
        "insert into moods (id, at) values (1, default), (2, null), (3, null), (4, null), (5, null)",
        "update moods set n = (select count(*) from (select string_agg(code, ',' order by code) from countries) x)",
        "update moods set n = (select n from moods limit 1)",
        "update moods set n = (select count(*) from (select random() from moods) x)",
        "delete from moods where id in (select id from moods order by n limit 2)",
        "update moods set id = id + 1",
        "update moods set id = null where n = 1",
        "insert into moods (id) values (1) on conflict (id) do update set id = 7",
        "delete from moods where at < 'now'",
    ] {
        raw.send(&query(refused));
        let heard = raw.until_ready(1);
        assert!(is_refused(&heard), "{refused}: {}", shown(&heard));
    }
}

/// Rows that get another key are on its shard afterwards, and on no other; or nothing has changed.
#[test]
fn rows_move_with_their_key() {
    let both = Both::new(3);
    let mut raw = both.several();
    let where_it_is = |id: &str| {
        let count = format!("select count(*) from customers where id = {id}");
        ["s0", "s1", "s2"].map(|shard| both.cluster.query(shard, &count).unwrap()[0][0].clone().unwrap()).join("")
    };
    let mut moved = 0;
    for id in 6001..6011 {
        let before = raw.value(&format!("select count(*) from customers where id = {}", id - 1));
        let (old, new) = if before == "0" { ("6".to_owned(), id) } else { ((id - 1).to_string(), id) };
        let sql = "update customers set id = $1 where id = $2 returning name, id";
        let heard = raw.talk(&[parse("", sql), bind("", &[&new.to_string(), &old]), execute(), sync()], 1);
        assert!(heard.starts_with("1 2 D:") && heard.ends_with(&format!(",{new} C:UPDATE_1 Z:I")), "{heard}");
        let (gone, there) = (where_it_is(&old), where_it_is(&new.to_string()));
        assert_eq!((gone.as_str(), there.matches('1').count()), ("000", 1), "{id}");
        assert_eq!(raw.value(&format!("select count(*) from customers where id = {new}")), "1");
        moved += usize::from(there != "100");
    }
    assert!(moved > 0);

    let everywhere = |sql: &str| {
        for shard in ["s0", "s1", "s2"] {
            both.cluster.query(shard, sql).unwrap();
        }
    };
    // What would notice the move: each on all shards, then taken away.
    for (made, undone) in [
        (
            "create function f() returns trigger language plpgsql as 'begin return new; end'; \
             create trigger t before update on customers for each row execute function f()",
            "drop trigger t on customers; drop function f()",
        ),
        ("create rule r as on delete to customers do also notify gone", "drop rule r on customers"),
        ("create table follows (id bigint references customers on update cascade)", "drop table follows"),
        ("alter table customers enable row level security", "alter table customers disable row level security"),
    ] {
        everywhere(made);
        let before = contents(&mut raw);
        let mut refused = 0;
        for id in 7001..7006 {
            let heard = raw.query(&format!("update customers set id = {id} where id = 6010"));
            refused += usize::from(heard == "E:0A000 Z:I");
            if heard == "C:UPDATE_1 Z:I" {
                // It was at home already, or the catalog is older than what hinders.
                assert_eq!(raw.query(&format!("update customers set id = 6010 where id = {id}")), "C:UPDATE_1 Z:I");
            }
        }
        assert!(refused > 0, "{made}");
        assert_eq!(contents(&mut raw), before, "{made}");
        everywhere(undone);
    }
}

#[test]
fn a_second_writer_must_be_allowed() {
    let both = Both::with_commit(2, "refuse");
    for shard in ["s0", "s1"] {
        both.cluster.query(shard, "create table customers (id bigint primary key, name text)").unwrap();
    }
    let mut raw = both.several();
    assert_eq!(raw.query("insert into customers values (1, 'one')"), "C:INSERT_0_1 Z:I");
    for sql in
        ["update customers set name = 'x'", "insert into customers (id) values (901), (902), (903), (904), (905)"]
    {
        assert_eq!(raw.query(sql), "E:0A000 Z:I", "{sql}");
    }
    // A row moves within its shard only.
    let moves: Vec<String> =
        (2..12).map(|id| raw.query(&format!("update customers set id = {id} where name = 'one'"))).collect();
    assert!(moves.iter().any(|heard| heard == "E:0A000 Z:I"), "{moves:?}");
    assert_eq!(raw.value("select count(*) from customers"), "1");
    let at_home: Vec<String> =
        (2..12).map(|id| raw.query(&format!("update customers set id = {id} where id = 1"))).collect();
    assert!(at_home.iter().any(|heard| heard == "C:UPDATE_1 Z:I"), "{at_home:?}");
    assert_eq!(raw.value("select count(*) from customers"), "1");
    assert_eq!(raw.value("select count(*) from customers where name = 'x' or id > 900"), "0");
}

#[test]
fn definitions_made_on_the_shards_are_noticed() {
    let both = Both::new(2);
    let mut raw = both.several();
    assert_eq!(raw.value("select count(*) from countries, customers"), "135");
    for (definition, sql, expected) in [
        (
            "alter table customers add column more int default 7",
            "select * from customers order by id limit 1",
            "1,n1ä,fr,f,1980-01-02,0.14285714285714285,7",
        ),
        (
            "alter table customers drop column vip",
            "select * from customers order by id limit 1",
            "1,n1ä,fr,1980-01-02,0.14285714285714285,7",
        ),
        ("alter table customers alter column more type text", "select max(more) from customers", "7"),
        ("alter table customers rename column more to other", "select max(other) from customers", "7"),
    ] {
        for shard in ["s0", "s1"] {
            both.cluster.query(shard, definition).unwrap();
        }
        // Once it may be refused, as what was read of the catalog is older; never answered by what it was.
        let heard: Vec<String> = (0..2).map(|_| raw.query(sql)).collect();
        assert!(heard[0] == heard[1] || heard[0].starts_with("E:"), "{definition}: {heard:?}");
        assert!(heard[1].contains(&format!("D:{expected} C:")), "{definition}: {heard:?}");
    }
}
