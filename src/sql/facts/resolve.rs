//! Whose column is it: SQL's scoping rules over the frames around a name.
//!
//! Inside a block, names come from its FROM items; then from the blocks around it, the nearest first. A subquery in FROM does
//! not see its neighbours unless it is LATERAL, which hides the frame around it for as long as the walk is inside.
//! A name counts as resolved only when no other relation in sight could supply it.

use sqlparser::ast::{Ident, ObjectName};

use super::build::Builder;
use super::{ColumnRef, RelationId, RelationSource, ScopeId, Span};

/// Longest name PostgreSQL keeps (`NAMEDATALEN` - 1); longer ones are cut.
const LONGEST_NAME_BYTES: usize = 63;

/// Columns that every table has besides its own.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// Column names in order; a `None` among them is a name that is not known, `None` altogether is nothing known.
pub(super) type Columns = Option<Vec<Option<String>>>;

/// One query block around the place where the walk stands.
pub(super) struct Frame {
    pub(super) scope: ScopeId,
    /// Relations whose columns may be named now.
    pub(super) visible: Vec<RelationId>,
    /// Columns merged by USING or NATURAL.
    pub(super) merged: Vec<Merged>,
    /// The walk is inside a subquery in FROM that does not see this block.
    pub(super) hidden: bool,
}

/// A column that USING merged.
pub(super) struct Merged {
    pub(super) name: String,
    /// The relation whose value it shows; `None` for a FULL JOIN, which coalesces.
    pub(super) shows: Option<RelationId>,
    /// All relations that have it.
    pub(super) among: Vec<RelationId>,
}

/// Whether a relation has a column of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Yes,
    No,
    Maybe,
}

/// What one frame says of an unqualified name.
enum Found {
    /// It is this relation's, or nobody's in particular (a merged column of a FULL JOIN).
    Certain(Option<RelationId>),
    /// It may be this relation's, if no block outside supplies it.
    Perhaps(RelationId),
    /// It may be several relations'.
    Unclear,
    /// It is nobody's here.
    Absent,
}

/// A name as PostgreSQL stores it: lower case unless quoted, at most 63 bytes.
pub(crate) fn folded(ident: &Ident) -> String {
    let mut name = match ident.quote_style {
        Some(_) => ident.value.replace("\"\"", "\""),
        None => ident.value.to_ascii_lowercase(),
    };
    if name.len() > LONGEST_NAME_BYTES {
        let end = (0..=LONGEST_NAME_BYTES).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        name.truncate(end);
    }
    name
}

/// Schema (as written) and name of a possibly qualified name; `None` for forms that PostgreSQL does not have.
pub(crate) fn qualified(name: &ObjectName) -> Option<(Option<String>, String)> {
    let parts: Vec<&Ident> = name.0.iter().map(|part| part.as_ident()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [name] => Some((None, folded(name))),
        [schema, name] | [_, schema, name] => Some((Some(folded(schema)), folded(name))),
        _ => None,
    }
}

