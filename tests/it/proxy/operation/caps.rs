//! Limits on server connections that pools share: nobody gets more, and everybody gets on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgweir::db::local::{Auth, Cluster, Options};

use crate::proxy::raw::{Raw, field, query, shown};
use crate::support::Proxy;

struct Stage {
    proxy: Proxy,
    cluster: Cluster,
}

impl Stage {
    /// Two databases; clients are to the server who they are to the proxy. `limits` is added to the configuration, `app` to
    /// the first database.
    fn new(limits: &str, app: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        cluster.query("postgres", "create database other").unwrap();
        for name in ["ann", "bob"] {
            cluster.query("postgres", &format!("create role {name} login password 'secret'")).unwrap();
        }
        let port = cluster.port();
        let proxy = Proxy::start(&format!(
            "{limits}\nadmin_users: [ann]\nusers: {{ann: {{password: secret}}, bob: {{password: secret}}}}\ndatabases:\n  \
             app: {{primary: \"postgres://127.0.0.1:{port}/postgres?sslmode=disable\", {app}}}\n  \
             other: {{primary: \"postgres://127.0.0.1:{port}/other?sslmode=disable\", {app}}}\n"
        ));
        Self { proxy, cluster }
    }

    fn client(&self, user: &str, database: &str) -> Raw {
        Raw::login(self.proxy.port(), user, "secret", database, &[])
    }

    /// Server connections, of which those that are being closed may still be there for a moment.
    fn open(&self) -> usize {
        let sql = "select count(*) from pg_stat_activity where usename in ('ann', 'bob')";
        self.cluster.query("postgres", sql).unwrap()[0][0].clone().unwrap().parse().unwrap()
    }

    fn settles_at(&self, most: usize) {
        let since = Instant::now();
        while self.open() > most {
            assert!(since.elapsed() < Duration::from_secs(10), "{} connections are open", self.open());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Each of these has several clients that query at once; gives the most connections that were seen.
    fn hammer(&self, who: &[(&str, &str)], rounds: usize) -> usize {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let threads: Vec<_> = who
                .iter()
                .flat_map(|who| [*who; 4])
                .map(|(user, database)| {
                    let mut client = self.client(user, database);
                    scope.spawn(move || {
                        for round in 0..rounds {
                            assert_eq!(client.value(&format!("select {round}, pg_sleep(0.001)")), format!("{round},"));
                        }
                    })
                })
                .collect();
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(self.open());
                    std::thread::sleep(Duration::from_millis(5));
                }
                most
            });
            let done: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            over.store(true, Ordering::Relaxed);
            assert!(done.iter().all(Result::is_ok));
            watch.join().unwrap()
        })
    }
}

#[test]
fn an_unused_connection_makes_room_for_another_user() {
    let stage = Stage::new("", "max_connections: 2, pool: {size: 5, wait_timeout: 6s}");
    let (mut first, mut second) = (stage.client("ann", "app"), stage.client("ann", "app"));
    for client in [&mut first, &mut second] {
        assert_eq!(client.query("begin"), "C:BEGIN Z:T");
    }
    for client in [&mut first, &mut second] {
        assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    }
    assert_eq!(stage.open(), 2);
    let (since, mut bob) = (Instant::now(), stage.client("bob", "app"));
    assert_eq!(bob.value("select current_user::text"), "bob");
    assert!(since.elapsed() < Duration::from_secs(4), "it took {:?}", since.elapsed());
    stage.settles_at(2);
    // Another database has a limit of its own.
    assert_eq!(stage.client("bob", "other").value("select 1"), "1");
}

#[test]
fn who_has_waited_for_longest_is_next() {
    let stage = Stage::new("", "max_connections: 1, pool: {size: 5, wait_timeout: 8s}");
    let (mut bob, mut ann, mut late) =
        (stage.client("bob", "app"), stage.client("ann", "app"), stage.client("ann", "app"));
    ann.query("begin");
    let when = "select extract(epoch from clock_timestamp())";
    bob.send(&query(when));
    std::thread::sleep(Duration::from_millis(500));
    late.send(&query(when));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(stage.open(), 1);
    // The connection that is given back could serve `late` at once; it is closed for who came before.
    assert_eq!(ann.query("commit"), "C:COMMIT Z:I");
    let [first, second] = [&mut bob, &mut late].map(|client| {
        let heard = shown(&client.until_ready(1));
        heard.split("D:").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok()).expect(&heard)
    });
    assert!(first < second, "{first} {second}");
    stage.settles_at(1);
}

#[test]
fn an_exhausted_limit_says_so() {
    let stage = Stage::new("", "max_connections: 1, pool: {size: 5, wait_timeout: 500ms}");
    let (mut bob, mut ann) = (stage.client("bob", "app"), stage.client("ann", "app"));
    ann.query("begin");
    bob.send(&query("select 1"));
    let (tag, body) = bob.read();
    assert_eq!((tag, field(&body, b'C').as_str()), (b'E', "53300"));
    assert!(field(&body, b'H').contains("max_connections"), "{}", field(&body, b'H'));
    ann.query("commit");
    assert_eq!(stage.client("bob", "app").value("select 1"), "1");
    // Nobody is left in the queue for what is gone.
    assert_eq!(ann.value("select 2"), "2");
    let mut console = stage.client("ann", "pgweir");
    let databases = console.query("show databases");
    assert!(databases.contains("app,127.0.0.1,"), "{databases}");
}

#[test]
fn everybody_gets_on_within_limits_that_cross() {
    for (limits, app, most) in [
        ("", "max_connections: 2, pool: {size: 3}", 4),
        ("limits: {max_user_connections: 2}", "pool: {size: 3}", 4),
        ("limits: {max_user_connections: 1}", "max_connections: 1, pool: {size: 2}", 2),
    ] {
        let stage = Stage::new(limits, app);
        let seen = stage.hammer(&[("ann", "app"), ("bob", "app"), ("ann", "other"), ("bob", "other")], 8);
        // Those that are about to end are seen, too.
        assert!(seen <= most + 3, "{seen} connections where there may be {most}: {limits} {app}");
        stage.settles_at(most);
    }
}

#[test]
fn a_connection_may_serve_one_client_only() {
    for (mode, each) in [("transaction", true), ("session", false)] {
        let stage = Stage::new("", &format!("pool: {{size: 1, reuse: false, mode: {mode}}}"));
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut client = stage.client("ann", "app");
            let pids = [client.value("select pg_backend_pid()"), client.value("select pg_backend_pid()")];
            assert_eq!(pids[0] != pids[1], each, "{mode}");
            assert!(pids.iter().all(|pid| !seen.contains(pid)), "{mode}");
            seen.extend(pids);
            client.send(b"X\0\0\0\x04");
        }
    }
}
