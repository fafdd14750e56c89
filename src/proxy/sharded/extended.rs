//! The extended protocol: messages are collected up to Sync or Flush, then run in groups of one target each.
//!
//! A group ends with a Sync of the proxy's own, so that every exchange with a server ends with its
//! ReadyForQuery. Outside a block that commits what the group did; where a client's pipeline needs more
//! than one group, or may go on after Flush, the proxy opens a block first and ends it at the client's Sync.

use crate::exec::concat::Concat;
use crate::proxy::care::Care;
use crate::proxy::sharded::batch::Owing;
use crate::proxy::sharded::collect::COMPUTES;
use crate::proxy::sharded::execute::is_prepare;
use crate::proxy::sharded::link::Link;
use crate::proxy::sharded::names::{Named, Target};
use crate::proxy::sharded::planned::Planned;
use crate::proxy::sharded::prepare::malformed;
use crate::proxy::sharded::scatter::complete;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::proxy::sharded::simple::{control_of, is_control};
use crate::wire::body::{Malformed, Reader};
use crate::wire::message::{self, Failure};

use std::sync::Arc;

/// Messages are run, as by Flush, when they are more than this.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// One message of the extended protocol, understood.
#[derive(Debug)]
pub(super) enum Step {
    /// Parse, where the server does not have the statement.
    Parse(Arc<Named>),
    /// Bind; `rest` is all behind the two names.
    Bind { named: Arc<Named>, planned: Arc<Planned>, portal: Box<[u8]>, rest: Vec<u8> },
    /// Describe of a statement.
    DescribeStatement(Arc<Named>),
    /// Describe of a portal.
    DescribePortal(Box<[u8]>),
    /// Execute, as it came.
    Execute(Vec<u8>),
    /// Close of a portal.
    ClosePortal(Box<[u8]>),
}

impl ShardedSession {
    /// Keeps a message until Sync or Flush.
    pub(super) async fn collect(&mut self, tag: u8, body: Vec<u8>) -> Result<(), Trouble> {
        if self.skipping {
            return Ok(());
        }
        self.batch_bytes += body.len();
        self.batch.push((tag, body));
        if self.batch_bytes > MAX_BATCH_BYTES { self.run_batch(false).await } else { Ok(()) }
    }

    /// The client's Sync: runs what was collected, ends the implicit transaction, says ready.
    pub(super) async fn sync(&mut self) -> Result<(), Trouble> {
        self.run_batch(true).await?;
        self.skipping = false;
        if let Err(trouble) = self.end_implicit().await {
            self.report(trouble)?;
        }
        self.ready();
        Ok(())
    }

