//! A new process takes over from the running one, and no client notices.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgweir::db::local::{Auth, Cluster, Options, free_port};
use rustix::process::{Pid, Signal, kill_process};

use crate::proxy::raw::{Raw, query};
use crate::support::{command, ends};

/// Processes that follow one another at the same sockets.
struct Line {
    cluster: Cluster,
    port: u16,
    admin: u16,
    dir: tempfile::TempDir,
    processes: Vec<Child>,
}

impl Line {
    fn start(takeover: &str) -> Self {
        let cluster = Cluster::start_with(&Options::default().auth(Auth::Scram)).unwrap();
        let (port, admin) = (free_port().unwrap(), free_port().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let mut line = Self { cluster, port, admin, dir, processes: Vec::new() };
        line.configure(takeover, "");
        line.launch(false);
        line.wait_for(0, "listening");
        line
    }

    fn configure(&self, takeover: &str, more: &str) {
        let dir = self.dir.path().display();
        let config = format!(
            "listen: [127.0.0.1:{}, \"unix:{dir}\"]\nadmin: 127.0.0.1:{}\npid_file: {dir}/pid\n\
             takeover: {{socket: {dir}/takeover{takeover}}}\n{}{more}",
            self.port,
            self.admin,
            crate::proxy::config(&self.cluster, 4)
        );
        std::fs::write(self.dir.path().join("pgweir.yaml"), config).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts another process; gives its number.
    fn launch(&mut self, takeover: bool) -> usize {
        let number = self.processes.len();
        let log = File::create(self.path(&format!("log{number}"))).unwrap();
        let config = self.path("pgweir.yaml");
        let mut command = command(&["proxy", "-c", config.to_str().unwrap()]);
        if takeover {
            command.arg("--takeover");
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.processes.push(child);
        number
    }

    fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.path(&format!("log{number}"))).unwrap()
    }

    fn wait_for(&self, number: usize, words: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.log(number).contains(words) {
            assert!(Instant::now() < end, "no `{words}` in\n{}", self.log(number));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts a process that takes over, and waits until it has.
    fn succeed(&mut self) -> usize {
        let number = self.launch(true);
        self.wait_for(number, "listening");
        self.wait_for(number - 1, "another process has taken over");
        number
    }

    fn client(&self) -> Raw {
        Raw::login(self.port, "app", "secret", "app", &[])
    }

    /// Asks whoever listens now to cancel what this client does; returns when the answer is that it was done.
    fn cancel(&self, raw: &Raw) {
        let (pid, secret) = raw.key.clone();
        let mut asking = Raw::connect(self.port);
        asking.send(&[&[0, 0, 0, 16, 4, 210, 22, 46][..], &pid.to_be_bytes(), &secret].concat());
        assert!(asking.try_read().is_none());
    }

    fn health(&self) -> String {
        let mut health = std::net::TcpStream::connect(("127.0.0.1", self.admin)).unwrap();
        std::io::Write::write_all(&mut health, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut page = String::new();
        std::io::Read::read_to_string(&mut health, &mut page).unwrap();
        page
    }

    fn has_ended(&mut self, number: usize) -> bool {
        ends(&mut self.processes[number], Duration::from_secs(20))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for (number, process) in self.processes.iter_mut().enumerate() {
            let _ = process.kill();
            let _ = process.wait();
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.dir.path().join(format!("log{number}")));
                eprintln!("process {number}:\n{}", log.unwrap_or_default());
            }
        }
    }
}

#[test]
fn no_query_fails_while_processes_follow_one_another() {
    let mut line = Line::start("");
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let port = line.port;
    std::thread::scope(|scope| {
        // Those that stay connected, and those that come and go.
        for number in 0..6 {
            let (stop, served) = (&stop, &served);
            scope.spawn(move || {
                let login = || Raw::login(port, "app", "secret", "app", &[]);
                let mut raw = login();
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    assert_eq!(raw.value(&format!("select {number} + {round}")), (number + round).to_string());
                    served.fetch_add(1, Ordering::SeqCst);
                    if number % 2 == 0 {
                        raw = login();
                    }
                }
            });
        }
        let check = || {
            for _ in 0..2 {
                let number = line.succeed();
                let before = served.load(Ordering::SeqCst);
                let end = Instant::now() + Duration::from_secs(20);
                while served.load(Ordering::SeqCst) < before + 100 && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(10));
                }
                assert!(served.load(Ordering::SeqCst) >= before + 100, "nobody is served after takeover {number}");
            }
        };
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        stop.store(true, Ordering::SeqCst);
        checked.unwrap();
    });
    // When their clients have left, both older ones end.
    assert!(line.has_ended(0) && line.has_ended(1));
    assert_eq!(line.client().value("select 'new'"), "new");
    let pid = std::fs::read_to_string(line.path("pid")).unwrap();
    assert_eq!(pid.trim(), line.processes[2].id().to_string());
    let socket = format!(".s.PGSQL.{}", line.port);
    for (name, mode) in [(socket.as_str(), None), ("takeover", Some(0o600))] {
        let found = std::fs::metadata(line.path(name)).unwrap().permissions().mode() & 0o777;
        assert!(mode.is_none_or(|mode| found == mode), "{name}: {found:o}");
    }
    let mut unix = std::os::unix::net::UnixStream::connect(line.path(&socket)).unwrap();
    std::io::Write::write_all(&mut unix, &[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    std::io::Read::read_exact(&mut unix, &mut answer).unwrap();
    assert_eq!(&answer, b"N");
    let page = line.health();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    // The last one takes its files with it.
    kill_process(Pid::from_child(&line.processes[2]), Signal::TERM).unwrap();
    assert!(line.has_ended(2));
    assert!(!line.path(&socket).exists() && !line.path("takeover").exists() && !line.path("pid").exists());
}

#[test]
fn clients_of_an_older_process_are_served_and_cancelled() {
    let mut line = Line::start("");
    let (mut oldest, mut older) = (line.client(), None);
    oldest.query("begin");
    oldest.query("create temp table kept (x int) on commit drop; insert into kept values (7)");
    for _ in 0..2 {
        line.succeed();
        older.get_or_insert_with(|| line.client());
    }
    let mut older = older.unwrap();
    assert_eq!(oldest.value("select x from kept"), "7");
    for raw in [&mut older, &mut oldest] {
        raw.send(&query("select pg_sleep(30)"));
        let started = Instant::now();
        // Whoever listens now passes it on, over two processes for the oldest. It may come before the query.
        let (pid, secret) = raw.key.clone();
        let cancel = [&[0, 0, 0, 16, 4, 210, 22, 46][..], &pid.to_be_bytes(), &secret].concat();
        let port = line.port;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    Raw::connect(port).send(&cancel);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let heard = raw.until_ready(1);
            done.store(true, Ordering::SeqCst);
            assert!(crate::proxy::raw::shown(&heard).contains("57014"));
        });
        assert!(started.elapsed() < Duration::from_secs(15));
    }
    assert_eq!(oldest.query("rollback"), "C:ROLLBACK Z:I");
    // A client that is idle is not sent away.
    assert_eq!(oldest.value("select 1"), "1");
    drop(oldest);
    assert!(line.has_ended(0) && !ends(&mut line.processes[1], Duration::from_millis(300)));
    drop(older);
    assert!(line.has_ended(1));
}