impl Builder<'_> {
    /// The bytes of a possibly qualified name.
    pub(super) fn name_span(&self, name: &ObjectName) -> Span {
        let mut spans = name.0.iter().filter_map(|part| part.as_ident()).map(|ident| self.parsed.ident_span(ident));
        let first = spans.next().unwrap_or_default();
        Span { start: first.start, end: spans.next_back().unwrap_or(first).end }
    }

    /// Resolves `a`, `t.a` or `s.t.a` and notes that it was mentioned.
    pub(super) fn column(&mut self, idents: &[Ident]) -> ColumnRef {
        let first = idents.first().map(|ident| self.parsed.ident_span(ident)).unwrap_or_default();
        let last = idents.last().map(|ident| self.parsed.ident_span(ident)).unwrap_or_default();
        let span = Span { start: first.start, end: last.end };
        let column = match idents {
            [name] => self.unqualified(folded(name), span),
            [table, name] => self.of_table(None, folded(table), folded(name), span),
            [schema, table, name] | [_, schema, table, name] => {
                self.of_table(Some(folded(schema)), folded(table), folded(name), span)
            }
            _ => {
                self.unknown("a name with more than four parts");
                ColumnRef { relation: None, qualifier: None, name: String::new(), span }
            }
        };
        self.mentioned.push(column.clone());
        column
    }

    fn of_table(&mut self, schema: Option<String>, table: String, name: String, span: Span) -> ColumnRef {
        let relation = self.named_relation(schema.as_deref(), &table);
        let name = match relation {
            Some(relation) => self.stored_name(relation, name),
            None => name,
        };
        let qualifier = Some(match schema {
            Some(schema) => format!("{schema}.{table}"),
            None => table,
        });
        ColumnRef { relation, qualifier, name, span }
    }

    /// The visible relation of that name: the innermost block that has one decides.
    pub(super) fn named_relation(&self, schema: Option<&str>, table: &str) -> Option<RelationId> {
        self.frames.iter().rev().filter(|frame| !frame.hidden).find_map(|frame| {
            let mut matching = frame.visible.iter().copied().filter(|id| self.answers_to(*id, schema, table));
            matching.next()
        })
    }

    fn answers_to(&self, id: RelationId, schema: Option<&str>, table: &str) -> bool {
        let Some(relation) = self.facts.relations.get(id.0) else { return false };
        match (schema, &relation.source, &relation.alias) {
            (None, RelationSource::Cte(scope), None) => self.cte_name(*scope) == Some(table),
            (None, ..) => relation.visible_name() == Some(table),
            (Some(schema), RelationSource::Table { schema: written, name, table: found }, None) => {
                name == table
                    && match (written, found) {
                        (Some(written), _) => written == schema,
                        (None, Some(found)) => self.catalog.table(*found).name.schema == schema,
                        (None, None) => true,
                    }
            }
            (Some(_), ..) => false,
        }
    }

    fn cte_name(&self, scope: ScopeId) -> Option<&str> {
        match &self.facts.scopes.get(scope.0)?.kind {
            super::ScopeKind::Cte { name, .. } => Some(name),
            _ => None,
        }
    }

    fn unqualified(&mut self, name: String, span: Span) -> ColumnRef {
        let relation = self.owner(&name);
        if relation.is_none()
            && let Some(relation) = self.row_reference(&name)
        {
            return ColumnRef { relation: Some(relation), qualifier: Some(name), name: "*".to_owned(), span };
        }
        let name = match relation {
            Some(relation) => self.stored_name(relation, name),
            None => name,
        };
        ColumnRef { relation, qualifier: None, name, span }
    }

    /// The relation that an unqualified column belongs to, when that is certain.
    fn owner(&self, name: &str) -> Option<RelationId> {
        let mut perhaps = None;
        for frame in self.frames.iter().rev().filter(|frame| !frame.hidden) {
            match self.look_in(frame, name) {
                Found::Certain(relation) if perhaps.is_none() => return relation,
                Found::Perhaps(relation) if perhaps.is_none() => perhaps = Some(relation),
                Found::Certain(_) | Found::Perhaps(_) | Found::Unclear => return None,
                Found::Absent => {}
            }
        }
        perhaps
    }

    fn look_in(&self, frame: &Frame, name: &str) -> Found {
        let is_visible = |merged: &&Merged| merged.among.iter().all(|id| frame.visible.contains(id));
        if let Some(merged) = frame.merged.iter().rev().filter(is_visible).find(|merged| merged.name == name) {
            return Found::Certain(merged.shows);
        }
        let mut certain = frame.visible.iter().copied().filter(|id| self.has(*id, name) == Has::Yes);
        if let Some(relation) = certain.next() {
            return if certain.next().is_none() { Found::Certain(Some(relation)) } else { Found::Unclear };
        }
        let mut perhaps = frame.visible.iter().copied().filter(|id| self.has(*id, name) == Has::Maybe);
        match (perhaps.next(), perhaps.next()) {
            (Some(relation), None) => Found::Perhaps(relation),
            (Some(_), Some(_)) => Found::Unclear,
            (None, _) => Found::Absent,
        }
    }

    fn has(&self, id: RelationId, name: &str) -> Has {
        let is_table = matches!(
            self.facts.relations.get(id.0).map(|relation| &relation.source),
            Some(RelationSource::Table { .. })
        );
        if is_table && SYSTEM_COLUMNS.contains(&name) {
            return Has::Yes;
        }
        match self.relation_columns.get(id.0) {
            Some(Some(columns)) if columns.iter().flatten().any(|column| column == name) => Has::Yes,
            Some(Some(columns)) if columns.iter().all(Option::is_some) => Has::No,
            _ => Has::Maybe,
        }
    }

    /// A relation named where a column could stand: the whole row, if no relation can have such a column.
    fn row_reference(&self, name: &str) -> Option<RelationId> {
        let nobody = self
            .frames
            .iter()
            .filter(|frame| !frame.hidden)
            .all(|frame| frame.visible.iter().all(|id| self.has(*id, name) == Has::No));
        self.named_relation(None, name).filter(|_| nobody)
    }

    /// The table's own name of a column that an alias list renamed: `FROM t AS x(a, b)`.
    fn stored_name(&self, id: RelationId, name: String) -> String {
        let Some(relation) = self.facts.relations.get(id.0) else { return name };
        let (RelationSource::Table { table: Some(table), .. }, Some(Some(columns))) =
            (&relation.source, self.relation_columns.get(id.0))
        else {
            return name;
        };
        let position = columns.iter().position(|column| column.as_deref() == Some(name.as_str()));
        match position.and_then(|position| self.catalog.table(*table).columns.get(position)) {
            Some(column) => column.name.clone(),
            None => name,
        }
    }

    /// Output names of relations in order, for `*`.
    pub(super) fn columns_of(&self, relations: &[RelationId]) -> Columns {
        let mut all = Vec::new();
        for id in relations {
            all.extend(self.relation_columns.get(id.0)?.clone()?);
        }
        Some(all)
    }

    /// The side of a join that an unqualified column comes from.
    pub(super) fn side_of(&self, side: &[RelationId], name: &str) -> Option<RelationId> {
        let frame = self.frames.last()?;
        let is_here = |merged: &&Merged| merged.among.iter().all(|id| side.contains(id));
        if let Some(merged) = frame.merged.iter().rev().filter(is_here).find(|merged| merged.name == name) {
            return merged.shows;
        }
        let of = |wanted: Has| side.iter().copied().filter(move |id| self.has(*id, name) == wanted);
        match (of(Has::Yes).count(), of(Has::Maybe).count()) {
            (1, _) => of(Has::Yes).next(),
            (0, 1) => of(Has::Maybe).next(),
            _ => None,
        }
    }
}
