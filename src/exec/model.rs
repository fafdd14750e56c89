//! A model of shards, coordinators and recoverers, to run the machines of `commit_atomic` and `recovery` through every
//! kind of crash at every point: each step of a schedule is one choice among all that may happen next.
//!
//! What must hold when all is well again: each transaction has happened on all of its shards or on none, the client was told
//! nothing else, nothing is prepared, and no decision is kept forever. Mutants of the protocol must break that.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::{Answer, Outcome};
use super::commit_atomic::{Act, AtomicCommit, Gid, Resolved, SILENCE_SECONDS};
use super::recovery::{Ask, Decision, Fenced, Heard, Prepared, Round};

/// A protocol with a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    /// No decision is taken for a no.
    TrustAbsence,
    /// Decisions go when they are old.
    SweepEarly,
    /// What is prepared is read before the decisions, and when they were swept is not noted.
    PreparedFirst,
    /// The decider commits without waiting for the others.
    CommitFirst,
    /// An answer without an error is a success.
    IgnoreTags,
    /// A shard that does not answer has nothing prepared.
    SilenceIsNothing,
    /// A no is swept while the decider may still say yes, which no server ends.
    ForgetDecider,
    /// A decider that does not answer has not committed.
    LostIsAborted,
    /// Plain COMMITs, one after the other.
    Naive,
}

const SECOND: i64 = 1_000_000;
type Txn = usize;

#[derive(Debug, Default)]
struct Backend {
    txn: Txn,
    /// When it was last spoken to.
    touched: i64,
    row: Option<(String, Vec<String>, i64)>,
}

#[derive(Debug, Default)]
struct Server {
    down: bool,
    rows: BTreeMap<String, (bool, Vec<String>, i64)>,
    confirmed: BTreeMap<String, i64>,
    prepared: BTreeMap<String, (Txn, i64)>,
    applied: BTreeSet<Txn>,
    /// By process id: transactions that are open.
    backends: BTreeMap<i32, Backend>,
}

#[derive(Debug)]
enum Stage {
    Waiting(usize, Vec<(usize, Answer)>),
    Resolving,
    Done(Outcome),
    Dead,
}

#[derive(Debug)]
struct Coordinator {
    machine: AtomicCommit,
    gid: Gid,
    stage: Stage,
    parts: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Message {
    txn: Txn,
    shard: usize,
    sql: String,
}

#[derive(Debug)]
struct Recoverer {
    round: Round,
    began: i64,
    looked: Vec<Option<i64>>,
    asks: Vec<Ask>,
    heard: Vec<(Ask, Heard)>,
    /// What was prepared as this round began, and the one before it.
    early: Vec<Vec<Prepared>>,
    before: Vec<Vec<Prepared>>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Deliver(usize),
    Resolve(Txn),
    Recover(usize, usize),
    /// The connection breaks before the message arrives, or before its answer does.
    CutBefore(usize),
    CutAfter(usize),
    /// The server answers with an error, or with the tag of a transaction that had failed.
    Refuse(usize),
    Fail(usize),
    Die(Txn),
    GiveUp(Txn),
    Replace(usize),
    Crash(usize),
    Restart(usize),
    Wait,
}

struct World {
    mutant: Mutant,
    now: i64,
    servers: Vec<Server>,
    coordinators: Vec<Coordinator>,
    recoverers: Vec<Recoverer>,
    messages: Vec<Message>,
    /// Whether something was taken for a transaction of another life.
    strangers: bool,
}

fn name(shard: usize) -> String {
    format!("s{shard}")
}

fn pid(txn: Txn, shard: usize) -> i32 {
    i32::try_from(txn * 10 + shard + 1).unwrap()
}

impl World {
    fn new(mutant: Mutant, shards: usize, transactions: usize, recoverers: usize) -> Self {
        let mut world = Self {
            mutant,
            now: 1_000 * SECOND,
            servers: (0..shards).map(|_| Server::default()).collect(),
            coordinators: Vec::new(),
            recoverers: Vec::new(),
            messages: Vec::new(),
            strangers: false,
        };
        for txn in 0..transactions {
            world.begin(txn, shards);
        }
        for _ in 0..recoverers {
            let fresh = world.recoverer(vec![None; shards]);
            world.recoverers.push(fresh);
        }
        world
    }

