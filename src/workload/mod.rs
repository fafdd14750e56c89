//! Templates with counts and latencies, gathered from anywhere, mergeable.
//!
//! ```text
//! Observation (one statement as it was seen) -> scan -> Template (count, time, example, order in its session)
//! ```
//!
//! Memory is bounded by the number of templates kept, not by the number of statements seen; what did
//! not fit is counted ([`Workload::left_out`]), never dropped silently.

mod latency;
mod load;
mod mask;
mod order;
mod sessions;
mod template;
mod values;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rustc_hash::FxHasher;
use serde::{Deserialize, Serialize};

pub use latency::Latency;
pub use load::Load;
pub use mask::mask;
pub use order::Order;
pub use template::{LOOP_LENGTH, Place, Template};
pub use values::Values;

use crate::sql::explain::PlanNode;
use crate::sql::lexer::{LexOptions, split_statements};
use crate::sql::template::{BindingKind, Fingerprint, Scan, Scanner};
use sessions::Sessions;

/// What became of an observed statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It ran.
    Executed,
    /// The server answered with an error.
    Failed,
    /// It wrote a temporary file of so many bytes.
    TempFile(u64),
    /// It waited so many milliseconds for a lock.
    LockWait(f64),
}

/// One statement as it was seen in a log or on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation<'a> {
    /// The text, perhaps not UTF-8, perhaps several statements.
    pub sql: &'a [u8],
    /// What became of it.
    pub outcome: Outcome,
    /// How long it ran, in milliseconds, when that is known now; [`Sink::duration`] may tell later.
    pub duration_ms: Option<f64>,
    /// Parameters as PostgreSQL logs them: `$1 = 'a', $2 = NULL`.
    pub parameters: Option<&'a [u8]>,
    /// The file it was read from; empty when there is none.
    pub file: &'a str,
    /// Its line in the file, from 1; 0 when there is none.
    pub line: u64,
    /// User name.
    pub user: Option<&'a [u8]>,
    /// Database name.
    pub database: Option<&'a [u8]>,
    /// Application name.
    pub application: Option<&'a [u8]>,
    /// Tells sessions apart; 0 when unknown.
    pub session: u64,
    /// When it was seen, in milliseconds of the source's clock.
    pub at_ms: Option<i64>,
}

impl<'a> Observation<'a> {
    /// A statement of which nothing but the text is known.
    pub fn of(sql: &'a str) -> Self {
        Self {
            sql: sql.as_bytes(),
            outcome: Outcome::Executed,
            duration_ms: None,
            parameters: None,
            file: "",
            line: 0,
            user: None,
            database: None,
            application: None,
            session: 0,
            at_ms: None,
        }
    }
}

/// Executions of one statement that a source has counted itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// How many.
    pub calls: u64,
    /// Their time in milliseconds.
    pub total_ms: f64,
    /// The shortest, in milliseconds.
    pub min_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
    /// Rows they gave or changed.
    pub rows: u64,
}

/// What a proxy knows of the executions of one statement that passed through it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Passed {
    /// How many.
    pub calls: u64,
    /// How many of them ended in an error.
    pub errors: u64,
    /// Their time in milliseconds.
    pub total_ms: f64,
    /// Rows they gave or changed.
    pub rows: u64,
    /// How often they took how long.
    pub latency: Latency,
    /// Most executions in a row by one session.
    pub longest_run: u32,
    /// Runs in a row of at least [`LOOP_LENGTH`].
    pub loops: u32,
    /// Transactions that stood idle after it.
    pub idles: u64,
    /// The longest they did, in milliseconds.
    pub idle_ms: f64,
    /// A few sets of parameters, as PostgreSQL logs them.
    pub parameters: Vec<String>,
}

