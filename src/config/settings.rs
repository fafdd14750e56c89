//! The settings of the whole proxy: where it listens, who may come, limits.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::access::{HbaMethod, HbaRule, HbaType};
use super::database::Database;
use super::define::{FromNode, Reader, choices, scalar, settings};
use super::listen::{Listen, SocketMode};
use super::replicas::Reads;
use super::secret::Secret;
use super::takeover::Takeover;
use super::tree::Node;
use super::values::ByteSize;

settings! {
    /// The whole file. Only `users` and `databases` must be there.
    pub struct Config {
        /// Where clients connect. `unix:/directory` makes the socket `.s.PGSQL.<port>` in that directory, named after the first
        /// TCP port unless a port of its own follows.
        listen: Vec<Listen> = "127.0.0.1:6432",
        /// Who may connect to unix sockets: the permissions of their files.
        unix_socket_permissions: SocketMode = "0777",
        /// A file that holds the process id while the proxy runs.
        pid_file: Option<String> = absent,
        /// Where metrics and health are served over HTTP; nowhere unless set.
        admin: Option<Address> = absent,
        /// Users who may do everything in the console (`psql -d pgweir`, or `-d pgbouncer` for tools that say so).
        admin_users: Vec<String> = absent,
        /// Users who may look at the console's SHOW commands and change nothing.
        stats_users: Vec<String> = absent,
        /// Worker threads; one per core unless set. As few of them as the load needs serve clients.
        workers: Option<u32> = absent,
        /// Encryption between clients and the proxy.
        tls: ClientTls = "{}",
        /// What is counted of the queries that pass.
        stats: Stats = "{}",
        /// Limits for all clients together and for each one.
        limits: Limits = "{}",
        /// How a new process takes over from this one.
        takeover: Takeover = "{}",
        /// Which clients may connect from where, and how they prove who they are. Without it, all who know a password
        /// (`scram-sha-256`).
        hba: Vec<HbaRule> = absent,
        /// Who may connect, by name. A name and password here are the client's; which user the proxy is to
        /// a server is said by the server's URL. Others may come in by a database's `auth_query`, or by a rule of `hba` with
        /// `method: cert` or `trust`.
        users: BTreeMap<String, User> = absent,
        /// The databases that clients may ask for, by name. `"*"` serves all others: the name that a client asks for is the
        /// database's on the server, unless the server's URL has one.
        databases: BTreeMap<String, Database> = required,
    }
    check check_config;
}

settings! {
    /// One user.
    pub struct User {
        /// What the user must know. Copy the verifier from `pg_authid.rolpassword` and the proxy never
        /// learns the password itself.
        password: Secret = required,
        /// Clients of this user connected at once; the next one is refused with SQLSTATE 53300.
        max_clients: Option<u32> = absent,
        /// Connections to each server at most that log in there as this user, of all databases together;
        /// `limits.max_user_connections` unless given.
        max_connections: Option<u32> = absent,
        /// Where this user's reads go in databases with replicas.
        reads: Reads = "balanced",
    }
}

settings! {
    /// What is counted of the queries that pass, beyond the counts and times that always are.
    pub struct Stats {
        /// Statements without their constants whose calls and times are counted (`SHOW TEMPLATES`); those with the
        /// fewest calls make room for others. `0` counts none.
        templates: u32 = "2000",
        /// A file to which these templates are saved with their counts, times and an example each, for `pgweir lint --workload` and
        /// `pgweir advise indexes --workload`: again and again, at the end, and at `SAVE WORKLOAD`. It holds what passed since the
        /// process began; nothing is saved unless set.
        workload: Option<String> = absent,
        /// How often it is saved.
        workload_interval: Duration = "10m",
        /// What the file tells of constants.
        examples: Examples = "masked",
        /// Folders of rules of your own, as for `pgweir lint --rules`: they are added to the built-in ones, or replace them.
        rules: Vec<String> = absent,
        /// A file of severities, thresholds and accepted findings, as `.pgweir-lint.yaml` is for `pgweir lint`.
        lint_config: Option<String> = absent,
        /// How often the catalogs of databases whose URL names a user are read, so that rules know tables, columns and indexes. `0` is never.
        catalog_interval: Duration = "5m",
    }
    check check_stats;
}

choices! {
    /// What a saved workload tells of constants.
    pub enum Examples {
        /// Their shape at most: letters become `a`, digits `1`; what something is compared with becomes a parameter.
        Masked = "masked",
        /// One statement of each template as a client sent it, and a few sets of the values that it was bound to.
        Plain = "plain",
    }
}

choices! {
    /// Whether clients may or must use TLS.
    pub enum ClientTlsMode {
        /// No TLS.
        Disable = "disable",
        /// Clients choose.
        Allow = "allow",
        /// Clients without TLS are refused.
        Require = "require",
    }
}

