//! How tables lie on shards: the configuration's sharding with the catalog's column types.

use std::collections::HashMap;
use std::sync::Arc;

use super::definition;
use super::key::KeyType;
use super::placement::{Placement, ShardId};
use super::plan::MAX_SHARDS;
use crate::config;
use crate::error::{Error, Result};
use crate::sql::catalog::{Catalog, QualifiedName, TableKind};

/// How one table lies on the shards.
#[derive(Debug, Clone)]
pub enum TableUse {
    /// Each row on the shard that its key says, or why that cannot be known.
    Sharded(Arc<Sharded>),
    /// A copy on every shard.
    Reference,
    /// On one shard.
    Local(ShardId),
}

/// A sharded table.
#[derive(Debug)]
pub struct Sharded {
    /// Its name.
    pub name: QualifiedName,
    /// Its key column.
    pub key: String,
    /// What the configuration accepts to hold on each shard only.
    pub accept: Vec<config::PerShard>,
    /// The key's type and where its values lie; or why statements on the table are refused, with a hint.
    pub placed: std::result::Result<Placed, (String, String)>,
    /// Its placement as the configuration says, for tables that are yet to be created.
    pub settings: config::Placement,
}

/// The key of a table that exists.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its type.
    pub key: KeyType,
    /// Where its values lie.
    pub placement: Arc<Placement>,
}

impl Placed {
    /// Whether equal keys of two tables lie on one shard.
    pub fn is_alike(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.placement, &other.placement) || self.placement == other.placement;
        same && self.key.is_comparable_with(other.key)
    }
}

/// All shards and tables of one database. Made anew when the configuration or the catalog changes.
#[derive(Debug)]
pub struct Topology {
    pub(super) shards: Arc<[String]>,
    pub(super) tables: HashMap<QualifiedName, TableUse>,
    pub(super) catalog: Arc<Catalog>,
    /// All shards are logged in to under one name.
    pub(super) is_one_user: bool,
}

fn qualified(name: &config::TableName) -> QualifiedName {
    QualifiedName { schema: name.schema.clone(), name: name.name.clone() }
}

impl Topology {
    /// The topology of a sharded database.
    pub fn new(database: &config::Database, catalog: Arc<Catalog>) -> Result<Self> {
        let Some(sharding) = &database.sharding else {
            return Err(Error::config("the database has no sharding").hint("write `shards` and `sharding`"));
        };
        let shards: Arc<[String]> = database.shards.iter().map(|shard| shard.name.clone()).collect();
        if shards.is_empty() || shards.len() > MAX_SHARDS {
            return Err(Error::config(format!("{} shards: there must be 1 to {MAX_SHARDS}", shards.len())));
        }
        let mut maps: HashMap<(config::Placement, KeyType), Arc<Placement>> = HashMap::new();
        let mut tables = HashMap::new();
        for (name, table) in &sharding.tables {
            let settings = table.placement.as_ref().unwrap_or(&sharding.placement).clone();
            let name = qualified(name);
            let placed = place(&name, table, &settings, &catalog, &shards, &mut maps);
            let sharded = Sharded {
                name: name.clone(),
                key: table.key.0.clone(),
                accept: table.accept.clone(),
                placed,
                settings,
            };
            tables.insert(name, TableUse::Sharded(Arc::new(sharded)));
        }
        for name in &sharding.reference {
            tables.insert(qualified(name), TableUse::Reference);
        }
        for (name, shard) in &sharding.local {
            let at = shards.iter().position(|other| other == shard);
            let at = at.ok_or_else(|| Error::config(format!("there is no shard {shard}")))?;
            tables.insert(qualified(name), TableUse::Local(ShardId(at)));
        }
        let mut users = database.shards.iter().map(|shard| &shard.primary.user);
        let first = users.next();
        let is_one_user = users.all(|user| Some(user) == first);
        let mut topology = Self { shards, tables, catalog, is_one_user };
        topology.check_definitions();
        Ok(topology)
    }

    /// The shards' names, in the configuration's order.
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// The tables that the configuration names.
    pub fn tables(&self) -> impl Iterator<Item = (&QualifiedName, &TableUse)> {
        self.tables.iter()
    }

    /// The catalog that plans are made with.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What keeps existing sharded tables from being used, for `check` and the log.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self
            .tables
            .values()
            .filter_map(|table| match table {
                TableUse::Sharded(sharded)
                    if self.catalog.find(Some(&sharded.name.schema), &sharded.name.name).is_some() =>
                {
                    sharded.placed.as_ref().err().map(|(what, hint)| format!("{what}; {hint}"))
                }
                _ => None,
            })
            .collect();
        problems.sort();
        problems
    }

    /// The shard on which a key's value lies, by its text, for reports.
    pub fn shard_of(&self, table: &QualifiedName, key: &str) -> Option<ShardId> {
        let TableUse::Sharded(sharded) = self.tables.get(table)? else { return None };
        let placed = sharded.placed.as_ref().ok()?;
        placed.placement.shard_of(&placed.key.read(super::key::Written::Text(key)).ok()?)
    }

    /// Constraints and defaults that hold on each shard only refuse the table, unless accepted.
    fn check_definitions(&mut self) {
        let mut refused = Vec::new();
        for (name, table) in &self.tables {
            let TableUse::Sharded(sharded) = table else { continue };
            let Some(id) = self.catalog.find(Some(&name.schema), &name.name) else { continue };
            if let (Ok(_), Err(problem)) = (&sharded.placed, definition::check(self, sharded, self.catalog.table(id))) {
                refused.push((name.clone(), problem));
            }
        }
        for (name, problem) in refused {
            if let Some(TableUse::Sharded(sharded)) = self.tables.get_mut(&name)
                && let Some(sharded) = Arc::get_mut(sharded)
            {
                sharded.placed = Err(problem);
            }
        }
    }
}

fn place(
    name: &QualifiedName,
    table: &config::ShardedTable,
    settings: &config::Placement,
    catalog: &Catalog,
    shards: &[String],
    maps: &mut HashMap<(config::Placement, KeyType), Arc<Placement>>,
) -> std::result::Result<Placed, (String, String)> {
    let Some(id) = catalog.find(Some(&name.schema), &name.name) else {
        return Err((
            format!("the sharded table {name} does not exist"),
            "create it through the proxy first".to_owned(),
        ));
    };
    let found = catalog.table(id);
    if !matches!(found.kind, TableKind::Table | TableKind::Partitioned) {
        return Err((format!("{name} is a view or a foreign table"), "only tables can be sharded".to_owned()));
    }
    let Some(column) = found.column(&table.key.0) else {
        let hint = format!("correct `sharding.tables.{name}.key`");
        return Err((format!("the sharded table {name} has no column {}", table.key.0), hint));
    };
    let change = |what: String| (format!("{name}.{}: {what}", table.key.0), "choose another key".to_owned());
    let key = KeyType::of_column(column).map_err(change)?;
    let placement = match maps.get(&(settings.clone(), key)) {
        Some(placement) => placement.clone(),
        None => {
            let placement = Arc::new(Placement::new(settings, key, shards).map_err(change)?);
            maps.insert((settings.clone(), key), placement.clone());
            placement
        }
    };
    Ok(Placed { key, placement })
}
