//! One socket, with or without TLS, read and written by polling.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A socket, with or without TLS.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// A unix socket, which needs no TLS.
    Unix(UnixStream),
    /// TLS over TCP, either side of it.
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
}

/// How much is read at a time by [`Stream::poll_read_onto`], in bytes.
const CHUNK: usize = 32 * 1024;

thread_local! {
    /// What is being read, between the socket and its owner.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

impl Stream {
    /// Reads into `buffer`; 0 bytes is the peer's end. A short read clears the readiness without
    /// another system call, so a caller polls again and gets `Pending` for free.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let done = match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut buffer),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, &mut buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, &mut buffer),
        };
        done.map_ok(|()| buffer.filled().len())
    }

    /// Reads what is there, up to [`CHUNK`] bytes, behind what `out` has: it grows by what came, not by what could have come.
    pub fn poll_read_onto(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let read = self.poll_read(cx, scratch);
            if let Poll::Ready(Ok(count)) = &read {
                out.extend_from_slice(scratch.get(..*count).unwrap_or_default());
            }
            read
        })
    }

    /// Writes some of `bytes`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    /// Sends what TLS still holds; nothing to do without it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// The addresses of both ends; a unix socket has none.
    pub fn ends(&self) -> Ends {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Unix(_) => return Ends::default(),
            Self::Tls(tls) => tls.get_ref().0,
        };
        Ends { peer: tcp.peer_addr().ok(), local: tcp.local_addr().ok() }
    }

    /// Who is at the other end, as the system says; `None` when it is gone already.
    pub fn peer(&self) -> Option<Peer> {
        match self {
            Self::Unix(unix) => unix.peer_cred().ok().map(|credentials| Peer::Unix { uid: credentials.uid() }),
            _ => self.ends().peer.map(Peer::Tcp),
        }
    }

    /// Whether the other end is on this machine by the kind of its socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Has the system say that there is something to read only from `bytes` on; when what is there is enough already,
    /// it says so at once. False where that does not work, as under TLS, whose records are no measure of anything.
    pub fn wake_for(&self, bytes: i32) -> bool {
        let Self::Plain(tcp) = self else { return false };
        let size = libc::socklen_t::try_from(size_of_val(&bytes)).unwrap_or_default();
        // SAFETY: the descriptor is open as long as `tcp` is borrowed; the pointer is to an integer of the size given.
        let done = unsafe {
            libc::setsockopt(tcp.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), size)
        };
        done == 0
    }

    /// Whether the bytes are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Moves the socket to the event loop of the calling thread.
    ///
    /// # Errors
    /// The system refuses a descriptor, or to watch it there.
    pub fn rehome(self) -> io::Result<Self> {
        match self {
            Self::Plain(tcp) => Ok(Self::Plain(TcpStream::from_std(tcp.into_std()?)?)),
            Self::Unix(unix) => Ok(Self::Unix(UnixStream::from_std(unix.into_std()?)?)),
            Self::Tls(mut tls) => {
                // The socket under TLS cannot be taken out; a second descriptor of it takes its place.
                let tcp = match &mut *tls {
                    tokio_rustls::TlsStream::Client(tls) => tls.get_mut().0,
                    tokio_rustls::TlsStream::Server(tls) => tls.get_mut().0,
                };
                let again = tcp.as_fd().try_clone_to_owned()?;
                *tcp = TcpStream::from_std(again.into())?;
                Ok(Self::Tls(tls))
            }
        }
    }
}

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(SocketAddr),
    /// A process of this user, on this machine.
    Unix {
        /// The user, as the system says.
        uid: u32,
    },
}

/// The addresses of a socket; none where it has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// This end.
    pub local: Option<SocketAddr>,
}

/// Sets what every socket of ours has: no Nagle delay, and keepalive so that a peer that vanished is noticed.
pub fn tune(tcp: &TcpStream) {
    // A socket that refuses an option still works; it is only slower or later to notice.
    let _ = tcp.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(std::time::Duration::from_secs(60))
        .with_interval(std::time::Duration::from_secs(10));
    let _ = socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}
