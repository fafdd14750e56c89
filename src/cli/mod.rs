//! Arguments -> one call -> exit code. One file per subcommand.
//!
//! Each file holds `Args`, which clap fills in, and `run`, which does the work through the rooms
//! below and returns the exit code. To add a subcommand: its file, one `mod` line, one variant of
//! [`Command`] and one arm in [`Command::run`]. Text for people goes through [`output`], never
//! through `println!`, which panics when a reader such as `head` has left.

pub mod advise;
pub mod check;
pub mod demo;
pub mod explain;
mod follow;
pub mod init;
pub mod lint;
pub mod output;
pub mod pgbouncer;
pub mod placement;
pub mod proxy;
pub mod rules;
mod sources;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::Result;

const LONG_ABOUT: &str = "\
pgweir stands between an application and PostgreSQL.

It measures every query: it finds costly SQL in logs and files, and recommends indexes that
PostgreSQL's own planner says are worth having. And it diverts every query: it pools connections
and routes statements to shards, and refuses what it cannot prove right.";

const AFTER_HELP: &str = "\
Exit codes:
  0  fine
  1  findings at or above --fail-on
  2  the command line or a configuration file is wrong
  3  a file or a server could not be read

Each command has its own examples: pgweir COMMAND --help";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pgweir",
    version,
    about = "Measures and diverts every PostgreSQL query",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    max_term_width = 100,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One variant per subcommand; its doc comment is its line in `--help`.
#[derive(Debug, Subcommand)]
enum Command {
    Advise(advise::Args),
    Check(check::Args),
    Init(init::Args),
    Lint(lint::Args),
    Explain(explain::Args),
    Placement(placement::Args),
    Proxy(proxy::Args),
    Rules(rules::Args),
    /// Two local shards, a proxy, a workload, findings and an index report; no configuration
    Demo(demo::Args),
}

impl Command {
    fn run(self) -> Result<ExitCode> {
        match self {
            Self::Advise(args) => advise::run(args),
            Self::Check(args) => check::run(args),
            Self::Init(args) => init::run(args),
            Self::Lint(args) => lint::run(args),
            Self::Explain(args) => explain::run(args),
            Self::Placement(args) => placement::run(args),
            Self::Proxy(args) => proxy::run(args),
            Self::Rules(args) => rules::run(args),
            Self::Demo(args) => demo::run(args),
        }
    }
}

/// Parses the arguments, runs one subcommand, prints its error.
///
/// A wrong command line exits 2 with clap's own message; every other error exits with
/// [`crate::error::Error::exit_code`].
pub fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(message) => {
            let code = if message.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
            // A closed pipe is the only way this can fail, and nobody is left to tell.
            let _ = message.print();
            return code;
        }
    };
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
