//! Statements without what is private in them, that can still be parsed, and mostly planned.
//!
//! A constant that something is compared with becomes a parameter. Others keep their shape, which rules and planner look at: a
//! letter becomes `a`, a digit `1`, a number its order of magnitude. Comments are left out. The template stays the same.

use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};
use crate::sql::template::{Binding, BindingKind, Scanner};

/// The statement without what is private in it.
pub fn mask(sql: &str) -> String {
    let bytes = sql.as_bytes();
    let mut scanner = Scanner::new(LexOptions::default());
    let bindings = scanner.scan(bytes).bindings;
    let parameters = bindings.iter().filter_map(|binding| match binding.kind {
        BindingKind::Param(number) => Some(number),
        _ => None,
    });
    let mut next = parameters.max().unwrap_or(0);
    let mut bindings = bindings.iter().filter(|it| !matches!(it.kind, BindingKind::Param(_))).peekable();
    let mut out = String::with_capacity(sql.len());
    // The tokens before, the last one first, and how many parentheses with a list of values are open.
    let mut before = Before::default();
    let mut at = 0;
    for token in Lexer::new(bytes, LexOptions::default()) {
        // A constant of several tokens goes as one.
        if token.start < at {
            continue;
        }
        let gap = sql.get(at as usize..token.start as usize).unwrap_or_default();
        out.push_str(if gap.trim().is_empty() { gap } else { " " });
        match bindings.next_if(|binding| binding.start <= token.start && token.start < binding.end) {
            Some(binding) => {
                at = binding.end.max(token.end);
                let written = sql.get(token.start as usize..at as usize).unwrap_or_default();
                if before.compares() && !matches!(written, "0" | "1") {
                    next += 1;
                    out.push_str(&format!("${next}"));
                } else {
                    out.push_str(&shape(written, binding));
                }
                before.note_constant();
            }
            None => {
                at = token.end;
                let junk = token.kind == TokenKind::Junk;
                out.push_str(if junk { "a" } else { sql.get(token.start as usize..at as usize).unwrap_or_default() });
                before.note(&token, bytes);
            }
        }
    }
    out
}

/// What stands before a constant.
#[derive(Debug, Default)]
struct Before {
    /// The last token compares, or separates values that are compared.
    compares: bool,
    /// For each open parenthesis: it holds a list that something is compared with.
    lists: Vec<bool>,
    /// The last word was IN.
    has_in: bool,
    /// BETWEEN was said, and its AND not yet.
    between: bool,
}

impl Before {
    fn compares(&self) -> bool {
        self.compares
    }

    fn in_list(&self) -> bool {
        self.lists.last().copied().unwrap_or_default()
    }

    fn note_constant(&mut self) {
        self.compares = false;
        self.has_in = false;
    }

    fn note(&mut self, token: &Token, sql: &[u8]) {
        let text = token.bytes(sql);
        let word = |name: &str| token.kind == TokenKind::Ident && text.eq_ignore_ascii_case(name.as_bytes());
        let had_in = std::mem::replace(&mut self.has_in, word("in"));
        self.compares = match token.kind {
            TokenKind::Op => matches!(text, b"=" | b"<>" | b"!=" | b"<" | b">" | b"<=" | b">="),
            TokenKind::LeftParen => {
                self.lists.push(had_in);
                had_in
            }
            TokenKind::RightParen => {
                self.lists.pop();
                false
            }
            TokenKind::Comma => self.in_list(),
            TokenKind::Ident if word("between") => {
                self.between = true;
                true
            }
            TokenKind::Ident if word("symmetric") => self.between,
            TokenKind::Ident if word("and") => std::mem::take(&mut self.between),
            _ => false,
        };
    }
}

/// A constant of the same shape.
fn shape(written: &str, binding: &Binding) -> String {
    match binding.kind {
        BindingKind::Number => magnitude(written),
        BindingKind::String => string(written),
        _ => written.get(..1).map_or_else(String::new, |prefix| {
            let digits = written.get(1..).unwrap_or_default();
            prefix.to_owned() + &digits.replace(|letter: char| letter.is_ascii_alphanumeric(), "1")
        }),
    }
}

