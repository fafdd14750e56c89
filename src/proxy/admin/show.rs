//! What SHOW shows, with PgBouncer's columns first and pgweir's own behind them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::config::{self, Listen, SettingDefault};
use crate::net::stream::Ends;
use crate::pool::Pool;
use crate::pool::roll::Member;
use crate::proxy::admin::command::{Show, help};
use crate::proxy::admin::configured;
use crate::proxy::admin::stats::{self, Columns};
use crate::proxy::admin::table::{Table, Value};
use crate::proxy::admin::talk::Answer;
use crate::proxy::clients::Client;
use crate::proxy::database::Database;
use crate::proxy::login::House;

/// The columns that clients and servers share.
const SOCKET: [&str; 20] = [
    "type",
    "user",
    "database",
    "replication",
    "state",
    "addr",
    "#port",
    "local_addr",
    "#local_port",
    "connect_time",
    "request_time",
    "#wait",
    "#wait_us",
    "#close_needed",
    "ptr",
    "link",
    "#remote_pid",
    "tls",
    "application_name",
    "#id",
];

/// Answers one SHOW.
pub fn show(house: &House, what: Show) -> Answer {
    Answer::Table(match what {
        Show::Help => return Answer::Notice(help(), "SHOW"),
        Show::Version => single("version", crate::proxy::admin::version()),
        Show::Clients => clients(house),
        Show::Servers => servers(house),
        Show::Sockets => sockets(house, false),
        Show::ActiveSockets => sockets(house, true),
        Show::Pools => pools(house),
        Show::Databases => configured::databases(house),
        Show::Users => configured::users(house),
        Show::Pins => pins(house),
        Show::Stats => stats::stats(house, Columns::Both),
        Show::StatsTotals => stats::stats(house, Columns::Totals),
        Show::StatsAverages => stats::stats(house, Columns::Averages),
        Show::Totals => stats::totals(house),
        Show::Templates => stats::templates(house),
        Show::Findings => stats::findings(house),
        Show::Config => settings(house),
        Show::Lists => lists(house),
        Show::State => state(house),
        Show::Mem => memory(),
        Show::DnsHosts => Table::new(&["hostname", "#ttl", "addrs"]),
        Show::DnsZones => Table::new(&["zonename", "#serial", "#count"]),
        Show::Peers => Table::new(&["#peer_id", "host", "#port", "#pool_size"]),
    })
}

fn single(column: &'static str, value: String) -> Table {
    let mut table = Table::new(&[column]);
    table.row([value.into()]);
    table
}

/// A moment as PgBouncer writes it.
fn when(at: SystemTime) -> Value {
    let at = jiff::Timestamp::try_from(at).ok();
    at.map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).into()
}

fn address(at: Option<SocketAddr>) -> [Value; 2] {
    match at {
        Some(at) => [at.ip().to_string().into(), at.port().into()],
        None => ["unix".into(), Value::Number(0)],
    }
}

fn seconds(wait: Option<Duration>) -> [Value; 2] {
    let wait = wait.unwrap_or_default();
    [wait.as_secs().into(), wait.subsec_micros().into()]
}

/// Something to compare rows by; it is no address.
fn pointer(kind: char, id: u64) -> String {
    format!("{kind}{id:x}")
}

/// All databases by name, with their pools.
pub(super) fn all_pools(house: &House) -> Vec<(Arc<Database>, usize, Arc<Pool>)> {
    let pools = |database: &'_ Arc<Database>| database.numbered_pools();
    house
        .all_databases()
        .into_iter()
        .flat_map(|database| pools(&database).into_iter().map(move |(server, pool)| (database.clone(), server, pool)))
        .collect()
}

fn socket_row(kind: &'static str, names: [String; 3], ends: Ends, times: [Value; 2]) -> Vec<Value> {
    let [user, database, state] = names;
    let [addr, port] = address(ends.peer);
    let [local_addr, local_port] = address(ends.local);
    let [connected, requested] = times;
    vec![
        kind.into(),
        user.into(),
        database.into(),
        "none".into(),
        state.into(),
        addr,
        port,
        local_addr,
        local_port,
        connected,
        requested,
    ]
}

