//! Queries whose rows several shards send in order: merged into one, as fast as the client takes them.

use crate::exec::concat::{Concat, Verdict, has_local, named_types, without_last};
use crate::exec::merge::{Key, Merge};
use crate::proxy::care::Care;
use crate::proxy::given::Given;
use crate::proxy::sharded::collect::{Asked, bind, execute, with_types};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::Shards;
use crate::route::merge::SortedBy;
use crate::wire::message::{self, Failure};

/// Which rows of the order are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// So many are left out first.
    pub offset: u64,
    /// So many are wanted at most.
    pub limit: Option<u64>,
}

/// What a shard has sent.
enum Sent {
    Row,
    /// It is ready for another statement.
    Ready,
}

impl ShardedSession {
    /// Answers a statement from these shards' rows in order.
    pub(super) async fn by_merging(
        &mut self,
        of: Shards,
        part: Part,
        asked: &Asked<'_>,
        care: Care,
    ) -> Result<(), Trouble> {
        let shards = &of.iter().collect::<Vec<_>>()[..];
        let plan = self.plan_of(asked.sql)?;
        let changed = || Failure::error("XX000", "the plan of this statement has changed meanwhile");
        let merge = plan.merge().ok_or_else(changed)?;
        self.attach(shards, false).await?;
        for &shard in shards {
            self.mark(shard, care);
            self.link(shard)?.conn.state.forget_unnamed();
        }
        let first = shards.first().copied().unwrap_or_default();
        let described = self.ask_what_it_is(first, asked).await?;
        let given = asked.given()?;
        let visible = named_types(&described.columns).map_or(0, |columns| columns.len());
        let formats = formats(given.as_ref(), visible, merge.keys().len());
        if plan.collect().is_some() && has_local(&described.columns, &formats) {
            // One shard's values then.
            return self.by_collecting(of, asked, care).await;
        }
        let statement = with_types(&merge.question(asked.sql), &described, &[]);
        let wanted =
            if asked.most == 0 { 0 } else { asked.most.saturating_add(u32::try_from(part.offset).unwrap_or(u32::MAX)) };
        for &shard in shards {
            let link = self.link(shard)?;
            message::parse(link.queue(), b"", &statement);
            bind(link.queue(), given.as_ref(), &[], &formats);
            message::named(link.queue(), b'D', b'P', b"");
            execute(link.queue(), wanted);
            link.sync();
        }
        self.start(shards).await;
        let merged = Merged::new(asked, part, visible, shards.len());
        self.pass_merged(shards, asked, merge.keys(), merged).await
    }

    async fn pass_merged(
        &mut self,
        shards: &[usize],
        asked: &Asked<'_>,
        keys: &[SortedBy],
        mut merged: Merged,
    ) -> Result<(), Trouble> {
        let mut trouble = None;
        // Those that have more to say than was heard.
        let mut unread: Vec<usize> = Vec::with_capacity(shards.len());
        if asked.values.is_some() {
            message::empty(&mut self.to_client, b'2');
        }
        for (at, &shard) in shards.iter().enumerate() {
            match self.next_of(shard, at, keys, &mut merged, &mut trouble).await {
                Ok(Sent::Row) => unread.push(shard),
                Ok(Sent::Ready) => {}
                Err(Trouble::Gone) => return Err(Trouble::Gone),
                Err(other) => trouble = trouble.or(Some(other)),
            }
        }
        while trouble.is_none() && !merged.is_full() {
            let Some(at) = merged.pass_next(&mut self.to_client) else { break };
            let Some(&shard) = shards.get(at) else { break };
            match self.next_of(shard, at, keys, &mut merged, &mut trouble).await {
                Ok(Sent::Row) => {}
                Ok(Sent::Ready) => unread.retain(|other| *other != shard),
                Err(Trouble::Gone) => return Err(Trouble::Gone),
                Err(other) => {
                    unread.retain(|other| *other != shard);
                    trouble = trouble.or(Some(other));
                }
            }
        }
        // What nobody wants any more.
        for shard in unread {
            if let Err(other) = self.settle(shard).await {
                trouble = trouble.or(Some(other));
            }
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None => merged.concat.finish(&mut self.to_client).map_err(Trouble::Reply),
        }
    }

