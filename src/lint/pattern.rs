//! SQL with holes: `SELECT * FROM $T WHERE ... ORDER BY random()`.
//!
//! A pattern is matched token by token, anywhere in a statement, so that white space, comments, the case of names and
//! what stands in strings do not matter. A hole `$NAME` takes one operand: a name with its dots, a constant or parameter, a
//! call, what is in parentheses; `$NAME:kind` only one of that kind. Holes of the same name take the same text. `...` takes
//! whatever there is, up to the parenthesis that closes around it.

use serde::Deserialize;

use crate::sql::facts::Span;
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};

/// Stand for what the lexer does not know, while a pattern is read.
const HOLE: &str = "pgweir_hole_";
const DOTS: &str = "pgweir_dots";

/// Steps after which a statement counts as one that does not fit.
const MAX_STEPS: usize = 200_000;

/// Words that are no operand.
const RESERVED: &[&str] = &[
    "all",
    "and",
    "any",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cross",
    "delete",
    "desc",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "fetch",
    "for",
    "from",
    "full",
    "group",
    "having",
    "ilike",
    "in",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "join",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "returning",
    "right",
    "select",
    "set",
    "similar",
    "some",
    "then",
    "union",
    "update",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];

/// A pattern.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// This token, as [`folded`].
    Token(String),
    /// A constant, as it is written.
    Constant(String),
    /// One operand.
    Hole(String, Hole),
    /// Whatever there is.
    Dots,
}

/// What a hole takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    Operand,
    Name,
    Constant,
    Parameter,
    Value,
    Call,
    Subquery,
}

impl Hole {
    const KINDS: [(&'static str, Self); 6] = [
        ("name", Self::Name),
        ("constant", Self::Constant),
        ("parameter", Self::Parameter),
        ("value", Self::Value),
        ("call", Self::Call),
        ("subquery", Self::Subquery),
    ];
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (readable, kinds) = holes(&text)?;
        let mut lexer = Lexer::new(readable.as_bytes(), LexOptions::default());
        let tokens: Vec<Token> = (&mut lexer).collect();
        let mut parts = Vec::new();
        for token in &tokens {
            let written = token_text(&readable, token);
            let name = written.strip_prefix(HOLE).map(str::to_owned);
            parts.push(match token.kind {
                TokenKind::Junk | TokenKind::Other | TokenKind::Semicolon => {
                    return Err(format!("`{written}` cannot stand in a pattern"));
                }
                TokenKind::Number(_) | TokenKind::String(_) => Part::Constant(written.to_owned()),
                _ if written == DOTS => Part::Dots,
                _ => match name {
                    Some(name) => {
                        let kind =
                            kinds.iter().find(|(known, _)| *known == name).map_or(Hole::Operand, |(_, kind)| *kind);
                        Part::Hole(name, kind)
                    }
                    None => Part::Token(folded(&readable, token)),
                },
            });
        }
        if !lexer.is_complete() {
            return Err(format!("a string, a name or a comment is not closed in the pattern `{text}`"));
        }
        if !parts.iter().any(|part| matches!(part, Part::Token(_) | Part::Constant(_))) {
            return Err(format!("the pattern `{text}` would fit any statement"));
        }
        Ok(Self { parts })
    }
}

/// The pattern with names in place of what is no SQL, and the kinds of its holes.
fn holes(text: &str) -> Result<(String, Vec<(String, Hole)>), String> {
    let (mut out, mut kinds, mut rest) = (String::new(), Vec::new(), text);
    while let Some(at) = rest.find(['$', '.']) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        if let Some(behind) = found.strip_prefix("...") {
            out.push_str(&format!(" {DOTS} "));
            rest = behind;
            continue;
        }
        let word = found.strip_prefix('$').unwrap_or_default();
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
        let (name, behind) = word.split_at(end);
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            out.push_str(found.get(..1).unwrap_or_default());
            rest = found.get(1..).unwrap_or_default();
            continue;
        }
        out.push_str(&format!("{HOLE}{name}"));
        rest = behind;
        if let Some(kind) = behind.strip_prefix(':').filter(|kind| kind.starts_with(|c: char| c.is_ascii_lowercase())) {
            let end = kind.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(kind.len());
            let (word, behind) = kind.split_at(end);
            let known = Hole::KINDS.iter().find(|(name, _)| *name == word);
            let kind = known.map(|(_, kind)| *kind).ok_or_else(|| {
                let all: Vec<&str> = Hole::KINDS.iter().map(|(name, _)| *name).collect();
                format!("a hole cannot be of the kind `{word}`; there are: {}", all.join(", "))
            })?;
            kinds.push((name.to_owned(), kind));
            rest = behind;
        }
    }
    out.push_str(rest);
    Ok((out, kinds))
}

