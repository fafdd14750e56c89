//! Which column to shard a database by: candidates from foreign keys and joins, judged by the router's own planner.
//!
//! Columns that are compared with each other belong together: rows of equal values would lie on one shard. Each such group that statements
//! compare with constants is a candidate. For each, a configuration is written with the tables of the group sharded by its columns and all
//! others copied to every shard, and every template is planned under it as the proxy would.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use super::model::Statement;
use crate::config;
use crate::error::{Error, Result};
use crate::route::{self, KeyType, Route, SessionFacts, TableUse, TextBindings, Topology};
use crate::sql::catalog::{Catalog, ConstraintKind, QualifiedName, Table, TableId, TableKind};
use crate::sql::facts::{Clause, ColumnRef, Comparison, Facts, Operand, RelationSource, StatementKind};
use crate::sql::lexer::LexOptions;
use crate::sql::template::Scanner;

/// Groups that are planned for: those that most statements name.
const MOST_CANDIDATES: usize = 12;
/// A key with fewer values than this for each shard leaves shards uneven.
const FEWEST_VALUES: f64 = 100.0;
/// A table with more rows is not copied to every shard without being told of.
const LARGE: f64 = 1_000_000.0;

/// Shares of a workload, from 0 to 1: by calls, and by time where that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Share {
    /// Of all executions.
    pub calls: f64,
    /// Of their time.
    pub time: f64,
}

/// One way to shard.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its key: the column that others refer to, `customers.id`.
    pub name: String,
    /// The sharded tables with their key columns.
    pub keys: BTreeMap<QualifiedName, String>,
    /// Tables that are copied to every shard.
    pub reference: Vec<QualifiedName>,
    /// Of all rows, those of sharded tables; the rest is copied to every shard. Of all tables where no rows are known.
    pub spread: f64,
    /// Statements that one shard answers.
    pub single: Share,
    /// Statements that several shards answer together.
    pub several: Share,
    /// Writes that every shard executes.
    pub everywhere: Share,
    /// Statements that are refused.
    pub refused: Share,
    /// Why, the most frequent first.
    pub refusals: Vec<(String, Share)>,
    /// What speaks against it, and what has to be changed first.
    pub remarks: Vec<String>,
    /// `sharding` for pgweir.yaml.
    pub yaml: String,
}

impl Candidate {
    /// The higher the better: what one shard answers, of what is spread at all. Copying everything would have each shard answer
    /// everything, and gain nothing.
    fn score(&self) -> f64 {
        let of = |share: Share| share.calls + share.time;
        (of(self.single) - of(self.refused) + 0.25 * of(self.several)) * self.spread
    }
}

type Column = (TableId, String);

/// The candidates, the best first.
///
/// # Errors
/// A configuration that was made here is not taken, which is a fault of this program.
pub fn candidates(statements: &[Statement], catalog: &Catalog, shards: usize) -> Result<Vec<Candidate>> {
    let mut groups = Groups::default();
    groups.of_catalog(catalog);
    for facts in statements.iter().filter_map(|statement| statement.facts.as_ref()) {
        groups.of_statement(facts, catalog);
    }
    let named = named_by_constants(statements, catalog);
    let mut found: Vec<(f64, Vec<Column>)> = groups
        .sets(named.keys())
        .into_iter()
        .map(|columns| (columns.iter().filter_map(|column| named.get(column)).sum(), columns))
        .filter(|(weight, _)| *weight > 0.0)
        .collect();
    found.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    found.truncate(MOST_CANDIDATES);
    let mut judged: Vec<Candidate> = found
        .into_iter()
        .map(|(_, columns)| judge(&columns, &named, statements, catalog, shards))
        .collect::<Result<_>>()?;
    judged.sort_by(|one, other| other.score().total_cmp(&one.score()).then_with(|| one.name.cmp(&other.name)));
    Ok(judged)
}

/// Columns that are compared with each other.
#[derive(Debug, Default)]
struct Groups {
    parent: HashMap<Column, Column>,
}

