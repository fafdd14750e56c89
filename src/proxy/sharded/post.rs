//! A shard as the proxy itself asks it, besides the clients: for commits to finish, and for who waits for whom.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;
use tokio_postgres::Client;

use crate::config::ServerUrl;
use crate::db::{self, commits};
use crate::error::{Error, Result};
use crate::net::connect::ServerTarget;

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One shard, with one session that is kept.
pub(super) struct Post {
    /// Its name.
    pub(super) name: String,
    server: ServerUrl,
    /// With the password.
    url: String,
    client: AsyncMutex<Option<Arc<Client>>>,
    /// The deployment that it belongs to, or why it can commit nothing atomically.
    pub(super) standing: Mutex<Result<String, String>>,
    /// When it last told what is prepared there.
    pub(super) looked: Mutex<Option<Instant>>,
}

/// Locks; what panicked before has left nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) async fn patiently<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::server(format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late()))
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Post({})", self.name)
    }
}

impl Post {
    /// A shard of that name, at a URL that is opened when something is to be asked.
    pub(super) fn new(name: &str, server: &ServerUrl, url: String) -> Self {
        Self {
            name: name.to_owned(),
            server: server.clone(),
            url,
            client: AsyncMutex::default(),
            standing: Mutex::new(Err("it was not asked yet".to_owned())),
            looked: Mutex::default(),
        }
    }

    /// Whether that is its server.
    pub(super) fn is_on(&self, target: &ServerTarget) -> bool {
        self.server.host == target.host && self.server.port == target.port
    }

    /// A session of this shard, which is kept while it lives.
    pub(super) async fn session(&self) -> Result<Arc<Client>> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        *kept = None;
        let fresh = async {
            let client = db::connect(&self.url).await?;
            commits::open(&client).await?;
            Ok(Arc::new(client))
        };
        let client = patiently(fresh).await?;
        // Another server may be there now.
        *lock(&self.standing) = Err("it was not asked yet".to_owned());
        *kept = Some(client.clone());
        Ok(client)
    }

    /// Asks something; after a failure the next question gets a new session.
    pub(super) async fn try_ask<T>(&self, ask: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
        let client = self.session().await?;
        let answered = patiently(ask(&client)).await;
        if answered.is_err() {
            *self.client.lock().await = None;
        }
        answered
    }

    /// Finds out whether it can take part, unless that is known.
    pub(super) async fn examine(&self, client: &Client) -> Result<String, String> {
        if let Ok(deployment) = &*lock(&self.standing) {
            return Ok(deployment.clone());
        }
        let found =
            patiently(commits::standing(client)).await.map_err(|error| error.to_string()).and_then(|standing| {
                let (id, shard) = standing.deployment.ok_or("`pgweir init` was not run on it")?;
                if standing.max_prepared == 0 {
                    return Err(
                        "max_prepared_transactions is 0 there: set it to at least max_connections, and restart it"
                            .to_owned(),
                    );
                }
                if shard != self.name {
                    return Err(format!("it says that it is shard {shard}"));
                }
                Ok(id)
            });
        lock(&self.standing).clone_from(&found);
        found
    }
}
