//! Rows whose sharding key an UPDATE has changed, on their way to the shard where they belong now.

use std::collections::BTreeMap;

use crate::exec::collect::{Collected, value};
use crate::proxy::care::Care;
use crate::proxy::sharded::collect::{Described, TEXT_ARRAY, bind, parse};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::collect::settings_question;
use crate::route::{Moved, Written};
use crate::wire::body::{Malformed, Reader};
use crate::wire::message::{self, Failure};

/// Columns that the proxy has added: the row's place, and its key.
const ADDED: usize = 2;

/// What the shards' answers say of rows that belong elsewhere.
pub(super) struct Moving<'a> {
    moved: &'a Moved,
    care: Care,
    /// For each shard, the places of rows that it is to give away.
    places: BTreeMap<usize, Vec<String>>,
    bytes: u64,
    most: u64,
}

impl<'a> Moving<'a> {
    /// Nothing yet; of places, `most` bytes may be held.
    pub fn new(moved: &'a Moved, care: Care, most: u64) -> Self {
        Self { moved, care, places: BTreeMap::new(), bytes: 0, most }
    }

    /// What the client gets in the place of this frame of the shard's answer; nothing where it asked for no rows.
    ///
    /// # Errors
    /// The row's key does not say where it belongs, or there are too many.
    pub fn take(&mut self, shard: usize, frame: &[u8]) -> Result<Vec<u8>, Failure> {
        let (tag, body) = (frame.first().copied().unwrap_or_default(), frame.get(5..).unwrap_or_default());
        let mut out = Vec::new();
        match tag {
            b'T' if self.moved.is_returning() => {
                let kept = described(body).map_err(|_| odd())?;
                message::frame(&mut out, b'T', |out| out.extend(kept));
            }
            b'T' => message::empty(&mut out, b'n'),
            b'D' => {
                let (own, place, key) = split(body).map_err(|_| odd())?;
                let belongs = self.moved.key().shard_of(Written::Text(&key)).map_err(|why| {
                    Failure::error(
                        "0A000",
                        format!("refused: the new sharding key does not say where the row belongs: {why}"),
                    )
                    .detail("Rule: key-update. Nothing was changed.")
                    .hint("Give the key as a constant of the column's own type.")
                })?;
                if belongs.0 != shard {
                    self.bytes += place.len() as u64;
                    if self.bytes > self.most {
                        return Err(Failure::error("54000", "too many rows would move to another shard at once")
                            .hint("Update fewer rows at once, or raise sharding.max_collected."));
                    }
                    self.places.entry(shard).or_default().push(place);
                }
                if self.moved.is_returning() {
                    message::frame(&mut out, b'D', |out| out.extend(own));
                }
            }
            _ => out.extend_from_slice(frame),
        }
        Ok(out)
    }
}

impl ShardedSession {
    /// Takes the rows out where they are, and stores them where they belong.
    pub(super) async fn move_rows(&mut self, moving: Moving<'_>) -> Result<(), Trouble> {
        let Moving { moved, care, places, .. } = moving;
        let Some(&first) = places.keys().next() else { return Ok(()) };
        if let Some(why) = self.ask_for_one(first, &moved.hindrance()).await? {
            let what =
                format!("refused: rows of this table cannot move to another shard: {}", String::from_utf8_lossy(&why));
            return Err(Failure::error("0A000", what)
                .detail("Rule: key-update. Nothing was changed.")
                .hint("DELETE the row and INSERT it with the new key, in one transaction.")
                .into());
        }
        let shards = self.every_shard().len();
        let mut taken = Vec::new();
        for (shard, places) in places {
            let link = self.link(shard)?;
            link.query(moved.take(&places).as_bytes());
            link.query(settings_question().as_bytes());
            let rows = self.selected(shard, shards, moved.key()).await?.rows;
            if rows.count() != places.len() as u64 {
                return Err(gone().into());
            }
            taken.push(rows);
        }
        for rows in taken {
            self.store_moved(moved, rows, care).await?;
        }
        Ok(())
    }

