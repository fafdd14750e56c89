//! What a team does not want to hear of: `.pgweir-lint.yaml`, a baseline, and words in the statement itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rule::{RuleSet, Severity};
use super::run::Findings;
use crate::error::{Error, Result};
use crate::sql::lexer::{LexOptions, Lexer};

/// `.pgweir-lint.yaml`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LintConfig {
    /// The severity of a rule's findings; `off` switches the rule off.
    #[serde(default)]
    severity: BTreeMap<String, Level>,
    /// Numbers of rules, by rule and name.
    #[serde(default)]
    thresholds: BTreeMap<String, BTreeMap<String, f64>>,
    /// Findings that are known and accepted.
    #[serde(default)]
    ignore: Vec<Ignored>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Off,
    Info,
    Warning,
    Error,
}

/// One accepted finding, or several of one rule or one statement.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ignored {
    #[serde(default)]
    rule: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
    reason: String,
}

impl LintConfig {
    /// Reads the file's text; `place` is its name.
    ///
    /// Fails when it is not such a file, or an ignored finding has no reason.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let wrong = |what: String| Error::config(what).at(place).hint("docs/linting.md describes .pgweir-lint.yaml");
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let config: Self = serde_yaml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for ignored in &config.ignore {
            if ignored.reason.trim().is_empty() {
                return Err(wrong("an ignored finding needs a reason".to_owned()));
            }
            if ignored.rule.is_none() && ignored.fingerprint.is_none() {
                return Err(wrong("an ignored finding needs a rule, a fingerprint, or both".to_owned()));
            }
        }
        Ok(config)
    }

    /// Changes the rules as the file says.
    ///
    /// Fails when it names a rule or a threshold that does not exist.
    pub fn apply(&self, rules: &mut RuleSet, place: &str) -> Result<()> {
        let unknown = |what: String| Error::config(what).at(place).hint("pgweir rules list names all rules");
        for ignored in self.ignore.iter().filter_map(|ignored| ignored.rule.as_deref()) {
            if rules.get(ignored).is_none() {
                return Err(unknown(format!("ignore: there is no rule named {ignored}")));
            }
        }
        for (id, values) in &self.thresholds {
            let rule = rules.get_mut(id).ok_or_else(|| unknown(format!("thresholds: there is no rule named {id}")))?;
            for (name, value) in values {
                let known = rule.thresholds.get_mut(name);
                *known.ok_or_else(|| unknown(format!("thresholds: {id} has no threshold named {name}")))? = *value;
            }
        }
        for (id, level) in &self.severity {
            let rule = rules.get_mut(id).ok_or_else(|| unknown(format!("severity: there is no rule named {id}")))?;
            match level {
                Level::Off => rules.remove(id),
                Level::Info => rule.severity = Severity::Info,
                Level::Warning => rule.severity = Severity::Warning,
                Level::Error => rule.severity = Severity::Error,
            }
        }
        Ok(())
    }

    /// Drops accepted findings; answers how many.
    pub fn filter(&self, findings: &mut Findings) -> usize {
        let before = findings.findings.len();
        findings.findings.retain(|finding| {
            !self.ignore.iter().any(|ignored| {
                ignored.rule.as_ref().is_none_or(|rule| *rule == finding.rule)
                    && ignored.fingerprint.as_ref().is_none_or(|print| *print == finding.fingerprint)
            })
        });
        before - findings.findings.len()
    }
}

/// Findings that were there before: only new ones are reported.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The file's format.
    version: u32,
    findings: BTreeSet<Known>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    rule: String,
    fingerprint: String,
}

const BASELINE_VERSION: u32 = 1;

impl Baseline {
    /// What is found now.
    pub fn of(findings: &Findings) -> Self {
        let known = |it: &super::run::Finding| Known { rule: it.rule.clone(), fingerprint: it.fingerprint.clone() };
        Self { version: BASELINE_VERSION, findings: findings.findings.iter().map(known).collect() }
    }

    /// Reads a baseline's text; `place` is its file.
    ///
    /// Fails when it is none, or one of another version.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let hint = "pgweir lint --write-baseline FILE writes one";
        let baseline: Self = serde_json::from_str(text)
            .map_err(|error| Error::config(format!("this is not a baseline: {error}")).at(place).hint(hint))?;
        if baseline.version != BASELINE_VERSION {
            let what = format!("this baseline has version {}, not {BASELINE_VERSION}", baseline.version);
            return Err(Error::config(what).at(place).hint(hint));
        }
        Ok(baseline)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never: every field has a JSON form.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Drops findings that are known; answers how many.
    pub fn filter(&self, findings: &mut Findings) -> usize {
        let before = findings.findings.len();
        let known = |it: &super::run::Finding| Known { rule: it.rule.clone(), fingerprint: it.fingerprint.clone() };
        findings.findings.retain(|finding| !self.findings.contains(&known(finding)));
        before - findings.findings.len()
    }
}

/// The rules that a statement asks to be left alone with: `-- pgweir:ignore select-star, n-plus-one because ..`.
///
/// Without a reason nothing is ignored.
pub(super) fn ignored_in(sql: &str) -> Vec<String> {
    if !sql.contains("pgweir:") {
        return Vec::new();
    }
    let mut lexer = Lexer::new(sql.as_bytes(), LexOptions::default());
    while lexer.next().is_some() {}
    let text = lexer.hint().and_then(|(start, end)| sql.get(start as usize..end as usize)).unwrap_or("");
    let Some(list) = text.trim().strip_prefix("ignore").filter(|rest| rest.starts_with(char::is_whitespace)) else {
        return Vec::new();
    };
    match list.split_once(" because ") {
        Some((rules, reason)) if !reason.trim().is_empty() => {
            rules.split([',', ' ']).map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_says_what_to_ignore_and_why() {
        let cases: &[(&str, &[&str])] = &[
            ("SELECT * FROM t -- pgweir:ignore select-star because the export needs all", &["select-star"]),
            ("/* pgweir:ignore select-star, n-plus-one because x */ SELECT * FROM t", &["select-star", "n-plus-one"]),
            ("SELECT * FROM t -- pgweir:ignore select-star", &[]),
            ("SELECT '-- pgweir:ignore select-star because x' FROM t", &[]),
        ];
        for (sql, expected) in cases {
            assert_eq!(ignored_in(sql), *expected, "{sql}");
        }
    }

    #[test]
    fn a_file_sets_severities_and_thresholds_and_says_what_is_wrong_in_it() {
        let mut rules = RuleSet::built_in().expect("well formed");
        let text = "severity: {select-star: off, order-by-random: error}\nthresholds: {huge-in-list: {items: 7}}\n";
        LintConfig::parse(text, "x").expect("a file").apply(&mut rules, "x").expect("known rules");
        assert!(rules.get("select-star").is_none());
        assert_eq!(rules.get("order-by-random").map(|rule| rule.severity), Some(Severity::Error));
        assert_eq!(rules.get("huge-in-list").map(|rule| rule.threshold("items", 0.0)), Some(7.0));
        for wrong in
            ["severity: {no-such: off}", "thresholds: {huge-in-list: {itms: 7}}", "ignore: [{rule: nope, reason: x}]"]
        {
            let config = LintConfig::parse(wrong, "x").expect(wrong);
            assert_eq!(config.apply(&mut rules, "x").expect_err(wrong).exit_code(), 2);
        }
        for wrong in ["ignore: [{rule: equals-null}]", "ignore: [{reason: x}]", "severities: {}"] {
            assert_eq!(LintConfig::parse(wrong, "x").expect_err(wrong).exit_code(), 2);
        }
    }
}
