//! Any bytes for whatever reads bytes of strangers: openings, SCRAM from both sides, conversations from both sides.
//!
//! Stands by itself, so that `fuzz/fuzz_targets` uses it too.

use std::sync::Arc;

use pgweir::net::scram::{self, Keys, Verifier, client};
use pgweir::pool::Interned;
use pgweir::pool::server::ServerState;
use pgweir::pool::statements::Prepared;
use pgweir::proxy::analyzer::Analyzer;
use pgweir::proxy::conversation::{Conversation, Next};
use pgweir::proxy::from_client::Ways;
use pgweir::wire::startup;

/// Longest message of the conversations.
const LIMIT: usize = 1 << 16;

/// What begins an opening: more bytes never change what was read of fewer.
pub fn opening(bytes: &[u8]) {
    let whole = startup::parse(bytes);
    if let Ok(Some((_, length))) = &whole {
        assert!((8..=startup::MAX_STARTUP_LEN).contains(length) && *length <= bytes.len());
        assert_eq!(startup::parse(&bytes[..*length]), whole);
    }
    let less = &bytes[..bytes.len() / 2];
    match startup::parse(less) {
        Ok(None) => {}
        decided => assert_eq!(decided, whole, "it was decided when {} bytes were there", less.len()),
    }
}

/// The parts of an exchange in hostile words: nobody is believed who does not know the password.
pub fn scram(bytes: &[u8]) {
    let (first, last) = bytes.split_at(bytes.len() / 2);
    let verifier = Verifier::parse(
        "SCRAM-SHA-256$1:MDEyMzQ1Njc4OWFiY2RlZg==$rb2i4FWE8CCi1HDhnBxhv8/uERf3QN6tiTjE4qSdliQ=:\
         gWfVquF9Vgm4YA/KIyjllnL4Zn6B7unP+DKFnilYEAg=",
    );
    let verifier = verifier.expect("it is a verifier");
    for (channel, mechanism) in [
        (scram::Channel::Unbound, "SCRAM-SHA-256"),
        (scram::Channel::EndPoint(b"hash"), "SCRAM-SHA-256"),
        (scram::Channel::EndPoint(b"hash"), "SCRAM-SHA-256-PLUS"),
    ] {
        for message in [first, b"n,,n=,r=abc", b"p=tls-server-end-point,,n=,r=abc"] {
            let Ok((server, said)) = scram::Exchange::start(verifier.clone(), channel, mechanism, message) else {
                continue;
            };
            // The nonce cannot be known beforehand, so it stands where the words ask for it.
            let nonce = said.strip_prefix("r=").and_then(|rest| rest.split(',').next()).unwrap_or_default();
            let last = String::from_utf8_lossy(last).replace('$', nonce);
            assert!(!matches!(server.finish(last.as_bytes()), Ok(scram::Outcome::Proven(..))), "{last}");
        }
    }
    let Ok((client, said)) = client::Exchange::start(client::Channel::Unbound) else { return };
    let nonce = said.rsplit_once("r=").map_or("", |(_, nonce)| nonce);
    let first = String::from_utf8_lossy(first).replace('$', nonce);
    let challenge = match client.challenge(first.as_bytes()) {
        Ok(challenge) => challenge,
        Err(_) => client.challenge(format!("r={nonce}x,s=c2FsdA==,i=1").as_bytes()).expect("it is a challenge"),
    };
    if challenge.iterations < 50 {
        let keys = Keys::of_password("secret", &challenge.salt, challenge.iterations).expect("so few iterations");
        let (waiting, _) = client.answer(&challenge, &keys);
        assert!(waiting.finish(last).is_err(), "a server was believed that knows nothing");
    }
}

/// Frames on their way to a server, whose boundaries must hold whatever a client sends.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    left: usize,
}

impl Frames {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                (self.left, bytes) = (self.left - count, &bytes[count..]);
                continue;
            }
            let (head, rest) = bytes.split_at((5 - self.header.len()).min(bytes.len()));
            self.header.extend(head);
            bytes = rest;
            if let [tag, a, b, c, d] = self.header[..] {
                assert!(b"QPBDECSHFdcf".contains(&tag), "the server is sent a message of type {tag}");
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                assert!((4..LIMIT + 1000).contains(&length), "the server is sent a message of {length} bytes");
                (self.left, self.header) = (length - 4, Vec::new());
            }
        }
    }
}

