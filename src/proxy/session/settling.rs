//! Between transactions: what the session has become, and whether its server connection goes.

use std::pin::Pin;
use std::task::Context;

use crate::pool::reset::Hygiene;
use crate::proxy::care::Care;
use crate::proxy::session::{Blocked, End, Serving, Session, Work};
use crate::wire::message::Failure;

impl Session {
    /// Distrusts what was thought of the client's statements where definitions have changed while they ran.
    pub(super) fn doubt(&mut self) {
        let unjudged = self.serving.is_some() && self.judged != self.talk.segment && !self.talk.keeps;
        if unjudged && self.talk.is_idle() && !self.access.database.functions.is_settled(self.read_with) {
            self.judged = self.talk.segment;
            self.talk.distrust();
            if let Some(serving) = &mut self.serving {
                self.talk.may_have_drawn(&mut serving.conn.state);
            }
        }
    }

    /// Leaves databases alone that statements need which are about to be sent.
    pub(super) fn leave_alone(&self, work: &mut Work) {
        let databases = work.analyzer.alone.drain(..);
        if let Some(serving) = &self.serving {
            self.talk.leave_alone(&serving.conn.cancel, databases);
        }
    }

    /// Announces a definition that is about to be sent.
    pub(super) fn announce(&mut self) {
        if self.unread.is_none() && self.talk.care.has(Care::TEACHES) && !self.talk.keeps {
            self.unread = Some(self.access.database.functions.announce());
        }
    }

    /// Asks the server what the session has become, where that is not known; true when it was asked.
    pub(super) fn probe(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Result<bool, End> {
        self.doubt();
        self.announce();
        if !self.talk.wants_probe() || self.leaving {
            return Ok(false);
        }
        if self.talk.care.has(Care::TEACHES) && !self.talk.pins.is_empty() {
            // This connection stays with its client.
            self.read_functions(false);
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
        if self.blocked == Blocked::Waiting && self.ticket.is_none() {
            // Nothing will come from this server to end that.
            self.blocked = Blocked::Retry;
        }
        let suspect = self.talk.is_suspect();
        let on_primary = !self.is_on_replica();
        let defined = self.talk.detach();
        self.leave_server(defined);
        self.guard.client.serve(None);
        let unread = self.unread.take();
        if suspect {
            self.access.pool.discard(conn);
            self.unread = unread;
            self.read_functions(false);
            return Ok(true);
        }
        let taught = unread.is_some();
        // Whoever asks next what was drawn on it shall not find it away.
        let looks = taught || !conn.state.hold && self.access.database.functions.is_due();
        if on_primary && looks {
            let (database, pool) = (self.access.database.clone(), self.access.pool.clone());
            let reading = tokio::spawn(database.learn(pool, conn, unread, self.read_with));
            self.reading = taught.then_some(reading);
        } else {
            self.access.pool.release_after(conn, Hygiene::Clean);
        }
        Ok(true)
    }

    /// Has the functions read over another connection, where this client has changed them.
    pub(super) fn read_functions(&mut self, later: bool) {
        let Some(unread) = self.unread.take() else { return };
        let (functions, pool, home) =
            (self.access.database.functions.clone(), self.access.pool.clone(), self.access.home);
        tokio::spawn(async move {
            match later {
                true => functions.insist_later(pool, home).await,
                false => functions.insist(pool, home).await,
            }
            drop(unread);
        });
    }

    /// Waits until what this client defined is known, before it can be used; true when it has just become known.
    pub(super) fn await_reading(&mut self, cx: &mut Context<'_>) -> bool {
        let done = self.reading.as_mut().is_some_and(|reading| Pin::new(reading).poll(cx).is_ready());
        if done {
            self.reading = None;
        }
        done
    }

    /// Answers the statement that waits for a server connection as PostgreSQL answers one that is cancelled.
    pub(super) fn stop_waiting(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Result<(), End> {
        self.ticket = None;
        self.guard.client.activity.waits(0);
        self.timing.cancel();
        self.talk.refuse_waiting(&self.stash, &mut work.to_client);
        self.blocked = Blocked::Retry;
        self.write_all(cx, work)
    }
}
