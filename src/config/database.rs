//! The settings of one database: a server, or shards and how tables lie on them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::access::AuthQuery;
use super::define::{Reader, choices, item, settings};
use super::guard::Guard;
use super::replicas::{Balance, Replica};
use super::sharding::{Placement, Sharding};
use super::tree::{At, Node, Value};
use super::url::ServerUrl;

settings! {
    /// One database: either `primary`, or `shards` with `sharding`.
    pub struct Database {
        /// The server of a database that is not sharded.
        primary: Option<ServerUrl> = absent,
        /// Servers that follow it. Reads that are proven to be reads may go to them; and when one of them is promoted, it
        /// gets what the primary got: which server is the primary is asked of the servers, not of this file.
        replicas: Vec<Replica> = absent,
        /// Which replica gets a read.
        balance: Balance = "round-robin",
        /// A replica that lags further behind gets no reads until it has caught up.
        max_lag: Duration = "10s",
        /// How often each server is asked how it is, when there are replicas.
        check_interval: Duration = "250ms",
        /// Time that writes wait for a primary while there is none, before they get an error; `0`: they do not wait.
        failover_timeout: Duration = "10s",
        /// The servers of a sharded database, in an order that must not change: the first one also answers
        /// what only needs some server, and holds rows whose key is NULL.
        shards: Vec<Shard> = absent,
        /// Where users are looked up who are not in the file.
        auth_query: Option<AuthQuery> = absent,
        /// Statements that are refused, or commented on, before they run.
        guard: Vec<Guard> = absent,
        /// Clients of this database connected at once; the next one is refused with SQLSTATE 53300.
        max_clients: Option<u32> = absent,
        /// Connections to each server at most, of all users together; `0`: no limit but `pool.size` of each. Who needs one more waits,
        /// and unused ones of other users are closed for it.
        max_connections: u32 = "0",
        /// Connections to each server.
        pool: Pool = "{}",
        /// For `*`: databases that are served at once without being named; the next one is refused with SQLSTATE 53300, unless
        /// one of them has no client.
        max_databases: u32 = "100",
        /// For `*`: time after which a database is forgotten that no client uses, with its connections and what was counted; `0`:
        /// never.
        unused_timeout: Duration = "1h",
        /// How tables lie on the shards.
        sharding: Option<Sharding> = absent,
        /// What happens at COMMIT of a transaction that wrote on several shards.
        commit: CommitMode = "refuse",
        /// With `commit: atomic`: whether COMMIT is answered when it can be seen on every shard, or when it is decided.
        commit_answer: CommitAnswer = "finished",
    }
    check check_database;
}

settings! {
    /// One shard.
    pub struct Shard {
        /// Its name, by which other settings speak of it. Buckets are spread by name: do not rename it.
        name: String = required,
        /// Its server.
        primary: ServerUrl = required,
    }
    planned {
        "replicas": "remove it; every statement goes to the primary",
        "weight": "remove it; buckets are spread evenly",
    }
}

choices! {
    /// When a server connection is given back.
    pub enum PoolMode {
        /// After each transaction.
        Transaction = "transaction",
        /// When the client leaves.
        Session = "session",
        /// After each statement; transaction blocks are refused.
        Statement = "statement",
    }
}

settings! {
    /// Connections to each server, for each pair of database and user.
    pub struct Pool {
        /// When a client gives its server connection back: after each transaction, or when it leaves.
        mode: PoolMode = "transaction",
        /// Connections to a server at most.
        size: u32 = "20",
        /// Connections that are kept open even if nobody needs them. They are opened at once where the server's URL names the
        /// user, otherwise after a user's first login.
        min_size: u32 = "0",
        /// Time that a client waits for a connection before it gets an error; `0`: it waits as long as it takes.
        wait_timeout: Duration = "30s",
        /// Time to connect and log in to a server; `0`: no limit.
        connect_timeout: Duration = "5s",
        /// Time after which an unused connection is closed; `0`: never.
        idle_timeout: Duration = "10m",
        /// Age at which a connection is closed when it is next unused; `0`: it gets as old as it likes.
        lifetime: Duration = "1h",
        /// Whether a connection serves one client after another; otherwise it is closed when it is given back.
        reuse: bool = "true",
        /// Prepared statements kept on each server connection; the least recently used goes first.
        prepared_statements: u32 = "500",
    }
    check check_pool;
}

