//! INSERT, UPDATE, DELETE and MERGE.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Ident, Insert, Merge, MergeAction, MergeClauseKind,
    MergeInsertKind, MergeUpdateKind, ObjectName, OnConflictAction, OnInsert, OutputClause, Query, SelectItem, SetExpr,
    Statement, TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind,
};

use super::build::Builder;
use super::from::is_bare;
use super::predicates::Place;
use super::resolve::{folded, qualified};
use super::{Clause, ColumnRef, InsertFacts, JoinKind, Operand, RelationId, ScopeId, ScopeKind, StatementKind};

impl Builder<'_> {
    /// A data-modifying statement into `scope`; answers its kind.
    pub(super) fn modification(&mut self, scope: ScopeId, statement: &Statement) -> StatementKind {
        match statement {
            Statement::Insert(insert) => {
                self.insert(scope, insert);
                StatementKind::Insert
            }
            Statement::Update(update) => {
                self.update(scope, update);
                StatementKind::Update
            }
            Statement::Delete(delete) => {
                self.delete(scope, delete);
                StatementKind::Delete
            }
            Statement::Merge(merge) => {
                self.merge_into(scope, merge);
                StatementKind::Merge
            }
            _ => {
                self.unknown("a statement where only INSERT, UPDATE, DELETE or MERGE may stand");
                StatementKind::Other
            }
        }
    }

    fn insert(&mut self, scope: ScopeId, insert: &Insert) {
        let foreign = insert.or.is_some()
            || insert.ignore
            || insert.overwrite
            || !insert.assignments.is_empty()
            || insert.partitioned.is_some()
            || !insert.after_columns.is_empty()
            || insert.replace_into
            || insert.priority.is_some()
            || insert.insert_alias.is_some()
            || insert.settings.is_some()
            || insert.format_clause.is_some()
            || insert.multi_table_insert_type.is_some();
        self.unknown_if(foreign, "an INSERT clause that PostgreSQL does not have");
        let TableObject::TableName(name) = &insert.table else {
            return self.unknown("an INSERT into something that is not a table");
        };
        let columns: Vec<String> = insert.columns.iter().filter_map(qualified).map(|(_, name)| name).collect();
        let columns = (!insert.columns.is_empty()).then_some(columns);
        let mut facts = InsertFacts {
            columns,
            rows: Vec::new(),
            query: None,
            default_values: insert.source.is_none(),
            on_conflict: None,
        };
        // The source does not see the target.
        if let Some(source) = &insert.source {
            self.source(scope, source, &mut facts);
        }
        self.enter(scope);
        let alias = insert.table_alias.as_ref().map(|alias| &alias.alias);
        let target = self.target(scope, name, alias);
        match &insert.on {
            Some(OnInsert::OnConflict(conflict)) => {
                facts.on_conflict = Some(self.on_conflict(target, &conflict.action));
            }
            Some(OnInsert::DuplicateKeyUpdate(_)) => self.unknown("ON DUPLICATE KEY UPDATE"),
            Some(_) => self.unknown("an INSERT clause that PostgreSQL does not have"),
            None => {}
        }
        self.returning(scope, insert.returning.as_deref(), insert.output.as_ref());
        self.leave();
        if self.facts.insert.is_none() && scope == ScopeId(0) {
            self.facts.insert = Some(facts);
        } else {
            self.facts.other_inserts.push((target, facts));
        }
    }

    fn source(&mut self, scope: ScopeId, source: &Query, facts: &mut InsertFacts) {
        match &*source.body {
            SetExpr::Values(values) if is_bare(source) => {
                self.enter(scope);
                for row in &values.rows {
                    let row = row.content.iter().map(|value| self.value_or_default(value)).collect();
                    facts.rows.push(row);
                }
                self.leave();
            }
            _ => {
                let id = self.new_scope(Some(scope), ScopeKind::Source, self.parsed.query_span(source));
                self.query(id, source);
                facts.query = Some(id);
            }
        }
    }

    /// `None` is DEFAULT, a reserved word that the parser takes for a name.
    fn value_or_default(&mut self, value: &Expr) -> Option<Operand> {
        if is_default(value) { None } else { Some(self.operand(value)) }
    }

    /// The columns that DO UPDATE sets; none for DO NOTHING.
    fn on_conflict(&mut self, target: RelationId, action: &OnConflictAction) -> Vec<String> {
        let OnConflictAction::DoUpdate(update) = action else { return Vec::new() };
        let before = self.facts.assignments.len();
        // `excluded` is no relation: its columns stay unresolved, with that qualifier.
        self.assignments(target, &update.assignments);
        if let Some(selection) = &update.selection {
            self.condition(selection, Place::ELSEWHERE);
        }
        self.facts.assignments.get(before..).unwrap_or(&[]).iter().map(|(column, _)| column.name.clone()).collect()
    }

    /// Columns that SET assigns, with their new values.
    pub(super) fn assignments(&mut self, target: RelationId, assignments: &[Assignment]) {
        for assignment in assignments {
            match &assignment.target {
                AssignmentTarget::ColumnName(name) => {
                    let column = self.assigned(target, name);
                    let value = self.new_value(&assignment.value);
                    self.facts.assignments.push((column, value));
                }
                AssignmentTarget::Tuple(names) => self.row_assignment(target, names, &assignment.value),
            }
        }
    }

    /// `SET (a, b) = (1, 2)` and `SET (a, b) = (SELECT ..)`.
    fn row_assignment(&mut self, target: RelationId, names: &[ObjectName], value: &Expr) {
        let columns: Vec<ColumnRef> = names.iter().map(|name| self.assigned(target, name)).collect();
        match value {
            Expr::Tuple(values) if values.len() == columns.len() => {
                for (column, value) in columns.into_iter().zip(values) {
                    let value = self.new_value(value);
                    self.facts.assignments.push((column, value));
                }
            }
            _ => {
                let value = self.new_value(value);
                self.facts.assignments.extend(columns.into_iter().map(|column| (column, value.clone())));
            }
        }
    }

    /// A new value; DEFAULT is an expression that mentions nothing.
    fn new_value(&mut self, value: &Expr) -> Operand {
        if is_default(value) {
            let mark = self.mark();
            let span = self.parsed.expr_span(value);
            self.expression(&mark, super::Shape::Function("default".to_owned()), span)
        } else {
            self.operand(value)
        }
    }

    fn assigned(&mut self, target: RelationId, name: &ObjectName) -> ColumnRef {
        let span = self.name_span(name);
        let name = match name.0.as_slice() {
            [part] => part.as_ident().map(folded),
            // A field of a composite column, `SET point.x = 1`: the column is what changes.
            [part, ..] => part.as_ident().map(folded),
            [] => None,
        };
        let name = name.unwrap_or_else(|| {
            self.unknown("an assignment to something that is not a column");
            String::new()
        });
        ColumnRef { relation: Some(target), qualifier: None, name, span }
    }

    fn update(&mut self, scope: ScopeId, update: &Update) {
        let foreign = update.or.is_some() || !update.order_by.is_empty() || update.limit.is_some();
        self.unknown_if(foreign, "an UPDATE clause that PostgreSQL does not have");
        self.enter(scope);
        if let Some(target) = self.modified(scope, &update.table) {
            match &update.from {
                Some(UpdateTableFromKind::AfterSet(items)) => self.other_items(scope, items),
                Some(UpdateTableFromKind::BeforeSet(_)) => self.unknown("UPDATE .. FROM .. SET"),
                None => {}
            }
            self.assignments(target, &update.assignments);
            self.filter(scope, update.selection.as_ref());
            self.returning(scope, update.returning.as_deref(), update.output.as_ref());
        }
        self.leave();
    }

    fn delete(&mut self, scope: ScopeId, delete: &Delete) {
        let foreign = !delete.tables.is_empty() || !delete.order_by.is_empty() || delete.limit.is_some();
        self.unknown_if(foreign, "a DELETE clause that PostgreSQL does not have");
        self.enter(scope);
        match &delete.from {
            FromTable::WithFromKeyword(items) => match items.as_slice() {
                [target] => {
                    if self.modified(scope, target).is_some() {
                        if let Some(using) = &delete.using {
                            self.other_items(scope, using);
                        }
                        self.filter(scope, delete.selection.as_ref());
                        self.returning(scope, delete.returning.as_deref(), delete.output.as_ref());
                    }
                }
                _ => self.unknown("DELETE from several tables"),
            },
            FromTable::WithoutKeyword(_) => self.unknown("DELETE without FROM"),
        }
        self.leave();
    }

    /// The target of UPDATE or DELETE.
    fn modified(&mut self, scope: ScopeId, item: &TableWithJoins) -> Option<RelationId> {
        match (&item.relation, item.joins.as_slice()) {
            (TableFactor::Table { name, alias, args: None, .. }, []) => {
                let alias = alias.as_ref().map(|alias| &alias.name);
                Some(self.target(scope, name, alias))
            }
            _ => {
                self.unknown("a target that is not a table");
                None
            }
        }
    }

    /// FROM of UPDATE, USING of DELETE: joined to the target by a comma, as it were.
    fn other_items(&mut self, scope: ScopeId, items: &[TableWithJoins]) {
        for item in items {
            self.joined(scope, item, JoinKind::Comma);
        }
    }

    fn filter(&mut self, scope: ScopeId, selection: Option<&Expr>) {
        if let Some(selection) = selection {
            self.scope_mut(scope, |scope| scope.has_where = true);
            self.condition(selection, Place::top(Clause::Where));
        }
    }

    fn returning(&mut self, scope: ScopeId, returning: Option<&[SelectItem]>, output: Option<&OutputClause>) {
        let items = match (returning, output) {
            (Some(items), None) => items,
            (None, Some(OutputClause::Returning { select_items, .. })) => select_items,
            (None, None) => return,
            _ => return self.unknown("OUTPUT"),
        };
        if scope == ScopeId(0) {
            self.facts.returning = true;
        }
        self.projection(scope, items);
        let columns = self.output_columns(scope);
        self.set_columns(scope, columns);
    }

    fn merge_into(&mut self, scope: ScopeId, merge: &Merge) {
        self.enter(scope);
        let TableFactor::Table { name, alias, args: None, .. } = &merge.table else {
            self.leave();
            return self.unknown("a target that is not a table");
        };
        let alias: Option<&Ident> = alias.as_ref().map(|alias| &alias.name);
        let target = self.target(scope, name, alias);
        // Unmatched source rows count too: the source is the preserved side, and ON is no filter.
        self.factor(scope, &merge.source, JoinKind::Right);
        self.make_nullable(&[target]);
        self.condition(&merge.on, Place::top(Clause::OuterOn));
        for clause in &merge.clauses {
            let by_source = matches!(clause.clause_kind, MergeClauseKind::NotMatchedBySource);
            self.unknown_if(by_source, "WHEN NOT MATCHED BY SOURCE");
            if let Some(predicate) = &clause.predicate {
                self.condition(predicate, Place::ELSEWHERE);
            }
            match &clause.action {
                MergeAction::Insert(insert) => {
                    self.unknown_if(insert.insert_predicate.is_some(), "MERGE .. INSERT .. WHERE");
                    match &insert.kind {
                        MergeInsertKind::Values(values) => {
                            let columns: Vec<String> =
                                insert.columns.iter().filter_map(qualified).map(|(_, name)| name).collect();
                            let mut row = |row: &[Expr]| row.iter().map(|value| self.value_or_default(value)).collect();
                            let rows = values.rows.iter().map(|values| row(&values.content)).collect();
                            let columns = (!columns.is_empty()).then_some(columns);
                            let facts =
                                InsertFacts { columns, rows, query: None, default_values: false, on_conflict: None };
                            self.facts.other_inserts.push((target, facts));
                        }
                        MergeInsertKind::Row | MergeInsertKind::Wildcard => self.unknown("MERGE .. INSERT ROW"),
                    }
                }
                MergeAction::Update(update) => {
                    let foreign = update.update_predicate.is_some() || update.delete_predicate.is_some();
                    self.unknown_if(foreign, "a MERGE clause that PostgreSQL does not have");
                    match &update.kind {
                        MergeUpdateKind::Set(assignments) => self.assignments(target, assignments),
                        MergeUpdateKind::Wildcard => self.unknown("MERGE .. UPDATE *"),
                    }
                }
                MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
            }
        }
        self.returning(scope, None, merge.output.as_ref());
        self.leave();
    }
}

/// DEFAULT where a value may stand.
fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}
