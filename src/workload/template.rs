//! One template of a workload: counts, times, an example, a few parameters, who ran it.

use serde::{Deserialize, Serialize};

use super::values::{self, Values};
use super::{Constants, Counts, Latency, Observation, Outcome, Passed};
use crate::sql::explain::PlanNode;
use crate::sql::lexer::LexOptions;
use crate::sql::template::{Fingerprint, template_text};

/// Where a statement was first seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// The file; empty when there is none.
    pub file: String,
    /// Its line, from 1; 0 when there is none.
    pub line: u64,
}

/// A statement without its constants, and all that was seen of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// Stable across runs and machines.
    #[serde(with = "hexadecimal")]
    pub fingerprint: Fingerprint,
    /// The statement with `?` for constants, for people.
    pub text: String,
    /// One statement of this template, as it was first seen.
    pub example: String,
    /// The example was too long and is cut: it cannot be parsed.
    pub example_cut: bool,
    /// Where it was first seen.
    pub place: Place,
    /// Executions, failed ones too.
    pub count: u64,
    /// Executions that ended in an error.
    pub errors: u64,
    /// Executions whose duration is known.
    pub timed: u64,
    /// Time of all timed executions, in milliseconds.
    pub total_ms: f64,
    /// The shortest, in milliseconds.
    pub min_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
    /// Rows that they gave or changed, as far as the source tells.
    #[serde(default)]
    pub rows: u64,
    /// Most constants in one statement: the length of its longest list.
    pub max_bindings: u32,
    /// A few sets of parameters, as PostgreSQL logs them.
    pub parameters: Vec<String>,
    /// Users that ran it (the first few).
    pub users: Vec<String>,
    /// Databases it ran in (the first few).
    pub databases: Vec<String>,
    /// Applications that ran it (the first few).
    pub applications: Vec<String>,
    /// Most executions in a row by one session, interleaved with at most a few others.
    pub longest_run: u32,
    /// Runs in a row of at least [`LOOP_LENGTH`].
    pub loops: u32,
    /// Where the first such run was noticed.
    pub loop_place: Option<Place>,
    /// Temporary files it wrote.
    pub temp_files: u64,
    /// Bytes of them.
    pub temp_bytes: u64,
    /// Times it waited for a lock.
    pub lock_waits: u64,
    /// Milliseconds it waited.
    pub lock_wait_ms: f64,
    /// Transactions that stood idle after it.
    #[serde(default)]
    pub idles: u64,
    /// The longest they did, in milliseconds.
    #[serde(default)]
    pub idle_ms: f64,
    /// Executions whose constants, written into the text, were others than the time before.
    #[serde(default)]
    pub varied: u64,
    /// How often it took how long, where that was counted.
    #[serde(default, skip_serializing_if = "Latency::is_empty")]
    pub latency: Latency,
    /// The plan of its slowest execution that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<PlanNode>>,
    /// Executions whose plan was seen, their time, and the longest, in milliseconds.
    #[serde(skip)]
    pub(crate) plans: (u64, f64, f64),
    /// The values of its first constants, where the workload looks at them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Values>,
    /// A hash of the last execution's constants; 0 when it had none.
    #[serde(skip)]
    pub(crate) last_constants: u64,
}

/// A template that a session runs so many times in a row runs in a loop.
pub const LOOP_LENGTH: u32 = 10;

/// Bytes of an example that are kept.
const MAX_EXAMPLE: usize = 64 * 1024;
/// Bytes of examples and texts that are kept at length; beyond, each is cut to [`SHORT_EXAMPLE`].
const MAX_ALL_EXAMPLES: usize = 48 << 20;
const SHORT_EXAMPLE: usize = 2048;
/// Bytes of a template's text that are kept.
const MAX_TEXT: usize = 8 * 1024;
const MAX_PARAMETER_SETS: usize = 3;
const MAX_PARAMETER_BYTES: usize = 512;
const MAX_NAMES: usize = 8;
/// Nodes of a plan that is kept.
const MAX_PLAN_NODES: usize = 300;

