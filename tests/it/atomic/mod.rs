//! `commit: atomic`: transactions over shards happen on all of them or on none, whatever dies.

mod apart;
mod commit;
mod deadlock;
mod faults;
mod init;
mod lost;
mod recovery;
mod relay;

use pgweir::db::local::{Cluster, Options};

use crate::proxy::raw::Raw;
use crate::support::{Proxy, pgweir, stderr};

/// Shards with accounts, and a proxy before them whose commits are atomic.
struct Bank {
    shards: Vec<Cluster>,
    proxy: Proxy,
}

const ACCOUNTS: &str = "create table accounts (id bigint primary key, amount bigint not null);
    create table moves (id bigint not null, account bigint not null, by bigint not null, primary key (account, id));
    create table currencies (code text primary key);";

fn shard() -> Cluster {
    let options = Options::default().set("max_prepared_transactions", "50").set("log_statement", "all");
    Cluster::start_with(&options).unwrap()
}

fn config(shards: &[Cluster], commit: &str) -> String {
    let shard = |(at, shard): (usize, &Cluster)| {
        format!("      - {{name: s{at}, primary: \"{}\"}}\n", shard.url("postgres", "postgres"))
    };
    format!(
        "users:\n  app: {{password: secret}}\ndatabases:\n  bank:\n    pool: {{size: 12}}\n    shards:\n{}    sharding:\n      \
         tables:\n        accounts: {{key: id}}\n        moves: {{key: account}}\n      reference: [currencies]\n    commit: {commit}\n",
        shards.iter().enumerate().map(shard).collect::<String>()
    )
}

impl Bank {
    fn new(shards: usize) -> Self {
        let shards: Vec<Cluster> = (0..shards).map(|_| shard()).collect();
        for shard in &shards {
            shard.query("postgres", ACCOUNTS).unwrap();
        }
        let proxy = Proxy::start(&config(&shards, "atomic"));
        let path = proxy.config_path();
        let done = pgweir(&["init", "-c", path.to_str().unwrap()]);
        assert!(done.status.success(), "{}", stderr(&done));
        Self { shards, proxy }
    }

    fn client(&self) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", "bank", &[])
    }

    /// The first column of each row that a query gives on a shard.
    fn on(&self, shard: usize, sql: &str) -> Vec<String> {
        let rows = self.shards[shard].query("postgres", sql).unwrap();
        rows.into_iter().map(|row| row[0].clone().unwrap_or_default()).collect()
    }

    /// The same on each.
    fn on_each(&self, sql: &str) -> Vec<Vec<String>> {
        (0..self.shards.len()).map(|shard| self.on(shard, sql)).collect()
    }

    /// An account on each shard.
    fn spread(&self, client: &mut Raw) -> Vec<i64> {
        for id in 1..=40 {
            assert_eq!(client.query(&format!("insert into accounts values ({id}, 100)")), "C:INSERT_0_1 Z:I");
        }
        let first = self.on_each("select min(id) from accounts");
        first.iter().map(|rows| rows[0].parse().unwrap()).collect()
    }

    /// What a shard has logged of statements, from the first that contains `from` on.
    fn log(&self, shard: usize, from: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.shards[shard].log_path()).unwrap();
        let lines = log.lines().skip_while(|line| !line.contains(from));
        lines.filter_map(|line| Some(line.split_once("statement: ")?.1.to_owned())).collect()
    }
}