    /// Runs what was collected.
    pub(super) async fn run_batch(&mut self, synced: bool) -> Result<(), Trouble> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.foreseen = None;
        if batch.is_empty() || self.skipping {
            return Ok(());
        }
        if let Err(trouble) = self.run_groups(&batch, synced).await {
            self.skipping = true;
            self.report(trouble)?;
        }
        Ok(())
    }

    async fn run_groups(&mut self, batch: &[(u8, Vec<u8>)], synced: bool) -> Result<(), Trouble> {
        // Plans are made without waiting from here on.
        self.shared.snapshot().await?;
        let mut group: Vec<Step> = Vec::new();
        let mut at_target = Target::Own;
        for (at, (tag, body)) in batch.iter().enumerate() {
            let rest = batch.get(at + 1..).unwrap_or_default();
            let ahead = Ahead { rest, synced };
            let understood = self.understand(*tag, body, &ahead, at_target);
            let (target, step) = match understood {
                Ok(found) => found,
                Err(trouble) => {
                    // What stands before the mistake is run first, as a server would.
                    self.run_group(at_target, &mut group).await?;
                    return Err(trouble);
                }
            };
            let Some(step) = step else {
                self.run_group(at_target, &mut group).await?;
                self.own(*tag, body).await?;
                continue;
            };
            let is_bind = |step: &Step| matches!(step, Step::Bind { .. });
            let again =
                matches!(target, Target::Several(..) | Target::Merge(..) | Target::Collect(_) | Target::Spread(..))
                    && is_bind(&step)
                    && group.iter().any(is_bind);
            if target != at_target || again || group.is_empty() {
                self.run_group(at_target, &mut group).await?;
                at_target = target;
            }
            group.push(step);
        }
        self.run_group(at_target, &mut group).await
    }

    /// What a message means and where it goes; no step when the proxy answers it itself.
    fn understand(
        &mut self,
        tag: u8,
        body: &[u8],
        ahead: &Ahead<'_>,
        current: Target,
    ) -> Result<(Target, Option<Step>), Trouble> {
        let mut reader = Reader::new(body);
        match tag {
            b'P' => {
                self.guard_parse(body)?;
                let named = self.prepare(body)?;
                if named.own {
                    return Ok((Target::Own, None));
                }
                let target = self.target_of_parse(&named, ahead, current);
                Ok((target, Some(Step::Parse(named))))
            }
            b'B' => self.bind(body, ahead),
            b'D' | b'C' => {
                let (kind, name) = (reader.u8().map_err(malformed)?, reader.cstr().map_err(malformed)?);
                match (tag, kind) {
                    (b'D', b'S') => {
                        let named = self.statement_named(name)?;
                        let target = if named.own { Target::Own } else { self.describing(current) };
                        Ok((target, (!named.own).then_some(Step::DescribeStatement(named))))
                    }
                    (b'D', b'P') => self.at_portal(name, Step::DescribePortal(name.into())),
                    (b'C', b'P') if self.names.portals.contains_key(name) => {
                        self.at_portal(name, Step::ClosePortal(name.into()))
                    }
                    (b'C', b'S' | b'P') => Ok((Target::Own, None)),
                    _ => Err(malformed(Malformed)),
                }
            }
            _ => {
                let name = reader.cstr().map_err(malformed)?;
                self.at_portal(name, Step::Execute(body.to_vec()))
            }
        }
    }

    fn at_portal(&self, name: &[u8], step: Step) -> Result<(Target, Option<Step>), Trouble> {
        let portal = self.names.portals.get(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name).into_owned();
            Trouble::Reply(Failure::error("34000", format!("portal \"{name}\" does not exist")))
        })?;
        Ok((portal.target, (portal.target != Target::Own).then_some(step)))
    }

    /// Where a statement is described that nobody has bound yet: where the group is, or any shard that takes part.
    fn describing(&self, current: Target) -> Target {
        match current {
            Target::Shard(_) | Target::All => current,
            Target::Several(shards, _) | Target::Merge(shards, ..) => Target::Shard(shards.iter().next().unwrap_or(0)),
            Target::Collect(_) => Target::Shard(COMPUTES),
            Target::Spread(shards, _) => Target::Shard(shards.iter().next().unwrap_or(COMPUTES)),
            Target::Own | Target::Copy => Target::Shard(self.transaction.shards().next().unwrap_or(0)),
        }
    }

    /// A Parse goes where the statement is bound, when that is in the same batch.
    fn target_of_parse(&mut self, named: &Named, ahead: &Ahead<'_>, current: Target) -> Target {
        let mine = |body: &[u8]| {
            let mut reader = Reader::new(body);
            let _portal = reader.cstr();
            reader
                .cstr()
                .is_ok_and(|name| self.names.statements.get(name).is_some_and(|known| std::ptr::eq(&**known, named)))
        };
        let bind = ahead.rest.iter().find(|(tag, body)| *tag == b'B' && mine(body));
        match bind.map(|(_, body)| self.bound(body)) {
            Some(Ok(bound)) if bound.target != Target::Own => bound.target,
            _ => self.describing(current),
        }
    }

    /// A message that the proxy answers itself.
    async fn own(&mut self, tag: u8, body: &[u8]) -> Result<(), Trouble> {
        match tag {
            b'P' => message::empty(&mut self.to_client, b'1'),
            b'B' => message::empty(&mut self.to_client, b'2'),
            b'C' => {
                let (kind, name) = body.split_first().unwrap_or((&b'P', b"\0"));
                let name = name.strip_suffix(b"\0").unwrap_or(name);
                if *kind == b'S' {
                    self.names.statements.remove(name);
                } else {
                    self.names.portals.remove(name);
                }
                message::empty(&mut self.to_client, b'3');
            }
            b'D' => {
                let (kind, name) = body.split_first().unwrap_or((&b'P', b"\0"));
                let name = name.strip_suffix(b"\0").unwrap_or(name);
                self.describe_own(*kind, name)?;
            }
            _ => {
                let name = Reader::new(body).cstr().map_err(malformed)?;
                let portal = self.names.portals.get(name).cloned();
                let portal = portal.ok_or_else(|| Failure::error("34000", "portal does not exist"))?;
                let leading = self.leading(&portal.named.sql);
                if self.scanner.scan(portal.named.sql.as_bytes()).statements == 0 {
                    message::empty(&mut self.to_client, b'I');
                    return Ok(());
                }
                if is_control(leading) {
                    return self.control(control_of(&portal.named.sql)?).await;
                }
                self.transaction.check_open()?;
                if is_prepare(leading) {
                    return self.prepare_statement(&portal.named.sql).await;
                }
                self.setting(&portal.named.sql, leading).await?;
            }
        }
        Ok(())
    }

    fn describe_own(&mut self, kind: u8, name: &[u8]) -> Result<(), Trouble> {
        let named = match kind {
            b'S' => Some(self.statement_named(name)?),
            _ => self.names.portals.get(name).map(|portal| portal.named.clone()),
        };
        if named.is_none() {
            return Err(Trouble::Reply(Failure::error("34000", "portal does not exist")));
        }
        if kind == b'S' {
            message::frame(&mut self.to_client, b't', |out| out.extend_from_slice(&[0, 0]));
        }
        message::empty(&mut self.to_client, b'n');
        Ok(())
    }

    /// Sends a group to its target, with a Sync, and passes the answers on.
    pub(super) async fn send_group(&mut self, target: Target, group: &mut Vec<Step>) -> Result<(), Trouble> {
        if matches!(target, Target::Merge(..) | Target::Collect(_) | Target::Spread(..)) {
            return Box::pin(self.run_rewritten(target, group)).await;
        }
        let mut group = std::mem::take(group);
        let mut concat = None;
        let shards = match target {
            Target::Shard(shard) => vec![shard],
            Target::Several(shards, limit) if group.iter().any(|step| !matches!(step, Step::Parse(_))) => {
                let wanted = complete(&mut group)?;
                let mut fresh = Concat::new(limit, wanted.described);
                fresh.limit_to(wanted.most);
                concat = Some(fresh);
                shards.iter().collect()
            }
            // A statement that is not bound yet needs one shard to be looked at.
            Target::Several(shards, _) => shards.iter().take(1).collect(),
            Target::All => self.every_shard(),
            Target::Own | Target::Copy | Target::Merge(..) | Target::Collect(_) | Target::Spread(..) => {
                return Err(Trouble::Reply(Failure::error("XX000", "a group of messages has no target")));
            }
        };
        let (mut writes, mut definitions, mut care) = (false, false, Care::CLEAN);
        for step in &group {
            if let Step::Bind { planned, .. } = step {
                writes |= planned.writes;
                definitions |= planned.changes_definitions();
                care.add(planned.care);
            }
        }
        self.attach(&shards, writes).await?;
        let client = self.guard.client.id;
        let mut owing: Vec<Owing> = Vec::with_capacity(shards.len());
        for &shard in &shards {
            self.mark(shard, care);
            let link = self.link(shard)?;
            owing.push(queue(&group, client, link));
        }
        let done = match (target, concat) {
            (_, Some(concat)) => self.hear_several(&shards, &mut owing, concat).await,
            (Target::All, None) => self.hear_all(&shards, &mut owing).await,
            _ => self.hear_one(shards.first().copied().unwrap_or(0), owing.first_mut()).await,
        };
        for (&shard, owing) in shards.iter().zip(owing) {
            if let Ok(link) = self.link(shard) {
                owing.settle(&mut link.conn.state);
            }
        }
        done?;
        for step in &group {
            if let Step::ClosePortal(name) = step {
                self.names.portals.remove(name);
            }
        }
        self.changed_definitions |= definitions;
        Ok(())
    }

    async fn hear_one(&mut self, shard: usize, owing: Option<&mut Owing>) -> Result<(), Trouble> {
        let Some(owing) = owing else { return Ok(()) };
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
            for _ in 0..heard.known {
                message::empty(&mut self.to_client, b'1');
            }
            if frame.tag == b'E' {
                error = error.or_else(|| Some(frame.bytes.to_vec()));
            } else if heard.forward {
                self.to_client.extend_from_slice(frame.bytes);
            }
            if heard.last {
                return error.map_or(Ok(()), |error| Err(Trouble::Server(error)));
            }
        }
    }

    async fn hear_all(&mut self, shards: &[usize], owing: &mut [Owing]) -> Result<(), Trouble> {
        let order = shards.to_vec();
        let frames = self
            .gather(shards, |gather, shard, frame| {
                let at = order.iter().position(|&other| other == shard);
                let Some(owing) = at.and_then(|at| owing.get_mut(at)) else { return true };
                let heard = owing.hear(frame);
                for _ in 0..heard.known {
                    gather.take(shard, b"1\0\0\0\x04");
                }
                if heard.forward || heard.last {
                    gather.take(shard, frame.bytes);
                }
                heard.last
            })
            .await?;
        self.to_client.extend_from_slice(&frames);
        Ok(())
    }
}

