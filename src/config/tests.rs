//! What a file may say, what is refused, and how.

use super::*;

const SHOP: &str = r#"
listen: [127.0.0.1:6432, "[::1]:6432"]
workers: 2
users:
  app: {password: env:APP}
databases:
  blog:
    primary: "postgres://app:secret@10.0.0.9/blog"
  shop:
    pool: {mode: transaction, size: 7, wait_timeout: 500ms}
    shards:
      - {name: a, primary: "postgres://app@10.0.0.1/shop"}
      - {name: b, primary: "postgres://app@10.0.0.3:6000/shop"}
    sharding:
      placement: {hash: {buckets: 1024}}
      tables:
        customers: {key: id}
        sales.orders: {key: customer_id, accept: unique-per-shard}
        events: {key: created_at, placement: {range: [{from: 2026-01-01, to: 2026-07-01, shard: a}, {from: 2026-07-01, shard: b}]}}
        shops: {key: region, placement: {list: [{values: [eu, uk], shard: a}, {values: us, shard: b}]}}
      reference: [countries]
      local: {audit_log: a}
    commit: best-effort
"#;

#[test]
fn reads_everything() {
    let config = parse(SHOP, "pgweir.yaml").unwrap();
    assert_eq!(config.listen.len(), 2);
    assert_eq!((config.workers, config.admin.clone()), (Some(2), None));
    assert_eq!(config.limits.max_clients, 10_000);
    let blog = &config.databases["blog"];
    assert_eq!(blog.primary.as_ref().unwrap().address(), "10.0.0.9:5432");
    assert_eq!((blog.pool.size, blog.pool.mode, blog.commit), (20, PoolMode::Transaction, CommitMode::Refuse));
    let shop = &config.databases["shop"];
    assert_eq!(
        shop.servers().map(|(name, url)| format!("{name} {url}")).collect::<Vec<_>>(),
        ["a postgres://app@10.0.0.1:5432/shop", "b postgres://app@10.0.0.3:6000/shop"]
    );
    assert_eq!((shop.pool.size, shop.pool.wait_timeout.as_millis(), shop.commit), (7, 500, CommitMode::BestEffort));
    let sharding = shop.sharding.as_ref().unwrap();
    assert_eq!(sharding.placement, Placement::Hash { buckets: 1024, map: Default::default() });
    let table = |name: &str| &sharding.tables[&TableName::parse(name).unwrap()];
    assert_eq!(table("sales.orders").key.0, "customer_id");
    assert_eq!(table("sales.orders").accept, [PerShard::Unique]);
    let Some(Placement::Range(parts)) = &table("events").placement else { panic!() };
    assert_eq!((parts[0].from.as_deref(), parts[1].to.as_deref()), (Some("2026-01-01"), None));
    let Some(Placement::List(parts)) = &table("shops").placement else { panic!() };
    assert_eq!((parts[0].values.join(","), parts[1].values.join(",")), ("eu,uk".to_owned(), "us".to_owned()));
    assert_eq!(sharding.local[&TableName::parse("audit_log").unwrap()], "a");
}

/// Every default is what the same text in a file would be.
#[test]
fn defaults_can_be_read() {
    let config = parse("users: {u: {password: p}}\ndatabases: {d: {primary: postgres://h}}\n", "f").unwrap();
    assert_eq!(config.listen[0].to_string(), "127.0.0.1:6432");
    let sharded = "users: {u: {password: p}}\ndatabases: {d: {shards: [{name: a, primary: postgres://h}], sharding: {tables: {t: {key: k}}}}}\n";
    let config = parse(sharded, "f").unwrap();
    assert_eq!(
        config.databases["d"].sharding.as_ref().unwrap().placement,
        Placement::Hash { buckets: 4096, map: Default::default() }
    );
}

#[test]
fn secrets_do_not_show() {
    let text = SHOP.replace("env:APP", "hunter2");
    let shown = format!("{:?}", parse(&text, "f").unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains("secret"), "{shown}");
}

/// Each broken file in fixtures/config is answered with exactly the text beside it.
#[test]
fn broken_files_are_answered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config");
    let mut seen = 0;
    let mut stale = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let answer = match problems(&text, name) {
            Ok(_) => "ok\n".to_owned(),
            Err(errors) => errors.iter().map(|error| format!("{error}\n")).collect(),
        };
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &answer).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != answer {
            stale.push(format!("{name}:\n{answer}"));
        }
    }
    assert!(seen >= 10, "only {seen} files");
    assert!(stale.is_empty(), "differs (UPDATE_GOLDEN=1 rewrites):\n{}", stale.join("\n"));
}

#[test]
fn the_documentation_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, markdown()).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == markdown(),
        "docs/configuration.md is stale: run `pgweir check --print-settings > docs/configuration.md`"
    );
}
