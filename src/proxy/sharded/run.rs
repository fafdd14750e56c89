//! What a session does with its shards: joining, committing, rolling back.

use std::future::poll_fn;
use std::sync::Arc;

use crate::exec::commit::{Answer, Commit, Next, Outcome};
use crate::exec::control::Control;
use crate::exec::gather::{Gather, Gathered};
use crate::exec::transaction::{Status, Step, outside};
use crate::pool::reset::Hygiene;
use crate::pool::{Pool, Taken};
use crate::proxy::care::Care;
use crate::proxy::sharded::collect::COMPUTES;
use crate::proxy::sharded::link::{Frame, Link};
use crate::proxy::sharded::names::{Target, cursor_of};
use crate::proxy::sharded::numbers::Numbers;
use crate::proxy::sharded::planned::Planned;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::Route;
use crate::wire::message::{self, Failure};

/// What a shard answered to a statement of the proxy's own.
pub(super) struct Settled {
    tag: Vec<u8>,
    error: Option<Vec<u8>>,
}

impl ShardedSession {
    /// The link of a shard; it is there after [`ShardedSession::attach`].
    pub(super) fn link(&mut self, shard: usize) -> Result<&mut Link, Trouble> {
        self.links.get_mut(shard).and_then(Option::as_mut).ok_or(Trouble::Lost(shard))
    }

    /// Every shard.
    pub(super) fn every_shard(&self) -> Vec<usize> {
        (0..self.links.len()).collect()
    }

    /// Where a route goes for this client now.
    pub(super) fn target(&self, route: Route) -> Target {
        match route {
            Route::Single(shard) => Target::Shard(shard.0),
            Route::Catalog => Target::Shard(0),
            Route::Several(shards, limit) => Target::Several(shards, limit),
            Route::Merge(shards, limit, offset) => Target::Merge(shards, limit, offset),
            Route::Collect(shards) => Target::Collect(shards),
            Route::Spread(shards, from) => Target::Spread(shards, from),
            Route::Copy => Target::Copy,
            // See `target_of`.
            Route::Cursor => Target::Own,
            Route::All => Target::All,
            Route::Control => Target::Own,
            // One that takes part already, else a different one for each client.
            Route::Any => {
                let joined = self.transaction.shards().next();
                let spread = self.guard.client.id as usize % self.links.len().max(1);
                Target::Shard(joined.unwrap_or(spread))
            }
        }
    }

    /// Where a statement goes that was routed so: about a cursor, to where that is; a new cursor is noted.
    pub(super) fn target_of(&mut self, route: Route, planned: &Planned, sql: &str) -> Result<Target, Trouble> {
        self.goes_to(route);
        if route == Route::Cursor {
            let name = cursor_of(sql).unwrap_or_default();
            let shard = self.names.cursors.get(&name).map(|(shard, _)| *shard);
            let unknown = || Failure::error("34000", format!("cursor \"{name}\" does not exist"));
            return Ok(Target::Shard(shard.ok_or_else(unknown)?));
        }
        // Outside a block LOCK has its error only.
        let in_vain = planned.locks && self.transaction.status() == Status::Idle;
        let target = if in_vain { Target::Shard(0) } else { self.target(route) };
        if planned.declares
            && let (Some(name), Target::Shard(_) | Target::Collect(_)) = (cursor_of(sql), target)
        {
            let shard = if let Target::Shard(shard) = target { shard } else { COMPUTES };
            self.names.cursors.insert(name, (shard, planned.plan.holds_numbers));
        }
        Ok(target)
    }

    /// Gets the shards' connections; inside a block, each that is new begins where the others stand.
    pub(super) async fn attach(&mut self, shards: &[usize], writes: bool) -> Result<(), Trouble> {
        let fresh = self.links.iter().all(Option::is_none);
        let inside = self.transaction.status() != Status::Idle;
        let openings = if inside { self.transaction.join(shards, writes)? } else { Vec::new() };
        let opened = self.open(shards, &openings).await;
        if opened.is_err() {
            // Whatever has begun on them ends with their connections.
            for (shard, _) in openings {
                self.transaction.leave(shard);
                if let Some(link) = self.links.get_mut(shard).and_then(Option::take) {
                    link.discard();
                }
            }
        } else if fresh {
            self.tell_parameters();
        }
        opened
    }