choices! {
    /// Whether clients must show a certificate.
    pub enum ClientVerify {
        /// One that is shown must be good.
        Optional = "optional",
        /// There must be one.
        Required = "required",
    }
}

settings! {
    /// A certificate for one name.
    pub struct HostCertificate {
        /// The certificate chain's file (PEM).
        certificate: String = required,
        /// The private key's file (PEM).
        key: String = required,
    }
}

settings! {
    /// Encryption between clients and the proxy.
    pub struct ClientTls {
        /// Whether clients may or must use it.
        mode: ClientTlsMode = "disable",
        /// The certificate chain's file (PEM), the proxy's own certificate first.
        certificate: Option<String> = absent,
        /// The private key's file (PEM).
        key: Option<String> = absent,
        /// Certificates for clients that ask for these names (SNI); others get the one above.
        hosts: BTreeMap<String, HostCertificate> = absent,
        /// The authorities (PEM) that may have issued clients' certificates. Clients are asked for a certificate.
        client_ca: Option<String> = absent,
        /// Whether a client without a certificate of `client_ca` is refused.
        verify: ClientVerify = "optional",
    }
    check check_tls;
}

settings! {
    /// Limits for all clients together and for each one.
    pub struct Limits {
        /// Clients connected at once; the next one is refused with SQLSTATE 53300.
        max_clients: u32 = "10000",
        /// Connections to each server at most as one user, of all databases together; `0`: no limit. Who needs one more
        /// waits, and unused ones of other databases are closed for it. Each shard counts as a server of its own.
        max_user_connections: u32 = "0",
        /// Clients that are about to log in, at once, and never more than half of `max_clients`. When one more comes, the one
        /// that has taken longest is disconnected.
        max_logins: u32 = "5000",
        /// Time from connecting to being authenticated; `0`: no limit.
        login_timeout: Duration = "15s",
        /// The longest message that a client may send. PostgreSQL's own limit is 1GB.
        max_message: ByteSize = "256MB",
        /// Time that clients have to finish their transactions when the proxy is asked to stop; `0`: none.
        shutdown_timeout: Duration = "30s",
        /// Time that a client may do nothing in a transaction. Then the transaction is rolled back and the client's connection
        /// closed with SQLSTATE 25P03. `0` is no limit, here and in the following times, which are kept to half a second.
        idle_in_transaction_timeout: Duration = "0",
        /// Time that a statement may take on the server, COPY included. Then it is cancelled, and the client told with
        /// SQLSTATE 57014; a transaction around it has failed.
        query_timeout: Duration = "0",
        /// Time that a transaction may take. Then it is rolled back and the client's connection closed with SQLSTATE 25P04.
        transaction_timeout: Duration = "0",
        /// Time that a client may do nothing outside a transaction. Then its connection is closed with SQLSTATE 57P05.
        client_idle_timeout: Duration = "0",
    }
}

/// `host:port` to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

impl Address {
    /// Reads `host:port` or `[ipv6]:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(fits) || !port.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromNode for Address {
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        out.push((path.to_owned(), self.to_string()));
    }
    fn what() -> String {
        "`host:port`".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        Self::parse(text)
            .or_else(|| super::define::bad_value(node, text, "`host:port`, as in `127.0.0.1:6432`", reader))
    }
}

fn check_config(config: &Config, node: &Node, reader: &mut Reader) -> bool {
    let before = reader.problems.len();
    let at = |name: &str| node.get(name).map_or(node.at, |node| node.at);
    if config.listen.is_empty() {
        reader.problem::<()>(at("listen"), "`listen` is empty", "write `listen: 127.0.0.1:6432`");
    }
    if config.workers == Some(0) {
        reader.problem::<()>(at("workers"), "`workers` is 0", "write 1 or more, or leave it out for one per core");
    }
    let others = config.databases.values().any(|database| database.auth_query.is_some())
        || config.hba.iter().any(|rule| matches!(rule.method, HbaMethod::Cert | HbaMethod::Trust));
    if config.users.is_empty() && !others {
        reader.problem::<()>(
            at("users"),
            "`users` names nobody, so that nobody could connect",
            "add `users: {app: {password: ...}}`, or `auth_query` to a database",
        );
    }
    check_hba(config, node, reader);
    if config.databases.is_empty() {
        let hint = "add `shop: {primary: \"postgres://app@10.0.0.1/shop\"}`";
        reader.problem::<()>(at("databases"), "`databases` names no database", hint);
    }
    check_console(config, node, reader);
    if config.limits.max_clients == 0 {
        let at = node.get("limits").and_then(|limits| limits.get("max_clients")).map_or(node.at, |node| node.at);
        reader.problem::<()>(at, "`limits.max_clients` is 0, so that nobody could connect", "write 1 or more");
    }
    reader.problems.len() == before
}

