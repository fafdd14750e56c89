//! The index report, as text for people and as JSON for scripts; as Markdown, SQL and HTML in files of their own.

mod html;
mod markdown;
pub mod sharding;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::advise::{Advice, Evidence, Invalid, Recommendation, Redundant, Statement, UnindexedKey, Unused};
use crate::sql::catalog::Catalog;

/// How many of the statements an index helps are shown in text.
const SHOWN_STATEMENTS: usize = 5;
/// How much of a statement is shown in text, in characters.
const SHOWN_TEXT: usize = 100;
/// How many of the left out statements are shown in text.
const SHOWN_SKIPPED: usize = 10;

/// All that one run found out.
pub struct IndexReport<'a> {
    /// The server, without the password.
    pub server: &'a str,
    /// The catalog the advice speaks of.
    pub catalog: &'a Catalog,
    /// The workload.
    pub statements: &'a [Statement],
    /// What to create.
    pub advice: &'a Advice,
    /// What another index makes superfluous.
    pub redundant: &'a [Redundant],
    /// What nothing has used.
    pub unused: &'a [Unused],
    /// What answers nothing until it is built again.
    pub invalid: &'a [Invalid],
    /// Foreign keys that this workload's deletes check without an index.
    pub unindexed_keys: &'a [UnindexedKey],
    /// How it was asked for, without secrets.
    pub command: &'a str,
    /// Since when scans are counted, in words.
    pub counted_since: &'a str,
    /// What the reader should know: how costs were had, what was left out of the workload.
    pub notes: &'a [String],
}

