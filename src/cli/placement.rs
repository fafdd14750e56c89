//! `pgweir placement`: where rows lie, where they would lie with another shard, and whether they lie where they should.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};
use comfy_table::{CellAlignment, Table, presets};

use super::explain::choose;
use super::output;
use crate::config::{self, Buckets, Database};
use crate::db::blocking::Session;
use crate::error::{Error, Result};
use crate::route::buckets::{propose, with_another};
use crate::route::{Placement, Question, ShardId, TableUse, Topology};
use crate::sql::catalog::{Catalog, QualifiedName};

const AFTER_HELP: &str = "\
Examples:
  pgweir placement show -c pgweir.yaml                       which shard has how many buckets and rows
  pgweir placement show -c pgweir.yaml --map                 the same as settings: rows stay where they are, whatever shards are added
  pgweir placement init -c pgweir.yaml --weight a=2          a map for shards that are still empty, twice as much on a
  pgweir placement add-shard d -c pgweir.yaml --dry-run      what would move to a fourth shard
  pgweir placement verify -c pgweir.yaml                     every row is on its shard, all copies of reference tables are alike

Everything is read in read-only transactions. verify reads whole tables; its exit code is 1 when a row is misplaced.";

/// Show where rows lie, plan for another shard, find rows on the wrong one
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Propose a map of buckets for shards that have no rows yet
    Init {
        #[command(flatten)]
        of: Of,
        /// How much a shard takes, compared with others (1 by default)
        #[arg(long = "weight", value_name = "SHARD=N", value_parser = weight)]
        weights: Vec<(String, u32)>,
    },
    /// Print which shard has how many buckets, and about how many rows
    Show {
        #[command(flatten)]
        of: Of,
        /// Print the map as settings, without asking the shards
        #[arg(long)]
        map: bool,
    },
    /// Print what another shard would take from which
    AddShard {
        /// The new shard's name
        name: String,
        #[command(flatten)]
        of: Of,
        /// Only say what would move
        #[arg(long)]
        dry_run: bool,
    },
    /// Find rows that lie on another shard than their key says, and copies of reference tables that differ
    Verify {
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, ClapArgs)]
struct Of {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// The database, when the configuration has several that are sharded
    #[arg(short, long, value_name = "NAME")]
    database: Option<String>,
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let mistake = || "write it as a=2".to_owned();
    let (name, number) = text.split_once('=').ok_or_else(mistake)?;
    let number = number.parse().ok().filter(|number| *number <= 1000).ok_or_else(mistake)?;
    Ok((name.to_owned(), number))
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let (What::Init { of, .. } | What::Show { of, .. } | What::AddShard { of, .. } | What::Verify { of }) = &args.what;
    let config = config::load(&of.config)?;
    let (name, database) = choose(&config, of.database.as_deref())?;
    if !database.is_sharded() {
        return Err(Error::usage(format!("{name} is not sharded")).hint("name one with `shards` by --database"));
    }
    match &args.what {
        What::Init { weights, .. } => init(database, weights),
        What::Show { map: true, .. } => show_maps(database),
        What::Show { .. } => show(name, database),
        What::AddShard { dry_run: false, .. } => Err(Error::usage("rows are not moved by this version").hint(
            "say --dry-run to see what would move; then copy the rows, change the map, and delete them where they were",
        )),
        What::AddShard { name, .. } => add_shard(database, name),
        What::Verify { .. } => verify(name, database),
    }
}

fn names(database: &Database) -> Vec<String> {
    database.shards.iter().map(|shard| shard.name.clone()).collect()
}

/// A map as it stands in the configuration.
fn map_text(map: &[ShardId], names: &[String]) -> String {
    let mut text = format!("placement:\n  hash:\n    buckets: {}\n    map:\n", map.len());
    for (at, name) in names.iter().enumerate() {
        let own = (0u32..).zip(map).filter(|(_, shard)| shard.0 == at).map(|(bucket, _)| bucket);
        let _ = writeln!(text, "      {name}: \"{}\"", Buckets::of(own));
    }
    text
}

fn init(database: &Database, weights: &[(String, u32)]) -> Result<ExitCode> {
    let names = names(database);
    if let Some((unknown, _)) = weights.iter().find(|(name, _)| !names.contains(name)) {
        return Err(
            Error::usage(format!("there is no shard {unknown}")).hint(format!("there are {}", names.join(", ")))
        );
    }
    let of = |name: &String| weights.iter().rev().find(|(other, _)| other == name).map_or(1, |(_, weight)| *weight);
    let weights: Vec<u32> = names.iter().map(of).collect();
    if weights.iter().all(|weight| *weight == 0) {
        return Err(Error::usage("no shard would have a bucket").hint("give some shard a weight above 0"));
    }
    let buckets = match database.sharding.as_ref().map(|sharding| &sharding.placement) {
        Some(config::Placement::Hash { buckets, .. }) => *buckets,
        _ => 4096,
    };
    output::print(&map_text(&propose(buckets, &names, &weights), &names))?;
    Ok(ExitCode::SUCCESS)
}

