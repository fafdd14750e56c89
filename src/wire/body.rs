//! Reading a message's body without leaving it.

/// A body did not hold what its message type promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A cursor over one message's body.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the body's first byte.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True at the body's end.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = tail;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let (&first, tail) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = tail;
        Ok(first)
    }

    /// A 16-bit number in network order.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<2>().ok_or(Malformed)?;
        self.rest = tail;
        Ok(u16::from_be_bytes(*head))
    }

    /// A 32-bit number in network order.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<4>().ok_or(Malformed)?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    /// A string without its terminating zero byte; the terminator must be there.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed)?;
        let (head, tail) = self.rest.split_at_checked(end).ok_or(Malformed)?;
        self.rest = tail.get(1..).ok_or(Malformed)?;
        Ok(head)
    }
}

/// The fields of an ErrorResponse or NoticeResponse that pgweir looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// `S`, or `V` where there is none: ERROR, FATAL, PANIC.
    pub severity: &'a [u8],
    /// `C`: the SQLSTATE; empty when a server left it out.
    pub code: &'a [u8],
    /// `M`: the message.
    pub message: &'a [u8],
}

/// Picks the fields out of an ErrorResponse's body; what is missing stays empty.
pub fn error_fields(body: &[u8]) -> ErrorFields<'_> {
    let mut fields = ErrorFields::default();
    let mut reader = Reader::new(body);
    while let Ok(tag) = reader.u8() {
        let Ok(value) = reader.cstr() else { break };
        match tag {
            b'V' => fields.severity = value,
            b'S' if fields.severity.is_empty() => fields.severity = value,
            b'C' => fields.code = value,
            b'M' => fields.message = value,
            _ => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_reads_past_the_body() {
        let mut reader = Reader::new(b"ab\0\0\x01");
        assert_eq!(reader.cstr(), Ok(&b"ab"[..]));
        assert_eq!(reader.u16(), Ok(1));
        assert_eq!(reader.u8(), Err(Malformed));
        assert_eq!(Reader::new(b"no terminator").cstr(), Err(Malformed));
        assert_eq!(Reader::new(b"\0\0").u32(), Err(Malformed));
        assert_eq!(Reader::new(b"abc").bytes(4), Err(Malformed));
    }

    #[test]
    fn an_error_without_a_code_has_an_empty_one() {
        let fields = error_fields(b"SERROR\0Mboom\0\0");
        assert_eq!((fields.severity, fields.code, fields.message), (&b"ERROR"[..], &b""[..], &b"boom"[..]));
        assert_eq!(error_fields(b"Cunterminated"), ErrorFields::default());
    }
}
