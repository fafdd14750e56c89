//! Queries of the simple protocol.

use std::future::poll_fn;
use std::task::Poll;

use crate::exec::control::Control;
use crate::exec::transaction::Status;
use crate::proxy::care::Care;
use crate::proxy::meter::timing::now;
use crate::proxy::sharded::collect::Asked;
use crate::proxy::sharded::execute::is_prepare;
use crate::proxy::sharded::explain::explain_of;
use crate::proxy::sharded::merge::Part;
use crate::proxy::sharded::names::Target;
use crate::proxy::sharded::planned::{Planned, Values};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::proxy::sharded::settings::is_setting;
use crate::sql::lexer::LexOptions;
use crate::sql::parse;
use crate::sql::split_statements;
use crate::sql::template::Keyword;
use crate::wire::frame;
use crate::wire::message::{self, Failure};

/// What came while a COPY ran.
enum Arrived {
    FromClient,
    FromServer,
}

impl ShardedSession {
    /// Runs a query string and says that the session is ready for the next.
    pub(super) async fn simple(&mut self, body: &[u8]) -> Result<(), Trouble> {
        self.names.drop_unnamed();
        let done = self.query_string(body).await;
        let ended = match done {
            Ok(()) => self.end_implicit().await,
            Err(trouble) => {
                self.report(trouble)?;
                self.end_implicit().await
            }
        };
        if let Err(trouble) = ended {
            self.report(trouble)?;
        }
        self.ready();
        Ok(())
    }

    async fn query_string(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let text = body.strip_suffix(b"\0").filter(|text| !text.contains(&0));
        let text = text.ok_or_else(|| Failure::error("08P01", "a query string must end with its only zero byte"))?;
        let sql = std::str::from_utf8(text).map_err(|_| {
            Failure::error("22021", "the query is not valid UTF-8").hint("Sharded databases take UTF-8 only.")
        })?;
        self.guard_text(text)?;
        let statements = split_statements(sql, LexOptions::default());
        if statements.is_empty() {
            message::empty(&mut self.to_client, b'I');
            return Ok(());
        }
        let several = statements.len() > 1;
        for range in statements {
            let statement = sql.get(range).unwrap_or_default();
            // The statements of one string stand and fall together (PostgreSQL, "Multiple Statements in a Simple Query").
            if several && self.transaction.status() == Status::Idle && !is_control(self.leading(statement)) {
                self.begin_implicit();
            }
            let began = now();
            self.counted_as = None;
            let done = self.statement(statement).await;
            self.count_statement(statement, began, done.is_err());
            done?;
        }
        Ok(())
    }

    async fn statement(&mut self, sql: &str) -> Result<(), Trouble> {
        let session = self.session_facts();
        let mut scan = self.scanner.scan(sql.as_bytes());
        let leading = scan.leading;
        // What it is rewritten to is another template.
        self.counted_as.get_or_insert(scan.key);
        if is_control(leading) {
            return self.control(control_of(sql)?).await;
        }
        self.transaction.check_open()?;
        if is_setting(leading) {
            return self.setting(sql, leading).await;
        }
        if is_prepare(leading) {
            return self.prepare_statement(sql).await;
        }
        if leading[0] == Keyword::Execute {
            let executed = self.text_to_execute(sql)?;
            return Box::pin(self.statement(&executed)).await;
        }
        let snapshot = match self.shared.fresh() {
            Some(snapshot) => snapshot,
            None => {
                let snapshot = self.shared.snapshot().await?;
                scan = self.scanner.scan(sql.as_bytes());
                snapshot
            }
        };
        let session = session?;
        let planned = snapshot.plan(sql, &scan, session)?;
        if planned.reads_views
            && let Some(expanded) = snapshot.expand(sql)
        {
            return Box::pin(self.statement(&expanded)).await;
        }
        let route = planned.route(&Values { sql, bindings: scan.bindings, parameters: &[] });
        if leading[0] == Keyword::Explain
            && let Some(explain) = explain_of(sql).filter(|explain| explain.route || route.is_err())
        {
            return self.explain(&explain).await;
        }
        let route = route?;
        self.check_definitions(&planned)?;
        let target = self.target_of(route, &planned, sql)?;
        self.at_target(target, sql, &planned).await?;
        self.changed_definitions |= planned.changes_definitions();
        Ok(())
    }

    async fn at_target(&mut self, target: Target, sql: &str, planned: &Planned) -> Result<(), Trouble> {
        let statement = || [sql.as_bytes(), b"\0\0\0"].concat();
        match target {
            Target::Shard(shard) => self.on_one(shard, sql, planned.writes, planned.care).await?,
            Target::Several(shards, limit) => {
                self.on_several(&shards.iter().collect::<Vec<_>>(), limit, sql, planned.care).await?
            }
            Target::Collect(shards) => {
                let asked = Asked { sql, statement: &statement(), values: None, described: true, most: 0 };
                self.by_collecting(shards, &asked, planned.care).await?
            }
            Target::Merge(shards, limit, offset) => {
                let asked = Asked { sql, statement: &statement(), values: None, described: true, most: 0 };
                self.by_merging(shards, Part { offset, limit }, &asked, planned.care).await?
            }
            Target::Spread(shards, from) => {
                let asked = Asked { sql, statement: &statement(), values: None, described: true, most: 0 };
                self.by_spreading(shards, from, &asked, planned.care).await?
            }
            Target::Copy => {
                if let Some(copy) = planned.plan.copy() {
                    self.copy(sql, copy, planned.care).await?;
                }
            }
            Target::All => self.on_all(sql, planned).await?,
            Target::Own => {
                return Err(Trouble::Reply(
                    Failure::error("0A000", "this statement about the session is not supported in a sharded database")
                        .hint("Connect to the shard itself."),
                ));
            }
        }
        Ok(())
    }

