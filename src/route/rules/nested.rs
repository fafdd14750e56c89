//! Statements that write more than one thing: MERGE, and data-modifying statements inside WITH.

use crate::route::collect::Collect;
use crate::route::context::{Context, Use, table_name};
use crate::route::infer::is_placed;
use crate::route::plan::{Action, Occurrence, Pin, TemplatePlan};
use crate::route::rules::generated::{is_given, is_made_up, set_to_default};
use crate::route::rules::insert::{choices, key_position, pin, stored, table_of};
use crate::route::rules::key::occurrence;
use crate::route::rules::origin::{self, Origin};
use crate::route::rules::spread::{Default, are_subqueries_settled, default_of, is_usable, timed};
use crate::route::spread::Spread;
use crate::route::topology::{Placed, Sharded};
use crate::route::words::Words;
use crate::sql::catalog::Table;
use crate::sql::facts::{
    Access, Clause, Comparison, InsertFacts, Operand, Relation, RelationId, ScopeId, StatementKind,
};

/// WITH .. (INSERT, UPDATE, DELETE) on one shard: all that is written and read lies there, by the same proofs as of each statement by itself. All parts
/// see the rows as they were before, on that shard as on the one database.
pub(super) fn writes_in_with(context: &Context<'_>) -> Option<TemplatePlan> {
    if !context.facts.writes_in_cte {
        return None;
    }
    let kind = context.facts.kind;
    let is_known = match kind {
        StatementKind::Insert | StatementKind::Update | StatementKind::Delete => true,
        StatementKind::Other => matches!(&*context.facts.command, "SELECT" | "WITH"),
        _ => false,
    };
    if !is_known {
        let reason = format!("{} with a statement that writes inside WITH", context.facts.command);
        let hint = "send the statements one after the other in a transaction";
        return Some(context.refuse("writes-in-with", None, reason, hint));
    }
    let mut occurrences = Vec::new();
    for (id, relation, used) in context.relations() {
        match of_part(context, id, relation, used) {
            Ok(found) => occurrences.extend(found),
            Err(refusal) => return Some(*refusal),
        }
    }
    Some(context.plan("writes-in-with", Action::ByKey(occurrences)))
}

fn of_part(
    context: &Context<'_>,
    id: RelationId,
    relation: &Relation,
    used: &Use,
) -> Result<Vec<Occurrence>, Box<TemplatePlan>> {
    let hint = "send the statements one after the other in a transaction";
    let refuse = |reason: String| Box::new(context.refuse("writes-in-with", Some(relation.span), reason, hint));
    let sharded = match used {
        Use::Sharded(sharded) => sharded,
        Use::Reference if relation.access == Access::Write => {
            return Err(refuse(format!("it writes the reference table {} beside others", table_name(relation))));
        }
        used if is_placed(used) => return occurrence(context, id, relation, used).map(|one| vec![one]),
        _ => return Ok(Vec::new()),
    };
    if relation.access != Access::Write {
        return occurrence(context, id, relation, used).map(|one| vec![one]);
    }
    let table = table_of(context, relation).ok_or_else(|| refuse("the table is not in the catalog".to_owned()))?;
    check_columns(context, id, sharded, table).map_err(&refuse)?;
    let inner = context.facts.other_inserts.iter().find(|(target, _)| *target == id).map(|(_, facts)| facts);
    let outer = context.facts.insert.as_ref().filter(|_| relation.scope == ScopeId(0));
    let Some(facts) = inner.or(outer) else { return occurrence(context, id, relation, used).map(|one| vec![one]) };
    check_given(context, sharded, table, facts).map_err(&refuse)?;
    stored(context, relation, sharded, facts)
        .map_err(|(span, reason, hint)| Box::new(context.refuse("writes-in-with", Some(span), reason, hint)))
}

