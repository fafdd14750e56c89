//! Sharding keys: for people, and for scripts.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::advise::sharding::{Candidate, Share};
use crate::config::TableName;
use crate::sql::catalog::QualifiedName;

/// Reasons for refusals that are shown of each candidate.
const SHOWN_REFUSALS: usize = 3;
/// Candidates that are shown to people.
const SHOWN: usize = 5;

/// What `pgweir advise sharding-key` has found.
pub struct KeyReport<'a> {
    /// The server, without the password.
    pub server: &'a str,
    /// The best first.
    pub candidates: &'a [Candidate],
    /// How many templates were planned.
    pub templates: usize,
    /// How many shards were supposed.
    pub shards: usize,
    /// What the reader should know besides.
    pub notes: &'a [String],
}

fn shown(name: &QualifiedName) -> String {
    TableName { schema: name.schema.clone(), name: name.name.clone() }.to_string()
}

fn percent(share: Share) -> String {
    format!("{:.1} % of calls, {:.1} % of time", share.calls * 100.0, share.time * 100.0)
}

impl KeyReport<'_> {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "Sharding keys for {}: {} templates, planned by the router for {} shards\n",
            self.server, self.templates, self.shards
        );
        if self.candidates.is_empty() {
            text.push_str("\nNone: no statement compares a column that could be a key with a constant.\n");
        }
        for (at, candidate) in self.candidates.iter().take(SHOWN).enumerate() {
            let _ = writeln!(text, "\n{}. {}", at + 1, candidate.name);
            one(&mut text, candidate);
        }
        let more = self.candidates.len().saturating_sub(SHOWN);
        if more > 0 {
            let _ = writeln!(text, "\n{more} more candidates are not shown; --format json has them all");
        }
        if let Some(best) = self.candidates.first() {
            let _ = write!(text, "\nFor pgweir.yaml, below `shards`, by {}:\n\n{}", best.name, best.yaml);
        }
        self.notes.iter().for_each(|note| text.push_str(&format!("\nnote: {note}\n")));
        text
    }

    /// For scripts.
    ///
    /// # Errors
    /// Never: every field has a JSON form.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let share = |share: Share| json!({"calls": share.calls, "time": share.time});
        let candidate = |candidate: &Candidate| -> Value {
            let keys: serde_json::Map<String, Value> =
                candidate.keys.iter().map(|(table, key)| (shown(table), json!(key))).collect();
            json!({
                "key": candidate.name, "tables": keys,
                "spread": candidate.spread, "reference": candidate.reference.iter().map(shown).collect::<Vec<_>>(),
                "single": share(candidate.single), "several": share(candidate.several),
                "everywhere": share(candidate.everywhere), "refused": share(candidate.refused),
                "refusals": candidate.refusals.iter().map(|(why, of)| json!({"reason": why, "share": share(*of)})).collect::<Vec<_>>(),
                "remarks": candidate.remarks, "yaml": candidate.yaml,
            })
        };
        let candidates: Vec<Value> = self.candidates.iter().map(candidate).collect();
        let whole = json!({
            "server": self.server, "templates": self.templates, "shards": self.shards, "candidates": candidates, "notes": self.notes,
        });
        Ok(serde_json::to_string_pretty(&whole)? + "\n")
    }
}

fn one(text: &mut String, candidate: &Candidate) {
    let tables: Vec<String> = candidate.keys.iter().map(|(table, key)| format!("{}.{key}", shown(table))).collect();
    let _ = writeln!(text, "   sharded    {}: {:.0} % of the rows", tables.join(", "), candidate.spread * 100.0);
    if !candidate.reference.is_empty() {
        let copies: Vec<String> = candidate.reference.iter().map(shown).collect();
        let _ = writeln!(text, "   copied     {}", copies.join(", "));
    }
    for (name, share) in [
        ("one shard ", candidate.single),
        ("several   ", candidate.several),
        ("all       ", candidate.everywhere),
        ("refused   ", candidate.refused),
    ] {
        if share.calls > 0.0 || name == "one shard " {
            let _ = writeln!(text, "   {name} {}", percent(share));
        }
    }
    for (reason, share) in candidate.refusals.iter().take(SHOWN_REFUSALS) {
        let _ = writeln!(text, "     refused, {:.1} % of calls: {reason}", share.calls * 100.0);
    }
    candidate.remarks.iter().for_each(|remark| text.push_str(&format!("   - {remark}\n")));
}