    fn begin(&mut self, txn: Txn, shards: usize) {
        let decider = txn % shards;
        let mut parts: Vec<usize> = (0..shards).collect();
        parts.rotate_left(decider);
        for &shard in &parts {
            self.servers[shard].backends.insert(pid(txn, shard), Backend { txn, touched: self.now, row: None });
        }
        let gid = Gid {
            deployment: "d".into(),
            transaction: format!("t{txn}"),
            pid: pid(txn, decider),
            started_us: 1,
            asked_us: self.now,
            decider: name(decider),
        };
        let others = parts[1..].iter().map(|&shard| (shard, name(shard))).collect();
        let machine = AtomicCommit::new(gid.clone(), decider, others);
        let act = machine.start();
        self.coordinators.push(Coordinator { machine, gid, stage: Stage::Resolving, parts });
        if self.mutant == Mutant::Naive {
            let parts = self.coordinators[txn].parts.clone();
            let orders = parts.into_iter().map(|shard| (shard, "COMMIT".to_owned())).collect();
            return self.act(txn, Act::Send(orders));
        }
        self.act(txn, act);
    }

    fn recoverer(&self, looked: Vec<Option<i64>>) -> Recoverer {
        let names = (0..self.servers.len()).map(name).collect();
        let ages = looked.iter().map(|at| at.map(|at: i64| self.now - at)).collect();
        let round = Round::new(names, ages);
        let asks = round.start();
        let early: Vec<_> = self.servers.iter().map(|server| self.listed(server)).collect();
        Recoverer { round, began: self.now, looked, asks, heard: Vec::new(), before: early.clone(), early }
    }

    fn listed(&self, server: &Server) -> Vec<Prepared> {
        let age = |at: i64| f64::from(i32::try_from((self.now - at) / SECOND).unwrap());
        server.prepared.iter().map(|(gid, (_, at))| Prepared { gid: gid.clone(), age: age(*at) }).collect()
    }

    fn act(&mut self, txn: Txn, act: Act) {
        self.coordinators[txn].stage = match act {
            Act::Send(orders) => {
                let count = orders.len();
                self.messages.extend(orders.into_iter().map(|(shard, sql)| Message { txn, shard, sql }));
                Stage::Waiting(count, Vec::new())
            }
            Act::Resolve => Stage::Resolving,
            Act::Done(outcome) => Stage::Done(outcome),
        };
    }

    fn answer(&mut self, message: &Message, answer: Answer) {
        let coordinator = &mut self.coordinators[message.txn];
        let Stage::Waiting(left, answers) = &mut coordinator.stage else { return };
        answers.push((message.shard, answer));
        *left -= 1;
        if *left > 0 {
            return;
        }
        let answers = std::mem::take(answers);
        if self.mutant == Mutant::Naive {
            let lost = answers.iter().any(|(_, answer)| *answer != Answer::Tag(b"COMMIT".to_vec()));
            coordinator.stage = Stage::Done(if lost { Outcome::RolledBack } else { Outcome::Committed });
            return;
        }
        let act = coordinator.machine.heard(answers);
        self.act(message.txn, act);
    }

