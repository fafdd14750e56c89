//! What PostgreSQL runs outside a transaction block only (CREATE INDEX CONCURRENTLY and its kin, VACUUM): on one shard after
//! the other.
//!
//! It cannot be on all shards or on none. So the client is told of each shard that is done, an error says where the statement
//! took effect before, and what a failed CREATE INDEX CONCURRENTLY leaves, an index that no query uses, is
//! taken away: with IF NOT EXISTS the same statement goes on where it stopped.

use crate::exec::gather::Gather;
use crate::proxy::sharded::link::Frame;
use crate::proxy::sharded::planned::Planned;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::sql::parse;
use crate::wire::message;

impl ShardedSession {
    /// Runs a statement on every shard by itself. An error stops it.
    pub(super) async fn one_by_one(&mut self, sql: &str, planned: &Planned) -> Result<(), Trouble> {
        let index = parse::parse(sql).ok().and_then(|statement| parse::concurrent_index(&statement));
        let shards = self.every_shard();
        let mut first_answer = Vec::new();
        for (done, &shard) in shards.iter().enumerate() {
            self.attach(&[shard], planned.writes).await?;
            let is_new = match &index {
                Some(name) => self.count(shard, &any_index(name)).await? == Some(0),
                None => false,
            };
            self.mark(shard, planned.care);
            self.link(shard)?.query(sql.as_bytes());
            let take = |gather: &mut Gather, shard, frame: Frame<'_>| {
                gather.take(shard, frame.bytes);
                frame.tag == b'Z'
            };
            match self.gather(&[shard], take).await {
                Ok(frames) if done == 0 => first_answer = frames,
                Ok(_) => {}
                Err(trouble) => {
                    if let Some(name) = index.as_deref().filter(|_| is_new) {
                        self.take_away(shard, name).await;
                    }
                    self.say_where(&shards, done);
                    return Err(trouble);
                }
            }
            let name = self.shared.shard_name(shard);
            let text = format!("pgweir: done on shard {name} ({} of {})", done + 1, shards.len());
            message::notice(&mut self.to_client, &text, "The statement runs on one shard after the other.");
            self.send().await?;
        }
        self.to_client.extend_from_slice(&first_answer);
        Ok(())
    }

    /// Tells the client where a statement that has failed took effect, and where it did not.
    fn say_where(&mut self, shards: &[usize], done: usize) {
        let names = |shards: &[usize]| -> String {
            let names: Vec<&str> = shards.iter().map(|&shard| self.shared.shard_name(shard)).collect();
            names.join(", ")
        };
        let (before, after) = shards.split_at(done);
        let text = match before {
            [] => return,
            _ => format!("pgweir: it was done on {}, and not on {}", names(before), names(after)),
        };
        message::warning(&mut self.to_client, "01000", &text);
    }

    /// Drops what a CREATE INDEX CONCURRENTLY has left that failed. What cannot be dropped now is told.
    async fn take_away(&mut self, shard: usize, name: &str) {
        if !matches!(self.count(shard, &invalid_index(name)).await, Ok(Some(1))) {
            return;
        }
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {name}");
        if !matches!(self.count(shard, &drop).await, Ok(None)) {
            let shard = self.shared.shard_name(shard).to_owned();
            let text =
                format!("pgweir: the invalid index {name} is left on shard {shard}: drop it before you try again");
            message::warning(&mut self.to_client, "01000", &text);
        }
    }

    /// Asks a shard for a number; none where the statement gives no row.
    async fn count(&mut self, shard: usize, sql: &str) -> Result<Option<u64>, Trouble> {
        self.attach(&[shard], false).await?;
        let number = self.ask_for_one(shard, sql).await?;
        Ok(number.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()))
    }
}

/// How many indexes of that name the search path finds. `name` is as it stands in SQL.
fn any_index(name: &str) -> String {
    format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})",
        literal(name)
    )
}

fn invalid_index(name: &str) -> String {
    format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_index WHERE NOT indisvalid AND indexrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})",
        literal(name)
    )
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
