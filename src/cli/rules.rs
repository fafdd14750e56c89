//! `pgweir rules`: the rules as a list, as pages, as tests.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};

use super::output;
use crate::error::{Error, Result};
use crate::lint::{RuleSet, render, render_rule, test_rule};

const AFTER_HELP: &str = "\
Examples:
  pgweir rules show unindexed-scan
  pgweir rules test my-rules/
  pgweir rules docs -o docs/rules.md";

/// List, show, test and document the lint rules
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All rules, one a line
    List,
    /// One rule: why, what to write instead, examples
    Show {
        /// The rule's id
        id: String,
    },
    /// Execute the examples of a folder's rules
    Test {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// All rules as one Markdown page
    Docs {
        /// Write the page to a file
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::List => list()?,
        What::Show { id } => show(&id)?,
        What::Test { folder } => return test(&folder),
        What::Docs { output: None } => output::print(&render(&RuleSet::built_in()?))?,
        What::Docs { output: Some(path) } => {
            std::fs::write(&path, render(&RuleSet::built_in()?)).map_err(|error| {
                Error::input(format!("the page could not be written: {error}")).at(path.display().to_string())
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> Result<()> {
    let rules = RuleSet::built_in()?;
    let mut text = String::new();
    for rule in rules.iter() {
        let _ = writeln!(text, "{:40} {:12} {:8} {}", rule.id, rule.group.as_str(), rule.severity.as_str(), rule.title);
    }
    output::print(&text)
}

fn show(id: &str) -> Result<()> {
    let rules = RuleSet::built_in()?;
    let rule = rules.get(id).ok_or_else(|| {
        let near = rules.iter().find(|rule| rule.id.contains(id) || id.contains(&rule.id));
        let hint =
            near.map_or("pgweir rules list names them all".to_owned(), |rule| format!("did you mean {}?", rule.id));
        Error::usage(format!("there is no rule named {id}")).hint(hint)
    })?;
    output::print(&render_rule(rule))
}

fn test(folder: &std::path::Path) -> Result<ExitCode> {
    let mut rules = RuleSet::default();
    let ids = rules.add_folder(folder)?;
    let mut text = String::new();
    let mut failed = 0;
    for rule in rules.iter() {
        let failures = test_rule(rule);
        let examples = rule.bad.len() + rule.good.len();
        if failures.is_empty() {
            let _ = writeln!(text, "ok      {} ({examples} examples)", rule.id);
        }
        for failure in failures {
            failed += 1;
            let _ = writeln!(
                text,
                "FAILED  {}: {}\n        {}",
                failure.rule,
                failure.what,
                failure.sql.replace('\n', "\n        ")
            );
        }
    }
    let _ = writeln!(text, "{} rules, {failed} examples failed", ids.len());
    output::print(&text)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
