//! Queries that one shard computes from rows which others send.
//!
//! First the computing shard is asked what the statement is, as it was written: errors in it are PostgreSQL's own, and so are the types of parameters and
//! columns. Then all shards send their rows, in turns, so that what is too much is noticed while little is under way. Then the statement
//! runs on the computing shard with the rows as parameters, and must have the columns that were promised.

use crate::exec::collect::Collected;
use crate::exec::concat::{Columns, named_types};
use crate::proxy::care::Care;
use crate::proxy::given::Given;
use crate::proxy::sharded::extended::Step;
use crate::proxy::sharded::merge::Part;
use crate::proxy::sharded::names::Target;
use crate::proxy::sharded::prepare::malformed;
use crate::proxy::sharded::scatter::{complete, in_one_go};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::fold::{Fold, Folding};
use crate::route::{Collect, ShardId, Shards, TemplatePlan};
use crate::wire::body::{Reader, error_fields};
use crate::wire::frame::HEADER_LEN;
use crate::wire::message::{self, Failure};

/// The shard that computes. Numbers of types that users have made are its own, as are those in system catalogs.
pub(super) const COMPUTES: usize = 0;
/// How many rows are asked for at a time.
const TURN: u32 = 10_000;
/// The number of the type `text[]`.
pub(super) const TEXT_ARRAY: u32 = 1009;
/// The number of the type `timestamp with time zone`.
const TIMESTAMPTZ: u32 = 1184;

/// A statement as the client sent it.
pub(super) struct Asked<'a> {
    /// Its text.
    pub sql: &'a str,
    /// Its text with the terminator and the types of its parameters, as Parse has them.
    pub statement: &'a [u8],
    /// What Bind has behind the names; absent in the simple protocol.
    pub values: Option<&'a [u8]>,
    /// The client is told of the columns.
    pub described: bool,
    /// So many rows are wanted now; 0 for all.
    pub most: u32,
}

impl Asked<'_> {
    /// The values that were bound.
    pub fn given(&self) -> Result<Option<Given<'_>>, Trouble> {
        let read = |rest| Given::read(&mut Reader::new(rest)).map_err(malformed);
        self.values.map(read).transpose()
    }
}

/// What shards are asked for.
struct Question<'a> {
    /// Each one's statement.
    text: &'a (dyn Fn(ShardId) -> String + Sync),
    /// The time as a parameter behind the client's own, if it is one.
    time: &'a [(u32, Vec<u8>)],
}

/// What a shard says of a statement.
#[derive(Default)]
pub(super) struct Described {
    /// Types of its parameters.
    pub parameters: Vec<u32>,
    /// The body of RowDescription.
    pub columns: Vec<u8>,
}

impl ShardedSession {
    /// Answers a statement from rows of these shards.
    pub(super) async fn by_collecting(&mut self, shards: Shards, asked: &Asked<'_>, care: Care) -> Result<(), Trouble> {
        let plan = self.plan_of(asked.sql)?;
        let changed = || Failure::error("XX000", "the plan of this statement has changed meanwhile");
        let collect = plan.collect().ok_or_else(changed)?;
        let mut all: Vec<usize> = shards.iter().chain([COMPUTES]).collect();
        all.sort_unstable();
        all.dedup();
        self.attach(&all, false).await?;
        for &shard in &all {
            self.mark(shard, care);
            // Their unnamed statements are replaced.
            self.link(shard)?.conn.state.forget_unnamed();
        }
        let described = self.ask_what_it_is(COMPUTES, asked).await?;
        let given = asked.given()?;
        let time = match collect.asks_the_time() {
            true => vec![(TIMESTAMPTZ, self.the_time().await?)],
            false => Vec::new(),
        };
        let shards: Vec<usize> = shards.iter().collect();
        let folded = self.folding(collect, asked, &described).await?;
        let first = described.parameters.len() + 1;
        let (collected, answer) = match &folded {
            Some((folding, names, fold)) => {
                let question = |_: ShardId| folding.question(collect, fold, asked.sql, first);
                let (widths, question) = ([folding.width()], Question { text: &question, time: &time });
                let rows = self.rows_by(&shards, &widths, &question, &described, given.as_ref()).await?;
                (rows, folding.answer(fold, asked.sql, first, names))
            }
            None => {
                let question = |shard| collect.question(asked.sql, shard, first);
                let question = Question { text: &question, time: &time };
                let rows = self.rows_by(&shards, &collect.widths(), &question, &described, given.as_ref()).await?;
                (rows, collect.answer(asked.sql, first))
            }
        };
        let arrays: Vec<(u32, Vec<u8>)> = collected.arrays().map(|array| (TEXT_ARRAY, array)).chain(time).collect();
        let mut out = Vec::new();
        parse(&mut out, answer, &described, &arrays)?;
        bind(&mut out, given.as_ref(), &arrays, given.as_ref().map_or(&[0, 0][..], |given| given.result_formats));
        drop(arrays);
        message::named(&mut out, b'D', b'P', b"");
        execute(&mut out, asked.most);
        let link = self.link(COMPUTES)?;
        // Everything before it was answered.
        *link.queue() = out;
        link.sync();
        let done = self.pass_answer(asked, &described).await;
        if let Ok(link) = self.link(COMPUTES) {
            link.queue().shrink_to(0);
        }
        done
    }