/// Where a pattern fits, and what its holes took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fit<'a> {
    /// The whole of it.
    pub span: Span,
    /// The text of each hole.
    pub holes: Vec<(&'a str, Span)>,
}

impl Pattern {
    /// Whether it may fit one statement of a template and not another, since it looks at constants.
    pub(super) fn reads_constants(&self) -> bool {
        let names: Vec<&String> = self
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Hole(name, _) => Some(name),
                _ => None,
            })
            .collect();
        let twice = names.iter().enumerate().any(|(at, name)| names.iter().take(at).any(|other| other == name));
        twice || self.parts.iter().any(|part| matches!(part, Part::Constant(_)))
    }

    /// Where it fits a statement; places do not overlap.
    pub(super) fn fits<'a>(&'a self, sql: &str) -> Vec<Fit<'a>> {
        let tokens: Vec<Token> = Lexer::new(sql.as_bytes(), LexOptions::default()).collect();
        let mut search = Search { sql, tokens: &tokens, holes: Vec::new(), steps: 0 };
        let (mut found, mut at) = (Vec::new(), 0);
        while at < tokens.len() && search.steps < MAX_STEPS {
            search.holes.clear();
            match search.fit(&self.parts, at) {
                Some(end) if end > at => {
                    found.extend(search.span(at, end).map(|span| Fit { span, holes: search.named() }));
                    at = end;
                }
                _ => at += 1,
            }
        }
        found
    }
}

struct Search<'p, 's> {
    sql: &'s str,
    tokens: &'s [Token],
    /// The hole's name, and its first token and the one behind its last.
    holes: Vec<(&'p str, usize, usize)>,
    steps: usize,
}

impl<'p> Search<'p, '_> {
    /// Fits the parts from a token on; gives the token behind.
    fn fit(&mut self, parts: &'p [Part], at: usize) -> Option<usize> {
        self.steps += 1;
        if self.steps >= MAX_STEPS {
            return None;
        }
        let Some((part, rest)) = parts.split_first() else { return Some(at) };
        match part {
            Part::Token(wanted) => {
                let token = self.tokens.get(at)?;
                (folded(self.sql, token) == *wanted).then(|| self.fit(rest, at + 1))?
            }
            Part::Constant(wanted) => {
                let token = self.tokens.get(at)?;
                (token_text(self.sql, token) == wanted).then(|| self.fit(rest, at + 1))?
            }
            Part::Hole(name, kind) => {
                let before = self.holes.len();
                // The longest operand is the right one; what is behind it must fit.
                for end in self.operands(*kind, at).into_iter().rev() {
                    if self.same_as_before(name, at, end) {
                        self.holes.push((name, at, end));
                        if let Some(end) = self.fit(rest, end) {
                            return Some(end);
                        }
                        self.holes.truncate(before);
                    }
                }
                None
            }
            Part::Dots if rest.is_empty() => Some(at),
            Part::Dots => {
                let mut next = at;
                loop {
                    let before = self.holes.len();
                    if let Some(end) = self.fit(rest, next) {
                        return Some(end);
                    }
                    self.holes.truncate(before);
                    next = self.skip(next)?;
                }
            }
        }
    }

    /// The token behind this one, or behind the parenthesis that it opens; none at the end of what is around.
    fn skip(&self, at: usize) -> Option<usize> {
        match self.tokens.get(at)?.kind {
            TokenKind::LeftParen | TokenKind::LeftBracket => self.closed(at),
            TokenKind::RightParen | TokenKind::RightBracket => None,
            _ => Some(at + 1),
        }
    }

