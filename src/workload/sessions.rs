//! What each session ran last: joins late durations to their statements and sees loops.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use rustc_hash::FxHasher;

use super::{Observation, TransactionWord};

/// Sessions remembered at once; when there are more, all are forgotten and remembered anew.
const MAX_SESSIONS: usize = 20_000;
/// Statements of other templates that may stand between two of a loop's: its own BEGIN, COMMIT, or a second child query.
const LOOP_GAP: u32 = 3;
/// Two executions further apart than this, in milliseconds, are no loop.
const LOOP_PAUSE_MS: i64 = 1000;
/// A pause within a transaction that is noticed, in milliseconds.
const PAUSE_MS: i64 = 500;
/// Templates remembered per session.
const RECENT: usize = 4;

/// A template's last execution in a session.
#[derive(Debug, Clone, Copy)]
struct Run {
    template: u32,
    /// The session's statement number.
    position: u32,
    /// Executions in a row up to here.
    length: u32,
    at_ms: i64,
}

#[derive(Debug, Default)]
struct Session {
    /// The statement that awaits its duration or its error.
    pending: Option<u32>,
    position: u32,
    recent: [Option<Run>; RECENT],
    /// A transaction is open, as far as the log tells.
    transaction: bool,
    /// When the last statement began, where its end is not yet known.
    began_ms: Option<i64>,
    /// The last statement, and when it ended.
    ended: Option<(u32, i64)>,
    /// The transaction's longest pause so far, and the statement before it.
    pause: Option<(u32, i64)>,
}

/// All sessions that are remembered.
#[derive(Default)]
pub(super) struct Sessions {
    by_id: HashMap<u64, Session, BuildHasherDefault<FxHasher>>,
}

impl Sessions {
    /// Notes that a session ran a template; answers how many times in a row.
    pub(super) fn ran(&mut self, observation: &Observation<'_>, template: u32) -> u32 {
        if self.by_id.len() >= MAX_SESSIONS && !self.by_id.contains_key(&observation.session) {
            self.by_id.clear();
        }
        let session = self.by_id.entry(observation.session).or_default();
        session.pending = observation.duration_ms.is_none().then_some(template);
        session.position = session.position.wrapping_add(1);
        // Without a session the order says nothing.
        if observation.session == 0 {
            return 1;
        }
        let at_ms = observation.at_ms.unwrap_or(0);
        let position = session.position;
        let near = |run: &Run| {
            position.wrapping_sub(run.position) <= LOOP_GAP + 1 && (at_ms - run.at_ms).abs() <= LOOP_PAUSE_MS
        };
        let known = session.recent.iter().position(|run| run.is_some_and(|run| run.template == template));
        let slot = known.or_else(|| {
            // The oldest makes room; an empty place is older than any.
            (0..RECENT).min_by_key(|at| session.recent[*at].map_or(0, |run| run.position))
        });
        let Some(slot) = slot.and_then(|at| session.recent.get_mut(at)) else { return 1 };
        let before = slot.filter(|run| run.template == template && near(run));
        let length = before.map_or(1, |run| run.length.saturating_add(1));
        *slot = Some(Run { template, position, length, at_ms });
        length
    }

    /// Follows the session's transaction; when it ends, answers its longest pause and the statement before that.
    ///
    /// A pause is counted only between a BEGIN and an end that were both seen: where a log holds but some statements, a
    /// transaction that looks open may long be over.
    pub(super) fn in_transaction(
        &mut self,
        observation: &Observation<'_>,
        template: u32,
        word: TransactionWord,
    ) -> Option<(u32, f64)> {
        let session = self.by_id.get_mut(&observation.session)?;
        let start = observation.at_ms.map(|at| at - observation.duration_ms.map_or(0, |length| length as i64));
        if let (true, Some((before, ended)), Some(start)) = (session.transaction, session.ended, start) {
            let pause = start - ended;
            if pause >= PAUSE_MS && session.pause.is_none_or(|(_, longest)| pause > longest) {
                session.pause = Some((before, pause));
            }
        }
        session.ended = observation.at_ms.filter(|_| observation.duration_ms.is_some()).map(|at| (template, at));
        session.began_ms = observation.at_ms.filter(|_| observation.duration_ms.is_none());
        match word {
            TransactionWord::Neither => None,
            TransactionWord::Begins => {
                session.transaction = true;
                session.pause = None;
                None
            }
            TransactionWord::Ends => {
                session.transaction = false;
                session.pause.take().map(|(before, pause)| (before, pause as f64))
            }
        }
    }

    /// The session's last statement, and how long ago it ended, where both are known. The session is over.
    pub(super) fn idle_since(&mut self, session: u64, at_ms: i64) -> Option<(u32, f64)> {
        let session = self.by_id.get_mut(&session).filter(|_| session != 0)?;
        session.transaction = false;
        let (template, ended) = session.ended.take()?;
        Some((template, (at_ms - ended).max(0) as f64))
    }

    /// The session's statement is over after so many milliseconds: its template, when it still awaited that.
    pub(super) fn finished_after(&mut self, session: u64, milliseconds: f64) -> Option<u32> {
        let template = self.finished(session)?;
        if let Some(session) = self.by_id.get_mut(&session) {
            session.ended = session.began_ms.take().map(|began| (template, began + milliseconds as i64));
        }
        Some(template)
    }

    /// The session's statement failed; true when it is the one that was just counted.
    pub(super) fn failed(&mut self, session: u64, template: u32) -> bool {
        self.finished(session) == Some(template)
    }

    /// The session's statement is over: its template, when it still awaited that.
    pub(super) fn finished(&mut self, session: u64) -> Option<u32> {
        self.by_id.get_mut(&session).and_then(|session| session.pending.take())
    }
}
