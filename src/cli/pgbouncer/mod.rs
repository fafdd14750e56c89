//! From a `pgbouncer.ini` to the `pgweir.yaml` that does the same, and what could not be carried over.
//!
//! ```text
//! ini      PgBouncer's files as entries, each with its place
//! convert  entries -> settings and notes, PgBouncer's defaults written out where pgweir's differ
//! database one line of [databases] -> its settings
//! access   users, console, authentication, pg_hba.conf
//! ```

mod access;
mod convert;
mod database;
mod ini;

use std::fmt::Write as _;
use std::path::Path;

use crate::config;
use crate::error::Result;

/// What came of it.
#[derive(Debug)]
pub struct Converted {
    /// The settings, with the notes as comments above them.
    pub yaml: String,
    /// What could not be carried over, and why.
    pub notes: Vec<String>,
}

/// Converts a file; what comes out is a valid configuration.
///
/// # Errors
/// A file cannot be read, or what is left is no configuration: there is no database, say.
pub fn convert(path: &Path) -> Result<Converted> {
    let entries = ini::read(path)?;
    let (body, notes) = convert::convert(path, &entries);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut yaml = format!("# From {name} by `pgweir check --from-pgbouncer`.\n");
    for note in &notes {
        let _ = writeln!(yaml, "# - {}", note.replace('\n', " "));
    }
    yaml.push_str(&body);
    config::parse(&yaml, "the converted settings")
        .map_err(|error| error.hint("mend the mistake in PgBouncer's file, or add what is missing by hand"))?;
    Ok(Converted { yaml, notes })
}

/// A text as YAML takes it anywhere.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list of texts.
fn quote_all(texts: &[String]) -> String {
    let all: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", all.join(", "))
}

/// A time of PgBouncer's, in seconds, as pgweir takes it; 0 means the same to both.
fn time(value: &str) -> Option<String> {
    let seconds: f64 = value.trim().parse().ok().filter(|seconds| (0.0..=31_536_000.0).contains(seconds))?;
    let millis = (seconds * 1000.0).round() as u64;
    Some(match millis {
        0 => "0".to_owned(),
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    })
}

/// Whether this version has a setting.
fn has(group: &str, setting: &str) -> bool {
    config::groups().iter().any(|other| other.path == group && other.settings.iter().any(|s| s.name == setting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_seconds() {
        assert_eq!(
            [time("120"), time("0.5"), time("0")],
            [Some("120s".into()), Some("500ms".into()), Some("0".into())]
        );
        assert_eq!([time("-1"), time("soon")], [None, None]);
    }
}
