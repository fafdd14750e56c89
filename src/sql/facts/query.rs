//! Queries: WITH, SELECT, set operations, VALUES, and the ORDER BY and LIMIT behind them.

use sqlparser::ast::{
    Distinct, Expr, Fetch, GroupByExpr, LimitClause, ObjectName, OrderBy, OrderByExpr, OrderByKind, OrderBySort, Query,
    Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Statement,
    Values, With,
};

use super::build::{Builder, CteName};
use super::predicates::Place;
use super::resolve::{Columns, folded, qualified};
use super::{Access, Clause, JoinKind, Literal, Operand, Projection, ScopeId, ScopeKind, Shape, SortKey, Span};

impl Builder<'_> {
    /// Fills `scope` with a query.
    pub(super) fn query(&mut self, scope: ScopeId, query: &Query) {
        let outer_ctes = self.ctes.len();
        if let Some(with) = &query.with {
            self.with(scope, with);
        }
        self.unknown_if(query.for_clause.is_some(), "FOR XML, JSON or BROWSE");
        self.unknown_if(query.settings.is_some() || query.format_clause.is_some(), "SETTINGS or FORMAT");
        self.unknown_if(!query.pipe_operators.is_empty(), "a pipe operator");
        self.body(scope, &query.body, Some(query));
        self.ctes.truncate(outer_ctes);
    }

    fn body(&mut self, scope: ScopeId, body: &SetExpr, tail: Option<&Query>) {
        match body {
            SetExpr::Select(select) => self.select(scope, select, tail),
            SetExpr::Query(inner) => self.parenthesized(scope, inner, tail),
            SetExpr::SetOperation { .. } => self.set_operation(scope, body, tail),
            SetExpr::Values(values) => {
                self.enter(scope);
                self.values(values);
                let width = values.rows.first().map_or(0, |row| row.content.len());
                self.set_columns(scope, Some((1..=width).map(|n| Some(format!("column{n}"))).collect()));
                self.tail(scope, tail);
                self.leave();
            }
            SetExpr::Table(table) => {
                self.enter(scope);
                let (schema, name) = (table.schema_name.clone(), table.table_name.clone().unwrap_or_default());
                self.unknown("TABLE as a query");
                self.table(scope, schema, name, None, JoinKind::First, Access::Read, Span::default());
                self.tail(scope, tail);
                self.leave();
            }
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => {
                self.writing(scope, statement);
                self.unknown_if(tail.is_some_and(has_tail), "ORDER BY or LIMIT behind a data-modifying statement");
            }
        }
    }

    /// A data-modifying statement as the body of a query: behind WITH, or as a common table expression.
    fn writing(&mut self, scope: ScopeId, statement: &Statement) {
        if scope == ScopeId(0) {
            self.statement(scope, statement);
        } else {
            self.facts.writes_in_cte = true;
            self.modification(scope, statement);
        }
    }

    fn with(&mut self, scope: ScopeId, with: &With) {
        let mut scopes = Vec::with_capacity(with.cte_tables.len());
        for cte in &with.cte_tables {
            self.unknown_if(cte.from.is_some(), "WITH .. FROM");
            let name = folded(&cte.alias.name);
            let kind = ScopeKind::Cte { name: name.clone(), recursive: with.recursive };
            let id = self.new_scope(Some(scope), kind, self.parsed.query_span(&cte.query));
            scopes.push(id);
            if with.recursive {
                // Its own query sees it, and may see those that follow.
                let columns = self.alias_columns(&cte.alias);
                self.set_columns(id, (!columns.is_empty()).then_some(columns));
                self.ctes.push(CteName { name, scope: id });
            }
        }
        for (cte, id) in with.cte_tables.iter().zip(scopes) {
            self.deeper(|builder| builder.query(id, &cte.query));
            let aliased = self.alias_columns(&cte.alias);
            let columns = self.scope_columns.get(id.0).cloned().flatten();
            self.set_columns(id, renamed(columns, aliased));
            if !with.recursive {
                self.ctes.push(CteName { name: folded(&cte.alias.name), scope: id });
            }
        }
    }

    /// `(SELECT ..) ORDER BY ..`
    fn parenthesized(&mut self, scope: ScopeId, inner: &Query, tail: Option<&Query>) {
        if !tail.is_some_and(has_tail) {
            self.deeper(|builder| builder.query(scope, inner));
            return;
        }
        let arm = self.new_scope(Some(scope), ScopeKind::SetArm, self.parsed.query_span(inner));
        self.deeper(|builder| builder.query(arm, inner));
        self.set_columns(scope, self.scope_columns.get(arm.0).cloned().flatten());
        self.enter(scope);
        self.tail(scope, tail);
        self.leave();
    }

    /// UNION, INTERSECT, EXCEPT: every arm is a scope under `scope`, which itself has the ORDER BY and LIMIT only.
    fn set_operation(&mut self, scope: ScopeId, body: &SetExpr, tail: Option<&Query>) {
        let mut arms = Vec::new();
        let mut spine = body;
        while let SetExpr::SetOperation { left, op, set_quantifier, right } = spine {
            self.note_set_operation(op, *set_quantifier, right);
            arms.push(&**right);
            spine = left;
        }
        arms.push(spine);
        arms.reverse();
        self.facts.set_operations.sort_by_key(|(_, _, span)| span.start);
        for (index, arm) in arms.into_iter().enumerate() {
            let id = self.new_scope(Some(scope), ScopeKind::SetArm, self.arm_span(arm));
            self.deeper(|builder| builder.body(id, arm, None));
            let declared = self.scope_columns.get(scope.0).is_some_and(Option::is_some);
            if index == 0 && !declared {
                // Known now, for the recursive arm that follows may read it.
                self.set_columns(scope, self.scope_columns.get(id.0).cloned().flatten());
            }
        }
        self.enter(scope);
        self.tail(scope, tail);
        self.leave();
    }

    fn note_set_operation(&mut self, op: &SetOperator, quantifier: SetQuantifier, right: &SetExpr) {
        let name = match op {
            SetOperator::Union => "UNION",
            SetOperator::Intersect => "INTERSECT",
            SetOperator::Except => "EXCEPT",
            SetOperator::Minus => {
                self.unknown("MINUS");
                "EXCEPT"
            }
        };
        let all = match quantifier {
            SetQuantifier::All => true,
            SetQuantifier::Distinct | SetQuantifier::None => false,
            SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => {
                self.unknown("a set operation BY NAME");
                false
            }
        };
        let words = if quantifier == SetQuantifier::None { 1 } else { 2 };
        let tokens = &self.parsed.tokens;
        let behind = self.parsed.body_first(right);
        let span = behind
            .and_then(|behind| Some(tokens.between(behind.checked_sub(words)?, behind.checked_sub(1)?)))
            .unwrap_or_default();
        self.facts.set_operations.push((name.to_owned(), all, span));
    }

    fn arm_span(&self, arm: &SetExpr) -> Span {
        match arm {
            SetExpr::Query(query) => self.parsed.query_span(query),
            other => self.parsed.body_span(other),
        }
    }

    /// Walks the rows of VALUES that is not an INSERT's.
    pub(super) fn values(&mut self, values: &Values) {
        for row in &values.rows {
            self.all(&row.content);
        }
    }

    fn select(&mut self, scope: ScopeId, select: &Select, tail: Option<&Query>) {
        self.foreign_clauses(select);
        self.into(scope, select);
        self.enter(scope);
        self.from(scope, &select.from);
        if let Some(selection) = &select.selection {
            self.scope_mut(scope, |scope| scope.has_where = true);
            self.condition(selection, Place::top(Clause::Where));
        }
        self.projection(scope, &select.projection);
        self.group_by(scope, &select.group_by);
        if let Some(having) = &select.having {
            self.scope_mut(scope, |scope| scope.having = true);
            self.condition(having, Place::top(Clause::Having));
        }
        for window in &select.named_window {
            self.named_window(&window.1);
        }
        match &select.distinct {
            Some(Distinct::Distinct) => self.scope_mut(scope, |scope| scope.distinct = true),
            Some(Distinct::On(keys)) => {
                self.scope_mut(scope, |scope| scope.distinct_on = true);
                for key in keys {
                    self.output_or_input(scope, key);
                }
            }
            Some(Distinct::All) | None => {}
        }
        let columns = self.output_columns(scope);
        self.set_columns(scope, columns);
        self.tail(scope, tail);
        self.leave();
    }

    /// SELECT .. INTO creates a table.
    fn into(&mut self, scope: ScopeId, select: &Select) {
        let Some(into) = &select.into else { return };
        self.unknown("SELECT INTO");
        for target in &into.targets {
            let idents = match target {
                Expr::Identifier(ident) => vec![ident.clone()],
                Expr::CompoundIdentifier(idents) => idents.clone(),
                _ => continue,
            };
            self.target(scope, &ObjectName::from(idents), None);
        }
    }

    /// Clauses that the parser reads for other databases' sake.
    fn foreign_clauses(&mut self, select: &Select) {
        let foreign = select.top.is_some()
            || select.exclude.is_some()
            || !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.qualify.is_some()
            || select.value_table_mode.is_some()
            || select.select_modifiers.is_some()
            || select.flavor != SelectFlavor::Standard;
        self.unknown_if(foreign, "a SELECT clause that PostgreSQL does not have");
    }

    /// Fills a scope's projection from a SELECT list or a RETURNING clause.
    pub(super) fn projection(&mut self, scope: ScopeId, items: &[SelectItem]) {
        for item in items {
            let projection = match item {
                SelectItem::UnnamedExpr(expr) => {
                    let value = self.operand(expr);
                    Projection::Item { value, alias: None, span: self.parsed.expr_span(expr) }
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    self.unknown_if(alias.quote_style == Some('\''), "a string constant read as an alias");
                    let value = self.operand(expr);
                    let span = Span { end: self.parsed.ident_span(alias).end, ..self.parsed.expr_span(expr) };
                    Projection::Item { value, alias: Some(folded(alias)), span }
                }
                SelectItem::ExprWithAliases { expr, .. } => {
                    self.unknown("several aliases of one item");
                    let value = self.operand(expr);
                    Projection::Item { value, alias: None, span: self.parsed.expr_span(expr) }
                }
                SelectItem::Wildcard(options) => {
                    self.wildcard_options(options);
                    let token = self.parsed.tokens.starting_at(options.wildcard_token.0.span.start);
                    Projection::Star(token.map(|token| self.parsed.tokens.span(token)).unwrap_or_default())
                }
                SelectItem::QualifiedWildcard(kind, options) => {
                    self.wildcard_options(options);
                    self.qualified_star(kind)
                }
            };
            self.scope_mut(scope, |scope| scope.projection.push(projection));
        }
    }

    fn wildcard_options(&mut self, options: &sqlparser::ast::WildcardAdditionalOptions) {
        let foreign = options.opt_ilike.is_some()
            || options.opt_exclude.is_some()
            || options.opt_except.is_some()
            || options.opt_replace.is_some()
            || options.opt_rename.is_some()
            || options.opt_alias.is_some();
        self.unknown_if(foreign, "a wildcard with options");
    }

    fn qualified_star(&mut self, kind: &SelectItemQualifiedWildcardKind) -> Projection {
        match kind {
            SelectItemQualifiedWildcardKind::ObjectName(name) => {
                let span = self.name_span(name);
                let span = Span { end: self.star_end(span.end), ..span };
                let relation =
                    qualified(name).and_then(|(schema, table)| self.named_relation(schema.as_deref(), &table));
                Projection::QualifiedStar(span, relation)
            }
            SelectItemQualifiedWildcardKind::Expr(expr) => {
                self.unknown("the fields of a composite value");
                let value = self.operand(expr);
                Projection::Item { span: value.span(), value, alias: None }
            }
        }
    }

    /// The end of `.*` behind a name.
    fn star_end(&self, end: u32) -> u32 {
        let tokens = &self.parsed.tokens;
        tokens.containing(end.saturating_sub(1)).map_or(end, |name| tokens.span(name + 2).end)
    }

    fn group_by(&mut self, scope: ScopeId, group_by: &GroupByExpr) {
        let (exprs, modifiers) = match group_by {
            GroupByExpr::Expressions(exprs, modifiers) => (exprs, modifiers),
            GroupByExpr::All(_) => return self.unknown("GROUP BY ALL"),
        };
        self.unknown_if(!modifiers.is_empty(), "a GROUP BY modifier");
        for expr in exprs {
            match expr {
                Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                    self.scope_mut(scope, |scope| scope.grouping_sets = true);
                    for expr in sets.iter().flatten() {
                        let value = self.input_or_output(scope, expr);
                        self.scope_mut(scope, |scope| scope.group_by.push(value));
                    }
                }
                _ => {
                    let value = self.input_or_output(scope, expr);
                    self.scope_mut(scope, |scope| scope.group_by.push(value));
                }
            }
        }
    }

    /// GROUP BY prefers an input column to an output name.
    fn input_or_output(&mut self, scope: ScopeId, expr: &Expr) -> Operand {
        let value = self.operand(expr);
        match &value {
            Operand::Column(column) if column.qualifier.is_none() && !self.is_input(scope, column.relation) => {
                let name = column.name.clone();
                let mentions_it = |output: &Operand| match output {
                    Operand::Expression { columns, .. } => columns.iter().any(|column| column.name == name),
                    _ => false,
                };
                // `lower(a) AS a .. GROUP BY a`: the alias's own value shows that there is an input column.
                self.output(scope, &name, true).filter(|output| !mentions_it(output)).unwrap_or(value)
            }
            _ => value,
        }
    }

    /// The relation stands in this very block and is known to have the column.
    fn is_input(&self, scope: ScopeId, relation: Option<super::RelationId>) -> bool {
        let Some(id) = relation else { return false };
        let here = self.facts.relations.get(id.0).is_some_and(|relation| relation.scope == scope);
        here && matches!(self.relation_columns.get(id.0), Some(Some(_)))
    }

    /// ORDER BY and DISTINCT ON prefer an output name to an input column.
    fn output_or_input(&mut self, scope: ScopeId, expr: &Expr) -> Operand {
        if let Expr::Identifier(ident) = expr
            && let Some(value) = self.output(scope, &folded(ident), false)
        {
            return value;
        }
        self.operand(expr)
    }

    /// The projected value of that output name; of an alias only, if so wished.
    fn output(&self, scope: ScopeId, name: &str, alias_only: bool) -> Option<Operand> {
        let projection = &self.facts.scopes.get(scope.0)?.projection;
        projection.iter().find_map(|item| match item {
            Projection::Item { value, alias: Some(alias), .. } if alias == name => Some(value.clone()),
            Projection::Item { value: value @ Operand::Column(column), alias: None, .. } => {
                (!alias_only && column.name == name).then(|| value.clone())
            }
            Projection::Item { .. } | Projection::Star(_) | Projection::QualifiedStar(..) => None,
        })
    }

    /// ORDER BY, LIMIT, OFFSET, FETCH and locking of the query behind a body.
    fn tail(&mut self, scope: ScopeId, tail: Option<&Query>) {
        let Some(query) = tail else { return };
        if let Some(OrderBy { kind, interpolate }) = &query.order_by {
            self.unknown_if(interpolate.is_some(), "INTERPOLATE");
            match kind {
                OrderByKind::Expressions(keys) => {
                    for key in keys {
                        let key = self.sort_key(scope, key);
                        self.scope_mut(scope, |scope| scope.order_by.push(key));
                    }
                }
                OrderByKind::All(_) => self.unknown("ORDER BY ALL"),
            }
        }
        match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
                self.unknown_if(!limit_by.is_empty(), "LIMIT .. BY");
                self.set_limit(scope, limit.as_ref(), offset.as_ref().map(|offset| &offset.value));
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => self.unknown("LIMIT a, b"),
            None => {}
        }
        if let Some(fetch) = &query.fetch {
            self.fetch(scope, fetch);
        }
        if !query.locks.is_empty() {
            let skips = query.locks.iter().any(|lock| lock.nonblock.is_some());
            self.scope_mut(scope, |scope| scope.locking = Some(skips));
        }
    }

    fn set_limit(&mut self, scope: ScopeId, limit: Option<&Expr>, offset: Option<&Expr>) {
        let limit = limit.map(|limit| self.operand(limit));
        let offset = offset.map(|offset| self.operand(offset));
        self.scope_mut(scope, |scope| {
            scope.limit = limit;
            scope.offset = offset;
        });
    }

    fn fetch(&mut self, scope: ScopeId, fetch: &Fetch) {
        self.unknown_if(fetch.percent, "FETCH .. PERCENT");
        let limit = match &fetch.quantity {
            Some(quantity) => self.operand(quantity),
            // FETCH FIRST ROW ONLY is one row; there is no constant to point at.
            None => Operand::Literal {
                value: Literal::Number("1".to_owned()),
                negative: false,
                cast: None,
                span: Span::default(),
                literal: Span::default(),
            },
        };
        // With ties, the amount is not the constant.
        let limit = match limit {
            Operand::Expression { .. } => limit,
            _ if !fetch.with_ties => limit,
            _ => Operand::Expression {
                columns: Vec::new(),
                shape: Shape::Other,
                aggregate: false,
                volatile: false,
                span: limit.span(),
            },
        };
        self.scope_mut(scope, |scope| scope.limit = Some(limit));
    }

    fn sort_key(&mut self, scope: ScopeId, key: &OrderByExpr) -> SortKey {
        self.unknown_if(key.with_fill.is_some(), "ORDER BY .. WITH FILL");
        let descending = match &key.options.sort {
            Some(OrderBySort::Desc) => true,
            Some(OrderBySort::Asc) | None => false,
            Some(OrderBySort::Using(_)) => {
                self.unknown("ORDER BY .. USING");
                false
            }
        };
        let value = self.output_or_input(scope, &key.expr);
        SortKey { value, descending, nulls_first: key.options.nulls_first, span: self.parsed.expr_span(&key.expr) }
    }

    /// Output names of a block, from its projection.
    pub(super) fn output_columns(&self, scope: ScopeId) -> Columns {
        let projection = &self.facts.scopes.get(scope.0)?.projection;
        let frame = self.frames.last()?;
        let mut names = Vec::with_capacity(projection.len());
        for item in projection {
            match item {
                Projection::Star(_) => {
                    let merged = frame.merged.iter().map(|merged| Some(merged.name.clone()));
                    let all = self.columns_of(&frame.visible)?;
                    let unmerged =
                        all.into_iter().filter(|name| !frame.merged.iter().any(|m| Some(&m.name) == name.as_ref()));
                    let unmerged: Vec<_> = unmerged.collect();
                    names.extend(merged.chain(unmerged));
                }
                Projection::QualifiedStar(_, relation) => names.extend(self.columns_of(&[(*relation)?])?),
                Projection::Item { alias: Some(alias), .. } => names.push(Some(alias.clone())),
                Projection::Item { value: Operand::Column(column), .. } => names.push(Some(column.name.clone())),
                Projection::Item { .. } => names.push(None),
            }
        }
        Some(names)
    }

    /// Sets what is known of a scope's output names.
    pub(super) fn set_columns(&mut self, scope: ScopeId, columns: Columns) {
        if let Some(known) = self.scope_columns.get_mut(scope.0) {
            *known = columns;
        }
    }
}

/// Columns under their alias list, which may be shorter.
pub(super) fn renamed(columns: Columns, aliases: Vec<Option<String>>) -> Columns {
    match columns {
        Some(mut columns) => {
            for (column, alias) in columns.iter_mut().zip(aliases) {
                *column = alias;
            }
            Some(columns)
        }
        // How many there are is not known: what the list names is there, anything else may be too.
        None if aliases.is_empty() => None,
        None => Some(aliases.into_iter().chain([None]).collect()),
    }
}

fn has_tail(query: &Query) -> bool {
    query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() || !query.locks.is_empty()
}
