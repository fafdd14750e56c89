//! Findings and recommendations as text, tables and JSON.

pub mod advise;
pub mod lint;
