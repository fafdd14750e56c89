//! A shard's server connection while a client of a sharded database holds it.
//!
//! What is queued is written while answers are read, so that neither side can wait for the other forever.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::pool::Pool;
use crate::pool::reset::{Hygiene, report};
use crate::pool::server::ServerConn;
use crate::pool::settings::Settings;
use crate::proxy::sharded::numbers::Numbers;
use crate::wire::body::Reader;
use crate::wire::frame::{self, HEADER_LEN, MAX_BODY};
use crate::wire::message;

/// A checked-out server connection with what is under way on it.
#[derive(Debug)]
pub(super) struct Link {
    pool: Arc<Pool>,
    /// The connection and what is known of its session.
    pub conn: Box<ServerConn>,
    /// What the session needs before another client may have it.
    pub hygiene: Hygiene,
    /// Whether the transaction may have sent a notification, which cannot be prepared.
    pub notifies: bool,
    /// What its numbers of types and tables are to the client, where they are others.
    pub numbers: Option<Arc<Numbers>>,
    /// How much of `out` has the server's numbers.
    numbered: usize,
    out: Vec<u8>,
    written: usize,
    inbox: Vec<u8>,
    /// Where the next frame begins in the inbox.
    next: usize,
    /// ReadyForQuery messages that are owed.
    owed: u32,
    /// Transaction status of the last ReadyForQuery.
    status: u8,
}

/// One frame of a server, header included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// The message type.
    pub tag: u8,
    /// All of it.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Its body.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

impl Link {
    /// Holds a connection of `pool`.
    pub fn new(pool: Arc<Pool>, conn: Box<ServerConn>) -> Self {
        Self {
            pool,
            conn,
            hygiene: Hygiene::Clean,
            notifies: false,
            numbers: None,
            numbered: 0,
            out: Vec::new(),
            written: 0,
            inbox: Vec::new(),
            next: 0,
            owed: 0,
            status: b'I',
        }
    }

    /// Queues a simple Query.
    pub fn query(&mut self, sql: &[u8]) {
        message::query(&mut self.out, sql);
        self.owed += 1;
    }

    /// Queues Sync.
    pub fn sync(&mut self) {
        message::sync(&mut self.out);
        self.owed += 1;
    }

    /// Where other messages are queued.
    pub fn queue(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// True when a whole frame has been read already.
    pub fn has_frame(&self) -> bool {
        matches!(frame::whole(self.inbox.get(self.next..).unwrap_or_default(), MAX_BODY), Ok(Some(_)))
    }

    /// The next frame; what is queued goes out meanwhile.
    ///
    /// # Errors
    /// The connection was lost, or the server broke the protocol.
    pub async fn frame(&mut self) -> io::Result<Frame<'_>> {
        poll_fn(|cx| self.poll_arrival(cx)).await?;
        self.take_frame()
    }

    /// Ready when a whole frame is in the inbox.
    pub fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(cx)?;
        loop {
            match frame::whole(self.inbox.get(self.next..).unwrap_or_default(), MAX_BODY) {
                Ok(Some(_)) => return Poll::Ready(Ok(())),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))),
            }
            if self.next > 0 {
                self.inbox.drain(..self.next);
                self.next = 0;
            }
            match self.conn.stream.poll_read_onto(cx, &mut self.inbox) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(numbers) = self.numbers.as_ref().filter(|_| self.numbered < self.out.len()) {
            numbers.to_server(self.out.get_mut(self.numbered..).unwrap_or_default());
            self.numbered = self.out.len();
        }
        while self.written < self.out.len() {
            match self.conn.stream.poll_write(cx, self.out.get(self.written..).unwrap_or_default()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        self.out.clear();
        (self.written, self.numbered) = (0, 0);
        match self.conn.stream.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the frame that [`Link::poll_arrival`] found, and notes what it says of the session.
    ///
    /// # Errors
    /// There is none, or the server said it was ready more often than it was asked to.
    pub fn take_frame(&mut self) -> io::Result<Frame<'_>> {
        let rest = self.inbox.get(self.next..).unwrap_or_default();
        let Ok(Some((header, body))) = frame::whole(rest, MAX_BODY) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no frame has arrived"));
        };
        match header.tag {
            b'Z' => {
                self.owed = self.owed.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
                self.status = body.first().copied().unwrap_or(b'E');
            }
            b'S' => note_parameter(&mut self.conn, &self.pool, body),
            _ => {}
        }
        let start = self.next;
        self.next += header.total();
        if matches!(header.tag, b'T' | b't')
            && let Some((numbers, frame)) = self.numbers.as_ref().zip(self.inbox.get_mut(start..self.next))
        {
            numbers.to_client(frame).map_err(|_| io::ErrorKind::InvalidData)?;
        }
        Ok(Frame { tag: header.tag, bytes: self.inbox.get(start..self.next).unwrap_or_default() })
    }

    /// Sends what is queued without waiting for an answer.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| match self.poll_write(cx) {
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) if self.out.is_empty() => Poll::Ready(Ok(())),
            Ok(()) => Poll::Pending,
        })
        .await
    }

    /// Hears the answer to one statement; whether it succeeded with this tag.
    pub async fn is_answered(&mut self, tag: &[u8]) -> bool {
        let mut is_done = false;
        loop {
            let Ok(frame) = self.frame().await else { return false };
            match frame.tag {
                b'Z' => return is_done,
                b'C' => is_done = frame.body().strip_suffix(b"\0") == Some(tag),
                _ => {}
            }
        }
    }

    /// The one copy of these settings.
    pub fn interned(&self, settings: Settings) -> Arc<Settings> {
        self.pool.interned.settings.intern(settings)
    }

    /// Gives the connection back: to the pool when its state is known to be clean, else it is closed.
    pub fn release(mut self) {
        let clean = self.owed == 0 && self.status == b'I' && self.out.is_empty() && self.next == self.inbox.len();
        if clean && self.conn.is_quiet() {
            self.pool.release_after(self.conn, self.hygiene);
        } else {
            self.pool.discard(self.conn);
        }
    }

    /// Closes the connection; the server rolls back what is open.
    pub fn discard(self) {
        self.pool.discard(self.conn);
    }
}

fn note_parameter(conn: &mut ServerConn, pool: &Pool, body: &[u8]) {
    let mut reader = Reader::new(body);
    let mut text = || reader.cstr().map(|text| String::from_utf8_lossy(text).into_owned());
    if let (Ok(name), Ok(value)) = (text(), text()) {
        let mut reported = (*conn.state.reported).clone();
        report(&mut reported, name, value);
        conn.state.reported = pool.interned.reported.intern(reported);
    }
}