    /// The plan of this very text: places in a template's plan are those of another one.
    pub(super) fn plan_of(&mut self, sql: &str) -> Result<TemplatePlan, Trouble> {
        let snapshot = self.shared.current().ok_or_else(|| Failure::error("08006", "the catalog has not been read"))?;
        let session = self.session_facts()?;
        let scan = self.scanner.scan(sql.as_bytes());
        Ok(snapshot.plan_afresh(sql, &scan, session))
    }

    /// How groups can be collected in the place of rows, with the names of the answer's columns; `None` where they cannot.
    pub(super) async fn folding<'a>(
        &mut self,
        collect: &'a Collect,
        asked: &Asked<'_>,
        described: &Described,
    ) -> Result<Option<(Folding, Vec<String>, &'a Fold)>, Trouble> {
        let Some(fold) = collect.fold() else { return Ok(None) };
        let Some(promised) = named_types(&described.columns) else { return Ok(None) };
        let probed = self.describe(COMPUTES, &with_types(&fold.probe(asked.sql), described, &[])).await?;
        let types = named_types(&probed.columns).unwrap_or_default();
        let types: Vec<_> = types.into_iter().map(|(_, kind)| kind).collect();
        let names = promised.into_iter().map(|(name, _)| name).collect();
        Ok(fold.with_types(&types).map(|folding| (folding, names, fold)))
    }

    /// Asks a shard what a statement is.
    pub(super) async fn ask_what_it_is(&mut self, shard: usize, asked: &Asked<'_>) -> Result<Described, Trouble> {
        self.describe(shard, asked.statement).await
    }

    /// Asks a shard what a statement is, whose text is followed by the types of its parameters.
    async fn describe(&mut self, shard: usize, statement: &[u8]) -> Result<Described, Trouble> {
        let link = self.link(shard)?;
        message::parse(link.queue(), b"", statement);
        message::named(link.queue(), b'D', b'S', b"");
        link.sync();
        let (mut described, mut error) = (Described::default(), None);
        loop {
            let Ok(frame) = self.link(shard)?.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b't' => {
                    let mut reader = Reader::new(frame.body());
                    let count = reader.u16().map_err(malformed)?;
                    let types: Result<Vec<u32>, _> = (0..count).map(|_| reader.u32()).collect();
                    described.parameters = types.map_err(malformed)?;
                }
                b'T' => described.columns = frame.body().to_vec(),
                b'E' => error = error.or_else(|| Some(frame.bytes.to_vec())),
                b'Z' => return error.map_or(Ok(described), |error| Err(Trouble::Server(error))),
                _ => {}
            }
        }
    }

    /// Collects what these shards are asked for.
    pub(super) async fn rows_of(
        &mut self,
        shards: &[usize],
        collect: &Collect,
        asked: &Asked<'_>,
        described: &Described,
        given: Option<&Given<'_>>,
    ) -> Result<Collected, Trouble> {
        let question = |shard| collect.question(asked.sql, shard, described.parameters.len() + 1);
        let question = Question { text: &question, time: &[] };
        self.rows_by(shards, &collect.widths(), &question, described, given).await
    }

    /// Collects the answers to a question, in parts of so many columns.
    async fn rows_by(
        &mut self,
        shards: &[usize],
        widths: &[usize],
        question: &Question<'_>,
        described: &Described,
        given: Option<&Given<'_>>,
    ) -> Result<Collected, Trouble> {
        for &shard in shards {
            let statement = with_types(&(question.text)(ShardId(shard)), described, question.time);
            let queue = self.link(shard)?.queue();
            message::parse(queue, b"", &statement);
            bind(queue, given, question.time, &[0, 0]);
            turn(queue);
        }
        self.start(shards).await;
        let mut collected = Collected::new(widths, self.shared.max_collected());
        let mut trouble = None;
        for &shard in shards {
            if let Err(other) = self.rows_of_one(shard, &mut collected, trouble.is_some()).await {
                trouble = trouble.or(Some(other));
            }
        }
        trouble.map_or(Ok(collected), Err)
    }

    /// Takes a shard's rows; after trouble, only until it is ready for the next statement.
    async fn rows_of_one(&mut self, shard: usize, collected: &mut Collected, in_vain: bool) -> Result<(), Trouble> {
        let mut trouble = None;
        if in_vain {
            self.link(shard)?.sync();
        }
        loop {
            let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else {
                return Err(Trouble::Lost(shard));
            };
            let Ok(frame) = link.frame().await else { return Err(self.lose(shard)) };
            let ends = match frame.tag {
                b'Z' => return trouble.map_or(Ok(()), Err),
                b'D' if !in_vain && trouble.is_none() => {
                    trouble = collected.take(frame.body()).err().map(Trouble::Reply);
                    false
                }
                b'E' if trouble.is_none() => {
                    trouble = Some(Trouble::Server(frame.bytes.to_vec()));
                    true
                }
                b's' if trouble.is_none() && !in_vain => {
                    turn(link.queue());
                    false
                }
                b'C' | b's' => true,
                _ => false,
            };
            if ends && !in_vain {
                link.sync();
            }
        }
    }

    async fn pass_answer(&mut self, asked: &Asked<'_>, described: &Described) -> Result<(), Trouble> {
        let (mut trouble, mut rows) = (None, false);
        loop {
            if !self.link(COMPUTES)?.has_frame() {
                self.send_if_full().await?;
            }
            let Some(link) = self.links.get_mut(COMPUTES).and_then(Option::as_mut) else {
                return Err(Trouble::Lost(COMPUTES));
            };
            let Ok(frame) = link.frame().await else { return Err(self.lose(COMPUTES)) };
            match frame.tag {
                b'Z' => return trouble.map_or(Ok(()), Err),
                b'E' => {
                    trouble = trouble.or_else(|| Some(as_refusal(frame.bytes, rows)));
                    if matches!(trouble, Some(Trouble::Reply(_))) {
                        self.shared.expire();
                    }
                }
                _ if trouble.is_some() => {}
                b'n' if asked.values.is_some() && asked.described => self.to_client.extend_from_slice(frame.bytes),
                b'2' if asked.values.is_some() => self.to_client.extend_from_slice(frame.bytes),
                b'T' => match Columns::of_both(&described.columns, frame.body()) {
                    Some(body) if asked.described => {
                        message::frame(&mut self.to_client, b'T', |out| out.extend_from_slice(&body));
                    }
                    Some(_) => {}
                    None => {
                        // The catalog may be older than the table.
                        self.shared.expire();
                        trouble = Some(Trouble::Reply(other_columns()));
                    }
                },
                b'D' | b'C' | b's' | b'N' => {
                    rows |= frame.tag == b'D';
                    self.to_client.extend_from_slice(frame.bytes);
                }
                _ => {}
            }
        }
    }

    /// Runs a group of messages about one statement whose text or values are the proxy's own on its shards.
    pub(super) async fn run_rewritten(&mut self, target: Target, group: &mut Vec<Step>) -> Result<(), Trouble> {
        let one = Target::Shard(match target {
            Target::Spread(shards, _) | Target::Merge(shards, ..) => shards.iter().next().unwrap_or(COMPUTES),
            _ => COMPUTES,
        });
        let mut before = std::mem::take(group);
        let is_about_portal = |step: &Step| !matches!(step, Step::Parse(_) | Step::DescribeStatement(_));
        let Some(first) = before.iter().position(is_about_portal) else {
            // A statement that is not bound yet needs one shard to be looked at.
            return self.run_group(one, &mut before).await;
        };
        let mut query = before.split_off(first);
        let last = query.iter().position(|step| matches!(step, Step::Execute(_))).map_or(query.len(), |at| at + 1);
        let mut after = query.split_off(last);
        let wanted = complete(&mut query)?;
        if after.iter().any(|step| matches!(step, Step::Execute(_) | Step::DescribePortal(_))) {
            return Err(in_one_go().into());
        }
        self.run_group(one, &mut before).await?;
        if let Some(Step::Bind { named, planned, rest, .. }) = query.first() {
            let asked = Asked {
                sql: &named.sql,
                statement: &named.statement.rest,
                values: Some(rest),
                described: wanted.described,
                most: wanted.most,
            };
            match target {
                Target::Spread(shards, from) => self.by_spreading(shards, from, &asked, planned.care).await?,
                Target::Merge(shards, limit, offset) => {
                    self.by_merging(shards, Part { offset, limit }, &asked, planned.care).await?
                }
                Target::Collect(shards) => self.by_collecting(shards, &asked, planned.care).await?,
                _ => return Err(Trouble::Reply(Failure::error("XX000", "a group of messages has no target"))),
            }
        }
        self.run_group(one, &mut after).await
    }
}

