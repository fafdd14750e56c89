//! The one directory that a process's clusters share: a template that `initdb` made, a numbered
//! directory for each cluster, and a watchdog that removes it all should this process be killed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use super::binaries::{Binaries, RunAs};
use crate::error::{Error, Result};

/// Waits for `done` on its input. Where the input ends without it, the process that started it was
/// killed: then it stops every server below `$1` with the `pg_ctl` of `$2` and removes `$1`.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
read -r word
[ "$word" = done ] && exit 0
for data in "$1"/*/data; do
    [ -f "$data/postmaster.pid" ] && "$2/pg_ctl" -D "$data" -m immediate -s stop
done
for attempt in 1 2 3 4 5; do
    rm -rf -- "$1" && exit 0
    sleep 1
done
"#;

/// The base of the clusters that live now. It goes with the last of them; a later one makes a new base.
static CURRENT: Mutex<Weak<Base>> = Mutex::new(Weak::new());

#[derive(Debug)]
pub(super) struct Base {
    binaries: Binaries,
    run_as: RunAs,
    dir: Option<TempDir>,
    path: PathBuf,
    watchdog: Option<Child>,
    clusters: AtomicU32,
}

impl Base {
    /// The base of this process, made where there is none.
    pub(super) fn shared() -> Result<Arc<Self>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = current.upgrade() {
            return Ok(base);
        }
        let base = Arc::new(Self::create()?);
        *current = Arc::downgrade(&base);
        Ok(base)
    }

    fn create() -> Result<Self> {
        let binaries = Binaries::find()?;
        let run_as = RunAs::choose()?;
        let dir = tempfile::Builder::new()
            .prefix("pgweir-")
            .tempdir()
            .map_err(|error| Error::input(format!("cannot make a temporary directory: {error}")))?;
        let path = dir.path().to_owned();
        run_as.own(&path).map_err(|error| written_error(&path, &error))?;
        let mut base = Self { binaries, run_as, dir: Some(dir), path, watchdog: None, clusters: AtomicU32::new(0) };
        base.watchdog = Some(base.start_watchdog()?);
        base.init_template()?;
        Ok(base)
    }

    fn start_watchdog(&self) -> Result<Child> {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "pgweir-watchdog"]).arg(&self.path).arg(self.binaries.dir());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.prepare(&mut command);
        command.spawn().map_err(|error| Error::input(format!("cannot run sh: {error}")))
    }

    fn init_template(&self) -> Result<()> {
        let password_file = self.path.join("password");
        self.write_private(&password_file, "postgres\n")?;
        let mut command = self.command("initdb");
        command.arg("-D").arg(self.template()).arg("--pwfile").arg(&password_file);
        // Small WAL segments: the template is copied for every cluster.
        command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        command.args(["--no-sync", "--no-instructions", "--wal-segsize=1"]);
        run(command, "initdb")
    }

    fn template(&self) -> PathBuf {
        self.path.join("template")
    }

    /// A fresh directory that holds `data`, a copy of the template.
    pub(super) fn new_cluster_dir(&self) -> Result<PathBuf> {
        let dir = self.new_empty_dir()?;
        let mut command = Command::new("cp");
        command.arg("-a").arg(self.template()).arg(dir.join("data"));
        self.prepare(&mut command);
        run(command, "cp")?;
        Ok(dir)
    }

    /// A fresh directory.
    pub(super) fn new_empty_dir(&self) -> Result<PathBuf> {
        let number = self.clusters.fetch_add(1, Ordering::Relaxed) + 1;
        let dir = self.path.join(number.to_string());
        fs::create_dir(&dir).and_then(|()| self.run_as.own(&dir)).map_err(|error| written_error(&dir, &error))?;
        Ok(dir)
    }

    pub(super) fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// A program of PostgreSQL's, to run as the unprivileged user.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.path(program));
        self.prepare(&mut command);
        command
    }

    /// The unprivileged user, a directory it may enter, a process group of its own (Ctrl-C at a
    /// terminal is ours to handle, not the servers'), and messages in English.
    fn prepare(&self, command: &mut Command) {
        self.run_as.apply(command);
        command.current_dir(&self.path).process_group(0).env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGPORT");
    }

    /// Writes a file that only the server's user may read, as PostgreSQL demands of keys.
    pub(super) fn write_private(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
            .and_then(|()| self.run_as.own(path))
            .map_err(|error| written_error(path, &error))
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take() {
            // The watchdog tries once more where this fails.
            let removed = dir.close().is_ok();
            let Some(mut watchdog) = self.watchdog.take() else { return };
            if let Some(mut input) = watchdog.stdin.take()
                && removed
            {
                let _ = input.write_all(b"done\n");
            }
            let _ = watchdog.wait();
        }
    }
}

pub(super) fn run(mut command: Command, name: &str) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::input(format!("cannot run {name}: {error}")).hint(ENTER_HINT))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    Err(Error::server(format!("{name} failed ({}): {message}", output.status)).hint(ENTER_HINT))
}

const ENTER_HINT: &str = "PostgreSQL's user must be able to enter the temporary directory, and it needs about 100 MB: \
                          set TMPDIR to another place if this one does not serve";

fn written_error(path: &Path, error: &std::io::Error) -> Error {
    Error::input(format!("cannot write: {error}")).at(path.display().to_string())
}
