//! How fast SQL text becomes a fingerprint, a key and bindings: `cargo bench --bench template`.
//!
//! Each mix is a set of statements that is scanned over and over. Printed is the median of several runs in MB of SQL
//! text per second and one core, for the lexer alone and for the whole scan. Needed is 300 MB/s on `log-like`. Time is the time on
//! the processor where Linux tells it, so that a busy machine does not count.

use std::hint::black_box;
use std::time::Instant;

use pgweir::sql::lexer::{LexOptions, Lexer};
use pgweir::sql::template::Scanner;

const RUNS: usize = 9;
/// Bytes scanned in one run.
const RUN_BYTES: usize = 32 << 20;

fn main() {
    let point = point_selects();
    let joins = joins();
    let inserts = inserts();
    let strings = strings();
    let comments = comments();
    let quoted = quoted();
    // The mix of a web application's log: mostly short statements, now and then something long.
    let mut log = Vec::new();
    for round in 0..40 {
        log.extend(point.iter().cloned());
        log.extend(quoted.iter().cloned());
        log.push(joins[round % joins.len()].clone());
        log.push(comments[round % comments.len()].clone());
        if round % 8 == 0 {
            log.push(inserts[round / 8 % inserts.len()].clone());
            log.push(strings[round / 8 % strings.len()].clone());
        }
    }
    println!("{:<14} {:>10} {:>12} {:>12} {:>12}", "mix", "bytes/stmt", "lexer MB/s", "scan MB/s", "scan ns/stmt");
    for (name, statements) in [
        ("log-like", &log),
        ("point selects", &point),
        ("quoted (ORM)", &quoted),
        ("10-table joins", &joins),
        ("bulk inserts", &inserts),
        ("long strings", &strings),
        ("comments", &comments),
    ] {
        report(name, statements);
    }
}

fn report(name: &str, statements: &[String]) {
    let bytes: usize = statements.iter().map(String::len).sum();
    let lexer = megabytes_per_second(statements, bytes, |sql| {
        Lexer::new(sql, LexOptions::default()).fold(0u64, |sum, token| sum.wrapping_add(u64::from(token.end)))
    });
    let mut scanner = Scanner::new(LexOptions::default());
    let scan = megabytes_per_second(statements, bytes, |sql| {
        let scan = scanner.scan(sql);
        scan.fingerprint.0 ^ scan.key.low_bits()
    });
    let size = bytes as f64 / statements.len() as f64;
    println!("{name:<14} {size:>10.0} {lexer:>12.0} {scan:>12.0} {:>12.0}", size * 1e3 / scan);
}

fn megabytes_per_second(statements: &[String], bytes: usize, mut work: impl FnMut(&[u8]) -> u64) -> f64 {
    let rounds = (RUN_BYTES / bytes).max(1);
    let mut speeds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let (start, clock) = (cpu_seconds(), Instant::now());
            for _ in 0..rounds {
                for sql in statements {
                    black_box(work(black_box(sql.as_bytes())));
                }
            }
            let seconds = match (start, cpu_seconds()) {
                (Some(start), Some(end)) => end - start,
                _ => clock.elapsed().as_secs_f64(),
            };
            (bytes * rounds) as f64 / seconds / 1e6
        })
        .collect();
    speeds.sort_by(f64::total_cmp);
    speeds[RUNS / 2]
}

/// Seconds that this thread has been on a processor.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split(' ').next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

fn point_selects() -> Vec<String> {
    let mut statements = Vec::new();
    for id in [7, 4_711, 81_234_567] {
        statements.push(format!("SELECT abalance FROM pgbench_accounts WHERE aid = {id};"));
        statements.push(format!(
            "SELECT id, name, email, created_at FROM customers WHERE id = {id} AND deleted_at IS NULL LIMIT 1"
        ));
        statements.push(format!(
            "UPDATE orders SET status = 'shipped', updated_at = now() WHERE id = {id} AND customer_id = $1"
        ));
        statements.push(format!("SELECT * FROM sessions WHERE token = '0f8fad5b-d9cb-469f-a165-{id:012}'"));
        statements.push("BEGIN".into());
        statements.push("COMMIT".into());
    }
    statements
}

fn quoted() -> Vec<String> {
    [31, 5_150, 990_017]
        .iter()
        .flat_map(|id| {
            [
                format!(r#"SELECT "orders".* FROM "orders" WHERE "orders"."customer_id" = {id} ORDER BY "orders"."created_at" DESC LIMIT 20"#),
                format!(
                    r#"SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."username" FROM "auth_user" WHERE ("auth_user"."is_active" AND "auth_user"."id" IN ({id}, 12, 13, 14, 15)) LIMIT 21"#
                ),
            ]
        })
        .collect()
}

fn joins() -> Vec<String> {
    (0..4)
        .map(|variant| {
            format!(
                "SELECT MIN(mc.note) AS production_note, MIN(t.title) AS movie_title, MIN(t.production_year) AS movie_year\n\
                 FROM company_type AS ct, info_type AS it, movie_companies AS mc, movie_info_idx AS mi_idx, title AS t,\n     \
                 cast_info AS ci, name AS n, char_name AS chn, role_type AS rt, aka_name AS an\n\
                 WHERE ct.kind = 'production companies' AND it.info = 'top 250 rank'\n  \
                 AND mc.note NOT LIKE '%(as Metro-Goldwyn-Mayer Pictures)%'\n  \
                 AND (mc.note LIKE '%(co-production)%' OR mc.note LIKE '%(presents)%')\n  \
                 AND t.production_year > {} AND ct.id = mc.company_type_id AND t.id = mc.movie_id AND t.id = mi_idx.movie_id\n  \
                 AND mc.movie_id = mi_idx.movie_id AND it.id = mi_idx.info_type_id AND ci.movie_id = t.id\n  \
                 AND n.id = ci.person_id AND chn.id = ci.person_role_id AND rt.id = ci.role_id AND an.person_id = n.id\n\
                 GROUP BY ct.kind, it.info ORDER BY 1, 2 DESC NULLS LAST LIMIT 100",
                1990 + variant
            )
        })
        .collect()
}

fn inserts() -> Vec<String> {
    [10, 100, 1000]
        .iter()
        .map(|rows| {
            let rows: Vec<String> = (0..*rows)
                .map(|row| {
                    format!(
                        "({row}, 'customer {row}', '2024-01-{:02}', {}.{:02}, NULL, true)",
                        row % 28 + 1,
                        row * 3,
                        row % 100
                    )
                })
                .collect();
            format!("INSERT INTO order_items (id, name, created_at, price, note, active) VALUES {}", rows.join(", "))
        })
        .collect()
}

fn strings() -> Vec<String> {
    let text = "the quick brown fox jumps over the lazy dog, it''s said. ".repeat(60);
    vec![
        format!("INSERT INTO documents (id, body) VALUES (1, '{text}')"),
        format!("UPDATE documents SET body = E'{text}\\n\\'quoted\\'' WHERE id = 2"),
        format!("DO $body$ BEGIN RAISE NOTICE '{text}'; END $body$"),
    ]
}

fn comments() -> Vec<String> {
    vec![
        "/*application:shop,controller:orders,action:index,traceparent='00-5b8efff798038103d269b633813fc60c-01'*/ SELECT count(*) FROM orders WHERE state = 3".into(),
        "-- the report that runs each night\nSELECT region, sum(total) -- in cents\nFROM orders /* no partitions yet */ GROUP BY region".into(),
    ]
}
