//! What the demo shows: counts of its own, and the output of pgweir's commands on what it left.

use std::process::Stdio;

use super::shop::TABLES;
use super::stage::{Stage, program_name, this_program};
use super::traffic::Tally;
use crate::cli::output;
use crate::error::{Error, Result};

/// A heading.
pub(super) fn title(text: &str) -> Result<()> {
    let (bold, reset) = if output::colour_on(&std::io::stdout()) { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    output::print(&format!("\n{bold}{text}{reset}\n{}\n", "─".repeat(text.chars().count())))
}

/// Rows of each table on each shard, asked of the shards themselves.
pub(super) fn where_rows_went(stage: &Stage) -> Result<()> {
    let mut text = format!("  {:<14}", "rows");
    for shard in &stage.shards {
        text.push_str(&format!("{:>12}", format!("shard {}", shard.name)));
    }
    text.push('\n');
    for table in TABLES {
        text.push_str(&format!("  {table:<14}"));
        for shard in &stage.shards {
            let rows = shard.cluster.query("shop", &format!("SELECT count(*) FROM {table}"))?;
            let count = rows.into_iter().flatten().flatten().next().unwrap_or_default();
            text.push_str(&format!("{count:>12}"));
        }
        text.push('\n');
    }
    text.push_str("  customers, orders and order_items lie by customer; countries and products are on both shards.\n");
    output::print(&text)
}

/// The plan of each kind of statement, by `pgweir explain`, with how often it was sent.
pub(super) fn routes(stage: &Stage, tally: &Tally) -> Result<()> {
    output::print(&format!("  each by: {} explain -c {} \"SELECT ...\"\n", program_name(), stage.config().display()))?;
    for (deed, count) in &tally.deeds {
        let mut command = this_program()?;
        command.arg("explain").arg("-c").arg(stage.config()).arg(deed.example());
        let said = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::internal(format!("pgweir explain cannot be run: {error}")))?;
        let plan = String::from_utf8_lossy(&said.stdout);
        let plan = if plan.trim().is_empty() { String::from_utf8_lossy(&said.stderr) } else { plan };
        output::print(&format!("\n  {count:>6} x {}\n{}", deed.example(), indented(&plan, "           ")))?;
    }
    Ok(())
}

/// `pgweir lint` on the shards' logs.
pub(super) fn findings(stage: &Stage) -> Result<()> {
    let mut arguments = vec!["lint".to_owned(), "--fail-on".to_owned(), "never".to_owned()];
    arguments.extend(["--database-url".to_owned(), stage.shard_url()]);
    arguments.extend(stage.log_paths());
    show_command(&arguments)
}

/// `pgweir advise indexes` on the shards' logs, against the first shard.
pub(super) fn indexes(stage: &Stage) -> Result<()> {
    let mut arguments = vec!["advise".to_owned(), "indexes".to_owned()];
    arguments.extend(["--database-url".to_owned(), stage.shard_url()]);
    for path in stage.log_paths() {
        arguments.extend(["--log".to_owned(), path]);
    }
    show_command(&arguments)
}

/// Prints the command line and runs it, its output going where ours goes.
fn show_command(arguments: &[String]) -> Result<()> {
    output::print(&format!("  $ {} {}\n\n", program_name(), arguments.join(" ")))?;
    let mut command = this_program()?;
    let status = command
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| Error::internal(format!("`pgweir {}` cannot be run: {error}", arguments.join(" "))))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::internal(format!("a step of the demo failed ({status})"))
            .at(format!("pgweir {}", arguments.join(" ")))),
    }
}

fn indented(text: &str, margin: &str) -> String {
    text.trim_end().lines().map(|line| format!("{margin}{line}\n")).collect()
}
