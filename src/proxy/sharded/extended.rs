//! The extended protocol over shards.
//!
//! A Parse is not answered before a shard has parsed it, and which shard that is the Bind says. Messages for the same
//! shards gather until the shards change, or the client asks for answers (Flush, Sync).

use std::sync::Arc;

use crate::exec::transaction::Status;
use crate::pool::statements::Statement;
use crate::proxy::sharded::link::Owed;
use crate::proxy::sharded::simple::{Direction, not_utf8};
use crate::proxy::sharded::{End, FLUSH_ABOVE, MAX_HELD, ShardedSession, Trouble, lost, refused};
use crate::route::{Bindings, Parameter, TemplatePlan};
use crate::sql::template::Binding;
use crate::wire::body::{Malformed, Reader};
use crate::wire::message::{self, Failure};

/// Most named statements of one client.
const MAX_STATEMENTS: usize = 10_000;

/// A prepared statement of the client.
#[derive(Debug)]
pub(super) struct Prepared {
    shared: Arc<Statement>,
    unnamed: bool,
    sql: String,
    constants: Vec<Binding>,
    types: Vec<u32>,
    plan: Arc<TemplatePlan>,
}

/// A portal: where it is, or what the proxy executes for it.
#[derive(Debug, Clone)]
pub(super) enum Portal {
    Empty,
    Control(String),
    Shards(Vec<usize>),
}

/// The values of one Bind.
struct Bound<'a> {
    prepared: &'a Prepared,
    formats: Vec<u16>,
    values: Vec<Option<&'a [u8]>>,
}

impl Bindings for Bound<'_> {
    fn constant(&self, index: usize) -> Option<&str> {
        let binding = self.prepared.constants.get(index)?;
        self.prepared.sql.get(binding.start as usize..binding.end as usize)
    }

    fn parameter(&self, number: u32) -> Option<Parameter<'_>> {
        let at = (number as usize).checked_sub(1)?;
        let format = match self.formats.as_slice() {
            [] => 0,
            [all] => *all,
            formats => formats.get(at).copied().unwrap_or(0),
        };
        let type_oid = self.prepared.types.get(at).copied().unwrap_or(0);
        Some(Parameter { type_oid, binary: format == 1, value: *self.values.get(at)? })
    }
}

fn malformed(what: &str) -> Trouble {
    Trouble::Over(End::Failed(Failure::fatal("08P01", format!("malformed {what} message"))))
}

