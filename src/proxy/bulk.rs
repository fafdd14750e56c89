//! Long answers are taken from the server in large pieces.
//!
//! PostgreSQL sends rows 8 KB at a time, and each time wakes whoever waits for them: most of what a long answer
//! costs is waking up and going back to sleep. Once an answer is long, the system is told to wake us only for more
//! (`SO_RCVLOWAT`). What is less than that would wait for ever, so a timer takes the order back when nothing has come for
//! a while; its end therefore comes a few milliseconds late, which is less than a long answer takes anyway.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::net::stream::Stream;

/// An answer is long from here on, in bytes.
const LONG: usize = 4 * 1024 * 1024;
/// What is worth waking up for then, in bytes.
const PIECE: i32 = 128 * 1024;
/// How long nothing may come before that ends; as short as timers are here.
const PATIENCE: Duration = Duration::from_millis(1);

/// Watches the length of one server's answers.
#[derive(Debug, Default)]
pub struct Bulk {
    received: usize,
    gathering: Option<Box<Gathering>>,
}

#[derive(Debug)]
struct Gathering {
    timer: Pin<Box<Sleep>>,
    /// Something came since the timer was set.
    came: bool,
}

impl Bulk {
    /// Whether large pieces are waited for.
    pub fn is_on(&self) -> bool {
        self.gathering.is_some()
    }

    /// Notes that bytes of an answer came.
    pub fn received(&mut self, stream: &Stream, count: usize) {
        self.received += count;
        if let Some(gathering) = &mut self.gathering {
            gathering.came = true;
        } else if self.received >= LONG && stream.wake_for(PIECE) {
            let timer = Box::pin(tokio::time::sleep(PATIENCE));
            self.gathering = Some(Box::new(Gathering { timer, came: true }));
        }
    }

    /// Ends the waiting for large pieces when nothing has come for a while.
    pub fn poll(&mut self, stream: &Stream, cx: &mut Context<'_>) {
        while let Some(gathering) = &mut self.gathering {
            if gathering.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            if !std::mem::take(&mut gathering.came) {
                return self.end(stream);
            }
            gathering.timer.as_mut().reset(Instant::now() + PATIENCE);
        }
    }

    /// The answer is over, or slow: every byte counts again.
    pub fn end(&mut self, stream: &Stream) {
        self.received = 0;
        if self.gathering.take().is_some() {
            // The system accepts 1 for every socket that it accepted more for.
            stream.wake_for(1);
        }
    }
}
