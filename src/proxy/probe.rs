//! Asking a server what a session has become, after statements whose effects cannot be followed from outside.
//!
//! The question goes out when the transaction is over and before the connection may serve another client. It is
//! answered by rows of `kind, name, value`, which the client does not see. Everything in it is named with its schema,
//! since it runs under the client's own search path.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::pool::reset::values;
use crate::pool::settings::{ROLE, SESSION_AUTHORIZATION, Settings, Value, quote, set, value_of};
use crate::proxy::care::Care;
use crate::proxy::pins::{Pins, Reason};

/// Settings that nobody can look up by name, or that are the same for everybody.
const ALL_SETTINGS: &str = "SELECT 's', name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
     WHERE source OPERATOR(pg_catalog.=) 'session'";

/// What pins, each with the letter that [`reason`] knows.
const STATE: &str = "SELECT 'p', 'l', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
     UNION ALL SELECT 'p', 'a', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
     WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
     UNION ALL SELECT 'p', 't', NULL WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
     AND EXISTS (SELECT FROM pg_catalog.pg_depend \
     WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
     AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
     UNION ALL SELECT 'p', 'c', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors) \
     UNION ALL SELECT 'p', 'p', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements \
     WHERE from_sql AND pg_catalog.left(name, 8) <> '_pgweir_')";

fn reason(letter: &str) -> Option<Reason> {
    Some(match letter {
        "l" => Reason::Listen,
        "a" => Reason::AdvisoryLock,
        "t" => Reason::Temporary,
        "c" => Reason::Cursor,
        "p" => Reason::Prepared,
        _ => return None,
    })
}

/// One question and what was answered so far.
#[derive(Debug)]
pub struct Probe {
    /// What was to be seen to.
    pub care: Care,
    /// Settings asked for by name.
    pub names: BTreeSet<String>,
    found: Vec<(String, String)>,
    pins: Pins,
    unreadable: bool,
}

/// What a probe says of a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// What the client has set.
    pub want: Settings,
    /// What is set on the connection, as far as it is known.
    pub have: Settings,
    /// Why the client keeps the connection; `None` when it was not asked.
    pub pins: Option<Pins>,
}

impl Probe {
    /// A question that answers what `care` leaves open: `names` are settings that may have been changed, `want` what the client is
    /// known to have set.
    pub fn new(care: Care, mut names: BTreeSet<String>, want: &Settings) -> Self {
        if care.has(Care::SETTINGS) {
            names.extend(want.iter().map(|(name, _)| name).filter(|name| name.contains('.')).cloned());
            names.extend([ROLE.to_owned(), SESSION_AUTHORIZATION.to_owned()]);
        }
        Self { care, names, found: Vec::new(), pins: Pins::default(), unreadable: false }
    }

