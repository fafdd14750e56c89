//! What a client showed and what the server asks for: docs/authentication.md's table, line by line.

use pgweir::db::local::{Auth, Cluster, Options, TlsIdentity};

use super::{Authority, psql, set_hba};
use crate::proxy::raw::{Raw, startup};
use crate::support::Proxy;

const WHO: &str = "select current_user, coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false)";

fn stored(cluster: &Cluster, role: &str) -> String {
    let rows = cluster.query("postgres", &format!("select rolpassword from pg_authid where rolname = '{role}'"));
    rows.unwrap()[0][0].clone().unwrap()
}

#[test]
fn what_a_client_showed_against_what_the_server_asks() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("server", &["localhost"]);
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Trust)).unwrap();
    for statement in [
        "create role scram login password 'secret'",
        "set password_encryption = 'md5'; create role md5 login password 'secret'",
    ] {
        cluster.query("postgres", statement).unwrap();
    }
    let proxy = Proxy::start(&format!(
        "hba:\n  - {{type: hostnossl, database: [plain, known], method: md5}}\n  \
         - {{type: hostssl, database: plain, method: password}}\n  - {{type: host, database: trusted, method: trust}}\n\
         users: {{scram: {{password: \"{}\"}}, md5: {{password: {}}}}}\n\
         tls: {{mode: allow, certificate: {}, key: {}}}\ndatabases:\n{}",
        stored(&cluster, "scram"),
        stored(&cluster, "md5"),
        certificate.display(),
        key.display(),
        ["plain", "known", "trusted"]
            .map(|name| format!(
                "  {name}: {{primary: \"postgres://127.0.0.1:{}/postgres?sslmode=disable\", pool: {{reuse: false}}}}\n",
                cluster.port()
            ))
            .concat(),
    ));
    let asks = |method: &str| set_hba(&cluster, &format!("host all all 127.0.0.1/32 {method}"));
    // (shown by, database and TLS, user) -> what the server may ask for.
    let cases: [(&str, &str, &[&str], &str); 6] = [
        // SCRAM, against the server's own verifier: its keys are enough for SCRAM there.
        ("known", "user=scram sslmode=disable", &["trust", "scram-sha-256", "md5"], "password"),
        // MD5: the hash is enough for MD5.
        ("known", "user=md5 sslmode=disable", &["trust", "md5"], "scram-sha-256"),
        // The password itself is enough for everything.
        ("plain", "user=scram sslmode=require", &["trust", "scram-sha-256", "md5", "password"], ""),
        ("plain", "user=md5 sslmode=require", &["trust", "md5", "password"], "scram-sha-256"),
        // Nothing but what the configuration has.
        ("trusted", "user=md5 sslmode=disable", &["trust", "md5"], "password"),
        ("trusted", "user=scram sslmode=disable", &["trust"], "scram-sha-256"),
    ];
    for (database, login, good, bad) in cases {
        let run = || psql(&cluster, &proxy, &format!("dbname={database} {login} password=secret"), WHO);
        let user = login.split([' ', '=']).nth(1).unwrap();
        for method in good {
            asks(method);
            assert_eq!(run(), Ok(format!("{user}|f")), "{database} {login}: {method}");
        }
        if !bad.is_empty() {
            asks(bad);
            let error = run().expect_err(&format!("{database} {login}: {bad}"));
            assert!(error.contains("cannot be reached") && !error.contains("secret"), "{error}");
        }
    }
    assert!(!proxy.log().contains("secret"));

    // What a server says at startup is of the role it was said to.
    asks("trust");
    for user in ["md5", "scram", "md5"] {
        let mut raw = Raw::connect(proxy.port());
        raw.send(&startup(user, "trusted", &[]));
        let frames = raw.until_ready(1);
        let told = |frame: &&(u8, Vec<u8>)| frame.0 == b'S' && frame.1.starts_with(b"session_authorization\0");
        let role = frames.iter().find(told).unwrap();
        assert_eq!(role.1, format!("session_authorization\0{user}\0").into_bytes());
    }
}

