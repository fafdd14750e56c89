//! PgBouncer's files: the settings, connection strings, the list of users, pg_hba.conf.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How deep files may include each other.
const MAX_DEPTH: usize = 10;

/// One `key = value` and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The section, in lower case.
    pub section: String,
    /// The key: a setting in lower case, or a name as it is.
    pub key: String,
    /// The value as it stands.
    pub value: String,
    /// `file:line`.
    pub place: String,
}

/// Reads a file and what it includes.
///
/// # Errors
/// A file cannot be read, or a line is none of PgBouncer's.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    read_into(path, &mut String::new(), &mut entries, 0)?;
    Ok(entries)
}

/// The text of a file.
pub fn text_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path)
        .map_err(|error| Error::input(format!("the file cannot be read: {error}")).at(path.display().to_string()))?;
    String::from_utf8(bytes).map_err(|_| Error::input("the file is not UTF-8").at(path.display().to_string()))
}

/// A path as a file names it: relative paths begin where PgBouncer was started, or beside the file.
pub fn beside(file: &Path, named: &str) -> PathBuf {
    let named = Path::new(named);
    let sibling = file.parent().map(|directory| directory.join(named)).unwrap_or_default();
    if named.is_absolute() || !sibling.exists() { named.to_owned() } else { sibling }
}

fn read_into(path: &Path, section: &mut String, entries: &mut Vec<Entry>, depth: usize) -> Result<()> {
    for (number, line) in text_of(path)?.lines().enumerate() {
        let place = format!("{}:{}", path.display(), number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(named) = line.strip_prefix("%include") {
            if depth >= MAX_DEPTH {
                return Err(Error::input("the files include each other too deeply").at(place));
            }
            read_into(&beside(path, named.trim()), section, entries, depth + 1)?;
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            *section = name.trim().to_ascii_lowercase();
        } else {
            let (key, value) = key_and_value(line)
                .ok_or_else(|| Error::input("the line is neither a section nor `key = value`").at(place.as_str()))?;
            let key = if section == "pgbouncer" { key.to_ascii_lowercase() } else { key };
            entries.push(Entry { section: section.clone(), key, value, place });
        }
    }
    Ok(())
}

/// `key = value`; a key with odd characters stands in double quotes, doubled inside.
fn key_and_value(line: &str) -> Option<(String, String)> {
    if line.starts_with('"') {
        let (key, rest) = quoted(line, '"')?;
        return Some((key, rest.trim_start().strip_prefix('=')?.trim().to_owned()));
    }
    let (key, value) = line.split_once('=')?;
    Some((key.trim().to_owned(), value.trim().to_owned())).filter(|(key, _)| !key.is_empty())
}

/// A text in quotes, which are doubled inside, and what follows it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix(quote)?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once(quote)?;
        value.push_str(part);
        match after.strip_prefix(quote) {
            Some(more) => {
                value.push(quote);
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

/// A connection string's parameters: `host=10.0.0.1 password='it''s'`.
pub fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, more) = if after.starts_with('\'') {
            quoted(after, '\'')?
        } else {
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            let (value, more) = after.split_at(end);
            (value.to_owned(), more)
        };
        found.push((key.trim().to_ascii_lowercase(), value));
        rest = more.trim_start();
    }
    Some(found)
}

/// The users of an `auth_file`: names and what is stored for them.
pub fn users(text: &str) -> Vec<(String, String)> {
    let user = |line: &str| {
        let (name, rest) = quoted(line.trim(), '"')?;
        let (secret, _) = quoted(rest.trim_start(), '"')?;
        Some((name, secret))
    };
    text.lines().filter_map(user).collect()
}

/// A line of pg_hba.conf as PgBouncer reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// `local`, `host`, ..
    pub kind: String,
    /// Databases and users.
    pub names: [Vec<String>; 2],
    /// An address, with its mask if one follows.
    pub address: Option<String>,
    /// The method, and what stands behind it.
    pub method: String,
    /// See `method`.
    pub options: Vec<String>,
}

/// A line's rule; `None` for a comment and for what is none.
pub fn rule(line: &str) -> Option<Rule> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_whitespace().map(|word| word.trim_matches('"').to_owned());
    let kind = words.next()?;
    let mut list = || Some(words.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect());
    let names = [list()?, list()?];
    let mut address = if kind == "local" { None } else { Some(words.next()?) };
    let mut method = words.next()?;
    // The old form: an address and its mask as two words.
    if let (Some(address), Ok(mask)) = (&mut address, method.parse::<std::net::Ipv4Addr>()) {
        *address = format!("{address}/{}", u32::from(mask).leading_ones());
        method = words.next()?;
    }
    Some(Rule { kind, names, address, method, options: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        assert_eq!(key_and_value("a = b = c"), Some(("a".into(), "b = c".into())));
        assert_eq!(key_and_value("\"my \"\"db\" = host=x"), Some(("my \"db".into(), "host=x".into())));
        assert_eq!(key_and_value("nonsense"), None);
        let pairs = |text| parameters(text).unwrap();
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
        };
        assert_eq!(pairs("host=a  port = 1"), own(&[("host", "a"), ("port", "1")]));
        assert_eq!(pairs("password='it''s = x' dbname=''"), own(&[("password", "it's = x"), ("dbname", "")]));
        assert_eq!(parameters("host='open"), None);
        assert_eq!(users("; x\n\"a\"\"b\" \"s\" \"more\"\nbad\n\"c\" \"\""), own(&[("a\"b", "s"), ("c", "")]));
    }

    #[test]
    fn rules_of_access() {
        let found = rule("host app,shop all 10.0.0.0 255.0.0.0 md5 # x").unwrap();
        assert_eq!((found.address.as_deref(), found.method.as_str()), (Some("10.0.0.0/8"), "md5"));
        assert_eq!(found.names, [vec!["app".to_owned(), "shop".to_owned()], vec!["all".to_owned()]]);
        assert_eq!(rule("local all all peer map=x").unwrap().options, ["map=x"]);
        assert_eq!(rule("# host all"), None);
    }
}
