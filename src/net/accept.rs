//! A client's first bytes: TLS, the startup packet, SCRAM.

use std::io;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::net::dialogue::Dialogue;
use crate::net::scram::{Exchange, MECHANISM, Outcome, Verifier};
use crate::net::stream::Stream;
use crate::wire::body::Reader;
use crate::wire::frame::MAX_AUTH_BODY;
use crate::wire::message::{self, Failure};
use crate::wire::startup::{self, Opening, Startup};

/// What a client turned out to want.
#[derive(Debug)]
pub enum Arrival {
    /// A session, not yet authenticated.
    Session(Dialogue, Startup),
    /// To cancel what the holder of this key is doing.
    Cancel {
        /// The process id it was told.
        pid: u32,
        /// The secret it was told.
        secret: Vec<u8>,
    },
    /// Nothing: it went away, or was told why not.
    Gone,
}

/// Reads the opening packets of a fresh connection.
pub async fn open(tcp: TcpStream, tls: Option<&TlsAcceptor>) -> io::Result<Arrival> {
    let mut dialogue = Dialogue::new(Stream::Plain(tcp));
    // At most one SSLRequest and one GSSENCRequest, in either order, then the real packet.
    let (mut ssl_asked, mut gss_asked) = (false, false);
    loop {
        let (opening, length) = match startup::parse(&dialogue.pending) {
            Ok(Some(found)) => found,
            Ok(None) => {
                dialogue.fill().await?;
                continue;
            }
            Err(refused) => return refuse(dialogue, &Failure::fatal(refused.code, refused.message)).await,
        };
        dialogue.pending.drain(..length);
        let asked = match opening {
            Opening::Startup(startup) => return Ok(Arrival::Session(dialogue, startup)),
            Opening::Cancel { pid, secret } => return Ok(Arrival::Cancel { pid, secret }),
            Opening::Ssl => &mut ssl_asked,
            Opening::Gss => &mut gss_asked,
        };
        // What came in plain text before the answer must not be read as if it came under TLS.
        if std::mem::replace(asked, true) || !dialogue.pending.is_empty() {
            let failure = Failure::fatal("08P01", "received unencrypted data after SSL or GSSENC request");
            return refuse(dialogue, &failure).await;
        }
        dialogue = match (opening, tls) {
            (Opening::Ssl, Some(acceptor)) if !dialogue.stream.is_tls() => encrypt(dialogue, acceptor).await?,
            _ => {
                dialogue.send(b"N").await?;
                dialogue
            }
        };
    }
}

async fn encrypt(mut dialogue: Dialogue, acceptor: &TlsAcceptor) -> io::Result<Dialogue> {
    dialogue.send(b"S").await?;
    match dialogue.stream {
        Stream::Plain(tcp) => {
            let tls = acceptor.accept(tcp).await?;
            Ok(Dialogue::new(Stream::Tls(Box::new(tls.into()))))
        }
        tls @ Stream::Tls(_) => Ok(Dialogue::new(tls)),
    }
}

/// Says why and ends the connection.
pub async fn refuse(mut dialogue: Dialogue, failure: &Failure) -> io::Result<Arrival> {
    let mut out = Vec::new();
    failure.write(&mut out);
    dialogue.send(&out).await?;
    Ok(Arrival::Gone)
}

/// Proves that the client knows the password of `verifier`; the error is what it should be told.
pub async fn authenticate(dialogue: &mut Dialogue, user: &str, verifier: Verifier) -> io::Result<Result<(), Failure>> {
    let mut out = Vec::new();
    message::authentication_sasl(&mut out, &[MECHANISM]);
    dialogue.send(&out).await?;
    let malformed = || Failure::fatal("08P01", "malformed SCRAM message");
    let (tag, body) = dialogue.frame(MAX_AUTH_BODY).await?;
    let Some(first) = (tag == b'p').then(|| initial_response(&body)).flatten() else { return Ok(Err(malformed())) };
    let Ok((exchange, reply)) = Exchange::start(verifier, first) else { return Ok(Err(malformed())) };
    out.clear();
    message::authentication_sasl_continue(&mut out, reply.as_bytes());
    dialogue.send(&out).await?;
    let (tag, body) = dialogue.frame(MAX_AUTH_BODY).await?;
    let outcome = if tag == b'p' { exchange.finish(&body) } else { return Ok(Err(malformed())) };
    match outcome {
        Ok(Outcome::Proven(last)) => {
            out.clear();
            message::authentication_sasl_final(&mut out, last.as_bytes());
            message::authentication_ok(&mut out);
            dialogue.send(&out).await?;
            Ok(Ok(()))
        }
        Ok(Outcome::Wrong) => {
            Ok(Err(Failure::fatal("28P01", format!("password authentication failed for user \"{user}\""))))
        }
        Err(_) => Ok(Err(malformed())),
    }
}

/// The SCRAM message inside SASLInitialResponse, when it chose our mechanism.
fn initial_response(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(body);
    let mechanism = reader.cstr().ok()?;
    let length = reader.u32().ok()? as usize;
    (mechanism == MECHANISM.as_bytes() && reader.rest().len() == length).then(|| reader.rest())
}
