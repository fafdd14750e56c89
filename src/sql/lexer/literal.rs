//! What a constant or a quoted identifier says, once its quoting is undone.

use super::{LexOptions, Lexer, NumberKind, StringKind, TokenKind};

/// Why the value of a constant is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralError {
    /// The text is not one constant (or identifier) of the kind asked for.
    NotOneLiteral,
    /// An escape that PostgreSQL rejects: not enough hexadecimal digits, half of a surrogate pair, the character zero.
    InvalidEscape,
    /// An escape that PostgreSQL versions read in different ways (`\v`), or whose bytes depend on the server's encoding.
    Ambiguous,
    /// The value is not UTF-8.
    NotText,
}

/// The value of a string constant as written in `literal` (any form but bit strings, with its continuations and UESCAPE clause).
///
/// # Errors
/// When `literal` is something else, or PostgreSQL would reject it, or its value is not certain.
pub fn decode_string(literal: &[u8], options: LexOptions) -> Result<String, LiteralError> {
    let kind = match only_token(literal, options)? {
        TokenKind::String(kind) => kind,
        _ => return Err(LiteralError::NotOneLiteral),
    };
    let value = match kind {
        StringKind::Plain if options.standard_conforming_strings => segments(literal, 0, b'\'', false).0,
        StringKind::Plain => unescape(&segments(literal, 0, b'\'', true).0)?,
        StringKind::National if options.standard_conforming_strings => segments(literal, 1, b'\'', false).0,
        StringKind::National => unescape(&segments(literal, 1, b'\'', true).0)?,
        StringKind::Escape => unescape(&segments(literal, 1, b'\'', true).0)?,
        StringKind::Unicode => {
            let (body, end) = segments(literal, 2, b'\'', false);
            unescape_unicode(&body, escape_character(literal, end, options)?)?
        }
        StringKind::Dollar => dollar_body(literal).to_vec(),
        StringKind::Bit | StringKind::Hex => return Err(LiteralError::NotOneLiteral),
    };
    if value.contains(&0) {
        return Err(LiteralError::InvalidEscape);
    }
    String::from_utf8(value).map_err(|_| LiteralError::NotText)
}

/// The name an identifier stands for: folded to lower case when unquoted (ASCII letters only, as PostgreSQL does in a UTF-8
/// database), unquoted otherwise. Not cut to 63 bytes.
///
/// # Errors
/// When `identifier` is not one identifier, or its escapes are wrong.
pub fn decode_identifier(identifier: &[u8]) -> Result<String, LiteralError> {
    let options = LexOptions::default();
    let name = match only_token(identifier, options)? {
        TokenKind::Ident => identifier.to_ascii_lowercase(),
        TokenKind::QuotedIdent => segments(identifier, 0, b'"', false).0,
        TokenKind::UnicodeIdent => {
            let (body, end) = segments(identifier, 2, b'"', false);
            unescape_unicode(&body, escape_character(identifier, end, options)?)?
        }
        _ => return Err(LiteralError::NotOneLiteral),
    };
    if name.is_empty() || name.contains(&0) {
        return Err(LiteralError::InvalidEscape);
    }
    String::from_utf8(name).map_err(|_| LiteralError::NotText)
}

/// The value of an integer constant without sign, in any base and with `_`; `None` for other tokens and beyond 128 bits.
pub fn decode_integer(number: &[u8]) -> Option<u128> {
    if only_token(number, LexOptions::default()) != Ok(TokenKind::Number(NumberKind::Integer)) {
        return None;
    }
    let (digits, base) = match number {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', b'o' | b'O', digits @ ..] => (digits, 8),
        [b'0', b'b' | b'B', digits @ ..] => (digits, 2),
        digits => (digits, 10),
    };
    digits.iter().filter(|byte| **byte != b'_').try_fold(0u128, |value, byte| {
        let digit = char::from(*byte).to_digit(base)?;
        value.checked_mul(u128::from(base))?.checked_add(u128::from(digit))
    })
}

/// The kind of the one token that `text` is, from its first to its last byte.
fn only_token(text: &[u8], options: LexOptions) -> Result<TokenKind, LiteralError> {
    let mut lexer = Lexer::new(text, options);
    match lexer.next() {
        Some(token) if token.start == 0 && token.end as usize == text.len() && lexer.is_complete() => Ok(token.kind),
        _ => Err(LiteralError::NotOneLiteral),
    }
}

