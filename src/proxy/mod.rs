//! A client's conversation: startup, transaction pooling, routing.
//!
//! ```text
//! listen   accepts, deals sockets to workers (one thread, one event loop each)
//! crew     which worker serves whom; moves clients between workers
//! login    startup packet, SCRAM, what the server would have said at startup
//! session  the sockets of one client: polls both, one task, no timers, no channels
//!   conversation   what the bytes mean, without I/O: from_client, prepare, from_server, expect
//!   keeping        what the client keeps: its settings, and what pins it to a server connection
//!   analyzer       what a statement does to its session, once per template: changes, traces, functions, bodies, strangers; watch
//!   probe          asking the server what the session has become, where that cannot be known; pins say what stays
//! sharded  the same for a client of a sharded database, whose statements are planned and go to several servers
//! automatic databases that the configuration does not name
//! meter    counts, bytes and times of everything that passes
//! saved    what passed, as a file
//! guard    what statements are refused before they run; guarded: how
//! findings what the linter's rules say of it, off the clients' way
//! admin    the console: `psql -d pgweir`
//! ```
//!
//! A session holds no buffer while it is idle: bytes are read into memory of the worker thread and are
//! written on from there; only what could not be written, or is half a frame, stays with the session.

pub mod about;
pub mod account;
pub mod admin;
mod alone;
pub mod analyzer;
mod automatic;
pub mod backlog;
pub mod bodies;
pub mod bulk;
mod by_name;
pub mod care;
pub mod changes;
pub mod clients;
mod commands;
pub mod conversation;
pub mod crew;
pub mod database;
pub mod definitions;
mod describe;
pub mod examination;
pub mod expect;
pub mod findings;
pub mod from_client;
mod from_server;
pub mod functions;
pub mod gate;
mod given;
pub mod guard;
mod guarded;
pub mod handover;
mod heal;
pub mod keeping;
pub mod kin;
pub mod listen;
pub mod login;
pub mod logins;
pub mod lookup;
mod mentions;
pub mod meter;
mod metrics;
pub mod pins;
mod place;
mod plain;
mod prepare;
pub mod probe;
pub mod pulse;
pub mod readable;
pub mod reads;
pub mod renew;
mod saved;
pub mod segment;
mod sequences;
pub mod servers;
pub mod session;
mod shapes;
pub mod sharded;
mod single;
pub mod statements;
mod steward;
mod strangers;

pub mod system;
pub mod traces;
pub mod watch;
mod words;
