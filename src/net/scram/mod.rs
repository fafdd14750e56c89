//! SCRAM-SHA-256, both sides of it (RFC 5802, RFC 7677), with channel binding (RFC 5929) and without.
//!
//! ```text
//! Verifier (pg_authid.rolpassword) -> server::Exchange  a client proves that it knows the password
//! Keys     (of a password, or of   -> client::Exchange  we prove it to a server, and it to us
//!           a client's own proof)
//! ```
//!
//! A verifier holds no password. What a client proves with, though, is all that a server with the same
//! verifier wants to see: `Outcome::Proven` gives these keys, so that a login can be passed on.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2, rand::SecureRandom};

pub mod client;
mod server;

pub use server::{Channel, Exchange, Fault, Outcome};

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The mechanism's name where it is bound to the TLS connection.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Most iterations that are computed for anybody. PostgreSQL's default is 4096; each one is work that a peer can order.
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// Iterations of verifiers that are made here, PostgreSQL's default.
const ITERATIONS: u32 = 4096;

/// What is stored of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
    /// Whether any password can match it.
    real: bool,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(..)")
    }
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, as `pg_authid` stores it.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|&count| count > 0)?,
            salt: STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            stored_key: STANDARD.decode(stored).ok()?.try_into().ok()?,
            server_key: STANDARD.decode(server).ok()?.try_into().ok()?,
            real: true,
        })
    }

    /// The verifier of a plain password, with a fresh salt.
    pub fn of_password(password: &str) -> Option<Self> {
        let mut salt = [0u8; 16];
        ring::rand::SystemRandom::new().fill(&mut salt).ok()?;
        let keys = Keys::of_password(password, &salt, ITERATIONS)?;
        Some(Self {
            iterations: keys.iterations,
            stored_key: keys.stored_key(),
            salt: keys.salt,
            server_key: keys.server_key,
            real: true,
        })
    }

    /// A verifier that no password matches, the same for the same name as long as `secret` lives.
    pub fn mock(secret: &hmac::Key, user: &str) -> Self {
        let tag = hmac::sign(secret, user.as_bytes());
        let salt = tag.as_ref().iter().take(16).copied().collect();
        Self { iterations: ITERATIONS, salt, stored_key: [0; 32], server_key: [0; 32], real: false }
    }

    /// Whether this is the password; as much work for a mock. `None` where it would be more work than is done for anybody.
    pub fn matches(&self, password: &str) -> Option<bool> {
        let keys = Keys::of_password(password, &self.salt, self.iterations)?;
        let same = equal(&keys.stored_key(), &self.stored_key);
        Some(same && self.real)
    }

    /// How much work a password is with it.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

/// What proves a password under one salt: as good as the password itself where the verifier is the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    salt: Vec<u8>,
    iterations: u32,
    client_key: [u8; 32],
    server_key: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// The keys of a password. `None` above [`MAX_ITERATIONS`].
    pub fn of_password(password: &str, salt: &[u8], iterations: u32) -> Option<Self> {
        let count = NonZeroU32::new(iterations).filter(|count| count.get() <= MAX_ITERATIONS)?;
        // As PostgreSQL: a password that cannot be prepared is taken as it is.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let mut salted = [0u8; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, count, salt, prepared.as_bytes(), &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let (client_key, server_key) =
            (array(&hmac::sign(&key, b"Client Key")), array(&hmac::sign(&key, b"Server Key")));
        Some(Self { salt: salt.to_vec(), iterations, client_key, server_key })
    }

    /// Whether they are keys under this salt and count.
    pub fn are_for(&self, salt: &[u8], iterations: u32) -> bool {
        self.iterations == iterations && self.salt == salt
    }

    fn stored_key(&self) -> [u8; 32] {
        let digest = digest::digest(&digest::SHA256, &self.client_key);
        digest.as_ref().try_into().unwrap_or_default()
    }
}

fn array(tag: &hmac::Tag) -> [u8; 32] {
    tag.as_ref().try_into().unwrap_or_default()
}

fn sign(key: &[u8], message: &str) -> [u8; 32] {
    array(&hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes()))
}

fn xor(mut a: [u8; 32], b: &[u8; 32]) -> [u8; 32] {
    a.iter_mut().zip(b).for_each(|(byte, mask)| *byte ^= mask);
    a
}

/// Compares without telling by the time it takes where two values differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |seen, (x, y)| seen | (x ^ y))) == 0
}

/// 18 random bytes in base64: printable, without commas.
fn fresh_nonce() -> Option<String> {
    let mut bytes = [0u8; 18];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok()?;
    Some(STANDARD.encode(bytes))
}

fn printable(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|b| matches!(b, 0x21..=0x2b | 0x2d..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mock_keeps_its_salt() {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, b"instance");
        assert_eq!(Verifier::mock(&secret, "bob"), Verifier::mock(&secret, "bob"));
        assert_ne!(Verifier::mock(&secret, "bob").salt, Verifier::mock(&secret, "eve").salt);
        assert_eq!(Verifier::mock(&secret, "bob").matches("x"), Some(false));
    }

    #[test]
    fn a_verifier_of_one_iteration_is_one() {
        let text = "SCRAM-SHA-256$1:aGFyZGVuaW5nLXNhbHQxNg==$zNzZNWZZUjCtTHJ5ALWVeupcfnZ6JZdAeRAgroJGc5M=:\
                    mRAFpP0KJ0K6KHtCSRW1UPwQD7nCaSN18C+i5jYfBOc=";
        assert_eq!(Verifier::parse(text).unwrap().matches("secret"), Some(true));
        // Two letters in another order make another key, which no password has.
        assert_eq!(Verifier::parse(&text.replace("NzZN", "NzNZ")).unwrap().matches("secret"), Some(false));
    }

    #[test]
    fn bad_verifiers_are_no_verifiers() {
        for text in ["", "md5abc", "SCRAM-SHA-256$0:YQ==$a:b", "SCRAM-SHA-256$4096:$YQ==:YQ=="] {
            assert!(Verifier::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn passwords_are_prepared_as_postgresql_does() {
        // U+00AD is mapped to nothing, U+2168 to "IX"; what is not allowed at all is taken as it is.
        let text = postgres_protocol::password::scram_sha_256("I\u{ad}X \u{2168}".as_bytes());
        let verifier = Verifier::parse(&text).unwrap();
        assert_eq!((verifier.matches("IX IX"), verifier.matches("IX")), (Some(true), Some(false)));
        assert_eq!(Verifier::of_password("a\u{7}").unwrap().matches("a\u{7}"), Some(true));
    }

    #[test]
    fn nobody_orders_work_without_end() {
        assert!(Keys::of_password("x", b"salt", MAX_ITERATIONS + 1).is_none());
        assert!(Keys::of_password("x", b"salt", 0).is_none());
    }
}
