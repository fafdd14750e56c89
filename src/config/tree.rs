//! YAML text -> a tree of nodes that know where they stand.
//!
//! Scalars keep their text as written (`0123`, `yes` and `1e5` are no numbers until a setting asks for
//! one), so a password or a shard's name never changes on its way in.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;

use super::problem::Problem;

/// Longest configuration file that is read, in bytes.
const MAX_FILE_BYTES: usize = 4 << 20;

/// Where a node stands: line and column from 1, length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct At {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Length in characters.
    pub length: u32,
}

/// One node of the file.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it stands.
    pub at: At,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text as written.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the file's order. Keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Where it stands.
    pub at: At,
    /// Its text.
    pub text: String,
}

impl Node {
    /// An empty mapping, from which a group of settings takes its defaults.
    pub fn empty(at: At) -> Self {
        Self { at, value: Value::Map(Vec::new()) }
    }

    /// The entry of that key, when this is a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// The entry of that key with the key itself.
    pub fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name.text == key),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Reads a whole file's text.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Problem::new(At::default(), format!("the file is longer than {MAX_FILE_BYTES} bytes")));
    }
    let options = serde_yaml::options! { with_snippet: false };
    match serde_yaml::from_str_with_options::<Option<Spanned<Raw>>>(text, options) {
        Ok(Some(raw)) => Ok(node(raw, text)),
        Ok(None) => Ok(Node { at: At { line: 1, column: 1, length: 1 }, value: Value::Null }),
        Err(error) => Err(syntax_problem(&error)),
    }
}

fn syntax_problem(error: &serde_yaml::Error) -> Problem {
    let at = error.location().map(at).unwrap_or_default();
    // The parser's own message ends with the place, which ours says already.
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.rfind(" at line ").map_or(text, |end| &text[..end]);
    let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or(text);
    Problem::new(at, format!("this is not valid YAML: {text}"))
}

/// The deserializer's view of a node, before its place is turned into ours.
enum Raw {
    Null,
    Text(String),
    /// A scalar that YAML takes for a number or a boolean: its text is cut out of the source.
    Inferred(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn at(location: serde_yaml::Location) -> At {
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    At { line: narrow(location.line()), column: narrow(location.column()), length: narrow(location.span().len()) }
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let place = at(raw.referenced);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Scalar(text),
        Raw::Inferred(inferred) => {
            let span = raw.defined.span();
            let range = span.byte_offset().zip(span.byte_len()).map(|(from, len)| from as usize..(from + len) as usize);
            let written = range.and_then(|range| text.get(range)).map(str::trim).filter(|written| !written.is_empty());
            Value::Scalar(written.map_or(inferred, str::to_owned))
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (Key { at: at(key.referenced), text: key.value }, node(value, text)))
                .collect(),
        ),
    };
    Node { at: place, value }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value, a list or a mapping")
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Inferred(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Inferred(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Inferred(value.to_string()))
            }
            fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Inferred(value.to_string()))
            }
            fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Inferred(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Inferred(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }
        }
        deserializer.deserialize_any(RawVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_keep_their_text_and_everything_its_place() {
        let root = read("a: 0123\nb:\n  - yes\n  - 1e3\n  - 'x y'\nc: ~\nd: 2026-01-01\n").unwrap();
        let text = |node: &Node| match &node.value {
            Value::Scalar(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let a = root.get("a").unwrap();
        assert_eq!((text(a), a.at), ("0123".to_owned(), At { line: 1, column: 4, length: 4 }));
        let Value::List(items) = &root.get("b").unwrap().value else { panic!() };
        assert_eq!(items.iter().map(text).collect::<Vec<_>>(), ["yes", "1e3", "x y"]);
        assert_eq!((items[1].at.line, items[1].at.column), (4, 5));
        assert!(matches!(root.get("c").unwrap().value, Value::Null));
        assert_eq!(text(root.get("d").unwrap()), "2026-01-01");
        assert_eq!(root.entry("d").unwrap().0.at, At { line: 7, column: 1, length: 1 });
    }

    #[test]
    fn bad_yaml_has_a_place() {
        for bad in ["a: [1, 2\nb: 3\n", "a: 1\na: 2\n", "a: 'x\n", "a: *nope\n"] {
            let problem = read(bad).unwrap_err();
            assert!(problem.at.line > 0, "{bad:?}: {problem:?}");
        }
        let deep = "[".repeat(5000);
        read(&deep).unwrap_err();
    }
}