#[test]
fn a_cancel_reaches_the_oldest_when_the_one_between_has_ended() {
    let mut line = Line::start("");
    let mut oldest = line.client();
    line.succeed();
    line.succeed();
    // It has no clients, and leaves its line to the oldest to the youngest.
    assert!(line.has_ended(1));
    for round in 0..10 {
        oldest.send(&query("select pg_sleep(30)"));
        let active = "select count(*) from pg_stat_activity where query = 'select pg_sleep(30)' and state = 'active'";
        let mut other = line.client();
        while other.value(active) == "0" {}
        line.cancel(&oldest);
        // It was done when the answer came, so that it does not hit what follows.
        assert!(crate::proxy::raw::shown(&oldest.until_ready(1)).contains("57014"));
        assert_eq!(oldest.value(&format!("select {round}")), round.to_string());
    }
    // Whoever has no key does no harm.
    oldest.key.1[0] ^= 1;
    oldest.send(&query("select pg_sleep(0.5)"));
    line.cancel(&oldest);
    assert!(!crate::proxy::raw::shown(&oldest.until_ready(1)).contains("57014"));
}

#[test]
fn addresses_may_change_and_pools_are_warm() {
    let mut line = Line::start("");
    let mut held = line.client();
    let config = std::fs::read_to_string(line.path("pgweir.yaml")).unwrap();
    let (fresh, socket) = (free_port().unwrap(), format!(".s.PGSQL.{}", line.port));
    let config = config.replace(&format!("\"unix:{}\"", line.dir.path().display()), &format!("127.0.0.1:{fresh}"));
    std::fs::write(line.path("pgweir.yaml"), config.replace("pool: {", "pool: {min_size: 3, ")).unwrap();
    assert!(line.path(&socket).exists());
    line.succeed();
    let count =
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    // Asked through the old one, which has a single connection of its own.
    assert!(held.value(count).parse::<u32>().unwrap() >= 3);
    for port in [fresh, line.port] {
        assert_eq!(Raw::login(port, "app", "secret", "app", &[]).value("select 1"), "1");
    }
    assert!(!line.path(&socket).exists());
    assert_eq!(held.value("select 1"), "1");
}

