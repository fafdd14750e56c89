//! `pgweir demo` from outside: what it shows, and that nothing is left of it however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{command, ends, stderr, stdout};

/// A demo's whole life, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A directory for the demo's temporary files that its PostgreSQL's user may enter.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is left here: files, and processes that name this place in their arguments.
    fn leftovers(&self) -> Vec<String> {
        let files = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path().display().to_string());
        let place = self.path().to_str().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
        let arguments = processes
            .filter_map(|path| fs::read(path).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
        files.chain(arguments.filter(|line| line.contains(place))).collect()
    }

    fn becomes_clean(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            if self.leftovers().is_empty() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

fn demo(place: &Place, arguments: &[&str]) -> Command {
    let mut demo = command(&["demo"]);
    demo.args(arguments).env("TMPDIR", place.path()).stdin(Stdio::null());
    demo
}

/// Reads the demo's output up to a line that begins with `start`.
fn read_until(lines: &mut impl Iterator<Item = std::io::Result<String>>, start: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let found = line.trim_start().starts_with(start);
        seen.push(line);
        if found {
            return seen;
        }
    }
    panic!("the demo ended before it said `{start}`:\n{}", seen.join("\n"));
}

fn lines_of(child: &mut Child) -> std::io::Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    let place = Place::new();
    let output = demo(&place, &["--seconds", "1"]).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{text}\n{}", stderr(&output));
    assert_eq!(place.leftovers(), Vec::<String>::new());

    let both = |table: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(table)).unwrap_or_default();
        line.split_whitespace().skip(1).map(|count| count.parse().unwrap()).collect::<Vec<u32>>()
    };
    let customers = both("customers ");
    assert_eq!(customers.iter().sum::<u32>(), 2000, "each customer is on one shard:\n{text}");
    assert!(customers.iter().all(|count| *count > 500), "{customers:?}: one shard has nearly all");
    assert_eq!(both("orders ").iter().sum::<u32>(), 40_000, "{text}");
    assert_eq!(both("countries "), [8, 8], "a reference table is on every shard:\n{text}");

    for wanted in [
        "which the proxy could not prove right and refused",
        "single",
        "[select-star]",
        "[unindexed-scan]",
        "[n-plus-one]",
        "CREATE INDEX",
        "(customer_id",
        "nothing is left running",
    ] {
        assert!(text.contains(wanted), "`{wanted}` is not in the demo's output:\n{text}");
    }
}

#[test]
fn a_kept_demo_answers_until_it_is_interrupted() {
    let place = Place::new();
    let mut child = demo(&place, &["--keep", "--seconds", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = lines_of(&mut child);
    let psql = read_until(&mut lines, "psql postgres://").pop().unwrap();
    let url = psql.trim().strip_prefix("psql ").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let orders = runtime.block_on(async {
        let client = pgweir::db::connect(url).await.unwrap();
        client.query("SELECT id FROM orders WHERE customer_id = $1 AND id < 1000000", &[&7_i64]).await.unwrap()
    });
    assert_eq!(orders.len(), 20);
    interrupt(&child);
    read_until(&mut lines, "Done");
    assert!(ends(&mut child, PATIENCE));
    assert!(child.wait().unwrap().success());
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn a_killed_demo_leaves_nothing_either() {
    let place = Place::new();
    let mut child = demo(&place, &[]).stdout(Stdio::piped()).spawn().unwrap();
    read_until(&mut lines_of(&mut child), "2. ");
    assert!(!place.leftovers().is_empty(), "this test looks in the wrong place");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(place.becomes_clean(), "left: {:?}", place.leftovers());
}

#[test]
fn a_taken_port_is_said_before_anything_starts() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = demo(&place, &["--port", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(&format!("port {port} is taken")), "{}", stderr(&output));
}

#[test]
fn a_missing_postgresql_is_said_with_what_to_do() {
    let place = Place::new();
    let nowhere = PathBuf::from("/nonexistent");
    let output = demo(&place, &[]).env("PGWEIR_PG_BIN", &nowhere).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("hint: "), "{}", stderr(&output));
    assert_eq!(place.leftovers(), Vec::<String>::new());
}
