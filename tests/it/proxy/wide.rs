//! A wide schema (enums, ICU collations, quoted names, foreign keys, triggers, row security, keys of several types) on one PostgreSQL and
//! over shards: one statement after the other, reads and writes, each with the same answer or a refusal.

use super::raw::{bind, execute, parse, query, shown, sync};
use super::scatter::{Both, essence, is_refused, lines};

const SHARDING: &str = "{tables: {\"Customers\": {key: Id}, orders: {key: customer}, lines: {key: customer}, \
                        events: {key: tenant}, docs: {key: code}, \"RLS\": {key: owner}}, reference: [places, \"Ärger\"]}";

/// Sequences, identity columns, and keys with defaults.
const COUNTING: &str = "{tables: {posts: {key: id}, notes: {key: author}, files: {key: id}, days: {key: id}, \
                        always: {key: id}}, reference: [kinds]}";

#[test]
fn each_statement_is_answered_as_by_one_database_or_refused() {
    over_2_3_and_5(SHARDING, "wide.sql", 2);
}

#[test]
fn what_shards_would_make_up_is_what_one_database_makes_up() {
    over_2_3_and_5(COUNTING, "generated.sql", 0);
}

#[test]
fn where_shards_would_count_each_for_itself_it_is_refused() {
    let both = Both::with_sharding(2, "best-effort", COUNTING);
    let mut several = both.several();
    several.query("create table notes (id bigserial, author bigint primary key, body text)");
    several.query("create table posts (id bigserial primary key, title text)");
    for sql in [
        "update notes set id = default",
        "update notes set id = default where author = 1",
        "insert into notes (author, body) values (1, 'x') on conflict (author) do update set id = default",
        "insert into notes values (default, 9), (33, 8)",
        "insert into notes overriding user value values (11, 1, 'x')",
        "insert into posts (id, title) values (default, 'p'), (5000, 'q')",
        "insert into notes (author) values (nextval('notes_id_seq'))",
        "alter table notes add column more bigserial",
        "select currval('notes_id_seq')",
        "insert into notes (body) values ('no author')",
        "copy notes (author, body) from stdin",
    ] {
        assert!(several.query(sql).starts_with("E:0A000"), "{sql}");
    }
    assert_eq!(several.value("select count(*) from notes"), "0");
}

fn over_2_3_and_5(sharding: &'static str, file: &'static str, most_refused: usize) {
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let compare = |shards| scope.spawn(move || compare(shards, sharding, file));
        let runs: Vec<_> = [2, 3, 5].map(compare).into_iter().collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (answered, refused) in counts {
        println!("{answered} answered, {refused} refused");
        assert!(refused <= most_refused && answered > refused, "{refused} are refused, and {answered} answered");
    }
}

fn compare(shards: usize, sharding: &str, file: &str) -> (usize, usize) {
    let both = Both::with_sharding(shards, "best-effort", sharding);
    both.cluster.query("postgres", "create role limited").unwrap();
    let (mut one, mut several) = (both.one(), both.several());
    let (mut answered, mut refused, mut wrong) = (0, 0, Vec::new());
    for sql in lines(file) {
        let reads = ["select", "with", "values", "("].iter().any(|word| sql.starts_with(word));
        let extended = [parse("", &sql), bind("", &[]), execute(), sync()].concat();
        let ways = if reads { vec![query(&sql), extended] } else { vec![query(&sql)] };
        for (way, messages) in ways.iter().enumerate() {
            one.send(messages);
            several.send(messages);
            let (expected, heard) = (one.until_ready(1), several.until_ready(1));
            if is_refused(&heard) {
                println!("refused: {sql}");
                refused += usize::from(way == 0);
                break;
            }
            // The proxy's own errors say so.
            let told = |frames: &[super::raw::Frame]| -> Vec<String> {
                let own = |part: Vec<u8>| String::from_utf8_lossy(&part).replace("pgweir: ", "");
                // What is told before an error is of no use.
                let fails = frames.iter().any(|frame| frame.0 == b'E');
                let frames: Vec<_> =
                    frames.iter().filter(|frame| !fails || matches!(frame.0, b'E' | b'Z')).cloned().collect();
                essence(&frames).into_iter().map(own).collect()
            };
            if told(&expected) != told(&heard) {
                wrong.push(format!("{sql} ({way})\n{}\n{}", shown(&expected), shown(&heard)));
            }
            answered += usize::from(way == 0);
        }
    }
    assert!(wrong.is_empty(), "over {shards} shards {} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    (answered, refused)
}
