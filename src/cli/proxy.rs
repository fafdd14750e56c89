//! `pgweir proxy`: pools connections and routes statements to shards.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};

use crate::config::{self, ClientTlsMode, Config, Listen};
use crate::error::Result;
use crate::proxy::handover::{self, Heritage};
use crate::proxy::listen::Proxy;
use crate::proxy::system;

const AFTER_HELP: &str = "\
Examples:
  pgweir proxy -c pgweir.yaml
  pgweir proxy -c pgweir.yaml --takeover
  PGWEIR_LOG=debug pgweir proxy -c pgweir.yaml --log-format json

SIGINT and SIGTERM let clients finish their transactions first; a second one stops at once.
SIGHUP reads the configuration again; clients stay connected.
With --takeover (and takeover.socket set) a new process, of a new version for example, takes the place of the running one,
which serves the clients it has until they leave. Without a running one it starts as usual.";

/// Pool connections and route statements to shards
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// Take over from the process that runs with the same `takeover.socket`: clients notice nothing
    #[arg(long)]
    takeover: bool,

    /// How to write the log, which goes to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Serves clients until it is told to stop.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = config::load(&args.config)?;
    start_log(args.log_format);
    warn(&config);
    system::raise_descriptor_limit(&config);
    let heritage = if args.takeover { Heritage::ask(&handover::socket_of(&config)?)? } else { None };
    if args.takeover && heritage.is_none() {
        tracing::info!("there is no process to take over from: starting as usual");
    }
    Proxy::start_after(config, heritage)?.read_from(args.config).run()?;
    Ok(ExitCode::SUCCESS)
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PGWEIR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A log that was set up before, as in tests, stays.
    let _ = match format {
        LogFormat::Text => log.with_ansi(super::output::colour_on(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

/// Says what is allowed but dangerous.
fn warn(config: &Config) {
    let outside = |host: &str| !matches!(host, "localhost" | "::1") && !host.starts_with("127.");
    if config.tls.mode != ClientTlsMode::Require
        && config.listen.iter().any(|listen| matches!(listen, Listen::Tcp(address) if outside(&address.host)))
    {
        tracing::warn!("clients from other machines may connect without TLS: set tls.mode to require");
    }
    for (name, database) in &config.databases {
        for (server, url) in database.servers().filter(|(_, url)| !url.is_unix() && outside(&url.host)) {
            if matches!(url.sslmode, config::SslMode::Disable | config::SslMode::Prefer) {
                tracing::warn!(
                    database = name,
                    server,
                    "the server may be spoken to without TLS: set sslmode in its URL"
                );
            }
        }
    }
}
