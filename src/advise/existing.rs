//! What exists: whether a real index already does a possible one's work, and which real ones could go.

use std::collections::BTreeSet;

use super::ddl::drop_index;
use super::expressions::is_same;
use super::model::Definition;
use crate::sql::catalog::{Catalog, ConstraintKind, Index, IndexKey, Table, TableId, TableKind};

/// A real index that another real index makes superfluous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redundant {
    /// Its table.
    pub table: TableId,
    /// Its name, with the schema unless it is `public`.
    pub index: String,
    /// The index that does its work.
    pub covered_by: String,
    /// Bytes it takes, if known.
    pub size_bytes: Option<u64>,
    /// `DROP INDEX CONCURRENTLY ..;`
    pub ddl: String,
}

/// A real index that nothing has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its table.
    pub table: TableId,
    /// Its name, with the schema unless it is `public`.
    pub index: String,
    /// Bytes it takes, if known.
    pub size_bytes: Option<u64>,
    /// `DROP INDEX CONCURRENTLY ..;`
    pub ddl: String,
}

/// True when `index` does whatever `definition` would: its keys begin with the same ones (or their exact reverse), it is
/// whole, valid and in default order classes, and it holds every INCLUDE column.
pub(super) fn answers(index: &Index, definition: &Definition) -> bool {
    // One over all rows answers for some, too.
    let of_rows = match (&index.predicate, &definition.predicate) {
        (None, _) => true,
        (Some(real), Some(wanted)) => is_same(real, wanted),
        (Some(_), None) => false,
    };
    if index.method != definition.method.word() || !index.valid || !of_rows || index.keys.len() < definition.keys.len()
    {
        return false;
    }
    let agrees = |reverse: bool| {
        index.keys.iter().zip(&definition.keys).all(|(real, wanted)| {
            let same = match (&real.expression, &wanted.expression) {
                (Some(real), Some(wanted)) => is_same(real, wanted),
                (None, None) => real.column.as_ref() == Some(&wanted.column),
                _ => false,
            };
            same && real.operator_class.as_deref().map(class_name) == wanted.operator_class.as_deref().map(class_name)
                && real.collation.is_none()
                && (real.descending != wanted.descending) == reverse
                && (real.nulls_first != wanted.nulls_first) == reverse
        })
    };
    let held = |column: &String| {
        index.include.contains(column) || index.keys.iter().any(|key| key.column.as_ref() == Some(column))
    };
    (agrees(false) || agrees(true)) && definition.include.iter().all(held)
}

/// `varchar_pattern_ops` is another name of `text_pattern_ops`.
fn class_name(class: &str) -> &str {
    if class == "varchar_pattern_ops" { "text_pattern_ops" } else { class }
}

/// Real indexes whose work another one does: plain ones that are the beginning of another, and exact duplicates.
pub fn redundant(catalog: &Catalog) -> Vec<Redundant> {
    let mut found = Vec::new();
    for (id, table) in catalog.tables().filter(|(_, table)| table.partition_of.is_none()) {
        for (at, index) in table.indexes.iter().enumerate() {
            // The one that stays is named: it must not be on the list itself.
            let keeper = wider_ones(table, at).find(|(other, _)| wider_ones(table, *other).next().is_none());
            if let Some((_, keeper)) = keeper {
                found.push(Redundant {
                    table: id,
                    index: qualified(table, index),
                    covered_by: qualified(table, keeper),
                    size_bytes: index.size_bytes,
                    ddl: drop_index(table, index),
                });
            }
        }
    }
    found
}

/// The indexes that do the work of the one at `at`.
fn wider_ones(table: &Table, at: usize) -> impl Iterator<Item = (usize, &Index)> {
    let index = table.indexes.get(at);
    table.indexes.iter().enumerate().filter(move |(other, wider)| {
        *other != at && index.is_some_and(|index| makes_superfluous(table, wider, *other, index, at))
    })
}