    async fn store_moved(&mut self, moved: &Moved, rows: Collected, care: Care) -> Result<(), Trouble> {
        let count = rows.count();
        let has_rows: Vec<bool> = (0..self.every_shard().len()).map(|shard| rows.has_rows(shard)).collect();
        let arrays = rows.arrays_by_part().into_iter().zip(has_rows).enumerate().filter(|(_, (_, has))| *has);
        let mut stored = 0;
        for (shard, (arrays, _)) in arrays {
            self.attach(&[shard], true).await?;
            self.mark(shard, care);
            self.link(shard)?.conn.state.forget_unnamed();
            let arrays: Vec<(u32, Vec<u8>)> = arrays.into_iter().map(|array| (TEXT_ARRAY, array)).collect();
            let mut out = Vec::new();
            parse(&mut out, moved.put(), &Described::default(), &arrays)?;
            bind(&mut out, None, &arrays, &[0, 0]);
            message::execute(&mut out, b"");
            let link = self.link(shard)?;
            link.queue().append(&mut out);
            link.sync();
            stored += self.rows_stored(shard).await?;
        }
        if stored == count { Ok(()) } else { Err(gone().into()) }
    }

    /// How many rows an INSERT has stored.
    async fn rows_stored(&mut self, shard: usize) -> Result<u64, Trouble> {
        let (mut rows, mut error) = (0, None);
        loop {
            let Ok(frame) = self.link(shard)?.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'C' => {
                    let tag = frame.body().split_last().map(|(_, tag)| String::from_utf8_lossy(tag).into_owned());
                    rows = tag.and_then(|tag| tag.rsplit(' ').next()?.parse().ok()).unwrap_or_default();
                }
                b'E' => error = error.or_else(|| Some(frame.bytes.to_vec())),
                b'Z' => return error.map_or(Ok(rows), |error| Err(Trouble::Server(error))),
                _ => {}
            }
        }
    }
}

fn odd() -> Failure {
    Failure::error("08P01", "a shard sent a row that was not asked for")
}

fn gone() -> Failure {
    Failure::error("XX000", "not all rows whose sharding key changed could be moved to their shard")
        .hint("Nothing was changed. Something else writes the same rows in this transaction, such as a trigger.")
}

/// RowDescription without what the proxy has added.
fn described(body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(body);
    let own = usize::from(reader.u16()?).checked_sub(ADDED).ok_or(Malformed)?;
    let mut end = 2;
    for _ in 0..own {
        // Behind the name: table, column, type, size, modifier, format.
        end += reader.cstr()?.len() + 1 + 18;
        reader.bytes(18)?;
    }
    let columns = body.get(2..end).ok_or(Malformed)?;
    Ok([&count(own)?[..], columns].concat())
}

/// A row without what the proxy has added; the row's place and key.
fn split(body: &[u8]) -> Result<(Vec<u8>, String, String), Malformed> {
    let mut reader = Reader::new(body);
    let own = usize::from(reader.u16()?).checked_sub(ADDED).ok_or(Malformed)?;
    let mut end = 2;
    for _ in 0..own {
        end += 4 + value(&mut reader)?.map_or(0, <[u8]>::len);
    }
    let text = |value: Option<&[u8]>| value.and_then(|text| Some(std::str::from_utf8(text).ok()?.to_owned()));
    let place = text(value(&mut reader)?).ok_or(Malformed)?;
    let key = text(value(&mut reader)?).ok_or(Malformed)?;
    let values = body.get(2..end).ok_or(Malformed)?;
    Ok(([&count(own)?[..], values].concat(), place, key))
}

fn count(own: usize) -> Result<[u8; 2], Malformed> {
    Ok(u16::try_from(own).map_err(|_| Malformed)?.to_be_bytes())
}
