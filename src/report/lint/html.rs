//! The report as one HTML file: no network, no script, readable on a phone.

use std::fmt::Write as _;

use super::group::{Group, Grouping};
use super::top::{amount, ran, shortened};
use super::{LintReport, duration, plural, thousands, times};
use crate::lint::{Finding, Severity};
use crate::report::escape;
use crate::workload::{Latency, Load, Order};

/// Findings that a bar of a rule or of a table leads to.
const SHOWN_OF_GROUP: usize = 50;

const STYLE: &str = "\
:root{--ink:#1c2024;--dim:#60646c;--paper:#fff;--line:#d9dce1;--bar:#3e63dd;--error:#c62a2f;--warning:#ad5700;--info:#0b68cb;--mark:#ffe8a3}\
@media(prefers-color-scheme:dark){:root{--ink:#edeef0;--dim:#b0b4ba;--paper:#111214;--line:#363a3f;--bar:#849dff;--error:#ff9592;--warning:#ffc182;--info:#70b8ff;--mark:#5c4a00}}\
*{box-sizing:border-box}body{margin:0 auto;padding:1rem;max-width:70rem;color:var(--ink);background:var(--paper);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}.dim{color:var(--dim)}\
.cards{display:flex;flex-wrap:wrap;gap:.75rem}.card{flex:1 1 8rem;border:1px solid var(--line);border-radius:.5rem;padding:.5rem .75rem}.card b{display:block;font-size:1.4rem}\
.row{display:grid;grid-template-columns:minmax(8rem,22rem) 1fr 7rem;gap:.5rem;align-items:center;margin:.2rem 0}.row>span:first-child{overflow-wrap:anywhere}.row>:last-child{text-align:right}\
summary .row{display:inline-grid;width:calc(100% - 1.5rem);vertical-align:middle}a{color:inherit}li{overflow-wrap:anywhere}\
@media(max-width:40rem){.row{grid-template-columns:1fr 6rem}.row>div{grid-column:1/3;grid-row:2}}\
.bar{height:.8rem;border-radius:.2rem;background:var(--bar);min-width:2px}\
details{border:1px solid var(--line);border-radius:.5rem;margin:.4rem 0;padding:.4rem .75rem}summary{cursor:pointer;overflow-wrap:anywhere}\
pre{overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere;background:color-mix(in srgb,var(--line) 35%,transparent);padding:.5rem;border-radius:.4rem;font-size:.85rem}\
figure{margin:.75rem 0}.plot{width:100%;height:auto;display:block}.plot rect{fill:var(--bar)}.plot text{fill:var(--dim);font-size:12px}\
mark{background:var(--mark);color:inherit}.error{color:var(--error)}.warning{color:var(--warning)}.info{color:var(--info)}.sev{font-weight:600}";

