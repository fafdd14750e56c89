//! One statement sent to several shards: every shard's answer becomes one answer, or one error.
//!
//! The first shard leads: what it says is what the client gets. The others must have said the same of
//! themselves, the same command tags in the same order, or the copies have diverged and the statement
//! fails. Nothing reaches the client before the last shard is done, because until then an error may still come.

use super::Shard;
use crate::wire::message::Failure;

/// Most bytes of the leading shard's answer that are held (RETURNING on a reference table).
const MAX_HELD_BYTES: usize = 64 << 20;

/// What one shard has said so far.
#[derive(Debug, Default)]
struct Said {
    /// The frames to forward (the leader's only).
    held: Vec<u8>,
    /// Command tags, with their terminators.
    tags: Vec<Vec<u8>>,
    /// The first ErrorResponse, byte for byte.
    error: Option<Vec<u8>>,
    /// Rows seen, by which copies that return different numbers of rows are told apart.
    rows: u64,
    /// ReadyForQuery's status.
    ready: Option<u8>,
    lost: bool,
}

/// The answers of all shards to one statement (or one extended batch up to Sync).
#[derive(Debug)]
pub struct Gather {
    shards: Vec<Shard>,
    said: Vec<Said>,
    overflow: bool,
}

/// What becomes of the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gathered {
    /// All agree: these frames (without ReadyForQuery) go to the client.
    Agreed(Vec<u8>),
    /// A shard raised this error (an ErrorResponse frame), the first in the order of the shards.
    ServerError(Vec<u8>),
    /// The proxy's own error: a shard was lost, or the copies disagree.
    Failure(Failure),
}

impl Gather {
    /// Waits for these shards; the first leads.
    pub fn new(shards: &[Shard]) -> Self {
        Self { shards: shards.to_vec(), said: shards.iter().map(|_| Said::default()).collect(), overflow: false }
    }

    /// Takes one whole frame that a shard sent.
    pub fn take(&mut self, shard: Shard, frame: &[u8]) {
        let Some(index) = self.shards.iter().position(|&s| s == shard) else { return };
        let leads = index == 0;
        let Some(said) = self.said.get_mut(index) else { return };
        match frame.first() {
            Some(b'Z') => said.ready = Some(frame.get(5).copied().unwrap_or(b'E')),
            Some(b'E') if said.error.is_none() => said.error = Some(frame.to_vec()),
            Some(b'E') => {}
            Some(tag) => {
                match tag {
                    b'C' => said.tags.push(frame.get(5..).unwrap_or_default().to_vec()),
                    b'D' => said.rows += 1,
                    _ => {}
                }
                // Notices of the others would be repetitions, their ParameterStatus is the leader's.
                if leads && said.held.len() + frame.len() <= MAX_HELD_BYTES {
                    said.held.extend_from_slice(frame);
                } else if leads {
                    self.overflow = true;
                }
            }
            None => {}
        }
    }

    /// A shard's connection was lost before it was done.
    pub fn lose(&mut self, shard: Shard) {
        let index = self.shards.iter().position(|&s| s == shard);
        if let Some(said) = index.and_then(|index| self.said.get_mut(index)) {
            said.lost = true;
        }
    }

    /// True when every shard is done or lost.
    pub fn done(&self) -> bool {
        self.said.iter().all(|said| said.lost || said.ready.is_some())
    }

