//! The server's side: a client proves a password to us.
//!
//! An unknown user gets an exchange with a made-up salt that stays the same between attempts, as in
//! PostgreSQL (`mock_scram_secret`), and fails at the same step after the same work.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;

use super::{Keys, MECHANISM, MECHANISM_PLUS, Verifier, equal, fresh_nonce, printable, sign, xor};

/// How SCRAM is bound to the connection it runs over.
#[derive(Debug, Clone, Copy)]
pub enum Channel<'a> {
    /// It cannot be: only the plain mechanism was offered.
    Unbound,
    /// `tls-server-end-point`: both mechanisms were offered, this is the hash of our certificate.
    EndPoint(&'a [u8]),
}

impl Channel<'_> {
    /// The mechanisms to offer, the best first.
    pub fn mechanisms(self) -> &'static [&'static str] {
        match self {
            Channel::Unbound => &[MECHANISM],
            Channel::EndPoint(_) => &[MECHANISM_PLUS, MECHANISM],
        }
    }
}

/// Why an exchange ended before it came to a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A message that RFC 5802 does not allow.
    Malformed,
    /// The client says that it could have used channel binding but that it was not offered. It was: somebody between
    /// us took the offer away.
    Downgraded,
    /// The client is bound to another TLS connection than ours.
    OtherChannel,
}

/// How the proof turned out.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client knows the password; the message proves to it that we know it too, the keys are what it proved with.
    Proven(String, Keys),
    /// It does not, or there is no such user.
    Wrong,
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub struct Exchange {
    verifier: Verifier,
    /// What the client must repeat: its GS2 header and the channel's hash.
    binding: Vec<u8>,
    nonce: String,
    auth_message: String,
}

impl Exchange {
    /// Takes the client's first message for the mechanism that it chose; gives the exchange and the server's first
    /// message.
    pub fn start(
        verifier: Verifier,
        channel: Channel<'_>,
        mechanism: &str,
        client_first: &[u8],
    ) -> Result<(Self, String), Fault> {
        let nonce = fresh_nonce().ok_or(Fault::Malformed)?;
        Self::start_with(verifier, channel, mechanism, client_first, &nonce)
    }

