//! The stage: two shards, a configuration, and a proxy as a child process of this very program.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::FIRST_PORT;
use crate::db::local::{Auth, Cluster, Options, Shutdown};
use crate::error::{Error, Result};

/// How long the proxy may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many ports from [`FIRST_PORT`] on are tried.
const PORTS_TRIED: u16 = 200;

/// One shard: its name in the configuration and its server.
pub(super) struct Shard {
    pub(super) name: &'static str,
    pub(super) cluster: Cluster,
}

/// Everything that runs. The proxy goes first when this is dropped, then the shards.
pub(super) struct Stage {
    proxy: Proxy,
    pub(super) shards: Vec<Shard>,
    config: PathBuf,
}

impl Stage {
    /// Starts shards and proxy; `port` is the proxy's, or the first free one.
    pub(super) fn set(port: Option<u16>) -> Result<Self> {
        let port = choose_port(port)?;
        let shards = ["a", "b"].into_iter().map(start_shard).collect::<Result<Vec<Shard>>>()?;
        // The first shard's directory is as good as any, and is removed with the shard.
        let dir = shards.first().map_or_else(std::env::temp_dir, |shard| shard.cluster.socket_dir().to_owned());
        let config = dir.join("pgweir.yaml");
        write(&config, &config_text(port, &shards))?;
        let proxy = Proxy::start(&config, &dir.join("proxy.log"), port)?;
        Ok(Self { proxy, shards, config })
    }

    /// What runs where, for people.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for Shard { name, cluster } in &self.shards {
            text.push_str(&format!(
                "  shard {name}   127.0.0.1:{}   {}\n",
                cluster.port(),
                cluster.data_dir().display()
            ));
        }
        text.push_str(&format!("  proxy     127.0.0.1:{}   {}\n", self.proxy.port, self.config.display()));
        text
    }

    /// The shop through the proxy.
    pub(super) fn proxy_url(&self) -> String {
        format!("postgres://shop:shop@127.0.0.1:{}/shop?sslmode=disable", self.proxy.port)
    }

    /// The first shard as its superuser: statistics and plans of one shard stand for all.
    pub(super) fn shard_url(&self) -> String {
        self.shards.first().map(|shard| shard.cluster.url("postgres", "shop")).unwrap_or_default()
    }

    /// The shards' logs.
    pub(super) fn log_paths(&self) -> Vec<String> {
        self.shards.iter().map(|shard| shard.cluster.log_path().display().to_string()).collect()
    }

    /// The proxy's configuration.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// Makes the shards log every statement of the shop's from now on, with its duration.
    pub(super) fn log_statements(&self) -> Result<()> {
        for shard in &self.shards {
            shard.cluster.query("shop", "ALTER SYSTEM SET log_min_duration_statement = 0")?;
            shard.cluster.query("shop", "ANALYZE; SELECT pg_reload_conf()")?;
        }
        Ok(())
    }

    /// For `--keep`: how to connect, what to look at, how to end it.
    pub(super) fn how_to_try(&self) -> String {
        let (config, program) = (self.config.display(), program_name());
        let mut text = format!(
            "\nStill up. Try it:\n  psql {}\n  {program} explain -c {config} \"SELECT * FROM orders WHERE customer_id = 7\"\n",
            self.proxy_url(),
        );
        for shard in &self.shards {
            text.push_str(&format!("  {program} lint {}\n", shard.cluster.log_path().display()));
        }
        text.push_str(&format!("The configuration: {config}\nCtrl-C ends and removes it all.\n"));
        text
    }
}

/// How to call this program again, as the reader called it.
pub(super) fn program_name() -> String {
    std::env::args().next().unwrap_or_else(|| "pgweir".to_owned())
}

/// This program, for a child process.
///
/// # Errors
/// The system does not say where it is.
pub(super) fn this_program() -> Result<Command> {
    let path = std::env::current_exe()
        .map_err(|error| Error::internal(format!("this program's own path is unknown: {error}")))?;
    Ok(Command::new(path))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Error::input(format!("cannot write: {error}")).at(path.display().to_string()))
}