impl Template {
    /// The template of a statement seen for the first time; `used` is the budget of all examples.
    pub(super) fn first(fingerprint: Fingerprint, observation: &Observation<'_>, used: &mut usize) -> Self {
        let limit = if *used > MAX_ALL_EXAMPLES { SHORT_EXAMPLE } else { MAX_EXAMPLE };
        let (example, example_cut) = clean(observation.sql, limit);
        let (text, _) = clean(template_text(&example, LexOptions::default()).as_bytes(), MAX_TEXT);
        *used += example.len() + text.len();
        Self {
            fingerprint,
            text,
            example,
            example_cut,
            place: place(observation),
            count: 0,
            errors: 0,
            timed: 0,
            total_ms: 0.0,
            min_ms: 0.0,
            max_ms: 0.0,
            rows: 0,
            max_bindings: 0,
            parameters: Vec::new(),
            users: Vec::new(),
            databases: Vec::new(),
            applications: Vec::new(),
            longest_run: 0,
            loops: 0,
            loop_place: None,
            temp_files: 0,
            temp_bytes: 0,
            lock_waits: 0,
            lock_wait_ms: 0.0,
            idles: 0,
            idle_ms: 0.0,
            varied: 0,
            latency: Latency::default(),
            plan: None,
            plans: (0, 0.0, 0.0),
            values: Vec::new(),
            last_constants: 0,
        }
    }

    /// The time of one timed execution, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        self.total_ms / self.timed.max(1) as f64
    }

    /// Counts an execution.
    pub(super) fn seen(&mut self, observation: &Observation<'_>, constants: Constants) {
        self.count += 1;
        self.max_bindings = self.max_bindings.max(constants.count);
        if constants.hash != 0 {
            self.varied += u64::from(self.last_constants != 0 && self.last_constants != constants.hash);
            self.last_constants = constants.hash;
        }
        if observation.outcome == Outcome::Failed {
            self.errors += 1;
        }
        if let Some(milliseconds) = observation.duration_ms {
            self.took(milliseconds);
        }
        if let Some(parameters) = observation.parameters.filter(|_| self.parameters.len() < MAX_PARAMETER_SETS) {
            self.parameters.push(clean(parameters, MAX_PARAMETER_BYTES).0);
        }
        remember(&mut self.users, observation.user);
        remember(&mut self.databases, observation.database);
        remember(&mut self.applications, observation.application);
    }

    /// Adds executions that were counted elsewhere.
    pub(super) fn counted(&mut self, observation: &Observation<'_>, bindings: u32, counts: Counts) {
        let Counts { calls, total_ms, min_ms, max_ms, rows } = counts;
        self.count += calls;
        self.rows += rows;
        self.max_bindings = self.max_bindings.max(bindings);
        if calls > 0 {
            self.min_ms = if self.timed == 0 { min_ms } else { self.min_ms.min(min_ms) };
            self.max_ms = self.max_ms.max(max_ms);
            self.total_ms += total_ms;
            self.timed += calls;
        }
        remember(&mut self.users, observation.user);
        remember(&mut self.databases, observation.database);
    }

    /// Notes the plan of an execution.
    pub(super) fn planned(&mut self, observation: &Observation<'_>, plan: PlanNode) {
        let milliseconds = observation.duration_ms.unwrap_or_default();
        self.rows += plan.actual_rows.map_or(0, |rows| rows as u64);
        let (seen, total, longest) = &mut self.plans;
        if (*seen == 0 || milliseconds > *longest) && plan.walk().len() <= MAX_PLAN_NODES {
            self.plan = Some(Box::new(plan));
        }
        *seen += 1;
        *total += milliseconds;
        *longest = longest.max(milliseconds);
        remember(&mut self.users, observation.user);
        remember(&mut self.databases, observation.database);
        remember(&mut self.applications, observation.application);
    }

    /// Counts the executions whose plans were seen; gives how many.
    pub(super) fn count_plans(&mut self) -> u64 {
        let (seen, total, longest) = std::mem::take(&mut self.plans);
        (self.count, self.timed, self.total_ms, self.max_ms) = (seen, seen, total, longest);
        self.min_ms = if seen == 1 { longest } else { 0.0 };
        seen
    }

    /// Adds what a proxy knows besides of executions that are counted.
    pub(super) fn passed(&mut self, passed: &Passed) {
        self.errors += passed.errors;
        self.latency.merge(&passed.latency);
        self.longest_run = self.longest_run.max(passed.longest_run);
        self.loops += passed.loops;
        self.idles += passed.idles;
        self.idle_ms = self.idle_ms.max(passed.idle_ms);
        let room = MAX_PARAMETER_SETS.saturating_sub(self.parameters.len());
        self.parameters.extend(passed.parameters.iter().take(room).cloned());
    }

    /// Counts a duration in milliseconds.
    pub(super) fn took(&mut self, milliseconds: f64) {
        self.min_ms = if self.timed == 0 { milliseconds } else { self.min_ms.min(milliseconds) };
        self.max_ms = self.max_ms.max(milliseconds);
        self.total_ms += milliseconds;
        self.timed += 1;
        self.latency.note(milliseconds);
    }

    /// Counts the `run`-th execution in a row.
    pub(super) fn ran_in_a_row(&mut self, run: u32, observation: &Observation<'_>) {
        self.longest_run = self.longest_run.max(run);
        if run == LOOP_LENGTH {
            self.loops += 1;
            self.loop_place.get_or_insert_with(|| place(observation));
        }
    }

    /// Counts a temporary file.
    pub(super) fn temp_file(&mut self, bytes: u64) {
        self.temp_files += 1;
        self.temp_bytes += bytes;
    }

    /// Counts a transaction that stood idle after it.
    pub(super) fn idle(&mut self, milliseconds: f64) {
        self.idles += 1;
        self.idle_ms = self.idle_ms.max(milliseconds);
    }

    /// Counts a wait for a lock.
    pub(super) fn lock_wait(&mut self, milliseconds: f64) {
        self.lock_waits += 1;
        self.lock_wait_ms += milliseconds;
    }

    /// Adds what another workload knows of the same template.
    pub(super) fn merge(&mut self, other: Template) {
        if self.example_cut && !other.example_cut {
            self.example = other.example;
            self.example_cut = false;
        }
        self.min_ms = match (self.timed, other.timed) {
            (_, 0) => self.min_ms,
            (0, _) => other.min_ms,
            _ => self.min_ms.min(other.min_ms),
        };
        self.max_ms = self.max_ms.max(other.max_ms);
        self.count += other.count;
        self.errors += other.errors;
        self.timed += other.timed;
        self.total_ms += other.total_ms;
        self.rows += other.rows;
        self.max_bindings = self.max_bindings.max(other.max_bindings);
        self.longest_run = self.longest_run.max(other.longest_run);
        self.loops += other.loops;
        self.loop_place = self.loop_place.take().or(other.loop_place);
        self.temp_files += other.temp_files;
        self.temp_bytes += other.temp_bytes;
        self.lock_waits += other.lock_waits;
        self.lock_wait_ms += other.lock_wait_ms;
        self.idles += other.idles;
        self.idle_ms = self.idle_ms.max(other.idle_ms);
        self.varied += other.varied;
        if self.plan.is_none() || other.plans.2 > self.plans.2 {
            self.plan = other.plan.or(self.plan.take());
        }
        self.plans.0 += other.plans.0;
        self.plans.1 += other.plans.1;
        self.plans.2 = self.plans.2.max(other.plans.2);
        self.latency.merge(&other.latency);
        values::merge(&mut self.values, other.values);
        self.parameters.extend(other.parameters);
        self.parameters.truncate(MAX_PARAMETER_SETS);
        for (own, theirs) in [
            (&mut self.users, other.users),
            (&mut self.databases, other.databases),
            (&mut self.applications, other.applications),
        ] {
            theirs.iter().for_each(|name| remember(own, Some(name.as_bytes())));
        }
    }
}

