//! A rule's own examples, executed.

use std::sync::Arc;

use super::evidence::PlanEvidence;
use super::rule::{Example, Rule, Seen};
use super::run::examine;
use super::subject::{Hit, Planner, Sharding, Subject};
use crate::config;
use crate::error::{Error, Result};
use crate::route::Topology;
use crate::sql::catalog::{Catalog, CatalogSource};
use crate::sql::ddl::catalog_from_ddl;
use crate::sql::explain::PlanNode;
use crate::sql::{facts, parse};
use crate::workload::{Observation, Sink, Template, Workload};

/// An example that does not come out as its rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The rule.
    pub rule: String,
    /// The statement.
    pub sql: String,
    /// What is wrong.
    pub what: String,
}

/// Answers with the plan that an example holds.
struct Told<'a>(&'a str);

impl PlanEvidence for Told<'_> {
    fn explain(&mut self, _statement: &str, _parameters: u32) -> Result<PlanNode> {
        let document = serde_json::from_str(self.0)
            .map_err(|error| Error::config(format!("the example's plan is not JSON: {error}")))?;
        PlanNode::from_json(&document)
            .ok_or_else(|| Error::config("the example's plan is not what EXPLAIN (FORMAT JSON) prints"))
    }
}

/// Executes a rule's examples; answers those that fail.
pub fn test_rule(rule: &Rule) -> Vec<Failure> {
    let failure =
        |example: &Example, what: String| Failure { rule: rule.id.clone(), sql: example.sql.trim().to_owned(), what };
    let mut failures = Vec::new();
    for example in &rule.bad {
        match hits(rule, example) {
            Err(what) => failures.push(failure(example, what)),
            Ok(hits) => match hits.first() {
                None => failures.push(failure(example, "a bad example in which nothing is found".to_owned())),
                Some((hit, text)) => {
                    let wanted = example.finds.as_deref();
                    if wanted.is_some_and(|wanted| wanted != text) {
                        failures.push(failure(
                            example,
                            format!("it points at {text:?}, not at {:?}", wanted.unwrap_or("")),
                        ));
                    }
                    if !rule.evidence.contains(&hit.evidence) {
                        let what = format!("its evidence is {}, which the rule does not list", hit.evidence.as_str());
                        failures.push(failure(example, what));
                    }
                }
            },
        }
    }
    for example in &rule.good {
        match hits(rule, example) {
            Err(what) => failures.push(failure(example, what)),
            Ok(hits) => failures
                .extend(hits.first().map(|(hit, text)| {
                    failure(example, format!("a good example, but: {} (at {text:?})", hit.message))
                })),
        }
    }
    failures
}

/// What a rule finds in an example, with the text it points at.
fn hits(rule: &Rule, example: &Example) -> Result<Vec<(Hit, String)>, String> {
    let template = template(example)?;
    let catalog = catalog(example)?;
    let parsed = parse(&template.example).map_err(|unparsed| format!("it cannot be parsed: {unparsed}"))?;
    let facts = facts(&parsed, &catalog);
    let mut told = example.plan.as_deref().map(Told);
    let planner = told.as_mut().map_or_else(Planner::default, |told| Planner::new(told));
    let ask = |statement: &str, parameters: u32| planner.ask(statement, parameters);
    let sharding = sharding(example, &catalog)?;
    let subject = Subject::new(&facts, &catalog, &template, &sharding, &ask);
    let hits = examine(&subject, rule);
    if let Some(failure) = subject.plan_failure() {
        return Err(failure);
    }
    Ok(hits
        .into_iter()
        .map(|hit| {
            let text = subject.text(hit.span).to_owned();
            (hit, text)
        })
        .collect())
}

fn template(example: &Example) -> Result<Template, String> {
    let mut workload = Workload::new();
    workload.observe(&Observation::of(&example.sql));
    let mut template = workload.templates().first().cloned().ok_or("it holds no statement")?;
    if let Some(seen) = &example.seen {
        let Seen {
            count,
            longest_run,
            loops,
            total_ms,
            temp_files,
            temp_bytes,
            lock_waits,
            lock_wait_ms,
            parameters,
            idles,
            idle_ms,
            varied,
            values,
        } = seen.clone();
        template = Template {
            count,
            longest_run,
            loops,
            total_ms,
            temp_files,
            temp_bytes,
            lock_waits,
            lock_wait_ms,
            parameters,
            idles,
            idle_ms,
            varied,
            values,
            ..template
        };
    }
    Ok(template)
}

/// How an example's tables lie on two shards; the router is asked where the example has a schema too.
fn sharding(example: &Example, catalog: &Catalog) -> Result<Sharding, String> {
    let keys = example.sharding.clone();
    let reference = example.reference.iter().cloned().collect();
    if keys.is_empty() || catalog.is_empty() {
        return Ok(Sharding { keys, reference, topology: None });
    }
    let tables: Vec<String> = keys.iter().map(|(table, key)| format!("{table}: {{key: {key}}}")).collect();
    let text = format!(
        "users: {{app: {{password: x}}}}\ndatabases: {{d: {{shards: [{{name: a, primary: 'postgres://u@127.0.0.1/a'}}, \
         {{name: b, primary: 'postgres://u@127.0.0.2/b'}}], sharding: {{tables: {{{}}}, reference: [{}]}}}}}}\n",
        tables.join(", "),
        example.reference.join(", ")
    );
    let config =
        config::parse(&text, "an example").map_err(|error| format!("its sharding is not understood: {error}"))?;
    let database = config.databases.values().next().ok_or("its sharding has no database")?;
    let topology = Topology::new(database, Arc::new(catalog.clone())).map_err(|error| error.to_string())?;
    Ok(Sharding { keys, reference, topology: Some(topology) })
}

fn catalog(example: &Example) -> Result<Catalog, String> {
    let Some(schema) = &example.schema else { return Ok(Catalog::default()) };
    let (mut catalog, problems) = catalog_from_ddl(schema);
    if let Some(problem) = problems.first() {
        return Err(format!("its schema is not understood: {problem:?}"));
    }
    catalog.source = if example.rows.is_empty() { CatalogSource::Ddl } else { CatalogSource::Live };
    for (name, rows) in &example.rows {
        let id = catalog.find(None, name).ok_or_else(|| format!("rows: its schema has no table {name}"))?;
        catalog.table_mut(id).rows = Some(*rows);
    }
    for (name, distinct) in &example.n_distinct {
        let (table, column) = name.split_once('.').ok_or("n_distinct: write table.column")?;
        let id = catalog.find(None, table).ok_or_else(|| format!("n_distinct: its schema has no table {table}"))?;
        let columns = &mut catalog.table_mut(id).columns;
        let known = columns.iter_mut().find(|known| known.name == column);
        known.ok_or_else(|| format!("n_distinct: there is no column {name}"))?.n_distinct = Some(*distinct);
    }
    Ok(catalog)
}
