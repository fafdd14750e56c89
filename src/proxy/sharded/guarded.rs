//! Statements before the database's guard, in whatever messages they come.

use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::wire::body::Reader;

impl ShardedSession {
    /// Refuses a text of one statement or several that the guard denies; tells the client what else there is to say of it.
    pub(super) fn guard_text(&mut self, sql: &[u8]) -> Result<(), Trouble> {
        let Some(guard) = &self.guarded_by else { return Ok(()) };
        let scan = self.scanner.scan(sql);
        let Some(ruling) = guard.ruling(&scan, sql) else { return Ok(()) };
        self.database.meter.ruled(&ruling);
        match &ruling.denial {
            Some(denial) => Err(Trouble::Reply(denial.clone())),
            None => {
                ruling.comment(&mut self.to_client);
                Ok(())
            }
        }
    }

    /// The same of a Parse.
    pub(super) fn guard_parse(&mut self, body: &[u8]) -> Result<(), Trouble> {
        if self.guarded_by.is_none() {
            return Ok(());
        }
        let mut reader = Reader::new(body);
        match reader.cstr().and_then(|_| reader.cstr()) {
            Ok(sql) => self.guard_text(sql),
            // Whoever reads all of it says what is wrong.
            Err(_) => Ok(()),
        }
    }

    /// Heeds the guard of the database as it is configured now. What was prepared is gone where that denies it.
    pub(super) fn follow_guard(&mut self) {
        let guard = self.database.guards.of(&self.login.0);
        if guard.as_ref().map(|guard| guard.id) == self.guarded_by.as_ref().map(|guard| guard.id) {
            return;
        }
        if let Some(guard) = &guard {
            let scanner = &mut self.scanner;
            let mut passes = |sql: &str| {
                let ruling = guard.ruling(&scanner.scan(sql.as_bytes()), sql.as_bytes());
                ruling.is_none_or(|ruling| ruling.denial.is_none())
            };
            self.names.statements.retain(|_, named| passes(named.with_views.as_ref().unwrap_or(&named.sql)));
            self.names.prepared.retain(|_, prepared| passes(&prepared.sql));
        }
        self.guarded_by = guard;
    }
}
