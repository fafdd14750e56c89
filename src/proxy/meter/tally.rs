//! What the answers of one turn said, before the clock is read for all of them.

use crate::proxy::meter::habits::Habits;
use crate::proxy::meter::templates::{Numbers, Place};
use crate::proxy::meter::{Meter, Tier};

/// Counts of one turn of a session.
#[derive(Debug, Default)]
pub struct Tally {
    /// ReadyForQuery messages for the client, and those of them outside a transaction.
    ready: u32,
    transactions: u32,
    failed: bool,
    failures: u32,
    /// Parse messages of the client, those for the server, and Bind messages.
    pub parsed: (u32, u32, u32),
    /// Rows of the statement that is being answered.
    rows: u64,
    /// Statements that were answered.
    done: Vec<(Place, Numbers)>,
    /// What the session makes of its statements.
    pub habits: Habits,
    /// SQLSTATEs of the errors, and whether they are the server's.
    errors: Vec<(bool, [u8; 5])>,
}

impl Tally {
    /// Notes a ReadyForQuery with this status.
    #[inline]
    pub fn ready(&mut self, status: u8) {
        self.ready += 1;
        self.transactions += u32::from(status == b'I');
        self.failures += u32::from(std::mem::take(&mut self.failed));
    }

    /// Notes a CommandComplete by its tag: `SELECT 5`.
    #[inline]
    pub fn command(&mut self, tag: &[u8]) {
        let tag = tag.strip_suffix(b"\0").unwrap_or_default();
        let digits = tag.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let number = tag.get(tag.len() - digits..).unwrap_or_default();
        self.rows += number.iter().fold(0u64, |sum, digit| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    }

    /// Notes that a statement of this template was answered.
    #[inline]
    pub fn finished(&mut self, place: Place, failed: bool) {
        let rows = std::mem::take(&mut self.rows);
        self.done.push((place, Numbers { calls: 1, nanos: 0, rows, errors: failed.into() }));
    }

    /// Notes an error that the client was told.
    pub fn error(&mut self, servers: bool, code: &[u8]) {
        self.failed = true;
        self.errors.push((servers, <[u8; 5]>::try_from(code).unwrap_or(*b"other")));
    }

    /// Whether queries were answered that have to be accounted for.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.ready > 0
    }

    /// Queries answered, transactions ended.
    pub fn counts(&self) -> (u64, u64) {
        (self.ready.into(), self.transactions.into())
    }

    /// Hands everything over; the statements took `nanos` together, up to `now`.
    pub fn settle(&mut self, meter: &Meter, home: usize, (nanos, now): (u64, u64)) {
        if let Some(counters) = meter.at(home) {
            counters.transactions.add(self.transactions.into());
            counters.answered(Tier::Direct, self.ready.into(), self.failures.into());
        }
        if self.parsed != (0, 0, 0)
            && let Some(counters) = meter.at(home)
        {
            let (client, server, binds) = std::mem::take(&mut self.parsed);
            counters.client_parses.add(client.into());
            counters.server_parses.add(server.into());
            counters.binds.add(binds.into());
        }
        for (servers, code) in self.errors.drain(..) {
            meter.error(if servers { "server" } else { "pgweir" }, &code);
        }
        let each = nanos / (self.done.len() as u64).max(1);
        if let Some(templates) = &meter.templates {
            for (place, numbers) in &self.done {
                templates.record(home, *place, Numbers { nanos: each, ..*numbers });
                self.habits.ran(*place, now, templates, home);
            }
        }
        self.done.clear();
        (self.ready, self.transactions, self.failures) = (0, 0, 0);
    }

    /// Gives back memory that a long pipeline took.
    pub fn shrink(&mut self) {
        if self.done.capacity() > 4 {
            self.done = Vec::new();
        }
        if self.errors.capacity() > 0 {
            self.errors = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_from_tags() {
        let mut tally = Tally::default();
        for (tag, rows) in [(&b"SELECT 51\0"[..], 51), (b"INSERT 0 7\0", 7), (b"BEGIN\0", 0), (b"", 0), (b"X", 0)] {
            tally.command(tag);
            tally.finished(Place::default(), false);
            assert_eq!(tally.done.last().unwrap().1.rows, rows, "{tag:?}");
        }
    }

    #[test]
    fn a_turn_is_settled_at_once() {
        let meter = Meter::new("app", 1, None);
        let mut tally = Tally::default();
        tally.error(true, b"23505");
        tally.ready(b'E');
        tally.ready(b'I');
        assert!(tally.is_due());
        tally.settle(&meter, 0, (10, 20));
        assert!(!tally.is_due());
        let totals = meter.totals();
        assert_eq!((totals.transactions, totals.queries[0]), (1, (2, 1)));
        assert_eq!(meter.errors(), [("server", "23505".to_owned(), 1)]);
    }
}