/// A statement as Parse has it, with the client's parameters and these besides.
pub(super) fn with_types(text: &str, described: &Described, more: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let oids = described.parameters.iter().chain(more.iter().map(|(oid, _)| oid));
    let types: Vec<u8> = oids.flat_map(|oid| oid.to_be_bytes()).collect();
    let count = u16::try_from(described.parameters.len() + more.len()).unwrap_or(u16::MAX).to_be_bytes();
    [text.as_bytes(), b"\0", &count, &types].concat()
}

/// Asks for the next rows of the unnamed portal.
fn turn(queue: &mut Vec<u8>) {
    execute(queue, TURN);
    queue.extend_from_slice(b"H\0\0\0\x04");
}

pub(super) fn execute(queue: &mut Vec<u8>, most: u32) {
    message::frame(queue, b'E', |out| {
        message::cstr(out, b"");
        out.extend(most.to_be_bytes());
    });
}

/// Prepares the unnamed statement with the client's parameters and these besides: type and value.
pub(super) fn parse(
    queue: &mut Vec<u8>,
    text: String,
    described: &Described,
    more: &[(u32, Vec<u8>)],
) -> Result<(), Failure> {
    let mut statement = text.into_bytes();
    statement.push(0);
    let count = u16::try_from(described.parameters.len() + more.len())
        .map_err(|_| Failure::error("54000", "the statement and the rows it needs have more than 65535 parameters"))?;
    statement.extend(count.to_be_bytes());
    for oid in described.parameters.iter().chain(more.iter().map(|(oid, _)| oid)) {
        statement.extend(oid.to_be_bytes());
    }
    message::parse(queue, b"", &statement);
    Ok(())
}