/// The text between the quotes of all segments of a constant whose prefix has `prefix` bytes, with doubled quotes made
/// single, and where the last segment ends. With `backslash` escapes are kept, `\` with the byte after it.
fn segments(literal: &[u8], prefix: usize, quote: u8, backslash: bool) -> (Vec<u8>, usize) {
    let mut value = Vec::with_capacity(literal.len());
    let mut at = prefix + 1;
    loop {
        match (literal.get(at), literal.get(at + 1)) {
            (Some(b'\\'), Some(next)) if backslash => {
                value.extend([b'\\', *next]);
                at += 2;
            }
            (Some(byte), Some(next)) if *byte == quote && *next == quote => {
                // Under `backslash` this quote must not be taken for an escape's, so it is put as itself.
                value.push(quote);
                at += 2;
            }
            (Some(byte), _) if *byte == quote => {
                let next = if quote == b'\'' { next_segment(literal, at + 1) } else { None };
                match next {
                    Some(next) => at = next,
                    None => return (value, at + 1),
                }
            }
            (Some(byte), _) => {
                value.push(*byte);
                at += 1;
            }
            (None, _) => return (value, at),
        }
    }
}

fn next_segment(literal: &[u8], at: usize) -> Option<usize> {
    Lexer { bytes: literal, at, options: LexOptions::default(), complete: true, hint: None }.continuation()
}

fn dollar_body(literal: &[u8]) -> &[u8] {
    let tag = literal.iter().skip(1).take_while(|byte| **byte != b'$').count() + 2;
    literal.get(tag..literal.len().saturating_sub(tag)).unwrap_or_default()
}

/// Undoes the escapes of `E'..'`.
fn unescape(body: &[u8]) -> Result<Vec<u8>, LiteralError> {
    let mut value = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        let Some((&escaped, after)) = rest.split_first() else { return Err(LiteralError::InvalidEscape) };
        rest = after;
        match escaped {
            b'b' => value.push(8),
            b'f' => value.push(12),
            b'n' => value.push(b'\n'),
            b'r' => value.push(b'\r'),
            b't' => value.push(b'\t'),
            b'v' => return Err(LiteralError::Ambiguous),
            b'0'..=b'7' => {
                let more = digits(rest, 8, 2);
                let code = more.1 + (u32::from(escaped - b'0') << (3 * more.0));
                rest = rest.get(more.0..).unwrap_or_default();
                // Above 377 the C code keeps the low eight bits.
                value.push(code as u8);
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let (length, code) = digits(rest, 16, 2);
                rest = rest.get(length..).unwrap_or_default();
                value.push(code as u8);
            }
            b'u' | b'U' => {
                let length = if escaped == b'u' { 4 } else { 8 };
                let first = code_unit(&mut rest, length)?;
                let character = match first {
                    0xD800..=0xDBFF => {
                        let length = match rest {
                            [b'\\', b'u', ..] => 4,
                            [b'\\', b'U', ..] => 8,
                            _ => return Err(LiteralError::InvalidEscape),
                        };
                        rest = rest.get(2..).unwrap_or_default();
                        pair(first, code_unit(&mut rest, length)?)?
                    }
                    code => char::from_u32(code).ok_or(LiteralError::InvalidEscape)?,
                };
                push(&mut value, character)?;
            }
            other => value.push(other),
        }
    }
    Ok(value)
}

/// How many of the first `limit` bytes are digits, and their value.
fn digits(text: &[u8], base: u32, limit: usize) -> (usize, u32) {
    let mut value = 0;
    for (length, byte) in text.iter().take(limit).enumerate() {
        let Some(digit) = char::from(*byte).to_digit(base) else { return (length, value) };
        value = value * base + digit;
    }
    (limit.min(text.len()), value)
}

/// Exactly `length` hexadecimal digits.
fn code_unit(rest: &mut &[u8], length: usize) -> Result<u32, LiteralError> {
    let text =
        rest.get(..length).filter(|text| text.iter().all(u8::is_ascii_hexdigit)).ok_or(LiteralError::InvalidEscape)?;
    *rest = rest.get(length..).unwrap_or_default();
    Ok(text.iter().fold(0, |value, byte| (value << 4) | char::from(*byte).to_digit(16).unwrap_or(0)))
}

fn pair(first: u32, second: u32) -> Result<char, LiteralError> {
    if !(0xDC00..=0xDFFF).contains(&second) {
        return Err(LiteralError::InvalidEscape);
    }
    char::from_u32(0x1_0000 + ((first & 0x3FF) << 10) + (second & 0x3FF)).ok_or(LiteralError::InvalidEscape)
}

fn push(value: &mut Vec<u8>, character: char) -> Result<(), LiteralError> {
    if character == '\0' {
        return Err(LiteralError::InvalidEscape);
    }
    value.extend(character.encode_utf8(&mut [0; 4]).bytes());
    Ok(())
}

/// The character that the UESCAPE clause from `at` on names, `\` without one.
fn escape_character(literal: &[u8], at: usize, options: LexOptions) -> Result<u8, LiteralError> {
    let mut lexer = Lexer::new(literal.get(at..).unwrap_or_default(), options);
    let Some(word) = lexer.next() else { return Ok(b'\\') };
    let text = lexer.next();
    match (word.kind, text.map(|token| token.kind)) {
        (TokenKind::Ident, Some(TokenKind::String(StringKind::Plain | StringKind::Escape | StringKind::Dollar))) => {}
        _ => return Err(LiteralError::NotOneLiteral),
    }
    let quoted = text.and_then(|token| literal.get(at..)?.get(token.start as usize..)).unwrap_or_default();
    match *decode_string(quoted, options)?.as_bytes() {
        [byte] if byte.is_ascii_hexdigit() || matches!(byte, b'+' | b'\'' | b'"') || super::is_space(byte) => {
            Err(LiteralError::InvalidEscape)
        }
        [byte] => Ok(byte),
        _ => Err(LiteralError::InvalidEscape),
    }
}

