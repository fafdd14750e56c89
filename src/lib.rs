//! pgweir stands between an application and PostgreSQL: it *measures* every query (lint findings,
//! index recommendations) and *diverts* it (pooling, shards).
//!
//! # The floors
//!
//! A room imports only from floors below its own; rooms on one floor are strangers unless an arrow
//! says otherwise. `tests/it/tidy.rs` reads the imports and fails when a floor is broken.
//!
//! ```text
//! 5  cli                               arguments -> one call -> exit code
//! 4  proxy -> web                      a client's conversation; health and metrics
//! 3  exec -> pool -> net   db -> net   report
//! 2  lint -> route, workload   advise -> route, workload   logs -> workload   route     pure: no I/O runtime, no clock
//! 1  wire  sql  config                 bytes, text, settings: mutual strangers
//! 0  error
//! ```
//!
//! # Three flows on one spine
//!
//! - bytes -> frame -> template -> plan -> row stream -> bytes (`proxy`)
//! - log -> entry -> template -> finding -> report (`lint`)
//! - workload -> candidate -> cost -> recommendation -> report (`advise`)

pub mod advise;
pub mod cli;
pub mod config;
pub mod db;
pub mod error;
pub mod exec;
pub mod lint;
pub mod logs;
pub mod net;
pub mod pool;
pub mod proxy;
pub mod report;
pub mod route;
pub mod sql;
pub mod web;
pub mod wire;
pub mod workload;
