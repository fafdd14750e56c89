//! Plans of one sharded database, made once per template, and the catalog they rest on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::config::{Database, SslMode};
use crate::db;
use crate::error::{Error, Result};
use crate::net::connect::ServerTarget;
use crate::route::{self, SessionFacts, TemplatePlan, Topology};
use crate::sql::catalog::Catalog;
use crate::sql::template::{Scan, TemplateKey};

/// Plans kept before the cache starts anew.
const MAX_PLANS: usize = 20_000;

/// Plans one database's statements.
#[derive(Debug)]
pub struct Planner {
    topology: ArcSwap<Topology>,
    version: AtomicU64,
    plans: Mutex<HashMap<(TemplateKey, SessionFacts, u64), Arc<TemplatePlan>>>,
    /// One reload of the catalog at a time.
    reloading: tokio::sync::Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Planner {
    /// A planner that knows no table yet.
    ///
    /// # Errors
    /// The configuration's sharding makes no sense.
    pub fn new(database: &Database) -> Result<Self> {
        let topology = Topology::new(database, Arc::new(Catalog::default()))?;
        Ok(Self {
            topology: ArcSwap::from_pointee(topology),
            version: AtomicU64::new(0),
            plans: Mutex::default(),
            reloading: tokio::sync::Mutex::new(false),
        })
    }

    /// Reads the catalog from the first shard unless that was done.
    ///
    /// # Errors
    /// The shard cannot be read.
    pub async fn ensure_loaded(&self, database: &Database, target: &ServerTarget) -> Result<()> {
        let mut loaded = self.reloading.lock().await;
        if !*loaded {
            self.load(database, target).await?;
            *loaded = true;
        }
        Ok(())
    }

    /// Reads the catalog anew, after definitions changed.
    ///
    /// # Errors
    /// The shard cannot be read; it will be tried again with the next client.
    pub async fn reload(&self, database: &Database, target: &ServerTarget) -> Result<()> {
        let mut loaded = self.reloading.lock().await;
        *loaded = false;
        self.load(database, target).await?;
        *loaded = true;
        Ok(())
    }

    async fn load(&self, database: &Database, target: &ServerTarget) -> Result<()> {
        let client = db::connect(&url(database, target)?).await?;
        let catalog = db::catalog::load(&client).await?;
        let topology = Topology::new(database, Arc::new(catalog))?;
        for problem in topology.problems() {
            tracing::warn!(database = target.database, problem, "a sharded table cannot be used");
        }
        self.topology.store(Arc::new(topology));
        self.version.fetch_add(1, Ordering::SeqCst);
        lock(&self.plans).clear();
        Ok(())
    }

    /// The plan of a statement that was scanned.
    pub fn plan(&self, sql: &str, scan: &Scan<'_>, session: SessionFacts) -> Arc<TemplatePlan> {
        let key = (scan.key, session, self.version.load(Ordering::SeqCst));
        if let Some(plan) = lock(&self.plans).get(&key) {
            return plan.clone();
        }
        let plan = Arc::new(route::plan(sql, scan.bindings, &self.topology.load(), session));
        let mut plans = lock(&self.plans);
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert(key, plan.clone());
        plan
    }
}

/// The first shard's address for the control path.
fn url(database: &Database, target: &ServerTarget) -> Result<String> {
    let mut url = url::Url::parse("postgres://localhost/").map_err(|error| Error::internal(error.to_string()))?;
    let shard = database.shards.first().map(|shard| &shard.primary);
    // Each part is set by the library, which escapes it; the host was a part of a URL before.
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    let _ = url.set_host(Some(&host));
    let _ = url.set_port(Some(target.port));
    let _ = url.set_username(&target.user);
    let _ = url.set_password(target.password.as_deref());
    url.set_path(&target.database);
    if let Some(shard) = shard {
        let mode = match shard.sslmode {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        };
        url.query_pairs_mut().append_pair("sslmode", mode);
        if let Some(root) = &shard.sslrootcert {
            url.query_pairs_mut().append_pair("sslrootcert", root);
        }
    }
    Ok(url.to_string())
}
