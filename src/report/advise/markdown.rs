//! The index report as Markdown, for a ticket or a pull request, and as SQL, for psql.

use std::fmt::Write as _;

use super::{IndexReport, bytes, change, number, plural, printable};
use crate::advise::Recommendation;

/// Statements shown for each index.
const SHOWN_STATEMENTS: usize = 5;

impl IndexReport<'_> {
    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        let advice = self.advice;
        let mut out = format!("# Indexes for {}\n\n", escape(self.server));
        let _ = writeln!(
            out,
            "{} of {}; the workload's cost goes from {} to {} (**{}**).\n",
            plural(self.statements.len(), "template"),
            plural(self.executions() as usize, "execution"),
            number(advice.cost_before),
            number(advice.cost_after),
            change(advice.cost_before, advice.cost_after)
        );
        self.notes.iter().for_each(|note| out.push_str(&format!("> {}\n", escape(note))));
        out.push_str("\n## Create\n\n");
        if advice.recommendations.is_empty() {
            out.push_str("Nothing: no index would take a meaningful share off the cost.\n");
        } else {
            out.push_str("In this order, each brings the most for its size:\n\n| | Index | Size | Then the workload costs |\n|---:|---|---:|---:|\n");
        }
        for (at, step) in advice.order.iter().enumerate() {
            let Some(found) = advice.recommendations.get(step.recommendation) else { continue };
            let share = change(advice.cost_before, step.cost);
            let _ = writeln!(out, "| {} | `{}` | {} | {share} |", at + 1, code(&found.name), bytes(found.size_bytes));
        }
        self.in_order().for_each(|found| self.section(&mut out, found));
        self.others(&mut out);
        out
    }

    /// The recommendations in the order in which to create them.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Recommendation> {
        self.advice.order.iter().filter_map(|step| self.advice.recommendations.get(step.recommendation))
    }

    fn section(&self, out: &mut String, found: &Recommendation) {
        let _ = writeln!(out, "\n### {}\n\n```sql\n{}\n```\n", escape(&found.name), printable(&found.ddl));
        let _ = writeln!(
            out,
            "{} of {}; cost of the statements that use it {} to {} ({}).",
            escape(&found.why),
            bytes(found.size_bytes),
            number(found.cost_before),
            number(found.cost_after),
            change(found.cost_before, found.cost_after)
        );
        if found.writes > 0.0 {
            let writes = plural(found.writes as usize, "write");
            let _ = writeln!(out, "Its price: it is maintained by {writes} of this workload.");
        }
        out.push('\n');
        for at in found.statements.iter().take(SHOWN_STATEMENTS) {
            let Some(statement) = self.statements.get(*at) else { continue };
            let (before, after) = self.costs(*at);
            let _ = writeln!(
                out,
                "- {} to {} a call, {}: `{}`",
                number(before),
                number(after),
                plural(statement.calls as usize, "call"),
                code(&printable(&statement.template))
            );
        }
    }

    fn others(&self, out: &mut String) {
        let mut list = |title: &str, lines: Vec<(&str, String)>| {
            if !lines.is_empty() {
                let _ = writeln!(out, "\n## {title}\n");
            }
            for (ddl, why) in lines {
                let _ = writeln!(out, "- `{}`{why}", code(&printable(ddl)));
            }
        };
        let covered = |by: &str| format!(": {} does its work", escape(by));
        list("Redundant", self.redundant.iter().map(|it| (it.ddl.as_str(), covered(&it.covered_by))).collect());
        let unused = format!("Unused (no scan {})", self.counted_since);
        list(&escape(&unused), self.unused.iter().map(|it| (it.ddl.as_str(), String::new())).collect());
        list("Invalid", self.invalid.iter().map(|it| (it.ddl.as_str(), String::new())).collect());
        let deletes = |count: f64| format!(": {} without it read the whole table", plural(count as usize, "DELETE"));
        let keys = self.unindexed_keys.iter().map(|it| (it.ddl.as_str(), deletes(it.deletes)));
        list("Foreign keys without an index", keys.collect());
    }

    /// The report as a script for psql. What drops something is commented out.
    pub fn sql(&self) -> String {
        let advice = self.advice;
        let mut out = format!("-- Indexes for {}, by pgweir advise\n", printable(self.server));
        let _ = writeln!(
            out,
            "-- the workload's cost goes from {} to {} ({})",
            number(advice.cost_before),
            number(advice.cost_after),
            change(advice.cost_before, advice.cost_after)
        );
        self.notes.iter().for_each(|note| out.push_str(&format!("-- {}\n", printable(note))));
        out.push_str(
            "-- CREATE INDEX CONCURRENTLY runs outside of a transaction: do not use psql --single-transaction.\n",
        );
        out.push_str("\\set ON_ERROR_STOP on\n");
        for (found, step) in self.in_order().zip(&advice.order) {
            let _ = writeln!(
                out,
                "\n-- {}, {}; with it and those before, the workload's cost is at {}\n{}\n-- undo: DROP INDEX CONCURRENTLY {};",
                printable(&found.why),
                bytes(found.size_bytes),
                change(advice.cost_before, step.cost),
                printable(&found.ddl),
                printable(&self.qualified(found))
            );
        }
        let mut list = |title: &str, ddl: Vec<&str>| {
            if !ddl.is_empty() {
                let _ = writeln!(out, "\n-- {title}");
            }
            ddl.into_iter().for_each(|ddl| out.push_str(&format!("-- {}\n", printable(ddl))));
        };
        list("another index does their work:", self.redundant.iter().map(|it| it.ddl.as_str()).collect());
        let unused = format!("no scan {}; check replicas and rare jobs first:", printable(self.counted_since));
        list(&unused, self.unused.iter().map(|it| it.ddl.as_str()).collect());
        list("invalid, so that no plan uses them:", self.invalid.iter().map(|it| it.ddl.as_str()).collect());
        let keys = self.unindexed_keys.iter().map(|it| it.ddl.as_str());
        list("foreign keys whose deletes read a whole table:", keys.collect());
        out
    }

    fn qualified(&self, found: &Recommendation) -> String {
        let schema = &self.catalog.table(found.definition.table).name.schema;
        format!("{}.{}", crate::sql::ident::quote(schema), crate::sql::ident::quote(&found.name))
    }

    /// Cost of one call, today and then.
    pub(super) fn costs(&self, statement: usize) -> (f64, f64) {
        let cost = |costs: &[Option<f64>]| costs.get(statement).copied().flatten().unwrap_or(0.0);
        (cost(&self.advice.before), cost(&self.advice.after))
    }
}

/// Text in Markdown that means itself.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for letter in printable(text).chars() {
        if matches!(letter, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// Text between backticks.
fn code(text: &str) -> String {
    text.replace('`', "'").replace('|', "\\|")
}
