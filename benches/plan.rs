//! How long the router thinks about a template that it has not seen: `cargo bench --bench plan`.
//!
//! Each statement is planned over and over on the golden plans' schema, with its parsing. Printed is the median of several runs in microseconds. Needed is 300 on
//! the join of five tables.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use pgweir::config;
use pgweir::route::{self, SessionFacts, Topology};
use pgweir::sql::ddl::catalog_from_ddl;
use pgweir::sql::template::Scanner;

const RUNS: usize = 15;
const PLANS: u32 = 200;

const STATEMENTS: [(&str, &str); 6] = [
    ("point select", "SELECT name FROM customers WHERE id = 42"),
    (
        "5-table join",
        "SELECT c.name, o.id, i.sku, k.name AS country, r.name AS region FROM customers c JOIN orders o ON o.customer_id = c.id \
         JOIN order_items i ON i.customer_id = o.customer_id AND i.order_id = o.id JOIN countries k ON k.code = c.country \
         LEFT JOIN regions r ON r.name = k.region WHERE c.id = $1 AND o.placed > $2 AND i.qty > 1 ORDER BY o.placed DESC LIMIT 20",
    ),
    (
        "5-table groups",
        "SELECT k.name, count(*), sum(i.qty), avg(o.total) FROM customers c JOIN orders o ON o.customer_id = c.id \
         JOIN order_items i ON i.customer_id = o.customer_id AND i.order_id = o.id JOIN countries k ON k.code = c.country \
         LEFT JOIN regions r ON r.name = k.region WHERE o.placed > '2026-01-01' GROUP BY k.name HAVING count(*) > 3 ORDER BY 2 DESC LIMIT 20",
    ),
    ("insert", "INSERT INTO orders (customer_id, id, total) VALUES ($1, $2, $3) RETURNING id"),
    ("insert 100 rows", ""),
    ("update", "UPDATE orders SET total = total + $1, note = 'x' WHERE customer_id = $2 AND id = $3"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/plans");
    let config = config::load(&folder.join("pgweir.yaml"))?;
    let (catalog, _) = catalog_from_ddl(&std::fs::read_to_string(folder.join("schema.sql"))?);
    let database = config.databases.get("shop").ok_or("the fixture has no database shop")?;
    let topology = Topology::new(database, Arc::new(catalog))?;
    let rows: Vec<String> = (0..100).map(|row| format!("({row}, {row}, 1.5)")).collect();
    let many = format!("INSERT INTO orders (customer_id, id, total) VALUES {}", rows.join(", "));
    println!("{:<16} {:>8} {:>10}  rule", "statement", "us", "us, parsing");
    for (name, sql) in STATEMENTS {
        let sql = if sql.is_empty() { &many } else { sql };
        let mut scanner = Scanner::new(Default::default());
        let constants = scanner.scan(sql.as_bytes()).bindings.to_vec();
        let whole = median(|| {
            black_box(route::plan(black_box(sql), &constants, &topology, SessionFacts::default()));
        });
        let parsing = median(|| {
            black_box(pgweir::sql::parse::parse(black_box(sql)).is_ok());
        });
        let rule = route::plan(sql, &constants, &topology, SessionFacts::default()).rule;
        println!("{name:<16} {whole:>8.1} {parsing:>10.1}  {rule}");
    }
    Ok(())
}

/// Microseconds for one.
fn median(mut one: impl FnMut()) -> f64 {
    let mut run = || {
        let started = Instant::now();
        (0..PLANS).for_each(|_| one());
        started.elapsed().as_secs_f64() * 1e6 / f64::from(PLANS)
    };
    let mut times: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
