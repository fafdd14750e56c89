//! Servers that are busy, down, or come back; and the proxy's own end.

use std::time::{Duration, Instant};

use pgweir::db::local::{Auth, Cluster, Options, Shutdown};

use super::Stage;
use super::raw::{Raw, field, query, shown};
use crate::support::{Proxy, ends};

#[test]
fn an_exhausted_pool_says_so() {
    let stage = Stage::new(1);
    let (mut a, mut b) = (stage.client(), stage.client());
    a.query("begin");
    let asked = Instant::now();
    b.send(&query("select 1"));
    let (tag, body) = b.read();
    assert_eq!((tag, field(&body, b'C').as_str()), (b'E', "53300"));
    assert!(field(&body, b'M').starts_with("pgweir: no server connection"));
    assert!((1500..4000).contains(&asked.elapsed().as_millis()));
    assert_eq!(a.query("commit"), "C:COMMIT Z:I");
    assert_eq!(stage.client().value("select 1"), "1");
}

#[test]
fn zero_is_no_limit() {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    let none = "wait_timeout: 0, idle_timeout: 0, lifetime: 0, connect_timeout: 0";
    let text = super::config(&cluster, 1).replace("wait_timeout: 2s", none);
    let limits = ["login", "idle_in_transaction", "query", "transaction", "client_idle"]
        .map(|name| format!("{name}_timeout: 0"));
    let proxy = Proxy::start(&format!("limits: {{{}}}\n{text}", limits.join(", ")));
    let client = || Raw::login(proxy.port(), "app", "secret", "app", &[]);
    let (mut a, mut b) = (client(), client());
    let server = a.value("select pg_backend_pid()");
    a.query("begin");
    b.send(&query("select pg_backend_pid()"));
    // Longer than limits of no time at all would be noticed.
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(a.query("commit"), "C:COMMIT Z:I");
    assert_eq!(shown(&b.until_ready(1)), format!("T D:{server} C:SELECT_1 Z:I"));
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(
        b.value("select pg_backend_pid()"),
        server,
        "the connection was neither unused for too long nor too old"
    );
    assert_eq!(client().value("select pg_sleep(0.6) is not null"), "t");
}

#[test]
fn a_restarted_server_is_used_again_at_once() {
    let mut stage = Stage::new(2);
    let mut a = stage.client();
    assert_eq!(a.value("select 1"), "1");
    stage.cluster.stop(Shutdown::Immediate).unwrap();
    let error = Raw::try_login(stage.proxy.port(), "app", "secret", "app", &[("application_name", "new")]).err();
    assert_eq!(field(&error.expect("the server is down"), b'C'), "08006");
    stage.cluster.start_again().unwrap();
    let asked = Instant::now();
    // A client that was idle notices nothing.
    assert_eq!(a.value("select 2"), "2");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(stage.client().value("select 3"), "3");
}

#[test]
fn a_killed_backend_is_told_and_replaced() {
    let stage = Stage::new(2);
    let (mut a, mut b) = (stage.client(), stage.client());
    a.query("begin");
    let pid = a.value("select pg_backend_pid()");
    assert_eq!(b.value(&format!("select pg_terminate_backend({pid}, 5000)")), "t");
    // The server's own words, byte for byte.
    assert_eq!(field(&a.read().1, b'C'), "57P01");
    assert_eq!(a.try_read(), None);
    assert_eq!(stage.client().value("select 1"), "1");
}

#[test]
fn sigterm_lets_transactions_finish() {
    let mut stage = Stage::new(2);
    let (mut idle, mut busy) = (stage.client(), stage.client());
    idle.query("select 1");
    busy.query("begin");
    let pid = stage.proxy.child().id();
    let sent = std::process::Command::new("kill").arg(pid.to_string()).status().unwrap();
    assert!(sent.success());
    assert_eq!(field(&idle.read().1, b'C'), "57P01");
    assert_eq!(busy.value("select 'still here'"), "still");
    busy.send(&query("commit"));
    assert_eq!(shown(&busy.until_ready(1)), "C:COMMIT Z:I");
    assert_eq!(field(&busy.read().1, b'C'), "57P01");
    assert!(ends(stage.proxy.child(), Duration::from_secs(10)));
}

#[test]
fn a_proxy_without_clients_ends_at_once() {
    for signal in ["-TERM", "-INT"] {
        let mut stage = Stage::new(1);
        drop(stage.client());
        let pid = stage.proxy.child().id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert!(ends(stage.proxy.child(), Duration::from_secs(5)), "{signal}");
    }
}
