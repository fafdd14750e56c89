//! Views over shards: replaced by their queries, which may change.

use super::raw::{bind, execute, parse, sync};
use super::scatter::Both;
use crate::support::wait_until;

#[test]
fn a_view_that_is_defined_anew_is_read_anew() {
    let both = Both::new(3);
    let mut client = both.several();
    assert_eq!(client.query("create view few as select id from customers where id <= 3"), "C:CREATE_VIEW Z:I");
    let ask = "select count(*) from few";
    assert_eq!(client.value(ask), "3");
    let named = [bind("few", &[]), execute(), sync()];
    let prepared = client.talk(&[parse("few", ask), named.concat()], 1);
    assert!(prepared.contains("D:3"), "{prepared}");

    // Through pgweir it is known at once, and a statement that was prepared on the old one says so.
    let again = "create or replace view few as select id from customers where id <= 5";
    assert_eq!(client.query(again), "C:CREATE_VIEW Z:I");
    assert_eq!(client.value(ask), "5");
    assert!(client.talk(&[named.concat()], 1).starts_with("E:0A000"));

    // Past it, soon.
    for shard in 0..3 {
        both.cluster
            .query(&format!("s{shard}"), "create or replace view few as select id from customers where id <= 7")
            .unwrap();
    }
    wait_until("it is noticed", || client.value(ask) == "7");
    assert_eq!(client.query("drop view few"), "C:DROP_VIEW Z:I");
    assert!(client.query(ask).starts_with("E:"));
}

/// Policies are for the view's owner, which a subquery does not know.
#[test]
fn views_over_row_security_are_refused() {
    let both = Both::new(2);
    let mut client = both.several();
    client.query("create view mine as select id from customers");
    assert_eq!(client.value("select count(*) from mine"), "45");
    assert_eq!(client.query("alter table customers enable row level security"), "C:ALTER_TABLE Z:I");
    assert!(client.query("select count(*) from mine").starts_with("E:0A000"));
    // Views are not written through.
    assert!(client.query("update mine set id = 1").starts_with("E:0A000"));
}

/// Names mean what they meant when the catalog was read, or nothing is answered.
#[test]
fn a_search_path_that_finds_the_same_is_as_good() {
    let both = Both::new(2);
    let mut client = both.several();
    let ask = "select count(*) from customers";
    for same in ["public", "'public'", "\"$user\", public", "\"public\"", "\"$user\",public"] {
        assert_eq!(client.query(&format!("set search_path = {same}")), "C:SET Z:I", "{same}");
        assert_eq!(client.value(ask), "45", "{same}");
    }
    for other in ["pg_catalog", "public, pg_catalog", "'public, x'", "PUBLIC", "other, public", "''"] {
        assert_eq!(client.query(&format!("set search_path = {other}")), "C:SET Z:I", "{other}");
        assert!(client.query(ask).starts_with("E:0A000"), "{other}");
        assert_eq!(client.value("select id from public.customers where id = 7"), "7", "{other}");
    }
    client.query("reset search_path");
    assert_eq!(client.value(ask), "45");
    // "$user" is whoever the client has become.
    both.cluster.query("postgres", "create role clerk").unwrap();
    for shard in 0..2 {
        let grant = "grant select on all tables in schema public to clerk; create schema clerk; grant usage on schema clerk to clerk";
        both.cluster.query(&format!("s{shard}"), grant).unwrap();
    }
    assert_eq!(client.query("set role clerk"), "C:SET Z:I");
    assert_eq!(client.value(ask), "45");
    assert_eq!(client.value("select current_user from customers where id = 1"), "clerk");
    assert_eq!(client.value("select distinct current_user from customers"), "clerk");
    client.query("reset role");
    client.query("set my.tenant = 'fr'");
    assert_eq!(client.value("select count(*) from customers where country = current_setting('my.tenant')"), "12");
    for shard in 0..2 {
        both.cluster.query(&format!("s{shard}"), "create table clerk.customers (id bigint)").unwrap();
    }
    client.query("set role clerk");
    crate::support::wait_until("it is noticed", || client.query(ask).starts_with("E:0A000"));
}

/// Shards that are databases of one server share some catalogs, and with them locks.
#[test]
fn a_transaction_that_waits_for_itself_ends() {
    let both = Both::new(2);
    let mut client = both.several();
    assert_eq!(client.query("analyze"), "C:ANALYZE Z:I");
    assert_eq!(client.query("vacuum"), "C:VACUUM Z:I");
    client.query("begin");
    assert_eq!(client.query("analyze"), "E:40P01 Z:E");
    assert_eq!(client.query("rollback"), "C:ROLLBACK Z:I");
}
