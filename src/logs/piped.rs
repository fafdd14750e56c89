//! One log on two cores: one thread reads messages, the other one counts them.
//!
//! What was seen goes over in batches, in the order of the log, so that the result is that of one thread. Where the counting
//! thread falls behind, the reading one takes from it what it can: finding the templates.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::error::{Error, Result};
use crate::sql::explain::PlanNode;
use crate::sql::lexer::LexOptions;
use crate::sql::template::Scanner;
use crate::workload::{Counts, Observation, Outcome, Scanned, Sink, Workload};

/// Batches that may wait.
const WAITING: usize = 4;
/// A batch is handed over when it has so many bytes or items.
const BYTES: usize = 256 << 10;
const ITEMS: usize = 2000;
/// With so many batches not yet counted, the reading thread helps.
const BEHIND: usize = 2;

/// Lets `read` fill the workload, on two threads where there are two cores.
///
/// Fails when no thread can be started.
pub fn piped<T: Send>(workload: &mut Workload, read: impl FnOnce(&mut dyn Sink) -> T) -> Result<T> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Ok(read(workload));
    }
    let helps = !workload.looks_at_values();
    let uncounted = AtomicUsize::new(0);
    let (sender, batches) = sync_channel::<Batch>(WAITING);
    std::thread::scope(|scope| {
        let count = || {
            for batch in batches {
                batch.replay(workload);
                uncounted.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let started = std::thread::Builder::new().name("counting".to_owned()).spawn_scoped(scope, count);
        started.map_err(|error| Error::internal(format!("a thread could not be started: {error}")))?;
        let scanner = Scanner::new(LexOptions::default());
        let mut pipe = Pipe { batch: Batch::default(), sender, uncounted: &uncounted, scanner, helps, scans: false };
        let done = read(&mut pipe);
        pipe.hand_over();
        Ok(done)
    })
}

/// Statements as they were seen.
#[derive(Default)]
struct Batch {
    file: String,
    bytes: Vec<u8>,
    items: Vec<Item>,
}

enum Item {
    Seen(Seen, Option<Scanned>),
    Planned(Seen, Box<PlanNode>),
    Counted(Seen, Counts),
    Duration(u64, f64),
    IdledOut(u64, Option<i64>),
}

/// An observation, by places in the batch's bytes.
struct Seen {
    sql: Range<usize>,
    outcome: Outcome,
    duration_ms: Option<f64>,
    parameters: Option<Range<usize>>,
    line: u64,
    user: Option<Range<usize>>,
    database: Option<Range<usize>>,
    application: Option<Range<usize>>,
    session: u64,
    at_ms: Option<i64>,
}

impl Batch {
    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn seen(&mut self, seen: &Observation<'_>) -> Seen {
        Seen {
            sql: self.keep(seen.sql),
            outcome: seen.outcome,
            duration_ms: seen.duration_ms,
            parameters: seen.parameters.map(|bytes| self.keep(bytes)),
            line: seen.line,
            user: seen.user.map(|bytes| self.keep(bytes)),
            database: seen.database.map(|bytes| self.keep(bytes)),
            application: seen.application.map(|bytes| self.keep(bytes)),
            session: seen.session,
            at_ms: seen.at_ms,
        }
    }

    fn observation(&self, seen: &Seen) -> Observation<'_> {
        let bytes = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        let some = |range: &Option<Range<usize>>| range.as_ref().map(bytes);
        Observation {
            sql: bytes(&seen.sql),
            outcome: seen.outcome,
            duration_ms: seen.duration_ms,
            parameters: some(&seen.parameters),
            file: &self.file,
            line: seen.line,
            user: some(&seen.user),
            database: some(&seen.database),
            application: some(&seen.application),
            session: seen.session,
            at_ms: seen.at_ms,
        }
    }

    fn replay(mut self, workload: &mut Workload) {
        for item in std::mem::take(&mut self.items) {
            match item {
                Item::Seen(seen, scanned) => workload.observe_scanned(&self.observation(&seen), scanned),
                Item::Planned(seen, plan) => workload.planned(&self.observation(&seen), *plan),
                Item::Counted(seen, counts) => workload.counted(&self.observation(&seen), counts),
                Item::Duration(session, milliseconds) => workload.duration(session, milliseconds),
                Item::IdledOut(session, at_ms) => workload.idled_out(session, at_ms),
            }
        }
    }
}

/// Takes what is seen, for the other thread.
struct Pipe<'a> {
    batch: Batch,
    sender: SyncSender<Batch>,
    uncounted: &'a AtomicUsize,
    scanner: Scanner,
    /// What is found out here is of use there.
    helps: bool,
    /// The templates of this batch are found here.
    scans: bool,
}

