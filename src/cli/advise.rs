//! `pgweir advise`: what would make this workload cheaper.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args as ClapArgs, Subcommand};

use super::output;
use super::sources::{Sources, saved};
use crate::advise::estimate::Estimate;
use crate::advise::existing::{redundant, unused};
use crate::advise::health::{invalid, unindexed_keys};
use crate::advise::input::{Input, Seen, read, read_workload};
use crate::advise::sharding::candidates;
use crate::advise::{Advice, CostModel, Options, Spent, Statement, advise};
use crate::db::Limits;
use crate::db::blocking::Session;
use crate::db::hypopg::{Availability, HypoPg, availability};
use crate::db::statements::{Counting, counting, load};
use crate::error::{Error, Result};
use crate::logs::{self, LogFormat};
use crate::report::advise::sharding::KeyReport;
use crate::report::advise::{IndexReport, evidence_note};
use crate::sql::catalog::Catalog;
use crate::workload::Workload;

const AFTER_HELP: &str = "\
Examples:
  pgweir advise indexes --pg-stat-statements --database-url postgres://me@db.example/shop
  pgweir advise indexes --log postgresql.log --database-url postgres://me@127.0.0.1/shop --storage-budget 500MB
  pgweir advise indexes --log /var/log/postgresql --database-url postgres://me@127.0.0.1/shop -o advice.html

Everything is read in read-only transactions with timeouts; statements are planned, never run, and nothing is
created. With the HypoPG extension in the database, every number is PostgreSQL's own planner's.";

const KEY_HELP: &str = "\
Examples:
  pgweir advise sharding-key --pg-stat-statements --database-url postgres://me@db.example/shop
  pgweir advise sharding-key --log postgresql.log --shards 8 --database-url postgres://me@127.0.0.1/shop

Columns that foreign keys or joins hold together are tried as keys: every template is planned as the proxy would, with the
other tables copied to all shards. The answer ends with the settings for pgweir.yaml.";

/// Say which indexes to create and which to drop, and by which column to shard, with evidence
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Indexes(IndexArgs),
    ShardingKey(KeyArgs),
}

/// Which indexes to create and which to drop, measured on your database
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
struct IndexArgs {
    #[command(flatten)]
    seen: SeenArgs,

    /// The database to measure on
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,

    /// Bytes that all new indexes may take together: 500MB, 2GB (1 kB is 1024 bytes)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    storage_budget: Option<u64>,

    /// Key columns only: no INCLUDE columns
    #[arg(long)]
    no_include: bool,

    /// Answer with the best indexes known after about this time: 20s, 2m. 0 is no limit: what is then found does not
    /// depend on how busy the machine is
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = time)]
    time_limit: Duration,

    /// Report format: text, json, markdown, sql (a script for psql) or html (one file that needs nothing else). By default
    /// what the output file's ending says, or text
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,

    /// Write the report to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// By which column to shard, judged by the router's own planner
#[derive(Debug, ClapArgs)]
#[command(after_help = KEY_HELP)]
struct KeyArgs {
    #[command(flatten)]
    seen: SeenArgs,

    /// The database whose tables are to be sharded; it is only read
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,

    /// How many shards there would be
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=100))]
    shards: u8,

    /// Report format: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,

    /// Write the report to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The workload.
#[derive(Debug, ClapArgs)]
struct SeenArgs {
    #[command(flatten)]
    source: Source,

    /// The format of the logs
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = log_format)]
    log_format: LogFormat,

    /// The server's log_line_prefix, when it is not found by itself
    #[arg(long, value_name = "PREFIX")]
    log_line_prefix: Option<String>,
}

/// Where the workload comes from: exactly one of them.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct Source {
    /// Logs in any format (compressed too), .sql files, or folders of them; - is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    log: Vec<String>,

    /// A saved workload
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,

    /// Take the workload from the database's pg_stat_statements
    #[arg(long)]
    pg_stat_statements: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Markdown,
    Sql,
    Html,
}

fn format(name: &str) -> Result<Format, String> {
    match name {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "markdown" | "md" => Ok(Format::Markdown),
        "sql" => Ok(Format::Sql),
        "html" => Ok(Format::Html),
        _ => Err("use text, json, markdown, sql or html".to_owned()),
    }
}

fn by_ending(file: Option<&Path>) -> Format {
    let ending = file.and_then(Path::extension).and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    format(ending).unwrap_or(Format::Text)
}

