//! SCRAM-SHA-256 as a server (RFC 5802, RFC 7677), from stored verifiers.
//!
//! A verifier holds no password: the client proves that it knows one. An unknown user gets an
//! exchange with a made-up salt that stays the same between attempts, as in PostgreSQL
//! (`mock_scram_secret`), and fails at the same step after the same work.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, rand::SecureRandom};

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";

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
        Self::parse(&postgres_protocol::password::scram_sha_256(password.as_bytes()))
    }

    /// A verifier that no password matches, the same for the same name as long as `secret` lives.
    pub fn mock(secret: &hmac::Key, user: &str) -> Self {
        let tag = hmac::sign(secret, user.as_bytes());
        let salt = tag.as_ref().iter().take(16).copied().collect();
        Self { iterations: 4096, salt, stored_key: [0; 32], server_key: [0; 32], real: false }
    }
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub struct Exchange {
    verifier: Verifier,
    gs2_header: String,
    nonce: String,
    auth_message: String,
}

/// A message that RFC 5802 does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// How the proof turned out.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client knows the password; the message proves to it that we know it too.
    Proven(String),
    /// It does not, or there is no such user.
    Wrong,
}

/// Compares without telling by the time it takes where two values differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |seen, (x, y)| seen | (x ^ y))) == 0
}

/// 18 random bytes in base64: printable, without commas.
fn fresh_nonce() -> Result<String, Malformed> {
    let mut bytes = [0u8; 18];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| Malformed)?;
    Ok(STANDARD.encode(bytes))
}

fn printable(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|b| matches!(b, 0x21..=0x2b | 0x2d..=0x7e))
}

impl Exchange {
    /// Takes the client's first message; gives the exchange and the server's first message.
    pub fn start(verifier: Verifier, client_first: &[u8]) -> Result<(Self, String), Malformed> {
        Self::start_with(verifier, client_first, &fresh_nonce()?)
    }

    fn start_with(verifier: Verifier, client_first: &[u8], nonce: &str) -> Result<(Self, String), Malformed> {
        let text = std::str::from_utf8(client_first).map_err(|_| Malformed)?;
        // No channel binding was offered, so `p=` is a violation; an authorization identity is not supported.
        let bare = text.strip_prefix("n,,").or_else(|| text.strip_prefix("y,,")).ok_or(Malformed)?;
        let gs2_header = text.get(..3).ok_or(Malformed)?.to_owned();
        let rest = bare.strip_prefix("n=").ok_or(Malformed)?;
        let (_, rest) = rest.split_once(',').ok_or(Malformed)?;
        let client_nonce = rest.strip_prefix("r=").ok_or(Malformed)?;
        let client_nonce = client_nonce.split(',').next().unwrap_or_default();
        if !printable(client_nonce) {
            return Err(Malformed);
        }
        let nonce = format!("{client_nonce}{nonce}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let auth_message = format!("{bare},{server_first}");
        Ok((Self { verifier, gs2_header, nonce, auth_message }, server_first))
    }

    /// Takes the client's final message.
    pub fn finish(self, client_final: &[u8]) -> Result<Outcome, Malformed> {
        let text = std::str::from_utf8(client_final).map_err(|_| Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Malformed)?;
        let mut parts = without_proof.split(',');
        let binding = parts.next().and_then(|part| part.strip_prefix("c=")).ok_or(Malformed)?;
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(Malformed)?;
        if STANDARD.decode(binding).map_err(|_| Malformed)? != self.gs2_header.as_bytes() || nonce != self.nonce {
            return Err(Malformed);
        }
        let proof: [u8; 32] = STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(Malformed)?;
        let auth_message = format!("{},{without_proof}", self.auth_message);
        let sign = |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), auth_message.as_bytes());
        let signature = sign(&self.verifier.stored_key);
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(signature.as_ref()) {
            *byte ^= mask;
        }
        let stored = digest::digest(&digest::SHA256, &client_key);
        let server_signature = sign(&self.verifier.server_key);
        let same = equal(stored.as_ref(), &self.verifier.stored_key);
        if same && self.verifier.real {
            Ok(Outcome::Proven(format!("v={}", STANDARD.encode(server_signature))))
        } else {
            Ok(Outcome::Wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use super::*;

    fn run(verifier: Verifier, password: &[u8]) -> Outcome {
        let mut client = ScramSha256::new(password, ChannelBinding::unsupported());
        let (exchange, first) = Exchange::start(verifier, client.message()).unwrap();
        client.update(first.as_bytes()).unwrap();
        let outcome = exchange.finish(client.message()).unwrap();
        if let Outcome::Proven(message) = &outcome {
            client.finish(message.as_bytes()).unwrap();
        }
        outcome
    }

    #[test]
    fn only_the_password_is_proven() {
        let verifier = Verifier::of_password("secret").unwrap();
        assert!(matches!(run(verifier.clone(), b"secret"), Outcome::Proven(_)));
        assert_eq!(run(verifier, b"Secret"), Outcome::Wrong);
    }

    #[test]
    fn a_mock_never_matches_and_keeps_its_salt() {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, b"instance");
        assert_eq!(Verifier::mock(&secret, "bob"), Verifier::mock(&secret, "bob"));
        assert_ne!(Verifier::mock(&secret, "bob").salt, Verifier::mock(&secret, "eve").salt);
        assert_eq!(run(Verifier::mock(&secret, "bob"), b"x"), Outcome::Wrong);
    }

    #[test]
    fn rejects_what_rfc_5802_does_not_allow() {
        let verifier = || Verifier::of_password("x").unwrap();
        for first in [
            &b""[..],
            b"n,,",
            b"p=tls-unique,,n=,r=abc",
            b"n,a=bob,n=,r=abc",
            b"n,,n=,r=",
            b"n,,n=,r=a\x01",
            b"\xff",
            b"n,,m=x,n=,r=a",
        ] {
            assert!(Exchange::start(verifier(), first).is_err(), "{first:?}");
        }
        for last in ["", "c=biws,r=abcS", "c=biws,r=abc,p=AAAA", "c=eSws,r=abcS,p=AAAA", "c=biws,r=abcS,p=!", "p=x"] {
            let (exchange, _) = Exchange::start_with(verifier(), b"n,,n=,r=abc", "S").unwrap();
            assert!(exchange.finish(last.as_bytes()).is_err(), "{last}");
        }
    }

    #[test]
    fn bad_verifiers_are_no_verifiers() {
        for text in ["", "md5abc", "SCRAM-SHA-256$0:YQ==$a:b", "SCRAM-SHA-256$4096:$YQ==:YQ=="] {
            assert!(Verifier::parse(text).is_none(), "{text}");
        }
    }
}