    /// What a server does with a statement of a coordinator.
    fn execute(&mut self, message: &Message) -> Answer {
        let (now, mutant) = (self.now, self.mutant);
        let server = &mut self.servers[message.shard];
        if server.down {
            return Answer::Lost;
        }
        let tag = |tag: &str| Answer::Tag(tag.as_bytes().to_vec());
        let id = pid(message.txn, message.shard);
        let gid = message.sql.split('\'').nth(1).unwrap_or_default().to_owned();
        if message.sql.contains(" PREPARED ") {
            return match server.prepared.remove(&gid) {
                Some((txn, _)) if message.sql.starts_with("COMMIT") => {
                    server.applied.insert(txn);
                    tag("COMMIT PREPARED")
                }
                Some(_) => tag("ROLLBACK PREPARED"),
                None => Answer::Error(Vec::new()),
            };
        }
        let Some(backend) = server.backends.get_mut(&id) else { return Answer::Lost };
        if now - backend.touched > i64::from(SILENCE_SECONDS) * SECOND && mutant != Mutant::ForgetDecider {
            server.backends.remove(&id);
            return Answer::Lost;
        }
        backend.touched = now;
        if message.sql.starts_with("INSERT") {
            let participants = self.coordinators[message.txn].parts[1..].iter().map(|&shard| name(shard)).collect();
            if server.rows.contains_key(&gid) {
                server.backends.remove(&id);
                return Answer::Error(Vec::new());
            }
            backend.row = Some((gid, participants, now));
            if mutant == Mutant::CommitFirst {
                server.commit(id);
                server.backends.insert(id, Backend { txn: message.txn, touched: now, row: None });
            }
            return tag("INSERT 0 1");
        }
        if message.sql.starts_with("PREPARE") {
            let txn = backend.txn;
            server.backends.remove(&id);
            server.prepared.insert(gid, (txn, now));
            return tag("PREPARE TRANSACTION");
        }
        if message.sql == "COMMIT" {
            server.commit(id);
            return tag("COMMIT");
        }
        server.backends.remove(&id);
        tag("ROLLBACK")
    }

    fn fence(&mut self, decider: usize, gid: &Gid, participants: &[String]) -> Option<Fenced> {
        let (now, mutant) = (self.now, self.mutant);
        let server = &mut self.servers[decider];
        let key = gid.key();
        if server.down {
            return None;
        }
        let in_flight = |backend: &Backend| backend.row.as_ref().is_some_and(|(row, ..)| *row == key);
        if let Some((yes, _, _)) = server.rows.get(&key) {
            return Some(if *yes { Fenced::Yes } else { Fenced::No });
        }
        if mutant == Mutant::TrustAbsence {
            return Some(Fenced::No);
        }
        if let Some(id) = server.backends.iter().find(|(_, backend)| in_flight(backend)).map(|(id, _)| *id) {
            server.backends.remove(&id);
            return Some(Fenced::InFlight);
        }
        let until = participants.iter().filter_map(|name| server.confirmed.get(name)).max();
        if until.is_some_and(|until| *until > gid.asked_us) && mutant != Mutant::PreparedFirst {
            return Some(Fenced::Swept);
        }
        server.rows.insert(key, (false, Vec::new(), now));
        Some(Fenced::No)
    }

    fn hear(&mut self, who: usize, ask: &Ask) -> Heard {
        let shard = ask.shard();
        if self.servers[shard].down {
            return match ask {
                Ask::Prepared(_) if self.mutant == Mutant::SilenceIsNothing => Heard::Prepared(Vec::new()),
                Ask::Persist(_) if self.mutant == Mutant::SilenceIsNothing => Heard::Done,
                _ => Heard::Lost,
            };
        }
        let now = self.now;
        match ask {
            Ask::Decisions(_) => {
                let rows = &mut self.servers[shard].rows;
                let is_old = |made: i64| now - made > 60 * SECOND;
                let old = rows.iter().filter(|(_, (_, _, made))| is_old(*made));
                let decision = |(key, (committed, participants, _)): (&String, &(bool, Vec<String>, i64))| Decision {
                    key: key.clone(),
                    committed: *committed,
                    participants: participants.clone(),
                };
                let decisions = old.map(decision).collect();
                if self.mutant == Mutant::SweepEarly {
                    rows.retain(|_, (_, _, made)| !is_old(*made));
                }
                // The far future: everything is long over.
                let now_us = if self.mutant == Mutant::PreparedFirst { now + 100_000 * SECOND } else { now };
                Heard::Decisions { deployment: "d".into(), now_us, decisions }
            }
            Ask::Prepared(_) if self.mutant == Mutant::PreparedFirst => {
                Heard::Prepared(self.recoverers[who].before[shard].clone())
            }
            Ask::Prepared(_) => Heard::Prepared(self.listed(&self.servers[shard])),
            Ask::Fence { gid, participant, .. } => {
                self.fence(shard, gid, &[name(*participant)]).map_or(Heard::Lost, Heard::Fenced)
            }
            Ask::End { gid, committed, .. } => {
                let server = &mut self.servers[shard];
                if let Some((txn, _)) = server.prepared.remove(gid)
                    && *committed
                {
                    server.applied.insert(txn);
                }
                Heard::Done
            }
            Ask::Lives(_, gid) => {
                let lives = self.servers[shard].backends.contains_key(&gid.pid);
                Heard::Lives(lives && self.mutant != Mutant::ForgetDecider)
            }
            Ask::Persist(_) => Heard::Done,
            Ask::Sweep { keys, confirmed, .. } => {
                let server = &mut self.servers[shard];
                server.rows.retain(|key, _| !keys.contains(key));
                for (name, until) in confirmed {
                    let known = server.confirmed.entry(name.clone()).or_insert(*until);
                    *known = (*known).max(*until);
                }
                Heard::Done
            }
        }
    }

