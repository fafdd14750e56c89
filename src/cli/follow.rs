//! `pgweir lint --follow`: findings as they come, for as long as it runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::output;
use crate::error::{Error, Result};
use crate::lint::{Finding, Findings, RuleSet, Setting, lint_from};
use crate::logs::{Follower, Options, inputs};
use crate::report::lint::{Grouping, Layout, LintReport};
use crate::workload::{Order, Workload};

/// How often the files are looked at.
const PAUSE: Duration = Duration::from_millis(200);
/// How often all templates are examined anew, for what shows only with time: loops, waits, pauses.
const REVIEW: Duration = Duration::from_secs(5);

/// How findings are printed.
pub enum Form {
    /// For people, with colours or without.
    Text(bool),
    /// A JSON object a line.
    Lines,
}

/// What is wanted of a live log.
pub struct Follow<'a, 's> {
    /// Files and folders.
    pub names: &'a [String],
    /// How to read them.
    pub options: &'a Options,
    /// The rules.
    pub rules: &'a RuleSet,
    /// What is known besides.
    pub setting: &'a Setting<'s>,
    /// What findings look like.
    pub form: Form,
    /// Drops findings that are accepted or known; redacts.
    pub prepare: &'a dyn Fn(&mut Findings) -> Result<()>,
}

impl Follow<'_, '_> {
    /// Reads, examines and prints until the process is ended, or nobody reads what is printed.
    pub fn run(&self) -> Result<()> {
        let mut followers = Vec::new();
        let keys = !self.setting.sharding.keys.is_empty();
        let mut workload = if keys { Workload::with_values() } else { Workload::new() };
        let mut told: BTreeSet<(String, String)> = BTreeSet::new();
        let mut strange: BTreeSet<String> = BTreeSet::new();
        let (mut examined, mut reviewed, mut unseen) = (0, Instant::now(), false);
        self.look_around(&mut followers, &strange);
        loop {
            let mut news = false;
            for follower in &mut followers {
                match follower.poll(&mut workload) {
                    Ok(some) => news |= some,
                    Err(error) if !self.is_named(follower.path()) => {
                        let what = error.what.lines().next().unwrap_or_default();
                        output::print_note(&format!("{} is passed over: {what}", follower.path()));
                        strange.insert(follower.path().to_owned());
                    }
                    Err(error) => return Err(error),
                }
            }
            followers.retain(|follower| !strange.contains(follower.path()));
            unseen |= news;
            let all = workload.templates().len();
            if unseen && reviewed.elapsed() >= REVIEW {
                self.tell(&workload, 0, &mut told)?;
                (reviewed, unseen) = (Instant::now(), false);
                self.look_around(&mut followers, &strange);
            } else if all > examined {
                self.tell(&workload, examined, &mut told)?;
            }
            examined = all;
            if !news {
                if reviewed.elapsed() >= REVIEW && !unseen {
                    self.look_around(&mut followers, &strange);
                    reviewed = Instant::now();
                }
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Follows files that have come into the folders since, as where each day has its own; forgets those that are gone.
    fn look_around(&self, followers: &mut Vec<Follower>, strange: &BTreeSet<String>) {
        for name in self.names {
            if Path::new(name).is_dir() {
                // An empty folder may get its first log later.
                let found = inputs(std::slice::from_ref(name)).unwrap_or_default();
                let logs = found.into_iter().map(|input| input.name);
                for log in logs.filter(|name| is_plain(name) && !strange.contains(name)) {
                    // A file that was rotated has another name now, and was read under the old one.
                    if !followers.iter().any(|it| it.path() == log || it.has_read(&log)) {
                        followers.push(Follower::new(&log, self.options));
                    }
                }
            } else if !followers.iter().any(|follower| follower.path() == name) {
                followers.push(Follower::new(name, self.options));
            }
        }
        followers.retain(|follower| self.is_named(follower.path()) || Path::new(follower.path()).exists());
    }

    /// The user named it, so it has to be a log.
    fn is_named(&self, path: &str) -> bool {
        self.names.iter().any(|name| name == path)
    }

    /// Examines the templates from `first` on and prints what was not printed before.
    fn tell(&self, workload: &Workload, first: usize, told: &mut BTreeSet<(String, String)>) -> Result<()> {
        let mut findings = lint_from(workload, first, self.rules, self.setting, &|| {});
        let name = |finding: &Finding| (finding.rule.clone(), finding.fingerprint.clone());
        findings.findings.retain(|finding| !told.contains(&name(finding)));
        told.extend(findings.findings.iter().map(name));
        (self.prepare)(&mut findings)?;
        if findings.findings.is_empty() {
            return Ok(());
        }
        let layout = Layout { group: Grouping::None, order: Order::Time, statements: 0 };
        let report = LintReport { findings: &findings, rules: self.rules, files: &[], notes: &[], workload, layout };
        output::print(&match self.form {
            Form::Text(colour) => report.text_of_findings(colour),
            Form::Lines => report.lines_of_findings().map_err(|error| Error::internal(error.to_string()))?,
        })
    }
}

/// Compressed files do not grow.
fn is_plain(name: &str) -> bool {
    ![".gz", ".zst", ".bz2", ".xz", ".zip"].iter().any(|ending| name.ends_with(ending))
}
