//! Opens a connection to a server and logs in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::net::dialogue::Dialogue;
use crate::net::prove::{Binding, Claim, Wallet, prove};
use crate::net::stream::{Stream, tune};
use crate::net::tls::names_protocol;
use crate::wire::body::{Reader, error_fields};
use crate::wire::message;

/// Longest message of a server before we are logged in.
pub(super) const MAX_LOGIN_BODY: usize = 64 * 1024;
/// Most messages of a server before ReadyForQuery.
const MAX_LOGIN_MESSAGES: usize = 1000;

/// A server and the account to use on it.
#[derive(Clone)]
pub struct ServerTarget {
    /// Host name or address, or the directory of a unix socket.
    pub host: String,
    /// TCP port, or the number in the unix socket's name.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// What proves it.
    pub wallet: Arc<Wallet>,
    /// How to encrypt; `None` never does.
    pub tls: Option<TlsConnector>,
    /// Go on without TLS when the server has none (`sslmode=prefer`).
    pub plain_allowed: bool,
    /// Begin with TLS at once, without SSLRequest (`sslnegotiation=direct`).
    pub direct: bool,
    /// Whether SCRAM must be bound to TLS.
    pub binding: Binding,
    /// How long the whole login may take.
    pub timeout: Duration,
}

impl ServerTarget {
    /// Whether it is at a unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// The unix socket of a server in this directory, by PostgreSQL's convention.
pub fn socket_path(directory: impl AsRef<Path>, port: u16) -> PathBuf {
    directory.as_ref().join(format!(".s.PGSQL.{port}"))
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
    /// An error of ours.
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::new("08006", error.to_string())
    }
}

/// Longest that sending a cancel request may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(30);

/// Connects and logs in, within the target's timeout.
pub async fn connect(target: &ServerTarget) -> Result<Link, ConnectError> {
    connect_with(target, &[]).await
}

/// Connects and logs in to a session that begins with these settings.
pub async fn connect_with(target: &ServerTarget, settings: &[(&str, &str)]) -> Result<Link, ConnectError> {
    match tokio::time::timeout(target.timeout, login(target, settings)).await {
        Ok(done) => done,
        Err(_) => Err(ConnectError::new("08006", format!("no answer within {} s", target.timeout.as_secs_f32()))),
    }
}

async fn login(target: &ServerTarget, settings: &[(&str, &str)]) -> Result<Link, ConnectError> {
    let (stream, near) = open(target).await?;
    let mut dialogue = Dialogue::new(stream);
    let mut out = vec![0; 4];
    out.extend_from_slice(&196_608u32.to_be_bytes());
    for (name, value) in [("user", target.user.as_str()), ("database", &target.database)].iter().chain(settings) {
        message::cstr(&mut out, name.as_bytes());
        message::cstr(&mut out, value.as_bytes());
    }
    out.push(0);
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(slot) = out.first_chunk_mut::<4>() {
        *slot = length;
    }
    dialogue.send(&out).await?;
    let claim = Claim { user: &target.user, wallet: &target.wallet, binding: target.binding, near };
    prove(claim, &mut dialogue).await?;
    greeting(dialogue).await
}

/// The socket, encrypted as the target says; and whether the server is on this machine.
async fn open(target: &ServerTarget) -> Result<(Stream, bool), ConnectError> {
    if target.is_unix() {
        let unix = UnixStream::connect(socket_path(&target.host, target.port)).await?;
        return Ok((Stream::Unix(unix), true));
    }
    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
    tune(&tcp);
    let near = tcp.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let Some(connector) = &target.tls else { return Ok((Stream::Plain(tcp), near)) };
    if target.direct {
        let stream = encrypt(target, connector, tcp).await?;
        return if names_protocol(&stream) {
            Ok((stream, near))
        } else {
            let what = "the server does not take TLS without SSLRequest; remove sslnegotiation=direct";
            Err(ConnectError::new("08001", what))
        };
    }
    let mut dialogue = Dialogue::new(Stream::Plain(tcp));
    dialogue.send(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    // One byte and no more: what else a server stuffs in before TLS goes into the handshake, which fails.
    let mut answer = [0u8; 1];
    if std::future::poll_fn(|cx| dialogue.stream.poll_read(cx, &mut answer)).await? == 0 {
        return Err(ConnectError::new("08006", "the server closed the connection when asked for TLS"));
    }
    match (answer, dialogue.stream) {
        ([b'S'], Stream::Plain(tcp)) => Ok((encrypt(target, connector, tcp).await?, near)),
        ([b'N'], plain) if target.plain_allowed => Ok((plain, near)),
        ([b'N'], _) => Err(ConnectError::new("08001", "the server does not support TLS, but sslmode requires it")),
        _ => Err(ConnectError::new("08P01", "the server answered SSLRequest with neither S nor N")),
    }
}

async fn encrypt(target: &ServerTarget, connector: &TlsConnector, tcp: TcpStream) -> Result<Stream, ConnectError> {
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| ConnectError::new("08001", "the host's name cannot be used with TLS"))?;
    Ok(Stream::Tls(Box::new(connector.connect(name, tcp).await?.into())))
}