    fn recover(&mut self, who: usize, which: usize) {
        let ask = self.recoverers[who].asks.remove(which);
        let heard = self.hear(who, &ask);
        let recoverer = &mut self.recoverers[who];
        recoverer.heard.push((ask, heard));
        if !recoverer.asks.is_empty() {
            return;
        }
        let heard = std::mem::take(&mut recoverer.heard);
        recoverer.asks = recoverer.round.heard(heard);
        if !recoverer.asks.is_empty() {
            return;
        }
        self.strangers |= !recoverer.round.strangers().is_empty();
        let mut looked = recoverer.looked.clone();
        for (shard, slot) in looked.iter_mut().enumerate() {
            if recoverer.round.has_looked(shard) {
                *slot = Some(recoverer.began);
            }
        }
        let before = std::mem::take(&mut self.recoverers[who].early);
        self.recoverers[who] = Recoverer { before, ..self.recoverer(looked) };
    }

    fn resolve(&mut self, txn: Txn) {
        let coordinator = &self.coordinators[txn];
        let (decider, gid) = (coordinator.parts[0], coordinator.gid.clone());
        let participants: Vec<String> = coordinator.parts[1..].iter().map(|&shard| name(shard)).collect();
        let resolved = if self.mutant == Mutant::LostIsAborted {
            Resolved::Aborted
        } else {
            match self.fence(decider, &gid, &participants) {
                Some(Fenced::Yes) => Resolved::Committed,
                Some(Fenced::No) => Resolved::Aborted,
                Some(Fenced::Swept) => Resolved::Unknown,
                Some(Fenced::InFlight) | None => return,
            }
        };
        let act = self.coordinators[txn].machine.resolved(resolved);
        self.act(txn, act);
    }

