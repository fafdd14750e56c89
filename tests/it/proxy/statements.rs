//! PREPARE, EXECUTE and EXPLAIN as statements over shards.

use super::raw::{bind, execute, parse, sync};
use super::scatter::{Both, essence};

const PREPARED: &str = "\
prepare one (bigint) as select name from customers where id = $1
execute one(7)
execute one ( 8 )
execute one('9')
execute one(null)
execute one
execute one(1, 2)
execute one('x')
prepare one as select 1
prepare broken as select nothing from customers
prepare counted as select count(*) from customers where country = $1 and score > $2
execute counted('de', 1)
execute counted('de', 1.5)
EXECUTE Counted ('it', -1)
prepare \"Quoted\"(text, numeric(3,1), date) as select id, $1 || name, $2 * 2, $3 from customers where born > $3 order by id
execute \"Quoted\"('a''b', 1.25, '1980-02-01');
execute quoted('a', 1, '1980-02-01')
prepare writes (bigint, text) as update customers set name = $2 where id = $1
begin
execute writes(3, 'new')
execute one(3)
prepare inside as select sum(total) from orders
execute inside
rollback
execute inside
execute one(3)
begin
execute missing
execute one(3)
rollback
prepare viewed as select count(*) from rich
execute viewed
deallocate one
execute one(1)
deallocate one
deallocate prepare counted
deallocate all
execute viewed
prepare viewed as select 1
discard all
prepare viewed as select 2
execute viewed";

#[test]
fn prepared_as_statements() {
    let both = Both::new(3);
    for extended in [false, true] {
        let (mut one, mut several) = (both.one(), both.several());
        for sql in PREPARED.lines() {
            let messages = match extended {
                false => vec![super::raw::query(sql)],
                true => vec![parse("", sql), bind("", &[]), execute(), sync()],
            };
            one.send(&messages.concat());
            several.send(&messages.concat());
            let (expected, heard) = (one.until_ready(1), several.until_ready(1));
            // A server knows EXECUTE when it is run, the proxy when it is parsed.
            let told = |frames: &[super::raw::Frame]| {
                let frames: Vec<_> = frames.iter().filter(|frame| !matches!(frame.0, b'1' | b'2')).cloned().collect();
                let own = |part: Vec<u8>| String::from_utf8_lossy(&part).replace("pgweir: ", "");
                essence(&frames).into_iter().map(own).collect::<Vec<_>>()
            };
            let shown = |frames: &[super::raw::Frame]| super::raw::shown(frames);
            assert_eq!(told(&heard), told(&expected), "{sql}: {} / {}", shown(&expected), shown(&heard));
        }
    }
}

#[test]
fn what_execute_could_read_otherwise_is_refused() {
    let both = Both::new(2);
    let mut client = both.several();
    assert_eq!(client.query("prepare p (int) as select $1"), "C:PREPARE Z:I");
    for value in ["1.5", "1 + 1", "'5'::text", "(select 1)", "true"] {
        assert!(client.query(&format!("execute p({value})")).starts_with("E:0A000"), "{value}");
    }
    assert!(client.query("execute p(5)").contains("D:5"));
    // PostgreSQL reads such constants once, at PREPARE.
    assert!(client.query("prepare n as select count(*) from orders where placed < 'now'").starts_with("E:0A000"));
    assert_eq!(client.query("prepare d (int) as select '01/02/2026'::date + $1"), "C:PREPARE Z:I");
    assert!(client.query("execute d(1)").contains("D:2026-01-03"));
    client.query("set datestyle = 'ISO, DMY'");
    assert!(client.query("execute d(1)").starts_with("E:0A000"));
    client.query("set datestyle = 'ISO, MDY'");
    assert!(client.query("execute d(1)").contains("D:2026-01-03"));
    // By messages it is another statement, of the same name space.
    assert!(client.talk(&[parse("p", "select 1"), sync()], 1).starts_with("E:42P05"));
    client.talk(&[parse("q", "select 1"), sync()], 1);
    assert!(client.query("prepare q as select 2").starts_with("E:42P05"));
}

