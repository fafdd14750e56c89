//! Fuzzes the header of frames, and the reader of bodies.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir::wire::body::Reader;
use pgweir::wire::frame::{HEADER_LEN, MAX_BODY, header};

fuzz_target!(|bytes: &[u8]| {
    for limit in [0, 100, MAX_BODY] {
        match header(bytes, limit) {
            Ok(None) => assert!(bytes.len() < HEADER_LEN),
            Ok(Some(head)) => assert!(head.body <= limit && head.total() == HEADER_LEN + head.body),
            Err(_) => assert!(bytes.len() >= HEADER_LEN),
        }
    }
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let before = reader.rest().len();
        let choice = bytes.get(bytes.len() - before).copied().unwrap_or_default();
        let read = match choice % 3 {
            0 => reader.cstr().map(|_| ()),
            1 => reader.u32().map(|_| ()),
            _ => reader.bytes(usize::from(choice / 3)).map(|_| ()),
        };
        if read.is_err() || reader.rest().len() == before {
            break;
        }
    }
});
