//! What has gone wrong in proxies like this one, one module per class, while sentinels watch.
//!
//! A [`Sentinel`] is an honest client that runs all the while and fails the test when it gets anything that is not its
//! own: a row, an error, a notice, a setting, a lock; or when it waits for more than ten seconds.

mod auth;
mod backend;
mod bytes;
mod cancel;
mod dying;
mod fake;
mod fidelity;
mod leakage;
mod messages;
mod model;
mod mutation;
mod preauth;
mod sentinel;
mod sqltext;
mod storm;
mod vanishing;

use std::io::Read;
use std::time::{Duration, Instant};

use pgweir::db::local::{Auth, Cluster, Options};

use crate::proxy::raw::{Raw, field, shown};
use crate::support::Proxy;
use sentinel::Sentinel;

/// A server, a proxy with a small pool, and honest clients that use it all the while.
struct Watch {
    sentinels: Vec<Sentinel>,
    proxy: Proxy,
    cluster: Cluster,
}

/// The password `secret`, for one iteration: an unoptimized client spends a long time on 4,096 of them.
const QUICK: &str = "SCRAM-SHA-256$1:MDEyMzQ1Njc4OWFiY2RlZg==$rb2i4FWE8CCi1HDhnBxhv8/uERf3QN6tiTjE4qSdliQ=:\
    gWfVquF9Vgm4YA/KIyjllnL4Zn6B7unP+DKFnilYEAg=";

/// The configuration of a [`Watch`]; `more` is added at its end.
fn config(cluster: &Cluster, size: usize, more: &str) -> String {
    let port = cluster.port();
    format!(
        "users: {{app: {{password: \"{QUICK}\"}}, eve: {{password: other}}}}\ndatabases:\n  app:\n    \
         primary: \"postgres://postgres:postgres@127.0.0.1:{port}/postgres?sslmode=disable\"\n    \
         pool: {{size: {size}, wait_timeout: 8s}}\n{more}"
    )
}

impl Watch {
    /// Two sentinels over a pool of `size`.
    fn new(size: usize) -> Self {
        Self::with(size, "")
    }

    /// The same with more configuration.
    fn with(size: usize, more: &str) -> Self {
        let mut watch = Self::alone(size, more);
        watch.sentinels = (0..2).map(|number| Sentinel::start(watch.port(), number)).collect();
        watch
    }

    /// Sentinels that take these errors for what they are.
    fn tolerant(size: usize, tolerated: sentinel::Tolerated) -> Self {
        let mut watch = Self::alone(size, "");
        watch.sentinels = (0..3).map(|number| Sentinel::tolerant(watch.port(), number, tolerated)).collect();
        watch
    }

    fn alone(size: usize, more: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        cluster.query("postgres", "create table t (id int primary key, owner text)").unwrap();
        let proxy = Proxy::start(&config(&cluster, size, more));
        Self { sentinels: Vec::new(), proxy, cluster }
    }

    fn port(&self) -> u16 {
        self.proxy.port()
    }

    fn client(&self) -> Raw {
        Raw::login(self.port(), "app", "secret", "app", &[])
    }

    /// The one value of a query, asked of the server itself.
    fn server(&self, sql: &str) -> String {
        self.cluster.query("postgres", sql).unwrap()[0][0].clone().unwrap_or_default()
    }

    /// Waits until the server has nothing open for any client but the sentinels' own moments.
    fn calms(&self) {
        let busy = "select count(*) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend' \
                    and state <> 'idle' and now() - xact_start > interval '300 milliseconds'";
        let since = Instant::now();
        while self.server(busy) != "0" {
            assert!(since.elapsed() < Duration::from_secs(10), "a transaction stays open on the server");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the sentinels: each must have been served, rightly and in time.
    fn finish(mut self) {
        for sentinel in self.sentinels.drain(..) {
            sentinel.finish();
        }
    }
}

/// What the other side says before it closes, in short; it must close, and must not let anybody in.
fn refused(mut raw: Raw) -> String {
    let since = Instant::now();
    let mut frames = Vec::new();
    while let Some(frame) = raw.try_read() {
        assert_ne!(frame.0, b'Z', "it was let in");
        assert!(frame.0 != b'R' || frame.1 != [0; 4], "it was authenticated");
        frames.push(frame);
    }
    assert!(since.elapsed() < Duration::from_secs(15), "it was not closed: {}", shown(&frames));
    frames.iter().rev().find(|(tag, _)| *tag == b'E').map_or(String::new(), |(_, body)| field(body, b'C'))
}

fn sent(port: u16, bytes: &[u8]) -> Raw {
    let mut raw = Raw::connect(port);
    // It may be refused before all of it was sent.
    let _ = std::io::Write::write_all(&mut raw.stream, bytes);
    raw
}

/// Ends the connection with a reset instead of a farewell.
fn reset(raw: &Raw) {
    socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Numbers that look random and are the same in each run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, which is above 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Reads one byte.
fn byte(raw: &mut Raw) -> u8 {
    let mut answer = [0; 1];
    raw.stream.read_exact(&mut answer).unwrap();
    answer[0]
}
