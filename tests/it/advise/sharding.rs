//! `pgweir advise sharding-key` on a shop whose key is evident, with its settings taken by the router.

use pgweir::db::local::Cluster;
use serde_json::Value;

use crate::support::{pgweir, stderr, stdout};

const SCHEMA: &str = "
create table countries (code text primary key, name text);
create table customers (id bigint primary key, country text references countries, name text);
create table orders (customer_id bigint not null references customers, id bigint not null, placed timestamptz, total numeric, primary key (customer_id, id));
create table \"Lines\" (customer_id bigint not null, order_id bigint not null, sku text, qty int, primary key (customer_id, order_id, sku),
  foreign key (customer_id, order_id) references orders);
create table visits (day date not null, customer_id bigint, page text);
insert into countries select 'c' || n, 'x' from generate_series(1, 20) n;
insert into customers select n, 'c' || (n % 20 + 1), 'x' from generate_series(1, 20000) n;
insert into orders select n % 20000 + 1, n, now(), 1 from generate_series(1, 40000) n;
insert into visits select date '2026-01-01' + n % 30, n % 20000, 'p' from generate_series(1, 20000) n;
analyze";

const STATEMENTS: &str = "
select name from customers where id = 42;
select o.id, o.total from orders o where o.customer_id = 7 order by placed;
select c.name, l.sku from customers c join orders o on o.customer_id = c.id join \"Lines\" l on l.customer_id = o.customer_id and l.order_id = o.id where c.id = 9;
insert into orders (customer_id, id, total) values (5, 77, 3);
update \"Lines\" set qty = 3 where customer_id = 5 and order_id = 77;
select k.name, count(*) from customers c join countries k on k.code = c.country group by k.name;
select page, count(*) from visits where day = '2026-01-05' group by page;
select ctid from customers;
";

#[test]
fn the_evident_key_comes_first_and_its_settings_work() {
    let cluster = Cluster::start().unwrap();
    cluster.query("postgres", SCHEMA).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("seen.sql");
    std::fs::write(&log, STATEMENTS).unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", cluster.port());
    let run = |more: &[&str]| {
        let log = log.to_str().unwrap();
        let all = [&["advise", "sharding-key", "--log", log, "--database-url", &url], more].concat();
        let output = pgweir(&all);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let report: Value = serde_json::from_str(&run(&["--format", "json"])).unwrap();
    let best = &report["candidates"][0];
    assert_eq!(best["key"], "customers.id", "{report}");
    let tables = best["tables"].as_object().unwrap();
    for (table, key) in [("customers", "id"), ("orders", "customer_id"), ("Lines", "customer_id")] {
        assert_eq!(tables[table], key, "{best}");
    }
    assert_eq!(best["reference"], serde_json::json!(["countries", "visits"]), "{best}");
    // Of eight statements: five by the key, the copied visits, one over all customers, and one that nobody may ask.
    let calls = |of: &str| (best[of]["calls"].as_f64().unwrap() * 8.0).round();
    assert_eq!((calls("single"), calls("several"), calls("refused")), (6.0, 1.0, 1.0), "{best}");
    let by_day = report["candidates"].as_array().unwrap().iter().find(|it| it["key"] == "visits.day").unwrap();
    let remarks = by_day["remarks"].to_string();
    assert!(remarks.contains("visits.day is a time") && remarks.contains("about 30 values"), "{by_day}");

    let text = run(&[]);
    assert!(text.contains("1. customers.id") && text.contains("For pgweir.yaml, below `shards`"), "{text}");

    // What is proposed is a configuration, and the router goes by it.
    let servers = "    shards: [{name: a, primary: \"postgres://app@127.0.0.1/a\"}, {name: b, primary: \"postgres://app@127.0.0.1/b\"}]\n";
    let sharding: String = best["yaml"].as_str().unwrap().lines().map(|line| format!("    {line}\n")).collect();
    let config = folder.path().join("pgweir.yaml");
    std::fs::write(&config, format!("users: {{app: {{password: x}}}}\ndatabases:\n  shop:\n{servers}{sharding}"))
        .unwrap();
    let config = config.to_str().unwrap();
    let checked = pgweir(&["check", "-c", config]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    let schema = folder.path().join("schema.sql");
    std::fs::write(&schema, SCHEMA.split("insert").next().unwrap()).unwrap();
    let sql = "select * from \"Lines\" where customer_id = 5";
    let explained = pgweir(&["explain", "-c", config, "--schema", schema.to_str().unwrap(), sql]);
    assert!(stdout(&explained).starts_with("single shard="), "{}{}", stdout(&explained), stderr(&explained));
}

#[test]
fn what_must_be_changed_first_is_said() {
    let cluster = Cluster::start().unwrap();
    cluster
        .query("postgres", "create table t (id bigserial primary key, tenant int, v text); create index on t (tenant)")
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("seen.sql");
    std::fs::write(&log, "select v from t where tenant = 4;\nselect v from t where tenant = 5 and id = 3;\n").unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", cluster.port());
    let output = pgweir(&["advise", "sharding-key", "--log", log.to_str().unwrap(), "--database-url", &url]);
    let text = stdout(&output);
    assert!(text.contains("1. t.tenant\n") && text.contains("one shard  100.0 % of calls"), "{text}");
    assert!(text.contains("add tenant to its columns") && text.contains("accept: [unique-per-shard"), "{text}");
}
