//! The catalog, the planner and the index advisor against a real server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod candidates;
mod choice;
mod kinds;
mod reports;
mod sharding;

use std::collections::BTreeSet;
use std::process::Command;

use pgweir::advise::candidates::exists;
use pgweir::advise::input::{Seen, read};
use pgweir::advise::{Advice, CostFailure, CostModel, Definition, Key, Options, Statement, advise};
use pgweir::db::blocking::Session;
use pgweir::db::hypopg::{Availability, HypoPg, availability};
use pgweir::db::local::Cluster;
use pgweir::db::{Limits, PlanFailure};
use pgweir::sql::catalog::{Catalog, ConstraintKind, TableKind};

const SHOP: &str = include_str!("../../../fixtures/advise/shop.sql");

/// A shop with HypoPG; statistics are fresh.
fn shop() -> (Cluster, String) {
    let cluster = Cluster::start().unwrap();
    cluster.query("postgres", "CREATE DATABASE shop").unwrap();
    cluster.query("shop", SHOP).unwrap();
    // Outside of a transaction block: VACUUM refuses one.
    cluster.query("shop", "VACUUM ANALYZE").unwrap();
    let url = cluster.url("postgres", "shop");
    (cluster, url)
}

fn seen(sql: &str) -> Seen<'_> {
    Seen { sql, calls: 10.0, total_ms: None, parameters: None }
}

fn run(session: &Session, catalog: &Catalog, statements: &[Statement], options: &Options) -> Advice {
    let Availability::Installed { schema } = availability(session).unwrap() else { panic!("HypoPG is not there") };
    let mut model = HypoPg::new(session, catalog, schema, Limits::default());
    advise(statements, catalog, &mut model, options, &mut |_, _, _| {}, &|| 0.0).unwrap().0
}

/// `table(columns)` of each recommendation.
fn shapes(advice: &Advice, catalog: &Catalog) -> Vec<String> {
    let shape = |definition: &Definition| {
        let keys: Vec<_> = definition.keys.iter().map(|key| key.column.as_str()).collect();
        format!("{}({})", catalog.table(definition.table).name.name, keys.join(","))
    };
    advice.recommendations.iter().map(|found| shape(&found.definition)).collect()
}

/// Everything that could have been created or changed.
fn everything(cluster: &Cluster) -> Vec<Vec<Option<String>>> {
    let sql = "SELECT oid::text, relname::text, relfilenode::text FROM pg_class
               UNION ALL SELECT oid::text, extname::text, '' FROM pg_extension
               UNION ALL SELECT oid::text, proname::text, '' FROM pg_proc
               UNION ALL SELECT count(*)::text, sum(amount)::text, '' FROM orders ORDER BY 1, 2";
    cluster.query("shop", sql).unwrap()
}

