//! Plans as text: what was decided, for `pgweir explain` and the golden files.

use std::fmt::Write as _;

use super::plan::{Action, Bindings, Occurrence, Pin, Route, Scatter, Shards, TemplatePlan};
use super::spread::Spread;

impl TemplatePlan {
    /// The plan of one execution as a tree, with the rule that decided.
    pub fn print(&self, bindings: &dyn Bindings, sql: &str) -> String {
        let (head, mut leaves, because) = match self.bind(bindings) {
            Ok(Route::Collect(shards)) => {
                let mut leaves = self.collect().map(|collect| collect.leaves(sql)).unwrap_or_default();
                leaves.extend(self.reference_leaf());
                let folds = self.collect().is_some_and(|collect| collect.fold().is_some());
                let rule = if folds { "fold-groups" } else { "collect-rows" };
                return tree(&self.route_name(Route::Collect(shards)), rule, &leaves);
            }
            Ok(route @ Route::Spread(..)) => {
                let mut leaves = self.spread().map(|spread| spread.leaves(sql)).unwrap_or_default();
                leaves.extend(self.reference_leaf());
                let rule = self.spread().map_or("spread-write", Spread::rule);
                return tree(&self.route_name(route), rule, &leaves);
            }
            Ok(route @ Route::Merge(..)) => {
                let mut leaves: Vec<String> = self.merge().map(super::merge::Merge::leaf).into_iter().collect();
                leaves.extend(self.reference_leaf());
                return tree(&self.route_name(route), "merge-rows", &leaves);
            }
            Ok(route) => (self.route_name(route), self.leaves(bindings), self.because(bindings)),
            Err(refusal) => {
                let mut leaves = Vec::new();
                if let Some(clause) = refusal.span.map(|span| span.of(sql)).filter(|clause| !clause.is_empty()) {
                    leaves.push(format!("at: {}", clause.split_whitespace().collect::<Vec<_>>().join(" ")));
                }
                leaves.push(format!("hint: {}", refusal.hint));
                return tree("refuse", &format!("{}: {}", refusal.rule, refusal.reason), &leaves);
            }
        };
        leaves.extend(self.reference_leaf());
        let rule = if because.is_empty() { self.rule.to_owned() } else { format!("{}: {because}", self.rule) };
        tree(&head, &rule, &leaves)
    }

    fn reference_leaf(&self) -> Option<String> {
        (!self.references.is_empty()).then(|| format!("reference: {}", self.references.join(", ")))
    }

    /// `single shard=a`, `all`, ...
    pub fn route_name(&self, route: Route) -> String {
        match route {
            Route::Single(shard) => {
                format!("single shard={}", self.shards.get(shard.0).map_or("?", String::as_str))
            }
            Route::Several(shards, limit) => {
                let limit = limit.map(|rows| format!(" first {rows}")).unwrap_or_default();
                format!("scatter shards={}{limit}", self.names(shards))
            }
            Route::Merge(shards, limit, offset) => {
                let limit = limit.map(|rows| format!(" first {rows}")).unwrap_or_default();
                let offset = if offset > 0 { format!(" after {offset}") } else { String::new() };
                format!("merge shards={}{limit}{offset}", self.names(shards))
            }
            Route::Collect(shards) => format!("collect shards={}", self.names(shards)),
            Route::Spread(shards, _) => format!("spread shards={}", self.names(shards)),
            Route::Any => "any".to_owned(),
            Route::Catalog => "catalog".to_owned(),
            Route::All => "all".to_owned(),
            Route::Copy => "copy".to_owned(),
            Route::Cursor => "cursor".to_owned(),
            Route::Control => "control".to_owned(),
        }
    }

    fn names(&self, shards: Shards) -> String {
        let names: Vec<&str> = shards.iter().filter_map(|shard| self.shards.get(shard)).map(String::as_str).collect();
        names.join(",")
    }

    fn occurrences(&self) -> &[Occurrence] {
        match &self.action {
            Action::ByKey(occurrences) | Action::Scatter(Scatter { occurrences, .. }) => occurrences,
            Action::Collect(collect) => &collect.occurrences,
            Action::Spread(spread) => std::slice::from_ref(match spread.rows.first() {
                Some(row) => &row.occurrence,
                None => &spread.target,
            }),
            Action::Fixed(_) | Action::Refuse(_) | Action::Copy(_) => &[],
        }
    }

    fn because(&self, bindings: &dyn Bindings) -> String {
        self.occurrences().first().map(|first| reason_of(first, &self.shards, bindings)).unwrap_or_default()
    }

    fn leaves(&self, bindings: &dyn Bindings) -> Vec<String> {
        let mut leaves: Vec<String> =
            self.occurrences().iter().map(|occurrence| reason_of(occurrence, &self.shards, bindings)).collect();
        leaves.dedup();
        leaves.drain(..leaves.len().min(1));
        leaves
    }
}

fn reason_of(occurrence: &Occurrence, shards: &[String], bindings: &dyn Bindings) -> String {
    let mut text = String::new();
    for pin in &occurrence.pins {
        if !text.is_empty() {
            text.push_str(" and ");
        }
        match pin {
            Pin::Local(shard) => {
                let shard = shards.get(shard.0).map_or("?", String::as_str);
                let _ = write!(text, "{} is local to {shard}", occurrence.name);
            }
            Pin::Key { column, choices, .. } => {
                let shown: Vec<String> = choices.iter().map(|choice| choice.shown(bindings)).collect();
                let _ = match shown.as_slice() {
                    [one] => write!(text, "{}.{column} = {one}", occurrence.name),
                    many => write!(text, "{}.{column} IN ({})", occurrence.name, many.join(", ")),
                };
            }
        }
    }
    text
}

fn tree(head: &str, by: &str, leaves: &[String]) -> String {
    let mut text = format!("{head:<23} by {by}\n");
    for (index, leaf) in leaves.iter().enumerate() {
        let branch = if index + 1 == leaves.len() { "└─" } else { "├─" };
        let _ = writeln!(text, "{branch} {leaf}");
    }
    text
}
