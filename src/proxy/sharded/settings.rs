//! SET, RESET, SHOW, DISCARD and DEALLOCATE in a sharded database.
//!
//! What a client sets is part of what its server connections must have, now and later: a plain SET is run on the
//! shards that take part (or on the first one, which checks it), noted, and applied to each connection that
//! is checked out afterwards. SET LOCAL belongs to the block and is told to shards that join it later.

use std::sync::Arc;

use crate::exec::transaction::Status;
use crate::pool::settings::{Settings, Value, change};
use crate::proxy::analyzer::Analyzer;
use crate::proxy::care::{Care, Effect};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::SessionFacts;
use crate::sql::lexer::LexOptions;
use crate::sql::template::Keyword;
use crate::wire::message::{self, Failure};

/// Settings that change what a statement means to the router, which are kept for the whole session only.
const READ_BY_ROUTER: [&str; 3] = ["search_path", "standard_conforming_strings", "client_encoding"];

/// Encodings in which a byte that looks like ASCII, a quote or a backslash, may be half of another character.
const HIDING_ENCODINGS: [&str; 7] = ["SJIS", "BIG5", "GBK", "UHC", "JOHAB", "SHIFT_JIS_2004", "GB18030"];

impl ShardedSession {
    /// What plans depend on of this session.
    ///
    /// # Errors
    /// Its text cannot be read safely.
    pub(super) fn session_facts(&mut self) -> Result<SessionFacts, Failure> {
        let standard = self.reported("standard_conforming_strings") != Some("off");
        let encoding = self.reported("client_encoding").unwrap_or_default();
        if HIDING_ENCODINGS.contains(&encoding) {
            return Err(Failure::error(
                "0A000",
                format!("client_encoding {encoding} is not supported in a sharded database"),
            )
            .hint("SET client_encoding TO 'UTF8'."));
        }
        let facts = SessionFacts {
            default_search_path: self.names_mean_the_same(),
            standard_conforming_strings: standard,
            utf8: encoding == "UTF8",
        };
        self.scanner.set_options(LexOptions { standard_conforming_strings: standard });
        Ok(facts)
    }