impl Pipe<'_> {
    fn hand_over(&mut self) {
        if !self.batch.items.is_empty() {
            let behind = self.uncounted.fetch_add(1, Ordering::Relaxed);
            self.scans = self.helps && behind >= BEHIND;
            let file = self.batch.file.clone();
            let bytes = Vec::with_capacity(BYTES + BYTES / 4);
            let next = Batch { file, bytes, items: Vec::with_capacity(ITEMS) };
            // The other thread ends only after this one.
            let _ = self.sender.send(std::mem::replace(&mut self.batch, next));
        }
    }

    /// Makes room for something seen in that file.
    fn in_file(&mut self, file: &str) {
        if self.batch.bytes.len() >= BYTES || self.batch.items.len() >= ITEMS || self.batch.file != file {
            self.hand_over();
            if self.batch.file != file {
                file.clone_into(&mut self.batch.file);
            }
        }
    }
}

impl Sink for Pipe<'_> {
    fn observe(&mut self, observation: &Observation<'_>) {
        self.in_file(observation.file);
        let scanned = self.scans.then(|| Scanned::of(&mut self.scanner, observation.sql));
        let seen = self.batch.seen(observation);
        self.batch.items.push(Item::Seen(seen, scanned));
    }

    fn duration(&mut self, session: u64, milliseconds: f64) {
        self.batch.items.push(Item::Duration(session, milliseconds));
    }

    fn planned(&mut self, observation: &Observation<'_>, plan: PlanNode) {
        self.in_file(observation.file);
        let seen = self.batch.seen(observation);
        self.batch.items.push(Item::Planned(seen, Box::new(plan)));
    }

    fn idled_out(&mut self, session: u64, at_ms: Option<i64>) {
        self.batch.items.push(Item::IdledOut(session, at_ms));
    }

    fn counted(&mut self, observation: &Observation<'_>, counts: Counts) {
        self.in_file(observation.file);
        let seen = self.batch.seen(observation);
        self.batch.items.push(Item::Counted(seen, counts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{Options, read};

    /// A log of several sessions, with every kind of message, longer than a few batches.
    fn log() -> String {
        let line = |number: usize| {
            let head = format!(
                "2026-11-22 22:{:02}:{:02}.{:03} UTC [{}] app@shop ",
                number / 6000 % 60,
                number / 100 % 60,
                number % 1000,
                number % 5 + 1
            );
            match number % 7 {
                0 => format!("{head}LOG:  statement: SELECT {number} FROM t{}\n", number % 40),
                1 => format!("{head}LOG:  duration: {}.5 ms\n", number % 90),
                2 => format!(
                    "{head}LOG:  duration: 1.25 ms  execute s: UPDATE t SET a = $1 WHERE b IN ({number}, 2)\n{head}DETAIL:  parameters: $1 = 'x{number}'\n"
                ),
                3 => format!("{head}ERROR:  relation \"x\" does not exist\n{head}STATEMENT:  SELECT * FROM x\n"),
                4 => {
                    format!("{head}LOG:  duration: 0.5 ms  statement: BEGIN; INSERT INTO t VALUES ({number}); COMMIT\n")
                }
                5 => format!(
                    "{head}LOG:  duration: 2 ms  plan:\n\tQuery Text: SELECT 1 FROM p\n\tSeq Scan on p  (cost=0.00..{number}.00 rows=1 width=4)\n"
                ),
                _ => format!("{head}FATAL:  terminating connection due to idle-in-transaction timeout\n"),
            }
        };
        (0..20_000).map(line).collect()
    }

    #[test]
    fn two_threads_count_as_one_does() {
        let log = log();
        let (mut one, mut two) = (Workload::new(), Workload::new());
        let report = read(&mut log.as_bytes(), "x.log", &Options::default(), &mut one).expect("a log");
        let piped = piped(&mut two, |sink| read(&mut log.as_bytes(), "x.log", &Options::default(), sink));
        assert_eq!(piped.expect("a thread").expect("a log"), report);
        let json = |workload: &Workload| serde_json::to_string(workload).expect("JSON");
        assert_eq!(json(&one), json(&two));
        assert!(one.templates().len() > 40 && one.statements > 10_000);
    }

    #[test]
    fn what_the_reading_thread_finds_out_changes_nothing() {
        let (mut one, mut two) = (Workload::new(), Workload::new());
        let mut scanner = Scanner::new(LexOptions::default());
        for sql in
            ["SELECT 1", "select 'a'; begin; select 2", "", "-- nothing", "SELECT 2", "INSERT INTO t VALUES (1), (2)"]
        {
            one.observe(&Observation::of(sql));
            two.observe_scanned(&Observation::of(sql), Some(Scanned::of(&mut scanner, sql.as_bytes())));
        }
        assert_eq!(serde_json::to_string(&one).expect("JSON"), serde_json::to_string(&two).expect("JSON"));
    }
}