    fn start_with(
        verifier: Verifier,
        channel: Channel<'_>,
        mechanism: &str,
        client_first: &[u8],
        nonce: &str,
    ) -> Result<(Self, String), Fault> {
        if !channel.mechanisms().contains(&mechanism) {
            return Err(Fault::Malformed);
        }
        let text = std::str::from_utf8(client_first).map_err(|_| Fault::Malformed)?;
        let (flag, rest) = text.split_once(',').ok_or(Fault::Malformed)?;
        let hash: &[u8] = match (flag, mechanism == MECHANISM_PLUS, channel) {
            ("n", false, _) | ("y", false, Channel::Unbound) => b"",
            ("y", false, Channel::EndPoint(_)) => return Err(Fault::Downgraded),
            ("p=tls-server-end-point", true, Channel::EndPoint(hash)) => hash,
            _ => return Err(Fault::Malformed),
        };
        // An authorization identity is not supported; a mandatory extension (`m=`) is not known.
        let bare = rest.strip_prefix(',').ok_or(Fault::Malformed)?;
        let header = text.get(..flag.len() + 2).ok_or(Fault::Malformed)?;
        let (_, rest) = bare.strip_prefix("n=").and_then(|rest| rest.split_once(',')).ok_or(Fault::Malformed)?;
        let client_nonce = rest.strip_prefix("r=").ok_or(Fault::Malformed)?;
        let client_nonce = client_nonce.split(',').next().unwrap_or_default();
        if !printable(client_nonce) {
            return Err(Fault::Malformed);
        }
        let nonce = format!("{client_nonce}{nonce}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let auth_message = format!("{bare},{server_first}");
        let binding = [header.as_bytes(), hash].concat();
        Ok((Self { verifier, binding, nonce, auth_message }, server_first))
    }

    /// Takes the client's final message.
    pub fn finish(self, client_final: &[u8]) -> Result<Outcome, Fault> {
        let text = std::str::from_utf8(client_final).map_err(|_| Fault::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let mut parts = without_proof.split(',');
        let binding = parts.next().and_then(|part| part.strip_prefix("c=")).ok_or(Fault::Malformed)?;
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(Fault::Malformed)?;
        if nonce != self.nonce {
            return Err(Fault::Malformed);
        }
        let binding = STANDARD.decode(binding).map_err(|_| Fault::Malformed)?;
        if !equal(&binding, &self.binding) {
            return Err(if self.binding.starts_with(b"p=") { Fault::OtherChannel } else { Fault::Malformed });
        }
        let proof: [u8; 32] =
            STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(Fault::Malformed)?;
        let auth_message = format!("{},{without_proof}", self.auth_message);
        let client_key = xor(proof, &sign(&self.verifier.stored_key, &auth_message));
        let stored = digest::digest(&digest::SHA256, &client_key);
        let server_signature = sign(&self.verifier.server_key, &auth_message);
        let Verifier { salt, iterations, stored_key, server_key, real } = self.verifier;
        if equal(stored.as_ref(), &stored_key) && real {
            let keys = Keys { salt, iterations, client_key, server_key };
            Ok(Outcome::Proven(format!("v={}", STANDARD.encode(server_signature)), keys))
        } else {
            Ok(Outcome::Wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use ring::hmac;

    use super::*;

    fn run(verifier: Verifier, password: &[u8]) -> Outcome {
        let mut client = ScramSha256::new(password, ChannelBinding::unsupported());
        let (exchange, first) = Exchange::start(verifier, Channel::Unbound, MECHANISM, client.message()).unwrap();
        client.update(first.as_bytes()).unwrap();
        let outcome = exchange.finish(client.message()).unwrap();
        if let Outcome::Proven(message, _) = &outcome {
            client.finish(message.as_bytes()).unwrap();
        }
        outcome
    }

    #[test]
    fn only_the_password_is_proven() {
        let verifier = Verifier::of_password("secret").unwrap();
        let Outcome::Proven(_, keys) = run(verifier.clone(), b"secret") else { panic!() };
        assert_eq!(keys, Keys::of_password("secret", &verifier.salt, 4096).unwrap());
        assert_eq!(run(verifier, b"Secret"), Outcome::Wrong);
        let secret = hmac::Key::new(hmac::HMAC_SHA256, b"instance");
        assert_eq!(run(Verifier::mock(&secret, "bob"), b"x"), Outcome::Wrong);
    }

    #[test]
    fn rejects_what_rfc_5802_does_not_allow() {
        let start = |first: &[u8]| {
            let verifier = Verifier::of_password("x").unwrap();
            Exchange::start_with(verifier, Channel::Unbound, MECHANISM, first, "S")
        };
        for first in [
            &b""[..],
            b"n,,",
            b"p=tls-unique,,n=,r=abc",
            b"p=tls-server-end-point,,n=,r=abc",
            b"n,a=bob,n=,r=abc",
            b"n,,n=,r=",
            b"n,,n=,r=a\x01",
            b"\xff",
            b"n,,m=x,n=,r=a",
        ] {
            assert!(start(first).is_err(), "{first:?}");
        }
        for last in ["", "c=biws,r=abcS", "c=biws,r=abc,p=AAAA", "c=eSws,r=abcS,p=AAAA", "c=biws,r=abcS,p=!", "p=x"] {
            let (exchange, _) = start(b"n,,n=,r=abc").unwrap();
            assert!(exchange.finish(last.as_bytes()).is_err(), "{last}");
        }
    }

    #[test]
    fn a_client_that_was_robbed_of_channel_binding_is_told() {
        let start = |mechanism: &str, first: &[u8]| {
            let verifier = Verifier::of_password("x").unwrap();
            Exchange::start_with(verifier, Channel::EndPoint(b"hash"), mechanism, first, "S")
                .map(|(exchange, _)| exchange)
        };
        assert_eq!(start(MECHANISM, b"y,,n=,r=abc").err(), Some(Fault::Downgraded));
        assert_eq!(start(MECHANISM, b"p=tls-server-end-point,,n=,r=abc").err(), Some(Fault::Malformed));
        assert_eq!(start(MECHANISM_PLUS, b"n,,n=,r=abc").err(), Some(Fault::Malformed));
        assert_eq!(start(MECHANISM_PLUS, b"p=tls-unique,,n=,r=abc").err(), Some(Fault::Malformed));
        start(MECHANISM, b"n,,n=,r=abc").unwrap();
        let bound = start(MECHANISM_PLUS, b"p=tls-server-end-point,,n=,r=abc").unwrap();
        let other = STANDARD.encode(b"p=tls-server-end-point,,hasH");
        assert_eq!(bound.finish(format!("c={other},r=abcS,p=AAAA").as_bytes()), Err(Fault::OtherChannel));
    }
}
