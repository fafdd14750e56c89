//! Statements by kind: what each reads, writes and holds.

use sqlparser::ast::{
    AlterTable, AlterTableOperation, ColumnOption, CopySource, CreateTable, CreateTableLikeKind, ObjectName,
    ObjectType, RenameTableNameKind, SchemaName, Set, Statement, TableConstraint,
};

use super::build::Builder;
use super::copy::copy_facts;
use super::{Access, JoinKind, ScopeId, ScopeKind, StatementKind};
use crate::sql::parse::classify;

impl Builder<'_> {
    /// Fills the facts with a statement whose own block is `scope`.
    pub(super) fn statement(&mut self, scope: ScopeId, statement: &Statement) {
        let kind = match statement {
            Statement::Query(query) => {
                self.facts.kind = StatementKind::Select;
                self.query(scope, query);
                // A data-modifying body has set its own kind by now.
                match self.facts.kind {
                    StatementKind::Select if self.facts.writes_in_cte => StatementKind::Other,
                    StatementKind::Select if selects_into(query) => StatementKind::Ddl,
                    kind => kind,
                }
            }
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
                self.modification(scope, statement)
            }
            Statement::Truncate(truncate) => {
                self.unknown_if(truncate.partitions.is_some() || truncate.on_cluster.is_some(), "a TRUNCATE clause");
                for target in &truncate.table_names {
                    self.target(scope, &target.name, None);
                }
                StatementKind::Truncate
            }
            Statement::Copy { source, to, target, options, legacy_options, values } => {
                self.facts.copy = Some(copy_facts(source, target, options, legacy_options));
                self.copy(scope, source, *to, values)
            }
            Statement::Explain { statement, .. } => {
                self.statement(scope, statement);
                StatementKind::Explain
            }
            Statement::Prepare { statement, .. } => {
                self.statement(scope, statement);
                StatementKind::Other
            }
            Statement::Declare { stmts } => self.declare(scope, stmts),
            Statement::Execute { parameters, .. } => {
                self.enter(scope);
                self.all(parameters);
                self.leave();
                self.unknown("EXECUTE runs a statement that is not here");
                StatementKind::Other
            }
            Statement::Call(function) => {
                self.enter(scope);
                self.call(function);
                self.leave();
                StatementKind::Other
            }
            other => self.without_rows(scope, other),
        };
        self.facts.kind = kind;
        self.facts.command = self.command(kind);
    }

    /// The command's words for messages. Behind WITH they are those of the statement proper.
    fn command(&self, kind: StatementKind) -> String {
        let word = match kind {
            StatementKind::Select => "SELECT",
            StatementKind::Insert => "INSERT",
            StatementKind::Update => "UPDATE",
            StatementKind::Delete => "DELETE",
            StatementKind::Merge => "MERGE",
            StatementKind::CopyFrom | StatementKind::CopyTo => "COPY",
            StatementKind::Explain => "EXPLAIN",
            _ => return classify(&self.parsed.text).1,
        };
        word.to_owned()
    }

    fn copy(&mut self, scope: ScopeId, source: &CopySource, to: bool, values: &[Option<String>]) -> StatementKind {
        self.unknown_if(!values.is_empty(), "rows behind COPY");
        match source {
            CopySource::Table { table_name, .. } if to => {
                self.enter(scope);
                self.object(scope, table_name, Access::Read);
                self.leave();
            }
            CopySource::Table { table_name, .. } => _ = self.target(scope, table_name, None),
            CopySource::Query(query) => {
                let id = self.new_scope(Some(scope), ScopeKind::Source, self.parsed.query_span(query));
                self.query(id, query);
            }
        }
        if to { StatementKind::CopyTo } else { StatementKind::CopyFrom }
    }

    fn declare(&mut self, scope: ScopeId, declarations: &[sqlparser::ast::Declare]) -> StatementKind {
        for declaration in declarations {
            match &declaration.for_query {
                Some(query) => self.query(scope, query),
                None => self.unknown("DECLARE without a query"),
            }
        }
        StatementKind::Other
    }

    /// DDL, transaction control, session settings and the rest.
    fn without_rows(&mut self, scope: ScopeId, statement: &Statement) -> StatementKind {
        match statement {
            Statement::StartTransaction { statements, exception, .. } => {
                self.unknown_if(!statements.is_empty() || exception.is_some(), "BEGIN of a block");
                StatementKind::Transaction
            }
            Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint { .. }
            | Statement::ReleaseSavepoint { .. }
            | Statement::Set(Set::SetTransaction { session: false, .. }) => StatementKind::Transaction,
            Statement::Set(_) | Statement::Reset(_) | Statement::ShowVariable { .. } | Statement::Discard { .. } => {
                StatementKind::Session
            }
            Statement::Fetch { .. }
            | Statement::Close { .. }
            | Statement::Deallocate { .. }
            | Statement::LISTEN { .. }
            | Statement::UNLISTEN { .. }
            | Statement::NOTIFY { .. } => StatementKind::Other,
            Statement::Analyze(analyze) => {
                if let Some(name) = &analyze.table_name {
                    self.object(scope, name, Access::Read);
                }
                StatementKind::Other
            }
            Statement::Vacuum(vacuum) => {
                if let Some(name) = &vacuum.table_name {
                    self.object(scope, name, Access::Write);
                }
                StatementKind::Other
            }
            Statement::Lock(lock) => {
                for table in &lock.tables {
                    self.object(scope, &table.name, Access::Write);
                }
                StatementKind::Other
            }
            other => self.definition(scope, other),
        }
    }

    /// DDL: its objects as relations that are written, its queries walked.
    fn definition(&mut self, scope: ScopeId, statement: &Statement) -> StatementKind {
        match statement {
            Statement::CreateTable(table) => self.create_table(scope, table),
            Statement::AlterTable(table) => self.alter_table(scope, table),
            Statement::CreateIndex(index) => {
                self.object(scope, &index.table_name, Access::Write);
                self.enter_all(scope);
                self.all(index.columns.iter().map(|column| &column.column.expr));
                if let Some(predicate) = &index.predicate {
                    self.condition(predicate, super::predicates::Place::ELSEWHERE);
                }
                self.leave();
            }
            Statement::CreateView(view) => {
                self.object(scope, &view.name, Access::Write);
                let id = self.new_scope(Some(scope), ScopeKind::Source, self.parsed.query_span(&view.query));
                self.query(id, &view.query);
            }
            Statement::AlterView { name, query, .. } => {
                self.object(scope, name, Access::Write);
                let id = self.new_scope(Some(scope), ScopeKind::Source, self.parsed.query_span(query));
                self.query(id, query);
            }
            Statement::Drop { object_type, names, table, .. } => {
                if is_relation(object_type) {
                    for name in names.iter().chain(table) {
                        self.object(scope, name, Access::Write);
                    }
                }
            }
            Statement::AlterIndex { name, .. } => self.object(scope, name, Access::Write),
            Statement::CreateTrigger(trigger) => self.object(scope, &trigger.table_name, Access::Write),
            Statement::DropTrigger(trigger) => match &trigger.table_name {
                Some(table) => self.object(scope, table, Access::Write),
                None => self.unknown("DROP TRIGGER without a table"),
            },
            Statement::CreatePolicy(policy) => self.object(scope, &policy.table_name, Access::Write),
            Statement::AlterPolicy(policy) => self.object(scope, &policy.table_name, Access::Write),
            Statement::DropPolicy(policy) => self.object(scope, &policy.table_name, Access::Write),
            Statement::Comment { .. } => self.unknown("COMMENT"),
            Statement::Grant(_) | Statement::Revoke(_) => self.unknown("GRANT or REVOKE"),
            Statement::CreateSchema { schema_name: SchemaName::Simple(_), .. }
            | Statement::AlterSchema(_)
            | Statement::CreateExtension(_)
            | Statement::DropExtension(_)
            | Statement::CreateSequence { .. }
            | Statement::CreateType { .. }
            | Statement::AlterType(_)
            | Statement::CreateDomain(_)
            | Statement::DropDomain(_)
            | Statement::CreateFunction(_)
            | Statement::DropFunction(_)
            | Statement::CreateRole(_)
            | Statement::AlterRole { .. }
            | Statement::CreateDatabase { .. }
            | Statement::CreateOperator(_)
            | Statement::CreateCollation(_) => {}
            _ => {
                let (kind, command) = classify(&self.parsed.text);
                self.unknown(format!("{command} is not understood"));
                return kind;
            }
        }
        StatementKind::Ddl
    }

    fn create_table(&mut self, scope: ScopeId, table: &CreateTable) {
        self.object(scope, &table.name, Access::Write);
        if let Some(query) = &table.query {
            let id = self.new_scope(Some(scope), ScopeKind::Source, self.parsed.query_span(query));
            self.query(id, query);
        }
        if let Some(CreateTableLikeKind::Parenthesized(like) | CreateTableLikeKind::Plain(like)) = &table.like {
            self.object(scope, &like.name, Access::Read);
        }
        for parent in table.inherits.iter().flatten().chain(&table.partition_of) {
            self.object(scope, parent, Access::Write);
        }
        self.unknown_if(table.clone.is_some(), "CREATE TABLE .. CLONE");
        for option in table.columns.iter().flat_map(|column| &column.options) {
            if let ColumnOption::ForeignKey(key) = &option.option {
                self.object(scope, &key.foreign_table, Access::Read);
            }
        }
        self.references(scope, &table.constraints);
    }

    fn references<'e>(&mut self, scope: ScopeId, constraints: impl IntoIterator<Item = &'e TableConstraint>) {
        for constraint in constraints {
            if let TableConstraint::ForeignKey(key) = constraint {
                self.object(scope, &key.foreign_table, Access::Read);
            }
        }
    }

    fn alter_table(&mut self, scope: ScopeId, table: &AlterTable) {
        self.object(scope, &table.name, Access::Write);
        for operation in &table.operations {
            match operation {
                AlterTableOperation::AddConstraint { constraint, .. } => self.references(scope, [constraint]),
                AlterTableOperation::RenameTable { table_name } => {
                    let (RenameTableNameKind::As(name) | RenameTableNameKind::To(name)) = table_name;
                    self.object(scope, name, Access::Write);
                }
                AlterTableOperation::AddColumn { column_def, .. } => {
                    for option in &column_def.options {
                        if let ColumnOption::ForeignKey(key) = &option.option {
                            self.object(scope, &key.foreign_table, Access::Read);
                        }
                    }
                }
                AlterTableOperation::DropColumn { .. }
                | AlterTableOperation::DropConstraint { .. }
                | AlterTableOperation::AlterColumn { .. }
                | AlterTableOperation::RenameColumn { .. }
                | AlterTableOperation::RenameConstraint { .. }
                | AlterTableOperation::ValidateConstraint { .. }
                | AlterTableOperation::OwnerTo { .. }
                | AlterTableOperation::EnableRowLevelSecurity
                | AlterTableOperation::DisableRowLevelSecurity
                | AlterTableOperation::ForceRowLevelSecurity
                | AlterTableOperation::NoForceRowLevelSecurity
                | AlterTableOperation::EnableTrigger { .. }
                | AlterTableOperation::DisableTrigger { .. }
                | AlterTableOperation::SetLogged
                | AlterTableOperation::SetUnlogged
                | AlterTableOperation::SetOptionsParens { .. }
                | AlterTableOperation::ReplicaIdentity { .. } => {}
                _ => self.unknown("an ALTER TABLE action that is not understood"),
            }
        }
    }

    /// Enters a block in which all relations of `scope` so far are visible.
    fn enter_all(&mut self, scope: ScopeId) {
        self.enter(scope);
        let here = self.facts.relations.iter().enumerate().filter(|(_, relation)| relation.scope == scope);
        let visible = here.map(|(index, _)| super::RelationId(index)).collect();
        if let Some(frame) = self.frames.last_mut() {
            frame.visible = visible;
        }
    }

    /// A relation named by a statement that has no FROM.
    fn object(&mut self, scope: ScopeId, name: &ObjectName, access: Access) {
        let span = self.name_span(name);
        match super::resolve::qualified(name) {
            Some((schema, name)) => _ = self.table(scope, schema, name, None, JoinKind::First, access, span),
            None => self.unknown("a name that is not understood"),
        }
    }
}

fn is_relation(object: &ObjectType) -> bool {
    match object {
        ObjectType::Table | ObjectType::View | ObjectType::MaterializedView | ObjectType::Index => true,
        ObjectType::Collation
        | ObjectType::Schema
        | ObjectType::Database
        | ObjectType::Role
        | ObjectType::Sequence
        | ObjectType::Stage
        | ObjectType::Type
        | ObjectType::User
        | ObjectType::Stream
        | ObjectType::Warehouse => false,
    }
}

/// SELECT .. INTO creates a table.
fn selects_into(query: &sqlparser::ast::Query) -> bool {
    matches!(&*query.body, sqlparser::ast::SetExpr::Select(select) if select.into.is_some())
}
