//! Transactions on several shards that wait for each other: no server sees it, pgweir does.

use std::time::{Duration, Instant};

use super::{Bank, config};
use crate::proxy::raw::{Raw, field, query, shown};
use crate::support::Proxy;

fn update(account: i64) -> String {
    format!("update accounts set amount = amount + 1 where id = {account}")
}

/// Both lock one row and want the other's; one of them is told 40P01, and the other goes on.
fn meet(one: &mut Raw, other: &mut Raw, at: &[i64]) {
    for (client, account) in [(&mut *one, at[0]), (&mut *other, at[1])] {
        assert_eq!(client.query("begin"), "C:BEGIN Z:T");
        assert_eq!(client.query("savepoint a"), "C:SAVEPOINT Z:T");
        assert_eq!(client.query(&update(account)), "C:UPDATE_1 Z:T");
    }
    let started = Instant::now();
    one.send(&query(&update(at[1])));
    other.send(&query(&update(at[0])));
    // Whoever is the victim answers first: the other waits for it.
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        let heard: Vec<_> = [&mut *one, &mut *other]
            .map(|client| {
                scope.spawn(move || {
                    let frames = client.until_ready(1);
                    let heard = shown(&frames);
                    if heard.starts_with("E:") {
                        let (_, body) = frames.iter().find(|(tag, _)| *tag == b'E').unwrap();
                        assert!(field(body, b'M').contains("deadlock"), "{}", field(body, b'M'));
                        assert_eq!(client.query("rollback to a"), "C:ROLLBACK Z:T");
                    }
                    heard
                })
            })
            .into_iter()
            .collect();
        answers.extend(heard.into_iter().map(|heard| heard.join().unwrap()));
    });
    assert!(started.elapsed() < Duration::from_secs(15));
    answers.sort();
    assert_eq!(answers, ["C:UPDATE_1 Z:T", "E:40P01 Z:E"]);
    for client in [one, other] {
        assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    }
}

#[test]
fn one_of_two_gives_way() {
    let bank = Bank::new(2);
    let (mut one, mut other) = (bank.client(), bank.client());
    let at = bank.spread(&mut one);
    meet(&mut one, &mut other, &at);
    // Statements that run long, and those that wait for one who is idle, are left alone.
    let mut holder = bank.client();
    holder.query("begin");
    holder.query(&update(at[0]));
    one.query("begin");
    one.query(&update(at[1]));
    one.send(&query(&update(at[0])));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(holder.query(&update(at[0])), "C:UPDATE_1 Z:T");
    assert_eq!(holder.query("commit"), "C:COMMIT Z:I");
    assert_eq!(shown(&one.until_ready(1)), "C:UPDATE_1 Z:T");
    assert_eq!(one.query("commit"), "C:COMMIT Z:I");
}

#[test]
fn instances_find_what_neither_sees_alone() {
    let bank = Bank::new(2);
    let second = Proxy::start(&config(&bank.shards, "atomic"));
    let mut one = bank.client();
    let mut other = Raw::login(second.port(), "app", "secret", "bank", &[]);
    let at = bank.spread(&mut one);
    meet(&mut one, &mut other, &at);
}
