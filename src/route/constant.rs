//! A constant that a key is compared with: found at planning, read at each execution.

use std::borrow::Cow;

use super::key::{KeyType, KeyValue, Written};
use super::plan::Bindings;
use crate::sql::facts::{Literal, Operand};
use crate::sql::template::{Binding, BindingKind};

/// One value that a key may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// The statement's n-th constant.
    Constant {
        index: usize,
        negative: bool,
        /// Backslashes in plain strings are escapes (`standard_conforming_strings` is off).
        backslashes: bool,
        /// All of the session's text is UTF-8.
        utf8: bool,
    },
    /// `$number`.
    Parameter {
        number: u32,
        /// It stands elsewhere too, so that its undeclared type may be another's.
        reused: bool,
        utf8: bool,
    },
    /// NULL.
    Null,
}

/// What a choice depends on besides the statement.
pub(super) struct Surroundings<'a> {
    /// The statement.
    pub sql: &'a str,
    /// Its constants and parameters, in order.
    pub constants: &'a [Binding],
    /// `standard_conforming_strings` is on.
    pub standard_strings: bool,
    /// `client_encoding` is UTF8.
    pub utf8: bool,
}

impl Choice {
    /// The choice that an operand is, for a key of this type; the error says why it proves nothing.
    pub fn of(operand: &Operand, key: KeyType, around: &Surroundings<'_>) -> Result<Self, String> {
        match operand {
            Operand::Literal { value: Literal::Null, .. } => Ok(Self::Null),
            Operand::Literal { value, negative, cast, literal, .. } => {
                match value {
                    Literal::Number(_) => {}
                    Literal::Text(_) if !*negative => {}
                    _ => return Err("it is no plain number or string".to_owned()),
                }
                check_cast(cast.as_deref(), key)?;
                let index = around
                    .constants
                    .iter()
                    .position(|constant| constant.start == literal.start)
                    .ok_or_else(|| "the constant could not be found again in the statement's text".to_owned())?;
                Ok(Self::Constant {
                    index,
                    negative: *negative,
                    backslashes: !around.standard_strings,
                    utf8: around.utf8,
                })
            }
            Operand::Parameter { number, cast, .. } => {
                check_cast(cast.as_deref(), key)?;
                let uses = around.constants.iter().filter(|one| one.kind == BindingKind::Param(*number)).count();
                Ok(Self::Parameter { number: *number, reused: uses != 1, utf8: around.utf8 })
            }
            _ => Err("it is computed".to_owned()),
        }
    }

    /// Its value in this execution.
    pub fn value<'a>(&self, key: KeyType, bindings: &'a dyn Bindings) -> Result<KeyValue<'a>, String> {
        match self {
            Self::Null => Ok(KeyValue::Null),
            Self::Constant { index, negative, backslashes, utf8 } => {
                let source = bindings.constant(*index).ok_or_else(|| "the constant is not at hand".to_owned())?;
                if source.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                    return key.read(Written::Number { text: source, negative: *negative });
                }
                match unquoted(source, *backslashes)? {
                    Cow::Borrowed(text) => key.read(Written::Text(text)).and_then(|value| checked(value, *utf8)),
                    Cow::Owned(text) => match key.read(Written::Text(&text))? {
                        KeyValue::Text(text) => checked(KeyValue::Text(text.into_owned().into()), *utf8),
                        _ => Err("it holds a quote".to_owned()),
                    },
                }
            }
            Self::Parameter { number, reused, utf8 } => {
                let parameter =
                    bindings.parameter(*number).ok_or_else(|| format!("the value of ${number} is not known"))?;
                let Some(bytes) = parameter.value else { return Ok(KeyValue::Null) };
                if !key.allows_parameter(parameter.type_oid) {
                    return Err(format!("${number} is declared with another type (OID {})", parameter.type_oid));
                }
                let is_integer = matches!(key, KeyType::Integer(_));
                if *reused && parameter.type_oid == 0 && (parameter.binary || !is_integer) {
                    return Err(format!("${number} stands at several places, and its type is not declared"));
                }
                let written = match parameter.binary {
                    true => Written::Binary(bytes),
                    false => Written::Text(
                        std::str::from_utf8(bytes).map_err(|_| format!("the value of ${number} is not UTF-8"))?,
                    ),
                };
                key.read(written).and_then(|value| checked(value, *utf8))
            }
        }
    }

    /// How it is shown to people.
    pub fn shown(&self, bindings: &dyn Bindings) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Constant { index, negative, .. } => {
                format!("{}{}", if *negative { "-" } else { "" }, bindings.constant(*index).unwrap_or("?"))
            }
            Self::Parameter { number, .. } => format!("${number}"),
        }
    }
}

fn check_cast(cast: Option<&str>, key: KeyType) -> Result<(), String> {
    match cast {
        Some(cast) if !key.allows_cast(cast) => Err(format!("it is cast to {cast}, which is not the key's type")),
        _ => Ok(()),
    }
}

/// Text that is not ASCII has other bytes on the server when the client's encoding is another.
fn checked(value: KeyValue<'_>, utf8: bool) -> Result<KeyValue<'_>, String> {
    match &value {
        KeyValue::Text(text) if !utf8 && !text.is_ascii() => {
            Err("client_encoding is not UTF8 and the text is not ASCII".to_owned())
        }
        _ => Ok(value),
    }
}

/// The text of a string constant. Escapes are not interpreted: a constant with one proves nothing.
fn unquoted(source: &str, backslashes: bool) -> Result<Cow<'_, str>, String> {
    let unplain = || "it is not a plain string: write it in single quotes without escapes".to_owned();
    if source.starts_with('$') {
        let tag = source
            .get(1..)
            .and_then(|rest| rest.find('$'))
            .and_then(|end| source.get(..end + 2))
            .ok_or_else(unplain)?;
        let inner = source.strip_prefix(tag).and_then(|rest| rest.strip_suffix(tag)).ok_or_else(unplain)?;
        return Ok(Cow::Borrowed(inner));
    }
    let escapes = source.starts_with(['e', 'E']);
    let quoted = source.strip_prefix(['e', 'E']).unwrap_or(source);
    let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).ok_or_else(unplain)?;
    if (escapes || backslashes) && inner.contains('\\') {
        return Err(unplain());
    }
    if !inner.contains('\'') {
        return Ok(Cow::Borrowed(inner));
    }
    let single = inner.replace("''", "");
    if single.contains('\'') { Err(unplain()) } else { Ok(Cow::Owned(inner.replace("''", "'"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_without_their_quotes() {
        for (source, text) in
            [("'a'", "a"), ("''", ""), ("'a''b'", "a'b"), ("E'x'", "x"), ("$$a'b$$", "a'b"), ("$t$$$t$", "$")]
        {
            assert_eq!(unquoted(source, false).as_deref(), Ok(text), "{source}");
        }
        assert_eq!(unquoted(r"'a\b'", false).as_deref(), Ok(r"a\b"));
        for bad in [r"E'a\'b'", "U&'a'", "B'1'", "X'ff'", "N'a'", "'a'\n'b'", "'", "$a", "'a", ""] {
            unquoted(bad, false).unwrap_err();
        }
        unquoted(r"'a\b'", true).unwrap_err();
    }
}
