//! A client's transaction over the shards it touches.
//!
//! No shard is asked for anything at BEGIN. A shard *joins* with the first statement that needs it: it
//! is sent the client's own BEGIN and every savepoint that is open, in order, so that it stands where the
//! others stand. ROLLBACK TO then means the same on each. A failure on one shard fails the transaction for all, as on
//! one PostgreSQL.

use super::Shard;
use super::control::{Control, quoted};
use crate::wire::message::Failure;

/// What may happen when a transaction has written on several shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The second shard's first write is refused.
    Refuse,
    /// Shards are committed one after the other; a crash in between leaves some of them committed.
    BestEffort,
    /// Shards are committed on all or none of them (`commit_atomic`).
    Atomic,
}

/// Where the client stands, as ReadyForQuery says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `I`: outside a transaction block.
    Idle,
    /// `T`: inside one.
    Open,
    /// `E`: inside one that failed.
    Failed,
}

impl Status {
    /// The byte of ReadyForQuery.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// What the proxy has to do about a statement of transaction control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Answer with this command tag; no shard is asked. A warning may go first.
    Answer {
        /// The command tag.
        tag: &'static str,
        /// SQLSTATE and text of a WARNING, in PostgreSQL's words.
        warning: Option<(&'static str, &'static str)>,
    },
    /// Send this to each of the shards, and answer with the tag when all have done it.
    Each {
        /// The shards that joined.
        shards: Vec<Shard>,
        /// What to send.
        sql: String,
        /// The command tag to answer with.
        tag: &'static str,
    },
    /// Roll back on each of the shards; the block is over.
    Rollback {
        /// The shards that joined.
        shards: Vec<Shard>,
    },
    /// Commit (see `commit`): those that wrote, and those that only read.
    Commit {
        /// Shards that may have written, in the order they first did.
        wrote: Vec<Shard>,
        /// Shards that only read.
        read: Vec<Shard>,
    },
}

/// What a shard is told as it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Replayed {
    /// An open savepoint.
    Savepoint(String),
    /// SET LOCAL or SET TRANSACTION, as the client wrote it.
    Local(String),
}

#[derive(Debug)]
struct Participant {
    shard: Shard,
    wrote: bool,
}

/// The transaction of one client; outside a block it is idle and empty.
#[derive(Debug)]
pub struct Transaction {
    policy: Policy,
    status: Status,
    begin: String,
    /// What a shard that joins late must be told, in order. A failure keeps it, since ROLLBACK TO may need it.
    history: Vec<Replayed>,
    participants: Vec<Participant>,
}

impl Transaction {
    /// A client that is outside any transaction block.
    pub fn new(policy: Policy) -> Self {
        Self { policy, status: Status::Idle, begin: String::new(), history: Vec::new(), participants: Vec::new() }
    }

    /// Whether it must commit on all shards or on none.
    pub fn is_atomic(&self) -> bool {
        self.policy == Policy::Atomic
    }

    /// Where the client stands.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The shards that joined.
    pub fn shards(&self) -> impl Iterator<Item = Shard> {
        self.participants.iter().map(|participant| participant.shard)
    }

    /// Opens a block around one statement that runs on several shards and came without one.
    pub fn begin_implicit(&mut self) {
        self.open("BEGIN".to_owned());
    }

    /// Lets the shards join that a statement needs: for each that is new, what to send it first.
    ///
    /// Only to be called inside a block. `writes` is false only for statements that are proven to change nothing.
    ///
    /// # Errors
    /// The transaction has failed before (25P02), or it would write on a second shard and the policy is to refuse (0A000).
    pub fn join(&mut self, shards: &[Shard], writes: bool) -> Result<Vec<(Shard, String)>, Failure> {
        self.check_open()?;
        if writes && self.policy == Policy::Refuse {
            self.refuse_second_writer(shards)?;
        }
        let mut first = Vec::new();
        for &shard in shards {
            match self.participants.iter_mut().find(|participant| participant.shard == shard) {
                Some(participant) => participant.wrote |= writes,
                None => {
                    first.push((shard, self.opening()));
                    self.participants.push(Participant { shard, wrote: writes });
                }
            }
        }
        Ok(first)
    }

