//! Which table a finding is about.

use super::subject::Subject;
use crate::sql::facts::{Access, ColumnRef, Operand, RelationId, RelationSource, ScopeId, Span};

impl Subject<'_> {
    /// The table, as written, that a place of the statement is about: the one named there, else the one whose column is
    /// compared there, else the one that is written or comes first in the block around it.
    pub fn table_about(&self, span: Span) -> Option<String> {
        let named = self.facts.relations.iter().filter(|relation| touch(relation.span, span));
        let named = named.filter_map(|relation| written(&relation.source)).next();
        let around = self.around(span);
        let compared = || self.compared(span, around.first().copied());
        let block = || around.iter().find_map(|scope| self.first(|of| of == *scope));
        named.or_else(compared).or_else(block).or_else(|| self.first(|_| true))
    }

    fn compared(&self, span: Span, block: Option<ScopeId>) -> Option<String> {
        let here = self.facts.predicates.iter().filter(|it| Some(it.scope) == block && touch(it.span, span));
        let operands = here.flat_map(|predicate| std::iter::once(&predicate.left).chain(&predicate.right));
        operands.filter_map(Operand::column).find_map(|column| self.owner(column))
    }

    fn owner(&self, column: &ColumnRef) -> Option<String> {
        written(&self.relation(column.relation?)?.source)
    }

    /// The blocks that enclose a place, the innermost first.
    fn around(&self, span: Span) -> Vec<ScopeId> {
        let holds = |scope: &Span| scope.start <= span.start && span.end <= scope.end;
        let scopes = (0..).zip(&self.facts.scopes).filter(|(_, scope)| holds(&scope.span));
        let mut scopes: Vec<(u32, ScopeId)> =
            scopes.map(|(at, scope)| (scope.span.end - scope.span.start, ScopeId(at))).collect();
        scopes.sort_by_key(|(length, _)| *length);
        scopes.into_iter().map(|(_, scope)| scope).collect()
    }

    fn first(&self, wanted: impl Fn(ScopeId) -> bool) -> Option<String> {
        let relations = || {
            let ids = (0..self.facts.relations.len()).map(RelationId);
            ids.filter_map(|id| self.relation(id)).filter(|relation| wanted(relation.scope))
        };
        let target = relations().filter(|relation| relation.access == Access::Write);
        target.chain(relations()).find_map(|relation| written(&relation.source))
    }
}

fn touch(one: Span, other: Span) -> bool {
    one.start < other.end && other.start < one.end
}

fn written(source: &RelationSource) -> Option<String> {
    match source {
        RelationSource::Table { schema: Some(schema), name, .. } => Some(format!("{schema}.{name}")),
        RelationSource::Table { name, .. } => Some(name.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::Sharding;
    use crate::sql::catalog::Catalog;
    use crate::sql::{facts, parse};
    use crate::workload::{Observation, Sink, Workload};

    fn about(sql: &str, part: &str) -> Option<String> {
        let parsed = parse(sql).unwrap();
        let catalog = Catalog::default();
        let facts = facts(&parsed, &catalog);
        let mut workload = Workload::new();
        workload.observe(&Observation::of(sql));
        let (sharding, ask) = (Sharding::default(), |_: &str, _: u32| None);
        let subject = Subject::new(&facts, &catalog, &workload.templates()[0], &sharding, &ask);
        let start = u32::try_from(sql.find(part).unwrap()).unwrap();
        subject.table_about(Span { start, end: start + part.len() as u32 })
    }

    #[test]
    fn a_finding_is_about_the_table_that_it_points_at() {
        let join = "SELECT * FROM a JOIN s.b ON b.x = a.y WHERE b.z LIKE '%q' ORDER BY a.y";
        for (sql, part, table) in [
            (join, "*", Some("a")),
            (join, "b.z LIKE '%q'", Some("s.b")),
            (join, "s.b", Some("s.b")),
            ("SELECT id FROM a WHERE x IN (SELECT * FROM b)", "*", Some("b")),
            ("WITH c AS (SELECT id FROM a) SELECT id FROM c WHERE id + 1 = 2", "id + 1 = 2", Some("a")),
            ("INSERT INTO a SELECT id FROM b", "INSERT", Some("a")),
            ("DELETE FROM a USING b", "DELETE", Some("a")),
            ("SELECT 1 = NULL", "1 = NULL", None),
        ] {
            assert_eq!(about(sql, part).as_deref(), table, "{sql}: {part}");
        }
    }
}
