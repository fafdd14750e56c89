//! Costs under indexes that do not exist, by the HypoPG extension.
//!
//! HypoPG keeps hypothetical indexes in the memory of one connection: nobody else sees them, nothing is written, and they
//! are gone when it closes. The extension itself is never created here: it must be there.
//!
//! Each question brings the connection's hypothetical indexes to the asked set by dropping and creating the
//! difference. A plan is always asked for anew: a generic plan that was prepared before a hypothesis does not see it,
//! and fails after one is dropped. Partial hypothetical indexes are there only while a statement of one block
//! over plain tables is planned (HypoPG issue 116: with a view they crash the server); `advise::partial` sees to that.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Client;

use super::blocking::Session;
use super::fault::{explain_failure, short};
use super::planner::{Limits, PlanFailure};
use crate::advise::ddl::{body, quote_table};
use crate::advise::{CostFailure, CostModel, Definition, Evidence, Priced, Statement};
use crate::error::{Error, Result};
use crate::sql::catalog::{Catalog, TableId, TableKind};
use crate::sql::explain::PlanNode;
use crate::sql::ident::quote;

/// Whether a database can do hypothetical indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// The extension is there, in this schema (as SQL).
    Installed {
        /// Its schema, quoted.
        schema: String,
    },
    /// The server has its files, the database does not have the extension.
    NotCreated,
    /// The server does not have it.
    Missing,
}

/// Looks for the extension in the connected database.
///
/// # Errors
/// The server cannot be asked.
pub fn availability(session: &Session) -> Result<Availability> {
    const QUESTION: &str = "
        select (select n.nspname::text from pg_catalog.pg_extension e
                join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'hypopg'),
               exists (select from pg_catalog.pg_available_extensions where name = 'hypopg')";
    let failure = |error: &tokio_postgres::Error| {
        explain_failure(error, "looking for the HypoPG extension failed").at(session.label())
    };
    let row = session.block_on(|client| client.query_one(QUESTION, &[])).map_err(|error| failure(&error))?;
    let schema: Option<String> = row.try_get(0).map_err(|error| failure(&error))?;
    let available: bool = row.try_get(1).map_err(|error| failure(&error))?;
    Ok(match (schema, available) {
        (Some(schema), _) => Availability::Installed { schema: quote(&schema).into_owned() },
        (None, true) => Availability::NotCreated,
        (None, false) => Availability::Missing,
    })
}

/// A hypothetical index on one table of the server.
#[derive(Debug, Clone)]
struct Hypothesis {
    oid: u32,
    name: String,
}

/// How a statement is best planned, found out at its first plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// With the constants in its text and the values the log recorded.
    Custom,
    /// Whatever the values are.
    Generic,
}

/// [`CostModel`] over one connection. The hypothetical indexes are dropped with it.
pub struct HypoPg<'s> {
    session: &'s Session,
    catalog: &'s Catalog,
    limits: Limits,
    schema: String,
    /// What the connection has now; a partitioned table's index is one for each of its leaves.
    installed: BTreeMap<Definition, Vec<Hypothesis>>,
    modes: HashMap<String, Mode>,
}

impl<'s> HypoPg<'s> {
    /// A model for a database whose extension lies in `schema` (see [`availability`]).
    pub fn new(session: &'s Session, catalog: &'s Catalog, schema: String, limits: Limits) -> Self {
        Self { session, catalog, limits, schema, installed: BTreeMap::new(), modes: HashMap::new() }
    }

    /// Brings the connection's hypothetical indexes to `set`.
    fn install(&mut self, set: &[&Definition]) -> Result<(), CostFailure> {
        let gone: Vec<Definition> = self.installed.keys().filter(|known| !set.contains(known)).cloned().collect();
        let mut oids = Vec::new();
        for definition in gone {
            oids.extend(self.installed.remove(&definition).into_iter().flatten().map(|index| index.oid));
        }
        self.drop_indexes(&oids)?;
        let missing: Vec<&Definition> =
            set.iter().copied().filter(|wanted| !self.installed.contains_key(*wanted)).collect();
        if missing.is_empty() || self.create_all(&missing)? {
            return Ok(());
        }
        // Some member cannot be made: one at a time shows which.
        for definition in missing {
            if let Err(reason) = self.create_one(definition)? {
                let at = set.iter().position(|known| *known == definition).unwrap_or(0);
                return Err(CostFailure::Index(at, reason));
            }
        }
        Ok(())
    }

    /// Which of `set` the index of that name stands for.
    fn place_of(&self, name: &String, set: &[&Definition]) -> Option<usize> {
        let is_named = |made: &Vec<Hypothesis>| made.iter().any(|index| &index.name == name);
        set.iter().position(|definition| self.installed.get(*definition).is_some_and(is_named))
    }

