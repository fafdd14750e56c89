//! What of a database's catalog statements may use and still be reads: functions and relations that are known to be harmless.
//!
//! A view may call a function that writes, an aggregate may be built on one, a row policy may; a sequence shows other
//! numbers on a replica, and an unlogged table has no rows there. So the names of what is harmless are read from the
//! primary, and a name that is not among them makes a statement no read. A name counts as harmless when everything of that
//! name is, in whatever schema.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::connect::{ServerTarget, connect};
use crate::net::dialogue::Dialogue;
use crate::pool::watch::{Row, Unanswered, ask};
use crate::route;

/// Functions by name: built in or not, and whether anything in them is declared volatile.
const FUNCTIONS: &str = "WITH shaky AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_proc WHERE provolatile = 'v'), \
     sums AS MATERIALIZED (SELECT a.aggfnoid::oid AS oid FROM pg_catalog.pg_aggregate a WHERE \
         a.aggtransfn IN (SELECT oid FROM shaky) OR a.aggfinalfn IN (SELECT oid FROM shaky) \
         OR a.aggcombinefn IN (SELECT oid FROM shaky) OR a.aggmtransfn IN (SELECT oid FROM shaky) \
         OR a.aggmfinalfn IN (SELECT oid FROM shaky) OR a.aggminvtransfn IN (SELECT oid FROM shaky) \
         OR a.aggserialfn IN (SELECT oid FROM shaky) OR a.aggdeserialfn IN (SELECT oid FROM shaky)) \
     SELECT p.oid, p.proname, p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace, \
         p.provolatile = 'v' OR p.prokind = 'p' OR p.oid IN (SELECT oid FROM sums) FROM pg_catalog.pg_proc p";

/// Relations by name: whether they cannot be read on a replica, and which functions and relations reading them uses.
const RELATIONS: &str = "WITH trees AS MATERIALIZED (SELECT r.ev_class AS of, r.ev_action::text AS tree \
         FROM pg_catalog.pg_rewrite r WHERE r.ev_type = '1' AND r.oid >= 16384 \
         UNION ALL SELECT y.polrelid, y.polqual::text FROM pg_catalog.pg_policy y WHERE y.polqual IS NOT NULL), \
     calls AS MATERIALIZED (SELECT t.of, pg_catalog.string_agg(DISTINCT m[1], ',') AS list FROM trees t, \
         pg_catalog.regexp_matches(t.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m GROUP BY t.of), \
     uses AS MATERIALIZED (SELECT u.of, pg_catalog.string_agg(DISTINCT u.used, ',') AS list FROM ( \
         SELECT t.of, m[1] AS used FROM trees t, pg_catalog.regexp_matches(t.tree, ':relid (\\d+)', 'g') m \
         UNION ALL SELECT i.inhparent, i.inhrelid::text FROM pg_catalog.pg_inherits i) u GROUP BY u.of) \
     SELECT c.oid, c.relname, c.relkind IN ('S', 'f') OR c.relpersistence <> 'p', calls.list, uses.list \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN calls ON calls.of = c.oid LEFT JOIN uses ON uses.of = c.oid \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// Volatile code where no statement names it: operators, casts, types and their checks.
const HIDDEN: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode \
         WHERE o.oid >= 16384 AND p.provolatile = 'v') \
     OR EXISTS (SELECT FROM pg_catalog.pg_cast k JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc \
         WHERE k.oid >= 16384 AND p.provolatile = 'v') \
     OR EXISTS (SELECT FROM pg_catalog.pg_type t JOIN pg_catalog.pg_proc p ON p.oid IN (t.typinput, t.typoutput) \
         WHERE t.oid >= 16384 AND p.oid >= 16384 AND p.provolatile = 'v') \
     OR EXISTS (SELECT FROM pg_catalog.pg_constraint k, \
         pg_catalog.regexp_matches(k.conbin::text, ':(?:funcid|opfuncid) (\\d+)', 'g') m \
         JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid WHERE k.contypid <> 0 AND p.provolatile = 'v')";

/// What statements may use and still be reads.
#[derive(Debug, Default)]
pub struct Readable {
    /// Tells this state apart from every other.
    pub id: u64,
    /// The catalog was read, and has nothing that hides code from statements.
    known: bool,
    /// Functions by name: whether all of that name are harmless.
    functions: HashMap<String, bool>,
    /// Relations by name: whether all of that name are harmless.
    relations: HashMap<String, bool>,
    /// Names of functions that users defined and that are not harmless.
    dubious: HashSet<String>,
}

impl Readable {
    /// Whether anything can be proven at all.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Whether all functions that a call may mean are harmless.
    pub fn has_function(&self, schema: Option<&str>, name: &str) -> bool {
        if !self.known {
            return false;
        }
        match self.functions.get(name) {
            Some(harmless) => *harmless,
            // What looks like a function in the text, but is syntax: coalesce, extract.
            None => route::is_steady_builtin(name) && matches!(schema, None | Some("pg_catalog")),
        }
    }

    /// Whether a relation is harmless.
    pub fn has_relation(&self, schema: Option<&str>, name: &str) -> bool {
        let systems = |name: &str| name.starts_with("pg_") || name == "information_schema";
        !systems(name) && !schema.is_some_and(systems) && self.relations.get(name) == Some(&true)
    }

    /// Whether a name may be a function that is not harmless, however it is called (`row.function` is a call too).
    pub fn is_dubious(&self, name: &str) -> bool {
        self.dubious.contains(name)
    }

