//! The settings of how a new process takes over from this one.

use std::time::Duration;

use super::define::{Reader, settings};
use super::tree::Node;

settings! {
    /// How a new process takes over from the running one (`pgweir proxy --takeover`) without a client noticing.
    pub struct Takeover {
        /// A unix socket where a new process asks for the listening sockets; only the same user and root may. Nobody can take
        /// over unless it is set.
        socket: Option<String> = absent,
        /// Time that clients have to leave by themselves after a new process has taken over. Then each is ended with SQLSTATE
        /// 57P01 between two transactions, within `limits.shutdown_timeout`. `0` waits for as long as they like.
        timeout: Duration = "0",
    }
    check check_takeover;
}

fn check_takeover(takeover: &Takeover, node: &Node, reader: &mut Reader) -> bool {
    match &takeover.socket {
        Some(path) if !path.starts_with('/') => {
            let at = node.get("socket").map_or(node.at, |node| node.at);
            let hint = "write the whole path, as in `/run/pgweir/takeover`";
            reader.problem(at, "`takeover.socket` is no absolute path", hint).unwrap_or(false)
        }
        _ => true,
    }
}
