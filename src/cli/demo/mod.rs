//! `pgweir demo`: everything at once, on this machine, with nothing to configure.
//!
//! ```text
//! stage     two PostgreSQL shards and a proxy, in one temporary directory
//! shop      a schema and its rows, written through the proxy
//! traffic   several clients at work, with the mistakes that applications make
//! show      where rows went, routes, findings, indexes
//! ```
//!
//! Findings, routes and indexes are shown by running `pgweir lint`, `pgweir explain` and
//! `pgweir advise indexes` on what the demo left in its directory: the very commands that a reader
//! would type. Nothing is left running, whichever way this process ends.

mod shop;
mod show;
mod stage;
mod traffic;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use self::stage::Stage;
use super::output;
use crate::error::{Error, Result};

/// The default port of the demo's proxy, and where the search for a free one begins.
const FIRST_PORT: u16 = 6432;

/// The arguments of `pgweir demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pgweir demo                 watch it for half a minute; it ends by itself
  pgweir demo --keep          leave it up, to try things with psql; Ctrl-C ends it

Needs PostgreSQL's server programs (on Debian: the package postgresql; with HypoPG, postgresql-15-hypopg,
for the index report's costs). PGWEIR_PG_BIN names their directory where they are not found.")]
pub struct Args {
    /// Leave shards and proxy up until Ctrl-C, and print how to connect
    #[arg(long)]
    keep: bool,

    /// The proxy's port [default: 6432, or the next free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// How long the workload runs, in seconds
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
}

/// Runs the demo.
///
/// # Errors
/// PostgreSQL is not installed, a port is taken, or a step fails; the error says which.
pub fn run(args: Args) -> Result<ExitCode> {
    let began = Instant::now();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("the runtime could not be started: {error}")))?;

    show::title("1. Two shards and a proxy")?;
    let stage = Stage::set(args.port)?;
    output::print(&stage.describe())?;

    show::title("2. A shop, created and filled through the proxy")?;
    runtime.block_on(shop::fill(&stage))?;
    show::where_rows_went(&stage)?;

    show::title("3. Clients at work")?;
    stage.log_statements()?;
    let tally = runtime.block_on(traffic::run(&stage, Duration::from_secs(args.seconds.into())))?;
    output::print(&tally.describe())?;

    show::title("4. The routes that these statements took")?;
    show::routes(&stage, &tally)?;

    show::title("5. What the shards' logs say about the SQL")?;
    show::findings(&stage)?;

    show::title("6. Indexes worth having")?;
    show::indexes(&stage)?;

    if args.keep {
        output::print(&stage.how_to_try())?;
        wait_for_ctrl_c(&runtime)?;
    }
    drop(stage);
    output::print_line(&format!("\nDone in {:.1} s; nothing is left running.", began.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

fn wait_for_ctrl_c(runtime: &Runtime) -> Result<()> {
    runtime.block_on(async {
        let failed = |error| Error::internal(format!("signals cannot be awaited: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
