//! Reads on replicas, a session's own writes, and what happens when servers lag, die and are promoted.

use std::time::{Duration, Instant};

use pgweir::db::local::{Cluster, Options, Shutdown};

use super::raw::{Raw, bind, execute, field, parse, query, shown, statement, sync};
use crate::support::Proxy;

/// A primary, standbys that stream from it, and a proxy in front of them.
struct Fleet {
    proxy: Proxy,
    primary: Cluster,
    standbys: Vec<Cluster>,
}

/// Which server answers: declared STABLE, so that it may be asked of a replica.
const SETUP: &str = "CREATE FUNCTION here() RETURNS text STABLE LANGUAGE sql AS 'SELECT current_setting(''port'')'; \
     CREATE FUNCTION shaky() RETURNS text VOLATILE LANGUAGE sql AS 'SELECT current_setting(''port'')'; \
     CREATE TABLE t (id int PRIMARY KEY, v text); CREATE SEQUENCE s; CREATE UNLOGGED TABLE u (a int); \
     CREATE VIEW good AS SELECT id, here() AS at FROM t; CREATE VIEW bad AS SELECT shaky() AS at; \
     CREATE VIEW worse AS SELECT * FROM bad; \
     INSERT INTO t VALUES (1, 'one'), (2, 'two')";

fn server(cluster: &Cluster) -> String {
    format!("postgres://postgres:postgres@127.0.0.1:{}/postgres?sslmode=disable", cluster.port())
}

impl Fleet {
    fn new(standbys: usize, more: &str) -> Self {
        let primary = Cluster::start_with(&Options::default()).unwrap();
        primary.query("postgres", SETUP).unwrap();
        let standbys: Vec<Cluster> = (0..standbys).map(|_| primary.standby(&Options::default()).unwrap()).collect();
        let urls: Vec<String> = standbys.iter().map(server).collect();
        let proxy = Proxy::start(&format!(
            "admin_users: [app]\nusers: {{app: {{password: secret}}, eve: {{password: other, reads: primary}}}}\ndatabases:\n  app:\n    \
             primary: \"{}\"\n    replicas: {urls:?}\n    check_interval: 20ms\n    pool: {{size: 4, wait_timeout: 10s}}\n    {more}\n",
            server(&primary)
        ));
        Self { proxy, primary, standbys }
    }

