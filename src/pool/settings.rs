//! What a session has set, as values that are equal exactly when they are the same allocation.
//!
//! A client's settings and those a server connection has are compared at every checkout. Both are
//! interned, so the comparison is one of pointers, and thousands of clients with the same settings
//! share one copy.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::pool::date_style::{self, DATE_STYLE};

/// A setting's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// As a startup packet gives it: one string, read as the setting's own syntax says.
    Text(String),
    /// As `SET name TO ...` gives it: SQL.
    Sql(String),
}

impl Value {
    /// It as it was given.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Sql(text) => text,
        }
    }
}

/// Settings by lower-case name, sorted.
pub type Settings = Vec<(String, Value)>;

/// Values a server reported (ParameterStatus), sorted by name.
pub type Reported = Vec<(String, String)>;

/// Keeps one copy of equal values while somebody holds it.
#[derive(Debug)]
pub struct Interner<T>(Mutex<HashMap<Arc<T>, ()>>);

impl<T: std::hash::Hash + Eq> Default for Interner<T> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<T: std::hash::Hash + Eq> Interner<T> {
    /// The one copy of `value`.
    pub fn intern(&self, value: T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((found, ())) = known.get_key_value(&value) {
            return found.clone();
        }
        // Forget what nobody holds any more, whenever the table would have to grow.
        if known.len() == known.capacity() {
            known.retain(|value, ()| Arc::strong_count(value) > 1);
        }
        let value = Arc::new(value);
        known.insert(value.clone(), ());
        value
    }
}

/// Sorts settings by name, the last of a name winning.
pub fn normalize(given: impl IntoIterator<Item = (String, Value)>) -> Settings {
    let mut settings: Settings = Vec::new();
    for (name, value) in given {
        set(&mut settings, &name, Some(value));
    }
    settings
}

/// Sets one setting, or takes it away.
pub fn set(settings: &mut Settings, name: &str, value: Option<Value>) {
    let name = name.to_ascii_lowercase();
    match (settings.binary_search_by(|(other, _)| other.cmp(&name)), value) {
        (Ok(at), Some(value)) => {
            if let Some(slot) = settings.get_mut(at) {
                slot.1 = value;
            }
        }
        (Ok(at), None) => drop(settings.remove(at)),
        (Err(at), Some(value)) => settings.insert(at, (name, value)),
        (Err(_), None) => {}
    }
}

/// The setting that SET ROLE changes.
pub const ROLE: &str = "role";
/// The setting that SET SESSION AUTHORIZATION changes.
pub const SESSION_AUTHORIZATION: &str = "session_authorization";
/// Stands among a connection's settings where others, that nobody knows the names of, may have been changed.
const UNSURE: &str = "?";

/// The same settings of a connection on which others may have been changed besides.
pub fn unsure(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    set(&mut settings, UNSURE, Some(Value::Text(String::new())));
    settings
}

/// Changes a setting as `SET` does it, or as `RESET` (no value), which gives it its `initial` value.
pub fn change(settings: &mut Settings, name: &str, value: Option<Value>, initial: Option<Value>) {
    let value = match value {
        Some(value) if name.eq_ignore_ascii_case(DATE_STYLE) => {
            Some(date_style::after(value_of(settings, DATE_STYLE), value))
        }
        value => value.or(initial),
    };
    set(settings, name, value);
}

/// The value of a setting.
pub fn value_of<'a>(settings: &'a Settings, name: &str) -> Option<&'a Value> {
    let at = settings.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
    settings.get(at).map(|(_, value)| value)
}

/// Whether a setting says who acts. Such settings come first when they are taken back and last when they are set, as a
/// role may not be allowed to change the others; and RESET ALL does not touch them.
pub fn is_identity(name: &str) -> bool {
    matches!(name, ROLE | SESSION_AUTHORIZATION)
}