fn makes_superfluous(table: &Table, wider: &Index, wider_at: usize, index: &Index, at: usize) -> bool {
    if index.constraint || index.primary || !wider.valid || index.method != wider.method {
        return false;
    }
    // Only B-trees answer by a beginning of their keys; of the others only exact duplicates are told.
    let same_width = index.keys.len() == wider.keys.len();
    if index.predicate != wider.predicate || (!same_width && index.method != "btree") {
        return false;
    }
    let begins = |reverse: bool| {
        index.keys.len() <= wider.keys.len() && index.keys.iter().zip(&wider.keys).all(|(a, b)| same_key(a, b, reverse))
    };
    let holds = |column: &String| {
        wider.include.contains(column) || wider.keys.iter().any(|key| key.column.as_ref() == Some(column))
    };
    if !((begins(false) || (index.method == "btree" && begins(true))) && index.include.iter().all(holds)) {
        return false;
    }
    let unique_is_kept = !index.unique || (wider.unique && same_width);
    let both_ways = same_width
        && wider.include.iter().all(|column| {
            index.include.contains(column) || index.keys.iter().any(|key| key.column.as_ref() == Some(column))
        });
    // Of two equals the one that enforces something stays, then the first by name.
    let stays = wider.constraint || (wider.unique && !index.unique) || wider_at < at;
    unique_is_kept && (!both_ways || stays) && table.kind != TableKind::Foreign
}

fn same_key(a: &IndexKey, b: &IndexKey, reverse: bool) -> bool {
    a.column == b.column
        && a.expression == b.expression
        && a.operator_class == b.operator_class
        && a.collation == b.collation
        && (a.descending != b.descending) == reverse
        && (a.nulls_first != b.nulls_first) == reverse
}

/// Real indexes without a scan since the statistics began, except those that enforce something, support a foreign key
/// or serve a plan of this workload (`in_use`, by name).
pub fn unused(catalog: &Catalog, in_use: &BTreeSet<String>) -> Vec<Unused> {
    let mut found = Vec::new();
    for (id, table) in catalog.tables().filter(|(_, table)| table.kind != TableKind::Partitioned) {
        for index in &table.indexes {
            let enforces = index.unique || index.primary || index.constraint;
            if index.scans == Some(0)
                && !enforces
                && !in_use.contains(&index.name)
                && !supports_foreign_key(table, index)
            {
                found.push(Unused {
                    table: id,
                    index: qualified(table, index),
                    size_bytes: index.size_bytes,
                    ddl: drop_index(table, index),
                });
            }
        }
    }
    found
}

/// True when deletes of a referenced row may look up this index: it begins with a foreign key's columns.
fn supports_foreign_key(table: &Table, index: &Index) -> bool {
    index.predicate.is_none()
        && table.constraints.iter().any(|constraint| {
            matches!(constraint.kind, ConstraintKind::ForeignKey { .. })
                && !constraint.columns.is_empty()
                && index.keys.get(..constraint.columns.len()).is_some_and(|keys| {
                    keys.iter().all(|key| key.column.as_ref().is_some_and(|column| constraint.columns.contains(column)))
                })
        })
}