    /// After an error a block takes only its end, or ROLLBACK TO.
    ///
    /// # Errors
    /// The block has failed (25P02).
    pub fn check_open(&self) -> Result<(), Failure> {
        if self.status == Status::Failed { Err(aborted()) } else { Ok(()) }
    }

    /// Takes back a join: the shard could not be reached, or did not begin.
    pub fn leave(&mut self, shard: Shard) {
        self.participants.retain(|participant| participant.shard != shard);
    }

    fn refuse_second_writer(&self, shards: &[Shard]) -> Result<(), Failure> {
        let other =
            self.participants.iter().any(|participant| participant.wrote && !shards.contains(&participant.shard));
        if shards.len() < 2 && !other {
            return Ok(());
        }
        Err(Failure::error("0A000", "this would write on more than one shard in one transaction")
            .detail("Without an atomic commit a crash could leave the write on one shard only.")
            .hint("Write on one shard per transaction, or set `commit: atomic` for this database."))
    }

    /// What a shard is sent as it joins: the client's BEGIN, then the savepoints that are open.
    fn opening(&self) -> String {
        let mut sql = self.begin.clone();
        for step in &self.history {
            sql.push(';');
            match step {
                Replayed::Savepoint(name) => sql.push_str(&savepoint(name)),
                Replayed::Local(text) => sql.push_str(text),
            }
        }
        sql
    }

    /// Notes a SET LOCAL or SET TRANSACTION that the shards which joined have done: those that join later are told too.
    pub fn local(&mut self, sql: &str) {
        self.history.push(Replayed::Local(format!("{}\n", sql.trim_end_matches([';', ' ', '\n', '\t', '\r']))));
    }

    /// Whether a savepoint is open.
    pub fn has_savepoints(&self) -> bool {
        self.history.iter().any(|step| matches!(step, Replayed::Savepoint(_)))
    }

    /// A statement failed, on a shard or in the proxy.
    pub fn fail(&mut self) {
        if self.status == Status::Open {
            self.status = Status::Failed;
        }
    }

    /// The block is over, in whatever way.
    pub fn end(&mut self) {
        self.status = Status::Idle;
        self.begin.clear();
        self.history.clear();
        self.participants.clear();
    }

    fn open(&mut self, begin: String) {
        self.status = Status::Open;
        // A trailing semicolon would make the savepoints after it the second statement, which is fine,
        // but a trailing comment would swallow them.
        self.begin = format!("{}\n", begin.trim_end_matches([';', ' ', '\n', '\t', '\r']));
    }

