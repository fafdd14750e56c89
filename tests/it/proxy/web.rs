//! Metrics, health and readiness over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pgweir::db::local::{Auth, Cluster, Options};

use super::raw::Raw;
use crate::support::{Proxy, listens};

/// The status line and everything behind it.
pub fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn start(server: u16) -> (Proxy, u16) {
    let admin = pgweir::db::local::free_port().unwrap();
    let proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:{admin}\nusers: {{app: {{password: secret}}}}\ndatabases:\n  app:\n    \
         primary: \"postgres://postgres:postgres@127.0.0.1:{server}/postgres?sslmode=disable\"\n    \
         pool: {{size: 2, wait_timeout: 2s}}\n"
    ));
    assert!(listens(([127, 0, 0, 1], admin).into(), Duration::from_secs(20)));
    (proxy, admin)
}

/// The value of the sample that begins so.
fn sample(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series}: {text}"));
    line.trim().parse().unwrap()
}

#[test]
fn metrics_follow_what_clients_do() {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    let (proxy, admin) = start(cluster.port());
    let mut client = Raw::login(proxy.port(), "app", "secret", "app", &[]);
    for _ in 0..70 {
        assert_eq!(client.value("select 1"), "1");
    }
    client.query("select 1/0");
    client.query("begin");
    // A worker counts when it has answered.
    let mut text = String::new();
    crate::support::wait_until("all is counted", || {
        text = get(admin, "/metrics");
        text.contains("pgweir_query_seconds_count{database=\"app\"} 72\n")
    });
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(sample(&text, "pgweir_clients{database=\"app\",user=\"app\",state=\"active\"}"), 1.0);
    let queries =
        |outcome: &str| format!("pgweir_queries_total{{database=\"app\",tier=\"direct\",outcome=\"{outcome}\"}}");
    assert_eq!(sample(&text, &queries("ok")), 71.0);
    assert_eq!(sample(&text, &queries("error")), 1.0);
    assert_eq!(sample(&text, "pgweir_errors_total{database=\"app\",source=\"server\",sqlstate=\"22012\"}"), 1.0);
    assert_eq!(sample(&text, "pgweir_query_seconds_count{database=\"app\"}"), 72.0);
    assert!(sample(&text, "pgweir_own_seconds_count{database=\"app\"}") >= 1.0);
    for (side, direction) in [("client", "in"), ("client", "out"), ("server", "in"), ("server", "out")] {
        let series = format!("pgweir_bytes_total{{database=\"app\",side=\"{side}\",direction=\"{direction}\"}}");
        assert!(sample(&text, &series) > 700.0, "{series}");
    }
    assert!(sample(&text, "process_cpu_seconds_total") < 60.0);
    assert!(!text.contains("secret"));
}

#[test]
fn readiness_says_what_is_missing() {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    let (proxy, admin) = start(cluster.port());
    assert!(get(admin, "/healthz").ends_with("\r\n\r\nok\n"));
    assert!(get(admin, "/readyz").starts_with("HTTP/1.1 200"));
    drop(proxy);
    // Nobody listens there. Before anybody has tried, the server may be fine.
    let nobody = pgweir::db::local::free_port().unwrap();
    let (proxy, admin) = start(nobody);
    assert!(get(admin, "/readyz").contains("\"ready\":true"));
    assert!(Raw::try_login(proxy.port(), "app", "secret", "app", &[]).is_err());
    let text = get(admin, "/readyz");
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("app: the server 127.0.0.1"), "{text}");
    assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn nobody_holds_the_address() {
    let (_proxy, admin) = start(pgweir::db::local::free_port().unwrap());
    // Far more than are served at once, and none of them asks for anything.
    let mut held: Vec<_> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", admin)).unwrap()).collect();
    held[0].write_all(b"GET /metrics HTTP/1.1\r\nx: ").unwrap();
    held[1].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Too long a request is cut off at once.
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n", "y".repeat(100_000));
    let _ = held[1].write_all(long.as_bytes());
    let mut rest = Vec::new();
    let _ = held[1].read_to_end(&mut rest);
    assert!(get(admin, "/healthz").ends_with("ok\n"), "answered when the others' time is over");
    assert!(get(admin, "/nothing").starts_with("HTTP/1.1 404"));
}

/// Queries of a sharded database are counted by where they went, with their errors and times.
#[test]
fn queries_over_shards_are_counted_by_where_they_went() {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    cluster.query("postgres", "create database other").unwrap();
    let admin = pgweir::db::local::free_port().unwrap();
    let shard = |name: &str, database: &str| {
        let port = cluster.port();
        format!(
            "{{name: {name}, primary: \"postgres://postgres:postgres@127.0.0.1:{port}/{database}?sslmode=disable\"}}"
        )
    };
    let proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:{admin}\nusers: {{app: {{password: secret}}}}\ndatabases:\n  shop:\n    shards: [{}, {}]\n    \
         commit: best-effort\n    pool: {{size: 2}}\n    sharding: {{tables: {{t: {{key: id}}}}}}\n",
        shard("a", "postgres"),
        shard("b", "other")
    ));
    let mut raw = Raw::login(proxy.port(), "app", "secret", "shop", &[]);
    raw.query("create table t (id int primary key, n int)");
    for id in 1..=4 {
        raw.query(&format!("insert into t values ({id}, 0)"));
    }
    raw.query("select n from t");
    raw.query("select sum(n) from t");
    raw.query("select ctid from t");
    raw.query("select 1 / n from t where id = 1");
    let messages = [super::raw::parse("", "select n from t where id = $1"), super::raw::bind("", &["2"])].concat();
    raw.talk(&[messages, super::raw::execute(), super::raw::sync()], 1);
    for sql in ["begin", "update t set n = 1 where id = 3", "commit"] {
        raw.query(sql);
    }
    assert!(listens(([127, 0, 0, 1], admin).into(), Duration::from_secs(20)));
    let text = get(admin, "/metrics");
    let count = |tier: &str, outcome: &str| {
        sample(&text, &format!("pgweir_queries_total{{database=\"shop\",tier=\"{tier}\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!((count("single", "ok"), count("single", "error")), (6.0, 1.0), "{text}");
    assert_eq!((count("several", "ok"), count("refused", "error")), (2.0, 1.0));
    assert_eq!((count("all", "ok"), count("control", "ok")), (1.0, 2.0));
    assert_eq!(sample(&text, "pgweir_query_seconds_count{database=\"shop\"}"), 13.0);
    assert_eq!(sample(&text, "pgweir_errors_total{database=\"shop\",source=\"server\",sqlstate=\"22012\"}"), 1.0);
    assert_eq!(sample(&text, "pgweir_errors_total{database=\"shop\",source=\"pgweir\",sqlstate=\"0A000\"}"), 1.0);
}
