//! Statements that one shard answers because of the keys they name.

use crate::route::context::{Context, Use, table_name};
use crate::route::infer::{Key, Knowledge, is_placed, near_miss};
use crate::route::plan::{Action, Occurrence, Pin, TemplatePlan};
use crate::sql::facts::{Relation, RelationId};

/// Every occurrence of a table that lies on shards has its rows that matter on the same one shard: then that shard, which
/// has all reference tables too, computes what one database with all rows would.
///
/// Pins come from [`Knowledge`]; that they come down to one shard is found for each execution's constants.
pub(super) fn by_key(context: &Context<'_>) -> Option<TemplatePlan> {
    let mut occurrences = Vec::new();
    for (id, relation, used) in context.relations().filter(|(_, _, used)| is_placed(used)) {
        match occurrence(context, id, relation, used) {
            Ok(occurrence) => occurrences.push(occurrence),
            Err(refusal) => return Some(*refusal),
        }
    }
    // Reference tables alone are another rule's; written next to sharded ones they would change on one shard only.
    if let Some((_, target, Use::Reference)) = context.target() {
        let hint = "read the rows first, then write the reference table in a statement of its own";
        let reason = format!("it writes the reference table {} from rows of one shard", table_name(target));
        return Some(context.refuse("reference-write", Some(target.span), reason, hint));
    }
    Some(context.plan("key-equality", Action::ByKey(occurrences)))
}

/// An occurrence with its pins, or the refusal that says why there are none.
pub(super) fn occurrence(
    context: &Context<'_>,
    id: RelationId,
    relation: &Relation,
    used: &Use,
) -> Result<Occurrence, Box<TemplatePlan>> {
    let name = relation.alias.clone().unwrap_or_else(|| table_name(relation));
    let sharded = match used {
        Use::Sharded(sharded) => sharded,
        Use::Local(shard) => {
            return Ok(Occurrence { name, span: relation.span, pins: vec![Pin::Local(*shard)] });
        }
        _ => return Ok(Occurrence { name, span: relation.span, pins: Vec::new() }),
    };
    let Ok(placed) = &sharded.placed else {
        return Err(Box::new(context.refuse("unusable-table", Some(relation.span), "the table cannot be used", "")));
    };
    let key = Key { column: &sharded.key, key: placed.key, placement: placed.placement.clone() };
    let pins = Knowledge::of(context, relation.scope).pins(id, &key, true);
    if !pins.is_empty() {
        return Ok(Occurrence { name, span: relation.span, pins });
    }
    let hint = format!("add `{name}.{} = <constant>` to the WHERE clause that reads it", sharded.key);
    let (span, reason) = match near_miss(context, id, &sharded.key, placed.key) {
        Some((predicate, why)) => {
            let clause = predicate.span.of(context.around.sql).split_whitespace().collect::<Vec<_>>().join(" ");
            (predicate.span, format!("`{clause}` does not say on which shard the rows of {name} lie: {why}"))
        }
        None => (relation.span, format!("nothing says on which shard the rows of {name} lie")),
    };
    Err(Box::new(context.refuse("key-equality", Some(span), reason, hint)))
}
