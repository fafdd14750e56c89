//! The report for people at a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::group::{Group, Grouping};
use super::{LintReport, duration, excerpt, plural, times};
use crate::lint::{Finding, Severity};

/// How many findings are shown, and how many of one group; JSON has them all.
const SHOWN_FINDINGS: usize = 100;
const SHOWN_OF_GROUP: usize = 10;

/// Escape sequences, or nothing.
struct Paint {
    error: &'static str,
    warning: &'static str,
    info: &'static str,
    dim: &'static str,
    bold: &'static str,
    reset: &'static str,
}

const COLOURS: Paint = Paint {
    error: "\x1b[1;31m",
    warning: "\x1b[1;33m",
    info: "\x1b[1;36m",
    dim: "\x1b[2m",
    bold: "\x1b[1m",
    reset: "\x1b[0m",
};
const PLAIN: Paint = Paint { error: "", warning: "", info: "", dim: "", bold: "", reset: "" };

impl Paint {
    fn of(&self, severity: Severity) -> &'static str {
        match severity {
            Severity::Error => self.error,
            Severity::Warning => self.warning,
            Severity::Info => self.info,
        }
    }
}

impl LintReport<'_> {
    /// The report for people.
    pub fn text(&self, colour: bool) -> String {
        let paint = if colour { &COLOURS } else { &PLAIN };
        let mut text = match self.layout.group {
            Grouping::None => self.text_of_findings(colour),
            by => self.text_of_groups(by, paint),
        };
        self.top_as_text(&mut text, (paint.bold, paint.dim, paint.reset));
        for note in self.notes {
            let _ = writeln!(text, "{}note{}: {note}", paint.bold, paint.reset);
        }
        self.summary(&mut text, paint);
        text
    }

    /// The worst findings for people, without the summary.
    pub fn text_of_findings(&self, colour: bool) -> String {
        let paint = if colour { &COLOURS } else { &PLAIN };
        let mut text = String::new();
        let mut explained: Vec<&str> = Vec::new();
        for finding in self.findings.findings.iter().take(SHOWN_FINDINGS) {
            self.finding(&mut text, finding, paint);
            advise(&mut text, finding, paint);
            self.explain(&mut text, finding, &mut explained, paint);
            text.push('\n');
        }
        left_out(&mut text, self.findings.findings.len().saturating_sub(SHOWN_FINDINGS));
        text
    }

    fn text_of_groups(&self, by: Grouping, paint: &Paint) -> String {
        let mut text = String::new();
        let mut explained: Vec<&str> = Vec::new();
        let mut room = SHOWN_FINDINGS;
        let mut not_shown = 0;
        for group in self.groups(by) {
            let shown = group.findings.len().min(SHOWN_OF_GROUP).min(room);
            room -= shown;
            if shown == 0 {
                not_shown += group.findings.len();
                continue;
            }
            self.heading(&mut text, &group, by, paint);
            let mut advised = "";
            for (_, finding) in group.findings.iter().take(shown) {
                self.finding(&mut text, finding, paint);
                if advised != finding.suggestion {
                    advise(&mut text, finding, paint);
                    advised = &finding.suggestion;
                }
                self.explain(&mut text, finding, &mut explained, paint);
                text.push('\n');
            }
            let more = group.findings.len() - shown;
            if more > 0 {
                let _ = writeln!(text, "{}and {more} more of {}{}\n", paint.dim, group.name, paint.reset);
            }
        }
        left_out(&mut text, not_shown);
        text
    }

    fn heading(&self, text: &mut String, group: &Group<'_>, by: Grouping, paint: &Paint) {
        let title = match by {
            Grouping::Rule => self.rules.get(group.name).map(|rule| rule.title.as_str()),
            Grouping::None | Grouping::Table => None,
        };
        let title = title.map_or(String::new(), |title| format!(" ({title})"));
        let (bold, dim, reset) = (paint.bold, paint.dim, paint.reset);
        let _ = writeln!(text, "{bold}== {}{reset}{title}{dim}: {}{reset}\n", group.name, group.extent());
    }

    /// Why a rule is one, the first time that it is met.
    fn explain<'a>(&self, text: &mut String, finding: &'a Finding, explained: &mut Vec<&'a str>, paint: &Paint) {
        if !explained.contains(&finding.rule.as_str()) {
            explained.push(&finding.rule);
            let why = self.rules.get(&finding.rule).map_or("", |rule| rule.why.as_str());
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "   {}= why: {why}{}", paint.dim, paint.reset);
        }
    }

    fn finding(&self, text: &mut String, finding: &Finding, paint: &Paint) {
        let (severity, colour) = (finding.severity.as_str(), paint.of(finding.severity));
        let _ = writeln!(
            text,
            "{colour}{severity}[{}]{}: {}{}{}",
            finding.rule, paint.reset, paint.bold, finding.message, paint.reset
        );
        let time =
            if finding.total_ms > 0.0 { format!(", {} in all", duration(finding.total_ms)) } else { String::new() };
        let place = if finding.line > 0 { format!("{}:{}", finding.file, finding.line) } else { finding.file.clone() };
        let _ = writeln!(
            text,
            "  {}-->{} {place}  {}{}{time}; evidence: {}{}",
            paint.dim,
            paint.reset,
            paint.dim,
            times(finding.count),
            finding.evidence.as_str(),
            paint.reset
        );
        let (line, start, length) = excerpt(&finding.example, finding.span.start as usize, finding.span.end as usize);
        let _ = writeln!(text, "   {}|{} {line}", paint.dim, paint.reset);
        let _ = writeln!(
            text,
            "   {}|{} {}{colour}{}{}",
            paint.dim,
            paint.reset,
            " ".repeat(start),
            "^".repeat(length),
            paint.reset
        );
    }

    fn summary(&self, text: &mut String, paint: &Paint) {
        let all = self.findings;
        let mut counts: BTreeMap<Severity, usize> = BTreeMap::new();
        for finding in &all.findings {
            *counts.entry(finding.severity).or_default() += 1;
        }
        let counted = |severity: Severity, word: &str| {
            let count = counts.get(&severity).copied().unwrap_or(0);
            (count > 0).then(|| format!("{}{}{}", paint.of(severity), plural(count as u64, word), paint.reset))
        };
        let parts: Vec<String> = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "hint")]
            .into_iter()
            .filter_map(|(severity, word)| counted(severity, word))
            .collect();
        let found = if parts.is_empty() { "nothing found".to_owned() } else { parts.join(", ") };
        let _ =
            write!(text, "{found} in {} of {}", plural(all.statements, "statement"), plural(all.templates, "template"));
        if all.unparsed > 0 {
            let _ = write!(
                text,
                "; {} of {} could not be parsed",
                plural(all.unparsed, "statement"),
                plural(all.unparsed_templates, "template")
            );
        }
        text.push('\n');
    }
}

fn advise(text: &mut String, finding: &Finding, paint: &Paint) {
    let _ = writeln!(text, "   {}={} instead: {}", paint.dim, paint.reset, finding.suggestion);
}

fn left_out(text: &mut String, findings: usize) {
    if findings > 0 {
        let _ = writeln!(text, "{findings} more findings are not shown; --format json has them all\n");
    }
}
