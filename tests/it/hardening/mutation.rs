//! Recorded conversations with bytes changed, while sentinels watch.
//!
//! `PGWEIR_MUTATIONS` says how many, `PGWEIR_SEED` where the numbers begin.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{Dice, Watch};
use crate::proxy::raw::{bind, execute, frame, parse, query, startup, statement, sync};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Valid conversations after the login.
fn recorded() -> Vec<Vec<u8>> {
    let copy = [query("copy t from stdin"), frame(b'd', b"1\tx\n2\ty\n"), frame(b'c', b""), query("select 1")];
    let failed_copy = [query("copy t from stdin"), frame(b'd', b"1\tx\n"), frame(b'f', b"no\0"), query("select 1")];
    let named = parse("s", "select $1::text, $2::int");
    let prepared = [named, statement(b'D', "s"), bind("s", &["a", "1"]), execute(), statement(b'C', "s"), sync()];
    let unnamed = [parse("", "select $1::text"), bind("", &["value"]), execute(), sync()];
    let portal = [
        query("begin"),
        parse("", "select generate_series(1, 9)"),
        frame(b'B', b"p\0\0\0\0\0\0\0\0"),
        frame(b'E', b"p\0\0\0\0\x02"),
        frame(b'H', b""),
        frame(b'D', b"Pp\0"),
        frame(b'E', b"p\0\0\0\0\0"),
        frame(b'C', b"Pp\0"),
        sync(),
        query("commit"),
    ];
    let failing =
        [parse("", "select 1/0"), bind("", &[]), execute(), parse("never", "select 1"), sync(), query("select 2")];
    let settings = [
        query("set my.tenant = 'mutant'"),
        query("begin"),
        query("set local my.tenant = 'x'"),
        query("rollback"),
        query("reset all"),
    ];
    let call = frame(b'F', &[&1598u32.to_be_bytes()[..], &[0, 0, 0, 0, 0, 0]].concat());
    let many: Vec<Vec<u8>> = (0..12).map(|at| query(&format!("select {at}"))).collect();
    [&copy[..], &failed_copy, &prepared, &unnamed, &portal, &failing, &settings, &[call], &many]
        .map(<[_]>::concat)
        .to_vec()
}

/// Changes bytes as a broken client, a broken line or a hostile mind would.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = dice.below(bytes.len());
        let length = 1 + dice.below(16.min(bytes.len() - at));
        match dice.below(9) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = *dice.one_of(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let copy = bytes[at..at + length].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => drop(bytes.splice(at..at, std::iter::repeat_n(0, length))),
            // Lengths, where they are.
            6 => {
                let value = *dice.one_of(&[0u32, 3, 4, 5, 255, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]);
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&value.to_be_bytes()[..end - at]);
            }
            7 => bytes[at] = *dice.one_of(b"QPBDECSHFXdcfpRZ~"),
            // Pieces change places.
            _ => bytes.rotate_left(at),
        }
    }
}

#[test]
fn m_mutated_conversations() {
    let watch = Watch::new(3);
    let (count, first) = (number("PGWEIR_MUTATIONS", 1000), number("PGWEIR_SEED", 1));
    let recorded = recorded();
    for seed in first..first + count {
        let mut dice = Dice::new(seed);
        let mut bytes = dice.one_of(&recorded).clone();
        let login = dice.below(10) == 0;
        let mut raw = if login {
            bytes = startup("app", "app", &[("application_name", "mutant"), ("options", "-c my.tenant=mutant")]);
            crate::proxy::raw::Raw::connect(watch.port())
        } else {
            watch.client()
        };
        mutate(&mut bytes, &mut dice);
        let asked = Instant::now();
        let _ = raw.stream.write_all(&bytes);
        let _ = raw.stream.shutdown(std::net::Shutdown::Write);
        let mut heard = Vec::new();
        let _ = raw.stream.read_to_end(&mut heard);
        assert!(asked.elapsed() < Duration::from_secs(10), "seed {seed} is not ended");
        let text = String::from_utf8_lossy(&heard);
        assert!(!text.contains("sentinel"), "seed {seed} heard of another: {text}");
    }
    watch.sentinels.iter().for_each(super::Sentinel::served_again);
    watch.calms();
    watch.finish();
}
