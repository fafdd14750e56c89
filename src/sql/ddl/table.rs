//! CREATE TABLE: columns, constraints, partitions.

use sqlparser::ast::{
    ColumnDef, ColumnOption, ColumnOptionDef, CreateTable, CreateTableLikeKind, ForeignKeyConstraint, Ident,
    IndexColumn, ObjectName, TableConstraint,
};

use super::Reader;
use super::index::{index_key, index_of_constraint};
use super::types::type_name;
use crate::sql::catalog::{Column, Constraint, ConstraintKind, Index, Table, TableId, TableKind};
use crate::sql::facts::{folded, qualified};
use crate::sql::parse::Parsed;

impl Reader {
    pub(super) fn create_table(&mut self, parsed: &Parsed, definition: &CreateTable) {
        let Some(name) = self.new_name(&definition.name) else { return };
        if definition.if_not_exists && self.catalog.find(Some(&name.schema), &name.name).is_some() {
            return;
        }
        let mut table = Table::new(name.schema, name.name);
        if definition.partition_by.is_some() {
            table.kind = TableKind::Partitioned;
        }
        if let Some(CreateTableLikeKind::Parenthesized(like) | CreateTableLikeKind::Plain(like)) = &definition.like {
            self.inherit_columns(&mut table, &like.name);
            self.problem(format!("{}: LIKE gives it columns here, but no indexes and constraints", table.name));
        }
        if definition.query.is_some() {
            self.problem(format!("{}: the columns of CREATE TABLE AS are not known", table.name));
        }
        for parent in definition.inherits.iter().flatten().chain(&definition.partition_of) {
            self.inherit_columns(&mut table, parent);
        }
        if let Some(parent) = &definition.partition_of {
            table.partition_of = self.existing(parent).map(|id| self.catalog.table(id).name.clone());
        }
        let id = self.catalog.add(table);
        for column in &definition.columns {
            self.add_column(parsed, id, column);
        }
        for constraint in &definition.constraints {
            self.add_constraint(parsed, id, constraint);
        }
    }

    fn inherit_columns(&mut self, table: &mut Table, parent: &ObjectName) {
        if let Some(parent) = self.existing(parent) {
            for column in &self.catalog.table(parent).columns {
                if table.column(&column.name).is_none() {
                    table.columns.push(column.clone());
                }
            }
        }
    }

    /// A column with the constraints written beside it.
    pub(super) fn add_column(&mut self, parsed: &Parsed, id: TableId, definition: &ColumnDef) {
        let name = folded(&definition.name);
        let column_type = type_name(&definition.data_type);
        let mut column = Column { name: name.clone(), type_name: column_type.name, ..Column::default() };
        if column_type.serial {
            column.not_null = true;
            column.default = Some(format!("nextval('{}_{name}_seq'::regclass)", self.catalog.table(id).name.name));
        }
        for option in &definition.options {
            column_option(parsed, &mut column, option);
        }
        let table = self.catalog.table_mut(id);
        match table.columns.iter_mut().find(|existing| existing.name == name) {
            Some(existing) => *existing = column,
            None => table.columns.push(column),
        }
        for option in &definition.options {
            self.column_constraint(parsed, id, &definition.name, option);
        }
    }

    fn column_constraint(&mut self, parsed: &Parsed, id: TableId, column: &Ident, option: &ColumnOptionDef) {
        let given = option.name.as_ref().map(folded);
        let columns = vec![folded(column)];
        match &option.option {
            ColumnOption::PrimaryKey(_) => self.key(id, given, columns, &[], true),
            ColumnOption::Unique(_) => self.key(id, given, columns, &[], false),
            ColumnOption::ForeignKey(key) => self.foreign_key(id, given, columns, key),
            ColumnOption::Check(check) => {
                let expression = parsed.expr_span(&check.expr).of(&parsed.text).to_owned();
                self.constraint(id, given, ConstraintKind::Check(expression), columns);
            }
            _ => {}
        }
    }

