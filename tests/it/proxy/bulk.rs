//! Answers long enough to be taken in large pieces.

use std::time::{Duration, Instant};

use super::Stage;
use super::raw::query;

#[test]
fn long_answers_come_whole_and_leave_the_connection_as_it_was() {
    let stage = Stage::new(1);
    let (mut reader, mut next) = (stage.client(), stage.client());
    for rows in [20_000, 4_500, 9_001] {
        reader.send(&query(&format!("select n, repeat('x', 1000) from generate_series(1, {rows}) n")));
        let frames = reader.until_ready(1);
        let numbers: Vec<_> = frames.iter().filter(|frame| frame.0 == b'D').map(|(_, body)| number(body)).collect();
        assert!(numbers.into_iter().eq(1..=rows), "every row, once, in order");
        // The only server connection goes on to clients with small answers.
        assert_eq!(next.value("select 1"), "1");
        assert_eq!(reader.value("select 2"), "2");
    }
}

#[test]
fn a_pause_in_a_long_answer_holds_nothing_back() {
    let stage = Stage::new(1);
    let mut reader = stage.client();
    // COPY is sent row by row, so that what comes before the pause has left the server.
    let rows = "select repeat('x', 1000) from generate_series(1, 9000) union all select 'late' || pg_sleep(3)";
    reader.send(&query(&format!("copy ({rows}) to stdout")));
    let start = Instant::now();
    let mut early = 0;
    loop {
        let (tag, body) = reader.read();
        if tag == b'd' && body.starts_with(b"late") {
            break;
        }
        assert_ne!(tag, b'E', "{}", String::from_utf8_lossy(&body));
        early += usize::from(tag == b'd' && start.elapsed() < Duration::from_millis(2900));
    }
    assert!(early > 8900, "only {early} rows came before the pause was over");
    reader.until_ready(1);
    assert_eq!(reader.value("select 1"), "1");
}

/// The first column of a row.
fn number(row: &[u8]) -> i32 {
    let length = u32::from_be_bytes(row[2..6].try_into().unwrap()) as usize;
    std::str::from_utf8(&row[6..6 + length]).unwrap().parse().unwrap()
}