/// Binds the unnamed statement to the client's values and these besides.
pub(super) fn bind(queue: &mut Vec<u8>, given: Option<&Given<'_>>, more: &[(u32, Vec<u8>)], result_formats: &[u8]) {
    let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let values = given.map(|given| given.values.as_slice()).unwrap_or_default();
    message::frame(queue, b'B', |out| {
        out.extend([0, 0]);
        out.extend(count(values.len() + more.len()));
        for index in 0..values.len() {
            out.extend(given.map_or(0, |given| given.format(index)).to_be_bytes());
        }
        more.iter().for_each(|_| out.extend([0, 0]));
        out.extend(count(values.len() + more.len()));
        for value in values {
            match value {
                Some(value) => {
                    out.extend(length(value));
                    out.extend_from_slice(value);
                }
                None => out.extend((-1i32).to_be_bytes()),
            }
        }
        for (_, value) in more {
            out.extend(length(value));
            out.extend_from_slice(value);
        }
        out.extend_from_slice(result_formats);
    });
}

/// The statement is right as it was written, so that an error in it afterwards comes of the rows being no table.
fn as_refusal(error: &[u8], rows: bool) -> Trouble {
    let fields = error_fields(error.get(HEADER_LEN..).unwrap_or_default());
    if rows || !fields.code.starts_with(b"42") || fields.code == b"42501" {
        return Trouble::Server(error.to_vec());
    }
    let why = String::from_utf8_lossy(fields.message).into_owned();
    let what = format!("refused: over rows of several shards PostgreSQL says: {why}");
    let hint = match fields.code {
        b"42803" => "Name every column in GROUP BY that is not in an aggregate.",
        _ => "Name tables by an alias, and their columns by that.",
    };
    Trouble::Reply(Failure::error("0A000", what).detail("Rule: collect-rows.").hint(hint))
}

fn other_columns() -> Failure {
    Failure::error("0A000", "refused: over rows of several shards the columns would have other types")
        .detail("Rule: collect-rows.")
        .hint("Name the columns instead of a whole row.")
}