/// The SQL that turns a connection with `have` into one with `want`; empty when there is nothing to do.
pub fn difference(have: &Settings, want: &Settings) -> String {
    let mut sql = String::new();
    if have == want {
        return sql;
    }
    let nothing = Settings::new();
    let have = if value_of(have, UNSURE).is_some() {
        sql.push_str("RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;");
        &nothing
    } else {
        if value_of(have, SESSION_AUTHORIZATION).is_some() {
            sql.push_str("RESET SESSION AUTHORIZATION;");
        }
        if value_of(have, ROLE).is_some() {
            sql.push_str("RESET ROLE;");
        }
        have
    };
    for (name, _) in have.iter().filter(|(name, _)| !is_identity(name) && value_of(want, name).is_none()) {
        let _ = write!(sql, "RESET {};", quote_name(name));
    }
    let differs = |(name, value): &&(String, Value)| !is_identity(name) && value_of(have, name) != Some(value);
    for (name, value) in want.iter().filter(differs) {
        assign(&mut sql, name, value);
    }
    for name in [SESSION_AUTHORIZATION, ROLE] {
        if let Some(value) = value_of(want, name) {
            assign(&mut sql, name, value);
        }
    }
    sql
}

/// The SQL that gives `settings` their values again; empty when there are none.
pub fn assignments<'a>(settings: impl IntoIterator<Item = &'a (String, Value)>) -> String {
    let mut sql = String::new();
    settings.into_iter().for_each(|(name, value)| assign(&mut sql, name, value));
    sql
}

fn assign(sql: &mut String, name: &str, value: &Value) {
    if name == DATE_STYLE {
        // A part of it leaves the other part, which may be another client's.
        sql.push_str("RESET datestyle;");
    }
    let _ = match value {
        // What startup packets and set_config() take is the same raw string; SET would quote a list as one element.
        Value::Text(text) => write!(sql, "SELECT pg_catalog.set_config({}, {}, false);", quote(name), quote(text)),
        Value::Sql(text) => write!(sql, "SET {} TO {text};", quote_name(name)),
    };
}

/// Tells apart sessions in which the same text may be parsed differently: a hash that is secret to this process.
pub fn context(settings: &Settings) -> usize {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // The name of the application is in nearly every session and changes no parse.
    let parsed_under = settings.iter().filter(|(name, _)| name != "application_name");
    parsed_under.fold(0usize, |hash, setting| hash.rotate_left(5) ^ KEY.hash_one(setting) as usize)
}

/// A name as an identifier, each part of it quoted.
fn quote_name(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

/// A string constant that means the same whatever `standard_conforming_strings` and `client_encoding` say.
pub fn quote(text: &str) -> String {
    if text.is_ascii() && !text.contains('\\') {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::from("E'");
    for c in text.chars() {
        let _ = match c {
            '\'' => write!(quoted, "''"),
            '\\' => write!(quoted, "\\\\"),
            c if c.is_ascii() => write!(quoted, "{c}"),
            c => write!(quoted, "\\U{:08X}", c as u32),
        };
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        normalize(pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::Text((*value).to_owned()))))
    }

    #[test]
    fn equal_settings_are_one_allocation() {
        let interner = Interner::default();
        let a = interner.intern(settings(&[("TimeZone", "UTC"), ("a", "1")]));
        let b = interner.intern(settings(&[("a", "0"), ("timezone", "UTC"), ("A", "1")]));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &interner.intern(settings(&[]))));
    }

    #[test]
    fn only_what_differs_is_said() {
        let have = settings(&[("a", "1"), ("b.c", "2"), ("same", "x")]);
        let mut want = settings(&[("a", "it's \\"), ("same", "x")]);
        set(&mut want, "search_path", Some(Value::Sql("x, \"Y\"".into())));
        assert_eq!(
            difference(&have, &want),
            "RESET \"b\".\"c\";SELECT pg_catalog.set_config('a', E'it''s \\\\', false);SET \"search_path\" TO x, \"Y\";"
        );
        assert_eq!(difference(&want, &want), "");
    }

    #[test]
    fn who_acts_is_taken_back_first_and_set_last() {
        let have = settings(&[("role", "x"), ("a", "1")]);
        let want = settings(&[("role", "y"), ("session_authorization", "z"), ("zz", "1")]);
        assert_eq!(
            difference(&have, &want),
            "RESET ROLE;RESET \"a\";SELECT pg_catalog.set_config('zz', '1', false);\
             SELECT pg_catalog.set_config('session_authorization', 'z', false);SELECT pg_catalog.set_config('role', 'y', false);"
        );
        assert_eq!(difference(&want, &want), "");
        assert!(
            difference(&unsure(&have), &have).starts_with("RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;SELECT")
        );
    }

    #[test]
    fn constants_mean_the_same_in_every_encoding() {
        assert_eq!(quote("é'\\"), "E'\\U000000E9''\\\\'");
    }
}
