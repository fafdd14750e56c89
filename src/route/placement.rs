//! Key value -> bucket -> shard.
//!
//! The map from buckets to shards is the configuration's, or one that follows from the shards' names alone (see [`super::buckets`]): every
//! process that reads the same configuration routes alike.

use super::buckets;
use super::key::{KeyType, KeyValue, Written};
use crate::config;

/// A shard's place in the configuration's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(
    /// Index, from 0.
    pub usize,
);

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
            config::Placement::Hash { buckets, map } if map.is_empty() => {
                Ok(Self::Hash { buckets: buckets::propose(*buckets, shards, &[]) })
            }
            config::Placement::Hash { buckets, map } => {
                let mut held = vec![ShardId(0); *buckets as usize];
                for (name, numbers) in map {
                    let shard = shard(name)?;
                    for bucket in numbers.iter() {
                        *held.get_mut(bucket as usize).ok_or_else(|| format!("there is no bucket {bucket}"))? = shard;
                    }
                }
                Ok(Self::Hash { buckets: held })
            }
            config::Placement::Range(parts) => {
                if !matches!(key, KeyType::Integer(_) | KeyType::Date | KeyType::Timestamp | KeyType::TimestampTz) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
