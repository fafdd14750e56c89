//! `pgweir placement` on shards that a proxy has filled.

use super::scatter::Both;
use crate::support::{pgweir, stderr, stdout};

const SHARDING: &str = "{tables: {users: {key: id}, names: {key: name}, codes: {key: code}, files: {key: id}, days: {key: day}, \
                        marks: {key: at}, hours: {key: at}, \
                        spans: {key: n, placement: {range: [{to: 100, shard: s0}, {from: 100, to: 200, shard: s1}, {from: 200, shard: s0}]}}, \
                        regions: {key: name, placement: {list: [{values: ['it''s', us], shard: s0}, {values: [de], shard: s2}]}}}, \
                        reference: [kinds]}";

const FILLED: [(&str, &str, &str); 9] = [
    ("users", "id bigint primary key", "(n - 150)"),
    ("names", "name varchar(30) primary key", "'näme ' || n || E' \\'\\\\'"),
    ("codes", "code char(8) primary key", "'c' || n"),
    ("files", "id uuid primary key", "md5(n::text)::uuid"),
    ("days", "day date primary key", "date '1999-06-01' + n"),
    ("marks", "at timestamptz primary key", "timestamptz '1999-12-25 00:00:00.5+00' + n * interval '1 hour'"),
    ("hours", "at timestamp primary key", "timestamp '1999-12-25' + n * interval '1 hour'"),
    ("spans", "n int primary key", "n"),
    ("regions", "name text", "(array['it''s', 'us', 'de'])[n % 3 + 1]"),
];

fn filled() -> Both {
    let both = Both::with_sharding(3, "best-effort", SHARDING);
    let mut raw = both.several();
    for (table, column, value) in FILLED {
        assert_eq!(raw.query(&format!("create table {table} ({column})")), "C:CREATE_TABLE Z:I");
        let filled = raw.query(&format!("insert into {table} select {value} from generate_series(1, 300) n"));
        assert_eq!(filled, "C:INSERT_0_300 Z:I", "{table}");
    }
    raw.query("create table kinds (id int primary key, name text)");
    raw.query("insert into kinds values (1, 'a'), (2, 'b')");
    both
}

fn placement(both: &Both, arguments: &[&str]) -> (Option<i32>, String) {
    let config = both.proxy.config_path();
    let all = [&["placement"], arguments, &["-c", config.to_str().unwrap()]].concat();
    let output = pgweir(&all);
    (output.status.code(), stdout(&output) + &stderr(&output))
}

#[test]
fn rows_on_the_wrong_shard_are_found() {
    let both = filled();
    let (code, text) = placement(&both, &["verify"]);
    assert!(
        text.contains("shop: 2700 rows of sharded tables on 3 shards, 1 reference tables: all where they belong"),
        "{text}"
    );
    assert_eq!(code, Some(0));

    // A row of its own on each shard that does not belong on two of them.
    for (table, value) in [
        ("users", "424242"),
        ("names", "'stray'"),
        ("codes", "'stray'"),
        ("files", "'00000000-0000-0000-0000-000000000001'"),
        ("days", "'1980-01-01'"),
        ("marks", "'1980-01-01 00:00:00+00'"),
        ("hours", "'1980-01-01'"),
        ("spans", "1000"),
        ("regions", "'us'"),
    ] {
        for shard in ["s0", "s1", "s2"] {
            both.cluster.query(shard, &format!("insert into {table} values ({value})")).unwrap();
        }
        let (code, text) = placement(&both, &["verify"]);
        let lines =
            text.lines().filter(|line| line.contains(&format!("of {table} do not belong there: keys "))).count();
        assert_eq!((code, lines), (Some(1), 2), "{table}: {text}");
        for shard in ["s0", "s1", "s2"] {
            both.cluster.query(shard, &format!("delete from {table} where {} = {value}", column_of(table))).unwrap();
        }
    }
    both.cluster.query("s1", "update kinds set name = 'c' where id = 2").unwrap();
    let (code, text) = placement(&both, &["verify"]);
    assert!(
        code == Some(1) && text.contains("the copies of kinds differ: s0 has 2, s1 has 2, s2 has 2 rows"),
        "{text}"
    );
}

fn column_of(table: &str) -> &'static str {
    let (_, column, _) = FILLED.into_iter().find(|(name, ..)| *name == table).unwrap();
    column.split(' ').next().unwrap()
}

#[test]
fn maps_are_shown_kept_and_planned() {
    let both = filled();
    for shard in ["s0", "s1", "s2"] {
        both.cluster.query(shard, "analyze").unwrap();
    }
    let (code, text) = placement(&both, &["show"]);
    assert!(code == Some(0) && text.contains("users") && text.contains("in 4096 buckets"), "{text}");
    let rows = |line: &str| line.split_whitespace().last().unwrap().parse::<u32>().unwrap();
    let of_shards = text.lines().filter(|line| line.trim_start().starts_with('s') && line.contains('%'));
    // Seven tables by hash, 300 rows in each.
    assert_eq!(of_shards.map(rows).sum::<u32>(), 2100, "{text}");
    assert!(text.contains("spans: from .. to 100 on s0; from 100 to 200 on s1; from 200 to .. on s0"), "{text}");

    // The map as settings means the same places, and keeps them when there is a fourth shard.
    let (_, map) = placement(&both, &["show", "--map"]);
    let stored = map.lines().skip(1).map(|line| format!("      {line}\n")).collect::<String>();
    let config = std::fs::read_to_string(both.proxy.config_path()).unwrap();
    let sharding = SHARDING.replacen('{', "", 1);
    let tables = sharding.strip_suffix('}').unwrap().replace(", reference:", "\n      reference:");
    let with =
        |config: &str| config.replace(&format!("sharding: {SHARDING}"), &format!("sharding:\n{stored}      {tables}"));
    let file = std::env::temp_dir().join(format!("pgweir-places-{}.yaml", std::process::id()));
    std::fs::write(&file, with(&config)).unwrap();
    let verify = pgweir(&["placement", "verify", "-c", file.to_str().unwrap()]);
    assert!(stdout(&verify).contains("all where they belong"), "{}{}", stdout(&verify), stderr(&verify));
    let broken = with(&config).replacen("s0: \"", "s0: \"0-9 ", 1);
    std::fs::write(&file, broken).unwrap();
    let refused = pgweir(&["check", "-c", file.to_str().unwrap()]);
    assert!(stderr(&refused).contains("more than one shard's"), "{}", stderr(&refused));
    std::fs::remove_file(&file).unwrap();

    let (code, text) = placement(&both, &["add-shard", "s3", "--dry-run"]);
    assert!(code == Some(0) && text.contains("# 1024 of 4096 buckets") && text.contains("s3: \""), "{text}");
    assert_eq!(placement(&both, &["add-shard", "s3"]).0, Some(2));
    assert_eq!(placement(&both, &["add-shard", "s1", "--dry-run"]).0, Some(2));
    let (code, text) = placement(&both, &["init", "--weight", "s0=2"]);
    assert!(
        code == Some(0) && text.starts_with("placement:\n  hash:\n    buckets: 4096\n    map:\n      s0: \""),
        "{text}"
    );
}
