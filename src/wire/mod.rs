//! PostgreSQL's frontend/backend protocol as bytes: frames and messages, no sockets.