    /// Whether unqualified names mean what they meant to who read the catalog: the same schemas are searched.
    fn names_mean_the_same(&self) -> bool {
        let of = |wanted: &str| self.want.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.text());
        let (path, role) = (of("search_path"), of("role"));
        if path.is_none() && role.is_none() && of("session_authorization").is_none() {
            return true;
        }
        let Some(snapshot) = self.shared.current() else { return false };
        // What "$user" stands for.
        let mut users: Vec<&str> = role.iter().chain(&of("session_authorization")).copied().collect();
        users.push(self.shared.user());
        snapshot.searches(path, &users)
    }

    /// A parameter as the client was told.
    pub(super) fn reported(&self, name: &str) -> Option<&str> {
        self.told.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    /// Runs a statement about the session and answers it.
    pub(super) async fn setting(&mut self, sql: &str, leading: [Keyword; 3]) -> Result<(), Trouble> {
        if leading[0] == Keyword::Show {
            let shard = self.transaction.shards().next().unwrap_or(0);
            return self.on_one(shard, sql, false, Care::CLEAN).await;
        }
        let mut analyzer = Analyzer::default();
        analyzer.follow(self.reported("standard_conforming_strings") != Some("off"), &Arc::default());
        match analyzer.read_again(sql.as_bytes()).effect.map(|effect| *effect) {
            Some(Effect::Set(name, value)) => self.set(sql, &name, value).await,
            Some(Effect::ResetAll) => {
                self.refuse_inside("RESET ALL")?;
                self.want = self.startup.clone();
                message::command_complete(&mut self.to_client, b"RESET");
                Ok(())
            }
            Some(Effect::DiscardAll) => {
                self.refuse_inside("DISCARD ALL")?;
                self.want = self.startup.clone();
                self.names.statements.clear();
                self.names.prepared.clear();
                self.names.portals.clear();
                message::command_complete(&mut self.to_client, b"DISCARD ALL");
                Ok(())
            }
            Some(Effect::DeallocateAll) => {
                self.names.statements.retain(|name, _| name.is_empty());
                self.names.prepared.clear();
                message::command_complete(&mut self.to_client, b"DEALLOCATE ALL");
                Ok(())
            }
            Some(Effect::Deallocate(name)) => {
                let prepared = std::str::from_utf8(&name).is_ok_and(|name| self.names.prepared.remove(name).is_some());
                if !prepared && self.names.statements.remove(name.as_slice()).is_none() {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    let what = format!("prepared statement \"{name}\" does not exist");
                    return Err(Trouble::Reply(Failure::error("26000", what)));
                }
                message::command_complete(&mut self.to_client, b"DEALLOCATE");
                Ok(())
            }
            Some(Effect::Several(_) | Effect::DiscardSequences) | None => self.local_setting(sql, leading).await,
        }
    }

    fn refuse_inside(&self, command: &str) -> Result<(), Trouble> {
        if self.transaction.status() == Status::Idle {
            return Ok(());
        }
        Err(Trouble::Reply(Failure::error("25001", format!("{command} cannot run inside a transaction block"))))
    }

    /// `SET name = value` or `RESET name`, for the session.
    async fn set(&mut self, sql: &str, name: &str, value: Option<Value>) -> Result<(), Trouble> {
        let lower = name.to_ascii_lowercase();
        if READ_BY_ROUTER.contains(&lower.as_str()) && self.transaction.status() != Status::Idle {
            let what = format!("{lower} cannot be changed inside a transaction block of a sharded database");
            return Err(Trouble::Reply(Failure::error("0A000", what).hint("Set it before BEGIN.")));
        }
        if self.transaction.has_savepoints() {
            let what = "SET after SAVEPOINT is not supported in a sharded database";
            return Err(Trouble::Reply(
                Failure::error("0A000", what).hint("Use SET LOCAL, or set it before SAVEPOINT."),
            ));
        }
        let mut wanted: Settings = (*self.want).clone();
        let initial = self.startup.iter().find(|(other, _)| *other == lower).map(|(_, value)| value.clone());
        change(&mut wanted, name, value, initial);
        self.on_joined(sql).await?;
        let wanted = self.intern(wanted);
        for link in self.links.iter_mut().flatten() {
            link.conn.state.settings = wanted.clone();
        }
        self.want = wanted;
        self.tell_parameters();
        Ok(())
    }

    /// SET LOCAL, SET TRANSACTION and SET CONSTRAINTS; everything else is refused.
    async fn local_setting(&mut self, sql: &str, leading: [Keyword; 3]) -> Result<(), Trouble> {
        let words: Vec<String> = sql.split_whitespace().take(3).map(str::to_ascii_lowercase).collect();
        let second = words.get(1).map_or("", String::as_str);
        let read_by_router = READ_BY_ROUTER.iter().any(|name| sql.to_ascii_lowercase().contains(name));
        if leading[0] != Keyword::Set || !matches!(second, "local" | "transaction" | "constraints") || read_by_router {
            return Err(Trouble::Reply(
                Failure::error("0A000", "this change of the session is not supported in a sharded database")
                    .hint("Plain SET name = value, RESET, SET LOCAL, SET TRANSACTION and SET CONSTRAINTS are."),
            ));
        }
        if self.transaction.status() == Status::Idle {
            message::warning(&mut self.to_client, "25P01", "this SET can only be used in transaction blocks");
            let tag: &[u8] = if second == "constraints" { b"SET CONSTRAINTS" } else { b"SET" };
            message::command_complete(&mut self.to_client, tag);
            return Ok(());
        }
        self.on_joined(sql).await?;
        self.transaction.local(sql);
        Ok(())
    }

    /// Runs a setting on the shards that joined; where none has, on the first, which says whether it is valid.
    async fn on_joined(&mut self, sql: &str) -> Result<(), Trouble> {
        let mut shards: Vec<usize> = self.transaction.shards().collect();
        if shards.is_empty() {
            shards.push(0);
        }
        self.attach(&shards, false).await?;
        for &shard in &shards {
            self.link(shard)?.query(sql.as_bytes());
        }
        let frames = self
            .gather(&shards, |gather, shard, frame| {
                // What it changes of reported parameters is told below, once.
                if frame.tag != b'S' {
                    gather.take(shard, frame.bytes);
                }
                frame.tag == b'Z'
            })
            .await?;
        self.to_client.extend_from_slice(&frames);
        Ok(())
    }

    /// Tells the client of reported parameters that are not as it was told last.
    pub(super) fn tell_parameters(&mut self) {
        let Some(link) = self.links.iter().flatten().next() else { return };
        let reported = link.conn.state.reported.clone();
        if Arc::ptr_eq(&self.told, &reported) {
            return;
        }
        for pair in reported.iter().filter(|pair| !self.told.contains(pair)) {
            message::parameter_status(&mut self.to_client, &pair.0, &pair.1);
        }
        self.told = reported;
    }

    fn intern(&self, settings: Settings) -> Arc<Settings> {
        match self.links.iter().flatten().next() {
            Some(link) => link.interned(settings),
            None => Arc::new(settings),
        }
    }
}

/// Whether a statement is about the session.
pub(super) fn is_setting(leading: [Keyword; 3]) -> bool {
    matches!(leading[0], Keyword::Set | Keyword::Reset | Keyword::Show | Keyword::Discard | Keyword::Deallocate)
}
