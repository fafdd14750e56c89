//! TLS on both sides, and a driver of its own making through it.

use pgweir::db::local::{Auth, Cluster, Options, TlsIdentity};

use crate::support::Proxy;

#[test]
fn both_sides_encrypted_and_verified() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let identity = TlsIdentity { certificate: certificate.clone(), key: key.clone() };
    let options = Options { tls: Some(identity), ..Options::default().auth(Auth::Scram) };
    let cluster = Cluster::start_with(&options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert_path, key_path) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert_path, certificate).unwrap();
    std::fs::write(&key_path, key).unwrap();
    let database = |name: &str, mode: &str| {
        format!(
            "  {name}:\n    primary: \"postgres://postgres:postgres@{}:{}/postgres?sslmode={mode}&sslrootcert={}\"\n",
            if name == "wrong" { "127.0.0.1" } else { "localhost" },
            cluster.port(),
            cert_path.display()
        )
    };
    let proxy = Proxy::start(&format!(
        "users: {{app: {{password: secret}}}}\ntls: {{mode: require, certificate: {}, key: {}}}\ndatabases:\n{}{}{}",
        cert_path.display(),
        key_path.display(),
        database("full", "verify-full"),
        database("ca", "verify-ca"),
        database("wrong", "verify-full"),
    ));
    let psql = |database: &str, mode: &str| {
        let url = format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname={database} user=app password=secret sslmode={mode} sslrootcert={}",
            proxy.port(),
            cert_path.display()
        );
        let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        let output = cluster.client_program("psql").args(["-XAtc", sql, &url]).output().unwrap();
        (
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(psql("full", "verify-full"), ("t".to_owned(), String::new()));
    assert_eq!(psql("ca", "verify-full"), ("t".to_owned(), String::new()));
    let (out, error) = psql("wrong", "require");
    assert!(out.is_empty() && error.contains("cannot be reached"), "{error}");
    let (_, error) = psql("full", "disable");
    assert!(error.contains("TLS connections only"), "{error}");
}
