//! Thousands of clients at once over a small pool.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Watch;
use crate::proxy::raw::{Raw, query, shown};

/// Clients, over a pool of [`POOL`] connections.
const CLIENTS: usize = 4000;
const POOL: usize = 40;
const THREADS: usize = 4;

/// As many clients as this process may have sockets for.
fn affordable() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let most = getrlimit(Resource::Nofile).current.map_or(CLIENTS, |most| most as usize);
    CLIENTS.min(most.saturating_sub(1000))
}

#[test]
fn s_thousands_are_held_and_ask_at_once() {
    let count = affordable();
    let watch = Watch::with(POOL, "");
    let login = || -> Vec<Raw> { (0..count / THREADS).map(|_| watch.client()).collect() };
    let mut held: Vec<Vec<Raw>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(login)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let since = Instant::now();
    std::thread::scope(|scope| {
        for (thread, clients) in held.iter_mut().enumerate() {
            scope.spawn(move || {
                for (at, client) in clients.iter_mut().enumerate() {
                    client.send(&query(&format!("select '{thread}-{at}'")));
                }
                for (at, client) in clients.iter_mut().enumerate() {
                    assert_eq!(shown(&client.until_ready(1)), format!("T D:{thread}-{at} C:SELECT_1 Z:I"));
                }
            });
        }
    });
    assert!(since.elapsed() < Duration::from_secs(15), "{count} queries took {:?}", since.elapsed());
    let open = watch.server("select count(*) from pg_stat_activity where backend_type = 'client backend'");
    assert!(open.parse::<usize>().unwrap() <= POOL + 2, "{open}");
    drop(held);
    watch.finish();
}
