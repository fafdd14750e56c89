//! INSERT into a sharded or a local table.

use crate::route::constant::Choice;
use crate::route::context::{Context, Use, table_name};
use crate::route::infer::{Key, Knowledge, is_placed};
use crate::route::key::KeyType;
use crate::route::plan::{Action, Occurrence, Pin, TemplatePlan};
use crate::route::topology::{Placed, Sharded};
use crate::sql::catalog::Table;
use crate::sql::facts::{InsertFacts, Operand, Relation, ScopeId};

use super::key::occurrence;
use super::origin::{self, Origin};

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

pub(super) type Reason = (crate::sql::facts::Span, String, String);

/// One occurrence for each row's key.
pub(super) fn stored(
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

pub(super) fn pin(sharded: &Sharded, placed: &Placed, choices: Vec<Choice>) -> Pin {
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
    let origin = origin::of_output(context, scope, position);
    let origin = origin.ok_or_else(|| because("it is not seen where the column comes from, or it may be NULL"))?;
    let pins = vec![pin(sharded, placed, choices(context, &origin, sharded, placed).map_err(|why| because(&why))?)];
    Ok(Occurrence { name: table_name(relation), span: origin.span(context), pins })
}

/// The constants of which each value is one.
pub(super) fn choices(
    context: &Context<'_>,
    origin: &Origin<'_>,
    sharded: &Sharded,
    placed: &Placed,
) -> Result<Vec<Choice>, String> {
    let (relation, name) = match origin {
        Origin::Column(relation, name) => (*relation, name),
        Origin::Operand(value) => return Choice::of(value, placed.key, &context.around).map(|choice| vec![choice]),
    };
    let source = context.facts.relations.get(relation.0).ok_or("its table is not known")?;
    let column = table_of(context, source).and_then(|table| table.column(name));
    let kind = column.and_then(|column| KeyType::of_column(column).ok());
    if !kind.is_some_and(|kind| kind.is_comparable_with(placed.key)) {
        return Err(format!("the column {name} is of another type than {}", sharded.key));
    }
    if let Some((_, inserted)) = context.facts.other_inserts.iter().find(|(target, _)| *target == relation) {
        return given(context, source, inserted, name, placed);
    }
    let key = Key { column: name, key: placed.key, placement: placed.placement.clone() };
    let found = Knowledge::of(context, source.scope).pins(relation, &key, false);
    let choices = found.into_iter().find_map(|pin| match pin {
        Pin::Key { choices, .. } => Some(choices),
        Pin::Local(_) => None,
    });
    choices.ok_or_else(|| "the column equals no constant".to_owned())
}

/// The constants that an INSERT of rows gives a column.
fn given(
    context: &Context<'_>,
    target: &Relation,
    facts: &InsertFacts,
    name: &str,
    placed: &Placed,
) -> Result<Vec<Choice>, String> {
    let table = table_of(context, target).ok_or("its table is not known")?;
    let position = match &facts.columns {
        Some(columns) => columns.iter().position(|column| column == name),
        None => table.columns.iter().position(|column| column.name == name),
    };
    let value = |row: &Vec<Option<Operand>>| match position.and_then(|at| row.get(at)) {
        Some(Some(value)) => Choice::of(value, placed.key, &context.around),
        _ => Err("it is not among the values that are inserted".to_owned()),
    };
    if facts.rows.is_empty() {
        return Err("the rows of the INSERT before it are not seen".to_owned());
    }
    facts.rows.iter().map(value).collect()
}

/// The catalog's table of a relation.
pub(super) fn table_of<'a>(context: &'a Context<'_>, relation: &Relation) -> Option<&'a Table> {
    match &relation.source {
        crate::sql::facts::RelationSource::Table { table: Some(id), .. } => Some(context.topology.catalog.table(*id)),
        _ => None,
    }
}
