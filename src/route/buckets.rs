//! Which bucket is whose.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, RingHash, StaticHashRing};

use super::placement::ShardId;

/// Points of each shard on the ring: enough that levelling has little to do.
const POINTS_PER_SHARD: usize = 128;

/// The shard of each of `count` buckets: as a ring would have it, then levelled, so that each shard has its share of them; `weights` say
/// how large the shares are (1 where there is none).
pub fn propose(count: u32, shards: &[String], weights: &[u32]) -> Vec<ShardId> {
    let weight = |shard: usize| weights.get(shard).copied().unwrap_or(1) as usize;
    let nodes = shards.iter().enumerate().map(|(index, name)| {
        Node::new(name.clone()).value(ShardId(index)).quantity(POINTS_PER_SHARD * weight(index).max(1))
    });
    let ring = StaticHashRing::new(StableHash, nodes);
    // Candidates in order of preference; a full shard passes the bucket on to the next one.
    let total = count as usize;
    let sum: usize = (0..shards.len()).map(weight).sum();
    let shares: Vec<usize> = (0..shards.len()).map(|shard| total * weight(shard) / sum.max(1)).collect();
    let mut extra = total - shares.iter().sum::<usize>();
    let mut load = vec![0_usize; shards.len()];
    (0..count)
        .map(|bucket| {
            for node in ring.calc_candidates(&bucket) {
                let shard = node.value;
                let (Some(held), Some(&share)) = (load.get_mut(shard.0), shares.get(shard.0)) else { continue };
                let takes_extra = *held == share && extra > 0 && weight(shard.0) > 0;
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

/// The map with one shard more, whose place is behind the others: it gets its share, and nothing else moves. Each of the others gives what it has
/// beyond its new share, the last of its buckets.
pub fn with_another(map: &[ShardId], shards: usize) -> Vec<ShardId> {
    let mut held = vec![0_usize; shards + 1];
    map.iter().for_each(|shard| held.get_mut(shard.0).into_iter().for_each(|held| *held += 1));
    let share = map.len() / (shards + 1);
    let mut moved = map.to_vec();
    while held.last().is_some_and(|own| *own < share) {
        // From who has most, one at a time, so that the rest is level.
        let Some((richest, _)) =
            held.iter().enumerate().take(shards).max_by_key(|(at, held)| (**held, usize::MAX - at))
        else {
            break;
        };
        let Some(bucket) = moved.iter_mut().rfind(|shard| shard.0 == richest) else { break };
        *bucket = ShardId(shards);
        for (shard, change) in [(richest, -1), (shards, 1)] {
            if let Some(held) = held.get_mut(shard) {
                *held = held.saturating_add_signed(change);
            }
        }
    }
    moved
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
            let map = propose(4096, &names(count), &[]);
            let mut load = vec![0; count];
            map.iter().for_each(|shard| load[shard.0] += 1);
            let (least, most) = (load.iter().min().unwrap(), load.iter().max().unwrap());
            assert!(most - least <= 1, "{load:?}");
        }
        // Rows lie where this says: a change here strands them.
        let map = propose(4096, &["a".to_owned(), "b".to_owned(), "c".to_owned()], &[]);
        let print: u64 = map.iter().enumerate().fold(0, |sum, (index, shard)| {
            sum.wrapping_mul(31).wrapping_add((index as u64 + 1) * (shard.0 as u64 + 1))
        });
        assert_eq!((map[0], map[1], map[4095], print), MAP_OF_ABC, "rows would be stranded");
    }

    const MAP_OF_ABC: (ShardId, ShardId, ShardId, u64) = (ShardId(2), ShardId(1), ShardId(1), 5682472440660504035);

    #[test]
    fn another_shard_moves_few_buckets() {
        let (eight, nine) = (propose(4096, &names(8), &[]), propose(4096, &names(9), &[]));
        let moved = eight.iter().zip(&nine).filter(|(before, after)| before != after).count();
        assert!(moved < 4096 / 4, "{moved} of 4096 moved");
    }

    #[test]
    fn weights_are_shares_and_another_shard_takes_its_own_only() {
        let load = |map: &[ShardId], shard: usize| map.iter().filter(|held| held.0 == shard).count();
        let map = propose(4096, &names(3), &[2, 1, 1]);
        assert_eq!([0, 1, 2].map(|shard| load(&map, shard)), [2048, 1024, 1024]);
        assert_eq!(load(&propose(16, &names(2), &[0, 1]), 1), 16);
        let before = propose(4096, &names(3), &[]);
        let after = with_another(&before, 3);
        assert_eq!([0, 1, 2, 3].map(|shard| load(&after, shard)), [1024; 4]);
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || after.0 == 3));
    }
}
