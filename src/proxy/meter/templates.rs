//! Calls and times of each template, in bounded memory.
//!
//! A template gets a place once, under a lock; from then on each worker adds to numbers of its own there. When all
//! places are taken, those with the fewest calls are given to others, and their numbers go to the row of the rest.

mod row;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proxy::examination::Examination;
use crate::proxy::findings::{Found, Tally};
use crate::proxy::saved::Saving;
use crate::sql::lexer::LexOptions;
use crate::sql::template::{Fingerprint, template_text};
pub use row::Numbers;
use row::{Row, Traits};

use crate::workload::{Latency, Observation, Passed, Workload, mask};

/// The longest text kept, in bytes.
const MAX_TEXT: usize = 2048;
/// The longest statement kept to be examined, in bytes, and all of them together.
const MAX_EXAMPLE: usize = 16 * 1024;
const MAX_ALL_EXAMPLES: usize = 16 << 20;
/// How many sets of a template's parameters are kept.
const MAX_SAMPLES: usize = 3;

/// A template's place and who holds it; the default is the place of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    at: u32,
    holder: u32,
    /// It is about the transaction or the session: BEGIN, COMMIT, SET.
    pub control: bool,
}

/// A template with its numbers.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The database that it ran in; empty for the rest.
    pub database: String,
    /// The template's hash for reports; none for the rest.
    pub fingerprint: Option<Fingerprint>,
    /// The statement without its constants.
    pub text: String,
    /// Its numbers.
    pub numbers: Numbers,
    /// What rules found in it.
    pub found: Arc<[Found]>,
}

/// A template to be examined.
#[derive(Debug)]
pub struct Subject {
    /// Its place.
    pub place: Place,
    /// The database that it ran in.
    pub database: String,
    /// A statement of it.
    pub example: Arc<str>,
    /// What passed of it.
    pub passed: Passed,
}

/// A template's database, a statement of it, and what passed.
type Ran = (String, Option<Arc<str>>, Passed);

/// The templates of all databases.
#[derive(Debug)]
pub struct Templates {
    /// By worker and place; place 0 is the rest.
    rows: Vec<Box<[Row]>>,
    /// Who holds each place now.
    holders: Box<[AtomicU32]>,
    /// Whether values of parameters are wanted of each place's template.
    wanted: Box<[AtomicBool]>,
    taken: Mutex<Taken>,
    /// Held by whoever writes the file.
    pub(in crate::proxy) file: Mutex<()>,
}

#[derive(Debug)]
struct Taken {
    free: Vec<u32>,
    by_key: HashMap<(String, Fingerprint), u32>,
    by_place: HashMap<u32, Holder>,
    /// Given up by those that lost their places.
    given_up: Numbers,
    /// What rules had found in these, by database and rule.
    found_before: BTreeMap<(String, Arc<str>), Tally>,
    /// Bytes of examples.
    examples: usize,
    /// Where new templates are examined.
    examiner: Option<SyncSender<Subject>>,
    /// Where all of them are saved.
    saving: Option<Saving>,
    /// What they are examined with.
    examination: Arc<Examination>,
}

#[derive(Debug)]
struct Holder {
    key: (String, Fingerprint),
    text: String,
    control: bool,
    /// What the place's numbers were when it was given to this template.
    before: Numbers,
    latency_before: Latency,
    /// The statement that was seen first, unless it is too long or no room was left.
    example: Option<Arc<str>>,
    /// Some sets of parameters, where constants may be told, and how many there were.
    samples: Vec<Box<str>>,
    sampled: usize,
    /// What rules found in it, how often it had run by then, and what its traits told.
    found: Arc<[Found]>,
    examined: Option<(u64, (bool, u64))>,
}

impl Taken {
    /// Constants may be told.
    fn tells(&self) -> bool {
        self.saving.as_ref().is_some_and(|saving| !saving.masked)
    }
}