/// A conversation between a client and a server that say anything, in any pieces.
pub fn conversation(mut bytes: &[u8]) {
    let interned = Arc::new(Interned::default());
    let (settings, told) = (interned.settings.intern(Vec::new()), interned.reported.intern(Vec::new()));
    let mut state = ServerState {
        user: "app".into(),
        reported: told.clone(),
        settings: settings.clone(),
        prepared: Prepared::new(3),
        unnamed: (0, 0),
        drawn: 0,
        hold: false,
        roll: Arc::default(),
    };
    let mut talk = Conversation::new(1, settings, told, interned, LIMIT);
    let (mut analyzer, mut frames, mut attached) = (Analyzer::default(), Frames::default(), false);
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    // One byte says who speaks and how much of it; then come the words.
    while let Some((first, rest)) = bytes.split_first() {
        let count = usize::from(first >> 1).min(rest.len());
        let (piece, rest) = rest.split_at(count);
        bytes = rest;
        if first & 1 == 1 && attached {
            from_server.extend(piece);
            let mut to_client = Vec::new();
            let Ok(taken) = talk.server_bytes(&from_server, &mut state, &mut to_client) else { return };
            assert!(taken <= from_server.len());
            from_server.drain(..taken);
        } else {
            from_client.extend(piece);
        }
        loop {
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let mut ways = Ways {
                state: attached.then_some(&mut state),
                to_server: &mut to_server,
                to_client: &mut to_client,
                analyzer: &mut analyzer,
            };
            let (taken, next) = talk.client_bytes(&from_client, &mut ways);
            assert!(taken <= from_client.len());
            from_client.drain(..taken);
            if next == Next::Stall || next == Next::Terminate {
                talk.hasten(&mut to_server);
            }
            assert!(attached || to_server.is_empty(), "words for a server that is not there");
            frames.take(&to_server);
            match next {
                Next::NeedServer => {
                    assert!(!attached, "it has one");
                    attached = true;
                    to_server.clear();
                    talk.attach(&mut state, &mut to_server, &mut to_client);
                    frames.take(&to_server);
                }
                Next::NeedMore | Next::Stall => break,
                Next::Terminate | Next::Fail(_) => return,
            }
        }
        if attached && talk.is_releasable() && from_server.is_empty() {
            assert!(frames.left == 0 && frames.header.is_empty(), "released in the middle of a message");
            talk.detach();
            attached = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{conversation, opening, scram};

    /// Words of the protocols, so that random bytes get further than the first check.
    const WORDS: &[&[u8]] = &[
        b"user\0app\0",
        b"options\0-c a=b\0",
        b"_pq_.x\0",
        b"\0\x03\0\0",
        b"\x04\xd2\x16\x2e",
        b"\x04\xd2\x16\x2f",
        b"\0\0\0\x10",
        b"n,,n=,r=",
        b"c=biws,r=",
        b",p=",
        b"r=$,s=c2FsdA==,i=1",
        b"v=",
        b"Q\0\0\0\x0dselect 1\0",
        b"P\0\0\0\x0fs\0select\0\0\0",
        b"B\0\0\0\x0c\0s\0\0\0\0\0\0\0",
        b"E\0\0\0\x09\0\0\0\0\0",
        b"D\0\0\0\x07Ss\0",
        b"C\0\0\0\x07Ss\0",
        b"S\0\0\0\x04",
        b"H\0\0\0\x04",
        b"d\0\0\0\x06xy",
        b"c\0\0\0\x04",
        b"f\0\0\0\x05\0",
        b"Z\0\0\0\x05I",
        b"Z\0\0\0\x05T",
        b"1\0\0\0\x04",
        b"2\0\0\0\x04",
        b"3\0\0\0\x04",
        b"C\0\0\0\x0bSELECT\0",
        b"G\0\0\0\x07\0\0\0",
        b"E\0\0\0\x0cC22012\0\0",
        b"t\0\0\0\x06\0\0",
        b"n\0\0\0\x04",
        b"Q\0\0\0\x0ddiscard\0",
        b"Q\0\0\0\x1bset a = 1; deallocate x\0",
        b"K\0\0\0\x0c\0\0\0\0\0\0\0\0",
        b"V\0\0\0\x08\xff\xff\xff\xff",
    ];

    #[test]
    fn m_any_bytes_are_answered_or_refused() {
        let count = std::env::var("PGWEIR_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1500u64);
        for seed in 1..=count {
            let mut dice = super::super::Dice::new(seed);
            let mut bytes = Vec::new();
            for _ in 0..dice.below(40) {
                let word = match dice.below(6) {
                    0 => vec![dice.below(256) as u8],
                    1 => (0..dice.below(12)).map(|_| dice.below(256) as u8).collect(),
                    _ => dice.one_of(WORDS).to_vec(),
                };
                // Who speaks, for conversations.
                bytes.push((word.len() as u8) << 1 | dice.below(2) as u8);
                bytes.extend(word);
            }
            let plain: Vec<u8> = (0..dice.below(12)).flat_map(|_| dice.one_of(WORDS).to_vec()).collect();
            let packet = [&(plain.len() as u32 + 4).to_be_bytes(), &plain[..]].concat();
            for (name, body) in [("opening", opening as fn(&[u8])), ("scram", scram), ("conversation", conversation)] {
                for bytes in [&bytes, &plain, &packet] {
                    assert!(std::panic::catch_unwind(|| body(bytes)).is_ok(), "{name}, seed {seed}: {bytes:?}");
                }
            }
        }
    }
}
