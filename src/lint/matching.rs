//! `match:`: what can be said of a statement in data. All conditions that are given must hold.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::evidence::Evidence;
use super::pattern::{Fit, Pattern};
use super::subject::{Hit, Subject};
use crate::sql::facts::{Clause, Comparison, Literal, Operand, Predicate, Shape, Span, StatementKind};

/// Conditions over one statement.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// What the finding says; `{}` stands for the text found.
    pub message: String,
    /// SQL with holes that stands somewhere in the statement; one of these.
    #[serde(default, deserialize_with = "one_or_more")]
    pub sql: Vec<Pattern>,
    /// SQL with holes that stands nowhere in it.
    #[serde(default, deserialize_with = "one_or_more")]
    pub without: Vec<Pattern>,
    /// The statement is one of these.
    #[serde(default)]
    pub statement: Vec<Kind>,
    /// Its own WHERE is there, or is not.
    #[serde(default, rename = "where")]
    pub where_clause: Option<Presence>,
    /// INSERT's column list is there, or is not.
    #[serde(default)]
    pub insert_columns: Option<Presence>,
    /// One of its conditions is like this.
    #[serde(default)]
    pub predicate: Option<PredicateMatch>,
    /// A sort key calls one of these functions.
    #[serde(default)]
    pub order_by_function: Vec<String>,
    /// One of these functions is called.
    #[serde(default)]
    pub function: Vec<String>,
    /// A set operation of this name: `UNION`, `UNION ALL`, ...
    #[serde(default)]
    pub set_operation: Option<String>,
}

/// A statement's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// SELECT.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// TRUNCATE.
    Truncate,
    /// CREATE, ALTER, DROP, ...
    Ddl,
}

/// Whether a part of a statement is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is there.
    Present,
    /// It is not.
    Absent,
}

/// Conditions over one predicate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredicateMatch {
    /// It compares by one of these: `=`, `<>`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `between`, `like`, `ilike`, `regex`, ...
    #[serde(default)]
    pub comparison: Vec<String>,
    /// One side is one of these.
    #[serde(default)]
    pub side: Vec<Side>,
    /// The other side is one of these.
    #[serde(default)]
    pub other: Vec<Side>,
    /// Only AND stands above it.
    #[serde(default)]
    pub conjunctive: Option<bool>,
    /// It stands in one of these clauses: `where`, `on`, `having`.
    #[serde(default)]
    pub clause: Vec<String>,
}

/// What a side of a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// A plain column.
    Column,
    /// A literal.
    Literal,
    /// NULL.
    Null,
    /// `$n`.
    Parameter,
    /// A subquery.
    Subquery,
    /// A function call over a column.
    Function,
    /// Arithmetic over a column.
    Arithmetic,
    /// A cast of a column.
    Cast,
    /// COALESCE over a column.
    Coalesce,
}

impl Match {
    /// Where the statement fits, if it does.
    pub(super) fn hits(&self, subject: &Subject<'_>) -> Vec<Hit> {
        let facts = subject.facts;
        let kinds = &self.statement;
        if !kinds.is_empty() && !kinds.iter().any(|kind| kind.is(facts.kind)) {
            return Vec::new();
        }
        let has_where = facts.scopes.first().is_some_and(|scope| scope.has_where);
        if self.where_clause.is_some_and(|wanted| (wanted == Presence::Present) != has_where) {
            return Vec::new();
        }
        if let Some(wanted) = self.insert_columns {
            let Some(insert) = &facts.insert else { return Vec::new() };
            if insert.default_values || (wanted == Presence::Present) != insert.columns.is_some() {
                return Vec::new();
            }
        }
        if self.without.iter().any(|pattern| !pattern.fits(subject.sql).is_empty()) {
            return Vec::new();
        }
        let mut spans: Option<Vec<Span>> = None;
        let mut missing = false;
        let mut narrow = |found: Vec<Span>| {
            missing |= found.is_empty();
            spans = Some(found);
        };
        if let Some(wanted) = &self.predicate {
            narrow(facts.predicates.iter().filter(|predicate| wanted.fits(predicate)).map(|it| it.span).collect());
        }
        if !self.order_by_function.is_empty() {
            let keys = facts.scopes.iter().flat_map(|scope| &scope.order_by);
            let called = |operand: &Operand| match operand {
                Operand::Expression { shape: Shape::Function(name), .. } => self.order_by_function.contains(name),
                _ => false,
            };
            narrow(keys.filter(|key| called(&key.value)).map(|key| key.span).collect());
        }
        if !self.function.is_empty() {
            let called = facts.functions.iter().filter(|call| self.function.contains(&call.name));
            narrow(called.map(|call| call.span).collect());
        }
        if let Some(wanted) = &self.set_operation {
            let named = |(name, all, _): &&(String, bool, Span)| {
                let full = if *all { format!("{name} ALL") } else { name.clone() };
                full.eq_ignore_ascii_case(wanted)
            };
            narrow(facts.set_operations.iter().filter(named).map(|(_, _, span)| *span).collect());
        }
        let fits: Vec<Fit<'_>> = self.sql.iter().flat_map(|pattern| pattern.fits(subject.sql)).collect();
        if missing || fits.is_empty() && !self.sql.is_empty() {
            return Vec::new();
        }
        if !fits.is_empty() {
            let hit = |fit: &Fit<'_>| Hit::new(fit.span, self.said_of(fit, subject)).by(Evidence::Syntax);
            return fits.iter().map(hit).collect();
        }
        let whole = || vec![target_span(subject)];
        let hit = |span: Span| Hit::new(span, self.message.replace("{}", subject.text(span))).by(Evidence::Syntax);
        spans.unwrap_or_else(whole).into_iter().map(hit).collect()
    }
}

