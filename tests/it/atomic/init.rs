//! `pgweir init`.

use pgweir::db::local::Cluster;

use super::{Bank, config, shard};
use crate::support::{Proxy, pgweir, stderr, stdout, wait_until};

const TABLES: &str = "select count(*) from information_schema.tables where table_schema = 'pgweir'";

#[test]
fn init_creates_what_is_missing_once() {
    let bank = Bank::new(2);
    let path = bank.proxy.config_path();
    let again = pgweir(&["init", "-c", path.to_str().unwrap()]);
    assert!(again.status.success());
    assert_eq!(stdout(&again).matches("was there").count(), 2, "{}", stdout(&again));
    let ids = bank.on_each("select id || ' ' || shard from pgweir.deployment");
    assert_eq!(ids[0][0].split(' ').next(), ids[1][0].split(' ').next());
    assert!(ids[0][0].ends_with("s0") && ids[1][0].ends_with("s1"), "{ids:?}");
}

#[test]
fn init_says_what_it_cannot_do() {
    let shards = [Cluster::start().unwrap(), shard()];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgweir.yaml");
    std::fs::write(&path, config(&shards, "atomic")).unwrap();
    let path = path.to_str().unwrap();

    let printed = pgweir(&["init", "-c", path, "--print"]);
    assert_eq!(stdout(&printed).matches("CREATE TABLE IF NOT EXISTS pgweir.commits").count(), 2);
    assert_eq!(shards[1].query("postgres", TABLES).unwrap()[0][0].as_deref(), Some("0"));

    let done = pgweir(&["init", "-c", path]);
    assert!(!done.status.success());
    let said = stderr(&done);
    assert!(said.contains("max_prepared_transactions is 0") && said.contains("s0") && !said.contains("s1"), "{said}");
    assert_eq!(shards[1].query("postgres", TABLES).unwrap()[0][0].as_deref(), Some("4"));

    // So does the proxy, when it starts.
    let proxy = Proxy::start(&config(&shards, "atomic"));
    wait_until("the log says it", || {
        let log = proxy.log();
        log.contains("max_prepared_transactions is 0 there") && log.contains("shard=\"s0\"")
    });

    // A server that says it is another shard is not taken.
    shards[1].query("postgres", "update pgweir.deployment set shard = 'other'").unwrap();
    let wrong = pgweir(&["init", "-c", path]);
    assert!(stderr(&wrong).contains("this server is shard other"), "{}", stderr(&wrong));

    std::fs::write(path, config(&shards, "refuse")).unwrap();
    let none = pgweir(&["init", "-c", path]);
    assert!(stderr(&none).contains("no database has `commit: atomic`"), "{}", stderr(&none));
}

/// Whoever may not create schemas lets somebody run what is printed.
#[test]
fn init_prints_what_another_role_may_run() {
    let shards = [shard()];
    shards[0].query("postgres", "create role plain login password 'plain'").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgweir.yaml");
    let text = config(&shards, "atomic").replace(&shards[0].url("postgres", "postgres"), &{
        format!("postgres://plain:plain@127.0.0.1:{}/postgres?sslmode=disable", shards[0].port())
    });
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let refused = pgweir(&["init", "-c", path]);
    assert!(!refused.status.success() && stderr(&refused).contains("--print"), "{}", stderr(&refused));
    let printed = stdout(&pgweir(&["init", "-c", path, "--print"]));
    shards[0].query("postgres", &printed).unwrap();
    let done = pgweir(&["init", "-c", path]);
    assert!(done.status.success() && stdout(&done).contains("was there"), "{}{}", stdout(&done), stderr(&done));
}
