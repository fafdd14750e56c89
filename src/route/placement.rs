//! Key value -> bucket -> shard.
//!
//! The map from buckets to shards is proposed by a consistent-hash ring over the shards' names and then levelled, so
//! that no shard has more than one bucket more than another. It follows from the names and the bucket count
//! alone: every process that reads the same configuration routes alike.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, RingHash, StaticHashRing};

use super::key::{KeyType, KeyValue, Written};
use crate::config;

/// A shard's place in the configuration's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(
    /// Index, from 0.
    pub usize,
);

/// Points of each shard on the ring: enough that levelling has little to do.
const POINTS_PER_SHARD: usize = 128;

/// Where a table's rows lie, by the value of its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Placement {
    /// By hash.
    Hash {
        /// The shard of each bucket; their number is a power of two.
        buckets: Vec<ShardId>,
    },
    /// By ranges, sorted, without overlaps: first value in, first value beyond, shard.
    Range(Vec<(Option<KeyValue<'static>>, Option<KeyValue<'static>>, ShardId)>),
    /// By listed values, sorted.
    List(Vec<(KeyValue<'static>, ShardId)>),
}

impl Placement {
    /// The placement that a configuration asks for, for keys of a type. The error says what does not fit.
    pub fn new(settings: &config::Placement, key: KeyType, shards: &[String]) -> Result<Self, String> {
        let shard = |name: &str| {
            shards
                .iter()
                .position(|shard| shard == name)
                .map(ShardId)
                .ok_or_else(|| format!("there is no shard {name}"))
        };
        let value = |text: &str| key.read(Written::Text(text)).map(owned);
        match settings {
            config::Placement::Hash { buckets } => Ok(Self::Hash { buckets: bucket_map(*buckets, shards) }),
            config::Placement::Range(parts) => {
                if !matches!(key, KeyType::Integer(_) | KeyType::Date | KeyType::Timestamp | KeyType::Instant) {
                    return Err("placement by range needs a key of an integer type, date or timestamp".to_owned());
                }
                let mut ranges = Vec::new();
                for part in parts {
                    let from = part.from.as_deref().map(value).transpose()?;
                    let to = part.to.as_deref().map(value).transpose()?;
                    if from.as_ref().zip(to.as_ref()).is_some_and(|(from, to)| from >= to) {
                        return Err(format!("the range to shard {} ends before it begins", part.shard));
                    }
                    ranges.push((from, to, shard(&part.shard)?));
                }
                ranges.sort();
                let overlaps = ranges.windows(2).any(|pair| match pair {
                    [(_, Some(to), _), (Some(from), _, _)] => from < to,
                    _ => true,
                });
                if overlaps { Err("two ranges overlap".to_owned()) } else { Ok(Self::Range(ranges)) }
            }
            config::Placement::List(parts) => {
                let mut values = Vec::new();
                for part in parts {
                    for text in &part.values {
                        values.push((value(text)?, shard(&part.shard)?));
                    }
                }
                values.sort();
                if values.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
                    return Err("one value is listed for two shards".to_owned());
                }
                Ok(Self::List(values))
            }
        }
    }

    /// The shard of a value; `None` for NULL and for values that no range or list names.
    pub fn shard_of(&self, value: &KeyValue<'_>) -> Option<ShardId> {
        match self {
            Self::Hash { buckets } => {
                let bucket = value.hash()? & (buckets.len() as u64 - 1);
                buckets.get(bucket as usize).copied()
            }
            Self::Range(ranges) => ranges
                .iter()
                .find(|(from, to, _)| {
                    *value != KeyValue::Null
                        && from.as_ref().is_none_or(|from| from <= value)
                        && to.as_ref().is_none_or(|to| value < to)
                })
                .map(|(_, _, shard)| *shard),
            Self::List(values) => values
                .binary_search_by(|(listed, _)| listed.cmp(value))
                .ok()
                .and_then(|at| values.get(at))
                .map(|(_, shard)| *shard),
        }
    }
}

