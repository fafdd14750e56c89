//! What the integration tests share: running the binary, and proxies that end with their test.

#![allow(dead_code, reason = "every subject uses a part of this")]

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs the built `pgweir` with `arguments` to its end, without colour and without an input.
pub fn pgweir(arguments: &[&str]) -> Output {
    command(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The built `pgweir` with `arguments`, for tests that add an input or an environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
    command.args(arguments).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Asks again and again until `is` is so; `what` says what it waited for when it never is.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed().as_secs() < 20, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether something answers within `patience`.
pub fn listens(address: SocketAddr, patience: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < patience {
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Whether `child` ends by itself within `patience`.
pub fn ends(child: &mut Child, patience: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < patience {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// A running `pgweir proxy`, killed when dropped.
pub struct Proxy {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts a proxy on a free port with `config`, which says everything but `listen`, and waits until it listens.
    pub fn start(config: &str) -> Self {
        Self::start_at(|port, _| format!("listen: 127.0.0.1:{port}\n{config}"))
    }

    /// The same, where `prepare` adds to the command's environment.
    pub fn start_with(config: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::launch(|port, _| format!("listen: 127.0.0.1:{port}\n{config}"), prepare)
    }

    /// Starts a proxy with what `config` makes of a free port, at which it must listen, and a directory of its own.
    pub fn start_at(config: impl FnOnce(u16, &Path) -> String) -> Self {
        Self::launch(config, |_| {})
    }

    fn launch(config: impl FnOnce(u16, &Path) -> String, prepare: impl FnOnce(&mut Command)) -> Self {
        let port = pgweir::db::local::free_port().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgweir.yaml");
        std::fs::write(&path, config(port, dir.path())).unwrap();
        let log = std::fs::File::create(dir.path().join("proxy.log")).unwrap();
        let mut command = command(&["proxy", "-c", path.to_str().unwrap()]);
        prepare(&mut command);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut proxy = Self { child, port, dir };
        let listening = listens(SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(20));
        let alive = proxy.child.try_wait().unwrap().is_none();
        assert!(listening && alive, "the proxy did not start:\n{}", proxy.log());
        proxy
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A URL for `user` on `database`; a password may follow the user (`app:secret`).
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// The configuration that it runs with.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("pgweir.yaml")
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let opened = std::fs::File::open(self.dir.path().join("proxy.log"));
        opened.and_then(|mut file| file.read_to_string(&mut text)).unwrap();
        text
    }

    /// Kills it with SIGKILL; [`Proxy::again`] starts it as it was.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it once more after [`Proxy::kill`], at the same port.
    pub fn again(&mut self) {
        let path = self.config_path();
        let log = std::fs::File::options().append(true).open(self.dir.path().join("proxy.log")).unwrap();
        let mut command = command(&["proxy", "-c", path.to_str().unwrap()]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = child.unwrap();
        assert!(listens(SocketAddr::from(([127, 0, 0, 1], self.port)), Duration::from_secs(20)), "{}", self.log());
    }

    /// The process, for tests that signal it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
    }
}

/// A page as Chromium has it after its scripts have run; nothing where there is no Chromium.
pub fn browse(page: &Path) -> Option<String> {
    let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--dump-dom"];
    let browser = Command::new("chromium").args(arguments).arg(format!("file://{}", page.display())).output();
    if browser.is_err() {
        println!("there is no chromium here: the page was not looked at");
    }
    browser.ok().map(|browser| String::from_utf8_lossy(&browser.stdout).into_owned())
}
