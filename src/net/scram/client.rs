//! The client's side: we prove a password to a server, and it proves to us that it knows it too.
//!
//! The server is not trusted: what it sends is bounded before it is used.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Keys, MAX_ITERATIONS, MECHANISM, MECHANISM_PLUS, equal, fresh_nonce, printable, sign, xor};

/// Longest message of a server within the exchange; PostgreSQL's have about 100 bytes.
const MAX_MESSAGE: usize = 4096;

/// How the exchange is bound to the connection it runs over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// Not at all: there is no TLS, or the certificate's hash is not defined.
    Unbound,
    /// It could be, but the server did not offer it. A server that did will notice.
    NotOffered,
    /// To the server's certificate of this hash (`tls-server-end-point`).
    EndPoint(Vec<u8>),
}

impl Channel {
    /// The mechanism for it.
    pub fn mechanism(&self) -> &'static str {
        if matches!(self, Self::EndPoint(_)) { MECHANISM_PLUS } else { MECHANISM }
    }

    fn header(&self) -> &'static str {
        match self {
            Self::Unbound => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }
}

/// What is wrong with a server's message.
pub type Fault = &'static str;

/// An exchange that was begun.
#[derive(Debug)]
pub struct Exchange {
    channel: Channel,
    nonce: String,
}

/// What the server asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The salt of its verifier.
    pub salt: Vec<u8>,
    /// Its count of iterations, at most [`MAX_ITERATIONS`].
    pub iterations: u32,
    nonce: String,
    text: String,
}

/// An exchange that waits for the server's own proof.
#[derive(Debug)]
pub struct Awaiting {
    signature: [u8; 32],
}

impl Exchange {
    /// Begins; gives the client's first message too.
    pub fn start(channel: Channel) -> Result<(Self, String), Fault> {
        let nonce = fresh_nonce().ok_or("the system gives no random numbers")?;
        // The server knows the user from the startup packet and ignores a name here.
        let first = format!("{}n=,r={nonce}", channel.header());
        Ok((Self { channel, nonce }, first))
    }

    /// Takes the server's first message.
    pub fn challenge(&self, server_first: &[u8]) -> Result<Challenge, Fault> {
        const MALFORMED: Fault = "the server's SCRAM message is malformed";
        if server_first.len() > MAX_MESSAGE {
            return Err("the server's SCRAM message is too long");
        }
        let text = std::str::from_utf8(server_first).map_err(|_| MALFORMED)?;
        let mut parts = text.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name)).ok_or(MALFORMED);
        let (nonce, salt, iterations) = (part("r=")?, part("s=")?, part("i=")?);
        let added = nonce.strip_prefix(&self.nonce).ok_or("the server's SCRAM nonce does not begin with ours")?;
        if !printable(added) {
            return Err("the server's SCRAM nonce is empty or not printable");
        }
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty()).ok_or(MALFORMED)?;
        let iterations: u32 = iterations.parse().map_err(|_| MALFORMED)?;
        if iterations == 0 || iterations > MAX_ITERATIONS {
            return Err("the server asks for 0 or more than 1,000,000 SCRAM iterations");
        }
        Ok(Challenge { salt, iterations, nonce: nonce.to_owned(), text: text.to_owned() })
    }

    /// Answers a challenge with the keys for it.
    pub fn answer(self, challenge: &Challenge, keys: &Keys) -> (Awaiting, String) {
        let mut binding = self.channel.header().as_bytes().to_vec();
        if let Channel::EndPoint(hash) = &self.channel {
            binding.extend_from_slice(hash);
        }
        let without_proof = format!("c={},r={}", STANDARD.encode(binding), challenge.nonce);
        let auth_message = format!("n=,r={},{},{without_proof}", self.nonce, challenge.text);
        let proof = xor(keys.client_key, &sign(&keys.stored_key(), &auth_message));
        let signature = sign(&keys.server_key, &auth_message);
        (Awaiting { signature }, format!("{without_proof},p={}", STANDARD.encode(proof)))
    }
}

