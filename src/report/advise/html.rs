//! The index report as one HTML file: no network, readable on a phone. A script of its own lets the reader choose a budget and copy the SQL; without
//! it everything is still there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{IndexReport, bytes, change, number, plural, printable};
use crate::advise::{Plans, Recommendation};
use crate::report::escape;
use crate::sql::explain::PlanNode;

const STYLE: &str = include_str!("advise.css");
const SCRIPT: &str = include_str!("advise.js");

/// The curve's size, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
/// Room for the axes' words.
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 28.0;
/// Statements whose plans are shown for each index.
const SHOWN_PLANS: usize = 5;

impl IndexReport<'_> {
    /// The report as an HTML page.
    pub fn html(&self) -> String {
        let advice = self.advice;
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>pgweir advise</title><style>{STYLE}</style></head><body>\n<h1>Indexes for {}</h1>\n",
            escape(self.server)
        );
        let cards = [
            (change(advice.cost_before, advice.cost_after), "cost of the workload"),
            (number(advice.cost_before), "today, in the planner's units"),
            (number(advice.cost_after), "with all of them"),
            (advice.recommendations.len().to_string(), "indexes to create"),
            (bytes(advice.order.last().map_or(0, |step| step.bytes)), "they take"),
            (plural(self.statements.len(), "template"), "in the workload"),
        ];
        page.push_str("<div class=cards>");
        for (value, words) in cards {
            let _ = write!(page, "<div class=card><b>{}</b><span class=dim>{words}</span></div>", escape(&value));
        }
        page.push_str("</div>\n");
        self.curve(&mut page);
        page.push_str("<h2>Create</h2>\n");
        if advice.recommendations.is_empty() {
            page.push_str("<p>Nothing: no index would take a meaningful share off the cost.</p>\n");
        }
        for (at, found) in self.in_order().enumerate() {
            self.index(&mut page, at, found);
        }
        self.drops(&mut page);
        self.by_table(&mut page);
        self.left_out(&mut page);
        let _ = write!(page, "<h2>How to repeat this</h2>\n<pre>{}</pre>\n", escape(&printable(self.command)));
        page.push_str("<ul>");
        self.notes.iter().for_each(|note| page.push_str(&format!("<li>{}</li>", escape(&printable(note)))));
        let _ = write!(page, "</ul>\n<script>{SCRIPT}</script></body></html>\n");
        page
    }

    /// Cost against storage: a point for each index more.
    fn curve(&self, page: &mut String) {
        let advice = self.advice;
        let most = advice.order.last().map_or(0, |step| step.bytes);
        if most == 0 || advice.cost_before <= 0.0 {
            return;
        }
        let x = |taken: u64| LEFT + (WIDTH - LEFT - 16.0) * taken as f64 / most as f64;
        let y = |cost: f64| 12.0 + (HEIGHT - BOTTOM - 12.0) * (1.0 - (cost / advice.cost_before).clamp(0.0, 1.0));
        let start = (0, advice.cost_before);
        let points: Vec<(u64, f64)> =
            std::iter::once(start).chain(advice.order.iter().map(|step| (step.bytes, step.cost))).collect();
        let _ = writeln!(
            page,
            "<h2>Choose your budget</h2>\n<p class=dim>Each point is one index more, in the order in which they bring the most for their size. \
             Choose a point: what stands behind it is dimmed below.</p>\n<svg id=curve viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=img aria-label=\"cost against storage\">"
        );
        for share in [0.0, 0.5, 1.0] {
            let height = y(advice.cost_before * share);
            let _ = writeln!(
                page,
                "<line class=grid x1={LEFT} x2={WIDTH} y1={height:.1} y2={height:.1} /><text x=4 y={:.1}>{:.0} %</text>",
                height + 4.0,
                share * 100.0
            );
        }
        let line: Vec<String> =
            points.iter().map(|(taken, cost)| format!("{:.1},{:.1}", x(*taken), y(*cost))).collect();
        let _ = writeln!(page, "<polyline points=\"{}\" />", line.join(" "));
        for (at, (taken, cost)) in points.iter().enumerate() {
            let words = format!(
                "{}: {}, the workload costs {} ({})",
                plural(at, "index").replace("indexs", "indexes"),
                bytes(*taken),
                number(*cost),
                change(advice.cost_before, *cost)
            );
            let _ = writeln!(
                page,
                "<circle tabindex=0 role=button data-count={at} data-words=\"{0}\" cx={1:.1} cy={2:.1} r=7><title>{0}</title></circle>",
                escape(&words),
                x(*taken),
                y(*cost)
            );
        }
        let _ = writeln!(
            page,
            "<text x={LEFT} y={0:.1}>0</text><text x={1:.1} y={0:.1} text-anchor=end>{2}</text></svg>\n<p id=chosen class=chosen></p>",
            HEIGHT - 8.0,
            WIDTH - 8.0,
            bytes(most)
        );
    }

    fn index(&self, page: &mut String, at: usize, found: &Recommendation) {
        let _ = writeln!(
            page,
            "<section class=index data-at={}><h3>{}. <code>{}</code></h3>\n<div class=ddl><pre>{}</pre><button type=button>copy</button></div>",
            at + 1,
            at + 1,
            escape(&printable(&found.name)),
            escape(&printable(&found.ddl))
        );
        let writes = match found.writes {
            writes if writes > 0.0 => {
                format!("; maintained by {} of this workload", plural(writes as usize, "write"))
            }
            _ => "; nothing in this workload writes to it".to_owned(),
        };
        let _ = writeln!(
            page,
            "<p>{}: the statements that use it cost {} instead of {} (<b>{}</b>). {}{} <span class=dim>(evidence: {})</span></p>",
            escape(&found.why),
            number(found.cost_after),
            number(found.cost_before),
            change(found.cost_before, found.cost_after),
            bytes(found.size_bytes),
            writes,
            found.evidence.word()
        );
        for statement in &found.statements {
            let plans = self.advice.plans.iter().find(|plans| plans.statement == *statement);
            self.statement(
                page,
                *statement,
                plans.filter(|_| found.statements.iter().take(SHOWN_PLANS).any(|it| it == statement)),
            );
        }
        page.push_str("</section>\n");
    }

    fn statement(&self, page: &mut String, at: usize, plans: Option<&Plans>) {
        let Some(statement) = self.statements.get(at) else { return };
        let (before, after) = self.costs(at);
        let short: String = printable(&statement.template).chars().take(110).collect();
        let _ = writeln!(
            page,
            "<details><summary><b>{}</b> {} to {} a call, {} <code>{}</code></summary><pre>{}</pre>",
            change(before, after),
            number(before),
            number(after),
            plural(statement.calls as usize, "call"),
            escape(&short),
            escape(&statement.template)
        );
        if let Some(plans) = plans {
            let _ = writeln!(
                page,
                "<div class=plans><div><h4>today</h4><pre>{}</pre></div><div><h4>with the indexes</h4><pre>{}</pre></div></div>",
                escape(&lines(&plans.before)),
                escape(&lines(&plans.after))
            );
        }
        let _ = writeln!(page, "<p class=dim>fingerprint {}</p></details>", escape(&statement.fingerprint));
    }

    fn drops(&self, page: &mut String) {
        let mut list = |title: &str, lines: Vec<(&str, String)>| {
            if lines.is_empty() {
                return;
            }
            let _ = writeln!(page, "<h2>{title}</h2>");
            for (ddl, why) in lines {
                let _ = writeln!(
                    page,
                    "<div class=ddl><pre>{}</pre><button type=button>copy</button></div><p class=dim>{}</p>",
                    escape(&printable(ddl)),
                    escape(&printable(&why))
                );
            }
        };
        let size = |taken: Option<u64>| taken.map(bytes).unwrap_or_default();
        let redundant = self.redundant.iter();
        list(
            "Drop: another index does their work",
            redundant
                .map(|it| (it.ddl.as_str(), format!("covered by {} {}", it.covered_by, size(it.size_bytes))))
                .collect(),
        );
        let unused =
            |taken| format!("no scan {}; check replicas and rare jobs before. {}", self.counted_since, size(taken));
        list("Drop: unused", self.unused.iter().map(|it| (it.ddl.as_str(), unused(it.size_bytes))).collect());
        let invalid = "written at every change, and no plan can use it";
        list("Invalid", self.invalid.iter().map(|it| (it.ddl.as_str(), invalid.to_owned())).collect());
        let deletes =
            |count: f64, to: &str| format!("{} from {to} read the whole table", plural(count as usize, "DELETE"));
        let keys = self.unindexed_keys.iter();
        list(
            "Foreign keys without an index",
            keys.map(|it| (it.ddl.as_str(), deletes(it.deletes, &it.references))).collect(),
        );
    }

    fn by_table(&self, page: &mut String) {
        let mut tables: BTreeMap<String, Vec<&Recommendation>> = BTreeMap::new();
        for found in self.in_order() {
            tables.entry(self.catalog.table(found.definition.table).name.to_string()).or_default().push(found);
        }
        if tables.is_empty() {
            return;
        }
        page.push_str(
            "<h2>By table</h2>\n<table><tr><th>table</th><th>indexes today</th><th>new</th><th>their size</th></tr>",
        );
        for (name, found) in tables {
            let today = found.first().map_or(0, |one| self.catalog.table(one.definition.table).indexes.len());
            let names: Vec<String> =
                found.iter().map(|one| format!("<code>{}</code>", escape(&printable(&one.name)))).collect();
            let size = bytes(found.iter().map(|one| one.size_bytes).sum());
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{today}</td><td>{}</td><td>{size}</td></tr>",
                escape(&name),
                names.join(", ")
            );
        }
        page.push_str("</table>\n");
    }

    fn left_out(&self, page: &mut String) {
        if self.advice.skipped.is_empty() {
            return;
        }
        let _ = writeln!(
            page,
            "<h2>Left out</h2>\n<details><summary>{} without a cost</summary><ul>",
            plural(self.advice.skipped.len(), "template")
        );
        for skipped in &self.advice.skipped {
            let template = self.statements.get(skipped.statement).map_or("", |statement| statement.template.as_str());
            let _ = writeln!(page, "<li>{}<pre>{}</pre></li>", escape(&printable(&skipped.reason)), escape(template));
        }
        page.push_str("</ul></details>\n");
    }
}

