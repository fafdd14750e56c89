//! What the proxy asks of and tells to the system around it: descriptors, its pid file, systemd.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::error::{Error, Result};

/// Descriptors besides those of clients and servers: listeners, event loops, files.
const OTHER_DESCRIPTORS: u64 = 100;

/// Raises the limit of open descriptors as far as it may be, and says when that is not enough for the configuration.
pub fn raise_descriptor_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let have = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    let pools = config.databases.values().map(|database| {
        let users = if database.servers().all(|(_, url)| url.user.is_some()) { 1 } else { config.users.len() };
        u64::from(database.pool.size) * (database.servers().count() * users.max(1)) as u64
    });
    let needed = u64::from(config.limits.max_clients) + pools.sum::<u64>() + OTHER_DESCRIPTORS;
    if have.is_some_and(|have| have < needed) {
        tracing::warn!(
            descriptors = have,
            needed,
            "too few file descriptors for limits.max_clients and all pools: raise `ulimit -n` (LimitNOFILE in systemd)"
        );
    }
}

/// The file that holds the process id while the proxy runs.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it, in one step, so that nobody reads half of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(path: &str) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::input(format!("the pid file cannot be written: {error}"))
                .at(path)
                .hint("choose another `pid_file`, or make its directory writable")
        };
        let aside = format!("{path}.{}", std::process::id());
        std::fs::write(&aside, format!("{}\n", std::process::id())).map_err(failed)?;
        std::fs::rename(&aside, path).map_err(failed)?;
        Ok(Self(path.into()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A process that took over has written its own.
        let own = std::fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == std::process::id().to_string());
        if own {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// Tells the service manager how the proxy is (`READY=1`, ..), where one listens.
pub fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(Path::new(&socket), state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

fn send(socket: &Path, state: &str) -> io::Result<()> {
    let name = socket.as_os_str().as_encoded_bytes();
    let address = match name.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// Microseconds of the system's monotonic clock, as systemd wants them with `RELOADING=1`.
pub fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec) * 1_000_000 + part(now.tv_nsec) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(&path, "READY=1").unwrap();
        let mut said = [0; 100];
        let count = manager.recv(&mut said).unwrap();
        assert_eq!(&said[..count], b"READY=1");
    }

    #[test]
    fn a_pid_file_of_a_successor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let file = PidFile::write(path.to_str().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), std::process::id().to_string());
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
        drop(PidFile::write(path.to_str().unwrap()).unwrap());
        assert!(!path.exists());
    }
}
