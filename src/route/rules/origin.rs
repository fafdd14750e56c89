//! Where the values of a query's columns come from.

use crate::route::context::Context;
use crate::sql::facts::{
    ColumnRef, Operand, Projection, Relation, RelationId, RelationSource, ScopeId, ScopeKind, Span,
};
use crate::sql::lexer::{LexOptions, Lexer, TokenKind, decode_identifier};

/// How deep queries are followed into queries.
const DEEPEST: usize = 16;

/// What every value of a column is.
#[derive(Debug, Clone)]
pub(super) enum Origin<'a> {
    /// That of a table's column, of a row of this occurrence.
    Column(RelationId, String),
    /// A constant, or what it is computed by.
    Operand(&'a Operand),
}

impl Origin<'_> {
    /// Where it stands.
    pub fn span(&self, context: &Context<'_>) -> Span {
        match self {
            Self::Column(relation, _) => context.facts.relations.get(relation.0).map_or(Span::default(), |it| it.span),
            Self::Operand(operand) => operand.span(),
        }
    }
}

/// The origin of a column that a statement names; `None` where it is not seen, or may be NULL in the place of that.
pub(super) fn of_column<'a>(context: &'a Context<'_>, column: &ColumnRef) -> Option<Origin<'a>> {
    follow(context, column.relation?, &column.name, 0)
}

/// The origin of a query's n-th column.
pub(super) fn of_output<'a>(context: &'a Context<'_>, scope: ScopeId, position: usize) -> Option<Origin<'a>> {
    outputs(context, scope, 0)?.into_iter().nth(position).and_then(|(_, origin)| origin)
}

type Output<'a> = (Option<String>, Option<Origin<'a>>);

fn follow<'a>(context: &'a Context<'_>, id: RelationId, name: &str, depth: usize) -> Option<Origin<'a>> {
    let relation = context.facts.relations.get(id.0).filter(|relation| !relation.nullable)?;
    match &relation.source {
        RelationSource::Table { table: Some(table), .. } => {
            context.topology.catalog().table(*table).column(name)?;
            Some(Origin::Column(id, name.to_owned()))
        }
        RelationSource::Cte(scope) | RelationSource::Derived(scope) if !is_renamed(context, relation) => {
            // Two columns of one name could not be named.
            let mut named =
                outputs(context, *scope, depth + 1)?.into_iter().filter(|(own, _)| own.as_deref() == Some(name));
            match (named.next(), named.next()) {
                (Some((_, origin)), None) => origin,
                _ => None,
            }
        }
        _ => None,
    }
}

/// The columns of a query with their names and origins, where these are seen; `None` where it is not seen how many there are.
fn outputs<'a>(context: &'a Context<'_>, scope: ScopeId, depth: usize) -> Option<Vec<Output<'a>>> {
    let block = context.facts.scopes.get(scope.0)?;
    // A set operation has no list of its own.
    let is_recursive = matches!(&block.kind, ScopeKind::Cte { recursive: true, .. });
    if depth > DEEPEST || is_recursive || block.projection.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    for item in &block.projection {
        match item {
            Projection::Item { value: Operand::Column(column), alias, .. } => {
                let origin = column.relation.and_then(|relation| follow(context, relation, &column.name, depth + 1));
                found.push((Some(alias.clone().unwrap_or_else(|| column.name.clone())), origin));
            }
            Projection::Item { value, alias, .. } => found.push((alias.clone(), Some(Origin::Operand(value)))),
            Projection::QualifiedStar(_, relation) => found.extend(all_of(context, (*relation)?, depth)?),
            Projection::Star(_) => {
                let mut relations = context.relations().filter(|(_, relation, _)| relation.scope == scope);
                // Columns that are joined by USING come once.
                let (Some((only, ..)), None) = (relations.next(), relations.next()) else { return None };
                found.extend(all_of(context, only, depth)?);
            }
        }
    }
    Some(found)
}

/// All columns of a relation.
fn all_of<'a>(context: &'a Context<'_>, id: RelationId, depth: usize) -> Option<Vec<Output<'a>>> {
    let relation = context.facts.relations.get(id.0)?;
    match &relation.source {
        RelationSource::Table { table: Some(table), .. } if !is_renamed(context, relation) => {
            let columns = &context.topology.catalog().table(*table).columns;
            let one = |name: &String| (Some(name.clone()), follow(context, id, name, depth + 1));
            Some(columns.iter().map(|column| one(&column.name)).collect())
        }
        RelationSource::Cte(scope) | RelationSource::Derived(scope) => {
            let renamed = is_renamed(context, relation);
            let seen = |(name, origin): Output<'a>| (name.filter(|_| !renamed), origin.filter(|_| !relation.nullable));
            Some(outputs(context, *scope, depth + 1)?.into_iter().map(seen).collect())
        }
        _ => None,
    }
}

/// Whether a list of names may stand behind the relation's own name somewhere: WITH name (a, b), FROM (..) AS name (a, b).
fn is_renamed(context: &Context<'_>, relation: &Relation) -> bool {
    let sql = context.around.sql.as_bytes();
    let tokens: Vec<_> = Lexer::new(sql, LexOptions::default()).collect();
    let of_cte = match &relation.source {
        RelationSource::Cte(scope) => match context.facts.scopes.get(scope.0).map(|scope| &scope.kind) {
            Some(ScopeKind::Cte { name, .. }) => Some(name.as_str()),
            _ => return true,
        },
        _ => None,
    };
    let is_name = |name: &str| Some(name) == relation.visible_name() || Some(name) == of_cte;
    tokens.windows(2).any(|pair| {
        let [first, second] = pair else { return false };
        let named = matches!(first.kind, TokenKind::Ident | TokenKind::QuotedIdent)
            && decode_identifier(first.bytes(sql)).is_ok_and(|name| is_name(&name));
        named && second.kind == TokenKind::LeftParen
    })
}
