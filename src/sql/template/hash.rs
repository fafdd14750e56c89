//! The two hashes of a template.
//!
//! A template is a sequence of 61-bit words: each token is one word, or several when its text is longer than seven bytes,
//! with a tag in the upper five bits that says what kind of token begins. The sequence determines the template: names and operators hold
//! no zero byte, so padding is never text, and every other token either has one word or ends in a byte that is not zero.
//!
//! **The key** is a pair of polynomials over the field of 2^61 - 1 elements, with the words as coefficients (led by a one), taken at
//! two points drawn at random when the process starts. Two different sequences of at most n words are two different polynomials of degree at most n,
//! which agree at no more than n points: a pair of statements collides at both points with a
//! probability of at most (n / (2^61 - 3))^2, over the choice of the points, however cleverly the statements were made. For statements of a
//! thousand words that is 2^-102. An adversary who never sees a key or the points learns nothing of them from cache hits and misses that
//! a collision had not already told.
//!
//! **The fingerprint** is 64 bits of folded multiplication over the collapsed words, the same on every machine. It is not
//! keyed; see [`super::Fingerprint`].

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use super::keyword::{self, CHUNK, Keyword};

/// Upper bits of a word: what kind of token begins here.
pub(super) mod tag {
    const SHIFT: u32 = 56;
    /// The token before goes on.
    pub const MORE: u64 = 1 << SHIFT;
    /// A name, folded.
    pub const IDENT: u64 = 2 << SHIFT;
    /// A name in quotes that is not the same without.
    pub const QUOTED_IDENT: u64 = 3 << SHIFT;
    /// `U&".."`
    pub const UNICODE_IDENT: u64 = 4 << SHIFT;
    /// An operator.
    pub const OPERATOR: u64 = 5 << SHIFT;
    /// Punctuation, with its code.
    pub const PUNCTUATION: u64 = 6 << SHIFT;
    /// [`crate::sql::lexer::TokenKind::Junk`]
    pub const JUNK: u64 = 7 << SHIFT;
    /// [`crate::sql::lexer::TokenKind::Other`]
    pub const OTHER: u64 = 8 << SHIFT;
    /// An integer that is part of the template.
    pub const KEPT_INTEGER: u64 = 9 << SHIFT;
    /// Any constant or parameter, in the fingerprint.
    pub const CONSTANT: u64 = 10 << SHIFT;
    /// A number and its kind, in the key.
    pub const NUMBER: u64 = 11 << SHIFT;
    /// A string and its kind, in the key.
    pub const STRING: u64 = 12 << SHIFT;
    /// `$n` and n, in the key.
    pub const PARAM: u64 = 13 << SHIFT;
    /// The settings are not the default, in the key.
    pub const SETTING: u64 = 14 << SHIFT;
    /// The text ends inside a token or comment.
    pub const INCOMPLETE: u64 = 15 << SHIFT;
}

/// 2^61 - 1, a prime.
const PRIME: u64 = (1 << 61) - 1;

/// The two points, drawn once in a process.
fn points() -> [u64; 2] {
    static POINTS: OnceLock<[u64; 2]> = OnceLock::new();
    *POINTS.get_or_init(|| {
        // The standard library seeds this from the operating system; SipHash spreads the seed over as many bits as are asked for.
        let random = RandomState::new();
        // Zero and one would make the polynomial forget its words or their order.
        let point = |number: u64| random.hash_one(number) % (PRIME - 2) + 2;
        [point(1), point(2)]
    })
}

/// The key while it grows.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHash {
    points: [u64; 2],
    sums: [u64; 2],
}

impl KeyHash {
    pub fn new() -> Self {
        Self { points: points(), sums: [1, 1] }
    }

    /// Takes a word below 2^61 - 1.
    #[inline(always)]
    pub fn push(&mut self, word: u64) {
        for (sum, point) in self.sums.iter_mut().zip(self.points) {
            *sum = multiply(*sum, point) + word;
        }
    }

    /// 122 bits, spread over 128 without losing any.
    pub fn finish(self) -> u128 {
        let [first, second] = self.sums.map(reduce);
        let mut bits = u128::from(first) | u128::from(second) << 61;
        // Each step can be undone, so different sums stay different.
        bits = (bits ^ (bits >> 67)).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        bits = (bits ^ (bits >> 61)).wrapping_mul(0xD6E8_FEB8_6659_FD93_A076_1D64_78BD_642F);
        bits ^ (bits >> 64)
    }
}

/// `a * b` modulo the prime, not fully reduced: below 2^61 + 8 for `a` below 2^63 and `b` below the prime.
#[inline(always)]
fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let sum = (product as u64 & PRIME) + (product >> 61) as u64;
    (sum & PRIME) + (sum >> 61)
}

/// The one representative below the prime, of a value below 2^63.
fn reduce(value: u64) -> u64 {
    let folded = (value & PRIME) + (value >> 61);
    if folded >= PRIME { folded - PRIME } else { folded }
}

