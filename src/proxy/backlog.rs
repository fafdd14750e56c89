//! What a socket did not take at once.

use std::io;
use std::task::{Context, Poll};

use crate::net::stream::Stream;

/// Bytes that a socket did not take at once.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    at: usize,
    flushing: bool,
}

impl Backlog {
    /// Everything was taken.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.flushing
    }

    /// Writes `bytes` behind what is held; keeps what the socket does not take.
    pub fn write(&mut self, stream: &mut Stream, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.bytes.is_empty() {
            while !rest.is_empty() {
                match stream.poll_write(cx, rest)? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(count) => rest = rest.get(count..).unwrap_or_default(),
                    Poll::Pending => break,
                }
            }
            self.flushing = stream.is_tls();
        }
        self.bytes.extend_from_slice(rest);
        if self.flushing && self.bytes.is_empty() {
            self.flushing = stream.poll_flush(cx)?.is_pending();
        }
        Ok(())
    }

    /// Writes what is held; true when it is all gone and something was.
    pub fn flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        while let Some(rest) = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            match stream.poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => self.at += count,
                Poll::Pending => return Ok(false),
            }
        }
        *self = Self { flushing: stream.is_tls(), ..Self::default() };
        if self.flushing {
            self.flushing = stream.poll_flush(cx)?.is_pending();
        }
        Ok(!self.flushing)
    }
}
