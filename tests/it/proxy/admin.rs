//! The console: psql and raw messages, who may come in and what it does.

use std::process::Command;

use pgweir::db::local::{Auth, Cluster, Options};

use super::raw::{Raw, bind, execute, field, frame, parse, query, statement, sync};
use crate::support::{Proxy, ends, wait_until};

struct Stage {
    proxy: Proxy,
    _cluster: Cluster,
}

impl Stage {
    fn new(more: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        let config = format!(
            "users: {{admin: {{password: a-secret}}, watcher: {{password: w-secret}}, app: {{password: secret}}}}\n\
             admin_users: [admin]\nstats_users: [watcher]\n{more}\ndatabases:\n  app:\n    \
             primary: \"postgres://postgres:postgres@127.0.0.1:{}/postgres?sslmode=disable\"\n    \
             pool: {{size: 4, wait_timeout: 20s}}\n",
            cluster.port()
        );
        Self { proxy: Proxy::start(&config), _cluster: cluster }
    }

    fn client(&self) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", "app", &[("application_name", "billing")])
    }

    fn admin(&self) -> Raw {
        Raw::login(self.proxy.port(), "admin", "a-secret", "pgweir", &[])
    }

    /// What psql prints for one command, unaligned; the names of the columns first.
    fn psql(&self, user: &str, password: &str, command: &str) -> (bool, String) {
        let url = format!("postgres://{user}:{password}@127.0.0.1:{}/pgbouncer?sslmode=disable", self.proxy.port());
        let out = Command::new("psql").args(["-X", "-A", "-w", "-c", command, &url]).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    }
}

/// The values of a SHOW, by column and row.
struct Shown(Vec<Vec<String>>);

impl Shown {
    fn of(text: &str) -> Self {
        let lines = text.lines().filter(|line| line.contains('|'));
        Self(lines.map(|line| line.split('|').map(str::to_owned).collect()).collect())
    }

    /// The value in `column` of the first row that holds `key`.
    fn get(&self, key: &str, column: &str) -> String {
        let at = self.0[0].iter().position(|name| name == column).unwrap_or_else(|| panic!("no {column}"));
        let row = self.0[1..].iter().find(|row| row.iter().any(|value| value == key));
        row.unwrap_or_else(|| panic!("no {key} in {:?}", self.0))[at].clone()
    }
}

/// Whether nothing is answered to a startup packet for a while.
fn silent(mut stream: std::net::TcpStream, packet: &[u8]) -> bool {
    use std::io::{Read, Write};
    stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    stream.write_all(packet).is_err() || !stream.read(&mut [0; 1]).is_ok_and(|count| count > 0)
}

#[test]
fn psql_shows_what_the_house_holds() {
    let stage = Stage::new("");
    let mut client = stage.client();
    client.query("begin");
    let shown = |what: &str| {
        let (ok, text) = stage.psql("watcher", "w-secret", what);
        assert!(ok, "{text}");
        Shown::of(&text)
    };
    let pools = shown("SHOW POOLS");
    assert_eq!([pools.get("app", "cl_active"), pools.get("app", "sv_active")], ["1", "1"]);
    assert_eq!([pools.get("app", "user"), pools.get("app", "pool_mode")], ["postgres", "transaction"]);
    let clients = shown("show clients; -- all of them");
    assert_eq!([clients.get("app", "state"), clients.get("app", "application_name")], ["active", "billing"]);
    assert_eq!(clients.get("watcher", "database"), "pgbouncer");
    let servers = shown("/* and */ Show Servers");
    let pid = client.value("select pg_backend_pid()");
    assert_eq!([servers.get(&pid, "link"), servers.get(&pid, "state")], [clients.get("app", "ptr"), "active".into()]);
    assert_eq!(servers.get(&pid, "ptr"), clients.get("app", "link"));
    client.query("commit");
    assert_eq!(shown("show clients").get("app", "state"), "idle");
    assert_eq!(shown("show databases").get("app", "pool_size"), "4");
    assert_eq!(shown("show lists").get("databases", "items"), "1");
    assert_eq!(shown("show users").get("admin", "console"), "admin");
    assert_eq!(shown("show state").get("active", "value"), "yes");
    client.query("create temp table mine (x int)");
    let pins = shown("show pins");
    assert_eq!([pins.get("billing", "reasons"), pins.get("billing", "database")], ["temporary", "app"]);
    client.query("drop table mine");
    let config = stage.psql("watcher", "w-secret", "show config").1;
    assert!(config.contains("databases.app.pool.size|4|20") && !config.contains("secret"), "{config}");
    for what in ["sockets", "active_sockets", "mem", "dns_hosts", "dns_zones", "peers", "version", "users"] {
        let (ok, text) = stage.psql("watcher", "w-secret", &format!("show {what}"));
        assert!(ok && text.contains("row"), "{what}: {text}");
    }
    let (ok, text) = stage.psql("admin", "a-secret", "show help");
    assert!(ok && text.contains("NOTICE:  Console usage") && text.contains("KILL_CLIENT"), "{text}");
}

