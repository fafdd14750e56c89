//! Money moves between shards while everything dies: proxies and servers are killed, stopped and cut off. Afterwards none is
//! lost, every transfer that a client was told of is there, and nothing is prepared.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgweir::db::local::Cluster;

use super::{ACCOUNTS, config, shard};
use crate::proxy::raw::Raw;
use crate::support::{Proxy, pgweir, stderr};

const SHARDS: usize = 3;
const CLIENTS: u64 = 6;

/// What a client was told of its transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Committed,
    RolledBack,
    /// 08007, or nothing at all.
    Unknown,
}

struct Harness {
    shards: Vec<Cluster>,
    proxies: Vec<Proxy>,
    /// Accounts by shard.
    accounts: Vec<Vec<i64>>,
}

/// What the clients need to know.
struct Scene {
    ports: Vec<u16>,
    accounts: Vec<Vec<i64>>,
    over: AtomicBool,
    next: AtomicU64,
    told: Mutex<HashMap<u64, Told>>,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

impl Harness {
    fn new(commit: &str) -> Self {
        let shards: Vec<Cluster> = (0..SHARDS).map(|_| shard()).collect();
        for shard in &shards {
            shard.query("postgres", ACCOUNTS).unwrap();
        }
        let text = config(&shards, commit);
        let proxies: Vec<Proxy> = (0..2).map(|_| Proxy::start(&text)).collect();
        if commit == "atomic" {
            let path = proxies[0].config_path();
            let done = pgweir(&["init", "-c", path.to_str().unwrap()]);
            assert!(done.status.success(), "{}", stderr(&done));
        }
        let mut client = Raw::login(proxies[0].port(), "app", "secret", "bank", &[]);
        for id in 1..=60 {
            assert_eq!(client.query(&format!("insert into accounts values ({id}, 1000)")), "C:INSERT_0_1 Z:I");
        }
        let mut harness = Self { shards, proxies, accounts: Vec::new() };
        harness.accounts = (0..SHARDS)
            .map(|shard| harness.numbers(shard, "select id from accounts order by id").into_iter().collect())
            .collect();
        harness
    }

    fn numbers(&self, shard: usize, sql: &str) -> Vec<i64> {
        let rows = self.shards[shard].query("postgres", sql).unwrap();
        rows.iter().map(|row| row[0].as_deref().unwrap_or("0").parse().unwrap()).collect()
    }

