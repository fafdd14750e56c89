//! Frames: one tag byte, a 32-bit length that counts itself, and the body.

/// Bytes of a frame's tag and length.
pub const HEADER_LEN: usize = 5;

/// Longest message before a client is authenticated (passwords, SCRAM), as PostgreSQL's own
/// `PG_MAX_AUTH_TOKEN_LENGTH` is for what a password can be.
pub const MAX_AUTH_BODY: usize = 8 * 1024;

/// Longest message of any peer, as PostgreSQL's own `PQ_LARGE_MESSAGE_LIMIT` (`MaxAllocSize`).
pub const MAX_BODY: usize = 0x3fff_ffff;

/// The first five bytes of a frame, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// Bytes of the body (the wire's length minus its own four).
    pub body: usize,
}

impl Header {
    /// Bytes of the whole frame.
    pub fn total(self) -> usize {
        HEADER_LEN + self.body
    }
}

/// A frame that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The length is smaller than the four bytes it counts.
    TooShort {
        /// The message type.
        tag: u8,
    },
    /// The length is above the limit of its phase.
    TooLong {
        /// The message type.
        tag: u8,
        /// Bytes of the body it announced.
        body: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort { tag } => write!(f, "invalid length of message type 0x{tag:02X}"),
            Self::TooLong { tag, body, limit } => {
                write!(f, "message type 0x{tag:02X} of {body} bytes is longer than the {limit} allowed here")
            }
        }
    }
}

/// The header at the start of `bytes`; `None` when more bytes are needed.
#[inline]
pub fn header(bytes: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
    let Some(head) = bytes.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let [tag, a, b, c, d] = *head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let Some(body) = length.checked_sub(4) else { return Err(FrameError::TooShort { tag }) };
    if body > limit {
        return Err(FrameError::TooLong { tag, body, limit });
    }
    Ok(Some(Header { tag, body }))
}

/// A whole frame at the start of `bytes`: its header and its body.
#[inline]
pub fn whole(bytes: &[u8], limit: usize) -> Result<Option<(Header, &[u8])>, FrameError> {
    match header(bytes, limit)? {
        Some(header) => Ok(bytes.get(HEADER_LEN..header.total()).map(|body| (header, body))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_bounded_before_anything_else() {
        assert_eq!(header(b"Q\0\0\0", 10), Ok(None));
        assert_eq!(header(b"Q\0\0\0\x04", 10), Ok(Some(Header { tag: b'Q', body: 0 })));
        assert_eq!(header(b"Q\0\0\0\x03", 10), Err(FrameError::TooShort { tag: b'Q' }));
        assert_eq!(header(b"Q\0\0\0\x0f", 10), Err(FrameError::TooLong { tag: b'Q', body: 11, limit: 10 }));
        // A negative length is a huge one, not a small one.
        assert!(matches!(header(b"Q\xff\xff\xff\xff", MAX_BODY), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_frame_is_whole_or_not_there() {
        assert_eq!(whole(b"Q\0\0\0\x06a", 10), Ok(None));
        assert_eq!(whole(b"Q\0\0\0\x06abX", 10), Ok(Some((Header { tag: b'Q', body: 2 }, &b"ab"[..]))));
    }
}
