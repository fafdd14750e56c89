//! The control path for callers without a runtime: the command line's subcommands.

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::connect::Target;
use super::fault::explain_failure;
use super::planner::{Limits, PlanFailure, Planner};
use crate::error::{Error, Result};
use crate::lint::PlanEvidence;
use crate::sql::catalog::Catalog;
use crate::sql::explain::PlanNode;

/// One connection, driven by a runtime of its own on the calling thread.
pub struct Session {
    runtime: Runtime,
    client: Client,
    label: String,
}

impl Session {
    /// Connects to the server of `url`.
    ///
    /// # Errors
    /// The URL cannot be read, or the server cannot be reached or refuses.
    pub fn connect(url: &str) -> Result<Self> {
        let target = Target::parse(url)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::internal(format!("the runtime could not be started: {error}")))?;
        let client = runtime.block_on(target.connect())?;
        Ok(Self { runtime, client, label: target.label().to_owned() })
    }

    /// The server for messages, without the password.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// True once the server or the network ended the connection.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// See [`super::commits::standing`].
    ///
    /// # Errors
    /// As there, with the server's name.
    pub fn standing(&self) -> Result<super::commits::Standing> {
        self.block_on(super::commits::standing).map_err(|error| error.at(&self.label))
    }

    /// See [`super::commits::install`].
    ///
    /// # Errors
    /// As there, with the server's name.
    pub fn install(&self, id: &str, shard: &str, role: &str) -> Result<()> {
        self.block_on(|client| super::commits::install(client, id, shard, role)).map_err(|error| error.at(&self.label))
    }

    /// The rows of a query, as text, that may only read.
    ///
    /// # Errors
    /// The server's own, with its name.
    pub fn read(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let asked = format!("BEGIN READ ONLY; {sql}; COMMIT");
        let answers = self.block_on(|client| async move { client.simple_query(&asked).await });
        let answers = answers.map_err(|error| explain_failure(&error, "the server did not answer").at(&self.label))?;
        let row = |answer: SimpleQueryMessage| match answer {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(row).collect())
    }

    /// See [`super::catalog::load`].
    ///
    /// # Errors
    /// As there, with the server's name.
    pub fn catalog(&self) -> Result<Catalog> {
        self.block_on(super::catalog::load).map_err(|error| error.at(&self.label))
    }

    /// See [`Planner::generic`].
    ///
    /// # Errors
    /// As there.
    pub fn generic_plan(&self, sql: &str, limits: Limits) -> Result<PlanNode, PlanFailure> {
        self.block_on(|client| async move { Planner::new(client, limits).generic(sql).await })
    }

    /// See [`Planner::custom`].
    ///
    /// # Errors
    /// As there.
    pub fn custom_plan(&self, sql: &str, parameters: &[Option<&str>], limits: Limits) -> Result<PlanNode, PlanFailure> {
        self.block_on(|client| async move { Planner::new(client, limits).custom(sql, parameters).await })
    }

    /// The connection's word on why there is no plan, as an error with the server's name.
    fn no_plan(&self, failure: PlanFailure) -> Error {
        match failure {
            PlanFailure::Lost(error) => error.at(&self.label),
            other => Error::server(format!("PostgreSQL did not plan the statement: {other}")).at(&self.label),
        }
    }

    /// Runs one conversation with the server to its end.
    pub(super) fn block_on<'a, F>(&'a self, conversation: impl FnOnce(&'a Client) -> F) -> F::Output
    where
        F: Future + 'a,
    {
        self.runtime.block_on(conversation(&self.client))
    }
}

impl PlanEvidence for Session {
    fn explain(&mut self, statement: &str, parameters: u32) -> Result<PlanNode> {
        let limits = Limits::default();
        let plan = match parameters {
            0 => self.custom_plan(statement, &[], limits),
            _ => self.generic_plan(statement, limits),
        };
        plan.map_err(|failure| self.no_plan(failure))
    }
}