/// The command that gives the same report, without secrets.
fn command(args: &IndexArgs, server: &str) -> String {
    let mut words = vec!["pgweir advise indexes".to_owned()];
    if args.seen.source.pg_stat_statements {
        words.push("--pg-stat-statements".to_owned());
    }
    if let Some(path) = &args.seen.source.workload {
        words.push(format!("--workload {}", path.display()));
    }
    if !args.seen.source.log.is_empty() {
        words.push(format!("--log {}", args.seen.source.log.join(" ")));
    }
    if let Some(prefix) = &args.seen.log_line_prefix {
        words.push(format!("--log-line-prefix '{}'", prefix.replace('\'', "'\\''")));
    }
    words.push(format!("--database-url {server}"));
    if let Some(budget) = args.storage_budget {
        words.push(format!("--storage-budget {budget}"));
    }
    if args.no_include {
        words.push("--no-include".to_owned());
    }
    words.push(format!("--time-limit {}ms", args.time_limit.as_millis()));
    words.join(" ")
}

fn log_format(name: &str) -> Result<LogFormat, String> {
    Ok(match name {
        "auto" => LogFormat::Auto,
        "stderr" | "syslog" => LogFormat::Stderr,
        "csvlog" => LogFormat::Csvlog,
        "jsonlog" => LogFormat::Jsonlog,
        "sql" => LogFormat::Sql,
        _ => return Err("use auto, stderr, csvlog, jsonlog, syslog or sql".to_owned()),
    })
}

/// `500MB`, `1.5 GB`, `8192`: PostgreSQL's units.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err("write it as 500MB or 2GB".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write it as 500MB or 2GB".to_owned())?;
    // f64 to u64 saturates, so an absurd size is no limit.
    Ok((number * factor) as u64)
}

/// `20s`, `500ms`, `2m`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    let mistake = || "write it as 20s, 500ms or 2m".to_owned();
    let number: u64 = number.parse().map_err(|_| mistake())?;
    match unit.trim() {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" | "min" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(mistake()),
    }
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Indexes(args) => indexes(&args),
        What::ShardingKey(args) => sharding_key(&args),
    }
}

fn indexes(args: &IndexArgs) -> Result<ExitCode> {
    let session = Session::connect(&args.database_url)?;
    let catalog = session.catalog()?;
    let counting = counting(&session)?;
    let mut notes = Vec::new();
    let input = workload(&args.seen, &session, &catalog, &counting.database, &mut notes)?;
    notes.extend(input.left_out());
    let statements = input.statements;
    check_not_empty(&statements, &session, &notes)?;
    let options =
        Options { storage_budget_bytes: args.storage_budget, covering: !args.no_include, ..Options::default() };
    let started = Instant::now();
    let limit = args.time_limit;
    // No limit is never spent.
    let spent = || if limit.is_zero() { 0.0 } else { started.elapsed().as_secs_f64() / limit.as_secs_f64() };
    let (advice, in_use) = match availability(&session)? {
        Availability::Installed { schema } => {
            let mut model = HypoPg::new(&session, &catalog, schema, Limits::default());
            advise_with_progress(&statements, &catalog, &mut model, &options, &spent)?
        }
        absent => {
            notes.push(how_to_get_hypopg(&absent).to_owned());
            advise_with_progress(&statements, &catalog, &mut Estimate::new(&catalog), &options, &spent)?
        }
    };
    let evidence = advice.recommendations.iter().map(|found| found.evidence).min();
    notes.extend(evidence.map(|evidence| evidence_note(evidence).to_owned()));
    if advice.cut_short {
        notes.push(format!(
            "cut short by --time-limit after {limit:?}: the best indexes known by then; more time may find better ones"
        ));
    }
    let redundant = redundant(&catalog);
    let mut unused = unused(&catalog, &in_use);
    unused.retain(|unused| redundant.iter().all(|redundant| redundant.index != unused.index));
    let report = IndexReport {
        server: session.label(),
        catalog: &catalog,
        statements: &statements,
        advice: &advice,
        redundant: &redundant,
        unused: &unused,
        invalid: &invalid(&catalog),
        unindexed_keys: &unindexed_keys(&catalog, &statements, &advice.recommendations),
        command: &command(args, session.label()),
        counted_since: &since(&counting),
        notes: &notes,
    };
    let text = match args.format.unwrap_or_else(|| by_ending(args.output.as_deref())) {
        Format::Text => report.text(),
        Format::Json => report.json(),
        Format::Markdown => report.markdown(),
        Format::Sql => report.sql(),
        Format::Html => report.html(),
    };
    deliver(args.output.as_deref(), &text)
}

