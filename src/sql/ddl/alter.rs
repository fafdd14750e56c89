//! ALTER TABLE.

use sqlparser::ast::{AlterColumnOperation, AlterTable, AlterTableOperation, Ident, RenameTableNameKind};

use super::Reader;
use super::table::sql_of;
use super::types::type_name;
use crate::sql::catalog::{Column, ConstraintKind, TableId};
use crate::sql::facts::{folded, qualified};
use crate::sql::parse::Parsed;

impl Reader {
    pub(super) fn alter_table(&mut self, parsed: &Parsed, statement: &AlterTable) {
        let is_relevant = statement.operations.iter().any(|operation| !is_irrelevant(operation));
        if !is_relevant {
            return;
        }
        let Some(id) = self.existing(&statement.name) else { return };
        for operation in &statement.operations {
            self.alter(parsed, id, operation);
        }
    }

    fn alter(&mut self, parsed: &Parsed, id: TableId, operation: &AlterTableOperation) {
        match operation {
            AlterTableOperation::AddConstraint { constraint, .. } => self.add_constraint(parsed, id, constraint),
            AlterTableOperation::AddColumn { column_def, if_not_exists, .. } => {
                let exists = self.catalog.table(id).column(&folded(&column_def.name)).is_some();
                if !(*if_not_exists && exists) {
                    self.add_column(parsed, id, column_def);
                }
            }
            AlterTableOperation::DropColumn { column_names, .. } => {
                for name in column_names {
                    self.drop_column(id, &folded(name));
                }
            }
            AlterTableOperation::DropConstraint { name, .. } => self.drop_constraint(id, &folded(name)),
            AlterTableOperation::AlterColumn { column_name, op } => self.alter_column(parsed, id, column_name, op),
            AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                self.rename_column(id, &folded(old_column_name), &folded(new_column_name));
            }
            AlterTableOperation::RenameTable { table_name } => {
                let (RenameTableNameKind::As(name) | RenameTableNameKind::To(name)) = table_name;
                if let Some((_, name)) = qualified(name) {
                    self.catalog.rename(id, name);
                }
            }
            AlterTableOperation::RenameConstraint { old_name, new_name } => {
                let (old, new) = (folded(old_name), folded(new_name));
                let table = self.catalog.table_mut(id);
                for constraint in table.constraints.iter_mut().filter(|constraint| constraint.name == old) {
                    constraint.name.clone_from(&new);
                }
                for index in table.indexes.iter_mut().filter(|index| index.constraint && index.name == old) {
                    index.name.clone_from(&new);
                }
            }
            other if is_irrelevant(other) => {}
            other => self.problem(format!("ALTER TABLE {}: {other} is not understood", self.catalog.table(id).name)),
        }
    }

    fn drop_column(&mut self, id: TableId, name: &str) {
        let table = self.catalog.table_mut(id);
        table.columns.retain(|column| column.name != name);
        // What stands on the column goes with it.
        table.indexes.retain(|index| {
            !index.keys.iter().any(|key| key.column.as_deref() == Some(name))
                && !index.include.iter().any(|own| own == name)
        });
        table.constraints.retain(|constraint| !constraint.columns.iter().any(|column| column == name));
    }

    fn drop_constraint(&mut self, id: TableId, name: &str) {
        let table = self.catalog.table_mut(id);
        let index = table.indexes.iter().position(|index| index.constraint && index.name == name);
        let index = index.map(|at| table.indexes.remove(at));
        let columns = index.as_ref().and_then(|index| index.key_columns());
        let is_it = |constraint: &crate::sql::catalog::Constraint| match (&columns, &constraint.kind) {
            // A constraint that was given no name is known by its index's.
            (Some(columns), ConstraintKind::PrimaryKey | ConstraintKind::Unique) => {
                constraint.name.is_empty() && constraint.columns == *columns
            }
            _ => false,
        };
        table.constraints.retain(|constraint| constraint.name != name && !is_it(constraint));
    }

    fn rename_column(&mut self, id: TableId, old: &str, new: &str) {
        let table = self.catalog.table_mut(id);
        let renamed = |name: &mut String| {
            if name == old {
                new.clone_into(name);
            }
        };
        table.columns.iter_mut().for_each(|column| renamed(&mut column.name));
        for index in &mut table.indexes {
            index.keys.iter_mut().filter_map(|key| key.column.as_mut()).for_each(renamed);
            index.include.iter_mut().for_each(renamed);
        }
        table.constraints.iter_mut().flat_map(|constraint| &mut constraint.columns).for_each(renamed);
    }

    fn alter_column(&mut self, parsed: &Parsed, id: TableId, name: &Ident, operation: &AlterColumnOperation) {
        let name = folded(name);
        let Some(column) = self.column_mut(id, &name) else { return };
        match operation {
            AlterColumnOperation::SetNotNull => column.not_null = true,
            AlterColumnOperation::DropNotNull => column.not_null = false,
            AlterColumnOperation::SetDefault { value } => column.default = Some(sql_of(parsed, value)),
            AlterColumnOperation::DropDefault => column.default = None,
            AlterColumnOperation::SetDataType { data_type, .. } => column.type_name = type_name(data_type).name,
            AlterColumnOperation::AddGenerated { .. } => {
                column.generated = true;
                column.not_null = true;
            }
        }
    }

    /// A column to be changed, or a problem.
    pub(super) fn column_mut(&mut self, id: TableId, name: &str) -> Option<&mut Column> {
        if self.catalog.table(id).column(name).is_none() {
            let table = self.catalog.table(id).name.clone();
            self.problem(format!("{table} has no column {name}"));
        }
        self.catalog.table_mut(id).columns.iter_mut().find(|column| column.name == name)
    }
}

/// Changes that the catalog does not hold.
fn is_irrelevant(operation: &AlterTableOperation) -> bool {
    matches!(
        operation,
        AlterTableOperation::OwnerTo { .. }
            | AlterTableOperation::ValidateConstraint { .. }
            | AlterTableOperation::EnableRowLevelSecurity
            | AlterTableOperation::DisableRowLevelSecurity
            | AlterTableOperation::ForceRowLevelSecurity
            | AlterTableOperation::NoForceRowLevelSecurity
            | AlterTableOperation::EnableTrigger { .. }
            | AlterTableOperation::DisableTrigger { .. }
            | AlterTableOperation::EnableAlwaysTrigger { .. }
            | AlterTableOperation::EnableReplicaTrigger { .. }
            | AlterTableOperation::EnableRule { .. }
            | AlterTableOperation::DisableRule { .. }
            | AlterTableOperation::SetLogged
            | AlterTableOperation::SetUnlogged
            | AlterTableOperation::SetOptionsParens { .. }
            | AlterTableOperation::ReplicaIdentity { .. }
    )
}