impl ShardedSession {
    /// One message of the extended protocol.
    pub(super) async fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), End> {
        if tag == b'S' {
            return self.sync().await;
        }
        let done = match tag {
            b'P' => self.parse(body).await,
            b'B' => self.bind(body).await,
            b'D' => self.describe(body).await,
            b'E' => self.execute(body).await,
            b'C' => self.close(body).await,
            _ => self.answer_all().await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(trouble) => self.fail(trouble).await,
        }
    }

    /// An error: what came before it is answered first, and all up to Sync is skipped.
    async fn fail(&mut self, trouble: Trouble) -> Result<(), End> {
        let earlier = match trouble {
            Trouble::Own(_) => self.flush().await.err(),
            _ => None,
        };
        self.skipping = true;
        self.unanswered = None;
        self.target.clear();
        self.say(earlier.unwrap_or(trouble))
    }

    async fn parse(&mut self, body: &[u8]) -> Result<(), Trouble> {
        self.answer_parse().await?;
        let mut reader = Reader::new(body);
        let name = reader.cstr().map_err(|_| malformed("Parse"))?;
        let rest = reader.rest();
        let sql = reader.cstr().map_err(|_| malformed("Parse"))?;
        let types = (|| (0..reader.u16()?).map(|_| reader.u32()).collect::<Result<Vec<u32>, Malformed>>())();
        let types = types.ok().filter(|_| true).ok_or_else(|| malformed("Parse"))?;
        let shown = || String::from_utf8_lossy(name).into_owned();
        if !name.is_empty() && self.prepared.contains_key(name) {
            return Err(Failure::error("42P05", format!("prepared statement \"{}\" already exists", shown())).into());
        }
        if self.prepared.len() >= MAX_STATEMENTS {
            return Err(Failure::error("54000", "too many prepared statements").into());
        }
        let sql = std::str::from_utf8(sql).map_err(|_| not_utf8())?.to_owned();
        let facts = self.session_facts();
        let scan = self.scanner.scan(sql.as_bytes());
        if scan.statements > 1 {
            return Err(Failure::error("42601", "cannot insert multiple commands into a prepared statement").into());
        }
        let plan = self.planner.plan(&sql, &scan, facts);
        if let Some(refusal) = plan.refusal().filter(|_| scan.statements > 0) {
            return Err(refused(refusal).into());
        }
        let constants = scan.bindings.to_vec();
        let context = Arc::as_ptr(&self.want) as usize;
        let shared = Arc::new(Statement::new(rest, context));
        let prepared = Arc::new(Prepared { shared, unnamed: name.is_empty(), sql, constants, types, plan });
        self.prepared.insert(name.to_vec(), prepared.clone());
        self.unanswered = Some(prepared);
        Ok(())
    }

    /// Lets some shard answer a Parse whose Bind has not come.
    async fn answer_parse(&mut self) -> Result<(), Trouble> {
        let Some(prepared) = self.unanswered.take() else { return Ok(()) };
        match self.unbound_direction(&prepared) {
            Direction::Shards { shards, .. } => {
                let shard = shards.first().copied().unwrap_or(0);
                self.aim(&[shard], false).await?;
                if let Some(link) = self.link(shard) {
                    use_statement(link, &prepared, true);
                }
                Ok(())
            }
            _ => {
                self.flush().await?;
                message::empty(&mut self.out, b'1');
                Ok(())
            }
        }
    }

    /// Where a statement can be parsed and described before its parameters are known.
    fn unbound_direction(&self, prepared: &Prepared) -> Direction {
        let bound = Bound { prepared, formats: Vec::new(), values: Vec::new() };
        if prepared.sql.trim().is_empty() {
            return Direction::Empty;
        }
        match prepared.plan.bind(&bound) {
            Ok(route) => self.resolve(route, &prepared.sql, false),
            Err(_) => Direction::Shards { shards: vec![self.any_shard()], writes: false, defines: false, alone: false },
        }
    }

    async fn bind(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let (portal, name, after) = (|| {
            let mut reader = Reader::new(body);
            Ok::<_, Malformed>((reader.cstr()?, reader.cstr()?, reader.rest()))
        })()
        .map_err(|_| malformed("Bind"))?;
        let prepared = self.prepared.get(name).cloned().ok_or_else(|| no_statement(name))?;
        let (formats, values) = values(after).map_err(|_| malformed("Bind"))?;
        let bound = Bound { prepared: &prepared, formats, values };
        let direction = if prepared.sql.trim().is_empty() {
            Direction::Empty
        } else {
            let route = prepared.plan.bind(&bound).map_err(|refusal| refused(&refusal))?;
            self.resolve(route, &prepared.sql, prepared.plan.writes)
        };
        let asked = self.unanswered.take_if(|waiting| Arc::ptr_eq(waiting, &prepared)).is_some();
        self.answer_parse().await?;
        let portal = portal.to_vec();
        let (shards, writes) = match direction {
            Direction::Shards { alone: true, shards, .. } if shards.len() > 1 => {
                return Err(Failure::error("0A000", "this statement cannot run on several shards as a prepared one")
                    .hint("send it with the simple protocol")
                    .into());
            }
            Direction::Shards { shards, writes, defines, .. } => {
                self.redefined |= defines;
                (shards, writes)
            }
            here => {
                self.flush().await?;
                let tags: &[u8] = if asked { b"12" } else { b"2" };
                tags.iter().for_each(|&tag| message::empty(&mut self.out, tag));
                let kind = match here {
                    Direction::Control => Portal::Control(prepared.sql.clone()),
                    _ => Portal::Empty,
                };
                self.portals.insert(portal, kind);
                return Ok(());
            }
        };
        if shards.len() > 1 && self.transaction.status() == Status::Idle {
            self.flush().await?;
            self.transaction.begin_implicit();
            self.implicit = true;
        }
        self.aim(&shards, writes).await?;
        let first = shards.first().copied();
        for &shard in &shards {
            let Some(link) = self.link(shard) else { continue };
            use_statement(link, &prepared, asked && Some(shard) == first);
            message::frame(&mut link.out, b'B', |out| {
                message::cstr(out, &portal);
                message::cstr(out, server_name(&prepared));
                out.extend_from_slice(after);
            });
            link.owed.push_back(Owed::Bind);
            link.unsynced = true;
        }
        self.portals.insert(portal, Portal::Shards(shards));
        Ok(())
    }

    async fn describe(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let (kind, name) = kind_and_name(body).map_err(|_| malformed("Describe"))?;
        if kind == b'P' {
            self.answer_parse().await?;
            let portal = self.portals.get(name).cloned().ok_or_else(|| no_portal(name))?;
            return self.for_portal(portal, b'D', body, Owed::Describe).await;
        }
        let prepared = self.prepared.get(name).cloned().ok_or_else(|| no_statement(name))?;
        let asked = self.unanswered.take_if(|waiting| Arc::ptr_eq(waiting, &prepared)).is_some();
        self.answer_parse().await?;
        let Direction::Shards { shards, .. } = self.unbound_direction(&prepared) else {
            self.flush().await?;
            if asked {
                message::empty(&mut self.out, b'1');
            }
            message::frame(&mut self.out, b't', |out| out.extend_from_slice(&[0, 0]));
            message::empty(&mut self.out, b'n');
            return Ok(());
        };
        let shard = shards.first().copied().unwrap_or(0);
        self.aim(&[shard], false).await?;
        if let Some(link) = self.link(shard) {
            use_statement(link, &prepared, asked);
            message::named(&mut link.out, b'D', b'S', server_name(&prepared));
            link.owed.push_back(Owed::Describe);
        }
        Ok(())
    }

    async fn execute(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let mut reader = Reader::new(body);
        let (Ok(name), Ok(_)) = (reader.cstr(), reader.u32()) else { return Err(malformed("Execute")) };
        self.answer_parse().await?;
        match self.portals.get(name).cloned().ok_or_else(|| no_portal(name))? {
            Portal::Empty => {
                self.flush().await?;
                message::empty(&mut self.out, b'I');
                Ok(())
            }
            Portal::Control(sql) => {
                self.flush().await?;
                self.close_segment().await?;
                let tag = self.control(&sql).await?;
                message::command_complete(&mut self.out, tag.as_bytes());
                Ok(())
            }
            portal => self.for_portal(portal, b'E', body, Owed::Execute).await,
        }
    }

    /// Sends a message about a portal to the shards it is on.
    async fn for_portal(&mut self, portal: Portal, tag: u8, body: &[u8], owed: Owed) -> Result<(), Trouble> {
        let Portal::Shards(shards) = portal else {
            self.flush().await?;
            message::empty(&mut self.out, if tag == b'C' { b'3' } else { b'n' });
            return Ok(());
        };
        self.aim(&shards, false).await?;
        for &shard in &shards {
            let Some(link) = self.link(shard) else { continue };
            message::frame(&mut link.out, tag, |out| out.extend_from_slice(body));
            link.owed.push_back(owed.clone());
            link.unsynced = true;
        }
        Ok(())
    }

    async fn close(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let (kind, name) = kind_and_name(body).map_err(|_| malformed("Close"))?;
        self.answer_parse().await?;
        if kind == b'P' {
            let portal = self.portals.remove(name).unwrap_or(Portal::Empty);
            return self.for_portal(portal, b'C', body, Owed::Close).await;
        }
        self.prepared.remove(name);
        self.flush().await?;
        message::empty(&mut self.out, b'3');
        Ok(())
    }

    /// Flush: answers everything so far.
    async fn answer_all(&mut self) -> Result<(), Trouble> {
        self.answer_parse().await?;
        self.flush().await
    }

    /// Turns to these shards: what went to others is answered first.
    async fn aim(&mut self, shards: &[usize], writes: bool) -> Result<(), Trouble> {
        if self.target != shards {
            self.flush().await?;
        }
        self.reach(shards, writes).await?;
        self.target = shards.to_vec();
        Ok(())
    }

    /// Sends what has gathered and passes the answers on, the first shard's when all have answered.
    async fn flush(&mut self) -> Result<(), Trouble> {
        let target = std::mem::take(&mut self.target);
        for &shard in &target {
            let Some(link) = self.link(shard) else { continue };
            link.out.extend_from_slice(b"H\0\0\0\x04");
            link.send().await.map_err(lost)?;
        }
        let Some((&first, others)) = target.split_first() else { return Ok(()) };
        let mut trouble = None;
        for &shard in others {
            trouble = trouble.or(self.answers(shard, false, false).await?);
        }
        let held = self.out.len();
        let own = self.answers(first, true, others.is_empty()).await?;
        match trouble {
            Some(frame) => {
                self.out.truncate(held);
                Err(Trouble::Server(frame))
            }
            None => own.map_or(Ok(()), |frame| Err(Trouble::Server(frame))),
        }
    }

    /// Reads what a shard owes. The first shard's answers are the client's, sent at once when `streaming`. Gives its error.
    async fn answers(&mut self, shard: usize, is_first: bool, streaming: bool) -> Result<Option<Vec<u8>>, Trouble> {
        loop {
            let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else { return Ok(None) };
            let Some(owed) = link.owed.front().cloned() else { return Ok(None) };
            let (tag, place) = link.next().await.map_err(lost)?;
            let (done, shown) = match (tag, owed) {
                (b'E', _) => {
                    link.errored = true;
                    let frame = link.bytes(&place).to_vec();
                    link.skip_owed();
                    return Ok(Some(frame));
                }
                (b'N', _) => (false, true),
                (b'S' | b'A', _) => (false, false),
                (b'1', Owed::Parse { hidden, .. }) => (true, !hidden),
                (b'3', Owed::HiddenClose(_)) => (true, false),
                (b'2', Owed::Bind) | (b'3', Owed::Close) => (true, true),
                (b't', Owed::Describe) | (b'D' | b'd' | b'c' | b'H', Owed::Execute) => (false, true),
                (b'T' | b'n', Owed::Describe) | (b'C' | b's' | b'I', Owed::Execute) => (true, true),
                _ => {
                    let failure = Failure::fatal("08P01", "a shard broke the protocol, or began a COPY FROM");
                    return Err(Trouble::Over(End::Failed(failure)));
                }
            };
            if done {
                link.owed.pop_front();
            }
            if shown && is_first {
                if !streaming && self.out.len() > MAX_HELD {
                    let failure = Failure::fatal("54000", "an answer of several shards is too large to be compared");
                    return Err(Trouble::Over(End::Failed(failure)));
                }
                self.out.extend_from_slice(link.bytes(&place));
            }
            if streaming && self.out.len() > FLUSH_ABOVE {
                self.flush_client().await?;
            }
        }
    }

    async fn sync(&mut self) -> Result<(), End> {
        if !self.skipping
            && let Err(trouble) = self.answer_all().await
        {
            self.fail(trouble).await?;
        }
        self.finish_segment().await?;
        if self.transaction.status() == Status::Idle {
            self.portals.clear();
        }
        self.release_links();
        self.refresh().await;
        let status = self.status();
        message::ready(&mut self.out, status);
        Ok(())
    }

    /// Syncs all shards that have unsynced messages; after an error their implicit transactions are undone.
    pub(super) async fn finish_segment(&mut self) -> Result<(), End> {
        let mut done = self.close_segment().await;
        if done.is_ok() && self.implicit && !self.skipping {
            done = self.commit().await.map(drop);
        }
        if let Err(trouble) = done {
            self.say(trouble)?;
        }
        self.skipping = false;
        self.unanswered = None;
        self.target.clear();
        self.end_implicit().await
    }

    async fn close_segment(&mut self) -> Result<(), Trouble> {
        let undo = self.skipping && self.transaction.status() == Status::Idle;
        let mut trouble = None;
        for shard in 0..self.links.len() {
            let Some(link) = self.link(shard).filter(|link| link.unsynced || link.errored) else { continue };
            if undo && !link.errored {
                // No such portal: the error undoes what this shard has done since the last Sync.
                message::execute(&mut link.out, b"_pgweir_undo");
            }
            message::sync(&mut link.out);
            link.send().await.map_err(lost)?;
            loop {
                let (tag, place) = link.next().await.map_err(lost)?;
                match tag {
                    b'Z' => {
                        link.status = link.body(&place).first().copied().unwrap_or(b'E');
                        break;
                    }
                    b'E' if !undo && !link.errored => trouble = trouble.or(Some(link.bytes(&place).to_vec())),
                    _ => {}
                }
            }
            link.unsynced = false;
            link.errored = false;
            link.skip_owed();
        }
        trouble.map_or(Ok(()), |frame| Err(Trouble::Server(frame)))
    }
}

