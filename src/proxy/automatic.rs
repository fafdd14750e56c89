//! Databases that the configuration does not name: `databases."*"` says how they are served.
//!
//! Each one begins with the first client that asks for it and ends when nobody has used it for a while; there are so many at
//! most. One map belongs to all houses of a process, so that no reading of the configuration loses a database that a client
//! is just coming to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, unlimited_if_zero};
use crate::error::Result;
use crate::proxy::database::Database;
use crate::proxy::login::House;
use crate::wire::message::Failure;

/// The name of what serves databases that have no entry of their own.
pub const ANY: &str = "*";

/// Those that are there now.
#[derive(Debug, Default)]
pub(super) struct Automatic(Mutex<HashMap<String, Made>>);

#[derive(Debug)]
struct Made {
    database: Arc<Database>,
    /// Since when nobody was seen to use it.
    unused: Option<Instant>,
}

impl Made {
    fn new(database: Arc<Database>) -> Self {
        Self { database, unused: None }
    }

    /// Whoever uses a database, or is about to, holds it.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.database) > 1
    }
}

impl Automatic {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl House {
    /// The database that clients know by this name, if one is there.
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        let made = || self.ties.automatic.lock().get(name).map(|made| made.database.clone());
        self.databases.get(name).cloned().or_else(made)
    }

    /// All databases by name: those of the configuration and those that clients asked for.
    pub fn all_databases(&self) -> Vec<Arc<Database>> {
        let mut all: Vec<_> = self.databases.values().cloned().collect();
        all.extend(self.ties.automatic.lock().values().map(|made| made.database.clone()));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The same for a client that asks for it: what is not there begins now, where the configuration has `*`.
    ///
    /// # Errors
    /// There is none of that name, and none can begin.
    pub(super) fn wanted(self: &Arc<Self>, name: &str) -> Result<Arc<Database>, Failure> {
        if let Some(database) = self.databases.get(name) {
            return Ok(database.clone());
        }
        let mut all = self.ties.automatic.lock();
        // While this lock is held, no other house comes into force.
        let house = self.current();
        if let Some(database) = house.databases.get(name) {
            return Ok(database.clone());
        }
        if let Some(made) = all.get_mut(name) {
            made.unused = None;
            return Ok(made.database.clone());
        }
        let Some(any) = &house.any else {
            let message = format!("database \"{name}\" does not exist");
            return Err(Failure::fatal("3D000", message).hint("add it to `databases` in pgweir.yaml"));
        };
        if all.len() >= any.config.max_databases as usize {
            let unused = all.iter().filter(|(_, made)| !made.is_used());
            let oldest = unused.min_by_key(|(_, made)| made.unused.unwrap_or_else(Instant::now));
            match oldest.map(|(name, _)| name.clone()).and_then(|name| all.remove(&name)) {
                Some(made) => house.succeed(&made.database, None),
                None => {
                    let failure = Failure::fatal("53300", "too many databases are used that `databases` does not name");
                    return Err(failure.hint("raise databases.\"*\".max_databases"));
                }
            }
        }
        let database = house.begin(name, any);
        let database = database.map_err(|error| Failure::fatal("08006", error.to_string()))?;
        all.insert(name.to_owned(), Made::new(database.clone()));
        Ok(database)
    }

    fn begin(&self, name: &str, any: &Database) -> Result<Arc<Database>> {
        let mut database = Database::new(
            name,
            &self.config,
            &any.config,
            self.interned.clone(),
            self.templates.clone(),
            self.crew.size(),
        )?;
        database.is_automatic = true;
        database.paused = AtomicBool::new(any.paused.load(Ordering::SeqCst));
        database.disabled = AtomicBool::new(any.disabled.load(Ordering::Relaxed));
        Ok(Arc::new(database))
    }

    /// Forgets a database that cannot be reached, unless somebody else uses it.
    pub(super) fn unmade(&self, database: Arc<Database>) {
        let name = database.name.clone();
        let mut all = self.ties.automatic.lock();
        drop(database);
        if all
            .get(&name)
            .is_some_and(|made| !made.is_used() && made.database.pools().iter().all(|pool| pool.counts().open == 0))
        {
            all.remove(&name);
        }
    }

    /// Ends those that nobody has used for a while. Call it now and then, on one worker.
    pub(super) fn sweep_automatic(&self) {
        let mut all = self.ties.automatic.lock();
        let Some(any) = &self.any else { return };
        let limit = unlimited_if_zero(any.config.unused_timeout);
        all.retain(|_, made| {
            if self.clients.are_of(&made.database.name) {
                made.unused = None;
                return true;
            }
            // One that cannot be reached is not worth its place.
            let away = made.database.pools().iter().any(|pool| pool.trouble().is_some());
            let limit = if away { Duration::ZERO } else { limit };
            let keep = made.unused.get_or_insert_with(Instant::now).elapsed() < limit || made.is_used();
            if !keep {
                self.succeed(&made.database, None);
            }
            keep
        });
    }

    /// Carries them over into the house that comes into force by `install`. Those that are configured by now, or that
    /// nothing serves any more, end.
    pub(super) fn hand_over(&self, install: impl FnOnce() -> Arc<Self>) -> Arc<Self> {
        let mut all = self.ties.automatic.lock();
        let next = install();
        all.retain(|name, made| {
            let heir = match (next.databases.get(name), &next.any) {
                (Some(named), _) => Some(named.clone()),
                (None, Some(any)) => made.database.renewed(&next.config, &any.config).map(Arc::new).ok(),
                (None, None) => None,
            };
            self.succeed(&made.database, heir.as_ref());
            match heir.filter(|heir| heir.is_automatic) {
                Some(heir) => {
                    heir.come_into_force(Some(&made.database));
                    made.database = heir;
                    true
                }
                None => false,
            }
        });
        next
    }
}

/// The entry `*` of a configuration.
pub(super) fn any(config: &config::Config) -> Option<&config::Database> {
    config.databases.get(ANY)
}