impl Groups {
    fn root(&self, column: &Column) -> Column {
        let mut at = column;
        while let Some(next) = self.parent.get(at).filter(|next| *next != at) {
            at = next;
        }
        at.clone()
    }

    fn join(&mut self, one: Column, other: Column) {
        let (one, other) = (self.root(&one), self.root(&other));
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        self.parent.entry(first.clone()).or_insert_with(|| first.clone());
        self.parent.insert(second, first);
    }

    fn of_catalog(&mut self, catalog: &Catalog) {
        for (id, table) in catalog.tables() {
            for constraint in &table.constraints {
                let ConstraintKind::ForeignKey { table: other, columns } = &constraint.kind else { continue };
                let Some(other) = catalog.find(Some(&other.schema), &other.name) else { continue };
                let primary = || {
                    let constraints = catalog.table(other).constraints.iter();
                    constraints
                        .into_iter()
                        .find(|it| it.kind == ConstraintKind::PrimaryKey)
                        .map(|it| it.columns.clone())
                };
                let referenced = if columns.is_empty() { primary().unwrap_or_default() } else { columns.clone() };
                for (own, theirs) in constraint.columns.iter().zip(referenced) {
                    self.join((id, own.clone()), (other, theirs));
                }
            }
        }
    }

    fn of_statement(&mut self, facts: &Facts, catalog: &Catalog) {
        for predicate in facts.predicates.iter().filter(|it| it.conjunctive && it.comparison == Comparison::Eq) {
            let joins = matches!(predicate.clause, Clause::Where | Clause::InnerOn | Clause::OuterOn);
            if let (true, Operand::Column(one), Some(Operand::Column(other))) =
                (joins, &predicate.left, &predicate.right)
                && let (Some(one), Some(other)) = (stored(facts, one), stored(facts, other))
                && key_type(catalog, &one)
                    .zip(key_type(catalog, &other))
                    .is_some_and(|(one, other)| one.is_comparable_with(other))
            {
                self.join(one, other);
            }
        }
    }

    /// The sets of columns, those that are in none by themselves.
    fn sets<'a>(&'a self, also: impl Iterator<Item = &'a Column>) -> Vec<Vec<Column>> {
        let mut sets: BTreeMap<Column, BTreeSet<Column>> = BTreeMap::new();
        for column in self.parent.keys().chain(also) {
            sets.entry(self.root(column)).or_default().insert(column.clone());
        }
        sets.into_values().map(|set| set.into_iter().collect()).collect()
    }
}

fn stored(facts: &Facts, column: &ColumnRef) -> Option<Column> {
    match &facts.relations.get(column.relation?.0)?.source {
        RelationSource::Table { table: Some(id), .. } => Some((*id, column.name.clone())),
        _ => None,
    }
}

fn key_type(catalog: &Catalog, (table, name): &Column) -> Option<KeyType> {
    let table = catalog.table(*table);
    let stored = matches!(table.kind, TableKind::Table | TableKind::Partitioned);
    table.column(name).filter(|_| stored).and_then(|column| KeyType::of_column(column).ok())
}

/// How often columns that can be keys are compared with constants, or given one by INSERT.
fn named_by_constants(statements: &[Statement], catalog: &Catalog) -> HashMap<Column, f64> {
    let mut named: HashMap<Column, f64> = HashMap::new();
    for (statement, facts) in statements.iter().filter_map(|it| Some((it, it.facts.as_ref()?))) {
        let mut seen: BTreeSet<Column> = BTreeSet::new();
        for predicate in facts.predicates.iter().filter(|it| it.conjunctive) {
            let equals = matches!(predicate.comparison, Comparison::Eq | Comparison::In);
            let sides = (&predicate.left, &predicate.right);
            let column = match sides {
                (Operand::Column(column), Some(other)) | (other, Some(Operand::Column(column)))
                    if !matches!(other, Operand::Column(_)) =>
                {
                    column
                }
                _ => continue,
            };
            seen.extend(stored(facts, column).filter(|_| equals));
        }
        for column in seen.into_iter().filter(|column| key_type(catalog, column).is_some()) {
            *named.entry(column).or_default() += statement.calls;
        }
    }
    named
}

