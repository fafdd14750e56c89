//! One statement under examination: its facts, the catalog, the planner, what the log shows.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Evidence, PlanEvidence};
use crate::error::Result;
use crate::route::{self, Refusal, SessionFacts, TextBindings, Topology};
use crate::sql::catalog::{Catalog, CatalogSource, Column, Index, Table};
use crate::sql::explain::PlanNode;
use crate::sql::facts::{
    ColumnRef, Comparison, Facts, Operand, Predicate, Relation, RelationId, RelationSource, ScopeId, Span,
};
use crate::sql::lexer::LexOptions;
use crate::sql::template::Scanner;
use crate::workload::Template;

/// One match of a rule in a statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// What to point at.
    pub span: Span,
    /// What was found, in one sentence without a full stop.
    pub message: String,
    /// What stands behind it.
    pub evidence: Evidence,
    /// What to write instead, where that can be said better than the rule does.
    pub suggestion: Option<String>,
    /// A part of the message that quotes a value which the statement itself does not hold.
    pub quoted: Option<String>,
}

impl Hit {
    /// A hit that the text alone shows.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), evidence: Evidence::Syntax, suggestion: None, quoted: None }
    }

    /// With better evidence than the text.
    #[must_use]
    pub fn by(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// With a part of the message that a redacted report must not show.
    #[must_use]
    pub fn quoting(mut self, part: String) -> Self {
        self.quoted = Some(part);
        self
    }

    /// With a suggestion of its own.
    #[must_use]
    pub fn instead(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

/// How tables lie on shards, as a configuration says.
#[derive(Debug, Default)]
pub struct Sharding {
    /// The key column of each sharded table.
    pub keys: BTreeMap<String, String>,
    /// Tables with a copy on every shard.
    pub reference: BTreeSet<String>,
    /// The router's view, which needs the catalog.
    pub topology: Option<Topology>,
}

/// What the router makes of a statement.
#[derive(Debug)]
pub struct Routed {
    /// Its rows are collected on one shard.
    pub collects: bool,
    /// Why the proxy refuses it, if it does.
    pub refusal: Option<Refusal>,
}

/// The planner, asked at most once a statement.
#[derive(Default)]
pub struct Planner<'a> {
    evidence: Option<RefCell<&'a mut dyn PlanEvidence>>,
}

impl<'a> Planner<'a> {
    /// A planner to ask.
    pub fn new(evidence: &'a mut dyn PlanEvidence) -> Self {
        Self { evidence: Some(RefCell::new(evidence)) }
    }

    /// The plan of a statement; `None` when there is no server to ask.
    pub fn ask(&self, statement: &str, parameters: u32) -> Option<Result<PlanNode>> {
        let mut evidence = self.evidence.as_ref()?.try_borrow_mut().ok()?;
        Some(evidence.explain(statement, parameters))
    }
}

/// Asks a planner; see [`Planner::ask`].
pub type Ask<'a> = &'a dyn Fn(&str, u32) -> Option<Result<PlanNode>>;

/// A statement, seen by a check.
pub struct Subject<'a> {
    /// Its text.
    pub sql: &'a str,
    /// What it says.
    pub facts: &'a Facts,
    /// What is known of the database; empty when nothing is.
    pub catalog: &'a Catalog,
    /// What the log shows.
    pub template: &'a Template,
    /// How tables lie on shards; empty when nothing says.
    pub sharding: &'a Sharding,
    ask: Ask<'a>,
    plan: OnceCell<Option<Result<PlanNode>>>,
}

impl<'a> Subject<'a> {
    /// A statement to look at.
    pub fn new(
        facts: &'a Facts,
        catalog: &'a Catalog,
        template: &'a Template,
        sharding: &'a Sharding,
        ask: Ask<'a>,
    ) -> Self {
        Self { sql: &template.example, facts, catalog, template, sharding, ask, plan: OnceCell::new() }
    }

    /// What the router makes of the statement, when the shards and the catalog are known.
    pub fn routed(&self) -> Option<Routed> {
        let topology = self.sharding.topology.as_ref()?;
        let mut scanner = Scanner::new(LexOptions::default());
        let constants = scanner.scan(self.sql.as_bytes()).bindings.to_vec();
        let plan = route::plan(self.sql, &constants, topology, SessionFacts::default());
        let bindings = TextBindings { sql: self.sql, constants: &constants, parameters: &[] };
        // What depends on a parameter cannot be told from the template.
        let bound = if self.facts.parameters == 0 { plan.bind(&bindings).err() } else { None };
        let refusal = plan.refusal().cloned().or(bound);
        Some(Routed { collects: plan.collect().is_some(), refusal })
    }