/// Undoes the escapes of `U&'..'` and `U&".."`.
fn unescape_unicode(body: &[u8], escape: u8) -> Result<Vec<u8>, LiteralError> {
    let mut value = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != escape {
            value.push(byte);
            continue;
        }
        if rest.first() == Some(&escape) {
            value.push(escape);
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let first = unicode_unit(&mut rest)?;
        let character = match first {
            0xD800..=0xDBFF => {
                if rest.first() != Some(&escape) {
                    return Err(LiteralError::InvalidEscape);
                }
                rest = rest.get(1..).unwrap_or_default();
                pair(first, unicode_unit(&mut rest)?)?
            }
            code => char::from_u32(code).ok_or(LiteralError::InvalidEscape)?,
        };
        push(&mut value, character)?;
    }
    Ok(value)
}

/// `XXXX` or `+XXXXXX`.
fn unicode_unit(rest: &mut &[u8]) -> Result<u32, LiteralError> {
    if rest.first() == Some(&b'+') {
        *rest = rest.get(1..).unwrap_or_default();
        code_unit(rest, 6)
    } else {
        code_unit(rest, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(literal: &str) -> Result<String, LiteralError> {
        decode_string(literal.as_bytes(), LexOptions::default())
    }

    #[test]
    fn undoes_every_form_of_quoting() {
        for (literal, value) in [
            ("'it''s'", "it's"),
            (r"'a\'", r"a\"),
            ("'a' -- more\n  'b'", "ab"),
            (r"E'a\'b''c\n\x41\101\u00e9\U0001F600\q'", "a'b'c\nAA\u{e9}\u{1F600}q"),
            (r"e'\uD83D\uDE00'", "\u{1F600}"),
            ("E'\\\\' \n 'x'", "\\x"),
            (r"U&'d\0061t\+000061\\'", r"data\"),
            (r"U&'\D83D\DE00'", "\u{1F600}"),
            ("u&'d!0061t!!' UESCAPE '!'", "dat!"),
            ("u&'d!0061' /* c */ uescape E'\\x21'", "da"),
            ("N'x'", "x"),
            ("$$a'b$$", "a'b"),
            ("$t$a$$b$t$", "a$$b"),
            ("''", ""),
        ] {
            assert_eq!(text(literal).as_deref(), Ok(value), "{literal}");
        }
    }

    #[test]
    fn says_why_a_value_is_not_known() {
        for (literal, error) in [
            (r"E'\v'", LiteralError::Ambiguous),
            (r"E'\u12'", LiteralError::InvalidEscape),
            (r"E'\uD83D'", LiteralError::InvalidEscape),
            (r"E'\000'", LiteralError::InvalidEscape),
            (r"E'\xff'", LiteralError::NotText),
            (r"U&'\00zz'", LiteralError::InvalidEscape),
            (r"U&'\0061' UESCAPE 'a'", LiteralError::InvalidEscape),
            ("'a", LiteralError::NotOneLiteral),
            ("'a' 'b'", LiteralError::NotOneLiteral),
            (" 'a'", LiteralError::NotOneLiteral),
            ("B'1'", LiteralError::NotOneLiteral),
            ("1", LiteralError::NotOneLiteral),
        ] {
            assert_eq!(text(literal), Err(error), "{literal}");
        }
    }

    #[test]
    fn plain_strings_escape_when_not_standard_conforming() {
        let options = LexOptions { standard_conforming_strings: false };
        assert_eq!(decode_string(br"'a\'b\n'", options).as_deref(), Ok("a'b\n"));
        assert_eq!(decode_string(br"$$a\n$$", options).as_deref(), Ok(r"a\n"));
    }

    #[test]
    fn identifiers_and_integers() {
        assert_eq!(decode_identifier(b"Orders").as_deref(), Ok("orders"));
        assert_eq!(decode_identifier(br#""Or""ders""#).as_deref(), Ok("Or\"ders"));
        assert_eq!(decode_identifier(br#"U&"d\0061t""#).as_deref(), Ok("dat"));
        assert_eq!(decode_identifier(br#""""#), Err(LiteralError::InvalidEscape));
        assert_eq!(decode_integer(b"1_000"), Some(1000));
        assert_eq!(decode_integer(b"0xFf"), Some(255));
        assert_eq!(decode_integer(b"0o17"), Some(15));
        assert_eq!(decode_integer(b"0b101"), Some(5));
        assert_eq!(decode_integer(b"1.0"), None);
        assert_eq!(decode_integer(b"999999999999999999999999999999999999999999"), None);
    }
}
