//! S: texts that could fool whoever reads SQL to decide where it goes or what it leaves.
//!
//! Every row is on one of two shards, and all of them in a database that is not sharded. What the proxy answers must be
//! what that database answers; refusing is allowed, a different answer is not.

use pgweir::db::local::{Auth, Cluster, Options};

use super::sentinel::Sentinel;
use super::{QUICK, Watch};
use crate::proxy::raw::{Raw, bind, execute, parse, query, shown, sync};
use crate::support::Proxy;

struct Shards {
    proxy: Proxy,
    cluster: Cluster,
}

const TABLES: &str = "create table customers (id bigint primary key, name text, note text default 'none'); \
    create table orders (customer_id bigint, amount int); create table countries (code text primary key); \
    create schema evil; create table evil.customers (id bigint primary key, name text, note text); \
    create table \"Customers\" (id bigint primary key, name text); \
    create function evil_id() returns bigint language sql volatile as 'select (random() * 8)::bigint'; \
    insert into countries values ('de'), ('fr')";

impl Shards {
    fn new() -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        let url = |database: &str| {
            format!("postgres://postgres:postgres@127.0.0.1:{}/{database}?sslmode=disable", cluster.port())
        };
        for name in ["s1", "s2", "whole"] {
            cluster.query("postgres", &format!("create database {name}")).unwrap();
            cluster.query(name, TABLES).unwrap();
        }
        let proxy = Proxy::start(&format!(
            "users: {{app: {{password: \"{QUICK}\"}}}}\ndatabases:\n  shop:\n    commit: best-effort\n    shards: [{{name: a, \
             primary: \"{}\"}}, {{name: b, primary: \"{}\"}}]\n    pool: {{size: 3, wait_timeout: 8s}}\n    sharding:\n      \
             tables: {{customers: {{key: id}}, orders: {{key: customer_id}}}}\n      reference: [countries]\n",
            url("s1"),
            url("s2"),
        ));
        let shards = Self { proxy, cluster };
        let mut client = shards.client();
        for id in -4..=8 {
            for sql in [
                format!("insert into customers (id, name) values ({id}, 'c{id}')"),
                format!("insert into orders values ({id}, {id})"),
            ] {
                assert_eq!(client.query(&sql), "C:INSERT_0_1 Z:I");
                shards.cluster.query("whole", &sql).unwrap();
            }
        }
        shards
    }

    fn client(&self) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", "shop", &[])
    }

    /// Every customer and order there is, on the shards and in the one database.
    fn contents(&self) -> (Vec<String>, Vec<String>) {
        let sql = "select 'customer', id, name, note from customers union all select 'order', customer_id, amount::text, '' \
                   from orders";
        let rows = |database: &str| {
            let rows = self.cluster.query(database, sql).unwrap();
            rows.into_iter().map(|row| format!("{row:?}")).collect::<Vec<_>>()
        };
        let (mut sharded, mut whole) = ([rows("s1"), rows("s2")].concat(), rows("whole"));
        sharded.sort();
        whole.sort();
        (sharded, whole)
    }
}

/// The data rows of an answer in order of value, or `None` when it was refused or failed.
fn rows(heard: &str) -> Option<Vec<String>> {
    if heard.contains("E:") {
        return None;
    }
    let mut rows: Vec<String> =
        heard.split(' ').filter_map(|part| part.strip_prefix("D:")).map(str::to_owned).collect();
    rows.sort();
    Some(rows)
}