impl LintReport<'_> {
    /// The report as an HTML page.
    pub fn html(&self) -> String {
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>pgweir lint</title><style>{STYLE}</style></head><body>\n<h1>pgweir lint</h1>\n"
        );
        self.cards(&mut page);
        load(&mut page, &self.workload.load);
        self.grouped(&mut page, "By rule", Grouping::Rule);
        self.grouped(&mut page, "By table", Grouping::Table);
        Order::ALL.into_iter().for_each(|order| self.top_as_html(&mut page, order));
        page.push_str("<h2>Findings</h2>\n");
        if self.findings.findings.is_empty() {
            page.push_str("<p>Nothing was found.</p>\n");
        }
        for (at, finding) in self.findings.findings.iter().enumerate() {
            self.detail(&mut page, at, finding);
        }
        self.sources(&mut page);
        page.push_str("</body></html>\n");
        page
    }

    fn cards(&self, page: &mut String) {
        let all = self.findings;
        let count =
            |severity: Severity| thousands(all.findings.iter().filter(|it| it.severity == severity).count() as u64);
        let total = self.workload.total_ms();
        let time = if total > 0.0 { duration(total) } else { "unknown".to_owned() };
        let cards = [
            (thousands(all.statements), "statements"),
            (thousands(all.templates), "templates"),
            (time, "time in all"),
            (count(Severity::Error), "errors"),
            (count(Severity::Warning), "warnings"),
            (count(Severity::Info), "hints"),
        ];
        page.push_str("<div class=cards>");
        for (number, words) in cards {
            let _ = write!(page, "<div class=card><b>{number}</b><span class=dim>{words}</span></div>");
        }
        page.push_str("</div>\n");
    }

    /// A bar for each rule or table, as long as its findings are many; it opens to them.
    fn grouped(&self, page: &mut String, title: &str, by: Grouping) {
        let groups = self.groups(by);
        let Some(most) = groups.iter().map(|group| group.findings.len()).max() else { return };
        let _ = writeln!(page, "<h2>{title}</h2>");
        for group in groups {
            page.push_str("<details><summary>");
            let share = group.findings.len() as f64 / most as f64;
            let severity = group.severity().as_str();
            let name = format!("<span class=\"{severity}\">{}</span>", escape(group.name));
            bar_of(page, &name, share, &plural(group.findings.len() as u64, "finding"));
            page.push_str("</summary>");
            self.listed(page, &group, by);
            page.push_str("</details>\n");
        }
    }

    fn listed(&self, page: &mut String, group: &Group<'_>, by: Grouping) {
        let _ = write!(page, "<p class=dim>{}</p><ul>", escape(&group.extent()));
        for (at, finding) in group.findings.iter().take(SHOWN_OF_GROUP) {
            let what = match by {
                Grouping::Table => format!("{}: {}", finding.rule, finding.message),
                Grouping::None | Grouping::Rule => shortened(&finding.template),
            };
            let _ = write!(page, "<li><a href=\"#f{at}\">{}</a></li>", escape(&what));
        }
        let more = group.findings.len().saturating_sub(SHOWN_OF_GROUP);
        if more > 0 {
            let _ = write!(page, "<li>and {} more</li>", thousands(more as u64));
        }
        page.push_str("</ul>");
    }

    /// The statements that matter most; each opens to its whole text and how often it took how long.
    fn top_as_html(&self, page: &mut String, order: Order) {
        let top = self.top(order);
        let Some(most) = top.first().map(|template| order.weight(template)) else { return };
        let _ = writeln!(page, "<h2>Statements by {}</h2>", order.words());
        for template in top {
            page.push_str("<details><summary>");
            bar(page, &shortened(&template.text), order.weight(template) / most, &amount(order, template));
            let _ = writeln!(
                page,
                "</summary><pre>{}</pre><p class=dim>{}</p>{}</details>",
                escape(&template.text),
                escape(&ran(template)),
                latency(&template.latency)
            );
        }
    }

    fn detail(&self, page: &mut String, at: usize, finding: &Finding) {
        let severity = finding.severity.as_str();
        let _ = writeln!(
            page,
            "<details id=f{at}><summary><span class=\"sev {severity}\">{severity}</span> <code>{}</code> {} \
             <span class=dim>{}{}</span></summary>",
            escape(&finding.rule),
            escape(&finding.message),
            times(finding.count),
            if finding.total_ms > 0.0 { format!(", {}", duration(finding.total_ms)) } else { String::new() }
        );
        let (start, end) = (finding.span.start as usize, finding.span.end as usize);
        let cut = |range: Option<&str>| escape(range.unwrap_or(""));
        let sql = &finding.example;
        let _ = writeln!(
            page,
            "<pre>{}<mark>{}</mark>{}</pre>",
            cut(sql.get(..start)),
            cut(sql.get(start..end)),
            cut(sql.get(end..))
        );
        let why = self.rules.get(&finding.rule).map_or("", |rule| rule.why.as_str());
        let _ = writeln!(
            page,
            "<p>{}</p><p><b>Instead:</b> {}</p><p class=dim>{}:{}, evidence: {}, fingerprint {}</p></details>",
            escape(why),
            escape(&finding.suggestion),
            escape(&finding.file),
            finding.line,
            finding.evidence.as_str(),
            escape(&finding.fingerprint)
        );
    }

    fn sources(&self, page: &mut String) {
        page.push_str("<h2>What was read</h2>\n<ul>");
        for file in self.files {
            let _ = write!(
                page,
                "<li>{}: {}, {} of {} lines understood, {}</li>",
                escape(&file.file),
                escape(&file.format),
                thousands(file.understood),
                thousands(file.lines),
                plural(file.statements, "statement")
            );
        }
        self.notes.iter().for_each(|note| page.push_str(&format!("<li>{}</li>", escape(note))));
        page.push_str("</ul>\n");
    }
}