    /// All that may happen next: the straight course first.
    fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = (0..self.messages.len()).map(Event::Deliver).collect();
        let resolving = |txn: &Txn| matches!(self.coordinators[*txn].stage, Stage::Resolving);
        events.extend((0..self.coordinators.len()).filter(resolving).map(Event::Resolve));
        for (who, recoverer) in self.recoverers.iter().enumerate() {
            events.extend((0..recoverer.asks.len()).map(|which| Event::Recover(who, which)));
        }
        events.push(Event::Wait);
        for (at, message) in self.messages.iter().enumerate() {
            events.extend([Event::CutBefore(at), Event::CutAfter(at)]);
            if !message.sql.contains(" PREPARED ") && message.sql != "ROLLBACK" {
                events.extend([Event::Refuse(at), Event::Fail(at)]);
            }
        }
        for (txn, coordinator) in self.coordinators.iter().enumerate() {
            if !matches!(coordinator.stage, Stage::Done(_) | Stage::Dead) {
                events.push(Event::Die(txn));
            }
            if matches!(coordinator.stage, Stage::Resolving) {
                events.push(Event::GiveUp(txn));
            }
        }
        events.extend((0..self.recoverers.len()).map(Event::Replace));
        let crash =
            |(shard, server): (usize, &Server)| if server.down { Event::Restart(shard) } else { Event::Crash(shard) };
        events.extend(self.servers.iter().enumerate().map(crash));
        events
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver(at) | Event::CutAfter(at) => {
                let message = self.messages.remove(at);
                let mut answer = self.execute(&message);
                if matches!(event, Event::CutAfter(_)) || answer == Answer::Lost {
                    self.cut(&message);
                    answer = Answer::Lost;
                }
                self.answer(&message, answer);
            }
            Event::CutBefore(at) => {
                let message = self.messages.remove(at);
                self.cut(&message);
                self.answer(&message, Answer::Lost);
            }
            Event::Refuse(at) | Event::Fail(at) => {
                let message = self.messages.remove(at);
                self.cut(&message);
                let answer = match event {
                    Event::Refuse(_) => Answer::Error(Vec::new()),
                    _ if self.mutant == Mutant::IgnoreTags && message.sql.starts_with("PREPARE") => {
                        Answer::Tag(b"PREPARE TRANSACTION".to_vec())
                    }
                    _ => Answer::Tag(b"ROLLBACK".to_vec()),
                };
                self.answer(&message, answer);
            }
            Event::Resolve(txn) => self.resolve(txn),
            Event::Recover(who, which) => self.recover(who, which),
            Event::Die(txn) => self.coordinators[txn].stage = Stage::Dead,
            Event::GiveUp(txn) => {
                let act = self.coordinators[txn].machine.resolved(Resolved::Unknown);
                self.act(txn, act);
            }
            Event::Replace(who) => self.recoverers[who] = self.recoverer(vec![None; self.servers.len()]),
            Event::Crash(shard) => {
                self.servers[shard].down = true;
                self.servers[shard].backends.clear();
            }
            Event::Restart(shard) => self.servers[shard].down = false,
            Event::Wait => self.now += 25 * SECOND,
        }
        self.now += SECOND / 10;
    }

    /// The connection is gone, and with it what is open on it.
    fn cut(&mut self, message: &Message) {
        self.servers[message.shard].backends.remove(&pid(message.txn, message.shard));
    }

    /// All is well again: whatever was on its way arrives, and recovery runs.
    fn heal(&mut self) {
        self.servers.iter_mut().for_each(|server| server.down = false);
        for _ in 0..100 {
            while !self.messages.is_empty() {
                self.step(Event::Deliver(0));
            }
            let resolving = |coordinator: &Coordinator| matches!(coordinator.stage, Stage::Resolving);
            match self.coordinators.iter().position(resolving) {
                Some(txn) => self.resolve(txn),
                None => break,
            }
        }
        self.servers.iter_mut().for_each(|server| server.backends.clear());
        for _ in 0..400 {
            let asks = self.recoverers[0].asks.len();
            if asks == self.servers.len() {
                self.now += 20 * SECOND;
            }
            self.recover(0, 0);
        }
    }

    /// What is wrong with the world, if anything.
    fn judge(&self) -> Result<(), String> {
        for (txn, coordinator) in self.coordinators.iter().enumerate() {
            let count = coordinator.parts.iter().filter(|&&shard| self.servers[shard].applied.contains(&txn)).count();
            if count != 0 && count != coordinator.parts.len() {
                return Err(format!("transaction {txn} happened on {count} of {} shards", coordinator.parts.len()));
            }
            let told = match &coordinator.stage {
                Stage::Done(Outcome::Committed) => Some(true),
                Stage::Done(Outcome::Failure(failure)) if failure.code == super::commit_atomic::UNKNOWN => None,
                Stage::Done(_) => Some(false),
                Stage::Dead => None,
                stage => return Err(format!("transaction {txn} does not end: {stage:?}")),
            };
            if told.is_some_and(|committed| committed != (count > 0)) {
                return Err(format!("the client of {txn} was told {told:?}, and it happened on {count} shards"));
            }
        }
        for (shard, server) in self.servers.iter().enumerate() {
            if !server.prepared.is_empty() || !server.rows.is_empty() {
                return Err(format!("shard {shard} keeps {:?} and {:?}", server.prepared, server.rows));
            }
        }
        if self.strangers {
            return Err("nothing here comes from another life".to_owned());
        }
        Ok(())
    }
}

