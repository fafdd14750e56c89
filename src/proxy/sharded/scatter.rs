//! Queries that several shards answer, each with its part of the rows.

use crate::exec::concat::{Concat, Verdict};
use crate::proxy::care::Care;
use crate::proxy::sharded::batch::Owing;
use crate::proxy::sharded::extended::Step;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::wire::body::Reader;
use crate::wire::message::{self, Failure};

/// What was heard of one shard's frame.
struct Heard {
    /// ParseCompletes that the client gets first.
    known: usize,
    /// It is for the client, if any is.
    forward: bool,
    /// It is the shard's last one.
    last: bool,
}

impl ShardedSession {
    /// Sends a query to several shards and passes their rows on.
    pub(super) async fn on_several(
        &mut self,
        shards: &[usize],
        limit: Option<u64>,
        sql: &str,
        care: Care,
    ) -> Result<(), Trouble> {
        self.attach(shards, false).await?;
        for &shard in shards {
            self.mark(shard, care);
            self.link(shard)?.query(sql.as_bytes());
        }
        let mut owing: Vec<Owing> = shards.iter().map(|_| Owing::default()).collect();
        self.hear_several(shards, &mut owing, Concat::new(limit, true)).await
    }

    /// Passes the rows of several shards on, one shard after the other. All have answered in full afterwards, whatever went wrong.
    pub(super) async fn hear_several(
        &mut self,
        shards: &[usize],
        owing: &mut [Owing],
        mut concat: Concat,
    ) -> Result<(), Trouble> {
        self.start(shards).await;
        let (mut later, mut trouble) = (Vec::new(), None);
        for (at, (&shard, owing)) in shards.iter().zip(owing).enumerate() {
            if at > 0 {
                concat.next();
            }
            let heard = self.hear_part(shard, owing, &mut concat, &mut later, trouble.is_some()).await;
            match heard {
                Ok(()) => {}
                // Nobody is there to send to: the session ends, and with it its connections.
                Err(Trouble::Gone) => return Err(Trouble::Gone),
                Err(other) => trouble = trouble.or(Some(other)),
            }
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        concat.finish(&mut self.to_client).map_err(Trouble::Reply)?;
        self.to_client.extend_from_slice(&later);
        Ok(())
    }

    async fn hear_part(
        &mut self,
        shard: usize,
        owing: &mut Owing,
        concat: &mut Concat,
        later: &mut Vec<u8>,
        in_vain: bool,
    ) -> Result<(), Trouble> {
        let mut error = None;
        loop {
            if !self.link(shard)?.has_frame() {
                self.send_if_full().await?;
            }
            let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else {
                return Err(Trouble::Lost(shard));
            };
            let Ok(frame) = link.frame().await else { return Err(self.lose(shard)) };
            let heard = owing.hear(frame);
            let heard = Heard { known: heard.known, forward: heard.forward && !in_vain, last: heard.last };
            if heard.last || frame.tag == b'Z' {
                return error.map_or(Ok(()), |error| Err(Trouble::Server(error)));
            }
            if frame.tag == b'E' {
                error = error.or_else(|| Some(frame.bytes.to_vec()));
                continue;
            }
            for _ in 0..heard.known {
                if concat.take(b"1\0\0\0\x04") == Verdict::Forward && !in_vain {
                    message::empty(&mut self.to_client, b'1');
                }
            }
            match concat.take(frame.bytes) {
                Verdict::Forward if heard.forward => self.to_client.extend_from_slice(frame.bytes),
                Verdict::Later if heard.forward => later.extend_from_slice(frame.bytes),
                _ => {}
            }
        }
    }
}

/// What a client wants of a statement that it binds and runs in one go.
pub(super) struct Wanted {
    /// It asks for the columns.
    pub described: bool,
    /// So many rows; 0 for all.
    pub most: u32,
}

/// Checks that a group binds one statement and runs it; adds a question for its columns where the client does not ask.
///
/// # Errors
/// It does something else.
pub(super) fn complete(group: &mut Vec<Step>) -> Result<Wanted, Failure> {
    let binds = group.iter().filter(|step| matches!(step, Step::Bind { .. })).count();
    let mut executes = group.iter().filter_map(|step| match step {
        Step::Execute(body) => rows_wanted(body),
        _ => None,
    });
    let (Some(most), None, 1) = (executes.next(), executes.next(), binds) else {
        return Err(in_one_go());
    };
    let described = group.iter().any(|step| matches!(step, Step::DescribePortal(_)));
    let bind = group.iter().position(|step| matches!(step, Step::Bind { .. }));
    if let (false, Some(at)) = (described, bind)
        && let Some(Step::Bind { portal, .. }) = group.get(at)
    {
        let portal = portal.clone();
        group.insert(at + 1, Step::DescribePortal(portal));
    }
    Ok(Wanted { described, most })
}

/// The refusal to run a statement in parts.
pub(super) fn in_one_go() -> Failure {
    Failure::error("0A000", "refused: a statement on several shards is bound and run in one go only")
        .hint("Send Bind and one Execute, up to Sync; or fetch rows in parts by the key.")
}

fn rows_wanted(execute: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(execute);
    reader.cstr().ok()?;
    reader.u32().ok()
}
