//! What a sharded table's definition promises over all its rows, and each shard can only keep for its own.

use super::topology::{Sharded, TableUse, Topology};
use crate::config::PerShard;
use crate::sql::catalog::{ConstraintKind, Table};

/// Refuses (what, hint) a definition with promises that hold per shard only, unless the configuration accepts them.
///
/// - UNIQUE, PRIMARY KEY and EXCLUDE with the sharding key among their columns hold over all shards, for equal
///   columns mean an equal key, hence one shard.
/// - A foreign key to a reference table holds, for each shard has all of its rows. One to a sharded table holds when it
///   pairs the two sharding keys and their placements agree, for the referenced row then lies on the same shard.
///
/// A sequence counts on each shard for itself; [`super::rules`] has the first one count for all.
pub(super) fn check(topology: &Topology, sharded: &Sharded, table: &Table) -> Result<(), (String, String)> {
    let accepts = |what: PerShard| sharded.accept.contains(&what);
    let accept = |what: PerShard| format!("or set `sharding.tables.{}.accept: [{}]`", sharded.name, what.word());
    for index in table.indexes.iter().filter(|index| index.unique && !accepts(PerShard::Unique)) {
        if !index.keys.iter().any(|key| key.column.as_ref() == Some(&sharded.key)) {
            return Err(not_unique(sharded, &index.name, &accept(PerShard::Unique)));
        }
    }
    for constraint in &table.constraints {
        let has_key = constraint.columns.contains(&sharded.key);
        match &constraint.kind {
            ConstraintKind::PrimaryKey | ConstraintKind::Unique | ConstraintKind::Exclude
                if !has_key && !accepts(PerShard::Unique) =>
            {
                let name = format!("({})", constraint.columns.join(", "));
                return Err(not_unique(sharded, &name, &accept(PerShard::Unique)));
            }
            ConstraintKind::ForeignKey { table: other, columns } if !accepts(PerShard::ForeignKey) => {
                let follows = match topology.tables.get(other) {
                    Some(TableUse::Reference) => true,
                    Some(TableUse::Sharded(target)) => {
                        target.settings == sharded.settings
                            && pairs(&constraint.columns, &sharded.key, columns, &target.key, topology, target)
                    }
                    _ => false,
                };
                if !follows {
                    return Err((
                        format!("a foreign key of {} to {other} cannot be kept over all shards", sharded.name),
                        format!(
                            "let it pair the two sharding keys, make {other} a reference table, {}",
                            accept(PerShard::ForeignKey)
                        ),
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn not_unique(sharded: &Sharded, what: &str, accept: &str) -> (String, String) {
    (
        format!(
            "the unique {what} of {} is without its sharding key {} and would hold on each shard only",
            sharded.name, sharded.key
        ),
        format!("add {} to its columns, {accept}", sharded.key),
    )
}

/// The foreign key pairs the one sharding key with the other. Without referenced columns it means the primary key.
fn pairs(
    columns: &[String],
    key: &str,
    others: &[String],
    other_key: &str,
    topology: &Topology,
    target: &Sharded,
) -> bool {
    let primary: Vec<String>;
    let others = if others.is_empty() {
        primary = topology
            .catalog
            .find(Some(&target.name.schema), &target.name.name)
            .map(|id| topology.catalog.table(id))
            .and_then(|table| table.constraints.iter().find(|one| one.kind == ConstraintKind::PrimaryKey))
            .map(|constraint| constraint.columns.clone())
            .unwrap_or_default();
        &primary
    } else {
        others
    };
    columns.iter().zip(others).any(|(column, other)| column == key && other == other_key)
}
