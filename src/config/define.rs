//! How a setting is defined: once, with its type, default and documentation.
//!
//! [`settings!`] turns a group of settings into a struct, its reader and its documentation;
//! [`choices!`] does the same for a setting that takes one of a few words. Everything that reads a value
//! implements [`FromNode`], reports what is wrong to the [`Reader`], and goes on, so that one run
//! names every mistake in the file.

use super::problem::{Problem, did_you_mean, one_of};
use super::tree::{At, Node, Value};

/// Collects problems and knows which setting is being read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What was found wrong so far.
    pub problems: Vec<Problem>,
    path: Vec<String>,
}

impl Reader {
    /// Reports a problem at a place; `None` for the value that could not be read.
    pub fn problem<T>(&mut self, at: At, what: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.problems.push(Problem::new(at, what).hint(hint));
        None
    }

    /// The setting being read, for messages: `databases.shop.pool`.
    pub fn path(&self) -> String {
        self.path.join(".")
    }

    /// Reads within a setting or an entry of that name.
    pub fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(name.to_owned());
        let value = read(self);
        self.path.pop();
        value
    }
}

/// A type that a setting may have.
pub(super) trait FromNode: Sized + std::fmt::Debug {
    /// What may be written, for messages and documentation.
    fn what() -> String;

    /// Reads a node; `None` after having reported what is wrong with it.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;

    /// The value of a setting that is not there and has no default.
    fn absent() -> Option<Self> {
        None
    }

    /// Adds what is set: the setting's path and its value, secrets redacted.
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        out.push((path.to_owned(), format!("{self:?}")));
    }

    /// Adds the documentation of the settings inside, if it is a group.
    fn document(_path: &str, _out: &mut Vec<Group>) {}
}

/// The documentation of one group of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Where it stands: empty for the top, `databases.<name>.pool`.
    pub path: String,
    /// What the group is for.
    pub doc: String,
    /// Its settings.
    pub settings: Vec<Setting>,
}

/// The documentation of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What may be written.
    pub what: String,
    /// Its default; `None` when it may be left out and then means nothing is set.
    pub default: SettingDefault,
    /// What it does.
    pub doc: String,
}

/// What holds when a setting is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingDefault {
    /// It must be there.
    Required,
    /// It is simply not set.
    Absent,
    /// This is as if it were written.
    Text(&'static str),
}

/// A setting that a later version will take, and what to do meanwhile.
pub(super) type Planned = (&'static str, &'static str);

/// Reads one setting of a group.
pub(super) fn read_setting<T: FromNode>(
    group: &Node,
    name: &str,
    default: SettingDefault,
    reader: &mut Reader,
) -> Option<T> {
    reader.within(name, |reader| match (group.get(name), default) {
        (Some(node), _) => T::read(node, reader),
        (None, SettingDefault::Absent) => T::absent(),
        (None, SettingDefault::Text("{}")) => T::read(&Node::empty(group.at), reader),
        (None, SettingDefault::Text(text)) => {
            T::read(&Node { at: group.at, value: Value::Scalar(text.to_owned()) }, reader)
        }
        (None, SettingDefault::Required) => {
            let hint = format!("add `{name}`: {}", T::what());
            reader.problem(group.at, format!("the setting `{}` is missing", reader.path()), hint)
        }
    })
}

/// Reports a group that is no mapping, and the settings in it that do not exist.
pub(super) fn check_group(node: &Node, names: &[&'static str], planned: &[Planned], reader: &mut Reader) -> bool {
    let entries = match &node.value {
        Value::Map(entries) => entries,
        Value::Null if reader.path().is_empty() => {
            reader.problem::<()>(node.at, "the file is empty", "write at least `users` and `databases`");
            return false;
        }
        _ => {
            let what = if reader.path().is_empty() { "the file".to_owned() } else { format!("`{}`", reader.path()) };
            reader.problem::<()>(
                node.at,
                format!("{what} is {}, where a mapping belongs", node.kind()),
                format!("write its settings below it; there are {}", one_of(names.iter().copied())),
            );
            return false;
        }
    };
    for (key, _) in entries.iter().filter(|(key, _)| !names.contains(&key.text.as_str())) {
        let place = if reader.path().is_empty() { String::new() } else { format!(" in `{}`", reader.path()) };
        if let Some((_, instead)) = planned.iter().find(|(name, _)| *name == key.text) {
            reader.problem::<()>(
                key.at,
                format!("`{}`{place} is not available yet in this version", key.text),
                *instead,
            );
            continue;
        }
        let hint = match did_you_mean(&key.text, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("there are {}", one_of(names.iter().copied())),
        };
        reader.problem::<()>(key.at, format!("there is no setting `{}`{place}", key.text), hint);
    }
    true
}

/// Defines a group of settings: a struct, its reader, its documentation.
///
/// A default is `required`, `absent`, or text as it would stand in the file. `planned` lists settings
/// that are refused because this version does not execute them; `check` adds rules over several settings.
macro_rules! settings {
    (
        $(#[doc = $group_doc:literal])+
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:tt, )+
        }
        $(planned { $($later:literal: $instead:literal,)+ })?
        $(check $check:path;)?
    ) => {
        $(#[doc = $group_doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl $crate::config::define::FromNode for $name {
            fn what() -> String {
                "settings".to_owned()
            }

            fn read(node: &$crate::config::tree::Node, reader: &mut $crate::config::define::Reader) -> Option<Self> {
                use $crate::config::define::{check_group, read_setting};
                const PLANNED: &[$crate::config::define::Planned] = &[$($(($later, $instead),)+)?];
                if !check_group(node, &[$($crate::config::define::name(stringify!($field))),+], PLANNED, reader) {
                    return None;
                }
                // All are read before the first `?`, so that each one's mistake is reported.
                $( let $field = read_setting::<$type>(node, $crate::config::define::name(stringify!($field)), $crate::config::define::default!($default), reader); )+
                let group = Self { $( $field: $field?, )+ };
                $( if !$check(&group, node, reader) { return None; } )?
                Some(group)
            }

            fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
                $( $crate::config::define::FromNode::list(
                    &self.$field, &$crate::config::define::below(path, $crate::config::define::name(stringify!($field))), out); )+
            }

            fn document(path: &str, out: &mut Vec<$crate::config::define::Group>) {
                use $crate::config::define::{Group, Setting, join_doc};
                out.push(Group {
                    path: path.to_owned(),
                    doc: join_doc(&[$($group_doc),+]),
                    settings: vec![$( Setting {
                        name: $crate::config::define::name(stringify!($field)),
                        what: <$type as $crate::config::define::FromNode>::what(),
                        default: $crate::config::define::default!($default),
                        doc: join_doc(&[$($doc),+]),
                    } ),+],
                });
                $( <$type as $crate::config::define::FromNode>::document(
                    &$crate::config::define::below(path, $crate::config::define::name(stringify!($field))), out); )+
            }
        }
    };
}

