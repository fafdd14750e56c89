//! Statements that any one shard can answer.

use crate::route::context::{Context, Use};
use crate::route::functions::Steadiness;
use crate::route::plan::{Route, TemplatePlan};
use crate::route::rules::functions::counts;

/// System catalogs and the server's own state: the first shard answers for the database, as the documentation says.
pub(super) fn catalog(context: &Context<'_>) -> Option<TemplatePlan> {
    let reads_system = context.relations().any(|(_, _, used)| matches!(used, Use::System));
    let only_system = context.relations().all(|(_, _, used)| matches!(used, Use::System | Use::Nothing));
    let asks_server = context
        .facts
        .functions
        .iter()
        .any(|call| context.steadiness(call) == Some(Steadiness::Server) || counts(context, call));
    if !(only_system && (reads_system || asks_server)) {
        return None;
    }
    if context.writes() {
        let hint = "send the statement to a shard directly";
        return Some(context.refuse("mixed-catalog", None, "it writes to a system catalog", hint));
    }
    Some(context.fixed("catalog", Route::Catalog))
}

/// Catalogs describe one shard; joined with rows the answer would be neither one shard's nor the database's.
pub(super) fn mixed_catalog(context: &Context<'_>) -> Option<TemplatePlan> {
    let (_, relation, _) = context.relations().find(|(_, _, used)| matches!(used, Use::System))?;
    let hint = "read the catalog in a statement of its own";
    Some(context.refuse(
        "mixed-catalog",
        Some(relation.span),
        "a system catalog is read together with user tables",
        hint,
    ))
}

/// Without a table every shard computes the same, up to volatile functions, whose answer is theirs to choose.
pub(super) fn no_table(context: &Context<'_>) -> Option<TemplatePlan> {
    let no_table = context.relations().all(|(_, _, used)| matches!(used, Use::Nothing));
    (no_table && !context.writes()).then(|| context.fixed("no-table", Route::Any))
}

/// Each shard has all rows of reference tables, so each one's answer is the whole answer. A row lock would be held on
/// one shard only and exclude nobody on another.
pub(super) fn reference_read(context: &Context<'_>) -> Option<TemplatePlan> {
    let only_reference = context.relations().all(|(_, _, used)| matches!(used, Use::Reference | Use::Nothing));
    if !only_reference || context.writes() {
        return None;
    }
    if let Some(scope) = context.facts.scopes.iter().find(|scope| scope.locking.is_some()) {
        let hint = "leave FOR UPDATE out, or lock a row of a sharded table";
        let reason = "a lock on a reference table's row would be held on one shard only";
        return Some(context.refuse("reference-read", Some(scope.span), reason, hint));
    }
    Some(context.fixed("reference-read", Route::Any))
}
