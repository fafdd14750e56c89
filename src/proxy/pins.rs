//! Why a client keeps its server connection between transactions.

use std::fmt;

/// What cannot be carried to another server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It listens to a channel.
    Listen,
    /// It holds an advisory lock for the session.
    AdvisoryLock,
    /// It has a temporary table, or another object in its own `pg_temp`.
    Temporary,
    /// It has a cursor WITH HOLD.
    Cursor,
    /// It has a statement of SQL's PREPARE.
    Prepared,
    /// It loaded a library, set the seed of random numbers or opened dblink connections: nothing takes that back.
    Library,
    /// Its session could not be looked at.
    Unknown,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 7] =
        [Self::Listen, Self::AdvisoryLock, Self::Temporary, Self::Cursor, Self::Prepared, Self::Library, Self::Unknown];

    /// As metrics and the console call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::AdvisoryLock => "advisory_lock",
            Self::Temporary => "temporary",
            Self::Cursor => "cursor",
            Self::Prepared => "prepared",
            Self::Library => "library",
            Self::Unknown => "unknown",
        }
    }
}

/// A set of reasons.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Pins(u8);

impl Pins {
    /// The set that [`Pins::bits`] gave.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The set as one number.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// True when there is no reason.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `reason` is one.
    pub fn has(self, reason: Reason) -> bool {
        self.0 >> (reason as u8) & 1 == 1
    }

    /// Adds a reason.
    pub fn add(&mut self, reason: Reason) {
        self.0 |= 1 << (reason as u8);
    }

    /// The reasons.
    pub fn reasons(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.has(*reason))
    }
}

impl FromIterator<Reason> for Pins {
    fn from_iter<I: IntoIterator<Item = Reason>>(reasons: I) -> Self {
        let mut pins = Self::default();
        reasons.into_iter().for_each(|reason| pins.add(reason));
        pins
    }
}

/// The reasons' names, separated by commas.
impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, reason) in self.reasons().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            f.write_str(reason.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.reasons()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_says_its_reasons() {
        let pins: Pins = [Reason::Cursor, Reason::Listen].into_iter().collect();
        assert_eq!((pins.to_string().as_str(), pins), ("listen,cursor", Pins::from_bits(pins.bits())));
        assert!(!pins.has(Reason::Unknown) && Pins::default().is_empty());
        assert_eq!(Reason::ALL.into_iter().collect::<Pins>().reasons().count(), Reason::ALL.len());
    }
}
