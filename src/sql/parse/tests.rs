//! The parse room against hostile and unusual text.

use proptest::prelude::*;

use super::*;
use crate::sql::catalog::Catalog;
use crate::sql::facts::{StatementKind, facts};

/// Parses and extracts on a stack of the size that the runtime's threads have.
fn survives(sql: String) {
    let walk = move || {
        if let Ok(parsed) = parse(&sql) {
            facts(&parsed, &Catalog::default());
        }
        let _ = (tables_mentioned(&sql), classify(&sql));
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(walk).unwrap().join().unwrap();
}

/// What nests, or goes on, in SQL.
const NESTING: &[&str] = &[
    "(",
    "[",
    "{",
    "-",
    "+ ",
    "~ ",
    "@ ",
    "NOT ",
    "CASE ",
    "CASE WHEN ",
    "INTERVAL ",
    "ARRAY[",
    "SELECT ",
    "(SELECT ",
    "EXPLAIN ",
    "PREPARE a AS ",
    "WITH a AS (",
    "FROM (",
    "EXISTS (",
    "CAST(",
    "a AND ",
    "a OR ",
    "a = ",
    "a + ",
    "a || ",
    "a, ",
    "a.",
    "a IS NULL AND ",
    "ROW(",
    "f(",
    "x IN (",
    "DISTINCT ",
    "a BETWEEN 1 AND ",
    "a LIKE ",
    "STRUCT<",
    "MAP {",
    "a COLLATE ",
    "a AT TIME ZONE ",
    "LATERAL (",
    "JOIN (",
    "VALUES (",
    "UNION SELECT 1 ",
    "PRIOR ",
    "BINARY ",
    "DATE ",
    "EXTRACT(a FROM ",
    "POSITION(a IN ",
];

#[test]
fn nothing_deep_or_long_overflows_the_stack() {
    for word in NESTING {
        survives(word.repeat(3000));
        survives(format!("SELECT {}", word.repeat(3000)));
        survives(format!("SELECT 1 FROM {}", word.repeat(3000)));
        survives(format!("SELECT 1 FROM t WHERE {}1", word.repeat(1500)));
    }
    for suffix in [
        " + 1",
        " AND a = 1",
        " OR a = 1",
        " OR a = 1 AND b = 2",
        "::int",
        " IS NULL",
        " COLLATE \"C\"",
        "[1]",
        " AT TIME ZONE 'x'",
        " = 1",
        " IN (1)",
        " LIKE 'x'",
        " -> 'a'",
        " || 'a'",
        ".a",
        " UNION SELECT 1",
        ", 1",
        " BETWEEN 1 AND 2",
        "[]",
        " NOTNULL",
        " @> 'a'",
    ] {
        for count in [150, 1900, 5_000] {
            survives(format!("SELECT 1 FROM t WHERE a{}", suffix.repeat(count)));
            survives(format!("SELECT a::int{}", suffix.repeat(count)));
        }
    }
}

#[test]
fn long_but_ordinary_chains_are_understood() {
    let many = |sql: String| facts(&parse(&sql).unwrap(), &Catalog::default());
    let found = many(format!("SELECT 1 FROM t WHERE id = 1{}", " OR id = 2".repeat(1500)));
    assert_eq!((found.predicates.len(), found.unknown), (1501, None));
    let found = many(format!("SELECT 1 FROM t WHERE id = 1{}", " AND a = 2".repeat(1500)));
    assert!(found.predicates.len() == 1501 && found.predicates.iter().all(|predicate| predicate.conjunctive));
    let found = many(format!("SELECT 1{}", " UNION ALL SELECT 2".repeat(1500)));
    assert_eq!((found.scopes.len(), found.unknown), (1502, None));
    let found = many(format!("INSERT INTO t VALUES (1){}", ", (1, 'x')".repeat(5000)));
    assert_eq!(found.insert.unwrap().rows.len(), 5001);
}

#[test]
fn positions_are_exact_behind_tabs_and_wide_characters() {
    let sql = "SELECT 'ä€😀',\t\"ß\"\r\n\r\nFROM /* 日本\n */ t WHERE\tx = 'é' AND\n\n\ty = $1;";
    let parsed = parse(sql).unwrap();
    let found = facts(&parsed, &Catalog::default());
    let texts: Vec<&str> = found.predicates.iter().map(|predicate| predicate.span.of(sql)).collect();
    assert_eq!(texts, ["x = 'é'", "y = $1"]);
    assert_eq!(found.relations[0].span.of(sql), "t");
}

#[test]
fn errors_say_where() {
    let sql = "SELECT é,\n  , 1";
    let unparsed = parse(sql).unwrap_err();
    assert_eq!(unparsed.span.map(|span| span.of(sql)), Some(","), "{unparsed}");
    let sql = "SELECT 1; DELETE FROM t";
    assert_eq!(parse(sql).unwrap_err().span.map(|span| span.of(sql)), Some("DELETE"));
    assert!(parse("SELECT 'abc").is_err() && parse("").is_err() && parse(" -- nothing").is_err());
}

#[test]
fn a_statement_without_a_tree_still_names_its_tables() {
    let names = tables_mentioned("REINDEX TABLE App.\"Orders\" /* x.y */, \"a\"\"b\".c -- z").unwrap();
    let has = |qualifier: Option<&str>, name: &str| {
        names.contains(&Mentioned { qualifier: qualifier.map(str::to_owned), name: name.to_owned() })
    };
    assert!(has(Some("app"), "Orders") && has(Some("a\"b"), "c"), "{names:?}");
    assert!(!names.iter().any(|name| name.name == "y" || name.name == "z"));
}

#[test]
fn commands_are_known_by_their_words() {
    for (sql, kind, command) in [
        ("REINDEX TABLE t", StatementKind::Ddl, "REINDEX"),
        ("create unique index i on t (a)", StatementKind::Ddl, "CREATE INDEX"),
        ("CREATE OR REPLACE FUNCTION f() ..", StatementKind::Ddl, "CREATE FUNCTION"),
        ("REFRESH MATERIALIZED VIEW v", StatementKind::Ddl, "REFRESH MATERIALIZED VIEW"),
        ("-- c\n ROLLBACK TO s", StatementKind::Transaction, "ROLLBACK"),
        ("PREPARE TRANSACTION 'x'", StatementKind::Transaction, "PREPARE"),
        ("COPY (SELECT 1 FROM t) TO STDOUT", StatementKind::CopyTo, "COPY"),
        ("COPY t FROM STDIN", StatementKind::CopyFrom, "COPY"),
        ("(SELECT 1)", StatementKind::Select, "SELECT"),
        ("DO $$ $$", StatementKind::Other, "DO"),
    ] {
        assert_eq!(classify(sql), (kind, command.to_owned()), "{sql}");
    }
}

/// Words and marks that statements are made of.
const PIECES: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "t",
    "u.a",
    "a",
    "\"B\"",
    "(",
    ")",
    ",",
    "=",
    "<>",
    "1",
    "-2",
    "'x'",
    "E'\\n'",
    "$1",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "NULL",
    "BETWEEN",
    "LIKE",
    "JOIN",
    "LEFT",
    "ON",
    "USING",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "WITH",
    "AS",
    "INSERT INTO",
    "VALUES",
    "UPDATE",
    "SET",
    "DELETE",
    "RETURNING",
    "ON CONFLICT",
    "DO",
    "NOTHING",
    "UNION ALL",
    "EXISTS",
    "CASE",
    "WHEN",
    "THEN",
    "END",
    "::int",
    "[1]",
    "ARRAY[",
    "]",
    "count(*)",
    "now()",
    "OVER",
    "LATERAL",
    "ONLY",
    "TABLE",
    "ISNULL",
    "OVERRIDING",
    "VALUE",
    ";",
    "*",
    "é",
    "DATE '2024-01-01'",
    "INTERVAL",
    "ANY",
    "ALL",
    "FOR",
    "KEY",
    "CREATE",
    "INDEX",
    "VIEW",
    "MATERIALIZED",
    "DATA",
    "EXCLUDE",
    "VARIADIC",
    "MERGE INTO",
    "MATCHED",
];

/// Pieces that make statements more often than random characters do.
fn soup() -> impl Strategy<Value = String> {
    let words = prop::sample::select(PIECES);
    prop::collection::vec(words, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_survived(sql in "\\PC{0,100}") {
        let _ = parse(&sql).map(|parsed| facts(&parsed, &Catalog::default()));
        let _ = (tables_mentioned(&sql), classify(&sql));
    }

    #[test]
    fn any_words_are_survived_and_spans_lie_in_the_text(sql in soup()) {
        if let Ok(parsed) = parse(&sql) {
            let found = facts(&parsed, &Catalog::default());
            let spans = found.predicates.iter().map(|predicate| predicate.span);
            for span in spans.chain(found.relations.iter().map(|relation| relation.span)) {
                prop_assert!(sql.get(span.start as usize..span.end as usize).is_some(), "{:?}", span);
            }
        }
        let _ = (tables_mentioned(&sql), classify(&sql));
    }
}
