//! The report in every format: valid for its reader, without constants when asked, and only what is new.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use serde_json::Value;

use crate::support::{pgweir, stderr, stdout};

const STATEMENTS: &str = "\
-- written by zanzibar
SELECT * FROM users WHERE note = 'zanzibar<b>' /* zanzibar */;
SELECT id
FROM users
WHERE name LIKE '%zanzibar' AND age > 4711;
DELETE FROM users;
UPDATE users SET a = 'zanzibar' WHERE created_at = NULL;
SELECT id FROM users WHERE lower(name) = 'zanzibar';
";

const FORMATS: &[&str] = &["text", "json", "jsonl", "sarif", "github", "gitlab", "markdown", "html"];

fn sql_file(folder: &Path) -> String {
    let path = folder.join("a b.sql");
    std::fs::write(&path, STATEMENTS).unwrap();
    path.to_str().unwrap().to_owned()
}

fn lint(arguments: &[&str], code: i32) -> String {
    let output = pgweir(&[&["lint"], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn rules_of(document: &Value) -> Vec<&str> {
    document["findings"].as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap()).collect()
}

#[test]
fn a_redacted_report_holds_no_constant_in_any_format() {
    let folder = tempfile::tempdir().unwrap();
    let file = sql_file(folder.path());
    for format in FORMATS {
        let open = lint(&["--format", format, "--fail-on", "never", &file], 0);
        let closed = lint(&["--format", format, "--fail-on", "never", "--redact", &file], 0);
        assert!(!closed.contains("zanzibar") && !closed.contains("4711"), "{format}: {closed}");
        let shows_statements = !matches!(*format, "gitlab" | "github");
        assert!(!shows_statements || open.contains("zanzibar"), "{format}: {open}");
        for rule in ["select-star", "delete-without-where", "equals-null", "function-on-column"] {
            assert!(open.contains(rule) && closed.contains(rule), "{format}: {rule}");
        }
    }
}

#[test]
fn sarif_has_what_its_schema_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = sql_file(folder.path());
    let document: Value = serde_json::from_str(&lint(&["--format", "sarif", &file], 1)).unwrap();
    assert_eq!(document["version"], "2.1.0");
    let run = &document["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert!(rules.len() > 60 && results.len() >= 5);
    for result in results {
        let rule = &rules[result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(["none", "note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        assert!(result["partialFingerprints"].as_object().unwrap().values().all(Value::is_string));
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(uri.starts_with("file:///") && uri.ends_with("a%20b.sql"), "{uri}");
        assert!(place["region"]["startLine"].as_u64().unwrap() >= 1);
    }
    let line = |rule: &str| {
        let result = results.iter().find(|result| result["ruleId"] == rule).unwrap();
        result["locations"][0]["physicalLocation"]["region"]["startLine"].as_u64().unwrap()
    };
    // The line of the condition, not that of its statement.
    assert_eq!((line("leading-wildcard-like"), line("delete-without-where")), (5, 6));
}

#[test]
fn other_formats_are_what_their_readers_expect() {
    let folder = tempfile::tempdir().unwrap();
    let file = sql_file(folder.path());
    let github = lint(&["--format", "github", &file], 1);
    assert!(
        github.lines().all(|line| line.starts_with("::error file=")
            || line.starts_with("::warning file=")
            || line.starts_with("::notice file=")),
        "{github}"
    );
    let gitlab: Value = serde_json::from_str(&lint(&["--format", "gitlab", &file], 1)).unwrap();
    let issues = gitlab.as_array().unwrap();
    let mut prints: Vec<&str> = issues.iter().map(|issue| issue["fingerprint"].as_str().unwrap()).collect();
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), issues.len(), "fingerprints are unique");
    assert!(issues.iter().all(|issue| issue["location"]["lines"]["begin"].is_u64()));
    let lines = lint(&["--format", "jsonl", &file], 1);
    let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.last().unwrap()["summary"]["findings"], objects.len() - 1);
    let html = lint(&["--format", "html", &file], 1);
    assert!(html.contains("zanzibar&lt;b&gt;") && !html.contains("zanzibar<b>"), "{html}");
    for outside in ["<script", "http://", "https://", "<link", "@import", "url("] {
        assert!(!html.contains(outside), "the page needs nothing from elsewhere: {outside}");
    }
    let worst: Value = serde_json::from_str(&lint(&["--format", "json", "--top", "1", &file], 1)).unwrap();
    assert_eq!(rules_of(&worst).len(), 1);
    assert_eq!(worst["findings"][0]["severity"], "error");
}

#[test]
fn the_page_shows_the_load_and_fits_a_small_screen() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("postgresql.log");
    let line = |minute: u32| {
        format!(
            "2026-03-04 10:{minute:02}:05.123 UTC [77] LOG:  duration: {}.000 ms  statement: SELECT a_rather_long_name_of_a_column_{minute} \
             FROM orders WHERE note LIKE '%{}%'\n",
            minute + 1,
            "x".repeat(200)
        )
    };
    std::fs::write(&log, (0..50).map(line).collect::<String>()).unwrap();
    let html = lint(&["--format", "html", "--fail-on", "never", log.to_str().unwrap()], 0);
    let load = html.split("<h2>Load over time</h2>").nth(1).expect("it is shown").split("<h2>").next().unwrap();
    assert_eq!(load.matches("<svg").count(), 2);
    assert!(load.contains("statements, at most <b>1</b>") && load.contains("at most <b>50.0 ms</b>"));
    assert!(load.contains(">2026-03-04 10:00:0") && load.contains(">2026-03-04 10:49:20<"));
    assert_eq!(load.matches("<rect").count(), 100);

    // A page without a script is measured by one.
    let measured = html.replace(
        "</body>",
        "<script>document.title = innerWidth + '/' + document.documentElement.scrollWidth</script></body>",
    );
    let page = folder.path().join("page.html");
    std::fs::write(&page, measured.replace("<details", "<details open")).unwrap();
    if let Some(heard) = crate::support::browse(&page) {
        let title = heard.split("<title>").nth(1).unwrap().split("</title>").next().unwrap().to_owned();
        let (inner, scroll) = title.split_once('/').expect("the script has run");
        assert!(scroll.parse::<u32>().unwrap() <= inner.parse::<u32>().unwrap(), "wider than the screen: {title}");
    }
    // Statements of a file have no time.
    let file = sql_file(folder.path());
    assert!(!lint(&["--format", "html", &file], 1).contains("Load over time"));
}

/// A log in which one statement takes the most time, another is the slowest, a third the most frequent; plans tell rows.
fn ranked_log(folder: &Path) -> String {
    let mut log = String::new();
    let mut ran = |times: usize, milliseconds: &str, sql: &str| {
        for _ in 0..times {
            log.push_str(&format!(
                "2026-03-04 10:00:05.123 UTC [77] LOG:  duration: {milliseconds} ms  statement: {sql}\n"
            ));
        }
    };
    ran(3, "400.000", "SELECT * FROM orders WHERE id = 1");
    ran(1, "900.000", "SELECT * FROM users WHERE name = 'zanzibar'");
    ran(40, "0.500", "SELECT * FROM items WHERE id = 4711");
    log.push_str(
        "2026-03-04 10:00:06.123 UTC [77] LOG:  duration: 12.000 ms  plan:\n\
         \tQuery Text: SELECT * FROM events WHERE kind = 1\n\
         \tSeq Scan on events  (cost=0.00..1.00 rows=5 width=4) (actual time=0.1..0.2 rows=4321 loops=1)\n",
    );
    let path = folder.join("ranked.log");
    std::fs::write(&path, log).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn statements_and_findings_are_ranked_by_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = ranked_log(folder.path());
    for (sort, table, shown) in [
        ("time", "orders", "1.2 s (56 %)"),
        ("calls", "items", "40 times (89 %)"),
        ("mean", "users", "900.0 ms"),
        ("rows", "events", "4,321 rows (100 %)"),
    ] {
        let arguments = ["--sort", sort, "--fail-on", "never", "--redact", &file];
        let document: Value =
            serde_json::from_str(&lint(&[&["--format", "json", "--top", "1"], &arguments[..]].concat(), 0)).unwrap();
        assert_eq!(document["findings"][0]["table"], table, "{sort}");
        let first = document["top"][sort][0]["template"].as_str().unwrap();
        assert!(first.contains(table), "{sort}: {first}");
        assert_eq!(document["top"]["rows"].as_array().unwrap().len(), 1, "only what tells its rows");
        let text = lint(&arguments, 0);
        let list = text.split("== Statements by ").nth(1).unwrap();
        assert!(list.lines().nth(2).unwrap().contains(&format!("{shown}  SELECT * FROM {table}")), "{sort}: {list}");
        assert!(!lint(&[&["--statements", "0"], &arguments[..]].concat(), 0).contains("== Statements"));
        let markdown = lint(&[&["--format", "markdown"], &arguments[..]].concat(), 0);
        assert!(markdown.contains("## Statements by "), "{markdown}");
    }
    let html = lint(&["--format", "html", "--fail-on", "never", &file], 0);
    for title in ["By rule", "By table", "total time", "calls", "mean time", "rows"] {
        let title = if title.starts_with("By") { title.to_owned() } else { format!("Statements by {title}") };
        assert!(html.contains(&format!("<h2>{title}</h2>")), "{title}");
    }
    let links: Vec<&str> = html.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let document: Value = serde_json::from_str(&lint(&["--format", "json", "--fail-on", "never", &file], 0)).unwrap();
    assert_eq!(links.len(), 2 * rules_of(&document).len(), "each finding is in the list of its rule and of its table");
    assert!(links.iter().all(|id| html.contains(&format!("<details id={id}>"))), "{links:?}");
}

#[test]
fn text_is_grouped_by_rule_or_table_and_says_how_much_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sql");
    let mut sql: String = (0..13).map(|number| format!("SELECT * FROM t WHERE c{number} = 1;\n")).collect();
    sql.push_str("DELETE FROM other;\nSELECT * FROM other WHERE id = 1;\n");
    std::fs::write(&path, sql).unwrap();
    let file = path.to_str().unwrap();
    let headings = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("== "));
        lines.map(|line| line.split([' ', ':']).nth(1).unwrap().to_owned()).collect()
    };
    let by_rule = lint(&[file], 1);
    assert_eq!(headings(&by_rule), ["delete-without-where", "select-star"]);
    assert!(by_rule.contains("14 statements, 14 times") && by_rule.contains("and 4 more of select-star"), "{by_rule}");
    assert_eq!(by_rule.matches("instead: ").count(), 2, "said once a rule: {by_rule}");
    let by_table = lint(&["--group", "table", file], 1);
    assert_eq!(headings(&by_table), ["other", "t"]);
    assert!(by_table.contains("== other: 2 statements, twice") && by_table.contains("and 3 more of t"), "{by_table}");
    let flat = lint(&["--group", "none", file], 1);
    assert!(headings(&flat).is_empty() && flat.matches("warning[select-star]").count() == 14, "{flat}");
}

