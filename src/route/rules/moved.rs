//! UPDATE of the sharding key.

use crate::route::collect::quoted;
use crate::route::constant::Choice;
use crate::route::context::{Context, Use};
use crate::route::copy::KeyField;
use crate::route::plan::{Action, TemplatePlan};
use crate::route::rules::collect::shipped;
use crate::route::rules::copy::is_computed;
use crate::route::rules::insert::table_of;
use crate::route::rules::spread::split;
use crate::route::spread::{Edit, Moved, Piece};
use crate::route::topology::Sharded;
use crate::route::words::Words;
use crate::sql::catalog::TableKind;
use crate::sql::facts::{ColumnRef, Operand, Relation, RelationId, Span, StatementKind};
use crate::sql::lexer::TokenKind;

/// A row whose key gets another value belongs on the shard of that. Each shard changes its own rows (as for every UPDATE, see
/// [`super::spread`]), and says where they lie and what their keys are now; those that belong elsewhere are then taken out there and stored where they
/// belong, in the same transaction. That is what PostgreSQL does where a row leaves its partition. All rows are taken out
/// before one is stored, so that the keys which are then checked to be unique are those of the end.
///
/// One PostgreSQL checks them row by row instead: `SET id = id + 1` may fail there, as the order of rows has it. With a constant as the
/// new key there is no such order, so that nothing else is taken. What would notice that rows go and come (triggers, rules, row security,
/// foreign keys that follow the key) is asked for where a row moves, and refused.
pub(super) fn key_update(context: &Context<'_>) -> Option<TemplatePlan> {
    let (id, relation, used) = context.target()?;
    let Use::Sharded(sharded) = used else { return None };
    let is_key =
        |column: &ColumnRef| column.name == sharded.key && column.relation.is_none_or(|relation| relation == id);
    let (assigned, value) = context.facts.assignments.iter().find(|(column, _)| is_key(column))?;
    let refuse = |why: &str| {
        Some(context.refuse(
            "key-update",
            Some(assigned.span),
            format!("it changes the sharding key {}.{}, {why}", sharded.name, sharded.key),
            "DELETE the row and INSERT it with the new key, in one transaction",
        ))
    };
    if context.facts.kind != StatementKind::Update {
        return refuse("which only UPDATE can do");
    }
    let placed = sharded.placed.as_ref().ok()?;
    if !Choice::of(value, placed.key, &context.around).is_ok_and(|choice| choice != Choice::Null)
        && !is_same(value, id, sharded)
    {
        return refuse("to what is no constant");
    }
    let moved = moved(context, relation, sharded).zip(split(context));
    let Some(((moved, edit), mut spread)) = moved else {
        return refuse(
            "whose rows cannot be moved as they are: by a statement of this form, or with columns of these types",
        );
    };
    spread.edits.push(edit);
    spread.moved = Some(moved);
    Some(context.plan("key-update", Action::Spread(Box::new(spread))))
}

/// `SET id = id`.
fn is_same(value: &Operand, target: RelationId, sharded: &Sharded) -> bool {
    value.column().is_some_and(|column| column.relation == Some(target) && column.name == sharded.key)
}

/// How rows move, and what the statement returns for it.
fn moved(context: &Context<'_>, target: &Relation, sharded: &Sharded) -> Option<(Moved, Edit)> {
    let table = table_of(context, target).filter(|table| table.kind == TableKind::Table)?;
    let placed = sharded.placed.as_ref().ok()?;
    let stored = || table.columns.iter().filter(|column| !is_computed(column));
    let columns: Vec<_> = stored().map(shipped).collect::<Option<_>>()?;
    let index = stored().position(|column| column.name == sharded.key)?;
    let key = KeyField { index, fields: columns.len(), key: placed.key, placement: placed.placement.clone() };
    let table = format!("{}.{}", quoted(&table.name.schema), quoted(&table.name.name));
    let words = Words::of(context.around.sql);
    let end = words.tokens.iter().rfind(|token| token.kind != TokenKind::Semicolon)?.end;
    let called = quoted(target.visible_name()?);
    let returning = if context.facts.returning { "," } else { " RETURNING" };
    let text = format!(
        "{returning} {called}.ctid::pg_catalog.text, {called}.{}::pg_catalog.text",
        columns.get(index).map(|column| column.name.as_str())?
    );
    let edit = Edit { span: Span { start: end, end }, pieces: vec![Piece::Text(text)] };
    Some((Moved { table, columns, key, returning: context.facts.returning }, edit))
}
