//! Function calls: arguments, FILTER, OVER, WITHIN GROUP.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, NamedWindowExpr,
    OrderByExpr, WindowFrame, WindowFrameBound, WindowSpec, WindowType,
};

use super::build::Builder;
use super::functions::is_aggregate;
use super::predicates::Place;
use super::resolve::qualified;
use super::{Operand, ScopeKind, Shape, Span};

impl Builder<'_> {
    /// Walks and notes one call.
    pub(super) fn function(&mut self, function: &Function) -> Shape {
        let span = self.call_span(function);
        self.unknown_if(function.uses_odbc_syntax, "an ODBC escape");
        self.unknown_if(!matches!(function.parameters, FunctionArguments::None), "a call with two argument lists");
        let Some((schema, name)) = qualified(&function.name) else {
            self.unknown("a function name that is not understood");
            return Shape::Other;
        };
        let aggregates_before = self.aggregates;
        let mut is_ordered_or_distinct = false;
        let arguments = match &function.args {
            FunctionArguments::None => 0,
            FunctionArguments::Subquery(query) => {
                self.subquery(query, ScopeKind::Scalar);
                if name == "array" {
                    // ARRAY(SELECT ..) is syntax, no call.
                    return Shape::Function(name);
                }
                1
            }
            FunctionArguments::List(list) => {
                is_ordered_or_distinct = list.duplicate_treatment.is_some();
                for argument in &list.args {
                    self.argument(argument);
                }
                for clause in &list.clauses {
                    is_ordered_or_distinct |= matches!(clause, FunctionArgumentClause::OrderBy(_));
                    self.argument_clause(clause);
                }
                let is_star =
                    |argument: &&FunctionArg| matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Wildcard));
                list.args.iter().filter(|argument| !is_star(argument)).count()
            }
        };
        self.sort_values(&function.within_group);
        if let Some(filter) = &function.filter {
            self.condition(filter, Place::ELSEWHERE);
        }
        match &function.over {
            Some(WindowType::WindowSpec(spec)) => self.window(spec),
            Some(WindowType::NamedWindow(_)) | None => {}
        }
        let is_window = function.over.is_some();
        let counts_rows = function.filter.is_some() || !function.within_group.is_empty() || is_ordered_or_distinct;
        let scope = self.scope();
        if is_window {
            // An aggregate inside a window function's arguments is one of the block; this call itself is not.
            self.scope_mut(scope, |scope| scope.window = true);
        } else if counts_rows || is_builtin_aggregate(schema.as_deref(), &name) {
            self.aggregates = aggregates_before + 1;
            self.scope_mut(scope, |scope| scope.aggregate = true);
        }
        self.note_function(schema, &name, arguments, is_window, span);
        if name == "coalesce" { Shape::Coalesce } else { Shape::Function(name) }
    }

    /// Where a call stands.
    pub(super) fn call_span(&self, function: &Function) -> Span {
        self.parsed.function_span(function)
    }

    fn argument_clause(&mut self, clause: &FunctionArgumentClause) {
        match clause {
            FunctionArgumentClause::OrderBy(keys) => self.sort_values(keys),
            FunctionArgumentClause::JsonNullClause(_) | FunctionArgumentClause::JsonReturningClause(_) => {}
            FunctionArgumentClause::IgnoreOrRespectNulls(_)
            | FunctionArgumentClause::Where(_)
            | FunctionArgumentClause::Limit(_)
            | FunctionArgumentClause::OnOverflow(_)
            | FunctionArgumentClause::Having(_)
            | FunctionArgumentClause::Separator(_) => self.unknown("a clause in a call that PostgreSQL does not have"),
        }
    }

    /// Walks sort keys that are not a query's own ORDER BY.
    fn sort_values(&mut self, keys: &[OrderByExpr]) {
        for key in keys {
            self.unknown_if(key.with_fill.is_some(), "ORDER BY .. WITH FILL");
            self.operand(&key.expr);
        }
    }

    /// Walks a window: what it partitions and sorts by, and its frame.
    pub(super) fn window(&mut self, spec: &WindowSpec) {
        self.all(&spec.partition_by);
        self.sort_values(&spec.order_by);
        if let Some(WindowFrame { units: _, start_bound, end_bound }) = &spec.window_frame {
            for bound in [Some(start_bound), end_bound.as_ref()].into_iter().flatten() {
                match bound {
                    WindowFrameBound::CurrentRow => {}
                    WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => {
                        self.all(offset.as_deref())
                    }
                }
            }
        }
    }

    /// Walks the definition behind `WINDOW w AS`.
    pub(super) fn named_window(&mut self, window: &NamedWindowExpr) {
        match window {
            NamedWindowExpr::WindowSpec(spec) => self.window(spec),
            NamedWindowExpr::NamedWindow(_) => {}
        }
    }

    /// The operand of a call that stands as an expression.
    pub(super) fn call(&mut self, function: &Function) -> Operand {
        self.operand(&Expr::Function(function.clone()))
    }
}

fn is_builtin_aggregate(schema: Option<&str>, name: &str) -> bool {
    matches!(schema, None | Some("pg_catalog")) && is_aggregate(name)
}