choices! {
    /// What happens at COMMIT of a transaction that wrote on several shards.
    pub enum CommitMode {
        /// The write that would touch a second shard is refused.
        Refuse = "refuse",
        /// Shards are committed one after the other: a crash in between leaves some committed and some not.
        BestEffort = "best-effort",
        /// On all shards or on none, whatever dies. Needs `pgweir init` and `max_prepared_transactions` on the shards.
        Atomic = "atomic",
    }
}

choices! {
    /// When COMMIT of a transaction over several shards is answered, where it is atomic.
    pub enum CommitAnswer {
        /// When every shard has committed.
        Finished = "finished",
        /// When it is decided and cannot be lost: the rest follows at once, and the same client's next statement waits for it. Other
        /// clients may see one shard's part a little earlier than another's.
        Decided = "decided",
    }
}

impl Database {
    /// The servers, in order: shards by name, or `primary` and then the replicas.
    pub fn servers(&self) -> impl Iterator<Item = (&str, &ServerUrl)> {
        let shards = self.shards.iter().map(|shard| (shard.name.as_str(), &shard.primary));
        let replicas = self.replicas.iter().map(|replica| ("replica", &replica.url));
        self.primary.iter().map(|primary| ("primary", primary)).chain(replicas).chain(shards)
    }

    /// True when its tables lie on shards.
    pub fn is_sharded(&self) -> bool {
        !self.shards.is_empty()
    }
}

fn check_pool(pool: &Pool, node: &Node, reader: &mut Reader) -> bool {
    if pool.min_size > pool.size {
        let at = node.get("min_size").map_or(node.at, |node| node.at);
        let what = format!("`{}.min_size` is more than `size`, which is {}", reader.path(), pool.size);
        return reader.problem(at, what, "lower it, or raise `size`").unwrap_or(false);
    }
    if pool.size > 0 {
        return true;
    }
    let at = node.get("size").map_or(node.at, |node| node.at);
    let path = reader.path();
    reader.problem(at, format!("`{path}.size` is 0"), "write 1 or more").unwrap_or(false)
}

fn check_database(database: &Database, node: &Node, reader: &mut Reader) -> bool {
    let before = reader.problems.len();
    let path = reader.path();
    let at = |name: &str| node.entry(name).map_or(node.at, |(key, _)| key.at);
    if let Some((_, shards)) = node.entry("shards")
        && database.shards.is_empty()
    {
        reader.problem::<()>(shards.at, format!("`{path}.shards` is empty"), "add `- {name: a, primary: ...}`");
    } else if database.primary.is_some() && database.is_sharded() {
        let hint = "keep `primary` for one server, or `shards` for several";
        reader.problem::<()>(at("primary"), format!("`{path}` has both `primary` and `shards`"), hint);
    } else if database.primary.is_none() && !database.is_sharded() {
        let hint = "add `primary: \"postgres://app@10.0.0.1/shop\"`, or `shards`";
        reader.problem::<()>(node.at, format!("`{path}` has no server"), hint);
    } else if database.is_sharded() && database.sharding.is_none() {
        let hint = "add `sharding: {tables: {orders: {key: customer_id}}}`";
        reader.problem::<()>(
            at("shards"),
            format!("`{path}` has shards, but nothing says how tables lie on them"),
            hint,
        );
    } else if !database.is_sharded() {
        for name in ["sharding", "commit"].iter().filter(|name| node.get(name).is_some()) {
            let what = format!("`{path}.{name}` is given, but the database has no shards");
            reader.problem::<()>(at(name), what, "remove it, or write `shards` instead of `primary`");
        }
    }
    if database.is_sharded() && database.pool.mode == PoolMode::Statement {
        let at = node.get("pool").map_or(node.at, |node| node.at);
        let what = format!("`{path}.pool.mode` is `statement`, but the database has shards");
        reader.problem::<()>(at, what, "write `transaction`");
    }
    check_any(database, node, reader);
    check_replicas(database, node, reader);
    check_shard_names(database, node, reader);
    let url = database.servers().next().map(|(_, url)| url);
    if let Some(query) = &database.auth_query
        && query.user.is_none()
        && url.is_some_and(|url| url.user.is_none())
    {
        let what = format!("`{path}.auth_query` has no user, and neither has the server's URL");
        reader.problem::<()>(at("auth_query"), what, "add `user: pgweir_auth` and its `password`");
    }
    if let Some((sharding, at)) = database.sharding.as_ref().zip(node.get("sharding")) {
        check_placements(database, sharding, at, reader);
        check_locals(database, sharding, at, reader);
    }
    reader.problems.len() == before
}

