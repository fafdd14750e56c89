//! COMMIT over several shards, on all of them or on none: PREPARE TRANSACTION, with the decision kept in PostgreSQL.
//!
//! Of the shards that wrote one is the *decider*. It inserts a row with the transaction's key into `pgweir.commits`, inside
//! the client's own transaction; meanwhile the others prepare. Then the decider commits plainly: with that, and only
//! with that, the transaction is committed. The others follow. Whoever finds a prepared transaction later
//! looks for the row, and where there is none inserts one that says no, which the unique key lets happen only once.
//!
//! ```text
//! Prepare   decider: INSERT row      others: PREPARE TRANSACTION     any failure -> Undo
//! Decide    decider: COMMIT                                          failure -> Undo; no answer -> Resolve
//! Finish                             others: COMMIT PREPARED         whatever happens: committed
//! Undo      decider: ROLLBACK        others: ROLLBACK PREPARED
//! ```

use super::Shard;
use super::commit::{Answer, Outcome};
use crate::wire::body::error_fields;
use crate::wire::frame::HEADER_LEN;
use crate::wire::message::Failure;

/// What every name of a prepared transaction of ours begins with.
pub const PREFIX: &str = "pgweir:";
/// SQLSTATE of an outcome that is not known.
pub const UNKNOWN: &str = "08007";
/// How long, in seconds, a part waits for the next word of its coordinator before it is prepared: its server then rolls it back.
pub const SILENCE_SECONDS: u32 = 30;
/// The longest shard name that leaves a prepared transaction's name within PostgreSQL's 200 bytes.
pub const MAX_SHARD_NAME: usize = 40;

/// The name under which a transaction is prepared on a shard. All that a stranger needs to finish it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gid {
    /// Which pgweir it belongs to: the same on all shards.
    pub deployment: String,
    /// Random.
    pub transaction: String,
    /// The decider's backend.
    pub pid: i32,
    /// When that backend began, in microseconds since 1970.
    pub started_us: i64,
    /// When the commit began, in microseconds since 1970 by the decider's clock.
    pub asked_us: i64,
    /// The decider's name.
    pub decider: String,
}

impl Gid {
    /// The key of the decision.
    pub fn key(&self) -> String {
        let Self { deployment, transaction, pid, started_us, asked_us, decider } = self;
        format!("{PREFIX}{deployment}:{transaction}:{pid}:{started_us}:{asked_us}:{decider}")
    }

    /// The name of the part on this shard: shards may be databases of one server, whose names are common to all.
    pub fn on(&self, shard: &str) -> String {
        format!("{}/{shard}", self.key())
    }

    /// Reads what [`Gid::on`] has written; the shard's name comes with it.
    pub fn parse(text: &str) -> Option<(Self, &str)> {
        let (key, shard) = text.strip_prefix(PREFIX)?.split_once('/')?;
        Some((Self::of_fields(key)?, shard))
    }

    /// Reads what [`Gid::key`] has written.
    pub fn parse_key(key: &str) -> Option<Self> {
        Self::of_fields(key.strip_prefix(PREFIX)?)
    }

    fn of_fields(fields: &str) -> Option<Self> {
        let mut fields = fields.splitn(6, ':');
        let mut next = || fields.next().filter(|field| !field.is_empty());
        Some(Self {
            deployment: next()?.to_owned(),
            transaction: next()?.to_owned(),
            pid: next()?.parse().ok()?,
            started_us: next()?.parse().ok()?,
            asked_us: next()?.parse().ok()?,
            decider: next()?.to_owned(),
        })
    }
}

/// Whether a shard's name may be part of a prepared transaction's.
pub fn is_usable_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_SHARD_NAME && name.bytes().all(plain)
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Send these at the same time, and come back with every answer.
    Send(Vec<(Shard, String)>),
    /// The decider did not answer: find out what it has decided.
    Resolve,
    /// It is over.
    Done(Outcome),
}

/// What was found out of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// The row is there.
    Committed,
    /// A row that says no is there: the decider has not committed and cannot any more.
    Aborted,
    /// It could not be found out.
    Unknown,
}

#[derive(Debug)]
enum Phase {
    Prepare,
    Decide,
    Finish,
    /// With what the client is told.
    Undo(Outcome),
}

