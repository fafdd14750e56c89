//! Kinds of indexes that are not plain columns: each planted need is found, and on the real index the same query reads less.

use super::{run, seen, shop};
use pgweir::advise::Options;
use pgweir::advise::input::read;
use pgweir::db::blocking::Session;
use pgweir::db::local::Cluster;

/// Pages that a query touches.
fn pages(cluster: &Cluster, sql: &str) -> u64 {
    let rows = cluster.query("shop", &format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(rows[0][0].as_deref().unwrap()).unwrap();
    let count = |key: &str| plan[0]["Plan"][key].as_u64().unwrap();
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

const PLANTED: &[(&str, &str)] = &[
    ("SELECT id FROM customers WHERE lower(email) = 'user77@example.com'", "(lower(email))"),
    ("SELECT id FROM customers c WHERE c.email LIKE 'user777%'", "(email text_pattern_ops)"),
    ("SELECT id FROM docs d WHERE d.body ->> 'sku' = 's123' AND tenant = 3", "(body ->> 'sku')"),
    ("SELECT count(*) FROM docs WHERE date_trunc('day', made) = '2025-03-01'", "(date_trunc('day', made))"),
    ("SELECT id FROM docs WHERE size * 2 = 1996 ORDER BY id", "((size * 2))"),
];

#[test]
fn what_is_not_a_column_is_found_and_pays() {
    let (cluster, url) = shop();
    cluster
        .query(
            "shop",
            "CREATE EXTENSION hypopg; CREATE TABLE docs (id int PRIMARY KEY, tenant int, size int, made timestamp, body jsonb, pad text);
             INSERT INTO docs SELECT g, g % 10, g % 1000, timestamp '2025-01-01' + g * interval '20 minutes', jsonb_build_object('sku', 's' || g % 5000), repeat('x', 90)
             FROM generate_series(1, 30000) g",
        )
        .unwrap();
    // Statistics of an expression are there once it has an index: without them, equality with it keeps half a percent.
    cluster.query("shop", "ANALYZE").unwrap();
    for (sql, written) in PLANTED {
        let session = Session::connect(&url).unwrap();
        let catalog = session.catalog().unwrap();
        let advice = run(&session, &catalog, &read([seen(sql)], &catalog).statements, &Options::default());
        let found = advice.recommendations.iter().find(|found| found.ddl.contains(written));
        let found = found.unwrap_or_else(|| panic!("{sql}: {:?}", advice.recommendations));
        let before = pages(&cluster, sql);
        cluster.query("shop", &found.ddl).unwrap();
        cluster.query("shop", "ANALYZE").unwrap();
        let after = pages(&cluster, sql);
        assert!(after * 2 < before, "{sql}: {before} pages, then {after}");
        // What is there is not asked for again.
        let session = Session::connect(&url).unwrap();
        let catalog = session.catalog().unwrap();
        let again = run(&session, &catalog, &read([seen(sql)], &catalog).statements, &Options::default());
        assert!(again.recommendations.iter().all(|other| other.definition != found.definition), "{sql}");
    }
}

/// Few rows are open, and they are always asked for by the same words.
#[test]
fn partial_indexes_for_conditions_without_constants() {
    let (cluster, url) = shop();
    cluster
        .query(
            "shop",
            "CREATE EXTENSION hypopg;
             CREATE TABLE jobs (id int PRIMARY KEY, queue int, run_at timestamptz, done_at timestamptz, pad text);
             INSERT INTO jobs SELECT g, g % 7, now(), CASE WHEN g % 50 > 0 THEN now() END, repeat('x', 90) FROM generate_series(1, 30000) g;
             CREATE VIEW open_jobs AS SELECT id, queue / (1 + id % 3) AS ratio, run_at FROM jobs WHERE done_at IS NULL AND queue > 0",
        )
        .unwrap();
    cluster.query("shop", "ANALYZE").unwrap();
    let session = Session::connect(&url).unwrap();
    let catalog = session.catalog().unwrap();
    let sql = "SELECT id FROM jobs WHERE queue = 3 AND done_at IS NULL ORDER BY run_at LIMIT 10";
    // The other reads the table through a view: it must not be planned with a hypothesis on some of the rows.
    let through = "SELECT ratio, run_at FROM open_jobs WHERE run_at >= now() ORDER BY ratio DESC LIMIT 20";
    let derived = "SELECT x.id FROM (SELECT id, queue FROM jobs WHERE done_at IS NULL) x WHERE x.queue = 5";
    let most = "SELECT count(*) FROM jobs WHERE done_at IS NOT NULL AND queue = 2";
    let workload = read([seen(sql), seen(through), seen(derived), seen(most)], &catalog);
    let advice = run(&session, &catalog, &workload.statements, &Options::default());
    let partial: Vec<_> = advice.recommendations.iter().filter(|found| found.ddl.contains(" WHERE ")).collect();
    let [found] = partial.as_slice() else { panic!("{:?}", advice.recommendations) };
    assert!(found.ddl.ends_with(" WHERE done_at IS NULL;"), "{}", found.ddl);
    assert!(found.size_bytes < 500_000, "{}", found.size_bytes);
    assert_eq!(advice.skipped, []);
    let before = pages(&cluster, sql);
    cluster.query("shop", &found.ddl).unwrap();
    let after = pages(&cluster, sql);
    assert!(after * 2 < before, "{before} pages, then {after}");
    let session = Session::connect(&url).unwrap();
    let catalog = session.catalog().unwrap();
    let again = run(&session, &catalog, &read([seen(sql)], &catalog).statements, &Options::default());
    assert!(again.recommendations.iter().all(|other| other.definition != found.definition), "{again:?}");
}

/// Where storage is dear, rows that lie in the order of time need a few pages only.
#[test]
fn a_summary_of_pages_fits_a_small_budget() {
    let (cluster, url) = shop();
    cluster
        .query(
            "shop",
            "CREATE EXTENSION hypopg; CREATE TABLE readings (at timestamptz, sensor int, value float8, pad text);
             INSERT INTO readings SELECT timestamptz '2025-01-01' + g * interval '1 minute', g % 100, g, repeat('x', 90) FROM generate_series(1, 100000) g",
        )
        .unwrap();
    cluster.query("shop", "ANALYZE").unwrap();
    let session = Session::connect(&url).unwrap();
    let catalog = session.catalog().unwrap();
    let sql = "SELECT avg(value) FROM readings WHERE at >= '2025-02-01' AND at < '2025-02-02'";
    let options = Options { storage_budget_bytes: Some(200_000), ..Options::default() };
    let advice = run(&session, &catalog, &read([seen(sql)], &catalog).statements, &options);
    let [found] = advice.recommendations.as_slice() else { panic!("{:?}", advice.recommendations) };
    assert_eq!(found.ddl, "CREATE INDEX CONCURRENTLY readings_at_brin_idx ON public.readings USING brin (at);");
    let before = pages(&cluster, sql);
    cluster.query("shop", &found.ddl).unwrap();
    let after = pages(&cluster, sql);
    assert!(after * 2 < before, "{before} pages, then {after}");
    let session = Session::connect(&url).unwrap();
    let catalog = session.catalog().unwrap();
    let again = run(&session, &catalog, &read([seen(sql)], &catalog).statements, &options);
    assert_eq!(again.recommendations, []);
}
