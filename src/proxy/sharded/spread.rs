//! Writes that several shards do, each for its own rows: one answer for all.

use crate::exec::collect::Collected;
use crate::exec::concat::{Concat, Verdict};
use crate::exec::transaction::Status;
use crate::proxy::care::Care;
use crate::proxy::given::Given;
use crate::proxy::sharded::ask::Row;
use crate::proxy::sharded::collect::{Asked, COMPUTES, Described, TEXT_ARRAY, bind, parse};
use crate::proxy::sharded::moved::Moving;
use crate::proxy::sharded::planned::Values;
use crate::proxy::sharded::selected::Select;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::{Parameter, ShardId, Shards, Spread, Written};
use crate::sql::template::Binding;
use crate::wire::message::{self, Failure};

/// The time of the transaction on the first shard, in a form that reads back whatever the session's settings are.
const TIME: &str =
    "SELECT pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.now()), 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";
/// Most bytes of rows that are held to come back in the order in which they were sent.
const MAX_HELD_BYTES: usize = 64 << 20;

/// Rows that come back, of each shard, until their order is known.
pub(super) struct Held {
    /// For each shard, which of the rows are its own.
    own: Vec<Vec<bool>>,
    rows: Vec<Vec<Vec<u8>>>,
    bytes: usize,
}

/// What has been heard of the shards so far.
struct Heard<'a> {
    concat: Concat,
    held: Option<Held>,
    moving: Option<Moving<'a>>,
}

impl ShardedSession {
    /// Has each target write its own rows.
    pub(super) async fn by_spreading(
        &mut self,
        targets: Shards,
        from: Shards,
        asked: &Asked<'_>,
        care: Care,
    ) -> Result<(), Trouble> {
        let targets: Vec<usize> = targets.iter().collect();
        let plan = self.plan_of(asked.sql)?;
        let changed = || Failure::error("XX000", "the plan of this statement has changed meanwhile");
        let spread = plan.spread().ok_or_else(changed)?;
        let (made_up, own) = self.made_up(spread).await?;
        let has_rows = |at: usize| own.as_ref().is_none_or(|own| own.get(at).is_some_and(|rows| rows.contains(&true)));
        let targets: Vec<usize> = targets.into_iter().filter(|shard| has_rows(*shard)).collect();
        let Some(&first) = targets.first() else { return Err(changed().into()) };
        if (targets.len() > 1 || spread.moved().is_some()) && self.transaction.status() == Status::Idle {
            self.begin_implicit();
        }
        let from: Vec<usize> = if spread.collect.widths().is_empty() { Vec::new() } else { from.iter().collect() };
        let mut reading = from.clone();
        reading.extend((spread.asks_the_time() || spread.key_of_query().is_some()).then_some(COMPUTES));
        self.attach(&reading, false).await?;
        // Rows that a query gives may be for fewer.
        let writing = if spread.key_of_query().is_some() { &targets[..1] } else { &targets[..] };
        self.attach(writing, spread.key_of_query().is_none()).await?;
        for &shard in reading.iter().chain(writing) {
            self.mark(shard, care);
            self.link(shard)?.conn.state.forget_unnamed();
        }
        let described = self.ask_what_it_is(first, asked).await?;
        let given = asked.given()?;
        if let Some(key) = spread.key_of_query() {
            let select = Select { spread, key, asked, described: &described, given: given.as_ref() };
            return self.store_selected(&targets, &from, &select).await;
        }
        let mut more = match from.as_slice() {
            [] => Vec::new(),
            from => {
                let collected: Collected =
                    self.rows_of(from, &spread.collect, asked, &described, given.as_ref()).await?;
                collected.arrays().map(|array| (TEXT_ARRAY, array)).collect()
            }
        };
        if spread.asks_the_time() {
            // Of no declared type: the statement casts it.
            more.push((0, self.the_time().await?));
        }
        let parameters = parameters(given.as_ref(), &described);
        let bindings: Vec<Binding> = self.scanner.scan(asked.sql.as_bytes()).bindings.to_vec();
        let values = Values { sql: asked.sql, bindings: &bindings, parameters: &parameters };
        let own: Vec<Vec<bool>> = match own {
            Some(own) => targets.iter().filter_map(|shard| own.get(*shard).cloned()).collect(),
            None => targets.iter().map(|shard| plan.own_rows(ShardId(*shard), &values)).collect(),
        };
        check_rows(&own)?;
        let own_formats = given.as_ref().map_or(&[0, 0][..], |given| given.result_formats);
        let formats = if spread.moved().is_some() { with_text(own_formats) } else { own_formats.to_vec() };
        for (&shard, rows) in targets.iter().zip(&own) {
            let text = spread.text(asked.sql, described.parameters.len() + 1, rows, &made_up);
            let mut out = Vec::new();
            parse(&mut out, text, &described, &more)?;
            bind(&mut out, given.as_ref(), &more, &formats);
            message::named(&mut out, b'D', b'P', b"");
            message::execute(&mut out, b"");
            let link = self.link(shard)?;
            link.queue().append(&mut out);
            link.sync();
        }
        drop(more);
        let held = spread.returns_in_order().then(|| Held { rows: vec![Vec::new(); own.len()], own, bytes: 0 });
        let moving = spread.moved().map(|moved| Moving::new(moved, care, self.shared.max_collected()));
        self.hear_writers(&targets, asked, held, moving).await
    }