#[test]
fn the_catalog_is_read_whole() {
    let (cluster, url) = shop();
    let more = r#"
        CREATE SCHEMA other;
        CREATE TABLE other.t (
          id int GENERATED ALWAYS AS IDENTITY, "Name" varchar(20) COLLATE "C" DEFAULT 'x', total numeric CHECK (total > 0),
          twice numeric GENERATED ALWAYS AS (total * 2) STORED, UNIQUE (id, "Name"));
        CREATE INDEX t_odd ON other.t ("Name" text_pattern_ops DESC NULLS LAST, lower("Name")) INCLUDE (total) WHERE total > 5;
        CREATE INDEX t_collated ON other.t ("Name" COLLATE "POSIX");
        CREATE VIEW open_orders AS SELECT id FROM orders WHERE status = 'open';"#;
    cluster.query("shop", more).unwrap();
    let catalog = Session::connect(&url).unwrap().catalog().unwrap();
    assert!(catalog.server_version.unwrap() >= 120_000);
    assert_eq!(catalog.search_path, ["public"]);

    let orders = catalog.table(catalog.find(None, "orders").unwrap());
    assert_eq!(orders.rows, Some(50_000.0));
    assert!(orders.pages.unwrap() > 100);
    assert_eq!(orders.column("created_at").unwrap().type_name, "timestamp with time zone");
    assert_eq!(orders.column("status").unwrap().n_distinct, Some(4.0));
    assert!(orders.column("note").unwrap().avg_width.unwrap() >= 80);
    let foreign = orders.constraints.iter().find(|constraint| constraint.columns == ["customer_id"]).unwrap();
    assert!(
        matches!(&foreign.kind, ConstraintKind::ForeignKey { table, columns } if table.name == "customers" && columns == &["id"])
    );
    assert!(orders.indexes.iter().any(|index| index.primary && index.unique && index.constraint));
    assert!(orders.indexes.iter().all(|index| index.valid && index.size_bytes.unwrap() > 0 && index.scans.is_some()));

    let t = catalog.table(catalog.find(Some("other"), "t").unwrap());
    assert_eq!(t.rows, None, "never analyzed");
    assert_eq!(t.column("Name").unwrap().collation.as_deref(), Some("C"));
    assert_eq!(t.column("Name").unwrap().type_name, "character varying(20)");
    assert!(t.column("id").unwrap().generated && t.column("twice").unwrap().generated);
    let odd = t.indexes.iter().find(|index| index.name == "t_odd").unwrap();
    assert_eq!(odd.keys.len(), 2);
    assert_eq!(odd.keys[0].column.as_deref(), Some("Name"));
    assert_eq!(odd.keys[0].operator_class.as_deref(), Some("text_pattern_ops"));
    assert!(odd.keys[0].descending && !odd.keys[0].nulls_first);
    assert_eq!(odd.keys[1].expression.as_deref(), Some("lower(\"Name\"::text)"));
    assert_eq!(
        (odd.include.as_slice(), odd.predicate.as_deref()),
        (&["total".to_owned()][..], Some("total > 5::numeric"))
    );
    let collated = t.indexes.iter().find(|index| index.name == "t_collated").unwrap();
    assert_eq!(collated.keys[0].collation.as_deref(), Some("POSIX"));

    let events = catalog.table(catalog.find(None, "events").unwrap());
    let leaf = catalog.table(catalog.find(None, "events_2024").unwrap());
    assert_eq!(events.kind, TableKind::Partitioned);
    assert_eq!(leaf.partition_of.as_ref(), Some(&events.name));
    let view = catalog.table(catalog.find(None, "open_orders").unwrap());
    assert!(view.kind == TableKind::View && view.definition.as_ref().unwrap().contains("status = 'open'"));
}

#[test]
fn plans_run_nothing_and_hostile_text_gets_nowhere() {
    let (cluster, url) = shop();
    let before = everything(&cluster);
    let session = Session::connect(&url).unwrap();
    let limits = Limits::default();
    let generic = |sql: &str| session.generic_plan(sql, limits);
    let custom = |sql: &str, parameters: &[Option<&str>]| session.custom_plan(sql, parameters, limits);

    let plan = generic("SELECT * FROM orders WHERE status = $1 AND created_at = $2").unwrap();
    assert!(plan.walk().iter().any(|node| node.index.as_deref() == Some("orders_status_created_at_idx")), "{plan:?}");
    let plan =
        custom("SELECT * FROM orders WHERE id = $1 AND status = $2", &[Some("7"), Some("it's '' \" , -- \\ \u{65e5}")])
            .unwrap();
    assert_eq!(plan.walk().last().unwrap().relation.as_deref(), Some("orders"));
    assert_eq!(plan.schema.as_deref(), Some("public"));
    for sql in [
        "DELETE FROM orders",
        "UPDATE orders SET amount = 0",
        "WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d",
    ] {
        assert!(generic(sql).is_ok() && custom(sql, &[]).is_ok(), "{sql}");
    }
    for sql in [
        "DELETE FROM orders; COMMIT",
        "SELECT 1; DROP TABLE orders",
        "SELECT 1) ; DROP TABLE orders; --",
        "DROP TABLE orders",
        "ANALYZE DELETE FROM orders",
        "(ANALYZE) DELETE FROM orders",
        "CREATE TABLE x AS SELECT 1",
        "EXECUTE pgweir_plan",
        "",
        "SELECT * FROM no_such_table",
        "SELECT * FROM orders WHERE",
        "SELECT $1 + $2 FROM orders WHERE id = '",
        "SELECT 1\0",
    ] {
        assert!(generic(sql).is_err() && custom(sql, &[]).is_err(), "{sql}");
    }
    assert!(matches!(generic("VACUUM"), Err(PlanFailure::NotPlannable(word)) if word == "VACUUM"));
    assert!(matches!(custom("SELECT * FROM orders WHERE id = $1", &[Some("x")]), Err(PlanFailure::Refused(_))));
    assert!(matches!(custom("SELECT * FROM orders WHERE id = $1", &[]), Err(PlanFailure::Refused(_))));
    assert!(generic("SELECT 1").is_ok(), "the session still works");
    let left = cluster.query("shop", "SELECT count(*)::text FROM pg_prepared_xacts").unwrap();
    assert_eq!(left[0][0].as_deref(), Some("0"));
    assert_eq!(everything(&cluster), before);
}

