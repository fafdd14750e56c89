//! A wide schema (enums, ICU collations, quoted names, foreign keys, triggers, row security, keys of several types) on one PostgreSQL and
//! over shards: one statement after the other, reads and writes, each with the same answer or a refusal.

use pgweir::db::local::{Auth, Cluster, Options};

use super::raw::{Raw, bind, execute, parse, query, shown, sync};
use super::scatter::{essence, is_refused, lines};
use crate::support::Proxy;

const SHARDING: &str = "{tables: {\"Customers\": {key: Id}, orders: {key: customer}, lines: {key: customer}, \
                        events: {key: tenant}, docs: {key: code}, \"RLS\": {key: owner}}, reference: [places, \"Ärger\"]}";

#[test]
fn each_statement_is_answered_as_by_one_database_or_refused() {
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let runs: Vec<_> = [2, 3, 5].map(|shards| scope.spawn(move || compare(shards))).into_iter().collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (answered, refused) in counts {
        println!("{answered} answered, {refused} refused");
        assert!(refused <= 2, "{refused} are refused, and {answered} answered");
    }
}

fn compare(shards: usize) -> (usize, usize) {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    cluster.query("postgres", "create role limited").unwrap();
    cluster.query("postgres", "create database one").unwrap();
    let port = cluster.port();
    let servers: Vec<String> = (0..shards)
        .map(|shard| {
            cluster.query("postgres", &format!("create database s{shard}")).unwrap();
            for number in 0..shard {
                cluster.query(&format!("s{shard}"), &format!("create type early{number} as (x int)")).unwrap();
            }
            let url = format!("postgres://postgres:postgres@127.0.0.1:{port}/s{shard}?sslmode=disable");
            format!("{{name: s{shard}, primary: \"{url}\"}}")
        })
        .collect();
    let proxy = Proxy::start(&format!(
        "users: {{app: {{password: secret}}}}\ndatabases:\n  shop:\n    shards: [{}]\n    commit: best-effort\n    \
         pool: {{size: 4, wait_timeout: 3s}}\n    sharding: {SHARDING}\n",
        servers.join(", ")
    ));
    let mut one = Raw::login(port, "postgres", "postgres", "one", &[]);
    let mut several = Raw::login(proxy.port(), "app", "secret", "shop", &[]);
    let (mut answered, mut refused, mut wrong) = (0, 0, Vec::new());
    for sql in lines("wide.sql") {
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
