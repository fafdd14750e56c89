//! What a session makes of its statements: loops, and transactions in which it stands idle.
//!
//! As the workload sees it in logs, with less memory: two statements of a loop are followed.

use crate::proxy::meter::templates::{Place, Templates};
use crate::workload::LOOP_LENGTH;

/// Statements of other templates that may stand between two of a loop's, those of transactions apart.
const LOOP_GAP: u8 = 3;
/// Two executions further apart than this, in nanoseconds, are no loop.
const LOOP_PAUSE: u64 = 1_000_000_000;
/// A pause within a transaction that is noticed, in nanoseconds.
const PAUSE: u64 = 500_000_000;

/// What may be running in a loop.
#[derive(Debug, Default)]
struct Followed {
    place: Place,
    /// How often it ran in a row, when it did last, and how many others did since.
    length: u32,
    at: u64,
    gap: u8,
}

/// A session's habits.
#[derive(Debug, Default)]
pub struct Habits {
    followed: [Followed; 2],
    /// What ran last, and when that was answered.
    last: Place,
    ended: u64,
}

impl Habits {
    /// A statement of this template was answered.
    #[inline]
    pub fn ran(&mut self, place: Place, now: u64, templates: &Templates, home: usize) {
        self.last = place;
        self.ended = now;
        if place.control {
            return;
        }
        let mut found = false;
        for followed in &mut self.followed {
            if followed.length > 0 && followed.place == place {
                let near = now.saturating_sub(followed.at) <= LOOP_PAUSE;
                let length = if near { followed.length.saturating_add(1) } else { 1 };
                *followed = Followed { place, length, at: now, gap: 0 };
                found = true;
                if length >= LOOP_LENGTH {
                    templates.looped(home, place, length);
                }
            } else {
                followed.gap = followed.gap.saturating_add(1);
            }
        }
        let free = |followed: &&mut Followed| followed.length == 0 || followed.gap > LOOP_GAP;
        if !found && let Some(followed) = self.followed.iter_mut().find(free) {
            *followed = Followed { place, length: 1, at: now, gap: 0 };
        }
    }

    /// The next statement of a transaction comes.
    #[inline]
    pub fn goes_on(&self, now: u64, templates: Option<&Templates>, home: usize) {
        let pause = now.saturating_sub(self.ended);
        if pause >= PAUSE
            && self.ended > 0
            && let Some(templates) = templates
        {
            templates.idled(home, self.last, pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::meter::templates::Numbers;
    use crate::sql::lexer::LexOptions;
    use crate::sql::template::Scanner;

    const SECOND: u64 = 1_000_000_000;

    struct Stage {
        templates: Templates,
        habits: Habits,
        now: u64,
    }

    impl Stage {
        fn new() -> Self {
            Self { templates: Templates::new(20, 1), habits: Habits::default(), now: SECOND }
        }

        fn run(&mut self, sql: &str, after: u64) {
            let fingerprint = Scanner::new(LexOptions::default()).scan(sql.as_bytes()).fingerprint;
            let place = self.templates.place("app", fingerprint, sql.as_bytes(), LexOptions::default());
            self.now += after;
            self.templates.record(0, place, Numbers { calls: 1, ..Numbers::default() });
            self.habits.ran(place, self.now, &self.templates, 0);
        }

        fn loops(&self) -> Vec<(String, u32, u32)> {
            let habits = self.templates.grown().into_iter().map(|it| (it.example, it.passed));
            habits.filter(|(_, it)| it.loops > 0).map(|(sql, it)| (sql.to_string(), it.loops, it.longest_run)).collect()
        }
    }

    #[test]
    fn loops_are_seen_through_transactions_and_a_few_others() {
        let mut stage = Stage::new();
        stage.run("select id from parents", 0);
        for _ in 0..12 {
            for sql in ["begin", "select * from c where id = 1", "select 2", "commit"] {
                stage.run(sql, SECOND / 100);
            }
        }
        assert!(stage.loops().contains(&("select * from c where id = 1".to_owned(), 1, 12)), "{:?}", stage.loops());
    }

    #[test]
    fn what_is_said_now_and_then_is_no_loop() {
        let mut stage = Stage::new();
        (0..20).for_each(|_| stage.run("select 1", 5 * SECOND));
        (0..9).for_each(|_| stage.run("select z", 0));
        for _ in 0..12 {
            for sql in ["select a", "select b", "select c", "select d", "select e"] {
                stage.run(sql, 0);
            }
        }
        assert_eq!(stage.loops(), []);
    }

    #[test]
    fn pauses_within_a_transaction_are_its_last_statements() {
        let mut stage = Stage::new();
        stage.run("begin", 0);
        stage.run("update t set a = 1", 0);
        stage.habits.goes_on(stage.now + SECOND / 10, Some(&stage.templates), 0);
        stage.habits.goes_on(stage.now + 3 * SECOND, Some(&stage.templates), 0);
        let idle: Vec<_> = stage.templates.grown().into_iter().filter(|it| it.passed.idles > 0).collect();
        assert_eq!(idle.len(), 1);
        assert_eq!(
            (&*idle[0].example, idle[0].passed.idles, idle[0].passed.idle_ms),
            ("update t set a = 1", 1, 3000.0)
        );
    }
}
