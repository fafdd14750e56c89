//! Where the proxy listens: TCP addresses and unix sockets.

use std::fmt;
use std::path::{Path, PathBuf};

use super::define::{FromNode, Reader, bad_value, scalar};
use super::settings::Address;
use super::tree::Node;

/// The port in the name of a unix socket when nothing says another.
const DEFAULT_PORT: u16 = 6432;

/// One place to listen at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `host:port`.
    Tcp(Address),
    /// `unix:/directory` or `unix:/directory:port`.
    Unix {
        /// Where the socket's file is made.
        directory: PathBuf,
        /// The number in its name.
        port: Option<u16>,
    },
}

impl Listen {
    /// Reads `host:port`, `[ipv6]:port`, `unix:/directory` or `unix:/directory:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(path) = text.strip_prefix("unix:") else { return Address::parse(text).map(Self::Tcp) };
        let (directory, port) = match path.rsplit_once(':') {
            Some((directory, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
                (directory, Some(port.parse().ok().filter(|port| *port > 0)?))
            }
            Some(_) => return None,
            None => (path, None),
        };
        (directory.starts_with('/')).then(|| Self::Unix { directory: directory.into(), port })
    }

    /// The path of a unix socket: named after `port` of its own or after the first TCP address of `all`.
    pub fn socket_path(&self, all: &[Self]) -> Option<PathBuf> {
        let Self::Unix { directory, port } = self else { return None };
        let first = all.iter().find_map(|listen| match listen {
            Self::Tcp(address) => Some(address.port),
            Self::Unix { .. } => None,
        });
        let port = port.or(first).filter(|port| *port > 0).unwrap_or(DEFAULT_PORT);
        Some(Path::new(directory).join(format!(".s.PGSQL.{port}")))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { directory, port: Some(port) } => write!(f, "unix:{}:{port}", directory.display()),
            Self::Unix { directory, port: None } => write!(f, "unix:{}", directory.display()),
        }
    }
}

impl FromNode for Listen {
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        out.push((path.to_owned(), self.to_string()));
    }
    fn what() -> String {
        "`host:port` or `unix:/directory`".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        let forms = "`host:port` or `unix:/directory`, as in `127.0.0.1:6432`";
        Self::parse(text).or_else(|| bad_value(node, text, forms, reader))
    }
}

/// Permissions of a unix socket, in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(
    /// As `chmod` takes it.
    pub u32,
);

impl FromNode for SocketMode {
    fn list(&self, path: &str, out: &mut Vec<(String, String)>) {
        out.push((path.to_owned(), format!("{:04o}", self.0)));
    }
    fn what() -> String {
        "permissions in octal (`0777`, `0770`)".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        let octal = text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o777);
        mode.map(Self).or_else(|| bad_value(node, text, "three octal digits, as in `0770`", reader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen_at() {
        for text in ["127.0.0.1:6432", "[::1]:5", "unix:/run/pgweir", "unix:/run/pgweir:5433"] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), text);
        }
        for bad in ["unix:", "unix:run", "unix:/run:x", "unix:/run:0", "unix:/run:70000", "/run/pgweir"] {
            assert_eq!(Listen::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_socket_is_named_after_the_first_port() {
        let all: Vec<_> = ["unix:/a", "10.0.0.1:7000", "unix:/b:1"].iter().flat_map(|at| Listen::parse(at)).collect();
        let path = |at: usize| all[at].socket_path(&all).unwrap();
        assert_eq!(path(0), Path::new("/a/.s.PGSQL.7000"));
        assert_eq!(path(2), Path::new("/b/.s.PGSQL.1"));
        assert_eq!(all[0].socket_path(&all[..1]).unwrap(), Path::new("/a/.s.PGSQL.6432"));
        assert_eq!(all[1].socket_path(&all), None);
    }
}
