//! The control path over tokio-postgres: catalogs, plans, HypoPG, local clusters.
//!
//! ```text
//! URL -> connect -> session (read-only habits) -> catalog      tables, indexes, statistics as plain data
//!                                              -> planner      EXPLAIN of a statement, never the statement itself
//!                                              -> hypopg       costs under indexes that do not exist
//!                                              -> statements   pg_stat_statements as a workload
//!                                              -> commits      decisions about transactions over shards
//!                                              -> waits        who waits for whom
//! ```
//!
//! But for [`commits`], which `pgweir init` is asked for, nothing here creates anything on a user's database or runs a user's statement. What is read is read
//! in transactions that are READ ONLY and carry a statement timeout and a lock timeout, so that a
//! forgotten `ALTER TABLE` on the other side makes an error here, not a queue behind us there.
//! [`blocking`] is the facade that the command line uses.

pub mod blocking;
pub mod catalog;
mod catalog_sql;
pub mod commits;
pub mod connect;
mod fault;
pub mod hypopg;
pub mod local;
pub mod planner;
pub mod statements;
mod tls;
pub mod waits;

pub use connect::connect;
pub use fault::explain_failure;
pub use planner::{Limits, PlanFailure, Planner};