#[test]
fn a_strong_lock_delays_no_one_for_long() {
    let (cluster, url) = shop();
    let session = Session::connect(&url).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            cluster.query("shop", "BEGIN; LOCK TABLE orders; SELECT pg_sleep(2); COMMIT").unwrap();
            send.send(()).unwrap();
        });
        let started = std::time::Instant::now();
        while receive.try_recv().is_err() && started.elapsed().as_secs() < 20 {
            if let Err(PlanFailure::Refused(reason)) = session.generic_plan("SELECT * FROM orders", Limits::default()) {
                assert!(reason.contains("lock timeout"), "{reason}");
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the lock was never met");
    });
}

/// Statements and the index each wants, as `table(columns)`.
const PLANTED: [(&str, &str); 7] = [
    ("SELECT * FROM customers WHERE email = 'user77@example.com'", "customers(email)"),
    ("SELECT * FROM orders WHERE customer_id = $1 AND created_at > $2", "orders(customer_id,created_at)"),
    ("SELECT * FROM orders ORDER BY amount DESC LIMIT 10", "orders(amount)"),
    ("SELECT * FROM order_items WHERE product_id = 100 AND quantity > 3", "order_items(product_id,quantity)"),
    (
        "SELECT c.email, i.* FROM customers c JOIN orders o ON o.customer_id = c.id JOIN order_items i ON i.order_id = o.id WHERE c.id = 7",
        "order_items(order_id)",
    ),
    ("SELECT * FROM \"Strange \"\"Table\" WHERE \"User\" = $1 ORDER BY \"select\" DESC", "Strange \"Table(User)"),
    ("SELECT * FROM events WHERE kind = 77", "events(kind)"),
];

/// Statements that want none: an index is there, or there is no plan.
const OTHERS: [&str; 4] = [
    "SELECT * FROM orders WHERE status = 'open' AND created_at > '2024-12-30'",
    "SELECT * FROM orders WHERE id = 5",
    "SELECT * FROM gone WHERE id = 5",
    "SELECT * FROM orders WHERE id = 'no number'",
];