    /// Runs clients for so long, with faults in between; ends at once when `stop` says so of what it sees.
    fn run(&mut self, seed: u64, time: Duration) -> HashMap<u64, Told> {
        let scene = Scene {
            ports: self.proxies.iter().map(Proxy::port).collect(),
            accounts: self.accounts.clone(),
            over: AtomicBool::new(false),
            next: AtomicU64::new(1),
            told: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let scene = &scene;
                scope.spawn(move || {
                    let mut dice = Dice(seed.wrapping_mul(31).wrapping_add(client * 7919 + 1) | 1);
                    while !scene.over.load(Ordering::Relaxed) {
                        serve(scene, &mut dice);
                        std::thread::sleep(Duration::from_millis(50));
                    }
                });
            }
            let mut dice = Dice(seed | 1);
            let started = Instant::now();
            while started.elapsed() < time {
                std::thread::sleep(Duration::from_millis(300 + u64::try_from(dice.below(900)).unwrap()));
                self.harm(&mut dice);
            }
            scene.over.store(true, Ordering::Relaxed);
        });
        scene.told.into_inner().unwrap()
    }

    fn harm(&mut self, dice: &mut Dice) {
        let pause = Duration::from_millis(50 + u64::try_from(dice.below(600)).unwrap());
        let at = dice.below(SHARDS);
        let proxy = dice.below(self.proxies.len());
        match dice.below(10) {
            0..=3 => {
                self.proxies[proxy].kill();
                std::thread::sleep(pause);
                self.proxies[proxy].again();
            }
            4 | 5 => {
                self.shards[at].kill();
                std::thread::sleep(pause);
                self.shards[at].start_again().unwrap();
            }
            6 => {
                let server = self.shards[at].pid().unwrap();
                let all = [vec![server], children(server)].concat();
                all.iter().for_each(|pid| signal(*pid, libc::SIGSTOP));
                std::thread::sleep(pause * 3);
                all.iter().for_each(|pid| signal(*pid, libc::SIGCONT));
            }
            7 | 8 => {
                let cut = "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
                self.shards[at].query("postgres", cut).unwrap();
            }
            // Now and then longer than a coordinator is waited for.
            _ => {
                let pid = self.proxies[proxy].child().id();
                signal(pid, libc::SIGSTOP);
                std::thread::sleep(if dice.below(3) == 0 { Duration::from_secs(14) } else { pause });
                signal(pid, libc::SIGCONT);
            }
        }
    }

    /// What is wrong, after all has been well for a while.
    fn judge(&self, told: &HashMap<u64, Told>) -> Result<(), String> {
        let healed = Instant::now();
        loop {
            let left: Vec<i64> =
                (0..SHARDS).flat_map(|shard| self.numbers(shard, "select count(*) from pg_prepared_xacts")).collect();
            if left.iter().all(|count| *count == 0) {
                break;
            }
            if healed.elapsed() > Duration::from_secs(30) {
                return Err(format!("still prepared after 30 s: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let total = |sql: &str| (0..SHARDS).flat_map(|shard| self.numbers(shard, sql)).sum::<i64>();
        let amounts = total("select sum(amount)::bigint from accounts");
        if amounts != 60_000 {
            return Err(format!("there were 60000, and are {amounts}"));
        }
        let mut halves: HashMap<u64, usize> = HashMap::new();
        for shard in 0..SHARDS {
            for id in self.numbers(shard, "select id from moves") {
                *halves.entry(u64::try_from(id).unwrap()).or_default() += 1;
            }
        }
        if let Some((id, count)) = halves.iter().find(|(_, count)| **count != 2) {
            return Err(format!("of transfer {id} there are {count} halves; its client was told {:?}", told.get(id)));
        }
        let wrong = told.iter().find(|(id, told)| match told {
            Told::Committed => !halves.contains_key(id),
            Told::RolledBack => halves.contains_key(id),
            Told::Unknown => false,
        });
        wrong.map_or(Ok(()), |(id, told)| Err(format!("the client of transfer {id} was told {told:?}")))
    }
}

/// A client's life, until its connection ends.
fn serve(scene: &Scene, dice: &mut Dice) {
    let port = scene.ports[dice.below(scene.ports.len())];
    let Some(raw) = Raw::connect_to(port) else { return };
    let Ok(mut client) = raw.log_in("app", "secret", "bank", &[]) else { return };
    while !scene.over.load(Ordering::Relaxed) {
        // In any order, so that some meet in a deadlock.
        let first = dice.below(SHARDS);
        let second = (first + 1 + dice.below(SHARDS - 1)) % SHARDS;
        let pick = |shard: usize, dice: &mut Dice| scene.accounts[shard][dice.below(scene.accounts[shard].len())];
        let (from, to) = (pick(first, dice), pick(second, dice));
        let id = scene.next.fetch_add(1, Ordering::Relaxed);
        // Other tests run beside this one.
        std::thread::sleep(Duration::from_millis(5));
        let Some(told) = transfer(&mut client, id, from, to, dice) else { return };
        scene.told.lock().unwrap().insert(id, told);
        if told == Told::Unknown {
            return;
        }
    }
}

/// `None` when the connection was lost before COMMIT.
fn transfer(client: &mut Raw, id: u64, from: i64, to: i64, dice: &mut Dice) -> Option<Told> {
    let by = 1 + i64::try_from(dice.below(50)).unwrap();
    let statements = [
        "begin".to_owned(),
        format!("update accounts set amount = amount - {by} where id = {from}"),
        format!("insert into moves values ({id}, {from}, -{by})"),
        format!("update accounts set amount = amount + {by} where id = {to}"),
        format!("insert into moves values ({id}, {to}, {by})"),
    ];
    for sql in statements {
        let heard = client.try_query(&sql)?;
        if !heard.ends_with("Z:T") {
            client.try_query("rollback")?;
            return Some(Told::RolledBack);
        }
    }
    Some(match client.try_query("commit").as_deref() {
        Some("C:COMMIT Z:I") => Told::Committed,
        None => Told::Unknown,
        Some(heard) if heard.contains("E:08007") => Told::Unknown,
        Some(heard) if heard.contains("E:") || heard.contains("C:ROLLBACK") => {
            // An error that ends the session says nothing about the transaction.
            if heard.ends_with("Z:I") { Told::RolledBack } else { Told::Unknown }
        }
        Some(heard) => panic!("COMMIT was answered with {heard}"),
    })
}

pub(super) fn signal(pid: u32, signal: i32) {
    // SAFETY: kill() touches no memory; the process is a child of this test, or of its server.
    unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) };
}

pub(super) fn children(of: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| parent(*pid) == Some(of)).collect()
}

fn time() -> Duration {
    let seconds = std::env::var("PGWEIR_FAULT_SECONDS").map_or(60, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

fn seed() -> u64 {
    std::env::var("PGWEIR_SEED").map_or(20_251, |seed| seed.parse().unwrap())
}

#[test]
fn no_transfer_is_lost_doubled_or_halved() {
    let mut harness = Harness::new("atomic");
    let told = harness.run(seed(), time());
    let count = |what: Told| told.values().filter(|told| **told == what).count();
    let counts = [Told::Committed, Told::RolledBack, Told::Unknown].map(count);
    println!("committed, rolled back, unknown: {counts:?}");
    harness.judge(&told).unwrap();
    assert!(counts[0] > 100, "hardly anything was committed: {counts:?}");
}

/// The same harness finds what plain COMMITs, one after the other, lose.
#[test]
fn the_harness_catches_a_naive_commit() {
    let mut harness = Harness::new("best-effort");
    let rounds = 12;
    for round in 1..=rounds {
        let told = harness.run(seed() + round, Duration::from_secs(5));
        if let Err(wrong) = harness.judge(&told) {
            println!("round {round}: {wrong}");
            return;
        }
    }
    panic!("a naive commit was not noticed");
}