    /// Hears a shard up to its next row or its end.
    async fn next_of(
        &mut self,
        shard: usize,
        at: usize,
        keys: &[SortedBy],
        merged: &mut Merged,
        trouble: &mut Option<Trouble>,
    ) -> Result<Sent, Trouble> {
        loop {
            if !self.link(shard)?.has_frame() {
                self.send_if_full().await?;
            }
            let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else {
                return Err(Trouble::Lost(shard));
            };
            let Ok(frame) = link.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'Z' => return Ok(Sent::Ready),
                b'E' => *trouble = trouble.take().or_else(|| Some(Trouble::Server(frame.bytes.to_vec()))),
                _ if trouble.is_some() => {}
                b'T' => match merged.columns(frame.body(), keys, at) {
                    Ok(body) => self.to_client.extend_from_slice(&body),
                    Err(failure) => *trouble = Some(Trouble::Reply(failure)),
                },
                b'D' => {
                    if merged.merge.as_mut().is_some_and(|merge| merge.take(at, frame.body()).is_ok()) {
                        return Ok(Sent::Row);
                    }
                    *trouble = Some(Trouble::Reply(Failure::error("08P01", "a shard sent rows of other columns")));
                }
                b'N' if at == 0 => self.to_client.extend_from_slice(frame.bytes),
                _ => {}
            }
        }
    }

    /// Sends what is queued for these shards, so that they work at the same time. A connection that breaks off is noticed when its answer is read.
    pub(super) async fn start(&mut self, shards: &[usize]) {
        for &shard in shards {
            if let Ok(link) = self.link(shard) {
                let _ = link.flush().await;
            }
        }
    }
}

/// The answer in the making.
struct Merged {
    concat: Concat,
    merge: Option<Merge>,
    visible: usize,
    shards: usize,
    offset: u64,
}

impl Merged {
    fn new(asked: &Asked<'_>, part: Part, visible: usize, shards: usize) -> Self {
        let mut concat = Concat::new(part.limit, asked.described);
        concat.limit_to(asked.most);
        Self { concat, merge: None, visible, shards, offset: part.offset }
    }

    /// Takes a shard's description of its columns; what the client is told of them.
    fn columns(&mut self, body: &[u8], keys: &[SortedBy], at: usize) -> Result<Vec<u8>, Failure> {
        let odd = || Failure::error("XX001", "the shards do not agree on the columns of this statement");
        let types = named_types(body).filter(|types| types.len() == self.visible + keys.len()).ok_or_else(odd)?;
        let one =
            |(key, (_, (oid, _))): (&SortedBy, &(String, (u32, i32)))| Key::new(*oid, key.descending, key.nulls_first);
        let hidden: Option<Vec<Key>> = keys.iter().zip(types.iter().skip(self.visible)).map(one).collect();
        let hidden = hidden.ok_or_else(odd)?;
        let visible = u16::try_from(self.visible).map_err(|_| odd())?;
        if self.merge.is_none() {
            self.merge = Some(Merge::new(hidden, visible, self.shards));
        } else if at > 0 {
            self.concat.next();
        }
        let shown = without_last(body, keys.len()).ok_or_else(odd)?;
        let mut frame = Vec::new();
        message::frame(&mut frame, b'T', |out| out.extend_from_slice(&shown));
        let forward = self.concat.take(&frame) == Verdict::Forward;
        Ok(if forward { frame } else { Vec::new() })
    }

    /// Nothing more is wanted.
    fn is_full(&self) -> bool {
        self.concat.is_full()
    }

    /// Sends the next row on; whose it was.
    fn pass_next(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        let (shard, row) = self.merge.as_mut()?.first()?;
        if self.offset > 0 {
            self.offset -= 1;
        } else if self.concat.take(b"D") == Verdict::Forward {
            message::frame(out, b'D', |out| out.extend_from_slice(row));
        }
        Some(shard)
    }
}

/// The formats of the columns: as the client wants its own, and keys in binary form.
fn formats(given: Option<&Given<'_>>, visible: usize, keys: usize) -> Vec<u8> {
    let asked = given.map_or(&[0, 0][..], |given| given.result_formats);
    let codes: Vec<&[u8]> = asked.get(2..).unwrap_or_default().chunks_exact(2).collect();
    let code = |at: usize| match codes.as_slice() {
        [] => &[0, 0][..],
        [all] => all,
        each => each.get(at).copied().unwrap_or(&[0, 0]),
    };
    let mut out = u16::try_from(visible + keys).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    (0..visible).for_each(|at| out.extend_from_slice(code(at)));
    (0..keys).for_each(|_| out.extend([0, 1]));
    out
}
