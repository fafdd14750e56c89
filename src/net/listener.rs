//! Sockets that clients come to: TCP and unix.
//!
//! A unix socket's file that nobody listens at any more is replaced; one where somebody answers is left alone. Our own
//! file is removed when the listener goes, unless another process took it over or put its own in its place.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::net::stream::{Stream, tune};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that another process's file is never removed.
    identity: (u64, u64),
    kept: bool,
}

/// A client's socket that no event loop watches yet.
#[derive(Debug)]
pub enum Caller {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Caller {
    /// Lets the event loop of the calling thread watch the socket.
    ///
    /// # Errors
    /// The system refuses.
    pub fn watch(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(tcp) => {
                let tcp = tokio::net::TcpStream::from_std(tcp)?;
                tune(&tcp);
                Stream::Plain(tcp)
            }
            Self::Unix(unix) => Stream::Unix(tokio::net::UnixStream::from_std(unix)?),
        })
    }
}

impl Listener {
    /// Listens at a TCP address.
    ///
    /// # Errors
    /// The system refuses.
    pub fn tcp(host: &str, port: u16) -> io::Result<Self> {
        let resolved = (host, port).to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = socket2::Socket::new(socket2::Domain::for_address(resolved), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&resolved.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self::Tcp(socket.into()))
    }

    /// Listens at a unix socket with these permissions.
    ///
    /// # Errors
    /// The system refuses, somebody listens there, or the path is something else.
    pub fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        Self::unix_of(socket2::Type::STREAM, path, mode)
    }

    /// Listens for other processes of the same user, see [`Channel`](crate::net::channel::Channel).
    ///
    /// # Errors
    /// As [`Listener::unix`].
    pub fn control(path: &Path) -> io::Result<Self> {
        Self::unix_of(socket2::Type::SEQPACKET, path, 0o600)
    }

    fn unix_of(kind: socket2::Type, path: &Path, mode: u32) -> io::Result<Self> {
        clear(path, kind)?;
        let socket = socket2::Socket::new(socket2::Domain::UNIX, kind, None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let file = SocketFile::at(path)?;
        // Nobody can connect before `listen`, so that nobody comes in by the permissions it was made with.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self::Unix(socket.into(), file))
    }

    /// A socket that another process has made to listen. Its file stays that process's until [`Listener::own_file`].
    ///
    /// # Errors
    /// It is no such socket.
    pub fn inherited(descriptor: OwnedFd, path: Option<&Path>) -> io::Result<Self> {
        let socket = socket2::Socket::from(descriptor);
        socket.set_nonblocking(true)?;
        Ok(match path {
            None => Self::Tcp(socket.into()),
            Some(path) => {
                let mut file = SocketFile::at(path)?;
                file.kept = true;
                Self::Unix(socket.into(), file)
            }
        })
    }

    /// Where it listens, for people.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(|address| address.to_string()).unwrap_or_default(),
            Self::Unix(_, file) => file.path.display().to_string(),
        }
    }

    /// Its address, where it is TCP.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Leaves the socket's file where it is: another process listens there now.
    pub fn keep_file(&mut self) {
        if let Self::Unix(_, file) = self {
            file.kept = true;
        }
    }

    /// Gives the socket's file these permissions.
    ///
    /// # Errors
    /// They cannot be changed.
    pub fn permit(&self, mode: u32) -> io::Result<()> {
        let Self::Unix(_, file) = self else { return Ok(()) };
        std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(mode))
    }

    /// Takes the socket's file for this process's own: it is removed with the listener.
    pub fn own_file(&mut self) {
        if let Self::Unix(_, file) = self {
            file.kept = false;
        }
    }

    /// Something that accepts, on the event loop of the calling thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn acceptor(&self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(tcp) => Acceptor::Tcp(tokio::net::TcpListener::from_std(tcp.try_clone()?)?),
            Self::Unix(unix, _) => Acceptor::Unix(tokio::net::UnixListener::from_std(unix.try_clone()?)?),
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix, _) => unix.as_fd(),
        }
    }
}

/// Accepts clients.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(tokio::net::TcpListener),
    /// A unix socket.
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    /// The next client.
    ///
    /// # Errors
    /// The system has no descriptor left, most likely.
    pub async fn accept(&self) -> io::Result<Caller> {
        Ok(match self {
            Self::Tcp(tcp) => Caller::Tcp(tcp.accept().await?.0.into_std()?),
            Self::Unix(unix) => Caller::Unix(unix.accept().await?.0.into_std()?),
        })
    }
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), identity: (found.dev(), found.ino()), kept: false })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if same && !self.kept {
            // What cannot be removed is replaced by whoever listens there next.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a socket at which nobody listens.
fn clear(path: &Path, kind: socket2::Type) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, kind, None)?;
    match socket.connect(&socket2::SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(()) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".s.PGSQL.1");
        // A listener that was killed leaves its file behind.
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::unix(&path, 0o700).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = Listener::unix(&path, 0o700).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok(), "the live one listens on");
        drop(listener);
        assert!(!path.exists(), "and takes its file along");
    }

    #[test]
    fn only_its_own_socket_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::unix(&path, 0o700).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        let listener = Listener::unix(&path, 0o700).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
