//! Unix sockets on both sides, several listeners, the pid file, and what the service manager is told.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use pgweir::db::local::{Auth, Cluster, Options};

use crate::proxy::raw::Raw;
use crate::support::{self, Proxy};

fn scram() -> Cluster {
    Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap()
}

/// What psql prints for one query through the socket in `directory`.
fn psql(cluster: &Cluster, directory: &Path, port: u16, sslmode: &str) -> (String, String) {
    let output = cluster
        .client_program("psql")
        .args(["-h", directory.to_str().unwrap(), "-p", &port.to_string()])
        .args(["-U", "app", "-d", "app", "-XAtc", "select 'through ' || current_user"])
        .env("PGPASSWORD", "secret")
        .env("PGSSLMODE", sslmode)
        .output()
        .unwrap();
    (support::stdout(&output).trim().to_owned(), support::stderr(&output))
}

#[test]
fn unix_sockets_on_both_sides() {
    let cluster = scram();
    let server = cluster.socket_dir().display().to_string();
    let proxy = Proxy::start_at(|port, dir| {
        let (dir, server_port) = (dir.display(), cluster.port());
        std::fs::set_permissions(dir.to_string(), std::fs::Permissions::from_mode(0o755)).unwrap();
        format!(
            "listen: [\"127.0.0.1:{port}\", \"[::1]:{port}\", \"unix:{dir}\", \"unix:{dir}:7777\"]\n\
             unix_socket_permissions: \"0775\"\npid_file: {dir}/pid\n\
             users: {{app: {{password: secret}}}}\ndatabases:\n  app:\n    \
             primary: \"postgres://postgres:postgres@/postgres?host={server}&port={server_port}\"\n"
        )
    });
    let path = proxy.config_path();
    let dir = path.parent().unwrap();
    // It listens at the first address before it has made the last socket.
    let started = std::time::Instant::now();
    while !proxy.log().contains(".s.PGSQL.7777") {
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for port in [proxy.port(), 7777] {
        let socket = dir.join(format!(".s.PGSQL.{port}"));
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o775);
        assert_eq!(psql(&cluster, dir, port, "prefer"), ("through postgres".to_owned(), String::new()));
    }
    assert_eq!(Raw::login(proxy.port(), "app", "secret", "app", &[]).value("select 1"), "1");
    assert!(std::net::TcpStream::connect(("::1", proxy.port())).is_ok());
    let pid = std::fs::read_to_string(dir.join("pid")).unwrap();
    assert!(Path::new(&format!("/proc/{}", pid.trim())).exists());

    // A second process finds the first one alive and leaves its sockets alone.
    let second = support::pgweir(&["proxy", "-c", path.to_str().unwrap()]);
    assert!(!second.status.success());
    assert_eq!(psql(&cluster, dir, 7777, "prefer").0, "through postgres");
    let other = std::fs::read_to_string(&path).unwrap().replace(&format!("\"127.0.0.1:{}\", ", proxy.port()), "");
    let other = other.replace(&format!("\"[::1]:{}\", ", proxy.port()), "");
    let at = dir.join("other.yaml");
    std::fs::write(&at, other).unwrap();
    let second = support::pgweir(&["proxy", "-c", at.to_str().unwrap()]);
    assert!(support::stderr(&second).contains("another process listens there"), "{}", support::stderr(&second));
}

#[test]
fn the_files_are_gone_when_the_proxy_has_ended() {
    let mut proxy = Proxy::start_at(|port, dir| {
        let dir = dir.display();
        format!(
            "listen: [\"127.0.0.1:{port}\", \"unix:{dir}:1\"]\npid_file: {dir}/pid\n\
             users: {{app: {{password: secret}}}}\ndatabases: {{app: {{primary: \"postgres://x@127.0.0.1:1/x\"}}}}\n"
        )
    });
    let dir = proxy.config_path().parent().unwrap().to_owned();
    let started = std::time::Instant::now();
    while !dir.join("pid").exists() {
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(dir.join(".s.PGSQL.1").exists());
    let pid = proxy.child().id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    assert!(support::ends(proxy.child(), std::time::Duration::from_secs(10)));
    assert!(!dir.join("pid").exists() && !dir.join(".s.PGSQL.1").exists());
}

#[test]
fn the_service_manager_is_told_when_the_proxy_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let config = dir.path().join("pgweir.yaml");
    let port = pgweir::db::local::free_port().unwrap();
    let text = format!(
        "listen: 127.0.0.1:{port}\nusers: {{app: {{password: secret}}}}\n\
         databases: {{app: {{primary: \"postgres://x@127.0.0.1:1/x\"}}}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut child = support::command(&["proxy", "-c", config.to_str().unwrap()])
        .env("NOTIFY_SOCKET", &socket)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut said = [0; 100];
    let count = manager.recv(&mut said);
    let listening = std::net::TcpStream::connect(("127.0.0.1", port));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(String::from_utf8_lossy(&said[..count.unwrap()]), format!("MAINPID={}\nREADY=1", child.id()));
    assert!(listening.is_ok());
}
