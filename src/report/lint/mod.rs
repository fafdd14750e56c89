//! Lint findings: as text for people, JSON for scripts, and what other programs take.

mod formats;
mod group;
mod html;
mod text;
mod top;

use serde_json::{Value, json};

use crate::lint::{Findings, RuleSet};
use crate::logs::Report as Read;
use crate::workload::{Order, Workload};
pub use group::Grouping;

/// The widest excerpt of a statement, in characters.
const EXCERPT: usize = 100;

/// All that one run found.
pub struct LintReport<'a> {
    /// The findings and the counts.
    pub findings: &'a Findings,
    /// The rules, for their reasons.
    pub rules: &'a RuleSet,
    /// What was read.
    pub files: &'a [Read],
    /// What the reader should know besides.
    pub notes: &'a [String],
    /// The statements, whatever was found in them.
    pub workload: &'a Workload,
    /// What is shown where.
    pub layout: Layout,
}

/// What a report shows where.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// How text puts findings together.
    pub group: Grouping,
    /// By what findings and statements are ranked.
    pub order: Order,
    /// How many of the statements that matter most are listed.
    pub statements: usize,
}

impl LintReport<'_> {
    /// The report as one JSON object (see the design's contract for the field names).
    ///
    /// # Errors
    /// Never for findings of this program: every field has a JSON form.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let mut document = serde_json::to_value(self.findings)?;
        if let Value::Object(fields) = &mut document {
            let files = self.files.iter().map(|file| {
                json!({
                    "file": file.file, "format": file.format, "bytes": file.bytes, "lines": file.lines,
                    "understood": file.understood, "statements": file.statements, "truncated": file.truncated,
                })
            });
            fields.insert("files".to_owned(), files.collect());
            fields.insert("notes".to_owned(), json!(self.notes));
            fields.insert("top".to_owned(), self.top_as_json());
        }
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        Ok(text)
    }
}

fn plural(count: u64, word: &str) -> String {
    format!("{} {word}{}", thousands(count), if count == 1 { "" } else { "s" })
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{} times", thousands(count)),
    }
}

/// `1234567` as `1,234,567`.
fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 1000.0 => format!("{ms:.1} ms"),
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms < 7_200_000.0 => format!("{:.1} min", ms / 60_000.0),
        ms => format!("{:.1} h", ms / 3_600_000.0),
    }
}

/// The line of a statement with the marked bytes, cut to a readable width: the line, and where in it
/// (in characters) the mark begins and how long it is.
fn excerpt(statement: &str, start: usize, end: usize) -> (String, usize, usize) {
    let start = floor(statement, start);
    let end = floor(statement, end).max(start);
    let line_start = statement.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line_end = statement.get(start..).and_then(|rest| rest.find('\n')).map_or(statement.len(), |at| start + at);
    let line = statement.get(line_start..line_end).unwrap_or("");
    let indent = line.chars().take_while(|letter| letter.is_whitespace()).count();
    let before = statement.get(line_start..start).unwrap_or("").chars().count();
    let marked = statement.get(start..end.min(line_end)).unwrap_or("").trim_end().chars().count().max(1);
    // A long line is cut so that the mark stays in sight.
    let lead = before.saturating_sub(EXCERPT / 2).max(indent.min(before));
    let (opening, skip) = if lead > indent { (".. ", lead) } else { ("", indent.min(before)) };
    let clean = |letter: char| if letter.is_control() { ' ' } else { letter };
    let kept: String = line.chars().skip(skip).take(EXCERPT).map(clean).collect();
    let closing = if line.chars().count() > skip + EXCERPT { " .." } else { "" };
    let at = before - skip;
    let length = marked.min(kept.chars().count().saturating_sub(at)).max(1);
    (format!("{opening}{kept}{closing}"), at + opening.len(), length)
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_marks_the_span_in_its_line() {
        let statement = "SELECT a\n    FROM t WHERE é = NULL AND b = 1";
        let start = statement.find("é").expect("there");
        let (line, at, length) = excerpt(statement, start, start + "é = NULL".len());
        assert_eq!(line, "FROM t WHERE é = NULL AND b = 1");
        assert_eq!((at, length), (13, 8));
        let long = format!("SELECT {} FROM t WHERE x = NULL", "a, ".repeat(200));
        let start = long.find("x = NULL").expect("there");
        let (line, at, length) = excerpt(&long, start, start + 8);
        assert_eq!(line.chars().skip(at).take(length).collect::<String>(), "x = NULL");
        assert!(line.chars().count() <= EXCERPT + 6);
        assert_eq!(excerpt("", 5, 9).2, 1);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!((thousands(1_234_567), thousands(12)), ("1,234,567".to_owned(), "12".to_owned()));
        assert_eq!((duration(12.34), duration(90_000.0)), ("12.3 ms".to_owned(), "90.0 s".to_owned()));
    }
}