    /// The question.
    pub fn sql(&self) -> String {
        let mut parts = Vec::new();
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(|name| format!("({})", quote(name))).collect();
            let mut part = String::from("SELECT 'n'");
            let _ = write!(
                part,
                ", n, pg_catalog.current_setting(n, true) FROM (VALUES {}) AS v (n) \
                 WHERE pg_catalog.current_setting(n, true) IS NOT NULL",
                names.join(",")
            );
            parts.push(part);
        }
        if self.care.has(Care::SETTINGS) {
            parts.push(ALL_SETTINGS.to_owned());
        }
        if self.asks_for_state() {
            parts.push(STATE.to_owned());
        }
        parts.join(" UNION ALL ")
    }

    fn asks_for_state(&self) -> bool {
        self.care.has(Care::STATE)
    }

    /// Takes a DataRow.
    pub fn row(&mut self, body: &[u8]) {
        let row = values(body);
        let text = |at: usize| row.get(at).cloned().flatten();
        match (text(0).as_deref(), text(1), text(2)) {
            (Some("p"), Some(letter), _) if reason(&letter).is_some() => {
                reason(&letter).into_iter().for_each(|reason| self.pins.add(reason));
            }
            // What is not text in the proxy's own encoding could not be replayed.
            (Some("s" | "n"), Some(name), Some(value)) if !value.contains(char::REPLACEMENT_CHARACTER) => {
                self.found.push((name.to_ascii_lowercase(), value));
            }
            _ => self.unreadable = true,
        }
    }

    /// What the rows say, given what was known before. `login` is who the connection belongs to.
    pub fn finish(self, startup: &Settings, want: &Settings, have: &Settings, login: &str) -> Found {
        let mut pins = self.pins;
        if self.unreadable {
            pins.add(Reason::Unknown);
        }
        let pins = (self.asks_for_state() || self.unreadable).then_some(pins);
        let all = self.care.has(Care::SETTINGS);
        let mut settings = Settings::new();
        for (name, value) in &self.found {
            let known = value_of(want, name).is_some();
            let unchanged = match name.as_str() {
                ROLE => value == "none" && !known,
                SESSION_AUTHORIZATION => value == login && !known,
                // A custom setting that was taken back is an empty one.
                _ => value.is_empty() && name.contains('.') && !known,
            };
            if !unchanged {
                set(&mut settings, name, Some(Value::Text(value.clone())));
            }
        }
        if all {
            let mut want = settings.clone();
            for (name, value) in startup.iter().filter(|(name, _)| value_of(&settings, name).is_none()) {
                set(&mut want, name, Some(value.clone()));
            }
            return Found { want, have: settings, pins };
        }
        let (mut want, mut have) = (want.clone(), have.clone());
        for name in &self.names {
            let value = value_of(&settings, name).cloned();
            set(&mut have, name, value.clone());
            let initial = || value_of(startup, name).cloned();
            set(&mut want, name, value.or_else(initial));
        }
        Found { want, have, pins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::settings::normalize;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        normalize(pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::Text((*value).to_owned()))))
    }

    fn row(values: &[Option<&str>]) -> Vec<u8> {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            body.extend(value.map_or(u32::MAX, |value| value.len() as u32).to_be_bytes());
            body.extend(value.unwrap_or_default().as_bytes());
        }
        body
    }

    fn answered(care: Care, names: &[&str], want: &Settings, rows: &[[Option<&str>; 3]]) -> Found {
        let mut probe = Probe::new(care, names.iter().map(|name| (*name).to_owned()).collect(), want);
        rows.iter().for_each(|values| probe.row(&row(values)));
        probe.finish(&settings(&[("work_mem", "7MB")]), want, &settings(&[("b.c", "1")]), "app")
    }

    #[test]
    fn named_settings_change_and_others_stay() {
        let want = settings(&[("a", "1"), ("b.c", "1"), ("work_mem", "9MB")]);
        let rows = [[Some("n"), Some("a"), Some("2")], [Some("n"), Some("role"), Some("none")]];
        let found = answered(Care::NAMED, &["a", "b.c", "role", "work_mem"], &want, &rows);
        assert_eq!(found.want, settings(&[("a", "2"), ("work_mem", "7MB")]));
        assert_eq!(found.have, settings(&[("a", "2")]));
        assert_eq!(found.pins, None);
    }

    #[test]
    fn all_settings_are_replaced() {
        let want = settings(&[("a", "1"), ("my.x", "1")]);
        let rows = [
            [Some("s"), Some("TimeZone"), Some("UTC")],
            [Some("n"), Some("my.x"), Some("")],
            [Some("n"), Some("my.y"), Some("")],
            [Some("n"), Some("session_authorization"), Some("app")],
            [Some("n"), Some("role"), Some("x")],
            [Some("p"), Some("l"), None],
        ];
        let found = answered(Care::UNSEEN, &["my.y"], &want, &rows);
        assert_eq!(found.want, settings(&[("my.x", ""), ("role", "x"), ("timezone", "UTC"), ("work_mem", "7MB")]));
        assert_eq!(found.have, settings(&[("my.x", ""), ("role", "x"), ("timezone", "UTC")]));
        assert_eq!(found.pins, Some([Reason::Listen].into_iter().collect()));
    }

    #[test]
    fn what_cannot_be_read_pins() {
        let found = answered(Care::NAMED, &["a"], &Settings::new(), &[[Some("n"), None, None]]);
        assert_eq!(found.pins, Some([Reason::Unknown].into_iter().collect()));
    }
}
