//! Finishing what commits over shards have left prepared, whoever began them, and sweeping decisions that nobody needs: one
//! round of it, as a machine without I/O. Several instances may run theirs at the same time.
//!
//! ```text
//! Decisions  of every shard                          first: what they decide was prepared before them
//! Prepared   on every shard
//! Fence      each prepared transaction that is older than its lease, at its decider: yes, or from now on no
//! End        it accordingly
//! Again      where a decision was swept: is it prepared still?
//! Settle     are deciders of a no gone?  is what the participants of a yes did beyond loss?
//! Sweep      decisions of which nothing is prepared any more
//! ```
//!
//! A yes is swept when none of its participants has anything of it prepared; a no when nothing of it is prepared anywhere and
//! the decider's backend is gone, which could still insert a yes otherwise. With a yes the decider remembers
//! up to when it has swept for that participant: a prepared transaction that is older comes from another life of the shard
//! (a restored backup, a copy), where absence proves nothing; it is left alone, loudly.

use super::Shard;
use super::commit_atomic::Gid;

/// How old a prepared transaction is, in seconds, when its coordinator is taken for dead.
pub const LEASE_SECONDS: f64 = 10.0;
/// How old a decision is, in seconds, when it may be swept.
pub const SWEEP_SECONDS: f64 = 60.0;
/// Most transactions that are fenced in one round: the rest waits for the next.
const MAX_FENCED: usize = 500;

/// A decision, as it lies at its decider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its key.
    pub key: String,
    /// What was decided.
    pub committed: bool,
    /// The shards that had prepared, besides the decider.
    pub participants: Vec<String>,
}

/// A prepared transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Its name.
    pub gid: String,
    /// Seconds since.
    pub age: f64,
}

/// What is to be asked of a shard.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Its deployment, and decisions older than [`SWEEP_SECONDS`].
    Decisions(Shard),
    /// What is prepared there under names of ours.
    Prepared(Shard),
    /// The decision about what the participant has prepared, for good.
    Fence {
        /// Who has decided.
        decider: Shard,
        /// What.
        gid: Gid,
        /// Where it is prepared.
        participant: Shard,
    },
    /// COMMIT PREPARED or ROLLBACK PREPARED.
    End {
        /// Where.
        shard: Shard,
        /// What, by its whole name.
        gid: String,
        /// Which of both.
        committed: bool,
    },
    /// Whether the backend lives that was to decide this.
    Lives(Shard, Gid),
    /// To write something and wait until it cannot be lost, nor what was done before it.
    Persist(Shard),
    /// To forget decisions.
    Sweep {
        /// Where.
        shard: Shard,
        /// By their keys.
        keys: Vec<String>,
        /// Per participant: what was begun before (microseconds, the decider's clock) is over there.
        confirmed: Vec<(String, i64)>,
    },
}

impl Ask {
    /// The shard that is asked.
    pub fn shard(&self) -> Shard {
        match self {
            Self::Decisions(shard)
            | Self::Prepared(shard)
            | Self::Lives(shard, _)
            | Self::Persist(shard)
            | Self::Fence { decider: shard, .. }
            | Self::End { shard, .. }
            | Self::Sweep { shard, .. } => *shard,
        }
    }
}

/// What a fence found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// Committed.
    Yes,
    /// Not committed, and never to be.
    No,
    /// The decider is still at it; its backend was told to end.
    InFlight,
    /// There is no decision, and may have been one that was swept.
    Swept,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// To [`Ask::Decisions`].
    Decisions {
        /// The deployment that the shard belongs to.
        deployment: String,
        /// The shard's clock, in microseconds since 1970.
        now_us: i64,
        /// What it has decided.
        decisions: Vec<Decision>,
    },
    /// To [`Ask::Prepared`].
    Prepared(Vec<Prepared>),
    /// To [`Ask::Fence`].
    Fenced(Fenced),
    /// To [`Ask::Lives`].
    Lives(bool),
    /// It is done.
    Done,
    /// There is no answer, or an error.
    Lost,
}

/// What was found on one shard.
#[derive(Debug, Default)]
struct Found {
    deployment: String,
    now_us: i64,
    decisions: Vec<Decision>,
    /// `None` when it did not say.
    prepared: Option<Vec<Prepared>>,
    persisted: bool,
    /// Keys whose decider's backend is gone.
    gone: Vec<String>,
    /// What is prepared though its decision was swept, unless somebody finished it meanwhile.
    doubtful: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Decisions,
    Prepared,
    Fence,
    End,
    Again,
    Settle,
    Sweep,
}

