//! Turns a plan into a stream of rows over the shards it names.
