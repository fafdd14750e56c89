//! Recovery of commits over shards: asks the shards what `exec::recovery` wants to know, every few seconds.
//!
//! Each shard has one session for this, which is kept. A shard that does not answer in time holds up a round once, and is
//! asked again in the next.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::db::commits;
use crate::error::{Error, Result};
use crate::exec::commit_atomic::{Gid, PREFIX, Resolved};
use crate::exec::recovery::{Ask, Decision, Fenced, Heard, Prepared, Round, SWEEP_SECONDS};
use crate::proxy::sharded::post::{Post, lock};
use crate::wire::message::Failure;
use futures_util::future::join_all;

/// Time between two looks at the shards.
const EVERY: Duration = Duration::from_secs(3);
/// Time that a client waits for a decision to be found out.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// Time that a client waits for the rest of its committed transaction to become visible.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// Most names of strangers' transactions that are remembered, so that each is warned of once.
const MAX_WARNED: usize = 1000;

/// The commits of one sharded database.
pub struct Recovery {
    database: String,
    posts: Arc<Vec<Post>>,
    busy: AtomicBool,
    due: Mutex<Option<Instant>>,
    warned: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recovery(..)")
    }
}

impl Recovery {
    /// Of what is prepared on these shards.
    pub(super) fn new(database: &str, posts: Arc<Vec<Post>>) -> Self {
        Self {
            database: database.to_owned(),
            posts,
            busy: AtomicBool::new(false),
            due: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// Looks at the shards when it is time to. Call it a few times a second on one worker.
    pub fn look_after(self: &Arc<Self>) {
        let now = Instant::now();
        if lock(&self.due).is_some_and(|due| now < due) || self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        *lock(&self.due) = Some(now + EVERY);
        let recovery = self.clone();
        tokio::spawn(async move {
            recovery.round().await;
            recovery.busy.store(false, Ordering::Release);
        });
    }

    /// The deployment to which all of these shards belong.
    ///
    /// # Errors
    /// One of them cannot commit atomically; the failure says which and why.
    pub(super) async fn deployment(&self, shards: &[usize]) -> Result<String, Failure> {
        let mut deployment: Option<String> = None;
        for post in shards.iter().filter_map(|&shard| self.posts.get(shard)) {
            let known = lock(&post.standing).clone();
            let known = match known {
                Ok(known) => Ok(known),
                Err(_) => match post.session().await {
                    Ok(client) => post.examine(&client).await,
                    Err(error) => Err(error.to_string()),
                },
            };
            let refused = |reason: String| {
                Failure::error("55000", format!("shard {} cannot commit atomically: {reason}", post.name))
                    .detail("The transaction is rolled back on every shard.")
                    .hint("Run `pgweir init -c FILE` on the shards, or see docs/commit.md.")
            };
            let id = known.map_err(refused)?;
            if deployment.as_ref().is_some_and(|before| *before != id) {
                return Err(refused("it belongs to another deployment than the others".to_owned()));
            }
            deployment = Some(id);
        }
        deployment.ok_or_else(|| Failure::error("XX000", "a commit of no shard"))
    }

    /// Finds out what a decider has decided that does not answer its coordinator.
    pub(super) async fn resolve(&self, decider: usize, gid: &Gid, others: &[(usize, String)]) -> Resolved {
        let Some(post) = self.posts.get(decider) else { return Resolved::Unknown };
        let participants: Vec<&str> = others.iter().map(|(_, name)| name.as_str()).collect();
        let insist = async {
            loop {
                match fence(post, gid, &participants).await {
                    Ok(Fenced::Yes) => return Resolved::Committed,
                    Ok(Fenced::No) => return Resolved::Aborted,
                    Ok(Fenced::Swept) => return Resolved::Unknown,
                    Ok(Fenced::InFlight) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        };
        tokio::time::timeout(RESOLVE_WITHIN, insist).await.unwrap_or(Resolved::Unknown)
    }

    /// Commits what is still prepared of a committed transaction, as far as that is possible at once.
    pub(super) async fn finish(&self, gid: &Gid, others: &[(usize, String)]) {
        let parts = others.iter().filter_map(|(shard, name)| Some((self.posts.get(*shard)?, gid.on(name))));
        let ends = parts.map(|(post, gid)| async move {
            while post.try_ask(async |client| commits::end(client, &gid, true).await).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        // The next round does what this cannot.
        let _ = tokio::time::timeout(FINISH_WITHIN, join_all(ends)).await;
    }

    async fn round(&self) {
        let now = Instant::now();
        let names = self.posts.iter().map(|post| post.name.clone()).collect();
        let age = |post: &Post| lock(&post.looked).map(|at| i64::try_from((now - at).as_micros()).unwrap_or(i64::MAX));
        let mut round = Round::new(names, self.posts.iter().map(age).collect());
        let mut asks = round.start();
        while !asks.is_empty() {
            let heard = join_all(asks.iter().map(|ask| self.ask(ask))).await;
            asks = round.heard(asks.into_iter().zip(heard).collect());
        }
        for (shard, post) in self.posts.iter().enumerate() {
            if round.has_looked(shard) {
                *lock(&post.looked) = Some(now);
            }
        }
        for (shard, gid) in round.strangers() {
            self.leave_alone(*shard, gid);
        }
    }

    async fn ask(&self, ask: &Ask) -> Heard {
        let Some(post) = self.posts.get(ask.shard()) else { return Heard::Lost };
        let answered = match ask {
            Ask::Decisions(_) => self.decisions(post).await,
            Ask::Prepared(_) => post
                .try_ask(async |client| commits::prepared(client, PREFIX).await)
                .await
                .map(|found| Heard::Prepared(found.into_iter().map(|(gid, age)| Prepared { gid, age }).collect())),
            Ask::Fence { gid, participant, .. } => {
                let name = self.posts.get(*participant).map_or("", |post| &post.name);
                fence(post, gid, &[name]).await.map(Heard::Fenced)
            }
            Ask::End { gid, committed, .. } => self.end(post, gid, *committed).await,
            Ask::Lives(_, gid) => {
                post.try_ask(async |client| commits::lives(client, backend(gid)).await).await.map(Heard::Lives)
            }
            Ask::Persist(_) => post.try_ask(async |client| commits::persist(client).await).await.map(|()| Heard::Done),
            Ask::Sweep { keys, confirmed, .. } => {
                post.try_ask(async |client| commits::sweep(client, keys, confirmed).await).await.map(|()| Heard::Done)
            }
        };
        answered.unwrap_or_else(|error| {
            tracing::debug!(database = self.database, shard = post.name, %error, "recovery had no answer");
            Heard::Lost
        })
    }

    async fn end(&self, post: &Post, gid: &str, committed: bool) -> Result<Heard> {
        let ended = post.try_ask(async |client| commits::end(client, gid, committed).await).await;
        match &ended {
            Ok(()) => {
                tracing::info!(
                    database = self.database,
                    shard = post.name,
                    gid,
                    committed,
                    "finished a prepared transaction"
                );
            }
            Err(error) => {
                tracing::warn!(database = self.database, shard = post.name, gid, %error, "a prepared transaction could not be finished yet");
            }
        }
        ended.map(|()| Heard::Done)
    }

    async fn decisions(&self, post: &Post) -> Result<Heard> {
        let before = lock(&post.standing).clone();
        let client = post.session().await?;
        let deployment = post.examine(&client).await.map_err(|reason| {
            if before.as_ref().err() != Some(&reason) {
                tracing::warn!(database = self.database, shard = post.name, reason, "it cannot commit atomically");
            }
            Error::server(reason)
        })?;
        let (now_us, found) = post.try_ask(async |client| commits::decisions(client, SWEEP_SECONDS).await).await?;
        let decision = |(key, committed, participants)| Decision { key, committed, participants };
        Ok(Heard::Decisions { deployment, now_us, decisions: found.into_iter().map(decision).collect() })
    }

    fn leave_alone(&self, shard: usize, gid: &str) {
        let mut warned = lock(&self.warned);
        if warned.len() < MAX_WARNED && warned.insert(gid.to_owned()) {
            tracing::warn!(
                database = self.database,
                shard = self.posts.get(shard).map_or("?", |post| &post.name),
                gid,
                "a prepared transaction of another deployment, another shard, or another life of this one is left alone: look \
                 whether this server is a copy or was restored, then COMMIT PREPARED or ROLLBACK PREPARED it by hand"
            );
        }
    }
}

fn backend(gid: &Gid) -> commits::Backend {
    commits::Backend { pid: gid.pid, started_us: gid.started_us }
}

async fn fence(decider: &Post, gid: &Gid, participants: &[&str]) -> Result<Fenced> {
    let asked = decider
        .try_ask(async |client| commits::fence(client, &gid.key(), backend(gid), participants, gid.asked_us).await);
    Ok(match asked.await? {
        commits::Verdict::Yes => Fenced::Yes,
        commits::Verdict::No => Fenced::No,
        commits::Verdict::InFlight => Fenced::InFlight,
        commits::Verdict::Swept => Fenced::Swept,
    })
}
