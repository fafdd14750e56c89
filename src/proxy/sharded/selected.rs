//! INSERT .. SELECT over shards: the query's rows, each to the shard of its key.

use crate::exec::collect::{Collected, value};
use crate::proxy::given::Given;
use crate::proxy::sharded::collect::{Asked, COMPUTES, Described, TEXT_ARRAY, bind, parse};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::collect::settings_question;
use crate::route::copy::KeyField;
use crate::route::{Spread, Written};
use crate::wire::body::{Malformed, Reader};
use crate::wire::message::{self, Failure};

/// What is to be done.
pub(super) struct Select<'a> {
    pub spread: &'a Spread,
    pub key: &'a KeyField,
    pub asked: &'a Asked<'a>,
    pub described: &'a Described,
    pub given: Option<&'a Given<'a>>,
}

/// What the query gave: rows by shard, and the columns' types by number and modifier.
pub(super) struct Selected {
    pub rows: Collected,
    types: Vec<(u32, u32)>,
}

impl ShardedSession {
    /// Runs the query on one shard, and stores its rows on each one's.
    pub(super) async fn store_selected(
        &mut self,
        shards: &[usize],
        from: &[usize],
        select: &Select<'_>,
    ) -> Result<(), Trouble> {
        let Select { spread, asked, described, given, .. } = *select;
        let more: Vec<(u32, Vec<u8>)> = match from {
            [] => Vec::new(),
            from => {
                let collected = self.rows_of(from, &spread.collect, asked, described, given).await?;
                collected.arrays().map(|array| (TEXT_ARRAY, array)).collect()
            }
        };
        let first = described.parameters.len() + 1;
        let mut out = Vec::new();
        parse(&mut out, spread.query(asked.sql, first), described, &more)?;
        // The values go on as text.
        bind(&mut out, given, &more, &[0, 0]);
        drop(more);
        message::named(&mut out, b'D', b'P', b"");
        message::execute(&mut out, b"");
        let link = self.link(COMPUTES)?;
        link.queue().append(&mut out);
        link.sync();
        link.query(settings_question().as_bytes());
        let selected = self.selected(COMPUTES, shards.len(), select.key).await?;
        let types = self.type_names(&selected.types).await?;
        let has_rows: Vec<bool> = (0..shards.len()).map(|part| selected.rows.has_rows(part)).collect();
        // Where there is nothing to store, one shard says so.
        let nothing = !has_rows.contains(&true);
        let mut writing = Vec::new();
        let parts = selected.rows.arrays_by_part().into_iter().zip(has_rows).enumerate();
        for (shard, arrays) in
            parts.filter(|(at, (_, has))| *has || nothing && *at == 0).map(|(at, (arrays, _))| (at, arrays))
        {
            let Some(&shard) = shards.get(shard) else { continue };
            self.attach(&[shard], true).await?;
            self.link(shard)?.conn.state.forget_unnamed();
            writing.push((shard, arrays));
        }
        for (shard, arrays) in &mut writing {
            let arrays: Vec<(u32, Vec<u8>)> =
                std::mem::take(arrays).into_iter().map(|array| (TEXT_ARRAY, array)).collect();
            let mut out = Vec::new();
            parse(&mut out, spread.store(asked.sql, first, &types), described, &arrays)?;
            bind(&mut out, given, &arrays, given.map_or(&[0, 0][..], |given| given.result_formats));
            message::named(&mut out, b'D', b'P', b"");
            message::execute(&mut out, b"");
            let link = self.link(*shard)?;
            link.queue().append(&mut out);
            link.sync();
        }
        let writing: Vec<usize> = writing.into_iter().map(|(shard, _)| shard).collect();
        self.hear_writers(&writing, asked, None, None).await
    }

    /// Takes the rows of a shard's query for each of `shards`, and after them what the session's settings are.
    pub(super) async fn selected(&mut self, shard: usize, shards: usize, key: &KeyField) -> Result<Selected, Trouble> {
        let mut types = Vec::new();
        let mut rows: Option<Collected> = None;
        let (mut trouble, mut ready) = (None, 0);
        while ready < 2 {
            let Ok(frame) =
                self.links.get_mut(shard).and_then(Option::as_mut).ok_or(Trouble::Lost(shard))?.frame().await
            else {
                return Err(self.lose(shard));
            };
            match frame.tag {
                b'Z' => ready += 1,
                b'E' => trouble = trouble.or_else(|| Some(Trouble::Server(frame.bytes.to_vec()))),
                _ if trouble.is_some() => {}
                b'T' if ready == 0 => {
                    types = columns(frame.body()).map_err(|_| odd())?;
                    let widths = vec![types.len(); shards];
                    rows = Some(Collected::new(&widths, self.shared.max_collected()));
                }
                b'D' => {
                    let taken = match &mut rows {
                        Some(rows) if ready == 1 => rows.take(frame.body()),
                        Some(rows) => place(rows, key, frame.body()),
                        None => Err(odd()),
                    };
                    trouble = taken.err().map(Trouble::Reply);
                }
                _ => {}
            }
        }
        match (trouble, rows) {
            (Some(trouble), _) => Err(trouble),
            (None, Some(rows)) => Ok(Selected { rows, types }),
            (None, None) => Err(odd().into()),
        }
    }

    /// The types as SQL has them.
    async fn type_names(&mut self, types: &[(u32, u32)]) -> Result<Vec<String>, Trouble> {
        let one = |(oid, modifier): &(u32, u32)| format!("pg_catalog.format_type({oid}, {})", modifier.cast_signed());
        let list: Vec<String> = types.iter().map(one).collect();
        let rows = self.ask(COMPUTES, &format!("SELECT {}", list.join(", "))).await?;
        let names: Option<Vec<Vec<u8>>> = rows.into_iter().next().unwrap_or_default().into_iter().collect();
        let names = names.filter(|names| names.len() == types.len()).ok_or_else(odd)?;
        Ok(names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }
}

fn odd() -> Failure {
    Failure::error("08P01", "a shard answered in a way that is not understood")
}

fn columns(body: &[u8]) -> Result<Vec<(u32, u32)>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    let one = |reader: &mut Reader<'_>| {
        reader.cstr()?;
        reader.bytes(6)?;
        let oid = reader.u32()?;
        reader.u16()?;
        let modifier = reader.u32()?;
        reader.u16()?;
        Ok((oid, modifier))
    };
    (0..count).map(|_| one(&mut reader)).collect()
}

/// Adds a row of the query to those of its key's shard.
fn place(rows: &mut Collected, key: &KeyField, body: &[u8]) -> Result<(), Failure> {
    let refuse = |why: String| {
        Failure::error(
            "0A000",
            format!("refused: the sharding key of a selected row does not say where it belongs: {why}"),
        )
        .detail("Rule: spread-select. Nothing was stored.")
        .hint("Let the query give the key as a value of the column's own type.")
    };
    let mut reader = Reader::new(body);
    let count = reader.u16().map_err(|_| odd())?;
    let values: Result<Vec<Option<&[u8]>>, Malformed> = (0..count).map(|_| value(&mut reader)).collect();
    let values = values.map_err(|_| odd())?;
    let Some(Some(text)) = values.get(key.index) else { return Err(refuse("it is NULL, or not there".to_owned())) };
    let text = std::str::from_utf8(text).map_err(|_| refuse("it is not UTF-8".to_owned()))?;
    let shard = key.shard_of(Written::Text(text)).map_err(refuse)?;
    rows.push(shard.0, &values)
}
