//! The integration tests: one binary, one module per subject, real PostgreSQL where it matters.

mod advise;
mod cli;
mod docker;
mod lint;
mod support;
mod templates;
mod tidy;
