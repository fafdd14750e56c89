//! Templates with counts and latencies, gathered from anywhere, mergeable.