fn tls(is: bool) -> Value {
    if is { "TLS" } else { "" }.into()
}

fn client_row(client: &Client) -> Vec<Value> {
    let about = &client.about;
    let names = [about.user.to_string(), about.database.to_string(), client.state().to_owned()];
    let requested = when(client.activity.last_request().unwrap_or(about.since));
    let mut row = socket_row("C", names, about.ends, [when(about.since), requested]);
    row.extend(seconds(client.activity.wait()));
    let link = client.served_by().map(|target| pointer('S', target.id)).unwrap_or_default();
    let closing = client.activity.is_killed();
    row.extend([closing.into(), pointer('C', client.id).into(), link.into(), Value::Number(0)]);
    row.extend([tls(about.tls), about.application.to_string().into(), client.id.into()]);
    row
}

fn clients(house: &House) -> Table {
    let mut table = Table::new(&SOCKET);
    table.rows = house.clients.all().iter().map(|client| client_row(client)).collect();
    table
}

fn server_row(database: &Database, pool: &Pool, member: &Member, client: Option<&Client>) -> Vec<Value> {
    let target = &member.target;
    let state = match () {
        () if target.is_under_way() => "being_canceled",
        () if member.idle => "idle",
        () => "active",
    };
    let names = [pool.target.user.clone(), database.name.clone(), state.to_owned()];
    let requested = client.and_then(|client| client.activity.last_request()).unwrap_or(target.since);
    let (ends, encrypted) = target.ends;
    let mut row = socket_row("S", names, ends, [when(target.since), when(requested)]);
    row.extend(seconds(None));
    let link = client.map(|client| pointer('C', client.id)).unwrap_or_default();
    let application = client.map(|client| client.about.application.to_string()).unwrap_or_default();
    row.extend([member.outdated.into(), pointer('S', target.id).into(), link.into(), target.pid.into()]);
    row.extend([tls(encrypted), application.into(), target.id.into()]);
    row
}

fn servers(house: &House) -> Table {
    let mut table = Table::new(&SOCKET);
    table.columns.extend(Table::new(&["role"]).columns);
    let clients = house.clients.all();
    for (database, server, pool) in all_pools(house) {
        let role = configured::role(&database, server);
        for member in pool.members() {
            let serves = |client: &&Arc<Client>| client.served_by().is_some_and(|by| Arc::ptr_eq(&by, &member.target));
            let client = clients.iter().find(serves);
            let mut row = server_row(&database, &pool, &member, client.map(Arc::as_ref));
            row.push(role.clone().into());
            table.rows.push(row);
        }
    }
    table
}

fn sockets(house: &House, active: bool) -> Table {
    let mut table = clients(house);
    let servers = servers(house).rows.into_iter().map(|row| row.into_iter().take(SOCKET.len()).collect());
    table.rows.extend(servers);
    let more =
        Table::new(&["#recv_pos", "#pkt_pos", "#pkt_remain", "#send_pos", "#send_remain", "#pkt_avail", "#send_avail"]);
    if active {
        table.rows.retain(|row| row.get(4) == Some(&Value::from("active")));
    }
    for row in &mut table.rows {
        // A session keeps no buffers between two turns of its task.
        row.extend(more.columns.iter().map(|_| Value::Number(0)));
    }
    table.columns.extend(more.columns);
    table
}

/// Whether clients of this database and user use this pool, where its server is the first one.
fn is_pool_of(database: &Database, pool: &Pool, client: &Client) -> bool {
    let fixed = database.config.servers().next().is_some_and(|(_, url)| url.user.is_some());
    *client.about.database == *database.name && (fixed || *client.about.user == *pool.target.user)
}

