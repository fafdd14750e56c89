//! The untyped packets that open a connection.

use crate::wire::body::Reader;

/// Longest startup packet (PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP_LEN: usize = 10_000;
/// Most parameters in one startup packet.
pub const MAX_PARAMETERS: usize = 200;
/// Longest user or database name (PostgreSQL's `NAMEDATALEN - 1`).
pub const MAX_NAME: usize = 63;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// What a client opens its connection with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest.
    Cancel {
        /// The process id it was told.
        pid: u32,
        /// The secret it was told (4 bytes in protocol 3.0, up to 256 in 3.2).
        secret: Vec<u8>,
    },
    /// A session.
    Startup(Startup),
}

/// The parameters of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    /// Minor version of protocol 3 that was asked for.
    pub minor: u16,
    /// `user`.
    pub user: String,
    /// `database`; the user's name when it was not given.
    pub database: String,
    /// Settings in the order given, `options` taken apart; the last of a name wins.
    pub settings: Vec<(String, String)>,
    /// `replication`, when it asks for a replication connection.
    pub replication: bool,
    /// `_pq_.` options, none of which pgweir knows.
    pub protocol_options: Vec<String>,
}

/// Why an opening packet was refused: SQLSTATE and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The SQLSTATE.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
}

fn violation(message: impl Into<String>) -> Refused {
    Refused { code: "08P01", message: message.into() }
}

/// The opening packet at the start of `bytes` and its length; `None` when more bytes are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Opening, usize)>, Refused> {
    let mut reader = Reader::new(bytes);
    let Ok(length) = reader.u32() else { return Ok(None) };
    let length = length as usize;
    if !(8..=MAX_STARTUP_LEN).contains(&length) {
        return Err(violation("invalid length of startup packet"));
    }
    let Ok(body) = reader.bytes(length - 4) else { return Ok(None) };
    let mut reader = Reader::new(body);
    let Ok(code) = reader.u32() else { return Ok(None) };
    let opening = match code {
        SSL | GSS if !reader.is_empty() => return Err(violation("invalid length of startup packet")),
        SSL => Opening::Ssl,
        GSS => Opening::Gss,
        CANCEL => cancel(reader)?,
        version if version >> 16 == 3 => Opening::Startup(session((version & 0xffff) as u16, reader)?),
        version => {
            let message = format!(
                "unsupported frontend protocol {}.{}: server supports 3.0 to 3.2",
                version >> 16,
                version & 0xffff
            );
            return Err(Refused { code: "0A000", message });
        }
    };
    Ok(Some((opening, length)))
}

fn cancel(mut reader: Reader<'_>) -> Result<Opening, Refused> {
    let pid = reader.u32().map_err(|_| violation("invalid length of cancel request packet"))?;
    let secret = reader.rest();
    if secret.is_empty() || secret.len() > 256 {
        return Err(violation("invalid length of cancel request packet"));
    }
    Ok(Opening::Cancel { pid, secret: secret.to_vec() })
}

fn session(minor: u16, mut reader: Reader<'_>) -> Result<Startup, Refused> {
    let bad = |_| violation("invalid startup packet layout: expected terminator as last byte");
    let mut startup = Startup { minor, ..Startup::default() };
    for count in 0.. {
        let name = reader.cstr().map_err(bad)?;
        if name.is_empty() {
            break;
        }
        if count == MAX_PARAMETERS {
            return Err(violation(format!("more than {MAX_PARAMETERS} parameters in the startup packet")));
        }
        let value = reader.cstr().map_err(bad)?;
        parameter(&mut startup, utf8(name)?, utf8(value)?)?;
    }
    if !reader.is_empty() {
        return Err(violation("invalid startup packet layout: expected terminator as last byte"));
    }
    if startup.user.is_empty() {
        return Err(Refused { code: "28000", message: "no PostgreSQL user name specified in startup packet".into() });
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    if startup.user.len() > MAX_NAME || startup.database.len() > MAX_NAME {
        return Err(violation(format!("a user or database name is longer than {MAX_NAME} bytes")));
    }
    Ok(startup)
}

fn utf8(bytes: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(bytes).map_err(|_| violation("a startup parameter is not valid UTF-8"))
}

fn parameter(startup: &mut Startup, name: &str, value: &str) -> Result<(), Refused> {
    match name {
        "user" => value.clone_into(&mut startup.user),
        "database" => value.clone_into(&mut startup.database),
        "replication" => startup.replication = !matches!(value, "false" | "off" | "no" | "0" | ""),
        "options" => command_line(value, &mut startup.settings)?,
        _ if name.starts_with("_pq_.") => startup.protocol_options.push(name.to_owned()),
        _ => startup.settings.push((name.to_owned(), value.to_owned())),
    }
    Ok(())
}

/// Takes `-c name=value` and `--name=value` apart, with backslash escapes as `pg_split_opts` reads them.
fn command_line(options: &str, settings: &mut Vec<(String, String)>) -> Result<(), Refused> {
    let mut words = split_options(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if let Some(rest) = word.strip_prefix("--") {
            Some(rest.to_owned())
        } else if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("-c").map(str::to_owned)
        };
        let Some((name, value)) = assignment.as_deref().and_then(|text| text.split_once('=')) else {
            return Err(Refused {
                code: "0A000",
                message: format!("pgweir: startup option {word:?} is not of the form -c name=value"),
            });
        };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(())
}

fn split_options(options: &str) -> Vec<String> {
    let (mut words, mut word, mut open) = (Vec::new(), String::new(), false);
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                open = true;
                word.extend(chars.next());
            }
            c if c.is_ascii_whitespace() => {
                if open {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            c => {
                open = true;
                word.push(c);
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests;
