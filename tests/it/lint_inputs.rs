//! What `pgweir lint` is given: folders, rotated and carried logs, other programs' logs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use serde_json::Value;

use crate::support::{pgweir, stderr, stdout};

const PGBOUNCER: &str = "2026-11-22 22:41:36.123 UTC [42] LOG C-0x55: shop/app@10.0.0.1:5000 login attempt: db=shop\n";

fn looped(second: u32, head: &str) -> String {
    let line = |number: u32| {
        format!(
            "{head}2026-11-22 22:41:{second:02}.{number:03} UTC [42] LOG:  duration: 1 ms  statement: SELECT name FROM t WHERE id = {number}\n"
        )
    };
    (0..6).map(line).collect()
}

#[test]
fn a_folder_of_logs_is_one_log_in_the_order_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    // The loop is longer than either file tells; only in the right order is it one.
    write("a-new.log", &looped(37, ""));
    write("b-old.log", &looped(36, ""));
    write("pgbouncer.log", PGBOUNCER);
    write("readme.txt", "nothing of a log\n");
    write("empty.log", "");
    let output = pgweir(&["lint", "--format", "json", "--fail-on", "never", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let findings = document["findings"].as_array().unwrap();
    assert_eq!(findings.iter().map(|finding| finding["rule"].as_str().unwrap()).collect::<Vec<_>>(), ["n-plus-one"]);
    assert!(findings[0]["message"].as_str().unwrap().contains("12 times in a row"), "{}", findings[0]);
    assert!(findings[0]["file"].as_str().unwrap().ends_with("b-old.log"), "{}", findings[0]);
    let notes = document["notes"].to_string();
    assert!(notes.contains("readme.txt was passed over"), "{notes}");
    assert!(notes.contains("PgBouncer's log, which holds no statements"), "{notes}");
}

#[test]
fn a_folder_without_a_log_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("readme.txt"), "nothing of a log\n").unwrap();
    let output = pgweir(&["lint", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(stderr(&output).contains("nothing of a log"), "{}", stderr(&output));
}

#[test]
fn a_configuration_tells_what_sharding_costs() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = file(
        "pgweir.yaml",
        "users: {app: {password: secret}}
databases:
  shop:
    shards:
      - {name: a, primary: \"postgres://app@10.0.0.1/shop\"}
      - {name: b, primary: \"postgres://app@10.0.0.2/shop\"}
    sharding:
      tables: {orders: {key: customer_id}, shipments: {key: warehouse_id}}
      reference: [countries]
",
    );
    let schema = file(
        "schema.sql",
        "CREATE TABLE orders (id bigint, customer_id bigint NOT NULL, PRIMARY KEY (customer_id, id));
         CREATE TABLE shipments (id bigint, order_id bigint, warehouse_id bigint NOT NULL, PRIMARY KEY (warehouse_id, id));
         CREATE TABLE countries (code text PRIMARY KEY, name text);
         CREATE TABLE strays (id bigint PRIMARY KEY);",
    );
    let sql = file(
        "app.sql",
        "SELECT s.id FROM orders o JOIN shipments s ON s.order_id = o.id WHERE o.customer_id = 7;
         UPDATE countries SET name = 'Norge' WHERE code = 'no';
         SELECT id FROM strays WHERE id = 7;
         SELECT id FROM orders WHERE customer_id = 7;",
    );
    let found = |more: &[&str]| {
        let output = pgweir(&[&["lint", "--format", "json", "--fail-on", "never", "-c", &config, &sql], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let findings = document["findings"].as_array().unwrap().clone();
        let sharding = findings.iter().filter(|finding| finding["group"] == "sharding");
        let mut rules: Vec<String> =
            sharding.map(|finding| format!("{} {}", finding["rule"].as_str().unwrap(), finding["line"])).collect();
        rules.sort();
        (rules, document["notes"].to_string())
    };
    let (rules, notes) = found(&[]);
    assert_eq!(rules, ["cross-shard-join 1", "missing-sharding-key 1", "reference-table-write 2"]);
    assert!(notes.contains("not told without --schema"), "{notes}");
    let (rules, notes) = found(&["--schema", &schema]);
    assert_eq!(
        rules,
        ["cross-shard-join 1", "missing-sharding-key 1", "reference-table-write 2", "refused-statement 3"]
    );
    assert!(!notes.contains("not told"), "{notes}");
}

#[test]
fn a_hot_key_is_found_and_its_value_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pgweir.yaml");
    let text = "users: {app: {password: secret}}\ndatabases: {shop: {shards: [{name: a, primary: 'postgres://app@10.0.0.1/shop'}], \
                sharding: {tables: {orders: {key: customer_id}}}}}\n";
    std::fs::write(&config, text).unwrap();
    let log = folder.path().join("postgresql.log");
    let line = |number: u32| {
        let customer = if number.is_multiple_of(3) { number } else { 4711 };
        format!(
            "2026-11-22 22:41:36.123 UTC [{number}] LOG:  duration: 1 ms  execute s: SELECT total FROM orders WHERE customer_id = $1\n\
             2026-11-22 22:41:36.123 UTC [{number}] DETAIL:  parameters: $1 = '{customer}'\n"
        )
    };
    std::fs::write(&log, (1..=1500).map(line).collect::<String>()).unwrap();
    let found = |more: &[&str]| {
        let arguments =
            ["lint", "--format", "jsonl", "--fail-on", "never", "-c", config.to_str().unwrap(), log.to_str().unwrap()];
        let text = stdout(&pgweir(&[&arguments, more].concat()));
        text.lines().find(|line| line.contains("hot-key")).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let finding = found(&[]);
    assert!(finding.contains("customer_id = '4711' in 6"), "{finding}");
    let finding = found(&["--redact"]);
    assert!(!finding.contains("4711") && finding.contains("customer_id = ? in 6"), "{finding}");
}

/// Ends the process when the test is over.
struct Following(std::process::Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_live_log_is_followed_through_its_rotation() {
    use std::io::{BufRead, Write};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postgresql.log");
    let append = |path: &std::path::Path, statement: &str| {
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "2026-11-22 22:41:36.123 UTC [42] LOG:  duration: 1 ms  statement: {statement}").unwrap();
    };
    std::fs::write(folder.path().join("readme.txt"), "nothing of a log\n".repeat(10_000)).unwrap();
    append(&path, "SELECT * FROM first WHERE id = 1");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_pgweir"))
        .args(["lint", "--follow", "--format", "jsonl", folder.path().to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let _child = Following(child);
    let (found, findings) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.lines().map_while(Result::ok).try_for_each(|line| found.send(line)));
    let next = || {
        let line = findings.recv_timeout(std::time::Duration::from_secs(20)).expect("a finding");
        let finding: Value = serde_json::from_str(&line).unwrap();
        format!("{} {}", finding["rule"].as_str().unwrap(), finding["example"].as_str().unwrap())
    };
    assert_eq!(next(), "select-star SELECT * FROM first WHERE id = 1");
    // The same again is no news; what is new comes, also from the file that takes the name, and from another one.
    append(&path, "SELECT * FROM first WHERE id = 2");
    append(&path, "UPDATE second SET a = 1");
    assert_eq!(next(), "update-without-where UPDATE second SET a = 1");
    std::fs::rename(&path, folder.path().join("postgresql.log.1")).unwrap();
    append(&path, "DELETE FROM third");
    assert_eq!(next(), "delete-without-where DELETE FROM third");
    append(&folder.path().join("postgresql-tomorrow.log"), "DELETE FROM fourth");
    assert_eq!(next(), "delete-without-where DELETE FROM fourth");
}

#[test]
fn a_live_log_is_followed_with_the_database_at_hand() {
    use std::io::BufRead;
    let cluster = pgweir::db::local::Cluster::start().unwrap();
    let setup = "create table small (id int, note text); insert into small values (1, 'x');
        create table large as select n as id, 'n' || n as note from generate_series(1, 20000) n; analyze";
    cluster.query("postgres", setup).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postgresql.log");
    let line =
        |statement: &str| format!("2026-11-22 22:41:36.123 UTC [42] LOG:  duration: 1 ms  statement: {statement}\n");
    let log = line("SELECT id FROM small WHERE note = 'x'") + &line("SELECT id FROM large WHERE note = 'x'");
    std::fs::write(&path, log).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_pgweir"))
        .args(["lint", "--follow", "--format", "jsonl", "--database-url", &cluster.url("postgres", "postgres")])
        .arg(&path)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let _child = Following(child);
    let finding: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&finding["rule"], &finding["evidence"]), (&"unindexed-scan".into(), &"plan".into()), "{finding}");
    assert!(finding["example"].as_str().unwrap().contains("large"), "{finding}");
}

#[test]
fn counts_of_a_live_database_are_examined() {
    let options = pgweir::db::local::Options::default().set("shared_preload_libraries", "pg_stat_statements");
    let cluster = pgweir::db::local::Cluster::start_with(&options).unwrap();
    let setup = "create extension pg_stat_statements; create table large as select n as id, 'n' || n as note
        from generate_series(1, 20000) n; analyze; select pg_stat_statements_reset()";
    cluster.query("postgres", setup).unwrap();
    for _ in 0..3 {
        cluster.query("postgres", "select id from large where note = 'secret'").unwrap();
    }
    let url = cluster.url("postgres", "postgres");
    let output =
        pgweir(&["lint", "--pg-stat-statements", "--database-url", &url, "--format", "json", "--fail-on", "never"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let findings = report["findings"].as_array().unwrap();
    let [finding] = &findings[..] else { panic!("{report}") };
    let found = ["rule", "evidence", "count", "file"].map(|key| finding[key].to_string());
    assert_eq!(found, ["\"unindexed-scan\"", "\"plan\"", "3", "\"pg_stat_statements\""]);
}
