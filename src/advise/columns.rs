//! How one statement uses the columns of each table occurrence: what an index on it could answer.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Key;
use crate::sql::catalog::{Catalog, TableId, TableKind};
use crate::sql::facts::{
    Access, Clause, ColumnRef, Comparison, Facts, Literal, Operand, Predicate, Projection, RelationId, RelationSource,
    Scope, ScopeId, ScopeKind, Shape, SortKey,
};

/// How deep a column is followed through subqueries in FROM.
const MAX_DEPTH: usize = 8;

/// One table occurrence and what the statement asks of its columns. Lists keep the statement's order, without repeats.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Uses {
    /// The table.
    pub table: TableId,
    /// Compared by `=`, IN or IS NULL with something that does not come from a join.
    pub equal: Vec<String>,
    /// Joined by equality, by the occurrence on the other side.
    pub joins: BTreeMap<RelationId, Vec<String>>,
    /// Compared by `<`, BETWEEN and the like.
    pub ranges: Vec<String>,
    /// Compared under an OR.
    pub arms: Vec<String>,
    /// ORDER BY keys, when all of a block's keys are this occurrence's columns.
    pub order: Vec<Key>,
    /// GROUP BY or DISTINCT columns.
    pub groups: Vec<String>,
    /// Columns under MIN or MAX.
    pub extremes: Vec<String>,
    /// Every column the statement mentions; `None` when it takes them all (`*`, a written row).
    pub mentioned: Option<BTreeSet<String>>,
}

impl Uses {
    fn new(table: TableId) -> Self {
        Self {
            table,
            equal: Vec::new(),
            joins: BTreeMap::new(),
            ranges: Vec::new(),
            arms: Vec::new(),
            order: Vec::new(),
            groups: Vec::new(),
            extremes: Vec::new(),
            mentioned: Some(BTreeSet::new()),
        }
    }
}

/// The uses of every occurrence of a table that could carry an index.
pub(super) fn uses(facts: &Facts, catalog: &Catalog) -> BTreeMap<RelationId, Uses> {
    let mut reader = Reader { facts, uses: BTreeMap::new() };
    for (index, relation) in facts.relations.iter().enumerate() {
        if let RelationSource::Table { table: Some(table), .. } = relation.source
            && matches!(
                catalog.table(table).kind,
                TableKind::Table | TableKind::Partitioned | TableKind::MaterializedView
            )
        {
            let mut uses = Uses::new(table);
            // A row that is written or locked is visited whatever an index holds.
            let locked = facts.scopes.get(relation.scope.0).is_some_and(|scope| scope.locking.is_some());
            if relation.access == Access::Write || locked {
                uses.mentioned = None;
            }
            reader.uses.insert(RelationId(index), uses);
        }
    }
    for predicate in &facts.predicates {
        reader.predicate(predicate);
    }
    for (index, scope) in facts.scopes.iter().enumerate() {
        reader.scope(ScopeId(index), scope);
    }
    for (column, value) in &facts.assignments {
        reader.mention_column(column);
        reader.mention(value);
    }
    reader.uses
}

struct Reader<'a> {
    facts: &'a Facts,
    uses: BTreeMap<RelationId, Uses>,
}

fn push(list: &mut Vec<String>, name: String) {
    if !list.contains(&name) {
        list.push(name);
    }
}