#[test]
fn only_those_who_are_named_come_in() {
    let stage = Stage::new("");
    let refused = |user: &str, password: &str, database: &str| {
        let error = Raw::try_login(stage.proxy.port(), user, password, database, &[]).err().unwrap();
        [field(&error, b'C'), field(&error, b'M')]
    };
    // As of any name that is not there, and not before the password was right.
    let [code, message] = refused("app", "secret", "pgweir");
    assert_eq!([code.as_str(), &message], ["3D000", "pgweir: database \"pgweir\" does not exist"]);
    assert_eq!(refused("app", "secret", "nope")[0], "3D000");
    assert_eq!(refused("admin", "wrong", "pgweir")[0], "28P01");
    assert_eq!(refused("nobody", "wrong", "pgweir")[0], "28P01");
}

#[test]
fn those_who_watch_change_nothing() {
    let stage = Stage::new("");
    let client = stage.client();
    let mut watcher = Raw::login(stage.proxy.port(), "watcher", "w-secret", "pgweir", &[]);
    for command in [
        "kill app",
        "kill",
        "kill_client 1",
        "pause",
        "resume",
        "reload",
        "reconnect",
        "disable app",
        "enable app",
        "suspend",
        "shutdown",
        "shutdown wait_for_clients",
        "wait_close",
        "set max_client_conn = 1",
        "show version; kill app",
    ] {
        assert!(watcher.query(command).ends_with("E:42501 Z:I"), "{command}");
        let both = [parse("", command), bind("", &[]), execute(), sync()];
        if !command.contains(';') {
            assert_eq!(watcher.talk(&both, 1), "1 2 E:42501 Z:I", "{command}");
        }
    }
    let mut client = client;
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn both_protocols_are_spoken() {
    let stage = Stage::new("");
    let mut admin = stage.admin();
    let version = format!("D:pgweir_{}", env!("CARGO_PKG_VERSION"));
    let shown = admin.query("show version").replace("pgweir ", "pgweir_");
    assert!(shown.starts_with(&format!("T {version}")), "{shown}");
    assert_eq!(admin.query(";"), "I Z:I");
    assert_eq!(admin.query("select 1"), "E:42601 Z:I");
    assert_eq!(admin.query("BEGIN"), "C:BEGIN Z:T");
    assert_eq!(admin.query("COMMIT"), "C:COMMIT Z:I");
    assert_eq!(admin.query("set extra_float_digits = 3"), "C:SET Z:I");
    assert_eq!(admin.query("set pool_size = 3"), "E:0A000 Z:I");
    let messages = [parse("s", "show lists"), statement(b'D', "s"), sync()];
    assert_eq!(admin.talk(&messages, 1), "1 t T Z:I");
    let rows = admin.talk(&[bind("s", &[]), execute(), sync()], 1);
    assert!(rows.starts_with("2 D:databases,1 D:users,3 "), "{rows}");
    // Numbers in binary, as drivers ask for that know the type.
    let binary = frame(b'B', b"\0s\0\0\0\0\0\0\x01\0\x01");
    admin.send(&[binary, execute(), sync()].concat());
    let first = admin.until_ready(1).into_iter().find(|(tag, _)| *tag == b'D').unwrap().1;
    assert!(first.ends_with(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]), "{first:?}");
    admin.send(&query("show nonsense"));
    let (_, error) = admin.until_ready(1).remove(0);
    assert!(field(&error, b'D').contains("SHOW ACTIVE_SOCKETS|CLIENTS"), "{}", field(&error, b'D'));
}

