//! `pgweir lint` on logs that a real server wrote: what was planted is found, and nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgweir::db::local::{Cluster, Options};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::support::{pgweir, stderr, stdout};

const SHOP: &str = "
    CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, email text, created_at timestamptz NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers (id), status text,
        total numeric, created_at timestamptz NOT NULL, note text);
    CREATE INDEX orders_customer ON orders (customer_id);
    INSERT INTO customers SELECT n, 'name-' || n, 'c' || n || '@example.org', now() FROM generate_series(1, 5000) n;
    INSERT INTO orders SELECT n, 1 + n % 5000, 'open', n, now(), 'n-' || n FROM generate_series(1, 40000) n;
    ANALYZE";

/// What one statement must be found guilty of, without and with the database at hand.
struct Planted {
    sql: &'static str,
    alone: &'static [&'static str],
    with_database: &'static [&'static str],
}

const fn sin(sql: &'static str, rules: &'static [&'static str]) -> Planted {
    Planted { sql, alone: rules, with_database: rules }
}

const SIMPLE: &[Planted] = &[
    sin("SELECT * FROM orders WHERE id = 7", &["select-star"]),
    sin("SELECT id FROM orders WHERE lower(note) = 'n-7'", &["function-on-column"]),
    sin("UPDATE customers SET created_at = now()", &["update-without-where"]),
    sin("SELECT id FROM customers WHERE email LIKE '%@nowhere'", &["leading-wildcard-like"]),
    sin("SELECT id\n\tFROM orders\n  WHERE note = NULL -- \"never\"\n    AND status = 'a;b'", &["equals-null"]),
    sin("SELECT id FROM orders ORDER BY id LIMIT 5 OFFSET 2000", &["offset-pagination"]),
    // Once the join is an inner one, customers is searched by a name that has no index.
    Planted {
        sql: "SELECT o.id FROM orders o LEFT JOIN customers c ON c.id = o.customer_id WHERE c.name = 'x'",
        alone: &["left-join-nullified"],
        with_database: &["left-join-nullified", "unindexed-scan"],
    },
    Planted {
        sql: "SELECT id FROM customers WHERE id NOT IN (SELECT customer_id FROM orders)",
        alone: &["not-in-nullable-subquery"],
        with_database: &[],
    },
    Planted { sql: "SELECT total FROM orders WHERE note = 'n-9'", alone: &[], with_database: &["unindexed-scan"] },
    // The innocent.
    sin("SELECT count(*) FROM customers WHERE id < 10", &[]),
    sin("SELECT name FROM customers WHERE email = 'SELECT * FROM t' AND id = 3", &[]),
    sin("SELECT id FROM nope WHERE id = 1", &[]),
    sin("SELECT status FROM orders WHERE customer_id IN (1, 2, 3)", &[]),
    sin("SELECT * FROM pg_stat_database", &[]),
];

const LOOPED: &str = "SELECT name FROM customers WHERE id = $1";
const PATTERN: &str = "SELECT id FROM customers WHERE name LIKE $1";
const TIMES: i64 = 15;

async fn misbehave(url: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    for planted in SIMPLE {
        let outcome = client.simple_query(planted.sql).await;
        assert_eq!(outcome.is_err(), planted.sql.contains("nope"), "{}", planted.sql);
    }
    extended(&client).await;
    workload(&client).await;
    client.simple_query("SELECT 'the end'").await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
}

const IDLED: &str = "UPDATE orders SET status = 'paid' WHERE id = 3";

/// What only the order and the times of a log show.
async fn workload(client: &Client) {
    for id in 0..120 {
        // Others in between, or it would be a loop too.
        client.simple_query(&format!("SELECT note FROM orders WHERE id = {id}")).await.unwrap();
        for other in ["SELECT 1", "SELECT 1, 2", "SELECT 1, 2, 3", "SELECT 1, 2, 3, 4"] {
            client.simple_query(other).await.unwrap();
        }
    }
    client.simple_query("BEGIN").await.unwrap();
    client.simple_query(IDLED).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.simple_query("COMMIT").await.unwrap();
}

async fn extended(client: &Client) {
    client.query(PATTERN, &[&"%e-77%"]).await.unwrap();
    for id in 1..=TIMES {
        client.query(LOOPED, &[&id]).await.unwrap();
    }
}

/// Waits until the log collector has written the last statement of a round, with its duration.
fn wait_for_end(log: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let ends = |text: &str| text.rfind("the end").is_some_and(|at| text[at..].contains("disconnection"));
    while !std::fs::read_to_string(log).is_ok_and(|text| ends(&text)) {
        assert!(Instant::now() < deadline, "{} was not written", log.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn set(cluster: &Cluster, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        cluster.query("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
    }
    cluster.query("postgres", "SELECT pg_reload_conf()").unwrap();
}

/// The findings as `rule: statement`, and the document.
fn lint(log: &Path, more: &[&str]) -> (BTreeSet<String>, Value) {
    let mut arguments = vec!["lint", "--format", "json", "--fail-on", "never"];
    arguments.extend(more);
    arguments.push(log.to_str().unwrap());
    let output = pgweir(&arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let said =
        |finding: &Value| format!("{}: {}", finding["rule"].as_str().unwrap(), finding["example"].as_str().unwrap());
    (document["findings"].as_array().unwrap().iter().map(said).collect(), document)
}

fn expected(rules: impl Fn(&'static Planted) -> &'static [&'static str]) -> BTreeSet<String> {
    let planted =
        SIMPLE.iter().flat_map(|planted| rules(planted).iter().map(|rule| format!("{rule}: {}", planted.sql)));
    let looped = [
        format!("n-plus-one: {LOOPED}"),
        format!("leading-wildcard-like: {PATTERN}"),
        format!("idle-in-transaction: {IDLED}"),
        "literals-not-parameterised: SELECT note FROM orders WHERE id = 0".to_owned(),
    ];
    planted.chain(looped).collect()
}

fn compare(found: &BTreeSet<String>, wanted: &BTreeSet<String>, what: &str) {
    let missing: Vec<_> = wanted.difference(found).collect();
    let wrong: Vec<_> = found.difference(wanted).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "{what}\nnot found: {missing:#?}\nfound wrongly: {wrong:#?}");
}

/// How a server may log, one round each: the prefix, and what makes it log statements.
const ROUNDS: &[(&str, &[(&str, &str)])] = &[
    ("%m [%p] ", &[]),
    ("%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ", &[]),
    ("%t:%r:%u@%d:[%p]:", &[("log_error_verbosity", "verbose")]),
    ("<%n|%c|%-12u|%i|%e> ", &[("log_error_verbosity", "default")]),
    // The statement and its duration in two messages.
    ("%m [%p] %q%u@%d ", &[("log_min_duration_statement", "-1"), ("log_statement", "all"), ("log_duration", "on")]),
];

#[test]
fn finds_what_was_planted_in_every_format_and_nothing_else() {
    let options = Options::default()
        .set("logging_collector", "on")
        .set("log_destination", "stderr,csvlog,jsonlog")
        .set("log_filename", "setup.log")
        .set("log_disconnections", "on");
    let cluster = Cluster::start_with(&options).unwrap();
    cluster.query("postgres", "CREATE DATABASE shop").unwrap();
    cluster.query("shop", SHOP).unwrap();
    let folder = cluster.data_dir().join("log");
    let url = cluster.url("postgres", "shop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let alone = expected(|planted| planted.alone);
    for (number, (prefix, settings)) in ROUNDS.iter().enumerate() {
        let first = [("log_min_duration_statement", "0"), ("log_line_prefix", prefix)];
        set(&cluster, &[&first[..], settings].concat());
        let name = format!("round{number}.log");
        set(&cluster, &[("log_filename", &name)]);
        let log = folder.join(&name);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !log.exists() {
            assert!(Instant::now() < deadline, "the collector did not switch to {name}");
            std::thread::sleep(Duration::from_millis(50));
        }
        runtime.block_on(misbehave(&url));
        wait_for_end(&log);
        let files: Vec<PathBuf> =
            ["log", "csv", "json"].iter().map(|extension| log.with_extension(extension)).collect();
        for file in files.iter().skip(1) {
            wait_for_end(file);
        }
        for file in &files {
            let what = format!("{prefix:?} {}", file.display());
            let (found, document) = lint(file, &[]);
            compare(&found, &alone, &what);
            let looped =
                document["findings"].as_array().unwrap().iter().find(|finding| finding["rule"] == "n-plus-one");
            assert_eq!(looped.unwrap()["count"], TIMES, "{what}");
            assert!(looped.unwrap()["total_ms"].as_f64().unwrap() > 0.0, "{what}");
            assert_eq!(document["files"][0]["lines"], document["files"][0]["understood"], "{what}");
            // The collector may switch to the file before it has written what came earlier.
            let before = std::fs::read_to_string(file).unwrap().matches("ALTER SYSTEM").count();
            assert_eq!(document["unparsed"], before, "{what}: {}", document["notes"]);
        }
        let (found, _) = lint(&files[0], &["--log-line-prefix", prefix]);
        compare(&found, &alone, prefix);
    }
    with_the_database(&folder.join("round0.log"), &url);
}

fn with_the_database(log: &Path, url: &str) {
    let (found, document) = lint(log, &["--database-url", url]);
    compare(&found, &expected(|planted| planted.with_database), "with the database");
    let scan = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["rule"] == "unindexed-scan" && finding["example"].as_str().unwrap().contains("note"))
        .unwrap();
    assert_eq!(scan["evidence"], "plan", "{scan}");
    assert!(scan["message"].as_str().unwrap().contains("40000 rows"), "{scan}");
    assert_eq!(scan["suggestion"], "CREATE INDEX ON orders (note)");
}

#[test]
fn exit_codes_say_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (warning, fine) =
        (file("warning.sql", "SELECT * FROM t WHERE id = 1;"), file("fine.sql", "SELECT id FROM t WHERE id = 1;"));
    let (strange, empty) = (file("strange.log", "hello\nworld\n"), file("empty.log", ""));
    let noise = file("noise.sql", "hello world;");
    let schema = file("schema.sql", "CREATE TABLE t (id int PRIMARY KEY, name text);");
    let cases: [(&[&str], i32); 11] = [
        (&[&fine], 0),
        (&[&warning], 1),
        (&[&fine, &warning], 1),
        (&["--fail-on", "error", &warning], 0),
        (&["--fail-on", "never", &warning], 0),
        (&["--schema", &schema, &warning], 0),
        (&["--format", "xml", &warning], 2),
        (&["--log-line-prefix", "%m %Z", &strange], 2),
        (&[&strange], 3),
        (&[&empty], 3),
        (&[&noise], 3),
    ];
    for (arguments, code) in cases {
        let output = pgweir(&[&["lint"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    }
    let output = pgweir(&["lint", &strange]);
    assert!(stderr(&output).contains("1 | hello"), "{}", stderr(&output));
    let output = pgweir(&["lint", "/no/such.log"]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn users_bring_rules_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "id: no-truncate\ngroup: risk\nseverity: error\ntitle: TRUNCATE is not for applications\nevidence: [syntax]\n\
        why: It takes an exclusive lock.\ninstead: DELETE in batches.\nmatch:\n  statement: [truncate]\n  message: TRUNCATE locks out everybody\n\
        bad:\n  - sql: TRUNCATE sessions\ngood:\n  - sql: DELETE FROM sessions WHERE id < 10\n";
    std::fs::write(folder.path().join("no-truncate.yaml"), rule).unwrap();
    let rules = folder.path().to_str().unwrap();
    let output = pgweir(&["rules", "test", rules]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let sql = folder.path().join("x.sql");
    std::fs::write(&sql, "TRUNCATE sessions;").unwrap();
    let output = pgweir(&["lint", "--rules", rules, sql.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("error[no-truncate]"), "{}", stdout(&output));
    std::fs::write(folder.path().join("no-truncate.yaml"), rule.replace("TRUNCATE sessions", "DELETE FROM x")).unwrap();
    assert_eq!(pgweir(&["rules", "test", rules]).status.code(), Some(1));
}