/// What serves databases that have no entry of their own, and what only that can have.
fn check_any(database: &Database, node: &Node, reader: &mut Reader) {
    let path = reader.path();
    let at = |name: &str| node.entry(name).map_or(node.at, |(key, _)| key.at);
    if path != "databases.*" {
        for name in ["max_databases", "unused_timeout"].into_iter().filter(|name| node.get(name).is_some()) {
            let what = format!("`{path}.{name}` is given, but it is for `*` only");
            reader.problem::<()>(at(name), what, "remove it");
        }
        return;
    }
    for name in ["shards", "replicas"].into_iter().filter(|name| node.get(name).is_some()) {
        let what = format!("`{path}` has `{name}`, but it stands for databases on one server");
        reader.problem::<()>(at(name), what, "name the database whose tables or servers these are");
    }
    if database.max_databases == 0 {
        reader.problem::<()>(at("max_databases"), format!("`{path}.max_databases` is 0"), "write 1 or more");
    }
    // Whether a database is there must not be seen before a client has proven who it is.
    let named = |url: &ServerUrl| url.database.is_some();
    if let Some(query) = &database.auth_query
        && query.database.is_none()
        && !database.primary.as_ref().is_some_and(named)
    {
        let what = format!("`{path}.auth_query` has no `database`, which it needs for `*`");
        reader.problem::<()>(at("auth_query"), what, "add `database: postgres`, or where the query can be run");
    }
}

fn check_replicas(database: &Database, node: &Node, reader: &mut Reader) {
    let path = reader.path();
    let at = |name: &str| node.entry(name).map_or(node.at, |(key, _)| key.at);
    if database.replicas.is_empty() {
        let about = ["balance", "max_lag", "check_interval", "failover_timeout"];
        for name in about.into_iter().filter(|name| node.get(name).is_some()) {
            let what = format!("`{path}.{name}` is given, but the database has no replicas");
            reader.problem::<()>(at(name), what, "remove it, or add `replicas`");
        }
        return;
    }
    if database.is_sharded() {
        let what = format!("`{path}` has both `shards` and `replicas`");
        reader.problem::<()>(at("replicas"), what, "remove `replicas`: shards cannot have any yet");
    }
    if database.pool.mode == PoolMode::Session {
        let what = format!("`{path}` has replicas, but its clients keep one server connection");
        reader.problem::<()>(at("replicas"), what, "remove `replicas`, or write `pool: {mode: transaction}`");
    }
    if database.check_interval.is_zero() || database.check_interval > Duration::from_secs(60) {
        let what = format!("`{path}.check_interval` is out of range");
        reader.problem::<()>(at("check_interval"), what, "write a time up to 60s; 250ms suits most");
    }
    let mut seen = BTreeSet::new();
    for (_, url) in database.servers().filter(|_| !database.is_sharded()) {
        if !seen.insert(url.address()) {
            let what = format!("`{}` is listed twice", url.address());
            reader.problem::<()>(at("replicas"), what, "name each server once");
        }
    }
}

fn check_shard_names(database: &Database, node: &Node, reader: &mut Reader) {
    let Some(shards) = node.get("shards") else { return };
    let mut seen = BTreeSet::new();
    for (index, shard) in database.shards.iter().enumerate() {
        if !seen.insert(shard.name.as_str()) {
            let at = item(shards, index).get("name").map_or(shards.at, |name| name.at);
            reader.problem::<()>(
                at,
                format!("two shards are named `{}`", shard.name),
                "give each one a name of its own",
            );
        }
    }
}

