//! What a statement does to the session it runs in, decided once per template.

use std::ops::BitOr;

use crate::pool::settings::Value;

/// What has to be seen to before the statement's server connection may serve another client: any of the marks below.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Care(u16);

impl Care {
    /// It leaves no trace in the session.
    pub const CLEAN: Self = Self(0);
    /// It may change settings whose names are known: from its text, its parameters, or the functions it calls.
    pub const NAMED: Self = Self(1);
    /// It may change any setting.
    pub const SETTINGS: Self = Self(2);
    /// It may leave what cannot be carried to another server connection: a temporary table, a lock, a listener.
    pub const STATE: Self = Self(4);
    /// It may take such a thing away.
    pub const ENDS: Self = Self(8);
    /// It may define what statements speak of: tables, types, functions.
    pub const DEFINES: Self = Self(16);
    /// It leaves what no command takes away: a loaded library, the random number generator's seed.
    pub const STAYS: Self = Self(32);
    /// It may take away what the proxy prepared on the connection, and the client's names with it.
    pub const FORGETS: Self = Self(64);
    /// It creates something, which is temporary where the search path says so.
    pub const CREATES: Self = Self(128);
    /// It may define what leaves something: functions, and triggers, views or defaults that call such functions.
    pub const TEACHES: Self = Self(256);
    /// It may call a function that was not there when functions were read last.
    pub const STRANGE: Self = Self(512);
    /// What it changes depends on its constants.
    pub const BY_NAME: Self = Self(Self::NAMED.0 | Self::SETTINGS.0 | Self::STRANGE.0);
    /// It may draw from a sequence.
    pub const DRAWS: Self = Self(1024);
    /// It may ask what was drawn: `currval()`, `lastval()`.
    pub const ASKS: Self = Self(2048);
    /// It needs a database to which nobody else is connected.
    pub const ALONE: Self = Self(4096);
    /// It may send a notification, so that PostgreSQL refuses to prepare its transaction.
    pub const NOTIFIES: Self = Self(8192);
    /// It may do anything to the session.
    pub const UNSEEN: Self = Self(Self::SETTINGS.0 | Self::STATE.0);

    /// True when nothing has to be seen to afterwards.
    pub fn is_clean(self) -> bool {
        self.without(Self::DRAWS | Self::ASKS | Self::NOTIFIES).is_nothing()
    }

    /// True when nothing is marked.
    pub fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// True when any of these is marked.
    pub fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    /// These marks taken away.
    #[must_use]
    pub fn without(self, these: Self) -> Self {
        Self(self.0 & !these.0)
    }

    /// Only these marks.
    #[must_use]
    pub fn only(self, these: Self) -> Self {
        Self(self.0 & these.0)
    }

    /// Adds marks.
    pub fn add(&mut self, more: Self) {
        self.0 |= more.0;
    }
}

impl BitOr for Care {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::fmt::Debug for Care {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let marks = [
            "NAMED", "SETTINGS", "STATE", "ENDS", "DEFINES", "STAYS", "FORGETS", "CREATES", "TEACHES", "STRANGE",
            "DRAWS", "ASKS", "ALONE", "NOTIFIES",
        ];
        let held = marks.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1);
        f.debug_set().entries(held.map(|(_, mark)| mark)).finish()
    }
}

/// A statement's effect on what the proxy itself keeps for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// `SET name = value`, outside of functions: replayed on later server connections.
    Set(String, Option<Value>),
    /// `RESET ALL`: back to what the client asked for at startup.
    ResetAll,
    /// `DEALLOCATE name`.
    Deallocate(Vec<u8>),
    /// `DEALLOCATE ALL`.
    DeallocateAll,
    /// `DISCARD ALL`.
    DiscardAll,
    /// `DISCARD SEQUENCES`.
    DiscardSequences,
    /// The effects of several statements in one string, of the first two kinds.
    Several(Vec<Effect>),
}

impl Effect {
    /// What has to be seen to when it cannot be known whether the statement took effect, or for how long.
    pub fn care(&self) -> Care {
        match self {
            Self::Set(..) => Care::NAMED,
            Self::ResetAll => Care::SETTINGS,
            // Names of prepared statements are followed wherever they are spoken of.
            Self::Deallocate(_) | Self::DeallocateAll | Self::DiscardSequences => Care::CLEAN,
            Self::DiscardAll => Care::FORGETS | Care::SETTINGS | Care::ENDS,
            Self::Several(effects) => effects.iter().fold(Care::CLEAN, |care, effect| care | effect.care()),
        }
    }

    /// The settings it changes by name.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Set(name, _) => vec![name.clone()],
            Self::Several(effects) => effects.iter().flat_map(Self::names).collect(),
            _ => Vec::new(),
        }
    }
}

/// What the analysis of a statement's text says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What has to be seen to afterwards.
    pub care: Care,
    /// What the proxy must note when it succeeds outside a transaction; `care` is without it.
    pub effect: Option<Box<Effect>>,
    /// What it resets, where that cannot be followed: a client's startup settings are given back all the same.
    pub resets: Option<Box<Effect>>,
    /// Settings that it may change.
    pub names: Vec<String>,
    /// It speaks of prepared statements by name.
    pub speaks: bool,
}

impl Verdict {
    /// What the statement means where its success is not followed up, so that the safe side is taken.
    pub fn extended_care(&self) -> Care {
        self.effect.as_deref().map_or(self.care, |effect| self.care | effect.care())
    }
}
