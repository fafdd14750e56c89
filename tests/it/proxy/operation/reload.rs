//! A new configuration, while clients are connected.

use std::time::{Duration, Instant};

use pgweir::db::local::{Auth, Cluster, Options};

use crate::proxy::raw::{Raw, field, query};
use crate::support::Proxy;

/// Rewrites the configuration and says SIGHUP; gives what the log says to it.
fn reload(proxy: &mut Proxy, text: &str) -> String {
    let before = proxy.log().len();
    std::fs::write(proxy.config_path(), format!("listen: 127.0.0.1:{}\n{text}", proxy.port())).unwrap();
    let pid = proxy.child().id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    let started = Instant::now();
    loop {
        let said = proxy.log().split_off(before);
        if said.contains("configuration") {
            // All lines of it come at once.
            std::thread::sleep(Duration::from_millis(50));
            return proxy.log().split_off(before);
        }
        assert!(started.elapsed() < Duration::from_secs(20), "no word of the reload");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn database(name: &str, cluster: &Cluster, pool: &str) -> String {
    format!(
        "  {name}:\n    primary: \"postgres://postgres:postgres@127.0.0.1:{}/postgres?sslmode=disable\"\n    \
         pool: {pool}\n",
        cluster.port()
    )
}

fn scram() -> Cluster {
    Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap()
}

fn refused(proxy: &Proxy, user: &str, password: &str, name: &str) -> String {
    let error = Raw::try_login(proxy.port(), user, password, name, &[]).err();
    field(&error.expect("a refusal"), b'C')
}

#[test]
fn users_databases_and_pools_change_under_connected_clients() {
    let cluster = scram();
    let users = "users: {app: {password: secret}}\ndatabases:\n";
    let small = database("app", &cluster, "{size: 1, wait_timeout: 1s}");
    let gone = database("gone", &cluster, "{size: 2}");
    let mut proxy = Proxy::start(&format!("{users}{small}{gone}"));
    let mut a = Raw::login(proxy.port(), "app", "secret", "app", &[]);
    let mut b = Raw::login(proxy.port(), "app", "secret", "app", &[]);
    let mut stays = Raw::login(proxy.port(), "app", "secret", "gone", &[]);
    assert_eq!(a.query("begin"), "C:BEGIN Z:T");
    let pid = a.value("select pg_backend_pid()");
    b.send(&query("select 1"));
    assert_eq!(field(&b.read().1, b'C'), "53300");

    let users = "users: {app: {password: changed}, eve: {password: new}}\ndatabases:\n";
    let large = database("app", &cluster, "{size: 3, wait_timeout: 1s}");
    let fresh = database("fresh", &cluster, "{size: 1}");
    let said = reload(&mut proxy, &format!("{users}{large}{fresh}"));
    assert!(said.contains("databases.app.pool.size: 1 -> 3"), "{said}");

    assert_eq!(a.value("select pg_backend_pid()"), pid, "a transaction stays where it is");
    let mut c = Raw::login(proxy.port(), "eve", "new", "app", &[]);
    assert_eq!(c.value("select 1"), "1", "the pool has grown");
    assert_eq!(a.query("commit"), "C:COMMIT Z:I");
    assert_eq!(stays.value("select 5"), "5", "who is in a database that was removed may finish");
    assert_eq!(refused(&proxy, "app", "changed", "gone"), "3D000");
    assert_eq!(refused(&proxy, "app", "secret", "app"), "28P01");
    assert_eq!(Raw::login(proxy.port(), "app", "changed", "fresh", &[]).value("select 2"), "2");

    let said = reload(&mut proxy, "users: {app: {password: again}}\ndatabases: {app: {pool: {size: 0}}}\n");
    assert!(said.contains("stays as it was") && said.contains("pgweir.yaml:3"), "{said}");
    assert_eq!(a.value("select 3"), "3");
    assert_eq!(Raw::login(proxy.port(), "app", "changed", "app", &[]).value("select 4"), "4");
}

#[test]
fn new_transactions_go_to_the_new_server() {
    let (first, second) = (scram(), scram());
    let text = |cluster: &Cluster| {
        format!("users: {{app: {{password: secret}}}}\ndatabases:\n{}", database("app", cluster, "{size: 4}"))
    };
    let mut proxy = Proxy::start(&text(&first));
    let port = "select setting from pg_settings where name = 'port'";
    let mut idle = Raw::login(proxy.port(), "app", "secret", "app", &[("application_name", "carried")]);
    let mut busy = Raw::login(proxy.port(), "app", "secret", "app", &[]);
    assert_eq!(idle.value(port), first.port().to_string());
    assert_eq!(idle.query("set work_mem = '7MB'"), "C:SET Z:I");
    assert_eq!(busy.query("begin"), "C:BEGIN Z:T");
    reload(&mut proxy, &text(&second));
    assert_eq!(idle.value(port), second.port().to_string());
    assert_eq!(idle.value("show work_mem"), "7MB");
    assert_eq!(idle.value("show application_name"), "carried");
    assert_eq!(busy.value(port), first.port().to_string());
    assert_eq!(busy.query("commit"), "C:COMMIT Z:I");
    assert_eq!(busy.value(port), second.port().to_string());
    // The old server's connections are gone soon.
    let started = Instant::now();
    let left =
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    while first.query("postgres", left).unwrap()[0][0].as_deref() != Some("0") {
        assert!(started.elapsed() < Duration::from_secs(20), "connections to the old server stay open");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn listeners_come_and_go() {
    let cluster = scram();
    let rest = format!("users: {{app: {{password: secret}}}}\ndatabases:\n{}", database("app", &cluster, "{size: 2}"));
    let mut proxy = Proxy::start(&rest);
    let mut client = Raw::login(proxy.port(), "app", "secret", "app", &[]);
    let other = pgweir::db::local::free_port().unwrap();
    let path = proxy.config_path();
    let pid = proxy.child().id().to_string();
    let hangup = |text: String| {
        std::fs::write(&path, text).unwrap();
        assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    let connects = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let until = |done: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    hangup(format!("listen: [\"127.0.0.1:{}\", \"127.0.0.1:{other}\"]\n{rest}", proxy.port()));
    until(&|| connects(other));
    assert_eq!(Raw::login(other, "app", "secret", "app", &[]).value("select 1"), "1");
    hangup(format!("listen: 127.0.0.1:{other}\n{rest}"));
    until(&|| !connects(proxy.port()));
    assert_eq!(client.value("select 2"), "2", "who came by the old address stays");
}
