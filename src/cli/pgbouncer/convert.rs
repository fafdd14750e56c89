//! The settings of `[pgbouncer]`, and the whole in the order of pgweir's file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::ini::Entry;
use super::{access, database, has, quote, time};

/// Settings that have no counterpart because pgweir needs none, with what it does instead.
const NOT_NEEDED: &[(&str, &str)] = &[
    ("ignore_startup_parameters", "startup parameters are not ignored but kept for the client"),
    ("track_extra_parameters", "every parameter that a client sets is kept for it"),
    ("server_reset_query", "a connection is reset when what ran on it may have left something"),
    ("server_reset_query_always", "a connection is reset when what ran on it may have left something"),
    ("server_check_query", "an idle connection that was closed is noticed without a query"),
    ("server_check_delay", "an idle connection that was closed is noticed without a query"),
    ("server_login_retry", "a server that is down is tried again within a second"),
    ("server_round_robin", "the connection used last is used next"),
    ("disable_pqexec", "statements of one string are understood"),
    ("dns_max_ttl", "names are resolved by the system"),
    ("dns_nxdomain_ttl", "names are resolved by the system"),
    ("dns_zone_check_period", "names are resolved by the system"),
    ("resolv_conf", "names are resolved by the system"),
    ("so_reuseport", "a new process takes the listening sockets over"),
    ("stats_period", "averages are of the last minute"),
    ("pkt_buf", "buffers are as large as they have to be"),
    ("sbuf_loopcnt", "buffers are as large as they have to be"),
    ("listen_backlog", "it is 4096"),
    ("tcp_keepalive", "keepalive is on"),
    ("tcp_defer_accept", "it is not needed"),
    ("tcp_socket_buffer", "it is the system's"),
    ("suspend_timeout", "there is no SUSPEND"),
];

/// What belongs to the process and not to its settings.
const PROCESS: &[&str] = &[
    "logfile",
    "pidfile",
    "user",
    "syslog",
    "syslog_ident",
    "syslog_facility",
    "service_name",
    "log_connections",
    "log_disconnections",
    "log_pooler_errors",
    "log_stats",
    "verbose",
    "job_name",
    "conffile",
];

/// Settings that others read, here or for each database.
const READ: &[&str] = &[
    "listen_addr",
    "listen_port",
    "unix_socket_dir",
    "unix_socket_mode",
    "auth_type",
    "auth_file",
    "auth_hba_file",
    "auth_query",
    "auth_user",
    "auth_dbname",
    "admin_users",
    "stats_users",
    "pool_mode",
    "default_pool_size",
    "min_pool_size",
    "reserve_pool_size",
    "reserve_pool_timeout",
    "max_client_conn",
    "max_user_connections",
    "max_db_connections",
    "max_db_client_connections",
    "max_user_client_connections",
    "query_timeout",
    "idle_transaction_timeout",
    "transaction_timeout",
    "client_idle_timeout",
    "autodb_idle_timeout",
    "server_lifetime",
    "server_idle_timeout",
    "server_connect_timeout",
    "query_wait_timeout",
    "client_login_timeout",
    "max_packet_size",
    "max_prepared_statements",
    "client_tls_sslmode",
    "client_tls_key_file",
    "client_tls_cert_file",
    "client_tls_ca_file",
    "server_tls_sslmode",
    "server_tls_ca_file",
    "server_tls_key_file",
    "server_tls_cert_file",
];

/// What `[pgbouncer]` says, and the notes so far.
pub(super) struct Source<'a> {
    /// The file.
    pub path: &'a Path,
    /// All entries.
    pub entries: &'a [Entry],
    settings: BTreeMap<&'a str, &'a str>,
    /// What could not be carried over, and why.
    pub notes: Vec<String>,
}

impl<'a> Source<'a> {
    /// A setting that is given and not empty.
    pub fn given(&self, name: &str) -> Option<&'a str> {
        self.settings.get(name).copied().filter(|value| !value.is_empty())
    }

    /// A setting, or PgBouncer's default.
    pub fn or(&self, name: &str, default: &'a str) -> &'a str {
        self.given(name).unwrap_or(default)
    }

    /// A time, or PgBouncer's default; a value that is none is noted.
    pub fn time(&mut self, name: &str, default: &'a str) -> String {
        let value = self.or(name, default);
        time(value).unwrap_or_else(|| {
            self.notes.push(format!("{name}: `{value}` is no number of seconds; PgBouncer's default is written"));
            time(default).unwrap_or_default()
        })
    }

    /// A number, or PgBouncer's default.
    pub fn number(&mut self, name: &str, value: &str, default: u32) -> u32 {
        value.trim().parse().unwrap_or_else(|_| {
            self.notes.push(format!("{name}: `{value}` is no number that can be used; {default} is written"));
            default
        })
    }

    /// Notes what could not be carried over.
    pub fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }
}

/// The settings, and what could not be carried over.
pub(super) fn convert(path: &Path, entries: &[Entry]) -> (String, Vec<String>) {
    let own = entries.iter().filter(|entry| entry.section == "pgbouncer");
    let settings = own.map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    let mut source = Source { path, entries, settings, notes: Vec::new() };
    let mut out = String::new();
    listen(&mut source, &mut out);
    let users = access::users(&mut source);
    access::console(&mut source, &users, &mut out);
    tls(&mut source, &mut out);
    limits(&mut source, &mut out);
    access::rules(&mut source, &mut out);
    access::write_users(&mut source, &users, &mut out);
    database::all(&mut source, &users, &mut out);
    leftovers(&mut source);
    (out, source.notes)
}

