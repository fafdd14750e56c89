//! Sockets: TLS on both sides, authentication of clients and to servers.
//!
//! ```text
//! listener      -> a client's socket, TCP or unix
//! client socket -> accept (TLS, startup packet, CancelRequest) -> ask (who it is) -> a session's stream
//! ServerTarget  -> connect (TLS as sslmode says)               -> prove (who we are) -> a link's stream
//! channel       <> another process of this machine, which takes over
//! ```
//!
//! TLS is negotiated here and not by a library, because what a peer sent in plain text before the
//! handshake must never be read after it (CVE-2021-23214, CVE-2021-23222).

pub mod accept;
pub mod ask;
pub mod certificate;
pub mod channel;
pub mod connect;
pub mod dialogue;
pub mod listener;
pub mod prove;
pub mod scram;
pub mod stream;
pub mod tls;