const READS: &[&str] = &[
    "select name from customers where id = 1 -- and id = 2",
    "select name from customers -- where id = 1",
    "select name from customers where id = 1 /* and id = 2 */",
    "select name from customers /* where id = 1 */ where id = 3",
    "select name from customers /* /* where id = 1 */ */ where id = 3",
    "select name from customers /* /* */ where id = 1 */ where id = 3",
    "select name from customers where id = /* 1 */ 3",
    "select name from customers where id = 1 --\n or id = 3",
    "select name from customers where id = 1 --\r or id = 3",
    "select name from customers where name = '-- ' or id = 3",
    "select name from customers where id = 3 and name <> '/*' and name <> '*/'",
    "select name from customers where name = 'where id = 1'",
    "select name from customers where name = $$x$$ or id = 3",
    "select name from customers where id = 3 and name <> $t$ or id = 1 $t$",
    "select name from customers where id = 3 and name <> $t$ $$ ' -- $t$",
    "select name from customers where id = 3 and name <> $T$ $t$ $T$",
    "select name from customers where id = 3 and name <> E'\\' or id = 1 --'",
    "select name from customers where id = 3 and name <> e'it''s \\'quoted\\''",
    "select name from customers where id = 3 and name <> 'a\\' or name = 'c1'",
    "select name from customers where id = 3 and name <> 'a'\n'b'",
    "select name from customers where id = 3 and name <> U&'\\0027 or id = 1'",
    "select name from customers where id = 3 and name <> U&'!0027 or id = 1' UESCAPE '!'",
    "select name from customers where U&\"\\0069d\" = 3",
    "select name from customers where U&\"!0069d\" UESCAPE '!' = 3",
    "select name from customers where \"id\" = 3",
    "select name from \"customers\" where id = 3",
    "select name from \"Customers\" where id = 3",
    "select name from CUSTOMERS where ID = 3",
    "select name from CuStOmErS where Customers.Id = 3",
    "select name from public.customers where id = 3",
    "select name from evil.customers where id = 3",
    "select name from \"public\".\"customers\" where \"customers\".\"id\" = 3",
    "select name from pg_catalog.customers where id = 3",
    "select name from customers where id = 3::bigint",
    "select name from customers where id = '3'",
    "select name from customers where id = ' 3 '",
    "select name from customers where id = cast('3' as int)",
    "select name from customers where id = bigint '3'",
    "select name from customers where id::text = '3'",
    "select name from customers where id::int = 3",
    "select name from customers where id = 3.0",
    "select name from customers where id = 2.6::int",
    "select name from customers where id = 3e0",
    "select name from customers where id = 0x3",
    "select name from customers where id = 3_0",
    "select name from customers where id = 03",
    "select name from customers where id = +3",
    "select name from customers where id = -3",
    "select name from customers where id = - 3",
    "select name from customers where id = - -3",
    "select name from customers where id = --3\n3",
    "select name from customers where id = -(3)",
    "select name from customers where id = 1 - -2",
    "select name from customers where id = 1+2",
    "select name from customers where id=3or id=1",
    "select name from customers where id = 99999999999999999999",
    "select name from customers where id = 9223372036854775807",
    "select name from customers where id = -9223372036854775808",
    "select name from customers where id = null",
    "select name from customers where id is not distinct from 3",
    "select name from customers where not id = 3",
    "select name from customers where (id = 3) is not true",
    "select name from customers where id = 3 is true",
    "select name from customers where id = 3 or true",
    "select name from customers where id = 3 or id = 1",
    "select name from customers where id in (3)",
    "select name from customers where id in (3, 1)",
    "select name from customers where id = any(array[3])",
    "select name from customers where id = any('{3,1}')",
    "select name from customers where id = all('{3,1}')",
    "select name from customers where (id, name) = (3, 'c3')",
    "select name from customers where row(id) = row(3)",
    "select name from customers where id between 3 and 3",
    "select name from customers where id = (select 3)",
    "select name from customers where id = evil_id()",
    "select name from customers where id = least(3, 4)",
    "select name from customers where id = case when true then 3 else 1 end",
    "select name from customers where id operator(pg_catalog.=) 3",
    "select name from customers c where c.id = 3",
    "select customers.name from customers orders, orders customers where customers.customer_id = 3",
    "select orders.name from customers orders where orders.id = 3",
    "select c.name from customers c, orders o where c.id = 3 and o.customer_id = 1",
    "select c.name from customers c join orders o on c.id = o.customer_id where c.id = 3",
    "select c.name from customers c join orders o on c.id = o.amount where c.id = 3",
    "select c.name from customers c left join orders o on c.id = o.customer_id and c.id = 3",
    "select c.name from customers c right join orders o on c.id = 3 and o.customer_id = 3",
    "select name from customers c(name, id) where id = 'c3'",
    "select name from customers as c(a, name) where a = 3",
    "with customers as (select 3 as id, 'shadow' as name) select name from customers where id = 3",
    "with customers as (select * from evil.customers) select name from customers where id = 3",
    "with c as (select * from customers where id = 3) select name from c where id = 1",
    "with c as (select * from customers) select name from c where id = 3",
    "with recursive customers as (select 3 as id, 'r' as name) select name from customers where id = 3",
    "select name from (select * from customers) c where id = 3",
    "select name from (select id + 1 as id, name from customers) c where id = 3",
    "select name from (select 3 as id, name from customers) c where id = 3",
    "select (select name from customers where id = 1) from customers where id = 3",
    "select name from customers where exists (select from orders where customer_id = id and id = 3)",
    "select name from customers where id = 3 union select name from customers where id = 1",
    "select name from customers where id = 3 union all select 'x'",
    "select 'id=1' from customers where id = 3",
    "select name as id from customers where id = 3 order by id",
    "select count(*) from customers where id = 3",
    "select name from only customers where id = 3",
    "select name from customers tablesample bernoulli (100) where id = 3",
    "select name from customers where id = 3 for update",
    "table customers",
    "values (3)",
    "select name from customers where id = 3 limit 0",
    "select name from customers where id = 3;",
    "select name from customers where id = 3; select name from customers where id = 1",
    ";;select name from customers where id = 3;;",
    "\u{feff}select name from customers where id = 3",
    "select\u{a0}name from customers where id = 3",
    "select name from customers where id\u{2003}= 3",
    "select name from customers where id = 3\u{2028}or id = 1",
    "select name from customers where id = \u{ff13}",
    "select name from customers where id = 3 \u{1}",
    "select name from customers where ıd = 3",
    "select name from customers\twhere\u{b}id\u{c}=\r\n3",
    "select name from lateral (select * from customers where id = 3) c",
    "select name from customers where current_setting('search_path') <> '' and id = 3",
    "explain select name from customers where id = 3",
    "select name from customers where id = 3 and set_config('search_path', 'evil', true) is not null",
];

