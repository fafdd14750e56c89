//! Golden tests: `fixtures/ddl/<name>.sql` and the catalog it describes, `<name>.catalog.txt`, in a compact form.
//! `UPDATE_GOLDEN=1 cargo test` rewrites them: read what changed.

use std::fmt::Write as _;

use super::*;

/// The catalog as a few lines a table.
fn print(sql: &str) -> String {
    let (catalog, problems) = catalog_from_ddl(sql);
    let mut out = String::new();
    for (_, table) in catalog.tables() {
        let parent = table.partition_of.as_ref().map(|parent| format!(" of {parent}")).unwrap_or_default();
        _ = writeln!(out, "{} {:?}{parent}", table.name, table.kind);
        for column in &table.columns {
            let null = if column.not_null { " not null" } else { "" };
            let generated = if column.generated { " generated" } else { "" };
            let collation = column.collation.as_ref().map(|name| format!(" collate {name}")).unwrap_or_default();
            let default = column.default.as_ref().map(|default| format!(" = {default}")).unwrap_or_default();
            _ = writeln!(out, "  {} {}{null}{generated}{collation}{default}", column.name, column.type_name);
        }
        for index in &table.indexes {
            let keys: Vec<String> = index.keys.iter().map(key).collect();
            let unique = if index.primary {
                " primary"
            } else if index.unique {
                " unique"
            } else {
                ""
            };
            let constraint = if index.constraint { " constraint" } else { "" };
            let include =
                if index.include.is_empty() { String::new() } else { format!(" include {:?}", index.include) };
            let predicate = index.predicate.as_ref().map(|predicate| format!(" where {predicate}")).unwrap_or_default();
            let (name, method, keys) = (&index.name, &index.method, keys.join(", "));
            _ = writeln!(out, "  index {name} {method}{unique}{constraint} ({keys}){include}{predicate}");
        }
        for constraint in &table.constraints {
            _ = writeln!(out, "  {:?} {:?} {}", constraint.kind, constraint.columns, constraint.name);
        }
    }
    for problem in problems {
        _ = writeln!(out, "line {}: {}", problem.line, problem.what);
    }
    out
}

fn key(key: &crate::sql::catalog::IndexKey) -> String {
    let mut text = key.column.clone().unwrap_or_else(|| format!("<{}>", key.expression.clone().unwrap_or_default()));
    for (set, word) in [(key.descending, " desc"), (key.nulls_first, " nulls-first")] {
        text.push_str(if set { word } else { "" });
    }
    key.operator_class.iter().chain(&key.collation).for_each(|name| _ = write!(text, " {name}"));
    text
}

#[test]
fn goldens_hold() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ddl");
    let mut scripts: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 2);
    for script in scripts {
        let found = print(&std::fs::read_to_string(&script).unwrap());
        let golden = script.with_extension("catalog.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, found).unwrap();
        } else {
            assert_eq!(std::fs::read_to_string(&golden).unwrap(), found, "{} differs", golden.display());
        }
    }
}

#[test]
fn the_last_search_path_counts_and_names_are_found_by_it() {
    let (catalog, problems) = catalog_from_ddl(
        "CREATE SCHEMA app; SET search_path TO app, public; CREATE TABLE t (id int); CREATE TABLE public.u (id int);
         CREATE INDEX ON t (id); CREATE INDEX ON u (id); DROP TABLE public.u",
    );
    assert_eq!(problems, []);
    assert_eq!(catalog.search_path, ["app", "public"]);
    let id = catalog.find(None, "t").unwrap();
    assert_eq!(
        (catalog.table(id).name.schema.as_str(), catalog.table(id).indexes[0].name.as_str()),
        ("app", "t_id_idx")
    );
    assert!(catalog.find(None, "u").is_none() && catalog.tables().count() == 1);
}

#[test]
fn changes_are_followed() {
    let found = print(
        "CREATE TABLE t (a int, b varchar, c text);
         ALTER TABLE t ADD CONSTRAINT u UNIQUE (a, b), ALTER a TYPE bigint, ALTER COLUMN b SET NOT NULL;
         ALTER TABLE t RENAME COLUMN a TO d; ALTER TABLE t RENAME TO t2; ALTER TABLE t2 DROP CONSTRAINT u;
         CREATE UNIQUE INDEX i ON t2 (d); ALTER TABLE t2 ADD PRIMARY KEY USING INDEX i;
         ALTER TABLE t2 DROP COLUMN c; ALTER TABLE nope ADD COLUMN x int; ALTER TABLE t2 ALTER nope SET NOT NULL;",
    );
    let wanted = "t2 Table\n  d bigint not null\n  b character varying not null\n  index i btree primary constraint (d)\n  \
                  PrimaryKey [\"d\"] i\nline 5: nope is not defined before this statement\nline 5: t2 has no column nope\n";
    assert_eq!(found, wanted);
}

proptest::proptest! {
    #[test]
    fn any_script_is_read(script in "(CREATE |TABLE |INDEX |ALTER |t |ON |\\(|\\)|a int|,|;|'|PRIMARY KEY|\n|\\PC){0,30}") {
        catalog_from_ddl(&script);
    }
}
