//! Messages that pgweir itself says.
//!
//! The hot ones append to a buffer that is at hand. Those of startup and errors are written by
//! pgwire's encoders.

use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};

/// Appends a frame whose body `fill` writes.
pub fn frame(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(start..start + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a string and its terminator.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// Appends a simple Query.
pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    frame(out, b'Q', |out| cstr(out, sql));
}

/// Appends Parse: `rest` is the text, its terminator and the parameter types as the client sent them.
pub fn parse(out: &mut Vec<u8>, name: &[u8], rest: &[u8]) {
    frame(out, b'P', |out| {
        cstr(out, name);
        out.extend_from_slice(rest);
    });
}

/// Appends Describe or Close of a statement (`S`) or portal (`P`).
pub fn named(out: &mut Vec<u8>, tag: u8, kind: u8, name: &[u8]) {
    frame(out, tag, |out| {
        out.push(kind);
        cstr(out, name);
    });
}

/// Appends Execute of a portal without a row limit.
pub fn execute(out: &mut Vec<u8>, portal: &[u8]) {
    frame(out, b'E', |out| {
        cstr(out, portal);
        out.extend_from_slice(&[0; 4]);
    });
}

/// Appends Bind up to its names; `after` bytes of body follow them.
pub fn bind(out: &mut Vec<u8>, after: usize, portal: &[u8], name: &[u8]) {
    let length = 4 + portal.len() + 1 + name.len() + 1 + after;
    out.push(b'B');
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    cstr(out, portal);
    cstr(out, name);
}

/// Appends Sync.
pub fn sync(out: &mut Vec<u8>) {
    out.extend_from_slice(b"S\0\0\0\x04");
}

/// Appends Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    out.extend_from_slice(b"X\0\0\0\x04");
}

/// Appends ReadyForQuery with `I`, `T` or `E`.
pub fn ready(out: &mut Vec<u8>, status: u8) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status]);
}

/// Appends CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, tag: &[u8]) {
    frame(out, b'C', |out| cstr(out, tag));
}

/// Appends an empty message such as ParseComplete (`1`) or CloseComplete (`3`).
pub fn empty(out: &mut Vec<u8>, tag: u8) {
    out.extend_from_slice(&[tag, 0, 0, 0, 4]);
}

/// Appends a NoticeResponse with severity WARNING.
pub fn warning(out: &mut Vec<u8>, code: &str, text: &str) {
    let fields = [(b'S', "WARNING"), (b'V', "WARNING"), (b'C', code), (b'M', text)];
    let fields = fields.into_iter().map(|(field, value)| (field, value.to_owned())).collect();
    encode(out, &NoticeResponse::new(fields));
}

/// Appends a NoticeResponse with severity NOTICE.
pub fn notice(out: &mut Vec<u8>, text: &str, detail: &str) {
    let fields = [(b'S', "NOTICE"), (b'V', "NOTICE"), (b'C', "00000"), (b'M', text), (b'D', detail)];
    let fields = fields.into_iter().map(|(field, value)| (field, value.to_owned())).collect();
    encode(out, &NoticeResponse::new(fields));
}

/// Appends ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    encode(out, &ParameterStatus::new(name.to_owned(), value.to_owned()));
}

/// Appends BackendKeyData.
pub fn backend_key_data(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    encode(out, &BackendKeyData::new(pid.cast_signed(), SecretKey::Bytes(Bytes::copy_from_slice(secret))));
}

/// Appends NegotiateProtocolVersion: the newest minor version served, and options not known.
pub fn negotiate_protocol(out: &mut Vec<u8>, minor: u16, options: Vec<String>) {
    // The newest version as a whole number, as PostgreSQL sends it (`FrontendProtocol` in libpq-fe).
    encode(out, &NegotiateProtocolVersion::new((3 << 16) | i32::from(minor), options));
}

/// Appends AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    encode(out, &Authentication::Ok);
}

/// Appends AuthenticationCleartextPassword.
pub fn authentication_clear_text(out: &mut Vec<u8>) {
    encode(out, &Authentication::CleartextPassword);
}

