//! Cancel requests: they reach the query that they mean, or nothing.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Dice, Watch, sent};
use crate::proxy::raw::{Raw, bind, execute, parse, query, shown, sync};

fn request(pid: u32, secret: &[u8]) -> Vec<u8> {
    let length = (12 + secret.len()) as u32;
    [&length.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), &pid.to_be_bytes(), secret].concat()
}

/// Sends a cancel request and waits until it was taken.
fn cancel(port: u16, (pid, secret): (u32, &[u8])) {
    let mut raw = sent(port, &request(pid, secret));
    assert_eq!(raw.try_read(), None, "a cancel request is never answered");
}

/// A client whose every answer is its own; it may be cancelled when `cancels`.
fn work(port: u16, number: u64, cancels: bool, stop: &AtomicBool) -> (u32, u32) {
    let mut raw = Raw::login(port, "app", "secret", "app", &[]);
    let mut dice = Dice::new(number);
    let (mut answered, mut cancelled) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        let tag = format!("{number}.{answered}.{cancelled}");
        raw.send(&query(&format!(
            "select '{tag}' from pg_sleep({})",
            dice.below(if cancels { 150 } else { 20 }) as f64 / 1000.0
        )));
        if cancels && dice.below(2) == 0 {
            std::thread::sleep(Duration::from_micros(dice.below(250_000) as u64));
            cancel(port, (raw.key.0, &raw.key.1.clone()));
        }
        let heard = shown(&raw.until_ready(1));
        if heard == format!("T D:{tag} C:SELECT_1 Z:I") {
            answered += 1;
        } else {
            assert!(cancels && matches!(heard.as_str(), "E:57014 Z:I" | "T E:57014 Z:I"), "client {number}: {heard}");
            cancelled += 1;
        }
    }
    (answered, cancelled)
}

#[test]
fn c_under_load_nobody_else_is_cancelled() {
    let watch = Watch::new(2);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (port, stop) = (watch.port(), stop.clone());
            std::thread::spawn(move || work(port, number, number % 2 == 0, &stop))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    stop.store(true, Ordering::SeqCst);
    let counts: Vec<(u32, u32)> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(counts.iter().all(|(answered, _)| *answered > 0), "{counts:?}");
    assert!(counts.iter().any(|(_, cancelled)| *cancelled > 0), "nothing was cancelled: {counts:?}");
    watch.finish();
}

#[test]
fn c_keys_that_are_wrong_or_old_do_nothing() {
    let watch = Watch::new(2);
    let mut busy = watch.client();
    let gone = watch.client().key.clone();
    let (pid, secret) = busy.key.clone();
    busy.send(&query("select 'done' from pg_sleep(1)"));
    let mut wrong = secret.clone();
    wrong[0] ^= 1;
    let longer = [&secret[..], b"x"].concat();
    for _ in 0..20 {
        for key in [
            (pid, &wrong[..]),
            (pid, &longer),
            (pid, &secret[..secret.len() - 1]),
            (pid.wrapping_add(1), &secret),
            (0, &[0; 4]),
            (u32::MAX, &[0xff; 32]),
            (gone.0, &gone.1),
        ] {
            cancel(watch.port(), key);
        }
    }
    assert_eq!(shown(&busy.until_ready(1)), "T D:done C:SELECT_1 Z:I");
    // The right key while its owner is idle, many times: nothing is kept for later.
    for _ in 0..20 {
        cancel(watch.port(), (pid, &secret));
    }
    assert_eq!(busy.value("select 'still'"), "still");
    // And the right key at the right time.
    busy.send(&query("select pg_sleep(20)"));
    std::thread::sleep(Duration::from_millis(100));
    let asked = Instant::now();
    cancel(watch.port(), (pid, &secret));
    assert_eq!(shown(&busy.until_ready(1)), "T E:57014 Z:I");
    assert!(asked.elapsed() < Duration::from_secs(5));
    watch.finish();
}

#[test]
fn c_for_a_client_in_the_queue_hits_nobody_else() {
    let watch = Watch::new(1);
    let (mut holder, mut waiting) = (watch.client(), watch.client());
    holder.query("begin");
    holder.send(&query("select 'held' from pg_sleep(2)"));
    let extended = [parse("p", "select 'late'"), bind("p", &[]), execute(), sync()].concat();
    for late in [query("select 'late'"), extended] {
        waiting.send(&late);
        let key = waiting.key.clone();
        // It may come before the query, and then means nothing.
        let done = AtomicBool::new(false);
        let heard = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    cancel(watch.port(), (key.0, &key.1));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let heard = shown(&waiting.until_ready(1));
            done.store(true, Ordering::SeqCst);
            heard
        });
        assert_eq!(heard, "E:57014 Z:I");
    }
    assert_eq!(shown(&holder.until_ready(1)), "T D:held C:SELECT_1 Z:T");
    holder.query("commit");
    assert_eq!(
        waiting.talk(&[parse("p", "select 'then'"), bind("p", &[]), execute(), sync()], 1),
        "1 2 D:then C:SELECT_1 Z:I"
    );
    assert_eq!(waiting.value("select 'next'"), "next");
    watch.finish();
}

#[test]
fn c_bursts_do_no_harm() {
    let watch = Watch::new(2);
    let mut busy = watch.client();
    let key = busy.key.clone();
    for round in 0..4 {
        busy.send(&query("select 'busy' from pg_sleep(0.1)"));
        let burst: Vec<TcpStream> = (0..500u32)
            .map(|number| {
                // Wrong ones, and the right one again and again.
                let right = number % 50 == 0 && round > 0;
                let pid = if right { key.0 } else { number + 1 };
                sent(watch.port(), &request(pid, &key.1)).stream
            })
            .collect();
        drop(burst);
        let heard = shown(&busy.until_ready(1));
        assert!(matches!(heard.as_str(), "T D:busy C:SELECT_1 Z:I" | "T E:57014 Z:I" | "E:57014 Z:I"), "{heard}");
    }
    watch.sentinels[0].served_again();
    // All is as before: requests that are late hit nobody.
    for _ in 0..50 {
        assert_eq!(watch.client().value("select 'fine'"), "fine");
    }
    watch.finish();
}
