//! Index recommendations with evidence from the planner.
