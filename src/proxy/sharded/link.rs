//! One shard's connection as a sharded session uses it: whole steps, one after the other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::pool::Pool;
use crate::pool::server::ServerConn;
use crate::pool::statements::{Missing, Statement};
use crate::wire::frame::{self, HEADER_LEN, MAX_BODY};
use crate::wire::message;

/// Bytes read at once.
const CHUNK: usize = 32 * 1024;

/// An answer that a shard owes to a message of the extended protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owed {
    /// ParseComplete; the client sees it unless `hidden`.
    Parse {
        /// The client did not ask for it here.
        hidden: bool,
        /// The statement's key, forgotten when it fails.
        key: Option<u128>,
    },
    /// CloseComplete of an evicted statement.
    HiddenClose(Arc<Statement>),
    /// BindComplete.
    Bind,
    /// RowDescription or NoData, perhaps after ParameterDescription.
    Describe,
    /// Rows up to the command's end.
    Execute,
    /// CloseComplete of a portal.
    Close,
}

/// A connection to one shard, held for a statement or a transaction.
#[derive(Debug)]
pub struct Link {
    /// The connection.
    pub conn: Box<ServerConn>,
    /// Where it goes back to.
    pub pool: Arc<Pool>,
    /// Messages to be sent.
    pub out: Vec<u8>,
    /// Answers to be read.
    pub owed: VecDeque<Owed>,
    /// Extended messages were sent and no Sync after them.
    pub unsynced: bool,
    /// It has said an error since the last Sync.
    pub errored: bool,
    /// Transaction status of its last ReadyForQuery.
    pub status: u8,
    pending: Vec<u8>,
    at: usize,
}

impl Link {
    /// A link over a fresh checkout.
    pub fn new(conn: Box<ServerConn>, pool: Arc<Pool>) -> Self {
        Self {
            conn,
            pool,
            out: Vec::new(),
            owed: VecDeque::new(),
            unsynced: false,
            errored: false,
            status: b'I',
            pending: Vec::new(),
            at: 0,
        }
    }

    /// Sends what is to be sent.
    pub async fn send(&mut self) -> io::Result<()> {
        let mut at = 0;
        while let Some(rest) = self.out.get(at..).filter(|rest| !rest.is_empty()) {
            match poll_fn(|cx| self.conn.stream.poll_write(cx, rest)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => at += count,
            }
        }
        self.out.clear();
        poll_fn(|cx| self.conn.stream.poll_flush(cx)).await
    }

    /// Waits for the next frame; gives its tag and its place, header included, for [`Self::bytes`].
    pub async fn next(&mut self) -> io::Result<(u8, Range<usize>)> {
        loop {
            let rest = self.pending.get(self.at..).unwrap_or_default();
            let header = frame::header(rest, MAX_BODY)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if let Some(header) = header.filter(|header| rest.len() >= header.total()) {
                let place = self.at..self.at + header.total();
                self.at = place.end;
                return Ok((header.tag, place));
            }
            self.pending.drain(..self.at);
            self.at = 0;
            let held = self.pending.len();
            self.pending.resize(held + CHUNK, 0);
            let room = self.pending.get_mut(held..).unwrap_or_default();
            let count = poll_fn(|cx| self.conn.stream.poll_read(cx, room)).await;
            self.pending.truncate(held + count.as_ref().copied().unwrap_or(0));
            if count? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A frame's bytes, valid until the next one is asked for.
    pub fn bytes(&self, place: &Range<usize>) -> &[u8] {
        self.pending.get(place.clone()).unwrap_or_default()
    }

    /// A frame's body.
    pub fn body(&self, place: &Range<usize>) -> &[u8] {
        self.pending.get(place.start + HEADER_LEN..place.end).unwrap_or_default()
    }

    /// Puts Parse of a named statement in front of its use, when it is not prepared here.
    pub fn ensure(&mut self, statement: &Arc<Statement>, asked: bool) {
        match self.conn.state.prepared.require(statement) {
            Missing::Nothing => {
                // The client waits for a ParseComplete and shall have one of this server: Parse is cheap under the unnamed name.
                if asked {
                    self.parse_unnamed(statement, true);
                }
            }
            Missing::Parse(evicted) => {
                if let Some(evicted) = evicted {
                    message::named(&mut self.out, b'C', b'S', &evicted.name);
                    self.owed.push_back(Owed::HiddenClose(evicted));
                }
                message::parse(&mut self.out, &statement.name, &statement.rest);
                self.owed.push_back(Owed::Parse { hidden: !asked, key: Some(statement.key) });
                self.unsynced = true;
            }
        }
    }

    /// Parse under the unnamed name.
    pub fn parse_unnamed(&mut self, statement: &Arc<Statement>, asked: bool) {
        message::parse(&mut self.out, b"", &statement.rest);
        self.owed.push_back(Owed::Parse { hidden: !asked, key: None });
        self.conn.state.unnamed = (0, 0);
        self.unsynced = true;
    }

    /// Forgets what was owed after an error: the server skips it.
    pub fn skip_owed(&mut self) {
        for owed in std::mem::take(&mut self.owed) {
            match owed {
                Owed::Parse { key: Some(key), .. } => self.conn.state.prepared.forget(key),
                Owed::HiddenClose(evicted) => self.conn.state.prepared.restore(evicted),
                _ => {}
            }
        }
    }

    /// True when another client may have the connection.
    pub fn is_clean(&self) -> bool {
        let quiet = self.owed.is_empty() && self.out.is_empty() && !self.unsynced && !self.errored;
        quiet && self.status == b'I' && self.at == self.pending.len()
    }
}