    /// The token behind the parenthesis that is opened here is closed.
    fn closed(&self, at: usize) -> Option<usize> {
        let mut depth = 0usize;
        for (index, token) in self.tokens.iter().enumerate().skip(at) {
            match token.kind {
                TokenKind::LeftParen | TokenKind::LeftBracket => depth += 1,
                TokenKind::RightParen | TokenKind::RightBracket => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(index + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn kind(&self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// Where operands of that kind may end that begin here, the shortest first.
    fn operands(&self, kind: Hole, at: usize) -> Vec<usize> {
        let Some(first) = self.tokens.get(at) else { return Vec::new() };
        let (own, end) = match first.kind {
            TokenKind::Number(_) | TokenKind::String(_) => (Hole::Constant, at + 1),
            TokenKind::Param(_) => (Hole::Parameter, at + 1),
            TokenKind::LeftParen => match self.closed(at) {
                Some(end) => {
                    let inner = self.tokens.get(at + 1).map(|token| folded(self.sql, token)).unwrap_or_default();
                    (
                        if matches!(inner.as_str(), "select" | "with" | "values") {
                            Hole::Subquery
                        } else {
                            Hole::Operand
                        },
                        end,
                    )
                }
                None => return Vec::new(),
            },
            TokenKind::Ident | TokenKind::QuotedIdent | TokenKind::UnicodeIdent => match self.name(at) {
                // A type in front of a string makes a constant of it.
                Some((end, false)) if matches!(self.kind(end), Some(TokenKind::String(_))) => (Hole::Constant, end + 1),
                Some((end, called)) => (if called { Hole::Call } else { Hole::Name }, end),
                None => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        let fits = kind == Hole::Operand
            || kind == own
            || kind == Hole::Value && matches!(own, Hole::Constant | Hole::Parameter);
        if !fits {
            return Vec::new();
        }
        let mut ends = vec![end];
        // A cast is a part of the operand, or the pattern's own.
        if self.kind(end) == Some(TokenKind::Cast)
            && let Some((end, _)) = self.name(end + 1)
        {
            ends.push(end);
        }
        ends
    }

    /// A name with its dots, and the parentheses behind it if it is called.
    fn name(&self, at: usize) -> Option<(usize, bool)> {
        let is_name = |at: usize| {
            matches!(self.kind(at), Some(TokenKind::Ident | TokenKind::QuotedIdent | TokenKind::UnicodeIdent))
        };
        let first = self.tokens.get(at).filter(|_| is_name(at))?;
        if first.kind == TokenKind::Ident && RESERVED.contains(&folded(self.sql, first).as_str()) {
            return None;
        }
        let mut end = at + 1;
        while self.kind(end) == Some(TokenKind::Dot) && is_name(end + 1) {
            end += 2;
        }
        match self.kind(end) {
            Some(TokenKind::LeftParen) => Some((self.closed(end)?, true)),
            Some(TokenKind::LeftBracket) => Some((self.closed(end)?, false)),
            _ => Some((end, false)),
        }
    }

    fn same_as_before(&self, name: &str, at: usize, end: usize) -> bool {
        let texts = |from: usize, to: usize| {
            self.tokens
                .get(from..to)
                .unwrap_or_default()
                .iter()
                .map(|token| folded(self.sql, token))
                .collect::<Vec<_>>()
        };
        let before = self.holes.iter().find(|(known, ..)| *known == name);
        before.is_none_or(|(_, from, to)| texts(*from, *to) == texts(at, end))
    }

    fn span(&self, at: usize, end: usize) -> Option<Span> {
        let last = self.tokens.get(end.checked_sub(1)?)?;
        Some(Span { start: self.tokens.get(at)?.start, end: last.end })
    }

    fn named(&self) -> Vec<(&'p str, Span)> {
        self.holes.iter().filter_map(|(name, at, end)| Some((*name, self.span(*at, *end)?))).collect()
    }
}

fn token_text<'a>(sql: &'a str, token: &Token) -> &'a str {
    sql.get(token.start as usize..token.end as usize).unwrap_or_default()
}

/// A token as others are compared with it: names in lower case unless they are quoted, where quotes that change nothing are
/// taken away; `!=` is `<>`.
fn folded(sql: &str, token: &Token) -> String {
    let written = token_text(sql, token);
    let plain = |name: &&str| {
        let fits = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
        !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    match token.kind {
        TokenKind::Ident => written.to_lowercase(),
        TokenKind::QuotedIdent => {
            let inner = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(plain);
            inner.unwrap_or(written).to_owned()
        }
        TokenKind::Op if written == "!=" => "<>".to_owned(),
        _ => written.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).expect("a pattern")
    }

    fn found<'a>(text: &str, sql: &'a str) -> Vec<&'a str> {
        pattern(text).fits(sql).iter().map(|fit| &sql[fit.span.start as usize..fit.span.end as usize]).collect()
    }

    #[test]
    fn patterns_fit_whatever_the_writing() {
        for (text, sql, fits) in [
            (
                "SELECT * FROM $T",
                "select  *\n from Shop.\"orders\" o where id = 1",
                &["select  *\n from Shop.\"orders\""][..],
            ),
            (
                "select * from $T",
                "select id from (select * from a) x, (SELECT /* all */ * FROM b)",
                &["select * from a", "SELECT /* all */ * FROM b"],
            ),
            ("select * from $T:name", "select * from (select 1) x", &[]),
            ("select * from $T:subquery", "select * from (select 1) x", &["select * from (select 1)"]),
            ("$C:name = $V:constant", "where a.b = 5 and c = $1 and lower(d) = 'x' and 5 = e", &["a.b = 5"]),
            ("$C:name = $V:value", "where a.b = 5 and c = $1", &["a.b = 5", "c = $1"]),
            ("$C:name = $V", "where x = 'a'::text and y = f(1, (2))", &["x = 'a'::text", "y = f(1, (2))"]),
            (
                "$X = $X",
                "where a = b and (lower(c)) = (LOWER(c)) and t.d = \"t\".d",
                &["(lower(c)) = (LOWER(c))", "t.d = \"t\".d"],
            ),
            (
                "coalesce($X, '')",
                "select coalesce(name, ''), coalesce(name, 'x'), coalesce(a, b)",
                &["coalesce(name, '')"],
            ),
            (
                "select ... for update",
                "select id from t where f(x) order by a for update",
                &["select id from t where f(x) order by a for update"],
            ),
            ("f(..., $1, ...)", "select f(a, g(b), $1)", &[]),
            (
                "order by ... limit $N:constant",
                "select 1 from t order by a, b desc limit 10",
                &["order by a, b desc limit 10"],
            ),
            (
                "exists (select ... limit ...)",
                "where exists (select 1 from t limit 1) limit 5",
                &["exists (select 1 from t limit 1)"],
            ),
            ("a <> $V", "where a != 5 and 'a <> 5' = b", &["a != 5"]),
            ("$X::date = $Y", "where created_at::date = $1", &["created_at::date = $1"]),
            ("from $T where", "select 1 from where", &[]),
            ("now() - $X", "select now() - interval '1 day'", &["now() - interval '1 day'"]),
        ] {
            assert_eq!(found(text, sql), fits, "{text} in {sql}");
        }
    }

    #[test]
    fn holes_say_what_they_took() {
        let (wanted, sql) = (pattern("UPDATE $T SET ... WHERE $C:name = $V"), "update a.b set x = 1 where id = 7");
        let fits = wanted.fits(sql);
        let holes: Vec<_> =
            fits[0].holes.iter().map(|(name, at)| (*name, &sql[at.start as usize..at.end as usize])).collect();
        assert_eq!(holes, [("T", "a.b"), ("C", "id"), ("V", "7")]);
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for (text, word) in
            [("$X", "any statement"), ("...", "any"), ("$X:thing = 1", "thing"), ("a = 'x", "closed"), ("a; b", ";")]
        {
            let error = Pattern::try_from(text.to_owned()).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_pattern_that_asks_for_too_much_ends() {
        let sql = format!("select {}", "f(a), ".repeat(5000));
        assert!(pattern("select ... x ... y ... z ... $A = $A ... q").fits(&sql).is_empty());
    }

    #[test]
    fn patterns_with_constants_are_known() {
        assert!(pattern("limit 1").reads_constants() && pattern("$X = $X").reads_constants());
        assert!(!pattern("$X = $Y").reads_constants());
    }
}
