//! Plans that auto_explain wrote into a log are evidence, and executions where nothing else tells of these.

use pgweir::db::local::{Cluster, Options};
use serde_json::Value;

use crate::support::{pgweir, stderr, stdout, wait_until};

fn found(cluster: &Cluster, name: &str) -> (Vec<String>, Value) {
    let log = cluster.data_dir().join("log").join(name);
    wait_until("the log is written", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.matches("the end").count() >= 2)
    });
    let output = pgweir(&["lint", "--format", "json", "--fail-on", "never", log.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let said = |finding: &Value| {
        let [rule, evidence, count] = ["rule", "evidence", "count"].map(|key| finding[key].clone());
        format!(
            "{} {} {count} {}",
            rule.as_str().unwrap(),
            evidence.as_str().unwrap(),
            finding["message"].as_str().unwrap()
        )
    };
    (document["findings"].as_array().unwrap().iter().map(said).collect(), document)
}

#[test]
fn plans_in_a_log_are_evidence_without_a_database() {
    let cluster = Cluster::start_with(
        &Options::default()
            .set("logging_collector", "on")
            .set("log_destination", "stderr,csvlog,jsonlog")
            .set("log_filename", "plans.log")
            .set("log_min_duration_statement", "-1")
            .set("shared_preload_libraries", "auto_explain")
            .set("auto_explain.log_min_duration", "0")
            .set("auto_explain.log_analyze", "on")
            .set("work_mem", "64kB"),
    )
    .unwrap();
    let setup = "create table orders as
        select n as id, 'note ' || n as note, repeat('x', 200) as wide from generate_series(1, 30000) n; select 1";
    cluster.query("postgres", setup).unwrap();
    for format in ["text", "json"] {
        let url = format!("{}?options=-cauto_explain.log_format%3D{format}", cluster.url("postgres", "postgres"));
        let psql = |sql: &str| {
            let output = cluster.client_program("psql").args([&url, "-qAtc", sql]).output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
        };
        for sql in [
            "select id\n\tfrom orders -- a comment\n where note = 'note 7'",
            "select id from orders where note = 'note 8'",
            "select id from orders where id > 0 and note <> 'x'",
            "select id, wide from orders order by wide, id desc",
            "select 'the end'",
        ] {
            psql(sql);
        }
    }
    for name in ["plans.log", "plans.csv", "plans.json"] {
        let (findings, document) = found(&cluster, name);
        let of = |rule: &str| findings.iter().filter(|finding| finding.starts_with(rule)).collect::<Vec<_>>();
        let [scan] = of("unindexed-scan")[..] else { panic!("{name}: {findings:?}") };
        assert!(
            scan.starts_with("unindexed-scan plan 4 by the plan in the log, 30000 rows of orders are read to keep 1"),
            "{scan}"
        );
        let [sort] = of("sort-spill")[..] else { panic!("{name}: {findings:?}") };
        assert!(sort.contains("MiB to disk"), "{sort}");
        assert_eq!(document["unparsed"], 0, "{name}: {document}");
    }
}