    /// The values that one shard makes up for the rows of VALUES; and, where these are keys, which rows are each shard's.
    async fn made_up(&mut self, spread: &Spread) -> Result<(Vec<Row>, Option<Vec<Vec<bool>>>), Trouble> {
        let Some((filled, rows)) = spread.filled() else { return Ok((Vec::new(), None)) };
        self.attach(&[COMPUTES], false).await?;
        let values = self.ask(COMPUTES, &filled.question(rows)).await?;
        let odd = || Failure::error("08P01", "a shard did not compute the default values that it was asked for");
        if values.len() != rows {
            return Err(odd().into());
        }
        let Some(key) = filled.key() else { return Ok((values, None)) };
        let mut own = vec![vec![false; rows]; self.every_shard().len()];
        for (at, row) in values.iter().enumerate() {
            let text = row.get(key.index).ok_or_else(odd)?.as_deref().and_then(|text| std::str::from_utf8(text).ok());
            let shard = text.ok_or_else(|| "it is NULL".to_owned()).and_then(|text| key.shard_of(Written::Text(text)));
            let shard = shard.map_err(|why| {
                Failure::error(
                    "0A000",
                    format!("refused: the default of the sharding key does not say where the row belongs: {why}"),
                )
                .detail("Rule: generated. Nothing was stored.")
                .hint("Give the key as a constant.")
            })?;
            *own.get_mut(shard.0).and_then(|rows| rows.get_mut(at)).ok_or_else(odd)? = true;
        }
        Ok((values, Some(own)))
    }

    /// The transaction's time on the computing shard, as text.
    pub(super) async fn the_time(&mut self) -> Result<Vec<u8>, Trouble> {
        let odd = || Trouble::Reply(Failure::error("08P01", "a shard did not tell the time"));
        self.ask_for_one(COMPUTES, TIME).await?.ok_or_else(odd)
    }