/// One commit under way.
#[derive(Debug)]
pub struct AtomicCommit {
    gid: Gid,
    decider: Shard,
    /// The other shards, with their names.
    others: Vec<(Shard, String)>,
    phase: Phase,
    left: bool,
}

impl AtomicCommit {
    /// A commit of `decider` and the others, which have all written.
    pub fn new(gid: Gid, decider: Shard, others: Vec<(Shard, String)>) -> Self {
        Self { gid, decider, others, phase: Phase::Prepare, left: false }
    }

    /// Whether it is committed, so that what is sent from now on only finishes it.
    pub fn is_decided(&self) -> bool {
        matches!(self.phase, Phase::Finish)
    }

    /// Whether a part of what is committed is still prepared, for recovery to finish.
    pub fn has_left_some(&self) -> bool {
        self.left
    }

    /// What to begin with.
    pub fn start(&self) -> Act {
        let names: Vec<&str> = self.others.iter().map(|(_, name)| name.as_str()).collect();
        let row = format!(
            "INSERT INTO pgweir.commits (gid, committed, participants) VALUES ('{}', true, '{{{}}}')",
            self.gid.key(),
            names.join(",")
        );
        let mut orders = vec![(self.decider, row)];
        orders.extend(self.to_others("PREPARE TRANSACTION"));
        Act::Send(orders)
    }

    /// The next thing to do, after the answers to the last.
    pub fn heard(&mut self, answers: Vec<(Shard, Answer)>) -> Act {
        match std::mem::replace(&mut self.phase, Phase::Finish) {
            Phase::Prepare => self.prepared(answers),
            Phase::Decide => match answers.into_iter().next() {
                Some((_, Answer::Tag(tag))) if tag == b"COMMIT" => self.finish(),
                Some((_, Answer::Tag(_))) => self.undo(Outcome::RolledBack),
                Some((_, Answer::Error(error))) => self.undo(Outcome::ServerError(error)),
                Some((_, Answer::Lost)) | None => {
                    self.phase = Phase::Decide;
                    Act::Resolve
                }
            },
            Phase::Finish => {
                self.left = answers.iter().any(|(_, answer)| !is_tag(answer, b"COMMIT PREPARED"));
                Act::Done(Outcome::Committed)
            }
            // What is still prepared is rolled back by recovery.
            Phase::Undo(outcome) => Act::Done(outcome),
        }
    }

    /// The next thing to do after [`Act::Resolve`].
    pub fn resolved(&mut self, resolved: Resolved) -> Act {
        match resolved {
            Resolved::Committed => self.finish(),
            Resolved::Aborted => self.undo(Outcome::Failure(lost_before())),
            Resolved::Unknown => Act::Done(Outcome::Failure(unknown(&self.gid))),
        }
    }

    fn prepared(&mut self, answers: Vec<(Shard, Answer)>) -> Act {
        let is_done = |shard: Shard, answer: &Answer| {
            let tag: &[u8] = if shard == self.decider { b"INSERT 0 1" } else { b"PREPARE TRANSACTION" };
            is_tag(answer, tag)
        };
        let all = answers.len() == self.others.len() + 1;
        if all && answers.iter().all(|(shard, answer)| is_done(*shard, answer)) {
            self.phase = Phase::Decide;
            return Act::Send(vec![(self.decider, "COMMIT".to_owned())]);
        }
        let mut orders = Vec::new();
        for (shard, answer) in &answers {
            if *shard == self.decider && *answer != Answer::Lost {
                orders.push((*shard, "ROLLBACK".to_owned()));
            }
        }
        let done: Vec<Shard> =
            answers.iter().filter(|(shard, answer)| is_done(*shard, answer)).map(|(shard, _)| *shard).collect();
        orders.extend(self.to_others("ROLLBACK PREPARED").into_iter().filter(|(shard, _)| done.contains(shard)));
        let mut outcome = Outcome::Failure(lost_before());
        for (shard, answer) in answers {
            match answer {
                Answer::Error(error) => {
                    let name = self.others.iter().find(|(other, _)| *other == shard).map(|(_, name)| name);
                    let refused = name.and_then(|name| cannot_prepare(name, &error));
                    outcome = refused.map_or(Outcome::ServerError(error), Outcome::Failure);
                    break;
                }
                Answer::Tag(tag) if tag == b"ROLLBACK" && shard != self.decider => outcome = Outcome::RolledBack,
                Answer::Tag(_) | Answer::Lost => {}
            }
        }
        self.send_undo(orders, outcome)
    }