#[test]
fn explain_shows_the_route_and_each_shards_plan() {
    let both = Both::new(2);
    let mut client = both.several();
    let orders = client.value("select count(*) from orders");
    let mut explain = |sql: &str| client.query(&format!("explain {sql}"));

    let scattered = explain("(costs off) select id from customers where score > 3");
    for part in ["scatter", "scatter-rows", "shard s0:", "shard s1:", "Seq Scan on customers"] {
        assert!(scattered.contains(part), "{part}: {scattered}");
    }
    assert!(!scattered.contains("cost="));
    let folded = explain("select country, count(*) from customers where born < now() group by country");
    assert!(folded.contains("fold-groups") && folded.contains("HashAggregate"), "{folded}");
    assert!(folded.matches("Seq Scan on customers").count() == 2, "{folded}");
    let collected = explain("select id from customers order by upper(name) limit 3");
    assert!(collected.contains("collect-rows") && collected.contains("Seq Scan on customers"), "{collected}");

    // One shard's plan is as it is, unless the route is asked for.
    let single = explain("select * from customers where id = 1");
    assert!(!single.contains("key-equality") && single.contains("customers_pkey"), "{single}");
    let routed = explain("(route, costs off) select * from customers where id = 1");
    assert!(routed.contains("key-equality") && routed.contains("customers_pkey"), "{routed}");
    let refused = explain("(route) select ctid from customers");
    assert!(refused.contains("refuse"), "{refused}");

    // What is executed is executed where its answer is known.
    let analyzed = explain("(analyze, timing off) select id from customers");
    assert!(analyzed.matches("actual rows=").count() == 2, "{analyzed}");
    assert!(explain("analyze select id from customers order by score").starts_with("E:0A000"));
    let deleting = explain("(costs off) delete from orders where total > 3");
    assert!(deleting.matches("Delete on orders").count() == 2, "{deleting}");
    assert!(explain("analyze delete from orders where total > 3").starts_with("E:0A000"));
    assert_eq!(client.value("select count(*) from orders"), orders);
}

/// The first to lock holds all shards, and the next waits for the first.
#[test]
fn a_locked_table_is_locked_on_every_shard() {
    let both = Both::new(3);
    let (mut one, mut client, mut other) = (both.one(), both.several(), both.several());
    for sql in ["lock table orders", "lock nowhere", "begin", "lock table orders in share mode", "rollback"] {
        let (expected, heard) = (one.query(sql), client.query(sql));
        if sql != "lock nowhere" {
            assert_eq!(heard, expected, "{sql}");
        }
    }
    assert_eq!(client.query("begin"), "C:BEGIN Z:T");
    assert_eq!(client.query("lock table customers, countries in access exclusive mode"), "C:LOCK_TABLE Z:T");
    for shard in 0..3 {
        let held =
            "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and relation = 'customers'::regclass";
        assert_eq!(both.cluster.query(&format!("s{shard}"), held).unwrap()[0][0].as_deref(), Some("1"));
    }
    other.query("begin");
    assert!(other.query("lock table customers nowait").starts_with("E:55P03"));
    other.query("rollback");
    client.query("rollback");
    assert_eq!(other.query("reindex table customers"), one.query("reindex table customers"));
}

/// What is declared immutable is computed anywhere, unless it does not look it.
#[test]
fn functions_of_users() {
    let both = Both::new(2);
    let (mut one, mut several) = (both.one(), both.several());
    for sql in [
        "create function twice(x bigint) returns bigint immutable language sql as 'select x * 2'",
        "create function label(x text) returns text immutable language plpgsql as $$ begin return upper(x); end $$",
        "create function total() returns bigint immutable language sql as 'select count(*) from orders'",
        "create function often(x bigint) returns bigint stable language sql as 'select x'",
        "create function length(x bigint) returns int volatile language sql as 'select 7'",
        "create function count(x text) returns bigint immutable language sql as 'select 7::bigint'",
        "create function lower(x bigint) returns setof bigint immutable language sql as 'select x where x > 40'",
    ] {
        assert_eq!(several.query(sql), one.query(sql), "{sql}");
    }
    for sql in [
        "select twice(id), label(name) from customers order by id",
        "select id from customers where twice(id) = 14",
        "select label(country), sum(twice(id)) from customers group by label(country) order by 1",
        "select public.twice(3)",
        "select count(name) from customers where id < 4",
        "select public.count(name), count(name) from customers where id < 4",
        "begin",
        "update customers set name = label(name) where twice(id) < 20",
        "select name from customers order by id limit 20",
        "rollback",
    ] {
        assert_eq!(several.query(sql), one.query(sql), "{sql}");
    }
    // The last has the name of a function that is built in.
    for sql in [
        "select total() from customers",
        "select often(id) from customers",
        "select length(id) from customers",
        "select lower(id) from customers order by name limit 3",
    ] {
        assert!(several.query(sql).starts_with("E:0A000"), "{sql}");
    }
}
