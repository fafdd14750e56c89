//! A schema file (pg_dump's or hand-written) to a [`Catalog`].
//!
//! ```text
//! script -> statements (split) -> tree -> tables, indexes, constraints   what PostgreSQL's catalogs would hold
//!                              -> DdlProblem { what, line }              what was not understood
//! ```
//!
//! A statement that says nothing of tables (functions, grants, comments, data) is passed over.

mod alter;
mod index;
mod split;
mod table;
mod tokens;
mod types;

use sqlparser::ast::{Expr, ObjectName, ObjectType, Set, Statement};

use self::split::{Piece, Pieces};
use crate::sql::catalog::{Catalog, CatalogSource, ConstraintKind, Index, QualifiedName, Table, TableId, TableKind};
use crate::sql::facts::{StatementKind, decode_string, folded, qualified};
use crate::sql::parse::{Parsed, classify, parse};

/// Something in a schema file that the catalog does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdlProblem {
    /// What it is, for people.
    pub what: String,
    /// The line (from 1) where its statement begins.
    pub line: u32,
}

/// The catalog that a schema file describes, and what in it was not understood.
///
/// The catalog's search path is the last non-empty one that the file sets (pg_dump sets an empty one and qualifies every
/// name, which leaves the default).
pub fn catalog_from_ddl(sql: &str) -> (Catalog, Vec<DdlProblem>) {
    let mut reader = Reader {
        catalog: Catalog::new(CatalogSource::Ddl),
        problems: Vec::new(),
        path: vec!["public".to_owned()],
        line: 1,
    };
    for piece in Pieces::new(sql) {
        reader.piece(piece);
    }
    reader.finish();
    (reader.catalog, reader.problems)
}

/// The state of reading one script.
struct Reader {
    catalog: Catalog,
    problems: Vec<DdlProblem>,
    /// Schemas in which unqualified names are created and found now.
    path: Vec<String>,
    /// Line of the statement being read.
    line: u32,
}

impl Reader {
    fn piece(&mut self, piece: Piece<'_>) {
        self.line = piece.line;
        if !concerns_tables(piece.text) {
            return;
        }
        match parse(piece.text) {
            Ok(parsed) => self.statement(&parsed),
            Err(unparsed) => {
                if !self.by_tokens(piece.text) {
                    let (_, command) = classify(piece.text);
                    self.problem(format!("{command}: {unparsed}"));
                }
            }
        }
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(DdlProblem { what: what.into(), line: self.line });
    }

    fn statement(&mut self, parsed: &Parsed) {
        match &parsed.ast {
            Statement::CreateTable(table) => self.create_table(parsed, table),
            Statement::CreateIndex(index) => self.create_index(parsed, index),
            Statement::AlterTable(table) => self.alter_table(parsed, table),
            Statement::CreateView(view) => self.create_view(parsed, view),
            Statement::Drop { object_type, names, .. } => self.drop_objects(*object_type, names),
            Statement::Set(Set::SingleAssignment { variable, values, .. }) => self.set(parsed, variable, values),
            Statement::Query(_) => self.set_config(parsed),
            other => {
                let (kind, command) = classify(&parsed.text);
                if kind == StatementKind::Ddl && !matches!(other, Statement::AlterIndex { .. }) {
                    self.problem(format!("{command} is not understood"));
                }
            }
        }
    }

    /// The schema and name of a relation that is being created.
    fn new_name(&mut self, name: &ObjectName) -> Option<QualifiedName> {
        match qualified(name) {
            Some((Some(schema), name)) => Some(QualifiedName { schema, name }),
            Some((None, name)) => {
                let schema = self.path.first().cloned().unwrap_or_else(|| "public".to_owned());
                Some(QualifiedName { schema, name })
            }
            None => {
                self.problem(format!("the name {name} is not understood"));
                None
            }
        }
    }

    /// The relation of a name, or a problem.
    fn existing(&mut self, name: &ObjectName) -> Option<TableId> {
        let (schema, table) = qualified(name)?;
        let found = self.find(schema.as_deref(), &table);
        if found.is_none() {
            self.problem(format!("{name} is not defined before this statement"));
        }
        found
    }

    fn find(&self, schema: Option<&str>, name: &str) -> Option<TableId> {
        match schema {
            Some(schema) => self.catalog.find(Some(schema), name),
            None => self.path.iter().find_map(|schema| self.catalog.find(Some(schema), name)),
        }
    }

    fn create_view(&mut self, parsed: &Parsed, view: &sqlparser::ast::CreateView) {
        let Some(name) = self.new_name(&view.name) else { return };
        let mut table = Table::new(name.schema, name.name);
        table.kind = if view.materialized { TableKind::MaterializedView } else { TableKind::View };
        table.definition = Some(parsed.query_span(&view.query).of(&parsed.text).to_owned());
        table.is_plain_view = table.kind == TableKind::View && view.columns.is_empty();
        let names = if view.columns.is_empty() {
            crate::sql::facts::view_columns(parsed, &self.catalog)
        } else {
            Some(view.columns.iter().map(|column| folded(&column.name)).collect())
        };
        table.columns = names.unwrap_or_default().into_iter().map(table::column_of_unknown_type).collect();
        self.catalog.add(table);
    }