/// One round under way.
#[derive(Debug)]
pub struct Round {
    names: Vec<String>,
    /// Microseconds since the look at each shard before this one.
    looked_us: Vec<Option<i64>>,
    found: Vec<Option<Found>>,
    phase: Phase,
    strangers: Vec<(Shard, String)>,
}

impl Round {
    /// A round over shards with these names; for each, the microseconds since it last told what is prepared there.
    pub fn new(names: Vec<String>, looked_us: Vec<Option<i64>>) -> Self {
        let found = names.iter().map(|_| None).collect();
        Self { names, looked_us, found, phase: Phase::Decisions, strangers: Vec::new() }
    }

    /// What to ask first, in any order or at the same time.
    pub fn start(&self) -> Vec<Ask> {
        (0..self.names.len()).map(Ask::Decisions).collect()
    }

    /// What to ask next, after all answers to what was asked last. Nothing when the round is over.
    pub fn heard(&mut self, answers: Vec<(Ask, Heard)>) -> Vec<Ask> {
        let mut ends = Vec::new();
        for (ask, heard) in answers {
            self.hear(ask, heard, &mut ends);
        }
        loop {
            let (next, asks) = match self.phase {
                Phase::Decisions => (Phase::Prepared, self.known().map(Ask::Prepared).collect()),
                Phase::Prepared => (Phase::Fence, self.fences()),
                Phase::Fence => (Phase::End, std::mem::take(&mut ends)),
                Phase::End => (Phase::Again, self.doubts().map(Ask::Prepared).collect()),
                Phase::Again => (Phase::Settle, self.settles()),
                Phase::Settle => (Phase::Sweep, self.sweeps()),
                Phase::Sweep => return Vec::new(),
            };
            self.phase = next;
            if !asks.is_empty() {
                return asks;
            }
        }
    }

    /// Prepared transactions of another deployment, of another shard, or of another life of the shard.
    pub fn strangers(&self) -> &[(Shard, String)] {
        &self.strangers
    }

    /// Whether the shard has told what is prepared there.
    pub fn has_looked(&self, shard: Shard) -> bool {
        self.prepared_on(shard).is_some()
    }

    fn known(&self) -> impl Iterator<Item = Shard> {
        (0..self.names.len()).filter(|&shard| self.at(shard).is_some())
    }

    fn doubts(&self) -> impl Iterator<Item = Shard> {
        self.known().filter(|&shard| self.at(shard).is_some_and(|found| !found.doubtful.is_empty()))
    }

    fn at(&self, shard: Shard) -> Option<&Found> {
        self.found.get(shard)?.as_ref()
    }

    fn at_mut(&mut self, shard: Shard) -> Option<&mut Found> {
        self.found.get_mut(shard)?.as_mut()
    }

    fn named(&self, name: &str) -> Option<Shard> {
        self.names.iter().position(|known| known == name)
    }

    fn prepared_on(&self, shard: Shard) -> Option<&[Prepared]> {
        self.at(shard)?.prepared.as_deref()
    }

    fn hear(&mut self, ask: Ask, heard: Heard, ends: &mut Vec<Ask>) {
        match (ask, heard) {
            (Ask::Decisions(shard), Heard::Decisions { deployment, now_us, decisions }) => {
                if let Some(slot) = self.found.get_mut(shard) {
                    *slot = Some(Found { deployment, now_us, decisions, ..Found::default() });
                }
            }
            (Ask::Prepared(shard), Heard::Prepared(prepared)) => {
                let Some(found) = self.at_mut(shard) else { return };
                let doubtful = std::mem::take(&mut found.doubtful);
                let still = doubtful.into_iter().filter(|gid| prepared.iter().any(|one| one.gid == *gid));
                let still: Vec<_> = still.map(|gid| (shard, gid)).collect();
                found.prepared = Some(prepared);
                self.strangers.extend(still);
            }
            (Ask::Fence { gid, participant, .. }, Heard::Fenced(fenced)) => {
                let Some(name) = self.names.get(participant) else { return };
                let gid = gid.on(name);
                match fenced {
                    Fenced::Yes => ends.push(Ask::End { shard: participant, gid, committed: true }),
                    Fenced::No => ends.push(Ask::End { shard: participant, gid, committed: false }),
                    Fenced::InFlight => {}
                    Fenced::Swept => {
                        if let Some(found) = self.at_mut(participant) {
                            found.doubtful.push(gid);
                        }
                    }
                }
            }
            (Ask::Lives(shard, gid), Heard::Lives(false)) => {
                if let Some(found) = self.at_mut(shard) {
                    found.gone.push(gid.key());
                }
            }
            (Ask::Persist(shard), Heard::Done) => {
                if let Some(found) = self.at_mut(shard) {
                    found.persisted = true;
                }
            }
            _ => {}
        }
    }

