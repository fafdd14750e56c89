//! Opening a connection: a URL in, a client whose connection task runs, or an error that says which
//! server, what failed and what to do, and never the password.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};

use super::fault::explain_failure;
use super::tls::Tls;
use crate::error::{Error, Result};
use crate::net::tls::{IdentityFiles, ServerTls, Verify};

/// How long a connection attempt may take, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where to connect and how, read from a URL.
#[derive(Clone)]
pub struct Target {
    config: Config,
    verify: Verify,
    tls: TlsOptions,
    label: String,
}

impl Target {
    /// Reads a `postgres://` URL or a `host=.. dbname=..` string. `PGPASSWORD` fills in a missing password.
    ///
    /// # Errors
    /// A usage error that names what is wrong, without the password.
    pub fn parse(url: &str) -> Result<Self> {
        let (rest, options) = take_tls_options(url);
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Error::usage(format!("the database URL could not be read: {cause}"))
                .hint("write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require")
        })?;
        let (ssl_mode, verify) = options.modes()?;
        config.ssl_mode(ssl_mode);
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("pgweir");
        }
        if config.get_password().is_none()
            && let Ok(password) = std::env::var("PGPASSWORD")
        {
            config.password(password);
        }
        let label = label(&config);
        Ok(Self { config, verify, tls: options, label })
    }

    /// The server for messages: `postgres://user@host:port/database`, no password.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Connects; the connection's task is spawned on the current runtime.
    ///
    /// # Errors
    /// Says which server, what failed and what to do.
    pub async fn connect(&self) -> Result<Client> {
        let tls = Tls::new(&self.tls.how(self.verify)?)?;
        let (client, connection) = self
            .config
            .connect(tls)
            .await
            .map_err(|error| explain_failure(&error, "connecting to PostgreSQL failed").at(&self.label))?;
        tokio::spawn(async move {
            // What ends the connection reaches the caller as the error of its next call.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection ended");
            }
        });
        Ok(client)
    }
}

/// Connects to the server of `url` (see [`Target`]).
///
/// # Errors
/// The URL cannot be read, or the server cannot be reached or refuses.
pub async fn connect(url: &str) -> Result<Client> {
    Target::parse(url)?.connect().await
}

fn label(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) if host.contains(':') => format!("[{host}]"),
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let database = config.get_dbname().or(config.get_user()).unwrap_or("");
    format!("postgres://{user}{host}:{port}/{database}")
}

/// The options of libpq that tokio-postgres does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TlsOptions {
    mode: Option<String>,
    root_file: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    /// Known to tokio-postgres too, which then leaves the protocol's name to us.
    direct: bool,
}

impl TlsOptions {
    fn modes(&self) -> Result<(SslMode, Verify)> {
        Ok(match self.mode.as_deref().unwrap_or("prefer") {
            "disable" => (SslMode::Disable, Verify::Nobody),
            "allow" | "prefer" => (SslMode::Prefer, Verify::Nobody),
            // libpq: `require` with a root file at hand behaves as `verify-ca`.
            "require" if self.root_file.is_some() => (SslMode::Require, Verify::Authority),
            "require" => (SslMode::Require, Verify::Nobody),
            "verify-ca" => (SslMode::Require, Verify::Authority),
            "verify-full" => (SslMode::Require, Verify::Host),
            other => {
                return Err(Error::usage(format!("unknown sslmode `{other}` in the database URL"))
                    .hint("use disable, prefer, require, verify-ca or verify-full"));
            }
        })
    }

