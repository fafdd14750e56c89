//! The control path over tokio-postgres: catalogs, plans, HypoPG, local clusters.
