//! Asks a client to prove who it is. The error is what it should be told.

use std::io;

use ring::rand::SecureRandom;

use crate::net::dialogue::Dialogue;
use crate::net::prove::md5_response;
use crate::net::scram::{Channel, Exchange, Fault, Keys, Outcome, Verifier, equal};
use crate::wire::body::Reader;
use crate::wire::frame::MAX_AUTH_BODY;
use crate::wire::message::{self, Failure};

fn malformed(what: &str) -> Failure {
    Failure::fatal("08P01", format!("malformed {what} message"))
}

/// What a client is told whose proof is wrong, or who is nobody.
pub fn wrong(user: &str) -> Failure {
    Failure::fatal("28P01", format!("password authentication failed for user \"{user}\""))
}

/// SCRAM-SHA-256 up to AuthenticationOk: gives what the client proved itself with.
pub async fn scram(
    dialogue: &mut Dialogue,
    user: &str,
    verifier: Verifier,
    channel: Channel<'_>,
) -> io::Result<Result<Keys, Failure>> {
    let fault = |fault: Fault| match fault {
        Fault::Malformed => malformed("SCRAM"),
        Fault::Downgraded => Failure::fatal("28000", "SCRAM channel binding negotiation error")
            .detail("The client supports SCRAM channel binding but thinks the server does not. It was offered."),
        Fault::OtherChannel => Failure::fatal("28000", "SCRAM channel binding check failed"),
    };
    let mut out = Vec::new();
    message::authentication_sasl(&mut out, channel.mechanisms());
    dialogue.send(&out).await?;
    let (tag, body) = dialogue.frame(MAX_AUTH_BODY).await?;
    let first = (tag == b'p').then(|| initial_response(&body)).flatten();
    let Some((mechanism, first)) = first else { return Ok(Err(malformed("SCRAM"))) };
    let (exchange, reply) = match Exchange::start(verifier, channel, mechanism, first) {
        Ok(started) => started,
        Err(error) => return Ok(Err(fault(error))),
    };
    out.clear();
    message::authentication_sasl_continue(&mut out, reply.as_bytes());
    dialogue.send(&out).await?;
    let (tag, body) = dialogue.frame(MAX_AUTH_BODY).await?;
    if tag != b'p' {
        return Ok(Err(malformed("SCRAM")));
    }
    match exchange.finish(&body) {
        Ok(Outcome::Proven(last, keys)) => {
            out.clear();
            message::authentication_sasl_final(&mut out, last.as_bytes());
            // Nothing can be in its way any more, and one packet is cheaper than two.
            message::authentication_ok(&mut out);
            dialogue.send(&out).await?;
            Ok(Ok(keys))
        }
        Ok(Outcome::Wrong) => Ok(Err(wrong(user))),
        Err(error) => Ok(Err(fault(error))),
    }
}

/// The mechanism and the SCRAM message inside SASLInitialResponse.
fn initial_response(body: &[u8]) -> Option<(&str, &[u8])> {
    let mut reader = Reader::new(body);
    let mechanism = std::str::from_utf8(reader.cstr().ok()?).ok()?;
    let length = reader.u32().ok()? as usize;
    (reader.rest().len() == length).then(|| (mechanism, reader.rest()))
}

/// MD5, against what is stored of the password; of nobody, nothing is. AuthenticationOk is still to be said.
pub async fn md5(dialogue: &mut Dialogue, user: &str, stored: Option<&str>) -> io::Result<Result<(), Failure>> {
    let mut salt = [0u8; 4];
    ring::rand::SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let mut out = Vec::new();
    message::authentication_md5(&mut out, salt);
    dialogue.send(&out).await?;
    let given = match password_message(dialogue).await? {
        Ok(given) => given,
        Err(failure) => return Ok(Err(failure)),
    };
    let expected = md5_response(stored.unwrap_or("md5"), &salt);
    let same = equal(given.as_bytes(), expected.as_bytes());
    Ok(if same && stored.is_some() { Ok(()) } else { Err(wrong(user)) })
}

/// The password itself. Ask only where nobody listens.
pub async fn clear_text(dialogue: &mut Dialogue) -> io::Result<Result<String, Failure>> {
    let mut out = Vec::new();
    message::authentication_clear_text(&mut out);
    dialogue.send(&out).await?;
    password_message(dialogue).await
}

async fn password_message(dialogue: &mut Dialogue) -> io::Result<Result<String, Failure>> {
    let (tag, body) = dialogue.frame(MAX_AUTH_BODY).await?;
    let mut reader = Reader::new(&body);
    let text = (tag == b'p').then(|| reader.cstr().ok()).flatten().filter(|_| reader.is_empty());
    Ok(match text.and_then(|text| std::str::from_utf8(text).ok()) {
        Some("") => Err(Failure::fatal("28P01", "empty password returned by client")),
        Some(text) => Ok(text.to_owned()),
        None => Err(malformed("password")),
    })
}

/// Tells the client that it is let in.
pub async fn welcome(dialogue: &mut Dialogue) -> io::Result<()> {
    let mut out = Vec::new();
    message::authentication_ok(&mut out);
    dialogue.send(&out).await
}
