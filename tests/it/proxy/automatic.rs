//! `databases: "*"`: databases that the configuration does not name.

use std::time::{Duration, Instant};

use pgweir::db::local::{Auth, Cluster, Options};

use super::raw::{Raw, bind, execute, field, parse, sync};
use crate::support::Proxy;

struct Stage {
    proxy: Proxy,
    cluster: Cluster,
}

fn config(cluster: &Cluster, more: &str) -> String {
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}", cluster.port());
    format!(
        "users: {{app: {{password: secret}}, root: {{password: secret}}}}\nadmin_users: [root]\ndatabases:\n  \
         named: {{primary: \"{url}/one?sslmode=disable\"}}\n  \
         \"*\": {{primary: \"{url}?sslmode=disable\", {more}}}\n"
    )
}

impl Stage {
    fn new(more: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        for name in ["one", "two", "three"] {
            cluster.query("postgres", &format!("create database {name}")).unwrap();
        }
        let proxy = Proxy::start(&config(&cluster, more));
        Self { proxy, cluster }
    }

    fn client(&self, database: &str) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", database, &[])
    }

    fn refused(&self, password: &str, database: &str) -> [String; 2] {
        let error = Raw::try_login(self.proxy.port(), "app", password, database, &[]).err().expect("it is refused");
        [field(&error, b'C'), field(&error, b'M')]
    }

    /// The databases that the console shows.
    fn shown(&self) -> Vec<String> {
        let mut console = Raw::login(self.proxy.port(), "root", "secret", "pgweir", &[]);
        let text = console.query("show databases");
        text.split(' ').filter_map(|part| part.strip_prefix("D:")?.split(',').next()).map(str::to_owned).collect()
    }

    /// Waits until the console shows exactly these.
    fn shows(&self, names: &[&str]) {
        let since = Instant::now();
        while self.shown() != names {
            assert!(since.elapsed() < Duration::from_secs(15), "{:?} instead of {names:?}", self.shown());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn any_database_is_served_by_its_name() {
    let stage = Stage::new("max_clients: 2");
    let current = "select current_database()";
    assert_eq!(stage.client("named").value(current), "one");
    let (mut two, mut again) = (stage.client("two"), stage.client("two"));
    assert_eq!([two.value(current), again.value(current)], ["two", "two"]);
    assert_eq!(stage.refused("secret", "two")[0], "53300", "max_clients is for each of them");
    assert_eq!(stage.client("three").value(current), "three");
    assert_eq!(stage.shown(), ["named", "three", "two"]);

    // The server's own word for what is not there, and nothing of it stays.
    let [code, message] = stage.refused("secret", "nowhere");
    assert_eq!((code.as_str(), message.as_str()), ("3D000", "pgweir: database \"nowhere\" does not exist"));
    assert_eq!(stage.refused("secret", "*")[0], "3D000");
    stage.shows(&["named", "three", "two"]);
    // Who does not know the password does not learn which is which.
    assert_eq!(stage.refused("wrong", "nowhere"), stage.refused("wrong", "named"));

    let mut console = Raw::login(stage.proxy.port(), "root", "secret", "pgweir", &[]);
    assert_eq!(console.query("disable two"), "C:DISABLE Z:I");
    assert_eq!(stage.refused("secret", "two")[0], "57P03");
}

#[test]
fn they_are_few_and_end_unused() {
    let stage = Stage::new("max_databases: 2, unused_timeout: 300ms");
    let (mut one, two) = (stage.client("one"), stage.client("two"));
    assert_eq!(stage.refused("secret", "three")[0], "53300");
    drop(two);
    // The place of one that nobody uses is free, whenever it ends.
    let since = Instant::now();
    let mut three = loop {
        match Raw::try_login(stage.proxy.port(), "app", "secret", "three", &[]) {
            Ok(client) => break client,
            Err(error) => assert_eq!(field(&error, b'C'), "53300"),
        }
        assert!(since.elapsed() < Duration::from_secs(10), "its place is not given away");
    };
    assert_eq!(three.value("select current_database()"), "three");
    drop(three);
    stage.shows(&["named", "one"]);
    // Its connections end with it.
    let open = "select count(*) from pg_stat_activity where datname = 'three'";
    while stage.cluster.query("postgres", open).unwrap()[0][0].as_deref() != Some("0") {
        assert!(since.elapsed() < Duration::from_secs(20), "connections of nobody stay open");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(one.value("select current_database()"), "one");
    assert_eq!(stage.client("three").value("select current_database()"), "three");
}

#[test]
fn they_outlive_a_reload_and_follow_it() {
    let stage = Stage::new("unused_timeout: 0, pool: {size: 1}");
    let mut two = stage.client("two");
    let server = two.value("select pg_backend_pid()");
    let reload = |text: &str| {
        std::fs::write(stage.proxy.config_path(), text).unwrap();
        let mut console = Raw::login(stage.proxy.port(), "root", "secret", "pgweir", &[]);
        assert_eq!(console.query("reload"), "C:RELOAD Z:I");
    };
    let listen = format!("listen: \"127.0.0.1:{}\"\n", stage.proxy.port());
    let text = listen + &config(&stage.cluster, "max_clients: 7, pool: {size: 1}");
    reload(&text);
    assert_eq!(two.value("select pg_backend_pid()"), server, "its connection goes on");
    // Named by now, and for somewhere else: the client follows.
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/three?sslmode=disable", stage.cluster.port());
    reload(&format!("{text}  two: {{primary: \"{url}\"}}\n"));
    assert_eq!(two.value("select current_database()"), "three");
    assert_eq!(stage.shown(), ["named", "two"]);
    // And no more of them, but those who are there go on.
    let mut one = stage.client("one");
    reload(text.split("  \"*\"").next().unwrap());
    assert_eq!(one.value("select current_database()"), "one");
    assert_eq!(stage.refused("secret", "three")[0], "3D000");
}

#[test]
fn a_database_can_be_dropped_and_copied_while_the_pool_is_open_to_it() {
    let stage = Stage::new("pool: {size: 3, min_size: 1}");
    let mut boss = stage.client("postgres");
    for name in ["two", "three"] {
        let (mut a, mut b) = (stage.client(name), stage.client(name));
        a.query("begin");
        assert_eq!(b.query("create table if not exists t (x int)"), "C:CREATE_TABLE Z:I");
        assert_eq!(a.query("commit"), "C:COMMIT Z:I");
    }
    assert_eq!(boss.query("create database copy template two"), "C:CREATE_DATABASE Z:I");
    assert_eq!(stage.client("copy").value("select count(*) from t"), "0");
    assert_eq!(boss.query("alter database copy rename to again"), "C:ALTER_DATABASE Z:I");
    assert_eq!(stage.client("again").value("select count(*) from t"), "0");
    let drop = |name: &str| [parse("", &format!("drop database \"{name}\"")), bind("", &[]), execute(), sync()];
    assert_eq!(boss.talk(&drop("again"), 1), "1 2 C:DROP_DATABASE Z:I");
    // A client that is in a transaction there is in the way, as it would be without a pool; one that has ended its own is not.
    let mut busy = stage.client("three");
    assert_eq!(busy.query("begin"), "C:BEGIN Z:T");
    assert_eq!(boss.query("drop database three"), "E:55006 Z:I");
    assert_eq!(busy.query("commit"), "C:COMMIT Z:I");
    assert_eq!(boss.query("drop database if exists three"), "C:DROP_DATABASE Z:I");
    assert_eq!(stage.client("two").value("select count(*) from t"), "0");
    busy.send(&super::raw::query("select 1"));
    assert_eq!(field(&busy.read().1, b'C'), "3D000");
}
