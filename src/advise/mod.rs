//! Index recommendations with evidence from the planner.
//!
//! ```text
//! statements (template, example, calls) -> candidates      what an index could answer, from facts and catalog
//!                                       -> select          explored with the planner, solved without it, looked around, pruned
//!                                       -> Advice          what to create, with cost before and after
//! catalog, statements                   -> health          invalid indexes, foreign keys that deletes check without one
//! catalog                               -> existing        what to drop: covered by another, or never used
//! ```
//!
//! Pure and deterministic: costs come in through [`CostModel`], which `db/` implements over HypoPG and
//! [`estimate`] over the catalog's statistics. The same input gives the same advice.
//!
//! The measure is the planner's cost of each statement times its number of calls. An index is recommended
//! only when the plan of at least one statement uses it while every other recommendation is in place, and when
//! it clears the thresholds of [`Options`].

pub mod candidates;
mod columns;
pub mod ddl;
pub mod estimate;
pub mod existing;
mod explore;
mod expressions;
pub mod health;
pub mod input;
pub mod model;
pub mod parameters;
mod partial;
mod select;
pub mod sharding;
mod solve;
mod tour;
mod whatif;
mod worth;

pub use existing::{Redundant, Unused};
pub use health::{Invalid, UnindexedKey};
pub use model::{
    Advice, CostFailure, CostModel, Definition, Evidence, Key, Method, Options, Plans, Priced, Recommendation,
    Statement, Step,
};
pub use select::{Progress, Spent, advise};
