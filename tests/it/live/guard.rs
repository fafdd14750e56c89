//! `guard:`: what is denied reaches no server, in whatever message it comes; what is commented on runs.

use pgweir::db::local::{Auth, Cluster, Options};

use super::{Stage, config};
use crate::proxy::raw::{Frame, Raw, bind, execute, field, parse, query, sync};
use crate::support::{Proxy, wait_until};

const DENY: &str = "    guard:\n    - {rules: [delete-without-where, update-without-where], users: [app]}\n";

fn rows(stage: &Stage) -> String {
    stage.direct().value("select count(*) from t")
}

fn with_rows(database: &str) -> Stage {
    let stage = Stage::new(database, "");
    stage.direct().query("insert into t select n, 'x' from generate_series(1, 5) n");
    stage
}

/// The tags that came, with the text of errors and notices.
fn said(frames: &[Frame]) -> Vec<String> {
    let shown = |(tag, body): &Frame| match tag {
        b'E' | b'N' => format!("{}:{}:{}", *tag as char, field(body, b'C'), field(body, b'M')),
        tag => (*tag as char).to_string(),
    };
    frames.iter().filter(|(tag, _)| *tag != b'S').map(shown).collect()
}

#[test]
fn what_is_denied_reaches_no_server_by_any_way() {
    let stage = with_rows(DENY);
    let mut client = stage.client("app");
    for sql in [
        "delete from t",
        "select 1; delete from t; select 2",
        "with x as (delete from t returning id) select id from x",
        "prepare d as delete from t",
        "explain analyze delete from t",
        "copy (delete from t returning id) to stdout",
        "update t set name = 'y' -- pgweir:ignore update-without-where because I say so",
    ] {
        client.send(&query(sql));
        let frames = client.until_ready(1);
        let said = said(&frames);
        assert_eq!(said.len(), 2, "{sql}: {said:?}");
        assert!(
            said[0].starts_with("E:42000:pgweir: denied by rule ") && said[0].contains("-without-where"),
            "{said:?}"
        );
        assert_eq!(frames[1].1, b"I", "{sql}");
    }
    for name in ["", "d"] {
        let messages = [parse(name, "delete from t"), bind(name, &[]), execute(), sync()];
        assert_eq!(client.talk(&messages, 1), "E:42000 Z:I");
        assert_eq!(client.talk(&[bind(name, &[]), execute(), sync()], 1), "E:26000 Z:I", "it was not prepared");
    }
    assert_eq!(client.query("execute d"), "E:26000 Z:I");
    assert_eq!(rows(&stage), "5");
    // In a pipeline, everybody has his own answer.
    let pipeline = [query("select 1"), query("delete from t"), parse("", "select 2"), bind("", &[]), execute(), sync()];
    assert_eq!(client.talk(&pipeline, 3), "T D:1 C:SELECT_1 Z:I E:42000 Z:I 1 2 D:2 C:SELECT_1 Z:I");
    // A transaction fails by it, as by any other error.
    assert_eq!(client.query("begin"), "C:BEGIN Z:T");
    assert_eq!(client.query("insert into t values (6, 'z')"), "C:INSERT_0_1 Z:T");
    assert_eq!(client.query("delete from t"), "E:42000 Z:E");
    assert_eq!(client.query("select 1"), "E:25P02 Z:E");
    assert_eq!(client.query("commit"), "C:ROLLBACK Z:I");
    assert_eq!(rows(&stage), "5");
    // What is not denied, and whom it does not concern.
    assert_eq!(client.query("delete from t where id = 1"), "C:DELETE_1 Z:I");
    assert_eq!(client.query("explain delete from t").split(' ').next(), Some("T"));
    assert_eq!(stage.client("eve").query("delete from t"), "C:DELETE_4 Z:I");
}

#[test]
fn what_is_commented_on_runs_and_the_comment_comes_first() {
    let stage = with_rows("    guard:\n    - {rules: [select-star], action: notice}\n");
    let mut client = stage.client("app");
    client.send(&query("select * from t where id = 1"));
    let frames = said(&client.until_ready(1));
    assert!(frames[0].starts_with("N:00000:pgweir: rule select-star: "), "{frames:?}");
    assert_eq!(frames[1..], ["T", "D", "C", "Z"]);
    let star = |name: &str| parse(name, "select * from t where id = $1");
    client.send(&[query("select id from t where id = 2"), star("s"), bind("s", &["1"]), execute(), sync()].concat());
    let frames: Vec<String> = said(&client.until_ready(2)).iter().map(|it| it[..1].to_owned()).collect();
    assert_eq!(frames.concat(), "TDCZN12DCZ");
    client.send(&[bind("s", &["1"]), execute(), sync()].concat());
    let frames: Vec<String> = said(&client.until_ready(1)).iter().map(|it| it[..1].to_owned()).collect();
    assert_eq!(frames.concat(), "2DCZ", "it was said when the statement was prepared");
}

