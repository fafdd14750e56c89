//! `pgweir explain` and `pgweir check` as scripts see them.

use crate::support::{pgweir, repository, stderr, stdout};

fn explain(arguments: &[&str]) -> std::process::Output {
    let (config, schema) = (repository("fixtures/plans/pgweir.yaml"), repository("fixtures/plans/schema.sql"));
    let mut all = vec!["explain", "-c", config.to_str().unwrap(), "--schema", schema.to_str().unwrap()];
    all.extend(arguments);
    pgweir(&all)
}

#[test]
fn explain_prints_the_plan() {
    let output = explain(&["SELECT * FROM customers c JOIN countries k ON k.code = c.country WHERE c.id = 42"]);
    assert_eq!(stdout(&output), "single shard=a          by key-equality: c.id = 42\n└─ reference: countries\n");
    assert_eq!(output.status.code(), Some(0));

    let output = explain(&["--format", "json", "--param", "42", "SELECT * FROM orders WHERE customer_id = $1"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&json["route"], &json["shard"], &json["rule"]),
        (&"single".into(), &"a".into(), &"key-equality".into())
    );

    let output = explain(&["--format", "json", "SELECT * FROM orders LIMIT 3"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&json["route"], &json["shards"]), (&"scatter".into(), &serde_json::json!(["a", "b", "c"])));
}

#[test]
fn a_refusal_is_an_answer() {
    let output = explain(&["--format", "json", "SELECT * FROM orders LIMIT 1 FOR UPDATE"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&json["route"], &json["sqlstate"]), (&"refuse".into(), &"0A000".into()));
    assert_eq!(json["span"], serde_json::json!([14, 20]));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_is_no_statement_is_a_usage_error() {
    for sql in ["", "SELECT 1; SELECT 2", "SELECT 'open"] {
        assert_eq!(explain(&[sql]).status.code(), Some(2), "{sql:?}");
    }
}

#[test]
fn check_names_the_place() {
    let good = repository("fixtures/config/good.yaml");
    assert_eq!(pgweir(&["check", "-c", good.to_str().unwrap()]).status.code(), Some(0));
    let bad = repository("fixtures/config/unknown-settings.yaml");
    let output = pgweir(&["check", "-c", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("unknown-settings.yaml:2:1"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("s3cret") && !stderr(&output).contains(":pass@"), "{}", stderr(&output));
    assert_eq!(pgweir(&["check", "-c", "no-such-file.yaml"]).status.code(), Some(3));
    assert_eq!(pgweir(&["check"]).status.code(), Some(2));
}