fn start_shard(name: &'static str) -> Result<Shard> {
    let options =
        Options::default().auth(Auth::Scram).set("log_line_prefix", "%m [%p] %q%u@%d ").set("log_checkpoints", "off");
    let cluster = Cluster::start_with(&options)?;
    // The demo's own questions to the shards are not part of the workload.
    cluster.query("postgres", "ALTER ROLE postgres SET log_min_duration_statement = -1")?;
    cluster.query("postgres", "CREATE ROLE shop LOGIN PASSWORD 'shop'")?;
    cluster.query("postgres", "CREATE DATABASE shop OWNER shop")?;
    // Where HypoPG is not installed, the index report falls back on statistics and says so.
    let _ = cluster.query("shop", "CREATE EXTENSION hypopg");
    Ok(Shard { name, cluster })
}

fn config_text(port: u16, shards: &[Shard]) -> String {
    let shards: String = shards
        .iter()
        .map(|Shard { name, cluster }| {
            format!(
                "      - {{name: {name}, primary: \"postgres://shop:shop@127.0.0.1:{}/shop?sslmode=disable\"}}\n",
                cluster.port()
            )
        })
        .collect();
    format!(
        "\
# The demo's configuration: a shop on two shards.
listen: 127.0.0.1:{port}

users:
  shop: {{password: shop}}

databases:
  shop:
    pool: {{mode: transaction, size: 8}}
    shards:
{shards}    sharding:
      tables:
        customers: {{key: id}}
        orders: {{key: customer_id}}
        order_items: {{key: customer_id}}
      reference: [countries, products]
    commit: best-effort
"
    )
}

/// The port asked for, or the first free one from [`FIRST_PORT`] on.
fn choose_port(wanted: Option<u16>) -> Result<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    match wanted {
        Some(port) if free(&port) => Ok(port),
        Some(port) => Err(Error::usage(format!("port {port} is taken"))
            .at("--port")
            .hint("choose another one, or leave --port out: the demo takes the next free one")),
        None => (FIRST_PORT..FIRST_PORT + PORTS_TRIED).find(free).ok_or_else(|| {
            Error::server(format!("no free port from {FIRST_PORT} to {}", FIRST_PORT + PORTS_TRIED))
                .hint("name one with --port")
        }),
    }
}

/// The proxy's process; it ends when this is dropped, and with us however we end.
struct Proxy {
    child: Child,
    port: u16,
}

impl Proxy {
    fn start(config: &Path, log: &Path, port: u16) -> Result<Self> {
        let log_error = |error: io::Error| Error::input(format!("cannot write the proxy's log: {error}"));
        let out = fs::File::create(log).map_err(log_error)?;
        let err = out.try_clone().map_err(log_error)?;
        let mut command = this_program()?;
        command.arg("proxy").arg("-c").arg(config).stdin(Stdio::null()).stdout(out).stderr(err);
        // Ctrl-C at a terminal is the demo's to handle.
        command.process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl is a bare system
        // call, and the closure neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let child = command.spawn().map_err(|error| Error::internal(format!("the proxy cannot be run: {error}")))?;
        let mut proxy = Self { child, port };
        proxy.wait_until_listening(log)?;
        Ok(proxy)
    }

    fn wait_until_listening(&mut self, log: &Path) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Ok(Some(exit)) = self.child.try_wait() {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(Error::server(format!("the proxy ended while starting ({exit}):\n{}", said.trim_end())));
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(Error::server(format!("the proxy does not listen on port {}:\n{said}", self.port)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Nothing of value is in flight when the demo ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.proxy.child.kill();
        for shard in &mut self.shards {
            // Whatever does not stop in good order is stopped as the cluster is dropped.
            let _ = shard.cluster.stop(Shutdown::Immediate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over_or_refused() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = choose_port(Some(port)).unwrap_err();
        assert!(error.what.contains("is taken"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(choose_port(None).unwrap() >= FIRST_PORT);
    }
}
