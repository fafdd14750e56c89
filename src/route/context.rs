//! What the rules look at: the statement's facts, and how each table in it lies on the shards.

use std::sync::Arc;

use super::constant::Surroundings;
use super::functions::{Steadiness, steadiness};
use super::placement::ShardId;
use super::plan::{Action, Refusal, Route, TemplatePlan};
use super::topology::{Sharded, TableUse, Topology};
use crate::sql::catalog::Column;
use crate::sql::facts::{Access, Facts, FunctionCall, Relation, RelationId, RelationSource, Span, StatementKind};

/// Types whose values are the same bytes on every server; others may be of users, and hold numbers of types in binary form.
const KNOWN_TYPES: &[&str] = &[
    "bigint",
    "bit",
    "bit varying",
    "boolean",
    "box",
    "bytea",
    "character",
    "character varying",
    "cidr",
    "circle",
    "date",
    "double precision",
    "inet",
    "integer",
    "interval",
    "json",
    "jsonb",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "money",
    "name",
    "numeric",
    "path",
    "point",
    "polygon",
    "real",
    "smallint",
    "text",
    "time",
    "timestamp",
    "tsquery",
    "tsvector",
    "uuid",
    "xml",
];

/// What one occurrence of a relation is to the router.
#[derive(Debug, Clone)]
pub(super) enum Use {
    /// No table: a CTE's reference, a subquery, VALUES, a function. What it reads stands in a scope of its own.
    Nothing,
    /// Rows by key.
    Sharded(Arc<Sharded>),
    /// The same rows on each shard.
    Reference,
    /// Rows on one shard only.
    Local(ShardId),
    /// A system catalog.
    System,
    /// A table that the configuration does not name.
    Unlisted,
}

/// How sure the facts are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// They come from a tree; without one they are little more than the command.
    pub is_parsed: bool,
    /// The session's search_path is the one that the catalog was read with.
    pub default_path: bool,
}

/// A statement before a rule has decided.
pub(super) struct Context<'a> {
    pub facts: &'a Facts,
    pub topology: &'a Topology,
    pub around: Surroundings<'a>,
    pub reading: Reading,
    /// For each relation of the facts.
    pub uses: Vec<Use>,
}

impl<'a> Context<'a> {
    pub fn new(facts: &'a Facts, topology: &'a Topology, around: Surroundings<'a>, reading: Reading) -> Self {
        let uses = facts.relations.iter().map(|relation| use_of(relation, topology)).collect();
        Self { facts, topology, around, reading, uses }
    }

    /// Relations with what they are.
    pub fn relations(&self) -> impl Iterator<Item = (RelationId, &Relation, &Use)> {
        self.facts
            .relations
            .iter()
            .zip(&self.uses)
            .enumerate()
            .map(|(id, (relation, used))| (RelationId(id), relation, used))
    }

    /// The one relation that the statement writes.
    pub fn target(&self) -> Option<(RelationId, &Relation, &Use)> {
        let mut written = self.relations().filter(|(_, relation, _)| relation.access == Access::Write);
        match (written.next(), written.next()) {
            (Some(target), None) => Some(target),
            _ => None,
        }
    }

    /// It may change rows or definitions.
    pub fn writes(&self) -> bool {
        !matches!(self.facts.kind, StatementKind::Select | StatementKind::Explain | StatementKind::CopyTo)
            || self.facts.relations.iter().any(|relation| relation.access == Access::Write)
    }

    /// Whether a call can only be of PostgreSQL's own function of that name: no user has made one for other types.
    pub fn is_built_in(&self, call: &FunctionCall) -> bool {
        match call.schema.as_deref() {
            Some(schema) => schema == "pg_catalog",
            None => !self.topology.catalog.functions.contains_key(&call.name),
        }
    }

