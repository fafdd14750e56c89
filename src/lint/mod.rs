//! Rules over templates: findings with evidence.

mod evidence;

pub use evidence::{Evidence, PlanEvidence};
