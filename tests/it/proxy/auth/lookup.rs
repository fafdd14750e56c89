//! Users who are not in the configuration: `auth_query`, and logins passed on to the server.

use std::time::Duration;

use pgweir::db::local::{Auth, Cluster, Options};

use crate::proxy::raw::{Raw, field};
use crate::support::Proxy;

const ROLES: &str = "
    create role auth_service login superuser password 'service';
    create role alice login password 'alices';
    create role expired login password 'late' valid until '2001-01-01';
    create role fresh login password 'fresh' valid until 'infinity';
    create role nologin password 'no';
    create role \"o'brien \"\"x\" login password 'quoted';
    create schema evil;
    create view evil.pg_shadow as select 'alice'::name as usename, 'planted' as passwd;
    alter role auth_service set search_path = evil, pg_catalog;";

fn stage(query: &str) -> (Cluster, Proxy) {
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    cluster.query("postgres", ROLES).unwrap();
    cluster.query("postgres", "set password_encryption = 'md5'; create role hashed login password 'hash'").unwrap();
    let proxy = Proxy::start(&format!(
        "databases:\n  app:\n    primary: \"postgres://127.0.0.1:{}/postgres?sslmode=disable\"\n    \
         auth_query: {{user: auth_service, password: service, cache: 200ms{query}}}\n",
        cluster.port()
    ));
    (cluster, proxy)
}

fn who(proxy: &Proxy, user: &str, password: &str) -> Result<String, (String, String)> {
    let mut raw = Raw::try_login(proxy.port(), user, password, "app", &[])
        .map_err(|body| (field(&body, b'C'), field(&body, b'M').replace(user, "USER")))?;
    Ok(raw.value("select current_user"))
}

#[test]
fn users_come_in_with_their_own_proof() {
    let (cluster, proxy) = stage("");
    assert_eq!(who(&proxy, "alice", "alices"), Ok("alice".to_owned()));
    assert_eq!(who(&proxy, "fresh", "fresh"), Ok("fresh".to_owned()));
    assert_eq!(who(&proxy, "o'brien \"x", "quoted"), Ok("o'brien".to_owned()));
    let wrong = who(&proxy, "alice", "wrong").unwrap_err();
    assert_eq!(wrong.0, "28P01");
    // A password that has expired, a role that may not log in, one that is not there, one with an MD5 hash only, and an
    // attempt at SQL look like a wrong password.
    for (user, password) in
        [("expired", "late"), ("nologin", "no"), ("nobody", "x"), ("hashed", "hash"), ("' or true --", "alices")]
    {
        assert_eq!(who(&proxy, user, password), Err(wrong.clone()), "{user}");
    }
    // A new password holds, here and for new connections to the server, and the old one does not.
    cluster.query("postgres", "alter role alice password 'changed'").unwrap();
    std::thread::sleep(Duration::from_millis(250));
    assert_eq!(who(&proxy, "alice", "alices"), Err(wrong));
    cluster
        .query("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'alice'")
        .unwrap();
    assert_eq!(who(&proxy, "alice", "changed"), Ok("alice".to_owned()));
    assert!(!proxy.log().contains("SCRAM-SHA-256$"), "a verifier is in the log");
}

#[test]
fn a_search_path_does_not_reach_the_query() {
    let (_cluster, proxy) = stage(", query: 'select usename, passwd from pg_shadow where usename = $1'");
    assert_eq!(who(&proxy, "alice", "planted").unwrap_err().0, "28P01");
    // Nor does one that the client brings.
    let attempt = Raw::try_login(proxy.port(), "alice", "planted", "app", &[("search_path", "evil")]);
    assert_eq!(field(&attempt.err().unwrap(), b'C'), "28P01");
    assert_eq!(who(&proxy, "alice", "alices"), Ok("alice".to_owned()));
}

#[test]
fn without_the_server_nobody_is_anybody() {
    let (mut cluster, proxy) = stage("");
    assert_eq!(who(&proxy, "alice", "alices"), Ok("alice".to_owned()));
    cluster.kill();
    std::thread::sleep(Duration::from_millis(250));
    let down = who(&proxy, "alice", "alices").unwrap_err();
    assert_eq!(down.0, "08006");
    assert_eq!(who(&proxy, "nobody", "x").unwrap_err(), down);
    cluster.start_again().unwrap();
    assert_eq!(who(&proxy, "alice", "alices"), Ok("alice".to_owned()));
}
