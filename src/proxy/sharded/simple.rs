//! The simple protocol over shards.

use crate::exec::commit::{Answer, Commit, Next, Outcome};
use crate::exec::control::Control;
use crate::exec::gather::{Gather, Gathered};
use crate::exec::transaction::{Status, Step};
use crate::proxy::analyzer::Analyzer;
use crate::proxy::care::Effect;
use crate::proxy::sharded::{End, FLUSH_ABOVE, ShardedSession, Trouble, lost, refused};
use crate::route::{Route, TextBindings};
use crate::sql::facts::StatementKind;
use crate::sql::lexer::LexOptions;
use crate::sql::split_statements;
use crate::wire::message::{self, Failure};

/// Where a text goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Nothing in it.
    Empty,
    /// Executed here.
    Control,
    /// To these shards.
    Shards {
        /// The shards, first the one whose answer the client gets.
        shards: Vec<usize>,
        /// It may change rows or definitions.
        writes: bool,
        /// It changes definitions.
        defines: bool,
        /// It cannot stand in a transaction block.
        alone: bool,
    },
}

impl ShardedSession {
    /// A simple Query and everything that answers it.
    pub(super) async fn query(&mut self, body: &[u8]) -> Result<(), End> {
        let Some((0, sql)) = body.split_last() else {
            return Err(End::Failed(Failure::fatal("08P01", "malformed Query message")));
        };
        // It ends whatever the extended protocol had begun without a Sync.
        self.finish_segment().await?;
        if let Err(trouble) = self.run_text(sql).await {
            self.say(trouble)?;
        }
        self.end_implicit().await?;
        self.release_links();
        self.refresh().await;
        let status = self.status();
        message::ready(&mut self.out, status);
        Ok(())
    }

    async fn run_text(&mut self, sql: &[u8]) -> Result<(), Trouble> {
        let text = std::str::from_utf8(sql).map_err(|_| not_utf8())?;
        match self.direct(text)? {
            Direction::Empty => {
                message::empty(&mut self.out, b'I');
                Ok(())
            }
            Direction::Control => {
                let tag = self.control(text).await?;
                message::command_complete(&mut self.out, tag.as_bytes());
                Ok(())
            }
            Direction::Shards { shards, writes, defines, alone } => {
                self.redefined |= defines;
                self.run_on(&shards, text, writes, alone).await
            }
        }
    }

    /// Where a text goes: each of its statements, and all of them together.
    fn direct(&mut self, text: &str) -> Result<Direction, Trouble> {
        let facts = self.session_facts();
        let options = LexOptions { standard_conforming_strings: facts.standard_conforming_strings };
        let statements = split_statements(text, options);
        if statements.len() <= 1 {
            return self.direct_one(text);
        }
        let mut together: Option<Direction> = None;
        for range in statements {
            let one = self.direct_one(text.get(range).unwrap_or_default())?;
            together = Some(match (together, one) {
                (_, Direction::Control) => return Err(several("one of them controls the session or the transaction")),
                (together, Direction::Empty) => together.unwrap_or(Direction::Empty),
                (None | Some(Direction::Empty), one) => one,
                (
                    Some(Direction::Shards { shards, writes, defines, .. }),
                    Direction::Shards { shards: others, writes: also_writes, defines: also_defines, .. },
                ) if shards == others => {
                    let (writes, defines) = (writes || also_writes, defines || also_defines);
                    Direction::Shards { shards, writes, defines, alone: false }
                }
                _ => return Err(several("they go to different shards")),
            });
        }
        Ok(together.unwrap_or(Direction::Empty))
    }

    fn direct_one(&mut self, text: &str) -> Result<Direction, Trouble> {
        let facts = self.session_facts();
        let scan = self.scanner.scan(text.as_bytes());
        if scan.statements == 0 && scan.complete {
            return Ok(Direction::Empty);
        }
        let plan = self.planner.plan(text, &scan, facts);
        let bindings = TextBindings { sql: text, constants: scan.bindings, parameters: &[] };
        let route = plan.bind(&bindings).map_err(|refusal| refused(&refusal))?;
        Ok(self.resolve(route, text, plan.writes))
    }

    /// Shards of a route: for one that any shard can answer, one that is at hand.
    pub(super) fn resolve(&self, route: Route, text: &str, writes: bool) -> Direction {
        let (kind, command) = if writes || route == Route::Control || route == Route::All {
            crate::sql::parse::classify(text)
        } else {
            (StatementKind::Select, String::new())
        };
        let shards = match route {
            Route::Single(shard) => vec![shard.0],
            Route::Any => vec![self.any_shard()],
            Route::All => (0..self.pools.len()).collect(),
            Route::Control if !command.starts_with("SHOW") => return Direction::Control,
            Route::Catalog | Route::Control => vec![0],
        };
        let (defines, alone) = (kind == StatementKind::Ddl, command.starts_with("VACUUM"));
        Direction::Shards { shards, writes, defines, alone }
    }

