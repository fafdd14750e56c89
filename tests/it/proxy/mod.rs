//! `pgweir proxy` over the wire, with real PostgreSQL behind it.

mod admin;
mod apart;
mod auth;
mod automatic;
mod bulk;
mod copy;
mod copying;
mod cursors;
mod definitions;
mod differential;
mod extended;
mod functions;
mod merge;
mod moves;
mod operation;
mod places;
mod prepared;
mod random;
pub mod raw;
mod replicas;
mod scatter;
mod sequences;
mod servers;
mod session;
mod shapes;
mod sharded;
mod spread;
mod state;
mod statements;
mod tls;
mod views;
pub mod web;
mod wide;
mod wire;

use pgweir::db::local::{Auth, Cluster, Options};

use crate::support::Proxy;
use raw::Raw;

/// A cluster whose clients need a password, and a proxy in front of it with a pool of `size`.
struct Stage {
    proxy: Proxy,
    cluster: Cluster,
}

fn config(cluster: &Cluster, size: usize) -> String {
    format!(
        "users: {{app: {{password: secret}}, eve: {{password: other}}}}\ndatabases:\n  app:\n    \
         primary: \"postgres://postgres:postgres@127.0.0.1:{}/postgres?sslmode=disable\"\n    \
         pool: {{size: {size}, wait_timeout: 2s}}\n",
        cluster.port()
    )
}

impl Stage {
    fn new(size: usize) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        let proxy = Proxy::start(&config(&cluster, size));
        Self { proxy, cluster }
    }

    /// With a pool mode of its own.
    fn in_mode(size: usize, mode: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        let proxy = Proxy::start(&config(&cluster, size).replace("pool: {", &format!("pool: {{mode: {mode}, ")));
        Self { proxy, cluster }
    }

    fn client(&self) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", "app", &[])
    }
}