#[test]
fn planted_indexes_are_found_and_nothing_is_created() {
    let (cluster, url) = shop();
    cluster.query("shop", "CREATE EXTENSION hypopg").unwrap();
    let before = everything(&cluster);
    let session = Session::connect(&url).unwrap();
    let catalog = session.catalog().unwrap();
    let workload: Vec<_> = PLANTED.iter().map(|(sql, _)| seen(sql)).chain(OTHERS.map(seen)).collect();
    let statements = read(workload, &catalog).statements;
    let advice = run(&session, &catalog, &statements, &Options::default());
    let found = shapes(&advice, &catalog);
    for (sql, index) in PLANTED {
        assert!(
            found.iter().any(|shape| shape == index || shape.starts_with(&index.replace(')', ","))),
            "{index} for {sql}: {found:?}"
        );
    }
    assert!(
        !found.iter().any(|shape| shape.starts_with("orders(id") || shape.starts_with("orders(status")),
        "{found:?}"
    );
    assert_eq!(advice.skipped.len(), 2, "{:?}", advice.skipped);
    assert!(advice.cost_after < advice.cost_before / 4.0, "{} -> {}", advice.cost_before, advice.cost_after);
    for found in &advice.recommendations {
        assert!(!found.statements.is_empty() && found.cost_after < found.cost_before && found.size_bytes > 0);
    }
    assert_eq!(everything(&cluster), before, "nothing is created");

    // What is recommended is created as written, is used for real, and is not recommended again.
    for found in &advice.recommendations {
        cluster.query("shop", &found.ddl).unwrap_or_else(|error| panic!("{}: {error}", found.ddl));
    }
    cluster.query("shop", "VACUUM ANALYZE").unwrap();
    let catalog = session.catalog().unwrap();
    let used: BTreeSet<String> = PLANTED
        .iter()
        .flat_map(|(sql, _)| {
            session
                .generic_plan(sql, Limits::default())
                .unwrap()
                .walk()
                .into_iter()
                .filter_map(|node| node.index.clone())
                .collect::<Vec<_>>()
        })
        .collect();
    for found in advice.recommendations.iter().filter(|found| !found.name.starts_with("events")) {
        assert!(used.contains(&found.name), "{} is not used: {used:?}", found.name);
    }
    let again = run(&session, &catalog, &statements, &Options::default());
    for found in &again.recommendations {
        assert!(!exists(&found.definition, &catalog), "already there: {}", found.ddl);
    }
    assert!(
        again.cost_after > again.cost_before * 0.5,
        "most was found the first time: {:?}",
        shapes(&again, &catalog)
    );
}

#[test]
fn an_index_that_cannot_be_is_named_and_leaves_nothing_behind() {
    let (cluster, url) = shop();
    cluster
        .query("shop", "CREATE SCHEMA \"Odd\"; CREATE EXTENSION hypopg SCHEMA \"Odd\"; ALTER TABLE orders ADD doc json")
        .unwrap();
    let session = Session::connect(&url).unwrap();
    let catalog = session.catalog().unwrap();
    let table = catalog.find(None, "orders").unwrap();
    let on = |column: &str| Definition::new(table, vec![Key::ascending(column)]);
    let (good, bad) = (on("customer_id"), on("doc"));
    let statements = read([seen("SELECT * FROM orders WHERE customer_id = 5")], &catalog).statements;
    let Availability::Installed { schema } = availability(&session).unwrap() else { panic!("HypoPG is not there") };
    assert_eq!(schema, "\"Odd\"");
    let mut model = HypoPg::new(&session, &catalog, schema, Limits::default());
    let today = model.price(&statements[0], &[]).unwrap();
    let failure = model.price(&statements[0], &[&good, &bad]);
    assert!(matches!(&failure, Err(CostFailure::Index(1, reason)) if reason.contains("operator class")), "{failure:?}");
    assert!(matches!(model.size(&bad), Err(CostFailure::Index(0, _))));
    let better = model.price(&statements[0], &[&good]).unwrap();
    assert!(better.cost < today.cost / 2.0 && better.used == [0], "{better:?} after {today:?}");
    assert!(model.size(&good).unwrap() > 100_000);
    assert_eq!(model.price(&statements[0], &[]).unwrap(), today, "nothing is left of the attempt");
}

#[test]
fn a_budget_holds_and_the_answer_is_the_same_each_time() {
    let (cluster, url) = shop();
    cluster.query("shop", "CREATE EXTENSION hypopg").unwrap();
    let session = Session::connect(&url).unwrap();
    let catalog = session.catalog().unwrap();
    let workload = [
        "SELECT id FROM orders WHERE customer_id = 5 AND amount > 3",
        "SELECT * FROM customers WHERE email = 'a'",
        "SELECT sum(quantity) FROM order_items WHERE product_id = 5 GROUP BY order_id",
    ];
    let statements = read(workload.map(seen), &catalog).statements;
    let mut last = f64::INFINITY;
    for budget in [0, 1_000_000, 3_000_000, 1 << 30] {
        let options = Options { storage_budget_bytes: Some(budget), ..Options::default() };
        let advice = run(&session, &catalog, &statements, &options);
        assert!(advice.recommendations.iter().map(|found| found.size_bytes).sum::<u64>() <= budget);
        assert!(advice.cost_after <= last && advice.cost_after <= advice.cost_before, "{budget}");
        last = advice.cost_after;
        assert_eq!(run(&session, &catalog, &statements, &options), advice);
    }
    assert_eq!(
        last,
        run(&session, &catalog, &statements, &Options { storage_budget_bytes: Some(1 << 40), ..Options::default() })
            .cost_after
    );
}

