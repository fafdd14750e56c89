//! Key inference: which constants a column's value must equal, in every row that matters.
//!
//! Within a block, an equality that stands in WHERE or in an inner join's ON with only AND above it holds for every row
//! that the block lets through. Such equalities form classes of columns; a constant equal to one is equal to all.
//! A block inside another may use the outer one's classes too: it runs on behalf of outer rows, and what it answers
//! for rows that the outer WHERE drops matters to nobody. Never the other way round.
//!
//! ON of a LEFT JOIN says nothing about the preserved side, but of the relation that it joins only rows that satisfy it
//! matter; so it may pin that relation (a *derivation*, in one direction), never feed another class.

use std::collections::HashMap;

use super::constant::Choice;
use super::context::{Context, Use};
use super::key::KeyType;
use super::plan::Pin;
use crate::sql::facts::{
    Clause, ColumnRef, Comparison, JoinKind, Operand, Predicate, RelationId, RelationSource, ScopeId,
};

/// A column of one occurrence.
type Node = (RelationId, String);

/// Constants that a column equals one of; or why a comparison proves nothing.
type Alternatives = Vec<Choice>;

/// What is known in one block.
pub(super) struct Knowledge {
    parents: Vec<usize>,
    nodes: HashMap<Node, usize>,
    /// Constants of each class member.
    constants: Vec<(usize, Alternatives)>,
    /// (target, source): rows of the target's relation matter only where it equals the source.
    derived: Vec<(usize, Source)>,
}

enum Source {
    Node(usize),
    Constants(Alternatives),
}

impl Knowledge {
    /// What is known in a block from itself and the blocks around it.
    pub fn of(context: &Context<'_>, scope: ScopeId) -> Self {
        let mut known = Self { parents: Vec::new(), nodes: HashMap::new(), constants: Vec::new(), derived: Vec::new() };
        let around: Vec<ScopeId> = std::iter::successors(Some(scope), |scope| {
            context.facts.scopes.get(scope.0).and_then(|scope| scope.parent)
        })
        .take(context.facts.scopes.len())
        .collect();
        for predicate in context.facts.predicates.iter().filter(|one| one.conjunctive && around.contains(&one.scope)) {
            match predicate.clause {
                Clause::Where | Clause::InnerOn => known.hold(context, predicate),
                Clause::OuterOn => known.derive(context, predicate),
                Clause::Having | Clause::Elsewhere => {}
            }
        }
        known
    }

    /// Pins of an occurrence by its key: first what its class says, then what only holds for the rows that matter.
    pub fn pins(&mut self, relation: RelationId, key: &Key<'_>, with_derived: bool) -> Vec<Pin> {
        let node = self.node((relation, key.column.to_owned()));
        let mut found = Vec::new();
        self.collect(node, with_derived, &mut Vec::new(), &mut found);
        found
            .into_iter()
            .map(|choices| Pin::Key {
                column: key.column.to_owned(),
                key: key.key,
                placement: key.placement.clone(),
                choices,
                stored: false,
            })
            .collect()
    }

    /// Whether two columns are equal in every row that the block lets through.
    pub fn are_equal(&mut self, one: Node, other: Node) -> bool {
        let (one, other) = (self.node(one), self.node(other));
        self.class(one) == self.class(other)
    }

    fn collect(&mut self, node: usize, with_derived: bool, seen: &mut Vec<usize>, found: &mut Vec<Alternatives>) {
        if seen.contains(&node) {
            return;
        }
        seen.push(node);
        let class = self.class(node);
        let constants: Vec<(usize, Alternatives)> = self.constants.clone();
        for (member, alternatives) in constants {
            if self.class(member) == class && !found.contains(&alternatives) {
                found.push(alternatives);
            }
        }
        if !with_derived {
            return;
        }
        let mut onward = Vec::new();
        for (target, source) in &self.derived {
            match source {
                _ if *target != node => {}
                Source::Node(source) => onward.push(*source),
                Source::Constants(alternatives) if !found.contains(alternatives) => found.push(alternatives.clone()),
                Source::Constants(_) => {}
            }
        }
        for source in onward {
            // A class member of the source that is pinned by derivation alone is no proof: only the source itself is followed.
            self.collect(source, true, seen, found);
        }
    }

    fn hold(&mut self, context: &Context<'_>, predicate: &Predicate) {
        let Some(right) = &predicate.right else { return };
        match (&predicate.left, &predicate.comparison, right) {
            (Operand::Column(left), Comparison::Eq, Operand::Column(right)) => {
                if let Some((left, right)) = columns(context, left, right) {
                    let (left, right) = (self.node(left), self.node(right));
                    let (left, right) = (self.class(left), self.class(right));
                    if let Some(parent) = self.parents.get_mut(left) {
                        *parent = right;
                    }
                }
            }
            (Operand::Column(column), Comparison::Eq | Comparison::In, constant)
            | (constant, Comparison::Eq, Operand::Column(column)) => {
                if let Some((node, alternatives)) = constants(context, column, &predicate.comparison, constant) {
                    let node = self.node(node);
                    self.constants.push((node, alternatives));
                }
            }
            _ => {}
        }
    }