/// The placements of a database, each with the tables that have it: those of tables that exist, or all by the configuration alone.
fn maps(database: &Database) -> Vec<(Vec<ShardId>, Vec<String>)> {
    let Some(sharding) = &database.sharding else { return Vec::new() };
    let names = names(database);
    let mut found: Vec<(Vec<ShardId>, Vec<String>)> = Vec::new();
    for (table, settings) in &sharding.tables {
        let settings = settings.placement.as_ref().unwrap_or(&sharding.placement);
        // Buckets are the same for keys of all types.
        if let Ok(Placement::Hash { buckets }) = Placement::new(settings, crate::route::KeyType::Integer(8), &names) {
            match found.iter_mut().find(|(map, _)| *map == buckets) {
                Some((_, tables)) => tables.push(table.to_string()),
                None => found.push((buckets, vec![table.to_string()])),
            }
        }
    }
    found
}

fn show_maps(database: &Database) -> Result<ExitCode> {
    let names = names(database);
    for (map, tables) in maps(database) {
        output::print(&format!("# {}\n{}", tables.join(", "), map_text(&map, &names)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Connections to all shards, and what the first one's catalog makes of the configuration.
struct Shards {
    sessions: Vec<Session>,
    topology: Topology,
}

impl Shards {
    fn connect(database: &Database) -> Result<Self> {
        let connect = |shard: &config::Shard| {
            Session::connect(&shard.primary.with_password()?).map_err(|error| match &error.place {
                Some(_) => error,
                None => error.at(shard.name.clone()),
            })
        };
        let sessions: Vec<Session> = database.shards.iter().map(connect).collect::<Result<_>>()?;
        let first = sessions.first().ok_or_else(|| Error::config("the database has no shards"))?;
        let topology = Topology::new(database, Arc::new(first.catalog()?))?;
        Ok(Self { sessions, topology })
    }

    /// Rows of the sharded tables as each shard's statistics have them.
    fn estimates(&self) -> Result<Vec<BTreeMap<QualifiedName, f64>>> {
        let of = |session: &Session| -> Result<_> { Ok(self.rows_in(&session.catalog()?)) };
        self.sessions.iter().map(of).collect()
    }

    fn rows_in(&self, catalog: &Catalog) -> BTreeMap<QualifiedName, f64> {
        let sharded = self.topology.tables().filter(|(_, used)| matches!(used, TableUse::Sharded(_)));
        let rows = |name: &QualifiedName| {
            catalog.find(Some(&name.schema), &name.name).and_then(|id| catalog.table(id).rows).unwrap_or_default()
        };
        sharded.map(|(name, _)| (name.clone(), rows(name))).collect()
    }
}

fn table_of(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn show(name: &str, database: &Database) -> Result<ExitCode> {
    let shards = Shards::connect(database)?;
    let estimates = shards.estimates()?;
    let names = names(database);
    let mut text = String::new();
    for (map, tables) in maps(database) {
        let _ = writeln!(text, "{name}: {} in {} buckets", tables.join(", "), map.len());
        let mut table = table_of(&["shard", "buckets", "share", "rows (estimated)"]);
        for (at, shard) in names.iter().enumerate() {
            let held = map.iter().filter(|other| other.0 == at).count();
            let own = estimates.get(at).into_iter().flatten().filter(|(name, _)| tables.contains(&shown(name)));
            let rows: f64 = own.map(|(_, rows)| rows.max(0.0)).sum();
            let share = 100.0 * held as f64 / map.len().max(1) as f64;
            table.add_row([shard.clone(), held.to_string(), format!("{share:.1} %"), format!("{rows:.0}")]);
        }
        let _ = writeln!(text, "{table}\n");
    }
    for (table, settings) in database.sharding.iter().flat_map(|sharding| &sharding.tables) {
        if let Some(settings @ (config::Placement::Range(_) | config::Placement::List(_))) = &settings.placement {
            let _ = writeln!(text, "{table}: {}", in_words(settings));
        }
    }
    for problem in shards.topology.problems() {
        let _ = writeln!(text, "not usable: {problem}");
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// As the configuration names it.
fn shown(name: &QualifiedName) -> String {
    config::TableName { schema: name.schema.clone(), name: name.name.clone() }.to_string()
}

fn in_words(placement: &config::Placement) -> String {
    let words: Vec<String> = match placement {
        config::Placement::Hash { buckets, .. } => vec![format!("{buckets} buckets")],
        config::Placement::Range(parts) => parts
            .iter()
            .map(|part| {
                let (from, to) = (part.from.as_deref().unwrap_or(".."), part.to.as_deref().unwrap_or(".."));
                format!("from {from} to {to} on {}", part.shard)
            })
            .collect(),
        config::Placement::List(parts) => {
            parts.iter().map(|part| format!("{} on {}", part.values.join(", "), part.shard)).collect()
        }
    };
    words.join("; ")
}

fn add_shard(database: &Database, new: &str) -> Result<ExitCode> {
    let mut names = names(database);
    if names.iter().any(|name| name == new) {
        return Err(Error::usage(format!("there is a shard {new} already")).hint("name the one that is to be added"));
    }
    let shards = Shards::connect(database)?;
    let estimates = shards.estimates()?;
    let before = maps(database);
    if before.is_empty() {
        return Err(Error::usage("no table is placed by hash").hint("ranges and lists name their shards themselves"));
    }
    names.push(new.to_owned());
    let mut text = String::new();
    for (map, tables) in before {
        let after = with_another(&map, names.len() - 1);
        let _ = writeln!(text, "# {} to {new}:", tables.join(", "));
        let mut sum = (0, 0.0);
        for (at, shard) in names.iter().enumerate().take(names.len() - 1) {
            let held = map.iter().filter(|owner| owner.0 == at).count();
            let moved = map.iter().zip(&after).filter(|(owner, now)| owner.0 == at && owner != now).count();
            let own = estimates.get(at).into_iter().flatten().filter(|(name, _)| tables.contains(&shown(name)));
            let rows: f64 = own.map(|(_, rows)| rows.max(0.0)).sum::<f64>() * moved as f64 / held.max(1) as f64;
            let _ = writeln!(text, "#   {moved} of {held} buckets of {shard}, about {rows:.0} rows");
            sum = (sum.0 + moved, sum.1 + rows);
        }
        let _ = writeln!(text, "# {} of {} buckets, about {:.0} rows; then the map is", sum.0, map.len(), sum.1);
        text.push_str(&map_text(&after, &names));
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn verify(name: &str, database: &Database) -> Result<ExitCode> {
    let shards = Shards::connect(database)?;
    let names = names(database);
    let questions: Vec<Vec<Question>> =
        (0..names.len()).map(|shard| shards.topology.misplaced(ShardId(shard))).collect();
    let copies = shards.topology.copies();
    let steps = questions.iter().map(Vec::len).sum::<usize>() + copies.len() * names.len();
    let bar = output::progress_bar("{msg:30} {bar:40} {pos}/{len} {elapsed}", steps as u64);
    let (mut rows, mut wrong, mut text) = (0_u64, 0_u64, String::new());
    for ((session, shard), questions) in shards.sessions.iter().zip(&names).zip(&questions) {
        for question in questions {
            bar.set_message(format!("{} on {shard}", question.table));
            let answer = session.read(&question.sql)?.into_iter().next().unwrap_or_default();
            let number = |at: usize| answer.get(at).cloned().flatten().and_then(|text| text.parse::<u64>().ok());
            let (Some(all), Some(misplaced)) = (number(0), number(1)) else { return Err(odd(session)) };
            rows += all;
            wrong += misplaced;
            if misplaced > 0 {
                let keys = answer.get(2).cloned().flatten().unwrap_or_default();
                let more = if misplaced > 5 { ", .." } else { "" };
                let _ = writeln!(
                    text,
                    "{shard}: {misplaced} of {all} rows of {} do not belong there: keys {keys}{more}",
                    shown(&question.table)
                );
            }
            bar.inc(1);
        }
    }
    for question in &copies {
        let mut answers: Vec<Vec<Option<String>>> = Vec::new();
        for (session, shard) in shards.sessions.iter().zip(&names) {
            bar.set_message(format!("{} on {shard}", question.table));
            answers.push(session.read(&question.sql)?.into_iter().next().ok_or_else(|| odd(session))?);
            bar.inc(1);
        }
        if answers.windows(2).any(|pair| pair.first() != pair.last()) {
            wrong += 1;
            let count = |answer: &Vec<Option<String>>| answer.first().cloned().flatten().unwrap_or_default();
            let each: Vec<String> =
                names.iter().zip(&answers).map(|(shard, answer)| format!("{shard} has {}", count(answer))).collect();
            let _ = writeln!(text, "the copies of {} differ: {} rows", shown(&question.table), each.join(", "));
        }
    }
    bar.finish_and_clear();
    for problem in shards.topology.problems() {
        let _ = writeln!(text, "not checked: {problem}");
    }
    let verdict = if wrong == 0 { "all where they belong" } else { "see above" };
    let _ = writeln!(
        text,
        "{name}: {rows} rows of sharded tables on {} shards, {} reference tables: {verdict}",
        names.len(),
        copies.len()
    );
    output::print(&text)?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn odd(session: &Session) -> Error {
    Error::server("the server's answer is not understood").at(session.label())
}
