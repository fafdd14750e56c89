//! The linter on live traffic: findings and guards in the proxy.

mod findings;
mod guard;
mod saved;

use pgweir::db::local::{Auth, Cluster, Options};

use crate::proxy::raw::Raw;
use crate::support::Proxy;

/// A server and a proxy in front of it; `boss` may use the console.
struct Stage {
    proxy: Proxy,
    cluster: Cluster,
}

impl Stage {
    /// A proxy with these lines in the database's settings and at the top.
    fn new(database: &str, top: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        let proxy = Proxy::start(&config(&cluster, database, top));
        let stage = Self { proxy, cluster };
        stage.direct().query("create table t (id int, name text)");
        stage
    }

    /// A client of the server itself.
    fn direct(&self) -> Raw {
        Raw::login(self.cluster.port(), "postgres", "postgres", "postgres", &[])
    }

    fn client(&self, user: &str) -> Raw {
        Raw::login(self.proxy.port(), user, "secret", "app", &[])
    }

    fn console(&self) -> Raw {
        Raw::login(self.proxy.port(), "boss", "secret", "pgweir", &[])
    }
}

fn config(cluster: &Cluster, database: &str, top: &str) -> String {
    let users = ["app", "eve", "boss"].map(|name| format!("{name}: {{password: secret}}")).join(", ");
    format!(
        "{top}\nadmin_users: [boss]\nusers: {{{users}}}\ndatabases:\n  app:\n    \
         primary: \"postgres://postgres:postgres@127.0.0.1:{}/postgres?sslmode=disable\"\n{database}",
        cluster.port()
    )
}