    /// The transactions that are older than their lease, each at its decider.
    fn fences(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        let mut strangers = Vec::new();
        for participant in 0..self.names.len() {
            for prepared in self.prepared_on(participant).unwrap_or_default() {
                if prepared.age < LEASE_SECONDS {
                    continue;
                }
                match self.ours(participant, &prepared.gid) {
                    Some((decider, gid)) => asks.push(Ask::Fence { decider, gid, participant }),
                    None => strangers.push((participant, prepared.gid.clone())),
                }
            }
        }
        self.strangers.extend(strangers);
        asks.retain(|ask| self.at(ask.shard()).is_some());
        asks.truncate(MAX_FENCED);
        asks
    }

    /// Who decides about what is prepared here under this name, if it is a name of this shard in this deployment.
    fn ours(&self, participant: Shard, gid: &str) -> Option<(Shard, Gid)> {
        let (gid, name) = Gid::parse(gid)?;
        let here = self.names.get(participant)? == name && self.at(participant)?.deployment == gid.deployment;
        let decider = self.named(&gid.decider)?;
        here.then_some((decider, gid))
    }

    /// Whether nothing of the transaction is prepared on the shard; false when that is not known.
    fn has_nothing(&self, shard: Shard, key: &str) -> bool {
        let is_part = |gid: &str| gid.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'));
        self.prepared_on(shard).is_some_and(|prepared| !prepared.iter().any(|one| is_part(&one.gid)))
    }

    /// Whether nothing of it is prepared where it may have been.
    fn is_over(&self, decision: &Decision) -> bool {
        if decision.committed {
            let over = |name: &String| self.named(name).is_some_and(|shard| self.has_nothing(shard, &decision.key));
            decision.participants.iter().all(over)
        } else {
            (0..self.names.len()).all(|shard| self.has_nothing(shard, &decision.key))
        }
    }

    fn settles(&self) -> Vec<Ask> {
        let mut asks = Vec::new();
        let mut participants = Vec::new();
        for decider in self.known() {
            for decision in self.at(decider).into_iter().flat_map(|found| &found.decisions) {
                if !self.is_over(decision) {
                    continue;
                }
                if decision.committed {
                    participants.extend(decision.participants.iter().filter_map(|name| self.named(name)));
                } else if let Some(gid) = Gid::parse_key(&decision.key) {
                    asks.push(Ask::Lives(decider, gid));
                }
            }
        }
        participants.sort_unstable();
        participants.dedup();
        asks.extend(participants.into_iter().map(Ask::Persist));
        asks
    }

    /// Up to when everything is over on the shard that this decider has decided, by the decider's clock.
    fn confirmed(&self, decider: &Found, decider_name: &str, shard: Shard) -> Option<i64> {
        #[allow(clippy::cast_possible_truncation, reason = "a minute")]
        let margin = (SWEEP_SECONDS * 1e6) as i64;
        // What was on its way when the shard last looked empty is there by now, or is younger than this.
        let mut until = decider.now_us - margin - (*self.looked_us.get(shard)?)?;
        for prepared in self.prepared_on(shard)? {
            if let Some((gid, _)) = Gid::parse(&prepared.gid).filter(|(gid, _)| gid.decider == decider_name) {
                until = until.min(gid.asked_us);
            }
        }
        Some(until)
    }

    /// What the decider notes for each participant with the sweep of this yes; nothing when it may not be swept yet.
    fn confirms(&self, decider: &Found, name: &str, decision: &Decision, gid: &Gid) -> Option<Vec<(String, i64)>> {
        let until = |participant: &String| {
            let shard = self.named(participant)?;
            let persisted = self.at(shard)?.persisted;
            let until = self.confirmed(decider, name, shard)?;
            (persisted && gid.asked_us < until).then(|| (participant.clone(), until))
        };
        decision.participants.iter().map(until).collect()
    }

    fn sweeps(&self) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (shard, name) in self.names.iter().enumerate() {
            let Some(found) = self.at(shard) else { continue };
            let mut keys = Vec::new();
            let mut confirmed: Vec<(String, i64)> = Vec::new();
            for decision in found.decisions.iter().filter(|decision| self.is_over(decision)) {
                if !decision.committed {
                    if found.gone.contains(&decision.key) {
                        keys.push(decision.key.clone());
                    }
                    continue;
                }
                let Some(gid) = Gid::parse_key(&decision.key) else { continue };
                if let Some(confirms) = self.confirms(found, name, decision, &gid) {
                    keys.push(decision.key.clone());
                    confirmed.extend(confirms);
                }
            }
            confirmed.sort_unstable();
            confirmed.dedup();
            if !keys.is_empty() {
                asks.push(Ask::Sweep { shard, keys, confirmed });
            }
        }
        asks
    }
}
