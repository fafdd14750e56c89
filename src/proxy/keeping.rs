//! What a client keeps between transactions: its settings, and what pins it to a server connection.
//!
//! A plain SET outside a transaction is followed by its text. What else may have changed the session leaves marks
//! ([`Care`]), and before the connection is given back the server is asked what has become of it ([`Probe`]). Then
//! the client's settings are known again, to be replayed on its next connection, or it keeps this one.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::pool::server::ServerState;
use crate::pool::settings::{
    ROLE, SESSION_AUTHORIZATION, Settings, Value, assignments, change, is_identity, set, unsure, value_of,
};
use crate::proxy::care::{Care, Effect};
use crate::proxy::conversation::Conversation;
use crate::proxy::expect::Expect;
use crate::proxy::from_client::Ways;
use crate::proxy::pins::{Pins, Reason};
use crate::proxy::probe::Probe;
use crate::proxy::traces;
use crate::wire::message;

/// Most settings whose names are remembered to be asked for.
const MAX_NAMES: usize = 1000;
/// How often a question that failed is asked again; a late cancel request may have hit it.
const MAX_RETRIES: u32 = 2;

/// What is rarely there.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Settings that may have changed.
    names: BTreeSet<String>,
    /// Startup settings to give back after the next Sync.
    restore: Settings,
    /// How often the question failed.
    retries: u32,
}

/// What a server connection needs when its client lets go of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// Nothing.
    Clean,
    /// Everything that a session can hold must go.
    Discard,
    /// To be closed.
    Close,
}

impl Conversation {
    /// Notes what a statement may leave.
    pub(super) fn see_to(&mut self, mut care: Care, names: Vec<String>) {
        if care.has(Care::STRANGE) {
            care = care.without(Care::STRANGE) | Care::UNSEEN;
        }
        self.care.add(care);
        self.see_definition(care);
        if care.has(Care::STAYS) {
            self.pins.add(Reason::Library);
        }
        if !names.is_empty() {
            let doubts = self.doubts.get_or_insert_default();
            doubts.names.extend(names);
            if doubts.names.len() > MAX_NAMES {
                doubts.names.clear();
                self.pins.add(Reason::Unknown);
                self.care.add(Care::UNSEEN);
            }
        }
    }

    /// Notes that the statements so far may have done anything, as it is not known any more what functions they called.
    pub(super) fn distrust(&mut self) {
        let teaches = if self.care.has(Care::DEFINES) { Care::TEACHES } else { Care::CLEAN };
        self.see_to(Care::UNSEEN | teaches, Vec::new());
    }

    /// Notes the parameters of a statement that may change settings by names that it is given.
    pub(super) fn see_parameters(&mut self, parameters: &[u8]) {
        let mut names = Vec::new();
        traces::dotted_names(parameters, &mut names);
        self.see_to(Care::CLEAN, names);
    }

    /// Gives startup settings back that a reset takes away: for a client these are its defaults.
    pub(super) fn restore(&mut self, effect: &Effect, ways: &mut Ways<'_>) {
        let lost = self.reset_by(effect);
        self.send_restored(lost, ways);
    }

    /// The same for a statement that is not sent before the next Sync.
    pub(super) fn restore_later(&mut self, effect: &Effect) {
        let lost = self.reset_by(effect);
        if !lost.is_empty() {
            let doubts = self.doubts.get_or_insert_default();
            for (name, value) in lost {
                set(&mut doubts.restore, &name, Some(value));
            }
        }
    }

    /// After a Sync: what was put off by [`Self::restore_later`].
    pub(super) fn restore_after_sync(&mut self, ways: &mut Ways<'_>) {
        if let Some(doubts) = &mut self.doubts {
            let lost = std::mem::take(&mut doubts.restore);
            self.send_restored(lost, ways);
        }
    }

    fn send_restored(&mut self, lost: Settings, ways: &mut Ways<'_>) {
        if !lost.is_empty() {
            message::query(ways.to_server, assignments(&lost).as_bytes());
            if let Some(state) = &mut ways.state {
                state.forget_unnamed();
            }
            self.expects.push(Expect::Restored(Box::new(lost)));
        }
    }

