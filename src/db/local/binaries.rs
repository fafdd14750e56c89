//! Which PostgreSQL to run, and as whom.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// Where Debian and its derivatives install each version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// The version preferred where several are installed: the one the project's tests were written on.
const PREFERRED_VERSION: u32 = 15;

/// A directory with `postgres` and `initdb`.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Looks at `PGWEIR_PG_BIN`, Debian's directories (15 first, then the newest), `pg_config` and `PATH`.
    pub(super) fn find() -> Result<Self> {
        if let Some(dir) = std::env::var_os("PGWEIR_PG_BIN") {
            let dir = PathBuf::from(dir);
            return match holds_server(&dir) {
                true => Ok(Self { dir }),
                false => Err(Error::input("no postgres and initdb here")
                    .at(format!("PGWEIR_PG_BIN={}", dir.display()))
                    .hint("set it to the directory that holds PostgreSQL's server programs")),
            };
        }
        let found = debian_dirs(Path::new(DEBIAN_ROOT))
            .into_iter()
            .chain(pg_config_dir())
            .chain(path_dirs())
            .find(|dir| holds_server(dir));
        found.map(|dir| Self { dir }).ok_or_else(|| {
            Error::input("PostgreSQL's server programs (postgres, initdb) were not found")
                .at(format!("{DEBIAN_ROOT}/*/bin, pg_config --bindir and PATH"))
                .hint("install them (on Debian: sudo apt-get install postgresql postgresql-15-hypopg) or set PGWEIR_PG_BIN to their directory")
        })
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn holds_server(dir: &Path) -> bool {
    dir.join("postgres").is_file() && dir.join("initdb").is_file()
}

/// The `bin` directories under `root`, best first.
fn debian_dirs(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut versions: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    versions.sort_unstable_by_key(|version| (*version != PREFERRED_VERSION, std::cmp::Reverse(*version)));
    versions.into_iter().map(|version| root.join(version.to_string()).join("bin")).collect()
}

fn pg_config_dir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(dir.trim()))
}

fn path_dirs() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The user that servers run as: ourselves, or, as root, an unprivileged one.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunAs {
    /// User and group to change to; none where we are not root.
    ids: Option<(u32, u32)>,
}

impl RunAs {
    pub(super) fn choose() -> Result<Self> {
        // SAFETY: geteuid has no preconditions and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(Self { ids: None });
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        match ids_of("postgres", &passwd).or_else(|| ids_of("nobody", &passwd)) {
            Some(ids) => Ok(Self { ids: Some(ids) }),
            None => Err(Error::input("PostgreSQL refuses to run as root, and there is no user to run it as")
                .at("/etc/passwd")
                .hint("create a user named postgres, or run pgweir as an ordinary user")),
        }
    }

    /// Makes `command` run as this user. Supplementary groups are dropped with root's rights.
    pub(super) fn apply(self, command: &mut Command) {
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
    }

    /// Gives `path` to this user.
    pub(super) fn own(self, path: &Path) -> std::io::Result<()> {
        match self.ids {
            Some((user, group)) => std::os::unix::fs::chown(path, Some(user), Some(group)),
            None => Ok(()),
        }
    }
}

/// User and group id of `name` in the text of `/etc/passwd`.
fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgresql:x:7:8::/:/bin/sh\npostgres:x:101:104::/:/bin/sh\nbad:x:1\n";
        assert_eq!(ids_of("postgres", passwd), Some((101, 104)));
        assert_eq!(ids_of("nobody", passwd), None);
        assert_eq!(ids_of("bad", passwd), None);
    }

    #[test]
    fn the_preferred_version_comes_first_then_the_newest() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "14", "15", "17", "not-a-version"] {
            std::fs::create_dir(root.path().join(version)).unwrap();
        }
        let names: Vec<String> = debian_dirs(root.path())
            .iter()
            .map(|dir| dir.strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["15/bin", "17/bin", "14/bin", "9/bin"]);
    }
}
