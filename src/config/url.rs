//! A server's address as a `postgres://` URL. Its password is never shown.

use std::fmt;

use super::define::{FromNode, Reader, choices, scalar};
use super::secret::Secret;
use super::tree::Node;
use crate::error::Result;

choices! {
    /// How a connection to a server is encrypted, with libpq's words.
    pub enum SslMode {
        /// Never.
        Disable = "disable",
        /// If the server can.
        Prefer = "prefer",
        /// Always, without looking at the certificate.
        Require = "require",
        /// Always, with a certificate signed by a trusted authority.
        VerifyCa = "verify-ca",
        /// Always, with a certificate signed by a trusted authority for the server's host name.
        VerifyFull = "verify-full",
    }
}

choices! {
    /// Whether the server's proof of the password must be bound to its certificate.
    pub enum ChannelBinding {
        /// Never.
        Disable = "disable",
        /// If the server can.
        Prefer = "prefer",
        /// Always.
        Require = "require",
    }
}

/// Where a PostgreSQL server is and who to be there.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Host name or address, or the directory of a unix socket, which begins with `/`.
    pub host: String,
    /// Port, 5432 unless given.
    pub port: u16,
    /// The user; the client's own when there is none.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The database; the one that the client asked for when there is none.
    pub database: Option<String>,
    /// Encryption.
    pub sslmode: SslMode,
    /// A file of trusted authorities (PEM); the system's when there is none.
    pub sslrootcert: Option<String>,
    /// The certificate to show to the server and its key (PEM files).
    pub identity: Option<(String, String)>,
    /// Begin with TLS at once, without SSLRequest (`sslnegotiation=direct`).
    pub direct: bool,
    /// Whether SCRAM is bound to TLS.
    pub channel_binding: ChannelBinding,
}

/// Parameters that a URL may have.
const PARAMETERS: &[&str] =
    &["host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslnegotiation", "channel_binding", "password"];