    /// PostgreSQL's plan: the one that a server gives now, or else the one in the log.
    pub fn plan(&self) -> Option<&PlanNode> {
        let asked = self.asked().and_then(|answer| answer.as_ref().ok());
        asked.or(self.template.plan.as_deref())
    }

    /// Why there is no plan, when a server was asked.
    pub fn plan_failure(&self) -> Option<String> {
        self.plan.get()?.as_ref()?.as_ref().err().map(|error| error.what.clone())
    }

    fn asked(&self) -> Option<&Result<PlanNode>> {
        let ask = || (self.ask)(self.sql, self.facts.parameters);
        self.plan.get_or_init(ask).as_ref()
    }

    /// A catalog is at hand.
    pub fn knows_schema(&self) -> bool {
        self.catalog.source != CatalogSource::None && !self.catalog.is_empty()
    }

    /// A relation occurrence by its id.
    pub fn relation(&self, id: RelationId) -> Option<&'a Relation> {
        self.facts.relations.get(id.0)
    }

    /// The table that a relation occurrence names, when the catalog knows it.
    pub fn table(&self, id: RelationId) -> Option<&'a Table> {
        table_of(self.relation(id)?, self.catalog)
    }

    /// The table and the column that a reference means, when the catalog knows them.
    pub fn column(&self, reference: &ColumnRef) -> Option<(&'a Table, &'a Column)> {
        let table = self.table(reference.relation?)?;
        Some((table, table.column(&reference.name)?))
    }

    /// The text of a span.
    pub fn text(&self, span: Span) -> &'a str {
        span.of(self.sql)
    }

    /// Relation occurrences of one scope, with their ids.
    pub fn relations_of(&self, scope: ScopeId) -> impl Iterator<Item = (RelationId, &'a Relation)> {
        let with_ids = self.facts.relations.iter().enumerate().map(|(at, relation)| (RelationId(at), relation));
        with_ids.filter(move |(_, relation)| relation.scope == scope)
    }

    /// Predicates of one scope.
    pub fn predicates_of(&self, scope: ScopeId) -> impl Iterator<Item = &'a Predicate> {
        self.facts.predicates.iter().filter(move |predicate| predicate.scope == scope)
    }

    /// Columns of a relation occurrence that conjunctive equalities fix to a constant (or to one value per outer row).
    pub fn fixed_columns(&self, relation: RelationId) -> Vec<&'a str> {
        let fixes = |predicate: &&Predicate| predicate.conjunctive && predicate.comparison == Comparison::Eq;
        let of = |operand: &'a Operand| operand.column().filter(|column| column.relation == Some(relation));
        let scope = self.relation(relation).map(|relation| relation.scope);
        let outside = |operand: &Operand| match operand {
            Operand::Column(column) => {
                column.relation.and_then(|id| self.relation(id)).is_some_and(|other| Some(other.scope) != scope)
            }
            other => other.is_constant(),
        };
        let mut columns = Vec::new();
        for predicate in self.facts.predicates.iter().filter(fixes).filter(|it| Some(it.scope) == scope) {
            let Some(right) = &predicate.right else { continue };
            for (column, value) in [(of(&predicate.left), right), (of(right), &predicate.left)] {
                if let Some(column) = column.filter(|_| outside(value)) {
                    columns.push(column.name.as_str());
                }
            }
        }
        columns
    }

    /// True when the catalog proves that a relation occurrence contributes at most one row.
    pub fn at_most_one_row(&self, relation: RelationId) -> bool {
        self.table(relation).is_some_and(|table| table.is_unique_by(&self.fixed_columns(relation)))
    }
}

/// The table a relation occurrence names, when the catalog knows it.
pub fn table_of<'a>(relation: &Relation, catalog: &'a Catalog) -> Option<&'a Table> {
    match &relation.source {
        RelationSource::Table { table: Some(id), .. } => Some(catalog.table(*id)),
        _ => None,
    }
}

/// An index that queries may use in full.
pub fn usable(index: &Index) -> bool {
    index.valid
}

/// Without blanks, quotes, casts to text and outer parentheses, in lower case: two expressions that look the same are the same.
pub fn normal_expression(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut plain: String = lower.chars().filter(|letter| !letter.is_whitespace() && *letter != '"').collect();
    for cast in ["::text", "::charactervarying", "::bpchar"] {
        plain = plain.replace(cast, "");
    }
    plain.chars().filter(|letter| *letter != '(' && *letter != ')').collect()
}