    /// Startup settings that an effect takes away.
    fn reset_by(&self, effect: &Effect) -> Settings {
        let of = |keep: &dyn Fn(&str) -> bool| self.startup.iter().filter(|(name, _)| keep(name)).cloned().collect();
        match effect {
            Effect::Set(name, None) => of(&|other| other == name),
            Effect::ResetAll => of(&|name| !is_identity(name)),
            Effect::DiscardAll => of(&|_| true),
            Effect::Several(effects) => {
                // Only what stays reset in the end.
                let last = |name: &str| effects.iter().rev().find(|effect| resets_or_sets(effect, name));
                let is_lost = |name: &str| !matches!(last(name), None | Some(Effect::Set(_, Some(_))));
                of(&is_lost)
            }
            _ => Settings::new(),
        }
    }

    /// Follows up a statement that succeeded outside a transaction.
    pub(super) fn apply(&mut self, effect: Effect, state: &mut ServerState) {
        let kept = |settings: &Settings| {
            settings.iter().filter(|(name, _)| is_identity(name) || name == "?").cloned().collect()
        };
        match effect {
            Effect::Set(name, value) => {
                state.settings = self.changed(&state.settings, &name, value.clone(), None);
                self.want = self.changed(&self.want, &name, value, value_of(&self.startup, &name).cloned());
            }
            Effect::ResetAll => {
                // Who acts is not reset with the rest.
                let mut want = (*self.startup).clone();
                for name in [ROLE, SESSION_AUTHORIZATION] {
                    set(&mut want, name, value_of(&self.want, name).cloned());
                }
                self.want = self.interned.settings.intern(want);
                state.settings = self.interned.settings.intern(kept(&state.settings));
            }
            Effect::DiscardAll => {
                self.want = self.startup.clone();
                state.settings = self.interned.settings.intern(Settings::new());
                // What came behind it in a pipeline may have left marks already, so these stay.
                let stays = self.pins.has(Reason::Library).then_some(Reason::Library);
                self.pins = stays.into_iter().collect();
                (self.drew, state.drawn) = (0, 0);
            }
            Effect::DiscardSequences => (self.drew, state.drawn) = (0, 0),
            Effect::Several(effects) => effects.into_iter().for_each(|effect| self.apply(effect, state)),
            Effect::Deallocate(_) | Effect::DeallocateAll => {}
        }
    }

    fn changed(&self, settings: &Settings, name: &str, value: Option<Value>, initial: Option<Value>) -> Arc<Settings> {
        let mut settings = settings.clone();
        change(&mut settings, name, value, initial);
        self.interned.settings.intern(settings)
    }

    /// Notes that settings were given back.
    pub(super) fn restored(&mut self, given: &Settings, state: &mut ServerState) {
        let mut settings = (*state.settings).clone();
        for (name, value) in given {
            set(&mut settings, name, Some(value.clone()));
        }
        state.settings = self.interned.settings.intern(settings);
    }

    /// True when the server must be asked something before the connection can be given back, or kept with a reason.
    pub fn wants_probe(&self) -> bool {
        !self.care.is_clean() && self.is_in_doubt() && self.is_idle() && !self.suspect
    }

    fn is_in_doubt(&self) -> bool {
        if self.care.has(Care::FORGETS) && !self.plain {
            return true;
        }
        // What a pinned client has set matters only when it is not pinned any more.
        let rest = if self.pins.is_empty() { Care::NAMED | Care::SETTINGS } else { Care::ENDS | Care::TEACHES };
        !self.keeps && self.care.has(rest | Care::STATE | Care::CREATES)
    }

    /// Asks.
    pub fn probe(&mut self, state: &mut ServerState, to_server: &mut Vec<u8>) {
        let mut care = std::mem::replace(&mut self.care, Care::CLEAN);
        if self.pins.is_empty() {
            self.care.add(care.only(Care::DEFINES | Care::TEACHES));
        }
        if care.has(Care::FORGETS) && !self.plain {
            // So that what the server has prepared is what the proxy thinks.
            message::query(to_server, b"DEALLOCATE ALL");
            state.prepared.clear();
            state.forget_unnamed();
            self.expects.push(Expect::Injected);
        }
        if self.keeps {
            return;
        }
        if !self.pins.is_empty() {
            care.add(Care::UNSEEN);
        }
        if care.has(Care::CREATES) {
            care.add(Care::STATE);
        }
        if care.has(Care::NAMED | Care::UNSEEN) {
            let names = self.doubts.as_mut().map(|doubts| std::mem::take(&mut doubts.names)).unwrap_or_default();
            let probe = Probe::new(care, names, &self.want);
            message::query(to_server, probe.sql().as_bytes());
            state.forget_unnamed();
            self.expects.push(Expect::Probe(Box::new(probe)));
        }
    }

