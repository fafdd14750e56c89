//! PostgreSQL's frontend/backend protocol as bytes: frames and messages, no sockets.
//!
//! ```text
//! bytes -> frame::header (bounded, validated) -> forwarded as they are
//!                                             -> body::Reader, when somebody must look inside
//! ```
//!
//! Nothing here trusts a length or a terminator: a frame is bounded before its body is touched, and a
//! body is read through [`body::Reader`], which cannot leave its slice. Messages that pgweir itself
//! says are written by [`message`]; on the edges (startup, authentication, errors) by pgwire's
//! encoders, whose decoders are not used because they panic on short frames.

pub mod body;
pub mod frame;
pub mod message;
pub mod startup;
