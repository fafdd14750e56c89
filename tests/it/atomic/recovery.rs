//! What others have left prepared.

use super::Bank;
use crate::support::wait_until;

/// A name as a commit of this deployment makes it, decided on the first shard.
fn gid(bank: &Bank, transaction: &str, asked_us: i64, shard: usize) -> String {
    let id = &bank.on(0, "select id from pgweir.deployment")[0];
    format!("pgweir:{id}:{transaction}:1:1:{asked_us}:s0/s{shard}")
}

fn prepare(bank: &Bank, shard: usize, gid: &str, account: i64) {
    let dir = bank.shards[shard].socket_dir().to_owned();
    let mut psql = bank.shards[shard].client_program("psql");
    let sql = format!("begin; insert into accounts values ({account}, 1); prepare transaction '{gid}'");
    let port = bank.shards[shard].port().to_string();
    let done =
        psql.args(["-q", "-h", dir.to_str().unwrap(), "-p", &port, "-U", "postgres", "-c", &sql]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_a_dead_one_left_is_finished_as_it_was_decided() {
    let bank = Bank::new(2);
    let now: i64 = bank.on(0, "select (extract(epoch from now()) * 1000000)::bigint")[0].parse().unwrap();
    let (yes, no) = (gid(&bank, "yes", now, 1), gid(&bank, "no", now, 1));
    prepare(&bank, 1, &yes, 1001);
    prepare(&bank, 1, &no, 1002);
    let key = yes.split('/').next().unwrap();
    let decide = format!("insert into pgweir.commits (gid, committed, participants) values ('{key}', true, '{{s1}}')");
    bank.shards[0].query("postgres", &decide).unwrap();
    // Of another deployment, of a copy of another shard, and from before a time for which all was found finished.
    let strange = ["pgweir:other:t:1:1:1:s0/s1".to_owned(), gid(&bank, "copy", now, 0), gid(&bank, "past", now - 5, 1)];
    for (at, gid) in strange.iter().enumerate() {
        prepare(&bank, 1, gid, 2000 + i64::try_from(at).unwrap());
    }
    bank.shards[0].query("postgres", &format!("insert into pgweir.confirmed values ('s1', {now})")).unwrap();
    wait_until("ours are finished", || bank.on(1, "select gid from pg_prepared_xacts").len() == 3);
    assert_eq!(bank.on(1, "select id from accounts where id > 1000"), ["1001"]);
    let mut left = bank.on(1, "select gid from pg_prepared_xacts");
    left.sort();
    let mut expected = strange.to_vec();
    expected.sort();
    assert_eq!(left, expected);
    wait_until("it is loud about the others", || {
        let log = bank.proxy.log();
        strange.iter().all(|gid| log.contains(gid)) && log.contains("is left alone")
    });
    // The no stands, so that nobody can say yes any more.
    assert_eq!(bank.on(0, "select committed::text from pgweir.commits order by 1"), ["false", "true"]);
}

#[test]
fn decisions_go_when_nothing_needs_them() {
    let bank = Bank::new(2);
    let now: i64 = bank.on(0, "select (extract(epoch from now()) * 1000000)::bigint")[0].parse().unwrap();
    let hour = 3_600_000_000;
    let keys: Vec<String> =
        (0..3).map(|at| gid(&bank, &format!("t{at}"), now - hour, 1).split('/').next().unwrap().to_owned()).collect();
    // The first two were committed, and of the second something is prepared still; the third was refused.
    for (at, committed) in [(0, true), (1, true), (2, false)] {
        let sql = format!(
            "insert into pgweir.commits values ('{}', {committed}, '{{s1}}', now() - interval '1 hour')",
            keys[at]
        );
        bank.shards[0].query("postgres", &sql).unwrap();
    }
    bank.shards[1].query("postgres", "alter system set max_connections = 100").unwrap();
    wait_until("two are swept", || bank.on(0, "select gid from pgweir.commits").is_empty());
    let until: i64 = bank.on(0, "select until from pgweir.confirmed where shard = 's1'")[0].parse().unwrap();
    assert!(until > now - hour && until < now, "{until} {now}");
}
