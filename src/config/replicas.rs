//! The settings of servers that hold copies of a database.

use super::define::{FromNode, Group, Reader, choices, settings};
use super::tree::{Node, Value};
use super::url::ServerUrl;

/// The largest share.
const MAX_WEIGHT: u32 = 100;

settings! {
    /// A replica whose share of reads differs from others'.
    pub struct WeightedReplica {
        /// Its address.
        url: ServerUrl = required,
        /// Its share of reads, relative to the others'; 0 gives it none as long as it is a replica.
        weight: u32 = "1",
    }
}

/// A server beside the primary: one that follows it, or will after the next failover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its address.
    pub url: ServerUrl,
    /// Its share of reads.
    pub weight: u32,
}

impl FromNode for Replica {
    fn what() -> String {
        "a server's URL, or `{url: ..., weight: 2}`".to_owned()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            return ServerUrl::read(node, reader).map(|url| Self { url, weight: 1 });
        }
        let WeightedReplica { url, weight } = WeightedReplica::read(node, reader)?;
        if weight > MAX_WEIGHT {
            let at = node.get("weight").map_or(node.at, |node| node.at);
            return reader.problem(at, format!("`weight` is {weight}"), format!("write at most {MAX_WEIGHT}"));
        }
        Some(Self { url, weight })
    }

    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        self.url.list(&format!("{path}.url"), out);
        self.weight.list(&format!("{path}.weight"), out);
    }

    fn document(path: &str, out: &mut Vec<Group>) {
        WeightedReplica::document(path, out);
    }
}

choices! {
    /// Which of the replicas that may serve a read gets it.
    pub enum Balance {
        /// One after the other, by their weights.
        RoundRobin = "round-robin",
        /// The one with the fewest connections in use, by its weight.
        LeastConnections = "least-connections",
        /// Always the same one for a client's address, as long as it is there.
        ClientIpHash = "client-ip-hash",
    }
}

choices! {
    /// Where a user's reads go.
    pub enum Reads {
        /// To replicas, where the database has some.
        Balanced = "balanced",
        /// To the primary, like everything else.
        Primary = "primary",
    }
}
