//! PostgreSQL's extended hash functions, so that a shard can verify placement with `satisfies_hash_partition`.
//!
//! Bob Jenkins' lookup3 as in PostgreSQL's `src/common/hashfn.c`, read as little-endian words; per-type functions as in
//! `src/backend/access/hash/hashfunc.c`; the combination as in `compute_partition_hash_value` (`partbounds.c`).

/// `HASH_PARTITION_SEED` (partbounds.h).
pub(super) const SEED: u64 = 0x7A5B_2236_7996_DCFD;

/// What `hash_combine64(0, hash)` adds for the first and only key column (hashutils.h).
pub(super) const COMBINE: u64 = 0x49A0_F4DD_15E5_A8E3;

/// The partition hash of a key whose extended hash is `hash`.
fn combined(hash: u64) -> u64 {
    hash.wrapping_add(COMBINE)
}

/// Of an int2, int4 or int8: equal numbers hash alike whatever their width.
pub(super) fn of_integer(value: i64) -> u64 {
    let low = value as u32;
    let high = (value >> 32) as u32;
    combined(hash_word(low ^ if value >= 0 { high } else { !high }))
}

/// Of a date: days since 2000-01-01, hashed as an int4.
pub(super) fn of_word(value: u32) -> u64 {
    combined(hash_word(value))
}

/// Of text, varchar, bytea, uuid; of bpchar without its trailing blanks.
pub(super) fn of_bytes(bytes: &[u8]) -> u64 {
    combined(hash_bytes(bytes))
}

struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(length: u32) -> Self {
        let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
        let mut state = Self { a: start, b: start, c: start };
        state.a = state.a.wrapping_add((SEED >> 32) as u32);
        state.b = state.b.wrapping_add(SEED as u32);
        state.mix();
        state
    }

    fn mix(&mut self) {
        let Self { a, b, c } = self;
        *a = a.wrapping_sub(*c) ^ c.rotate_left(4);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(6);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(8);
        *b = b.wrapping_add(*a);
        *a = a.wrapping_sub(*c) ^ c.rotate_left(16);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(19);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(4);
        *b = b.wrapping_add(*a);
    }

    fn finish(mut self) -> u64 {
        let Self { a, b, c } = &mut self;
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(14));
        *a = (*a ^ *c).wrapping_sub(c.rotate_left(11));
        *b = (*b ^ *a).wrapping_sub(a.rotate_left(25));
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(16));
        *a = (*a ^ *c).wrapping_sub(c.rotate_left(4));
        *b = (*b ^ *a).wrapping_sub(a.rotate_left(14));
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(24));
        (u64::from(*b) << 32) | u64::from(*c)
    }
}

fn hash_word(word: u32) -> u64 {
    let mut state = State::new(4);
    state.a = state.a.wrapping_add(word);
    state.finish()
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut state = State::new(bytes.len() as u32);
    let mut chunks = bytes.chunks_exact(12);
    for chunk in &mut chunks {
        let (a, b, c) = words(chunk, 0);
        state.a = state.a.wrapping_add(a);
        state.b = state.b.wrapping_add(b);
        state.c = state.c.wrapping_add(c);
        state.mix();
    }
    // The last word keeps its lowest byte for the length, which State::new has added.
    let (a, b, c) = words(chunks.remainder(), 8);
    state.a = state.a.wrapping_add(a);
    state.b = state.b.wrapping_add(b);
    state.c = state.c.wrapping_add(c);
    state.finish()
}

/// Up to twelve bytes as three little-endian words; the third is shifted left by `shift` bits.
fn words(bytes: &[u8], shift: u32) -> (u32, u32, u32) {
    let mut word = [0_u32; 3];
    for (index, byte) in bytes.iter().enumerate().take(12) {
        let by = 8 * (index as u32 % 4) + if index >= 8 { shift } else { 0 };
        word[index / 4] |= u32::from(*byte) << by;
    }
    (word[0], word[1], word[2])
}
