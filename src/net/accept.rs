//! A client's first bytes: TLS and the startup packet.

use std::io;

use crate::net::dialogue::Dialogue;
use crate::net::stream::Stream;
use crate::net::tls::Door;
use crate::wire::message::Failure;
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

/// The first byte of a TLS handshake, which no startup packet of a sane length begins with.
const HANDSHAKE: u8 = 0x16;

/// Reads the opening packets of a fresh connection.
pub async fn open(stream: Stream, door: Option<&Door>) -> io::Result<Arrival> {
    let stream = match (stream, door) {
        (Stream::Plain(tcp), Some(door)) => {
            let mut first = [0u8; 1];
            let direct = tcp.peek(&mut first).await? == 1 && first == [HANDSHAKE];
            if direct { door.accept(tcp, true).await? } else { Stream::Plain(tcp) }
        }
        (stream, _) => stream,
    };
    let mut dialogue = Dialogue::new(stream);
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
        dialogue = match (opening, door) {
            (Opening::Ssl, Some(door)) if matches!(dialogue.stream, Stream::Plain(_)) => {
                encrypt(dialogue, door).await?
            }
            _ => {
                dialogue.send(b"N").await?;
                dialogue
            }
        };
    }
}

async fn encrypt(mut dialogue: Dialogue, door: &Door) -> io::Result<Dialogue> {
    dialogue.send(b"S").await?;
    match dialogue.stream {
        Stream::Plain(tcp) => Ok(Dialogue::new(door.accept(tcp, false).await?)),
        other => Ok(Dialogue::new(other)),
    }
}

/// Says why and ends the connection.
pub async fn refuse(mut dialogue: Dialogue, failure: &Failure) -> io::Result<Arrival> {
    let mut out = Vec::new();
    failure.write(&mut out);
    dialogue.send(&out).await?;
    Ok(Arrival::Gone)
}