    fn finish(&mut self) -> Act {
        self.phase = Phase::Finish;
        Act::Send(self.to_others("COMMIT PREPARED"))
    }

    fn undo(&mut self, outcome: Outcome) -> Act {
        self.send_undo(self.to_others("ROLLBACK PREPARED"), outcome)
    }

    fn send_undo(&mut self, orders: Vec<(Shard, String)>, outcome: Outcome) -> Act {
        if orders.is_empty() {
            return Act::Done(outcome);
        }
        self.phase = Phase::Undo(outcome);
        Act::Send(orders)
    }

    fn to_others(&self, command: &str) -> Vec<(Shard, String)> {
        let order = |(shard, name): &(Shard, String)| (*shard, format!("{command} '{}'", self.gid.on(name)));
        self.others.iter().map(order).collect()
    }
}

fn is_tag(answer: &Answer, expected: &[u8]) -> bool {
    matches!(answer, Answer::Tag(tag) if tag == expected)
}

/// What a server's refusal of PREPARE TRANSACTION means, if it is one of those that come again and again.
fn cannot_prepare(shard: &str, error: &[u8]) -> Option<Failure> {
    let fields = error_fields(error.get(HEADER_LEN..)?);
    (fields.code == b"0A000").then(|| {
        let message = String::from_utf8_lossy(fields.message);
        Failure::error("0A000", format!("the transaction cannot commit on several shards: {message}"))
            .detail(format!("Of the shards that it wrote on all but one must prepare it, and {shard} cannot. It is rolled back on every shard."))
            .hint("Let at most one of the shards do this in a transaction that writes on several.")
    })
}

fn lost_before() -> Failure {
    Failure::error("08006", "the connection to a shard was lost during COMMIT")
        .detail("The transaction is rolled back on every shard.")
}

