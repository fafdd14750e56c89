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
