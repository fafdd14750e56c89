//! Two shards behind one database.

use pgweir::db::local::{Auth, Cluster, Options};

use super::raw::{Raw, bind, execute, parse, query, statement, sync};
use crate::support::Proxy;

struct Shards {
    proxy: Proxy,
    cluster: Cluster,
}

impl Shards {
    fn new(commit: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        for name in ["s1", "s2"] {
            cluster.query("postgres", &format!("create database {name}")).unwrap();
        }
        let shard = |name: &str, database: &str| {
            let port = cluster.port();
            format!(
                "{{name: {name}, primary: \"postgres://postgres:postgres@127.0.0.1:{port}/{database}?sslmode=disable\"}}"
            )
        };
        let proxy = Proxy::start(&format!(
            "users: {{app: {{password: secret}}}}\ndatabases:\n  shop:\n    shards: [{}, {}]\n    commit: {commit}\n    \
             pool: {{size: 3, wait_timeout: 3s}}\n    sharding:\n      tables: {{customers: {{key: id}}, orders: {{key: customer_id}}}}\n      \
             reference: [countries]\n",
            shard("a", "s1"),
            shard("b", "s2")
        ));
        let shards = Self { proxy, cluster };
        if commit == "best-effort" {
            let mut client = shards.client();
            for sql in [
                "create table customers (id bigint primary key, name text)",
                "create table orders (customer_id bigint, amount int)",
                "create table countries (code text primary key)",
            ] {
                assert_eq!(client.query(sql), "C:CREATE_TABLE Z:I");
            }
            for id in 1..=8 {
                let sql = format!("insert into customers values ({id}, 'c{id}')");
                assert_eq!(client.query(&sql), "C:INSERT_0_1 Z:I");
            }
        }
        shards
    }

    fn client(&self) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", "shop", &[])
    }

    /// One number from each shard.
    fn each(&self, sql: &str) -> Vec<i64> {
        ["s1", "s2"].map(|db| self.cluster.query(db, sql).unwrap()[0][0].as_ref().unwrap().parse().unwrap()).to_vec()
    }
}

#[test]
fn rows_go_where_their_key_says() {
    let shards = Shards::new("best-effort");
    let mut client = shards.client();
    let counts = shards.each("select count(*) from customers");
    assert_eq!(counts.iter().sum::<i64>(), 8);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    for id in 1..=8 {
        assert_eq!(client.value(&format!("select name from customers where id = {id}")), format!("c{id}"));
        let messages =
            [parse("", "select name from customers where id = $1"), bind("", &[&id.to_string()]), execute(), sync()];
        let expected = format!("1 2 D:c{id} C:SELECT_1 Z:I");
        assert_eq!(client.talk(&messages, 1), expected);
    }
    assert_eq!(client.query("select count(*) from customers"), "T D:8 C:SELECT_1 Z:I");
    assert_eq!(client.query("select id from customers limit 9 for update"), "E:0A000 Z:I");
    assert_eq!(client.query("select * from unknown"), "E:0A000 Z:I");
    assert_eq!(client.query("select 1; select 2"), "T D:1 C:SELECT_1 T D:2 C:SELECT_1 Z:I");
    assert_eq!(
        client.query(
            "select name from customers where id = 1; \
             select name from customers where id in (1, 2, 3, 4, 5, 6, 7, 8) limit 9 for update"
        ),
        "T D:c1 C:SELECT_1 E:0A000 Z:I"
    );

    // One named statement, run on whichever shard each Bind names; in one pipeline too.
    assert_eq!(
        client.talk(&[parse("by_id", "select name from customers where id = $1"), statement(b'D', "by_id"), sync()], 1),
        "1 t T Z:I"
    );
    let many: Vec<Vec<u8>> =
        (1..=8).flat_map(|id| [bind("by_id", &[&id.to_string()]), execute()]).chain([sync()]).collect();
    let expected: String = (1..=8).map(|id| format!("2 D:c{id} C:SELECT_1 ")).collect();
    assert_eq!(client.talk(&many, 1), expected + "Z:I");
    assert_eq!(client.talk(&[parse("r", "select xmin from orders"), bind("r", &[]), sync()], 1), "E:0A000 Z:I");
}

#[test]
fn a_transaction_spans_shards_or_fails_on_all() {
    let shards = Shards::new("best-effort");
    let mut client = shards.client();
    client.query("begin");
    for id in 1..=4 {
        assert_eq!(client.query(&format!("insert into orders values ({id}, 1)")), "C:INSERT_0_1 Z:T");
    }
    client.query("savepoint s");
    for id in 5..=8 {
        client.query(&format!("insert into orders values ({id}, 1)"));
    }
    assert_eq!(client.query("select 1/0"), "E:22012 Z:E");
    assert_eq!(client.query("select amount from orders where customer_id = 1"), "E:25P02 Z:E");
    assert_eq!(client.query("rollback to s"), "C:ROLLBACK Z:T");
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    assert_eq!(shards.each("select count(*) from orders").iter().sum::<i64>(), 4);

    // Gone in the middle: rolled back everywhere.
    client.query("begin");
    for id in 1..=8 {
        client.query(&format!("insert into orders values ({id}, 2)"));
    }
    drop(client);
    let mut client = shards.client();
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    assert_eq!(shards.each("select count(*) from orders where amount = 2").iter().sum::<i64>(), 0);
}