fn listen(source: &mut Source<'_>, out: &mut String) {
    let port = source.or("listen_port", "6432");
    let mut places: Vec<String> = Vec::new();
    for host in source.or("listen_addr", "").split(',').map(str::trim).filter(|host| !host.is_empty()) {
        places.push(match host {
            "*" => format!("0.0.0.0:{port}"),
            host if host.contains(':') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        });
    }
    // An empty value switches unix sockets off; a missing one means /tmp.
    let directory = source.settings.get("unix_socket_dir").copied().unwrap_or("/tmp");
    let sockets = crate::config::parse(
        "listen: [\"127.0.0.1:1\", \"unix:/tmp\"]\ndatabases: {d: {primary: \"postgres://h\"}}\nusers: {u: {password: p}}",
        "",
    );
    if !directory.is_empty() {
        match sockets {
            Ok(_) if !places.is_empty() => places.push(format!("unix:{directory}")),
            Ok(_) => places.push(format!("unix:{directory}:{port}")),
            Err(_) => source.note(format!("unix_socket_dir: clients cannot come by the unix socket in {directory}")),
        }
    }
    if places.is_empty() {
        source.note("listen_addr: PgBouncer listens at no TCP address; 127.0.0.1 is written");
        places.push(format!("127.0.0.1:{port}"));
    }
    let _ = writeln!(out, "listen: {}", super::quote_all(&places));
    if let Some(mode) = source.given("unix_socket_mode")
        && !directory.is_empty()
    {
        if has("", "unix_socket_permissions") {
            let _ = writeln!(out, "unix_socket_permissions: {}", quote(&format!("0{}", mode.trim_start_matches('0'))));
        } else {
            source.note("unix_socket_mode: there are no unix sockets for clients");
        }
    }
}

fn tls(source: &mut Source<'_>, out: &mut String) {
    let wanted = source.or("client_tls_sslmode", "disable");
    let (mode, verify) = match wanted {
        "disable" => return,
        "allow" | "prefer" => ("allow", false),
        "require" => ("require", false),
        "verify-ca" | "verify-full" => ("require", true),
        other => return source.note(format!("client_tls_sslmode: `{other}` is not known; TLS is off")),
    };
    let (Some(certificate), Some(key)) = (source.given("client_tls_cert_file"), source.given("client_tls_key_file"))
    else {
        return source.note("client_tls_sslmode: there is no certificate and key for it; TLS is off");
    };
    let _ = writeln!(out, "tls:\n  mode: {mode}\n  certificate: {}\n  key: {}", quote(certificate), quote(key));
    if let Some(ca) = source.given("client_tls_ca_file") {
        let _ = writeln!(out, "  client_ca: {}", quote(ca));
        if verify {
            out.push_str("  verify: required\n");
        }
    } else if verify {
        source.note("client_tls_sslmode: certificates of clients are not checked, as client_tls_ca_file is missing");
    }
}

fn limits(source: &mut Source<'_>, out: &mut String) {
    let clients = source.or("max_client_conn", "100");
    let clients = source.number("max_client_conn", clients, 100);
    let login = source.time("client_login_timeout", "60");
    let _ = writeln!(out, "limits:\n  max_clients: {}\n  login_timeout: {login}", clients.max(1));
    let connections = source.or("max_user_connections", "0");
    let connections = source.number("max_user_connections", connections, 0);
    if connections > 0 {
        let _ = writeln!(out, "  max_user_connections: {connections}");
    }
    for (setting, theirs) in [
        ("query_timeout", "query_timeout"),
        ("idle_in_transaction_timeout", "idle_transaction_timeout"),
        ("transaction_timeout", "transaction_timeout"),
        ("client_idle_timeout", "client_idle_timeout"),
    ] {
        if source.given(theirs).is_some() {
            let time = source.time(theirs, "0");
            let _ = writeln!(out, "  {setting}: {time}");
        }
    }
    if let Some(size) = source.given("max_packet_size") {
        match size.parse::<u64>() {
            Ok(bytes) if bytes > 0 => {
                let _ = writeln!(out, "  max_message: {bytes}B");
            }
            _ => source.note(format!("max_packet_size: `{size}` is no number of bytes")),
        }
    }
}

/// Says of everything that was not looked at why it is not there.
fn leftovers(source: &mut Source<'_>) {
    for entry in source.entries {
        let key = entry.key.as_str();
        match entry.section.as_str() {
            "pgbouncer" => {}
            "databases" => continue,
            "users" => continue,
            "peers" => {
                source.notes.push(format!("[peers] {key}: cancel requests find their process without peers"));
                continue;
            }
            other => {
                source.notes.push(format!("[{other}] {key}: the section is not PgBouncer's ({})", entry.place));
                continue;
            }
        }
        if READ.contains(&key) || entry.value.is_empty() {
            continue;
        }
        let why = match NOT_NEEDED.iter().find(|(name, _)| *name == key) {
            Some((_, why)) => format!("not needed: {why}"),
            None if PROCESS.contains(&key) => {
                "left to whoever starts the process: pgweir logs to standard error".to_owned()
            }
            None => "there is no such setting".to_owned(),
        };
        source.notes.push(format!("{key} = {}: {why} ({})", entry.value, entry.place));
    }
}