fn check_shard_exists(database: &Database, name: &str, at: At, reader: &mut Reader) {
    if database.shards.iter().any(|shard| shard.name == name) {
        return;
    }
    let names = super::problem::one_of(database.shards.iter().map(|shard| shard.name.as_str()));
    let hint = if names.is_empty() { "add the shard to `shards`".to_owned() } else { format!("there are {names}") };
    reader.problem::<()>(at, format!("there is no shard `{name}`"), hint);
}

fn check_placements(database: &Database, sharding: &Sharding, node: &Node, reader: &mut Reader) {
    if let Some(at) = node.get("placement") {
        check_placement(database, &sharding.placement, at, reader);
    }
    let Some(tables) = node.get("tables") else { return };
    for (name, table) in &sharding.tables {
        let at = entry_of(tables, name).and_then(|(_, node)| node.get("placement"));
        if let Some((placement, at)) = table.placement.as_ref().zip(at) {
            check_placement(database, placement, at, reader);
        }
    }
}

fn check_placement(database: &Database, placement: &Placement, node: &Node, reader: &mut Reader) {
    match placement {
        Placement::Hash { buckets, map } => {
            let map_at = node.get("hash").and_then(|hash| hash.get("map"));
            for name in map.keys() {
                check_shard_exists(database, name, map_at.map_or(node.at, |node| node.at), reader);
            }
            let at = node.get("hash").and_then(|hash| hash.get("buckets")).map_or(node.at, |node| node.at);
            if (*buckets as usize) < database.shards.len() {
                let what = format!("{buckets} buckets are fewer than the {} shards", database.shards.len());
                reader.problem::<()>(at, what, "write a larger power of two; 4096 suits most");
            }
        }
        Placement::Range(parts) => {
            let Some(list) = node.get("range") else { return };
            for (index, part) in parts.iter().enumerate() {
                let at = item(list, index).get("shard").map_or(list.at, |shard| shard.at);
                check_shard_exists(database, &part.shard, at, reader);
            }
        }
        Placement::List(parts) => {
            let Some(list) = node.get("list") else { return };
            let mut seen = BTreeSet::new();
            for (index, part) in parts.iter().enumerate() {
                let entry = item(list, index);
                let at = |name: &str| entry.get(name).map_or(list.at, |node| node.at);
                check_shard_exists(database, &part.shard, at("shard"), reader);
                for value in part.values.iter().filter(|value| !seen.insert(value.as_str())) {
                    reader.problem::<()>(at("values"), format!("the value `{value}` is listed twice"), "keep one");
                }
            }
        }
    }
}

fn entry_of<'a>(node: &'a Node, table: &super::sharding::TableName) -> Option<&'a (super::tree::Key, Node)> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| super::sharding::TableName::parse(&key.text).as_ref() == Ok(table))
}

/// Each table has one way of lying on the shards, and local ones lie on a shard that exists.
fn check_locals(database: &Database, sharding: &Sharding, node: &Node, reader: &mut Reader) {
    if sharding.tables.is_empty() && sharding.reference.is_empty() && sharding.local.is_empty() {
        let hint = "add `tables: {orders: {key: customer_id}}`, `reference: [countries]` or `local: {audit_log: a}`";
        reader.problem::<()>(node.at, "`sharding` names no table, so that none could be used", hint);
    }
    if let Some(local) = node.get("local") {
        for (table, shard) in &sharding.local {
            let at = entry_of(local, table).map_or(local.at, |(_, node)| node.at);
            check_shard_exists(database, shard, at, reader);
            if sharding.tables.contains_key(table) {
                let at = entry_of(local, table).map_or(local.at, |(key, _)| key.at);
                reader.problem::<()>(at, format!("`{table}` is both sharded and local"), "keep one of the two");
            }
        }
    }
    if let Some(list) = node.get("reference") {
        let mut seen = BTreeSet::new();
        for (index, table) in sharding.reference.iter().enumerate() {
            let at = item(list, index).at;
            if sharding.tables.contains_key(table) {
                reader.problem::<()>(
                    at,
                    format!("`{table}` is both sharded and a reference table"),
                    "keep one of the two",
                );
            }
            if sharding.local.contains_key(table) {
                reader.problem::<()>(
                    at,
                    format!("`{table}` is both local and a reference table"),
                    "keep one of the two",
                );
            }
            if !seen.insert(table) {
                reader.problem::<()>(at, format!("`{table}` is listed twice"), "keep one");
            }
        }
    }
}