fn place(observation: &Observation<'_>) -> Place {
    Place { file: observation.file.to_owned(), line: observation.line }
}

fn remember(names: &mut Vec<String>, name: Option<&[u8]>) {
    let Some(name) = name else { return };
    if names.len() < MAX_NAMES && !names.iter().any(|known| known.as_bytes() == name) {
        let name = String::from_utf8_lossy(name).into_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

/// Bytes as text of at most `limit` bytes, and whether it had to be cut.
fn clean(bytes: &[u8], limit: usize) -> (String, bool) {
    let bytes = bytes.trim_ascii();
    let cut = bytes.len() > limit;
    let kept = if cut { bytes.get(..limit).unwrap_or_default() } else { bytes };
    let mut text = String::from_utf8_lossy(kept).into_owned();
    if text.contains('\0') {
        text.retain(|letter| letter != '\0');
    }
    (text, cut)
}

/// A fingerprint as the 16 digits that people see: JSON's numbers are too short for it.
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Fingerprint;

    pub(super) fn serialize<S: Serializer>(fingerprint: &Fingerprint, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(fingerprint)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Fingerprint, D::Error> {
        let digits = String::deserialize(from)?;
        u64::from_str_radix(&digits, 16).map(Fingerprint).map_err(D::Error::custom)
    }
}
