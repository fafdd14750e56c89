//! Sockets: TLS on both sides, authentication of clients and to servers.
//!
//! ```text
//! client socket -> accept (SSLRequest, startup packet, CancelRequest) -> scram -> a session's stream
//! ServerTarget  -> connect (TLS as sslmode says, authentication)      -> a link's stream
//! ```
//!
//! TLS is negotiated here and not by a library, because what a peer sent in plain text before the
//! handshake must never be read after it (CVE-2021-23214, CVE-2021-23222).

pub mod accept;
pub mod connect;
pub mod dialogue;
pub mod scram;
pub mod stream;
pub mod tls;