fn unknown(gid: &Gid) -> Failure {
    Failure::error(UNKNOWN, format!("the connection to shard {} was lost during COMMIT", gid.decider))
        .detail(format!(
            "The transaction is committed on all shards or on none, but which of them is not known now. Its key is {}.",
            gid.key()
        ))
        .hint("Look whether it was committed before you run it again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid() -> Gid {
        Gid {
            deployment: "0123456789abcdef".into(),
            transaction: "f".repeat(32),
            pid: i32::MAX,
            started_us: 1_795_000_000_000_000,
            asked_us: 1_795_000_000_000_001,
            decider: "d".repeat(MAX_SHARD_NAME),
        }
    }

    fn commit() -> AtomicCommit {
        AtomicCommit::new(gid(), 2, vec![(0, "a".into()), (1, "b".into())])
    }

    fn tag(tag: &str) -> Answer {
        Answer::Tag(tag.as_bytes().to_vec())
    }

    fn shards(act: &Act) -> Vec<(Shard, String)> {
        let Act::Send(orders) = act else { panic!("{act:?}") };
        orders.iter().map(|(shard, sql)| (*shard, sql.split(" 'pgweir").next().unwrap().to_owned())).collect()
    }

    fn all_prepared() -> Vec<(Shard, Answer)> {
        vec![(2, tag("INSERT 0 1")), (0, tag("PREPARE TRANSACTION")), (1, tag("PREPARE TRANSACTION"))]
    }

    #[test]
    fn a_gid_is_read_again_and_fits() {
        let gid = gid();
        let text = gid.on(&"s".repeat(MAX_SHARD_NAME));
        assert!(text.len() < 200, "{}", text.len());
        assert_eq!(Gid::parse(&text), Some((gid.clone(), "s".repeat(MAX_SHARD_NAME).as_str())));
        assert_eq!(Gid::parse_key(&gid.key()), Some(gid));
        for wrong in ["", "other:1", "pgweir:", "pgweir:a:b:c:1:1:d/e", "pgweir:a:b:1:1:1/e", "pgweir:a:b:1:1:1:/e"] {
            assert_eq!(Gid::parse(wrong), None, "{wrong}");
        }
        assert!(is_usable_name("eu-west.1") && !is_usable_name("a'b") && !is_usable_name("a/b") && !is_usable_name(""));
    }

    #[test]
    fn the_decider_commits_when_all_others_have_prepared() {
        let mut commit = commit();
        let first = commit.start();
        let Act::Send(orders) = &first else { panic!() };
        assert_eq!(orders[0].0, 2);
        assert!(orders[0].1.ends_with("true, '{a,b}')"), "{}", orders[0].1);
        assert_eq!(shards(&first)[1..], [(0, "PREPARE TRANSACTION".into()), (1, "PREPARE TRANSACTION".into())]);
        assert_eq!(commit.heard(all_prepared()), Act::Send(vec![(2, "COMMIT".into())]));
        let last = commit.heard(vec![(2, tag("COMMIT"))]);
        assert_eq!(shards(&last), [(0, "COMMIT PREPARED".into()), (1, "COMMIT PREPARED".into())]);
        // From the commit point on it is committed, whatever the others answer.
        assert_eq!(
            commit.heard(vec![(0, Answer::Lost), (1, Answer::Error(b"E".to_vec()))]),
            Act::Done(Outcome::Committed)
        );
    }

    /// Every answer but the right ones, of every participant, undoes it; and the decider is never asked to commit.
    #[test]
    fn nothing_but_the_right_tags_lets_it_commit() {
        for at in 0..3 {
            for wrong in [tag("ROLLBACK"), tag("INSERT 0 0"), tag(""), Answer::Error(b"E".to_vec()), Answer::Lost] {
                let mut commit = commit();
                commit.start();
                let mut answers = all_prepared();
                answers[at].1 = wrong.clone();
                let undo = commit.heard(answers);
                let sent = shards(&undo);
                assert!(sent.iter().all(|(_, sql)| sql.starts_with("ROLLBACK")), "{at} {wrong:?} {sent:?}");
                let prepared = if at == 0 { 2 } else { 1 };
                assert_eq!(sent.iter().filter(|(_, sql)| sql == "ROLLBACK PREPARED").count(), prepared);
                assert_eq!(sent.iter().any(|(shard, _)| *shard == 2), !(at == 0 && wrong == Answer::Lost));
                let Act::Done(outcome) = commit.heard(sent.iter().map(|(shard, sql)| (*shard, tag(sql))).collect())
                else {
                    panic!()
                };
                assert_ne!(outcome, Outcome::Committed, "{at} {wrong:?}");
            }
        }
    }

    #[test]
    fn a_refused_commit_of_the_decider_undoes_it() {
        for (answer, expected) in [
            (tag("ROLLBACK"), Outcome::RolledBack),
            (Answer::Error(b"40001".to_vec()), Outcome::ServerError(b"40001".to_vec())),
        ] {
            let mut commit = commit();
            commit.start();
            commit.heard(all_prepared());
            let undo = commit.heard(vec![(2, answer)]);
            assert_eq!(shards(&undo), [(0, "ROLLBACK PREPARED".into()), (1, "ROLLBACK PREPARED".into())]);
            assert_eq!(commit.heard(vec![(0, Answer::Lost), (1, Answer::Lost)]), Act::Done(expected));
        }
    }

    #[test]
    fn a_decider_that_does_not_answer_is_found_out() {
        let lost = || {
            let mut commit = commit();
            commit.start();
            commit.heard(all_prepared());
            assert_eq!(commit.heard(vec![(2, Answer::Lost)]), Act::Resolve);
            commit
        };
        assert_eq!(shards(&lost().resolved(Resolved::Committed))[0].1, "COMMIT PREPARED");
        let code = |act: Act| match act {
            Act::Done(Outcome::Failure(failure)) => failure.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(lost().resolved(Resolved::Unknown)), "08007");
        let mut commit = lost();
        assert_eq!(shards(&commit.resolved(Resolved::Aborted))[0].1, "ROLLBACK PREPARED");
        assert_eq!(code(commit.heard(vec![(0, tag("ROLLBACK PREPARED")), (1, Answer::Lost)])), "08006");
        // Recovery was faster: it is rolled back all the same.
        let mut commit = lost();
        commit.resolved(Resolved::Aborted);
        assert_eq!(code(commit.heard(vec![(0, Answer::Error(vec![])), (1, Answer::Error(vec![]))])), "08006");
    }
}