#[test]
fn s_reads_are_not_fooled() {
    let shards = Shards::new();
    shards.cluster.query("s1", "insert into evil.customers select id, 'evil', '' from customers").unwrap();
    shards.cluster.query("s2", "insert into evil.customers select id, 'evil', '' from customers").unwrap();
    shards.cluster.query("whole", "insert into evil.customers select id, 'evil', '' from customers").unwrap();
    let sentinels: Vec<Sentinel> = (0..2).map(|number| Sentinel::sharded(shards.proxy.port(), number)).collect();
    let mut client = shards.client();
    let mut whole = Whole::new(&shards.cluster);
    let mut answered = 0;
    for sql in READS {
        let simple = client.query(sql);
        let extended = client.talk(&[parse("", sql), bind("", &[]), execute(), sync()], 1);
        let expected = whole.query(sql);
        for heard in [simple, extended] {
            let Some(found) = rows(&heard) else { continue };
            if sql.starts_with("explain") || sql.contains("evil_id") {
                continue;
            }
            answered += 1;
            let expected = expected.as_ref().unwrap_or_else(|| panic!("{sql}: an answer where there is none: {heard}"));
            assert_eq!(&found, expected, "{sql}");
        }
    }
    assert!(answered > 80, "only {answered} were answered");
    sentinels.into_iter().for_each(Sentinel::finish);
}

/// The database that is not sharded, over its socket.
struct Whole<'a>(&'a Cluster);

impl<'a> Whole<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self(cluster)
    }

    /// What it answers, in order of value.
    fn query(&mut self, sql: &str) -> Option<Vec<String>> {
        let rows = self.0.query("whole", sql).ok()?;
        let shown = |value: Option<String>| value.unwrap_or_else(|| "NULL".to_owned());
        let mut rows: Vec<String> =
            rows.into_iter().map(|row| row.into_iter().map(shown).collect::<Vec<_>>().join(",")).collect();
        rows.sort();
        Some(rows)
    }
}

const WRITES: &[&str] = &[
    "insert into customers (id, name) values (100, 'a')",
    "insert into customers (name, id) values ('b', 101)",
    "insert into customers values ('102', $$c$$)",
    "insert into customers values (103, 'd'), (104, 'e')",
    "insert into customers values (-105, 'f')",
    "insert into customers values (- -106, 'g')",
    "insert into customers select 107, 'h'",
    "insert into customers select id + 100, name from customers where id = 8",
    "insert into customers values (109, 'i') on conflict (id) do update set name = 'j'",
    "insert into customers values (3, 'k') on conflict (id) do update set name = 'k'",
    "insert into customers values (3, 'k') on conflict (id) do update set id = 200",
    "with x as (insert into customers values (110, 'l') returning id) insert into orders select id, 1 from x",
    "with x as (select 111 as id) insert into customers select id, 'm' from x",
    "insert into customers values (/* 1 */ 112, 'n') -- 3",
    "insert into \"customers\" (\"id\", name) values (113, E'o\\'')",
    "insert into customers values (default, 'p')",
    "insert into customers values ((select 114), 'q')",
    "insert into customers values (evil_id() + 1000, 'r')",
    "update customers set name = 'w' where id = 1",
    "update customers set name = 'x'",
    "update customers set id = 300 where id = 2",
    "update customers set id = id where id = 2",
    "update only customers set note = 'y' where id = 3",
    "update customers c set note = 'z' from orders o where o.customer_id = c.id and c.id = 4",
    "update customers set note = 'both' where id = 5 or id = 6",
    "update customers set name = 'v' where id = 1; delete from customers where id = 7",
    "delete from customers where id = -4",
    "delete from customers where id = -3 -- only",
    "delete from customers using orders where customers.id = customer_id and customers.id = 8",
    "delete from orders",
    "with gone as (delete from customers where id = 1 returning *) select * from gone",
    "merge into customers c using (values (6)) v(id) on c.id = v.id when matched then update set note = 'merged'",
    "truncate orders",
    "copy orders from stdin",
];