    /// ON of a LEFT JOIN: the relation joined is the last one that stands before the condition. When it stands
    /// inside a join of its own, that join's kind is not LEFT or the condition does not mention it: nothing is derived.
    fn derive(&mut self, context: &Context<'_>, predicate: &Predicate) {
        let before = context
            .relations()
            .filter(|(_, relation, _)| relation.scope == predicate.scope && relation.span.start < predicate.span.start)
            .max_by_key(|(_, relation, _)| relation.span.start);
        let Some((joined, relation, _)) = before else { return };
        let (Some(right), true) = (&predicate.right, relation.join == JoinKind::Left) else { return };
        let is_joined = |operand: &Operand| operand.column().is_some_and(|column| column.relation == Some(joined));
        let (target, other) = match (is_joined(&predicate.left), is_joined(right)) {
            (true, false) => (&predicate.left, right),
            (false, true) if predicate.comparison == Comparison::Eq => (right, &predicate.left),
            _ => return,
        };
        let Some(target) = target.column() else { return };
        match other {
            Operand::Column(source) if predicate.comparison == Comparison::Eq => {
                if let Some((target, source)) = columns(context, target, source) {
                    let (target, source) = (self.node(target), self.node(source));
                    self.derived.push((target, Source::Node(source)));
                }
            }
            constant => {
                if let Some((node, alternatives)) = constants(context, target, &predicate.comparison, constant) {
                    let node = self.node(node);
                    self.derived.push((node, Source::Constants(alternatives)));
                }
            }
        }
    }

    fn node(&mut self, node: Node) -> usize {
        if let Some(index) = self.nodes.get(&node) {
            return *index;
        }
        let index = self.parents.len();
        self.parents.push(index);
        self.nodes.insert(node, index);
        index
    }

    fn class(&self, mut node: usize) -> usize {
        while let Some(parent) = self.parents.get(node).copied().filter(|parent| *parent != node) {
            node = parent;
        }
        node
    }
}

/// A sharded table's key.
pub(super) struct Key<'a> {
    pub column: &'a str,
    pub key: KeyType,
    pub placement: std::sync::Arc<super::placement::Placement>,
}

/// The type of a base table's column, when its values compare by bytes or as integers.
pub(super) fn type_of(context: &Context<'_>, column: &ColumnRef) -> Option<(RelationId, KeyType)> {
    let relation = column.relation?;
    let RelationSource::Table { table: Some(id), .. } = &context.facts.relations.get(relation.0)?.source else {
        return None;
    };
    let found = context.topology.catalog.table(*id).column(&column.name)?;
    Some((relation, KeyType::of_column(found).ok()?))
}

/// Two columns whose equality makes equal placements: of one family of types.
fn columns(context: &Context<'_>, left: &ColumnRef, right: &ColumnRef) -> Option<(Node, Node)> {
    let (left_relation, left_type) = type_of(context, left)?;
    let (right_relation, right_type) = type_of(context, right)?;
    left_type
        .is_comparable_with(right_type)
        .then(|| ((left_relation, left.name.clone()), (right_relation, right.name.clone())))
}

/// `column = constant` and `column IN (constants)`.
fn constants(
    context: &Context<'_>,
    column: &ColumnRef,
    comparison: &Comparison,
    operand: &Operand,
) -> Option<(Node, Alternatives)> {
    let (relation, key) = type_of(context, column)?;
    let choice = |operand: &Operand| Choice::of(operand, key, &context.around).ok();
    let alternatives = match (comparison, operand) {
        (Comparison::Eq, operand) => vec![choice(operand)?],
        (Comparison::In, Operand::List(items, _)) if !items.is_empty() => {
            items.iter().map(choice).collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some(((relation, column.name.clone()), alternatives))
}

/// The comparison with the key that comes closest to a proof, and why it is none, for the refusal's text.
pub(super) fn near_miss<'a>(
    context: &'a Context<'_>,
    relation: RelationId,
    key: &str,
    key_type: KeyType,
) -> Option<(&'a Predicate, String)> {
    let is_key = |operand: &Operand| {
        operand.column().is_some_and(|column| column.relation == Some(relation) && column.name == key)
    };
    let mentions = |predicate: &&Predicate| is_key(&predicate.left) || predicate.right.as_ref().is_some_and(is_key);
    let predicate = context.facts.predicates.iter().find(mentions)?;
    let why = match (&predicate.clause, predicate.conjunctive, &predicate.comparison) {
        (Clause::Having, ..) => "it stands in HAVING, behind the grouping".to_owned(),
        (Clause::Elsewhere, ..) => "it filters no rows where it stands".to_owned(),
        (Clause::OuterOn, ..) => "it stands in an outer join's ON, which does not filter this side".to_owned(),
        (_, false, _) => "it stands under OR or NOT, so that other rows are let through too".to_owned(),
        (_, _, Comparison::Eq | Comparison::In) => {
            let other = if is_key(&predicate.left) { predicate.right.as_ref()? } else { &predicate.left };
            match other {
                Operand::Column(_) => "that column is not known to equal a constant".to_owned(),
                Operand::List(..) => "not all of its values are plain constants of the key's type".to_owned(),
                Operand::Subquery(..) => "a subquery's values are not known beforehand".to_owned(),
                other => Choice::of(other, key_type, &context.around).err()?,
            }
        }
        _ => "only `=` and IN with constants say where rows lie".to_owned(),
    };
    Some((predicate, why))
}

/// True for tables whose rows are not on every shard.
pub(super) fn is_placed(used: &Use) -> bool {
    matches!(used, Use::Sharded(_) | Use::Local(_))
}