/// Neither is the key changed, nor does a shard count for itself.
fn check_columns(context: &Context<'_>, id: RelationId, sharded: &Sharded, table: &Table) -> Result<(), String> {
    let mut assigned = context.facts.assignments.iter().map(|(column, _)| column);
    if assigned.any(|column| column.relation == Some(id) && column.name == sharded.key) {
        return Err(format!("it changes the sharding key {}.{}", sharded.name, sharded.key));
    }
    match set_to_default(context, table).find(|column| is_made_up(sharded, column)) {
        Some(column) => Err(format!("{}.{} would count on each shard for itself", sharded.name, column.name)),
        None => Ok(()),
    }
}

fn check_given(context: &Context<'_>, sharded: &Sharded, table: &Table, facts: &InsertFacts) -> Result<(), String> {
    let mut columns = table.columns.iter().enumerate();
    match columns.find(|(at, column)| is_made_up(sharded, column) && !is_given(context, facts, column, *at)) {
        Some((_, column)) => Err(format!("{}.{} is not given", sharded.name, column.name)),
        None => Ok(()),
    }
}

/// MERGE whose ON condition says of the target's key
/// - that it equals a constant: what it matches lies on that shard, and so does what it inserts, if that has the same key;
/// - that it equals the key of the source, a sharded table that is placed alike: rows that match lie on one shard, a row of the source that matches
///   none on its shard matches none at all, and what is inserted for it belongs there if it has its key. So each shard merges its own rows.
pub(super) fn merge(context: &Context<'_>) -> Option<TemplatePlan> {
    if context.facts.kind != StatementKind::Merge {
        return None;
    }
    let span = context.target().map(|(_, relation, _)| relation.span);
    let hint = "say in ON that the target's sharding key equals a constant, or the key of a table that is sharded alike, and insert that key; \
                or write INSERT .. ON CONFLICT";
    Some(merged(context).unwrap_or_else(|reason| context.refuse("merge", span, reason, hint)))
}

fn merged(context: &Context<'_>) -> Result<TemplatePlan, String> {
    let (id, relation, used) = context.target().ok_or("it has no one target")?;
    let Use::Sharded(sharded) = used else { return Err(format!("{} is no sharded table", table_name(relation))) };
    let placed = sharded.placed.as_ref().map_err(|(what, _)| what.clone())?;
    let table = table_of(context, relation).ok_or("the table is not in the catalog")?;
    if !is_usable(context, relation) {
        return Err("the statement, or the session, is of a form that is not understood over shards".to_owned());
    }
    check_columns(context, id, sharded, table)?;
    for (_, facts) in &context.facts.other_inserts {
        check_given(context, sharded, table, facts)?;
    }
    let other = matched_with(context, id, sharded)
        .ok_or("ON does not compare the target's sharding key with a column or a constant")?;
    let origin =
        origin_of(context, other).ok_or("it is not seen where the value comes from that the key is compared with")?;
    inserts_same(context, &origin, sharded, placed, table)?;
    match choices(context, &origin, sharded, placed) {
        Ok(choices) => on_one(context, id, relation, pin(sharded, placed, choices)),
        Err(why) => {
            on_each(context, (id, relation), &origin, placed, table).map_err(|also| format!("{why}, and {also}"))
        }
    }
}

/// What ON says that the key equals.
fn matched_with<'a>(context: &'a Context<'_>, target: RelationId, sharded: &Sharded) -> Option<&'a Operand> {
    let is_key = |operand: &Operand| {
        operand.column().is_some_and(|column| column.relation == Some(target) && column.name == sharded.key)
    };
    let holds = context.facts.predicates.iter().filter(|one| {
        one.conjunctive && one.scope == ScopeId(0) && one.clause == Clause::OuterOn && one.comparison == Comparison::Eq
    });
    holds.into_iter().find_map(|predicate| match &predicate.right {
        Some(right) if is_key(&predicate.left) => Some(right),
        Some(right) if is_key(right) => Some(&predicate.left),
        _ => None,
    })
}