/// One key for each table of a group: the one that statements name most, then one of the primary key.
fn keys_of(columns: &[Column], named: &HashMap<Column, f64>, catalog: &Catalog) -> BTreeMap<TableId, String> {
    let mut keys: BTreeMap<TableId, (f64, bool, String)> = BTreeMap::new();
    for column @ (table, name) in columns.iter().filter(|column| key_type(catalog, column).is_some()) {
        let constraints = &catalog.table(*table).constraints;
        let primary = constraints.iter().any(|it| it.kind == ConstraintKind::PrimaryKey && it.columns.contains(name));
        let own = (named.get(column).copied().unwrap_or_default(), primary, name.clone());
        let best = keys.entry(*table).or_insert_with(|| own.clone());
        if (own.0, own.1) > (best.0, best.1) {
            *best = own;
        }
    }
    keys.into_iter().map(|(table, (_, _, name))| (table, name)).collect()
}

fn judge(
    columns: &[Column],
    named: &HashMap<Column, f64>,
    statements: &[Statement],
    catalog: &Catalog,
    shards: usize,
) -> Result<Candidate> {
    let keys = keys_of(columns, named, catalog);
    let of = |id: TableId| catalog.table(id).name.clone();
    // The one that others refer to: a table's own key.
    let own = |(table, name): &(&TableId, &String)| catalog.table(**table).is_unique_by(&[name.as_str()]);
    let head = keys.iter().find(own).or_else(|| keys.iter().next());
    let name = head.map(|(table, name)| format!("{}.{name}", shown(&of(*table)))).unwrap_or_default();
    let reference: Vec<QualifiedName> = catalog
        .tables()
        .filter(|(id, table)| !keys.contains_key(id) && matches!(table.kind, TableKind::Table | TableKind::Partitioned))
        .map(|(_, table)| table.name.clone())
        .collect();
    let by_name: BTreeMap<QualifiedName, String> = keys.iter().map(|(id, key)| (of(*id), key.clone())).collect();
    let (topology, accepted, mut remarks) = topology(&by_name, &reference, catalog, shards)?;
    let mut candidate = Candidate {
        name,
        yaml: yaml(&by_name, &reference, &accepted),
        spread: spread(&keys, catalog),
        keys: by_name,
        reference,
        single: Share::default(),
        several: Share::default(),
        everywhere: Share::default(),
        refused: Share::default(),
        refusals: Vec::new(),
        remarks: Vec::new(),
    };
    remarks.extend(of_keys(&keys, catalog, shards));
    count(
        &mut candidate,
        statements,
        &topology,
        keys.iter().next().and_then(|(id, key)| key_type(catalog, &(*id, key.clone()))),
    );
    remarks.extend(of_copies(&candidate, statements, catalog));
    candidate.remarks = remarks;
    Ok(candidate)
}

/// The share of the rows that lies in these tables.
fn spread(keys: &BTreeMap<TableId, String>, catalog: &Catalog) -> f64 {
    let known = catalog.tables().any(|(_, table)| table.rows.is_some_and(|rows| rows > 0.0));
    let tables =
        || catalog.tables().filter(|(_, table)| matches!(table.kind, TableKind::Table | TableKind::Partitioned));
    let weight = |table: &Table| if known { table.rows.unwrap_or_default().max(0.0) } else { 1.0 };
    let all: f64 = tables().map(|(_, table)| weight(table)).sum();
    let own: f64 = tables().filter(|(id, _)| keys.contains_key(id)).map(|(_, table)| weight(table)).sum();
    if all > 0.0 { own / all } else { 1.0 }
}

