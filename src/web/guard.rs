//! A listener whose connections cannot be held: each has a time to live, bytes it may send, and a place to give back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// How long a connection may last, request and answer together.
const LIFE: Duration = Duration::from_secs(10);
/// Bytes that one may send.
const MAX_REQUEST: usize = 16 * 1024;
/// Connections at once; others wait to be accepted.
const MAX_OPEN: usize = 64;

/// Accepts connections that end by themselves.
pub struct Guarded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Guarded {
    /// Guards a listener.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(MAX_OPEN)) }
    }
}

impl Listener for Guarded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed; without a place nothing is lost but the limit.
        let place = self.places.clone().acquire_owned().await.ok();
        let (tcp, addr) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(tokio::time::sleep(LIFE));
        (Connection { tcp, end, left: MAX_REQUEST, _place: place }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection.
pub struct Connection {
    tcp: TcpStream,
    end: Pin<Box<Sleep>>,
    left: usize,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// An error once its time is over.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the request is too long")));
        }
        // Requests are small and rare: a copy is cheaper than care for memory that is not initialized.
        let mut chunk = [0u8; 1024];
        let limit = self.left.min(buffer.remaining()).min(chunk.len());
        let mut part = ReadBuf::new(chunk.get_mut(..limit).unwrap_or_default());
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut part);
        buffer.put_slice(part.filled());
        let count = part.filled().len();
        self.left -= count;
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
