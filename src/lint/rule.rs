//! A rule as data: `rules/<group>/<id>.yaml`.
//!
//! A file says what the rule finds, why that matters and what to write instead; how it is found
//! (`match:`, words over the statement's facts, or `check:`, a named check); and examples, good and bad,
//! which are executed as tests and printed in the documentation.

use std::collections::BTreeMap;
use std::path::Path;

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};

use super::checks;
use super::evidence::Evidence;
use super::matching::Match;
use crate::error::{Error, Result};
use crate::workload::Values;

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/rules");

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth changing.
    Warning,
    /// Wrong, or dangerous.
    Error,
}

impl Severity {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The folder a rule lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Correctness and danger.
    Risk,
    /// Predicates that defeat an index.
    Sargability,
    /// Work that is done for nothing.
    Volume,
    /// What only the order, the sessions or the timing of a log show.
    Workload,
    /// What a sharded database pays for dearly.
    Sharding,
}

impl Group {
    /// All groups in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Risk, Self::Sargability, Self::Volume, Self::Workload, Self::Sharding];

    /// The folder's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Risk => "risk",
            Self::Sargability => "sargability",
            Self::Volume => "volume",
            Self::Workload => "workload",
            Self::Sharding => "sharding",
        }
    }

    /// What its rules have in common.
    pub fn about(self) -> &'static str {
        match self {
            Self::Risk => "Correctness and danger",
            Self::Sargability => "Predicates that defeat an index",
            Self::Volume => "Work that is done for nothing",
            Self::Workload => "What only a log's order, sessions and timing show",
            Self::Sharding => "What a sharded database pays for dearly",
        }
    }
}

/// One rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, as in "allow <name>"; the file's name too.
    pub id: String,
    /// Its folder.
    pub group: Group,
    /// How bad its findings are.
    pub severity: Severity,
    /// What it finds, in one line.
    pub title: String,
    /// The evidence its findings can have, weakest first.
    pub evidence: Vec<Evidence>,
    /// Why it matters.
    pub why: String,
    /// What to write instead.
    pub instead: String,
    /// Conditions over the statement's facts, all of which must hold.
    #[serde(default, rename = "match")]
    pub matching: Option<Match>,
    /// The name of a check written in Rust.
    #[serde(default)]
    pub check: Option<String>,
    /// Numbers the check compares with; rows, milliseconds, counts.
    #[serde(default)]
    pub thresholds: BTreeMap<String, f64>,
    /// Statements it must find something in.
    pub bad: Vec<Example>,
    /// Statements it must stay silent on.
    pub good: Vec<Example>,
}

/// A statement and what is known around it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// The statement.
    pub sql: String,
    /// Why it is bad or good, where that is not plain.
    #[serde(default)]
    pub because: Option<String>,
    /// DDL of the catalog at hand.
    #[serde(default)]
    pub schema: Option<String>,
    /// Rows of its tables.
    #[serde(default)]
    pub rows: BTreeMap<String, f64>,
    /// Distinct values of `table.column`, as in `pg_stats.n_distinct`.
    #[serde(default)]
    pub n_distinct: BTreeMap<String, f64>,
    /// The planner's answer: the document of `EXPLAIN (FORMAT JSON)`.
    #[serde(default)]
    pub plan: Option<String>,
    /// What a log shows of it.
    #[serde(default)]
    pub seen: Option<Seen>,
    /// The text that the finding points at.
    #[serde(default)]
    pub finds: Option<String>,
    /// The sharding key of each sharded table. With a schema the router itself is asked.
    #[serde(default)]
    pub sharding: BTreeMap<String, String>,
    /// Tables with a copy on every shard.
    #[serde(default)]
    pub reference: Vec<String>,
}

