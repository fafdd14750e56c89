//! Where `pgweir lint` has its statements from: logs and files, a saved workload, a database's own counts.

use std::path::{Path, PathBuf};

use super::output::progress_bar;
use crate::db::blocking::Session;
use crate::db::statements::{Counted, load};
use crate::error::{Error, Result};
use crate::logs::{self, Report};
use crate::workload::{Counts, Observation, Sink, Workload};

/// What is to be read.
pub(super) struct Sources<'a> {
    /// Logs and files.
    pub files: &'a [String],
    /// How to read them.
    pub options: logs::Options,
    /// Saved workloads.
    pub saved: &'a [PathBuf],
    /// The database whose pg_stat_statements is read.
    pub counted: Option<&'a Session>,
    /// Values of constants are looked at.
    pub with_values: bool,
}

impl Sources<'_> {
    /// Reads all of it. What is passed over is said in `notes`.
    pub fn read(&self, notes: &mut Vec<String>) -> Result<(Workload, Vec<Report>)> {
        let mut workload = if self.with_values { Workload::with_values() } else { Workload::new() };
        let mut reports = Vec::new();
        for path in self.saved {
            let saved = examined(path)?;
            reports.push(report(path.display().to_string(), "a saved workload", &saved));
            workload.merge(saved);
        }
        if let Some(session) = self.counted {
            let counted = counted(session)?;
            reports.push(report(session.label().to_owned(), "pg_stat_statements", &counted));
            workload.merge(counted);
        }
        if !self.files.is_empty() {
            self.logs(&mut workload, &mut reports, notes)?;
            workload.count_plans();
        }
        Ok((workload, reports))
    }

    fn logs(&self, workload: &mut Workload, all: &mut Vec<Report>, notes: &mut Vec<String>) -> Result<()> {
        let inputs = logs::inputs(self.files)?;
        let sizes = inputs.iter().filter_map(|input| std::fs::metadata(&input.name).ok());
        let bar = progress_bar("{msg:24} {bar:40} {bytes}/{total_bytes} {eta}", sizes.map(|file| file.len()).sum());
        bar.set_message("reading");
        let mut reports = Vec::new();
        let mut strange = None;
        for input in &inputs {
            let read = |sink: &mut dyn Sink| logs::read_file(&input.name, &self.options, sink, &|read| bar.inc(read));
            match logs::piped(workload, read)? {
                Ok(report) => reports.push(report),
                Err(error) if input.found && error.exit_code() == 3 => {
                    notes.push(format!(
                        "{} was passed over: {}",
                        input.name,
                        error.what.lines().next().unwrap_or_default()
                    ));
                    strange.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        bar.finish_and_clear();
        if let (Some(error), true) = (strange, reports.iter().all(|report| report.bytes == 0)) {
            return Err(error);
        }
        if reports.iter().all(|report| report.bytes == 0) {
            return Err(Error::input("there is nothing to examine: the input is empty").at(self.files.join(", ")));
        }
        all.extend(reports);
        Ok(())
    }
}

fn report(file: String, format: &str, workload: &Workload) -> Report {
    let lines = workload.templates().len() as u64;
    let statements = workload.statements;
    Report { file, format: format.to_owned(), bytes: 1, lines, understood: lines, statements, ..Report::default() }
}

/// A workload that the proxy has saved; `hint` says what to name where `path` is none.
pub(super) fn saved(path: &Path, hint: &str) -> Result<Workload> {
    let broken = |error: &dyn std::fmt::Display| {
        Error::input(format!("the workload could not be read: {error}")).at(path.display().to_string()).hint(hint)
    };
    let text = std::fs::read(path).map_err(|error| broken(&error))?;
    serde_json::from_slice(&text).map_err(|error| broken(&error))
}

/// A workload to be examined: one that holds something, and whose statements know where they are from.
fn examined(path: &Path) -> Result<Workload> {
    let mut workload =
        saved(path, "name a workload that pgweir saved (stats.workload); logs are named without an option")?;
    if workload.statements == 0 {
        return Err(Error::input("there is nothing to examine: the workload is empty").at(path.display().to_string()));
    }
    workload.place_in(&path.display().to_string());
    Ok(workload)
}

/// What the database has counted itself.
fn counted(session: &Session) -> Result<Workload> {
    let mut workload = Workload::new();
    for statement in load(session)? {
        let mean = statement.total_ms / statement.calls.max(1) as f64;
        let Counted { calls, total_ms, rows, .. } = statement;
        let counts = Counts { calls, total_ms, min_ms: mean, max_ms: mean, rows };
        workload.counted(&Observation::of(&statement.sql), counts);
    }
    workload.place_in("pg_stat_statements");
    Ok(workload)
}
