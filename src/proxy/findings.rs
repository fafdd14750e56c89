//! The linter's rules on the statements that pass.
//!
//! ```text
//! a worker sees a new template -> meter::templates -> (channel) -> examiner: lint -> noted with the template
//! ```
//!
//! The examiner is a thread of its own: no client waits for it. A template is examined when it is new, and again when it
//! has run four times as often, since some rules look at its counts and times. The same thread saves the workload. Executions are counted by the
//! meter anyway. Messages are kept without the constants of the statement they were found in.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::lint::{Finding, Severity};
use crate::proxy::examination::Examiner;
use crate::proxy::meter::templates::{Numbers, Subject, Templates};
use crate::workload::{Observation, Workload};

/// How often templates are looked for that have run much more often.
const AGAIN_EVERY: Duration = Duration::from_secs(5);
/// New templates that may wait to be examined.
const MAX_WAITING: usize = 1000;

/// What a rule found in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The rule's id.
    pub rule: Arc<str>,
    /// How bad it is.
    pub severity: Severity,
    /// What stands behind it.
    pub evidence: &'static str,
    /// What was found, without constants.
    pub message: String,
    /// What to write instead.
    pub suggestion: String,
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        Self {
            rule: finding.rule.into(),
            severity: finding.severity,
            evidence: finding.evidence.as_str(),
            message: finding.message,
            suggestion: finding.suggestion,
        }
    }
}

/// Executions of templates in which a rule found something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Templates that are counted now.
    pub templates: u64,
    /// How often they ran, and those before them.
    pub calls: u64,
    /// How long, in nanoseconds.
    pub nanos: u64,
}

impl Tally {
    /// Adds executions.
    pub fn add(&mut self, numbers: Numbers, templates: u64) {
        self.templates += templates;
        self.calls += numbers.calls;
        self.nanos += numbers.nanos;
    }
}

/// Starts to examine templates. The thread ends with them.
pub(super) fn examine(templates: &Arc<Templates>) {
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let weak = Arc::downgrade(templates);
    let started = std::thread::Builder::new().name("examiner".to_owned()).spawn(move || run(&weak, &receiver));
    match started {
        Ok(_) => templates.examine_by(sender),
        Err(error) => tracing::warn!(%error, "statements are not examined: a thread could not be started"),
    }
}

fn run(templates: &Weak<Templates>, fresh: &Receiver<Subject>) {
    let mut examiner = Examiner::new(Arc::default());
    let (mut saved, mut looked) = (Instant::now(), Instant::now());
    loop {
        let subjects = match fresh.recv_timeout(AGAIN_EVERY.saturating_sub(looked.elapsed())) {
            Ok(subject) => vec![subject],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(templates) = templates.upgrade() else { return };
        let examination = templates.examination();
        if !examiner.is_of(&examination) {
            examiner = Examiner::new(examination);
        }
        let again = if looked.elapsed() >= AGAIN_EVERY { templates.grown() } else { Vec::new() };
        for subject in subjects.iter().chain(&again) {
            templates.note(subject, examined(subject, &examiner));
        }
        if looked.elapsed() >= AGAIN_EVERY {
            examiner.read_catalogs().iter().for_each(|database| templates.examine_again(database));
            looked = Instant::now();
        }
        if templates.saving().is_some_and(|saving| saving.is_due(saved)) {
            saved = Instant::now();
            if let Err(error) = templates.save() {
                tracing::warn!("{error}");
            }
        }
    }
}

/// What the rules find in a template.
fn examined(subject: &Subject, examiner: &Examiner) -> Vec<Found> {
    let mut workload = Workload::new();
    workload.passed(&Observation::of(&subject.example), &subject.passed);
    let findings = examiner.findings(&workload, &subject.database);
    let mut found: Vec<Found> = Vec::new();
    for finding in findings.findings.into_iter().map(Found::from) {
        // A text of several statements is one template here.
        if !found.iter().any(|known| known.rule == finding.rule) {
            found.push(finding);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::LexOptions;
    use crate::sql::template::Scanner;

    fn pass(templates: &Templates, sql: &str, calls: u64) {
        let fingerprint = Scanner::new(LexOptions::default()).scan(sql.as_bytes()).fingerprint;
        let place = templates.place("app", fingerprint, sql.as_bytes(), LexOptions::default());
        templates.record(0, place, Numbers { calls, nanos: 2_000_000, ..Numbers::default() });
    }

    fn wait(templates: &Templates, of: usize) -> Vec<Found> {
        for _ in 0..2000 {
            let found: Vec<Found> = templates.shown().iter().flat_map(|shown| shown.found.to_vec()).collect();
            if found.len() >= of {
                return found;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{:?}", templates.shown())
    }

    #[test]
    fn each_template_is_examined_once_and_its_executions_counted() {
        let templates = Arc::new(Templates::new(10, 1));
        examine(&templates);
        pass(&templates, "select id from t where name like '%secret'", 1);
        pass(&templates, "select id from t where name like '%other'", 6);
        pass(&templates, "select id from t where id = 5; delete from t", 1);
        let found = wait(&templates, 2);
        let rules: Vec<&str> = found.iter().map(|found| &*found.rule).collect();
        assert!(rules.contains(&"leading-wildcard-like") && rules.contains(&"delete-without-where"), "{rules:?}");
        assert!(!format!("{found:?}").contains("secret"));
        let tallies = templates.tallies();
        let tally = tallies[&("app".to_owned(), Arc::from("leading-wildcard-like"))];
        assert_eq!((tally.templates, tally.calls, tally.nanos), (1, 7, 4_000_000));
    }

    #[test]
    fn what_made_room_for_others_still_counts() {
        let templates = Arc::new(Templates::new(8, 1));
        examine(&templates);
        pass(&templates, "delete from t", 3);
        wait(&templates, 1);
        (0..50).for_each(|number| pass(&templates, &format!("select c{number} from t where id = 1"), 4));
        assert!(templates.shown().iter().all(|shown| shown.text != "DELETE FROM t"));
        let tally = templates.tallies()[&("app".to_owned(), Arc::from("delete-without-where"))];
        assert_eq!((tally.templates, tally.calls), (0, 3));
    }

    #[test]
    fn the_thread_ends_with_the_templates() {
        let templates = Arc::new(Templates::new(8, 1));
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let weak = Arc::downgrade(&templates);
        templates.examine_by(sender);
        let thread = std::thread::spawn(move || run(&weak, &receiver));
        drop(templates);
        thread.join().expect("it ended");
    }
}
