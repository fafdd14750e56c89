//! A script to its statements, as psql takes it apart: quotes, comments, `\commands`, and the data behind COPY.

/// One statement of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Its text without the semicolon.
    pub(super) text: &'a str,
    /// The line (from 1) where it begins.
    pub(super) line: u32,
}

/// Walks a script from statement to statement.
pub(super) struct Pieces<'a> {
    script: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(script: &'a str) -> Self {
        // A byte order mark is no part of the first statement.
        let at = if script.starts_with('\u{feff}') { 3 } else { 0 };
        Self { script, at, line: 1 }
    }

    fn rest(&self) -> &'a [u8] {
        self.script.as_bytes().get(self.at..).unwrap_or(&[])
    }

    /// Goes `count` bytes ahead and counts lines.
    fn skip(&mut self, count: usize) {
        let count = count.min(self.rest().len());
        let lines = self.rest().iter().take(count).filter(|byte| **byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.at += count;
    }

    fn skip_line(&mut self) {
        let length = self.rest().iter().position(|byte| *byte == b'\n').map_or(self.rest().len(), |end| end + 1);
        self.skip(length);
    }

    /// Space, comments and backslash commands before a statement.
    fn skip_to_statement(&mut self) {
        loop {
            match self.rest() {
                [b'-', b'-', ..] | [b'\\', ..] => self.skip_line(),
                [b'/', b'*', ..] => self.skip(comment_length(self.rest())),
                [b';', ..] => self.skip(1),
                [byte, ..] if byte.is_ascii_whitespace() => self.skip(1),
                _ => return,
            }
        }
    }

    /// Rows behind COPY .. FROM stdin, up to the line `\.`.
    fn skip_copy_data(&mut self) {
        self.skip_line();
        while !self.rest().is_empty() {
            let ends = matches!(self.rest(), [b'\\', b'.'] | [b'\\', b'.', b'\n' | b'\r', ..]);
            self.skip_line();
            if ends {
                return;
            }
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        self.skip_to_statement();
        let (start, line) = (self.at, self.line);
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            let before = self.script.as_bytes().get(..self.at).and_then(<[u8]>::last).copied();
            let length = match rest {
                [] => break,
                [b';', ..] if depth == 0 => break,
                [b'-', b'-', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
                [b'/', b'*', ..] => comment_length(rest),
                [b'\'', ..] => {
                    let has_escapes = matches!(before, Some(b'e' | b'E'))
                        && !self.script.as_bytes().get(..self.at - 1).and_then(<[u8]>::last).is_some_and(is_name_byte);
                    quoted_length(rest, b'\'', has_escapes)
                }
                [b'"', ..] => quoted_length(rest, b'"', false),
                [b'$', ..] if !before.as_ref().is_some_and(is_name_byte) => dollar_length(rest),
                [b'(', ..] => {
                    depth += 1;
                    1
                }
                [b')', ..] => {
                    depth = depth.saturating_sub(1);
                    1
                }
                _ => 1,
            };
            self.skip(length.max(1));
        }
        let text = self.script.get(start..self.at)?.trim_end();
        self.skip(1);
        if copies_from_stdin(text) {
            self.skip_copy_data();
        }
        (!text.is_empty()).then_some(Piece { text, line })
    }
}

fn is_name_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80
}

/// A comment nests.
fn comment_length(bytes: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        match rest {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth = depth.saturating_sub(1);
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            [] => return at,
            _ => at += 1,
        }
    }
    at
}

/// A doubled quote ends the one string and begins the next, which is as good as staying inside.
fn quoted_length(bytes: &[u8], quote: u8, has_escapes: bool) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte == quote {
            return at;
        }
        if *byte == b'\\' && has_escapes {
            at += 1;
        }
    }
    bytes.len()
}

/// `$tag$ .. $tag$`; one byte when it is no dollar quote.
fn dollar_length(bytes: &[u8]) -> usize {
    let Some(tag_length) = bytes.iter().skip(1).position(|byte| *byte == b'$').map(|end| end + 2) else { return 1 };
    let Some(tag) = bytes.get(..tag_length) else { return 1 };
    let inside = tag.get(1..tag_length - 1).unwrap_or(&[]);
    if inside.first().is_some_and(u8::is_ascii_digit) || !inside.iter().all(is_name_byte) {
        return 1;
    }
    let body = bytes.get(tag_length..).unwrap_or(&[]);
    body.windows(tag_length).position(|window| window == tag).map_or(bytes.len(), |end| tag_length + end + tag_length)
}

fn copies_from_stdin(text: &str) -> bool {
    let is_copy = text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("copy"));
    is_copy && text.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("stdin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(script: &str) -> Vec<(u32, &str)> {
        Pieces::new(script).map(|piece| (piece.line, piece.text)).collect()
    }

    #[test]
    fn statements_end_where_psql_ends_them() {
        let script = "-- a; b\nSELECT ';', E'\\';', \";\";\n\\connect x\n/* ; /* ; */ */\nSELECT $f$;$f$ ; ;\nCREATE RULE r AS ON INSERT TO t DO (a; b);\nlast";
        let wanted = vec![
            (2, "SELECT ';', E'\\';', \";\""),
            (5, "SELECT $f$;$f$"),
            (6, "CREATE RULE r AS ON INSERT TO t DO (a; b)"),
            (7, "last"),
        ];
        assert_eq!(split(script), wanted);
    }

    #[test]
    fn copied_rows_are_skipped() {
        let script = "COPY public.t (a, b) FROM stdin;\n1\t';\n\\N\tx\n\\.\n\nSELECT 1;";
        assert_eq!(split(script), [(1, "COPY public.t (a, b) FROM stdin"), (6, "SELECT 1")]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_split(script in ".{0,80}") {
            for piece in Pieces::new(&script) {
                proptest::prop_assert!(script.contains(piece.text));
            }
        }
    }
}