#[test]
fn s_writes_go_where_they_would_be_looked_for() {
    let shards = Shards::new();
    let mut client = shards.client();
    let mut done = 0;
    for sql in WRITES {
        if sql.starts_with("copy") {
            continue;
        }
        let heard = client.query(sql);
        if heard.contains("E:") {
            // Refused, or an error that the other database has as well: nothing of it may stay.
            let (sharded, whole) = shards.contents();
            assert_eq!(sharded, whole, "{sql}: {heard}");
            continue;
        }
        assert!(!sql.contains("evil_id"), "{sql}: {heard}");
        done += 1;
        shards.cluster.query("whole", sql).unwrap_or_else(|error| panic!("{sql}: {heard}, but {error}"));
        let (sharded, whole) = shards.contents();
        assert_eq!(sharded, whole, "{sql}");
    }
    assert!(done > 12, "only {done} were done");
    // Each row is where a read by its key finds it.
    for row in shards.cluster.query("whole", "select id, name from customers").unwrap() {
        let (id, name) = (row[0].clone().unwrap(), row[1].clone().unwrap());
        let heard = client.query(&format!("select name from customers where id = {id}"));
        assert_eq!(heard, format!("T D:{name} C:SELECT_1 Z:I"), "{id}");
    }
}

#[test]
fn s_search_path_and_string_tricks_over_shards() {
    let shards = Shards::new();
    for trick in [
        "set search_path = evil, public",
        "set search_path = evil",
        "select set_config('search_path', 'evil', false)",
        "select pg_catalog.set_config('search_path', 'evil', false) from customers where id = 3",
        "set local search_path = evil",
        "begin; set local search_path = evil",
        "set standard_conforming_strings = off",
        "select set_config('standard_conforming_strings', 'off', false)",
        "set role postgres; set search_path = evil",
        "create temp table customers (id bigint, name text)",
        "do $$ begin set search_path = evil; end $$",
        "do $$ begin perform set_config('search_path', 'evil', false); end $$",
    ] {
        let mut client = shards.client();
        client.query(trick);
        let heard = client.query("select name from customers where id = 3");
        let right = heard.contains("D:c3") || heard.contains("E:");
        assert!(right, "{trick}: {heard}");
        let heard = client.query("select name from customers where id = 3 and name <> 'a\\' or name = 'c1' -- '");
        assert!(heard.contains("D:c3") || heard.contains("E:"), "{trick}: {heard}");
        drop(client);
        let mut next = shards.client();
        for id in 1..=8 {
            let heard = next.query(&format!("select name, '\\' from customers where id = {id}"));
            assert_eq!(heard, format!("T D:c{id},\\ C:SELECT_1 Z:I"), "after {trick}");
        }
    }
}