impl ServerUrl {
    /// Reads `postgres://user:password@host:port/database?sslmode=..&sslrootcert=..`. The error says
    /// what is wrong without repeating the URL, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(&with_host(text)).map_err(|error| format!("it is no URL: {error}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("it begins with `{}://`, not with `postgres://`", url.scheme()));
        }
        let host = match url.host() {
            Some(url::Host::Ipv6(address)) => address.to_string(),
            Some(host) => decode(&host.to_string())?,
            None => String::new(),
        };
        if url.fragment().is_some() {
            return Err("it holds a `#`, which must be written `%23`".to_owned());
        }
        let user = Some(decode(url.username())?).filter(|user| !user.is_empty());
        let database = Some(decode(url.path().trim_start_matches('/'))?).filter(|database| !database.is_empty());
        let mut server = Self {
            host,
            port: url.port().unwrap_or(5432),
            user,
            password: url.password().map(decode).transpose()?.map(|password| Secret::new(&password)),
            database,
            sslmode: SslMode::Prefer,
            sslrootcert: None,
            identity: None,
            direct: false,
            channel_binding: ChannelBinding::Prefer,
        };
        let (mut certificate, mut key) = (None, None);
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslcert" => certificate = Some(value.into_owned()),
                "sslkey" => key = Some(value.into_owned()),
                _ => server.set(&name, &value)?,
            }
        }
        server.identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err("it has sslcert without sslkey".to_owned()),
            (None, Some(_)) => return Err("it has sslkey without sslcert".to_owned()),
        };
        server.check_tls()?;
        if server.host.is_empty() || server.host == NO_HOST {
            return Err("it names no host".to_owned());
        }
        if server.host.contains(',') || server.host.contains('/') && !server.is_unix() {
            return Err("it must name one host, or the directory of a unix socket (`host=/run/postgresql`)".to_owned());
        }
        if [&server.user, &server.database].into_iter().flatten().any(|text| text.contains('\0')) {
            return Err("it holds a zero byte".to_owned());
        }
        Ok(server)
    }

    /// What asks for TLS makes no sense where there may be none.
    fn check_tls(&self) -> Result<(), String> {
        let certain = !matches!(self.sslmode, SslMode::Disable | SslMode::Prefer);
        let asking = [
            (self.direct, "sslnegotiation=direct"),
            (self.channel_binding == ChannelBinding::Require, "channel_binding=require"),
        ];
        match asking.into_iter().find(|(asks, _)| *asks && !certain) {
            Some((_, what)) => Err(format!("it has {what}, which needs sslmode=require, verify-ca or verify-full")),
            None => Ok(()),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "sslmode" if value == "allow" => {
                return Err(
                    "its sslmode is `allow`, which encrypts only where a server insists: write `prefer`".to_owned()
                );
            }
            "host" => self.host = value.to_owned(),
            "port" => self.port = value.parse().map_err(|_| "its port is no number from 0 to 65535".to_owned())?,
            "sslmode" => {
                self.sslmode = SslMode::of_word(value)
                    .ok_or_else(|| format!("its sslmode is `{value}`, where {} is known", SslMode::what()))?;
            }
            "sslrootcert" => self.sslrootcert = Some(value.to_owned()),
            "sslnegotiation" => {
                self.direct = match value {
                    "direct" => true,
                    "postgres" => false,
                    _ => {
                        return Err(format!(
                            "its sslnegotiation is `{value}`, where `postgres` and `direct` are known"
                        ));
                    }
                }
            }
            "channel_binding" => {
                self.channel_binding = ChannelBinding::of_word(value).ok_or_else(|| {
                    format!("its channel_binding is `{value}`, where {} is known", ChannelBinding::what())
                })?;
            }
            "password" => self.password = Some(Secret::new(value)),
            _ => {
                let known = super::problem::one_of(PARAMETERS.iter().copied());
                return Err(format!("it has the parameter `{name}`, where {known} is known"));
            }
        }
        Ok(())
    }

    /// The whole URL with its password, looked up. For drivers; never to be printed.
    pub fn with_password(&self) -> Result<String> {
        let mut text = String::from("postgres://");
        if let Some(user) = &self.user {
            text.push_str(&encode(user));
            if let Some(password) = &self.password {
                text.push(':');
                text.push_str(&encode(&password.resolve()?));
            }
            text.push('@');
        }
        if self.is_unix() {
            text.push_str(&format!("{}:{}", encode(&self.host), self.port));
        } else {
            text.push_str(&self.address());
        }
        text.push('/');
        text.push_str(&self.database.as_deref().map(encode).unwrap_or_default());
        text.push_str("?sslmode=");
        text.push_str(self.sslmode.word());
        let mut add = |name: &str, value: &str| {
            text.push_str(&format!("&{name}={}", encode(value)));
        };
        if let Some(file) = &self.sslrootcert {
            add("sslrootcert", file);
        }
        if let Some((certificate, key)) = &self.identity {
            add("sslcert", certificate);
            add("sslkey", key);
        }
        if self.direct {
            add("sslnegotiation", "direct");
        }
        if self.channel_binding != ChannelBinding::Prefer {
            add("channel_binding", self.channel_binding.word());
        }
        Ok(text)
    }

    /// Whether it is at a unix socket, where no TLS is needed.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// `host:port`, with brackets around an IPv6 address; or the path of a unix socket.
    pub fn address(&self) -> String {
        if self.is_unix() {
            format!("{}/.s.PGSQL.{}", self.host.trim_end_matches('/'), self.port)
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Stands for a host that is said by a parameter: a URL with a user must have some host.
const NO_HOST: &str = "host-is-a-parameter";

/// `postgres://user@/db?host=..` with a host before the path.
fn with_host(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.ends_with('@') { format!("{scheme}://{authority}{NO_HOST}{path}") } else { text.to_owned() }
}

/// Percent-encoding of everything but letters and digits.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// Percent-decoding, strict about what comes out: UTF-8.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match digit().zip(digit()) {
            Some((high, low)) => bytes.push((high * 16 + low) as u8),
            None => {
                return Err("it holds a `%` that is not followed by two hexadecimal digits (write `%25`)".to_owned());
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| "it holds bytes that are not UTF-8".to_owned())
}

impl fmt::Display for ServerUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.address())?;
        if let Some(database) = &self.database {
            write!(f, "/{database}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromNode for ServerUrl {
    fn what() -> String {
        "`postgres://user:password@host:port/database`".to_owned()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        match Self::parse(text) {
            Ok(url) => Some(url),
            Err(what) => {
                let said = format!("`{}` is no server's URL: {what}", reader.path());
                reader.problem(node.at, said, format!("write {}", Self::what()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_url_apart() {
        let url =
            ServerUrl::parse("postgres://a%40b:p%2Fw:x@10.0.0.1:6000/my%20db?sslmode=verify-full&sslrootcert=/ca.pem")
                .unwrap();
        assert_eq!((url.host.as_str(), url.port), ("10.0.0.1", 6000));
        assert_eq!((url.user.as_deref(), url.database.as_deref()), (Some("a@b"), Some("my db")));
        assert_eq!(url.password.as_ref().unwrap().resolve().unwrap(), "p/w:x");
        assert_eq!((url.sslmode, url.sslrootcert.as_deref()), (SslMode::VerifyFull, Some("/ca.pem")));
        assert_eq!(format!("{url} {url:?}"), "postgres://a@b@10.0.0.1:6000/my db postgres://a@b@10.0.0.1:6000/my db");

        let whole = ServerUrl::parse(&url.with_password().unwrap()).unwrap();
        assert_eq!((whole.password.clone(), whole.clone()), (url.password.clone(), url));

        let text =
            "postgres://h/x?sslmode=require&sslcert=/c%20.pem&sslkey=/k&sslnegotiation=direct&channel_binding=require";
        let url = ServerUrl::parse(text).unwrap();
        assert_eq!((url.identity.clone(), url.direct), (Some(("/c .pem".into(), "/k".into())), true));
        assert_eq!(ServerUrl::parse(&url.with_password().unwrap()), Ok(url));

        let url = ServerUrl::parse("postgresql://db.example").unwrap();
        assert_eq!((url.port, url.user, url.database, url.sslmode), (5432, None, None, SslMode::Prefer));
        assert_eq!(ServerUrl::parse("postgres://[::1]:1/x").unwrap().address(), "[::1]:1");

        for text in [
            "postgres://app@/x?host=/run/pg&port=6000",
            "postgres://app@localhost/x?host=/run/pg&port=6000",
            "postgres://app@%2Frun%2Fpg:6000/x",
        ] {
            let url = ServerUrl::parse(text).unwrap();
            assert_eq!(url.address(), "/run/pg/.s.PGSQL.6000", "{text}");
            assert_eq!(ServerUrl::parse(&url.with_password().unwrap()), Ok(url), "{text}");
        }
        assert_eq!(ServerUrl::parse("postgres:///x?host=/run/pg").unwrap().user, None);
    }

    #[test]
    fn says_what_is_wrong_without_the_password() {
        for (text, said) in [
            ("mysql://u:s3cret@h/x", "begins with `mysql://`"),
            ("10.0.0.1:5432", "no URL"),
            ("postgres://u:s3cret@/x", "no host"),
            ("postgres://u:s3cret@h1,h2/x", "one host"),
            ("postgres://u:s3cret@h/x?sslmode=maybe", "`maybe`"),
            ("postgres://u:s3cret@h/x?sslmode=allow", "write `prefer`"),
            ("postgres://u:s3cret@h/x?sslcert=/c.pem", "without sslkey"),
            ("postgres://u:s3cret@h/x?sslnegotiation=direct", "needs sslmode=require"),
            ("postgres://u:s3cret@h/x?channel_binding=require&sslmode=prefer", "needs sslmode=require"),
            ("postgres://u:s3cret@h/x?target=1", "parameter `target`"),
            ("postgres://u:s3cr%zzet@h/x", "two hexadecimal"),
            ("postgres://u:s3cret@h:99999/x", "no URL"),
        ] {
            let error = ServerUrl::parse(text).unwrap_err();
            assert!(error.contains(said) && !error.contains("s3cr"), "{text}: {error}");
        }
    }
}
