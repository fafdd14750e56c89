//! From statements as they were seen to what the advisor costs.

use super::model::Statement;
use super::parameters;
use crate::sql::catalog::Catalog;
use crate::sql::facts::{Facts, RelationSource, StatementKind};
use crate::sql::lexer::LexOptions;
use crate::sql::template::{Scanner, template_text};
use crate::sql::{facts, parse};
use crate::workload::Workload;

/// One template's counts and an example, from any source.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen<'a> {
    /// One statement of the template, whole.
    pub sql: &'a str,
    /// How often it ran.
    pub calls: f64,
    /// Milliseconds it took in all, if known.
    pub total_ms: Option<f64>,
    /// Parameters as PostgreSQL logs them, if any.
    pub parameters: Option<&'a str>,
}

/// The statements of a workload that indexes are about, and how many templates are not of that kind.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// What is to be costed.
    pub statements: Vec<Statement>,
    /// Templates of commands that have no plan: BEGIN, SET, CREATE, VACUUM, ...
    pub commands: usize,
    /// Templates that touch no table of the database: system catalogs, `SELECT 1`.
    pub without_tables: usize,
    /// Templates that ran in other databases only.
    pub elsewhere: usize,
    /// Templates of which only the beginning was kept.
    pub cut: usize,
}

impl Input {
    /// What was left out, in words.
    pub fn left_out(&self) -> Option<String> {
        let parts = [
            (self.commands, "of commands that have no plan (BEGIN, SET, CREATE, ..)"),
            (self.without_tables, "that touch no table of this database"),
            (self.elsewhere, "that ran in other databases"),
            (self.cut, "too long to be kept whole"),
        ];
        let said: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        (!said.is_empty()).then(|| format!("templates not looked at: {}", said.join(", ")))
    }
}

/// Reads a workload's templates, those that ran in `database` or in an unnamed one.
pub fn read_workload(workload: &Workload, catalog: &Catalog, database: &str) -> Input {
    let (mut elsewhere, mut cut) = (0, 0);
    let mut here = Vec::new();
    for template in workload.templates() {
        if !template.databases.is_empty() && !template.databases.iter().any(|name| name == database) {
            elsewhere += 1;
        } else if template.example_cut {
            cut += 1;
        } else {
            here.push(template);
        }
    }
    let seen = here.into_iter().map(|template| Seen {
        sql: &template.example,
        // Counts are far below 2^53.
        calls: template.count as f64,
        total_ms: (template.timed > 0).then_some(template.total_ms),
        parameters: template.parameters.first().map(String::as_str),
    });
    Input { elsewhere, cut, ..read(seen, catalog) }
}

/// Reads each statement against the catalog. One our parser does not take has no facts: it is costed, but
/// proposes nothing.
pub fn read<'a>(seen: impl IntoIterator<Item = Seen<'a>>, catalog: &Catalog) -> Input {
    let mut scanner = Scanner::new(LexOptions::default());
    let mut input = Input::default();
    for Seen { sql, calls, total_ms, parameters } in seen {
        let sql = sql.trim().trim_end_matches(';').trim_end();
        let facts = parse(sql).ok().map(|parsed| facts(&parsed, catalog));
        match facts.as_ref().map(about) {
            Some(About::Command) => {
                input.commands += 1;
                continue;
            }
            Some(About::NoTable) => {
                input.without_tables += 1;
                continue;
            }
            Some(About::Tables) | None => {}
        }
        let fingerprint = scanner.scan(sql.as_bytes()).fingerprint.to_string();
        input.statements.push(Statement {
            fingerprint,
            template: template_text(sql, LexOptions::default()),
            sql: sql.to_owned(),
            parameters: parameters.and_then(parameters::parse).filter(|values| !values.is_empty()),
            calls,
            total_ms,
            facts,
        });
    }
    input
}

enum About {
    Command,
    NoTable,
    Tables,
}

fn about(facts: &Facts) -> About {
    use StatementKind::{Delete, Insert, Merge, Select, Update};
    if !matches!(facts.kind, Select | Insert | Update | Delete | Merge) {
        return About::Command;
    }
    let own = facts.relations.iter().any(|relation| match &relation.source {
        RelationSource::Table { table: Some(_), .. } => true,
        RelationSource::Table { schema, name, .. } => match schema.as_deref() {
            Some("pg_catalog" | "information_schema") => false,
            Some(_) => true,
            None => !name.starts_with("pg_"),
        },
        _ => false,
    });
    if own { About::Tables } else { About::NoTable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::catalog::{CatalogSource, Table};

    #[test]
    fn keeps_what_indexes_are_about() {
        let mut catalog = Catalog::new(CatalogSource::Live);
        catalog.add(Table::new("public", "orders"));
        let read_one = |sql| {
            let seen = Seen { sql, calls: 3.0, total_ms: None, parameters: Some("$1 = 'a'") };
            read([seen], &catalog)
        };
        for sql in ["select * from orders where id = $1 ; ", "delete from orders", "select * from gone", "sel broken"] {
            assert_eq!(read_one(sql).statements.len(), 1, "{sql}");
        }
        for sql in ["begin", "set x = 1", "create table x (a int)", "explain select * from orders"] {
            let input = read_one(sql);
            assert_eq!((input.statements.len(), input.commands), (0, 1), "{sql}");
        }
        for sql in [
            "select 1",
            "select * from pg_class",
            "select * from pg_catalog.pg_index",
            "select * from generate_series(1, 3)",
        ] {
            let input = read_one(sql);
            assert_eq!((input.statements.len(), input.without_tables), (0, 1), "{sql}");
        }
        let statement = &read_one("select * from orders where id = $1 ; ").statements[0];
        assert_eq!(statement.sql, "select * from orders where id = $1");
        assert_eq!(statement.parameters, Some(vec![Some("a".to_owned())]));
        assert_eq!(statement.fingerprint.len(), 16);
    }
}
