//! One line of `[databases]`, with what `[pgbouncer]` says for all.

use std::fmt::Write as _;

use super::access::Users;
use super::convert::Source;
use super::{has, ini, quote};
use crate::config::{PoolMode, ServerUrl, SslMode};

/// Parameters of a connection string that are carried over.
const KNOWN: &[&str] = &[
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "pool_size",
    "max_db_connections",
    "max_db_client_connections",
    "min_pool_size",
    "pool_mode",
    "auth_user",
    "auth_query",
    "auth_dbname",
];

/// Why the others are not.
const OTHERS: &[(&str, &str)] = &[
    ("connect_query", "no statement is run on new connections; ALTER ROLE or ALTER DATABASE .. SET does as much"),
    ("reserve_pool", "there is no reserve; pool.size may be larger"),
    ("reserve_pool_size", "there is no reserve; pool.size may be larger"),
    ("client_encoding", "use ALTER ROLE or ALTER DATABASE .. SET client_encoding"),
    ("datestyle", "use ALTER ROLE or ALTER DATABASE .. SET datestyle"),
    ("timezone", "use ALTER ROLE or ALTER DATABASE .. SET timezone"),
    ("application_name", "use ALTER ROLE or ALTER DATABASE .. SET application_name"),
];

struct Line<'a> {
    name: &'a str,
    parameters: Vec<(String, String)>,
}

impl Line<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Writes all databases.
pub(super) fn all(source: &mut Source<'_>, users: &Users, out: &mut String) {
    out.push_str("databases:\n");
    let mut seen: Vec<&str> = Vec::new();
    for entry in source.entries.iter().filter(|entry| entry.section == "databases") {
        if entry.key == "pgweir" || entry.key == "pgbouncer" {
            source.note(format!("[databases] {}: the name is the console's and is left out", entry.key));
            continue;
        }
        let Some(parameters) = ini::parameters(&entry.value) else {
            source.note(format!("[databases] {}: its connection string cannot be read ({})", entry.key, entry.place));
            continue;
        };
        if seen.contains(&entry.key.as_str()) {
            source.note(format!("[databases] {}: it is there twice; the first is taken ({})", entry.key, entry.place));
            continue;
        }
        let line = Line { name: &entry.key, parameters };
        if let Some(url) = url(source, users, &line) {
            seen.push(&entry.key);
            let _ = writeln!(out, "  {}:\n    primary: {}", quote(&entry.key), quote(&url));
            if entry.key == "*" {
                let time = source.time("autodb_idle_timeout", "3600");
                let _ = writeln!(out, "    unused_timeout: {time}");
            }
            for (setting, theirs) in
                [("max_connections", "max_db_connections"), ("max_clients", "max_db_client_connections")]
            {
                let most = line.get(theirs).or_else(|| source.given(theirs)).unwrap_or("0");
                let most = source.number(theirs, most, 0);
                if most > 0 {
                    let _ = writeln!(out, "    {setting}: {most}");
                }
            }
            auth_query(source, users, &line, out);
            pool(source, &line, out);
            others(source, &line);
        }
    }
}

fn url(source: &mut Source<'_>, users: &Users, line: &Line<'_>) -> Option<String> {
    let encode =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    let host = match line.get("host").filter(|host| !host.is_empty()) {
        None => {
            source.note(format!(
                "[databases] {}: it has no host, which means a unix socket; the one in /tmp is written",
                line.name
            ));
            "/tmp"
        }
        Some(hosts) => {
            let first = hosts.split(',').next().unwrap_or(hosts).trim();
            if first != hosts {
                source.note(format!("[databases] {}: of its hosts only the first is used: {hosts}", line.name));
            }
            first
        }
    };
    let mut url = "postgres://".to_owned();
    if let Some(user) = line.get("user") {
        url.push_str(&encode(user));
        // As PgBouncer does, a password that is not given is looked up in the list of users.
        let own = line.get("password").or_else(|| users.get(user).map(String::as_str));
        match own.filter(|secret| !secret.starts_with("SCRAM-SHA-256$") && !secret.starts_with("md5")) {
            Some(password) => url.push_str(&format!(":{}", encode(password))),
            None => source.note(format!(
                "[databases] {}: the password of {user} is not known in plain text; put it into the URL",
                line.name
            )),
        }
        url.push('@');
    } else if line.get("password").is_some() {
        source.note(format!("[databases] {}: a password without a user is not used", line.name));
    }
    let port = line.get("port").unwrap_or("5432");
    let host = if host.contains(':') { format!("[{host}]") } else { encode(host) };
    // `*` passes the name on that the client asks for.
    let own = Some(line.name).filter(|name| *name != "*");
    let _ = write!(url, "{host}:{port}/{}", line.get("dbname").or(own).map(encode).unwrap_or_default());
    url.push_str(&tls(source));
    match ServerUrl::parse(&url) {
        Ok(_) => Some(url),
        Err(why) => {
            source
                .note(format!("[databases] {}: left out, as its server cannot be written as a URL: {why}", line.name));
            None
        }
    }
}

