//! The workload that passed, saved and read by `lint` and `advise`.

use super::Stage;
use crate::proxy::raw::{bind, execute, frame, parse, sync};
use crate::support::{pgweir, stderr, stdout};

#[test]
fn the_workload_is_saved_and_read_without_what_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("workload.json");
    let path = file.to_str().unwrap();
    let mut stage = Stage::new("", &format!("stats: {{workload: \"{path}\"}}"));
    stage.direct().query("insert into t select n, 'name-' || n from generate_series(1, 50000) n; analyze t");
    let mut client = stage.client("app");
    for number in 1..=4 {
        let sql = format!("select id from t where id = {number}4711 and name <> 'secret' -- for Bob");
        assert_eq!(client.query(&sql).split(' ').next_back(), Some("Z:I"));
    }
    client.query("select id from t where name like '%secret'");
    client.query("select 1 / 0 from t where id = 3");
    client.talk(&[parse("s", "select name from t where id = $1"), bind("s", &["4711"]), execute(), sync()], 1);
    let mut console = stage.console();
    assert_eq!(console.query("save workload"), "C:SAVE_WORKLOAD Z:I");
    let text = std::fs::read_to_string(&file).unwrap();
    for private in ["4711", "secret", "Bob"] {
        assert!(!text.contains(private), "{private}: {text}");
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let output = pgweir(&["lint", "--workload", path, "--format", "json", "--fail-on", "never"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["statements"], 7, "{report}");
    let findings = report["findings"].as_array().unwrap();
    let rules: Vec<&str> = findings.iter().map(|finding| finding["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["leading-wildcard-like"], "{report}");
    assert_eq!(findings[0]["example"], "select id from t where name like '%aaaaaa'");
    assert!(findings[0]["total_ms"].as_f64().unwrap() > 0.0, "{report}");

    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/postgres", stage.cluster.port());
    let output = pgweir(&["advise", "indexes", "--workload", path, "--database-url", &url, "--format", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("(id)"), "{} {}", stdout(&output), stderr(&output));

    // And once more at the end.
    client.query("delete from t");
    let pid = stage.proxy.child().id().to_string();
    drop((client, console));
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    assert!(crate::support::ends(stage.proxy.child(), std::time::Duration::from_secs(20)));
    assert!(std::fs::read_to_string(&file).unwrap().contains("delete from t"));
}

#[test]
fn examples_are_plain_where_that_is_wished_and_saving_needs_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("workload.json");
    let top = format!("stats: {{workload: \"{}\", workload_interval: 100ms, examples: plain}}", file.display());
    let stage = Stage::new("", &top);
    stage.client("app").query("select id from t where name = 'visible'");
    // Values of parameters as they were bound, in either protocol's form, the last of them too.
    let typed = frame(b'P', &[&b"n\0select id from t where id = $1\0\0\x01"[..], &23u32.to_be_bytes()].concat());
    let four = frame(b'B', &[&b"\0n\0\0\x01\0\x01\0\x01\0\0\0\x04"[..], &4711u32.to_be_bytes(), &[0, 0]].concat());
    let mut client = stage.client("app");
    client.talk(&[parse("s", "select id from t where name = $1"), bind("s", &["it's bound"]), execute(), sync()], 1);
    client.talk(&[typed, four, execute(), sync()], 1);
    // It comes by itself.
    crate::support::wait_until("it is saved", || {
        stage.client("app").query("select 1");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        ["'visible'", "$1 = 'it''s bound'", "$1 = '4711'"].iter().all(|part| text.contains(part))
    });
    let stage = Stage::new("", "");
    assert_eq!(stage.console().query("save workload"), "E:55000 Z:I");
    let output = pgweir(&["lint", "--workload", "/nowhere/workload.json"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}
