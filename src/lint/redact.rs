//! Takes every constant out of findings, so that a report can be shared.
//!
//! Constants and comments of a statement become `?`; what a message or a suggestion quotes of them does too.

use super::run::{FindingSpan, Findings};
use crate::sql::lexer::{LexOptions, Lexer, TokenKind};
use crate::sql::template::{BindingKind, Scanner};

/// A statement without its constants.
struct Redacted {
    text: String,
    /// Places in the original, with where they are now.
    places: Vec<(u32, u32)>,
    /// The constants as written, and without quotes.
    constants: Vec<String>,
}

impl Findings {
    /// Takes the constants out of all findings.
    pub fn redact(&mut self) {
        for finding in &mut self.findings {
            let redacted = redact(&finding.example);
            finding.span =
                FindingSpan { start: redacted.place(finding.span.start), end: redacted.place(finding.span.end) };
            if let Some(quoted) = finding.quoted.take() {
                finding.message = finding.message.replace(&quoted, "?");
            }
            finding.message = redacted.apply(&finding.message);
            finding.suggestion = redacted.apply(&finding.suggestion);
            finding.example = redacted.text;
        }
        // What could not be read may hold anything.
        self.unparsed_samples.clear();
        self.plan_failures.1 = self.plan_failures.1.take().map(|_| "the reason is left out".to_owned());
    }
}

fn redact(sql: &str) -> Redacted {
    let mut scanner = Scanner::new(LexOptions::default());
    let scan = scanner.scan(sql.as_bytes());
    let mut bindings = scan.bindings.iter().filter(|it| !matches!(it.kind, BindingKind::Param(_))).peekable();
    let mut out = Redacted { text: String::with_capacity(sql.len()), places: Vec::new(), constants: Vec::new() };
    let mut at = 0;
    for token in Lexer::new(sql.as_bytes(), LexOptions::default()) {
        while bindings.next_if(|binding| binding.end <= at).is_some() {}
        // A constant of several tokens is taken out as one.
        if token.start < at {
            continue;
        }
        let gap = sql.get(at as usize..token.start as usize).unwrap_or("");
        // What is between tokens and not blank is a comment.
        out.text.push_str(if gap.trim().is_empty() { gap } else { " " });
        out.mark(token.start);
        let binding = bindings.peek().filter(|binding| binding.start <= token.start && token.start < binding.end);
        let end = match (binding, token.kind) {
            (Some(binding), _) => Some(binding.end.max(token.end)),
            (None, TokenKind::Junk) => Some(token.end),
            _ => None,
        };
        match end {
            Some(end) => {
                out.constant(sql.get(token.start as usize..end as usize).unwrap_or(""));
                out.text.push('?');
                at = end;
            }
            None => {
                out.text.push_str(sql.get(token.start as usize..token.end as usize).unwrap_or(""));
                at = token.end;
            }
        }
        out.mark(at);
    }
    out
}

impl Redacted {
    fn mark(&mut self, original: u32) {
        self.places.push((original, u32::try_from(self.text.len()).unwrap_or(u32::MAX)));
    }

    /// Where a place of the original is now.
    fn place(&self, original: u32) -> u32 {
        let after = self.places.partition_point(|(at, _)| *at <= original);
        let Some((at, now)) = after.checked_sub(1).and_then(|before| self.places.get(before)) else { return 0 };
        let next = self.places.get(after).map_or(u32::try_from(self.text.len()).unwrap_or(u32::MAX), |(_, now)| *now);
        now.saturating_add(original - at).min(next)
    }

    fn constant(&mut self, written: &str) {
        if written.is_empty() {
            return;
        }
        self.constants.push(written.to_owned());
        let inner = written.trim_start_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '&');
        if let Some(inner) = inner.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            self.constants.push(inner.to_owned());
        }
    }

    /// A text without the constants.
    fn apply(&self, text: &str) -> String {
        let mut constants: Vec<&String> = self.constants.iter().filter(|it| !it.is_empty()).collect();
        constants.sort_by_key(|it| std::cmp::Reverse(it.len()));
        constants.dedup();
        constants.into_iter().fold(text.to_owned(), |text, constant| replace_words(&text, constant))
    }
}

/// Replaces what stands as a word of its own: the 5 of `x = 5`, not that of `x5`.
fn replace_words(text: &str, constant: &str) -> String {
    let word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(constant) {
        let (before, found) = rest.split_at(at);
        let after = found.get(constant.len()..).unwrap_or("");
        let joined = (before.chars().next_back().or(out.chars().next_back()).is_some_and(word)
            && constant.starts_with(word))
            || (after.starts_with(word) && constant.ends_with(word));
        out.push_str(before);
        out.push_str(if joined { constant } else { "?" });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_and_comments_become_question_marks_and_spans_follow() {
        let sql = "SELECT a5 FROM t /* for bob */ WHERE x = 'bob''s' AND y IN (5, -6.5) AND z = $1 -- secret";
        let redacted = redact(sql);
        assert_eq!(redacted.text, "SELECT a5 FROM t WHERE x = ? AND y IN (?, -?) AND z = $1");
        let start = u32::try_from(sql.find("y IN").expect("there")).expect("small");
        assert!(redacted.text.get(redacted.place(start) as usize..).expect("in range").starts_with("y IN"));
        assert_eq!(redacted.apply("x = 'bob''s' of a5 is 5"), "x = ? of a5 is ?");
    }
}
