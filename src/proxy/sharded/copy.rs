//! COPY over all shards: rows in, each to its shard, and rows out, one shard's after another's.

use std::future::poll_fn;
use std::task::Poll;

use crate::exec::copy::{CopySplit, Key, Piece};
use crate::exec::transaction::Status;
use crate::proxy::care::Care;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::Written;
use crate::route::copy::{Copy, KeyField};
use crate::sql::facts::CopyFormat;
use crate::wire::frame;
use crate::wire::message::{self, Failure};

/// Rows are sent to a shard when so many bytes of them are waiting.
const SEND_AT: usize = 64 << 10;
/// What binary data begins with: signature, flags, length of an extension that is never there.
const BINARY_HEAD: usize = 19;
/// What binary data ends with.
const BINARY_END: &[u8] = &[0xff, 0xff];

/// How the client ended its data.
enum Ended {
    /// CopyDone.
    Done,
    /// CopyFail, with its body.
    Failed(Vec<u8>),
    /// A shard has something to say before the end: it failed.
    ByShard,
}

/// Rows on their way to the shards.
struct Outgoing {
    split: CopySplit,
    key: Option<KeyField>,
    waiting: Vec<Vec<u8>>,
}

impl ShardedSession {
    /// Runs a COPY on all shards.
    pub(super) async fn copy(&mut self, sql: &str, copy: &Copy, care: Care) -> Result<(), Trouble> {
        let shards = self.every_shard();
        if copy.into && self.transaction.status() == Status::Idle {
            self.begin_implicit();
        }
        self.attach(&shards, copy.into).await?;
        for &shard in &shards {
            self.mark(shard, care);
            self.link(shard)?.query(sql.as_bytes());
        }
        if copy.into { self.copy_into(&shards, copy).await } else { self.copy_out(&shards, copy).await }
    }

