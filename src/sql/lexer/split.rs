//! Where one statement of a text ends and the next begins.

use std::ops::Range;

use super::{LexOptions, Lexer, TokenKind};

/// Tells the `;` inside a routine's `BEGIN ATOMIC .. END` body from one that ends a statement, the way psql does.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bodies {
    /// Words of the statement seen so far, up to the one that decides.
    stage: Stage,
    depth: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Start,
    Create,
    Or,
    OrReplace,
    Routine,
    Other,
}

impl Bodies {
    /// True inside a body.
    pub(crate) fn is_inside(&self) -> bool {
        self.depth > 0
    }

    /// True while words matter.
    pub(crate) fn is_watching(&self) -> bool {
        self.stage != Stage::Other
    }

    /// Takes note of an unquoted word in any case.
    pub(crate) fn word(&mut self, word: &[u8]) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        self.stage = match self.stage {
            Stage::Start if is("create") => Stage::Create,
            Stage::Create if is("or") => Stage::Or,
            Stage::Or if is("replace") => Stage::OrReplace,
            Stage::Create | Stage::OrReplace if is("function") || is("procedure") => Stage::Routine,
            Stage::Routine => {
                if is("begin") || (self.depth > 0 && is("case")) {
                    self.depth = self.depth.saturating_add(1);
                } else if is("end") {
                    self.depth = self.depth.saturating_sub(1);
                }
                Stage::Routine
            }
            _ => Stage::Other,
        };
    }
}

/// The statements of `sql` as byte ranges, without the `;`, without surrounding white space and comments, and without
/// empty ones. A `;` inside parentheses or a routine's `BEGIN ATOMIC` body ends nothing.
pub fn split_statements(sql: &str, options: LexOptions) -> Vec<Range<usize>> {
    let bytes = sql.as_bytes();
    let mut statements = Vec::new();
    let mut current: Option<Range<usize>> = None;
    let mut parens = 0u32;
    let mut bodies = Bodies::default();
    for token in Lexer::new(bytes, options) {
        match token.kind {
            TokenKind::Semicolon if parens == 0 && !bodies.is_inside() => {
                statements.extend(current.take());
                bodies = Bodies::default();
                continue;
            }
            TokenKind::LeftParen => parens += 1,
            TokenKind::RightParen => parens = parens.saturating_sub(1),
            TokenKind::Ident if bodies.is_watching() => bodies.word(token.bytes(bytes)),
            _ => {}
        }
        let start = current.map_or(token.start as usize, |range| range.start);
        current = Some(start..token.end as usize);
    }
    statements.extend(current);
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str) -> Vec<&str> {
        split_statements(sql, LexOptions::default()).into_iter().map(|range| &sql[range]).collect()
    }

    #[test]
    fn splits_at_the_top_level_only() {
        assert_eq!(
            split(" ; select 1 ; -- a;b\n;select ';' /* ; */, $$;$$;"),
            ["select 1", "select ';' /* ; */, $$;$$"]
        );
        assert_eq!(
            split("create rule r as on insert to t do (select 1; select 2); select 3"),
            ["create rule r as on insert to t do (select 1; select 2)", "select 3"]
        );
        assert!(split("  -- nothing\n ; ; ").is_empty());
    }

    #[test]
    fn keeps_a_routine_body_together() {
        let body =
            "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end";
        assert_eq!(split(&format!("{body}; begin; end")), [body, "begin", "end"]);
    }
}