impl Awaiting {
    /// Takes the server's final message: it must know the password as well.
    pub fn finish(self, server_final: &[u8]) -> Result<(), Fault> {
        let signature = server_final.strip_prefix(b"v=").filter(|text| text.len() <= MAX_MESSAGE);
        let signature = signature.and_then(|text| STANDARD.decode(text).ok());
        match signature {
            Some(signature) if equal(&signature, &self.signature) => Ok(()),
            _ => Err("the server did not prove that it knows the password"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{self as scram, Outcome, Verifier};
    use super::*;

    fn run(channel: Channel, ours: scram::Channel<'_>, password: &str) -> Result<(), String> {
        let verifier = Verifier::of_password("secret").unwrap();
        let mechanism = channel.mechanism();
        let (client, first) = Exchange::start(channel)?;
        let (server, first) = scram::Exchange::start(verifier, ours, mechanism, first.as_bytes())
            .map_err(|fault| format!("{fault:?}"))?;
        let challenge = client.challenge(first.as_bytes())?;
        let keys = Keys::of_password(password, &challenge.salt, challenge.iterations).unwrap();
        let (awaiting, last) = client.answer(&challenge, &keys);
        match server.finish(last.as_bytes()).map_err(|fault| format!("{fault:?}"))? {
            Outcome::Proven(message, proven) => {
                assert_eq!(proven, keys);
                Ok(awaiting.finish(message.as_bytes())?)
            }
            Outcome::Wrong => Err("wrong".to_owned()),
        }
    }

    #[test]
    fn both_sides_agree_only_over_the_same_channel() {
        use scram::Channel::{EndPoint, Unbound};
        assert_eq!(run(Channel::Unbound, Unbound, "secret"), Ok(()));
        assert_eq!(run(Channel::Unbound, Unbound, "Secret"), Err("wrong".to_owned()));
        assert_eq!(run(Channel::NotOffered, Unbound, "secret"), Ok(()));
        assert_eq!(run(Channel::NotOffered, EndPoint(b"h"), "secret"), Err("Downgraded".to_owned()));
        assert_eq!(run(Channel::EndPoint(b"h".to_vec()), EndPoint(b"h"), "secret"), Ok(()));
        assert_eq!(run(Channel::EndPoint(b"x".to_vec()), EndPoint(b"h"), "secret"), Err("OtherChannel".to_owned()));
    }

    #[test]
    fn a_hostile_server_gets_nowhere() {
        let (client, _) = Exchange::start(Channel::Unbound).unwrap();
        let nonce = client.nonce.clone();
        let long = "x".repeat(60_000);
        for first in [
            String::new(),
            format!("r={nonce},s=YQ==,i=4096"),
            "r=somebodyelses,s=YQ==,i=4096".to_owned(),
            format!("r={nonce}S,s=,i=4096"),
            format!("r={nonce}S,s=YQ==,i=0"),
            format!("r={nonce}S,s=YQ==,i=-1"),
            format!("r={nonce}S,s=YQ==,i=2147483647"),
            format!("r={nonce}S,s=YQ==,i=99999999999999999999"),
            format!("r={nonce}{long},s=YQ==,i=4096"),
            format!("r={nonce}\u{1},s=YQ==,i=4096"),
            format!("m=x,r={nonce}S,s=YQ==,i=4096"),
        ] {
            assert!(client.challenge(first.as_bytes()).is_err(), "{first}");
        }
        let challenge = client.challenge(format!("r={nonce}S,s=YQ==,i=1").as_bytes()).unwrap();
        let keys = Keys::of_password("secret", &challenge.salt, challenge.iterations).unwrap();
        for last in ["", "v=", "v=AAAA", "e=other-error", "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
            let (client, _) = Exchange::start(Channel::Unbound).unwrap();
            assert!(client.answer(&challenge, &keys).0.finish(last.as_bytes()).is_err(), "{last}");
        }
    }
}
