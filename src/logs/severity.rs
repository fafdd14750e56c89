//! The words that open a message: `LOG:  `, `ERROR:  `, `STATEMENT:  `.
//!
//! PostgreSQL writes two spaces after the colon (`send_message_to_server_log` in elog.c), which makes
//! the words easy to find in a line whose prefix nobody has described.

use memchr::memmem;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// LOG, INFO, NOTICE, DEBUG: nothing went wrong.
    Log,
    /// WARNING.
    Warning,
    /// ERROR, FATAL, PANIC.
    Error,
    /// DETAIL of the message before.
    Detail,
    /// STATEMENT that the message before was about.
    Statement,
    /// HINT, CONTEXT, LOCATION, QUERY, BACKTRACE of the message before.
    Aside,
}

impl Severity {
    /// True when it opens a message of its own.
    pub(super) fn is_primary(self) -> bool {
        matches!(self, Self::Log | Self::Warning | Self::Error)
    }

    /// The severity of a word in capitals.
    pub(super) fn of(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"LOG" | b"INFO" | b"NOTICE" | b"DEBUG" | b"DEBUG1" | b"DEBUG2" | b"DEBUG3" | b"DEBUG4" | b"DEBUG5" => {
                Self::Log
            }
            b"WARNING" => Self::Warning,
            b"ERROR" | b"FATAL" | b"PANIC" => Self::Error,
            b"DETAIL" => Self::Detail,
            b"STATEMENT" => Self::Statement,
            b"HINT" | b"CONTEXT" | b"LOCATION" | b"QUERY" | b"BACKTRACE" => Self::Aside,
            _ => return None,
        })
    }
}

/// A severity at the very start of `text`, and where its message begins.
pub(super) fn at_start(text: &[u8]) -> Option<(Severity, usize)> {
    let length = text.iter().take(10).take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()).count();
    let (word, rest) = text.split_at_checked(length)?;
    rest.starts_with(b":  ").then_some(())?;
    Some((Severity::of(word)?, length + 3))
}

/// The first severity anywhere in a line: where its word stands, and where its message begins.
pub(super) fn anywhere(line: &[u8]) -> Option<(Severity, usize, usize)> {
    memmem::find_iter(line, b":  ").find_map(|colon| {
        let before = line.get(..colon)?;
        let length = before.iter().rev().take(9).take_while(|byte| byte.is_ascii_uppercase()).count();
        let start = colon - length;
        let apart = start == 0 || !line.get(start - 1)?.is_ascii_alphanumeric();
        let severity = Severity::of(before.get(start..)?).filter(|_| apart)?;
        Some((severity, start, colon + 3))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_word_wherever_it_stands() {
        assert_eq!(at_start(b"LOG:  duration"), Some((Severity::Log, 6)));
        assert_eq!(at_start(b"LOG: duration"), None);
        assert_eq!(anywhere(b"2026 [1] a@b ERROR:  x"), Some((Severity::Error, 13, 21)));
        assert_eq!(anywhere(b"[1]:STATEMENT:  x"), Some((Severity::Statement, 4, 16)));
        assert_eq!(anywhere(b"CATALOG:  x"), None);
        assert_eq!(anywhere(b"a:  b LOG:  x"), Some((Severity::Log, 6, 12)));
    }
}
