//! A peer during startup: whole bounded frames in, small messages out.
//!
//! Only startup and authentication use this; the data path polls the stream itself.

use std::borrow::BorrowMut;
use std::future::poll_fn;
use std::io;

use crate::net::stream::Stream;
use crate::wire::frame;

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
        let mut chunk = [0u8; 1024];
        let count = poll_fn(|cx| self.stream.borrow_mut().poll_read(cx, &mut chunk)).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pending.extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(())
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
