//! The integration tests: one binary, one module per subject, real PostgreSQL where it matters.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod advise;
mod atomic;
mod cli;
mod demo;
mod docker;
mod drivers;
mod explain;
mod findings;
mod from_pgbouncer;
mod hardening;
mod lint;
mod lint_inputs;
mod lint_outputs;
mod lint_plans;
mod live;
mod pgbadger;
mod placement;
mod proxy;
mod sharded;
mod support;
mod templates;
mod tidy;