    fn drop_indexes(&self, oids: &[u32]) -> Result<(), CostFailure> {
        if oids.is_empty() {
            return Ok(());
        }
        let sql = format!("select {}.hypopg_drop_index(o) from unnest($1::oid[]) o", self.schema);
        let answer = self.session.block_on(|client| async move { client.query(&sql, &[&oids]).await });
        answer.map(drop).map_err(|error| self.lost(&error))
    }

    /// Makes them all in one round trip; false when one could not be, and then none is there.
    fn create_all(&mut self, definitions: &[&Definition]) -> Result<bool, CostFailure> {
        let mut texts = Vec::new();
        let mut owners = Vec::new();
        for definition in definitions {
            for leaf in self.leaves(definition.table) {
                texts.push(format!("CREATE INDEX ON {}", body(self.catalog.table(leaf), definition)));
                owners.push(*definition);
            }
        }
        match self.make(texts)? {
            Ok(made) => {
                for (definition, hypothesis) in owners.into_iter().zip(made) {
                    self.installed.entry(definition.clone()).or_default().push(hypothesis);
                }
                Ok(definitions.iter().all(|definition| self.installed.contains_key(*definition)))
            }
            Err(_) => {
                self.forget_unknown()?;
                Ok(false)
            }
        }
    }

    /// Makes one; the inner error is why it cannot be.
    fn create_one(&mut self, definition: &Definition) -> Result<Result<(), String>, CostFailure> {
        if self.installed.contains_key(definition) {
            return Ok(Ok(()));
        }
        let table = self.catalog.table(definition.table);
        let leaves = self.leaves(definition.table);
        if leaves.is_empty() {
            return Ok(Err(format!("{} has no partitions", quote_table(table))));
        }
        let texts =
            leaves.into_iter().map(|leaf| format!("CREATE INDEX ON {}", body(self.catalog.table(leaf), definition)));
        match self.make(texts.collect())? {
            Ok(made) => {
                self.installed.insert(definition.clone(), made);
                Ok(Ok(()))
            }
            Err(reason) => {
                self.forget_unknown()?;
                Ok(Err(format!("{}: {reason}", quote_table(table))))
            }
        }
    }

    /// Asks for hypothetical indexes in this order; the inner error is the server's word on one that cannot be.
    fn make(&self, texts: Vec<String>) -> Result<Result<Vec<Hypothesis>, String>, CostFailure> {
        let sql = format!(
            "select c.indexrelid, c.indexname::text from unnest($1::text[]) with ordinality u(t, n),
             lateral {}.hypopg_create_index(u.t) c order by u.n",
            self.schema
        );
        let lock_timeout = self.limits.lock_timeout_ms;
        match self.session.block_on(|client| create_indexes(client, sql, texts, lock_timeout)) {
            Ok(made) => Ok(Ok(made)),
            Err(error) if self.session.is_closed() => Err(self.lost(&error)),
            Err(error) => Ok(Err(short(&error))),
        }
    }

    /// Drops what a failed attempt left behind: hypotheses survive a rollback.
    fn forget_unknown(&self) -> Result<(), CostFailure> {
        let known: Vec<u32> = self.installed.values().flatten().map(|index| index.oid).collect();
        let sql = format!(
            "select {0}.hypopg_drop_index(i.indexrelid) from {0}.hypopg() i where i.indexrelid <> all ($1::oid[])",
            self.schema
        );
        let answer = self.session.block_on(|client| async move { client.query(&sql, &[&known]).await });
        answer.map(drop).map_err(|error| self.lost(&error))
    }

    /// The tables that hold rows: the table itself, or all leaves of a partitioned one.
    fn leaves(&self, table: TableId) -> Vec<TableId> {
        if self.catalog.table(table).kind != TableKind::Partitioned {
            return vec![table];
        }
        let mut leaves = Vec::new();
        let mut parents = vec![table];
        while let Some(parent) = parents.pop() {
            let name = &self.catalog.table(parent).name;
            for (id, child) in self.catalog.tables().filter(|(_, child)| child.partition_of.as_ref() == Some(name)) {
                match child.kind {
                    TableKind::Partitioned => parents.push(id),
                    TableKind::Table => leaves.push(id),
                    _ => {}
                }
            }
        }
        leaves
    }

