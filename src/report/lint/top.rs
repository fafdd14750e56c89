//! The statements that matter most, whatever was found in them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{LintReport, duration, thousands, times};
use crate::workload::{Order, Template};

/// The widest statement shown in a list, in characters.
const WIDTH: usize = 90;

impl LintReport<'_> {
    /// The statements that matter most by an order; none where the source does not tell it.
    pub(super) fn top(&self, order: Order) -> Vec<&Template> {
        let top = self.workload.top(order, self.layout.statements);
        // A file of statements has each of them once.
        let ranks = order != Order::Calls || top.first().is_some_and(|template| template.count > 1);
        if ranks { top } else { Vec::new() }
    }

    pub(super) fn top_as_json(&self) -> Value {
        let entry = |template: &Template| {
            json!({
                "fingerprint": template.fingerprint.to_string(), "template": template.text, "count": template.count,
                "errors": template.errors, "total_ms": template.total_ms, "mean_ms": template.mean_ms(), "rows": template.rows,
            })
        };
        let list = |order: Order| self.top(order).into_iter().map(entry).collect::<Value>();
        Order::ALL.into_iter().map(|order| (order.as_str().to_owned(), list(order))).collect()
    }

    pub(super) fn top_as_text(&self, text: &mut String, (bold, dim, reset): (&str, &str, &str)) {
        let order = self.layout.order;
        let top = self.top(order);
        if top.is_empty() {
            return;
        }
        let all = self.weight_of_all(order);
        let _ = writeln!(text, "{bold}== Statements by {}{reset}\n", order.words());
        for template in top {
            let share = all.map_or(String::new(), |all| format!(" ({:.0} %)", order.weight(template) / all * 100.0));
            let _ = writeln!(text, "{:>10}{share}  {}", amount(order, template), shortened(&template.text));
            let _ = writeln!(text, "{:>10}  {dim}{}{reset}", "", ran(template));
        }
        text.push('\n');
    }

    pub(super) fn top_as_markdown(&self, text: &mut String, plain: fn(&str) -> String) {
        let order = self.layout.order;
        let top = self.top(order);
        if top.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n## Statements by {}\n", order.words());
        text.push_str("| calls | total | mean | rows | statement |\n|---:|---:|---:|---:|---|\n");
        for template in top {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                thousands(template.count),
                duration(template.total_ms),
                duration(template.mean_ms()),
                thousands(template.rows),
                plain(&shortened(&template.text))
            );
        }
    }

    /// What all statements weigh together, where that can be added up.
    fn weight_of_all(&self, order: Order) -> Option<f64> {
        let sum = || self.workload.templates().iter().map(|template| order.weight(template)).sum::<f64>();
        (order != Order::Mean).then(sum).filter(|sum| *sum > 0.0)
    }
}

/// How much a template matters, in words.
pub(super) fn amount(order: Order, template: &Template) -> String {
    match order {
        Order::Time | Order::Mean => duration(order.weight(template)),
        Order::Calls => times(template.count),
        Order::Rows => format!("{} rows", thousands(template.rows)),
    }
}

/// How often, how long and with how many rows a template ran.
pub(super) fn ran(template: &Template) -> String {
    let mut words = times(template.count);
    if template.timed > 1 {
        let (least, most) = (duration(template.min_ms), duration(template.max_ms));
        let _ = write!(words, ", mean {}, {least} to {most}", duration(template.mean_ms()));
    }
    if template.rows > 0 {
        let _ = write!(words, ", {} rows", thousands(template.rows));
    }
    if template.errors > 0 {
        let _ = write!(words, ", {} failed", thousands(template.errors));
    }
    words
}

/// A statement in one line of bounded width.
pub(super) fn shortened(statement: &str) -> String {
    let words: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut line: String = clean.take(WIDTH).collect();
    if line.len() < words.len() {
        line.push_str(" ..");
    }
    line
}
