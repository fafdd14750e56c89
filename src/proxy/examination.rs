//! What the statements that pass are examined with: the rules as the configuration has them, and the databases' catalogs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Database, ServerUrl};
use crate::db::blocking::Session;
use crate::error::{Error, Result};
use crate::lint::{Findings, LintConfig, RuleSet, Setting, lint};
use crate::workload::Workload;

/// What a configuration says of it.
#[derive(Debug)]
pub struct Examination {
    rules: Arc<RuleSet>,
    accepted: LintConfig,
    /// Where each database's catalog is read.
    sources: HashMap<String, ServerUrl>,
    every: Duration,
}

impl Default for Examination {
    /// With the built-in rules alone, which are tested to be readable.
    fn default() -> Self {
        let rules = Arc::new(RuleSet::built_in().unwrap_or_default());
        Self { rules, accepted: LintConfig::default(), sources: HashMap::new(), every: Duration::ZERO }
    }
}

impl Examination {
    /// Reads the rules that the configuration names.
    ///
    /// # Errors
    /// A folder of rules, or the lint configuration, cannot be read or is wrong.
    pub fn of(config: &Config) -> Result<Self> {
        let mut rules = RuleSet::built_in()?;
        for folder in &config.stats.rules {
            rules.add_folder(Path::new(folder)).map_err(|error| match error.place {
                Some(_) => error,
                None => error.at(format!("stats.rules, {folder}")),
            })?;
        }
        let accepted = match &config.stats.lint_config {
            None => LintConfig::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Error::config(format!("the lint configuration cannot be read: {error}")).at(path)
                })?;
                let accepted = LintConfig::parse(&text, path)?;
                accepted.apply(&mut rules, path)?;
                accepted
            }
        };
        let reads = !config.stats.catalog_interval.is_zero();
        let source = |(name, database): (&String, &Database)| {
            let url = database.servers().next()?.1;
            let named = url.database.clone().unwrap_or_else(|| name.clone());
            // Whoever logs in as the client does is nobody until there is one.
            (reads && url.user.is_some()).then(|| (name.clone(), ServerUrl { database: Some(named), ..url.clone() }))
        };
        let sources = config.databases.iter().filter_map(source).collect();
        Ok(Self { rules: Arc::new(rules), accepted, sources, every: config.stats.catalog_interval })
    }

    /// What the rules find in a workload of this database.
    fn findings(&self, workload: &Workload, setting: &Setting<'_>) -> Findings {
        let mut findings = lint(workload, &self.rules, setting, &|| ());
        self.accepted.filter(&mut findings);
        findings.redact();
        findings
    }
}

/// An examination under way: with what was read of the databases so far.
pub(super) struct Examiner {
    examination: Arc<Examination>,
    /// By database; what is known of one that has not been read is nothing.
    settings: HashMap<String, Setting<'static>>,
    nothing: Setting<'static>,
    read: Option<Instant>,
    /// Databases that could not be read the last time, so that it is said once.
    unread: Vec<String>,
}

impl Examiner {
    /// Nothing was read yet.
    pub fn new(examination: Arc<Examination>) -> Self {
        let (settings, nothing, unread) = (HashMap::new(), Setting::default(), Vec::new());
        Self { examination, settings, nothing, read: None, unread }
    }

    /// Whether that is what it examines with.
    pub fn is_of(&self, examination: &Arc<Examination>) -> bool {
        Arc::ptr_eq(&self.examination, examination)
    }

    /// What the rules find in a workload of a database.
    pub fn findings(&self, workload: &Workload, database: &str) -> Findings {
        self.examination.findings(workload, self.settings.get(database).unwrap_or(&self.nothing))
    }

    /// Reads the catalogs when it is time to. Gives the databases of which more is known now.
    pub fn read_catalogs(&mut self) -> Vec<String> {
        if self.examination.sources.is_empty() || self.read.is_some_and(|read| read.elapsed() < self.examination.every)
        {
            return Vec::new();
        }
        self.read = Some(Instant::now());
        let mut known = Vec::new();
        for (name, url) in &self.examination.sources {
            let catalog = url.with_password().and_then(|url| Session::connect(&url)?.catalog());
            match catalog {
                Ok(catalog) => {
                    self.settings.insert(name.clone(), Setting { catalog, ..Setting::default() });
                    self.unread.retain(|other| other != name);
                    known.push(name.clone());
                }
                Err(error) if !self.unread.contains(name) => {
                    tracing::warn!(database = %name, %error, "statements are examined without the catalog");
                    self.unread.push(name.clone());
                }
                Err(_) => {}
            }
        }
        known
    }
}