/// The candidate's tables as the router has them, what has to be accepted of which table, and why.
fn topology(
    keys: &BTreeMap<QualifiedName, String>,
    reference: &[QualifiedName],
    catalog: &Catalog,
    shards: usize,
) -> Result<(Topology, BTreeSet<QualifiedName>, Vec<String>)> {
    let catalog = Arc::new(catalog.clone());
    let build = |accepted: &BTreeSet<QualifiedName>| -> Result<Topology> {
        let servers: Vec<String> = (0..shards)
            .map(|shard| format!("{{name: s{shard}, primary: \"postgres://app@127.0.0.1/s{shard}\"}}"))
            .collect();
        let text = format!(
            "users: {{app: {{password: x}}}}\ndatabases:\n  it:\n    shards: [{}]\n    commit: best-effort\n{}",
            servers.join(", "),
            indented(&yaml(keys, reference, accepted))
        );
        let config = config::parse(&text, "the candidate's configuration")
            .map_err(|error| Error::internal(format!("a candidate is no configuration: {error}")))?;
        let database = config.databases.get("it").ok_or_else(|| Error::internal("a candidate has no database"))?;
        Topology::new(database, catalog.clone())
    };
    let plain = build(&BTreeSet::new())?;
    let mut accepted = BTreeSet::new();
    let mut remarks = Vec::new();
    for (name, used) in plain.tables() {
        if let TableUse::Sharded(sharded) = used
            && let Err((what, hint)) = &sharded.placed
        {
            accepted.insert(name.clone());
            remarks.push(format!("{what}: {hint}"));
        }
    }
    remarks.sort();
    Ok((build(&accepted)?, accepted, remarks))
}

fn count(candidate: &mut Candidate, statements: &[Statement], topology: &Topology, key: Option<KeyType>) {
    let (calls, time) = statements.iter().fold((0.0, 0.0), |(calls, time), it| (calls + it.calls, time + time_of(it)));
    let mut scanner = Scanner::new(LexOptions::default());
    let mut reasons: BTreeMap<String, Share> = BTreeMap::new();
    for statement in statements {
        let share =
            Share { calls: statement.calls / f64::max(calls, 1.0), time: time_of(statement) / f64::max(time, 1e-9) };
        let constants = scanner.scan(statement.sql.as_bytes()).bindings.to_vec();
        let plan = route::plan(&statement.sql, &constants, topology, SessionFacts::default());
        let parameters = values(statement, key);
        let bindings = TextBindings { sql: &statement.sql, constants: &constants, parameters: &parameters };
        let sum = match plan.bind(&bindings) {
            Ok(Route::Single(_) | Route::Any | Route::Catalog | Route::Cursor | Route::Control) => {
                &mut candidate.single
            }
            Ok(Route::Several(..) | Route::Merge(..) | Route::Collect(_) | Route::Spread(..)) => &mut candidate.several,
            Ok(Route::All | Route::Copy) => &mut candidate.everywhere,
            Err(refusal) => {
                let sum = reasons.entry(refusal.reason).or_default();
                (sum.calls, sum.time) = (sum.calls + share.calls, sum.time + share.time);
                &mut candidate.refused
            }
        };
        (sum.calls, sum.time) = (sum.calls + share.calls, sum.time + share.time);
    }
    candidate.refusals = reasons.into_iter().collect();
    candidate.refusals.sort_by(|one, other| other.1.calls.total_cmp(&one.1.calls));
}

/// Milliseconds; as many as calls where the source has none.
fn time_of(statement: &Statement) -> f64 {
    statement.total_ms.unwrap_or(statement.calls)
}

/// The values that were seen, or some of the key's type: which one it is matters less than that it is one.
fn values(statement: &Statement, key: Option<KeyType>) -> Vec<Option<String>> {
    let some = match key {
        Some(KeyType::Uuid) => "00000000-0000-0000-0000-000000000001",
        Some(KeyType::Date) => "2026-01-01",
        Some(KeyType::Timestamp) => "2026-01-01 00:00:00",
        Some(KeyType::TimestampTz) => "2026-01-01 00:00:00+00",
        _ => "1",
    };
    let wanted = statement.facts.as_ref().map_or(0, |facts| facts.parameters as usize);
    let mut values = statement.parameters.clone().unwrap_or_default();
    values.resize(wanted.max(values.len()), Some(some.to_owned()));
    values
}