    fn drop_objects(&mut self, kind: ObjectType, names: &[ObjectName]) {
        for name in names {
            let Some((schema, name)) = qualified(name) else { continue };
            match kind {
                ObjectType::Table | ObjectType::View | ObjectType::MaterializedView => {
                    if let Some(id) = self.find(schema.as_deref(), &name) {
                        self.catalog.remove(id);
                    }
                }
                ObjectType::Index => {
                    let ids: Vec<TableId> = self.catalog.tables().map(|(id, _)| id).collect();
                    for id in ids {
                        self.catalog.table_mut(id).indexes.retain(|index| index.name != name);
                    }
                }
                _ => {}
            }
        }
    }

    /// `SET search_path = app, public`
    fn set(&mut self, parsed: &Parsed, variable: &ObjectName, values: &[Expr]) {
        if qualified(variable).is_some_and(|(_, name)| name == "search_path") {
            let schemas = values.iter().map(|value| match value {
                Expr::Identifier(ident) => folded(ident),
                other => {
                    let written = parsed.expr_span(other).of(&parsed.text);
                    decode_string(written).unwrap_or_else(|| written.to_owned())
                }
            });
            self.set_path(schemas.collect());
        }
    }

    /// `SELECT pg_catalog.set_config('search_path', '', false)`
    fn set_config(&mut self, parsed: &Parsed) {
        if let Some(value) = tokens::set_config_value(&parsed.text, "search_path") {
            self.set_path(value.split(',').map(|schema| schema.trim().trim_matches('"').to_owned()).collect());
        }
    }

    fn set_path(&mut self, schemas: Vec<String>) {
        let schemas: Vec<String> = schemas
            .into_iter()
            .filter(|schema| !schema.is_empty() && schema != "$user" && schema != "default")
            .collect();
        if !schemas.is_empty() {
            self.catalog.search_path.clone_from(&schemas);
        }
        self.path = if schemas.is_empty() { vec!["public".to_owned()] } else { schemas };
    }

    /// What only the whole file can tell: the columns of `REFERENCES t`, and the indexes that partitions take over.
    fn finish(&mut self) {
        let ids: Vec<TableId> = self.catalog.tables().map(|(id, _)| id).collect();
        for id in ids {
            for at in 0..self.catalog.table(id).constraints.len() {
                self.fill_reference(id, at);
            }
            self.inherit_indexes(id);
        }
    }

    fn fill_reference(&mut self, id: TableId, at: usize) {
        let Some(constraint) = self.catalog.table(id).constraints.get(at) else { return };
        let ConstraintKind::ForeignKey { table, columns } = &constraint.kind else { return };
        let Some(referenced) = self.catalog.find(Some(&table.schema), &table.name) else { return };
        if columns.is_empty() {
            let keys = self.catalog.table(referenced).constraints.iter();
            let mut primary = keys.filter(|key| key.kind == ConstraintKind::PrimaryKey);
            let key = primary.next().map(|key| key.columns.clone()).unwrap_or_default();
            if let Some(constraint) = self.catalog.table_mut(id).constraints.get_mut(at)
                && let ConstraintKind::ForeignKey { columns, .. } = &mut constraint.kind
            {
                *columns = key;
            }
        }
    }

    fn inherit_indexes(&mut self, id: TableId) {
        let Some(parent) = self.catalog.table(id).partition_of.clone() else { return };
        let Some(parent) = self.catalog.find(Some(&parent.schema), &parent.name) else { return };
        let of_parent: Vec<Index> = self.catalog.table(parent).indexes.clone();
        let table = self.catalog.table_mut(id);
        for index in of_parent {
            if !table.indexes.iter().any(|own| own.keys == index.keys && own.method == index.method) {
                let columns = index.key_columns().unwrap_or_else(|| vec!["expr".to_owned()]);
                let suffix = match (index.primary, index.constraint) {
                    (true, _) => "pkey".to_owned(),
                    (false, true) => format!("{}_key", columns.join("_")),
                    (false, false) => format!("{}_idx", columns.join("_")),
                };
                let name = format!("{}_{suffix}", table.name.name);
                table.indexes.push(Index { name, ..index });
            }
        }
    }
}

/// Objects of CREATE, ALTER and DROP that say nothing of tables.
const OTHER_OBJECTS: [&str; 32] = [
    "ACCESS",
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "CONVERSION",
    "DATABASE",
    "DEFAULT",
    "DOMAIN",
    "EVENT",
    "EXTENSION",
    "FUNCTION",
    "GROUP",
    "LANGUAGE",
    "LARGE",
    "OPERATOR",
    "POLICY",
    "PROCEDURE",
    "PUBLICATION",
    "ROLE",
    "ROUTINE",
    "RULE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "SYSTEM",
    "TABLESPACE",
    "TEXT",
    "TRIGGER",
    "TYPE",
    "USER",
];

/// Statements that can change what the catalog holds, by their first words.
fn concerns_tables(text: &str) -> bool {
    let (kind, command) = classify(text);
    let words: Vec<&str> = command.split(' ').collect();
    match (kind, words.as_slice()) {
        (StatementKind::Ddl, ["CREATE" | "ALTER" | "DROP", object, ..]) => {
            !OTHER_OBJECTS.contains(object) && !command.contains("FOREIGN DATA")
        }
        (StatementKind::Session, _) => command == "SET",
        (StatementKind::Select, _) => text.contains("set_config"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