/// Defines a setting's words.
macro_rules! choices {
    (
        $(#[doc = $enum_doc:literal])+
        pub enum $name:ident {
            $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal, )+
        }
        $(planned { $($later:literal: $instead:literal,)+ })?
    ) => {
        $(#[doc = $enum_doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $name {
            /// The word as it stands in the file.
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }

            /// The choice of a word.
            pub fn of_word(word: &str) -> Option<Self> {
                match word { $( $word => Some(Self::$variant), )+ _ => None }
            }

            /// All words.
            pub const WORDS: &[&str] = &[$($word),+];
        }

        impl $crate::config::define::FromNode for $name {
            fn what() -> String {
                $crate::config::problem::one_of(Self::WORDS.iter().copied())
            }

            fn read(node: &$crate::config::tree::Node, reader: &mut $crate::config::define::Reader) -> Option<Self> {
                const PLANNED: &[$crate::config::define::Planned] = &[$($(($later, $instead),)+)?];
                $crate::config::define::read_choice(node, Self::WORDS, PLANNED, Self::of_word, reader)
            }

            fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
                out.push((path.to_owned(), self.word().to_owned()));
            }
        }
    };
}

/// A field's name as it stands in the file.
pub(super) fn name(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// A default as the macro is given it.
macro_rules! default {
    (required) => {
        $crate::config::define::SettingDefault::Required
    };
    (absent) => {
        $crate::config::define::SettingDefault::Absent
    };
    ($text:literal) => {
        $crate::config::define::SettingDefault::Text($text)
    };
}

pub(super) use {choices, default, settings};

/// A doc comment's lines as one paragraph; an empty line keeps paragraphs apart.
pub(super) fn join_doc(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let line = line.trim();
        if line.is_empty() {
            text.push_str("\n\n");
        } else {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push(' ');
            }
            text.push_str(line);
        }
    }
    text
}

/// The path of a setting below a group.
pub(super) fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The n-th item of a list, or the node itself when it stands for a list of one.
pub(super) fn item(node: &Node, index: usize) -> &Node {
    match &node.value {
        Value::List(items) => items.get(index).unwrap_or(node),
        _ => node,
    }
}

/// The text of a single value.
pub(super) fn scalar<'a>(node: &'a Node, what: &str, reader: &mut Reader) -> Option<&'a str> {
    match &node.value {
        Value::Scalar(text) => Some(text),
        _ => {
            let said = format!("`{}` is {}", reader.path(), node.kind());
            reader.problem(node.at, said, format!("write {what}"))
        }
    }
}

/// Reports a value that cannot be what the setting takes.
pub(super) fn bad_value<T>(node: &Node, text: &str, what: &str, reader: &mut Reader) -> Option<T> {
    let said = format!("`{text}` is no value for `{}`", reader.path());
    reader.problem(node.at, said, format!("write {what}"))
}

/// Reads one of a few words.
pub(super) fn read_choice<T>(
    node: &Node,
    words: &'static [&'static str],
    planned: &[Planned],
    of_word: impl Fn(&str) -> Option<T>,
    reader: &mut Reader,
) -> Option<T> {
    let what = one_of(words.iter().copied());
    let text = scalar(node, &what, reader)?;
    if let Some(choice) = of_word(text) {
        return Some(choice);
    }
    if let Some((_, instead)) = planned.iter().find(|(word, _)| *word == text) {
        let said = format!("`{}: {text}` is not available yet in this version", reader.path());
        return reader.problem(node.at, said, *instead);
    }
    match did_you_mean(text, words.iter().copied()) {
        Some(word) => {
            let said = format!("`{text}` is no value for `{}`", reader.path());
            reader.problem(node.at, said, format!("did you mean `{word}`? There are {what}"))
        }
        None => bad_value(node, text, &what, reader),
    }
}
