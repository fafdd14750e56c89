//! pgBadger's totals on a server's own log are ours: how many statements of which kind, and how long they took.

use std::collections::BTreeMap;
use std::process::Command;

use pgweir::db::local::{Cluster, Options};
use pgweir::logs;
use pgweir::workload::Workload;
use serde_json::Value;

use crate::support::wait_until;

const PREFIX: &str = "%m [%p] %u@%d ";

/// The kind by pgBadger's words.
fn kind(text: &str) -> &'static str {
    match text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase().trim_end_matches(';') {
        "select" => "select",
        "insert" => "insert",
        "update" => "update",
        "delete" => "delete",
        "with" => "cte",
        "create" | "drop" | "alter" | "truncate" => "ddl",
        "begin" | "commit" | "rollback" | "savepoint" => "tcl",
        "copy" => "copy to",
        _ => "others",
    }
}

fn work(cluster: &Cluster) {
    let script = "create table t (id int primary key, note text)\nbegin\ninsert into t select n, 'n' || n from generate_series(1, 500) n\n\
        commit\nselect count(*) from t where note like 'n1%'\nselect *\\n\\tfrom t /* where */ where id = 7\n\
        /* first */ select 1\nupdate t set note = 'x;y' where id < 10\ndelete from t where id > 490\n\
        with a as (select id from t) select max(id) from a\ncopy (select 1) to stdout\nset work_mem = '5MB'\n\
        explain select 1\nanalyze t\nalter table t add c int\ntruncate t\nselect 1/0\nselect pg_sleep(0.02)\nrollback\ndrop table t";
    for line in script.lines() {
        // One of them fails.
        let _ = cluster.query("postgres", &line.replace("\\n", "\n").replace("\\t", "\t"));
    }
    let url = cluster.url("postgres", "postgres");
    let prepared = "create temp table u (a int);\ninsert into u values (:n);\nselect a from u where a = :n;\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script.sql");
    std::fs::write(&file, format!("\\set n 7\n{prepared}drop table u;\n")).unwrap();
    let done = cluster
        .client_program("pgbench")
        .args(["-n", "-M", "prepared", "-t", "30", "-f", file.to_str().unwrap(), &url])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    cluster.query("postgres", "select 'the end'").unwrap();
}

#[test]
fn totals_are_those_of_pgbadger() {
    if Command::new("pgbadger").arg("--version").output().is_err() {
        eprintln!("skipped: pgbadger is not installed (apt-get install pgbadger)");
        return;
    }
    let options = Options::default()
        .set("logging_collector", "on")
        .set("log_filename", "postgresql.log")
        .set("log_min_duration_statement", "0")
        .set("log_line_prefix", PREFIX);
    let cluster = Cluster::start_with(&options).unwrap();
    work(&cluster);
    let log = cluster.data_dir().join("log/postgresql.log");
    wait_until("the log is written", || {
        std::fs::read_to_string(&log)
            .is_ok_and(|text| text.lines().any(|line| line.contains("duration") && line.contains("the end")))
    });

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.json");
    let badger = Command::new("pgbadger")
        .args(["-q", "-f", "stderr", "-p", PREFIX, "-o", out.to_str().unwrap(), log.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(badger.status.success(), "{}", String::from_utf8_lossy(&badger.stderr));
    let theirs: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();

    let mut workload = Workload::new();
    logs::read_file(log.to_str().unwrap(), &logs::Options::default(), &mut workload, &|_| {}).unwrap();
    let mut ours: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
    for template in workload.templates() {
        let sum = ours.entry(kind(&template.text)).or_default();
        *sum = (sum.0 + template.timed, sum.1 + template.total_ms);
    }
    let (count, time) = ours.values().fold((0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
    let all = &theirs["overall_stat"];
    assert_eq!(all["queries_number"], count, "{ours:?}");
    let near = |their: &Value, our: f64| {
        let their = their.as_f64().or_else(|| their.as_str()?.parse().ok()).unwrap_or(-1.0);
        assert!((their - our).abs() < 0.5, "{their} {our} {ours:?}");
    };
    near(&all["postgres"]["queries_duration"]["execute"], time);
    let kinds = &theirs["database_info"]["postgres"]["postgres"];
    for (kind, (count, time)) in &ours {
        assert_eq!(kinds[kind], *count, "{kind}: {kinds}");
        near(&kinds[format!("{kind}|duration")], *time);
    }
    assert!(ours.len() == 9 && count > 130, "{ours:?}");
    // A statement that fails has no duration, and pgBadger counts it as an error.
    assert_eq!(workload.statements, count + 1);
}