impl IndexReport<'_> {
    /// Executions of all statements.
    fn executions(&self) -> f64 {
        self.statements.iter().map(|statement| statement.calls).sum()
    }

    /// The report as one JSON object (see the design's contract for the field names).
    pub fn json(&self) -> String {
        let advice = self.advice;
        let document = json!({
            "statements": whole(self.executions()),
            "templates": self.statements.len(),
            "cost_before": advice.cost_before,
            "cost_after": advice.cost_after,
            "recommendations": advice.recommendations.iter().map(|found| self.recommendation(found)).collect::<Vec<_>>(),
            "redundant": self.redundant.iter().map(|found| json!({
                "index": found.index, "covered_by": found.covered_by, "ddl": found.ddl, "size_bytes": found.size_bytes,
            })).collect::<Vec<_>>(),
            "unused": self.unused.iter().map(|found| json!({
                "index": found.index, "ddl": found.ddl, "size_bytes": found.size_bytes,
            })).collect::<Vec<_>>(),
            "invalid": self.invalid.iter().map(|found| json!({
                "index": found.index, "ddl": found.ddl, "size_bytes": found.size_bytes,
            })).collect::<Vec<_>>(),
            "unindexed_foreign_keys": self.unindexed_keys.iter().map(|found| json!({
                "table": found.table, "columns": found.columns, "references": found.references,
                "deletes": whole(found.deletes), "ddl": found.ddl,
            })).collect::<Vec<_>>(),
            "order": advice.order.iter().map(|step| json!({
                "name": advice.recommendations.get(step.recommendation).map(|found| &found.name),
                "bytes": step.bytes, "cost": step.cost,
            })).collect::<Vec<_>>(),
            "cut_short": advice.cut_short,
            "skipped": advice.skipped.iter().map(|skipped| {
                let statement = self.statements.get(skipped.statement);
                json!({
                    "fingerprint": statement.map(|statement| &statement.fingerprint),
                    "template": statement.map(|statement| &statement.template),
                    "reason": skipped.reason,
                })
            }).collect::<Vec<_>>(),
            "counted_since": self.counted_since,
            "notes": self.notes,
        });
        format!("{document:#}\n")
    }

    fn recommendation(&self, found: &Recommendation) -> Value {
        let fingerprints: Vec<&str> = found
            .statements
            .iter()
            .filter_map(|at| self.statements.get(*at))
            .map(|statement| statement.fingerprint.as_str())
            .collect();
        json!({
            "ddl": found.ddl,
            "table": self.catalog.table(found.definition.table).name.to_string(),
            "columns": found.definition.keys.iter().map(|key| key.expression.as_ref().unwrap_or(&key.column)).collect::<Vec<_>>(),
            "include": found.definition.include,
            "predicate": found.definition.predicate,
            "method": found.definition.method.word(),
            "size_bytes": found.size_bytes,
            "cost_before": found.cost_before,
            "cost_after": found.cost_after,
            "fingerprints": fingerprints,
            "evidence": found.evidence.word(),
            "name": found.name,
            "writes": whole(found.writes),
            "why": found.why,
        })
    }

    /// The report for a terminal or a file.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let advice = self.advice;
        writeln!(out, "Indexes for {}", printable(self.server))?;
        writeln!(
            out,
            "{} of {}; the workload's cost goes from {} to {} ({})",
            plural(self.statements.len(), "template"),
            plural(self.executions() as usize, "execution"),
            number(advice.cost_before),
            number(advice.cost_after),
            change(advice.cost_before, advice.cost_after),
        )?;
        for note in self.notes {
            writeln!(out, "note: {}", printable(note))?;
        }
        if advice.recommendations.is_empty() {
            writeln!(out, "\nNothing to create: no index would take a meaningful share off the cost.")?;
        } else {
            writeln!(out, "\nCREATE\n{}", self.table())?;
            for (position, found) in advice.recommendations.iter().enumerate() {
                self.write_recommendation(out, position + 1, found)?;
            }
        }
        self.write_drops(out)?;
        self.write_health(out)?;
        self.write_skipped(out)
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "index", "size", "cost before", "cost after", "change", "evidence"]);
        for (position, found) in self.advice.recommendations.iter().enumerate() {
            table.add_row([
                (position + 1).to_string(),
                printable(&found.name),
                bytes(found.size_bytes),
                number(found.cost_before),
                number(found.cost_after),
                change(found.cost_before, found.cost_after),
                found.evidence.word().to_owned(),
            ]);
        }
        for column in [0, 2, 3, 4, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    fn write_recommendation(&self, out: &mut String, position: usize, found: &Recommendation) -> std::fmt::Result {
        writeln!(out, "\n{position}. {}", printable(&found.ddl))?;
        writeln!(out, "   why: {}", found.why)?;
        if found.writes > 0.0 {
            let writes = plural(found.writes as usize, "write");
            writeln!(out, "   price: maintained by {writes} of this workload, which the costs do not show")?;
        }
        for at in found.statements.iter().take(SHOWN_STATEMENTS) {
            let Some(statement) = self.statements.get(*at) else { continue };
            let (before, after) = self.costs(*at);
            writeln!(
                out,
                "   {}  x{}  {} -> {} a call  {}",
                statement.fingerprint,
                number(statement.calls),
                number(before),
                number(after),
                cut(&printable(&statement.template), SHOWN_TEXT),
            )?;
        }
        if let Some(more) = found.statements.len().checked_sub(SHOWN_STATEMENTS).filter(|more| *more > 0) {
            writeln!(out, "   and {more} more")?;
        }
        Ok(())
    }

    fn write_drops(&self, out: &mut String) -> std::fmt::Result {
        let size =
            |bytes_taken: Option<u64>| bytes_taken.map_or_else(String::new, |taken| format!(", {}", bytes(taken)));
        if !self.redundant.is_empty() {
            writeln!(out, "\nREDUNDANT: another index does their work")?;
        }
        for found in self.redundant {
            let (index, by) = (printable(&found.index), printable(&found.covered_by));
            writeln!(out, "   {}\n      {index} is covered by {by}{}", printable(&found.ddl), size(found.size_bytes))?;
        }
        if !self.unused.is_empty() {
            writeln!(out, "\nUNUSED: no scan {}; check replicas and rare jobs before dropping", self.counted_since)?;
        }
        for found in self.unused {
            writeln!(out, "   {}\n      {}{}", printable(&found.ddl), printable(&found.index), size(found.size_bytes))?;
        }
        Ok(())
    }

    fn write_health(&self, out: &mut String) -> std::fmt::Result {
        if !self.invalid.is_empty() {
            writeln!(
                out,
                "\nINVALID: written at every change, and no plan can use them; build them again or drop them"
            )?;
        }
        for found in self.invalid {
            writeln!(out, "   {}", printable(&found.ddl))?;
        }
        if !self.unindexed_keys.is_empty() {
            writeln!(out, "\nFOREIGN KEYS WITHOUT AN INDEX: each deleted row reads the whole table that refers to it")?;
        }
        for found in self.unindexed_keys {
            let (table, to) = (printable(&found.table), printable(&found.references));
            let deletes = plural(found.deletes as usize, "DELETE");
            writeln!(
                out,
                "   {}\n      {deletes} from {to} in this workload, checked in {table}",
                printable(&found.ddl)
            )?;
        }
        Ok(())
    }

    fn write_skipped(&self, out: &mut String) -> std::fmt::Result {
        let skipped = &self.advice.skipped;
        if skipped.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nLEFT OUT: {} without a cost", plural(skipped.len(), "template"))?;
        let mut by_reason: BTreeMap<&str, Vec<&Statement>> = BTreeMap::new();
        for left in skipped {
            by_reason.entry(&left.reason).or_default().extend(self.statements.get(left.statement));
        }
        let mut reasons: Vec<_> = by_reason.into_iter().collect();
        reasons.sort_by_key(|(_, statements)| std::cmp::Reverse(statements.len()));
        for (reason, statements) in reasons.iter().take(SHOWN_SKIPPED) {
            let example = statements.first().map_or("", |statement| statement.template.as_str());
            let times = if statements.len() > 1 { format!(" ({} templates)", statements.len()) } else { String::new() };
            writeln!(out, "   {}{times}\n      {}", printable(reason), cut(&printable(example), SHOWN_TEXT))?;
        }
        if let Some(more) = reasons.len().checked_sub(SHOWN_SKIPPED).filter(|more| *more > 0) {
            writeln!(out, "   and {more} more reasons (all are in --format json)")?;
        }
        Ok(())
    }
}

