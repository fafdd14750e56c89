//! Parameter values as PostgreSQL logs them: `$1 = 'it''s', $2 = NULL`.

/// The values in order, `None` for NULL; `None` in all when the text is not such a list (it was cut, say).
///
/// PostgreSQL doubles single quotes inside a value and escapes nothing else (`appendStringInfoStringQuoted`).
pub fn parse(text: &str) -> Option<Vec<Option<String>>> {
    let mut values = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let number = format!("${} = ", values.len() + 1);
        rest = rest.strip_prefix(number.as_str())?;
        if let Some(after) = rest.strip_prefix("NULL") {
            values.push(None);
            rest = after;
        } else {
            let (value, after) = quoted(rest.strip_prefix('\'')?)?;
            values.push(Some(value));
            rest = after;
        }
        rest = match rest.strip_prefix(", ") {
            Some(after) => after,
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(values)
}

/// The value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('\'')?;
        value.push_str(before);
        match after.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_whatever_is_in_them() {
        let some = |text: &str| Some(text.to_owned());
        let cases: [(&str, Vec<Option<String>>); 7] = [
            ("$1 = '42'", vec![some("42")]),
            ("$1 = NULL, $2 = 'NULL'", vec![None, some("NULL")]),
            ("$1 = 'it''s', $2 = '''', $3 = ''", vec![some("it's"), some("'"), some("")]),
            ("$1 = 'a, $2 = ''b''', $2 = 'c'", vec![some("a, $2 = 'b'"), some("c")]),
            ("$1 = '{1,2,\"x y\"}'", vec![some("{1,2,\"x y\"}")]),
            ("$1 = 'zwölf \\ 日本'", vec![some("zwölf \\ 日本")]),
            ("", vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_cut_or_something_else() {
        for text in ["$1 = 'a", "$1 = ", "$2 = 'a'", "$1 = 'a' $2 = 'b'", "$1 = 42", "hello", "$1 = 'a'', $2 = 'b'"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
