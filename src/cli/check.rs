//! `pgweir check`: validates a configuration.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::{output, pgbouncer};
use crate::config::{self, Config, Database};
use crate::error::{Error, Result};
use crate::proxy::examination::Examination;
use crate::proxy::guard::Guards;

const AFTER_HELP: &str = "\
Examples:
  pgweir check -c pgweir.yaml
  pgweir check --from-pgbouncer /etc/pgbouncer/pgbouncer.ini > pgweir.yaml
  pgweir check --print-settings > docs/configuration.md";

/// Check a configuration: line, column, what is wrong, what to write instead
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["print_settings", "from_pgbouncer"])]
    config: Option<PathBuf>,

    /// Print the documentation of all settings as Markdown
    #[arg(long, conflicts_with = "config")]
    print_settings: bool,

    /// Print the configuration that does what this pgbouncer.ini does; what cannot be carried over goes to standard error
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "print_settings"])]
    from_pgbouncer: Option<PathBuf>,
}

/// Checks the file, or prints what may stand in it.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.print_settings {
        output::print(&config::markdown())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = args.from_pgbouncer {
        let converted = pgbouncer::convert(&path)?;
        output::print(&converted.yaml)?;
        for note in &converted.notes {
            output::print_note(note);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let path = args.config.ok_or_else(|| Error::usage("no configuration is given").hint("add -c pgweir.yaml"))?;
    let config = config::load(&path)?;
    for (name, database) in &config.databases {
        Guards::new(name, &database.guard)?;
    }
    Examination::of(&config)?;
    let mut text = format!("{}: ok\n", path.display());
    summarize(&config, &mut text);
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn summarize(config: &Config, text: &mut String) {
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let _ = writeln!(text, "  listens on {}, {}", listen.join(", "), plural(config.users.len(), "user"));
    for (name, database) in &config.databases {
        let _ = writeln!(text, "  {name}: {}", describe(database));
    }
}

fn describe(database: &Database) -> String {
    let servers: Vec<String> = database.servers().map(|(name, url)| format!("{name} at {}", url.address())).collect();
    let pool = format!("pool of {} per {}", database.pool.size, database.pool.mode.word());
    let Some(sharding) = &database.sharding else {
        return format!("{}, {pool}", servers.join(", "));
    };
    format!(
        "{} ({}), {}, {}, {} local, commit over several shards: {}, {pool}",
        plural(servers.len(), "shard"),
        servers.join(", "),
        plural(sharding.tables.len(), "sharded table"),
        plural(sharding.reference.len(), "reference table"),
        sharding.local.len(),
        database.commit.word(),
    )
}
