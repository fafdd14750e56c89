//! The builder that walks a tree and fills [`Facts`]: its state, and scopes.

use super::resolve::{Columns, Frame};
use super::{ColumnRef, Facts, Relation, RelationId, Scope, ScopeId, ScopeKind, Span, StatementKind};
use crate::sql::catalog::Catalog;
use crate::sql::parse::{Parsed, TokenClass};

/// How deep expressions and queries may nest; what lies deeper is reported as unknown.
const DEEPEST: u32 = 120;

/// Facts of a parsed statement, names resolved against a catalog (an empty one is fine).
///
/// ORDER BY and GROUP BY of an output name give the projected value behind it, as PostgreSQL reads them; a position stays an
/// integer constant. Columns of `JOIN .. USING` named without a qualifier belong to the side whose value they show.
/// A row reference (`SELECT t FROM t`) is a column named `*`.
pub fn facts(parsed: &Parsed, catalog: &Catalog) -> Facts {
    let mut builder = Builder::new(parsed, catalog);
    let scope = builder.new_scope(None, ScopeKind::Statement, parsed.statement_span());
    builder.statement(scope, &parsed.ast);
    if let Some(reason) = parsed.unknown {
        builder.unknown(reason);
    }
    builder.facts
}

/// The names that a view's query puts out (CREATE VIEW without a column list); `None` when one is not known.
pub(crate) fn view_columns(parsed: &Parsed, catalog: &Catalog) -> Option<Vec<String>> {
    let mut builder = Builder::new(parsed, catalog);
    let scope = builder.new_scope(None, ScopeKind::Statement, parsed.statement_span());
    builder.statement(scope, &parsed.ast);
    // The view's query is the first block under the statement's own.
    builder.scope_columns.into_iter().nth(1)??.into_iter().collect()
}

/// A common table expression that is visible where the walk stands.
pub(super) struct CteName {
    pub(super) name: String,
    pub(super) scope: ScopeId,
}

/// The state of one walk.
pub(super) struct Builder<'a> {
    pub(super) parsed: &'a Parsed,
    pub(super) catalog: &'a Catalog,
    pub(super) facts: Facts,
    /// Query blocks around the place where the walk stands, the innermost last.
    pub(super) frames: Vec<Frame>,
    /// Visible common table expressions, the innermost last.
    pub(super) ctes: Vec<CteName>,
    /// What is known of each relation's column names, beside `facts.relations`.
    pub(super) relation_columns: Vec<Columns>,
    /// What is known of each scope's output names, beside `facts.scopes`.
    pub(super) scope_columns: Vec<Columns>,
    /// Every column reference met so far; an expression takes those met since it began.
    pub(super) mentioned: Vec<ColumnRef>,
    /// Aggregate calls met so far.
    pub(super) aggregates: u32,
    /// Volatile calls met so far.
    pub(super) volatiles: u32,
    /// The last OR's number.
    pub(super) disjunctions: u32,
    depth: u32,
}

impl<'a> Builder<'a> {
    fn new(parsed: &'a Parsed, catalog: &'a Catalog) -> Self {
        let facts = Facts {
            kind: StatementKind::Other,
            command: String::new(),
            scopes: Vec::new(),
            relations: Vec::new(),
            predicates: Vec::new(),
            assignments: Vec::new(),
            other_inserts: Vec::new(),
            insert: None,
            copy: None,
            functions: Vec::new(),
            parameters: highest_parameter(parsed),
            set_operations: Vec::new(),
            returning: false,
            writes_in_cte: false,
            unknown: None,
        };
        Self {
            parsed,
            catalog,
            facts,
            frames: Vec::new(),
            ctes: Vec::new(),
            relation_columns: Vec::new(),
            scope_columns: Vec::new(),
            mentioned: Vec::new(),
            aggregates: 0,
            volatiles: 0,
            disjunctions: 0,
            depth: 0,
        }
    }

    /// Notes that something was not understood; the first reason stays.
    pub(super) fn unknown(&mut self, reason: impl Into<String>) {
        if self.facts.unknown.is_none() {
            self.facts.unknown = Some(reason.into());
        }
    }

    /// Notes `reason` when a construct is there that PostgreSQL does not have or this room does not read.
    pub(super) fn unknown_if(&mut self, present: bool, reason: &str) {
        if present {
            self.unknown(reason);
        }
    }

    /// Runs `walk` one level deeper, or notes that the statement nests too deeply and answers `None`.
    pub(super) fn deeper<T>(&mut self, walk: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.depth >= DEEPEST {
            self.unknown("the statement is nested too deeply");
            return None;
        }
        self.depth += 1;
        let result = walk(self);
        self.depth -= 1;
        Some(result)
    }

    /// A new, empty query block.
    pub(super) fn new_scope(&mut self, parent: Option<ScopeId>, kind: ScopeKind, span: Span) -> ScopeId {
        let id = ScopeId(self.facts.scopes.len());
        self.facts.scopes.push(Scope {
            parent,
            kind,
            span,
            distinct: false,
            distinct_on: false,
            projection: Vec::new(),
            group_by: Vec::new(),
            grouping_sets: false,
            having: false,
            aggregate: false,
            window: false,
            order_by: Vec::new(),
            limit: None,
            offset: None,
            locking: None,
            has_where: false,
        });
        self.scope_columns.push(None);
        id
    }

    /// Changes a scope.
    pub(super) fn scope_mut(&mut self, id: ScopeId, change: impl FnOnce(&mut Scope)) {
        if let Some(scope) = self.facts.scopes.get_mut(id.0) {
            change(scope);
        }
    }

    /// Adds a relation occurrence and makes its columns visible in the innermost frame.
    pub(super) fn add_relation(&mut self, relation: Relation, columns: Columns) -> RelationId {
        let id = RelationId(self.facts.relations.len());
        self.facts.relations.push(relation);
        self.relation_columns.push(columns);
        if let Some(frame) = self.frames.last_mut() {
            frame.visible.push(id);
        }
        id
    }

    /// The innermost query block; the statement's own before any was entered.
    pub(super) fn scope(&self) -> ScopeId {
        self.frames.last().map_or(ScopeId(0), |frame| frame.scope)
    }

    /// Enters a query block.
    pub(super) fn enter(&mut self, scope: ScopeId) {
        self.frames.push(Frame { scope, visible: Vec::new(), merged: Vec::new(), hidden: false });
    }

    /// Leaves the innermost query block.
    pub(super) fn leave(&mut self) {
        self.frames.pop();
    }
}

/// The highest `$n` in the text.
fn highest_parameter(parsed: &Parsed) -> u32 {
    (0..parsed.tokens.len())
        .filter(|index| parsed.tokens.class(*index) == Some(TokenClass::Parameter))
        .filter_map(|index| parsed.tokens.text(index, &parsed.text).trim_start_matches('$').parse().ok())
        .max()
        .unwrap_or(0)
}
