//! `pgweir lint`: what is wrong with the statements of a log or a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args as ClapArgs, ValueEnum};

use super::follow::{Follow, Form};
use super::output;
use super::sources::Sources;
use crate::config;
use crate::db::blocking::Session;
use crate::error::{Error, Result};
use crate::lint::{Baseline, Findings, LintConfig, Planner, RuleSet, Setting, Severity, Sharding, lint};
use crate::logs::{self, LogFormat, Report};
use crate::report::lint::{Grouping, Layout, LintReport};
use crate::route::Topology;
use crate::sql::catalog::Catalog;
use crate::sql::ddl::catalog_from_ddl;
use crate::workload::Order;

const AFTER_HELP: &str = "\
Examples:
  pgweir lint /var/log/postgresql/postgresql-15-main.log
  pgweir lint --database-url postgres://me@127.0.0.1/shop postgresql.csv.gz
  pgweir lint --database-url postgres://me@127.0.0.1/shop --pg-stat-statements
  pgweir lint --workload workload.json
  pgweir lint --schema schema.sql --fail-on error migrations/*.sql
  zcat old.log.gz | pgweir lint --format json -o findings.json -
  pgweir lint --follow --format jsonl /var/log/postgresql/
  pgweir lint --format html --redact -o report.html postgresql.log
  pgweir lint --write-baseline known.json app.log; later: pgweir lint --baseline known.json app.log

With --schema or --database-url a finding that the catalog refutes is not reported. With --database-url PostgreSQL's
planner is asked too: in read-only transactions, and no statement is ever run. Plans that auto_explain has logged are
evidence without a database.

Exit codes: 0 fine; 1 findings at or above --fail-on; 2 wrong usage; 3 a file or a server could not be read.";

/// Find costly and dangerous SQL in logs and .sql files
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Logs of any format (.gz, .zst, .bz2, .xz too), .sql files, pg_stat_statements as CSV, or folders of them; - is standard input
    #[arg(required_unless_present_any = ["workload", "pg_stat_statements"], value_name = "FILE")]
    files: Vec<String>,

    /// A workload that the proxy has saved (stats.workload); may be repeated
    #[arg(long, value_name = "FILE", conflicts_with = "follow")]
    workload: Vec<PathBuf>,

    /// What the database's pg_stat_statements has counted
    #[arg(long, requires = "database_url", conflicts_with = "follow")]
    pg_stat_statements: bool,

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
    #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
    format: Format,

    /// Report only the worst so many findings
    #[arg(long, value_name = "N")]
    top: Option<usize>,

    /// How the text report puts findings together
    #[arg(long, value_name = "WHAT", default_value = "rule", value_enum)]
    group: GroupBy,

    /// What counts among findings of the same severity, and which statements are listed: those of the most time, calls,
    /// time a call, or rows
    #[arg(long, value_name = "WHAT", default_value = "time", value_enum)]
    sort: SortBy,

    /// List so many of the statements that matter most by --sort (HTML and JSON have a list for each order)
    #[arg(long, value_name = "N", default_value_t = 10)]
    statements: usize,

    /// Take every constant out of the report, so that it can be shared
    #[arg(long)]
    redact: bool,

    /// Go on reading as the logs grow and are rotated, and print each finding once as it comes (text or jsonl)
    #[arg(long, conflicts_with_all = ["write_baseline", "top", "output"])]
    follow: bool,

    /// Report only findings that this file does not know
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// Write what is found to a baseline file, and exit with 0
    #[arg(long, value_name = "FILE", conflicts_with = "baseline")]
    write_baseline: Option<PathBuf>,

    /// Severities, thresholds and accepted findings; .pgweir-lint.yaml when it is there
    #[arg(long, value_name = "FILE")]
    lint_config: Option<PathBuf>,

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GroupBy {
    Rule,
    Table,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortBy {
    Time,
    Calls,
    Mean,
    Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Jsonl,
    Sarif,
    Github,
    Gitlab,
    Markdown,
    Html,
}

/// The file that is read when it is there and no other is named.
const LINT_CONFIG: &str = ".pgweir-lint.yaml";

/// Reads the files, examines every template, prints the report.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut rules = RuleSet::built_in()?;
    for folder in &args.rules {
        rules.add_folder(folder)?;
    }
    let accepted = lint_config(&args, &mut rules)?;
    let mut notes = Vec::new();
    let mut session = args.database_url.as_deref().map(Session::connect).transpose()?;
    let catalog = match (&session, &args.schema) {
        (Some(session), _) => session.catalog()?,
        (None, Some(path)) => schema(path, &mut notes)?,
        (None, None) => Catalog::default(),
    };
    let sharding = match args.config.as_deref() {
        Some(path) => sharding(path, &catalog, &mut notes)?,
        None => Sharding::default(),
    };
    if args.follow {
        let planner = session.as_mut().map_or_else(Planner::default, |session| Planner::new(session));
        let setting = Setting { catalog, sharding, planner };
        return follow(&args, &rules, &accepted, &setting);
    }
    let sources = Sources {
        files: &args.files,
        options: options(&args),
        saved: &args.workload,
        counted: session.as_ref().filter(|_| args.pg_stat_statements),
        // Only the rules of sharding ask for values.
        with_values: args.config.is_some(),
    };
    let (workload, files) = sources.read(&mut notes)?;
    let planner = session.as_mut().map_or_else(Planner::default, |session| Planner::new(session));
    let setting = Setting { catalog, sharding, planner };
    let bar = output::progress_bar("{msg:24} {bar:40} {pos}/{len} templates {eta}", workload.templates().len() as u64);
    bar.set_message("examining statements");
    let mut findings = lint(&workload, &rules, &setting, &|| bar.inc(1));
    bar.finish_and_clear();
    check_understood(&findings, &files)?;
    if args.redact {
        // What was not understood of a schema or a folder is quoted there.
        notes.clear();
    }
    leave_out(&args, &accepted, &mut findings, &mut notes)?;
    let failed = args.write_baseline.is_none() && args.fail_on.severity().is_some_and(|it| findings.any_at_least(it));
    if args.redact {
        findings.redact();
    }
    notes.extend(remarks(&findings, &files, args.redact));
    findings.sort(args.sort.order());
    if let Some(top) = args.top.filter(|top| *top < findings.findings.len()) {
        notes.push(format!("{} more findings are left out by --top", findings.findings.len() - top));
        findings.findings.truncate(top);
    }
    let layout = Layout { group: args.group.grouping(), order: args.sort.order(), statements: args.statements };
    let report =
        LintReport { findings: &findings, rules: &rules, files: &files, notes: &notes, workload: &workload, layout };
    let text =
        rendered(&report, &args).map_err(|error| Error::internal(format!("the report has no JSON form: {error}")))?;
    match &args.output {
        None => output::print(&text)?,
        Some(path) => write(path, &text)?,
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| {
        Error::input(format!("the report could not be written: {error}")).at(path.display().to_string())
    })
}

fn rendered(report: &LintReport<'_>, args: &Args) -> Result<String, serde_json::Error> {
    Ok(match args.format {
        Format::Text => report.text(args.output.is_none() && output::colour_on(&std::io::stdout())),
        Format::Json => report.json()?,
        Format::Jsonl => report.json_lines()?,
        Format::Sarif => report.sarif()?,
        Format::Github => report.github(),
        Format::Gitlab => report.gitlab()?,
        Format::Markdown => report.markdown(),
        Format::Html => report.html(),
    })
}

/// The file of severities and accepted findings, applied to the rules.
fn lint_config(args: &Args, rules: &mut RuleSet) -> Result<LintConfig> {
    let path = match &args.lint_config {
        Some(path) => path.clone(),
        None if Path::new(LINT_CONFIG).exists() => PathBuf::from(LINT_CONFIG),
        None => return Ok(LintConfig::default()),
    };
    let place = path.display().to_string();
    let config = LintConfig::parse(&text_of(&path)?, &place)?;
    config.apply(rules, &place)?;
    Ok(config)
}

fn text_of(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::input(format!("cannot read it: {error}")).at(path.display().to_string()))
}

/// Drops what was accepted, or known before; writes the baseline when one is asked for.
fn leave_out(args: &Args, accepted: &LintConfig, findings: &mut Findings, notes: &mut Vec<String>) -> Result<()> {
    let mut note = |count: usize, why: &str| {
        if count > 0 {
            notes.push(format!("{count} findings are left out: {why}"));
        }
    };
    note(findings.ignored as usize, "their statements say pgweir:ignore");
    note(accepted.filter(findings), "the lint configuration accepts them");
    if let Some(path) = &args.baseline {
        let baseline = Baseline::parse(&text_of(path)?, &path.display().to_string())?;
        note(baseline.filter(findings), "the baseline knows them");
    }
    if let Some(path) = &args.write_baseline {
        let text = Baseline::of(findings)
            .text()
            .map_err(|error| Error::internal(format!("the baseline has no JSON form: {error}")))?;
        write(path, &text)?;
    }
    Ok(())
}

impl GroupBy {
    fn grouping(self) -> Grouping {
        match self {
            Self::Rule => Grouping::Rule,
            Self::Table => Grouping::Table,
            Self::None => Grouping::None,
        }
    }
}

impl SortBy {
    fn order(self) -> Order {
        match self {
            Self::Time => Order::Time,
            Self::Calls => Order::Calls,
            Self::Mean => Order::Mean,
            Self::Rows => Order::Rows,
        }
    }
}

impl FailOn {
    fn severity(self) -> Option<Severity> {
        match self {
            Self::Error => Some(Severity::Error),
            Self::Warning => Some(Severity::Warning),
            Self::Info => Some(Severity::Info),
            Self::Never => None,
        }
    }
}

/// How the tables of a configuration's databases lie on shards; the router needs a catalog, and one database.
fn sharding(path: &Path, catalog: &Catalog, notes: &mut Vec<String>) -> Result<Sharding> {
    let config = config::load(path)?;
    let databases = || config.databases.values().filter(|database| database.is_sharded());
    let tables = databases().filter_map(|database| database.sharding.as_ref());
    let mut sharding = Sharding::default();
    for known in tables {
        sharding.keys.extend(known.tables.iter().map(|(name, table)| (name.name.clone(), table.key.0.clone())));
        sharding.reference.extend(known.reference.iter().map(|name| name.name.clone()));
    }
    match (databases().next(), databases().count()) {
        (Some(database), 1) if !catalog.is_empty() => {
            sharding.topology = Some(Topology::new(database, Arc::new(catalog.clone()))?);
        }
        (Some(_), 1) => notes.push("what the proxy refuses is not told without --schema or --database-url".to_owned()),
        (Some(_), count) => notes.push(format!("what the proxy refuses is not told: {count} databases are sharded")),
        (None, _) => notes.push(format!("{}: no database in it is sharded", path.display())),
    }
    Ok(sharding)
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

/// Prints findings of growing logs until the process is ended.
fn follow(args: &Args, rules: &RuleSet, accepted: &LintConfig, setting: &Setting<'_>) -> Result<ExitCode> {
    let form = match args.format {
        Format::Text => Form::Text(output::colour_on(&std::io::stdout())),
        Format::Jsonl => Form::Lines,
        _ => return Err(Error::usage("--follow prints text or jsonl").hint("add --format jsonl")),
    };
    if args.files.iter().any(|file| file == "-") {
        return Err(Error::usage("standard input cannot be followed").hint("name the log, or its folder"));
    }
    let prepare = |findings: &mut Findings| {
        leave_out(args, accepted, findings, &mut Vec::new())?;
        if args.redact {
            findings.redact();
        }
        Ok(())
    };
    let options = options(args);
    Follow { names: &args.files, options: &options, rules, setting, form, prepare: &prepare }.run()?;
    Ok(ExitCode::SUCCESS)
}

fn options(args: &Args) -> logs::Options {
    let format = match args.log_format {
        FormatOfLog::Auto => LogFormat::Auto,
        FormatOfLog::Stderr => LogFormat::Stderr,
        FormatOfLog::Csvlog => LogFormat::Csvlog,
        FormatOfLog::Jsonlog => LogFormat::Jsonlog,
        FormatOfLog::Sql => LogFormat::Sql,
    };
    logs::Options { format, log_line_prefix: args.log_line_prefix.clone() }
}

/// When not one statement could be parsed, silence would look like success.
fn check_understood(findings: &Findings, files: &[Report]) -> Result<()> {
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
        .at(files.iter().map(|file| file.file.as_str()).collect::<Vec<_>>().join(", "))
        .hint("is it PostgreSQL's SQL? --log-format says what the files are"))
}

/// What the reader should know of the input.
fn remarks(findings: &Findings, files: &[Report], redact: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for file in files {
        let missed = file.lines - file.understood.min(file.lines);
        if missed > 0 {
            let sample = file
                .samples
                .first()
                .filter(|_| !redact)
                .map(|(line, text)| format!("; line {line}: {text}"))
                .unwrap_or_default();
            notes.push(format!("{}: {missed} of {} lines were not understood{sample}", file.file, file.lines));
        }
        if file.truncated > 0 {
            notes.push(format!("{}: {} messages were longer than 8 MiB and were cut", file.file, file.truncated));
        }
        if file.foreign {
            notes.push(format!("{}: {}", file.file, file.format));
        } else if file.statements == 0 && file.bytes > 0 {
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
