//! A client's conversation with a sharded database.
//!
//! Where a client of an unsharded database has one server connection and its bytes pass through, a client here
//! has one for each shard that its transaction touched, and each statement is planned first:
//!
//! ```text
//! Query, or Parse .. Execute -> planned (once per template) -> route for these constants
//!    single, any, catalog -> that shard's link, answers passed on as they come
//!    several              -> these shards' links, their rows one shard after the other (exec::concat)
//!    merge                -> the same, where their rows come in order, which stays (exec::merge)
//!    collect              -> rows of these shards, as arrays, to the first, which computes the answer (exec::collect)
//!    spread               -> each of these shards' links writes its own rows; one answer for all (exec::concat)
//!    all                  -> every shard's link, in one transaction; gathered to one answer
//!    control              -> exec::transaction; commit over the shards that joined (atomic, and later recovery)
//!    refuse               -> 0A000 with the reason
//! ```
//!
//! Messages of the extended protocol are collected up to Sync or Flush and then run in groups of one
//! target each, in order. A statement is prepared where it is bound. Connections go back to their pools at the
//! end of the transaction; one whose state is not known to be clean is closed instead.
//!
//! What cannot be kept over several servers is refused, never approximated: session state that pins
//! (LISTEN, temporary tables, advisory locks), another `search_path`.

mod apart;
mod ask;
mod atomic;
mod batch;
mod collect;
mod copy;
mod counted;
mod deadlock;
mod execute;
mod explain;
mod extended;
mod guarded;
mod link;
mod merge;
mod moved;
mod names;
mod numbers;
mod planned;
mod post;
mod prepare;
mod recovery;
mod run;
mod scatter;
mod selected;
mod session;
mod settings;
mod simple;
mod snapshot;
mod spread;

pub use session::{ShardedSession, Visitor};
pub use snapshot::Shared;