#[test]
fn nothing_changes_when_the_new_process_cannot_start() {
    let mut line = Line::start("");
    let mut raw = line.client();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = std::fs::read_to_string(line.path("pgweir.yaml")).unwrap();
    for broken in [
        config.replace("password: secret", "password_file: /nowhere"),
        config.replace("listen: [", &format!("listen: [127.0.0.1:{}, ", taken.local_addr().unwrap().port())),
        // This one finds out last, when the old process accepts nobody any more.
        config.replace("pid_file: ", "pid_file: /nowhere"),
    ] {
        assert_ne!(broken, config);
        std::fs::write(line.path("pgweir.yaml"), &broken).unwrap();
        let number = line.launch(true);
        assert!(line.has_ended(number));
        assert!(!line.processes[number].wait().unwrap().success(), "{}", line.log(number));
        assert_eq!(line.client().value("select 'old'"), "old");
        assert_eq!(raw.value("select 1"), "1");
        assert!(line.health().starts_with("HTTP/1.1 200"));
    }
    assert!(line.log(0).contains("this one goes on"), "{}", line.log(0));
    let socket = format!(".s.PGSQL.{}", line.port);
    assert!(line.path(&socket).exists() && line.path("takeover").exists());
    let pid = std::fs::read_to_string(line.path("pid")).unwrap();
    assert_eq!(pid.trim(), line.processes[0].id().to_string());
    // The next one that can does.
    std::fs::write(line.path("pgweir.yaml"), &config).unwrap();
    let number = line.launch(true);
    line.wait_for(number, "listening");
    line.wait_for(0, "another process has taken over");
    assert_eq!((raw.value("select 1"), line.client().value("select 1")), ("1".into(), "1".into()));
}

#[test]
fn who_stays_too_long_is_sent_away_between_transactions() {
    let mut line = Line::start(", timeout: 300ms");
    let (mut idle, mut busy) = (line.client(), line.client());
    busy.query("begin");
    line.succeed();
    let (tag, body) = idle.try_read().unwrap();
    assert_eq!((tag, crate::proxy::raw::field(&body, b'C').as_str()), (b'E', "57P01"));
    assert_eq!(busy.value("select 1"), "1");
    assert_eq!(busy.query("select 2; commit"), "T D:2 C:SELECT_1 C:COMMIT Z:I");
    drop(busy);
    assert!(line.has_ended(0));
    assert_eq!(line.client().value("select 'new'"), "new");
}

#[test]
fn without_a_process_before_it_starts_as_usual() {
    let mut line = Line::start("");
    kill_process(Pid::from_child(&line.processes[0]), Signal::KILL).unwrap();
    assert!(line.has_ended(0));
    let number = line.launch(true);
    line.wait_for(number, "listening");
    assert!(line.log(number).contains("no process to take over from"));
    assert_eq!(line.client().value("select 1"), "1");
    // One that is not asked to take over finds the place taken.
    let number = line.launch(false);
    assert!(line.has_ended(number) && line.log(number).contains("cannot listen"), "{}", line.log(number));
    assert_eq!(line.client().value("select 1"), "1");
}
