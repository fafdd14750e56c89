//! A peer during startup: whole bounded frames in, small messages out.
//!
//! Only startup and authentication use this; the data path polls the stream itself.

use std::borrow::BorrowMut;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use crate::net::stream::Stream;
use crate::wire::frame;

/// Bytes read at once.
const CHUNK: usize = 8 * 1024;

/// A stream with what was read from it and not yet understood.
#[derive(Debug)]
pub struct Dialogue<S = Stream> {
    /// The socket.
    pub stream: S,
    /// Read, but not consumed.
    pub pending: Vec<u8>,
}

impl Dialogue {
    /// Starts on a fresh socket.
    pub fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }
}

impl<'a> Dialogue<&'a mut Stream> {
    /// Borrows a socket on which nothing is under way.
    pub fn over(stream: &'a mut Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }
}

impl<S: BorrowMut<Stream>> Dialogue<S> {
    /// Reads what has arrived, waiting for at least one byte.
    pub async fn fill(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_fill(cx)).await?;
        Ok(())
    }

    /// Reads what has arrived; gives how much. The memory for it is taken only when there is something.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let held = self.pending.len();
        self.pending.resize(held + CHUNK, 0);
        let room = self.pending.get_mut(held..).unwrap_or_default();
        let polled = self.stream.borrow_mut().poll_read(cx, room);
        let count = if let Poll::Ready(Ok(count)) = polled { count } else { 0 };
        self.pending.truncate(held + count);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        match polled {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            other => other,
        }
    }

    /// The next frame: its tag and body.
    pub async fn frame(&mut self, limit: usize) -> io::Result<(u8, Vec<u8>)> {
        loop {
            match frame::whole(&self.pending, limit) {
                Ok(Some((header, body))) => {
                    let taken = (header.tag, body.to_vec());
                    self.pending.drain(..header.total());
                    return Ok(taken);
                }
                Ok(None) => self.fill().await?,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
            }
        }
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|cx| self.stream.borrow_mut().poll_write(cx, bytes)).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(count..).unwrap_or_default();
        }
        poll_fn(|cx| self.stream.borrow_mut().poll_flush(cx)).await
    }
}
