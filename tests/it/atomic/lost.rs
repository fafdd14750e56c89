//! A coordinator that loses a shard in the middle of its commit, and shards that are away for longer.

use std::time::{Duration, Instant};

use pgweir::db::local::{Cluster, Options};

use super::relay::{Cut, Relay};
use super::{ACCOUNTS, config, shard};
use crate::proxy::raw::{Raw, field, query, shown};
use crate::support::{Proxy, pgweir, stderr, wait_until};

/// Two shards behind relays.
struct Wired {
    shards: Vec<Cluster>,
    relays: Vec<Relay>,
    proxy: Proxy,
    at: Vec<i64>,
}

impl Wired {
    fn new(more: &str) -> Self {
        let shards: Vec<Cluster> = (0..2).map(|_| shard()).collect();
        let relays: Vec<Relay> = shards.iter().map(|shard| Relay::start(shard.port())).collect();
        let mut text = config(&shards, "atomic");
        for (shard, relay) in shards.iter().zip(&relays) {
            shard.query("postgres", ACCOUNTS).unwrap();
            text = text.replace(&format!(":{}/", shard.port()), &format!(":{}/", relay.port));
        }
        let proxy = Proxy::start(&(text + more));
        let path = proxy.config_path();
        let done = pgweir(&["init", "-c", path.to_str().unwrap()]);
        assert!(done.status.success(), "{}", stderr(&done));
        let mut wired = Self { shards, relays, proxy, at: Vec::new() };
        let mut client = wired.client();
        for id in 1..=40 {
            assert_eq!(client.query(&format!("insert into accounts values ({id}, 100)")), "C:INSERT_0_1 Z:I");
        }
        wired.at = (0..2).map(|shard| wired.number(shard, "select min(id) from accounts")).collect();
        wired
    }

    fn client(&self) -> Raw {
        Raw::login(self.proxy.port(), "app", "secret", "bank", &[])
    }

    fn number(&self, shard: usize, sql: &str) -> i64 {
        self.shards[shard].query("postgres", sql).unwrap()[0][0].as_deref().unwrap().parse().unwrap()
    }

    /// Moves 1 from the first shard, the decider, to the second; what COMMIT is answered with: shown, and the message.
    fn transfer(&self) -> (String, String) {
        let mut client = self.client();
        client.query("begin");
        for (account, by) in [(self.at[0], -1), (self.at[1], 1)] {
            let sql = format!("update accounts set amount = amount + {by} where id = {account}");
            assert_eq!(client.query(&sql), "C:UPDATE_1 Z:T");
        }
        client.send(&query("commit"));
        let frames = client.until_ready(1);
        let error = frames.iter().find(|(tag, _)| *tag == b'E');
        (shown(&frames), error.map_or(String::new(), |(_, body)| field(body, b'D')))
    }

    /// What each of the two accounts has.
    fn amounts(&self) -> [i64; 2] {
        [0, 1].map(|shard| self.number(shard, &format!("select amount from accounts where id = {}", self.at[shard])))
    }

    fn prepared(&self) -> i64 {
        [0, 1].iter().map(|&shard| self.number(shard, "select count(*) from pg_prepared_xacts")).sum()
    }

