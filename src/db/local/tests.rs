//! A cluster starts, answers, survives what tests do to it, and leaves nothing.

use super::*;

fn scalar(cluster: &Cluster, sql: &str) -> String {
    cluster.query("postgres", sql).unwrap()[0][0].clone().unwrap()
}

#[test]
fn a_cluster_lives_dies_recovers_and_leaves_nothing() {
    let mut cluster = Cluster::start_with(&Options::default().set("application_name", "it's")).unwrap();
    assert_eq!(scalar(&cluster, "SHOW application_name"), "pgweir");
    cluster.query("postgres", "CREATE TABLE kept AS SELECT 42 AS answer").unwrap();
    let port = cluster.port();

    cluster.stop(Shutdown::Fast).unwrap();
    assert!(cluster.query("postgres", "SELECT 1").is_err());
    cluster.start_again().unwrap();
    assert_eq!(scalar(&cluster, "SELECT answer FROM kept"), "42");

    cluster.query("postgres", "UPDATE kept SET answer = 43").unwrap();
    cluster.kill();
    cluster.start_again().unwrap();
    assert_eq!(cluster.port(), port);
    assert_eq!(scalar(&cluster, "SELECT answer FROM kept"), "43", "what was committed just before survives");

    let (dir, pid) = (cluster.dir.clone(), cluster.pid().unwrap());
    drop(cluster);
    assert!(!dir.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn scram_wants_the_password() {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    let right = cluster.url("postgres", "postgres");
    assert!(query::query_text(&right, "SELECT 1").is_ok());
    let wrong = right.replace("postgres:postgres@", "postgres:wrong@");
    assert!(query::query_text(&wrong, "SELECT 1").is_err());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let error = Cluster::start_with(&Options::default().set("no_such_setting", "1")).unwrap_err();
    assert!(error.what.contains("no_such_setting"), "{error}");
}

#[test]
fn settings_are_quoted() {
    assert_eq!(quoted(r"it's a \"), r"'it''s a \\'");
}
