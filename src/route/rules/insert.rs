//! INSERT into a sharded or a local table.

use crate::route::constant::Choice;
use crate::route::context::{Context, Use, table_name};
use crate::route::infer::{Key, Knowledge, is_placed, type_of};
use crate::route::plan::{Action, Occurrence, Pin, TemplatePlan};
use crate::route::topology::{Placed, Sharded};
use crate::sql::catalog::Table;
use crate::sql::facts::{InsertFacts, Operand, Projection, Relation, RelationId, ScopeId};

use super::key::occurrence;

/// A row belongs on the shard of its key, so the statement goes there when all of its rows do, and when all that it reads
/// lies there too. The key must be a constant: a value that the server computes would come too late.
pub(super) fn insert(context: &Context<'_>) -> Option<TemplatePlan> {
    let facts = context.facts.insert.as_ref()?;
    let (target, relation, used) = context.target()?;
    let (rule, mut occurrences) = match used {
        Use::Local(shard) => {
            let local = Occurrence { name: table_name(relation), span: relation.span, pins: vec![Pin::Local(*shard)] };
            ("insert-local", vec![local])
        }
        Use::Sharded(sharded) => {
            let rule = if facts.query.is_some() { "insert-select" } else { "insert-by-key" };
            match stored(context, relation, sharded, facts) {
                Ok(occurrences) => (rule, occurrences),
                Err((span, reason, hint)) => return Some(context.refuse(rule, Some(span), reason, hint)),
            }
        }
        _ => return None,
    };
    for (id, read, used) in context.relations().filter(|(id, _, used)| *id != target && is_placed(used)) {
        match occurrence(context, id, read, used) {
            Ok(occurrence) => occurrences.push(occurrence),
            Err(refusal) => return Some(*refusal),
        }
    }
    Some(context.plan(rule, Action::ByKey(occurrences)))
}

/// The key of each row of VALUES, where all are constants.
pub(super) fn row_occurrences(
    context: &Context<'_>,
    relation: &Relation,
    sharded: &Sharded,
    facts: &InsertFacts,
) -> Option<Vec<Occurrence>> {
    let placed = sharded.placed.as_ref().ok()?;
    let position = key_position(table_of(context, relation)?, sharded, facts)?;
    let one = |row: &Vec<Option<Operand>>| {
        let value = row.get(position)?.as_ref()?;
        let choice = Choice::of(value, placed.key, &context.around).ok().filter(|choice| *choice != Choice::Null)?;
        Some(Occurrence {
            name: table_name(relation),
            span: value.span(),
            pins: vec![pin(sharded, placed, vec![choice])],
        })
    };
    facts.rows.iter().map(one).collect()
}

pub(super) fn key_position(table: &Table, sharded: &Sharded, facts: &InsertFacts) -> Option<usize> {
    match &facts.columns {
        Some(columns) => columns.iter().position(|column| *column == sharded.key),
        None => table.columns.iter().position(|column| column.name == sharded.key),
    }
}

type Reason = (crate::sql::facts::Span, String, String);

/// One occurrence for each row's key.
fn stored(
    context: &Context<'_>,
    relation: &Relation,
    sharded: &Sharded,
    facts: &InsertFacts,
) -> Result<Vec<Occurrence>, Reason> {
    let because = |reason: String, hint: &str| (relation.span, reason, hint.to_owned());
    let (Ok(placed), Some(table)) = (&sharded.placed, table_of(context, relation)) else {
        return Err(because(format!("{} is not in the catalog", sharded.name), "create it through the proxy first"));
    };
    let supply = format!("give {} as a constant", sharded.key);
    if facts.default_values {
        return Err(because(format!("DEFAULT VALUES gives no value for the sharding key {}", sharded.key), &supply));
    }
    let Some(position) = key_position(table, sharded, facts) else {
        return Err(because(format!("the sharding key {} is not among the columns", sharded.key), &supply));
    };
    if let Some(scope) = facts.query {
        return selected(context, relation, sharded, placed, scope, position).map(|occurrence| vec![occurrence]);
    }
    let mut occurrences = Vec::new();
    for row in &facts.rows {
        let Some(Some(value)) = row.get(position) else {
            return Err(because(format!("a row has no value for the sharding key {}", sharded.key), &supply));
        };
        let choice = match Choice::of(value, placed.key, &context.around) {
            Ok(Choice::Null) => Err("it is NULL".to_owned()),
            other => other,
        };
        let choice = choice.map_err(|why| {
            (
                value.span(),
                format!("the sharding key {} of a row does not say where it belongs: {why}", sharded.key),
                supply.clone(),
            )
        })?;
        let occurrence = Occurrence {
            name: table_name(relation),
            span: value.span(),
            pins: vec![pin(sharded, placed, vec![choice])],
        };
        // Rows of one key need one look only.
        if occurrences.last().is_none_or(|last: &Occurrence| !same_choice(last, &occurrence)) {
            occurrences.push(occurrence);
        }
    }
    Ok(occurrences)
}