/// What costs rest on, as a note.
pub fn evidence_note(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Plan => {
            "costs are those of PostgreSQL's planner, with HypoPG's hypothetical indexes; nothing was created"
        }
        Evidence::Stats | Evidence::Schema => {
            "costs are pgweir's own rough estimate from table statistics, not the planner's: check each index with EXPLAIN"
        }
    }
}

/// A count in JSON: a whole number where it is one.
fn whole(count: f64) -> Value {
    // Counts are far below 2^53.
    if count.fract() == 0.0 && (0.0..9e15).contains(&count) { json!(count as u64) } else { json!(count) }
}

/// Text that a log wrote, without what could steer a terminal, on one line.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn cut(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or("")),
        None => text.to_owned(),
    }
}

fn plural(count: usize, what: &str) -> String {
    let number = number(count as f64);
    if count == 1 { format!("{number} {what}") } else { format!("{number} {what}s") }
}

/// A number to look at: two places below ten, one below a hundred, then whole with thousands apart.
fn number(value: f64) -> String {
    let text = match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        size if size < 10.0 => return format!("{value:.2}"),
        size if size < 100.0 => return format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    let mut grouped = String::new();
    for (position, digit) in text.chars().enumerate() {
        if position > 0 && (text.len() - position).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn change(before: f64, after: f64) -> String {
    if before <= 0.0 { "0 %".to_owned() } else { format!("{:+.1} %", 100.0 * (after - before) / before) }
}

/// Bytes in PostgreSQL's units (1 kB is 1024 bytes).
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if value < 1024.0 {
            return if unit == "bytes" || value >= 100.0 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (value, expected) in
            [(0.0, "0"), (0.125, "0.12"), (12.34, "12.3"), (999.6, "1,000"), (1234567.0, "1,234,567"), (100.0, "100")]
        {
            assert_eq!(number(value), expected);
        }
        for (value, expected) in [(0, "0 bytes"), (8192, "8.0 kB"), (1_300_000, "1.2 MB"), (5 << 40, "5.0 TB")] {
            assert_eq!(bytes(value), expected);
        }
        assert_eq!(change(200.0, 50.0), "-75.0 %");
        assert_eq!(change(0.0, 50.0), "0 %");
    }

    #[test]
    fn a_log_cannot_steer_the_terminal() {
        assert_eq!(printable("select '\u{1b}[2J'\nfrom\tt"), "select ' [2J' from t");
    }
}
