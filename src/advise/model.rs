//! The words of this room as plain data.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::sql::catalog::{Catalog, TableId, TableKind};
use crate::sql::explain::PlanNode;
use crate::sql::facts::{Facts, RelationSource};

/// One key of a possible index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The column.
    pub column: String,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST (the default under DESC).
    pub nulls_first: bool,
    /// What is indexed, when it is an expression over the column: as SQL, over the table's columns.
    pub expression: Option<String>,
    /// An operator class that is not the type's own.
    pub operator_class: Option<String>,
}

impl Key {
    /// An ascending key with the default order of nulls.
    pub fn ascending(column: impl Into<String>) -> Self {
        let (descending, nulls_first, expression, operator_class) = (false, false, None, None);
        Self { column: column.into(), descending, nulls_first, expression, operator_class }
    }

    /// The same key read backwards.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { descending: !self.descending, nulls_first: !self.nulls_first, ..self.clone() }
    }

    /// It is a column as it is, in its type's own order.
    pub fn is_plain(&self) -> bool {
        self.expression.is_none() && self.operator_class.is_none()
    }

    /// It has the column's values as they are.
    pub fn holds(&self, column: &str) -> bool {
        self.expression.is_none() && self.column == column
    }
}

/// How an index finds rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Method {
    /// By a tree of its keys.
    #[default]
    Btree,
    /// By the least and the greatest key of each range of pages: tiny, and good where rows lie in the order of the key.
    Brin,
}

impl Method {
    /// Its name in SQL.
    pub fn word(self) -> &'static str {
        match self {
            Self::Btree => "btree",
            Self::Brin => "brin",
        }
    }
}

/// A possible index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Definition {
    /// The table.
    pub table: TableId,
    /// Key columns in order.
    pub keys: Vec<Key>,
    /// INCLUDE columns, sorted.
    pub include: Vec<String>,
    /// The rows it holds, when not all: a condition as SQL, over the table's columns.
    pub predicate: Option<String>,
    /// How it finds rows.
    pub method: Method,
}

impl Definition {
    /// An index over all rows, on these keys alone.
    pub fn new(table: TableId, keys: Vec<Key>) -> Self {
        Self { table, keys, include: Vec::new(), predicate: None, method: Method::Btree }
    }

    /// A B-tree over all rows, on columns as they are.
    pub fn is_plain(&self) -> bool {
        self.method == Method::Btree && self.predicate.is_none() && self.keys.iter().all(Key::is_plain)
    }

    /// True when whatever this index answers by its keys, `wider` answers too: its keys begin with these, and it holds
    /// every INCLUDE column.
    pub fn is_covered_by(&self, wider: &Self) -> bool {
        self.table == wider.table
            && self.predicate == wider.predicate
            && self.method == wider.method
            && wider.keys.starts_with(&self.keys)
            && self
                .include
                .iter()
                .all(|column| wider.include.contains(column) || wider.keys.iter().any(|key| key.holds(column)))
    }
}

/// One template of the workload, as the advisor needs it.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The template's fingerprint, as it is shown.
    pub fingerprint: String,
    /// The template's text, for people.
    pub template: String,
    /// The statement to be costed.
    pub sql: String,
    /// Values for its `$n` in text form, when the source had them; otherwise it is planned generically.
    pub parameters: Option<Vec<Option<String>>>,
    /// How often it ran.
    pub calls: f64,
    /// Milliseconds it took in all, when the source had them.
    pub total_ms: Option<f64>,
    /// What it says; `None` when our parser does not take it (it is then costed, and proposes nothing).
    pub facts: Option<Facts>,
}

impl Statement {
    /// The tables it can touch; `None` when that is not known (a view, a name the catalog does not have, no facts).
    pub fn tables(&self, catalog: &Catalog) -> Option<BTreeSet<TableId>> {
        let facts = self.facts.as_ref().filter(|facts| facts.unknown.is_none())?;
        let mut tables = BTreeSet::new();
        for relation in &facts.relations {
            if let RelationSource::Table { table, .. } = &relation.source {
                let id = (*table)?;
                if catalog.table(id).kind == TableKind::View {
                    return None;
                }
                tables.insert(id);
            }
        }
        Some(tables)
    }
}

/// What a cost rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The catalog's shape only; the tables were never analyzed.
    Schema,
    /// Row counts and column statistics: an estimate of pgweir's own.
    Stats,
    /// PostgreSQL's planner.
    Plan,
}

impl Evidence {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Stats => "stats",
            Self::Plan => "plan",
        }
    }
}

