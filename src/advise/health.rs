//! What is wrong with what exists: indexes that answer nothing, and foreign keys whose deletes read a whole table.

use std::collections::BTreeSet;

use super::ddl::{Names, create, quote_table};
use super::existing::qualified;
use super::model::{Definition, Key, Recommendation, Statement};
use crate::sql::catalog::{Catalog, Constraint, ConstraintKind, Table, TableId, TableKind};
use crate::sql::facts::{Access, RelationSource, StatementKind};
use crate::sql::ident::quote;

/// Reading a smaller table than this for every delete is cheap.
const MIN_ROWS: f64 = 1_000.0;

/// An index that a failed CREATE INDEX CONCURRENTLY or REINDEX left behind: writes maintain it, no plan uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Its name, with the schema unless it is `public`.
    pub index: String,
    /// Bytes it takes, if known.
    pub size_bytes: Option<u64>,
    /// `REINDEX INDEX CONCURRENTLY ..;`
    pub ddl: String,
}

/// A foreign key without an index, to a table that this workload deletes from: each deleted row looks for its children.
#[derive(Debug, Clone, PartialEq)]
pub struct UnindexedKey {
    /// The table that has the foreign key, as SQL.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The table it refers to.
    pub references: String,
    /// Executions of the workload's DELETEs from that table.
    pub deletes: f64,
    /// `CREATE INDEX CONCURRENTLY ..;`
    pub ddl: String,
}

/// Indexes that are marked invalid. One of a partitioned table is not meant: it waits for its partitions' indexes.
pub fn invalid(catalog: &Catalog) -> Vec<Invalid> {
    let tables = catalog.tables().filter(|(_, table)| table.kind != TableKind::Partitioned);
    let indexes = tables.flat_map(|(_, table)| table.indexes.iter().map(move |index| (table, index)));
    indexes
        .filter(|(_, index)| !index.valid)
        .map(|(table, index)| Invalid {
            index: qualified(table, index),
            size_bytes: index.size_bytes,
            ddl: format!("REINDEX INDEX CONCURRENTLY {}.{};", quote(&table.name.schema), quote(&index.name)),
        })
        .collect()
}

/// Foreign keys that deletes of this workload check without an index, most deletes first. What is recommended anyway counts
/// as there.
pub fn unindexed_keys(
    catalog: &Catalog,
    statements: &[Statement],
    recommended: &[Recommendation],
) -> Vec<UnindexedKey> {
    let mut names = Names::of(catalog);
    for found in recommended {
        names.take(catalog.table(found.definition.table), &found.name);
    }
    let mut found = Vec::new();
    for (id, table) in catalog.tables().filter(|(_, table)| table.partition_of.is_none()) {
        if table.rows.is_some_and(|rows| (0.0..MIN_ROWS).contains(&rows)) {
            continue;
        }
        for constraint in &table.constraints {
            let ConstraintKind::ForeignKey { table: parent, .. } = &constraint.kind else { continue };
            let Some(parent) = catalog.find(Some(&parent.schema), &parent.name) else { continue };
            let deletes = deletes(statements, parent);
            if deletes <= 0.0 || constraint.columns.is_empty() || is_indexed(id, table, constraint, recommended) {
                continue;
            }
            let keys = constraint.columns.iter().map(Key::ascending).collect();
            let definition = Definition::new(id, keys);
            found.push(UnindexedKey {
                table: quote_table(table),
                columns: constraint.columns.clone(),
                references: quote_table(catalog.table(parent)),
                deletes,
                ddl: create(table, &definition, &names.choose(table, &definition)),
            });
        }
    }
    found.sort_by(|a, b| b.deletes.total_cmp(&a.deletes).then_with(|| a.ddl.cmp(&b.ddl)));
    found
}

fn deletes(statements: &[Statement], from: TableId) -> f64 {
    let deletes = |statement: &&Statement| {
        statement.facts.as_ref().is_some_and(|facts| {
            facts.kind == StatementKind::Delete
                && facts.relations.iter().any(|relation| {
                    relation.access == Access::Write
                        && matches!(relation.source, RelationSource::Table { table: Some(table), .. } if table == from)
                })
        })
    };
    statements.iter().filter(deletes).map(|statement| statement.calls).sum()
}

/// True when an index begins with the key's columns, in whatever order.
fn is_indexed(id: TableId, table: &Table, key: &Constraint, recommended: &[Recommendation]) -> bool {
    let wanted: BTreeSet<&str> = key.columns.iter().map(String::as_str).collect();
    let real = table.indexes.iter().any(|index| {
        index.valid
            && index.predicate.is_none()
            && index.method == "btree"
            && index.keys.get(..wanted.len()).is_some_and(|keys| {
                keys.iter().map(|key| key.column.as_deref()).collect::<Option<BTreeSet<_>>>().as_ref() == Some(&wanted)
            })
    });
    let coming = recommended.iter().map(|found| &found.definition).any(|definition| {
        definition.table == id
            && definition.keys.get(..wanted.len()).is_some_and(|keys| {
                keys.iter().all(Key::is_plain)
                    && keys.iter().map(|key| key.column.as_str()).collect::<BTreeSet<_>>() == wanted
            })
    });
    real || coming
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::input::{Seen, read};
    use crate::sql::ddl::catalog_from_ddl;

    const SCHEMA: &str = "CREATE TABLE p (a int, b int, x int, PRIMARY KEY (a, b));
        CREATE TABLE plain (a int, b int, FOREIGN KEY (a, b) REFERENCES p);
        CREATE TABLE turned (a int, b int, c int, FOREIGN KEY (a, b) REFERENCES p);
        CREATE INDEX ON turned (b, a, c);
        CREATE TABLE half (a int, b int, c int, FOREIGN KEY (a, b) REFERENCES p);
        CREATE INDEX ON half (a, c, b);
        CREATE TABLE sparse (a int, b int, FOREIGN KEY (a, b) REFERENCES p);
        CREATE INDEX positive ON sparse (a, b) WHERE a > 0;";

    fn found(sql: &str) -> Vec<String> {
        let catalog = catalog_from_ddl(SCHEMA).0;
        let seen = Seen { sql, calls: 3.0, total_ms: None, parameters: None };
        let statements = read([seen], &catalog).statements;
        unindexed_keys(&catalog, &statements, &[]).into_iter().map(|found| found.ddl).collect()
    }

    #[test]
    fn keys_that_deletes_check_want_an_index_that_begins_with_them() {
        assert_eq!(
            found("delete from p where x = 1"),
            [
                "CREATE INDEX CONCURRENTLY half_a_b_idx ON public.half (a, b);",
                "CREATE INDEX CONCURRENTLY plain_a_b_idx ON public.plain (a, b);",
                "CREATE INDEX CONCURRENTLY sparse_a_b_idx ON public.sparse (a, b);",
            ]
        );
    }

    #[test]
    fn what_nobody_deletes_from_needs_none() {
        assert!(found("select from p where x = 1").is_empty());
        assert!(found("update p set x = 2 where a = 1").is_empty());
        assert!(found("delete from plain where a in (select a from p)").is_empty());
    }
}