    fn planned(&mut self, statement: &Statement) -> Result<PlanNode, CostFailure> {
        let mode = self.modes.get(&statement.sql).copied();
        let parameters: Vec<Option<&str>> = statement.parameters.iter().flatten().map(Option::as_deref).collect();
        // A NULL would fold the whole plan away and say nothing of the usual call.
        let usable = !parameters.contains(&None);
        let mut refusal = None;
        if mode != Some(Mode::Generic) && usable {
            match self.session.custom_plan(&statement.sql, &parameters, self.limits) {
                Ok(plan) => {
                    self.modes.insert(statement.sql.clone(), Mode::Custom);
                    return Ok(plan);
                }
                Err(failure) => refusal = Some(failure),
            }
        }
        if mode != Some(Mode::Custom) && !matches!(refusal, Some(PlanFailure::Lost(_) | PlanFailure::NotPlannable(_))) {
            match self.session.generic_plan(&statement.sql, self.limits) {
                Ok(plan) => {
                    self.modes.insert(statement.sql.clone(), Mode::Generic);
                    return Ok(plan);
                }
                Err(failure) => refusal = Some(failure),
            }
        }
        Err(match refusal {
            Some(PlanFailure::Lost(error)) => CostFailure::Fatal(error.at(self.session.label())),
            Some(other) => CostFailure::Statement(other.to_string()),
            None => CostFailure::Statement("it could not be planned".to_owned()),
        })
    }

    fn lost(&self, error: &tokio_postgres::Error) -> CostFailure {
        let what = "HypoPG failed";
        CostFailure::Fatal(explain_failure(error, what).at(self.session.label()))
    }
}

impl CostModel for HypoPg<'_> {
    fn evidence(&self, _: TableId) -> Evidence {
        Evidence::Plan
    }

    fn price(&mut self, statement: &Statement, set: &[&Definition]) -> Result<Priced, CostFailure> {
        self.install(set)?;
        let plan = self.planned(statement)?;
        let mut used = Vec::new();
        let mut existing = Vec::new();
        for name in plan.walk().into_iter().filter_map(|node| node.index.as_ref()) {
            match self.place_of(name, set) {
                Some(at) => used.push(at),
                None => existing.push(name.clone()),
            }
        }
        used.sort_unstable();
        used.dedup();
        Ok(Priced { cost: plan.total_cost, used, existing })
    }

    fn plan(&mut self, statement: &Statement, set: &[&Definition]) -> Option<PlanNode> {
        self.install(set).ok()?;
        let mut plan = self.planned(statement).ok()?;
        let mut nodes = vec![&mut plan];
        while let Some(node) = nodes.pop() {
            if let Some(at) = node.index.as_ref().and_then(|name| self.place_of(name, set)) {
                node.index = Some(format!("#{at}"));
            }
            nodes.extend(&mut node.children);
        }
        Some(plan)
    }

    fn size(&mut self, definition: &Definition) -> Result<u64, CostFailure> {
        if let Err(reason) = self.create_one(definition)? {
            return Err(CostFailure::Index(0, reason));
        }
        let oids: Vec<u32> = self.installed.get(definition).into_iter().flatten().map(|index| index.oid).collect();
        let sql = format!("select sum({}.hypopg_relation_size(o))::int8 from unnest($1::oid[]) o", self.schema);
        let row = self.session.block_on(|client| async move { client.query_one(&sql, &[&oids]).await });
        let row = row.map_err(|error| self.lost(&error))?;
        let bytes: i64 = row.try_get(0).map_err(|error| self.lost(&error))?;
        u64::try_from(bytes)
            .map_err(|_| CostFailure::Fatal(Error::server("HypoPG told a negative size").at(self.session.label())))
    }
}

impl Drop for HypoPg<'_> {
    fn drop(&mut self) {
        let oids: Vec<u32> = self.installed.values().flatten().map(|index| index.oid).collect();
        // The connection's end drops what this cannot.
        if let Err(failure) = self.drop_indexes(&oids) {
            tracing::debug!(?failure, "hypothetical indexes were left to the end of the connection");
        }
    }
}

async fn create_indexes(
    client: &Client,
    sql: String,
    texts: Vec<String>,
    lock_timeout_ms: u32,
) -> Result<Vec<Hypothesis>, tokio_postgres::Error> {
    let begin = format!("begin read only; set local lock_timeout = {lock_timeout_ms}");
    let texts: &(dyn tokio_postgres::types::ToSql + Sync) = &texts;
    let arguments = [(texts, tokio_postgres::types::Type::TEXT_ARRAY)];
    // Rolling back does not take a hypothesis away; it lets go of the lock on its table.
    let (begun, made, ended) = tokio::join!(
        client.batch_execute(&begin),
        client.query_typed(&sql, &arguments),
        client.batch_execute("rollback")
    );
    begun?;
    let rows = made?;
    ended?;
    rows.iter().map(|row| Ok(Hypothesis { oid: row.try_get(0)?, name: row.try_get(1)? })).collect()
}