impl Match {
    /// The message, with the text of the holes.
    fn said_of(&self, fit: &Fit<'_>, subject: &Subject<'_>) -> String {
        let message = self.message.replace("{}", subject.text(fit.span));
        let fill = |message: String, (name, span): &(&str, Span)| {
            message.replace(&format!("{{${name}}}"), subject.text(*span))
        };
        fit.holes.iter().fold(message, fill)
    }

    /// Whether it looks at the values of constants.
    pub(super) fn reads_constants(&self) -> bool {
        self.sql.iter().chain(&self.without).any(Pattern::reads_constants)
    }
}

/// A pattern, or a list of them.
fn one_or_more<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<Pattern>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        One(String),
        More(Vec<String>),
    }
    let texts = match Given::deserialize(from)? {
        Given::One(text) => vec![text],
        Given::More(texts) => texts,
    };
    texts.into_iter().map(|text| Pattern::try_from(text).map_err(D::Error::custom)).collect()
}

/// The statement's command and target: what a finding about the whole statement points at.
pub(super) fn target_span(subject: &Subject<'_>) -> Span {
    let text = subject.sql;
    let start = text.len() - text.trim_start().len();
    let target = subject.facts.relations.iter().find(|relation| relation.access == crate::sql::facts::Access::Write);
    let end = match target {
        Some(relation) => relation.span.end as usize,
        None => text.trim_end().trim_end_matches(';').len(),
    };
    let to_offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { start: to_offset(start), end: to_offset(end.max(start)) }
}

impl Kind {
    fn is(self, kind: StatementKind) -> bool {
        matches!(
            (self, kind),
            (Self::Select, StatementKind::Select)
                | (Self::Insert, StatementKind::Insert)
                | (Self::Update, StatementKind::Update)
                | (Self::Delete, StatementKind::Delete)
                | (Self::Merge, StatementKind::Merge)
                | (Self::Truncate, StatementKind::Truncate)
                | (Self::Ddl, StatementKind::Ddl)
        )
    }
}

impl PredicateMatch {
    fn fits(&self, predicate: &Predicate) -> bool {
        let word = comparison_word(&predicate.comparison);
        let clause = match predicate.clause {
            Clause::Where => "where",
            Clause::InnerOn | Clause::OuterOn => "on",
            Clause::Having => "having",
            Clause::Elsewhere => "elsewhere",
        };
        let is = |wanted: &[Side], operand: Option<&Operand>| {
            wanted.is_empty() || operand.is_some_and(|operand| wanted.iter().any(|side| side.is(operand)))
        };
        let (left, right) = (Some(&predicate.left), predicate.right.as_ref());
        (self.comparison.is_empty() || self.comparison.iter().any(|wanted| wanted == word))
            && (self.clause.is_empty() || self.clause.iter().any(|wanted| wanted == clause))
            && self.conjunctive.is_none_or(|wanted| wanted == predicate.conjunctive)
            && ((is(&self.side, left) && is(&self.other, right)) || (is(&self.side, right) && is(&self.other, left)))
    }
}

impl Side {
    fn is(self, operand: &Operand) -> bool {
        let shaped = |fits: fn(&Shape) -> bool| match operand {
            Operand::Expression { shape, columns, .. } => fits(shape) && !columns.is_empty(),
            _ => false,
        };
        match self {
            Self::Column => operand.column().is_some(),
            Self::Literal => matches!(operand, Operand::Literal { .. }),
            Self::Null => matches!(operand, Operand::Literal { value: Literal::Null, .. }),
            Self::Parameter => matches!(operand, Operand::Parameter { .. }),
            Self::Subquery => matches!(operand, Operand::Subquery(..)),
            Self::Function => shaped(|shape| matches!(shape, Shape::Function(_))),
            Self::Arithmetic => shaped(|shape| matches!(shape, Shape::Arithmetic(_))),
            Self::Cast => shaped(|shape| matches!(shape, Shape::Cast(_))),
            Self::Coalesce => shaped(|shape| matches!(shape, Shape::Coalesce)),
        }
    }
}

/// A comparison as the rules' language writes it.
fn comparison_word(comparison: &Comparison) -> &str {
    match comparison {
        Comparison::Eq => "=",
        Comparison::Ne => "<>",
        Comparison::Lt => "<",
        Comparison::Le => "<=",
        Comparison::Gt => ">",
        Comparison::Ge => ">=",
        Comparison::In => "in",
        Comparison::NotIn => "not in",
        Comparison::Between => "between",
        Comparison::NotBetween => "not between",
        Comparison::Like => "like",
        Comparison::NotLike => "not like",
        Comparison::ILike => "ilike",
        Comparison::NotILike => "not ilike",
        Comparison::Regex => "regex",
        Comparison::NotRegex => "not regex",
        Comparison::IsNull => "is null",
        Comparison::IsNotNull => "is not null",
        Comparison::Distinct { negated: false } => "is distinct from",
        Comparison::Distinct { negated: true } => "is not distinct from",
        Comparison::Exists { negated: false } => "exists",
        Comparison::Exists { negated: true } => "not exists",
        Comparison::Truth => "truth",
        Comparison::Operator(operator) => operator,
    }
}
