//! Real drivers through the proxy, beside the same drivers on PostgreSQL itself: the transcripts must be equal.
//!
//! `scripts/install-drivers.sh` puts the drivers into `target/drivers`. Two clients run each scenario at once over a
//! pool smaller than the connections they open, so that every transaction may get another server connection.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use pgweir::db::local::{Auth, Cluster, Options};

use crate::support::{Proxy, repository, stderr, stdout};

/// Where the drivers are installed.
fn python() -> PathBuf {
    let python = repository("target/drivers/bin/python");
    assert!(python.exists(), "the drivers are not installed: run `make test`, or scripts/install-drivers.sh first");
    python
}

fn start(scenario: &str, port: u16, user: &str, password: &str, database: &str, tag: &str) -> std::process::Child {
    Command::new(python())
        .arg("-B")
        .arg(repository("tests/drivers").join(scenario))
        .args(["127.0.0.1", &port.to_string(), user, password, database, tag])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn transcript(output: &Output) -> String {
    assert!(output.status.success(), "the scenario failed:\n{}\n{}", stdout(output), stderr(output));
    stdout(output)
}

/// Runs a scenario directly, then twice at once through a proxy with `pool` settings.
fn compare(scenario: &str, pool: &str) {
    compare_with(scenario, pool, "app", "/postgres");
}

/// The same with a database of this name, whose URL ends like this.
fn compare_with(scenario: &str, pool: &str, name: &str, path: &str) {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    let direct = start(scenario, cluster.port(), "postgres", "postgres", "postgres", "zq0").wait_with_output().unwrap();
    let direct = transcript(&direct);
    assert!(direct.lines().count() > 20, "a scenario says what it sees:\n{direct}");
    let proxy = Proxy::start(&format!(
        "users: {{app: {{password: secret}}}}\ndatabases:\n  \"{name}\":\n    primary: \
         \"postgres://postgres:postgres@127.0.0.1:{}{path}?sslmode=disable\"\n    pool: {pool}\n",
        cluster.port()
    ));
    let database = if name == "*" { "postgres" } else { name };
    let both = ["zq1", "zq2"].map(|tag| start(scenario, proxy.port(), "app", "secret", database, tag));
    for child in both {
        let through = transcript(&child.wait_with_output().unwrap());
        pretty_assertions(&direct, &through, scenario);
    }
}

/// The first lines that differ, rather than two long texts.
fn pretty_assertions(direct: &str, through: &str, scenario: &str) {
    for (number, (a, b)) in direct.lines().zip(through.lines()).enumerate() {
        assert_eq!(
            a,
            b,
            "{scenario}, line {}: PostgreSQL itself on the left, through the proxy on the right",
            number + 1
        );
    }
    assert_eq!(direct.lines().count(), through.lines().count(), "{scenario}: one transcript is longer");
}

#[test]
fn psycopg3_in_transaction_mode() {
    compare("psycopg3.py", "{mode: transaction, size: 6}");
}

#[test]
fn asyncpg_in_transaction_mode() {
    compare("asyncpg_.py", "{mode: transaction, size: 6}");
}

#[test]
fn sqlalchemy_in_transaction_mode() {
    compare("sqlalchemy_.py", "{mode: transaction, size: 3}");
}

#[test]
fn psycopg3_makes_and_drops_databases() {
    compare_with("databases.py", "{mode: transaction, size: 6}", "*", "");
}

#[test]
fn psycopg3_in_session_mode() {
    compare("psycopg3.py", "{mode: session, size: 30}");
}
