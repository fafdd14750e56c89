//! The types that settings may have: text, numbers, times, sizes, lists and mappings of them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::define::{FromNode, Group, Reader, bad_value, scalar};
use super::tree::{Node, Value};

impl FromNode for String {
    fn what() -> String {
        "text".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        if text.is_empty() || text.contains('\0') {
            return reader.problem(node.at, format!("`{}` is empty", reader.path()), "write some text");
        }
        Some(text.to_owned())
    }
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        out.push((path.to_owned(), self.clone()));
    }
}

impl FromNode for bool {
    fn what() -> String {
        "`true` or `false`".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match scalar(node, &Self::what(), reader)? {
            "true" => Some(true),
            "false" => Some(false),
            text => bad_value(node, text, &Self::what(), reader),
        }
    }
}

impl FromNode for u32 {
    fn what() -> String {
        "a number".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        text.parse().ok().or_else(|| bad_value(node, text, "a whole number from 0 to 4294967295", reader))
    }
}

impl FromNode for Duration {
    fn what() -> String {
        "a time (`500ms`, `30s`, `5m`, `1h`, `0`)".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let millis_each = match unit.trim() {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if number == "0" => 1,
            _ => return bad_value(node, text, &Self::what(), reader),
        };
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis_each));
        // A year is longer than any timeout that is meant.
        match millis.filter(|millis| *millis <= 366 * 86_400_000) {
            Some(millis) => Some(Duration::from_millis(millis)),
            None => bad_value(node, text, &Self::what(), reader),
        }
    }
}

/// A limit as a time that can be waited for: `0` sets none, which is a time that nobody lives to see.
pub fn unlimited_if_zero(limit: Duration) -> Duration {
    // Far enough, and never too far to be added to a clock.
    const AGES: Duration = Duration::from_secs(100 * 366 * 86_400);
    if limit.is_zero() { AGES } else { limit }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(
    /// Bytes.
    pub u64,
);

impl FromNode for ByteSize {
    fn what() -> String {
        "a size (`64MB`, `512kB`, `1GB`)".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let each: u64 = match unit.trim() {
            "B" | "" => 1,
            "kB" | "KB" | "KiB" => 1 << 10,
            "MB" | "MiB" => 1 << 20,
            "GB" | "GiB" => 1 << 30,
            _ => return bad_value(node, text, &Self::what(), reader),
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(each)) {
            Some(bytes) => Some(Self(bytes)),
            None => bad_value(node, text, &Self::what(), reader),
        }
    }
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        out.push((path.to_owned(), format!("{}B", self.0)));
    }
}

impl<T: FromNode> FromNode for Option<T> {
    fn what() -> String {
        T::what()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        T::read(node, reader).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        if let Some(value) = self {
            value.list(path, out);
        }
    }
    fn document(path: &str, out: &mut Vec<Group>) {
        T::document(path, out);
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn what() -> String {
        format!("{}, or a list of such", T::what())
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.value {
            Value::List(items) => {
                let read: Vec<Option<T>> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| reader.within(&(index + 1).to_string(), |reader| T::read(item, reader)))
                    .collect();
                read.into_iter().collect()
            }
            _ => T::read(node, reader).map(|item| vec![item]),
        }
    }
    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        for (at, item) in self.iter().enumerate() {
            item.list(&format!("{path}[{at}]"), out);
        }
    }
    fn document(path: &str, out: &mut Vec<Group>) {
        T::document(&format!("{path}[]"), out);
    }
}

/// A mapping's key that is not fixed: a user's, a database's or a table's name.
pub(super) trait FromKey: Sized + Ord + std::fmt::Debug {
    /// The name as it is written.
    fn shown(&self) -> String;

    /// Reads it, or says what is wrong.
    fn from_key(text: &str) -> Result<Self, String>;
}

impl FromKey for String {
    fn shown(&self) -> String {
        self.clone()
    }
    fn from_key(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') { Err("a name is empty".to_owned()) } else { Ok(text.to_owned()) }
    }
}

impl<K: FromKey, T: FromNode> FromNode for BTreeMap<K, T> {
    fn what() -> String {
        "a mapping from names".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let said = format!("`{}` is {}, where a mapping belongs", reader.path(), node.kind());
            return reader.problem(node.at, said, "write one `name: ...` a line");
        };
        let mut map = BTreeMap::new();
        let mut complete = true;
        for (key, value) in entries {
            let name = match K::from_key(&key.text) {
                Ok(name) => Some(name),
                Err(what) => reader.problem(key.at, what, "give it a name"),
            };
            match (name, reader.within(&key.text, |reader| T::read(value, reader))) {
                (Some(name), Some(value)) => {
                    if map.insert(name, value).is_some() {
                        let said = format!("`{}` is there twice in `{}`", key.text, reader.path());
                        complete = reader.problem(key.at, said, "remove one").unwrap_or(false);
                    }
                }
                _ => complete = false,
            }
        }
        complete.then_some(map)
    }
    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        for (name, value) in self {
            value.list(&format!("{path}.{}", name.shown()), out);
        }
    }
    fn document(path: &str, out: &mut Vec<Group>) {
        T::document(&format!("{path}.<name>"), out);
    }
}
