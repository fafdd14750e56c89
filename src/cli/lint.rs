//! `pgweir lint`: what is wrong with the statements of a log or a file.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::config;
use crate::db::blocking::Session;
use crate::error::{Error, Result};
use crate::lint::{Findings, Planner, RuleSet, Setting, Severity, lint};
use crate::logs::{self, LogFormat, Report};
use crate::report::lint::LintReport;
use crate::sql::catalog::Catalog;
use crate::sql::ddl::catalog_from_ddl;
use crate::workload::Workload;

const AFTER_HELP: &str = "\
Examples:
  pgweir lint /var/log/postgresql/postgresql-15-main.log
  pgweir lint --database-url postgres://me@127.0.0.1/shop postgresql.csv.gz
  pgweir lint --schema schema.sql --fail-on error migrations/*.sql
  zcat old.log.gz | pgweir lint --format json -o findings.json -

With --schema or --database-url a finding that the catalog refutes is not reported. With --database-url PostgreSQL's
planner is asked too: in read-only transactions, and no statement is ever run.

Exit codes: 0 fine; 1 findings at or above --fail-on; 2 wrong usage; 3 a file or a server could not be read.";

/// Find costly and dangerous SQL in logs and .sql files
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Logs of any format (.gz and .zst too) or .sql files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,

    /// The files' format
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_enum)]
    log_format: FormatOfLog,

    /// The server's log_line_prefix, when it is not found by itself
    #[arg(long, value_name = "PREFIX")]
    log_line_prefix: Option<String>,

    /// A file of DDL, such as pg_dump --schema-only writes
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    schema: Option<PathBuf>,

    /// The database, for its catalog, its row counts and its planner
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,

    /// A configuration whose sharded tables the sharding rules look at
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A folder of rules that are added, or replace those of the same id
    #[arg(long, value_name = "DIR")]
    rules: Vec<PathBuf>,

    /// Report format
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = report_format)]
    format: Format,

    /// Exit with 1 when a finding is at least this bad
    #[arg(long, value_name = "SEVERITY", default_value = "warning", value_enum)]
    fail_on: FailOn,

    /// Write the report to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatOfLog {
    Auto,
    Stderr,
    Csvlog,
    Jsonlog,
    Sql,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Error,
    Warning,
    Info,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

fn report_format(name: &str) -> Result<Format, String> {
    match name {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "sarif" | "github" | "html" | "markdown" => Err("not in this version: use text or json".to_owned()),
        _ => Err("use text or json".to_owned()),
    }
}

/// Reads the files, examines every template, prints the report.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut rules = RuleSet::built_in()?;
    for folder in &args.rules {
        rules.add_folder(folder)?;
    }
    let sharding = args.config.as_deref().map_or_else(|| Ok(BTreeMap::new()), sharding_keys)?;
    let mut notes = Vec::new();
    let mut session = args.database_url.as_deref().map(Session::connect).transpose()?;
    let catalog = match (&session, &args.schema) {
        (Some(session), _) => session.catalog()?,
        (None, Some(path)) => schema(path, &mut notes)?,
        (None, None) => Catalog::default(),
    };
    let (workload, files) = read(&args)?;
    let planner = session.as_mut().map_or_else(Planner::default, |session| Planner::new(session));
    let setting = Setting { catalog, sharding, planner };
    let bar = progress_bar("{msg:24} {bar:40} {pos}/{len} templates {eta}", workload.templates().len() as u64);
    bar.set_message("examining statements");
    let findings = lint(&workload, &rules, &setting, &|| bar.inc(1));
    bar.finish_and_clear();
    check_understood(&findings, &args)?;
    notes.extend(remarks(&findings, &files));
    let report = LintReport { findings: &findings, rules: &rules, files: &files, notes: &notes };
    let text = match args.format {
        Format::Json => {
            report.json().map_err(|error| Error::internal(format!("the report has no JSON form: {error}")))?
        }
        Format::Text => report.text(args.output.is_none() && output::colour_on(&std::io::stdout())),
    };
    match &args.output {
        None => output::print(&text)?,
        Some(path) => std::fs::write(path, text).map_err(|error| {
            Error::input(format!("the report could not be written: {error}")).at(path.display().to_string())
        })?,
    }
    let limit = match args.fail_on {
        FailOn::Error => Some(Severity::Error),
        FailOn::Warning => Some(Severity::Warning),
        FailOn::Info => Some(Severity::Info),
        FailOn::Never => None,
    };
    let failed = limit.is_some_and(|limit| findings.any_at_least(limit));
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// The sharding key of each sharded table of every database in a configuration.
fn sharding_keys(path: &Path) -> Result<BTreeMap<String, String>> {
    let config = config::load(path)?;
    let sharded = config.databases.values().filter_map(|database| database.sharding.as_ref());
    let tables = sharded.flat_map(|sharding| &sharding.tables);
    Ok(tables.map(|(name, table)| (name.name.clone(), table.key.0.clone())).collect())
}

/// The catalog of a DDL file.
fn schema(path: &Path, notes: &mut Vec<String>) -> Result<Catalog> {
    let place = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        Error::input(format!("cannot read the schema: {error}"))
            .at(place.as_str())
            .hint("pg_dump --schema-only writes one")
    })?;
    let (catalog, problems) = catalog_from_ddl(&String::from_utf8_lossy(&bytes));
    if catalog.is_empty() {
        return Err(Error::input("the schema file creates no table")
            .at(place)
            .hint("pg_dump --schema-only writes one"));
    }
    if let Some(first) = problems.first() {
        let count = problems.len();
        notes.push(format!(
            "{place}: {count} statements were not understood; the first, line {}: {}",
            first.line, first.what
        ));
    }
    Ok(catalog)
}

fn read(args: &Args) -> Result<(Workload, Vec<Report>)> {
    let format = match args.log_format {
        FormatOfLog::Auto => LogFormat::Auto,
        FormatOfLog::Stderr => LogFormat::Stderr,
        FormatOfLog::Csvlog => LogFormat::Csvlog,
        FormatOfLog::Jsonlog => LogFormat::Jsonlog,
        FormatOfLog::Sql => LogFormat::Sql,
    };
    let options = logs::Options { format, log_line_prefix: args.log_line_prefix.clone() };
    let sizes = args.files.iter().filter_map(|file| std::fs::metadata(file).ok());
    let bar = progress_bar("{msg:24} {bar:40} {bytes}/{total_bytes} {eta}", sizes.map(|file| file.len()).sum());
    bar.set_message("reading");
    let mut workload = Workload::new();
    let mut reports = Vec::new();
    for file in &args.files {
        reports.push(logs::read_file(file, &options, &mut workload, &|read| bar.inc(read))?);
    }
    bar.finish_and_clear();
    if reports.iter().all(|report| report.bytes == 0) {
        return Err(Error::input("there is nothing to examine: the input is empty").at(args.files.join(", ")));
    }
    Ok((workload, reports))
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(template: &str, length: u64) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// When not one statement could be parsed, silence would look like success.
fn check_understood(findings: &Findings, args: &Args) -> Result<()> {
    if findings.unparsed_templates == 0 || findings.unparsed_templates < findings.templates {
        return Ok(());
    }
    let samples: Vec<String> = findings
        .unparsed_samples
        .iter()
        .map(|(text, reason)| {
            let short: String = text.chars().take(120).collect();
            format!("\n  {short}\n    {reason}")
        })
        .collect();
    let what = format!("none of {} statements could be parsed{}", findings.unparsed, samples.concat());
    Err(Error::input(what)
        .at(args.files.join(", "))
        .hint("is it PostgreSQL's SQL? --log-format says what the files are"))
}

/// What the reader should know of the input.
fn remarks(findings: &Findings, files: &[Report]) -> Vec<String> {
    let mut notes = Vec::new();
    for file in files {
        let missed = file.lines - file.understood.min(file.lines);
        if missed > 0 {
            let sample = file.samples.first().map(|(line, text)| format!("; line {line}: {text}")).unwrap_or_default();
            notes.push(format!("{}: {missed} of {} lines were not understood{sample}", file.file, file.lines));
        }
        if file.truncated > 0 {
            notes.push(format!("{}: {} messages were longer than 8 MiB and were cut", file.file, file.truncated));
        }
        if file.statements == 0 && file.bytes > 0 {
            let hint = "set log_min_duration_statement = 0, or sample with log_min_duration_sample";
            notes.push(format!("{}: it is a log ({}), but holds no statements: {hint}", file.file, file.format));
        }
    }
    if findings.left_out > 0 {
        notes.push(format!(
            "{} statements of further templates were not examined: there are too many",
            findings.left_out
        ));
    }
    if let (1.., Some(reason)) = &findings.plan_failures {
        notes.push(format!("{} statements could not be planned on the server: {reason}", findings.plan_failures.0));
    }
    if let Some((text, reason)) = findings.unparsed_samples.first() {
        let short: String = text.chars().take(100).collect();
        notes.push(format!("not parsed, for example: {short} ({reason})"));
    }
    notes
}
