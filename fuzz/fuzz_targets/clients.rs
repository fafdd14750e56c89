//! Fuzzes conversations of honest clients over fewer servers, each compared with a server of its own. Seeded runs of the same body are among the tests.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/hardening/model.rs"]
mod model;

fuzz_target!(|bytes: &[u8]| model::run(model::Choices(bytes)));