    /// A table constraint, from CREATE TABLE or ALTER TABLE.
    pub(super) fn add_constraint(&mut self, parsed: &Parsed, id: TableId, constraint: &TableConstraint) {
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                let columns = self.key_columns(&key.columns);
                self.key(id, key.name.as_ref().map(folded), columns, &key.include, true);
            }
            TableConstraint::Unique(key) => {
                let columns = self.key_columns(&key.columns);
                self.key(id, key.name.as_ref().map(folded), columns, &key.include, false);
            }
            TableConstraint::ForeignKey(key) => {
                let columns = key.columns.iter().map(folded).collect();
                self.foreign_key(id, key.name.as_ref().map(folded), columns, key);
            }
            TableConstraint::Check(check) => {
                let expression = parsed.expr_span(&check.expr).of(&parsed.text).to_owned();
                self.constraint(id, check.name.as_ref().map(folded), ConstraintKind::Check(expression), Vec::new());
            }
            TableConstraint::Exclude(exclude) => {
                let keys: Vec<_> = exclude.elements.iter().map(|element| index_key(parsed, &element.column)).collect();
                let columns: Vec<String> = keys.iter().filter_map(|key| key.column.clone()).collect();
                let given = exclude.name.as_ref().map(folded);
                let method = exclude.index_method.as_ref().map_or("btree".to_owned(), folded);
                let table = self.catalog.table_mut(id);
                let name = given.clone().unwrap_or_else(|| format!("{}_{}_excl", table.name.name, columns.join("_")));
                let predicate = exclude.where_clause.as_ref().map(|predicate| sql_of(parsed, predicate));
                let index = Index { name, method, keys, predicate, valid: true, constraint: true, ..Index::default() };
                table.indexes.push(index);
                self.constraint(id, given, ConstraintKind::Exclude, columns);
            }
            TableConstraint::PrimaryKeyUsingIndex(using) => {
                self.promote(id, using.name.as_ref(), &using.index_name, true)
            }
            TableConstraint::UniqueUsingIndex(using) => self.promote(id, using.name.as_ref(), &using.index_name, false),
            TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_) => {
                self.problem("a constraint that PostgreSQL does not have");
            }
        }
    }

    fn key_columns(&mut self, columns: &[IndexColumn]) -> Vec<String> {
        let names: Option<Vec<String>> = columns
            .iter()
            .map(|column| match &column.column.expr {
                sqlparser::ast::Expr::Identifier(ident) => Some(folded(ident)),
                _ => None,
            })
            .collect();
        names.unwrap_or_else(|| {
            self.problem("a key that is not a list of columns");
            Vec::new()
        })
    }

    /// A primary key or unique constraint and the index that PostgreSQL makes for it.
    fn key(&mut self, id: TableId, given: Option<String>, columns: Vec<String>, include: &[Ident], primary: bool) {
        let table = self.catalog.table_mut(id);
        let include = include.iter().map(folded).collect();
        let index = index_of_constraint(&table.name.name, given.clone(), &columns, include, primary);
        table.indexes.push(index);
        if primary {
            for column in table.columns.iter_mut().filter(|column| columns.contains(&column.name)) {
                column.not_null = true;
            }
        }
        let kind = if primary { ConstraintKind::PrimaryKey } else { ConstraintKind::Unique };
        self.constraint(id, given, kind, columns);
    }

    fn constraint(&mut self, id: TableId, name: Option<String>, kind: ConstraintKind, columns: Vec<String>) {
        let constraint = Constraint { name: name.unwrap_or_default(), kind, columns };
        self.catalog.table_mut(id).constraints.push(constraint);
    }

    fn foreign_key(&mut self, id: TableId, given: Option<String>, columns: Vec<String>, key: &ForeignKeyConstraint) {
        let Some((schema, name)) = qualified(&key.foreign_table) else {
            return self.problem("a REFERENCES that is not understood");
        };
        let found = self.find(schema.as_deref(), &name).map(|found| self.catalog.table(found).name.clone());
        let schema = schema.or_else(|| self.path.first().cloned()).unwrap_or_else(|| "public".to_owned());
        let table = found.unwrap_or(crate::sql::catalog::QualifiedName { schema, name });
        let referred = key.referred_columns.iter().map(folded).collect();
        self.constraint(id, given, ConstraintKind::ForeignKey { table, columns: referred }, columns);
    }

    /// `ADD PRIMARY KEY USING INDEX i`
    fn promote(&mut self, id: TableId, given: Option<&Ident>, index: &Ident, primary: bool) {
        let wanted = folded(index);
        let given = given.map(folded);
        let table = self.catalog.table_mut(id);
        let Some(index) = table.indexes.iter_mut().find(|index| index.name == wanted) else {
            return self.problem(format!("the index {wanted} is not defined before this statement"));
        };
        index.primary = primary;
        index.constraint = true;
        if let Some(given) = &given {
            index.name.clone_from(given);
        }
        let columns = index.key_columns().unwrap_or_default();
        for column in table.columns.iter_mut().filter(|column| primary && columns.contains(&column.name)) {
            column.not_null = true;
        }
        let kind = if primary { ConstraintKind::PrimaryKey } else { ConstraintKind::Unique };
        self.constraint(id, Some(given.unwrap_or(wanted)), kind, columns);
    }
}

fn column_option(parsed: &Parsed, column: &mut Column, option: &ColumnOptionDef) {
    match &option.option {
        ColumnOption::NotNull => column.not_null = true,
        ColumnOption::Default(value) => column.default = Some(sql_of(parsed, value)),
        ColumnOption::Collation(name) => {
            column.collation = qualified(name).map(|(_, name)| name);
        }
        ColumnOption::Generated { generation_expr, .. } => {
            column.generated = true;
            match generation_expr {
                Some(expression) => column.default = Some(sql_of(parsed, expression)),
                None => column.not_null = true,
            }
        }
        _ => {}
    }
}

/// An expression as it was written.
pub(super) fn sql_of(parsed: &Parsed, expr: &sqlparser::ast::Expr) -> String {
    parsed.expr_span(expr).of(&parsed.text).to_owned()
}

/// A view's column: its type would take PostgreSQL's own analysis.
pub(super) fn column_of_unknown_type(name: String) -> Column {
    Column { name, ..Column::default() }
}
