//! The settings of `pgweir.yaml`: one definition each, from which defaults, docs and validation derive.
//!
//! ```text
//! text -> tree (nodes with line and column) -> settings (defaults, types, rules over several) -> Config
//!                                          `-> problems: place, what is wrong, what to write instead
//! ```
//!
//! A setting is defined in one place ([`settings`], [`database`], [`sharding`]) with [`define`]'s macro.
//! Whatever this version does not execute is refused at load; nothing is ever silently ignored.

mod access;
mod database;
mod define;
mod docs;
mod guard;
mod listen;
mod problem;
mod replicas;
mod secret;
mod settings;
mod sharding;
mod takeover;
mod tree;
mod url;
mod values;

use std::path::Path;

pub use access::{AddressRange, AuthQuery, HbaMethod, HbaRule, HbaType};
pub use database::{CommitAnswer, CommitMode, Database, Pool, PoolMode, Shard};
pub use define::{Group, Setting, SettingDefault};
pub use docs::{groups, markdown};
pub use guard::{Guard, GuardAction};
pub use listen::{Listen, SocketMode};
pub use replicas::{Balance, Reads, Replica, WeightedReplica};
pub use secret::Secret;
pub use settings::{
    Address, CONSOLE, ClientTls, ClientTlsMode, ClientVerify, Config, Examples, HostCertificate, Limits, Stats, User,
};
pub use sharding::{
    Buckets, HashPlacement, KeyColumn, ListPart, PerShard, Placement, RangePart, ShardedTable, Sharding, TableName,
};
pub use takeover::Takeover;
pub use url::{ChannelBinding, ServerUrl, SslMode};
pub use values::{ByteSize, unlimited_if_zero};

use crate::error::{Error, Result};
use define::{FromNode, Reader};

/// Reads a configuration file. Every mistake in it is named, in one error when there are several.
pub fn load(path: &Path) -> Result<Config> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::input(format!("the configuration cannot be read: {error}"))
            .at(name.as_str())
            .hint("give its path with -c")
    })?;
    parse(&text, &name)
}

/// Reads a configuration from text; `name` stands for the file in messages.
pub fn parse(text: &str, name: &str) -> Result<Config> {
    match problems(text, name) {
        Ok(config) => Ok(config),
        Err(mut errors) if errors.len() == 1 => Err(errors.remove(0)),
        Err(errors) => {
            let list: Vec<String> = errors.iter().map(Error::to_string).collect();
            Err(Error::config(format!("{} mistakes in {name}:\n\n{}", errors.len(), list.join("\n\n"))))
        }
    }
}

/// Reads a configuration from text, or lists its mistakes in the file's order.
pub fn problems(text: &str, name: &str) -> std::result::Result<Config, Vec<Error>> {
    let root = tree::read(text).map_err(|problem| vec![problem.error(name, text)])?;
    let mut reader = Reader::default();
    let config = Config::read(&root, &mut reader);
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => {
            let mut problems = reader.problems;
            problems.sort_by_key(|problem| (problem.at.line, problem.at.column));
            if problems.is_empty() {
                return Err(vec![Error::internal("the configuration was refused without a reason")]);
            }
            Err(problems.iter().map(|problem| problem.error(name, text)).collect())
        }
    }
}

/// Every setting that has a value, by its path, with secrets redacted.
pub fn list(config: &Config) -> Vec<(String, String)> {
    let mut out = Vec::new();
    config.list("", &mut out);
    out
}

#[cfg(test)]
mod tests;
