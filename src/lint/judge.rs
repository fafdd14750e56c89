//! Rules that look at a statement before it runs, by its text alone.

use super::checks;
use super::evidence::Evidence;
use super::inner::inner;
use super::matching::Match;
use super::rule::Rule;
use super::run::{examine, is_of_interest};
use super::subject::{Sharding, Subject};
use crate::sql::catalog::Catalog;
use crate::sql::facts::StatementKind;
use crate::sql::lexer::LexOptions;
use crate::sql::{facts, parse, split_statements};
use crate::workload::{Observation, Sink, Workload};

/// What a rule says of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// The rule's id.
    pub rule: String,
    /// What was found.
    pub message: String,
    /// What to write instead.
    pub suggestion: String,
}

impl Rule {
    /// Whether the rule finds something in a statement's text, without a catalog, a plan or a log.
    pub fn judges_text(&self) -> bool {
        self.evidence.contains(&Evidence::Syntax)
    }

    /// Whether what the rule finds in a text may change with the values of constants, and so within a template.
    pub fn reads_constants(&self) -> bool {
        let checked = self.check.as_deref().is_some_and(checks::reads_constants);
        checked || self.matching.as_ref().is_some_and(Match::reads_constants)
    }
}

/// What rules say of a text of one statement or several: one objection a rule at most. Statements within others are looked
/// at too; what cannot be parsed is passed over.
pub fn judge(sql: &str, rules: &[Rule]) -> Vec<Objection> {
    let mut objections: Vec<Objection> = Vec::new();
    for range in split_statements(sql, LexOptions::default()) {
        let Some(statement) = sql.get(range) else { continue };
        let within = inner(statement);
        let texts = within.iter().filter_map(|range| statement.get(range.clone()));
        for text in std::iter::once(statement).chain(texts) {
            for objection in judge_one(text, rules) {
                if !objections.iter().any(|known| known.rule == objection.rule) {
                    objections.push(objection);
                }
            }
        }
    }
    objections
}

fn judge_one(sql: &str, rules: &[Rule]) -> Vec<Objection> {
    let Ok(parsed) = parse(sql) else { return Vec::new() };
    let catalog = Catalog::default();
    let facts = facts(&parsed, &catalog);
    if !is_of_interest(&facts)
        && matches!(facts.kind, StatementKind::Select | StatementKind::Transaction | StatementKind::Session)
    {
        return Vec::new();
    }
    let mut workload = Workload::new();
    workload.observe(&Observation::of(sql));
    let Some(mut template) = workload.templates().first().cloned() else { return Vec::new() };
    // However long it is, and whatever is in front of it.
    template.example = sql.to_owned();
    let (sharding, ask) = (Sharding::default(), |_: &str, _: u32| None);
    let subject = Subject::new(&facts, &catalog, &template, &sharding, &ask);
    let objection = |rule: &Rule| {
        let hit = examine(&subject, rule).into_iter().next()?;
        let suggestion = hit.suggestion.unwrap_or_else(|| rule.instead_in_a_line());
        Some(Objection { rule: rule.id.clone(), message: hit.message, suggestion })
    };
    rules.iter().filter_map(objection).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lint::RuleSet;
    use crate::sql::template::{BindingKind, Scanner, TemplateKey};

    fn found(sql: &str, rules: &[Rule]) -> Vec<String> {
        judge(sql, rules).into_iter().map(|objection| objection.rule).collect()
    }

    fn rules() -> Vec<Rule> {
        let set = RuleSet::built_in().expect("they are right");
        set.iter().filter(|rule| rule.judges_text()).cloned().collect()
    }

    #[test]
    fn statements_are_judged_wherever_they_stand() {
        let rules: Vec<Rule> = rules().into_iter().filter(|rule| rule.id.ends_with("-without-where")).collect();
        let long = format!("/* {} */ delete from t", "x".repeat(100_000));
        for sql in [
            "delete from t",
            "select 1; ; delete from t -- why",
            "prepare d as delete from t",
            "explain analyze delete from t",
            "with x as (delete from t returning id) select id from x",
            "prepare d as with x as (delete from t returning id) select id from x",
            "copy (delete from t returning id) to stdout",
            "delete from pg_temp_stats",
            &long,
        ] {
            assert_eq!(found(sql, &rules), ["delete-without-where"], "{}", &sql[..sql.len().min(100)]);
        }
        assert_eq!(found("delete from t; update t set a = 1; delete from u", &rules).len(), 2);
        for sql in ["delete from t where id = 1", "explain delete from t", "select 'delete from t'", "nonsense", ""] {
            assert!(found(sql, &rules).is_empty(), "{sql}");
        }
    }

    /// The statement with other values for one constant after the other.
    fn variants(sql: &str, scanner: &mut Scanner) -> Vec<String> {
        let bindings = scanner.scan(sql.as_bytes()).bindings.to_vec();
        let others = |kind| match kind {
            BindingKind::Number => &["0", "1000000"][..],
            BindingKind::String => &["''", "'a'", "'%a'", "'^a'"],
            _ => &[],
        };
        let mut all = vec![sql.to_owned()];
        for binding in bindings.into_iter().take(6) {
            let (start, end) = (binding.start as usize, binding.end as usize);
            all.extend(others(binding.kind).iter().map(|other| format!("{}{other}{}", &sql[..start], &sql[end..])));
        }
        // All the same: a = a.
        for kind in [BindingKind::Number, BindingKind::String] {
            let mut text = sql.to_owned();
            let value = if kind == BindingKind::Number { "1" } else { "'a'" };
            for binding in scanner.scan(sql.as_bytes()).bindings.iter().rev().filter(|it| it.kind == kind) {
                text.replace_range(binding.start as usize..binding.end as usize, value);
            }
            all.push(text);
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn what_is_said_of_a_template_holds_for_all_its_statements() {
        let rules = rules();
        let set = RuleSet::built_in().expect("they are right");
        let examples = set.iter().flat_map(|rule| &rule.bad).map(|example| example.sql.trim());
        let mut scanner = Scanner::new(LexOptions::default());
        let mut fickle: BTreeSet<String> = BTreeSet::new();
        for sql in examples {
            let key: TemplateKey = scanner.scan(sql.as_bytes()).key;
            let all = variants(sql, &mut scanner);
            if all.len() == 1 {
                continue;
            }
            let usual: BTreeSet<String> = found(sql, &rules).into_iter().collect();
            for variant in all {
                if variant != sql && scanner.scan(variant.as_bytes()).key == key {
                    let now: BTreeSet<String> = found(&variant, &rules).into_iter().collect();
                    fickle.extend(usual.symmetric_difference(&now).cloned());
                }
            }
        }
        let said: BTreeSet<String> =
            rules.iter().filter(|rule| rule.reads_constants()).map(|it| it.id.clone()).collect();
        assert_eq!(fickle, said);
    }
}