/// Appends AuthenticationMD5Password.
pub fn authentication_md5(out: &mut Vec<u8>, salt: [u8; 4]) {
    encode(out, &Authentication::MD5Password(salt.to_vec()));
}

/// Appends AuthenticationSASL with its mechanisms.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    encode(out, &Authentication::SASL(mechanisms.iter().map(|&name| name.to_owned()).collect()));
}

/// Appends AuthenticationSASLContinue.
pub fn authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    encode(out, &Authentication::SASLContinue(Bytes::copy_from_slice(data)));
}

/// Appends AuthenticationSASLFinal.
pub fn authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    encode(out, &Authentication::SASLFinal(Bytes::copy_from_slice(data)));
}

fn encode(out: &mut Vec<u8>, message: &impl Message) {
    let mut buffer = BytesMut::new();
    // The encoder fails only above its length limit, which none of these messages reaches.
    if message.encode(&mut buffer).is_ok() {
        out.extend_from_slice(&buffer);
    }
}

/// An error that pgweir itself raises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// SQLSTATE.
    pub code: &'static str,
    /// What happened; said to be pgweir's when it is sent.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
    /// The connection ends with it.
    pub fatal: bool,
    /// PostgreSQL's function that says the same, for drivers that know an error by it.
    pub routine: Option<&'static str>,
}

impl Failure {
    /// An error of one statement.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None, fatal: false, routine: None }
    }

    /// An error that ends the connection.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::error(code, message) }
    }

    /// Adds a HINT.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a DETAIL.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Appends it as ErrorResponse.
    pub fn write(&self, out: &mut Vec<u8>) {
        let severity = if self.fatal { "FATAL" } else { "ERROR" };
        // What PostgreSQL would say itself in the same case is said in its words; the rest names its author.
        let own = matches!(self.code, "25P01" | "25P02" | "26000" | "34000" | "3B001" | "42P05")
            || self.code.starts_with("28")
            || self.routine.is_some()
            || self.message.starts_with("pgweir");
        let message = if own { self.message.clone() } else { format!("pgweir: {}", self.message) };
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', self.code.to_owned()),
            (b'M', message),
        ];
        fields.extend(self.detail.clone().map(|text| (b'D', text)));
        fields.extend(self.hint.clone().map(|text| (b'H', text)));
        fields.extend(self.routine.map(|text| (b'R', text.to_owned())));
        for (_, text) in &mut fields {
            text.retain(|c| c != '\0');
        }
        encode(out, &ErrorResponse::new(fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{body, frame::whole};

    #[test]
    fn frames_have_the_length_of_their_body() {
        let mut out = Vec::new();
        query(&mut out, b"SELECT 1");
        assert_eq!(out, b"Q\0\0\0\x0dSELECT 1\0");
        out.clear();
        parse(&mut out, b"a", b"SELECT 1\0\0\0");
        assert_eq!(whole(&out, 100).unwrap().unwrap().1, b"a\0SELECT 1\0\0\0");
    }

    #[test]
    fn an_error_says_whose_it_is() {
        let mut out = Vec::new();
        Failure::error("53300", "no server connection\0 free").hint("raise pool.size").write(&mut out);
        let (header, body) = whole(&out, 1000).unwrap().unwrap();
        assert_eq!((header.tag, header.total()), (b'E', out.len()));
        let fields = body::error_fields(body);
        assert_eq!((fields.severity, fields.code), (&b"ERROR"[..], &b"53300"[..]));
        assert_eq!(fields.message, b"pgweir: no server connection free");
    }

    #[test]
    fn startup_messages_are_framed() {
        let mut out = Vec::new();
        authentication_ok(&mut out);
        assert_eq!(out, b"R\0\0\0\x08\0\0\0\0");
        out.clear();
        backend_key_data(&mut out, 7, &[1, 2, 3, 4]);
        assert_eq!(out, b"K\0\0\0\x0c\0\0\0\x07\x01\x02\x03\x04");
        out.clear();
        negotiate_protocol(&mut out, 2, vec!["_pq_.x".into()]);
        assert_eq!(whole(&out, 100).unwrap().unwrap().1, b"\0\x03\0\x02\0\0\0\x01_pq_.x\0");
    }
}
