//! What is wrong with a file: a place, a sentence, and what to write instead.

use super::tree::At;
use crate::error::Error;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Where.
    pub at: At,
    /// What, in one sentence without a full stop.
    pub what: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn new(at: At, what: impl Into<String>) -> Self {
        Self { at, what: what.into(), hint: None }
    }

    /// Adds what to write instead.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As an error that shows the line. Secrets on the line are blotted out.
    pub fn error(&self, name: &str, text: &str) -> Error {
        let At { line, column, length } = self.at;
        let mut error = Error::config(self.what.clone());
        error.hint = self.hint.clone();
        if line == 0 {
            return error.at(name);
        }
        let mut place = format!("{name}:{line}:{column}");
        if let Some(source) = text.lines().nth(line as usize - 1).filter(|source| source.chars().count() < 400) {
            let (before, rest) = split_at_char(source, column.saturating_sub(1) as usize);
            let (marked, after) = split_at_char(rest, length.max(1) as usize);
            let (before, marked, after) = blot(before, marked, after);
            let carets = "^".repeat(marked.chars().count().clamp(1, 120));
            let gutter = " ".repeat(line.to_string().len());
            let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            place.push_str(&format!("\n    {line} | {before}{marked}{after}\n    {gutter} | {indent}{carets}"));
        }
        error.at(place)
    }
}

fn split_at_char(text: &str, chars: usize) -> (&str, &str) {
    text.split_at(text.char_indices().nth(chars).map_or(text.len(), |(index, _)| index))
}

/// Replaces what stands after `password` and what stands before the `@` of a URL by dots, in each of
/// the three pieces of a line, so that an error can be pasted into a ticket.
fn blot(before: &str, marked: &str, after: &str) -> (String, String, String) {
    let whole = format!("{before}{marked}{after}");
    let mut hidden = vec![false; whole.len()];
    let mut hide = |range: std::ops::Range<usize>| {
        if let Some(bytes) = hidden.get_mut(range) {
            bytes.fill(true);
        }
    };
    for (start, found) in whole.match_indices("password") {
        let rest = start + found.len();
        let tail = &whole[rest..];
        let value = tail.find(|c: char| !matches!(c, ':' | '=' | ' ' | '"' | '\'')).unwrap_or(tail.len());
        let end = tail[value..].find([',', '}', '&', '"', '\'']).map_or(tail.len(), |end| value + end);
        hide(rest + value..rest + end);
    }
    for (start, found) in whole.match_indices("://") {
        let rest = start + found.len();
        let tail = &whole[rest..];
        // A password may hold any sign but a blank: the last @ before one ends it.
        let word = tail.find([' ', '"', '\'']).unwrap_or(tail.len());
        if let (Some(colon), Some(end)) = (tail[..word].find(':'), tail[..word].rfind('@'))
            && colon < end
        {
            hide(rest + colon + 1..rest + end);
        }
    }
    let mut pieces = [String::new(), String::new(), String::new()];
    let (first, second) = (before.len(), before.len() + marked.len());
    for (index, c) in whole.char_indices() {
        let piece = usize::from(index >= first) + usize::from(index >= second);
        pieces[piece].push(if hidden[index] { '*' } else { c });
    }
    let [before, marked, after] = pieces;
    (before, marked, after)
}

/// The candidate that `word` was probably meant to be.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + word.chars().count() / 4;
    candidates
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, where swapping two neighbours counts as one step.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}

/// `` `a`, `b` or `c` ``.
pub(super) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_line_with_a_mark() {
        let text = "a: 1\n  shrads: 2 # x\n";
        let problem =
            Problem::new(At { line: 2, column: 3, length: 6 }, "unknown setting `shrads`").hint("write `shards`");
        assert_eq!(
            problem.error("f.yaml", text).to_string(),
            "unknown setting `shrads`\n  at: f.yaml:2:3\n    2 |   shrads: 2 # x\n      |   ^^^^^^\n  hint: write `shards`"
        );
    }

    #[test]
    fn secrets_are_blotted_out() {
        let text = "u: {password: \"s3cret\", oops: 1} # postgres://app:p@ss:w@h/x?password=abc&y=1";
        let shown = Problem::new(At { line: 1, column: 25, length: 4 }, "x").error("f", text).to_string();
        for secret in ["s3cret", "p@ss", "abc"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("postgres://app:******@h/x?password=***&y=1"), "{shown}");
    }

    #[test]
    fn guesses_what_was_meant() {
        assert_eq!(did_you_mean("shrads", ["primary", "shards"]), Some("shards"));
        assert_eq!(did_you_mean("Listen", ["listen", "admin"]), Some("listen"));
        assert_eq!(did_you_mean("zebra", ["listen", "admin"]), None);
        assert_eq!(one_of(["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
