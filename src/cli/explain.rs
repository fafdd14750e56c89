//! `pgweir explain`: the route that a statement would take, without running it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;

use super::output;
use crate::config::{self, Config, Database};
use crate::db::blocking::Session;
use crate::error::{Error, Result};
use crate::route::{self, Bindings, SessionFacts, TextBindings, Topology};
use crate::sql::catalog::Catalog;
use crate::sql::ddl::catalog_from_ddl;
use crate::sql::template::Scanner;

const AFTER_HELP: &str = "\
Examples:
  pgweir explain -c pgweir.yaml --schema schema.sql \"SELECT * FROM orders WHERE customer_id = 42\"
  pgweir explain -c pgweir.yaml --schema schema.sql --param 42 'SELECT * FROM orders WHERE customer_id = $1'

Without --schema the tables are read from the first shard. A refusal is an answer: the exit code is 0.";

/// Show where a statement would go, and which rule decided
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// The tables, as DDL; without it they are read from the first shard
    #[arg(long, value_name = "FILE.sql")]
    schema: Option<PathBuf>,

    /// The database, when the configuration has several that are sharded
    #[arg(short, long, value_name = "NAME")]
    database: Option<String>,

    /// The value of $1, $2, ... in order
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    parameters: Vec<String>,

    /// How to print the plan
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// The statement
    #[arg(value_name = "SQL")]
    sql: String,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As a tree.
    Text,
    /// As one JSON object.
    Json,
}

/// Prints the plan.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = config::load(&args.config)?;
    let (name, database) = choose(&config, args.database.as_deref())?;
    let mut scanner = Scanner::new(Default::default());
    let scan = scanner.scan(args.sql.as_bytes());
    if scan.statements != 1 || !scan.complete {
        let what = if scan.complete {
            "not exactly one statement is given"
        } else {
            "the statement ends inside a string or a comment"
        };
        return Err(Error::usage(what).hint("give one whole statement"));
    }
    let constants = scan.bindings.to_vec();
    if !database.is_sharded() {
        let text = format!("{name} is not sharded: every statement goes to its primary as it is\n");
        output::print(&match args.format {
            Format::Text => text,
            Format::Json => {
                format!("{}\n", json!({"database": name, "route": "primary", "shard": null, "rule": "not-sharded"}))
            }
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let topology = Topology::new(database, Arc::new(catalog(&args, database)?))?;
    let (mut sql, mut constants) = (args.sql.clone(), constants);
    let mut plan = route::plan(&sql, &constants, &topology, SessionFacts::default());
    if let Some(expanded) = route::expand_refused(&plan, &sql, &topology) {
        constants = scanner.scan(expanded.as_bytes()).bindings.to_vec();
        plan = route::plan(&expanded, &constants, &topology, SessionFacts::default());
        sql = expanded;
    }
    let parameters: Vec<Option<String>> = args.parameters.iter().cloned().map(Some).collect();
    let bindings = TextBindings { sql: &sql, constants: &constants, parameters: &parameters };
    output::print(&match args.format {
        Format::Text => plan.print(&bindings, &sql),
        Format::Json => format!("{}\n", to_json(name, &plan, &bindings, &sql)),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The database asked for, or the one that is sharded.
/// The database that was named, or the only one that is sharded.
pub(super) fn choose<'a>(config: &'a Config, wanted: Option<&str>) -> Result<(&'a str, &'a Database)> {
    let names: Vec<&str> = config.databases.keys().map(String::as_str).collect();
    if let Some(wanted) = wanted {
        return config.databases.get_key_value(wanted).map(|(name, database)| (name.as_str(), database)).ok_or_else(
            || {
                Error::usage(format!("the configuration has no database {wanted}"))
                    .hint(format!("there are {}", names.join(", ")))
            },
        );
    }
    let mut sharded = config.databases.iter().filter(|(_, database)| database.is_sharded());
    match (sharded.next(), sharded.next(), config.databases.iter().next()) {
        (Some((name, database)), None, _) | (None, _, Some((name, database))) => Ok((name, database)),
        _ => Err(Error::usage("several databases are sharded").hint(format!("add --database: {}", names.join(", ")))),
    }
}

fn catalog(args: &Args, database: &Database) -> Result<Catalog> {
    if let Some(path) = &args.schema {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::input(format!("the schema cannot be read: {error}")).at(path.display().to_string())
        })?;
        return Ok(catalog_from_ddl(&text).0);
    }
    let shard = database.shards.first().ok_or_else(|| Error::config("the database has no shards"))?;
    let without = |error: Error| match error.hint {
        None => error.hint("or give the tables with --schema FILE.sql"),
        Some(_) => error,
    };
    Session::connect(&shard.primary.with_password()?).map_err(without)?.catalog().map_err(without)
}

fn to_json(name: &str, plan: &route::TemplatePlan, bindings: &dyn Bindings, sql: &str) -> serde_json::Value {
    match plan.bind(bindings) {
        Ok(route) => {
            let printed = plan.route_name(route);
            let words = |key: &str| printed.split(' ').find_map(|word| word.strip_prefix(key));
            let shards: Option<Vec<&str>> = words("shards=").map(|names| names.split(',').collect());
            json!({"database": name, "route": printed.split(' ').next(), "shard": words("shard="), "shards": shards,
                "rule": plan.rule, "writes": plan.writes,
                "plan": plan.print(bindings, sql)})
        }
        Err(refusal) => {
            json!({"database": name, "route": "refuse", "shard": null, "rule": refusal.rule, "writes": plan.writes,
            "sqlstate": "0A000", "reason": refusal.reason, "hint": refusal.hint,
            "span": refusal.span.map(|span| [span.start, span.end]), "plan": plan.print(bindings, sql)})
        }
    }
}
