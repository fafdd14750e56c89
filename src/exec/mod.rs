//! Turns a plan into a stream of rows over the shards it names.
//!
//! Everything here is a state machine without I/O: the proxy feeds it what clients and servers said and
//! sends what it answers, so that tests can drive every interleaving.
//!
//! ```text
//! BEGIN .. COMMIT of a client -> control -> transaction (which shards joined, who wrote, savepoints)
//! COMMIT over several shards  -> commit  (in waves; what the client may be told afterwards)
//!                             -> commit_atomic (on all or none), recovery (of what a dead one left)
//!                             -> waits   (transactions that wait for each other)
//! one statement on all shards -> gather  (every shard's answer -> one answer, or one error)
//! one query on several shards -> concat  (each shard's rows -> one answer)
//!                             -> merge   (the same, where each shard's rows are in order)
//! COPY into several shards     -> copy    (rows, each with its key)
//! one query on rows of several -> collect (each shard's rows -> parameters of a query on one)
//! ```

pub mod collect;
pub mod commit;
pub mod commit_atomic;
pub mod concat;
pub mod control;
pub mod copy;
pub mod gather;
pub mod merge;
#[cfg(test)]
mod model;
pub mod recovery;
pub mod transaction;
pub mod waits;

/// A shard's place in its database's configuration.
pub type Shard = usize;
