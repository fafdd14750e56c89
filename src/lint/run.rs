//! All rules over all templates of a workload.

use std::collections::BTreeMap;

use serde::Serialize;

use super::checks;
use super::evidence::Evidence;
use super::ignore::ignored_in;
use super::inner::inner;
use super::rule::{Group, Rule, RuleSet, Severity};
use super::subject::{Ask, Hit, Planner, Sharding, Subject};
use crate::sql::catalog::Catalog;
use crate::sql::facts::{Facts, RelationSource, Span, StatementKind};
use crate::sql::{facts, parse};
use crate::workload::{Order, Template, Workload};

/// What is known besides the workload.
#[derive(Default)]
pub struct Setting<'a> {
    /// The database's catalog; empty when there is none.
    pub catalog: Catalog,
    /// How its tables lie on shards.
    pub sharding: Sharding,
    /// The planner, when there is a server to ask.
    pub planner: Planner<'a>,
}

/// One rule that fired on one template.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// The rule's group.
    pub group: Group,
    /// How bad it is.
    pub severity: Severity,
    /// What stands behind it.
    pub evidence: Evidence,
    /// The template's fingerprint, 16 hexadecimal digits.
    pub fingerprint: String,
    /// The template's text.
    pub template: String,
    /// A statement of it.
    pub example: String,
    /// Executions.
    pub count: u64,
    /// Their time in milliseconds, as far as the log tells.
    pub total_ms: f64,
    /// The time of one execution in milliseconds, as far as the log tells.
    pub mean_ms: f64,
    /// Rows that all executions gave or changed, as far as the source tells.
    pub rows: u64,
    /// The table it is about, as written; none where the statement names no table.
    pub table: Option<String>,
    /// What was found.
    pub message: String,
    /// A part of the message that quotes a value which the example does not hold.
    #[serde(skip)]
    pub quoted: Option<String>,
    /// What to write instead.
    pub suggestion: String,
    /// Where in the example.
    pub span: FindingSpan,
    /// The file in which the template was first seen.
    pub file: String,
    /// Its line there.
    pub line: u64,
}

/// A byte range of the example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FindingSpan {
    /// First byte.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

/// The result of linting a workload.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Findings {
    /// Statements seen.
    pub statements: u64,
    /// Different templates.
    pub templates: u64,
    /// Statements whose template could not be parsed, and so was not examined.
    pub unparsed: u64,
    /// Templates among these.
    pub unparsed_templates: u64,
    /// Statements not examined because there were too many templates.
    pub left_out: u64,
    /// What was found: worst first.
    pub findings: Vec<Finding>,
    /// Findings that their statements asked not to report.
    #[serde(skip)]
    pub ignored: u64,
    /// A few templates that could not be parsed, with the reason.
    #[serde(skip)]
    pub unparsed_samples: Vec<(String, String)>,
    /// Plans that the server refused, and the first reason.
    #[serde(skip)]
    pub plan_failures: (u64, Option<String>),
}

const MAX_UNPARSED_SAMPLES: usize = 5;

impl Order {
    /// How much a finding's statements matter by it: milliseconds, executions or rows.
    pub fn weight_of(self, finding: &Finding) -> f64 {
        match self {
            Self::Time => finding.total_ms,
            Self::Calls => finding.count as f64,
            Self::Mean => finding.mean_ms,
            Self::Rows => finding.rows as f64,
        }
    }
}

impl Findings {
    /// Puts what is worst and weighs most first.
    pub fn sort(&mut self, order: Order) {
        self.findings.sort_by(|one, other| {
            let by_weight = order.weight_of(other).total_cmp(&order.weight_of(one));
            let by_time = || other.total_ms.total_cmp(&one.total_ms);
            let by_count = || other.count.cmp(&one.count);
            let severity = other.severity.cmp(&one.severity);
            severity.then(by_weight).then_with(by_time).then_with(by_count).then_with(|| one.line.cmp(&other.line))
        });
    }

    /// True when a finding is at least as bad as `severity`.
    pub fn any_at_least(&self, severity: Severity) -> bool {
        self.findings.iter().any(|finding| finding.severity >= severity)
    }
}

/// Examines every template once; `progress` is told after each.
pub fn lint(workload: &Workload, rules: &RuleSet, setting: &Setting<'_>, progress: &dyn Fn()) -> Findings {
    lint_from(workload, 0, rules, setting, progress)
}