    fn wait_for_recovery(&self) {
        let started = Instant::now();
        while self.prepared() > 0 {
            assert!(started.elapsed() < Duration::from_secs(30), "still prepared: {}", self.prepared());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_decider_that_is_lost_at_its_commit_is_asked() {
    let wired = Wired::new("");
    wired.relays[0].cut_at("COMMIT", Cut::Before, false);
    let (told, detail) = wired.transfer();
    assert_eq!(told, "E:08006 Z:I");
    assert!(detail.contains("rolled back on every shard"), "{detail}");
    assert_eq!((wired.amounts(), wired.prepared()), ([100, 100], 0));

    wired.relays[0].cut_at("COMMIT", Cut::After, false);
    assert_eq!(wired.transfer().0, "C:COMMIT Z:I");
    assert_eq!((wired.amounts(), wired.prepared()), ([99, 101], 0));
}

#[test]
fn an_outcome_that_cannot_be_known_is_said_so() {
    at_once([(Cut::Before, [100, 100]), (Cut::After, [99, 101])], |(cut, after)| {
        let wired = Wired::new("");
        wired.relays[0].cut_at("COMMIT", cut, true);
        let (told, detail) = wired.transfer();
        assert_eq!(told, "E:08007 Z:I");
        assert!(detail.contains("Its key is pgweir:"), "{detail}");
        assert_eq!(wired.prepared(), 1);
        wired.relays[0].up();
        wired.wait_for_recovery();
        assert_eq!(wired.amounts(), after);
    });
}

/// Both of two cases, which mostly wait.
fn at_once<T: Send>(cases: [T; 2], run: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        let runs = cases.map(|case| scope.spawn(|| run(case)));
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
}

#[test]
fn the_others_may_be_lost_before_and_after() {
    let wired = Wired::new("");
    // Each loss, at each of its words: before the decision all is rolled back, after it all is committed.
    for (word, cut, told, after) in [
        ("PREPARE TRANSACTION", Cut::Before, "E:08006 Z:I", [100, 100]),
        ("PREPARE TRANSACTION", Cut::After, "E:08006 Z:I", [100, 100]),
        ("COMMIT PREPARED", Cut::Before, "C:COMMIT Z:I", [99, 101]),
        ("COMMIT PREPARED", Cut::After, "C:COMMIT Z:I", [98, 102]),
    ] {
        wired.relays[1].cut_at_start(word, cut, false);
        assert_eq!(wired.transfer().0, told, "{word} {cut:?}");
        wired.wait_for_recovery();
        assert_eq!(wired.amounts(), after, "{word} {cut:?}");
    }
    // Gone for a while after the decision: the client has its answer, the rest follows when it is back.
    wired.relays[1].cut_at_start("COMMIT PREPARED", Cut::Before, true);
    assert_eq!(wired.transfer().0, "C:COMMIT Z:I");
    assert_eq!(wired.prepared(), 1);
    wired.relays[1].up();
    wired.wait_for_recovery();
    assert_eq!(wired.amounts(), [97, 103]);
}

#[test]
fn a_shard_that_is_down_harms_nobody_else() {
    let wired = Wired::new("limits: {query_timeout: 3s}\n");
    let mut client = wired.client();
    wired.relays[1].down();
    let here = format!("select amount from accounts where id = {}", wired.at[0]);
    let there = format!("select amount from accounts where id = {}", wired.at[1]);
    for _ in 0..20 {
        assert_eq!(client.value(&here), "100");
    }
    // The first waits a while for the server to come back; then its circuit is broken, and everybody is told with the next
    // attempt to connect, of which there are two a second.
    assert!(client.query(&there).starts_with("E:08006"));
    let started = Instant::now();
    for _ in 0..8 {
        let mut other = wired.client();
        other.send(&query(&there));
        let frames = other.until_ready(1);
        assert_eq!(shown(&frames), "E:08006 Z:I");
        let (_, body) = frames.iter().find(|(tag, _)| *tag == b'E').unwrap();
        assert!(field(body, b'M').contains("cannot be reached"), "{}", field(body, b'M'));
        assert_eq!(other.value(&here), "100");
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    // What needs both says so, and a transaction on the other shard commits.
    assert!(client.query("select count(*) from accounts").starts_with("E:08006"));
    client.query("begin");
    client.query(&format!("update accounts set amount = 7 where id = {}", wired.at[0]));
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    // It is found again by itself.
    wired.relays[1].up();
    wait_until("it is served again", || client.query(&there).starts_with("T D:100"));

    // One that accepts everything and answers nothing: the statement's limit ends it, others go on.
    let server = wired.shards[1].pid().unwrap();
    let all = [vec![server], super::faults::children(server)].concat();
    all.iter().for_each(|pid| super::faults::signal(*pid, libc::SIGSTOP));
    let started = Instant::now();
    client.send(&query(&there));
    let mut other = wired.client();
    assert_eq!(other.value(&here), "7");
    let heard = client.try_read();
    assert!(started.elapsed() < Duration::from_secs(18), "{:?}", started.elapsed());
    all.iter().for_each(|pid| super::faults::signal(*pid, libc::SIGCONT));
    assert!(heard.is_none_or(|(tag, body)| tag == b'E' && field(&body, b'C') == "57014"));
    wait_until("it is served again", || wired.client().query(&there).starts_with("T D:100"));
}

/// A shard's server dies in the middle of a commit, and its synchronous standby takes over.
#[test]
fn a_shard_that_fails_over_loses_nothing() {
    at_once([(1, "COMMIT PREPARED", "C:COMMIT Z:I"), (0, "COMMIT\0", "E:08007 Z:I")], |(at, word, told)| {
        let mut wired = Wired::new("");
        let standby = wired.shards[at].standby(&Options::default()).unwrap();
        let primary = &wired.shards[at];
        primary.query("postgres", "alter system set synchronous_standby_names = '*'").unwrap();
        primary.query("postgres", "select pg_reload_conf()").unwrap();
        let sync = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        wait_until("the standby is synchronous", || wired.number(at, sync) == 1);
        wired.relays[at].cut_at_start(word, if at == 0 { Cut::After } else { Cut::Before }, true);
        assert_eq!(wired.transfer().0, told);
        wired.shards[at].kill();
        standby.promote().unwrap();
        wired.relays[at].up_with(standby.port());
        wired.shards[at] = standby;
        wired.wait_for_recovery();
        assert_eq!(wired.amounts(), [99, 101]);
        // A new primary waits for no standby of its own.
        wired.shards[at].query("postgres", "alter system set synchronous_standby_names = ''").unwrap();
        wired.shards[at].query("postgres", "select pg_reload_conf()").unwrap();
        wait_until("it goes on", || wired.transfer().0 == "C:COMMIT Z:I");
        assert_eq!(wired.amounts(), [98, 102]);
    });
}

/// A decider that is slow, not dead, is decided for: whoever waits for its word ends its backend.
#[test]
fn a_decider_in_flight_is_told_to_end() {
    let wired = Wired::new("");
    let mut decider = Raw::login(wired.shards[0].port(), "postgres", "postgres", "postgres", &[]);
    let about = decider.value(
        "select pid || ':' || (extract(epoch from backend_start) * 1000000)::bigint || ':' || (extract(epoch from now()) * 1000000)::bigint \
         from pg_stat_activity where pid = pg_backend_pid()",
    );
    let id = wired.shards[0].query("postgres", "select id from pgweir.deployment").unwrap()[0][0].clone().unwrap();
    let key = format!("pgweir:{id}:slow:{about}:s0");
    decider.query("begin");
    decider.query(&format!("insert into pgweir.commits values ('{key}', true, '{{s1}}')"));
    let mut other = Raw::login(wired.shards[1].port(), "postgres", "postgres", "postgres", &[]);
    other.query("begin");
    other.query("insert into accounts values (1000, 1)");
    assert_eq!(other.query(&format!("prepare transaction '{key}/s1'")), "C:PREPARE_TRANSACTION Z:I");
    wired.wait_for_recovery();
    assert_eq!(wired.number(1, "select count(*) from accounts where id = 1000"), 0);
    assert_eq!(wired.number(0, "select count(*) from pgweir.commits where not committed"), 1);
    let heard = decider.try_query("commit");
    assert!(heard.is_none_or(|heard| heard.starts_with("E:57P01")), "it was told to end");
}

#[test]
fn a_full_pool_rolls_back_everywhere() {
    let wired = Wired::new("");
    // All connections of one shard are taken: whoever wants one is told, and may go on elsewhere.
    let text = std::fs::read_to_string(wired.proxy.config_path()).unwrap();
    let text = text.lines().skip(1).collect::<Vec<_>>().join("\n");
    let small = Proxy::start(&(text.replace("pool: {size: 12}", "pool: {size: 1, wait_timeout: 500ms}") + "\n"));
    let login = || Raw::login(small.port(), "app", "secret", "bank", &[]);
    let (mut holder, mut other) = (login(), login());
    holder.query("begin");
    let update = |at: usize| format!("update accounts set amount = 0 where id = {}", wired.at[at]);
    assert_eq!(holder.query(&update(1)), "C:UPDATE_1 Z:T");
    other.query("begin");
    assert_eq!(other.query(&update(0)), "C:UPDATE_1 Z:T");
    assert_eq!(other.query(&update(1)), "E:53300 Z:E");
    assert_eq!(other.query("commit"), "C:ROLLBACK Z:I");
    assert_eq!(other.value(&format!("select amount from accounts where id = {}", wired.at[0])), "100");
    assert_eq!(holder.query("commit"), "C:COMMIT Z:I");
    assert_eq!(wired.amounts(), [100, 0]);
}

/// The second shard keeps a table on a disk of 8 MB.
#[test]
fn a_full_disk_rolls_back_everywhere() {
    let Some(disk) = Disk::mount() else {
        eprintln!("not tried: only root may mount a small disk");
        return;
    };
    let wired = Wired::new("");
    let place = disk.0.path().join("data");
    let space = format!("create tablespace small location '{}'", place.display());
    wired.shards[1].query("postgres", &space).unwrap();
    wired.shards[1].query("postgres", "alter table moves set tablespace small").unwrap();
    let mut client = wired.client();
    client.query("begin");
    assert_eq!(client.query(&format!("update accounts set amount = 0 where id = {}", wired.at[0])), "C:UPDATE_1 Z:T");
    let mut heard = String::new();
    for round in 0..200 {
        let rows: Vec<String> = (1..=2000).map(|id| format!("({}, {}, 1)", round * 2000 + id, wired.at[1])).collect();
        heard = client.query(&format!("insert into moves values {}", rows.join(", ")));
        if !heard.ends_with("Z:T") {
            break;
        }
    }
    assert_eq!(heard, "E:53100 Z:E", "no space left on the device");
    assert_eq!(client.query("commit"), "C:ROLLBACK Z:I");
    assert_eq!((wired.amounts(), wired.prepared()), ([100, 100], 0));
    wired.shards[1].query("postgres", "vacuum full moves").unwrap();
    assert_eq!(wired.transfer().0, "C:COMMIT Z:I");
}

/// A small disk, which is taken away again when this is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs"]).arg(disk.0.path());
        let mounted = mount.output().is_ok_and(|done| done.status.success());
        if !mounted {
            return None;
        }
        let place = disk.0.path().join("data");
        std::fs::create_dir(&place).unwrap();
        let own = std::process::Command::new("chown").arg("postgres").arg(&place).status().unwrap();
        assert!(own.success());
        Some(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