fn pools(house: &House) -> Table {
    let mut table = Table::new(&[
        "database",
        "user",
        "#cl_active",
        "#cl_waiting",
        "#cl_active_cancel_req",
        "#cl_waiting_cancel_req",
        "#sv_active",
        "#sv_active_cancel",
        "#sv_being_canceled",
        "#sv_idle",
        "#sv_used",
        "#sv_tested",
        "#sv_login",
        "#maxwait",
        "#maxwait_us",
        "pool_mode",
        "load_balance_hosts",
        "server",
        "#checkouts",
    ]);
    let clients = house.clients.all();
    for (database, server, pool) in all_pools(house) {
        let counts = pool.counts();
        let members = pool.members();
        let canceled = members.iter().filter(|member| member.target.is_under_way()).count();
        let serves = |client: &Client| {
            let by = client.served_by();
            by.is_some_and(|by| members.iter().any(|member| Arc::ptr_eq(&member.target, &by)))
        };
        // Those of a sharded database belong to no one shard, but for the one that works for them.
        let first = |client: &Client| server == 0 && is_pool_of(&database, &pool, client);
        let here = clients.iter().filter(|client| first(client) || server > 0 && serves(client)).count();
        let in_use = counts.open.saturating_sub(counts.idle + counts.opening);
        let [wait, wait_us] = seconds(Some(counts.longest_wait));
        table.row([
            database.name.clone().into(),
            pool.target.user.clone().into(),
            here.saturating_sub(counts.waiting).into(),
            counts.waiting.into(),
            canceled.into(),
            Value::Number(0),
            in_use.into(),
            Value::Number(0),
            canceled.into(),
            counts.idle.into(),
            Value::Number(0),
            Value::Number(0),
            counts.opening.into(),
            wait,
            wait_us,
            database.config.pool.mode.word().into(),
            "".into(),
            format!("{}:{}", pool.target.host, pool.target.port).into(),
            counts.checkouts.into(),
        ]);
    }
    table
}

/// Who keeps a server connection, and why.
fn pins(house: &House) -> Table {
    let mut table = Table::new(&["#id", "user", "database", "application_name", "reasons", "link", "#remote_pid"]);
    for client in house.clients.pinned() {
        let reasons: Vec<_> = client.pins().reasons().map(|reason| reason.name()).collect();
        let server = client.served_by();
        table.row([
            client.id.into(),
            client.about.user.to_string().into(),
            client.about.database.to_string().into(),
            client.about.application.to_string().into(),
            reasons.join(", ").into(),
            server.as_ref().map(|target| pointer('S', target.id)).unwrap_or_default().into(),
            server.map(|target| target.pid).into(),
        ]);
    }
    table
}

fn settings(house: &House) -> Table {
    let mut table = Table::new(&["key", "value", "default", "changeable"]);
    // Those that tools ask for by PgBouncer's names.
    let clients = house.config.limits.max_clients.to_string();
    let listen = house.config.listen.iter().find_map(|listen| match listen {
        Listen::Tcp(address) => Some((address.host.clone(), address.port.to_string())),
        Listen::Unix { .. } => None,
    });
    let (host, port) = listen.unwrap_or_default();
    for (name, value) in [("listen_addr", host), ("listen_port", port), ("max_client_conn", clients)] {
        table.row([name.into(), value.into(), Value::Null, "no".into()]);
    }
    let groups = config::groups();
    for (path, value) in config::list(&house.config) {
        let default = default_of(&groups, &path);
        table.row([path.into(), value.into(), default.into(), "no".into()]);
    }
    table
}

/// The default of a setting by its path; groups name their entries `<name>`, lists `[]`.
fn default_of(groups: &[config::Group], path: &str) -> Option<String> {
    let (group, name) = path.rsplit_once('.').unwrap_or(("", path));
    let found = groups.iter().filter(|other| same_path(&other.path, group)).flat_map(|group| &group.settings);
    let name = name.split('[').next().unwrap_or(name);
    match found.into_iter().find(|setting| setting.name == name)?.default {
        SettingDefault::Text(text) => Some(text.to_owned()),
        _ => None,
    }
}

