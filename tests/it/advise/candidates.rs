//! Goldens of the candidates: `fixtures/advise/candidates/*.txt` over `schema.sql` beside them.
//!
//! A case is the SQL, a line `----`, and the possible indexes, one a line; cases are parted by a blank line.
//! `PGWEIR_UPDATE=1 cargo test --test it advise::candidates` rewrites what comes of it.

use std::fmt::Write as _;
use std::path::Path;

use pgweir::advise::Options;
use pgweir::advise::candidates::candidates;
use pgweir::advise::ddl::body;
use pgweir::sql::catalog::Catalog;
use pgweir::sql::ddl::catalog_from_ddl;
use pgweir::sql::{facts, parse};

fn outcome(sql: &str, catalog: &Catalog) -> String {
    let facts = facts(&parse(sql).unwrap(), catalog);
    let found = candidates(&facts, sql, catalog, &Options::default());
    let lines: Vec<String> =
        found.iter().map(|index| body(catalog.table(index.table), index).replace("public.", "")).collect();
    if lines.is_empty() { "(none)".to_owned() } else { lines.join("\n") }
}

#[test]
fn goldens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/advise/candidates");
    let (catalog, problems) = catalog_from_ddl(&std::fs::read_to_string(folder.join("schema.sql")).unwrap());
    assert!(problems.is_empty(), "{problems:?}");
    for name in ["one-table.txt", "joins.txt", "nothing.txt"] {
        let path = folder.join(name);
        let written = std::fs::read_to_string(&path).unwrap();
        let mut found = String::new();
        for case in written.split("\n\n").map(|case| case.trim_matches('\n')).filter(|case| !case.is_empty()) {
            let sql = case.split_once("\n----").map_or(case, |(sql, _)| sql);
            writeln!(found, "{sql}\n----\n{}\n", outcome(sql, &catalog)).unwrap();
        }
        let found = format!("{}\n", found.trim_end());
        if std::env::var_os("PGWEIR_UPDATE").is_some() {
            std::fs::write(&path, found).unwrap();
        } else {
            assert_eq!(found, written, "{} (PGWEIR_UPDATE=1 rewrites it)", path.display());
        }
    }
}
