//! CREATE INDEX, and the indexes behind constraints.

use sqlparser::ast::{CreateIndex, Expr, IndexColumn, IndexType, OrderBySort};

use super::Reader;
use super::table::sql_of;
use crate::sql::catalog::{Index, IndexKey};
use crate::sql::facts::{folded, qualified};
use crate::sql::parse::Parsed;

/// Operator classes that are a type's default for btree or gin are left out, as `pg_get_indexdef` does.
const DEFAULT_OPERATOR_CLASSES: [&str; 3] = ["int4_ops", "int8_ops", "text_ops"];

impl Reader {
    pub(super) fn create_index(&mut self, parsed: &Parsed, definition: &CreateIndex) {
        let Some(id) = self.existing(&definition.table_name) else { return };
        let keys: Vec<IndexKey> = definition.columns.iter().map(|column| index_key(parsed, column)).collect();
        let table = self.catalog.table_mut(id);
        let given = definition.name.as_ref().and_then(qualified).map(|(_, name)| name);
        let name = given.unwrap_or_else(|| {
            let parts: Vec<&str> = keys.iter().map(|key| key.column.as_deref().unwrap_or("expr")).collect();
            format!("{}_{}_idx", table.name.name, parts.join("_"))
        });
        if definition.if_not_exists && table.indexes.iter().any(|index| index.name == name) {
            return;
        }
        table.indexes.push(Index {
            name,
            method: method(definition.using.as_ref()),
            unique: definition.unique,
            valid: true,
            keys,
            include: definition.include.iter().map(folded).collect(),
            predicate: definition.predicate.as_ref().map(|predicate| sql_of(parsed, predicate)),
            ..Index::default()
        });
    }
}

fn method(using: Option<&IndexType>) -> String {
    match using {
        Some(IndexType::Custom(name)) => folded(name),
        Some(other) => other.to_string().to_lowercase(),
        None => "btree".to_owned(),
    }
}

/// One key of an index: a column or an expression, its direction, its operator class.
pub(super) fn index_key(parsed: &Parsed, key: &IndexColumn) -> IndexKey {
    let mut expr = &key.column.expr;
    let mut collation = None;
    if let Expr::Collate { expr: inner, collation: name } = expr {
        expr = inner;
        collation = qualified(name).map(|(_, name)| name);
    }
    let (column, expression) = match expr {
        Expr::Identifier(ident) => (Some(folded(ident)), None),
        Expr::Nested(inner) => (None, Some(sql_of(parsed, inner))),
        other => (None, Some(sql_of(parsed, other))),
    };
    let descending = matches!(key.column.options.sort, Some(OrderBySort::Desc));
    let operator_class = key.operator_class.as_ref().and_then(qualified).map(|(_, name)| name);
    IndexKey {
        column,
        expression,
        descending,
        collation,
        // PostgreSQL's default: NULLS FIRST when descending.
        nulls_first: key.column.options.nulls_first.unwrap_or(descending),
        operator_class: operator_class.filter(|class| !DEFAULT_OPERATOR_CLASSES.contains(&class.as_str())),
    }
}

/// The index that PostgreSQL makes for a primary key or a unique constraint, with the name it would choose.
pub(super) fn index_of_constraint(
    table: &str,
    given: Option<String>,
    columns: &[String],
    include: Vec<String>,
    primary: bool,
) -> Index {
    let chosen = || if primary { format!("{table}_pkey") } else { format!("{table}_{}_key", columns.join("_")) };
    Index {
        name: given.unwrap_or_else(chosen),
        method: "btree".to_owned(),
        unique: true,
        primary,
        valid: true,
        constraint: true,
        keys: columns.iter().map(|column| IndexKey { column: Some(column.clone()), ..IndexKey::default() }).collect(),
        include,
        ..Index::default()
    }
}
