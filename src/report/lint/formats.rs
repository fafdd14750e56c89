//! Findings for other programs: JSON lines, SARIF, GitHub's annotations, GitLab's code quality, Markdown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{LintReport, duration, excerpt, plural, times};
use crate::lint::{Finding, Rule, Severity};

impl LintReport<'_> {
    /// A JSON object a line: the findings, then what was read.
    ///
    /// # Errors
    /// Never for findings of this program: every field has a JSON form.
    pub fn json_lines(&self) -> Result<String, serde_json::Error> {
        let mut text = self.lines_of_findings()?;
        let all = self.findings;
        let summary = json!({
            "summary": {
                "statements": all.statements, "templates": all.templates, "unparsed": all.unparsed,
                "findings": all.findings.len(), "notes": self.notes,
            }
        });
        let _ = writeln!(text, "{summary}");
        Ok(text)
    }

    /// The findings as JSON, one a line, without the summary.
    ///
    /// # Errors
    /// Never for findings of this program: every field has a JSON form.
    pub fn lines_of_findings(&self) -> Result<String, serde_json::Error> {
        let mut text = String::new();
        for finding in &self.findings.findings {
            let _ = writeln!(text, "{}", serde_json::to_string(finding)?);
        }
        Ok(text)
    }

    /// SARIF 2.1.0, as GitHub's code scanning takes it.
    ///
    /// # Errors
    /// Never for findings of this program: every field has a JSON form.
    pub fn sarif(&self) -> Result<String, serde_json::Error> {
        let rules: Vec<&Rule> = self.rules.iter().collect();
        let descriptors: Vec<Value> = rules.iter().map(|rule| descriptor(rule)).collect();
        let result = |finding: &Finding| {
            let index = rules.iter().position(|rule| rule.id == finding.rule);
            let mut result = json!({
                "ruleId": finding.rule,
                "level": level(finding.severity),
                "message": {"text": format!("{}. Instead: {}", finding.message, finding.suggestion)},
                "locations": [location(finding)],
                "partialFingerprints": {"pgweirTemplate/v1": format!("{}:{}", finding.rule, finding.fingerprint)},
                "properties": {
                    "count": finding.count, "totalMs": finding.total_ms, "evidence": finding.evidence.as_str(),
                    "template": finding.template,
                },
            });
            if let (Some(index), Value::Object(fields)) = (index, &mut result) {
                fields.insert("ruleIndex".to_owned(), json!(index));
            }
            result
        };
        let results: Vec<Value> = self.findings.findings.iter().map(result).collect();
        let notes: Vec<Value> =
            self.notes.iter().map(|note| json!({"level": "note", "message": {"text": note}})).collect();
        let document = json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "pgweir", "version": env!("CARGO_PKG_VERSION"),
                    "semanticVersion": env!("CARGO_PKG_VERSION"), "rules": descriptors,
                }},
                "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": notes}],
                "columnKind": "unicodeCodePoints",
                "results": results,
            }],
        });
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }

    /// Workflow commands that GitHub shows beside the changed lines.
    pub fn github(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings.findings {
            let command = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Info => "notice",
            };
            let message = format!("{}\ninstead: {}", finding.message, finding.suggestion);
            let _ = writeln!(
                text,
                "::{command} file={},line={},title={}::{}",
                property(&finding.file),
                line(finding).max(1),
                property(&finding.rule),
                data(&message)
            );
        }
        text
    }

    /// GitLab's code quality report.
    ///
    /// # Errors
    /// Never for findings of this program: every field has a JSON form.
    pub fn gitlab(&self) -> Result<String, serde_json::Error> {
        let issue = |finding: &Finding| {
            let severity = match finding.severity {
                Severity::Error => "critical",
                Severity::Warning => "major",
                Severity::Info => "info",
            };
            json!({
                "description": finding.message,
                "check_name": finding.rule,
                "fingerprint": format!("{}-{}", finding.rule, finding.fingerprint),
                "severity": severity,
                "location": {"path": finding.file, "lines": {"begin": line(finding).max(1)}},
            })
        };
        let issues: Vec<Value> = self.findings.findings.iter().map(issue).collect();
        Ok(serde_json::to_string_pretty(&issues)? + "\n")
    }

    /// A page for a pull request or a wiki.
    pub fn markdown(&self) -> String {
        let all = self.findings;
        let mut text = "# pgweir lint\n\n".to_owned();
        let _ = writeln!(
            text,
            "{} in {} of {}.\n",
            plural(all.findings.len() as u64, "finding"),
            plural(all.statements, "statement"),
            plural(all.templates, "template")
        );
        if !all.findings.is_empty() {
            text.push_str("| severity | rule | times | time | what |\n|---|---|---:|---:|---|\n");
        }
        for finding in &all.findings {
            let time = if finding.total_ms > 0.0 { duration(finding.total_ms) } else { String::new() };
            let _ = writeln!(
                text,
                "| {} | `{}` | {} | {time} | {} |",
                finding.severity.as_str(),
                finding.rule,
                finding.count,
                cell(&finding.message)
            );
        }
        for finding in &all.findings {
            let _ = writeln!(text, "\n## {}: {}\n", finding.rule, plain(&finding.message));
            let _ = writeln!(
                text,
                "{}, {}; evidence: {}\n",
                place(finding),
                times(finding.count),
                finding.evidence.as_str()
            );
            let (excerpted, start, length) =
                excerpt(&finding.example, finding.span.start as usize, finding.span.end as usize);
            let fence = "`".repeat(3.max(longest_run(&excerpted) + 1));
            let _ = writeln!(text, "{fence}\n{excerpted}\n{}{}\n{fence}\n", " ".repeat(start), "^".repeat(length));
            let _ = writeln!(text, "Instead: {}", plain(&finding.suggestion));
        }
        self.top_as_markdown(&mut text, cell);
        if !self.notes.is_empty() {
            text.push_str("\n## Notes\n\n");
            self.notes.iter().for_each(|note| text.push_str(&format!("- {}\n", plain(note))));
        }
        text
    }
}

