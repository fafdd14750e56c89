//! Opens a connection to a server and logs in.

use std::io;
use std::time::Duration;

use md5::{Digest, Md5};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::net::dialogue::Dialogue;
use crate::net::scram::MECHANISM;
use crate::net::stream::{Stream, tune};
use crate::wire::body::{Reader, error_fields};
use crate::wire::message;

/// Longest message of a server before we are logged in.
const MAX_LOGIN_BODY: usize = 64 * 1024;
/// Most messages of a server before ReadyForQuery.
const MAX_LOGIN_MESSAGES: usize = 1000;

/// A server and the account to use on it.
#[derive(Clone)]
pub struct ServerTarget {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// Its password, if one is known.
    pub password: Option<String>,
    /// How to encrypt; `None` never does.
    pub tls: Option<TlsConnector>,
    /// Go on without TLS when the server has none (`sslmode=prefer`).
    pub plain_allowed: bool,
    /// How long the whole login may take.
    pub timeout: Duration,
}

impl std::fmt::Debug for ServerTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// A connection that is logged in and idle.
#[derive(Debug)]
pub struct Link {
    /// The socket.
    pub stream: Stream,
    /// What the server reported: `server_version`, `TimeZone`, ...
    pub parameters: Vec<(String, String)>,
    /// Process id for a cancel request.
    pub pid: u32,
    /// Secret for a cancel request.
    pub secret: Vec<u8>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectError {
    /// The server's SQLSTATE, or `08006`/`08001` of ours.
    pub code: String,
    /// What happened, without secrets.
    pub message: String,
}

impl ConnectError {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::new("08006", error.to_string())
    }
}

/// Connects and logs in, within the target's timeout.
pub async fn connect(target: &ServerTarget) -> Result<Link, ConnectError> {
    match tokio::time::timeout(target.timeout, login(target)).await {
        Ok(done) => done,
        Err(_) => Err(ConnectError::new("08006", format!("no answer within {} s", target.timeout.as_secs_f32()))),
    }
}

async fn login(target: &ServerTarget) -> Result<Link, ConnectError> {
    let mut dialogue = Dialogue::new(open(target).await?);
    let mut out = vec![0; 4];
    out.extend_from_slice(&196_608u32.to_be_bytes());
    for text in ["user", &target.user, "database", &target.database, ""] {
        message::cstr(&mut out, text.as_bytes());
    }
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(slot) = out.first_chunk_mut::<4>() {
        *slot = length;
    }
    dialogue.send(&out).await?;
    authenticate(target, &mut dialogue).await?;
    greeting(dialogue).await
}

