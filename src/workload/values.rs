//! Which values a template's constants have most often, in little memory.
//!
//! Misra and Gries, "Finding repeated elements" (1982): of `n` values each that occurs more than `n / (KEPT + 1)` times is
//! kept, and its count is too low by at most that.

use serde::{Deserialize, Serialize};

use super::Observation;
use crate::sql::template::{Binding, BindingKind};

/// Values of a constant that are kept.
const KEPT: usize = 8;
/// Constants of a template that are looked at.
const MAX_CONSTANTS: usize = 8;
/// Longer values are no keys.
const MAX_VALUE: usize = 64;

/// The values of one constant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Values {
    /// Values seen.
    pub seen: u64,
    /// Frequent ones, and how often each was seen at least.
    pub top: Vec<(String, u64)>,
}

impl Values {
    /// The most frequent value, and how often it was seen at least.
    pub fn most(&self) -> Option<(&str, u64)> {
        self.top.iter().max_by_key(|(_, count)| *count).map(|(value, count)| (value.as_str(), *count))
    }

    fn add(&mut self, value: &[u8]) {
        self.seen += 1;
        if let Some((_, count)) = self.top.iter_mut().find(|(known, _)| known.as_bytes() == value) {
            *count += 1;
        } else if self.top.len() < KEPT {
            self.top.push((String::from_utf8_lossy(value).into_owned(), 1));
        } else {
            self.top.retain_mut(|(_, count)| {
                *count -= 1;
                *count > 0
            });
        }
    }

    fn merge(&mut self, other: Self) {
        self.seen += other.seen;
        for (value, count) in other.top {
            match self.top.iter_mut().find(|(known, _)| *known == value) {
                Some((_, own)) => *own += count,
                None => self.top.push((value, count)),
            }
        }
        self.top.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        self.top.truncate(KEPT);
    }
}

/// Notes the values of an execution's constants, parameters included.
pub(super) fn note(all: &mut Vec<Values>, observation: &Observation<'_>, bindings: &[Binding]) {
    for (index, binding) in bindings.iter().take(MAX_CONSTANTS).enumerate() {
        if all.len() <= index {
            all.push(Values::default());
        }
        let value = match binding.kind {
            BindingKind::Param(number) => observation.parameters.and_then(|text| parameter(text, number)),
            _ => Some(binding.bytes(observation.sql)),
        };
        if let (Some(values), Some(value)) = (all.get_mut(index), value.filter(|value| value.len() <= MAX_VALUE)) {
            values.add(value);
        }
    }
}

/// Adds what another workload knows.
pub(super) fn merge(own: &mut Vec<Values>, other: Vec<Values>) {
    for (index, values) in other.into_iter().enumerate() {
        match own.get_mut(index) {
            Some(known) => known.merge(values),
            None => own.push(values),
        }
    }
}

/// The value of `$number` in parameters as PostgreSQL logs them: `$1 = '7', $2 = NULL`, without its quotes.
fn parameter(text: &[u8], number: u32) -> Option<&[u8]> {
    let mut rest = text;
    loop {
        rest = rest.strip_prefix(b"$")?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let own: u32 = std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
        rest = rest.get(digits..)?.strip_prefix(b" = ")?;
        let (value, after) = match rest.strip_prefix(b"'") {
            None => rest.split_at(memchr::memchr(b',', rest).unwrap_or(rest.len())),
            Some(inside) => {
                let mut end = 0;
                loop {
                    end += memchr::memchr(b'\'', inside.get(end..)?)?;
                    if inside.get(end + 1) != Some(&b'\'') {
                        break;
                    }
                    end += 2;
                }
                (inside.get(..end)?, inside.get(end + 1..)?)
            }
        };
        if own == number {
            return (value != b"NULL").then_some(value);
        }
        rest = after.strip_prefix(b", ")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_parameters_as_they_are_logged() {
        let text = b"$1 = 'a''b, $2 = ''c''', $2 = NULL, $3 = '7'";
        assert_eq!(parameter(text, 1), Some(b"a''b, $2 = ''c''".as_slice()));
        assert_eq!(parameter(text, 2), None);
        assert_eq!(parameter(text, 3), Some(b"7".as_slice()));
        assert_eq!(parameter(text, 4), None);
        assert_eq!(parameter(b"nonsense", 1), None);
    }

    #[test]
    fn a_frequent_value_survives_many_rare_ones() {
        let mut values = Values::default();
        for number in 0..1000 {
            values.add(format!("{number}").as_bytes());
            values.add(b"hot");
        }
        let (value, count) = values.most().expect("one");
        assert!(value == "hot" && count > 700 && count <= 1000, "{value} {count}");
        assert!(values.top.len() <= KEPT);
    }
}