    /// The one answer. Only meaningful when [`Gather::done`].
    pub fn finish(mut self) -> Gathered {
        if let Some(index) = self.said.iter().position(|said| said.lost) {
            let shard = self.shards.get(index).copied().unwrap_or_default();
            let lost =
                Failure::error("08006", format!("the connection to shard {shard} was lost during the statement"));
            return Gathered::Failure(match self.shards.len() {
                1 => lost.detail("Whether it took effect there is not known."),
                _ => lost.detail("The statement ran on several shards; it is rolled back on the others."),
            });
        }
        if let Some(error) = self.said.iter_mut().find_map(|said| said.error.take()) {
            return Gathered::ServerError(error);
        }
        if self.overflow {
            return Gathered::Failure(
                Failure::error("54000", "the answer of a statement on several shards is longer than 64 MiB")
                    .hint("Leave RETURNING out, or write fewer rows in one statement."),
            );
        }
        let Some((leader, others)) = self.said.split_first_mut() else {
            return Gathered::Failure(Failure::error("XX000", "a statement was sent to no shard"));
        };
        for (said, shard) in others.iter().zip(self.shards.iter().skip(1)) {
            if said.tags != leader.tags || said.rows != leader.rows {
                return Gathered::Failure(disagreement(&leader.tags, *shard, &said.tags));
            }
        }
        Gathered::Agreed(std::mem::take(&mut leader.held))
    }
}

fn disagreement(expected: &[Vec<u8>], shard: Shard, found: &[Vec<u8>]) -> Failure {
    let words = |tags: &[Vec<u8>]| {
        let tags: Vec<_> =
            tags.iter().map(|tag| String::from_utf8_lossy(tag).trim_end_matches('\0').to_owned()).collect();
        if tags.is_empty() { "nothing".to_owned() } else { tags.join(", ") }
    };
    Failure::error("XX001", "the shards do not agree on what this statement did: their copies have diverged")
        .detail(format!("The first shard answered {}, shard {shard} answered {}.", words(expected), words(found)))
        .hint("Compare the reference table on the shards, and repair the one that differs.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message;

    fn answer(tag: &str) -> Vec<Vec<u8>> {
        let (mut complete, mut ready) = (Vec::new(), Vec::new());
        message::command_complete(&mut complete, tag.as_bytes());
        message::ready(&mut ready, b'T');
        vec![complete, ready]
    }

    fn gather(answers: &[(Shard, Vec<Vec<u8>>)]) -> Gathered {
        let shards: Vec<Shard> = answers.iter().map(|(shard, _)| *shard).collect();
        let mut gather = Gather::new(&shards);
        // The last shard speaks first: order must not matter.
        for (shard, frames) in answers.iter().rev() {
            assert!(!gather.done());
            frames.iter().for_each(|frame| gather.take(*shard, frame));
        }
        assert!(gather.done());
        gather.finish()
    }

    fn error(code: &'static str) -> Vec<Vec<u8>> {
        let (mut frame, mut ready) = (Vec::new(), Vec::new());
        Failure::error(code, "no").write(&mut frame);
        message::ready(&mut ready, b'E');
        vec![frame, ready]
    }

    #[test]
    fn all_agree_and_the_client_hears_it_once() {
        let expected = answer("INSERT 0 2").remove(0);
        assert_eq!(gather(&[(3, answer("INSERT 0 2")), (1, answer("INSERT 0 2"))]), Gathered::Agreed(expected));
    }

    #[test]
    fn copies_that_diverged_are_an_error() {
        let Gathered::Failure(failure) = gather(&[(0, answer("UPDATE 2")), (1, answer("UPDATE 1"))]) else { panic!() };
        assert_eq!(failure.code, "XX001");
        assert!(failure.detail.unwrap().contains("UPDATE 2, shard 1 answered UPDATE 1"));
    }

    #[test]
    fn one_error_is_everybodys() {
        let Gathered::ServerError(frame) = gather(&[(0, answer("UPDATE 2")), (1, error("23505"))]) else { panic!() };
        assert_eq!(frame, error("23505").remove(0));
    }

    #[test]
    fn a_lost_shard_is_no_success() {
        let mut gather = Gather::new(&[0, 1]);
        answer("DROP TABLE").iter().for_each(|frame| gather.take(0, frame));
        gather.lose(1);
        assert!(gather.done());
        assert!(matches!(gather.finish(), Gathered::Failure(failure) if failure.code == "08006"));
    }
}
