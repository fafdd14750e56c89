//! A client that speaks the protocol byte by byte, well or badly.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

/// A connection.
pub struct Raw {
    pub stream: TcpStream,
    /// Process id and secret for a cancel request.
    pub key: (u32, Vec<u8>),
}

/// A frame: tag and body.
pub type Frame = (u8, Vec<u8>);

/// A frame as bytes.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', format!("{sql}\0").as_bytes())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
}

/// Bind of the unnamed portal with text parameters.
pub fn bind(statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = format!("\0{statement}\0\0\0").into_bytes();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    frame(b'B', &body)
}

pub fn execute() -> Vec<u8> {
    frame(b'E', b"\0\0\0\0\0")
}

pub fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

/// Describe or Close (`tag`) of a statement.
pub fn statement(tag: u8, name: &str) -> Vec<u8> {
    frame(tag, format!("S{name}\0").as_bytes())
}

pub fn startup(user: &str, database: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for (name, value) in [("user", user), ("database", database)].iter().chain(more) {
        body.extend(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

/// Field `tag` of an ErrorResponse.
pub fn field(body: &[u8], tag: u8) -> String {
    let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&tag));
    found.map_or(String::new(), |field| String::from_utf8_lossy(&field[1..]).into_owned())
}

impl Raw {
    pub fn connect(port: u16) -> Self {
        Self::connect_to(port).unwrap()
    }

    /// `None` when nobody listens there.
    pub fn connect_to(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Some(Self { stream, key: (0, Vec::new()) })
    }

    /// Logs in or panics with what the proxy said.
    pub fn login(port: u16, user: &str, password: &str, database: &str, more: &[(&str, &str)]) -> Self {
        Self::try_login(port, user, password, database, more)
            .unwrap_or_else(|error| panic!("{}", String::from_utf8_lossy(&error)))
    }

    /// Logs in; the error is an ErrorResponse's body.
    pub fn try_login(
        port: u16,
        user: &str,
        password: &str,
        database: &str,
        more: &[(&str, &str)],
    ) -> Result<Self, Vec<u8>> {
        Self::connect(port).log_in(user, password, database, more)
    }

    /// Logs in over a fresh connection; the error is an ErrorResponse's body, empty when it just ended.
    pub fn log_in(self, user: &str, password: &str, database: &str, more: &[(&str, &str)]) -> Result<Self, Vec<u8>> {
        self.log_in_by(&startup(user, database, more), password)
    }

    /// The same with a startup packet of any kind.
    pub fn log_in_by(self, packet: &[u8], password: &str) -> Result<Self, Vec<u8>> {
        let mut raw = self;
        let _ = raw.stream.write_all(packet);
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (tag, body) = raw.try_read().ok_or_else(Vec::new)?;
            let answer = match (tag, body.get(..4)) {
                (b'E', _) => return Err(body),
                (b'Z', _) => return Ok(raw),
                (b'K', _) => {
                    let pid = u32::from_be_bytes(body[..4].try_into().unwrap());
                    raw.key = (pid, body[4..].to_vec());
                    continue;
                }
                (b'R', Some([0, 0, 0, 10])) => {
                    let mut first = b"SCRAM-SHA-256\0".to_vec();
                    first.extend((scram.message().len() as u32).to_be_bytes());
                    first.extend(scram.message());
                    first
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    scram.update(&body[4..]).unwrap();
                    scram.message().to_vec()
                }
                (b'R', Some([0, 0, 0, 12])) => {
                    scram.finish(&body[4..]).unwrap();
                    continue;
                }
                _ => continue,
            };
            let _ = raw.stream.write_all(&frame(b'p', &answer));
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn read(&mut self) -> Frame {
        self.try_read().expect("the connection ended")
    }

    pub fn try_read(&mut self) -> Option<Frame> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).ok()?;
        let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
        self.stream.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    /// All frames up to and with `count` ReadyForQuery.
    pub fn until_ready(&mut self, count: usize) -> Vec<Frame> {
        let (mut frames, mut ready) = (Vec::new(), 0);
        while ready < count {
            let Some(frame) = self.try_read() else {
                let why = frames.last().map(|frame: &Frame| field(&frame.1, b'M'));
                panic!("the connection ended after {}: {why:?}", shown(&frames));
            };
            ready += usize::from(frame.0 == b'Z');
            frames.push(frame);
        }
        frames
    }

    /// Sends and reads up to `count` ReadyForQuery; gives what came as text, see [`shown`].
    pub fn talk(&mut self, messages: &[Vec<u8>], count: usize) -> String {
        self.send(&messages.concat());
        shown(&self.until_ready(count))
    }

    /// A simple query; `None` when the connection ended, or gave no answer in time.
    pub fn try_query(&mut self, sql: &str) -> Option<String> {
        self.stream.write_all(&query(sql)).ok()?;
        let mut frames = Vec::new();
        while frames.last().is_none_or(|(tag, _)| *tag != b'Z') {
            frames.push(self.try_read()?);
        }
        Some(shown(&frames))
    }

    /// A simple query.
    pub fn query(&mut self, sql: &str) -> String {
        self.talk(&[query(sql)], 1)
    }

    /// The first column of the only row, or the error.
    pub fn value(&mut self, sql: &str) -> String {
        let text = self.query(sql);
        text.split(' ').find_map(|part| part.strip_prefix("D:")).map_or(text.clone(), str::to_owned)
    }
}

/// Frames in short: tags, with values of rows (`D:a,b`), command tags (`C:SELECT_1`), SQLSTATEs (`E:42P01`), and the
/// status of ReadyForQuery (`Z:I`). Parameters and notices are left out.
pub fn shown(frames: &[Frame]) -> String {
    let mut parts = Vec::new();
    for (tag, body) in frames {
        let detail = match tag {
            b'S' | b'N' => continue,
            b'Z' => format!(":{}", body[0] as char),
            b'C' => format!(":{}", String::from_utf8_lossy(body).trim_end_matches('\0').replace(' ', "_")),
            b'E' => format!(":{}", field(body, b'C')),
            b'D' => format!(":{}", row(body).join(",")),
            _ => String::new(),
        };
        parts.push(format!("{}{detail}", *tag as char));
    }
    parts.join(" ")
}

fn row(mut body: &[u8]) -> Vec<String> {
    let mut take = |count: usize| {
        let (head, tail) = body.split_at(count);
        body = tail;
        head
    };
    let count = u16::from_be_bytes(take(2).try_into().unwrap());
    (0..count)
        .map(|_| match u32::from_be_bytes(take(4).try_into().unwrap()) {
            u32::MAX => "NULL".to_owned(),
            length => String::from_utf8_lossy(take(length as usize)).into_owned(),
        })
        .collect()
}
