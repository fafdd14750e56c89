//! Placement against PostgreSQL: a bucket here is a hash partition there.

use std::collections::HashMap;
use std::sync::Arc;

use pgweir::config;
use pgweir::db::local::Cluster;
use pgweir::route::{KeyType, Placement, ShardId, Written};
use pgweir::sql::catalog::Column;

/// How many partitions, hence shards of one bucket each, the hash is taken modulo.
const MODULUS: u32 = 16;

/// Values of each type, made by PostgreSQL itself from a seed, must fall into the partition that this program says.
#[test]
fn a_bucket_is_postgresqls_hash_partition() {
    let cluster = Cluster::start().unwrap();
    let shards: Vec<String> = (0..MODULUS).map(|n| format!("s{n}")).collect();
    // Which bucket each shard holds: one each, in an order that the ring chose.
    let settings = config::Placement::Hash { buckets: MODULUS, map: Default::default() };
    let cases = [
        ("bigint", "((random() - 0.5) * 1.8e19)::numeric::bigint"),
        ("bigint", "(n - 1000)::bigint"),
        ("integer", "((random() - 0.5) * 4.2e9)::bigint::integer"),
        ("smallint", "((random() - 0.5) * 65000)::smallint"),
        ("text", "md5(random()::text) || repeat('äß€😀x', n % 7)"),
        ("character varying(50)", "left(md5(n::text), n % 33)"),
        ("character(20)", "left(md5(n::text), 1 + n % 12) || repeat(' ', n % 5)"),
        ("uuid", "gen_random_uuid()"),
        ("timestamp without time zone", "timestamp '2000-01-01' + (n - 1000) * interval '37 hours 0.000001 s'"),
        ("timestamp with time zone", "timestamptz '2000-01-01' + (n - 1000) * interval '37 hours 0.01 s'"),
        ("date", "date '2000-01-01' + (n - 1000) * 37"),
    ];
    for (type_name, expression) in cases {
        let column = Column { name: "k".to_owned(), type_name: type_name.to_owned(), ..Column::default() };
        let key = KeyType::of_column(&column).unwrap();
        let placement = Placement::new(&settings, key, &shards).unwrap();
        let Placement::Hash { buckets } = &placement else { panic!() };
        let bucket_of: HashMap<ShardId, usize> =
            buckets.iter().enumerate().map(|(bucket, shard)| (*shard, bucket)).collect();
        assert_eq!(bucket_of.len(), MODULUS as usize, "one bucket each");
        let sql = format!(
            "CREATE TABLE t (k {type_name}) PARTITION BY HASH (k); \
             SELECT setseed(0.5); \
             SELECT v.k::text, p.p FROM (SELECT ({expression})::{type_name} AS k FROM generate_series(1, 2000) n OFFSET 0) v, \
             generate_series(0, {MODULUS} - 1) p(p) WHERE satisfies_hash_partition('t'::regclass, {MODULUS}, p.p, v.k); \
             DROP TABLE t"
        );
        let rows = cluster.query("postgres", &sql).unwrap();
        let mut checked = 0;
        for row in &rows {
            let [Some(value), Some(partition)] = row.as_slice() else { continue };
            let shard = placement.shard_of(&key.read(Written::Text(value)).unwrap()).unwrap();
            assert_eq!(bucket_of[&shard].to_string(), *partition, "{type_name} {value:?}");
            checked += 1;
        }
        assert_eq!(checked, 2000, "{type_name}");
    }
}

/// The golden plans' schema is one that PostgreSQL takes, so that no plan is about nonsense.
#[test]
fn the_plans_schema_is_valid() {
    let cluster = Cluster::start().unwrap();
    let schema = std::fs::read_to_string(crate::support::repository("fixtures/plans/schema.sql")).unwrap();
    cluster.query("postgres", &schema).unwrap();
    let session = pgweir::db::blocking::Session::connect(&cluster.url("postgres", "postgres")).unwrap();
    let live = session.catalog().unwrap();
    let text = std::fs::read_to_string(crate::support::repository("fixtures/plans/pgweir.yaml")).unwrap();
    let config = config::parse(&text, "pgweir.yaml").unwrap();
    let (offline, _) = pgweir::sql::ddl::catalog_from_ddl(&schema);
    let problems =
        |catalog| pgweir::route::Topology::new(&config.databases["shop"], Arc::new(catalog)).unwrap().problems();
    assert_eq!(problems(live), problems(offline), "a live catalog and its DDL say the same");
}
