//! What a client may take: time, places, connections.

use std::time::{Duration, Instant};

use pgweir::db::local::{Auth, Cluster, Options};

use crate::proxy::raw::{Raw, bind, execute, field, parse, query, sync};
use crate::support::Proxy;

struct Stage {
    proxy: Proxy,
    cluster: Cluster,
}

impl Stage {
    /// One database with one server, one on two shards, and these settings besides.
    fn new(more: &str, pool: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        cluster.query("postgres", "create database other").unwrap();
        for database in ["postgres", "other"] {
            cluster.query(database, "create table notes (id int, body text)").unwrap();
        }
        let url = |name: &str| {
            format!("\"postgres://postgres:postgres@127.0.0.1:{}/{name}?sslmode=disable\"", cluster.port())
        };
        let proxy = Proxy::start(&format!(
            "{more}\nusers: {{app: {{password: secret, max_clients: 3}}, eve: {{password: other}}}}\ndatabases:\n  \
             app: {{primary: {}, pool: {pool}, max_clients: 4}}\n  \
             shop: {{shards: [{{name: a, primary: {}}}, {{name: b, primary: {}}}], pool: {pool}, \
             sharding: {{tables: {{notes: {{key: id}}}}}}}}\n",
            url("postgres"),
            url("postgres"),
            url("other")
        ));
        Self { proxy, cluster }
    }

    fn client(&self, database: &str) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", database, &[])
    }

    /// Server connections of the proxy that are in use.
    fn busy(&self) -> String {
        let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
                   and pid <> pg_backend_pid() and state <> 'idle'";
        self.cluster.query("postgres", sql).unwrap()[0][0].clone().unwrap()
    }

    fn until_none_is_busy(&self) {
        let started = Instant::now();
        while self.busy() != "0" {
            assert!(started.elapsed() < Duration::from_secs(20), "something goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Code and message of the error that comes next.
fn error(client: &mut Raw) -> (String, String) {
    // A description of rows may come before, and answers to Parse and Bind.
    let (tag, body) = std::iter::repeat_with(|| client.read()).find(|(tag, _)| !b"T12".contains(tag)).unwrap();
    assert_eq!(tag, b'E', "{}", String::from_utf8_lossy(&body));
    (field(&body, b'C'), field(&body, b'M'))
}

#[test]
fn an_idle_transaction_ends() {
    let stage = Stage::new("limits: {idle_in_transaction_timeout: 1s}", "{size: 2}");
    for database in ["app", "shop"] {
        let (mut holds, mut works, mut rests) =
            (stage.client(database), stage.client(database), stage.client(database));
        rests.query("select 1");
        assert_eq!(holds.query("begin"), "C:BEGIN Z:T");
        holds.query("insert into notes values (1, 'a')");
        works.query("begin");
        let until = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < until {
            assert_eq!(works.value("select 2"), "2", "who works in its transaction goes on");
            std::thread::sleep(Duration::from_millis(100));
        }
        let (code, message) = error(&mut holds);
        assert_eq!(code, "25P03");
        assert!(message.contains("limits.idle_in_transaction_timeout"), "{message}");
        assert_eq!(holds.try_read(), None);
        assert_eq!(works.query("commit"), "C:COMMIT Z:I");
        stage.until_none_is_busy();
        assert_eq!(rests.value("select 3"), "3", "{database}: who rests outside a transaction stays");
    }
    for database in ["postgres", "other"] {
        let count = stage.cluster.query(database, "select count(*) from notes").unwrap();
        assert_eq!(count[0][0].as_deref(), Some("0"), "it was rolled back");
    }
}

#[test]
fn a_long_query_is_cancelled() {
    let stage = Stage::new("limits: {query_timeout: 1s}", "{size: 2}");
    for (database, long) in
        [("app", "select pg_sleep(60)"), ("shop", "select id, pg_sleep(60) from notes where id = 1")]
    {
        for name in ["postgres", "other"] {
            stage.cluster.query(name, "delete from notes").unwrap();
            stage.cluster.query(name, "insert into notes values (1, 'a')").unwrap();
        }
        let mut client = stage.client(database);
        let started = Instant::now();
        client.send(&query(long));
        let (code, message) = error(&mut client);
        assert_eq!(code, "57014", "{database}: {message}");
        assert_eq!(message, "pgweir: the statement took longer than limits.query_timeout", "{database}");
        assert!(started.elapsed() < Duration::from_secs(15));
        assert_eq!(client.read(), (b'Z', b"I".to_vec()));
        assert_eq!(client.value("select 1"), "1", "the client goes on");
        stage.until_none_is_busy();
    }
    let mut client = stage.client("app");
    client.query("begin");
    client.send(&[parse("", "select pg_sleep(60)"), bind("", &[]), execute(), sync()].concat());
    assert_eq!(error(&mut client).0, "57014");
    assert_eq!(client.read(), (b'Z', b"E".to_vec()));
    assert_eq!(client.query("rollback"), "C:ROLLBACK Z:I");
}

#[test]
fn clients_and_transactions_do_not_last_forever() {
    let stage = Stage::new("limits: {transaction_timeout: 2s, client_idle_timeout: 1s}", "{size: 2}");
    for database in ["app", "shop"] {
        let (mut busy, mut idle) = (stage.client(database), stage.client(database));
        assert_eq!(busy.query("begin"), "C:BEGIN Z:T");
        let started = Instant::now();
        let ended = loop {
            busy.send(&query("select 1"));
            let (tag, body) = busy.read();
            if tag == b'E' {
                break field(&body, b'C');
            }
            busy.until_ready(1);
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(ended, "25P04", "{database}");
        assert_eq!(error(&mut idle).0, "57P05", "{database}");
        stage.until_none_is_busy();
    }
}

#[test]
fn places_are_counted_by_user_and_database() {
    let stage = Stage::new("", "{size: 2}");
    let refusal = |user: &str, password: &str| {
        let error = Raw::try_login(stage.proxy.port(), user, password, "app", &[]).err().expect("a refusal");
        (field(&error, b'C'), field(&error, b'H'))
    };
    let mut apps: Vec<Raw> = (0..3).map(|_| stage.client("app")).collect();
    assert_eq!(refusal("app", "secret"), ("53300".to_owned(), "raise users.app.max_clients".to_owned()));
    let eve = Raw::login(stage.proxy.port(), "eve", "other", "app", &[]);
    assert_eq!(refusal("eve", "other"), ("53300".to_owned(), "raise databases.app.max_clients".to_owned()));
    // Who is refused is not counted, and who leaves is no more.
    assert_eq!(apps[0].value("select 1"), "1");
    drop((eve, apps.pop()));
    let started = Instant::now();
    while Raw::try_login(stage.proxy.port(), "app", "secret", "app", &[]).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_pool_keeps_its_least_size() {
    let stage = Stage::new("", "{size: 4, min_size: 2, idle_timeout: 1s}");
    let open = || {
        let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() \
                   and datname = 'other'";
        stage.cluster.query("postgres", sql).unwrap()[0][0].clone().unwrap()
    };
    let until = |wanted: &str| {
        let started = Instant::now();
        while open() != wanted {
            assert!(started.elapsed() < Duration::from_secs(20), "{} open, not {wanted}", open());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // Before anybody has come, and again after they were lost.
    until("2");
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'other'";
    stage.cluster.query("postgres", kill).unwrap();
    until("0");
    until("2");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(open(), "2", "they are not too old to be kept");
}