fn origin_of<'a>(context: &'a Context<'_>, operand: &'a Operand) -> Option<Origin<'a>> {
    match operand {
        Operand::Column(column) => origin::of_column(context, column),
        operand => Some(Origin::Operand(operand)),
    }
}

/// Every row that is inserted has the key that the source's row was compared by.
fn inserts_same(
    context: &Context<'_>,
    origin: &Origin<'_>,
    sharded: &Sharded,
    placed: &Placed,
    table: &Table,
) -> Result<(), String> {
    let is_same = |operand: &Operand| match (origin_of(context, operand), origin) {
        (Some(Origin::Column(one, name)), Origin::Column(other, same)) => one == *other && name == *same,
        (Some(found), _) => {
            let of = |origin: &Origin<'_>| choices(context, origin, sharded, placed).ok();
            of(&found).is_some_and(|found| found.len() == 1 && Some(found) == of(origin))
        }
        (None, _) => false,
    };
    for (_, facts) in &context.facts.other_inserts {
        let at = key_position(table, sharded, facts).ok_or("a row is inserted without its sharding key")?;
        let same = facts.rows.iter().all(|row| matches!(row.get(at), Some(Some(value)) if is_same(value)));
        if !same {
            return Err(format!("a row is inserted with another {} than it was compared by", sharded.key));
        }
    }
    Ok(())
}

fn on_one(context: &Context<'_>, target: RelationId, relation: &Relation, pin: Pin) -> Result<TemplatePlan, String> {
    let mut occurrences = vec![Occurrence { name: table_name(relation), span: relation.span, pins: vec![pin] }];
    for (id, read, used) in context.relations().filter(|(id, _, used)| *id != target && is_placed(used)) {
        match occurrence(context, id, read, used) {
            Ok(occurrence) => occurrences.push(occurrence),
            Err(_) => return Err(format!("nothing says on which shard the rows of {} lie", table_name(read))),
        }
    }
    Ok(context.plan("merge", Action::ByKey(occurrences)))
}

fn on_each(
    context: &Context<'_>,
    (target, relation): (RelationId, &Relation),
    origin: &Origin<'_>,
    placed: &Placed,
    table: &Table,
) -> Result<TemplatePlan, String> {
    let Origin::Column(source, name) = origin else { return Err("it is computed".to_owned()) };
    let mut others = context.relations().filter(|(id, _, used)| *id != target && is_placed(used));
    let (Some((id, read, Use::Sharded(other))), None) = (others.next(), others.next()) else {
        return Err("its source is not one sharded table".to_owned());
    };
    let alike = other.placed.as_ref().is_ok_and(|other| other.is_alike(placed));
    if id != *source || other.key != *name || !alike || read.scope != ScopeId(0) || context.facts.scopes.len() > 1 {
        return Err("the source is not a table that is sharded alike, by the column that is compared".to_owned());
    }
    let words = Words::of(context.around.sql);
    let edits = timed(context, &words).filter(|_| are_subqueries_settled(context) && !words.has("default"));
    let given = |name: &str| {
        let inserts = context.facts.other_inserts.iter();
        inserts.into_iter().all(|(_, facts)| match &facts.columns {
            Some(columns) => columns.iter().any(|column| column == name),
            None => facts.rows.iter().all(|row| row.len() == table.columns.len()),
        })
    };
    let settled = table
        .columns
        .iter()
        .all(|column| column.generated || given(&column.name) || matches!(default_of(column), Default::Settled));
    let edits = edits.filter(|_| settled).ok_or("a default, or a function, could give another value on each shard")?;
    let target = Occurrence { name: table_name(relation), span: relation.span, pins: Vec::new() };
    let mut spread = Spread::of_rows(target, Vec::new(), edits, context.facts.returning);
    spread.collect = Collect::default();
    Ok(context.plan("merge", Action::Spread(Box::new(spread))))
}
