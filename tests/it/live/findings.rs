//! SHOW FINDINGS and the metrics by rule.

use super::Stage;
use crate::proxy::raw::{bind, execute, parse, sync};
use crate::support::wait_until;

#[test]
fn findings_of_what_passes_are_shown_and_counted() {
    let admin = pgweir::db::local::free_port().unwrap();
    let stage = Stage::new("", &format!("admin: 127.0.0.1:{admin}"));
    let mut client = stage.client("app");
    for name in ["one-secret", "another"] {
        client.query(&format!("select id from t where name like '%{name}'"));
    }
    client.talk(&[parse("d", "delete from t"), sync()], 1);
    for _ in 0..3 {
        client.talk(&[bind("d", &[]), execute(), sync()], 1);
    }
    client.query("select id from t where id = 1");
    let mut console = stage.console();
    wait_until("both are found", || {
        let shown = console.query("show findings");
        shown.contains("delete-without-where") && shown.contains("leading-wildcard-like")
    });
    let shown = console.query("show findings");
    assert!(!shown.contains("secret"), "constants stay out: {shown}");
    assert!(!shown.contains("id = ?"), "the innocent are not shown: {shown}");
    let at = |rule: &str| shown.find(rule).unwrap();
    assert!(at("delete-without-where") < at("leading-wildcard-like"), "errors come first: {shown}");
    let page = crate::proxy::web::get(admin, "/metrics");
    for sample in [
        "pgweir_findings{database=\"app\",rule=\"delete-without-where\"} 1",
        "pgweir_findings_statements_total{database=\"app\",rule=\"delete-without-where\"} 3",
        "pgweir_findings_statements_total{database=\"app\",rule=\"leading-wildcard-like\"} 2",
    ] {
        assert!(page.contains(sample), "{sample}: {page}");
    }
}

#[test]
fn loops_and_idle_transactions_are_found_by_session() {
    let stage = Stage::new("", "");
    let mut client = stage.client("app");
    client.query("select id from t where name is null");
    for id in 0..12 {
        client.query(&format!("select name from t where id = {id}"));
    }
    client.query("begin");
    client.query("update t set name = 'x' where id = 1");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    client.query("commit");
    // As often, but not in a row.
    for id in 0..12 {
        stage.client("eve").query(&format!("select name, id from t where id = {id}"));
    }
    let mut console = stage.console();
    wait_until("both are found", || {
        let shown = console.query("show findings");
        shown.contains("n-plus-one") && shown.contains("idle-in-transaction")
    });
    let shown = console.query("show findings");
    assert_eq!(shown.matches("n-plus-one").count(), 1, "{shown}");
    assert!(shown.contains("UPDATE t SET name"), "{shown}");
}

/// The catalog tells what a text alone does not, rules of one's own are added, and what is accepted is not shown.
#[test]
fn findings_know_the_catalog_and_the_teams_rules() {
    let dir = tempfile::tempdir().unwrap();
    let rule = "\
id: no-legacy
group: risk
severity: error
title: The legacy table is read
evidence: [syntax]
why: It is going away.
instead: Read t.
match: {sql: SELECT * FROM legacy, message: the legacy table}
bad: [{sql: SELECT * FROM legacy}]
good: [{sql: SELECT id FROM t}, {sql: SELECT 1}]
";
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("rules/no-legacy.yaml"), rule).unwrap();
    let accepted = dir.path().join("accepted.yaml");
    std::fs::write(&accepted, "ignore:\n  - {rule: delete-without-where, reason: it is a queue}\n").unwrap();
    let settings = format!(
        "stats: {{rules: [\"{}\"], lint_config: \"{}\"}}",
        dir.path().join("rules").display(),
        accepted.display()
    );
    let stage = Stage::new("", &settings);
    stage.direct().query("create table legacy (id int); create table big (id int, name text); insert into big select n, 'name-' || n from generate_series(1, 20000) n; analyze big");
    let mut client = stage.client("app");
    client.query("select * from legacy");
    client.query("delete from big where false; delete from legacy");
    // Whether there is an index only the catalog knows.
    client.query("select id from big where name = 'nobody'");
    let mut console = stage.console();
    wait_until("both are found", || {
        let shown = console.query("show findings");
        shown.contains("no-legacy") && shown.contains("unindexed")
    });
    assert!(!console.query("show findings").contains("delete-without-where"));

    // What is wrong with the rules is said before anything starts.
    std::fs::write(dir.path().join("rules/no-legacy.yaml"), "id: [").unwrap();
    let config = stage.proxy.config_path();
    let output = crate::support::pgweir(&["check", "-c", config.to_str().unwrap()]);
    assert!(
        output.status.code() == Some(2) && crate::support::stderr(&output).contains("no-legacy.yaml"),
        "{}",
        crate::support::stderr(&output)
    );
    assert!(console.query("reload").starts_with("E:"));
}
