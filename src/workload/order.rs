//! By what statements are ranked.

use super::{Template, Workload};

/// What makes one statement matter more than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Time of all executions.
    #[default]
    Time,
    /// Executions.
    Calls,
    /// Time of one execution.
    Mean,
    /// Rows of all executions.
    Rows,
}

impl Order {
    /// Every order.
    pub const ALL: [Self; 4] = [Self::Time, Self::Calls, Self::Mean, Self::Rows];

    /// Its name in reports and options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Calls => "calls",
            Self::Mean => "mean",
            Self::Rows => "rows",
        }
    }

    /// What it ranks by, for titles.
    pub fn words(self) -> &'static str {
        match self {
            Self::Time => "total time",
            Self::Calls => "calls",
            Self::Mean => "mean time",
            Self::Rows => "rows",
        }
    }

    /// How much a template matters by it: milliseconds, executions or rows.
    pub fn weight(self, template: &Template) -> f64 {
        match self {
            Self::Time => template.total_ms,
            Self::Calls => template.count as f64,
            Self::Mean => template.mean_ms(),
            Self::Rows => template.rows as f64,
        }
    }
}

impl Workload {
    /// The `count` templates that matter most, those of no weight left out; the first seen first among equals.
    pub fn top(&self, order: Order, count: usize) -> Vec<&Template> {
        let mut all: Vec<&Template> = self.templates().iter().filter(|template| order.weight(template) > 0.0).collect();
        all.sort_by(|one, other| order.weight(other).total_cmp(&order.weight(one)));
        all.truncate(count);
        all
    }
}
