//! The rules as documentation: `docs/rules.md`, and one rule for `rules show`.

use std::fmt::Write;

use super::rule::{Example, Group, Rule, RuleSet};

/// The page of all rules, in Markdown.
pub fn render(rules: &RuleSet) -> String {
    let mut page = String::from(
        "# Rules\n\n<!-- Written by `pgweir rules docs`; edit the files under rules/ instead. -->\n\n\
         Evidence says what stands behind a finding: the text alone (`syntax`), a catalog (`schema`), row counts\n\
         (`stats`), PostgreSQL's planner (`plan`) or the log itself (`workload`). With better evidence at hand a rule\n\
         is silent where it would be wrong. Every example here is executed as a test.\n",
    );
    for group in Group::ALL {
        let members: Vec<&Rule> = rules.iter().filter(|rule| rule.group == group).collect();
        if members.is_empty() {
            continue;
        }
        let _ = write!(
            page,
            "\n## {}: {}\n\n| rule | severity | evidence | finds |\n|---|---|---|---|\n",
            group.as_str(),
            group.about()
        );
        for rule in &members {
            let _ = writeln!(
                page,
                "| [{0}](#{0}) | {1} | {2} | {3} |",
                rule.id,
                rule.severity.as_str(),
                levels(rule),
                rule.title.replace('|', "\\|")
            );
        }
        for rule in members {
            let _ = write!(page, "\n### {}\n\n{}\n", rule.id, body(rule));
        }
    }
    page
}

/// One rule, in Markdown.
pub fn render_rule(rule: &Rule) -> String {
    format!("# {} ({}, {})\n\n{}", rule.id, rule.group.as_str(), rule.severity.as_str(), body(rule))
}

fn levels(rule: &Rule) -> String {
    rule.evidence.iter().map(|level| level.as_str()).collect::<Vec<_>>().join(", ")
}

fn body(rule: &Rule) -> String {
    let mut text = format!("{}.\n\n{}\n\n**Instead.** {}\n", rule.title, rule.why.trim(), rule.instead.trim());
    if !rule.thresholds.is_empty() {
        let numbers: Vec<String> = rule.thresholds.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let _ = write!(text, "\nThresholds: {}.\n", numbers.join(", "));
    }
    for (title, examples) in [("Found", &rule.bad), ("Not found", &rule.good)] {
        let _ =
            write!(text, "\n{title}:\n\n```sql\n{}```\n", examples.iter().map(example).collect::<Vec<_>>().join("\n"));
    }
    text
}

fn example(example: &Example) -> String {
    let mut notes: Vec<String> = example.because.iter().cloned().collect();
    if let Some(schema) = &example.schema {
        notes.push(schema.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    if !example.rows.is_empty() {
        let rows: Vec<String> = example.rows.iter().map(|(table, rows)| format!("{table} has {rows} rows")).collect();
        notes.push(rows.join(", "));
    }
    if example.plan.is_some() {
        notes.push("with the planner's answer".to_owned());
    }
    if !example.sharding.is_empty() {
        let keys: Vec<String> = example.sharding.iter().map(|(table, key)| format!("{table} by {key}")).collect();
        notes.push(format!("sharded: {}", keys.join(", ")));
    }
    if let Some(seen) = example.seen.as_ref().filter(|seen| seen.longest_run > 0) {
        notes.push(format!("run {} times in a row by one session", seen.longest_run));
    }
    let notes: String = notes.iter().map(|note| format!("-- {note}\n")).collect();
    let mut sql = example.sql.trim().to_owned();
    if sql.len() > 400 {
        sql.truncate(sql.char_indices().map(|(at, _)| at).take_while(|at| *at <= 380).last().unwrap_or(0));
        sql.push_str(" ..");
    }
    format!("{notes}{sql};\n")
}