    async fn open(&mut self, shards: &[usize], openings: &[(usize, String)]) -> Result<(), Trouble> {
        if !self.finishing.is_empty() {
            self.wait_for_commits(shards).await;
        }
        for &shard in shards {
            if self.links.get(shard).is_some_and(Option::is_none) {
                let link = self.check_out(shard).await?;
                if let Some(slot) = self.links.get_mut(shard) {
                    *slot = Some(link);
                }
            }
        }
        for (shard, sql) in openings {
            self.link(*shard)?.query(sql.as_bytes());
        }
        let opened: Vec<usize> = openings.iter().map(|(shard, _)| *shard).collect();
        self.start(&opened).await;
        for (shard, _) in openings {
            if let Some(error) = self.settle(*shard).await?.error {
                return Err(Trouble::Server(error));
            }
        }
        Ok(())
    }

    async fn check_out(&mut self, shard: usize) -> Result<Link, Trouble> {
        let (user, secret) = &self.login;
        let pool: Arc<Pool> = self
            .database
            .pool(shard, user, secret)
            .map_err(|error| Trouble::Reply(Failure::error("08006", error.to_string())))?;
        let mut conn = match pool.take(self.home) {
            Taken::Now(conn) => conn,
            Taken::Later(mut ticket) => poll_fn(|cx| ticket.poll(cx)).await?,
        };
        if let Err(failure) = pool.apply(&mut conn, &self.want).await {
            pool.discard(conn);
            return Err(failure.into());
        }
        self.guard.client.serve_too(conn.cancel.clone());
        let mut link = Link::new(pool, conn);
        match self.numbers(shard).await {
            Ok(numbers) => link.numbers = numbers,
            Err(failure) => {
                link.release();
                return Err(failure.into());
            }
        }
        Ok(link)
    }

    /// What a shard's numbers are to the client. One that could not be asked when the catalog was read is asked again.
    async fn numbers(&self, shard: usize) -> Result<Option<Arc<Numbers>>, Failure> {
        let Some(snapshot) = self.shared.current() else { return Ok(None) };
        match snapshot.numbers(shard) {
            Ok(numbers) => Ok(numbers.cloned()),
            Err(_) => {
                self.shared.expire();
                Ok(self.shared.snapshot().await?.numbers(shard)?.cloned())
            }
        }
    }