    /// Takes a statement of transaction control.
    ///
    /// After [`Step::Rollback`] and [`Step::Commit`] the caller calls [`Transaction::end`];
    /// [`Step::Answer`] has taken its effect already.
    ///
    /// # Errors
    /// PostgreSQL's own: a savepoint outside a block (25P01), an unknown savepoint (3B001), a failed block (25P02).
    pub fn control(&mut self, control: Control) -> Result<Step, Failure> {
        match (control, self.status) {
            (Control::Begin { text, tag }, Status::Idle) => {
                self.open(text);
                Ok(Step::Answer { tag, warning: None })
            }
            (Control::Begin { tag, .. }, Status::Open) => {
                Ok(Step::Answer { tag, warning: Some(("25001", "there is already a transaction in progress")) })
            }
            (Control::Begin { .. } | Control::Savepoint(_) | Control::Release(_), Status::Failed) => Err(aborted()),
            (Control::Commit, Status::Idle) => Ok(no_transaction("COMMIT")),
            (Control::Rollback, Status::Idle) => Ok(no_transaction("ROLLBACK")),
            (Control::Commit, Status::Open) => Ok(self.commit()),
            (Control::Commit | Control::Rollback, _) => Ok(self.rollback()),
            (Control::Savepoint(_), Status::Idle) => Err(outside("SAVEPOINT")),
            (Control::RollbackTo(_), Status::Idle) => Err(outside("ROLLBACK TO SAVEPOINT")),
            (Control::Release(_), Status::Idle) => Err(outside("RELEASE SAVEPOINT")),
            (Control::Savepoint(name), Status::Open) => {
                let sql = savepoint(&name);
                self.history.push(Replayed::Savepoint(name));
                Ok(self.each(sql, "SAVEPOINT"))
            }
            (Control::RollbackTo(name), _) => {
                let kept = self.position(&name)?;
                // The savepoint itself stays, those after it go (PostgreSQL, ROLLBACK TO SAVEPOINT).
                self.history.truncate(kept + 1);
                self.status = Status::Open;
                Ok(self.each(format!("ROLLBACK TO SAVEPOINT {}", quoted(&name)), "ROLLBACK"))
            }
            (Control::Release(name), Status::Open) => {
                let kept = self.position(&name)?;
                // Settings that were made local to the transaction outlive the savepoint.
                let mut at = 0;
                self.history.retain(|step| {
                    at += 1;
                    at <= kept || matches!(step, Replayed::Local(_))
                });
                Ok(self.each(format!("RELEASE SAVEPOINT {}", quoted(&name)), "RELEASE"))
            }
        }
    }

    /// The innermost savepoint of that name.
    fn position(&mut self, name: &str) -> Result<usize, Failure> {
        let found = self.history.iter().rposition(|step| matches!(step, Replayed::Savepoint(open) if open == name));
        if found.is_none() {
            self.fail();
        }
        found.ok_or_else(|| Failure::error("3B001", format!("savepoint \"{name}\" does not exist")))
    }

    fn each(&self, sql: String, tag: &'static str) -> Step {
        if self.participants.is_empty() {
            return Step::Answer { tag, warning: None };
        }
        Step::Each { shards: self.shards().collect(), sql, tag }
    }

    fn commit(&mut self) -> Step {
        if self.participants.is_empty() {
            self.end();
            return Step::Answer { tag: "COMMIT", warning: None };
        }
        let of = |wrote: bool| self.participants.iter().filter(|p| p.wrote == wrote).map(|p| p.shard).collect();
        Step::Commit { wrote: of(true), read: of(false) }
    }

    fn rollback(&mut self) -> Step {
        if self.participants.is_empty() {
            self.end();
            return Step::Answer { tag: "ROLLBACK", warning: None };
        }
        Step::Rollback { shards: self.shards().collect() }
    }
}

fn savepoint(name: &str) -> String {
    format!("SAVEPOINT {}", quoted(name))
}

fn aborted() -> Failure {
    Failure::error("25P02", "current transaction is aborted, commands ignored until end of transaction block")
}

/// PostgreSQL's error for savepoints outside a block (25P01).
pub fn outside(command: &str) -> Failure {
    Failure::error("25P01", format!("{command} can only be used in transaction blocks"))
}