/// Puts a statement's Parse in front of its use, where it is needed.
fn use_statement(link: &mut super::link::Link, prepared: &Prepared, asked: bool) {
    if prepared.unnamed {
        link.parse_unnamed(&prepared.shared, asked);
    } else {
        link.ensure(&prepared.shared, asked);
    }
}

/// The name that shards know a statement by.
fn server_name(prepared: &Prepared) -> &[u8] {
    if prepared.unnamed { b"" } else { &prepared.shared.name }
}

fn no_statement(name: &[u8]) -> Failure {
    Failure::error("26000", format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name)))
}

fn no_portal(name: &[u8]) -> Failure {
    Failure::error("34000", format!("portal \"{}\" does not exist", String::from_utf8_lossy(name)))
}

fn kind_and_name(body: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let (kind, name) = (reader.u8()?, reader.cstr()?);
    if reader.is_empty() && matches!(kind, b'S' | b'P') { Ok((kind, name)) } else { Err(Malformed) }
}

/// Parameter formats and values of a Bind, from behind its names.
#[allow(clippy::type_complexity, reason = "two lists, named at the only caller")]
fn values(after: &[u8]) -> Result<(Vec<u16>, Vec<Option<&[u8]>>), Malformed> {
    let mut reader = Reader::new(after);
    let formats = (0..reader.u16()?).map(|_| reader.u16()).collect::<Result<Vec<u16>, _>>()?;
    let count = reader.u16()?;
    let mut values = Vec::with_capacity(usize::from(count).min(after.len()));
    for _ in 0..count {
        values.push(match reader.u32()? {
            u32::MAX => None,
            length => Some(reader.bytes(length as usize)?),
        });
    }
    let results = reader.u16()?;
    for _ in 0..results {
        reader.u16()?;
    }
    if reader.is_empty() { Ok((formats, values)) } else { Err(Malformed) }
}