/// Statements and their time over the time that the log covers.
fn load(page: &mut String, load: &Load) {
    if load.steps.len() < 2 {
        return;
    }
    let _ = writeln!(page, "<h2>Load over time</h2>\n<p class=dim>Each bar is {}.</p>", duration(load.width_ms as f64));
    let statements: Vec<f64> = load.steps.iter().map(|(statements, _)| *statements as f64).collect();
    plot(page, load, "statements", &statements, |number| thousands(number as u64));
    let times: Vec<f64> = load.steps.iter().map(|(_, milliseconds)| *milliseconds).collect();
    if times.iter().any(|time| *time > 0.0) {
        plot(page, load, "time of statements", &times, duration);
    }
}

/// A bar for each step, with the highest value and the first and last time at the axes.
fn plot(page: &mut String, load: &Load, name: &str, values: &[f64], words: impl Fn(f64) -> String) {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 120.0;
    let most = values.iter().copied().fold(0.0, f64::max);
    let each = WIDTH / values.len() as f64;
    let _ = write!(
        page,
        "<figure><figcaption>{}, at most <b>{}</b></figcaption><svg class=plot viewBox=\"0 0 {WIDTH} {}\" role=img aria-label=\"{}\">",
        escape(name),
        escape(&words(most)),
        HEIGHT + 18.0,
        escape(name)
    );
    for ((at, value), begins) in (0u32..).zip(values).zip((0i64..).map(|at| load.start_ms + at * load.width_ms)) {
        if *value > 0.0 {
            let height = (value / most * HEIGHT).max(1.0);
            let _ = write!(
                page,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{}: {}</title></rect>",
                f64::from(at) * each,
                HEIGHT - height,
                (each - 0.5).max(0.5),
                moment(begins),
                escape(&words(*value))
            );
        }
    }
    let end = load.start_ms + load.width_ms * values.len() as i64;
    let _ = writeln!(
        page,
        "<text x=0 y={y}>{}</text><text x={WIDTH} y={y} text-anchor=end>{}</text></svg></figure>",
        moment(load.start_ms),
        moment(end),
        y = HEIGHT + 14.0
    );
}

/// A time of the log's own clock.
fn moment(milliseconds: i64) -> String {
    let known = jiff::Timestamp::from_millisecond(milliseconds);
    known.map_or_else(|_| String::new(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// How often it took how long, a bar for each time that is twice the one before.
fn latency(latency: &Latency) -> String {
    let most = latency.steps().map(|(_, count)| count).max().unwrap_or(0);
    let mut bars = String::new();
    let mut before = 0.0;
    for (limit, count) in latency.steps() {
        if count > 0 {
            let name = if before == 0.0 {
                format!("up to {}", duration(limit))
            } else {
                format!("{} to {}", duration(before), duration(limit))
            };
            bar(&mut bars, &name, count as f64 / most as f64, &thousands(count));
        }
        before = limit;
    }
    bars
}

fn bar(page: &mut String, name: &str, share: f64, words: &str) {
    bar_of(page, &escape(name), share, words);
}

/// A bar whose name is markup.
fn bar_of(page: &mut String, name: &str, share: f64, words: &str) {
    let _ = writeln!(
        page,
        "<div class=row><span>{name}</span><div><div class=bar style=\"width:{:.1}%\"></div></div><span class=dim>{}</span></div>",
        share * 100.0,
        escape(words)
    );
}