/// `73` as `10`, `0.57` as `0.11`; 0 stays.
fn magnitude(written: &str) -> String {
    let plain = written.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match written.split_once('.') {
        _ if !plain => "1".to_owned(),
        Some((whole, part)) => {
            format!("{whole}.{part}").replace(|digit: char| digit.is_ascii_digit() && digit != '0', "1")
        }
        None if written.bytes().all(|byte| byte == b'0') => "0".to_owned(),
        None => format!("1{}", "0".repeat(written.trim_start_matches('0').len().saturating_sub(1))),
    }
}

fn string(written: &str) -> String {
    let (prefix, inner) = match written.as_bytes() {
        [b'\'', ..] => ("", written.get(1..written.len().saturating_sub(1))),
        [b'e' | b'E', b'\'', ..] => ("E", written.get(2..written.len().saturating_sub(1))),
        _ => return "'a'".to_owned(),
    };
    let Some(inner) = inner.filter(|_| written.ends_with('\'')) else { return "'a'".to_owned() };
    format!("{prefix}'{}'", inside(inner))
}

/// The words of intervals, JSON and switches say nothing of anybody.
const WORDS: &[&str] = &[
    "year",
    "years",
    "mon",
    "mons",
    "month",
    "months",
    "week",
    "weeks",
    "day",
    "days",
    "hour",
    "hours",
    "minute",
    "minutes",
    "min",
    "mins",
    "second",
    "seconds",
    "sec",
    "secs",
    "millisecond",
    "milliseconds",
    "microsecond",
    "microseconds",
    "quarter",
    "ago",
    "true",
    "false",
    "null",
    "on",
    "off",
    "yes",
    "no",
    "now",
    "today",
    "tomorrow",
    "yesterday",
    "epoch",
    "infinity",
    "dow",
    "utc",
    "english",
    "simple",
    "T",
    "Z",
];

fn inside(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    if let Some(hexadecimal) = inner.strip_prefix("\\x") {
        out.push_str("\\x");
        rest = hexadecimal;
    }
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|letter: char| !letter.is_alphabetic()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end.max(first.len_utf8()));
        match first {
            _ if end > 0 && WORDS.contains(&word) => out.push_str(word),
            _ if end > 0 => out.extend(word.chars().map(|_| 'a')),
            _ if first.is_numeric() => out.push('1'),
            _ if first.is_ascii() => out.push(first),
            _ => out.push('a'),
        }
        rest = behind;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    #[test]
    fn what_is_private_goes_and_the_shape_stays() {
        for (sql, masked) in [
            ("select * from t where id = 4711 -- Bob's", "select * from t where id = $1"),
            (
                "select * from t where a = 'bob' and b in (5, 17, $3) and c = 1",
                "select * from t where a = $4 and b in ($5, $6, $3) and c = 1",
            ),
            ("select 1 from t where name like '%b0b_X@é'", "select 1 from t where name like '%a1a_a@a'"),
            (
                "select 1 from t where d between '2024-05-17' and '2024-06-01' and x like 'q'",
                "select 1 from t where d between $1 and $2 and x like 'a'",
            ),
            (
                "select now() - interval '3 days', date '2024-05-17T10:11:12Z'",
                "select now() - interval '1 days', date '1111-11-11T11:11:11Z'",
            ),
            ("insert into t values (17, 'bob''s', 0.57, null)", "insert into t values (10, 'aaa''a', 0.11, null)"),
            (
                "select f('{\"name\": true}', '\\xdeadbeef') limit 50 offset 2500",
                "select f('{\"aaaa\": true}', '\\xaaaaaaaa') limit 10 offset 1000",
            ),
            ("select 1 /* secret */ from t where a > /* x */ -5 and n = 0", "select 1 from t where a > -1 and n = 0"),
            ("select $tag$ secret $tag$, E'a\\'b', B'1010', 1e10", "select 'a', E'a\\'a', B'1111', 1"),
        ] {
            let got = mask(sql);
            assert_eq!(got, masked, "{sql}");
            let mut scanner = Scanner::new(LexOptions::default());
            let fingerprint = scanner.scan(sql.as_bytes()).fingerprint;
            assert_eq!(fingerprint, scanner.scan(got.as_bytes()).fingerprint, "{sql} -> {got}");
            assert_eq!(parse(sql).is_ok(), parse(&got).is_ok(), "{sql} -> {got}");
        }
    }
}
