//! Fuzzes the packets that open a connection. Seeded runs of the same body are among the tests.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/hardening/bytes.rs"]
mod bytes;

fuzz_target!(|bytes: &[u8]| bytes::opening(bytes));