/// Examines the templates from the `first`-th on, as [`lint`] does all of them.
pub fn lint_from(
    workload: &Workload,
    first: usize,
    rules: &RuleSet,
    setting: &Setting<'_>,
    progress: &dyn Fn(),
) -> Findings {
    let mut all = Findings {
        statements: workload.statements,
        templates: workload.templates().len() as u64,
        left_out: workload.left_out,
        ..Findings::default()
    };
    let ask = |statement: &str, parameters: u32| setting.planner.ask(statement, parameters);
    for template in workload.templates().iter().skip(first) {
        progress();
        let parsed = match parse(&template.example) {
            Ok(parsed) if !template.example_cut => parsed,
            other => {
                all.unparsed += template.count;
                all.unparsed_templates += 1;
                if all.unparsed_samples.len() < MAX_UNPARSED_SAMPLES {
                    let reason = other.err().map_or_else(|| "it is too long".to_owned(), |unparsed| unparsed.reason);
                    all.unparsed_samples.push((template.text.clone(), reason));
                }
                continue;
            }
        };
        let facts = facts(&parsed, &setting.catalog);
        if !is_of_interest(&facts) {
            continue;
        }
        let subject = Subject::new(&facts, &setting.catalog, template, &setting.sharding, &ask);
        let unwanted = ignored_in(&template.example);
        let within = hits_within(template, rules, setting, &ask);
        for rule in rules.iter() {
            let Some((hit, table)) = hit_of(&subject, rule).or_else(|| within.get(&rule.id).cloned()) else { continue };
            if unwanted.contains(&rule.id) {
                all.ignored += 1;
            } else {
                all.findings.push(finding(rule, hit, table, template));
            }
        }
        if let Some(reason) = subject.plan_failure() {
            all.plan_failures.0 += 1;
            all.plan_failures.1.get_or_insert(reason);
        }
    }
    all.sort(Order::Time);
    all
}

/// A rule's first hit in a statement, and the table that it is about.
type About = (Hit, Option<String>);

fn hit_of(subject: &Subject<'_>, rule: &Rule) -> Option<About> {
    let hit = examine(subject, rule).into_iter().next()?;
    let table = subject.table_about(hit.span);
    Some((hit, table))
}

/// What is found in the statements that run within a template's statement, by rule.
fn hits_within(template: &Template, rules: &RuleSet, setting: &Setting<'_>, ask: Ask<'_>) -> BTreeMap<String, About> {
    let mut found = BTreeMap::new();
    for range in inner(&template.example) {
        let part = Template {
            example: template.example.get(range.clone()).unwrap_or_default().to_owned(),
            ..template.clone()
        };
        let Ok(parsed) = parse(&part.example) else { continue };
        let facts = facts(&parsed, &setting.catalog);
        if !is_of_interest(&facts) {
            continue;
        }
        let subject = Subject::new(&facts, &setting.catalog, &part, &setting.sharding, ask);
        let start = u32::try_from(range.start).unwrap_or(u32::MAX);
        for rule in rules.iter() {
            if let Some((mut hit, table)) = hit_of(&subject, rule) {
                let Span { start: first, end } = hit.span;
                hit.span = Span { start: first.saturating_add(start), end: end.saturating_add(start) };
                found.entry(rule.id.clone()).or_insert((hit, table));
            }
        }
    }
    found
}

/// One rule's hits in one statement, without repetitions.
pub(super) fn examine(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let mut hits = match (&rule.matching, rule.check.as_deref().and_then(checks::find)) {
        (Some(matching), _) => matching.hits(subject),
        (None, Some(check)) => check(subject, rule),
        (None, None) => Vec::new(),
    };
    hits.sort_by_key(|hit| hit.span);
    hits.dedup_by_key(|hit| hit.span);
    hits
}

/// Statements that nobody writes by hand, or that only read PostgreSQL's own catalogs, are not examined.
pub(super) fn is_of_interest(facts: &Facts) -> bool {
    if matches!(facts.kind, StatementKind::Transaction | StatementKind::Session) {
        return false;
    }
    let system = |source: &RelationSource| match source {
        RelationSource::Table { schema, name, .. } => {
            name.starts_with("pg_") || matches!(schema.as_deref(), Some("pg_catalog" | "information_schema"))
        }
        RelationSource::Function(name) => name.starts_with("pg_"),
        _ => false,
    };
    let own = facts
        .relations
        .iter()
        .filter(|relation| matches!(relation.source, RelationSource::Table { .. } | RelationSource::Function(_)));
    facts.relations.is_empty() || !own.clone().any(|relation| system(&relation.source))
}

fn finding(rule: &Rule, hit: Hit, table: Option<String>, template: &Template) -> Finding {
    let Span { start, end } = hit.span;
    Finding {
        rule: rule.id.clone(),
        group: rule.group,
        severity: rule.severity,
        evidence: hit.evidence,
        fingerprint: template.fingerprint.to_string(),
        template: template.text.clone(),
        example: template.example.clone(),
        count: template.count,
        total_ms: template.total_ms,
        mean_ms: template.mean_ms(),
        rows: template.rows,
        table,
        message: hit.message,
        quoted: hit.quoted,
        suggestion: hit.suggestion.unwrap_or_else(|| rule.instead_in_a_line()),
        span: FindingSpan { start, end },
        file: template.place.file.clone(),
        line: template.place.line,
    }
}
