//! Whether rows lie where they belong, as questions that PostgreSQL itself answers.

use super::collect::quoted;
use super::hash;
use super::key::KeyType;
use super::placement::{Placement, ShardId};
use super::topology::{Placed, Sharded, TableUse, Topology};
use crate::config;
use crate::sql::catalog::{Column, QualifiedName, TableKind};

/// How many keys of rows that lie on the wrong shard are shown.
const SHOWN: usize = 5;

/// A question about one table on one shard.
#[derive(Debug, Clone)]
pub struct Question {
    /// The table.
    pub table: QualifiedName,
    /// For a sharded table: one row, with how many rows there are, how many of them do not belong on this shard, and the keys of
    /// some of these. For a reference table: one row, with their number and a sum over their contents, the same on every shard.
    pub sql: String,
}

impl Topology {
    /// What to ask a shard about its sharded tables that can be used.
    pub fn misplaced(&self, shard: ShardId) -> Vec<Question> {
        let mut questions: Vec<Question> =
            self.tables.values().filter_map(|table| self.misplaced_in(table, shard)).collect();
        questions.sort_by(|one, other| one.table.cmp(&other.table));
        questions
    }

    fn misplaced_in(&self, table: &TableUse, shard: ShardId) -> Option<Question> {
        let TableUse::Sharded(sharded) = table else { return None };
        let placed = sharded.placed.as_ref().ok()?;
        let id = self.catalog.find(Some(&sharded.name.schema), &sharded.name.name)?;
        let column = self.catalog.table(id).column(&sharded.key)?;
        let name = self.shards.get(shard.0)?;
        let wrong = format!("coalesce(NOT ({}), true)", belongs(sharded, placed, column, shard, name));
        let (table, key) = (in_sql(&sharded.name), quoted(&sharded.key));
        let sql = format!(
            "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE wrong), \
             pg_catalog.string_agg(coalesce(key, 'NULL'), ', ') FILTER (WHERE wrong AND nth <= {SHOWN}) \
             FROM (SELECT key, wrong, pg_catalog.count(*) FILTER (WHERE wrong) OVER (ROWS UNBOUNDED PRECEDING) AS nth \
             FROM (SELECT {key}::pg_catalog.text AS key, {wrong} AS wrong FROM {table} OFFSET 0) AS stored) AS checked"
        );
        Some(Question { table: sharded.name.clone(), sql })
    }

    /// What to ask every shard about the reference tables that exist: all must answer alike.
    pub fn copies(&self) -> Vec<Question> {
        let is_table = |name: &QualifiedName| {
            let id = self.catalog.find(Some(&name.schema), &name.name);
            id.is_some_and(|id| matches!(self.catalog.table(id).kind, TableKind::Table | TableKind::Partitioned))
        };
        let references =
            self.tables.iter().filter(|(name, used)| matches!(used, TableUse::Reference) && is_table(name));
        let question = |(name, _): (&QualifiedName, _)| Question {
            table: name.clone(),
            sql: format!(
                "SELECT pg_catalog.count(*), \
                 coalesce(pg_catalog.sum(pg_catalog.hashtextextended(copied::pg_catalog.text, 0)), 0) FROM {} AS copied",
                in_sql(name)
            ),
        };
        let mut questions: Vec<Question> = references.map(question).collect();
        questions.sort_by(|one, other| one.table.cmp(&other.table));
        questions
    }
}

fn in_sql(name: &QualifiedName) -> String {
    format!("{}.{}", quoted(&name.schema), quoted(&name.name))
}

fn constant(text: &str, column: &Column) -> String {
    format!("E'{}'::{}", text.replace('\\', "\\\\").replace('\'', "''"), column.type_name)
}

/// The condition under which a row belongs on the shard; NULL for a key that is NULL.
fn belongs(sharded: &Sharded, placed: &Placed, column: &Column, shard: ShardId, name: &str) -> String {
    let key = quoted(&sharded.key);
    match (&sharded.settings, &*placed.placement) {
        (config::Placement::Range(parts), _) => {
            let one = |part: &&config::RangePart| {
                let from = part.from.as_ref().map(|from| format!("{key} >= {}", constant(from, column)));
                let to = part.to.as_ref().map(|to| format!("{key} < {}", constant(to, column)));
                let limits: Vec<String> = from.into_iter().chain(to).collect();
                if limits.is_empty() { format!("{key} IS NOT NULL") } else { format!("({})", limits.join(" AND ")) }
            };
            any(parts.iter().filter(|part| part.shard == name).map(|part| one(&part)).collect())
        }
        (config::Placement::List(parts), _) => {
            let values = parts.iter().filter(|part| part.shard == name).flat_map(|part| &part.values);
            any(values.map(|value| format!("{key} = {}", constant(value, column))).collect())
        }
        (config::Placement::Hash { .. }, Placement::Hash { buckets }) => {
            let mask = buckets.len() - 1;
            let owners: Vec<&str> = buckets.iter().map(|owner| if *owner == shard { "t" } else { "f" }).collect();
            format!(
                "('{{{}}}'::pg_catalog.bool[])[((({} & {mask}) + {}) & {mask})::pg_catalog.int4 + 1]",
                owners.join(","),
                hashed(placed.key, &key),
                hash::COMBINE & mask as u64
            )
        }
        // A placement is made of its settings.
        (config::Placement::Hash { .. }, _) => "false".to_owned(),
    }
}

fn any(conditions: Vec<String>) -> String {
    if conditions.is_empty() { "false".to_owned() } else { conditions.join(" OR ") }
}

/// PostgreSQL's own hash of a key, as partitions have it (`compute_partition_hash_value`), before it is combined.
fn hashed(key: KeyType, column: &str) -> String {
    let seed = hash::SEED;
    match key {
        KeyType::Integer(_) => format!("pg_catalog.hashint8extended({column}::pg_catalog.int8, {seed})"),
        KeyType::Text(_) => {
            format!("pg_catalog.hashtextextended({column}::pg_catalog.text COLLATE pg_catalog.\"C\", {seed})")
        }
        KeyType::Blanked => format!("pg_catalog.hashbpcharextended({column} COLLATE pg_catalog.\"C\", {seed})"),
        KeyType::Uuid => format!("pg_catalog.uuid_hash_extended({column}, {seed})"),
        // An infinite date has no place.
        KeyType::Date => format!(
            "CASE WHEN pg_catalog.isfinite({column}) \
             THEN pg_catalog.hashint4extended({column} - '2000-01-01'::pg_catalog.date, {seed}) END"
        ),
        KeyType::Timestamp => format!("pg_catalog.timestamp_hash_extended({column}, {seed})"),
        KeyType::TimestampTz => {
            format!("pg_catalog.timestamp_hash_extended(pg_catalog.timezone('UTC', {column}), {seed})")
        }
    }
}
