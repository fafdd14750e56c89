//! COMMIT over several shards, without an atomic protocol: in waves, and honest about what happened.
//!
//! First one shard that wrote commits alone: as long as it has not, everything can still be rolled
//! back, and most failures (deferred constraints, serialization, a lost connection) show there or have shown before. Then
//! the other writers, one after the other, then the readers. What cannot be undone is told, never hidden.

use super::Shard;
use crate::wire::message::Failure;

/// What a shard answered to COMMIT or ROLLBACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// CommandComplete with this tag. `ROLLBACK` to a COMMIT means that the transaction had failed.
    Tag(Vec<u8>),
    /// ErrorResponse, byte for byte.
    Error(Vec<u8>),
    /// The connection was lost: what became of it is not known.
    Lost,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send this to the shard and come back with its answer.
    Send(Shard, &'static str),
    /// It is over.
    Done(Outcome),
}

/// What the client may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Committed on every shard.
    Committed,
    /// Rolled back on every shard: PostgreSQL answers `ROLLBACK` to the COMMIT of a failed transaction.
    RolledBack,
    /// Rolled back on every shard, because of this error of a server.
    ServerError(Vec<u8>),
    /// Not decided everywhere alike, or not known.
    Failure(Failure),
}

/// One commit under way.
#[derive(Debug)]
pub struct Commit {
    /// Shards still to be asked, the next one last; `true` for those that wrote.
    rest: Vec<(Shard, bool)>,
    asked: Option<(Shard, bool)>,
    committed: Vec<Shard>,
    failed: Vec<Shard>,
    undo: Option<Outcome>,
}

impl Commit {
    /// A commit of shards that wrote and shards that only read.
    pub fn new(wrote: &[Shard], read: &[Shard]) -> Self {
        let order = wrote.iter().map(|&shard| (shard, true)).chain(read.iter().map(|&shard| (shard, false)));
        let mut rest: Vec<_> = order.collect();
        rest.reverse();
        Self { rest, asked: None, committed: Vec::new(), failed: Vec::new(), undo: None }
    }

    /// The next thing to do, given the answer to the last one (`None` at the start).
    pub fn next(&mut self, answer: Option<Answer>) -> Next {
        if let (Some((shard, wrote)), Some(answer)) = (self.asked.take(), answer) {
            self.take(shard, wrote, answer);
        }
        match self.rest.pop() {
            Some((shard, wrote)) => {
                self.asked = Some((shard, wrote));
                Next::Send(shard, if self.undo.is_some() { "ROLLBACK" } else { "COMMIT" })
            }
            None => Next::Done(self.outcome()),
        }
    }

    fn take(&mut self, shard: Shard, wrote: bool, answer: Answer) {
        if self.undo.is_some() {
            // A server that cannot roll back has lost the connection, which rolls back too.
            return;
        }
        match answer {
            Answer::Tag(tag) if tag == b"COMMIT" => {
                if wrote {
                    self.committed.push(shard);
                }
            }
            // A reader that cannot commit takes nothing from what the writers did.
            _ if !wrote && !self.committed.is_empty() => {}
            answer if self.committed.is_empty() => self.undo = Some(undo(shard, answer)),
            _ => self.failed.push(shard),
        }
    }

    fn outcome(&mut self) -> Outcome {
        if let Some(outcome) = self.undo.take() {
            return outcome;
        }
        if self.failed.is_empty() {
            return Outcome::Committed;
        }
        Outcome::Failure(
            Failure::error("08007", "the transaction was committed on some shards only")
                .detail(format!(
                    "Committed on shards {:?}; not, or not known to be, on shards {:?}.",
                    self.committed, self.failed
                ))
                .hint("`commit: best-effort` allows this. Compare the shards before you run the transaction again."),
        )
    }
}

fn undo(shard: Shard, answer: Answer) -> Outcome {
    match answer {
        Answer::Error(error) => Outcome::ServerError(error),
        Answer::Tag(_) => Outcome::RolledBack,
        Answer::Lost => Outcome::Failure(
            Failure::error("08007", format!("the connection to shard {shard} was lost during COMMIT"))
                .detail("The transaction may have been committed on that shard; the others were rolled back.")
                .hint("Look whether it was before you run the transaction again."),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(wrote: &[Shard], read: &[Shard], answers: &[(Shard, Answer)]) -> (Vec<(Shard, &'static str)>, Outcome) {
        let mut commit = Commit::new(wrote, read);
        let (mut sent, mut answer) = (Vec::new(), None);
        loop {
            match commit.next(answer.take()) {
                Next::Done(outcome) => return (sent, outcome),
                Next::Send(shard, sql) => {
                    sent.push((shard, sql));
                    let planned = answers.iter().find(|(s, _)| *s == shard).map(|(_, answer)| answer.clone());
                    answer = Some(planned.unwrap_or_else(|| Answer::Tag(sql.as_bytes().to_vec())));
                }
            }
        }
    }

    #[test]
    fn writers_go_first() {
        let (sent, outcome) = run(&[2, 0], &[1], &[]);
        assert_eq!(sent, [(2, "COMMIT"), (0, "COMMIT"), (1, "COMMIT")]);
        assert_eq!(outcome, Outcome::Committed);
    }

    #[test]
    fn a_failure_of_the_first_rolls_all_back() {
        let (sent, outcome) = run(&[2, 0], &[1], &[(2, Answer::Error(b"E..".to_vec()))]);
        assert_eq!(sent, [(2, "COMMIT"), (0, "ROLLBACK"), (1, "ROLLBACK")]);
        assert_eq!(outcome, Outcome::ServerError(b"E..".to_vec()));
        assert_eq!(run(&[2], &[], &[(2, Answer::Tag(b"ROLLBACK".to_vec()))]).1, Outcome::RolledBack);
    }

    #[test]
    fn half_a_commit_is_told() {
        let (sent, outcome) = run(&[0, 1, 2], &[], &[(1, Answer::Lost)]);
        assert_eq!(sent, [(0, "COMMIT"), (1, "COMMIT"), (2, "COMMIT")]);
        let Outcome::Failure(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!(failure.code, "08007");
        assert!(failure.detail.unwrap().contains("shards [0, 2]; not, or not known to be, on shards [1]"));
    }

    #[test]
    fn an_unknown_first_commit_is_told_too() {
        let (sent, outcome) = run(&[0, 1], &[], &[(0, Answer::Lost)]);
        assert_eq!(sent[1], (1, "ROLLBACK"));
        assert!(matches!(outcome, Outcome::Failure(failure) if failure.code == "08007"));
    }

    #[test]
    fn a_reader_cannot_undo_what_writers_did() {
        assert_eq!(run(&[0], &[1], &[(1, Answer::Lost)]).1, Outcome::Committed);
        assert!(matches!(run(&[], &[1, 2], &[(1, Answer::Lost)]).1, Outcome::Failure(_)));
    }
}