fn check_stats(stats: &Stats, node: &Node, reader: &mut Reader) -> bool {
    if stats.workload.is_some() && stats.templates == 0 {
        let at = node.get("workload").map_or(node.at, |node| node.at);
        let what = "`stats.workload` is given, but no templates are counted";
        return reader.problem(at, what, "raise `stats.templates`").unwrap_or(false);
    }
    if stats.workload_interval.is_zero() {
        let at = node.get("workload_interval").map_or(node.at, |node| node.at);
        return reader.problem(at, "`stats.workload_interval` is 0", "write `10m`").unwrap_or(false);
    }
    if stats.templates <= 100_000 {
        return true;
    }
    let at = node.get("templates").map_or(node.at, |node| node.at);
    let what = "`stats.templates` is more than 100000, which would take much memory";
    reader.problem(at, what, "write a few thousand").unwrap_or(false)
}

/// Databases that are the console when somebody may use it.
pub const CONSOLE: [&str; 2] = ["pgweir", "pgbouncer"];

fn check_console(config: &Config, node: &Node, reader: &mut Reader) {
    let groups = [("admin_users", &config.admin_users), ("stats_users", &config.stats_users)];
    for (setting, names) in groups {
        let at = node.get(setting).map_or(node.at, |node| node.at);
        for name in names.iter().filter(|name| !config.users.contains_key(*name)) {
            let what = format!("`{setting}` names `{name}`, who is no user");
            reader.problem::<()>(at, what, format!("add `{name}: {{password: ...}}` to `users`"));
        }
    }
    if groups.iter().all(|(_, names)| names.is_empty()) {
        return;
    }
    for name in CONSOLE.iter().filter(|name| config.databases.contains_key(**name)) {
        let at = node.get("databases").and_then(|all| all.entry(name)).map_or(node.at, |(key, _)| key.at);
        let what = format!("the database `{name}` would hide the console");
        reader.problem::<()>(at, what, "give it another name here; its server's URL says the real one");
    }
}

/// Rules that could never fit, as TLS is not set up for them.
fn check_hba(config: &Config, node: &Node, reader: &mut Reader) {
    let Some(list) = node.get("hba") else { return };
    if config.hba.is_empty() {
        let hint = "remove it to let in all who know a password, or add `- {type: hostssl, method: scram-sha-256}`";
        reader.problem::<()>(list.at, "`hba` has no rule, so that nobody could connect", hint);
    }
    for (index, rule) in config.hba.iter().enumerate() {
        let at = super::define::item(list, index).at;
        if rule.r#type == HbaType::HostSsl && config.tls.mode == ClientTlsMode::Disable {
            let what = "this rule is about TLS, but `tls.mode` is `disable`";
            reader.problem::<()>(at, what, "set up `tls`, or write `type: host`");
        } else if rule.method == HbaMethod::Cert && config.tls.client_ca.is_none() {
            let what = "this rule asks for a certificate, but `tls.client_ca` does not say whose";
            reader.problem::<()>(at, what, "add `client_ca: ca.pem` to `tls`");
        }
    }
}

fn check_tls(tls: &ClientTls, node: &Node, reader: &mut Reader) -> bool {
    let given = [("certificate", &tls.certificate), ("key", &tls.key), ("client_ca", &tls.client_ca)];
    if tls.mode == ClientTlsMode::Disable {
        if let Some((name, _)) = given.iter().find(|(_, value)| value.is_some()) {
            let at = node.get(name).map_or(node.at, |node| node.at);
            let what = format!("`tls.{name}` is given, but `tls.mode` is `disable`");
            return reader.problem(at, what, "write `mode: allow` or `mode: require`").unwrap_or(false);
        }
        return true;
    }
    if tls.verify == ClientVerify::Required && tls.client_ca.is_none() {
        let hint = "add `client_ca`: a PEM file";
        reader.problem::<()>(node.at, "`tls.verify` is `required`, but `tls.client_ca` is missing", hint);
        return false;
    }
    for (name, _) in given.iter().take(2).filter(|(_, value)| value.is_none()) {
        let what = format!("`tls.mode` is `{}`, but `tls.{name}` is missing", tls.mode.word());
        reader.problem::<()>(node.at, what, format!("add `{name}`: a PEM file"));
    }
    tls.certificate.is_some() && tls.key.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in
            [("127.0.0.1:6432", "127.0.0.1:6432"), ("[::1]:5", "[::1]:5"), ("localhost:0", "localhost:0")]
        {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["6432", ":6432", "::1:6432", "host:", "host:+1", "host:70000", "a b:1"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