#[test]
fn a_client_is_killed_by_its_number() {
    let stage = Stage::new("");
    let (mut idle, mut busy) = (stage.client(), stage.client());
    busy.send(&query("select pg_sleep(60)"));
    let mut admin = stage.admin();
    let ids = |admin: &mut Raw| {
        admin.send(&query("show clients"));
        let rows = admin.until_ready(1).into_iter().filter(|(tag, _)| *tag == b'D');
        let text: Vec<String> = rows.map(|row| super::raw::shown(&[row])).collect();
        let of = |state: &str| {
            let row = text.iter().find(|row| row.contains(&format!(",app,none,{state},")));
            row.map(|row| row.rsplit(',').next().unwrap().to_owned())
        };
        (of("idle"), of("active"))
    };
    wait_until("one is idle, one is busy", || matches!(ids(&mut admin), (Some(_), Some(_))));
    let (of_idle, of_busy) = ids(&mut admin);
    for id in [of_idle.unwrap(), of_busy.unwrap()] {
        assert_eq!(admin.query(&format!("kill_client {id}")), "C:KILL_CLIENT Z:I");
    }
    for client in [&mut idle, &mut busy] {
        let (tag, body) = std::iter::from_fn(|| client.try_read()).find(|(tag, _)| *tag == b'E').unwrap();
        assert_eq!((tag, field(&body, b'C').as_str()), (b'E', "57P01"));
        assert_eq!(client.try_read(), None);
    }
    // What the busy one had asked for does not go on in the server.
    let mut other = stage.client();
    let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
    wait_until("its query is cancelled", || other.value(running) == "0");
    assert_eq!(admin.query("kill_client 999999"), "E:22023 Z:I");
}

#[test]
fn disabled_databases_turn_new_clients_away() {
    let stage = Stage::new("");
    let mut before = stage.client();
    let mut admin = stage.admin();
    assert_eq!(admin.query("disable app"), "C:DISABLE Z:I");
    let error = Raw::try_login(stage.proxy.port(), "app", "secret", "app", &[]).err().unwrap();
    assert_eq!(field(&error, b'C'), "57P03");
    assert_eq!(before.value("select 1"), "1");
    assert_eq!(admin.query("enable \"app\""), "C:ENABLE Z:I");
    assert_eq!(stage.client().value("select 2"), "2");
    assert_eq!(admin.query("disable nope"), "E:3D000 Z:I");
}

#[test]
fn reconnect_replaces_server_connections_when_they_are_free() {
    let stage = Stage::new("");
    let (mut client, mut admin) = (stage.client(), stage.admin());
    client.query("begin");
    let pid = client.value("select pg_backend_pid()");
    assert_eq!(admin.query("reconnect app"), "C:RECONNECT Z:I");
    // The transaction keeps what it has; WAIT_CLOSE waits for it.
    assert_eq!(client.value("select pg_backend_pid()"), pid);
    admin.send(&query("wait_close app"));
    client.query("commit");
    assert_eq!(super::raw::shown(&admin.until_ready(1)), "C:WAIT_CLOSE Z:I");
    assert_ne!(client.value("select pg_backend_pid()"), pid);
}

#[test]
fn what_passes_is_counted() {
    let stage = Stage::new("");
    let mut client = stage.client();
    for number in 0..5 {
        client.query(&format!("select 'a secret', {number}"));
    }
    client.query("begin; select * from generate_series(1, 7)");
    client.query("select 1/0");
    client.query("rollback");
    let messages = [parse("s", "select $1::int"), bind("s", &["1"]), execute(), bind("s", &["x"]), execute(), sync()];
    client.talk(&messages, 1);
    let shown = |what: &str| Shown::of(&stage.psql("watcher", "w-secret", what).1);
    let stats = shown("show stats");
    assert_eq!(stats.get("app", "total_query_count"), "9");
    // The block is one, its rollback ended it.
    assert_eq!(stats.get("app", "total_xact_count"), "7");
    assert_eq!(stats.get("app", "total_server_assignment_count"), "7");
    assert_eq!([stats.get("app", "total_client_parse_count"), stats.get("app", "total_bind_count")], ["1", "2"]);
    assert_eq!(stats.get("app", "total_error_count"), "2");
    for time in ["total_xact_time", "total_query_time", "total_received", "total_sent"] {
        assert_ne!(stats.get("app", time), "0", "{time}");
    }
    assert_eq!(shown("show stats_totals").get("app", "xact_count"), "7");
    assert!(shown("show stats_averages").0.len() == 2);
    assert_eq!(shown("show totals").get("total_xact_count", "value"), "7");
    let (_, text) = stage.psql("watcher", "w-secret", "show templates");
    assert!(!text.contains("secret"), "{text}");
    let templates = Shown::of(&text);
    assert_eq!(templates.get("SELECT ?, ?", "calls"), "5");
    assert_eq!(templates.get("SELECT ?, ?", "rows"), "5");
    assert_eq!(templates.get("BEGIN; SELECT * FROM generate_series(?, ?)", "rows"), "7");
    assert_eq!(templates.get("SELECT ? / ?", "errors"), "1");
    // Bind failed for the second one, so that it was never executed.
    assert_eq!(templates.get("SELECT ?::int", "calls"), "1");
}