#[test]
fn only_what_is_new_fails_with_a_baseline() {
    let folder = tempfile::tempdir().unwrap();
    let file = sql_file(folder.path());
    let baseline = folder.path().join("known.json");
    let baseline = baseline.to_str().unwrap();
    lint(&["--write-baseline", baseline, &file], 0);
    let text = lint(&["--baseline", baseline, &file], 0);
    assert!(text.contains("the baseline knows them"), "{text}");
    std::fs::write(&file, format!("{STATEMENTS}SELECT * FROM orders WHERE id = 3;")).unwrap();
    let document: Value = serde_json::from_str(&lint(&["--baseline", baseline, "--format", "json", &file], 1)).unwrap();
    assert_eq!(rules_of(&document), ["select-star"]);
    std::fs::write(baseline, "{}").unwrap();
    lint(&["--baseline", baseline, &file], 2);
    lint(&["--baseline", "/no/such", &file], 3);
}

#[test]
fn a_team_sets_severities_and_accepts_findings_with_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sql");
    let sql = "SELECT * FROM a WHERE id = 1;\n\
        SELECT * FROM b WHERE id = 1 -- pgweir:ignore select-star because the export wants all\n;\n\
        SELECT * FROM c WHERE id = 1 -- pgweir:ignore select-star\n;\n\
        DELETE FROM d;\nSELECT id FROM e ORDER BY random();\n";
    std::fs::write(&path, sql).unwrap();
    let file = path.to_str().unwrap();
    let found = |more: &[&str], code: i32| -> Vec<String> {
        let document: Value =
            serde_json::from_str(&lint(&[&["--format", "json"], more, &[file]].concat(), code)).unwrap();
        let say = |it: &Value| format!("{} {}", it["rule"].as_str().unwrap(), it["line"]);
        document["findings"].as_array().unwrap().iter().map(say).collect()
    };
    let all = found(&[], 1);
    assert_eq!(all.iter().filter(|it| it.starts_with("select-star")).count(), 2, "{all:?}");
    let config = folder.path().join("lint.yaml");
    let text = "severity: {order-by-random: off, select-star: info}\n\
        ignore:\n  - {rule: delete-without-where, reason: the table is emptied each night}\n";
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let kept = found(&["--lint-config", config], 0);
    assert!(kept.len() == 2 && kept.iter().all(|it| it.starts_with("select-star")), "{kept:?}");
    std::fs::write(config, "ignore: [{rule: select-star}]").unwrap();
    lint(&["--lint-config", config, file], 2);
}
