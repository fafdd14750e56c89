//! What a constant means: PostgreSQL's string forms decoded from the text.

use super::Literal;

/// A string constant as written, decoded; `None` for a form whose value is not text (B'..', X'..') or that is malformed.
///
/// Follows `src/backend/parser/scan.l` with `standard_conforming_strings` on.
pub(crate) fn decode_string(written: &str) -> Option<String> {
    let first = written.chars().next()?;
    match first {
        '\'' => plain(written),
        '$' => dollar_quoted(written),
        'e' | 'E' => escaped(inside(written.get(1..)?)?),
        'n' | 'N' => plain(written.get(1..)?),
        'u' | 'U' => unicode(inside(written.get(2..)?)?),
        _ => None,
    }
}

/// A literal of a string constant.
pub(crate) fn string_literal(written: &str) -> Literal {
    decode_string(written).map_or_else(|| Literal::Other(written.to_owned()), Literal::Text)
}

/// What stands between the first and the last quote.
fn inside(quoted: &str) -> Option<&str> {
    quoted.strip_prefix('\'')?.strip_suffix('\'')
}

/// `'it''s'`, and its continuation on a later line: `'a'` newline `'b'`.
fn plain(written: &str) -> Option<String> {
    let mut value = String::with_capacity(written.len());
    let mut chars = written.chars().peekable();
    let mut is_inside = false;
    while let Some(ch) = chars.next() {
        match (ch, is_inside) {
            ('\'', true) if chars.peek() == Some(&'\'') => {
                chars.next();
                value.push('\'');
            }
            ('\'', _) => is_inside = !is_inside,
            (ch, true) => value.push(ch),
            (ch, false) if ch.is_whitespace() => {}
            (_, false) => return None,
        }
    }
    (!is_inside).then_some(value)
}

fn dollar_quoted(written: &str) -> Option<String> {
    let tag_end = written.get(1..)?.find('$')? + 2;
    let tag = written.get(..tag_end)?;
    Some(written.get(tag_end..)?.strip_suffix(tag)?.to_owned())
}

/// The inside of E'..'. Bytes given as `\x` or octal must together be UTF-8.
fn escaped(inside: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(inside.len());
    let mut chars = inside.chars().peekable();
    while let Some(ch) = chars.next() {
        let simple = match ch {
            '\'' => {
                chars.next_if_eq(&'\'')?;
                '\''
            }
            '\\' => match chars.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'x' if chars.peek().is_some_and(char::is_ascii_hexdigit) => {
                    bytes.push(u8::try_from(digits(&mut chars, 0, 2, 16)).ok()?);
                    continue;
                }
                'u' => char::from_u32(exact(&mut chars, 4)?)?,
                'U' => char::from_u32(exact(&mut chars, 8)?)?,
                digit @ '0'..='7' => {
                    let value = digits(&mut chars, digit.to_digit(8)?, 2, 8);
                    bytes.push(u8::try_from(value & 0xff).ok()?);
                    continue;
                }
                other => other,
            },
            other => other,
        };
        bytes.extend_from_slice(simple.encode_utf8(&mut [0; 4]).as_bytes());
    }
    String::from_utf8(bytes).ok().filter(|value| !value.contains('\0'))
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Up to `most` further digits after `value`.
fn digits(chars: &mut Chars<'_>, value: u32, most: u32, radix: u32) -> u32 {
    (0..most).fold(value, |value, _| match chars.next_if(|ch| ch.is_digit(radix)) {
        Some(ch) => value * radix + ch.to_digit(radix).unwrap_or(0),
        None => value,
    })
}

/// Exactly `count` hexadecimal digits.
fn exact(chars: &mut Chars<'_>, count: u32) -> Option<u32> {
    (0..count).try_fold(0_u32, |value, _| value.checked_mul(16)?.checked_add(chars.next()?.to_digit(16)?))
}

/// The inside of U&'..' with the backslash as its escape.
fn unicode(inside: &str) -> Option<String> {
    let mut value = String::with_capacity(inside.len());
    let mut chars = inside.chars().peekable();
    while let Some(ch) = chars.next() {
        match ch {
            '\'' => value.push(chars.next_if_eq(&'\'')?),
            '\\' if chars.next_if_eq(&'\\').is_some() => value.push('\\'),
            '\\' if chars.next_if_eq(&'+').is_some() => value.push(char::from_u32(exact(&mut chars, 6)?)?),
            '\\' => value.push(char::from_u32(exact(&mut chars, 4)?)?),
            other => value.push(other),
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::decode_string;

    #[test]
    fn strings_mean_what_postgresql_says() {
        for (written, meant) in [
            ("'it''s'", Some("it's")),
            (r"'a\b'", Some(r"a\b")),
            (r"E'a\tb\\c\'d'''", Some("a\tb\\c'd'")),
            (r"e'\x41\102\u00e9\U0001F600'", Some("ABé😀")),
            (r"E'\xc3\xa9'", Some("é")),
            (r"E'\xff'", None),
            ("$$a'b$$", Some("a'b")),
            ("$q$a$$b$q$", Some("a$$b")),
            ("N'x'", Some("x")),
            (r"U&'d\0061t\+000061'", Some("data")),
            ("'a'\n  'b'", Some("ab")),
            ("B'01'", None),
            ("X'1F'", None),
        ] {
            assert_eq!(decode_string(written).as_deref(), meant, "{written}");
        }
    }
}
