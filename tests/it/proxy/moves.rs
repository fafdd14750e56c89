//! Clients that move from one worker to another between their transactions.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgweir::db::local::{Auth, Cluster, Options};
use pgweir::proxy::crew::{Crew, Order};
use pgweir::proxy::listen::Proxy;

use super::raw::{Raw, bind, execute, parse, statement, sync};

/// A proxy in this process, whose clients can be told to move.
struct Inside {
    crew: Arc<Crew>,
    port: u16,
    cluster: Cluster,
    _proxy: Proxy,
}

impl Inside {
    fn new(more: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        cluster.query("postgres", "create database other").unwrap();
        let url = |name: &str| {
            format!("\"postgres://postgres:postgres@127.0.0.1:{}/{name}?sslmode=disable\"", cluster.port())
        };
        let text = format!(
            "listen: 127.0.0.1:0\nworkers: 2\nusers: {{app: {{password: secret}}}}\n{more}databases:\n  \
             app: {{primary: {}, pool: {{size: 3}}}}\n  \
             shop: {{shards: [{{name: a, primary: {}}}, {{name: b, primary: {}}}], pool: {{size: 3}}, \
             sharding: {{tables: {{customers: {{key: id}}}}}}}}\n",
            url("postgres"),
            url("postgres"),
            url("other")
        );
        let proxy = Proxy::start(pgweir::config::parse(&text, "moves.yaml").unwrap()).unwrap();
        let crew = proxy.house.crew.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dealer = crew.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                tcp.set_nonblocking(true).unwrap();
                dealer.deal(pgweir::net::listener::Caller::Tcp(tcp));
            }
        });
        Self { crew, port, cluster, _proxy: proxy }
    }

    /// Sends everybody to and fro until all clients were seen on either worker, and back on the first.
    fn shuffle(&self, clients: usize) {
        for round in 0..6 {
            let (from, to) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
            let end = Instant::now() + Duration::from_secs(20);
            while self.crew.clients()[to] < clients {
                // Again and again, as the proxy may order otherwise: it finds its worker busy.
                self.crew.order(Order { from: to, to, share: 0 });
                self.crew.order(Order { from, to, share: 1000 });
                assert!(Instant::now() < end, "they did not move: {:?}", self.crew.clients());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Ends the clients' work also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Works until told to stop; every answer must be the one to its own question.
fn work(mut client: Raw, id: usize, stop: &AtomicBool) -> usize {
    client.talk(&[parse("mine", "select $1::int + 1"), sync()], 1);
    assert_eq!(client.query(&format!("set application_name = 'client{id}'")), "C:SET Z:I");
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let value = id * 1_000_000 + done;
        assert_eq!(client.value(&format!("select {value}")), value.to_string());
        let answer = client.talk(&[bind("mine", &[&value.to_string()]), statement(b'D', "mine"), execute(), sync()], 1);
        assert!(answer.contains(&format!("D:{} ", value + 1)), "{answer}");
        client.query("begin");
        assert_eq!(client.value("select txid_current() = txid_current()"), "t");
        assert_eq!(client.value("show application_name"), format!("client{id}"));
        assert_eq!(client.query("commit"), "C:COMMIT Z:I");
        done += 1;
    }
    done
}

#[test]
fn clients_move_between_transactions_and_keep_what_is_theirs() {
    let inside = Inside::new("");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=8)
            .map(|id| {
                let client = Raw::login(inside.port, "app", "secret", "app", &[]);
                let stop = &stop;
                scope.spawn(move || work(client, id, stop))
            })
            .collect();
        {
            let _stop = Stop(&stop);
            inside.shuffle(8);
        }
        assert!(clients.into_iter().all(|client| client.join().unwrap() > 0));
    });
}

#[test]
fn a_transaction_keeps_its_client_where_it_is() {
    let inside = Inside::new("");
    let mut client = Raw::login(inside.port, "app", "secret", "app", &[]);
    client.query("begin");
    inside.crew.order(Order { from: 0, to: 1, share: 1000 });
    for _ in 0..5 {
        assert_eq!(client.value("select 1"), "1");
        assert_eq!(inside.crew.clients(), [1, 0]);
    }
    client.query("commit");
    client.query("select 1");
    assert_eq!(inside.crew.clients(), [0, 1]);
}

#[test]
fn clients_of_shards_move_too() {
    let inside = Inside::new("");
    for database in ["postgres", "other"] {
        inside.cluster.query(database, "create table customers (id bigint primary key, name text)").unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for id in 1..=3 {
            let (mut client, stop) = (Raw::login(inside.port, "app", "secret", "shop", &[]), &stop);
            assert_eq!(client.query(&format!("insert into customers values ({id}, 'c{id}')")), "C:INSERT_0_1 Z:I");
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let name = client.value(&format!("select name from customers where id = {id}"));
                    assert_eq!(name, format!("c{id}"));
                }
            });
        }
        let _stop = Stop(&stop);
        inside.shuffle(3);
    });
}

#[test]
fn encrypted_clients_take_their_keys_along() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let tls = format!("tls: {{mode: require, certificate: {}, key: {}}}\n", certificate.display(), key.display());
    let inside = Inside::new(&tls);
    let url = format!(
        "host=127.0.0.1 port={} dbname=app user=app password=secret sslmode=require application_name=moving",
        inside.port
    );
    let script: String = (0..4000).map(|number| format!("select {number};\n")).collect();
    std::fs::write(dir.path().join("script.sql"), script).unwrap();
    let psql = inside
        .cluster
        .client_program("psql")
        .args(["-XAtq", "-f"])
        .arg(dir.path().join("script.sql"))
        .arg(&url)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let (mut moved, mut seen) = (0, [false; 2]);
    while seen != [true; 2] && Instant::now() < end {
        let clients = inside.crew.clients();
        for home in 0..2 {
            if clients[home] > 0 && !seen[home] {
                seen[home] = true;
                moved += 1;
                inside.crew.order(Order { from: home, to: 1 - home, share: 1000 });
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = psql.wait_with_output().unwrap();
    let expected: String = (0..4000).map(|number| format!("{number}\n")).collect();
    assert!(output.status.success() && output.stdout == expected.as_bytes());
    assert_eq!(moved, 2, "it was served by both workers");
}