    /// Whether a notification may be meant for this client.
    pub(super) fn may_listen(&self) -> bool {
        let asking = matches!(self.expects.head(), Some(Expect::Probe(_)));
        self.keeps || asking || self.care.has(Care::STATE) || !self.pins.is_empty()
    }

    /// Takes the answer.
    pub(super) fn probed(&mut self, probe: Probe, failed: bool, state: &mut ServerState) {
        if failed {
            let doubts = self.doubts.get_or_insert_default();
            doubts.retries += 1;
            let again = doubts.retries <= MAX_RETRIES;
            doubts.names.extend(probe.names);
            self.care.add(probe.care);
            if !again {
                // It is tried again with the next statement that may end what pins.
                doubts.retries = 0;
                self.pins.add(Reason::Unknown);
                self.care = self.care.without(Care::STATE | Care::ENDS | Care::CREATES);
            }
            return;
        }
        let all = probe.care.has(Care::SETTINGS);
        let found = probe.finish(&self.startup, &self.want, &state.settings, &state.user);
        self.want = self.interned.settings.intern(found.want);
        // There may be settings whose names nobody knows.
        let have = if all { unsure(&found.have) } else { found.have };
        state.settings = self.interned.settings.intern(have);
        if let Some(mut pins) = found.pins {
            if self.pins.has(Reason::Library) {
                pins.add(Reason::Library);
            }
            self.pins = pins;
        }
        // More may have been noted while the question was under way.
        self.doubts.take_if(|doubts| doubts.names.is_empty() && doubts.restore.is_empty());
    }

    /// True when what the client has defined must be known before its next transaction begins.
    pub(super) fn must_learn(&self) -> bool {
        let over = self.status == b'I' && !self.unsynced && self.expects.only_own();
        self.care.has(Care::TEACHES) && over && !self.keeps && self.pins.is_empty() && !self.suspect
    }

    /// True when the server connection may go: to the next client, or to be closed when it is suspect.
    pub fn is_releasable(&self) -> bool {
        self.is_idle() && (self.suspect || !self.keeps && self.pins.is_empty() && !self.is_in_doubt())
    }

    /// True when the connection must be closed instead of serving another client.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// True when something would be lost with the connection that the client relies on.
    pub fn relies_on_connection(&self) -> bool {
        self.keeps || !self.pins.is_empty() || self.is_in_doubt()
    }

    /// What the connection of a client that leaves while it is idle needs; some of it is noted in its state.
    pub fn part(&self, state: &mut ServerState) -> Parting {
        let simple = Care::NAMED | Care::ENDS | Care::DEFINES | Care::TEACHES;
        if self.suspect || self.pins.has(Reason::Library) {
            Parting::Close
        } else if self.keeps || !self.pins.is_empty() || !self.care.without(simple).is_clean() {
            Parting::Discard
        } else {
            if self.care.has(Care::NAMED) {
                state.settings = self.interned.settings.intern(unsure(&state.settings));
            }
            Parting::Clean
        }
    }

    /// Notes that the server connection was taken away; true when it has defined functions or the like.
    pub fn detach(&mut self) -> bool {
        let defined = self.care.has(Care::DEFINES);
        self.leave_definitions();
        self.care = Care::CLEAN;
        self.pins = Pins::default();
        self.suspect = false;
        self.copy_took_syncs = 0;
        self.expects.shrink();
        self.tally.shrink();
        self.shrink_kept();
        defined
    }
}

/// Whether an effect gives this setting a value or takes it back.
fn resets_or_sets(effect: &Effect, name: &str) -> bool {
    match effect {
        Effect::Set(other, _) => other == name,
        Effect::ResetAll => !is_identity(name),
        Effect::DiscardAll => true,
        Effect::Several(effects) => effects.iter().any(|effect| resets_or_sets(effect, name)),
        Effect::Deallocate(_) | Effect::DeallocateAll | Effect::DiscardSequences => false,
    }
}