    fn how(&self, verify: Verify) -> Result<ServerTls<'_>> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                Some(IdentityFiles { certificate: Path::new(certificate), key: Path::new(key) })
            }
            (None, None) => None,
            _ => {
                return Err(Error::usage("the database URL has one of sslcert and sslkey, which belong together")
                    .hint("give both"));
            }
        };
        // libpq's word for the system's own authorities.
        let authorities = self.root_file.as_deref().filter(|file| *file != "system").map(Path::new);
        Ok(ServerTls { verify, authorities, identity, direct: self.direct })
    }

    /// Takes the option when it is one of ours.
    fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.root_file = Some(value.to_owned()),
            "sslcert" => self.certificate = Some(value.to_owned()),
            "sslkey" => self.key = Some(value.to_owned()),
            "gssencmode" => {}
            "sslnegotiation" => {
                self.direct = value == "direct";
                return false;
            }
            _ => return false,
        }
        true
    }
}

/// Splits off what tokio-postgres would reject.
fn take_tls_options(url: &str) -> (String, TlsOptions) {
    let mut options = TlsOptions::default();
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    if !is_url {
        let kept: Vec<&str> = url
            .split_whitespace()
            .filter(|word| {
                !word.split_once('=').is_some_and(|(key, value)| options.take(key, value.trim_matches('\'')))
            })
            .collect();
        // A quoted value may hold blanks that must stay: only rewrite when something was taken.
        let text = if options == TlsOptions::default() { url.to_owned() } else { kept.join(" ") };
        return (text, options);
    }
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), options) };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            !pair.split_once('=').is_some_and(|(key, value)| {
                let value: String = url::form_urlencoded::parse(format!("v={value}").as_bytes())
                    .map(|(_, value)| value.into_owned())
                    .collect();
                options.take(key, &value)
            })
        })
        .collect();
    let text = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    (text, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_never_shows_the_password() {
        let target = Target::parse("postgres://app:s3cret@db.example:6000/shop?sslmode=verify-full").unwrap();
        assert_eq!(target.label(), "postgres://app@db.example:6000/shop");
        assert_eq!(target.verify, Verify::Host);
        let error = Target::parse("postgres://app:s3cret@db.example:notaport/shop").err().unwrap();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn takes_the_modes_of_libpq() {
        for (mode, expected) in [
            ("disable", (SslMode::Disable, Verify::Nobody)),
            ("prefer", (SslMode::Prefer, Verify::Nobody)),
            ("require", (SslMode::Require, Verify::Nobody)),
            ("verify-ca", (SslMode::Require, Verify::Authority)),
            ("verify-full", (SslMode::Require, Verify::Host)),
        ] {
            let (rest, options) = take_tls_options(&format!("postgres://h/d?sslmode={mode}&options=-c%20x%3D1"));
            assert_eq!(rest, "postgres://h/d?options=-c%20x%3D1");
            assert_eq!(options.modes().unwrap(), expected);
        }
        let (_, options) = take_tls_options("postgres://h/d?sslmode=sometimes");
        assert!(options.modes().is_err());
        let (_, options) = take_tls_options("postgres://h/d?sslmode=require&sslrootcert=/a%20b.pem");
        assert_eq!(options.root_file.as_deref(), Some("/a b.pem"));
        let (rest, options) = take_tls_options("postgres://h/d?sslcert=/c.pem&sslkey=/k.pem&sslnegotiation=direct");
        assert_eq!(rest, "postgres://h/d?sslnegotiation=direct");
        let how = options.how(Verify::Nobody).unwrap();
        assert_eq!((how.identity.unwrap().key, how.direct), (Path::new("/k.pem"), true));
        let (_, options2) = take_tls_options("postgres://h/d?sslcert=/c.pem");
        assert!(options2.how(Verify::Nobody).is_err());
        let (_, options) = take_tls_options("postgres://h/d?sslmode=require&sslrootcert=/a%20b.pem");
        assert_eq!(options.modes().unwrap(), (SslMode::Require, Verify::Authority));
    }

    #[test]
    fn takes_keyword_strings() {
        let target = Target::parse("host=/tmp dbname=shop user=app sslmode=disable").unwrap();
        assert_eq!(target.label(), "postgres://app@/tmp:5432/shop");
    }
}
