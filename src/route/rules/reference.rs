//! Writes to reference tables, which every shard executes for itself.

use crate::route::context::{Context, Use, table_name};
use crate::route::functions::Steadiness;
use crate::route::plan::{Route, TemplatePlan};
use crate::sql::catalog::Column;
use crate::sql::facts::StatementKind;

use super::insert::table_of;

/// Shards with equal rows that execute the same statement end with equal rows, when its outcome depends on the rows and
/// its constants alone: it reads reference tables only, calls immutable functions only, takes no rows whose choice is
/// left to the server (LIMIT, DISTINCT ON, SKIP LOCKED, an order inside aggregates or windows), and fills no column from
/// a default that differs from shard to shard.
pub(super) fn write(context: &Context<'_>) -> Option<TemplatePlan> {
    let (_, target, used) = context.target()?;
    let Use::Reference = used else { return None };
    if !context.relations().all(|(_, _, used)| matches!(used, Use::Reference | Use::Nothing)) {
        return None; // The rule for keys says why not.
    }
    let refuse = |span, reason: String, hint: &str| Some(context.refuse("reference-write", span, reason, hint));
    if context.facts.kind == StatementKind::Explain {
        return refuse(
            None,
            "EXPLAIN of a write that every shard executes".to_owned(),
            "explain it on a shard directly",
        );
    }
    let unsteady = context.facts.functions.iter().find(|call| context.steadiness(call) != Some(Steadiness::Immutable));
    if let Some(call) = unsteady {
        let reason = format!(
            "{} would give another value on each shard, and the copies of {} would differ",
            call.name,
            table_name(target)
        );
        return refuse(Some(call.span), reason, "compute the value in the application and send it as a constant");
    }
    for scope in &context.facts.scopes {
        let chosen = scope.limit.is_some() || scope.offset.is_some() || scope.distinct_on || scope.locking.is_some();
        if chosen || scope.aggregate || scope.window {
            let reason = "which rows or in which order is left to each shard, and the copies could differ".to_owned();
            return refuse(Some(scope.span), reason, "read the rows first and write them as constants");
        }
    }
    if let Some(facts) = &context.facts.insert {
        let Some(table) = table_of(context, target) else {
            return refuse(
                Some(target.span),
                "the table is not in the catalog".to_owned(),
                "create it through the proxy",
            );
        };
        let given = |index: usize, column: &Column| match &facts.columns {
            Some(columns) => columns.iter().position(|name| *name == column.name),
            None => Some(index),
        };
        let filled = |at: Option<usize>| match at {
            None => false,
            Some(at) if facts.query.is_none() => facts.rows.iter().all(|row| row.get(at).is_some_and(Option::is_some)),
            Some(_) => true,
        };
        for (index, column) in table.columns.iter().enumerate() {
            if (facts.default_values || !filled(given(index, column))) && !has_steady_default(column) {
                let reason = format!(
                    "{} would be filled by each shard for itself, and the copies of {} would differ",
                    column.name,
                    table_name(target)
                );
                return refuse(Some(target.span), reason, "give the column a value in the statement");
            }
        }
    }
    if !matches!(context.facts.kind, StatementKind::Insert | StatementKind::Update | StatementKind::Delete) {
        return None;
    }
    Some(context.fixed("reference-write", Route::All))
}

/// No default, or a plain constant: no call, and none of the words that stand for one.
fn has_steady_default(column: &Column) -> bool {
    match &column.default {
        None => !column.generated && !column.type_name.contains("serial"),
        Some(default) => {
            let outside = default.split('\'').step_by(2).collect::<String>().to_lowercase();
            // `'x'::varchar(20)` is the one harmless parenthesis.
            let call = outside.split("::").next().is_some_and(|value| value.contains('('));
            !call && !["current_", "localtime", "session_user", "user"].iter().any(|word| outside.contains(word))
        }
    }
}