    /// Whether this says the same as another.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.known == other.known && self.functions == other.functions && self.relations == other.relations
    }
}

/// Reads what is harmless from a server, which should be the primary.
///
/// # Errors
/// Why it could not be read.
pub async fn read(target: &ServerTarget) -> Result<Readable, String> {
    let link = connect(target).await.map_err(|error| error.message)?;
    let mut dialogue = Dialogue::new(link.stream);
    let why = |unanswered| match unanswered {
        Unanswered::Refused(reason) => reason,
        Unanswered::Lost => "the connection was lost".to_owned(),
    };
    let functions = ask(&mut dialogue, FUNCTIONS).await.map_err(why)?;
    let relations = ask(&mut dialogue, RELATIONS).await.map_err(why)?;
    let hidden = ask(&mut dialogue, HIDDEN).await.map_err(why)?;
    let _ = dialogue.send(b"X\0\0\0\x04").await;
    if is_true(hidden.first(), 0) {
        tracing::warn!(
            server = ?target,
            "an operator, cast, type or domain of this database uses a volatile function: no read can be proven, all go \
             to the primary"
        );
        return Ok(Readable::default());
    }
    Ok(judge(&functions, &relations))
}

fn text(row: &Row, at: usize) -> &str {
    row.get(at).and_then(|value| value.as_deref()).unwrap_or_default()
}

fn is_true(row: Option<&Row>, at: usize) -> bool {
    row.is_none_or(|row| text(row, at) == "t")
}

fn judge(functions: &[Row], relations: &[Row]) -> Readable {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut readable = Readable { id: NEXT.fetch_add(1, Ordering::Relaxed), known: true, ..Readable::default() };
    let mut harmless_oids: HashSet<&str> = HashSet::new();
    for row in functions {
        let name = text(row, 1);
        let built_in = is_true(Some(row), 2);
        let harmless = if built_in { route::is_steady_builtin(name) } else { !is_true(Some(row), 3) };
        if harmless {
            harmless_oids.insert(text(row, 0));
        } else if !built_in {
            readable.dubious.insert(name.to_owned());
        }
        *readable.functions.entry(name.to_owned()).or_insert(true) &= harmless;
    }
    let list = |row: &'_ Row, at: usize| -> Vec<String> {
        text(row, at).split(',').filter(|oid| !oid.is_empty() && *oid != "0").map(str::to_owned).collect()
    };
    // A relation is harmless when all that it uses is; what is used and not listed is the system's.
    let mut good: HashMap<&str, Vec<String>> = HashMap::new();
    for row in relations {
        let calls = list(row, 3).iter().all(|oid| harmless_oids.contains(oid.as_str()));
        if calls && !is_true(Some(row), 2) {
            good.insert(text(row, 0), list(row, 4));
        }
    }
    loop {
        let before = good.len();
        let oids: HashSet<&str> = good.keys().copied().collect();
        good.retain(|own, uses| uses.iter().all(|oid| oid == own || oids.contains(oid.as_str())));
        if good.len() == before {
            break;
        }
    }
    for row in relations {
        *readable.relations.entry(text(row, 1).to_owned()).or_insert(true) &= good.contains_key(text(row, 0));
    }
    readable
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn row(values: &[&str]) -> Row {
        values.iter().map(|value| Some((*value).to_owned())).collect()
    }

    /// A small database.
    pub fn sample() -> Readable {
        let functions = [
            row(&["1", "lower", "t", "f"]),
            row(&["2", "nextval", "t", "t"]),
            row(&["3", "steady", "f", "f"]),
            row(&["4", "shaky", "f", "t"]),
            row(&["5", "overloaded", "f", "f"]),
            row(&["6", "overloaded", "f", "t"]),
            row(&["7", "random", "t", "t"]),
            row(&["8", "count", "t", "f"]),
        ];
        let relations = [
            row(&["10", "t", "f", "", ""]),
            row(&["11", "v", "f", "1,3", "10,11"]),
            row(&["12", "shaky_view", "f", "4", "10"]),
            row(&["13", "over_shaky_view", "f", "", "12"]),
            row(&["14", "s", "t", "", ""]),
            row(&["15", "partitioned", "f", "", "16,10"]),
            row(&["16", "unlogged_part", "t", "", ""]),
            row(&["17", "over_system_view", "f", "", "1259"]),
            row(&["18", "twice", "f", "", ""]),
            row(&["19", "twice", "t", "", ""]),
        ];
        judge(&functions, &relations)
    }

    #[test]
    fn harm_spreads_to_what_uses_it() {
        let readable = sample();
        for name in ["t", "v"] {
            assert!(readable.has_relation(None, name), "{name}");
        }
        for name in
            ["shaky_view", "over_shaky_view", "s", "partitioned", "over_system_view", "twice", "new", "pg_class"]
        {
            assert!(!readable.has_relation(None, name), "{name}");
        }
        assert!(!readable.has_relation(Some("pg_catalog"), "t"));
        for (name, harmless) in [("lower", true), ("steady", true), ("coalesce", true)] {
            assert_eq!(readable.has_function(None, name), harmless, "{name}");
        }
        for name in ["nextval", "shaky", "overloaded", "random", "unheard_of"] {
            assert!(!readable.has_function(None, name), "{name}");
        }
        assert!(readable.is_dubious("shaky") && !readable.is_dubious("random"));
        assert!(!Readable::default().is_known());
    }
}
