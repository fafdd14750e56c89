//! B: real servers that are killed, stopped and restarted under load.

use std::time::{Duration, Instant};

use pgweir::db::local::Shutdown;

use super::Watch;
use super::sentinel::Sentinel;

/// What a client may be told while its server dies: the proxy's words, the server's, or none at all.
const DYING: &[&str] = &["", "08006", "57P01", "57P02", "57P03", "53300"];
/// How long clients may have to wait for a server that is back: 2 s, and what a busy machine adds.
const RECOVERY: Duration = Duration::from_secs(4);

fn signal(pid: &str, name: &str) {
    assert!(std::process::Command::new("kill").args([name, pid]).status().unwrap().success());
}

impl Watch {
    /// Descriptors of the proxy's process.
    fn descriptors(&mut self) -> usize {
        let pid = self.proxy.child().id();
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    /// A backend that serves the proxy.
    fn backend(&self) -> Option<String> {
        let sql = "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() \
                   and client_addr is not null order by random() limit 1";
        self.cluster.query("postgres", sql).ok()?.first()?[0].clone()
    }

    /// Every sentinel is served again, soon.
    fn recovers(&self) {
        let since = Instant::now();
        self.sentinels.iter().for_each(Sentinel::served_again);
        assert!(since.elapsed() < RECOVERY, "clients were served again after {:?}", since.elapsed());
    }

    /// Server connections and descriptors are what they were at the start.
    fn settles(&mut self, size: usize, descriptors: usize) {
        self.calms();
        let sql =
            "select count(*) from pg_stat_activity where backend_type = 'client backend' and client_addr is not null";
        let since = Instant::now();
        loop {
            let open: usize = self.server(sql).parse().unwrap();
            let now = self.descriptors();
            if open <= size && now <= descriptors + 4 {
                return;
            }
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "{open} connections, {now} descriptors of {descriptors}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn b_backends_killed_under_load() {
    let mut watch = Watch::tolerant(3, DYING);
    watch.recovers();
    let before = watch.descriptors();
    for round in 0..6 {
        if let Some(pid) = watch.backend() {
            // SIGKILL makes the postmaster end all others too and recover; SIGTERM is one backend's.
            signal(&pid, if round == 3 { "-KILL" } else { "-TERM" });
        }
        if round == 3 {
            std::thread::sleep(Duration::from_millis(300));
        }
        watch.recovers();
    }
    watch.settles(3, before);
    watch.finish();
}

#[test]
fn b_a_server_killed_under_load() {
    let mut watch = Watch::tolerant(3, DYING);
    watch.recovers();
    let before = watch.descriptors();
    watch.cluster.kill();
    std::thread::sleep(Duration::from_millis(500));
    watch.cluster.start_again().unwrap();
    watch.recovers();
    watch.cluster.stop(Shutdown::Fast).unwrap();
    watch.cluster.start_again().unwrap();
    watch.recovers();
    watch.settles(3, before);
    watch.finish();
}

#[test]
fn b_a_backend_that_is_stopped_holds_up_nobody_else() {
    let watch = Watch::new(4);
    let mut stuck = watch.client();
    let pid = stuck.value("select pg_backend_pid()");
    stuck.query("begin");
    let pid_of_block = stuck.value("select pg_backend_pid()");
    signal(&pid_of_block, "-STOP");
    stuck.send(&crate::proxy::raw::query("select 'at last'"));
    for _ in 0..5 {
        watch.sentinels.iter().for_each(Sentinel::served_again);
        assert_eq!(watch.client().value("select 1"), "1");
    }
    signal(&pid_of_block, "-CONT");
    assert_eq!(crate::proxy::raw::shown(&stuck.until_ready(1)), "T D:at last C:SELECT_1 Z:T");
    // The same with a client that leaves: nobody gets the connection.
    signal(&pid_of_block, "-STOP");
    drop(stuck);
    watch.sentinels.iter().for_each(Sentinel::served_again);
    signal(&pid_of_block, "-CONT");
    watch.calms();
    let _ = pid;
    watch.finish();
}