fn no_transaction(tag: &'static str) -> Step {
    Step::Answer { tag, warning: Some(("25P01", "there is no transaction in progress")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(policy: Policy) -> Transaction {
        let mut transaction = Transaction::new(policy);
        let begin = Control::Begin { text: "begin isolation level serializable; ".into(), tag: "BEGIN" };
        assert_eq!(transaction.control(begin), Ok(Step::Answer { tag: "BEGIN", warning: None }));
        transaction
    }

    #[test]
    fn a_shard_joins_where_the_others_stand() {
        let mut transaction = begun(Policy::BestEffort);
        let begin = "begin isolation level serializable\n";
        assert_eq!(transaction.join(&[1], true), Ok(vec![(1, begin.to_owned())]));
        assert_eq!(transaction.join(&[1], true), Ok(vec![]));
        let step = transaction.control(Control::Savepoint("a\"b".into()));
        assert_eq!(step, Ok(Step::Each { shards: vec![1], sql: "SAVEPOINT \"a\"\"b\"".into(), tag: "SAVEPOINT" }));
        assert_eq!(transaction.join(&[0], false), Ok(vec![(0, format!("{begin};SAVEPOINT \"a\"\"b\""))]));
        assert_eq!(transaction.control(Control::Commit), Ok(Step::Commit { wrote: vec![1], read: vec![0] }));
    }

    #[test]
    fn an_empty_transaction_asks_nobody() {
        let mut transaction = begun(Policy::Refuse);
        assert_eq!(transaction.control(Control::Commit), Ok(Step::Answer { tag: "COMMIT", warning: None }));
        assert_eq!(transaction.status(), Status::Idle);
        assert!(matches!(transaction.control(Control::Rollback), Ok(Step::Answer { warning: Some(("25P01", _)), .. })));
        assert_eq!(transaction.control(Control::Savepoint("a".into())).unwrap_err().code, "25P01");
    }

    #[test]
    fn a_second_writer_is_refused_before_it_writes() {
        let mut transaction = begun(Policy::Refuse);
        transaction.join(&[0], true).unwrap();
        transaction.join(&[1], false).unwrap();
        assert_eq!(transaction.join(&[1], true).unwrap_err().code, "0A000");
        assert_eq!(transaction.join(&[0, 1], true).unwrap_err().code, "0A000");
        transaction.join(&[0], true).unwrap();
        assert_eq!(transaction.control(Control::Commit), Ok(Step::Commit { wrote: vec![0], read: vec![1] }));
    }

    #[test]
    fn a_failed_transaction_takes_only_its_end_or_a_savepoint() {
        let mut transaction = begun(Policy::BestEffort);
        transaction.join(&[0], true).unwrap();
        transaction.control(Control::Savepoint("s".into())).unwrap();
        transaction.fail();
        assert_eq!(transaction.join(&[0], false).unwrap_err().code, "25P02");
        assert_eq!(transaction.control(Control::Savepoint("t".into())).unwrap_err().code, "25P02");
        assert_eq!(transaction.control(Control::RollbackTo("nope".into())).unwrap_err().code, "3B001");
        assert!(matches!(transaction.control(Control::RollbackTo("s".into())), Ok(Step::Each { .. })));
        assert_eq!(transaction.status(), Status::Open);
        transaction.fail();
        // COMMIT of a failed transaction rolls back and says so.
        let step = transaction.control(Control::Commit);
        assert_eq!(step, Ok(Step::Rollback { shards: vec![0] }));
    }

    #[test]
    fn local_settings_are_replayed_and_outlive_a_released_savepoint() {
        let mut transaction = begun(Policy::BestEffort);
        transaction.control(Control::Savepoint("a".into())).unwrap();
        transaction.local("set local app.tenant = '7' -- x");
        transaction.control(Control::Savepoint("b".into())).unwrap();
        transaction.local("SET LOCAL work_mem = '1MB';");
        transaction.control(Control::RollbackTo("b".into())).unwrap();
        transaction.control(Control::Release("a".into())).unwrap();
        let begin = "begin isolation level serializable\n";
        let expected = format!("{begin};set local app.tenant = '7' -- x\n");
        assert_eq!(transaction.join(&[0], true), Ok(vec![(0, expected)]));
    }

    #[test]
    fn an_unknown_savepoint_fails_the_transaction() {
        let mut transaction = begun(Policy::BestEffort);
        transaction.control(Control::Savepoint("a".into())).unwrap();
        transaction.control(Control::Savepoint("b".into())).unwrap();
        transaction.control(Control::Release("a".into())).unwrap();
        assert_eq!(transaction.control(Control::RollbackTo("b".into())).unwrap_err().code, "3B001");
        assert_eq!(transaction.status(), Status::Failed);
    }
}