fn owned(value: KeyValue<'_>) -> KeyValue<'static> {
    match value {
        KeyValue::Integer(value) => KeyValue::Integer(value),
        KeyValue::Text(text) => KeyValue::Text(text.into_owned().into()),
        KeyValue::Uuid(bytes) => KeyValue::Uuid(bytes),
        KeyValue::Date(days) => KeyValue::Date(days),
        KeyValue::Time(micros) => KeyValue::Time(micros),
        KeyValue::Null => KeyValue::Null,
    }
}

/// The shard of each of `count` buckets.
fn bucket_map(count: u32, shards: &[String]) -> Vec<ShardId> {
    let nodes = shards
        .iter()
        .enumerate()
        .map(|(index, name)| Node::new(name.clone()).value(ShardId(index)).quantity(POINTS_PER_SHARD));
    let ring = StaticHashRing::new(StableHash, nodes);
    // Candidates in order of preference; a full shard passes the bucket on to the next one.
    let total = count as usize;
    let (share, mut extra) = (total / shards.len().max(1), total % shards.len().max(1));
    let mut load = vec![0_usize; shards.len()];
    (0..count)
        .map(|bucket| {
            for node in ring.calc_candidates(&bucket) {
                let shard = node.value;
                let Some(held) = load.get_mut(shard.0) else { continue };
                let takes_extra = *held == share && extra > 0;
                if *held < share || takes_extra {
                    extra -= usize::from(takes_extra);
                    *held += 1;
                    return shard;
                }
            }
            ShardId(0)
        })
        .collect()
}

/// A ring hash that is the same on every machine and in every version: FNV-1a with a final mix.
struct StableHash;

impl RingHash for StableHash {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        item.hash(&mut hasher);
        hasher.finish()
    }
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    // Numbers are fed as eight little-endian bytes whatever the machine.
    fn write_u32(&mut self, n: u32) {
        self.write(&u64::from(n).to_le_bytes());
    }
    fn write_usize(&mut self, n: usize) {
        self.write(&(n as u64).to_le_bytes());
    }
    fn finish(&self) -> u64 {
        // splitmix64's finalizer: FNV alone leaves neighbours close together.
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("shard{n}")).collect()
    }

    #[test]
    fn buckets_are_level_and_never_change() {
        for count in [1, 2, 3, 5, 8] {
            let map = bucket_map(4096, &names(count));
            let mut load = vec![0; count];
            map.iter().for_each(|shard| load[shard.0] += 1);
            let (least, most) = (load.iter().min().unwrap(), load.iter().max().unwrap());
            assert!(most - least <= 1, "{load:?}");
        }
        // Rows lie where this says: a change here strands them.
        let map = bucket_map(4096, &["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        let print: u64 = map.iter().enumerate().fold(0, |sum, (index, shard)| {
            sum.wrapping_mul(31).wrapping_add((index as u64 + 1) * (shard.0 as u64 + 1))
        });
        assert_eq!((map[0], map[1], map[4095], print), MAP_OF_ABC, "rows would be stranded");
    }

    const MAP_OF_ABC: (ShardId, ShardId, ShardId, u64) = (ShardId(2), ShardId(1), ShardId(1), 5682472440660504035);

    #[test]
    fn another_shard_moves_few_buckets() {
        let (eight, nine) = (bucket_map(4096, &names(8)), bucket_map(4096, &names(9)));
        let moved = eight.iter().zip(&nine).filter(|(before, after)| before != after).count();
        assert!(moved < 4096 / 4, "{moved} of 4096 moved");
    }

    #[test]
    fn ranges_and_lists() {
        let part = |from: Option<&str>, to: Option<&str>, shard: &str| config::RangePart {
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            shard: shard.to_owned(),
        };
        let shards = ["a".to_owned(), "b".to_owned()];
        let date = |text| KeyType::Date.read(Written::Text(text)).unwrap();
        let settings = config::Placement::Range(vec![
            part(Some("2026-07-01"), None, "b"),
            part(Some("2026-01-01"), Some("2026-07-01"), "a"),
        ]);
        let range = Placement::new(&settings, KeyType::Date, &shards).unwrap();
        assert_eq!(range.shard_of(&date("2025-12-31")), None);
        assert_eq!(range.shard_of(&date("2026-01-01")), Some(ShardId(0)));
        assert_eq!(range.shard_of(&date("2026-07-01")), Some(ShardId(1)));
        assert_eq!(range.shard_of(&KeyValue::Null), None);
        for bad in [
            vec![part(Some("2026-02-01"), Some("2026-01-01"), "a")],
            vec![part(None, Some("2026-02-01"), "a"), part(Some("2026-01-01"), None, "b")],
            vec![part(None, None, "a"), part(None, None, "b")],
            vec![part(Some("x"), None, "a")],
        ] {
            Placement::new(&config::Placement::Range(bad), KeyType::Date, &shards).unwrap_err();
        }
        let listed = |values: &[&str], shard: &str| config::ListPart {
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            shard: shard.to_owned(),
        };
        let settings = config::Placement::List(vec![listed(&["eu", "uk"], "a"), listed(&["us"], "b")]);
        let list = Placement::new(&settings, KeyType::Text(None), &shards).unwrap();
        assert_eq!(list.shard_of(&KeyValue::Text("us".into())), Some(ShardId(1)));
        assert_eq!(list.shard_of(&KeyValue::Text("US".into())), None);
    }
}
