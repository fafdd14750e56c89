//! Findings of one rule, or about one table.

use std::collections::{BTreeMap, BTreeSet};

use super::{LintReport, duration, plural, times};
use crate::lint::{Finding, Severity};
use crate::workload::Order;

/// By what findings are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grouping {
    /// One list.
    None,
    /// By the rule that found them.
    #[default]
    Rule,
    /// By the table they are about.
    Table,
}

/// What has no table.
const NO_TABLE: &str = "(no table)";

/// Findings of one rule, or about one table: worst first.
pub(super) struct Group<'a> {
    /// The rule's id, or the table as written.
    pub name: &'a str,
    /// The findings, with their places in the whole list.
    pub findings: Vec<(usize, &'a Finding)>,
}

impl<'a> Group<'a> {
    /// The worst of its findings.
    pub fn severity(&self) -> Severity {
        self.findings.iter().map(|(_, finding)| finding.severity).max().unwrap_or(Severity::Info)
    }

    /// How much its statements matter together, each counted once.
    pub fn weight(&self, order: Order) -> f64 {
        let weights = self.statements().map(|finding| order.weight_of(finding));
        match order {
            Order::Mean => weights.fold(0.0, f64::max),
            Order::Time | Order::Calls | Order::Rows => weights.sum(),
        }
    }

    /// A finding of each statement.
    fn statements(&self) -> impl Iterator<Item = &'a Finding> {
        let mut seen = BTreeSet::new();
        let findings = self.findings.iter().map(|(_, finding)| *finding);
        findings.filter(move |finding| seen.insert(finding.fingerprint.as_str()))
    }

    /// Its statements, their executions and their time, in words.
    pub fn extent(&self) -> String {
        let statements = self.statements().count() as u64;
        let total_ms = self.weight(Order::Time);
        let time = if total_ms > 0.0 { format!(", {} in all", duration(total_ms)) } else { String::new() };
        format!("{}, {}{time}", plural(statements, "statement"), times(self.weight(Order::Calls) as u64))
    }
}

impl<'a> LintReport<'a> {
    /// The findings in groups, the worst and weightiest group first.
    pub(super) fn groups(&self, by: Grouping) -> Vec<Group<'a>> {
        let mut groups: BTreeMap<&str, Group<'a>> = BTreeMap::new();
        for (at, finding) in self.findings.findings.iter().enumerate() {
            let name = match by {
                Grouping::None => "",
                Grouping::Rule => finding.rule.as_str(),
                Grouping::Table => finding.table.as_deref().unwrap_or(NO_TABLE),
            };
            groups.entry(name).or_insert_with(|| Group { name, findings: Vec::new() }).findings.push((at, finding));
        }
        let mut groups: Vec<Group<'a>> = groups.into_values().collect();
        let order = self.layout.order;
        groups.sort_by(|one, other| {
            let severity = other.severity().cmp(&one.severity());
            let weight = other.weight(order).total_cmp(&one.weight(order));
            severity.then(weight).then_with(|| other.findings.len().cmp(&one.findings.len()))
        });
        groups
    }
}