impl Reader<'_> {
    /// The table occurrence and column that a reference means, followed through plain columns of subqueries.
    fn resolve(&self, column: &ColumnRef) -> Option<(RelationId, String)> {
        let mut relation = column.relation?;
        let mut name = column.name.clone();
        for _ in 0..MAX_DEPTH {
            if self.uses.contains_key(&relation) {
                return Some((relation, name));
            }
            let (RelationSource::Derived(scope) | RelationSource::Cte(scope)) =
                &self.facts.relations.get(relation.0)?.source
            else {
                return None;
            };
            let inner = self.facts.scopes.get(scope.0)?.projection.iter().find_map(|item| match item {
                Projection::Item { value: Operand::Column(inner), alias, .. }
                    if alias.as_deref().unwrap_or(&inner.name) == name =>
                {
                    Some(inner)
                }
                _ => None,
            })?;
            relation = inner.relation?;
            name.clone_from(&inner.name);
        }
        None
    }

    fn resolve_operand(&self, operand: &Operand) -> Option<(RelationId, String)> {
        operand.column().and_then(|column| self.resolve(column))
    }

    fn mention_column(&mut self, column: &ColumnRef) {
        if let Some((relation, name)) = self.resolve(column)
            && let Some(Uses { mentioned: Some(mentioned), .. }) = self.uses.get_mut(&relation)
        {
            mentioned.insert(name);
        }
    }

    fn mention(&mut self, operand: &Operand) {
        match operand {
            Operand::Column(column) => self.mention_column(column),
            Operand::List(items, _) => items.iter().for_each(|item| self.mention(item)),
            Operand::Expression { columns, .. } => columns.iter().for_each(|column| self.mention_column(column)),
            Operand::Literal { .. } | Operand::Parameter { .. } | Operand::Subquery(..) => {}
        }
    }

    fn predicate(&mut self, predicate: &Predicate) {
        self.mention(&predicate.left);
        predicate.right.iter().for_each(|right| self.mention(right));
        if !matches!(predicate.clause, Clause::Where | Clause::InnerOn | Clause::OuterOn) {
            return;
        }
        if let (Comparison::In, Some(Operand::Subquery(scope, _))) = (&predicate.comparison, &predicate.right) {
            self.in_subquery(&predicate.left, *scope);
            return;
        }
        let left = self.resolve_operand(&predicate.left);
        let right = predicate.right.as_ref().and_then(|right| self.resolve_operand(right));
        match (left, right) {
            (Some(left), Some(right)) if left.0 == right.0 => {}
            (Some(left), Some(right)) => self.between_columns(predicate, left, right),
            (Some(side), None) => self.against_value(predicate, side, predicate.right.as_ref()),
            (None, Some(side)) => self.against_value(predicate, side, Some(&predicate.left)),
            (None, None) => {}
        }
    }

    fn between_columns(&mut self, predicate: &Predicate, left: (RelationId, String), right: (RelationId, String)) {
        let equal = predicate.comparison == Comparison::Eq;
        for (this, other) in [(&left, &right), (&right, &left)] {
            let Some(uses) = self.uses.get_mut(&this.0) else { continue };
            match (equal, predicate.conjunctive) {
                (true, true) => push(uses.joins.entry(other.0).or_default(), this.1.clone()),
                (true, false) => push(&mut uses.arms, this.1.clone()),
                (false, true) if is_range(&predicate.comparison) => push(&mut uses.ranges, this.1.clone()),
                (false, _) => {}
            }
        }
    }

    fn against_value(&mut self, predicate: &Predicate, side: (RelationId, String), value: Option<&Operand>) {
        // `a.x = a.y + 1` is no lookup of a.
        if let Some(Operand::Expression { columns, .. }) = value
            && columns.iter().any(|column| self.resolve(column).is_none_or(|(relation, _)| relation == side.0))
        {
            return;
        }
        let equal = matches!(predicate.comparison, Comparison::Eq | Comparison::In | Comparison::IsNull);
        let range = is_range(&predicate.comparison);
        let Some(uses) = self.uses.get_mut(&side.0) else { return };
        if !(equal || range) {
            return;
        }
        let list = match (predicate.conjunctive, equal) {
            (false, _) => &mut uses.arms,
            (true, true) => &mut uses.equal,
            (true, false) => &mut uses.ranges,
        };
        push(list, side.1);
    }

    /// `x IN (SELECT y ..)` joins x with y.
    fn in_subquery(&mut self, left: &Operand, scope: ScopeId) {
        let inner = self.facts.scopes.get(scope.0).and_then(|scope| match scope.projection.first() {
            Some(Projection::Item { value, .. }) => self.resolve_operand(value),
            _ => None,
        });
        let outer = self.resolve_operand(left);
        let (Some(inner), Some(outer)) = (inner, outer) else {
            // Whatever the other side is, equality with it is what is asked.
            for (relation, name) in [self.resolve_operand(left)].into_iter().flatten() {
                if let Some(uses) = self.uses.get_mut(&relation) {
                    push(&mut uses.equal, name);
                }
            }
            return;
        };
        for (this, other) in [(&inner, &outer), (&outer, &inner)] {
            if let Some(uses) = self.uses.get_mut(&this.0) {
                push(uses.joins.entry(other.0).or_default(), this.1.clone());
            }
        }
    }

    fn scope(&mut self, id: ScopeId, scope: &Scope) {
        for item in &scope.projection {
            match item {
                Projection::Star(_) if !matches!(scope.kind, ScopeKind::Exists { .. }) => self.take_all(id, None),
                Projection::QualifiedStar(_, relation) if !matches!(scope.kind, ScopeKind::Exists { .. }) => {
                    self.take_all(id, *relation);
                }
                Projection::Star(_) | Projection::QualifiedStar(..) => {}
                Projection::Item { value, .. } => {
                    self.mention(value);
                    self.extreme(value);
                    if scope.distinct {
                        self.group(value);
                    }
                }
            }
        }
        for value in &scope.group_by {
            self.mention(value);
            self.group(self.output(scope, value));
        }
        for key in &scope.order_by {
            self.mention(&key.value);
        }
        self.order(scope);
    }

    /// `*`: every column of one occurrence, or of all in the block.
    fn take_all(&mut self, scope: ScopeId, only: Option<RelationId>) {
        for (relation, uses) in &mut self.uses {
            let here = self.facts.relations.get(relation.0).is_some_and(|relation| relation.scope == scope);
            if here && only.is_none_or(|only| only == *relation) {
                uses.mentioned = None;
            }
        }
    }

    fn group(&mut self, value: &Operand) {
        if let Some((relation, name)) = self.resolve_operand(value)
            && let Some(uses) = self.uses.get_mut(&relation)
        {
            push(&mut uses.groups, name);
        }
    }

    fn extreme(&mut self, value: &Operand) {
        if let Operand::Expression { columns, shape: Shape::Function(name), .. } = value
            && (name == "min" || name == "max")
            && let [column] = columns.as_slice()
            && let Some((relation, name)) = self.resolve(column)
            && let Some(uses) = self.uses.get_mut(&relation)
        {
            push(&mut uses.extremes, name);
        }
    }

    /// What `ORDER BY 2` or `ORDER BY alias` means.
    fn output<'b>(&self, scope: &'b Scope, value: &'b Operand) -> &'b Operand {
        let position = match value {
            Operand::Literal { value: Literal::Number(number), negative: false, cast: None, .. } => {
                number.parse::<usize>().ok().and_then(|number| number.checked_sub(1))
            }
            Operand::Column(column) if column.relation.is_none() && column.qualifier.is_none() => scope
                .projection
                .iter()
                .position(|item| matches!(item, Projection::Item { alias: Some(alias), .. } if *alias == column.name)),
            _ => None,
        };
        match position.and_then(|position| scope.projection.get(position)) {
            Some(Projection::Item { value, .. }) => value,
            _ => value,
        }
    }

    fn order(&mut self, scope: &Scope) {
        let mut keys = Vec::new();
        let mut owner = None;
        for SortKey { value, descending, nulls_first, .. } in &scope.order_by {
            let Some((relation, column)) = self.resolve_operand(self.output(scope, value)) else { return };
            if owner.is_some_and(|owner| owner != relation) {
                return;
            }
            owner = Some(relation);
            let nulls_first = nulls_first.unwrap_or(*descending);
            keys.push(Key { descending: *descending, nulls_first, ..Key::ascending(column) });
        }
        if let Some(uses) = owner.and_then(|owner| self.uses.get_mut(&owner))
            && uses.order.is_empty()
        {
            uses.order = keys;
        }
    }
}

fn is_range(comparison: &Comparison) -> bool {
    matches!(
        comparison,
        Comparison::Lt | Comparison::Le | Comparison::Gt | Comparison::Ge | Comparison::Between | Comparison::IsNotNull
    )
}
