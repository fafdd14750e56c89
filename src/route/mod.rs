//! The router: a pure function from a template and its bindings to a plan.
//!
//! ```text
//! statement -> facts -> context (what each table is) -> the first rule that decides -> TemplatePlan    once per template
//! TemplatePlan + constants and parameters -> key -> hash -> bucket -> shard -> Route                   each execution
//! ```
//!
//! Prove or refuse: a statement goes where it is *proven* to be answered as one database with all rows would, or it is
//! refused with the reason and what to write instead. It knows shards by number and name, never hosts, sockets or time.

pub mod buckets;
pub mod collect;
mod constant;
mod context;
pub mod copy;
mod definition;
pub mod fold;
mod functions;
mod hash;
mod infer;
mod key;
pub mod merge;
mod misplaced;
mod placement;
mod plan;
mod print;
mod rules;
pub mod spread;
mod time;
mod topology;
mod views;
mod words;

pub use collect::Collect;
pub use fold::Fold;
pub use key::{KeyType, KeyValue, Written};
pub use merge::Merge;
pub use misplaced::Question;
pub use placement::{Placement, ShardId};
pub use plan::{Bindings, MAX_SHARDS, Parameter, Refusal, Route, Shards, TemplatePlan, names_the_present};
pub use rules::NAMES as RULE_NAMES;
pub use spread::{Filled, Moved, Spread};
pub use topology::{Placed, Sharded, TableUse, Topology};
pub use views::{expand, expand_refused};

use crate::sql::facts::{self, Facts};
use crate::sql::parse;
use crate::sql::template::Binding;

/// What a plan depends on besides the statement and the catalog. Part of the key under which plans are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionFacts {
    /// `search_path` is as it was when the catalog was read.
    pub default_search_path: bool,
    /// `standard_conforming_strings` is on.
    pub standard_conforming_strings: bool,
    /// `client_encoding` is UTF8.
    pub utf8: bool,
}

impl Default for SessionFacts {
    fn default() -> Self {
        Self { default_search_path: true, standard_conforming_strings: true, utf8: true }
    }
}

/// Plans one statement.
///
/// `constants` are its literals and parameters in order, as the template's scanner gives them: the plan speaks
/// of a constant by its index there, so that it serves every statement of the same template.
pub fn plan(sql: &str, constants: &[Binding], topology: &Topology, session: SessionFacts) -> TemplatePlan {
    let around = constant::Surroundings {
        sql,
        constants,
        standard_strings: session.standard_conforming_strings,
        utf8: session.utf8,
    };
    let parsed = match parse::parse(sql) {
        // The parser takes backslashes in plain strings for themselves.
        Ok(_) if !session.standard_conforming_strings && sql.contains('\\') => {
            Err("a backslash while standard_conforming_strings is off".to_owned())
        }
        Ok(parsed) => Ok(parsed),
        Err(unparsed) => Err(unparsed.reason),
    };
    let (facts, is_parsed) = match parsed {
        Ok(parsed) => (facts::facts(&parsed, topology.catalog()), true),
        Err(reason) => (unparsed_facts(sql, reason), false),
    };
    let context = context::Context::new(
        &facts,
        topology,
        around,
        context::Reading { is_parsed, default_path: session.default_search_path },
    );
    rules::decide(&context)
}

/// Whether a function of PostgreSQL's own reads nothing but its arguments and the transaction, and writes nothing. What tells of
/// settings and roles may have another answer on another server.
pub fn is_steady_builtin(name: &str) -> bool {
    let of_server = ["current_role", "current_setting", "current_user", "session_user", "user"].contains(&name);
    !of_server
        && matches!(
            functions::steadiness(None, name),
            Some(functions::Steadiness::Immutable | functions::Steadiness::Stable)
        )
}

/// What is known of a statement without a tree: its command. `unknown` keeps it from being taken for more.
fn unparsed_facts(sql: &str, reason: String) -> Facts {
    let (kind, command) = parse::classify(sql);
    Facts {
        kind,
        command,
        scopes: Vec::new(),
        relations: Vec::new(),
        predicates: Vec::new(),
        assignments: Vec::new(),
        other_inserts: Vec::new(),
        insert: None,
        copy: None,
        functions: Vec::new(),
        parameters: 0,
        set_operations: Vec::new(),
        returning: false,
        writes_in_cte: false,
        unknown: Some(reason),
    }
}

/// Constants of a statement that stand in its text, and parameters as text: for `explain` and the simple protocol.
#[derive(Debug, Clone, Copy)]
pub struct TextBindings<'a> {
    /// The statement.
    pub sql: &'a str,
    /// Its constants and parameters, in order.
    pub constants: &'a [Binding],
    /// `$1`, `$2`, ... in text form; `None` is NULL.
    pub parameters: &'a [Option<String>],
}

impl Bindings for TextBindings<'_> {
    fn constant(&self, index: usize) -> Option<&str> {
        let binding = self.constants.get(index)?;
        self.sql.get(binding.start as usize..binding.end as usize)
    }

    fn parameter(&self, number: u32) -> Option<Parameter<'_>> {
        let value = self.parameters.get((number as usize).checked_sub(1)?)?;
        Some(Parameter { type_oid: 0, binary: false, value: value.as_deref().map(str::as_bytes) })
    }
}

#[cfg(test)]
mod tests;