    /// The words that a statement begins with.
    pub(super) fn leading(&mut self, sql: &str) -> [Keyword; 3] {
        self.scanner.scan(sql.as_bytes()).leading
    }

    /// Sends a statement to one shard and passes its answer on as it comes.
    pub(super) async fn on_one(&mut self, shard: usize, sql: &str, writes: bool, care: Care) -> Result<(), Trouble> {
        self.attach(&[shard], writes).await?;
        self.mark(shard, care);
        self.link(shard)?.query(sql.as_bytes());
        let mut failed = false;
        loop {
            if !self.link(shard)?.has_frame() {
                self.send_if_full().await?;
            }
            let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else {
                return Err(Trouble::Lost(shard));
            };
            let Ok(frame) = link.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'Z' => break,
                b'G' => {
                    self.to_client.extend_from_slice(frame.bytes);
                    self.copy_in(shard).await?;
                }
                b'E' => {
                    failed = true;
                    let error = frame.bytes.to_vec();
                    self.report(Trouble::Server(error))?;
                }
                _ => self.to_client.extend_from_slice(frame.bytes),
            }
            self.send_if_full().await?;
        }
        if failed { Err(Trouble::Told) } else { Ok(()) }
    }

    /// Sends a statement to every shard, inside a block, and gives the client one answer.
    async fn on_all(&mut self, sql: &str, planned: &Planned) -> Result<(), Trouble> {
        if planned.locks {
            return self.lock(sql).await;
        }
        if self.transaction.status() == Status::Idle {
            if parse::stands_alone(sql) {
                return self.one_by_one(sql, planned).await;
            }
            self.begin_implicit();
        }
        let shards = self.every_shard();
        self.attach(&shards, planned.writes).await?;
        for &shard in &shards {
            self.mark(shard, planned.care);
            self.link(shard)?.query(sql.as_bytes());
        }
        let frames = self
            .gather(&shards, |gather, shard, frame| {
                gather.take(shard, frame.bytes);
                frame.tag == b'Z'
            })
            .await?;
        self.to_client.extend_from_slice(&frames);
        Ok(())
    }

    /// LOCK, on one shard after the other, so that two clients do not each hold what the other waits for.
    async fn lock(&mut self, sql: &str) -> Result<(), Trouble> {
        let shards = self.every_shard();
        self.attach(&shards, false).await?;
        for &shard in &shards {
            self.each(&[shard], sql).await?;
        }
        message::command_complete(&mut self.to_client, b"LOCK TABLE");
        Ok(())
    }

    /// Passes COPY data on until the client ends it or the server does.
    async fn copy_in(&mut self, shard: usize) -> Result<(), Trouble> {
        self.send().await?;
        loop {
            // What the client has sent already goes first.
            while let Ok(Some((header, _))) = frame::whole(&self.client.pending, self.max_message) {
                let message: Vec<u8> = self.client.pending.drain(..header.total()).collect();
                match header.tag {
                    b'd' | b'c' | b'f' => {
                        let link = self.link(shard)?;
                        link.queue().extend_from_slice(&message);
                        if link.flush().await.is_err() {
                            return Err(self.lose(shard));
                        }
                        if header.tag != b'd' {
                            return Ok(());
                        }
                    }
                    // Flush and Sync are ignored during COPY, as PostgreSQL does.
                    b'H' | b'S' => {}
                    b'X' => return Err(Trouble::Gone),
                    other => {
                        let what = format!("unexpected message type 0x{other:02X} during COPY from stdin");
                        return Err(Trouble::Fatal(Failure::fatal("08P01", what)));
                    }
                }
            }
            if let Err(error) = frame::whole(&self.client.pending, self.max_message) {
                return Err(Trouble::Fatal(Failure::fatal("08P01", error.to_string())));
            }
            // A server that has an answer before the client's end has failed.
            match self.either(shard).await? {
                Arrived::FromServer => return Ok(()),
                Arrived::FromClient => {}
            }
        }
    }

    async fn either(&mut self, shard: usize) -> Result<Arrived, Trouble> {
        let Some(link) = self.links.get_mut(shard).and_then(Option::as_mut) else { return Err(Trouble::Lost(shard)) };
        let client = &mut self.client;
        let arrived = poll_fn(|cx| {
            match link.poll_arrival(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(Arrived::FromServer)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Trouble::Lost(shard))),
                Poll::Pending => {}
            }
            match client.stream.poll_read_onto(cx, &mut client.pending) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => Poll::Ready(Err(Trouble::Gone)),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(Arrived::FromClient)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match arrived {
            Err(Trouble::Lost(shard)) => Err(self.lose(shard)),
            other => other,
        }
    }
}

/// Whether a statement is transaction control. SET TRANSACTION is a setting of the block instead.
pub(super) fn is_control(leading: [Keyword; 3]) -> bool {
    use Keyword::{Abort, Begin, Commit, End, Prepare, Release, Rollback, Savepoint, Start, Transaction};
    match leading {
        [Begin | Start | Commit | End | Rollback | Abort | Savepoint | Release, ..] => true,
        [first, second, _] => (first, second) == (Prepare, Transaction),
    }
}

/// Transaction control as the statement says it.
pub(super) fn control_of(sql: &str) -> Result<Control, Failure> {
    let unsupported = || Failure::error("0A000", "this transaction control is not supported in a sharded database");
    let parsed = parse::parse(sql).map_err(|error| unsupported().detail(error.reason))?;
    // PREPARE TRANSACTION and its kin are for the proxy to use.
    Control::of(&parsed)?.ok_or_else(unsupported)
}
