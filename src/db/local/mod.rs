//! Throwaway PostgreSQL clusters: real servers in a temporary directory, for `pgweir demo` and the tests.
//!
//! ```text
//! binaries   which PostgreSQL to run, and as whom (it refuses to run as root)
//! base       one directory per process: an initdb'ed template, copied for each cluster, and a watchdog
//! process    signals to a server and its backends
//! Cluster    copy -> configure -> start on a free port -> ready; stopped and removed on drop
//! ```
//!
//! Nothing outlives us: dropping the last cluster removes the directory, and where this process is
//! killed before that, the watchdog sees its pipe close and does the same.
//!
//! The interface blocks and may be called from async code too, as long as holding up that thread is acceptable.

mod base;
mod binaries;
mod process;
mod query;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::base::Base;
use crate::error::{Error, Result};

/// How long a server may take to start or stop before we give up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many ports to try: another process may take the port between our finding it and the server's using it.
const PORT_ATTEMPTS: u32 = 8;

/// How clients on TCP prove who they are. The Unix socket always trusts, so that helpers need no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auth {
    /// Whoever they say they are.
    #[default]
    Trust,
    /// SCRAM-SHA-256.
    Scram,
    /// MD5; roles need a password stored with `password_encryption = md5`.
    Md5,
    /// The password in clear text.
    Password,
}

impl Auth {
    fn hba_method(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Scram => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Password => "password",
        }
    }
}

/// A server's certificate and key, in PEM.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    /// The certificate chain.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// What differs from an ordinary cluster.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How TCP clients log in.
    pub auth: Auth,
    /// Lines of `postgresql.conf`: name and value.
    pub settings: Vec<(String, String)>,
    /// Turns TLS on with this identity.
    pub tls: Option<TlsIdentity>,
}

impl Options {
    /// Adds one setting of `postgresql.conf`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Chooses how TCP clients log in.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }
}

/// How a server is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends sessions, writes a checkpoint: an orderly restart.
    Fast,
    /// Ends at once without a checkpoint; recovery follows at the next start.
    Immediate,
}