    fn client(&self) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", "app", &[])
    }

    /// A client, once its reads go to replicas.
    fn reader(&self) -> Raw {
        let mut client = self.client();
        eventually("reads go to a replica", || client.value("select here()") != self.primary.port().to_string());
        client
    }

    fn primary_port(&self) -> String {
        self.primary.port().to_string()
    }

    fn standby_port(&self, at: usize) -> String {
        self.standbys[at].port().to_string()
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn proven_reads_go_to_a_replica_and_nothing_else_does() {
    let fleet = Fleet::new(1, "");
    let (primary, standby) = (fleet.primary_port(), fleet.standby_port(0));
    let mut client = fleet.reader();
    let one = |at: &str| format!("T D:{at} C:SELECT_1 Z:I");
    for sql in [
        "select here()",
        "select here() from t where id = 1",
        "with x as (select 1) select here() from x",
        "select at from good where id = 2",
    ] {
        assert_eq!(client.query(sql), one(&standby), "{sql}");
    }
    for sql in [
        "select current_setting('port')",
        "select shaky()",
        "select at from bad",
        "select at from worse",
        "select here() from t where id = 1 for share",
        "select here() from (select nextval('s')) x",
        "show port",
        "select here() from pg_class limit 1",
    ] {
        assert!(client.query(sql).contains(&format!("D:{primary} ")), "{sql}");
        // The next one is not tied to the primary by what turned out to write nothing... but may be for a moment.
        eventually("back on the replica", || client.value("select here()") == standby);
    }
    assert_eq!(client.query("select count(*) from u"), "T D:0 C:SELECT_1 Z:I");
    assert_eq!(client.query("begin; select here(); commit").matches(&primary).count(), 1);
    assert_eq!(client.query("begin"), "C:BEGIN Z:T");
    assert_eq!(client.value("select here()"), primary, "inside a transaction");
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    // One who wants none of it.
    let mut eve = Raw::login(fleet.proxy.port(), "eve", "other", "app", &[]);
    assert!((0..5).all(|_| eve.value("select here()") == primary));
    // Nor one whose transactions replicas do not have.
    let settings = [("default_transaction_isolation", "serializable")];
    let mut strict = Raw::login(fleet.proxy.port(), "app", "secret", "app", &settings);
    assert!((0..5).all(|_| strict.value("select here()") == primary));
    // The console says which is which.
    let mut console = Raw::login(fleet.proxy.port(), "app", "secret", "pgweir", &[]);
    let shown = console.query("show databases");
    assert!(shown.contains(",primary,up,0,") && shown.contains(",replica,up,1,"), "{shown}");
    let shown = console.query("show servers");
    assert!([",primary ", ",replica "].iter().all(|role| shown.contains(role)), "{shown}");
}

#[test]
fn batches_are_judged_up_to_their_sync() {
    let fleet = Fleet::new(1, "");
    let (primary, standby) = (fleet.primary_port(), fleet.standby_port(0));
    let mut client = fleet.reader();
    let read = [parse("", "select here() from t where id = 1"), bind("", &[]), execute(), sync()];
    assert_eq!(client.talk(&read, 1), format!("1 2 D:{standby} C:SELECT_1 Z:I"));
    // Prepared once, used on either server.
    let prepared = [parse("r", "select here() from t where id = 1"), statement(b'D', "r"), sync()];
    assert_eq!(client.talk(&prepared, 1), "1 t T Z:I");
    let run = [bind("r", &[]), execute(), sync()];
    assert_eq!(client.talk(&run, 1), format!("2 D:{standby} C:SELECT_1 Z:I"));
    // A read and a write up to one Sync.
    let mixed =
        [bind("r", &[]), execute(), parse("", "update t set v = 'x' where id = 1"), bind("", &[]), execute(), sync()];
    assert_eq!(client.talk(&mixed, 1), format!("2 D:{primary} C:SELECT_1 1 2 C:UPDATE_1 Z:I"));
    eventually("back on the replica", || client.value("select here()") == standby);
    // Pipelined: read, write, read; the write neither goes to the replica nor overtakes.
    let pipeline =
        [run.concat(), query("update t set v = 'y' where id = 1"), query("select v, here() from t where id = 1")];
    let answer = client.talk(&pipeline, 3);
    assert_eq!(answer, format!("2 D:{standby} C:SELECT_1 Z:I C:UPDATE_1 Z:I T D:y,{primary} C:SELECT_1 Z:I"));
    // The end of a batch that has not come yet may be a write.
    client.send(&[bind("r", &[]), execute()].concat());
    std::thread::sleep(Duration::from_millis(30));
    client.send(&sync());
    assert_eq!(shown(&client.until_ready(1)), format!("2 D:{primary} C:SELECT_1 Z:I"));
}

#[test]
fn read_only_transactions_are_served_whole_by_a_replica() {
    let fleet = Fleet::new(1, "");
    let (primary, standby) = (fleet.primary_port(), fleet.standby_port(0));
    let mut client = fleet.reader();
    for begin in ["begin read only", "start transaction isolation level repeatable read, read only"] {
        assert!(client.query(begin).ends_with("Z:T"), "{begin}");
        assert_eq!(client.value("select shaky()"), standby);
        assert_eq!(client.value("select pg_is_in_recovery()"), "t");
        assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    }
    assert_eq!(client.query("begin read only"), "C:BEGIN Z:T");
    assert_eq!(client.query("set transaction read write"), "E:0A000 Z:E", "PostgreSQL's own words");
    assert_eq!(client.query("rollback"), "C:ROLLBACK Z:I");
    // What follows its end in one go is not part of it.
    let flow =
        [query("begin read only"), query("select here()"), query("commit"), query("insert into t values (3, here())")];
    assert_eq!(
        client.talk(&flow, 4),
        format!("C:BEGIN Z:T T D:{standby} C:SELECT_1 Z:T C:COMMIT Z:I C:INSERT_0_1 Z:I")
    );
    assert_eq!(client.value("select v from t where id = 3"), primary);
    // A lock on a replica would keep nobody out.
    let mut other = fleet.reader();
    other.query("begin read only");
    other.send(&query("select pg_advisory_xact_lock(1)"));
    let (tag, body) = other.read();
    assert_eq!((tag, field(&body, b'C').as_str()), (b'E', "0A000"));
    assert_eq!(other.try_read(), None);
}

#[test]
fn a_session_reads_what_it_wrote() {
    let fleet = Fleet::new(1, "");
    let standby = &fleet.standbys[0];
    let (mut writer, mut other) = (fleet.reader(), fleet.reader());
    standby.query("postgres", "select pg_wal_replay_pause()").unwrap();
    assert_eq!(writer.query("update t set v = 'new' where id = 1"), "C:UPDATE_1 Z:I");
    for _ in 0..20 {
        assert_eq!(
            writer.query("select v, here() from t where id = 1"),
            format!("T D:new,{} C:SELECT_1 Z:I", fleet.primary_port())
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    // Who wrote nothing may see what the replica has.
    assert_eq!(
        other.query("select v, here() from t where id = 1"),
        format!("T D:one,{} C:SELECT_1 Z:I", fleet.standby_port(0))
    );
    standby.query("postgres", "select pg_wal_replay_resume()").unwrap();
    eventually("the writer is back on the replica", || {
        let answer = writer.query("select v, here() from t where id = 1");
        assert!(answer.contains("D:new,"), "{answer}");
        answer.contains(&fleet.standby_port(0))
    });
}

#[test]
fn a_lagging_replica_is_left_out_and_taken_back() {
    let fleet = Fleet::new(2, "max_lag: 400ms");
    let mut client = fleet.reader();
    fleet.standbys[0].query("postgres", "select pg_wal_replay_pause()").unwrap();
    eventually("left out", || {
        fleet.primary.query("postgres", "insert into t values ((select max(id) + 1 from t), '')").unwrap();
        (0..6).all(|_| client.value("select here()") != fleet.standby_port(0))
    });
    assert!((0..20).all(|_| client.value("select here()") == fleet.standby_port(1)));
    assert!(fleet.proxy.log().contains("bytes behind"));
    fleet.standbys[0].query("postgres", "select pg_wal_replay_resume()").unwrap();
    eventually("taken back", || client.value("select here()") == fleet.standby_port(0));
}

#[test]
fn the_weights_say_who_gets_how_much() {
    let fleet = Fleet::new(2, "");
    let mut counts = [0, 0, 0];
    let mut client = fleet.reader();
    eventually("both serve", || client.value("select here()") == fleet.standby_port(1));
    for _ in 0..40 {
        let at = client.value("select here()");
        let ports = [fleet.primary_port(), fleet.standby_port(0), fleet.standby_port(1)];
        counts[ports.iter().position(|port| *port == at).unwrap()] += 1;
    }
    assert_eq!(counts, [0, 20, 20]);
    let fleet = Fleet::new(2, "balance: client-ip-hash");
    let mut client = fleet.reader();
    std::thread::sleep(Duration::from_millis(200));
    let first = client.value("select here()");
    assert!((0..20).all(|_| fleet.client().value("select here()") == first));
}

#[test]
fn a_dead_replica_costs_no_client_an_error() {
    let mut fleet = Fleet::new(2, "");
    let mut clients: Vec<Raw> = (0..4).map(|_| fleet.reader()).collect();
    for round in 0..60 {
        if round == 10 {
            fleet.standbys[0].stop(Shutdown::Immediate).unwrap();
        }
        for client in &mut clients {
            assert!(client.query("select here()").ends_with("C:SELECT_1 Z:I"));
        }
    }
    fleet.standbys[1].stop(Shutdown::Fast).unwrap();
    for client in &mut clients {
        assert_eq!(client.value("select here()"), fleet.primary_port());
    }
    fleet.standbys[0].start_again().unwrap();
    eventually("it is used again", || clients[0].value("select here()") == fleet.standby_port(0));
}

#[test]
fn writes_follow_the_promoted_server() {
    let mut fleet = Fleet::new(2, "balance: least-connections");
    let mut client = fleet.reader();
    assert_eq!(client.query("insert into t values (10, 'before')"), "C:INSERT_0_1 Z:I");
    eventually("the standby has it", || {
        let rows = fleet.standbys[0].query("postgres", "select v from t where id = 10").unwrap();
        rows.first().is_some_and(|row| row[0].as_deref() == Some("before"))
    });
    fleet.primary.kill();
    // Reads go on without a primary.
    eventually("reads go on", || fleet.client().query("select v from t where id = 10").contains("D:before"));
    fleet.standbys[0].promote().unwrap();
    let promoted = Instant::now();
    // A client that was idle writes on, without an error.
    assert_eq!(client.query("insert into t values (11, 'after')"), "C:INSERT_0_1 Z:I");
    assert!(promoted.elapsed() < Duration::from_secs(2), "{:?}", promoted.elapsed());
    assert_eq!(client.value("select current_setting('port')"), fleet.standby_port(0));
    // The old primary comes back, and still thinks that it is one: it is not written to, nor read.
    fleet.primary.start_again().unwrap();
    eventually("it is noticed", || fleet.proxy.log().contains("claim to be the primary"));
    for id in 20..40 {
        assert_eq!(client.query(&format!("insert into t values ({id}, here())")), "C:INSERT_0_1 Z:I");
        assert_ne!(client.value(&format!("select here() from t where id = {id}")), fleet.primary_port());
    }
    let rows = fleet.primary.query("postgres", "select count(*) from t where id >= 11").unwrap();
    assert_eq!(rows[0][0].as_deref(), Some("0"));
}

#[test]
fn an_orderly_switch_over_loses_no_client() {
    let mut fleet = Fleet::new(1, "");
    let mut client = fleet.reader();
    fleet.primary.stop(Shutdown::Fast).unwrap();
    let port = fleet.proxy.port();
    let waiting = std::thread::spawn(move || {
        let mut client = Raw::login(port, "app", "secret", "app", &[]);
        client.query("insert into t values (50, 'held')")
    });
    std::thread::sleep(Duration::from_millis(300));
    fleet.standbys[0].promote().unwrap();
    assert_eq!(waiting.join().unwrap(), "C:INSERT_0_1 Z:I");
    assert_eq!(client.query("insert into t values (51, 'idle')"), "C:INSERT_0_1 Z:I");
}

#[test]
fn without_a_primary_writes_are_told_so() {
    let mut fleet = Fleet::new(1, "failover_timeout: 500ms");
    let mut client = fleet.reader();
    fleet.primary.stop(Shutdown::Fast).unwrap();
    client.send(&query("insert into t values (60, '')"));
    let (tag, body) = client.read();
    assert_eq!((tag, field(&body, b'C').as_str()), (b'E', "08006"));
    assert!(field(&body, b'M').contains("no server of this database is a primary"), "{}", field(&body, b'M'));
    // Reads are answered all the while.
    assert!(fleet.client().query("select v from t where id = 1").contains("D:one"));
}

#[test]
fn a_killed_primary_is_used_again_soon_after_its_restart() {
    let mut fleet = Fleet::new(1, "");
    let mut client = fleet.reader();
    client.query("update t set v = 'x' where id = 2");
    fleet.primary.kill();
    fleet.primary.start_again().unwrap();
    let back = Instant::now();
    assert_eq!(client.query("update t set v = 'y' where id = 2"), "C:UPDATE_1 Z:I");
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
}

#[test]
fn definitions_are_known_before_reads_use_them() {
    let fleet = Fleet::new(1, "");
    let (primary, standby) = (fleet.primary_port(), fleet.standby_port(0));
    let (mut client, mut other) = (fleet.reader(), fleet.reader());
    assert_eq!(client.query("create or replace view good as select id, shaky() as at from t"), "C:CREATE_VIEW Z:I");
    for _ in 0..50 {
        assert_eq!(other.value("select at from good where id = 1"), primary);
    }
    assert_eq!(client.query("create table fresh as select 1 as a"), "C:SELECT_1 Z:I");
    for _ in 0..50 {
        assert_eq!(other.value("select a from fresh"), "1");
    }
    eventually("a new table is read on the replica", || other.value("select here() from fresh") == standby);
}