fn descriptor(rule: &Rule) -> Value {
    let why = rule.why.split_whitespace().collect::<Vec<_>>().join(" ");
    let instead = rule.instead.split_whitespace().collect::<Vec<_>>().join(" ");
    json!({
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": why},
        "help": {"text": format!("{why}\n\nInstead: {instead}"), "markdown": format!("{why}\n\n**Instead:** {instead}")},
        "defaultConfiguration": {"level": level(rule.severity)},
        "properties": {"tags": [rule.group.as_str(), "sql", "postgresql"]},
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

fn location(finding: &Finding) -> Value {
    let uri = if finding.file == "-" || finding.file.is_empty() { "stdin".to_owned() } else { uri(&finding.file) };
    let mut place = json!({"artifactLocation": {"uri": uri}});
    if let (1.., Value::Object(fields)) = (line(finding), &mut place) {
        let (excerpt, ..) = excerpt(&finding.example, finding.span.start as usize, finding.span.end as usize);
        fields.insert("region".to_owned(), json!({"startLine": line(finding), "snippet": {"text": excerpt}}));
    }
    json!({"physicalLocation": place})
}

/// The line of the text found: that of its statement and the newlines before it in there.
fn line(finding: &Finding) -> u64 {
    let before = finding.example.get(..finding.span.start as usize).unwrap_or("");
    if finding.line == 0 { 0 } else { finding.line + before.matches('\n').count() as u64 }
}

fn place(finding: &Finding) -> String {
    let name = plain(&finding.file);
    if finding.line > 0 { format!("{name}:{}", finding.line) } else { name }
}

/// A path as a relative reference of a URI.
fn uri(path: &str) -> String {
    let mut text = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'\\' => text.push('/'),
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'/' | b'.' | b'-' | b'_' | b'~' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

/// The text of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// One line of Markdown in which nothing is markup.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '#' => {
                out.push('\\');
                out.push(letter);
            }
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

fn cell(text: &str) -> String {
    plain(text).replace('|', "\\|")
}

fn longest_run(text: &str) -> usize {
    text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_the_reader_is_escaped() {
        assert_eq!(property("a:b,c%\n"), "a%3Ab%2Cc%25%0A");
        assert_eq!(uri("./my logs/a.log"), "my%20logs/a.log");
        assert_eq!(uri("/var/a.log"), "file:///var/a.log");
        assert_eq!(cell("a | `b` <script>\n"), "a \\| \\`b\\` \\<script\\> ");
        assert_eq!(longest_run("a ``` b"), 3);
    }
}
