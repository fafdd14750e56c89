//! Finds deadlocks over shards, and ends one statement of each with 40P01.
//!
//! Nothing is asked of a server before a statement of a transaction over several shards has been running for a second. Then the servers are asked who waits for whom. Locks are held until a transaction ends, so that a circle
//! which is there twice, of statements that are the same ones still, is a deadlock. Where commits are atomic
//! instances tell each other of their waiting transactions, in a table on the first shard.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::db::waits;
use crate::exec::waits::{Waiter, victims};
use crate::proxy::clients::{Client, Clients};
use crate::proxy::pulse::Over;
use crate::proxy::sharded::post::{Post, lock};

/// Time between two looks, and how long a statement runs before it is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Time between seeing a circle and seeing it again.
const AGAIN: Duration = Duration::from_millis(100);
/// The same where other instances have part in it: they tell what they see once in [`EVERY`].
const AGAIN_WITH_OTHERS: Duration = Duration::from_millis(1300);
/// Most transactions that are looked at.
const MAX_WAITERS: usize = 1000;

/// The watch over one sharded database.
pub struct Deadlocks {
    database: String,
    posts: Arc<Vec<Post>>,
    /// Tells this instance apart from others; none where they cannot tell each other anything.
    instance: Option<String>,
    busy: AtomicBool,
    due: Mutex<Option<Instant>>,
    /// By client: what it is doing, and since when.
    seen: Mutex<HashMap<u64, (u64, Instant)>>,
}

impl std::fmt::Debug for Deadlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deadlocks(..)")
    }
}

/// A client whose statement takes long.
struct Slow {
    client: Arc<Client>,
    /// What it is doing.
    beat: u64,
    waiter: Waiter,
}

impl Slow {
    fn is_at_it(&self) -> bool {
        self.client.pulse.running() == Some(self.beat)
    }
}

impl Deadlocks {
    /// A watch that asks these shards.
    pub(super) fn new(database: &str, posts: Arc<Vec<Post>>, instance: Option<String>) -> Self {
        let database = database.to_owned();
        Self { database, posts, instance, busy: AtomicBool::new(false), due: Mutex::default(), seen: Mutex::default() }
    }

    /// Looks for deadlocks when it is time to. Call it a few times a second on one worker.
    pub fn look_after(self: &Arc<Self>, clients: &Clients) {
        let now = Instant::now();
        if lock(&self.due).is_some_and(|due| now < due) || self.busy.load(Ordering::Acquire) {
            return;
        }
        *lock(&self.due) = Some(now + EVERY);
        let slow = self.slow(clients, now);
        if slow.is_empty() || self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let watch = self.clone();
        tokio::spawn(async move {
            watch.look(slow).await;
            watch.busy.store(false, Ordering::Release);
        });
    }

    /// The clients of this database whose transactions are on several shards, and whose statements take long.
    fn slow(&self, clients: &Clients, now: Instant) -> Vec<Slow> {
        let mut seen = lock(&self.seen);
        let mut before = std::mem::take(&mut *seen);
        let mut slow = Vec::new();
        for client in clients.on_several(&self.database) {
            let Some(beat) = client.pulse.running() else { continue };
            let since = before.remove(&client.id).filter(|(old, _)| *old == beat).map_or(now, |(_, since)| since);
            seen.insert(client.id, (beat, since));
            if now - since < EVERY || slow.len() == MAX_WAITERS {
                continue;
            }
            let targets = client.targets();
            let backends = targets.iter().filter_map(|target| {
                // Process ids are a server's, which may have several shards.
                let server = self.posts.iter().position(|post| post.is_on(target.server()))?;
                Some((server, i32::try_from(target.pid).ok()?))
            });
            let instance = self.instance.as_deref().unwrap_or_default();
            let waiter = Waiter { id: format!("{instance}/{}/{beat}", client.id), backends: backends.collect() };
            slow.push(Slow { client, beat, waiter });
        }
        slow
    }

    async fn look(&self, mut slow: Vec<Slow>) {
        let (chosen, others) = self.victims(&slow).await;
        if !slow.iter().any(|slow| chosen.contains(&slow.waiter.id)) {
            return;
        }
        tokio::time::sleep(if others { AGAIN_WITH_OTHERS } else { AGAIN }).await;
        slow.retain(Slow::is_at_it);
        let (again, _) = self.victims(&slow).await;
        for victim in slow.iter().filter(|slow| again.contains(&slow.waiter.id) && chosen.contains(&slow.waiter.id)) {
            tracing::info!(
                database = self.database,
                client = victim.client.id,
                "a deadlock over shards: its statement is ended"
            );
            if victim.client.pulse.give(victim.beat, Over::Deadlock) {
                victim.client.wake();
            }
        }
    }

    /// Who has to end, and whether other instances' transactions were looked at.
    async fn victims(&self, slow: &[Slow]) -> (Vec<String>, bool) {
        let mut waiters: Vec<Waiter> = slow.iter().map(|slow| slow.waiter.clone()).collect();
        let own = waiters.len();
        waiters.extend(self.others(&waiters).await);
        let others = waiters.len() > own;
        let mut found = Vec::new();
        for (shard, post) in self.posts.iter().enumerate() {
            let here = |(at, pid): &(usize, i32)| (*at == shard).then_some(*pid);
            let pids: Vec<i32> = waiters.iter().flat_map(|waiter| waiter.backends.iter().filter_map(here)).collect();
            if pids.len() < 2 {
                continue;
            }
            match post.try_ask(async |client| waits::blocked(client, &pids).await).await {
                Ok(pairs) => found.extend(pairs.into_iter().map(|(waits, holds)| (shard, waits, holds))),
                Err(error) => {
                    tracing::debug!(database = self.database, shard = post.name, %error, "it does not say who waits for whom");
                }
            }
        }
        (victims(&waiters, &found), others)
    }

    /// The waiting transactions of other instances, which are told of ours.
    async fn others(&self, own: &[Waiter]) -> Vec<Waiter> {
        let (Some(instance), Some(first)) = (&self.instance, self.posts.first()) else { return Vec::new() };
        let name = |shard: usize| self.posts.get(shard).map_or("", |post| &post.name);
        let text = |waiter: &Waiter| {
            let backends: Vec<String> =
                waiter.backends.iter().map(|(shard, pid)| format!("{}/{pid}", name(*shard))).collect();
            (waiter.id.clone(), backends.join(" "))
        };
        let told: Vec<_> = own.iter().map(text).collect();
        let heard = first.try_ask(async |client| waits::exchange(client, &told).await).await.unwrap_or_default();
        let backend = |text: &str| {
            let (name, pid) = text.rsplit_once('/')?;
            Some((self.posts.iter().position(|post| post.name == name)?, pid.parse().ok()?))
        };
        let foreign = heard.into_iter().filter(|(id, _)| !id.starts_with(instance.as_str()));
        foreign
            .map(|(id, backends)| Waiter { id, backends: backends.split(' ').filter_map(backend).collect() })
            .collect()
    }
}