impl Templates {
    /// Room for `limit` templates that `workers` count.
    pub fn new(limit: usize, workers: usize) -> Self {
        let places = limit + 1;
        Self {
            rows: (0..workers.max(1)).map(|_| (0..places).map(|_| Row::default()).collect()).collect(),
            holders: (0..places).map(|_| AtomicU32::new(0)).collect(),
            wanted: (0..places).map(|_| AtomicBool::new(false)).collect(),
            file: Mutex::default(),
            taken: Mutex::new(Taken {
                free: (1..places as u32).rev().collect(),
                by_key: HashMap::new(),
                by_place: HashMap::new(),
                given_up: Numbers::default(),
                found_before: BTreeMap::new(),
                examples: 0,
                examiner: None,
                saving: None,
                examination: Arc::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a template; `sql` is a statement of it.
    pub fn place(&self, database: &str, fingerprint: Fingerprint, sql: &[u8], options: LexOptions) -> Place {
        let mut taken = self.lock();
        let key = (database.to_owned(), fingerprint);
        if let Some(&at) = taken.by_key.get(&key) {
            return self.current(at, taken.by_place.get(&at).is_some_and(|holder| holder.control));
        }
        let Ok(sql) = std::str::from_utf8(sql) else { return Place::default() };
        if taken.free.is_empty() {
            self.evict(&mut taken);
        }
        let Some(at) = taken.free.pop() else { return Place::default() };
        if let Some(holder) = self.holders.get(at as usize) {
            holder.fetch_add(1, Ordering::Relaxed);
        }
        let mut text = template_text(sql, options);
        if text.len() > MAX_TEXT {
            text.truncate((0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default());
            text.push_str("...");
        }
        let control = is_control(&text);
        let place = self.current(at, control);
        self.rows_at(at).for_each(Row::forget_traits);
        let fits = sql.len() <= MAX_EXAMPLE && taken.examples + sql.len() <= MAX_ALL_EXAMPLES;
        let example: Option<Arc<str>> = fits.then(|| sql.into());
        if let Some(example) = &example {
            taken.examples += example.len();
            // Where more come than can be examined, the rest is found later: see `grown`.
            let (database, passed) = (key.0.clone(), Passed::default());
            let fresh = Subject { place, database, example: example.clone(), passed };
            let _ = taken.examiner.as_ref().is_some_and(|examiner| examiner.try_send(fresh).is_ok());
        }
        taken.by_key.insert(key.clone(), at);
        let (before, latency_before) = (self.sum(at), self.told(at).0);
        let (found, examined) = (Arc::default(), None);
        self.want(at, taken.tells());
        let (samples, sampled) = (Vec::new(), 0);
        let holder = Holder { key, text, control, before, latency_before, example, samples, sampled, found, examined };
        taken.by_place.insert(at, holder);
        place
    }

    /// Has templates examined from now on by whoever receives them.
    pub fn examine_by(&self, examiner: SyncSender<Subject>) {
        self.lock().examiner = Some(examiner);
    }

    /// Has them examined with that from now on, those that were before as well.
    pub fn examine_with(&self, examination: Arc<Examination>) {
        let mut taken = self.lock();
        taken.examination = examination;
        taken.by_place.values_mut().for_each(|holder| holder.examined = None);
    }

    /// What they are examined with.
    pub fn examination(&self) -> Arc<Examination> {
        self.lock().examination.clone()
    }

    /// Has the templates of a database examined again.
    pub fn examine_again(&self, database: &str) {
        let mut taken = self.lock();
        let of_database = taken.by_place.values_mut().filter(|holder| holder.key.0 == database);
        of_database.for_each(|holder| holder.examined = None);
    }

    /// Has them saved there from now on.
    pub fn save_at(&self, saving: Option<Saving>) {
        let mut taken = self.lock();
        taken.saving = saving;
        let tells = taken.tells();
        for (at, holder) in &mut taken.by_place {
            self.want(*at, tells);
            if !tells {
                holder.samples = Vec::new();
            }
        }
    }

    fn want(&self, at: u32, is_wanted: bool) {
        self.wanted.get(at as usize).into_iter().for_each(|wanted| wanted.store(is_wanted, Ordering::Relaxed));
    }

    /// Whether the values of a statement that is to run now are wanted.
    #[inline]
    pub fn wants_sample(&self, place: Place) -> bool {
        self.wanted.get(place.at as usize).is_some_and(|wanted| wanted.load(Ordering::Relaxed))
    }

    /// Keeps the values of one execution, as PostgreSQL logs them: the last few of those that were wanted.
    pub fn sample(&self, place: Place, values: Option<String>) {
        let mut taken = self.lock();
        self.want(place.at, false);
        let tells = taken.tells() && self.holds(place);
        let Some((holder, values)) = taken.by_place.get_mut(&place.at).filter(|_| tells).zip(values) else { return };
        let at = holder.sampled % MAX_SAMPLES;
        match holder.samples.get_mut(at) {
            Some(old) => *old = values.into(),
            None => holder.samples.push(values.into()),
        }
        holder.sampled += 1;
    }

    /// Where they are saved.
    pub fn saving(&self) -> Option<Saving> {
        self.lock().saving.clone()
    }

    /// What has passed since the process began. What has no example counts as left out.
    pub fn workload(&self, saving: &Saving) -> Workload {
        let mut workload = Workload::new();
        let (mut left_out, seen) = self.seen();
        for (database, example, passed) in seen {
            let Some(example) = example else {
                left_out += passed.calls;
                continue;
            };
            let masked = if saving.masked { Cow::Owned(mask(&example)) } else { Cow::Borrowed(&*example) };
            let database = saving.names.get(&database).unwrap_or(&database);
            workload.passed(&Observation { database: Some(database.as_bytes()), ..Observation::of(&masked) }, &passed);
        }
        workload.left_out += left_out;
        workload.statements += left_out;
        workload
    }

    /// How often those ran that have no place any more, and each of the others that did, with its database and example.
    fn seen(&self) -> (u64, Vec<Ran>) {
        let taken = self.lock();
        let one = |(at, holder): (&u32, &Holder)| {
            let passed = self.passed(*at, holder);
            (passed.calls > 0).then(|| (holder.key.0.clone(), holder.example.clone(), passed))
        };
        (self.sum(0).calls + taken.given_up.calls, taken.by_place.iter().filter_map(one).collect())
    }

    /// Notes what was found in a template, unless it has lost its place.
    pub fn note(&self, subject: &Subject, found: Vec<Found>) {
        let mut taken = self.lock();
        if !self.holds(subject.place) {
            return;
        }
        if let Some(holder) = taken.by_place.get_mut(&subject.place.at) {
            holder.found = found.into();
            let passed = &subject.passed;
            holder.examined = Some((passed.calls, (passed.loops > 0, passed.idle_ms as u64 / 1000)));
        }
    }

    /// Templates that were never examined, or have run so much more often since that their numbers may say something else.
    pub fn grown(&self) -> Vec<Subject> {
        let taken = self.lock();
        let subject = |(at, holder): (&u32, &Holder)| {
            let calls = self.numbers(*at, holder).calls;
            let grown = |(before, told): (u64, (bool, u64))| {
                calls >= 10 && calls >= before.saturating_mul(4) || self.told(*at).1.tells() != told
            };
            let example = holder.example.clone().filter(|_| holder.examined.is_none_or(grown))?;
            // Values of now and then, not of the beginning only.
            self.want(*at, taken.tells());
            let (place, database) = (self.current(*at, holder.control), holder.key.0.clone());
            Some(Subject { place, database, example, passed: self.passed(*at, holder) })
        };
        taken.by_place.iter().filter_map(subject).collect()
    }

    /// How often, and how long, templates ran in which a rule found something: by database and rule.
    pub fn tallies(&self) -> BTreeMap<(String, Arc<str>), Tally> {
        let taken = self.lock();
        let mut all = taken.found_before.clone();
        for (at, holder) in &taken.by_place {
            let numbers = self.numbers(*at, holder);
            for found in holder.found.iter() {
                all.entry((holder.key.0.clone(), found.rule.clone())).or_default().add(numbers, 1);
            }
        }
        all
    }

    fn rows_at(&self, at: u32) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter_map(move |rows| rows.get(at as usize))
    }

    /// How often a place's templates took how long, and what sessions make of the last one.
    fn told(&self, at: u32) -> (Latency, Traits) {
        let (mut sum, mut traits) = ([0; Latency::BUCKETS], Traits::default());
        self.rows_at(at).for_each(|row| row.add_to(&mut sum, &mut traits));
        (Latency::of(sum), traits)
    }

    /// What passed of a template.
    fn passed(&self, at: u32, holder: &Holder) -> Passed {
        let Numbers { calls, nanos, rows, errors } = self.numbers(at, holder);
        let (latency, traits) = self.told(at);
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Passed {
            calls,
            errors,
            total_ms: nanos as f64 / 1e6,
            rows,
            latency: latency.since(&holder.latency_before),
            longest_run: short(traits.longest_run),
            loops: short(traits.loops),
            idles: traits.idles,
            idle_ms: traits.longest_idle as f64 / 1e6,
            parameters: holder.samples.iter().map(|values| values.to_string()).collect(),
        }
    }

    fn current(&self, at: u32, control: bool) -> Place {
        Place { at, control, holder: self.holders.get(at as usize).map_or(0, |holder| holder.load(Ordering::Relaxed)) }
    }

    /// Takes the eighth with the fewest calls away from their templates.
    fn evict(&self, taken: &mut Taken) {
        let mut by_calls: Vec<_> =
            taken.by_place.iter().map(|(at, holder)| (self.numbers(*at, holder).calls, *at)).collect();
        by_calls.sort_unstable();
        for (_, at) in by_calls.iter().take((by_calls.len() / 8).max(1)) {
            if let Some(holder) = taken.by_place.remove(at) {
                let numbers = self.numbers(*at, &holder);
                taken.given_up = taken.given_up.plus(numbers);
                for found in holder.found.iter() {
                    let key = (holder.key.0.clone(), found.rule.clone());
                    taken.found_before.entry(key).or_default().add(numbers, 0);
                }
                taken.examples -= holder.example.as_ref().map_or(0, |example| example.len());
                taken.by_key.remove(&holder.key);
                taken.free.push(*at);
            }
            if let Some(holder) = self.holders.get(*at as usize) {
                holder.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether the template still has its place.
    #[inline]
    pub fn holds(&self, place: Place) -> bool {
        self.holders.get(place.at as usize).is_some_and(|holder| holder.load(Ordering::Relaxed) == place.holder)
    }

    /// Counts executions of a template; on worker `home`.
    #[inline]
    pub fn record(&self, home: usize, place: Place, numbers: Numbers) {
        let at = if self.holds(place) { place.at } else { 0 };
        if let Some(row) = self.rows.get(home).and_then(|rows| rows.get(at as usize)) {
            row.add(numbers);
        }
    }

    /// Counts the `run`th execution in a row by one session; on worker `home`.
    pub fn looped(&self, home: usize, place: Place, run: u32) {
        self.held_row(home, place).into_iter().for_each(|row| row.looped(run));
    }

    /// Counts a pause of so many nanoseconds in a transaction behind it; on worker `home`.
    pub fn idled(&self, home: usize, place: Place, nanos: u64) {
        self.held_row(home, place).into_iter().for_each(|row| row.idled(nanos));
    }

    fn held_row(&self, home: usize, place: Place) -> Option<&Row> {
        self.rows.get(home)?.get(place.at as usize).filter(|_| self.holds(place) && place.at > 0)
    }

    fn sum(&self, at: u32) -> Numbers {
        self.rows_at(at).fold(Numbers::default(), |sum, row| sum.plus(row.numbers()))
    }

    fn numbers(&self, at: u32, holder: &Holder) -> Numbers {
        self.sum(at).minus(holder.before)
    }

    /// All that have run, the one that took most time first, the rest last.
    pub fn shown(&self) -> Vec<Shown> {
        let taken = self.lock();
        let shown = |(at, holder): (&u32, &Holder)| Shown {
            database: holder.key.0.clone(),
            fingerprint: Some(holder.key.1),
            text: holder.text.clone(),
            numbers: self.numbers(*at, holder),
            found: holder.found.clone(),
        };
        let mut all: Vec<_> = taken.by_place.iter().map(shown).filter(|shown| shown.numbers.calls > 0).collect();
        all.sort_by_key(|shown| std::cmp::Reverse((shown.numbers.nanos, shown.fingerprint)));
        let rest = self.sum(0).plus(taken.given_up);
        if rest.calls > 0 {
            let text = "(all others)".to_owned();
            all.push(Shown { database: String::new(), fingerprint: None, text, numbers: rest, found: Arc::default() });
        }
        all
    }
}

/// Whether a template is about the transaction or the session.
fn is_control(text: &str) -> bool {
    let word = text.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
    let words =
        ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "set", "reset", "discard"];
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(templates: &Templates, fingerprint: u64, sql: &str) -> Place {
        templates.place("app", Fingerprint(fingerprint), sql.as_bytes(), LexOptions::default())
    }

    const ONE: Numbers = Numbers { calls: 1, nanos: 1000, rows: 2, errors: 0 };

    #[test]
    fn workers_count_on_their_own_and_are_added_up() {
        let templates = Templates::new(10, 2);
        let a = place(&templates, 1, "select 'secret', 42 from t");
        assert_eq!(place(&templates, 1, "select 'other', 43 from t"), a);
        templates.record(0, a, ONE);
        templates.record(1, a, Numbers { errors: 1, ..ONE });
        templates.record(1, Place::default(), ONE);
        let shown = templates.shown();
        assert_eq!(shown[0].text, "SELECT ?, ? FROM t");
        assert_eq!(shown[0].numbers, Numbers { calls: 2, nanos: 2000, rows: 4, errors: 1 });
        assert_eq!((shown[1].fingerprint, shown[1].numbers), (None, ONE));
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_lost() {
        let templates = Templates::new(16, 1);
        let often = place(&templates, 1_000, "select often");
        for _ in 0..5 {
            templates.record(0, often, ONE);
        }
        let mut places = Vec::new();
        for number in 0..100 {
            let place = place(&templates, number, "select 1");
            templates.record(0, place, ONE);
            places.push(place);
        }
        assert!(templates.holds(often));
        assert!(!templates.holds(places[0]));
        // One that has lost its place counts among the rest.
        templates.record(0, places[0], ONE);
        let shown = templates.shown();
        assert!(shown.len() <= 17);
        assert_eq!(shown.iter().map(|shown| shown.numbers.calls).sum::<u64>(), 106);
        assert_eq!(shown[0].numbers.calls, 5);
        let rest = shown.last().unwrap();
        assert_eq!(rest.fingerprint, None);
        assert!(shown[1..shown.len() - 1].iter().all(|shown| shown.numbers.calls == 1));
    }

    #[test]
    fn long_texts_are_cut() {
        let templates = Templates::new(2, 1);
        let place = place(&templates, 1, &format!("select {}", "ä, ".repeat(3000)));
        templates.record(0, place, ONE);
        assert!(templates.shown()[0].text.len() <= MAX_TEXT + 3);
    }
}