    async fn copy_into(&mut self, shards: &[usize], copy: &Copy) -> Result<(), Trouble> {
        let mut refused = None;
        let mut ready = Vec::new();
        for &shard in shards {
            match self.copy_begins(shard).await? {
                Ok(response) => {
                    ready.push(shard);
                    if shard == shards.first().copied().unwrap_or_default() {
                        self.to_client.extend_from_slice(&response);
                    }
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if let Some(error) = refused {
            self.to_client.clear();
            self.copy_fails(&ready, b"another shard has refused it\0").await?;
            return Err(Trouble::Server(error));
        }
        self.send().await?;
        let fields = copy.key.as_ref().map_or((0, usize::MAX), |key| (key.index, key.fields));
        let mut outgoing = Outgoing {
            split: CopySplit::new(copy.form.clone(), fields.0, fields.1),
            key: copy.key.clone(),
            waiting: vec![Vec::new(); shards.len()],
        };
        match self.take_rows(shards, &mut outgoing).await {
            Ok(Ended::Done) => {
                for &shard in shards {
                    let link = self.link(shard)?;
                    if copy.form.format == CopyFormat::Binary && copy.key.is_some() {
                        message::frame(link.queue(), b'd', |out| out.extend_from_slice(BINARY_END));
                    }
                    message::empty(link.queue(), b'c');
                }
                let counts = self.copy_ends(shards).await?;
                self.copied(copy, &counts)
            }
            Ok(Ended::Failed(reason)) => self.copy_fails(shards, &reason).await.and_then(first_error),
            Ok(Ended::ByShard) => self.copy_fails(shards, b"another shard has failed\0").await.and_then(first_error),
            Err(Trouble::Reply(failure)) => {
                self.copy_fails(shards, b"a row cannot be placed\0").await?;
                Err(Trouble::Reply(failure))
            }
            Err(other) => Err(other),
        }
    }

    /// Whether a shard takes data: its CopyInResponse, or its error.
    async fn copy_begins(&mut self, shard: usize) -> Result<Result<Vec<u8>, Vec<u8>>, Trouble> {
        let mut error = None;
        loop {
            let Ok(frame) = self.link(shard)?.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'G' => return Ok(Ok(frame.bytes.to_vec())),
                b'E' => error = error.or_else(|| Some(frame.bytes.to_vec())),
                b'Z' => {
                    let odd = || Trouble::Reply(Failure::error("08P01", "a shard did not begin the COPY"));
                    return error.map(Err).ok_or_else(odd);
                }
                _ => {}
            }
        }
    }

    /// Passes the client's rows on until it ends them, or a shard has failed.
    async fn take_rows(&mut self, shards: &[usize], outgoing: &mut Outgoing) -> Result<Ended, Trouble> {
        loop {
            while let Ok(Some((header, body))) = frame::whole(&self.client.pending, self.max_message) {
                match header.tag {
                    b'd' => outgoing.take(body)?,
                    b'c' => {
                        self.client.pending.drain(..header.total());
                        outgoing.finish()?;
                        self.send_rows(shards, outgoing, 1).await?;
                        return Ok(Ended::Done);
                    }
                    b'f' => {
                        let reason = body.to_vec();
                        self.client.pending.drain(..header.total());
                        return Ok(Ended::Failed(reason));
                    }
                    // Flush and Sync are ignored during COPY, as PostgreSQL does.
                    b'H' | b'S' => {}
                    b'X' => return Err(Trouble::Gone),
                    other => {
                        let what = format!("unexpected message type 0x{other:02X} during COPY from stdin");
                        return Err(Trouble::Fatal(Failure::fatal("08P01", what)));
                    }
                }
                self.client.pending.drain(..header.total());
                self.send_rows(shards, outgoing, SEND_AT).await?;
            }
            if let Err(error) = frame::whole(&self.client.pending, self.max_message) {
                return Err(Trouble::Fatal(Failure::fatal("08P01", error.to_string())));
            }
            if self.rows_or_error(shards).await? {
                return Ok(Ended::ByShard);
            }
        }
    }

    /// Sends to each shard what waits for it, where it is as much as this.
    async fn send_rows(&mut self, shards: &[usize], outgoing: &mut Outgoing, least: usize) -> Result<(), Trouble> {
        for (&shard, waiting) in shards.iter().zip(&mut outgoing.waiting) {
            if waiting.len() < least {
                continue;
            }
            let link = self.link(shard)?;
            message::frame(link.queue(), b'd', |out| out.append(waiting));
            if link.flush().await.is_err() {
                return Err(self.lose(shard));
            }
        }
        Ok(())
    }

    /// Waits for more from the client; true when a shard says something first.
    async fn rows_or_error(&mut self, shards: &[usize]) -> Result<bool, Trouble> {
        let (links, client) = (&mut self.links, &mut self.client);
        let mut lost = None;
        let arrived = poll_fn(|cx| {
            for &shard in shards {
                let Some(link) = links.get_mut(shard).and_then(Option::as_mut) else { continue };
                match link.poll_arrival(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(true)),
                    Poll::Ready(Err(_)) => {
                        lost = Some(shard);
                        return Poll::Ready(Ok(true));
                    }
                    Poll::Pending => {}
                }
            }
            match client.stream.poll_read_onto(cx, &mut client.pending) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => Poll::Ready(Err(Trouble::Gone)),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(false)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match lost {
            Some(shard) => Err(self.lose(shard)),
            None => arrived,
        }
    }

    /// Ends the COPY on these shards without storing anything; the first error that is not of the proxy's making.
    async fn copy_fails(&mut self, shards: &[usize], reason: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        for &shard in shards {
            message::frame(self.link(shard)?.queue(), b'f', |out| out.extend_from_slice(reason));
        }
        let mut first: Option<Vec<u8>> = None;
        for &shard in shards {
            if let Err(error) = self.copy_end(shard).await? {
                let own = crate::wire::body::error_fields(error.get(5..).unwrap_or_default()).code == b"57014";
                if !own || first.is_none() {
                    first = first.filter(|_| own).or(Some(error));
                }
            }
        }
        Ok(first)
    }

    async fn copy_ends(&mut self, shards: &[usize]) -> Result<Vec<u64>, Trouble> {
        let (mut counts, mut error) = (Vec::new(), None);
        for &shard in shards {
            match self.copy_end(shard).await? {
                Ok(count) => counts.push(count),
                Err(found) => error = error.or(Some(found)),
            }
        }
        error.map_or(Ok(counts), |error| Err(Trouble::Server(error)))
    }

    /// The end of a shard's COPY: the number of rows, or its error.
    async fn copy_end(&mut self, shard: usize) -> Result<Result<u64, Vec<u8>>, Trouble> {
        let (mut count, mut error) = (0, None);
        loop {
            let Ok(frame) = self.link(shard)?.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'C' => count = count_of(frame.body()),
                b'E' => error = error.or_else(|| Some(frame.bytes.to_vec())),
                b'Z' => return Ok(error.map_or(Ok(count), Err)),
                _ => {}
            }
        }
    }

    fn copied(&mut self, copy: &Copy, counts: &[u64]) -> Result<(), Trouble> {
        let count = match (copy.key.is_some(), counts.first()) {
            (false, Some(first)) if copy.into => {
                if counts.iter().any(|count| count != first) {
                    let what = "the copies of the reference table have taken different numbers of rows";
                    return Err(Trouble::Reply(Failure::error("XX001", what)));
                }
                *first
            }
            _ => counts.iter().sum(),
        };
        message::command_complete(&mut self.to_client, format!("COPY {count}").as_bytes());
        Ok(())
    }

    async fn copy_out(&mut self, shards: &[usize], copy: &Copy) -> Result<(), Trouble> {
        let (mut counts, mut trouble) = (Vec::new(), None);
        for (at, &shard) in shards.iter().enumerate() {
            match self.copy_out_of(shard, at == 0, copy, trouble.is_some()).await {
                Ok(count) => counts.push(count),
                Err(Trouble::Gone) => return Err(Trouble::Gone),
                Err(other) => trouble = trouble.or(Some(other)),
            }
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        if copy.form.format == CopyFormat::Binary {
            message::frame(&mut self.to_client, b'd', |out| out.extend_from_slice(BINARY_END));
        }
        message::empty(&mut self.to_client, b'c');
        self.copied(copy, &counts)
    }

    async fn copy_out_of(&mut self, shard: usize, leads: bool, copy: &Copy, in_vain: bool) -> Result<u64, Trouble> {
        let (mut count, mut error, mut first) = (0, None, true);
        let is_binary = copy.form.format == CopyFormat::Binary;
        loop {
            if !self.link(shard)?.has_frame() {
                self.send_if_full().await?;
            }
            let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else {
                return Err(Trouble::Lost(shard));
            };
            let Ok(frame) = link.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'H' if leads => self.to_client.extend_from_slice(frame.bytes),
                b'd' if in_vain => {}
                b'd' => {
                    let is_first = std::mem::replace(&mut first, false);
                    let skipped = if is_binary && is_first { BINARY_HEAD } else { 0 };
                    let rows = frame.body().get(skipped..).unwrap_or_default();
                    if is_first && leads && is_binary {
                        let head = frame.body().get(..BINARY_HEAD).unwrap_or_default();
                        message::frame(&mut self.to_client, b'd', |out| out.extend_from_slice(head));
                    }
                    // Each shard has the names of the columns, and the mark of the end.
                    let is_header = copy.form.header && is_first && !leads && !is_binary;
                    if !is_header && !(is_binary && (rows == BINARY_END || rows.is_empty())) {
                        message::frame(&mut self.to_client, b'd', |out| out.extend_from_slice(rows));
                    }
                }
                b'C' => count = count_of(frame.body()),
                b'E' => error = error.or_else(|| Some(frame.bytes.to_vec())),
                b'Z' => return error.map_or(Ok(count), |error| Err(Trouble::Server(error))),
                _ => {}
            }
        }
    }
}

impl Outgoing {
    fn take(&mut self, data: &[u8]) -> Result<(), Failure> {
        let Some(key) = &self.key else {
            // Every copy takes all of it, as it is.
            self.waiting.iter_mut().for_each(|waiting| waiting.extend_from_slice(data));
            return Ok(());
        };
        let waiting = &mut self.waiting;
        self.split.feed(data, &mut |piece| place(key, waiting, &piece))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let Some(key) = &self.key else { return Ok(()) };
        let waiting = &mut self.waiting;
        self.split.finish(&mut |piece| place(key, waiting, &piece))
    }
}

fn place(key: &KeyField, waiting: &mut [Vec<u8>], piece: &Piece<'_>) -> Result<(), Failure> {
    let (row, found) = match piece {
        Piece::Everybody(bytes) => {
            waiting.iter_mut().for_each(|waiting| waiting.extend_from_slice(bytes));
            return Ok(());
        }
        Piece::Row(row, found) => (row, found),
    };
    let refuse = |why: String| {
        Failure::error("0A000", format!("refused: a row's sharding key does not say where it belongs: {why}"))
            .detail("Rule: copy. Nothing was stored.")
            .hint("Give the key in its plainest form.")
    };
    let shard = match found {
        Key::Null => return Err(refuse("it is NULL".to_owned())),
        Key::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| refuse("it is not UTF-8".to_owned()))?;
            key.shard_of(Written::Text(text))
        }
        Key::Binary(bytes) => key.shard_of(Written::Binary(bytes)),
    };
    let shard = shard.map_err(refuse)?;
    let Some(waiting) = waiting.get_mut(shard.0) else { return Err(refuse("its shard is not there".to_owned())) };
    waiting.extend_from_slice(row);
    if !row.ends_with(b"\n") && matches!(found, Key::Text(_)) {
        // The last row of all may lack its end; it must not lack it where another row follows.
        waiting.push(b'\n');
    }
    Ok(())
}

fn first_error(error: Option<Vec<u8>>) -> Result<(), Trouble> {
    Err(match error {
        Some(error) => Trouble::Server(error),
        None => Trouble::Reply(Failure::error("57014", "COPY from stdin failed")),
    })
}

/// The number in a COPY's command tag.
fn count_of(tag: &[u8]) -> u64 {
    let tag = tag.strip_suffix(b"\0").unwrap_or(tag);
    let number = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).unwrap_or_default()
}
