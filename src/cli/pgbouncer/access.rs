//! Who may come in: the list of users, the console, how clients prove who they are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::convert::Source;
use super::{ini, quote, quote_all};
use crate::config::{HbaMethod, HbaType};

/// Users and what is stored for them: a password, an MD5 hash or a SCRAM verifier.
pub(super) type Users = BTreeMap<String, String>;

/// The users of `auth_file`.
pub(super) fn users(source: &mut Source<'_>) -> Users {
    let Some(named) = source.given("auth_file") else { return Users::new() };
    let path = ini::beside(source.path, named);
    let text = match ini::text_of(&path) {
        Ok(text) => text,
        Err(error) => {
            source.note(format!(
                "auth_file: {} cannot be read ({}); its users are missing",
                path.display(),
                error.what
            ));
            return Users::new();
        }
    };
    let mut users = Users::new();
    for (name, secret) in ini::users(&text) {
        // A password that looks like a place is read as one; it has to be written in a file of its own.
        if secret.is_empty() {
            source.note(format!("auth_file: {name} has no password and is left out"));
        } else if secret.starts_with("env:") || secret.starts_with("file:") {
            source.note(format!("auth_file: the password of {name} begins like `env:` or `file:`; put it into a file"));
        } else {
            users.insert(name, secret);
        }
    }
    users
}

/// `admin_users` and `stats_users`.
pub(super) fn console(source: &mut Source<'_>, users: &Users, out: &mut String) {
    for setting in ["admin_users", "stats_users"] {
        let names = source.or(setting, "").split(',').map(|name| name.trim().to_owned());
        let (known, unknown): (Vec<_>, Vec<_>) =
            names.filter(|name| !name.is_empty()).partition(|name| users.contains_key(name));
        for name in unknown {
            source.note(format!("{setting}: {name} has no password in auth_file; add the user, then name it here"));
        }
        if !known.is_empty() {
            let _ = writeln!(out, "{setting}: {}", quote_all(&known));
        }
    }
}

/// `auth_type` and `auth_hba_file` as rules; without rules a client proves its password by SCRAM.
pub(super) fn rules(source: &mut Source<'_>, out: &mut String) {
    let certificates = source.given("client_tls_ca_file").is_some();
    match source.or("auth_type", "md5") {
        "scram-sha-256" => {}
        "md5" => simple("md5", out),
        "plain" => source.note("auth_type: plain: passwords are proven by SCRAM instead of being sent in plain text"),
        "trust" => simple("trust", out),
        "any" => {
            source.note("auth_type: any: the user's name is not ignored but used, unless the server's URL names one");
            simple("trust", out);
        }
        "cert" if certificates => out.push_str("hba:\n  - {type: hostssl, method: cert}\n"),
        "hba" => from_file(source, out),
        other => source.note(format!("auth_type: {other} is not available; clients prove their passwords by SCRAM")),
    }
}

fn simple(method: &str, out: &mut String) {
    let _ = writeln!(out, "hba:\n  - {{type: local, method: {method}}}\n  - {{type: host, method: {method}}}");
}

fn from_file(source: &mut Source<'_>, out: &mut String) {
    let Some(named) = source.given("auth_hba_file") else {
        return source.note("auth_type: hba: there is no auth_hba_file; clients prove their passwords by SCRAM");
    };
    let path = ini::beside(source.path, named);
    let text = match ini::text_of(&path) {
        Ok(text) => text,
        // Without its rules, letting everybody in who has a password would be wider than what was meant.
        Err(error) => {
            out.push_str("hba:\n  - {type: host, method: reject}\n");
            return source.note(format!(
                "auth_hba_file: {} cannot be read ({}); everybody is refused",
                path.display(),
                error.what
            ));
        }
    };
    out.push_str("hba:\n");
    let mut written = 0;
    for line in text.lines() {
        let Some(rule) = ini::rule(line) else { continue };
        let known = HbaType::of_word(&rule.kind).is_some() && HbaMethod::of_word(&rule.method).is_some();
        let special =
            rule.names.iter().flatten().any(|name| name.starts_with(['+', '@', '/']) || name == "replication");
        let [databases, users] = &rule.names;
        let mut yaml = format!("type: {}, database: {}, user: {}", rule.kind, quote_all(databases), quote_all(users));
        if let Some(address) = &rule.address {
            let _ = write!(yaml, ", address: {}", quote(address));
        }
        if known && !special && rule.options.is_empty() {
            let _ = writeln!(out, "  - {{{yaml}, method: {}}}", rule.method);
        } else if special && HbaType::of_word(&rule.kind).is_some() {
            // It may be about anybody: a later rule that is weaker must not decide about those whom it was meant for.
            let address = rule.address.as_deref().map(|address| format!(", address: {}", quote(address)));
            let _ = writeln!(out, "  - {{type: {}{}, method: reject}}", rule.kind, address.unwrap_or_default());
            source.note(format!(
                "auth_hba_file: `{}` cannot be carried over; everybody whom it may be about is refused",
                line.trim()
            ));
        } else if HbaType::of_word(&rule.kind).is_some() {
            // Nobody may come in by a later rule whom this one was meant for.
            let _ = writeln!(out, "  - {{{yaml}, method: reject}}");
            source
                .note(format!("auth_hba_file: `{}` cannot be carried over; whom it is about is refused", line.trim()));
        } else {
            source.note(format!("auth_hba_file: `{}` cannot be carried over and is left out", line.trim()));
            continue;
        }
        written += 1;
    }
    if written == 0 {
        out.push_str("  - {type: host, method: reject}\n");
    }
}

/// Writes the users, with what `[users]` says of them.
pub(super) fn write_users(source: &mut Source<'_>, users: &Users, out: &mut String) {
    for entry in source.entries.iter().filter(|entry| entry.section == "users") {
        if !users.contains_key(&entry.key) {
            source.note(format!(
                "[users] {}: it has no password in auth_file, without which it has no settings here ({})",
                entry.key, entry.place
            ));
        }
    }
    if users.is_empty() {
        if source.given("max_user_client_connections").is_some() {
            source.note("max_user_client_connections: it can be given for users that are named in the file only");
        }
        return;
    }
    out.push_str("users:\n");
    for (name, secret) in users {
        let more = settings_of(source, name);
        let _ = writeln!(out, "  {}: {{password: {}{more}}}", quote(name), quote(secret));
    }
}

/// One line of `[users]`, and what `[pgbouncer]` says for each user.
fn settings_of(source: &mut Source<'_>, name: &str) -> String {
    let mut most = source.given("max_user_client_connections").map(str::to_owned);
    let (mut connections, mut text) = (None, String::new());
    let entry = source.entries.iter().find(|entry| entry.section == "users" && entry.key == name);
    for (key, value) in entry.and_then(|entry| ini::parameters(&entry.value)).unwrap_or_default() {
        match key.as_str() {
            "max_user_connections" => connections = Some(value),
            "max_user_client_connections" => most = Some(value),
            _ => source.note(format!("[users] {name}: {key}={value}: there is no such setting for single users")),
        }
    }
    if let Some(most) = most.map(|most| source.number("max_user_client_connections", &most, 0)).filter(|&most| most > 0)
    {
        text.push_str(&format!(", max_clients: {most}"));
    }
    if let Some(connections) = connections {
        text.push_str(&format!(", max_connections: {}", source.number("max_user_connections", &connections, 0)));
    }
    text
}
