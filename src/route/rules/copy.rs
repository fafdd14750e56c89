//! COPY of tables.

use crate::route::context::{Context, Use, table_name};
use crate::route::copy::{Copy, KeyField};
use crate::route::plan::{Action, Route, TemplatePlan};
use crate::route::rules::insert::table_of;
use crate::route::rules::spread::{Default, default_of};
use crate::route::topology::Sharded;
use crate::sql::catalog::{Table, TableKind};
use crate::sql::facts::{CopyFacts, CopyFormat, Relation, StatementKind};

/// COPY .. FROM STDIN stores each row by itself, as INSERT does: a row goes to the shard of its key's field, a reference table's rows go to all. The data is
/// cut into rows as PostgreSQL cuts it, so options that would change that, or the meaning of a field, are refused.
///
/// COPY table TO STDOUT gives all rows in no particular order: those of one shard after those of another.
pub(super) fn copy(context: &Context<'_>) -> Option<TemplatePlan> {
    let facts = context.facts.copy.as_ref()?;
    let refuse = |reason: &str, hint: &str| Some(context.refuse("copy", None, reason.to_owned(), hint));
    if !facts.by_client {
        return refuse("COPY with a file or a program of a server", "COPY from STDIN or to STDOUT");
    }
    if !context.reading.is_parsed || !context.around.utf8 {
        return refuse("COPY while client_encoding is not UTF8", "SET client_encoding = 'UTF8'");
    }
    let mut relations = context.relations();
    let (Some((_, relation, used)), None) = (relations.next(), relations.next()) else { return of_query(context) };
    if context.facts.scopes.len() > 1 {
        return of_query(context);
    }
    let into = context.facts.kind == StatementKind::CopyFrom;
    if into && facts.other {
        return refuse("an option of COPY that is not understood", "leave FREEZE, FORCE_NULL and the like out");
    }
    if facts.format == CopyFormat::Binary && context.holds_numbers() {
        return refuse(
            "binary COPY of types of users, in which numbers differ from shard to shard",
            "COPY as text or CSV",
        );
    }
    let table = table_of(context, relation)?;
    match used {
        Use::Local(shard) => Some(context.fixed("copy", Route::Single(*shard))),
        Use::Reference if !into => Some(context.fixed("copy", Route::Any)),
        Use::Reference => settled(context, table, facts)
            .map_or_else(|refusal| Some(*refusal), |()| Some(plan(context, facts, into, None))),
        Use::Sharded(_) if !into => {
            // COPY of a partitioned table gives nothing of its partitions.
            let plain = table.kind == TableKind::Table;
            plain.then(|| plan(context, facts, into, None)).or_else(|| {
                refuse("COPY of a partitioned table gives no rows", "COPY (SELECT * FROM it) on each shard")
            })
        }
        Use::Sharded(sharded) => Some(match key_field(context, relation, table, sharded, facts) {
            Ok(key) => plan(context, facts, into, Some(key)),
            Err(refusal) => *refusal,
        }),
        _ => None,
    }
}

fn plan(context: &Context<'_>, facts: &CopyFacts, into: bool, key: Option<KeyField>) -> TemplatePlan {
    context.plan("copy", Action::Copy(Box::new(Copy { form: facts.clone(), into, key })))
}

/// A query that one shard can answer is copied from there.
fn of_query(context: &Context<'_>) -> Option<TemplatePlan> {
    let plan = super::any::reference_read(context).or_else(|| super::key::by_key(context))?;
    let reads = plan.refusal().is_none() && context.facts.kind == StatementKind::CopyTo;
    reads.then_some(plan).or_else(|| {
        let hint = "COPY the table, or name the key of one shard in the query";
        Some(context.refuse("copy", None, "COPY of a query over several shards is not available yet", hint))
    })
}

fn key_field(
    context: &Context<'_>,
    relation: &Relation,
    table: &Table,
    sharded: &Sharded,
    facts: &CopyFacts,
) -> Result<KeyField, Box<TemplatePlan>> {
    let refuse = |reason: String| {
        let hint = format!("give {} in the column list", sharded.key);
        Box::new(context.refuse("copy", Some(relation.span), reason, hint))
    };
    settled(context, table, facts)?;
    let stored: Vec<&str> =
        table.columns.iter().filter(|column| !is_computed(column)).map(|column| column.name.as_str()).collect();
    let columns: Vec<&str> = match &facts.columns {
        Some(columns) => columns.iter().map(String::as_str).collect(),
        None => stored,
    };
    let index = columns.iter().position(|name| *name == sharded.key);
    let index = index.ok_or_else(|| refuse(format!("the rows have no sharding key {}", sharded.key)))?;
    let placed = sharded.placed.as_ref().map_err(|_| refuse(format!("{} cannot be used", table_name(relation))))?;
    Ok(KeyField { index, fields: columns.len(), key: placed.key, placement: placed.placement.clone() })
}

/// GENERATED ALWAYS AS (..) STORED, which COPY leaves out; identity columns it takes.
pub(super) fn is_computed(column: &crate::sql::catalog::Column) -> bool {
    column.generated && column.default.is_some()
}

/// Whether each shard fills in the same for columns that are left out.
fn settled(context: &Context<'_>, table: &Table, facts: &CopyFacts) -> Result<(), Box<TemplatePlan>> {
    let Some(columns) = &facts.columns else { return Ok(()) };
    let left_out = table.columns.iter().filter(|column| !columns.contains(&column.name) && !is_computed(column));
    for column in left_out {
        if !matches!(default_of(column), Default::Settled) {
            let reason = format!("the default of {} may be another one on another shard", column.name);
            return Err(Box::new(context.refuse("copy", None, reason, format!("give {} in the data", column.name))));
        }
    }
    Ok(())
}
