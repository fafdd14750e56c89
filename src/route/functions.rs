//! What is known of PostgreSQL's own functions; of others nothing is, and nothing is assumed.
//!
//! `builtins.txt` is taken from PostgreSQL 15's `pg_proc`, one `name class` a line, sorted by name. Left out are functions
//! that read tables named in their arguments (`query_to_xml`, `ts_stat`), keep state that would have to be one for all
//! shards (`nextval`, advisory locks), change the session (`set_config`) or the server, or answer for one server
//! what was asked of all (`pg_relation_size`, `txid_current`): a statement that calls them is refused.

use std::cmp::Ordering;

const BUILTINS: &str = include_str!("builtins.txt");

/// How a function's result depends on where and when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Steadiness {
    /// On its arguments alone: the same on every shard.
    Immutable,
    /// On the transaction and the session: `now()`. Not the same on two shards.
    Stable,
    /// On nothing: `random()`.
    Volatile,
    /// On the server's own state: `version()`, `pg_get_viewdef()`.
    Server,
}

/// What is known of a function; `None` for those that are not built in or must not be routed.
pub(super) fn steadiness(schema: Option<&str>, name: &str) -> Option<Steadiness> {
    if !matches!(schema, None | Some("pg_catalog")) {
        return None;
    }
    let class = class_of(name)?;
    Some(match class {
        "i" => Steadiness::Immutable,
        "s" => Steadiness::Stable,
        "v" => Steadiness::Volatile,
        _ => Steadiness::Server,
    })
}

/// Binary search over the lines of the text.
fn class_of(name: &str) -> Option<&'static str> {
    let (mut low, mut high) = (0, BUILTINS.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = BUILTINS[..middle].rfind('\n').map_or(0, |newline| newline + 1);
        let line = BUILTINS[start..].lines().next()?;
        let (found, class) = line.split_once(' ')?;
        match found.cmp(name) {
            Ordering::Equal => return Some(class),
            Ordering::Less => low = start + line.len() + 1,
            Ordering::Greater => high = start,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_found_and_nothing_else() {
        let mut last = "";
        for line in BUILTINS.lines() {
            let (name, class) = line.split_once(' ').unwrap();
            assert!(last < name, "{name} is out of order");
            assert_eq!(class_of(name), Some(class));
            last = name;
        }
        for name in ["", "a", "zzz", "nextval", "query_to_xml", "pg_advisory_lock", "set_config", "low", "lowerx"] {
            assert_eq!(class_of(name), None, "{name}");
        }
        assert_eq!(steadiness(None, "now"), Some(Steadiness::Stable));
        assert_eq!(steadiness(Some("public"), "now"), None);
        assert_eq!(steadiness(Some("pg_catalog"), "random"), Some(Steadiness::Volatile));
    }
}