/// One statement's cost under a set of possible indexes.
#[derive(Debug, Clone, PartialEq)]
pub struct Priced {
    /// Total cost of one call, in the planner's units.
    pub cost: f64,
    /// Which of the set the plan uses, by position, ascending.
    pub used: Vec<usize>,
    /// Names of real indexes the plan uses.
    pub existing: Vec<String>,
}

/// Why there is no cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CostFailure {
    /// This statement cannot be costed; others can.
    Statement(String),
    /// An index of the set cannot be (its position, why): a type without a B-tree operator class.
    Index(usize, String),
    /// Nothing can be costed any more.
    Fatal(Error),
}

/// Tells what statements would cost if indexes existed.
pub trait CostModel {
    /// What its costs rest on, for a statement on these tables.
    fn evidence(&self, table: TableId) -> Evidence;

    /// The cost of one call of `statement` if `set` existed besides the real indexes.
    ///
    /// # Errors
    /// See [`CostFailure`].
    fn price(&mut self, statement: &Statement, set: &[&Definition]) -> Result<Priced, CostFailure>;

    /// The plan of `statement` if `set` existed besides the real indexes, the n-th of the set under the name `#n`; `None`
    /// where there is none to show.
    fn plan(&mut self, statement: &Statement, set: &[&Definition]) -> Option<PlanNode> {
        let _ = (statement, set);
        None
    }

    /// The size in bytes the index would have.
    ///
    /// # Errors
    /// See [`CostFailure`]; a failure of the index names position 0.
    fn size(&mut self, definition: &Definition) -> Result<u64, CostFailure>;
}

/// What the user asked for, and the thresholds of a recommendation.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Bytes that all recommended indexes may take together.
    pub storage_budget_bytes: Option<u64>,
    /// An index must take at least this share off the workload's cost ..
    pub min_workload_gain: f64,
    /// .. and at least this share off the cost of the statements whose plans use it, unless it brings the workload much more.
    pub min_statement_gain: f64,
    /// The share of the workload's cost that indexes as large as all its tables together must save; smaller ones in
    /// proportion. It cuts diminishing returns where no budget does, and is not asked when there is a budget.
    pub storage_price: f64,
    /// Key columns at most.
    pub max_width: usize,
    /// Propose covering indexes (INCLUDE).
    pub covering: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            storage_budget_bytes: None,
            min_workload_gain: 0.002,
            min_statement_gain: 0.10,
            storage_price: 0.05,
            max_width: 4,
            covering: true,
        }
    }
}

/// One index to create.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// The index.
    pub definition: Definition,
    /// The name it gets.
    pub name: String,
    /// `CREATE INDEX CONCURRENTLY ..;`
    pub ddl: String,
    /// Its estimated size.
    pub size_bytes: u64,
    /// Cost (times calls) of the statements that use it, if it did not exist and all other recommendations did.
    pub cost_before: f64,
    /// The same with it.
    pub cost_after: f64,
    /// Positions of the statements whose plans use it, dearest gain first.
    pub statements: Vec<usize>,
    /// Executions of the workload that would have to maintain it: inserts into its table, and updates of its columns.
    pub writes: f64,
    /// What the costs rest on.
    pub evidence: Evidence,
    /// Why, in a sentence.
    pub why: String,
}

/// A statement left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its position.
    pub statement: usize,
    /// Why it could not be costed.
    pub reason: String,
}

/// The advisor's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// Cost of one call of each statement today; `None` when it could not be costed.
    pub before: Vec<Option<f64>>,
    /// The same with all recommendations in place.
    pub after: Vec<Option<f64>>,
    /// Cost of the workload today: cost of a call times calls, summed.
    pub cost_before: f64,
    /// The same with all recommendations in place.
    pub cost_after: f64,
    /// What to create, largest gain first.
    pub recommendations: Vec<Recommendation>,
    /// Statements without a cost.
    pub skipped: Vec<Skipped>,
    /// How many possible indexes were looked at.
    pub candidates: usize,
    /// How many costs were asked for.
    pub priced: usize,
    /// True when it was told to stop before it had looked at everything.
    pub cut_short: bool,
    /// The recommendations in the order in which to create them: each brings the most for its size with those before it.
    pub order: Vec<Step>,
    /// How the statements that are helped most are planned today and then.
    pub plans: Vec<Plans>,
}

/// One more index on the way to all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its position among the recommendations.
    pub recommendation: usize,
    /// Bytes of this and all before it.
    pub bytes: u64,
    /// Cost of the workload with this and all before it.
    pub cost: f64,
}

/// A statement's plans.
#[derive(Debug, Clone, PartialEq)]
pub struct Plans {
    /// Its position.
    pub statement: usize,
    /// Today.
    pub before: PlanNode,
    /// With all recommendations in place, under their names.
    pub after: PlanNode,
}