#[test]
fn reference_tables_are_written_on_all_or_none() {
    let shards = Shards::new("best-effort");
    let mut client = shards.client();
    assert_eq!(client.query("insert into countries values ('de'), ('fr')"), "C:INSERT_0_2 Z:I");
    let insert = [parse("", "insert into countries values ($1)"), bind("", &["it"]), execute(), sync()];
    assert_eq!(client.talk(&insert, 1), "1 2 C:INSERT_0_1 Z:I");
    assert_eq!(shards.each("select count(*) from countries"), [3, 3]);
    // It fails on one shard only: then on none.
    shards.cluster.query("s2", "insert into countries values ('es')").unwrap();
    assert_eq!(client.query("insert into countries values ('es')"), "E:23505 Z:I");
    let insert = [parse("", "insert into countries values ($1)"), bind("", &["es"]), execute(), sync()];
    assert!(client.talk(&insert, 1).ends_with("E:23505 Z:I"));
    assert_eq!(shards.each("select count(*) from countries"), [3, 4]);
    shards.cluster.query("s2", "delete from countries where code = 'es'").unwrap();
    // In a client's own transaction.
    let messages = [query("begin"), query("insert into countries values ('pl')"), query("rollback")];
    assert_eq!(client.talk(&messages, 3), "C:BEGIN Z:T C:INSERT_0_1 Z:T C:ROLLBACK Z:I");
    assert_eq!(client.value("select count(*) from countries"), "3");
}

#[test]
fn settings_hold_on_every_shard() {
    let shards = Shards::new("best-effort");
    let mut client = shards.client();
    client.query("set extra_float_digits = 0");
    let mut other = shards.client();
    let sum = |id: u32| format!("select 0.1::float8 + 0.2 from customers where id = {id}");
    let (short, long) = ("0.3", "0.30000000000000004");
    for id in 1..=8 {
        assert_eq!((client.value(&sum(id)).as_str(), other.value(&sum(id)).as_str()), (short, long));
    }
    client.query("begin");
    assert_eq!(client.query("set local extra_float_digits = 3"), "C:SET Z:T");
    for id in 1..=8 {
        assert_eq!(client.value(&sum(id)), long);
    }
    client.query("commit");
    assert_eq!(client.value(&sum(1)), short);
    assert_eq!(client.value("show extra_float_digits"), "0");
    assert_eq!(client.query("set search_path = elsewhere"), "C:SET Z:I");
    assert_eq!(client.query("select name from customers where id = 1"), "E:0A000 Z:I");
}

#[test]
fn a_second_writer_is_refused_where_that_is_configured() {
    let shards = Shards::new("refuse");
    for database in ["s1", "s2"] {
        shards.cluster.query(database, "create table customers (id bigint primary key, name text)").unwrap();
    }
    let mut client = shards.client();
    client.query("begin");
    let mut heard = Vec::new();
    for id in 1..=8 {
        heard.push(client.query(&format!("insert into customers values ({id}, 'x')")));
    }
    assert!(heard.contains(&"E:0A000 Z:E".to_owned()), "{heard:?}");
    assert_eq!(client.query("commit"), "C:ROLLBACK Z:I");
    assert_eq!(shards.each("select count(*) from customers"), [0, 0]);
    assert_eq!(client.query("create table countries (code text primary key)"), "E:0A000 Z:I");
}

#[test]
fn roles_follow_their_client_and_triggers_leave_nothing() {
    let shards = Shards::new("best-effort");
    shards.cluster.query("postgres", "create role low").unwrap();
    for database in ["s1", "s2"] {
        for sql in [
            "create function fires() returns trigger language plpgsql as \
             'begin perform set_config(''extra_float_digits'', ''0'', false); return new; end'",
            "create trigger t before insert on customers for each row execute function fires()",
            "grant select on customers to low",
        ] {
            shards.cluster.query(database, sql).unwrap();
        }
    }
    let (mut a, mut b) = (shards.client(), shards.client());
    assert_eq!(a.query("alter table orders add column note text"), "C:ALTER_TABLE Z:I");
    for id in 11..=18 {
        assert_eq!(a.query(&format!("insert into customers values ({id}, 'x')")), "C:INSERT_0_1 Z:I");
        let sum = format!("select 0.1::float8 + 0.2 from customers where id = {id}");
        assert_eq!(b.value(&sum), "0.30000000000000004");
    }
    assert_eq!(a.query("set role low"), "C:SET Z:I");
    for id in 1..=8 {
        assert_eq!(a.query(&format!("delete from customers where id = {id}")), "E:42501 Z:I");
        assert_eq!(b.query(&format!("delete from customers where id = {id}")), "C:DELETE_1 Z:I");
    }
    a.query("reset role");
    assert_eq!(a.query("delete from customers where id = 11"), "C:DELETE_1 Z:I");
}