/// What a log shows of an example.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Executions.
    #[serde(default)]
    pub count: u64,
    /// Most executions in a row by one session.
    #[serde(default)]
    pub longest_run: u32,
    /// Runs of ten and more.
    #[serde(default)]
    pub loops: u32,
    /// Time of all, in milliseconds.
    #[serde(default)]
    pub total_ms: f64,
    /// Temporary files written.
    #[serde(default)]
    pub temp_files: u64,
    /// Bytes of them.
    #[serde(default)]
    pub temp_bytes: u64,
    /// Waits for a lock.
    #[serde(default)]
    pub lock_waits: u64,
    /// Milliseconds of them.
    #[serde(default)]
    pub lock_wait_ms: f64,
    /// Sets of parameters, as PostgreSQL logs them.
    #[serde(default)]
    pub parameters: Vec<String>,
    /// Transactions that stood idle after it.
    #[serde(default)]
    pub idles: u64,
    /// The longest they did, in milliseconds.
    #[serde(default)]
    pub idle_ms: f64,
    /// Executions whose constants differed from those before.
    #[serde(default)]
    pub varied: u64,
    /// The values of its constants, in order.
    #[serde(default)]
    pub values: Vec<Values>,
}

impl Rule {
    /// Reads a rule; `place` is its file.
    ///
    /// Fails when the file is not a rule, or names a check that does not exist.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::config(what).at(place).hint("pgweir rules show select-star prints a rule to compare with")
        };
        let rule: Rule = serde_yaml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match (&rule.matching, &rule.check) {
            (None, None) => return Err(wrong(format!("rule {} has neither match nor check", rule.id))),
            (Some(_), Some(_)) => return Err(wrong(format!("rule {} has both match and check", rule.id))),
            (None, Some(check)) if checks::find(check).is_none() => {
                let known = checks::names().join(", ");
                return Err(wrong(format!("rule {}: there is no check named {check}; there are: {known}", rule.id)));
            }
            _ => {}
        }
        if rule.bad.is_empty() || rule.good.is_empty() {
            return Err(wrong(format!("rule {} needs at least one bad and one good example", rule.id)));
        }
        if rule.id.is_empty()
            || !rule.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        {
            return Err(wrong(format!("rule id {:?} is not in lower case with hyphens", rule.id)));
        }
        Ok(rule)
    }

    /// What to write instead, without line breaks.
    pub fn instead_in_a_line(&self) -> String {
        self.instead.trim().lines().collect::<Vec<_>>().join(" ")
    }

    /// A number the rule sets, or `default`.
    pub fn threshold(&self, name: &str, default: f64) -> f64 {
        self.thresholds.get(name).copied().unwrap_or(default)
    }
}

/// Rules by id.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    rules: BTreeMap<String, Rule>,
}

impl RuleSet {
    /// The rules that come with the program.
    ///
    /// Fails only when one of them is wrong, which a test prevents.
    pub fn built_in() -> Result<Self> {
        let mut set = Self::default();
        for folder in BUILT_IN.dirs() {
            for file in folder.files() {
                let place = format!("rules/{}", file.path().display());
                let text = file.contents_utf8().unwrap_or_default();
                let rule = Rule::parse(text, &place)?;
                set.rules.insert(rule.id.clone(), rule);
            }
        }
        Ok(set)
    }

    /// Adds the rules of a folder and of the folders in it; a rule of a known id replaces that.
    ///
    /// Fails when the folder cannot be read, holds no rule, or holds a file that is none.
    pub fn add_folder(&mut self, folder: &Path) -> Result<Vec<String>> {
        let mut added = Vec::new();
        let mut folders = vec![folder.to_path_buf()];
        let unreadable = |path: &Path, error: std::io::Error| {
            Error::input(format!("cannot read the rules in {}: {error}", path.display())).at(path.display().to_string())
        };
        while let Some(path) = folders.pop() {
            for entry in std::fs::read_dir(&path).map_err(|error| unreadable(&path, error))? {
                let path = entry.map_err(|error| unreadable(&path, error))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
                    let rule = Rule::parse(&text, &path.display().to_string())?;
                    added.push(rule.id.clone());
                    self.rules.insert(rule.id.clone(), rule);
                }
            }
        }
        if added.is_empty() {
            let error = Error::config(format!("{} holds no rules", folder.display()));
            return Err(error.at(folder.display().to_string()).hint("a rule is a file named <id>.yaml"));
        }
        added.sort();
        Ok(added)
    }

    /// The rule of that id.
    pub fn get(&self, id: &str) -> Option<&Rule> {
        self.rules.get(id)
    }

    /// The rule of that id, to be changed.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Rule> {
        self.rules.get_mut(id)
    }

    /// Takes a rule out.
    pub(super) fn remove(&mut self, id: &str) {
        self.rules.remove(id);
    }

    /// All rules, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }
}