fn same_choice(a: &Occurrence, b: &Occurrence) -> bool {
    match (a.pins.as_slice(), b.pins.as_slice()) {
        ([Pin::Key { choices: a, .. }], [Pin::Key { choices: b, .. }]) => a == b,
        _ => false,
    }
}

fn pin(sharded: &Sharded, placed: &Placed, choices: Vec<Choice>) -> Pin {
    Pin::Key {
        column: sharded.key.clone(),
        key: placed.key,
        placement: placed.placement.clone(),
        choices,
        stored: true,
    }
}

/// INSERT .. SELECT: the selected key is a constant, or a column that equals one in every row. A column from an
/// outer join's nullable side may be NULL in spite of what its block says of it.
fn selected(
    context: &Context<'_>,
    relation: &Relation,
    sharded: &Sharded,
    placed: &Placed,
    scope: ScopeId,
    position: usize,
) -> Result<Occurrence, Reason> {
    let because = |reason: &str| {
        let hint = format!(
            "let the SELECT give {} as a constant or as a column that its WHERE clause sets equal to one",
            sharded.key
        );
        (relation.span, format!("the key of the rows that are inserted is not known: {reason}"), hint)
    };
    if !context.facts.set_operations.is_empty() {
        return Err(because("the rows come from a set operation"));
    }
    let projection = context.facts.scopes.get(scope.0).map(|scope| scope.projection.as_slice()).unwrap_or_default();
    if projection.iter().any(|item| !matches!(item, Projection::Item { .. })) {
        return Err(because("the SELECT list has a star"));
    }
    let Some(Projection::Item { value, .. }) = projection.get(position) else {
        return Err(because("the SELECT list is shorter than the column list"));
    };
    let pins = match value {
        Operand::Column(column) => {
            let source = type_of(context, column).filter(|(_, key)| key.is_comparable_with(placed.key));
            let Some((source, _)) = source.filter(|(source, _)| !is_nullable(context, *source)) else {
                return Err(because("the column is of another type, or NULL in some rows"));
            };
            let key = Key { column: &column.name, key: placed.key, placement: placed.placement.clone() };
            let found = Knowledge::of(context, scope).pins(source, &key, false);
            let choices = found.into_iter().find_map(|pin| match pin {
                Pin::Key { choices, .. } => Some(choices),
                Pin::Local(_) => None,
            });
            vec![pin(sharded, placed, choices.ok_or_else(|| because("the column equals no constant"))?)]
        }
        value => {
            let choice = Choice::of(value, placed.key, &context.around).map_err(|why| because(&why))?;
            vec![pin(sharded, placed, vec![choice])]
        }
    };
    Ok(Occurrence { name: table_name(relation), span: value.span(), pins })
}

fn is_nullable(context: &Context<'_>, relation: RelationId) -> bool {
    context.facts.relations.get(relation.0).is_none_or(|relation| relation.nullable)
}

/// The catalog's table of a relation.
pub(super) fn table_of<'a>(context: &'a Context<'_>, relation: &Relation) -> Option<&'a Table> {
    match &relation.source {
        crate::sql::facts::RelationSource::Table { table: Some(id), .. } => Some(context.topology.catalog.table(*id)),
        _ => None,
    }
}
