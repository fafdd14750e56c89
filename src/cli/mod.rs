//! Arguments -> one call -> exit code. One file per subcommand.

use std::process::ExitCode;

/// Parses the arguments, runs one subcommand, prints its error.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
