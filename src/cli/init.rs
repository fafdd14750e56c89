//! `pgweir init`: creates on the shards what atomic commits need.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use ring::rand::{SecureRandom, SystemRandom};

use super::output;
use crate::config::{self, CommitMode, Database, ServerUrl};
use crate::db::blocking::Session;
use crate::db::commits;
use crate::error::{Error, Result};

const AFTER_HELP: &str = "\
Examples:
  pgweir init -c pgweir.yaml
  pgweir init -c pgweir.yaml --print

It creates the schema pgweir with two small tables on each shard of every database with `commit: atomic`, and nothing that is
there already. Run it again after adding a shard. The role in a shard's URL must be allowed to create schemas; otherwise let
somebody who is run what --print prints.";

/// Create on the shards what atomic commits need
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// Print the SQL for each shard and change nothing
    #[arg(long)]
    print: bool,
}

/// One shard as it was found.
struct Found<'a> {
    name: &'a str,
    role: &'a str,
    session: Session,
    standing: commits::Standing,
}

/// Initialises the shards of every database whose commits are atomic.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = config::load(&args.config)?;
    let atomic: Vec<_> =
        config.databases.iter().filter(|(_, database)| database.commit == CommitMode::Atomic).collect();
    if atomic.is_empty() {
        return Err(Error::usage("no database has `commit: atomic`")
            .at(args.config.display().to_string())
            .hint("nothing has to be created for the others"));
    }
    let mut text = String::new();
    let mut cannot_prepare = Vec::new();
    for (name, database) in atomic {
        let shards = look(name, database)?;
        let id = deployment(name, &shards)?;
        for shard in &shards {
            if args.print {
                let script = commits::script(&id, shard.name, shard.role);
                let _ = writeln!(text, "-- {name}, shard {}: {}\n{script}", shard.name, shard.session.label());
                continue;
            }
            if shard.standing.deployment.is_none() {
                shard.session.install(&id, shard.name, shard.role)?;
            }
            let done = if shard.standing.deployment.is_none() { "created" } else { "was there" };
            let _ = writeln!(text, "{name}, shard {}: {done} (deployment {id})", shard.name);
            if shard.standing.max_prepared == 0 {
                cannot_prepare.push(format!("{name}, shard {}", shard.name));
            }
        }
    }
    output::print(&text)?;
    if cannot_prepare.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Error::server("max_prepared_transactions is 0: no transaction can commit atomically")
        .at(cannot_prepare.join("; "))
        .hint("ALTER SYSTEM SET max_prepared_transactions = 100 (at least max_connections), then restart the server"))
}

fn look<'a>(database: &str, settings: &'a Database) -> Result<Vec<Found<'a>>> {
    let mut shards = Vec::new();
    for shard in &settings.shards {
        let named = shard.primary.database.clone().or_else(|| Some(database.to_owned()));
        let url = ServerUrl { database: named, ..shard.primary.clone() }.with_password()?;
        let session = Session::connect(&url)?;
        let standing = session.standing()?;
        let role = shard.primary.user.as_deref().unwrap_or_default();
        shards.push(Found { name: &shard.name, role, session, standing });
    }
    Ok(shards)
}

/// The id that the shards have in common, or a new one.
fn deployment(database: &str, shards: &[Found<'_>]) -> Result<String> {
    let mut known: Option<(&str, &str)> = None;
    for shard in shards {
        let Some((id, name)) = &shard.standing.deployment else { continue };
        if name != shard.name {
            return Err(Error::config(format!("this server is shard {name}, says its table pgweir.deployment"))
                .at(format!("databases.{database}.shards, {}", shard.name))
                .hint("give the shard its old name, or, if this is a copy that shall be a shard of its own, UPDATE pgweir.deployment there"));
        }
        if let Some((other, first)) = known.filter(|(other, _)| *other != id.as_str()) {
            return Err(Error::config(format!("shard {first} belongs to deployment {other}, this one to {id}"))
                .at(format!("databases.{database}.shards, {}", shard.name))
                .hint("shards of two deployments do not belong in one database"));
        }
        known = Some((id, shard.name));
    }
    if let Some((id, _)) = known {
        return Ok(id.to_owned());
    }
    let mut bytes = [0u8; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::internal("the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
