//! What may be routed at all.

use crate::route::context::{Context, Use, table_name};
use crate::route::plan::{Route, TemplatePlan};
use crate::sql::catalog::TableKind;
use crate::sql::facts::{Relation, RelationSource, StatementKind};
use crate::sql::parse::tables_mentioned;

/// BEGIN, COMMIT, SET, DEALLOCATE and their like are executed by the proxy, which keeps the shards' transactions, settings
/// and prepared statements alike.
pub(super) fn control(context: &Context<'_>) -> Option<TemplatePlan> {
    let is_control = matches!(context.facts.kind, StatementKind::Transaction | StatementKind::Session)
        || context.facts.command.starts_with("DEALLOCATE");
    is_control.then(|| context.fixed("control", Route::Control))
}

/// A statement that was not fully understood proves nothing.
pub(super) fn not_understood(context: &Context<'_>) -> Option<TemplatePlan> {
    let why = context.facts.unknown.as_ref()?;
    // DDL is sent whole to all shards, and the rules for DDL ask its text again; without a tree it must
    // not even name a table that lies on shards.
    if context.facts.kind == StatementKind::Ddl && (context.reading.is_parsed || !names_known_table(context)) {
        return None;
    }
    let hint = "write the clause another way, or send the statement to a shard directly";
    Some(context.refuse("not-understood", None, format!("the statement was not fully understood: {why}"), hint))
}

fn names_known_table(context: &Context<'_>) -> bool {
    let Some(names) = tables_mentioned(context.around.sql) else { return true };
    names.iter().any(|mentioned| context.topology.tables.keys().any(|table| table.name == mentioned.name))
}

/// Unqualified names mean what the catalog's search_path says. Under another one they may mean other tables.
pub(super) fn search_path(context: &Context<'_>) -> Option<TemplatePlan> {
    if context.reading.default_path {
        return None;
    }
    let unqualified = |relation: &&Relation| matches!(&relation.source, RelationSource::Table { schema: None, .. });
    let relation = context.facts.relations.iter().find(unqualified)?;
    Some(context.refuse(
        "search-path",
        Some(relation.span),
        format!("search_path was changed, so that {} may be another table", table_name(relation)),
        "write the table's schema, or leave search_path as it is",
    ))
}

/// Statements whose effect over several shards is not worked out in this version.
pub(super) fn unsupported(context: &Context<'_>) -> Option<TemplatePlan> {
    let facts = context.facts;
    if facts.kind != StatementKind::Other || facts.command == "DECLARE" || facts.writes_in_cte {
        return None;
    }
    let reason = format!("{} is not available in a sharded database yet", facts.command);
    Some(context.refuse("unsupported", None, reason, "send it to a shard directly"))
}

/// A table that the configuration does not name could lie anywhere.
pub(super) fn unlisted_table(context: &Context<'_>) -> Option<TemplatePlan> {
    let (_, relation, _) = context.relations().find(|(_, _, used)| matches!(used, Use::Unlisted))?;
    let name = table_name(relation);
    let hint = format!("add `{name}` to `sharding.tables`, `sharding.reference` or `sharding.local` of the database");
    let reason = format!("the configuration does not say how {name} lies on the shards");
    Some(context.refuse("unlisted-table", Some(relation.span), reason, hint))
}

/// A sharded table that does not exist, whose key cannot place rows, or that promises more than shards can keep.
pub(super) fn unusable_table(context: &Context<'_>) -> Option<TemplatePlan> {
    context.relations().find_map(|(_, relation, used)| match used {
        Use::Sharded(sharded) => {
            let (what, hint) = sharded.placed.as_ref().err()?;
            Some(context.refuse("unusable-table", Some(relation.span), what.clone(), hint.clone()))
        }
        Use::Reference | Use::Local(_) => {
            let RelationSource::Table { table, .. } = &relation.source else { return None };
            let found = table.map(|id| context.topology.catalog.table(id).kind);
            let what = match found {
                Some(TableKind::Table | TableKind::Partitioned) => return None,
                Some(_) => "is a view or a foreign table, which may read anything",
                None => "does not exist",
            };
            let name = table_name(relation);
            let hint = "create the table through the proxy first, or correct the configuration";
            Some(context.refuse("unusable-table", Some(relation.span), format!("{name} {what}"), hint))
        }
        _ => None,
    })
}
