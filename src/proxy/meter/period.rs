//! Averages of the last minute: the totals as they were at its beginning and its end.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::proxy::meter::{Meter, Totals};

/// How long a period is.
const PERIOD: Duration = Duration::from_secs(60);

/// What the totals were when.
#[derive(Debug, Default)]
pub(super) struct Periods {
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    /// The beginning of the last full period, and its end.
    before: (Instant, Totals),
    latest: Option<(Instant, Totals)>,
}

/// The totals now, and those around the last full period, or since the start before there is one.
#[derive(Debug)]
pub struct Period {
    /// As they are.
    pub now: Totals,
    /// When the period began.
    pub before: Totals,
    /// When it ended.
    pub latest: Totals,
    /// How long it was.
    pub seconds: f64,
}

impl Meter {
    /// Ends a period when it is time to. Call it a few times a minute.
    pub fn tick(&self) {
        let mut state = self.periods.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = &mut *state else {
            *state = Some(State { before: (Instant::now(), self.totals()), latest: None });
            return;
        };
        let began = known.latest.as_ref().unwrap_or(&known.before).0;
        if began.elapsed() >= PERIOD {
            let ended = (Instant::now(), self.totals());
            if let Some(latest) = known.latest.replace(ended) {
                known.before = latest;
            }
        }
    }

    /// The totals now and around the last full period.
    pub fn period(&self) -> Period {
        let now = self.totals();
        let state = self.periods.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, latest, seconds) = match &*state {
            Some(State { before, latest: Some(latest) }) => {
                (before.1.clone(), latest.1.clone(), latest.0.duration_since(before.0).as_secs_f64())
            }
            Some(State { before, latest: None }) => (before.1.clone(), now.clone(), before.0.elapsed().as_secs_f64()),
            None => (Totals::default(), now.clone(), 1.0),
        };
        Period { now, before, latest, seconds }
    }
}