#[test]
fn tls_to_the_server_with_a_certificate_of_ours() {
    let authority = Authority::new();
    let (certificate, key) = authority.pem("server", &["localhost"]);
    let ca = std::fs::read_to_string(authority.ca()).unwrap();
    let identity = TlsIdentity { certificate, key };
    let options = Options { tls: Some(identity), ..Options::default().set("ssl_ca_file", "ca.pem") };
    // The server reads the file when it starts.
    let cluster = Cluster::start_with(&Options { settings: Vec::new(), ..options.clone() });
    let mut cluster = cluster.unwrap();
    std::fs::write(cluster.data_dir().join("ca.pem"), ca).unwrap();
    cluster.query("postgres", "alter system set ssl_ca_file = 'ca.pem'").unwrap();
    cluster.query("postgres", "create role app login password 'secret'").unwrap();
    cluster.stop(pgweir::db::local::Shutdown::Fast).unwrap();
    cluster.start_again().unwrap();
    set_hba(
        &cluster,
        "hostssl cert app 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\nhost all all 0.0.0.0/0 reject",
    );
    for name in ["cert", "bound"] {
        cluster.query("postgres", &format!("create database {name}")).unwrap();
    }
    let (mine, mine_key) = authority.issue("app", &[]);
    let (other, other_key) = authority.issue("other", &[]);
    let url = |database: &str, more: &str| {
        format!(
            "\"postgres://app:secret@localhost:{}/{database}?sslrootcert={}&{more}\"",
            cluster.port(),
            authority.ca().display()
        )
    };
    let shown = |certificate: &std::path::Path, key: &std::path::Path| {
        format!("sslmode=verify-full&sslcert={}&sslkey={}", certificate.display(), key.display())
    };
    let proxy = Proxy::start(&format!(
        "users: {{app: {{password: secret}}}}\ndatabases:\n  cert: {{primary: {}}}\n  other: {{primary: {}}}\n  \
         none: {{primary: {}}}\n  bound: {{primary: {}}}\n  unbound: {{primary: {}}}\n",
        url("cert", &shown(&mine, &mine_key)),
        url("cert", &shown(&other, &other_key)),
        url("cert", "sslmode=verify-ca"),
        url("bound", "sslmode=verify-full&channel_binding=require"),
        // With an authority at hand, libpq's `require` looks at it.
        url("bound", "sslmode=require&channel_binding=disable"),
    ));
    let run = |database: &str| {
        psql(&cluster, &proxy, &format!("dbname={database} user=app password=secret sslmode=disable"), WHO)
    };
    for database in ["cert", "bound", "unbound"] {
        assert_eq!(run(database), Ok("app|t".to_owned()), "{database}");
    }
    assert!(run("other").unwrap_err().contains("certificate authentication failed"));
    assert!(run("none").unwrap_err().contains("certificate"));
}

/// One pgweir behind another: TLS without SSLRequest, channel binding, and a login that is passed on twice.
#[test]
fn direct_tls_and_channel_binding_between_two_proxies() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("server", &["localhost"]);
    let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
    cluster.query("postgres", "create role app login password 'secret'").unwrap();
    let users = format!("users: {{app: {{password: \"{}\"}}}}\n", stored(&cluster, "app"));
    let inner = Proxy::start(&format!(
        "{users}tls: {{mode: require, certificate: {}, key: {}}}\n\
         databases: {{app: {{primary: \"postgres://127.0.0.1:{}/postgres?sslmode=disable\"}}}}\n",
        certificate.display(),
        key.display(),
        cluster.port()
    ));
    let url = |name: &str, more: &str| {
        format!(
            "  {name}: {{primary: \"postgres://localhost:{}/app?sslmode=verify-full&sslrootcert={}&{more}\"}}\n",
            inner.port(),
            authority.ca().display()
        )
    };
    let outer = Proxy::start(&format!(
        "{users}databases:\n{}{}",
        url("direct", "sslnegotiation=direct&channel_binding=require"),
        url("asked", "channel_binding=require")
    ));
    for database in ["direct", "asked"] {
        let mut raw = Raw::login(outer.port(), "app", "secret", database, &[]);
        assert_eq!(raw.value("select current_user"), "app", "{database}");
    }
    // A handshake without the protocol's name is not served, nor is anything before it that is no handshake.
    let mut plain = Raw::connect(inner.port());
    plain.send(&[0x16, 3, 1, 0, 4, 1, 0, 0, 0]);
    assert!(plain.try_read().is_none_or(|(tag, _)| tag == 0x15));
    let error = Raw::try_login(inner.port(), "app", "secret", "app", &[]).err().unwrap();
    assert!(String::from_utf8_lossy(&error).contains("TLS connections only"));
}
