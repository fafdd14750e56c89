//! What stands behind a finding, and the door to the strongest of it: PostgreSQL's own planner.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::sql::explain::PlanNode;

/// What stands behind a finding, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The statement's text alone.
    Syntax,
    /// A catalog says so.
    Schema,
    /// Row counts or column statistics say so.
    Stats,
    /// PostgreSQL's planner says so.
    Plan,
    /// What the log shows: order, timing, sessions.
    Workload,
}

impl Evidence {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Schema => "schema",
            Self::Stats => "stats",
            Self::Plan => "plan",
            Self::Workload => "workload",
        }
    }
}

/// Asks PostgreSQL for a plan, without running the statement. Implemented where servers are known (`db/`).
pub trait PlanEvidence {
    /// The plan of a statement with `parameters` placeholders (`$1` and on), for values unknown.
    ///
    /// Fails when the server refuses the statement or cannot be reached.
    fn explain(&mut self, statement: &str, parameters: u32) -> Result<PlanNode>;
}