pub(super) fn violation(_: impl Sized) -> ConnectError {
    ConnectError::new("08P01", "the server sent a malformed message during login")
}

pub(super) fn refusal(body: &[u8]) -> ConnectError {
    let fields = error_fields(body);
    // A server may leave out the SQLSTATE (CVE-2026-6666); nothing here depends on it being there.
    let code = if fields.code.len() == 5 { String::from_utf8_lossy(fields.code).into_owned() } else { "08006".into() };
    ConnectError { code, message: String::from_utf8_lossy(fields.message).into_owned() }
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
        let mut dialogue = Dialogue::new(open(target).await?.0);
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
    // Where there is no limit to connecting, there is one here: cancel requests must not pile up.
    match tokio::time::timeout(target.timeout.min(CANCEL_LIMIT), request).await {
        Ok(done) => done,
        Err(_) => Err(ConnectError::new("08006", "the server did not take the cancel request in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_sqlstate_is_still_an_error() {
        assert_eq!(refusal(b"Mno\0\0"), ConnectError::new("08006", "no"));
        assert_eq!(refusal(b""), ConnectError::new("08006", ""));
    }

    use std::io::{Read, Write};

    use super::super::prove::Secret;

    /// A server that reads and says these in turn, and how a login at it ends.
    async fn against(script: Vec<(usize, Vec<u8>)>, tls: bool, binding: Binding) -> Result<(), ConnectError> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            for (read, say) in script {
                tcp.read_exact(&mut vec![0; read]).unwrap();
                tcp.write_all(&say).unwrap();
            }
            // Until the client hangs up.
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        let how = super::super::tls::ServerTls {
            verify: super::super::tls::Verify::Nobody,
            authorities: None,
            identity: None,
            direct: false,
        };
        let target = ServerTarget {
            host: "127.0.0.1".to_owned(),
            port,
            database: "d".to_owned(),
            user: "u".to_owned(),
            wallet: Wallet::new(Secret::Password("secret".to_owned())),
            tls: tls.then(|| super::super::tls::connector(&how).unwrap()),
            plain_allowed: true,
            direct: false,
            binding,
            timeout: Duration::from_secs(20),
        };
        let ended = connect(&target).await.map(drop);
        server.join().unwrap();
        ended
    }

    /// Bytes of our startup packet.
    const STARTUP: usize = 4 + 4 + 7 + 11 + 1;

    fn request(kind: u32, rest: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message::frame(&mut out, b'R', |out| {
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(rest);
        });
        out
    }

    fn refused(ended: Result<(), ConnectError>, code: &str, said: &str) {
        let error = ended.err().unwrap();
        assert!(error.code == code && error.message.contains(said), "{error:?}");
    }

    #[tokio::test]
    async fn a_server_has_to_prove_itself() {
        let sasl = request(10, b"SCRAM-SHA-256\0\0");
        // SASLInitialResponse: tag, length, mechanism, length, `n,,n=,r=` and 24 bytes of nonce.
        let first = 5 + 14 + 4 + 8 + 24;
        let ready = [request(0, b""), b"Z\0\0\0\x05I".to_vec()].concat();
        let skipped = vec![(STARTUP, sasl.clone()), (first, ready.clone())];
        refused(against(skipped, false, Binding::Prefer).await, "08P01", "malformed");
        let nonce = request(11, b"r=not-ours,s=YQ==,i=4096");
        let foreign = vec![(STARTUP, sasl.clone()), (first, nonce)];
        refused(against(foreign, false, Binding::Prefer).await, "08P01", "nonce");
        // Another question after the first: the MD5 hash would be worth more to it than the SCRAM proof.
        let again = vec![(STARTUP, request(5, b"salt")), (5 + 36, request(3, b""))];
        refused(against(again, false, Binding::Prefer).await, "08P01", "malformed");
        // Channel binding is demanded, and the server asks for less, or for nothing at all.
        for asked in [sasl, request(5, b"salt"), request(3, b""), ready.clone()] {
            let ended = against(vec![(STARTUP, asked)], false, Binding::Require).await;
            refused(ended, "28000", "channel binding");
        }
        assert!(against(vec![(STARTUP, ready)], false, Binding::Prefer).await.is_ok());
        let offered = request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        refused(against(vec![(STARTUP, offered)], false, Binding::Prefer).await, "08P01", "without TLS");
    }

    #[tokio::test]
    async fn what_comes_before_tls_is_not_read_after_it() {
        let stuffed = [b"S".to_vec(), request(0, b""), b"Z\0\0\0\x05I".to_vec()].concat();
        assert!(against(vec![(8, stuffed)], true, Binding::Prefer).await.is_err());
        let error = [b"E".to_vec(), b"\0\0\0\x0bMplanted\0\0".to_vec()].concat();
        refused(against(vec![(8, error)], true, Binding::Prefer).await, "08P01", "neither S nor N");
        // After N the session goes on in plain text, where that is allowed; nothing may have come with it that was not asked for.
        let plain = vec![(8, b"N".to_vec()), (STARTUP, [request(0, b""), b"Z\0\0\0\x05I".to_vec()].concat())];
        assert!(against(plain, true, Binding::Prefer).await.is_ok());
    }
}
