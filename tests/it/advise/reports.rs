//! The advice as Markdown, as a script for psql, and as an HTML page.

use super::{pgweir, shop};

const WORKLOAD: &str = "\
SELECT * FROM customers WHERE email = 'x<b>&\"';
SELECT * FROM customers WHERE email = 'y';
SELECT sum(amount) FROM orders WHERE customer_id = 7;
SELECT * FROM orders WHERE note = 'z' ORDER BY amount DESC LIMIT 5;
UPDATE orders SET amount = amount + 1 WHERE customer_id = 9;
";

#[test]
fn each_form_says_the_same() {
    let (cluster, url) = shop();
    cluster.query("shop", "CREATE EXTENSION hypopg").unwrap();
    let folder = cluster.data_dir().with_file_name("logs");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("workload.sql"), WORKLOAD).unwrap();
    let log = folder.to_str().unwrap();
    let report = |more: &[&str]| {
        let base = ["advise", "indexes", "--log", log, "--database-url", &url, "--time-limit", "0"];
        let (code, out, error) = pgweir(&[&base, more].concat());
        assert_eq!(code, Some(0), "{error}");
        out
    };
    let json: serde_json::Value = serde_json::from_str(&report(&["--format", "json"])).unwrap();
    let order = json["order"].as_array().unwrap();
    let found = json["recommendations"].as_array().unwrap();
    assert!(found.len() >= 2 && order.len() == found.len(), "{json}");
    // Each step costs more storage and less work, down to what was promised.
    let mut last = (0.0, json["cost_before"].as_f64().unwrap());
    for step in order {
        let (bytes, cost) = (step["bytes"].as_f64().unwrap(), step["cost"].as_f64().unwrap());
        assert!(bytes > last.0 && cost < last.1, "{order:?}");
        last = (bytes, cost);
    }
    assert!((last.1 - json["cost_after"].as_f64().unwrap()).abs() < 1e-6 * last.1);

    let page = folder.with_file_name("advice.html");
    report(&["-o", page.to_str().unwrap()]);
    let html = std::fs::read_to_string(&page).unwrap();
    let markdown = report(&["--format", "markdown"]);
    let sql = report(&["--format", "sql"]);
    for one in found {
        let (name, ddl) = (one["name"].as_str().unwrap(), one["ddl"].as_str().unwrap());
        assert!(html.contains(name) && markdown.contains(ddl) && sql.contains(&format!("\n{ddl}\n")), "{name}");
        assert!(sql.contains(&format!("-- undo: DROP INDEX CONCURRENTLY public.{name};")), "{sql}");
    }
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert_eq!(html.matches("<circle").count(), found.len() + 1);
    assert!(
        html.contains("Seq Scan on customers")
            && html.contains(&format!("using {}", found[0]["name"].as_str().unwrap()))
    );
    // Nothing of it comes from elsewhere, and nothing of the workload is markup.
    for foreign in ["http:", "https:", "src=", "@import", "url(", "<b>&\""] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert!(html.contains(&format!("pgweir advise indexes --log {log} --database-url ")));

    in_a_browser(&page, found.len());

    // The script does what it says, and then there is nothing left to do.
    let commands: Vec<&str> = sql.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\')).collect();
    for command in commands.iter().filter(|line| !line.is_empty()) {
        cluster.query("shop", command).unwrap();
    }
    cluster.query("shop", "ANALYZE").unwrap();
    let after: serde_json::Value = serde_json::from_str(&report(&["--format", "json"])).unwrap();
    let cost = |json: &serde_json::Value, key: &str| json[key].as_f64().unwrap();
    assert!(cost(&after, "cost_before") < cost(&json, "cost_before") * 0.6, "{after}");
    assert!(report(&["--format", "markdown"]).contains("# Indexes for "));
}

/// The page's script runs: all indexes are chosen at first. Only where there is a browser.
fn in_a_browser(page: &std::path::Path, indexes: usize) {
    let Some(heard) = crate::support::browse(page) else { return };
    let chosen = heard.split("id=\"chosen\"").nth(1).unwrap_or_default();
    assert!(chosen.contains(&format!(">{indexes} indexes: ")), "{heard}");
    assert!(heard.contains("class=\"on\"") && !heard.contains("class=\"index off\""));
}

#[test]
fn nothing_to_say_is_said() {
    let (cluster, url) = shop();
    cluster.query("shop", "CREATE EXTENSION hypopg").unwrap();
    let log = cluster.data_dir().with_file_name("few.sql");
    std::fs::write(&log, "SELECT * FROM customers WHERE id = 3;\n").unwrap();
    for (format, says) in [("markdown", "Nothing: no index"), ("html", "Nothing: no index"), ("sql", "-- Indexes for")]
    {
        let arguments =
            ["advise", "indexes", "--log", log.to_str().unwrap(), "--database-url", &url, "--format", format];
        let (code, out, error) = pgweir(&arguments);
        assert!(code == Some(0) && out.contains(says), "{format}: {out} {error}");
    }
}
