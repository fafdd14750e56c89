//! A sharded database over two real servers, through the proxy: what a client sees, and what lies where.

use pgweir::db::local::{Cluster, Shutdown};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::Proxy;

/// Two shards with the shop of the demo, and the proxy before them.
struct Shop {
    shards: Vec<Cluster>,
    proxy: Proxy,
    runtime: tokio::runtime::Runtime,
}

const SCHEMA: &str = "
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, country text);
CREATE TABLE orders (customer_id bigint NOT NULL, id bigint NOT NULL, total numeric(10,2), PRIMARY KEY (customer_id, id));
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL);
";

impl Shop {
    fn start(commit: &str) -> Self {
        let shards: Vec<Cluster> = (0..2).map(|_| Cluster::start().unwrap()).collect();
        let urls: Vec<String> = shards.iter().map(|shard| shard.url("postgres", "postgres")).collect();
        let proxy = Proxy::start(&format!(
            "users:\n  app: {{password: secret}}\ndatabases:\n  shop:\n    pool: {{size: 4}}\n    shards:\n      \
             - {{name: a, primary: \"{}\"}}\n      - {{name: b, primary: \"{}\"}}\n    sharding:\n      tables:\n        \
             customers: {{key: id}}\n        orders: {{key: customer_id}}\n      reference: [countries]\n    commit: {commit}\n",
            urls[0], urls[1]
        ));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { shards, proxy, runtime }
    }

    fn with_schema(commit: &str) -> Self {
        let shop = Self::start("best-effort");
        if commit == "best-effort" {
            shop.runtime.block_on(async { shop.client().await.batch_execute(SCHEMA).await.unwrap() });
            return shop;
        }
        drop(shop);
        let shop = Self::start(commit);
        for shard in &shop.shards {
            shard.query("postgres", SCHEMA).unwrap();
        }
        shop
    }

    async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.proxy.url("app:secret", "shop"), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A query's one value on each shard.
    fn on_shards(&self, sql: &str) -> Vec<String> {
        let one = |shard: &Cluster| shard.query("postgres", sql).unwrap()[0][0].clone().unwrap();
        self.shards.iter().map(one).collect()
    }
}

/// Two customers that lie on different shards, each with the shard's number.
fn spread(shop: &Shop) -> (i64, i64) {
    let ids = shop.on_shards("SELECT coalesce(min(id), -1) FROM customers");
    (ids[0].parse().unwrap(), ids[1].parse().unwrap())
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", |code| code.code())
}