    /// Waits for the answer to a statement of the proxy's own.
    pub(super) async fn settle(&mut self, shard: usize) -> Result<Settled, Trouble> {
        let mut settled = Settled { tag: Vec::new(), error: None };
        loop {
            let link = self.link(shard)?;
            let Ok(frame) = link.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'Z' => return Ok(settled),
                b'E' if settled.error.is_none() => settled.error = Some(frame.bytes.to_vec()),
                b'C' => settled.tag = frame.body().strip_suffix(b"\0").unwrap_or_default().to_vec(),
                _ => {}
            }
        }
    }

    /// Closes the connection of a shard that broke off.
    pub(super) fn lose(&mut self, shard: usize) -> Trouble {
        if let Some(link) = self.links.get_mut(shard).and_then(Option::take) {
            link.discard();
        }
        Trouble::Lost(shard)
    }

    /// Notes what a statement leaves in the session of its server.
    pub(super) fn mark(&mut self, shard: usize, care: Care) {
        let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else { return };
        link.notifies |= care.has(Care::NOTIFIES);
        if !care.without(Care::DEFINES | Care::ENDS | Care::ALONE).is_clean() {
            link.hygiene = Hygiene::Discard;
        }
    }

    /// Refuses what cannot be planned because definitions have changed in this very transaction.
    pub(super) fn check_definitions(&self, planned: &Planned) -> Result<(), Trouble> {
        if !self.changed_definitions || planned.changes_definitions() {
            return Ok(());
        }
        Err(Trouble::Reply(
            Failure::error(
                "0A000",
                "the transaction has changed definitions, on which this statement's route may depend",
            )
            .hint("COMMIT first, then use what was created or altered."),
        ))
    }

    /// Runs transaction control and answers it.
    pub(super) async fn control(&mut self, control: Control) -> Result<(), Trouble> {
        if self.implicit && !self.leave_implicit(&control)? {
            message::command_complete(&mut self.to_client, b"BEGIN");
            return Ok(());
        }
        let begins = matches!(control, Control::Begin { .. }) && self.transaction.status() == Status::Idle;
        match self.transaction.control(control)? {
            Step::Answer { tag, warning } => {
                if begins {
                    self.want_before = Some(self.want.clone());
                } else if self.transaction.status() == Status::Idle {
                    self.end_block(tag == "COMMIT");
                }
                if let Some((code, text)) = warning {
                    message::warning(&mut self.to_client, code, text);
                }
                message::command_complete(&mut self.to_client, tag.as_bytes());
            }
            Step::Each { shards, sql, tag } => {
                self.each(&shards, &sql).await?;
                message::command_complete(&mut self.to_client, tag.as_bytes());
            }
            Step::Rollback { shards } => {
                self.roll_back(&shards).await;
                message::command_complete(&mut self.to_client, b"ROLLBACK");
            }
            Step::Commit { wrote, read } => {
                let tag = self.commit(&wrote, &read).await?;
                message::command_complete(&mut self.to_client, tag.as_bytes());
            }
        }
        Ok(())
    }

    /// Transaction control inside a query string of several statements. False when that is all there is to do.
    fn leave_implicit(&mut self, control: &Control) -> Result<bool, Trouble> {
        let text = match control {
            Control::Begin { text, .. } => text,
            Control::Commit | Control::Rollback => {
                self.implicit = false;
                return Ok(true);
            }
            // The block is the proxy's own: it must not outlive the string because of a savepoint in it.
            Control::Savepoint(_) => return Err(outside("SAVEPOINT").into()),
            Control::RollbackTo(_) => return Err(outside("ROLLBACK TO SAVEPOINT").into()),
            Control::Release(_) => return Err(outside("RELEASE SAVEPOINT").into()),
        };
        if self.transaction.shards().next().is_none() {
            self.implicit = false;
            self.transaction.end();
            return Ok(true);
        }
        if text.split_whitespace().count() > 1 {
            return Err(Trouble::Reply(
                Failure::error("0A000", "BEGIN with options after other statements of the same query string")
                    .hint("Send BEGIN as a query of its own."),
            ));
        }
        self.implicit = false;
        Ok(false)
    }

    /// Runs a statement of which nothing but an error is told on these shards.
    pub(super) async fn each(&mut self, shards: &[usize], sql: &str) -> Result<(), Trouble> {
        for &shard in shards {
            self.link(shard)?.query(sql.as_bytes());
        }
        self.start(shards).await;
        let mut error = None;
        for &shard in shards {
            error = error.or(self.settle(shard).await?.error);
        }
        error.map_or(Ok(()), |error| Err(Trouble::Server(error)))
    }

    /// Rolls back on every shard that joined; one that does not answer is closed, which rolls back too.
    pub(super) async fn roll_back(&mut self, shards: &[usize]) {
        for &shard in shards {
            if let Ok(link) = self.link(shard) {
                link.query(b"ROLLBACK");
            }
        }
        self.start(shards).await;
        for &shard in shards {
            if let Ok(Settled { error: Some(_), .. }) = self.settle(shard).await {
                self.lose(shard);
            }
        }
        self.end_block(false);
    }

    /// Commits on the shards that joined; the command tag to answer with.
    pub(super) async fn commit(&mut self, wrote: &[usize], read: &[usize]) -> Result<&'static str, Trouble> {
        if wrote.len() > 1 && self.transaction.is_atomic() {
            return self.commit_atomically(wrote, read).await;
        }
        self.commit_plainly(wrote, read).await
    }

    /// What a shard answered to a statement of the proxy's own that was sent before.
    pub(super) async fn settled(&mut self, shard: usize) -> Answer {
        match self.settle(shard).await {
            Ok(Settled { error: Some(error), .. }) => Answer::Error(error),
            Ok(Settled { tag, .. }) => Answer::Tag(tag),
            Err(_) => Answer::Lost,
        }
    }

    /// Commits shard by shard, which is all there is to do where one has written.
    pub(super) async fn commit_plainly(&mut self, wrote: &[usize], read: &[usize]) -> Result<&'static str, Trouble> {
        let mut commit = Commit::new(wrote, read);
        let mut answer = None;
        let outcome = loop {
            match commit.next(answer.take()) {
                Next::Done(outcome) => break outcome,
                Next::Send(shard, sql) => {
                    let sent = self.link(shard).map(|link| link.query(sql.as_bytes()));
                    answer = Some(if sent.is_ok() { self.settled(shard).await } else { Answer::Lost });
                }
            }
        };
        self.conclude(outcome).await
    }

    /// Ends the block as the outcome of its commit says.
    pub(super) async fn conclude(&mut self, outcome: Outcome) -> Result<&'static str, Trouble> {
        self.end_block(matches!(outcome, Outcome::Committed | Outcome::Failure(_)));
        match outcome {
            Outcome::Committed => {
                self.refresh().await;
                Ok("COMMIT")
            }
            Outcome::RolledBack => Ok("ROLLBACK"),
            Outcome::ServerError(error) => Err(Trouble::Server(error)),
            Outcome::Failure(failure) => {
                self.refresh().await;
                Err(Trouble::Reply(failure))
            }
        }
    }

    /// After definitions have changed: the next plan, of anybody, is made on the new ones.
    async fn refresh(&mut self) {
        if std::mem::take(&mut self.changed_definitions) {
            self.shared.expire();
            // An error here comes again, to whoever plans next.
            let _ = self.shared.snapshot().await;
        }
    }

    /// The block is over: connections go back, and settings that it made are undone with it.
    pub(super) fn end_block(&mut self, committed: bool) {
        let before = self.want_before.take();
        if !committed {
            self.changed_definitions = false;
            if let Some(before) = before
                && !Arc::ptr_eq(&before, &self.want)
            {
                self.want = before;
                // The servers have undone them as well, but not for shards that joined later.
                for link in self.links.iter_mut().flatten() {
                    link.hygiene = Hygiene::Discard;
                }
            }
        }
        self.transaction.end();
        self.implicit = false;
        self.names.portals.clear();
        self.names.cursors.clear();
        self.release();
    }

    /// Gives back the connections, outside a block.
    pub(super) fn release(&mut self) {
        self.guard.client.serve(None);
        for link in self.links.iter_mut().filter_map(Option::take) {
            link.release();
        }
    }

    /// Opens a block that the proxy itself ends.
    pub(super) fn begin_implicit(&mut self) {
        self.transaction.begin_implicit();
        self.want_before = Some(self.want.clone());
        self.implicit = true;
    }

    /// Ends a block that the proxy opened: commits, or rolls back after an error, which the client knows of.
    pub(super) async fn end_implicit(&mut self) -> Result<(), Trouble> {
        if !self.implicit {
            if self.transaction.status() == Status::Idle {
                self.names.portals.clear();
                self.release();
                self.refresh().await;
            }
            return Ok(());
        }
        self.implicit = false;
        match self.transaction.control(Control::Commit)? {
            Step::Commit { wrote, read } => {
                if self.commit(&wrote, &read).await? == "COMMIT" {
                    return Ok(());
                }
                Err(Trouble::Reply(Failure::error("40000", "the transaction was rolled back by a shard")))
            }
            Step::Rollback { shards } => {
                self.roll_back(&shards).await;
                Ok(())
            }
            Step::Answer { .. } | Step::Each { .. } => {
                self.end_block(true);
                Ok(())
            }
        }
    }

    /// Waits for every shard's answer to what was queued on it, heard through `hear`, and makes one of them.
    pub(super) async fn gather(
        &mut self,
        shards: &[usize],
        mut hear: impl FnMut(&mut Gather, usize, Frame<'_>) -> bool,
    ) -> Result<Vec<u8>, Trouble> {
        let mut gather = Gather::new(shards);
        for &shard in shards {
            loop {
                let link = self.link(shard)?;
                match link.frame().await {
                    Ok(frame) => {
                        if hear(&mut gather, shard, frame) {
                            break;
                        }
                    }
                    Err(_) => {
                        gather.lose(shard);
                        self.lose(shard);
                        break;
                    }
                }
            }
        }
        match gather.finish() {
            Gathered::Agreed(frames) => Ok(frames),
            Gathered::ServerError(error) => Err(Trouble::Server(error)),
            Gathered::Failure(failure) => Err(Trouble::Reply(failure)),
        }
    }
}