/// `server_tls_..` as parameters of the URL.
fn tls(source: &mut Source<'_>) -> String {
    let mode = source.or("server_tls_sslmode", "prefer");
    let mode = match mode {
        "allow" => "prefer",
        mode if SslMode::of_word(mode).is_some() => mode,
        _ => "prefer",
    };
    let mut text = format!("?sslmode={mode}");
    let files =
        [("server_tls_ca_file", "sslrootcert"), ("server_tls_cert_file", "sslcert"), ("server_tls_key_file", "sslkey")];
    for (setting, parameter) in files {
        if let Some(file) = source.given(setting).filter(|_| mode != "disable") {
            let file: String = url::form_urlencoded::byte_serialize(file.as_bytes()).collect();
            let _ = write!(text, "&{parameter}={file}");
        }
    }
    text
}

fn auth_query(source: &mut Source<'_>, users: &Users, line: &Line<'_>, out: &mut String) {
    let Some(user) = line.get("auth_user").or_else(|| source.given("auth_user")) else { return };
    let _ = writeln!(out, "    auth_query:\n      user: {}", quote(user));
    match users.get(user).filter(|secret| !secret.starts_with("SCRAM-SHA-256$") && !secret.starts_with("md5")) {
        Some(password) => {
            let _ = writeln!(out, "      password: {}", quote(password));
        }
        None => source.note(format!(
            "auth_user: the password of {user} is not known in plain text; give auth_query.password in {}",
            line.name
        )),
    }
    if let Some(database) = line.get("auth_dbname").or_else(|| source.given("auth_dbname")) {
        let _ = writeln!(out, "      database: {}", quote(database));
    } else if line.name == "*" && line.get("dbname").is_none() {
        out.push_str("      database: postgres\n");
        source.note(
            "[databases] *: auth_query runs in the database postgres, and not in the one that the client asks for",
        );
    }
    if let Some(query) = line.get("auth_query").or_else(|| source.given("auth_query")) {
        let _ = writeln!(out, "      query: {}", quote(query));
        source.note(format!(
            "auth_query: it runs with search_path = pg_catalog, pg_temp in {}; names in it need their schema",
            line.name
        ));
    }
}

fn pool(source: &mut Source<'_>, line: &Line<'_>, out: &mut String) {
    let wanted = line.get("pool_mode").unwrap_or_else(|| source.or("pool_mode", "session"));
    let mode = if PoolMode::of_word(wanted).is_some() { wanted } else { "transaction" };
    if mode != wanted {
        source.note(format!("[databases] {}: pool_mode {wanted} is not available; transaction is written", line.name));
    }
    let size = line.get("pool_size").unwrap_or_else(|| source.or("default_pool_size", "20"));
    let size = source.number("pool_size", size, 20).max(1);
    let _ = writeln!(out, "    pool:\n      mode: {mode}\n      size: {size}");
    let least = line.get("min_pool_size").unwrap_or_else(|| source.or("min_pool_size", "0"));
    let least = source.number("min_pool_size", least, 0);
    if least > 0 {
        if has("databases.<name>.pool", "min_size") {
            let _ = writeln!(out, "      min_size: {}", least.min(size));
        } else {
            source.note(format!("[databases] {}: min_pool_size is not available", line.name));
        }
    }
    for (setting, theirs, default) in [
        ("wait_timeout", "query_wait_timeout", "120"),
        ("connect_timeout", "server_connect_timeout", "15"),
        ("idle_timeout", "server_idle_timeout", "600"),
        ("lifetime", "server_lifetime", "3600"),
    ] {
        let time = source.time(theirs, default);
        if setting == "lifetime" && time == "0" {
            out.push_str("      reuse: false\n");
            continue;
        }
        let _ = writeln!(out, "      {setting}: {time}");
    }
    if let Some(count) = source.given("max_prepared_statements") {
        match source.number("max_prepared_statements", count, 200) {
            0 => {
                source.note("max_prepared_statements: prepared statements cannot be switched off; clients may use them")
            }
            count => {
                let _ = writeln!(out, "      prepared_statements: {count}");
            }
        }
    }
}

fn others(source: &mut Source<'_>, line: &Line<'_>) {
    if source.or("reserve_pool_size", "0") != "0" {
        source.note(format!("[databases] {}: there is no reserve_pool_size; pool.size may be larger", line.name));
    }
    for (key, value) in line.parameters.iter().filter(|(key, _)| !KNOWN.contains(&key.as_str())) {
        let why = OTHERS.iter().find(|(name, _)| name == key).map_or("there is no such setting", |(_, why)| why);
        source.note(format!("[databases] {}: {key}={value}: {why}", line.name));
    }
}
