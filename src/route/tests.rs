//! The plans in fixtures/plans: SQL in, plan out, with the rule that decided.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::sql::ddl::catalog_from_ddl;
use crate::sql::template::Scanner;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/plans")
}

fn topology() -> Topology {
    let read = |name: &str| std::fs::read_to_string(folder().join(name)).unwrap();
    let config = crate::config::parse(&read("pgweir.yaml"), "pgweir.yaml").unwrap();
    let (catalog, problems) = catalog_from_ddl(&read("schema.sql"));
    assert!(problems.is_empty(), "{problems:?}");
    Topology::new(&config.databases["shop"], Arc::new(catalog)).unwrap()
}

fn printed(sql: &str, parameters: &[Option<String>], session: SessionFacts, topology: &Topology) -> String {
    let mut scanner = Scanner::new(Default::default());
    let constants = scanner.scan(sql.as_bytes()).bindings.to_vec();
    let plan = plan(sql, &constants, topology, session);
    plan.print(&TextBindings { sql, constants: &constants, parameters }, sql)
}

/// One case: its lines above `----`, with comments, `$n = value` and `SET` lines taken apart.
fn answer(case: &str, topology: &Topology) -> String {
    let mut session = SessionFacts::default();
    let mut parameters: Vec<Option<String>> = Vec::new();
    let mut sql = Vec::new();
    for line in case.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(" = ") {
            Some((name, value)) if name.starts_with('$') => {
                parameters.push((value != "NULL").then(|| value.to_owned()))
            }
            _ if line == "@search_path" => session.default_search_path = false,
            _ if line == "@backslashes" => session.standard_conforming_strings = false,
            _ if line == "@latin1" => session.utf8 = false,
            _ => sql.push(line),
        }
    }
    printed(&sql.join("\n"), &parameters, session, topology)
}

#[test]
fn plans_are_as_written_down() {
    let topology = topology();
    let mut stale = Vec::new();
    let mut decided: BTreeSet<String> = BTreeSet::new();
    let mut cases = 0;
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "txt")) {
        let text = std::fs::read_to_string(path).unwrap();
        let mut fresh = String::new();
        for block in text.split("\n\n").map(|block| block.trim_matches('\n')).filter(|block| !block.is_empty()) {
            let question = block.split("\n----").next().unwrap();
            if question.lines().all(|line| line.starts_with('#')) {
                fresh.push_str(&format!("{question}\n\n"));
                continue;
            }
            let plan = answer(question, &topology);
            let by = plan.lines().next().unwrap().split("by ").nth(1).unwrap();
            decided.insert(by.split(':').next().unwrap().to_owned());
            cases += 1;
            fresh.push_str(&format!("{question}\n----\n{plan}\n"));
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &fresh).unwrap();
        } else if fresh != text {
            let differing = fresh.lines().zip(text.lines()).find(|(fresh, old)| fresh != old);
            stale.push(format!("{}: {differing:?}", path.display()));
        }
    }
    assert!(stale.is_empty(), "plans differ (UPDATE_GOLDEN=1 rewrites):\n{}", stale.join("\n"));
    let never: Vec<_> = RULE_NAMES.iter().filter(|name| !decided.contains(**name)).collect();
    assert!(never.is_empty(), "no case is decided by {never:?}");
    let unnamed: Vec<_> = decided.iter().filter(|name| !RULE_NAMES.contains(&name.as_str())).collect();
    assert!(unnamed.is_empty(), "not in the list of rules: {unnamed:?}");
    assert!(cases >= 100, "only {cases} cases");
}

/// One template's plan serves all statements of that template.
#[test]
fn a_plan_serves_other_constants() {
    let topology = topology();
    let mut scanner = Scanner::new(Default::default());
    let first = "SELECT * FROM orders WHERE note = 'x' AND customer_id = 1";
    let constants = scanner.scan(first.as_bytes()).bindings.to_vec();
    let plan = plan(first, &constants, &topology, SessionFacts::default());
    let table = crate::sql::catalog::QualifiedName { schema: "public".to_owned(), name: "orders".to_owned() };
    let mut seen = BTreeSet::new();
    for key in 0..100 {
        let sql = format!("select *  from orders where note = 'it''s' and customer_id = {key}");
        let constants = scanner.scan(sql.as_bytes()).bindings.to_vec();
        let route = plan.bind(&TextBindings { sql: &sql, constants: &constants, parameters: &[] }).unwrap();
        let expected = topology.shard_of(&table, &key.to_string()).unwrap();
        assert_eq!(route, Route::Single(expected), "{sql}");
        seen.insert(expected);
    }
    assert_eq!(seen.len(), topology.shards().len(), "keys reach every shard");
}

/// Parameters in binary form, declared types, and values that say nothing.
#[test]
fn parameters() {
    struct One<'a>(Option<Parameter<'a>>);
    impl Bindings for One<'_> {
        fn constant(&self, _: usize) -> Option<&str> {
            None
        }
        fn parameter(&self, number: u32) -> Option<Parameter<'_>> {
            self.0.filter(|_| number == 1)
        }
    }
    let topology = topology();
    let sql = "SELECT * FROM orders WHERE customer_id = $1";
    let mut scanner = Scanner::new(Default::default());
    let constants = scanner.scan(sql.as_bytes()).bindings.to_vec();
    let plan = plan(sql, &constants, &topology, SessionFacts::default());
    let bind = |type_oid, binary, value: Option<&[u8]>| plan.bind(&One(Some(Parameter { type_oid, binary, value })));
    let expected = bind(0, false, Some(b"42")).unwrap();
    for (oid, bytes) in [
        (20, 42_i64.to_be_bytes().to_vec()),
        (23, 42_i32.to_be_bytes().to_vec()),
        (21, 42_i16.to_be_bytes().to_vec()),
        (0, 42_i64.to_be_bytes().to_vec()),
    ] {
        assert_eq!(bind(oid, true, Some(&bytes)), Ok(expected), "{oid}");
    }
    assert_eq!(bind(0, false, None), Ok(Route::Single(ShardId(0))), "NULL equals nothing");
    for (oid, binary, value) in [
        (1700, false, b"42".to_vec()),
        (701, true, 42_f64.to_be_bytes().to_vec()),
        (25, false, b"42".to_vec()),
        (0, true, b"123".to_vec()),
        (0, false, b"42.0".to_vec()),
        (0, false, b" 42".to_vec()),
        (0, false, b"\xff".to_vec()),
    ] {
        let heard = bind(oid, binary, Some(&value));
        assert!(
            matches!(heard, Ok(Route::Several(..))),
            "every shard is asked where the key cannot be read: {heard:?}"
        );
    }
    assert!(matches!(plan.bind(&One(None)), Ok(Route::Several(..))));
}
