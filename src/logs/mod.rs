//! PostgreSQL logs of every format as one stream of entries.
