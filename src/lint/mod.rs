//! Rules over templates: findings with evidence.
//!
//! ```text
//! rules/<group>/<id>.yaml -> RuleSet (match: words over facts, or check: a function)
//! Template -> example -> parse -> facts (with the catalog) -> each rule -> Hit -> Finding
//! ```
//!
//! Each template is examined once, however often it ran. What a catalog, statistics or the planner
//! refute is not reported; what they confirm says so ([`Evidence`]).

mod about;
mod checks;
mod docs;
mod evidence;
mod examples;
mod ignore;
mod inner;
mod judge;
mod matching;
mod pattern;
mod redact;
mod rule;
mod run;
mod subject;

pub use docs::{render, render_rule};
pub use evidence::{Evidence, PlanEvidence};
pub use examples::{Failure, test_rule};
pub use ignore::{Baseline, LintConfig};
pub use judge::{Objection, judge};
pub use matching::{Kind, Match, PredicateMatch, Presence, Side};
pub use pattern::Pattern;
pub use rule::{Example, Group, Rule, RuleSet, Seen, Severity};
pub use run::{Finding, Findings, Setting, lint, lint_from};
pub use subject::{Planner, Sharding};

#[cfg(test)]
mod tests;