    /// A shard that is in the transaction already, or the one that this client keeps to.
    pub(super) fn any_shard(&self) -> usize {
        let own = usize::try_from(self.guard.client.id).unwrap_or(0) % self.pools.len().max(1);
        self.transaction.shards().next().unwrap_or(own)
    }

    /// Runs a text on shards. On several, outside a block, it is wrapped in one.
    async fn run_on(&mut self, shards: &[usize], text: &str, writes: bool, alone: bool) -> Result<(), Trouble> {
        if shards.len() > 1 && self.transaction.status() == Status::Idle && !alone {
            self.transaction.begin_implicit();
            self.implicit = true;
        }
        self.reach(shards, writes && !alone).await?;
        for &shard in shards {
            let Some(link) = self.link(shard) else { continue };
            message::query(&mut link.out, text.as_bytes());
            link.send().await.map_err(lost)?;
        }
        if let &[shard] = shards {
            return self.relay(shard).await;
        }
        let mut gather = Gather::new(shards);
        for &shard in shards {
            self.gather(shard, &mut gather).await;
        }
        let answer = match gather.finish() {
            Gathered::Agreed(answer) => answer,
            Gathered::ServerError(frame) => return Err(Trouble::Server(frame)),
            Gathered::Failure(failure) => return Err(failure.into()),
        };
        if self.implicit {
            self.commit().await?;
        }
        self.out.extend_from_slice(&answer);
        Ok(())
    }

    /// Reads a shard's whole answer.
    async fn gather(&mut self, shard: usize, gather: &mut Gather) {
        let Some(link) = self.link(shard) else { return gather.lose(shard) };
        loop {
            let Ok((tag, place)) = link.next().await else {
                link.status = b'E';
                return gather.lose(shard);
            };
            match tag {
                b'S' | b'A' => {}
                b'Z' => {
                    link.status = link.body(&place).first().copied().unwrap_or(b'E');
                    return gather.take(shard, link.bytes(&place));
                }
                // COPY FROM is refused by the router; a server that begins one is out of step.
                b'G' => {
                    link.status = b'E';
                    return gather.lose(shard);
                }
                _ => gather.take(shard, link.bytes(&place)),
            }
        }
    }

    /// Passes a shard's answer on as it comes, up to its ReadyForQuery.
    async fn relay(&mut self, shard: usize) -> Result<(), Trouble> {
        let mut failed = false;
        loop {
            let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else { return Ok(()) };
            let (tag, place) = link.next().await.map_err(lost)?;
            match tag {
                b'Z' => {
                    link.status = link.body(&place).first().copied().unwrap_or(b'E');
                    break;
                }
                b'S' | b'A' => {}
                b'G' => return Err(copy_refused()),
                _ => {
                    failed |= tag == b'E';
                    self.out.extend_from_slice(link.bytes(&place));
                }
            }
            if self.out.len() > FLUSH_ABOVE {
                self.flush_client().await?;
            }
        }
        if failed {
            self.transaction.fail();
        }
        Ok(())
    }

    /// Ends a block of ours that is still open: what failed in it is taken back.
    pub(super) async fn end_implicit(&mut self) -> Result<(), End> {
        self.segment_writers.clear();
        if std::mem::take(&mut self.implicit) && self.transaction.status() != Status::Idle {
            let shards: Vec<usize> = self.transaction.shards().collect();
            return self.roll_back(&shards).await;
        }
        Ok(())
    }

    async fn roll_back(&mut self, shards: &[usize]) -> Result<(), End> {
        self.transaction.end();
        for &shard in shards {
            // A shard that cannot roll back has lost its connection, which rolls back too: its link is not clean.
            if self.run_quietly(shard, "ROLLBACK").await.is_err()
                && let Some(link) = self.link(shard)
            {
                link.status = b'E';
            }
        }
        Ok(())
    }

    /// Executes a statement of transaction control or of the session; gives its command tag.
    pub(super) async fn control(&mut self, text: &str) -> Result<String, Trouble> {
        let failed = self.transaction.status() == Status::Failed;
        let control = match crate::sql::parse::parse(text) {
            Ok(parsed) => Control::of(&parsed)?,
            Err(_) => None,
        };
        let Some(control) = control else {
            if failed {
                // As any statement in a block that has failed.
                self.transaction.join(&[], false)?;
            }
            return self.session_statement(text).await;
        };
        match self.transaction.control(control)? {
            Step::Answer { tag, warning } => {
                if let Some((code, message)) = warning {
                    warn(&mut self.out, code, message);
                }
                Ok(tag.to_owned())
            }
            Step::Each { shards, sql, tag } => {
                for shard in shards {
                    self.run_quietly(shard, &sql).await?;
                }
                Ok(tag.to_owned())
            }
            Step::Rollback { shards } => {
                self.roll_back(&shards).await?;
                Ok("ROLLBACK".to_owned())
            }
            Step::Commit { wrote, read } => self.commit_on(&wrote, &read).await,
        }
    }