/// Takes what a source of statements sees, in its order.
pub trait Sink {
    /// A statement was seen.
    fn observe(&mut self, observation: &Observation<'_>);
    /// The duration of the statement that `session` ran last became known (`log_duration`).
    fn duration(&mut self, session: u64, milliseconds: f64);
    /// A statement's plan was seen, and how long it ran; the same execution may be observed besides, or not.
    fn planned(&mut self, _observation: &Observation<'_>, _plan: PlanNode) {}
    /// The server has ended `session`, since it stood idle in a transaction.
    fn idled_out(&mut self, _session: u64, _at_ms: Option<i64>) {}
    /// A statement was seen many times, by a source that keeps counts instead of an order.
    fn counted(&mut self, observation: &Observation<'_>, counts: Counts);
}

/// How many templates a workload keeps; statements of further ones are only counted.
pub const MAX_TEMPLATES: usize = 50_000;

/// What a statement's constants come down to.
#[derive(Debug, Clone, Copy)]
struct Constants {
    /// How many, parameters too.
    count: u32,
    /// A hash of those written into the text; 0 when there are none.
    hash: u64,
}

/// What a scan of a statement says, where it was made before the statement is counted.
#[derive(Debug, Clone, Copy)]
pub struct Scanned {
    statements: u32,
    fingerprint: Fingerprint,
    constants: Constants,
}

impl Scanned {
    /// Scans a statement.
    pub fn of(scanner: &mut Scanner, sql: &[u8]) -> Self {
        let scan = scanner.scan(sql);
        Self { statements: scan.statements, fingerprint: scan.fingerprint, constants: Constants::of(&scan, sql) }
    }
}

impl Constants {
    fn of(scan: &Scan<'_>, sql: &[u8]) -> Self {
        let mut hasher = FxHasher::default();
        let mut written = false;
        for binding in scan.bindings.iter().filter(|binding| !matches!(binding.kind, BindingKind::Param(_))) {
            hasher.write(binding.bytes(sql));
            written = true;
        }
        let hash = if written { hasher.finish() | 1 } else { 0 };
        Self { count: scan.bindings.len() as u32, hash }
    }
}

type Index = HashMap<u64, u32, BuildHasherDefault<FxHasher>>;

/// Templates with how often and how long they ran.
#[derive(Default, Serialize, Deserialize)]
pub struct Workload {
    /// Statements seen, those left out too.
    pub statements: u64,
    /// Statements whose template did not fit within [`MAX_TEMPLATES`].
    pub left_out: u64,
    /// What ran when, where the source says it.
    #[serde(default, skip_serializing_if = "Load::is_empty")]
    pub load: Load,
    templates: Vec<Template>,
    #[serde(skip)]
    index: Index,
    #[serde(skip)]
    sessions: Sessions,
    #[serde(skip)]
    scanner: Option<Scanner>,
    /// Values of constants are looked at.
    #[serde(skip)]
    with_values: bool,
    /// Bytes of text that the templates hold.
    #[serde(skip)]
    example_used: usize,
}

impl Workload {
    /// An empty workload.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty workload that also notes which values constants have most often ([`Template::values`]).
    pub fn with_values() -> Self {
        Self { with_values: true, ..Self::default() }
    }

    /// Values of constants are looked at, see [`Workload::with_values`].
    pub fn looks_at_values(&self) -> bool {
        self.with_values
    }

    /// Takes a statement that may have been scanned before.
    pub fn observe_scanned(&mut self, observation: &Observation<'_>, scanned: Option<Scanned>) {
        match scanned.filter(|scanned| scanned.statements <= 1 && !self.with_values) {
            Some(Scanned { statements: 0, .. }) => {}
            Some(Scanned { fingerprint, constants, .. }) => {
                self.reindex();
                self.observe_one(observation, fingerprint, constants);
            }
            None => self.observe(observation),
        }
    }

    /// The templates, in the order in which they were first seen.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// Says which file the templates are from that know none: there they are in this order.
    pub fn place_in(&mut self, file: &str) {
        for (template, line) in
            self.templates.iter_mut().zip(1..).filter(|(template, _)| template.place.file.is_empty())
        {
            template.place = Place { file: file.to_owned(), line };
        }
    }

    /// Takes plans for executions where no other message told of these. Call it when all is read.
    pub fn count_plans(&mut self) {
        for template in self.templates.iter_mut().filter(|template| template.count == 0) {
            self.statements += template.count_plans();
        }
    }

    /// Total time of all templates in milliseconds.
    pub fn total_ms(&self) -> f64 {
        self.templates.iter().map(|template| template.total_ms).sum()
    }

    /// Adds another workload's templates to this one's.
    pub fn merge(&mut self, other: Workload) {
        self.reindex();
        self.statements += other.statements;
        self.left_out += other.left_out;
        self.load.merge(&other.load);
        for template in other.templates {
            match self.index.get(&template.fingerprint.0) {
                Some(at) => {
                    if let Some(own) = self.templates.get_mut(*at as usize) {
                        own.merge(template);
                    }
                }
                None => {
                    if self.templates.len() < MAX_TEMPLATES {
                        self.index.insert(template.fingerprint.0, self.templates.len() as u32);
                        self.templates.push(template);
                    } else {
                        self.left_out += template.count;
                    }
                }
            }
        }
    }

    /// Adds executions that a proxy has counted. A text of several statements becomes several templates with the same counts.
    pub fn passed(&mut self, observation: &Observation<'_>, passed: &Passed) {
        let text = String::from_utf8_lossy(observation.sql);
        let (min_ms, max_ms) = passed.latency.bounds();
        let counts = Counts { calls: passed.calls, total_ms: passed.total_ms, min_ms, max_ms, rows: passed.rows };
        for range in split_statements(&text, LexOptions::default()) {
            let Some(part) = text.get(range) else { continue };
            let part = Observation { sql: part.as_bytes(), ..*observation };
            let at = self.counted_at(&part, counts);
            if let Some(template) = at.and_then(|at| self.templates.get_mut(at as usize)) {
                template.passed(passed);
            }
        }
    }

    /// Counts executions; where their template stands, unless it did not fit.
    fn counted_at(&mut self, observation: &Observation<'_>, counts: Counts) -> Option<u32> {
        self.reindex();
        let mut scanner = self.scanner.take().unwrap_or_else(|| Scanner::new(LexOptions::default()));
        let scan = scanner.scan(observation.sql);
        let (statements, fingerprint, bindings) = (scan.statements, scan.fingerprint, scan.bindings.len() as u32);
        self.scanner = Some(scanner);
        if statements == 0 {
            return None;
        }
        self.statements += counts.calls;
        let at = self.place_of(observation, fingerprint);
        match at.and_then(|at| self.templates.get_mut(at as usize)) {
            None => self.left_out += counts.calls,
            Some(template) => template.counted(observation, bindings, counts),
        }
        at
    }

    /// Follows the session's transaction; once it has ended, its longest pause is counted where it was made.
    fn note_idle(&mut self, observation: &Observation<'_>, at: u32) {
        let word = TransactionWord::of(observation.sql);
        let Some((template, milliseconds)) = self.sessions.in_transaction(observation, at, word) else { return };
        if let Some(template) = self.templates.get_mut(template as usize) {
            template.idle(milliseconds);
        }
    }

    /// Rebuilds what a saved workload does not carry.
    fn reindex(&mut self) {
        if self.index.len() != self.templates.len() {
            self.index = self.templates.iter().zip(0..).map(|(template, at)| (template.fingerprint.0, at)).collect();
        }
    }

    /// Where a statement's template stands, which is made when there is none; `None` when there are too many.
    fn place_of(&mut self, observation: &Observation<'_>, fingerprint: Fingerprint) -> Option<u32> {
        if let Some(at) = self.index.get(&fingerprint.0) {
            return Some(*at);
        }
        if self.templates.len() >= MAX_TEMPLATES {
            return None;
        }
        let at = self.templates.len() as u32;
        self.templates.push(Template::first(fingerprint, observation, &mut self.example_used));
        self.index.insert(fingerprint.0, at);
        Some(at)
    }

    /// One statement of an observation (which may hold several).
    fn observe_one(&mut self, observation: &Observation<'_>, fingerprint: Fingerprint, constants: Constants) {
        let Some(at) = self.place_of(observation, fingerprint) else {
            self.left_out += 1;
            self.statements += 1;
            return;
        };
        let Some(template) = self.templates.get_mut(at as usize) else { return };
        match observation.outcome {
            Outcome::TempFile(bytes) => template.temp_file(bytes),
            Outcome::LockWait(milliseconds) => template.lock_wait(milliseconds),
            Outcome::Failed if self.sessions.failed(observation.session, at) => template.errors += 1,
            Outcome::Failed | Outcome::Executed => {
                self.statements += 1;
                if let Some(at_ms) = observation.at_ms {
                    self.load.note(at_ms, observation.duration_ms);
                }
                template.seen(observation, constants);
                let run = self.sessions.ran(observation, at);
                template.ran_in_a_row(run, observation);
                if observation.session != 0 {
                    self.note_idle(observation, at);
                }
            }
        }
    }
}

impl Sink for Workload {
    fn observe(&mut self, observation: &Observation<'_>) {
        self.reindex();
        let mut scanner = self.scanner.take().unwrap_or_else(|| Scanner::new(LexOptions::default()));
        let scan = scanner.scan(observation.sql);
        let (statements, fingerprint) = (scan.statements, scan.fingerprint);
        match statements {
            0 => {}
            1 => {
                let constants = Constants::of(&scan, observation.sql);
                self.observe_one(observation, fingerprint, constants);
                if self.with_values && observation.outcome == Outcome::Executed {
                    let at = self.index.get(&fingerprint.0).map(|at| *at as usize);
                    if let Some(template) = at.and_then(|at| self.templates.get_mut(at)) {
                        values::note(&mut template.values, observation, scan.bindings);
                    }
                }
            }
            _ => {
                let text = String::from_utf8_lossy(observation.sql);
                let mut duration_ms = observation.duration_ms;
                for range in split_statements(&text, LexOptions::default()) {
                    let Some(part) = text.get(range) else { continue };
                    let scan = scanner.scan(part.as_bytes());
                    let (fingerprint, constants) = (scan.fingerprint, Constants::of(&scan, part.as_bytes()));
                    // The log knows one duration for all of them: it goes to the first that is not BEGIN or the like.
                    let own = if is_transaction_word(part) { None } else { duration_ms.take() };
                    let part = Observation { sql: part.as_bytes(), duration_ms: own, ..*observation };
                    self.observe_one(&part, fingerprint, constants);
                }
            }
        }
        self.scanner = Some(scanner);
    }

    fn planned(&mut self, observation: &Observation<'_>, plan: PlanNode) {
        self.reindex();
        let mut scanner = self.scanner.take().unwrap_or_else(|| Scanner::new(LexOptions::default()));
        let scan = scanner.scan(observation.sql);
        let (statements, fingerprint) = (scan.statements, scan.fingerprint);
        self.scanner = Some(scanner);
        let at = if statements == 1 { self.place_of(observation, fingerprint) } else { None };
        if let Some(template) = at.and_then(|at| self.templates.get_mut(at as usize)) {
            template.planned(observation, plan);
        }
    }

    fn idled_out(&mut self, session: u64, at_ms: Option<i64>) {
        let pause = at_ms.and_then(|at_ms| self.sessions.idle_since(session, at_ms));
        if let Some((template, milliseconds)) = pause
            && let Some(template) = self.templates.get_mut(template as usize)
        {
            template.idle(milliseconds);
        }
    }

    fn counted(&mut self, observation: &Observation<'_>, counts: Counts) {
        self.counted_at(observation, counts);
    }

    fn duration(&mut self, session: u64, milliseconds: f64) {
        let pending = self.sessions.finished_after(session, milliseconds);
        if let Some(template) = pending.and_then(|at| self.templates.get_mut(at as usize)) {
            template.took(milliseconds);
            self.load.took(milliseconds);
        }
    }
}

/// What a statement does to its session's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransactionWord {
    Begins,
    Ends,
    Neither,
}

impl TransactionWord {
    fn of(sql: &[u8]) -> Self {
        let sql = sql.trim_ascii_start();
        let word = sql.split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
        let is = |names: &[&[u8]]| names.iter().any(|name| word.eq_ignore_ascii_case(name));
        let has = |name: &[u8]| {
            sql.get(..sql.len().min(64))
                .unwrap_or_default()
                .windows(name.len())
                .any(|part| part.eq_ignore_ascii_case(name))
        };
        if is(&[b"begin", b"start"]) {
            Self::Begins
        } else if is(&[b"commit", b"end", b"abort"]) || is(&[b"rollback"]) && !has(b" to ") {
            Self::Ends
        } else {
            Self::Neither
        }
    }
}

fn is_transaction_word(sql: &str) -> bool {
    let word = sql.trim_start().split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or("");
    ["begin", "commit", "rollback", "start", "set", "end"].iter().any(|name| word.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests;