    pub(super) async fn hear_writers(
        &mut self,
        shards: &[usize],
        asked: &Asked<'_>,
        held: Option<Held>,
        moving: Option<Moving<'_>>,
    ) -> Result<(), Trouble> {
        self.start(shards).await;
        let mut heard = Heard { concat: Concat::new(None, asked.described), held, moving };
        let mut trouble = None;
        heard.concat.limit_to(asked.most);
        for (at, &shard) in shards.iter().enumerate() {
            if at > 0 {
                heard.concat.next();
            }
            match self.hear_writer((at, shard), asked, &mut heard, trouble.is_some()).await {
                Ok(()) => {}
                Err(Trouble::Gone) => return Err(Trouble::Gone),
                Err(other) => trouble = trouble.or(Some(other)),
            }
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        let Heard { concat, held, moving } = heard;
        if let Some(moving) = moving {
            self.move_rows(moving).await?;
        }
        let mut left = if asked.most == 0 { usize::MAX } else { asked.most as usize };
        for row in held.into_iter().flat_map(Held::in_order) {
            if left > 0 {
                left -= 1;
                self.to_client.extend_from_slice(&row);
                self.send_if_full().await?;
            }
        }
        concat.finish(&mut self.to_client).map_err(Trouble::Reply)
    }

    async fn hear_writer(
        &mut self,
        (at, shard): (usize, usize),
        asked: &Asked<'_>,
        heard: &mut Heard<'_>,
        in_vain: bool,
    ) -> Result<(), Trouble> {
        let (mut trouble, mut own) = (None, Vec::new());
        loop {
            if !self.link(shard)?.has_frame() {
                self.send_if_full().await?;
            }
            let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else {
                return Err(Trouble::Lost(shard));
            };
            let Ok(frame) = link.frame().await else { return Err(self.lose(shard)) };
            let (mut tag, mut bytes) = (frame.tag, frame.bytes);
            if let Some(moving) = heard.moving.as_mut().filter(|_| trouble.is_none() && matches!(tag, b'T' | b'D')) {
                match moving.take(shard, bytes) {
                    Ok(instead) => own = instead,
                    Err(failure) => trouble = Some(Trouble::Reply(failure)),
                }
                let Some(first) = own.first() else { continue };
                (tag, bytes) = (*first, &own);
            }
            let is_answer = asked.values.is_some() || !matches!(tag, b'1' | b'2' | b'n');
            match tag {
                b'Z' => return trouble.map_or(Ok(()), Err),
                b'E' if trouble.is_none() => trouble = Some(Trouble::Server(bytes.to_vec())),
                // The statement is prepared for the proxy's own use.
                b'1' => {}
                b'n' if !asked.described => {}
                _ if trouble.is_some() || in_vain => {}
                _ if heard.concat.take(bytes) != Verdict::Forward || !is_answer => {}
                b'D' if heard.held.is_some() => {
                    let taken = heard.held.as_mut().map_or(Ok(()), |held| held.take(at, bytes));
                    trouble = taken.err().map(Trouble::Reply);
                }
                _ => self.to_client.extend_from_slice(bytes),
            }
        }
    }
}

/// Formats of the client's columns, followed by two of text: where one format or none is for all, it is for these too, as text is the same in both.
fn with_text(formats: &[u8]) -> Vec<u8> {
    let count = formats.first_chunk().map_or(0, |count| u16::from_be_bytes(*count));
    if count < 2 {
        return formats.to_vec();
    }
    let each = formats.get(2..).unwrap_or_default();
    [&count.saturating_add(2).to_be_bytes()[..], each, &[0; 4]].concat()
}

/// A row that no shard takes for its own, or two, would be lost, or doubled.
fn check_rows(own: &[Vec<bool>]) -> Result<(), Failure> {
    let rows = own.first().map_or(0, Vec::len);
    let once = |row: usize| own.iter().filter(|own| own.get(row) == Some(&true)).count() == 1;
    if (0..rows).all(once) {
        return Ok(());
    }
    Err(Failure::error("0A000", "refused: the shard of a row is not certain")
        .detail("Rule: spread-rows.")
        .hint("Declare the type of the parameter that is the sharding key."))
}

impl Held {
    fn take(&mut self, at: usize, row: &[u8]) -> Result<(), Failure> {
        self.bytes += row.len();
        if self.bytes > MAX_HELD_BYTES {
            return Err(Failure::error("54000", "the rows that this INSERT returns are too many to be put in order")
                .hint("Insert fewer rows at once, or leave RETURNING out."));
        }
        if let Some(rows) = self.rows.get_mut(at) {
            rows.push(row.to_vec());
        }
        Ok(())
    }

    /// The rows in the order of VALUES; one after the other where a shard returned more or fewer than it was sent (a trigger may leave rows out).
    fn in_order(self) -> Vec<Vec<u8>> {
        let as_sent =
            self.own.iter().zip(&self.rows).all(|(own, rows)| own.iter().filter(|own| **own).count() == rows.len());
        if !as_sent {
            return self.rows.into_iter().flatten().collect();
        }
        let count = self.own.first().map_or(0, Vec::len);
        let mut rows: Vec<_> = self.rows.into_iter().map(Vec::into_iter).collect();
        let shard_of = |row: usize| self.own.iter().position(|own| own.get(row) == Some(&true));
        (0..count).filter_map(|row| rows.get_mut(shard_of(row)?)?.next()).collect()
    }
}

/// The values of Bind as the router reads them.
fn parameters<'a>(given: Option<&Given<'a>>, described: &Described) -> Vec<Parameter<'a>> {
    let Some(given) = given else { return Vec::new() };
    let one = |(index, value): (usize, &Option<&'a [u8]>)| Parameter {
        type_oid: described.parameters.get(index).copied().unwrap_or_default(),
        binary: given.format(index) == 1,
        value: *value,
    };
    given.values.iter().enumerate().map(one).collect()
}