fn of_keys(keys: &BTreeMap<TableId, String>, catalog: &Catalog, shards: usize) -> Vec<String> {
    let mut remarks = Vec::new();
    for (id, key) in keys {
        let table = catalog.table(*id);
        let Some(column) = table.column(key) else { continue };
        let place = format!("{}.{key}", shown(&table.name));
        if matches!(
            key_type(catalog, &(*id, key.clone())),
            Some(KeyType::Date | KeyType::Timestamp | KeyType::TimestampTz)
        ) {
            remarks.push(format!("{place} is a time: by range the newest rows are one shard's alone, by hash every report over a time asks all shards"));
        }
        let rows = table.rows.unwrap_or_default();
        let distinct = column.n_distinct.map(|distinct| if distinct < 0.0 { -distinct * rows } else { distinct });
        if let Some(distinct) = distinct.filter(|distinct| *distinct < FEWEST_VALUES * shards as f64) {
            remarks.push(format!("{place} has about {distinct:.0} values: shards would be uneven"));
        }
        if let Some(share) = column.null_fraction.filter(|share| *share > 0.0) {
            remarks.push(format!("{place} is NULL in {:.1} % of the rows, which then have no shard", share * 100.0));
        }
    }
    remarks
}

fn of_copies(candidate: &Candidate, statements: &[Statement], catalog: &Catalog) -> Vec<String> {
    let mut remarks = Vec::new();
    let all: f64 = statements.iter().map(|it| it.calls).sum();
    for name in &candidate.reference {
        let Some(id) = catalog.find(Some(&name.schema), &name.name) else { continue };
        let rows = catalog.table(id).rows.unwrap_or_default();
        if rows > LARGE {
            remarks.push(format!("{} has {rows:.0} rows, which every shard would hold", shown(name)));
        }
        let writes = |statement: &&Statement| {
            let facts = statement.facts.as_ref();
            facts.is_some_and(|facts| {
                facts.kind != StatementKind::Select && facts.relations.iter().any(|relation| {
                    relation.access == crate::sql::facts::Access::Write
                        && matches!(&relation.source, RelationSource::Table { table: Some(table), .. } if *table == id)
                })
            })
        };
        let share = statements.iter().filter(writes).map(|it| it.calls).sum::<f64>() / all.max(1.0);
        if share > 0.01 {
            remarks.push(format!(
                "{} is written by {:.0} % of the statements, each of which goes to every shard",
                shown(name),
                share * 100.0
            ));
        }
    }
    remarks
}

/// A table as the configuration names it.
fn shown(name: &QualifiedName) -> String {
    config::TableName { schema: name.schema.clone(), name: name.name.clone() }.to_string()
}

/// A name as YAML has it, whatever is in it.
fn scalar(text: &str) -> String {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.'));
    let starts = text.starts_with(|first: char| first.is_ascii_lowercase());
    if plain && starts && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn yaml(
    keys: &BTreeMap<QualifiedName, String>,
    reference: &[QualifiedName],
    accepted: &BTreeSet<QualifiedName>,
) -> String {
    let mut text = "sharding:\n  tables:\n".to_owned();
    for (name, key) in keys {
        let accept = if accepted.contains(name) { ", accept: [unique-per-shard, foreign-key-per-shard]" } else { "" };
        let _ = writeln!(text, "    {}: {{key: {}{accept}}}", scalar(&shown(name)), scalar(key));
    }
    if !reference.is_empty() {
        let names: Vec<String> = reference.iter().map(|name| scalar(&shown(name))).collect();
        let _ = writeln!(text, "  reference: [{}]", names.join(", "));
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