    /// How a call's result depends on where and when it is called; `None` where nothing is known of it.
    pub fn steadiness(&self, call: &FunctionCall) -> Option<Steadiness> {
        let built_in = steadiness(call.schema.as_deref(), &call.name);
        let by_users = match call.schema.as_deref() {
            Some("pg_catalog") => None,
            _ => self.topology.catalog.functions.get(&call.name),
        };
        match (by_users, call.schema.as_deref()) {
            // A function of users may have the name of one that is built in, for other types.
            (Some(true), None) => built_in.or(Some(Steadiness::Immutable)),
            (Some(true), Some(_)) => Some(Steadiness::Immutable),
            (Some(false), _) => None,
            (None, _) => built_in,
        }
    }

    /// Names of the reference tables in it, each once.
    pub fn references(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .relations()
            .filter(|(_, _, used)| matches!(used, Use::Reference))
            .map(|(_, relation, _)| table_name(relation))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether a table in it has columns of types that users have made, as far as that is known.
    pub fn has_types_of_users(&self) -> bool {
        self.columns().any(|column| !is_known(column))
    }

    /// Whether values of its tables may hold numbers of types in binary form: arrays, rows and ranges of users' types.
    pub fn holds_numbers(&self) -> bool {
        self.columns().any(|column| !is_known(column) && !self.topology.catalog.enums.contains(&column.type_name))
    }

    /// The columns of its tables.
    fn columns(&self) -> impl Iterator<Item = &Column> {
        self.facts.relations.iter().flat_map(|relation| match &relation.source {
            RelationSource::Table { table: Some(table), .. } => self.topology.catalog.table(*table).columns.as_slice(),
            _ => &[],
        })
    }

    /// A plan whose route does not depend on constants.
    pub fn fixed(&self, rule: &'static str, route: Route) -> TemplatePlan {
        self.plan(rule, Action::Fixed(route))
    }

    pub fn plan(&self, rule: &'static str, action: Action) -> TemplatePlan {
        TemplatePlan {
            rule,
            writes: self.writes(),
            holds_numbers: self.holds_numbers(),
            action,
            references: self.references(),
            shards: self.topology.shards.clone(),
        }
    }

    pub fn refuse(
        &self,
        rule: &'static str,
        span: Option<Span>,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> TemplatePlan {
        let span = span.filter(|span| span.end > span.start);
        self.plan(rule, Action::Refuse(Refusal { rule, reason: reason.into(), hint: hint.into(), span }))
    }
}

fn is_known(column: &Column) -> bool {
    let kind = column.type_name.trim_end_matches("[]");
    let base = kind.split('(').next().unwrap_or(kind).trim_end();
    KNOWN_TYPES.contains(&base) || ["time ", "timestamp ", "interval "].iter().any(|start| kind.starts_with(start))
}

/// How messages call a table: as it was written.
pub(super) fn table_name(relation: &Relation) -> String {
    match &relation.source {
        RelationSource::Table { schema: Some(schema), name, .. } => format!("{schema}.{name}"),
        RelationSource::Table { name, .. } => name.clone(),
        _ => relation.alias.clone().unwrap_or_default(),
    }
}

fn use_of(relation: &Relation, topology: &Topology) -> Use {
    let RelationSource::Table { schema, name, table } = &relation.source else { return Use::Nothing };
    // pg_catalog is searched before everything else.
    let is_system = match schema.as_deref() {
        Some(schema) => matches!(schema, "pg_catalog" | "information_schema"),
        None => name.starts_with("pg_"),
    };
    if is_system {
        return Use::System;
    }
    let name = match table {
        Some(id) => topology.catalog.table(*id).name.clone(),
        // Not there yet, or to be created: the first schema of the path is where it would be.
        None => crate::sql::catalog::QualifiedName {
            schema: schema.clone().or_else(|| topology.catalog.search_path.first().cloned()).unwrap_or_default(),
            name: name.clone(),
        },
    };
    match topology.tables.get(&name) {
        Some(TableUse::Sharded(sharded)) => Use::Sharded(sharded.clone()),
        Some(TableUse::Reference) => Use::Reference,
        Some(TableUse::Local(shard)) => Use::Local(*shard),
        None => Use::Unlisted,
    }
}