impl Server {
    fn commit(&mut self, id: i32) {
        let Some(backend) = self.backends.remove(&id) else { return };
        self.applied.insert(backend.txn);
        if let Some((key, participants, made)) = backend.row {
            self.rows.insert(key, (true, participants, made));
        }
    }
}

/// The seed and the faults' share of the choices make a schedule.
fn random_schedule(mutant: Mutant, seed: u64) -> Result<(), String> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % limit
    };
    let mut world = World::new(mutant, 2 + below(2), 1 + below(2), 1 + below(2));
    let mut trace = Vec::new();
    // To one shard, if there is such a one, things take long.
    let slow = below(4);
    for _ in 0..20 + below(60) {
        let events = world.events();
        let event = events[below(events.len())];
        let event = if below(3) == 0 { event } else { events[below(1 + events.len() / 3)] };
        let event = match event {
            Event::Deliver(at) | Event::CutBefore(at) | Event::CutAfter(at)
                if world.messages[at].shard == slow && below(10) > 0 =>
            {
                if below(8) == 0 {
                    Event::Wait
                } else {
                    Event::Recover(0, 0)
                }
            }
            event => event,
        };
        trace.push(event);
        world.step(event);
    }
    world.heal();
    world.judge().map_err(|wrong| format!("seed {seed}: {wrong}\n{trace:?}"))
}

/// Runs the straight course but for the choices given as (step, event), and says how many events there were at each step.
fn course(mutant: Mutant, deviations: &[(usize, usize)]) -> (Vec<usize>, Result<(), String>) {
    const STEPS: usize = 26;
    let mut world = World::new(mutant, 2, 1, 1);
    let mut widths = Vec::new();
    for step in 0..STEPS {
        let events = world.events();
        widths.push(events.len());
        let choice = deviations.iter().find(|(at, _)| *at == step).map_or(0, |(_, choice)| *choice);
        let Some(event) = events.get(choice) else { break };
        world.step(*event);
    }
    world.heal();
    let judged = world.judge().map_err(|wrong| format!("{deviations:?}: {wrong}"));
    (widths, judged)
}

/// Every course with at most that many deviations from the straight one; the number of courses.
fn all_courses(mutant: Mutant, deviations: usize) -> Result<usize, String> {
    let mut count = 0;
    let mut todo: Vec<Vec<(usize, usize)>> = vec![Vec::new()];
    while let Some(course_so_far) = todo.pop() {
        let (widths, judged) = course(mutant, &course_so_far);
        judged?;
        count += 1;
        if course_so_far.len() == deviations {
            continue;
        }
        let from = course_so_far.last().map_or(0, |(step, _)| step + 1);
        for (step, width) in widths.iter().enumerate().skip(from) {
            todo.extend((1..*width).map(|choice| [course_so_far.as_slice(), &[(step, choice)]].concat()));
        }
    }
    Ok(count)
}

#[test]
fn every_course_with_two_mishaps_ends_well() {
    let count = all_courses(Mutant::None, 2).unwrap();
    assert!(count > 10_000, "{count} courses only");
}

#[test]
fn random_schedules_end_well() {
    let schedules = std::env::var("PGWEIR_SCHEDULES").map_or(20_000, |count| count.parse().unwrap());
    for seed in 0..schedules {
        random_schedule(Mutant::None, seed).unwrap();
    }
}

#[test]
fn mistakes_in_the_protocol_are_found() {
    for mutant in [
        Mutant::TrustAbsence,
        Mutant::SweepEarly,
        Mutant::PreparedFirst,
        Mutant::CommitFirst,
        Mutant::IgnoreTags,
        Mutant::SilenceIsNothing,
        Mutant::ForgetDecider,
        Mutant::LostIsAborted,
        Mutant::Naive,
    ] {
        let caught = (0..200_000)
            .find(|&seed| random_schedule(mutant, seed).is_err_and(|wrong| !wrong.contains("another life")));
        println!("{mutant:?}: {caught:?}");
        assert!(caught.is_some(), "{mutant:?} was not noticed");
    }
}
