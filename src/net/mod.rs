//! Sockets: TLS on both sides, authentication of clients and to servers.
