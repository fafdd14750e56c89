//! Between transactions: what the session has become, and whether its server connection goes.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use crate::pool::reset::Hygiene;
use crate::proxy::care::Care;
use crate::proxy::session::{Blocked, End, Serving, Session, Work};
use crate::wire::message::Failure;

impl Session {
    /// Asks the server what the session has become, where that is not known; true when it was asked.
    pub(super) fn probe(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Result<bool, End> {
        if !self.talk.wants_probe() || self.leaving {
            return Ok(false);
        }
        let care = self.talk.care;
        if care.has(Care::DEFINES) && !self.talk.pins.is_empty() {
            self.watch_functions(Duration::ZERO);
        } else if care.has(Care::SETTINGS) {
            // It may have been a definition of a function, among other things.
            self.watch_functions(Duration::from_secs(1));
        }
        let Some(serving) = self.serving.as_mut() else { return Ok(false) };
        self.talk.probe(&mut serving.conn.state, &mut work.to_server);
        self.write_all(cx, work)?;
        Ok(true)
    }

    /// Gives the server connection back when it is not needed any more; true when it was.
    pub(super) fn settle(&mut self) -> Result<bool, End> {
        if self.shown != self.talk.pins {
            self.shown = self.talk.pins;
            self.guard.client.show_pins(self.shown);
        }
        self.check_replica()?;
        // A message that waited for answers of this very connection is about to be sent on it, unless it waits for the end.
        let goes_on = self.blocked == Blocked::Retry && !self.talk.must_learn() && !self.talk.is_suspect();
        let done = !goes_on
            && self.talk.is_releasable()
            && self.serving.as_ref().is_some_and(|serving| serving.backlog.is_empty() && serving.stash.is_empty());
        if done && self.talk.is_suspect() && self.talk.relies_on_connection() {
            let failure = Failure::fatal("08006", "the server connection cannot be used any more");
            return Err(End::Failed(
                failure.hint("connect again; settings, temporary tables, locks and listeners of this session are lost"),
            ));
        }
        let Some(Serving { conn, mut bulk, .. }) = self.serving.take_if(|_| done) else { return Ok(false) };
        bulk.end(&conn.stream);
        let suspect = self.talk.is_suspect();
        let defined = self.talk.detach();
        self.leave_server(defined);
        self.guard.client.serve(None);
        if suspect {
            self.access.pool.discard(conn);
        } else if defined && self.access.database.sharded.is_none() {
            self.reading = Some(tokio::spawn(self.access.database.clone().learn(self.access.pool.clone(), conn)));
        } else {
            self.access.pool.release_after(conn, Hygiene::Clean);
        }
        Ok(true)
    }

    pub(super) fn watch_functions(&self, after: Duration) {
        self.access.database.watch_functions(&self.access.pool, self.access.home, after);
    }

    /// Waits until what this client defined is known, before it can be used; true when it has just become known.
    pub(super) fn await_reading(&mut self, cx: &mut Context<'_>) -> bool {
        let done = self.reading.as_mut().is_some_and(|reading| Pin::new(reading).poll(cx).is_ready());
        if done {
            self.reading = None;
        }
        done
    }
}
