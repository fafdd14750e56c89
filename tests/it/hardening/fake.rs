//! A server that speaks just enough of the protocol to misuse it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::proxy::raw::{Frame, frame};

/// What the server does with one connection.
pub type Script = Arc<dyn Fn(&mut Peer) -> Option<()> + Send + Sync>;

/// A listening server whose behaviour can be changed while it runs.
pub struct Fake {
    pub port: u16,
    script: Arc<Mutex<Script>>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// Everything that the proxy ever said to it.
    pub heard: Arc<Mutex<Vec<u8>>>,
}

impl Fake {
    pub fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (script, stop) = (Arc::new(Mutex::new(script)), Arc::new(AtomicBool::new(false)));
        let (heard, open) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let streams: Arc<Mutex<Vec<TcpStream>>> = open.clone();
        let (shared, stopped, noted) = (script.clone(), stop.clone(), heard.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                stream.set_nodelay(true).unwrap();
                streams.lock().unwrap().extend(stream.try_clone());
                let script = shared.lock().unwrap().clone();
                let mut peer = Peer { stream, heard: noted.clone(), allowance: None };
                std::thread::spawn(move || {
                    script(&mut peer);
                    // The other hold on its socket would keep it open.
                    let _ = peer.stream.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { port, script, stop, open, heard }
    }

    /// From now on; connections that behave otherwise are closed.
    pub fn become_(&self, script: Script) {
        *self.script.lock().unwrap() = script;
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// The proxy, as the fake server sees it.
pub struct Peer {
    pub stream: TcpStream,
    heard: Arc<Mutex<Vec<u8>>>,
    /// Bytes that may still be sent before the connection is closed.
    allowance: Option<Arc<AtomicUsize>>,
}

impl Peer {
    /// Closes the connection once so many bytes were sent.
    pub fn limit(&mut self, allowance: Arc<AtomicUsize>) {
        self.allowance = Some(allowance);
    }

    pub fn send(&mut self, bytes: &[u8]) -> Option<()> {
        let Some(allowance) = &self.allowance else { return self.stream.write_all(bytes).ok() };
        let left = allowance.load(Ordering::SeqCst);
        let count = left.min(bytes.len());
        allowance.store(left - count, Ordering::SeqCst);
        self.stream.write_all(&bytes[..count]).ok()?;
        (count == bytes.len()).then_some(())
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).ok()?;
        self.heard.lock().unwrap().extend(&bytes);
        Some(bytes)
    }

    /// The startup packet's body, or that of a request for TLS or cancelling.
    pub fn startup(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        self.take(length as usize - 4)
    }

    pub fn read(&mut self) -> Option<Frame> {
        let head = self.take(5)?;
        let length = u32::from_be_bytes(head[1..].try_into().ok()?);
        Some((head[0], self.take(length as usize - 4)?))
    }

    /// An honest login without a password.
    pub fn log_in(&mut self) -> Option<()> {
        self.startup()?;
        self.send(&greeting())
    }

    /// Answers queries honestly, `say` those that are not the proxy's own.
    pub fn serve(&mut self, say: &mut dyn FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        loop {
            let (tag, body) = self.read()?;
            match tag {
                b'X' => return None,
                b'Q' if body.starts_with(b"select '") || body.starts_with(b"copy ") => say(self, &body)?,
                b'Q' => self.send(&[done("SELECT 0"), ready(b'I')].concat())?,
                b'P' => self.send(&frame(b'1', b""))?,
                b'B' => self.send(&frame(b'2', b""))?,
                b'C' => self.send(&frame(b'3', b""))?,
                b'E' => self.send(&[row("x"), done("SELECT 1")].concat())?,
                b'S' => self.send(&ready(b'I'))?,
                _ => {}
            }
        }
    }
}

/// A server without malice: it gives back what stands between the first quotes.
pub fn honest() -> Script {
    Arc::new(|peer| {
        peer.log_in()?;
        peer.serve(&mut |peer, sql| peer.send(&echo(sql)))
    })
}

/// Its answer to `select 'x'`.
pub fn echo(sql: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(sql);
    let value = text.split('\'').nth(1).unwrap_or_default().to_owned();
    [columns(), row(&value), done("SELECT 1"), ready(b'I')].concat()
}

/// AuthenticationOk, parameters, key, ready.
pub fn greeting() -> Vec<u8> {
    let parameter = |name: &str, value: &str| frame(b'S', format!("{name}\0{value}\0").as_bytes());
    [
        frame(b'R', &[0; 4]),
        parameter("server_version", "15.0"),
        parameter("client_encoding", "UTF8"),
        parameter("standard_conforming_strings", "on"),
        frame(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]),
        ready(b'I'),
    ]
    .concat()
}

pub fn ready(status: u8) -> Vec<u8> {
    frame(b'Z', &[status])
}

pub fn done(tag: &str) -> Vec<u8> {
    frame(b'C', format!("{tag}\0").as_bytes())
}

pub fn columns() -> Vec<u8> {
    frame(b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0")
}

pub fn row(value: &str) -> Vec<u8> {
    frame(b'D', &[&[0, 1], &(value.len() as u32).to_be_bytes()[..], value.as_bytes()].concat())
}

/// An error with these fields.
pub fn error(fields: &[&str]) -> Vec<u8> {
    let mut body: Vec<u8> = fields.iter().flat_map(|field| format!("{field}\0").into_bytes()).collect();
    body.push(0);
    frame(b'E', &body)
}

/// A request for authentication.
pub fn authentication(kind: u32, data: &[u8]) -> Vec<u8> {
    frame(b'R', &[&kind.to_be_bytes()[..], data].concat())
}