/// Texts that change the session without looking as if they did, or look as if they did and do not.
const DISGUISES: &[&str] = &[
    "/* */ set my.tenant = 'x'",
    "/* /* set */ */ SeT my.tenant = 'x'",
    "-- nothing\nset my.tenant = 'x'",
    "\n\t;;set my.tenant = 'x'",
    "select 1; set my.tenant = 'x'",
    "select 1; select set_config('my.tenant', 'x', false); select 2",
    "select \"set_config\"('my.tenant', 'x', false)",
    "select U&\"set\\005fconfig\"('my.tenant', 'x', false)",
    "select pg_catalog . set_config ('my.tenant', 'x', false)",
    "with x as (select set_config('my.tenant', 'x', false) as y) select y from x",
    "values (set_config('my.tenant', 'x', false))",
    "select 1 where set_config('my.tenant', 'x', false) = 'x'",
    "insert into t select 900, set_config('my.tenant', 'x', false)",
    "explain analyze select set_config('my.tenant', 'x', false)",
    "do 'begin perform set_config(''my.tenant'', ''x'', false); end'",
    "do language plpgsql $x$ begin execute 'set my.tenant = ''x'''; end $x$",
    "execute_set('x')",
    "select spoil()",
    "select public.spoil()",
    "select \"spoil\"()",
    "select * from spoil()",
    "select hidden from spoiling",
    "update t set owner = 'x' where spoil() is not null",
    "insert into trapped values (1)",
    "select 'set my.tenant = ''x'''",
    "select $$; set my.tenant = 'x'; $$",
    "select 'a\\'; set my.tenant = 'x'; --'",
    "select E'a\\'; set my.tenant = ''x''; --'",
    "set standard_conforming_strings = off; select 'a\\'; set my.tenant = ''x''; --'",
    "begin; set my.tenant = 'x'; commit",
    "begin; set local my.tenant = 'x'; savepoint s; set my.tenant = 'y'; rollback to s; commit",
    "prepare p9 as select set_config('my.tenant', 'x', false); execute p9",
    "alter function spoil() set my.tenant = 'z'; select spoil()",
    "create or replace function late() returns text language sql as $$ select set_config('my.tenant', 'x', false) $$; select late()",
    "select late()",
    "call nothing()",
    "set session my.tenant to 'x'",
    "set time zone interval '-08:00' hour to minute",
    "set transaction read only",
    "set constraints all deferred",
    "reset all; set my.tenant = 'x'",
    "discard temp; set my.tenant = 'x'",
    "select pg_reload_conf(), set_config('my.tenant', 'x', false)",
    "select lo_create(0)",
    "create temp table spoilt as select set_config('my.tenant', 'x', false) as x",
    "copy (select set_config('my.tenant', 'x', false)) to stdout",
    "declare c cursor with hold for select set_config('my.tenant', 'x', false)",
    "begin; declare c cursor for select set_config('my.tenant', 'x', false); fetch c; commit",
    "set\u{a0}my.tenant = 'x'",
    "\u{feff}set my.tenant = 'x'",
];

#[test]
fn s_disguised_settings_reach_nobody_else() {
    let watch = Watch::new(2);
    for sql in [
        "create function spoil() returns text language plpgsql as $$ begin return set_config('my.tenant', 'spoilt', false); end $$",
        "create view spoiling as select spoil() as hidden",
        "create table trapped (id int)",
        "create function trap() returns trigger language plpgsql as $$ begin perform spoil(); return new; end $$",
        "create trigger trap before insert on trapped for each row execute function trap()",
        "insert into t values (1, 'x')",
    ] {
        let heard = watch.client().query(sql);
        assert!(!heard.contains("E:"), "{sql}: {heard}");
    }
    let mut others = [watch.client(), watch.client()];
    let question = "select coalesce(current_setting('my.tenant', true), '')";
    for text in DISGUISES {
        for extended in [false, true] {
            let mut raw = watch.client();
            if extended {
                raw.talk(&[parse("", text), bind("", &[]), execute(), sync()], 1);
            } else {
                raw.query(text);
            }
            for round in 0..4 {
                let heard = others[round % 2].value(question);
                assert_eq!(heard, "", "{text}, extended: {extended}");
            }
            drop(raw);
            for round in 0..4 {
                let heard = others[round % 2].talk(&[query("begin"), query(question), query("rollback")], 3);
                assert_eq!(heard, "C:BEGIN Z:T T D: C:SELECT_1 Z:T C:ROLLBACK Z:I", "{text}, extended: {extended}");
            }
        }
    }
    watch.finish();
}

#[test]
fn s_nul_ends_the_text_or_the_connection() {
    let shards = Shards::new();
    let texts: [&[u8]; 4] = [
        b"select name from customers where id = 1\0 or id = 3\0",
        b"\0select name from customers where id = 1\0",
        b"select name from customers where id = 1\0\0",
        b"select name from customers where name = '\0' or id = 1\0",
    ];
    for text in texts {
        let mut raw = shards.client();
        raw.send(&crate::proxy::raw::frame(b'Q', text));
        let mut frames = Vec::new();
        while let Some(frame) = raw.try_read() {
            let last = frame.0 == b'Z';
            frames.push(frame);
            if last {
                break;
            }
        }
        let heard = shown(&frames);
        assert!(!heard.contains("D:c3"), "{heard}");
        assert!(heard.contains("E:08P01") || heard.contains("E:22021"), "{heard}");
    }
}