#[test]
fn rows_go_where_their_key_says_and_come_back() {
    let shop = Shop::with_schema("best-effort");
    shop.runtime.block_on(async {
        let client = shop.client().await;
        for id in 1..=40i64 {
            client.batch_execute(&format!("INSERT INTO customers VALUES ({id}, 'n{id}', 'de')")).await.unwrap();
            let sql = "INSERT INTO orders (customer_id, id, total) VALUES ($1, $2, 10.5)";
            assert_eq!(client.execute(sql, &[&id, &(id * 10)]).await.unwrap(), 1);
        }
        for id in 1..=40i64 {
            let sql =
                "SELECT c.name, o.total::text FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = $1";
            let row = client.query_one(sql, &[&id]).await.unwrap();
            assert_eq!((row.get::<_, String>(0), row.get::<_, String>(1)), (format!("n{id}"), "10.50".to_owned()));
        }
        let prepared = client.prepare("UPDATE customers SET name = $2 WHERE id = $1").await.unwrap();
        for id in 1..=40i64 {
            assert_eq!(client.execute(&prepared, &[&id, &"new"]).await.unwrap(), 1);
        }
        assert_eq!(client.execute("DELETE FROM orders WHERE customer_id = 7 AND id = 70", &[]).await.unwrap(), 1);
    });
    let counts = shop.on_shards("SELECT count(*) || ' ' || count(*) FILTER (WHERE name = 'new') FROM customers");
    let counts: Vec<i64> = counts.iter().map(|both| both.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(counts.iter().sum::<i64>(), 40);
    assert!(counts.iter().all(|&count| count > 5), "{counts:?}");
    let apart = "SELECT count(*) FROM orders o WHERE NOT EXISTS (SELECT FROM customers c WHERE c.id = o.customer_id)";
    assert_eq!(shop.on_shards(apart), ["0", "0"]);
}

#[test]
fn reference_tables_are_the_same_on_every_shard() {
    let shop = Shop::with_schema("best-effort");
    shop.runtime.block_on(async {
        let client = shop.client().await;
        let tag =
            client.execute("INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France')", &[]).await.unwrap();
        assert_eq!(tag, 2);
        client.batch_execute("UPDATE countries SET name = 'Deutschland' WHERE code = 'de'").await.unwrap();
        let row = client.query_one("INSERT INTO countries VALUES ($1, $2) RETURNING name", &[&"it", &"Italy"]).await;
        assert_eq!(row.unwrap().get::<_, String>(0), "Italy");
        let duplicate = client.batch_execute("INSERT INTO countries VALUES ('de', 'again')").await.unwrap_err();
        assert_eq!(code(&duplicate), "23505");
        let count: i64 = client.query_one("SELECT count(*) FROM countries", &[]).await.unwrap().get(0);
        assert_eq!(count, 3);
    });
    let all = shop.on_shards("SELECT string_agg(code || name, ',' ORDER BY code) FROM countries");
    assert_eq!(all, ["deDeutschland,frFrance,itItaly", "deDeutschland,frFrance,itItaly"]);
}

#[test]
fn a_failed_statement_leaves_nothing_on_any_shard() {
    let shop = Shop::with_schema("best-effort");
    shop.shards[1].query("postgres", "INSERT INTO countries VALUES ('xx', 'only here')").unwrap();
    shop.runtime.block_on(async {
        let client = shop.client().await;
        let error = client.batch_execute("INSERT INTO countries VALUES ('xx', 'everywhere')").await.unwrap_err();
        assert_eq!(code(&error), "23505");
        let diverged = client.batch_execute("UPDATE countries SET name = 'y' WHERE code = 'xx'").await.unwrap_err();
        assert_eq!(code(&diverged), "XX001", "{diverged:?}");
    });
    assert_eq!(shop.on_shards("SELECT coalesce(max(name), '-') FROM countries"), ["-", "only here"]);
}

#[test]
fn what_cannot_be_proven_is_refused_with_a_reason() {
    let shop = Shop::with_schema("best-effort");
    shop.runtime.block_on(async {
        let client = shop.client().await;
        for sql in [
            "SELECT count(*), min(xmin::text) FROM customers",
            "SELECT * FROM customers WHERE name = 'x' LIMIT 1 FOR UPDATE",
            "SELECT * FROM customers WHERE ctid = '(0,1)'",
            "UPDATE customers SET id = id + 5 WHERE id = 1",
            "DELETE FROM orders WHERE customer_id IN (SELECT id FROM customers LIMIT 1)",
            "SELECT * FROM nowhere_listed",
            "LISTEN x",
            "CREATE TEMP TABLE t (a int)",
            "MERGE INTO customers c USING orders o ON o.note = c.name WHEN MATCHED THEN DELETE",
            "SELECT pg_advisory_lock(1)",
        ] {
            let error = client.batch_execute(sql).await.unwrap_err();
            assert_eq!(code(&error), "0A000", "{sql}: {error:?}");
            let error = error.as_db_error().unwrap();
            assert!(error.message().starts_with("pgweir: ") && error.hint().is_some(), "{sql}: {error:?}");
        }
        // The session goes on.
        assert_eq!(client.query("SELECT 1", &[]).await.unwrap().len(), 1);
    });
}

#[test]
fn a_transaction_over_shards_commits_or_rolls_back_as_one() {
    let shop = Shop::with_schema("best-effort");
    shop.runtime.block_on(async {
        let mut client = shop.client().await;
        for id in 1..=20i64 {
            client.execute("INSERT INTO customers VALUES ($1, 'n', 'de')", &[&id]).await.unwrap();
        }
        let (a, b) = spread(&shop);
        let rename = "UPDATE customers SET name = $2 WHERE id = $1";
        let transaction = client.transaction().await.unwrap();
        transaction.execute(rename, &[&a, &"gone"]).await.unwrap();
        transaction.execute(rename, &[&b, &"gone"]).await.unwrap();
        let sees: String =
            transaction.query_one("SELECT name FROM customers WHERE id = $1", &[&b]).await.unwrap().get(0);
        assert_eq!(sees, "gone");
        transaction.rollback().await.unwrap();
        let mut transaction = client.transaction().await.unwrap();
        transaction.execute(rename, &[&a, &"kept"]).await.unwrap();
        let savepoint = transaction.transaction().await.unwrap();
        savepoint.execute(rename, &[&b, &"undone"]).await.unwrap();
        savepoint.execute(rename, &[&a, &"undone"]).await.unwrap();
        savepoint.rollback().await.unwrap();
        transaction.execute(rename, &[&b, &"kept"]).await.unwrap();
        transaction.commit().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.execute(rename, &[&a, &"half"]).await.unwrap();
        assert_eq!(
            code(&transaction.execute("INSERT INTO customers VALUES (2, NULL, '')", &[]).await.unwrap_err()),
            "23502"
        );
        assert_eq!(code(&transaction.execute(rename, &[&b, &"half"]).await.unwrap_err()), "25P02");
        transaction.commit().await.unwrap();
    });
    let names = shop.on_shards("SELECT string_agg(DISTINCT name, ',' ORDER BY name) FROM customers");
    assert_eq!(names, ["kept,n", "kept,n"]);
    assert_eq!(shop.on_shards("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"), ["0", "0"]);
}

#[test]
fn without_an_atomic_commit_a_second_writer_is_refused() {
    let shop = Shop::with_schema("refuse");
    shop.runtime.block_on(async {
        let mut client = shop.client().await;
        for id in 1..=20i64 {
            client.execute("INSERT INTO customers VALUES ($1, 'n', 'de')", &[&id]).await.unwrap();
        }
        let (a, b) = spread(&shop);
        let transaction = client.transaction().await.unwrap();
        transaction.execute("UPDATE customers SET name = 'x' WHERE id = $1", &[&a]).await.unwrap();
        let error = transaction.execute("UPDATE customers SET name = 'x' WHERE id = $1", &[&b]).await.unwrap_err();
        assert_eq!(code(&error), "0A000");
        drop(transaction);
        assert_eq!(code(&client.batch_execute("INSERT INTO countries VALUES ('a', 'b')").await.unwrap_err()), "0A000");
    });
    assert_eq!(shop.on_shards("SELECT count(*) FROM customers WHERE name = 'x'"), ["0", "0"]);
}

#[test]
fn several_statements_of_one_string_stand_and_fall_together() {
    let shop = Shop::with_schema("best-effort");
    shop.runtime.block_on(async {
        let client = shop.client().await;
        let inserts: Vec<String> =
            (1..=10).map(|id| format!("INSERT INTO customers VALUES ({id}, 'n', 'de')")).collect();
        let failing = format!("{}; INSERT INTO customers VALUES (3, 'twice', 'de')", inserts.join("; "));
        assert_eq!(code(&client.batch_execute(&failing).await.unwrap_err()), "23505");
        assert_eq!(shop.on_shards("SELECT count(*) FROM customers"), ["0", "0"]);
        client.batch_execute(&inserts.join(";")).await.unwrap();
        let rows =
            client.simple_query("SELECT id FROM customers WHERE id = 1; SELECT id FROM customers WHERE id = 4").await;
        let ids: Vec<String> = rows
            .unwrap()
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .collect();
        assert_eq!(ids, ["1", "4"]);
        // The string's own block must not outlive it, and what it did goes with the error.
        let savepoint = "UPDATE customers SET name = 'lost' WHERE id = 1; SAVEPOINT a";
        assert_eq!(code(&client.batch_execute(savepoint).await.unwrap_err()), "25P01");
        client.batch_execute("BEGIN; UPDATE customers SET name = 'z' WHERE id = 1; ROLLBACK").await.unwrap();
        client.batch_execute("BEGIN; UPDATE customers SET name = 'y' WHERE id = 4; COMMIT").await.unwrap();
    });
    let names = shop.on_shards("SELECT coalesce(string_agg(name, ',') FILTER (WHERE name <> 'n'), '') FROM customers");
    assert_eq!(names.concat(), "y");
}

#[test]
fn settings_follow_the_client_to_every_shard_and_to_nobody_else() {
    let shop = Shop::with_schema("best-effort");
    shop.runtime.block_on(async {
        let client = shop.client().await;
        let stranger = shop.client().await;
        client.batch_execute("SET IntervalStyle = 'iso_8601'").await.unwrap();
        for id in 1..=10i64 {
            client.execute("INSERT INTO customers VALUES ($1, 'n', 'de')", &[&id]).await.unwrap();
        }
        let day = "SELECT '1 day'::interval::text FROM customers WHERE id = $1";
        for id in 1..=10i64 {
            let mine = client.query_one(day, &[&id]).await.unwrap();
            assert_eq!(mine.get::<_, String>(0), "P1D");
            let other = stranger.query_one(day, &[&id]).await.unwrap();
            assert_eq!(other.get::<_, String>(0), "1 day");
        }
        client.batch_execute("BEGIN; SET IntervalStyle = 'sql_standard'; ROLLBACK").await.unwrap();
        let now = client.simple_query("SHOW IntervalStyle").await.unwrap();
        let shown = now.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(shown, Some("iso_8601"), "{now:?}");
        client.batch_execute("SET client_encoding = 'SJIS'").await.unwrap();
        assert_eq!(code(&client.batch_execute("SELECT name FROM customers WHERE id = 1").await.unwrap_err()), "0A000");
    });
}

#[test]
fn a_shard_that_is_down_harms_only_its_own_statements() {
    let mut shop = Shop::with_schema("best-effort");
    let (a, b) = shop.runtime.block_on(async {
        let client = shop.client().await;
        for id in 1..=20i64 {
            client.execute("INSERT INTO customers VALUES ($1, 'n', 'de')", &[&id]).await.unwrap();
        }
        spread(&shop)
    });
    let client = shop.runtime.block_on(shop.client());
    shop.shards[1].stop(Shutdown::Fast).unwrap();
    shop.runtime.block_on(async {
        let select = "SELECT name FROM customers WHERE id = $1";
        let error = client.query(select, &[&b]).await.unwrap_err();
        assert!(code(&error).starts_with("08") || code(&error).starts_with("57"), "{error:?}");
        assert_eq!(client.query(select, &[&a]).await.unwrap().len(), 1);
    });
    shop.shards[1].start_again().unwrap();
    shop.runtime.block_on(async {
        let select = "SELECT name FROM customers WHERE id = $1";
        let mut back = client.query(select, &[&b]).await;
        for _ in 0..100 {
            if back.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            back = client.query(select, &[&b]).await;
        }
        assert_eq!(back.unwrap().len(), 1);
    });
}

#[test]
fn an_index_is_built_concurrently_on_each_shard_and_a_failure_says_where() {
    let shop = Shop::with_schema("best-effort");
    shop.shards[1].query("postgres", "CREATE INDEX taken ON customers (country)").unwrap();
    shop.runtime.block_on(async {
        let client = shop.client().await;
        client.batch_execute("CREATE INDEX CONCURRENTLY by_name ON customers (name)").await.unwrap();
        let error = client.batch_execute("CREATE INDEX CONCURRENTLY taken ON customers (name)").await.unwrap_err();
        assert_eq!(code(&error), "42P07");
        let inside =
            client.batch_execute("BEGIN; CREATE INDEX CONCURRENTLY other ON customers (name)").await.unwrap_err();
        assert_eq!(code(&inside), "25001");
        client.batch_execute("ROLLBACK").await.unwrap();
    });
    let names = shop.on_shards(
        "SELECT string_agg(indexname, ',' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'customers'",
    );
    assert_eq!(names, ["by_name,customers_pkey,taken", "by_name,customers_pkey,taken"]);
}

#[test]
fn show_and_empty_statements_work_in_the_extended_protocol() {
    let shop = Shop::with_schema("refuse");
    shop.runtime.block_on(async {
        let mut client = shop.client().await;
        assert_eq!(client.query_one("SHOW server_encoding", &[]).await.unwrap().get::<_, String>(0), "UTF8");
        assert_eq!(client.execute("", &[]).await.unwrap(), 0);
        assert_eq!(client.execute(" -- nothing", &[]).await.unwrap(), 0);
        let transaction = client.transaction().await.unwrap();
        transaction.execute("SET LOCAL TimeZone = 'Asia/Tokyo'", &[]).await.unwrap();
        for id in [1i64, 2, 3] {
            transaction.query("SELECT name FROM customers WHERE id = $1", &[&id]).await.unwrap();
        }
        let zone = transaction.query_one("SHOW TimeZone", &[]).await.unwrap();
        assert_eq!(zone.get::<_, String>(0), "Asia/Tokyo");
        transaction.commit().await.unwrap();
        assert_eq!(client.query_one("SHOW TimeZone", &[]).await.unwrap().get::<_, String>(0), "UTC");
    });
}