/// The socket, encrypted as the target says.
async fn open(target: &ServerTarget) -> Result<Stream, ConnectError> {
    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
    tune(&tcp);
    let Some(connector) = &target.tls else { return Ok(Stream::Plain(tcp)) };
    let mut dialogue = Dialogue::new(Stream::Plain(tcp));
    dialogue.send(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    // One byte and no more: what else a server stuffs in before TLS goes into the handshake, which fails.
    let mut answer = [0u8; 1];
    if std::future::poll_fn(|cx| dialogue.stream.poll_read(cx, &mut answer)).await? == 0 {
        return Err(ConnectError::new("08006", "the server closed the connection when asked for TLS"));
    }
    match (answer, dialogue.stream) {
        ([b'S'], Stream::Plain(tcp)) => {
            let name = ServerName::try_from(target.host.clone())
                .map_err(|_| ConnectError::new("08001", "the host's name cannot be used with TLS"))?;
            Ok(Stream::Tls(Box::new(connector.connect(name, tcp).await?.into())))
        }
        ([b'N'], plain) if target.plain_allowed => Ok(plain),
        ([b'N'], _) => Err(ConnectError::new("08001", "the server does not support TLS, but sslmode requires it")),
        _ => Err(ConnectError::new("08P01", "the server answered SSLRequest with neither S nor N")),
    }
}

fn violation(_: impl Sized) -> ConnectError {
    ConnectError::new("08P01", "the server sent a malformed message during login")
}

fn refusal(body: &[u8]) -> ConnectError {
    let fields = error_fields(body);
    // A server may leave out the SQLSTATE (CVE-2026-6666); nothing here depends on it being there.
    let code = if fields.code.len() == 5 { String::from_utf8_lossy(fields.code).into_owned() } else { "08006".into() };
    ConnectError { code, message: String::from_utf8_lossy(fields.message).into_owned() }
}

async fn authenticate(target: &ServerTarget, dialogue: &mut Dialogue) -> Result<(), ConnectError> {
    let password = || {
        let hint = "the server asks for a password and the configuration gives none";
        target.password.as_deref().ok_or_else(|| ConnectError::new("28P01", hint))
    };
    let mut scram_done = false;
    for _ in 0..8 {
        let (tag, body) = dialogue.frame(MAX_LOGIN_BODY).await?;
        match tag {
            b'E' => return Err(refusal(&body)),
            b'N' => continue,
            b'R' => {}
            _ => return Err(violation(())),
        }
        let mut reader = Reader::new(&body);
        match reader.u32().map_err(violation)? {
            0 => return Ok(()),
            3 if dialogue.stream.is_tls() => respond(dialogue, password()?.as_bytes(), true).await?,
            3 => return Err(ConnectError::new("28000", "the server wants the password in clear text without TLS")),
            5 => {
                let salt = reader.bytes(4).map_err(violation)?;
                respond(dialogue, md5_response(&target.user, password()?, salt).as_bytes(), true).await?;
            }
            10 if !scram_done => {
                scram_done = true;
                scram(dialogue, reader, password()?).await?;
            }
            method => {
                let message = format!("the server wants authentication method {method}, which is not supported");
                return Err(ConnectError::new("28000", message));
            }
        }
    }
    Err(violation(()))
}

async fn respond(dialogue: &mut Dialogue, data: &[u8], terminated: bool) -> Result<(), ConnectError> {
    let mut out = Vec::new();
    message::frame(&mut out, b'p', |out| {
        out.extend_from_slice(data);
        if terminated {
            out.push(0);
        }
    });
    Ok(dialogue.send(&out).await?)
}

async fn scram(dialogue: &mut Dialogue, mut mechanisms: Reader<'_>, password: &str) -> Result<(), ConnectError> {
    let mut offered = false;
    while let Ok(name) = mechanisms.cstr() {
        offered |= name == MECHANISM.as_bytes();
    }
    if !offered {
        return Err(ConnectError::new("28000", "the server offers no SASL mechanism that is supported"));
    }
    // It bounds the iterations the server may ask for and checks that the nonce extends ours.
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let mut first = Vec::new();
    message::cstr(&mut first, MECHANISM.as_bytes());
    first.extend_from_slice(&u32::try_from(scram.message().len()).unwrap_or(0).to_be_bytes());
    first.extend_from_slice(scram.message());
    respond(dialogue, &first, false).await?;
    let data = sasl(dialogue, 11).await?;
    scram.update(&data)?;
    let last = scram.message().to_vec();
    respond(dialogue, &last, false).await?;
    let data = sasl(dialogue, 12).await?;
    Ok(scram.finish(&data)?)
}

/// The next SASL message, which must be of this kind.
async fn sasl(dialogue: &mut Dialogue, kind: u32) -> Result<Vec<u8>, ConnectError> {
    let (tag, body) = dialogue.frame(MAX_LOGIN_BODY).await?;
    let mut reader = Reader::new(&body);
    match tag {
        b'E' => Err(refusal(&body)),
        b'R' if reader.u32() == Ok(kind) => Ok(reader.rest().to_vec()),
        _ => Err(violation(())),
    }
}

/// `md5` + md5(md5(password + user) + salt), in hexadecimal.
fn md5_response(user: &str, password: &str, salt: &[u8]) -> String {
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let inner = hex(&Md5::new().chain_update(password).chain_update(user).finalize());
    format!("md5{}", hex(&Md5::new().chain_update(inner).chain_update(salt).finalize()))
}

/// Reads what follows AuthenticationOk up to ReadyForQuery.
async fn greeting(mut dialogue: Dialogue) -> Result<Link, ConnectError> {
    let (mut parameters, mut key) = (Vec::new(), (0, Vec::new()));
    for _ in 0..MAX_LOGIN_MESSAGES {
        let (tag, body) = dialogue.frame(MAX_LOGIN_BODY).await?;
        let mut reader = Reader::new(&body);
        match tag {
            b'S' => {
                let mut text = || reader.cstr().map(|text| String::from_utf8_lossy(text).into_owned());
                parameters.push((text().map_err(violation)?, text().map_err(violation)?));
            }
            b'K' => key = (reader.u32().map_err(violation)?, reader.rest().to_vec()),
            b'N' => {}
            b'E' => return Err(refusal(&body)),
            b'Z' if dialogue.pending.is_empty() => {
                return Ok(Link { stream: dialogue.stream, parameters, pid: key.0, secret: key.1 });
            }
            _ => break,
        }
    }
    Err(violation(()))
}

/// Asks the server to cancel what a process of it does; returns when the server has taken the request.
pub async fn cancel(target: &ServerTarget, pid: u32, secret: &[u8]) -> Result<(), ConnectError> {
    let request = async {
        let mut dialogue = Dialogue::new(open(target).await?);
        let mut out = Vec::with_capacity(16);
        out.extend_from_slice(&u32::try_from(12 + secret.len()).unwrap_or(16).to_be_bytes());
        out.extend_from_slice(&80_877_102u32.to_be_bytes());
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
        dialogue.send(&out).await?;
        // The server closes once it has sent the signal; nothing else is ever answered.
        let _ = dialogue.fill().await;
        Ok(())
    };
    match tokio::time::timeout(target.timeout, request).await {
        Ok(done) => done,
        Err(_) => Err(ConnectError::new("08006", "the server did not take the cancel request in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_postgresqls() {
        // select 'md5' || md5(md5('secret' || 'bob') || E'\\001\\002\\003\\004')
        let inner = postgres_protocol::authentication::md5_hash(b"bob", b"secret", [1, 2, 3, 4]);
        assert_eq!(md5_response("bob", "secret", &[1, 2, 3, 4]), inner);
    }

    #[test]
    fn an_error_without_sqlstate_is_still_an_error() {
        assert_eq!(refusal(b"Mno\0\0"), ConnectError::new("08006", "no"));
        assert_eq!(refusal(b""), ConnectError::new("08006", ""));
    }
}