#[test]
fn a_guard_that_comes_later_holds_for_what_was_prepared_before() {
    let stage = with_rows("");
    let mut client = stage.client("app");
    let mut console = stage.console();
    assert_eq!(
        client.talk(&[parse("d", "delete from t where true or $1 > 0"), parse("u", "delete from t"), sync()], 1),
        "1 1 Z:I"
    );
    assert_eq!(client.talk(&[parse("", "delete from t"), sync()], 1), "1 Z:I");
    assert_eq!(client.query("prepare e as delete from t"), "C:PREPARE Z:I");
    assert_eq!(client.talk(&[parse("", "delete from t"), sync()], 1), "1 Z:I");
    let mut reload = |database: &str| {
        let text = format!("listen: 127.0.0.1:{}\n{}", stage.proxy.port(), config(&stage.cluster, database, ""));
        std::fs::write(stage.proxy.config_path(), text).unwrap();
        assert!(console.query("reload").contains("C:RELOAD"));
    };
    reload(DENY);
    for name in ["u", ""] {
        assert_eq!(client.talk(&[bind(name, &[]), execute(), sync()], 1), "E:26000 Z:I", "{name}");
    }
    assert_eq!(client.query("execute e"), "E:26000 Z:I");
    assert_eq!(client.query("delete from t"), "E:42000 Z:I");
    assert_eq!(rows(&stage), "5");
    assert_eq!(client.talk(&[bind("d", &["1"]), execute(), sync()], 1), "2 C:DELETE_5 Z:I", "it has a WHERE");
    reload("");
    assert_eq!(client.query("delete from t"), "C:DELETE_0 Z:I");
}

#[test]
fn the_guard_holds_in_sharded_databases() {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    for name in ["s1", "s2"] {
        cluster.query("postgres", &format!("create database {name}")).unwrap();
    }
    let shard = |name: &str, database: &str| {
        let url = format!("postgres://postgres:postgres@127.0.0.1:{}/{database}?sslmode=disable", cluster.port());
        format!("{{name: {name}, primary: \"{url}\"}}")
    };
    let proxy = Proxy::start(&format!(
        "users: {{app: {{password: secret}}, boss: {{password: secret}}}}\nadmin_users: [boss]\ndatabases:\n  shop:\n    shards: [{}, {}]\n    commit: best-effort\n    \
         sharding: {{tables: {{t: {{key: id}}}}}}\n    guard:\n    - {{rules: [delete-without-where]}}\n    \
         - {{rules: [select-star], action: notice}}\n",
        shard("a", "s1"),
        shard("b", "s2")
    ));
    let mut client = Raw::login(proxy.port(), "app", "secret", "shop", &[]);
    assert_eq!(client.query("create table t (id int primary key, name text)"), "C:CREATE_TABLE Z:I");
    for id in 1..=4 {
        assert_eq!(client.query(&format!("insert into t values ({id}, 'x')")), "C:INSERT_0_1 Z:I");
    }
    assert_eq!(client.query("delete from t"), "E:42000 Z:I");
    assert_eq!(client.query("delete from t where id = 1; delete from t"), "E:42000 Z:I");
    for name in ["", "d"] {
        assert_eq!(client.talk(&[parse(name, "delete from t"), bind(name, &[]), execute(), sync()], 1), "E:42000 Z:I");
    }
    assert_eq!(client.query("prepare e as delete from t"), "E:42000 Z:I");
    assert_eq!(client.query("execute e"), "E:26000 Z:I");
    assert_eq!(client.query("begin"), "C:BEGIN Z:T");
    assert_eq!(client.query("delete from t"), "E:42000 Z:E");
    assert_eq!(client.query("rollback"), "C:ROLLBACK Z:I");
    assert_eq!(client.value("select count(*) from t"), "4");
    client.send(&query("select * from t where id = 1"));
    let frames: Vec<String> = said(&client.until_ready(1)).iter().map(|it| it[..1].to_owned()).collect();
    assert_eq!(frames.concat(), "NTDCZ");
    assert_eq!(client.query("delete from t where id = 1"), "C:DELETE_1 Z:I");
    // What passes is counted and examined here too.
    let star = [parse("", "select * from t where id = $1"), bind("", &["2"]), execute(), sync()];
    for _ in 0..2 {
        client.talk(&star, 1);
    }
    let mut console = Raw::login(proxy.port(), "boss", "secret", "pgweir", &[]);
    let star = |shown: String| shown.split("D:").any(|row| row.starts_with("shop,select-star,") && row.contains(",3,"));
    wait_until("it is found", || star(console.query("show findings")));
}
