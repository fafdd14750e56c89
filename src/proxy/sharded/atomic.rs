//! COMMIT on all shards or on none, over a session's links (`exec::commit_atomic` decides what is sent).

use crate::config::CommitAnswer;
use crate::exec::commit::{Answer, Outcome};
use crate::exec::commit_atomic::{Act, AtomicCommit, Gid, UNKNOWN};
use crate::pool::reset::Hygiene;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::proxy::sharded::snapshot::random_hex;
use crate::wire::body::Reader;
use crate::wire::message::Failure;

/// What a shard that may have written is told and asked before. Deferred constraints and their triggers run as the client's
/// role, all else as the login role. Has it written, and which backend is it?
const ASK: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL ROLE NONE; \
    SELECT pg_catalog.set_config('synchronous_commit', 'on', true) \
    WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.<>) 'remote_apply'; \
    SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '30s', true); \
    SELECT 'pgweir', (pg_catalog.txid_current_if_assigned() IS NOT NULL)::pg_catalog.int4, \
    pg_catalog.pg_backend_pid(), (extract(epoch FROM a.backend_start) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
    (extract(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 \
    FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a";

/// What a shard answered to [`ASK`].
struct Writer {
    shard: usize,
    pid: i32,
    started_us: i64,
    asked_us: i64,
}

impl ShardedSession {
    /// Commits; the command tag to answer with. At most three flushes wait for each other before it answers.
    pub(super) async fn commit_atomically(&mut self, wrote: &[usize], read: &[usize]) -> Result<&'static str, Trouble> {
        let writers = match self.ask_writers(wrote).await {
            Ok(writers) => writers,
            Err(trouble) => return self.give_up(wrote, read, trouble).await,
        };
        // From here on a cancel request has nothing to cancel: half a commit is worse than a late one.
        self.guard.client.serve(None);
        let has_written = |shard: usize| writers.iter().any(|writer| writer.shard == shard);
        let idle: Vec<usize> = wrote.iter().copied().filter(|&shard| !has_written(shard)).collect();
        let readers = [idle.as_slice(), read].concat();
        let Some((decider, others)) = writers.split_first().filter(|(_, others)| !others.is_empty()) else {
            let written: Vec<usize> = writers.iter().map(|writer| writer.shard).collect();
            return self.commit_plainly(&written, &readers).await;
        };
        let shards: Vec<usize> = writers.iter().map(|writer| writer.shard).collect();
        let gid = match self.name_commit(&shards, decider).await {
            Ok(gid) => gid,
            Err(failure) => return self.give_up(wrote, read, failure.into()).await,
        };
        let others: Vec<(usize, String)> =
            others.iter().map(|writer| (writer.shard, self.shared.shard_name(writer.shard).to_owned())).collect();
        let mut commit = AtomicCommit::new(gid.clone(), decider.shard, others.clone());
        let outcome = self.decide(&mut commit, &gid, decider.shard, &others).await;
        if commit.has_left_some()
            && let Some(recovery) = self.shared.recovery()
        {
            recovery.finish(&gid, &others).await;
        }
        // Nothing that readers answer changes what is decided.
        let end = if outcome == Outcome::Committed { "COMMIT" } else { "ROLLBACK" };
        self.answers(readers.into_iter().map(|shard| (shard, end.to_owned())).collect()).await;
        match outcome {
            Outcome::Failure(failure) if failure.code != UNKNOWN => {
                self.end_block(false);
                Err(failure.into())
            }
            outcome => self.conclude(outcome).await,
        }
    }

    async fn decide(
        &mut self,
        commit: &mut AtomicCommit,
        gid: &Gid,
        decider: usize,
        others: &[(usize, String)],
    ) -> Outcome {
        let mut act = commit.start();
        loop {
            act = match act {
                Act::Done(outcome) => return outcome,
                Act::Send(orders) if commit.is_decided() && self.answers_early() => {
                    self.finish_later(orders, gid);
                    return Outcome::Committed;
                }
                Act::Send(orders) => commit.heard(self.answers(orders).await),
                Act::Resolve => {
                    let shared = self.shared.clone();
                    let Some(recovery) = shared.recovery() else {
                        return Outcome::Failure(Failure::error("XX000", "a commit without recovery"));
                    };
                    commit.resolved(recovery.resolve(decider, gid, others).await)
                }
            };
        }
    }

    async fn name_commit(&self, shards: &[usize], decider: &Writer) -> Result<Gid, Failure> {
        let recovery = self.shared.recovery().ok_or_else(|| Failure::error("XX000", "a commit without recovery"))?;
        let deployment = recovery.deployment(shards).await?;
        Ok(Gid {
            deployment,
            transaction: random_hex::<16>().map_err(|error| Failure::error("XX000", error.to_string()))?,
            pid: decider.pid,
            started_us: decider.started_us,
            asked_us: decider.asked_us,
            decider: self.shared.shard_name(decider.shard).to_owned(),
        })
    }

    /// Which of these shards have written; the first is to decide: one that may not be able to prepare.
    async fn ask_writers(&mut self, shards: &[usize]) -> Result<Vec<Writer>, Trouble> {
        let mut writers = Vec::new();
        self.send_all(shards.iter().map(|&shard| (shard, ASK))).await;
        let mut trouble = None;
        for &shard in shards {
            match self.hear_asked(shard).await {
                Ok(writer) => writers.extend(writer),
                Err(first) => trouble = trouble.or(Some(first)),
            }
        }
        let prepares =
            |writer: &Writer| !self.links.get(writer.shard).and_then(Option::as_ref).is_some_and(|link| link.notifies);
        writers.sort_by_key(prepares);
        trouble.map_or(Ok(writers), Err)
    }

    async fn hear_asked(&mut self, shard: usize) -> Result<Option<Writer>, Trouble> {
        let (mut row, mut error) = (None, None);
        loop {
            let Ok(frame) = self.link(shard)?.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'Z' => break,
                b'E' if error.is_none() => error = Some(frame.bytes.to_vec()),
                b'D' => row = numbers(frame.body()).or(row),
                _ => {}
            }
        }
        match (error, row) {
            (Some(error), _) => Err(Trouble::Server(error)),
            (None, Some([written, pid, started_us, asked_us])) => {
                let writer = Writer { shard, pid: i32::try_from(pid).unwrap_or_default(), started_us, asked_us };
                Ok((written == 1).then_some(writer))
            }
            (None, None) => Err(Trouble::Reply(Failure::error("XX000", "a shard did not say whether it has written"))),
        }
    }

    /// Queues a statement on each link and sends all of them before any answer is waited for. A link that fails is noticed when
    /// it is listened to.
    async fn send_all(&mut self, orders: impl Iterator<Item = (usize, &str)>) {
        for (shard, sql) in orders {
            if let Ok(link) = self.link(shard) {
                link.query(sql.as_bytes());
                let _ = link.flush().await;
            }
        }
    }

    /// Whether COMMIT is answered when it is decided.
    fn answers_early(&self) -> bool {
        self.database.config.commit_answer == CommitAnswer::Decided && !self.has_own_role()
    }

    /// Lets the others commit while the client goes on. Its next statement on one of them waits for that.
    fn finish_later(&mut self, orders: Vec<(usize, String)>, gid: &Gid) {
        for (shard, sql) in orders {
            let link = self.links.get_mut(shard).and_then(Option::take);
            let part = vec![(shard, self.shared.shard_name(shard).to_owned())];
            let (shared, gid) = (self.shared.clone(), gid.clone());
            let finish = async move {
                if let Some(mut link) = link {
                    link.query(sql.as_bytes());
                    if link.is_answered(b"COMMIT PREPARED").await {
                        return link.release();
                    }
                    link.discard();
                }
                if let Some(recovery) = shared.recovery() {
                    recovery.finish(&gid, &part).await;
                }
            };
            self.finishing.push((shard, tokio::spawn(finish)));
        }
    }

    /// Waits until what this client has committed on these shards can be seen there.
    pub(super) async fn wait_for_commits(&mut self, shards: &[usize]) {
        let (mine, rest) =
            std::mem::take(&mut self.finishing).into_iter().partition(|(shard, _)| shards.contains(shard));
        self.finishing = rest;
        for (_, finish) in mine {
            // One that broke off is finished by recovery.
            let _ = finish.await;
        }
    }

    fn has_own_role(&self) -> bool {
        self.want.iter().any(|(name, _)| name == "role" || name == "session_authorization")
    }

    /// Sends these at the same time and waits for all answers.
    async fn answers(&mut self, mut orders: Vec<(usize, String)>) -> Vec<(usize, Answer)> {
        if self.has_own_role() {
            // Whoever has prepared it is the login role, and only that may end it.
            for (shard, sql) in &mut orders {
                if sql.contains(" PREPARED ")
                    && let Ok(link) = self.link(*shard)
                {
                    link.hygiene = Hygiene::Discard;
                    self.send_all([(*shard, "SET ROLE NONE")].into_iter()).await;
                    // An error shows in what comes after it.
                    let _ = self.settle(*shard).await;
                }
            }
        }
        self.send_all(orders.iter().map(|(shard, sql)| (*shard, sql.as_str()))).await;
        let mut answers = Vec::with_capacity(orders.len());
        for (shard, _) in orders {
            answers.push((shard, self.settled(shard).await));
        }
        answers
    }

    /// Rolls back before anything was prepared.
    async fn give_up(&mut self, wrote: &[usize], read: &[usize], why: Trouble) -> Result<&'static str, Trouble> {
        self.roll_back(&[wrote, read].concat()).await;
        Err(match why {
            Trouble::Lost(shard) => {
                let name = self.shared.shard_name(shard);
                Trouble::Reply(
                    Failure::error("08006", format!("the connection to shard {name} was lost during COMMIT"))
                        .detail("The transaction is rolled back on every shard."),
                )
            }
            other => other,
        })
    }
}

/// The numbers behind the word that marks the row.
fn numbers(row: &[u8]) -> Option<[i64; 4]> {
    let mut reader = Reader::new(row);
    let columns = reader.u16().ok()?;
    let mut text = || {
        let len = usize::try_from(reader.u32().ok()?).ok()?;
        std::str::from_utf8(reader.bytes(len).ok()?).ok()
    };
    if columns != 5 || text()? != "pgweir" {
        return None;
    }
    let mut number = || text()?.parse().ok();
    Some([number()?, number()?, number()?, number()?])
}
