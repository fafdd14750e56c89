//! Fuzzes SCRAM from both sides: nobody is believed who does not know the password. Seeded runs of the same body are among the tests.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/hardening/bytes.rs"]
mod bytes;

fuzz_target!(|bytes: &[u8]| bytes::scram(bytes));