fn sharding_key(args: &KeyArgs) -> Result<ExitCode> {
    let session = Session::connect(&args.database_url)?;
    let catalog = session.catalog()?;
    let counting = counting(&session)?;
    let mut notes = Vec::new();
    let input = workload(&args.seen, &session, &catalog, &counting.database, &mut notes)?;
    notes.extend(input.left_out());
    check_not_empty(&input.statements, &session, &notes)?;
    let found = candidates(&input.statements, &catalog, args.shards.into())?;
    let report = KeyReport {
        server: session.label(),
        candidates: &found,
        templates: input.statements.len(),
        shards: args.shards.into(),
        notes: &notes,
    };
    let json = || report.json().map_err(|error| Error::internal(format!("the report has no JSON form: {error}")));
    let text = if args.format == "json" { json()? } else { report.text() };
    deliver(args.output.as_deref(), &text)
}

fn check_not_empty(statements: &[Statement], session: &Session, notes: &[String]) -> Result<()> {
    if !statements.is_empty() {
        return Ok(());
    }
    let what = "the workload holds no statement on this database's tables";
    let hint = "log statements with log_min_duration_statement = 0, and name the database they ran in";
    Err(Error::input(what).at(session.label()).hint(notes.join("; ") + if notes.is_empty() { "" } else { "; " } + hint))
}

/// Prints a report, or writes it to a file.
fn deliver(file: Option<&Path>, text: &str) -> Result<ExitCode> {
    match file {
        None => output::print(text)?,
        Some(path) => std::fs::write(path, text).map_err(|error| {
            Error::input(format!("the report could not be written: {error}")).at(path.display().to_string())
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The workload of whichever source was named.
fn workload(
    seen: &SeenArgs,
    session: &Session,
    catalog: &Catalog,
    database: &str,
    notes: &mut Vec<String>,
) -> Result<Input> {
    if seen.source.pg_stat_statements {
        let counted = load(session)?;
        // Counts are far below 2^53.
        let seen = counted.iter().map(|counted| Seen {
            sql: &counted.sql,
            calls: counted.calls as f64,
            total_ms: Some(counted.total_ms),
            parameters: None,
        });
        return Ok(read(seen, catalog));
    }
    let workload = match &seen.source.workload {
        Some(path) => saved(path, "name a workload that pgweir saved; logs go to --log")?,
        None => logged(seen, notes)?,
    };
    Ok(read_workload(&workload, catalog, database))
}

fn logged(seen: &SeenArgs, notes: &mut Vec<String>) -> Result<Workload> {
    let options = logs::Options { format: seen.log_format, log_line_prefix: seen.log_line_prefix.clone() };
    let files = &seen.source.log;
    let sources = Sources { files, options, saved: &[], counted: None, with_values: false };
    Ok(sources.read(notes)?.0)
}

fn advise_with_progress(
    statements: &[Statement],
    catalog: &Catalog,
    model: &mut dyn CostModel,
    options: &Options,
    spent: Spent<'_>,
) -> Result<(Advice, std::collections::BTreeSet<String>)> {
    let bar = output::progress_bar("{msg:24} {bar:40} {pos}/{len} {elapsed}", 0);
    let mut show = |done: usize, of: usize, what: &str| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        if bar.message() != what {
            bar.set_message(what.to_owned());
        }
    };
    let outcome = advise(statements, catalog, model, options, &mut show, spent);
    bar.finish_and_clear();
    outcome
}

fn how_to_get_hypopg(absent: &Availability) -> &'static str {
    match absent {
        Availability::NotCreated => {
            "HypoPG is on the server but not in this database: run CREATE EXTENSION hypopg (as a superuser) to have every \
             index judged by PostgreSQL's planner"
        }
        _ => {
            "HypoPG is not on the server: install it (Debian: postgresql-15-hypopg, RPM: hypopg_15) and run CREATE EXTENSION \
             hypopg to have every index judged by PostgreSQL's planner"
        }
    }
}

fn since(counting: &Counting) -> String {
    let mut text = match (&counting.since, counting.days) {
        (Some(since), Some(days)) => format!("since statistics were reset at {since}, {days} days ago"),
        _ => "since the database was made".to_owned(),
    };
    if counting.standby {
        text.push_str(", on this standby only");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        for (text, expected) in [("20", 20_000), ("20s", 20_000), ("500ms", 500), ("2 m", 120_000), ("0", 0)] {
            assert_eq!(time(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "2h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, expected) in
            [("8192", 8192), ("1kB", 1024), ("500MB", 500 << 20), ("1.5 GB", 3 << 29), ("2TiB", 2 << 40), ("0", 0)]
        {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "MB", "10 apples", "-1MB", "1.2.3", "1e3"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
