//! FROM: relation occurrences, joins and what their ON and USING say.

use sqlparser::ast::{
    Ident, JoinConstraint, JoinOperator, ObjectName, SetExpr, TableAlias, TableFactor, TableSampleKind, TableWithJoins,
};

use super::build::Builder;
use super::predicates::Place;
use super::query::renamed;
use super::resolve::{Columns, Merged, folded, qualified};
use super::{
    Access, Clause, ColumnRef, Comparison, JoinKind, Operand, Relation, RelationId, RelationSource, ScopeId, ScopeKind,
    Span,
};

impl Builder<'_> {
    /// Walks the items of a FROM clause.
    pub(super) fn from(&mut self, scope: ScopeId, items: &[TableWithJoins]) {
        for (index, item) in items.iter().enumerate() {
            let kind = if index == 0 { JoinKind::First } else { JoinKind::Comma };
            self.joined(scope, item, kind);
        }
    }

    /// One FROM item; answers the relations in it.
    pub(super) fn joined(&mut self, scope: ScopeId, item: &TableWithJoins, kind: JoinKind) -> Vec<RelationId> {
        let mut left = self.factor(scope, &item.relation, kind);
        for join in &item.joins {
            self.unknown_if(join.global, "GLOBAL JOIN");
            let (kind, constraint) = match &join.join_operator {
                JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (JoinKind::Inner, constraint),
                JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (JoinKind::Left, constraint),
                JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (JoinKind::Right, constraint),
                JoinOperator::FullOuter(constraint) => (JoinKind::Full, constraint),
                JoinOperator::CrossJoin(constraint) => (JoinKind::Cross, constraint),
                _ => {
                    self.unknown("a join that PostgreSQL does not have");
                    (JoinKind::Full, &JoinConstraint::None)
                }
            };
            let right = self.factor(scope, &join.relation, kind);
            self.constraint(kind, constraint, &left, &right);
            if matches!(kind, JoinKind::Left | JoinKind::Full) {
                self.make_nullable(&right);
            }
            if matches!(kind, JoinKind::Right | JoinKind::Full) {
                self.make_nullable(&left);
            }
            left.extend(right);
        }
        left
    }

    pub(super) fn make_nullable(&mut self, relations: &[RelationId]) {
        for id in relations {
            if let Some(relation) = self.facts.relations.get_mut(id.0) {
                relation.nullable = true;
            }
        }
    }

    fn constraint(&mut self, kind: JoinKind, constraint: &JoinConstraint, left: &[RelationId], right: &[RelationId]) {
        let is_outer = matches!(kind, JoinKind::Left | JoinKind::Right | JoinKind::Full);
        let place = Place::top(if is_outer { Clause::OuterOn } else { Clause::InnerOn });
        match constraint {
            JoinConstraint::On(condition) => {
                // ON sees the two sides of its join and nothing else of this FROM.
                let sides = left.iter().chain(right).copied().collect();
                let all = self.frames.last_mut().map(|frame| std::mem::replace(&mut frame.visible, sides));
                self.condition(condition, place);
                if let (Some(frame), Some(all)) = (self.frames.last_mut(), all) {
                    frame.visible = all;
                }
            }
            JoinConstraint::Using(names) => {
                for name in names {
                    match name.0.as_slice() {
                        [part] if part.as_ident().is_some() => {
                            let span = self.name_span(name);
                            let name = part.as_ident().map(folded).unwrap_or_default();
                            self.merge(kind, name, span, left, right, place);
                        }
                        _ => self.unknown("a qualified name in USING"),
                    }
                }
            }
            JoinConstraint::Natural => self.natural(kind, left, right, place),
            JoinConstraint::None => {
                self.unknown_if(!matches!(kind, JoinKind::Cross | JoinKind::Full), "a join without ON or USING");
            }
        }
    }

    /// NATURAL joins by every name that both sides have, which only a catalog knows.
    fn natural(&mut self, kind: JoinKind, left: &[RelationId], right: &[RelationId], place: Place) {
        let names = |columns: Columns| columns.and_then(|columns| columns.into_iter().collect::<Option<Vec<String>>>());
        let (Some(lefts), Some(rights)) = (names(self.columns_of(left)), names(self.columns_of(right))) else {
            return self.unknown("NATURAL JOIN of tables that are not in the catalog");
        };
        let mut seen: Vec<&String> = Vec::new();
        for name in lefts.iter().filter(|name| rights.contains(name)) {
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        for name in seen {
            self.merge(kind, name.clone(), Span::default(), left, right, place);
        }
    }

    /// One column that USING or NATURAL merges: an equality, and one visible name from here on.
    fn merge(
        &mut self,
        kind: JoinKind,
        name: String,
        span: Span,
        left: &[RelationId],
        right: &[RelationId],
        place: Place,
    ) {
        let left_side = self.side_of(left, &name);
        let right_side = self.side_of(right, &name);
        let column = |relation| Operand::Column(ColumnRef { relation, qualifier: None, name: name.clone(), span });
        self.note(place, column(left_side), Comparison::Eq, Some(column(right_side)), span);
        let shows = match kind {
            JoinKind::Right => right_side,
            JoinKind::Full => None,
            JoinKind::First | JoinKind::Comma | JoinKind::Cross | JoinKind::Inner | JoinKind::Left => left_side,
        };
        let among = left.iter().chain(right).copied().collect();
        if let Some(frame) = self.frames.last_mut() {
            frame.merged.retain(|merged| merged.name != name || !merged.among.iter().all(|id| left.contains(id)));
            frame.merged.push(Merged { name, shows, among });
        }
    }

    /// One relation, or a join in parentheses.
    pub(super) fn factor(&mut self, scope: ScopeId, factor: &TableFactor, join: JoinKind) -> Vec<RelationId> {
        match factor {
            TableFactor::Table { name, alias, args: Some(arguments), with_ordinality, .. } => {
                self.unknown_if(arguments.settings.is_some(), "SETTINGS of a function");
                let place = FunctionPlace { scope, join, alias: alias.as_ref(), ordinality: *with_ordinality };
                vec![self.function_relation(name, &arguments.args, place)]
            }
            TableFactor::Function { lateral: _, name, args, with_ordinality, alias } => {
                let place = FunctionPlace { scope, join, alias: alias.as_ref(), ordinality: *with_ordinality };
                vec![self.function_relation(name, args, place)]
            }
            TableFactor::Table { name, alias, .. } => {
                self.table_extras(factor);
                vec![self.table_or_cte(scope, name, alias.as_ref(), join)]
            }
            TableFactor::Derived { lateral, subquery, alias, sample } => {
                self.unknown_if(sample.is_some(), "TABLESAMPLE of a subquery");
                vec![self.derived(scope, *lateral, subquery, alias.as_ref(), join)]
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset, with_offset_alias, with_ordinality } => {
                self.unknown_if(*with_offset || with_offset_alias.is_some(), "UNNEST WITH OFFSET");
                self.all(array_exprs);
                let span = array_exprs
                    .first()
                    .map(|expr| self.enclosing_call(self.parsed.expr_span(expr)))
                    .unwrap_or_default();
                let place = FunctionPlace { scope, join, alias: alias.as_ref(), ordinality: *with_ordinality };
                self.note_function(None, "unnest", array_exprs.len(), false, span);
                vec![self.add_function("unnest".to_owned(), place, span)]
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.unknown_if(alias.is_some(), "an alias of a join in parentheses");
                self.deeper(|builder| builder.joined(scope, table_with_joins, join)).unwrap_or_default()
            }
            other => {
                self.unknown(format!("a FROM item that is not understood: {}", kind_of(other)));
                let relation = Relation {
                    scope,
                    source: RelationSource::Other,
                    alias: None,
                    join,
                    nullable: false,
                    access: Access::Read,
                    span: Span::default(),
                };
                vec![self.add_relation(relation, None)]
            }
        }
    }

    fn table_extras(&mut self, factor: &TableFactor) {
        let TableFactor::Table {
            with_hints, version, with_ordinality, partitions, json_path, sample, index_hints, ..
        } = factor
        else {
            return;
        };
        let foreign = !with_hints.is_empty()
            || version.is_some()
            || *with_ordinality
            || !partitions.is_empty()
            || json_path.is_some()
            || !index_hints.is_empty();
        self.unknown_if(foreign, "a FROM clause that PostgreSQL does not have");
        if let Some(TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = sample {
            self.unknown("TABLESAMPLE");
            self.all(sample.quantity.as_ref().map(|quantity| &quantity.value));
        }
    }

    fn table_or_cte(
        &mut self,
        scope: ScopeId,
        name: &ObjectName,
        alias: Option<&TableAlias>,
        join: JoinKind,
    ) -> RelationId {
        let span = self.name_span(name);
        let Some((schema, table)) = qualified(name) else {
            self.unknown("a table name that is not understood");
            return self.table(scope, None, String::new(), self.alias_name(alias), join, Access::Read, span);
        };
        let aliased = alias.map(|alias| self.alias_columns(alias)).unwrap_or_default();
        let alias = self.checked_alias(alias);
        let cte = self.ctes.iter().rev().find(|cte| schema.is_none() && cte.name == table).map(|cte| cte.scope);
        let id = match cte {
            Some(cte) => {
                let columns = self.scope_columns.get(cte.0).cloned().flatten();
                let source = RelationSource::Cte(cte);
                let relation = Relation { scope, source, alias, join, nullable: false, access: Access::Read, span };
                self.add_relation(relation, columns)
            }
            None => self.table(scope, schema, table, alias, join, Access::Read, span),
        };
        self.rename_columns(id, aliased);
        id
    }

    /// Puts an alias list's names over a relation's own.
    pub(super) fn rename_columns(&mut self, id: RelationId, aliased: Vec<Option<String>>) {
        if let Some(columns) = self.relation_columns.get_mut(id.0) {
            *columns = renamed(columns.take(), aliased);
        }
    }

    fn derived(
        &mut self,
        scope: ScopeId,
        lateral: bool,
        subquery: &sqlparser::ast::Query,
        alias: Option<&TableAlias>,
        join: JoinKind,
    ) -> RelationId {
        let span = self.parsed.query_span(subquery);
        let aliased = alias.map(|alias| self.alias_columns(alias)).unwrap_or_default();
        let alias = self.checked_alias(alias);
        self.hide(!lateral);
        let (source, columns) = match &*subquery.body {
            SetExpr::Values(values) if is_bare(subquery) => {
                self.values(values);
                let width = values.rows.first().map_or(0, |row| row.content.len());
                (RelationSource::Values, Some((1..=width).map(|n| Some(format!("column{n}"))).collect()))
            }
            _ => {
                let inner = self.subquery(subquery, ScopeKind::Derived { lateral });
                (RelationSource::Derived(inner), self.scope_columns.get(inner.0).cloned().flatten())
            }
        };
        self.hide(false);
        let relation = Relation { scope, source, alias, join, nullable: false, access: Access::Read, span };
        self.add_relation(relation, renamed(columns, aliased))
    }

    /// Hides the innermost block from what is walked next, or shows it again.
    fn hide(&mut self, hidden: bool) {
        if let Some(frame) = self.frames.last_mut() {
            frame.hidden = hidden;
        }
    }

    fn function_relation(
        &mut self,
        name: &ObjectName,
        arguments: &[sqlparser::ast::FunctionArg],
        place: FunctionPlace<'_>,
    ) -> RelationId {
        let span = self.called_span(self.name_span(name));
        for argument in arguments {
            self.argument(argument);
        }
        match qualified(name) {
            Some((schema, name)) => {
                self.note_function(schema, &name, arguments.len(), false, span);
                self.add_function(name, place, span)
            }
            None => {
                self.unknown("a function name that is not understood");
                self.add_function(String::new(), place, span)
            }
        }
    }

    /// A call's bytes from those of its name.
    fn called_span(&self, name: Span) -> Span {
        let tokens = &self.parsed.tokens;
        let close = tokens.containing(name.end.saturating_sub(1)).and_then(|last| tokens.mate(last + 1));
        close.map_or(name, |close| Span { end: tokens.span(close).end, ..name })
    }

    /// A call's bytes from those of its first argument.
    fn enclosing_call(&self, argument: Span) -> Span {
        let tokens = &self.parsed.tokens;
        let open = tokens.containing(argument.start).and_then(|first| tokens.around(first));
        let call = open.and_then(|open| Some(tokens.between(open.checked_sub(1)?, tokens.mate(open)?)));
        call.unwrap_or(argument)
    }

    /// A function's columns: those its alias list names, else one of its alias or its own name; a composite
    /// result may have others, so that nothing else is excluded.
    fn add_function(&mut self, name: String, place: FunctionPlace<'_>, span: Span) -> RelationId {
        let mut columns = place.alias.map(|alias| self.alias_columns(alias)).unwrap_or_default();
        let alias = self.checked_alias(place.alias);
        if columns.is_empty() {
            columns.push(Some(alias.clone().unwrap_or_else(|| name.clone())));
            if place.ordinality {
                columns.push(Some("ordinality".to_owned()));
            }
        }
        columns.push(None);
        let relation = Relation {
            scope: place.scope,
            source: RelationSource::Function(name),
            alias,
            join: place.join,
            nullable: false,
            access: Access::Read,
            span,
        };
        self.add_relation(relation, Some(columns))
    }

    /// The names of an alias's column list.
    pub(super) fn alias_columns(&self, alias: &TableAlias) -> Vec<Option<String>> {
        alias.columns.iter().map(|column| Some(folded(&column.name))).collect()
    }

    fn alias_name(&self, alias: Option<&TableAlias>) -> Option<String> {
        alias.map(|alias| folded(&alias.name))
    }

    /// The alias; one that was a string constant means that the parser misread the statement.
    fn checked_alias(&mut self, alias: Option<&TableAlias>) -> Option<String> {
        if let Some(alias) = alias {
            self.unknown_if(alias.name.quote_style == Some('\''), "a string constant read as an alias");
            self.unknown_if(alias.at.is_some(), "an alias with AT");
        }
        self.alias_name(alias)
    }

    /// A table in a block's FROM, or a target.
    #[expect(clippy::too_many_arguments, reason = "the fields of one relation")]
    pub(super) fn table(
        &mut self,
        scope: ScopeId,
        schema: Option<String>,
        name: String,
        alias: Option<String>,
        join: JoinKind,
        access: Access,
        span: Span,
    ) -> RelationId {
        let table = self.catalog.find(schema.as_deref(), &name);
        let columns = table.and_then(|id| {
            let columns = &self.catalog.table(id).columns;
            (!columns.is_empty()).then(|| columns.iter().map(|column| Some(column.name.clone())).collect())
        });
        let source = RelationSource::Table { schema, name, table };
        self.add_relation(Relation { scope, source, alias, join, nullable: false, access, span }, columns)
    }

    /// A target's name as a relation that is written.
    pub(super) fn target(&mut self, scope: ScopeId, name: &ObjectName, alias: Option<&Ident>) -> RelationId {
        let span = self.name_span(name);
        let (schema, table) = match qualified(name) {
            Some(found) => found,
            None => {
                self.unknown("a table name that is not understood");
                (None, String::new())
            }
        };
        self.table(scope, schema, table, alias.map(folded), JoinKind::First, Access::Write, span)
    }
}

/// Where a function stands in FROM.
#[derive(Clone, Copy)]
struct FunctionPlace<'a> {
    scope: ScopeId,
    join: JoinKind,
    alias: Option<&'a TableAlias>,
    ordinality: bool,
}

/// A query that is nothing but its body.
pub(super) fn is_bare(query: &sqlparser::ast::Query) -> bool {
    query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
        && query.for_clause.is_none()
        && query.pipe_operators.is_empty()
}

fn kind_of(factor: &TableFactor) -> &'static str {
    match factor {
        TableFactor::JsonTable { .. } => "JSON_TABLE",
        TableFactor::XmlTable { .. } => "XMLTABLE",
        TableFactor::TableFunction { .. } => "TABLE(..)",
        _ => "not PostgreSQL's",
    }
}