#[test]
fn pause_lets_transactions_end_and_holds_back_new_ones() {
    let stage = Stage::new("");
    let (mut busy, mut idle, mut admin) = (stage.client(), stage.client(), stage.admin());
    busy.query("begin");
    let pid = busy.value("select pg_backend_pid()");
    admin.send(&query("pause app"));
    let mut watcher = Raw::login(stage.proxy.port(), "watcher", "w-secret", "pgweir", &[]);
    wait_until("the database is paused", || watcher.query("show databases").contains(",1,0,primary"));
    idle.send(&query("select 5"));
    // The transaction goes on to its end; only then is PAUSE done.
    assert_eq!(busy.value("select pg_backend_pid()"), pid);
    assert_eq!(busy.query("commit"), "C:COMMIT Z:I");
    assert_eq!(super::raw::shown(&admin.until_ready(1)), "C:PAUSE Z:I");
    let text = watcher.query("show pools");
    assert!(text.contains(",1,0,0,0,0,0,0,0,0,0,"), "one waits, no server connection is open: {text}");
    assert!(watcher.query("show state").contains("D:paused,yes"));
    assert_eq!(admin.query("resume app"), "C:RESUME Z:I");
    assert_eq!(super::raw::shown(&idle.until_ready(1)), "T D:5 C:SELECT_1 Z:I");
    assert_ne!(busy.value("select pg_backend_pid()"), pid);
}

#[test]
fn kill_drops_everybody_until_resume() {
    let stage = Stage::new("");
    let (mut one, mut two, mut admin) = (stage.client(), stage.client(), stage.admin());
    one.query("begin");
    two.send(&query("select pg_sleep(60)"));
    assert_eq!(admin.query("kill app"), "C:KILL Z:I");
    for client in [&mut one, &mut two] {
        let (_, body) = std::iter::from_fn(|| client.try_read()).find(|(tag, _)| *tag == b'E').unwrap();
        assert_eq!(field(&body, b'C'), "57P01");
    }
    assert!(admin.query("show clients").contains("pgweir"));
    assert_eq!(admin.query("resume"), "C:RESUME Z:I");
    assert_eq!(stage.client().value("select 1"), "1");
}

#[test]
fn the_configuration_is_read_again_and_the_process_ended() {
    let mut stage = Stage::new("");
    let (mut client, mut admin) = (stage.client(), stage.admin());
    let path = stage.proxy.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("size: 4", "size: nonsense")).unwrap();
    assert_eq!(admin.query("reload"), "E:F0000 Z:I");
    assert!(admin.query("show databases").contains(",4,"));
    std::fs::write(&path, text.replace("size: 4", "size: 7")).unwrap();
    assert_eq!(admin.query("reload"), "C:RELOAD Z:I");
    assert!(admin.query("show databases").contains(",7,"));
    assert_eq!(client.value("select 1"), "1");
    client.query("begin");
    assert_eq!(admin.query("shutdown wait_for_clients"), "E:0A000 Z:I");
    admin.send(&query("shutdown wait_for_servers"));
    // The transaction under way ends as it would have.
    wait_until("nobody comes in", || {
        std::net::TcpStream::connect(("127.0.0.1", stage.proxy.port())).map_or(true, |stream| {
            // Where the socket still takes connections, nobody answers.
            let packet = super::raw::startup("app", "app", &[]);
            silent(stream, &packet)
        })
    });
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    assert!(ends(stage.proxy.child(), std::time::Duration::from_secs(20)));
}

#[test]
fn whoever_leaves_the_console_does_not_wait_on() {
    let stage = Stage::new("");
    let mut busy = stage.client();
    busy.query("begin");
    let mut admin = stage.admin();
    admin.send(&query("pause"));
    let mut watcher = Raw::login(stage.proxy.port(), "watcher", "w-secret", "pgweir", &[]);
    wait_until("it is paused", || watcher.query("show databases").contains(",1,0,primary"));
    drop(admin);
    wait_until("the console's session ends", || !watcher.query("show clients").contains("admin"));
}
