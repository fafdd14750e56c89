//! Clients prove who they are, by what the rules ask for.

use pgweir::db::local::Cluster;

use super::{Authority, psql};
use crate::proxy::raw::{Raw, field, frame, startup};
use crate::support::Proxy;

const WHO: &str = "select current_user";

/// A server that trusts pgweir, and a proxy with these rules and TLS.
fn stage(rules: &str, tls: &str) -> (Authority, Cluster, Proxy) {
    let cluster = Cluster::start().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("server", &["localhost"]);
    let (other, other_key) = authority.issue("other", &["other.example"]);
    let proxy = Proxy::start(&format!(
        "hba:\n{rules}\nusers:\n  hashed: {{password: {}}}\n  plain: {{password: secret}}\n  app: {{password: secret}}\n\
         tls: {{mode: allow, certificate: {}, key: {}, client_ca: {}, {tls} \
         hosts: {{other.example: {{certificate: {}, key: {}}}}}}}\n\
         databases:\n  app: {{primary: \"postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable\"}}\n",
        // 'md5' || md5('secret' || 'hashed')
        pgweir::net::prove::md5_stored("hashed", "secret"),
        certificate.display(),
        key.display(),
        authority.ca().display(),
        other.display(),
        other_key.display(),
        cluster.port(),
    ));
    (authority, cluster, proxy)
}

#[test]
fn every_method_lets_in_whom_it_should() {
    let (authority, cluster, proxy) = stage(
        "  - {type: host, user: [eve], method: reject}\n  - {type: host, user: [hashed, plain], method: md5}\n  \
         - {type: hostssl, user: app, method: password}\n  - {type: hostssl, user: [cert, alternative], method: cert}\n  \
         - {type: hostnossl, user: guest, address: 127.0.0.0/8, method: trust}",
        "",
    );
    let run = |connection: &str| psql(&cluster, &proxy, &format!("dbname=app {connection}"), WHO);
    let refused = |connection: &str, said: &str| {
        let error = run(connection).unwrap_err();
        assert!(error.contains(said), "{connection}: {error}");
    };
    let served = Ok("postgres".to_owned());
    for mode in ["disable", "require"] {
        assert_eq!(run(&format!("user=hashed password=secret sslmode={mode}")), served);
        assert_eq!(run(&format!("user=plain password=secret sslmode={mode}")), served);
        refused(&format!("user=hashed password=wrong sslmode={mode}"), "password authentication failed");
        refused(&format!("user=eve password=secret sslmode={mode}"), "hba rejects connection for host \"127.0.0.1\"");
    }
    // Who knows the stored hash only does not know the password.
    let hash = pgweir::net::prove::md5_stored("hashed", "secret");
    refused(&format!("user=hashed password={hash} sslmode=disable"), "password authentication failed");

    assert_eq!(run("user=app password=secret sslmode=require"), served);
    refused("user=app password=wrong sslmode=require", "password authentication failed");
    refused("user=app password=secret sslmode=disable", "no entry in pgweir's hba");

    let shown = |common: &str, names: &[&str]| {
        let (certificate, key) = authority.issue(common, names);
        format!("sslmode=require sslcert={} sslkey={}", certificate.display(), key.display())
    };
    assert_eq!(run(&format!("user=cert {}", shown("cert", &[]))), served);
    assert_eq!(run(&format!("user=alternative {}", shown("x", &["alternative"]))), served);
    refused(&format!("user=cert {}", shown("certs", &["cert.example"])), "certificate authentication failed");
    refused("user=cert sslmode=require", "requires a valid client certificate");
    let stranger = Authority::new();
    let (certificate, key) = stranger.issue("cert", &[]);
    let strange = format!("user=cert sslmode=require sslcert={} sslkey={}", certificate.display(), key.display());
    assert!(run(&strange).is_err());

    assert_eq!(run("user=guest sslmode=disable"), served);
    refused("user=guest sslmode=require", "no entry in pgweir's hba");
}

#[test]
fn scram_is_bound_to_the_certificate_that_was_shown() {
    let (_authority, cluster, proxy) =
        stage("  - {type: host, user: hashed, method: md5}\n  - {type: host, method: scram-sha-256}", "");
    let run = |connection: &str| psql(&cluster, &proxy, &format!("dbname=app user=app {connection}"), WHO);
    let bound = "sslmode=require channel_binding=require";
    assert_eq!(run(&format!("password=secret {bound}")), Ok("postgres".to_owned()));
    assert!(run(&format!("password=wrong {bound}")).unwrap_err().contains("password authentication failed"));
    assert_eq!(run("password=secret sslmode=require channel_binding=disable"), Ok("postgres".to_owned()));
    assert!(run("password=secret sslmode=disable channel_binding=require").is_err());
    // Another certificate is shown to who asks for that name, and bound to.
    let connection = format!(
        "host=other.example hostaddr=127.0.0.1 port={} dbname=app user=app password=secret {bound}",
        proxy.port()
    );
    let output = cluster.client_program("psql").args(["-XwAtc", WHO, &connection]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn certificates_belong_to_names_and_may_be_demanded() {
    let (authority, cluster, proxy) = stage(
        "  - {type: host, user: hashed, method: md5}\n  - {type: host, method: scram-sha-256}",
        "verify: required,",
    );
    let ca = authority.ca().display().to_string();
    let (certificate, key) = authority.issue("anybody", &[]);
    let shown = format!("sslcert={} sslkey={}", certificate.display(), key.display());
    let run = |host: &str, more: &str| {
        let connection = format!(
            "host={host} hostaddr=127.0.0.1 port={} dbname=app user=app password=secret sslmode=verify-full \
             sslrootcert={ca} {more}",
            proxy.port()
        );
        let output = cluster.client_program("psql").args(["-XwAtc", WHO, &connection]).output().unwrap();
        output.status.success()
    };
    assert!(run("localhost", &shown));
    assert!(run("other.example", &shown));
    assert!(!run("third.example", &shown));
    assert!(!run("localhost", "sslcert=/nonexistent sslkey=/nonexistent"));
}

#[test]
fn only_one_proof_is_taken() {
    let (_authority, _cluster, proxy) =
        stage("  - {type: host, user: [hashed, plain], method: md5}\n  - {type: host, method: scram-sha-256}", "");
    // The password in clear text, where MD5 or SCRAM was asked for; and nothing at all.
    for (user, answer) in [
        ("plain", frame(b'p', b"secret\0")),
        ("app", frame(b'p', b"secret\0")),
        ("plain", frame(b'p', b"\0")),
        ("plain", frame(b'p', b"md5")),
        ("nobody", frame(b'p', b"md5\0")),
        ("app", frame(b'Q', b"select 1\0")),
    ] {
        let mut raw = Raw::connect(proxy.port());
        raw.send(&startup(user, "app", &[]));
        assert_eq!(raw.read().0, b'R');
        raw.send(&answer);
        let (tag, body) = raw.read();
        assert_eq!(tag, b'E', "{user}");
        assert!(matches!(field(&body, b'C').as_str(), "28P01" | "08P01"), "{}", field(&body, b'M'));
        assert_eq!(raw.try_read(), None);
    }
}
