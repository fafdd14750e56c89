//! Who is let in, and how pgweir proves its clients to servers.

mod clients;
mod limits;
mod lookup;
mod servers;

use std::path::PathBuf;

use pgweir::db::local::Cluster;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::{Proxy, wait_until};

/// An authority of the test's own, with the files of what it issued.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Files of a certificate for this common name and these DNS names, and of its key.
    fn issue(&self, common: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.pem(common, names);
        let file = |end: &str| self.dir.path().join(format!("{common}.{end}"));
        std::fs::write(file("pem"), certificate).unwrap();
        std::fs::write(file("key"), key).unwrap();
        // libpq looks at who may read it.
        std::fs::set_permissions(file("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        (file("pem"), file("key"))
    }

    fn pem(&self, common: &str, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Runs one statement with `psql` through the proxy: its output, or what it said on standard error.
fn psql(cluster: &Cluster, proxy: &Proxy, connection: &str, sql: &str) -> Result<String, String> {
    let connection = format!("host=localhost hostaddr=127.0.0.1 port={} {connection}", proxy.port());
    let mut command = cluster.client_program("psql");
    command.args(["-XwAtc", sql, &connection]).env_remove("PGPASSWORD").env("PGSSLROOTCERT", "/nonexistent");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Replaces a running cluster's pg_hba.conf; comes back when new connections are judged by it.
fn set_hba(cluster: &Cluster, lines: &str) {
    let loaded = || cluster.query("postgres", "select pg_conf_load_time()").unwrap();
    let before = loaded();
    // Written over, so that the file stays its owner's.
    std::fs::write(cluster.data_dir().join("pg_hba.conf"), format!("local all all trust\n{lines}\n")).unwrap();
    cluster.query("postgres", "select pg_reload_conf()").unwrap();
    wait_until("the new pg_hba.conf is loaded", || loaded() != before);
}