fn pgweir(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_pgweir")).args(arguments).env_remove("DATABASE_URL").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_hypopg_an_estimate_says_what_it_is() {
    let (cluster, url) = shop();
    let session = Session::connect(&url).unwrap();
    assert_eq!(availability(&session).unwrap(), Availability::NotCreated);
    let log = cluster.data_dir().with_file_name("workload.sql");
    std::fs::write(&log, "SELECT * FROM customers WHERE email = 'x';\nSELECT * FROM customers WHERE email = 'y';\n")
        .unwrap();
    let log = log.display().to_string();
    let (code, out, error) = pgweir(&["advise", "indexes", "--log", &log, "--database-url", &url, "--format", "json"]);
    assert_eq!(code, Some(0), "{error}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["statements"], 2);
    let found = &report["recommendations"][0];
    assert_eq!(found["evidence"], "stats");
    assert_eq!(found["columns"], serde_json::json!(["email"]));
    assert!(
        report["notes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|note| note.as_str().unwrap().contains("CREATE EXTENSION hypopg"))
    );
    assert_eq!(report["redundant"][0]["index"], "orders_status_idx");
    assert_eq!(report["redundant"][0]["covered_by"], "orders_status_created_at_idx");
    assert_eq!(report["unused"][0]["ddl"], "DROP INDEX CONCURRENTLY public.customers_region_idx;");
    let (_, text, _) = pgweir(&["advise", "indexes", "--log", &log, "--database-url", &url]);
    assert!(
        text.contains("not the planner's") && text.contains("CREATE INDEX CONCURRENTLY customers_email_idx"),
        "{text}"
    );
}

#[test]
fn what_is_broken_and_foreign_keys_that_deletes_check_are_found() {
    let (cluster, url) = shop();
    cluster.query("shop", "CREATE EXTENSION hypopg").unwrap();
    let broken = "CREATE INDEX broken_idx ON orders (amount);
                  UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken_idx'::regclass";
    cluster.query("shop", broken).unwrap();
    let path = cluster.data_dir().with_file_name("deletes.sql").display().to_string();
    std::fs::write(&path, "DELETE FROM customers WHERE id = 7; SELECT count(*) FROM orders WHERE amount = 3;").unwrap();
    let ask = |more: &[&str]| {
        let words = ["advise", "indexes", "--log", &path, "--database-url", &url];
        let (code, out, error) = pgweir(&[&words[..], more].concat());
        assert_eq!(code, Some(0), "{error}");
        out
    };
    let report: serde_json::Value = serde_json::from_str(&ask(&["--format", "json"])).unwrap();
    assert_eq!(report["invalid"][0]["ddl"], "REINDEX INDEX CONCURRENTLY public.broken_idx;");
    let key = &report["unindexed_foreign_keys"][0];
    assert_eq!(
        (&key["table"], &key["references"]),
        (&"public.orders".into(), &"public.customers".into()),
        "{report:#}"
    );
    assert_eq!(key["deletes"], 1);
    assert_eq!(report["cut_short"], false);
    // An invalid index is no reason not to have a working one.
    assert_eq!(report["recommendations"][0]["columns"][0], "amount", "{report:#}");
    let text = ask(&[]);
    assert!(text.contains("\nINVALID: ") && text.contains("\nFOREIGN KEYS WITHOUT AN INDEX: "), "{text}");

    // Both remedies work, and nothing is left to say.
    for ddl in [report["invalid"][0]["ddl"].as_str().unwrap(), key["ddl"].as_str().unwrap()] {
        cluster.query("shop", ddl).unwrap();
    }
    let report: serde_json::Value = serde_json::from_str(&ask(&["--format", "json", "--time-limit", "1ms"])).unwrap();
    assert_eq!(
        (&report["invalid"], &report["unindexed_foreign_keys"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    assert_eq!(report["cut_short"], true);
    assert!(report["notes"].to_string().contains("cut short by --time-limit"), "{report:#}");
}

#[test]
fn a_real_log_with_hostile_values_is_read_planned_and_reported() {
    let (cluster, _) = shop();
    cluster.query("shop", "CREATE EXTENSION hypopg").unwrap();
    let before = everything(&cluster);
    let entries = [
        ("SELECT * FROM customers WHERE email = $1", "$1 = 'it''s, $2 = ''x''; DROP TABLE orders; --'"),
        ("SELECT * FROM customers WHERE email = $1", "$1 = NULL"),
        ("SELECT id FROM order_items WHERE product_id = ANY ($1) AND quantity > $2", "$1 = '{1,2,3}', $2 = '4'"),
        ("SELECT id FROM orders WHERE customer_id = $1 AND status <> $2", "$1 = '77', $2 = 'zw\u{f6}lf \u{65e5}\\'"),
        ("SELECT id FROM orders WHERE amount = $1", "$1 = 'cut off..."),
        ("SELECT * FROM orders WHERE nothing = $1", "$1 = '1'"),
        ("DELETE FROM orders WHERE note = $1", "$1 = 'n'"),
    ];
    let mut log = String::new();
    for (sql, parameters) in entries {
        let stamp = "2026-11-22 10:00:00.000 UTC [4242]";
        log.push_str(&format!(
            "{stamp} LOG:  duration: 12.5 ms  execute <unnamed>: {sql}\n{stamp} DETAIL:  parameters: {parameters}\n"
        ));
    }
    let path = cluster.data_dir().with_file_name("postgresql.log");
    std::fs::write(&path, log).unwrap();
    let url = cluster.url("postgres", "shop");
    let path = path.display().to_string();
    let (code, out, error) = pgweir(&[
        "advise",
        "indexes",
        "--log",
        &path,
        "--database-url",
        &url,
        "--format",
        "json",
        "--storage-budget",
        "64MB",
    ]);
    assert_eq!(code, Some(0), "{error}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["statements"], 7);
    let found = report["recommendations"].as_array().unwrap();
    for first in ["email", "product_id", "customer_id", "amount", "note"] {
        assert!(
            found.iter().any(|found| found["columns"][0] == first && found["evidence"] == "plan"),
            "{first}: {out}"
        );
    }
    assert_eq!(report["skipped"].as_array().unwrap().len(), 1, "{out}");
    assert!(report["skipped"][0]["reason"].as_str().unwrap().contains("column \"nothing\" does not exist"), "{out}");
    assert!(report["cost_after"].as_f64().unwrap() < report["cost_before"].as_f64().unwrap());
    assert_eq!(everything(&cluster), before);
}

#[test]
fn mistakes_are_explained() {
    let (code, _, error) = pgweir(&["advise", "indexes", "--database-url", "postgres://x@127.0.0.1:1/x"]);
    assert!(code == Some(2) && error.contains("--pg-stat-statements"), "{error}");
    let (code, _, error) =
        pgweir(&["advise", "indexes", "--pg-stat-statements", "--database-url", "postgres://u:secret@127.0.0.1:1/x"]);
    assert_eq!(code, Some(3));
    assert!(
        error.contains("postgres://u@127.0.0.1:1/x") && error.contains("hint") && !error.contains("secret"),
        "{error}"
    );
    let (code, _, error) =
        pgweir(&["advise", "indexes", "--pg-stat-statements", "--database-url", "postgres://x", "--format", "pdf"]);
    assert!(code == Some(2) && error.contains("markdown, sql or html"), "{error}");
    let cluster = Cluster::start().unwrap();
    let url = cluster.url("postgres", "postgres");
    let (code, _, error) = pgweir(&["advise", "indexes", "--pg-stat-statements", "--database-url", &url]);
    assert!(code == Some(3) && error.contains("shared_preload_libraries"), "{error}");
}
