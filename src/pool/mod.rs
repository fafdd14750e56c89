//! Server connections: checked out for a transaction, returned only in a known clean state.