/// A plan as EXPLAIN would print it, with what matters for indexes.
fn lines(plan: &PlanNode) -> String {
    let mut out = String::new();
    write_node(&mut out, plan, 0);
    out
}

fn write_node(out: &mut String, node: &PlanNode, depth: usize) {
    let indent = "  ".repeat(depth);
    let arrow = if depth > 0 { "-> " } else { "" };
    let join =
        node.join_type.as_deref().filter(|kind| *kind != "Inner").map(|kind| format!(" {kind}")).unwrap_or_default();
    let using = node.index.as_deref().map(|index| format!(" using {index}")).unwrap_or_default();
    let on = node.relation.as_deref().map(|relation| format!(" on {relation}")).unwrap_or_default();
    let alias = node.alias.as_deref().filter(|alias| Some(*alias) != node.relation.as_deref());
    let alias = alias.filter(|_| node.relation.is_some()).map(|alias| format!(" {alias}")).unwrap_or_default();
    let _ = writeln!(
        out,
        "{indent}{arrow}{}{join}{using}{on}{alias}  (cost {} rows {})",
        node.node_type,
        number(node.total_cost),
        number(node.rows)
    );
    let sort = (!node.sort_key.is_empty()).then(|| node.sort_key.join(", "));
    let details = [
        ("Index Cond", &node.index_condition),
        ("Filter", &node.filter),
        ("Join", &node.join_condition),
        ("Sort", &sort),
    ];
    for (name, text) in details {
        if let Some(text) = text {
            let _ = writeln!(out, "{indent}     {name}: {text}");
        }
    }
    node.children.iter().for_each(|child| write_node(out, child, depth + 1));
}
