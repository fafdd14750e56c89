//! A client's conversation: startup, transaction pooling, routing.