/// A running PostgreSQL of our own. The superuser is `postgres`, with the password `postgres`.
#[derive(Debug)]
pub struct Cluster {
    base: Arc<Base>,
    dir: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Starts an ordinary cluster: trust authentication, default settings except that nothing is synced to disk.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start; the error carries the end of its log.
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// Starts a cluster with `options`.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(options: &Options) -> Result<Self> {
        let base = Base::shared()?;
        let dir = base.new_cluster_dir()?;
        let mut cluster = Self { base, dir, port: 0, server: None };
        cluster.configure(options)?;
        for attempt in 1..=PORT_ATTEMPTS {
            cluster.port = free_port()?;
            match cluster.launch() {
                Err(_) if attempt < PORT_ATTEMPTS && cluster.log_tail().contains("Address already in use") => {}
                outcome => return outcome.map(|()| cluster),
            }
        }
        Err(Error::server("no free port was found for PostgreSQL"))
    }

    /// Starts a hot standby of this cluster, with `settings` of its own on top of this one's.
    ///
    /// # Errors
    /// The copy cannot be made, or the standby does not start.
    pub fn standby(&self, settings: &Options) -> Result<Self> {
        let dir = self.base.new_empty_dir()?;
        let mut copy = self.base.command("pg_basebackup");
        copy.arg("-D").arg(dir.join("data")).args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        copy.arg("-d").arg(format!("host={} port={} user=postgres", self.dir.display(), self.port));
        base::run(copy, "pg_basebackup")?;
        let mut standby = Self { base: self.base.clone(), dir, port: free_port()?, server: None };
        standby.add_settings(settings)?;
        standby.launch()?;
        Ok(standby)
    }

    /// Makes a standby a primary, and waits until it is one.
    ///
    /// # Errors
    /// The server cannot be reached, or does not become one within a minute.
    pub fn promote(&self) -> Result<()> {
        match self.query("postgres", "SELECT pg_promote()")?.first().and_then(|row| row.first().cloned().flatten()) {
            Some(done) if done == "t" => Ok(()),
            _ => Err(Error::server("the standby was not promoted within a minute")),
        }
    }

    /// Appends settings, which win over those before them.
    fn add_settings(&self, options: &Options) -> Result<()> {
        let path = self.data_dir().join("postgresql.conf");
        let before = fs::read_to_string(&path)
            .map_err(|error| Error::input(format!("cannot read: {error}")).at(path.display().to_string()))?;
        let mut conf = format!("{before}unix_socket_directories = {}\n", quoted(&self.dir.display().to_string()));
        for (name, value) in &options.settings {
            conf.push_str(&format!("{name} = {}\n", quoted(value)));
        }
        self.base.write_private(&path, &conf)
    }

    /// Starts the server again after [`Cluster::stop`] or [`Cluster::kill`], on the same port.
    ///
    /// # Errors
    /// It does not start; the error carries the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        match self.server {
            Some(_) => Ok(()),
            None => self.launch(),
        }
    }

    /// Stops the server and waits until it is gone. Its data stay.
    ///
    /// # Errors
    /// It is still there after a minute.
    pub fn stop(&mut self, shutdown: Shutdown) -> Result<()> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let signal = match shutdown {
            Shutdown::Fast => libc::SIGINT,
            Shutdown::Immediate => libc::SIGQUIT,
        };
        process::signal(server.id(), signal);
        if !process::wait(server, PATIENCE) {
            return Err(Error::server("PostgreSQL did not stop within a minute").at(self.dir.display().to_string()));
        }
        self.server = None;
        Ok(())
    }

    /// Kills the server and all its backends with SIGKILL, as a machine that lost power would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let backends = process::children(server.id());
            process::signal(server.id(), libc::SIGKILL);
            process::wait(&mut server, PATIENCE);
            for backend in backends {
                process::signal(backend, libc::SIGKILL);
            }
        }
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A URL for `user` on `database` over TCP. The superuser's password is in it; other roles bring theirs.
    pub fn url(&self, user: &str, database: &str) -> String {
        let login = if user == "postgres" { "postgres:postgres".to_owned() } else { user.to_owned() };
        format!("postgres://{login}@127.0.0.1:{}/{database}", self.port)
    }

    /// The directory of the Unix socket, for `host=`.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What the server wrote to standard error: its log, unless `logging_collector` is on.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The server process's id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Runs `sql` (one or more statements) as the superuser and returns the rows of all of them as text.
    ///
    /// # Errors
    /// The server cannot be reached or raises an error.
    pub fn query(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let socket =
            format!("host={} port={} user=postgres dbname={database} sslmode=disable", self.dir.display(), self.port);
        query::query_text(&socket, sql)
    }

    /// Runs a client program of this PostgreSQL (`psql`, `pgbench`, `pg_dump`); the caller adds arguments.
    pub fn client_program(&self, name: &str) -> std::process::Command {
        std::process::Command::new(self.base.binaries().path(name))
    }

    fn configure(&self, options: &Options) -> Result<()> {
        let data = self.data_dir();
        let mut conf = String::from(FAST_SETTINGS);
        conf.push_str(&format!("unix_socket_directories = {}\n", quoted(&self.dir.display().to_string())));
        if let Some(identity) = &options.tls {
            self.base.write_private(&data.join("server.crt"), &identity.certificate)?;
            self.base.write_private(&data.join("server.key"), &identity.key)?;
            conf.push_str("ssl = on\n");
        }
        for (name, value) in &options.settings {
            conf.push_str(&format!("{name} = {}\n", quoted(value)));
        }
        let hba = format!(
            "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 {0}\nhost replication all 127.0.0.1/32 {0}\n",
            options.auth.hba_method()
        );
        self.base.write_private(&data.join("postgresql.conf"), &conf)?;
        self.base.write_private(&data.join("pg_hba.conf"), &hba)
    }

    fn launch(&mut self) -> Result<()> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .map_err(|error| Error::input(format!("cannot write the server's log: {error}")))?;
        let mut command = self.base.command("postgres");
        command.arg("-D").arg(self.data_dir()).args(["-p", &self.port.to_string()]);
        let also_log =
            log.try_clone().map_err(|error| Error::internal(format!("a log handle was not copied: {error}")))?;
        command.stdin(Stdio::null()).stdout(also_log).stderr(log);
        let mut server = command.spawn().map_err(|error| Error::server(format!("cannot run PostgreSQL: {error}")))?;
        if let Err(error) = self.wait_until_ready(&mut server) {
            process::signal(server.id(), libc::SIGQUIT);
            process::wait(&mut server, PATIENCE);
            return Err(error);
        }
        self.server = Some(server);
        Ok(())
    }

    /// Watches `postmaster.pid`, whose eighth line says `ready` (the same signal that `pg_ctl` waits for).
    fn wait_until_ready(&self, server: &mut Child) -> Result<()> {
        let pid_file = self.data_dir().join("postmaster.pid");
        let started = Instant::now();
        loop {
            let status = fs::read_to_string(&pid_file).unwrap_or_default();
            let ours = status.lines().next().is_some_and(|pid| pid.trim() == server.id().to_string());
            if ours && status.lines().nth(7).is_some_and(|line| line.trim_end() == "ready") {
                return Ok(());
            }
            if let Ok(Some(exit)) = server.try_wait() {
                return Err(Error::server(format!("PostgreSQL ended while starting ({exit}):\n{}", self.log_tail()))
                    .at(self.log_path().display().to_string()));
            }
            if started.elapsed() > PATIENCE {
                return Err(Error::server(format!("PostgreSQL was not ready within a minute:\n{}", self.log_tail()))
                    .at(self.log_path().display().to_string()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.stop(Shutdown::Immediate).is_err() {
            self.kill();
        }
        // What cannot be removed here goes with the base directory.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Nothing is synced to disk: these clusters never outlive their machine's next start. Commits are still
/// handed to the system before they are answered, so that a killed server loses none.
const FAST_SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
shared_buffers = '64MB'
max_connections = 100
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'iso, mdy'
";

/// A value of `postgresql.conf`, quoted.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// A TCP port on 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// The machine has none left.
pub fn free_port() -> Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Error::server(format!("no free TCP port: {error}")).at("127.0.0.1"))
}

#[cfg(test)]
mod tests;