/// The fingerprint of collapsed words. Changing it changes every baseline and saved report.
pub(super) fn fingerprint(words: &[u64]) -> u64 {
    const STEP: u64 = 0xA076_1D64_78BD_642F;
    let mut state = 0xE703_7ED1_A0B4_28DB_u64;
    for word in words {
        state = fold(state ^ word, STEP).wrapping_add(*word);
    }
    state ^= words.len() as u64;
    state = (state ^ (state >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    state = (state ^ (state >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    state ^ (state >> 32)
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The text of a token in pieces of seven bytes, low byte first.
pub(super) struct Chunks<'a> {
    sql: &'a [u8],
    at: usize,
    end: usize,
    folded: bool,
}

impl<'a> Chunks<'a> {
    /// ASCII letters in lower case.
    pub fn folded(sql: &'a [u8], at: usize, end: usize) -> Self {
        Self { sql, at, end, folded: true }
    }

    /// As they are.
    pub fn exact(sql: &'a [u8], at: usize, end: usize) -> Self {
        Self { sql, at, end, folded: false }
    }
}

impl Iterator for Chunks<'_> {
    type Item = u64;

    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        let length = self.end.checked_sub(self.at).filter(|length| *length > 0)?.min(CHUNK);
        let bytes = match self.sql.get(self.at..self.at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
            Some(bytes) => u64::from_le_bytes(bytes),
            None => tail(self.sql.get(self.at..).unwrap_or_default()),
        };
        self.at += length;
        let bytes = bytes & ((1 << (8 * length)) - 1);
        Some(if self.folded { fold_case(bytes) } else { bytes })
    }
}

/// Up to eight bytes at the end of the text.
#[cold]
fn tail(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// Eight bytes with `A` to `Z` made lower case.
#[inline(always)]
fn fold_case(bytes: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = bytes & (0x7F * ONES);
    // The top bit of each byte says whether its low seven bits are at least 'A', or beyond 'Z'.
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let beyond_z = low + (0x7F - b'Z' as u64) * ONES;
    let upper = (from_a ^ beyond_z) & !bytes & (0x80 * ONES);
    bytes | (upper >> 2)
}

/// True for the text of a quoted name that could stand without quotes, keywords apart. Not for names beyond ASCII: in a
/// database with a single-byte encoding PostgreSQL folds those too, when they are not quoted.
pub(super) fn is_folded_name(name: &[u8]) -> bool {
    static PLAIN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'$');
            byte += 1;
        }
        table
    };
    matches!(name.first(), Some(b'a'..=b'z' | b'_')) && name.iter().all(|byte| PLAIN[*byte as usize])
}

/// What keyword a folded name is spelled like.
pub(super) fn keyword_of(name: &[u8]) -> Keyword {
    let mut chunks = Chunks::exact(name, 0, name.len());
    let words = [(); 3].map(|()| chunks.next().unwrap_or(0));
    if chunks.next().is_some() { Keyword::Word } else { keyword::lookup(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_ascii_letters_only() {
        let text = *b"@AZ[`az{";
        assert_eq!(fold_case(u64::from_le_bytes(text)).to_le_bytes(), *b"@az[`az{");
        let high = [0xC1, 0xDA, 0x80, 0xFF, b'M', b'0', 0, 0x7F];
        assert_eq!(fold_case(u64::from_le_bytes(high)).to_le_bytes(), [0xC1, 0xDA, 0x80, 0xFF, b'm', b'0', 0, 0x7F]);
    }

    #[test]
    fn multiplies_in_the_field() {
        for (a, b) in [(PRIME - 1, PRIME - 1), (1 << 62, PRIME - 1), ((1 << 63) - 1, PRIME - 1), (12345, 6789), (0, 5)]
        {
            let exact = (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64;
            assert_eq!(reduce(multiply(a, b)), exact);
        }
        assert_eq!(reduce(PRIME), 0);
        assert_eq!(reduce((1 << 63) - 1), ((1u64 << 63) - 1) % PRIME);
    }

    #[test]
    fn keys_depend_on_every_word_and_its_place() {
        let key = |words: &[u64]| {
            let mut hash = KeyHash::new();
            words.iter().for_each(|word| hash.push(*word));
            hash.finish()
        };
        let sequences: [&[u64]; 6] = [&[], &[0], &[0, 0], &[1, 2], &[2, 1], &[1, 2, 0]];
        for (place, one) in sequences.iter().enumerate() {
            for other in &sequences[place + 1..] {
                assert_ne!(key(one), key(other), "{one:?} {other:?}");
            }
            assert_eq!(key(one), key(one));
        }
    }

    #[test]
    fn fingerprints_are_the_same_on_every_machine() {
        assert_eq!(fingerprint(&[]), fingerprint(&[]));
        assert_ne!(fingerprint(&[1, 2]), fingerprint(&[2, 1]));
        assert_ne!(fingerprint(&[0]), fingerprint(&[0, 0]));
    }
}