    /// Commits the open block.
    pub(super) async fn commit(&mut self) -> Result<String, Trouble> {
        match self.transaction.control(Control::Commit)? {
            Step::Commit { wrote, read } => self.commit_on(&wrote, &read).await,
            Step::Rollback { shards } => {
                self.roll_back(&shards).await?;
                Ok("ROLLBACK".to_owned())
            }
            _ => Ok("COMMIT".to_owned()),
        }
    }

    async fn commit_on(&mut self, wrote: &[usize], read: &[usize]) -> Result<String, Trouble> {
        let mut commit = Commit::new(wrote, read);
        let mut answer = None;
        let outcome = loop {
            match commit.next(answer.take()) {
                Next::Done(outcome) => break outcome,
                Next::Send(shard, sql) => answer = Some(self.ask(shard, sql).await),
            }
        };
        self.transaction.end();
        self.implicit = false;
        match outcome {
            Outcome::Committed => Ok("COMMIT".to_owned()),
            Outcome::RolledBack => Ok("ROLLBACK".to_owned()),
            Outcome::ServerError(frame) => Err(Trouble::Server(frame)),
            Outcome::Failure(failure) => Err(failure.into()),
        }
    }

    /// Sends COMMIT or ROLLBACK to a shard.
    async fn ask(&mut self, shard: usize, sql: &str) -> Answer {
        let Some(link) = self.link(shard) else { return Answer::Lost };
        message::query(&mut link.out, sql.as_bytes());
        if link.send().await.is_err() {
            link.status = b'E';
            return Answer::Lost;
        }
        let mut answer = Answer::Lost;
        loop {
            let Ok((tag, place)) = link.next().await else {
                link.status = b'E';
                return Answer::Lost;
            };
            match tag {
                b'C' => answer = Answer::Tag(link.body(&place).strip_suffix(b"\0").unwrap_or_default().to_vec()),
                b'E' => answer = Answer::Error(link.bytes(&place).to_vec()),
                b'Z' => {
                    link.status = link.body(&place).first().copied().unwrap_or(b'E');
                    return answer;
                }
                _ => {}
            }
        }
    }

    /// SET, RESET, DISCARD, DEALLOCATE, SET LOCAL, SET TRANSACTION, SET CONSTRAINTS.
    async fn session_statement(&mut self, text: &str) -> Result<String, Trouble> {
        let mut words = text.split_whitespace().map(str::to_ascii_lowercase);
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if first == "set" && matches!(second.as_str(), "local" | "transaction" | "constraints") {
            self.within(text).await?;
            return Ok(if second == "constraints" { "SET CONSTRAINTS" } else { "SET" }.to_owned());
        }
        let verdict = Analyzer::default().analyze(text.as_bytes());
        let Some(effect) = verdict.effect else {
            let failure =
                Failure::error("0A000", "this statement about the session is not available in a sharded database");
            let hint =
                "SET name TO value, SET LOCAL, RESET and DISCARD ALL are; set others for the role on the servers";
            return Err(failure.hint(hint).into());
        };
        if self.in_block() && !matches!(*effect, Effect::Deallocate(_) | Effect::DeallocateAll) {
            let failure = Failure::error("0A000", "SET inside a transaction is not available in a sharded database");
            return Err(failure.hint("use SET LOCAL, or SET before BEGIN").into());
        }
        self.change_settings(&effect).await?;
        Ok(match *effect {
            Effect::DiscardAll => "DISCARD ALL".to_owned(),
            Effect::DeallocateAll => "DEALLOCATE ALL".to_owned(),
            _ => first.to_ascii_uppercase(),
        })
    }

    /// A setting of the transaction block: told to all of its shards, now or when they join.
    async fn within(&mut self, text: &str) -> Result<(), Trouble> {
        if !self.in_block() {
            let message = "this statement can only be used in transaction blocks of a sharded database";
            return Err(Failure::error("25P01", message).into());
        }
        // A shard says first whether it is right, so that those who join later are not told nonsense.
        if self.transaction.shards().next().is_none() {
            self.reach(&[self.any_shard()], false).await?;
        }
        let joined: Vec<usize> = self.transaction.shards().collect();
        for shard in joined {
            self.run_quietly(shard, text).await?;
        }
        self.transaction.local(text);
        Ok(())
    }

    pub(super) fn link(&mut self, shard: usize) -> Option<&mut super::link::Link> {
        self.links.get_mut(shard)?.as_mut()
    }
}

/// A WARNING of PostgreSQL's own words.
fn warn(out: &mut Vec<u8>, code: &str, text: &str) {
    message::frame(out, b'N', |out| {
        for (field, value) in [(b'S', "WARNING"), (b'V', "WARNING"), (b'C', code), (b'M', text)] {
            out.push(field);
            message::cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

pub(super) fn not_utf8() -> Failure {
    Failure::error("0A000", "a statement that is not UTF-8 cannot be planned").hint("set client_encoding to UTF8")
}

fn several(why: &str) -> Trouble {
    let failure = Failure::error("0A000", format!("several statements in one string: {why}"));
    failure.hint("send them one by one").into()
}

fn copy_refused() -> Trouble {
    Trouble::Over(End::Failed(Failure::fatal("0A000", "COPY FROM is not available in a sharded database")))
}