pub(super) fn qualified(table: &Table, index: &Index) -> String {
    if table.name.schema == "public" { index.name.clone() } else { format!("{}.{}", table.name.schema, index.name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::Method;
    use crate::advise::model::Key;
    use crate::sql::catalog::Constraint;

    fn index(name: &str, columns: &[&str]) -> Index {
        let keys = columns.iter().map(|column| IndexKey { column: Some((*column).to_owned()), ..IndexKey::default() });
        Index {
            name: name.into(),
            method: "btree".into(),
            valid: true,
            keys: keys.collect(),
            scans: Some(0),
            ..Index::default()
        }
    }

    fn catalog_of(indexes: Vec<Index>) -> Catalog {
        let mut catalog = Catalog::default();
        let mut table = Table::new("public", "t");
        table.indexes = indexes;
        table.constraints.push(Constraint {
            name: "fk".into(),
            kind: ConstraintKind::ForeignKey {
                table: crate::sql::catalog::QualifiedName { schema: "public".into(), name: "p".into() },
                columns: vec!["id".into()],
            },
            columns: vec!["parent".into()],
        });
        catalog.add(table);
        catalog
    }

    fn pairs(indexes: Vec<Index>) -> Vec<(String, String)> {
        redundant(&catalog_of(indexes)).into_iter().map(|found| (found.index, found.covered_by)).collect()
    }

    fn pair(index: &str, by: &str) -> Vec<(String, String)> {
        vec![(index.to_owned(), by.to_owned())]
    }

    #[test]
    fn a_prefix_is_redundant_and_the_one_that_stays_is_named() {
        assert_eq!(pairs(vec![index("a", &["x"]), index("b", &["x", "y"])]), pair("a", "b"));
        let chain = pairs(vec![index("a", &["x"]), index("b", &["x", "y"]), index("c", &["x", "y", "z"])]);
        assert_eq!(chain, [pair("a", "c"), pair("b", "c")].concat());
    }

    #[test]
    fn of_duplicates_one_stays() {
        assert_eq!(pairs(vec![index("a", &["x"]), index("b", &["x"])]), pair("b", "a"));
        let constraint = Index { constraint: true, unique: true, ..index("z_key", &["x"]) };
        assert_eq!(pairs(vec![index("a", &["x"]), constraint]), pair("a", "z_key"));
        let mut backwards = index("b", &["x"]);
        backwards.keys[0].descending = true;
        backwards.keys[0].nulls_first = true;
        assert_eq!(pairs(vec![index("a", &["x"]), backwards]), pair("b", "a"));
    }

    #[test]
    fn what_does_more_or_other_work_stays() {
        let plain = || index("wide", &["x", "y"]);
        let mut cases = vec![
            index("other order", &["y", "x"]),
            Index { unique: true, ..index("unique", &["x"]) },
            Index { constraint: true, ..index("constraint", &["x"]) },
            Index { include: vec!["payload".into()], ..index("covering", &["x"]) },
            Index { predicate: Some("x > 1".into()), ..index("partial", &["x"]) },
            Index { method: "gin".into(), ..index("gin", &["x"]) },
        ];
        let mut special = index("pattern", &["x"]);
        special.keys[0].operator_class = Some("text_pattern_ops".into());
        cases.push(special);
        for case in cases {
            assert_eq!(pairs(vec![case.clone(), plain()]), [], "{}", case.name);
        }
        let invalid = Index { valid: false, ..plain() };
        assert_eq!(pairs(vec![index("a", &["x"]), invalid]), []);
    }

    #[test]
    fn unused_leaves_out_what_has_another_reason() {
        let catalog = catalog_of(vec![
            index("idle", &["x"]),
            index("in_plan", &["y"]),
            index("supports_fk", &["parent", "x"]),
            Index { unique: true, ..index("enforces", &["x"]) },
            Index { scans: Some(3), ..index("scanned", &["x"]) },
            Index { scans: None, ..index("unknown", &["x"]) },
        ]);
        let found = unused(&catalog, &BTreeSet::from(["in_plan".to_owned()]));
        assert_eq!(found.iter().map(|found| found.index.as_str()).collect::<Vec<_>>(), ["idle"]);
        assert_eq!(found[0].ddl, "DROP INDEX CONCURRENTLY public.idle;");
    }

    #[test]
    fn knows_what_a_real_index_already_answers() {
        let wanted = |columns: &[&str], include: &[&str]| Definition {
            table: TableId(0),
            keys: columns.iter().map(|column| Key::ascending(*column)).collect(),
            include: include.iter().map(|column| (*column).to_owned()).collect(),
            predicate: None,
            method: Method::Btree,
        };
        let real = Index { include: vec!["z".into()], ..index("i", &["x", "y"]) };
        assert!(answers(&real, &wanted(&["x"], &[])));
        assert!(answers(&real, &wanted(&["x", "y"], &["z"])));
        assert!(answers(&real, &wanted(&["x"], &["y"])));
        assert!(!answers(&real, &wanted(&["y"], &[])));
        assert!(!answers(&real, &wanted(&["x"], &["w"])));
        assert!(!answers(&Index { predicate: Some("true".into()), ..real.clone() }, &wanted(&["x"], &[])));
        let mut mixed = wanted(&["x", "y"], &[]);
        mixed.keys[1] = mixed.keys[1].reversed();
        assert!(!answers(&real, &mixed));
        mixed.keys[0] = mixed.keys[0].reversed();
        assert!(answers(&real, &mixed), "read backwards");
    }
}