fn same_path(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('.'), path.split('.'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("<name>"), Some(_)) => {}
            (Some(a), Some(b)) if a.split('[').next() == b.split('[').next() => {}
            _ => return false,
        }
    }
}

fn lists(house: &House) -> Table {
    let mut table = Table::new(&["list", "#items"]);
    let pools = all_pools(house);
    let (mut idle, mut used) = (0, 0);
    for (_, _, pool) in &pools {
        let counts = pool.counts();
        idle += counts.idle;
        used += counts.open - counts.idle;
    }
    let known = house.clients.all().len();
    for (name, count) in [
        ("databases", house.all_databases().len()),
        ("users", house.config.users.len()),
        ("pools", pools.len()),
        ("free_clients", 0),
        ("used_clients", known),
        ("login_clients", house.clients.count().saturating_sub(known)),
        ("free_servers", idle),
        ("used_servers", used),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ] {
        table.row([name.into(), count.into()]);
    }
    table
}

fn state(house: &House) -> Table {
    let mut table = Table::new(&["key", "value"]);
    let stopping = house.clients.is_stopping();
    let word = |is: bool| Value::from(if is { "yes" } else { "no" });
    let paused = house.all_databases().iter().all(|database| database.paused.load(Ordering::Relaxed));
    let active = !stopping && !paused;
    for (name, is) in [("active", active), ("paused", paused), ("suspended", false), ("stopping", stopping)] {
        table.row([name.into(), word(is)]);
    }
    table
}

/// What the system says of the process's memory.
fn memory() -> Table {
    let mut table = Table::new(&["name", "#size", "#used", "#free", "#memtotal"]);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, field) in
        [("resident", "VmRSS:"), ("resident_peak", "VmHWM:"), ("virtual", "VmSize:"), ("data", "VmData:")]
    {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        table.row([name.into(), 1u32.into(), (kib * 1024).into(), 0u32.into(), (kib * 1024).into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_found_by_path() {
        let groups = config::groups();
        assert_eq!(default_of(&groups, "limits.max_clients").unwrap(), "10000");
        assert_eq!(default_of(&groups, "databases.shop.pool.size").unwrap(), "20");
        assert_eq!(default_of(&groups, "listen[0]").unwrap(), "127.0.0.1:6432");
        assert_eq!(default_of(&groups, "users.app.password"), None);
    }

    #[test]
    fn settings_are_listed_without_secrets() {
        let text = "users: {app: {password: s3cret}}\ndatabases: {app: {primary: \"postgres://u:s3cret@h/d\"}}";
        let config = config::parse(text, "t").unwrap();
        let listed = config::list(&config);
        let value = |path: &str| listed.iter().find(|(name, _)| name == path).map(|(_, value)| value.as_str());
        assert_eq!(value("databases.app.pool.size"), Some("20"));
        assert_eq!(value("users.app.password"), Some("***"));
        assert_eq!(value("databases.app.primary"), Some("postgres://u@h:5432/d"));
        assert!(!format!("{listed:?}").contains("s3cret"));
    }

    #[test]
    fn rows_are_as_wide_as_their_columns() {
        let config = config::parse(
            "users: {app: {password: s}}\ndatabases: {app: {primary: \"postgres://u:s@127.0.0.1:1/d\"}}",
            "t",
        );
        let house = House::new(config.unwrap(), 1).unwrap();
        house.databases["app"].pool(0, "app", &crate::net::prove::Secret::Nothing("")).unwrap();
        for what in [Show::Pools, Show::Databases, Show::Users, Show::Config, Show::Lists, Show::State, Show::Mem] {
            let Answer::Table(table) = show(&house, what) else { panic!("{what:?}") };
            assert!(!table.rows.is_empty(), "{what:?}");
            assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{what:?}");
        }
    }
}