/// What stands behind a message.
pub(super) struct Ahead<'a> {
    /// The messages after it in its batch.
    pub rest: &'a [(u8, Vec<u8>)],
    /// The batch ends with the client's Sync.
    pub synced: bool,
}

/// Queues a group on a link; what the server will answer.
fn queue(group: &[Step], client: u64, link: &mut Link) -> Owing {
    let mut owing = Owing::default();
    let mut out = Vec::new();
    let state = &mut link.conn.state;
    for step in group {
        match step {
            Step::Parse(named) => owing.parse(named, client, state, &mut out),
            Step::Bind { named, portal, rest, .. } => {
                let name = owing.provide(named, client, state, &mut out);
                message::frame(&mut out, b'B', |out| {
                    message::cstr(out, portal);
                    message::cstr(out, name);
                    out.extend_from_slice(rest);
                });
                owing.plain();
            }
            Step::DescribeStatement(named) => {
                let name = owing.provide(named, client, state, &mut out);
                message::named(&mut out, b'D', b'S', name);
                owing.plain();
            }
            Step::DescribePortal(name) => {
                message::named(&mut out, b'D', b'P', name);
                owing.plain();
            }
            Step::Execute(body) => {
                message::frame(&mut out, b'E', |out| out.extend_from_slice(body));
                owing.plain();
            }
            Step::ClosePortal(name) => {
                message::named(&mut out, b'C', b'P', name);
                owing.plain();
            }
        }
    }
    link.queue().extend_from_slice(&out);
    link.sync();
    owing
}
