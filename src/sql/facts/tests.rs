//! Golden tests: `fixtures/facts/<topic>.txt` holds statements and the facts found in them, in a compact form.
//!
//! A file is blocks between lines of `====`. The first block is DDL for the catalog (empty: no catalog). Every further block is SQL,
//! a line `----`, and the facts. `UPDATE_GOLDEN=1 cargo test` rewrites them: read what changed.

use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::sql::catalog::Catalog;

/// Facts as a few lines a statement.
struct Printer<'a> {
    facts: &'a Facts,
    text: &'a str,
    out: String,
}

fn print(facts: &Facts, text: &str) -> String {
    let mut printer = Printer { facts, text, out: String::new() };
    printer.all();
    printer.out
}

impl Printer<'_> {
    fn all(&mut self) {
        let facts = self.facts;
        let mut head = format!("{:?} {}", facts.kind, facts.command);
        if facts.parameters > 0 {
            _ = write!(head, " parameters={}", facts.parameters);
        }
        for (set, name) in [(facts.returning, "returning"), (facts.writes_in_cte, "writes-in-cte")] {
            if set {
                _ = write!(head, " {name}");
            }
        }
        for (name, all, span) in &facts.set_operations {
            _ = write!(head, " {name}{}@{:?}", if *all { "-all" } else { "" }, span.of(self.text));
        }
        self.line(&head);
        if let Some(unknown) = &facts.unknown {
            self.line(&format!("unknown: {unknown}"));
        }
        for (index, relation) in facts.relations.iter().enumerate() {
            self.relation(index, relation);
        }
        for (index, scope) in facts.scopes.iter().enumerate() {
            self.scope(index, scope);
        }
        for predicate in &facts.predicates {
            self.predicate(predicate);
        }
        for (column, value) in &facts.assignments {
            let line = format!("set {} = {}", self.column(column), self.operand(value));
            self.line(&line);
        }
        if let Some(insert) = &facts.insert {
            self.insert(insert);
        }
        for call in &facts.functions {
            let schema = call.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
            let window = if call.window { " window" } else { "" };
            let Span { start, end } = call.span;
            _ = (start, end);
            let line = format!(
                "call s{} {schema}{}/{}{window} {:?}",
                call.scope.0,
                call.name,
                call.arguments,
                call.span.of(self.text)
            );
            self.line(&line);
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn relation(&mut self, index: usize, relation: &Relation) {
        let source = match &relation.source {
            RelationSource::Table { schema, name, table } => {
                let schema = schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
                format!("{schema}{name}{}", if table.is_some() { "" } else { "?" })
            }
            RelationSource::Cte(scope) => format!("cte s{}", scope.0),
            RelationSource::Derived(scope) => format!("derived s{}", scope.0),
            RelationSource::Function(name) => format!("{name}()"),
            RelationSource::Values => "values".to_owned(),
            RelationSource::Other => "other".to_owned(),
        };
        let alias = relation.alias.as_ref().map(|alias| format!(" as {alias}")).unwrap_or_default();
        let nullable = if relation.nullable { " nullable" } else { "" };
        let write = if relation.access == Access::Write { " write" } else { "" };
        let line = format!(
            "r{index} s{} {source}{alias} {:?}{nullable}{write} {:?}",
            relation.scope.0,
            relation.join,
            relation.span.of(self.text)
        );
        self.line(&line);
    }

    fn scope(&mut self, index: usize, scope: &Scope) {
        let parent = scope.parent.map(|parent| format!(" in s{}", parent.0)).unwrap_or_default();
        let mut line = format!("s{index}{parent} {:?}", scope.kind);
        if index > 0 {
            _ = write!(line, " {:?}", scope.span.of(self.text));
        }
        for (set, name) in [
            (scope.distinct, "distinct"),
            (scope.distinct_on, "distinct-on"),
            (scope.grouping_sets, "grouping-sets"),
            (scope.having, "having"),
            (scope.aggregate, "aggregate"),
            (scope.window, "window"),
            (scope.has_where, "where"),
        ] {
            if set {
                _ = write!(line, " {name}");
            }
        }
        if let Some(skips) = scope.locking {
            _ = write!(line, " locking({skips})");
        }
        self.line(&line);
        for item in &scope.projection {
            let item = match item {
                Projection::Star(span) => format!("  select * {:?}", span.of(self.text)),
                Projection::QualifiedStar(span, relation) => {
                    format!("  select {} {:?}", name_of(*relation), span.of(self.text))
                }
                Projection::Item { value, alias, .. } => {
                    let alias = alias.as_ref().map(|alias| format!(" as {alias}")).unwrap_or_default();
                    format!("  select {}{alias}", self.operand(value))
                }
            };
            self.line(&item);
        }
        for value in &scope.group_by {
            let line = format!("  group {}", self.operand(value));
            self.line(&line);
        }
        for key in &scope.order_by {
            let nulls = match key.nulls_first {
                Some(true) => " nulls-first",
                Some(false) => " nulls-last",
                None => "",
            };
            let descending = if key.descending { " desc" } else { "" };
            let line = format!("  order {}{descending}{nulls} {:?}", self.operand(&key.value), key.span.of(self.text));
            self.line(&line);
        }
        for (name, value) in [("limit", &scope.limit), ("offset", &scope.offset)] {
            if let Some(value) = value {
                let line = format!("  {name} {}", self.operand(value));
                self.line(&line);
            }
        }
    }

    fn predicate(&mut self, predicate: &Predicate) {
        let and = if predicate.conjunctive { " and" } else { "" };
        let or = predicate.disjunction.map(|or| format!(" or#{or}")).unwrap_or_default();
        let right = predicate.right.as_ref().map(|right| format!(" {}", self.operand(right))).unwrap_or_default();
        let line = format!(
            "{:?} s{}{and}{or}: {} {:?}{right} {:?}",
            predicate.clause,
            predicate.scope.0,
            self.operand(&predicate.left),
            predicate.comparison,
            predicate.span.of(self.text)
        );
        self.line(&line);
    }

    fn insert(&mut self, insert: &InsertFacts) {
        let columns = insert.columns.as_ref().map(|columns| format!(" ({})", columns.join(", "))).unwrap_or_default();
        let query = insert.query.map(|scope| format!(" from s{}", scope.0)).unwrap_or_default();
        let default = if insert.default_values { " default-values" } else { "" };
        let conflict = insert.on_conflict.as_ref().map(|set| format!(" on-conflict{set:?}")).unwrap_or_default();
        self.line(&format!("insert{columns}{query}{default}{conflict}"));
        for row in &insert.rows {
            let row: Vec<String> = row
                .iter()
                .map(|value| value.as_ref().map_or("default".to_owned(), |value| self.operand(value)))
                .collect();
            self.line(&format!("  row {}", row.join(", ")));
        }
    }

    fn column(&self, column: &ColumnRef) -> String {
        let name = match (&column.relation, &column.qualifier) {
            (Some(relation), _) => format!("r{}.{}", relation.0, column.name),
            (None, Some(qualifier)) => format!("?{qualifier}.{}", column.name),
            (None, None) => format!("?.{}", column.name),
        };
        let written = column.span.of(self.text);
        assert!(!written.is_empty() || column.span == Span::default(), "{name} has no place");
        name
    }

    fn operand(&self, operand: &Operand) -> String {
        match operand {
            Operand::Column(column) => self.column(column),
            Operand::Literal { value, negative, cast, span, literal } => {
                let sign = if *negative { "-" } else { "" };
                let cast = cast.as_ref().map(|cast| format!("::{cast}")).unwrap_or_default();
                let inside = span.start <= literal.start && literal.end <= span.end;
                assert!(inside, "the constant lies in its operand");
                match value {
                    Literal::Number(number) => format!("{sign}{number}{cast}"),
                    Literal::Text(text) => format!("{text:?}{cast}"),
                    Literal::Bool(truth) => format!("{truth}{cast}"),
                    Literal::Null => format!("null{cast}"),
                    Literal::Other(written) => format!("other[{written}]{cast}"),
                }
            }
            Operand::Parameter { number, cast, .. } => {
                format!("${number}{}", cast.as_ref().map(|cast| format!("::{cast}")).unwrap_or_default())
            }
            Operand::List(items, span) => {
                let items: Vec<String> = items.iter().map(|item| self.operand(item)).collect();
                format!("[{}]{}", items.join(", "), if *span == Span::default() { "!" } else { "" })
            }
            Operand::Subquery(scope, span) => {
                format!("<s{}{}>", scope.0, if span.of(self.text).ends_with(')') { "" } else { "!" })
            }
            Operand::Expression { columns, shape, aggregate, volatile, span } => {
                let columns: Vec<String> = columns.iter().map(|column| self.column(column)).collect();
                let aggregate = if *aggregate { " aggregate" } else { "" };
                let volatile = if *volatile { " volatile" } else { "" };
                format!("{{{shape:?}({}){aggregate}{volatile} {:?}}}", columns.join(" "), span.of(self.text))
            }
        }
    }
}

fn name_of(relation: Option<RelationId>) -> String {
    relation.map_or("?".to_owned(), |relation| format!("r{}", relation.0))
}

fn facts_of(sql: &str, catalog: &Catalog) -> String {
    match crate::sql::parse(sql) {
        Ok(parsed) => print(&facts(&parsed, catalog), sql),
        Err(unparsed) => format!("unparsed: {}\n", unparsed.reason),
    }
}

fn check(path: &Path) {
    let file = std::fs::read_to_string(path).unwrap();
    let mut blocks = file.split("====\n");
    let ddl = blocks.next().unwrap_or("");
    let (catalog, problems) = crate::sql::ddl::catalog_from_ddl(ddl);
    assert!(problems.is_empty(), "{}: {problems:?}", path.display());
    let mut written = ddl.to_owned();
    for block in blocks {
        let sql = block.split("----\n").next().unwrap().trim();
        _ = write!(written, "====\n{sql}\n----\n{}", facts_of(sql, &catalog));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, written).unwrap();
    } else {
        assert_eq!(file, written, "{} differs; UPDATE_GOLDEN=1 rewrites it", path.display());
    }
}

#[test]
fn goldens_hold() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/facts");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        check(&path);
    }
}
