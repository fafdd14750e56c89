//! The rules, in the order in which they are asked. The first that has an answer decides.
//!
//! Refusing rules come first: what they let through is understood, touches known tables only, and calls known
//! functions only. Each rule's doc comment holds its proof.

mod admission;
mod any;
mod clauses;
mod collect;
mod copy;
mod cursor;
mod ddl;
mod fold;
mod functions;
mod generated;
mod insert;
mod key;
mod moments;
mod moved;
mod nested;
mod origin;
mod reference;
pub(super) mod scatter;
mod selected;
mod spread;

use super::context::Context;
use super::plan::TemplatePlan;

/// A rule's function.
type Rule = fn(&Context<'_>) -> Option<TemplatePlan>;

/// All rules, in order.
const RULES: &[Rule] = &[
    admission::control,
    cursor::of_cursor,
    ddl::unread_maintenance,
    admission::not_understood,
    admission::search_path,
    ddl::on_system_tables,
    ddl::definition,
    ddl::maintenance,
    admission::unsupported,
    admission::unlisted_table,
    admission::unusable_table,
    functions::unknown_function,
    any::catalog,
    any::mixed_catalog,
    any::no_table,
    nested::merge,
    nested::writes_in_with,
    moved::key_update,
    generated::generated,
    copy::copy,
    cursor::declare,
    spread::insert,
    selected::insert_select,
    insert::insert,
    reference::write,
    any::reference_read,
    scatter::concat,
    collect::collect,
    spread::spread,
    key::by_key,
];

/// Names that a printed plan may give as the rule that decided, for the test that all of them occur.
pub const NAMES: &[&str] = &[
    "control",
    "not-understood",
    "search-path",
    "ddl",
    "ddl-refused",
    "maintenance",
    "unsupported",
    "unlisted-table",
    "unusable-table",
    "unknown-function",
    "catalog",
    "mixed-catalog",
    "no-table",
    "key-update",
    "generated",
    "insert-by-key",
    "insert-select",
    "insert-local",
    "merge",
    "writes-in-with",
    "reference-write",
    "reference-read",
    "scatter-rows",
    "merge-rows",
    "collect-rows",
    "fold-groups",
    "copy",
    "cursor",
    "spread-write",
    "spread-rows",
    "spread-select",
    "key-equality",
    "several-shards",
];

/// The plan of a statement.
pub(super) fn decide(context: &Context<'_>) -> TemplatePlan {
    RULES.iter().find_map(|rule| rule(context)).unwrap_or_else(|| {
        context.refuse("not-understood", None, "no rule covers this statement", "simplify the statement")
    })
}
