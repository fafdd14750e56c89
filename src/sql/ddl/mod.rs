//! A schema file (pg_dump's or hand-written) to a [`Catalog`].

use crate::sql::catalog::{Catalog, CatalogSource};

/// Something in a schema file that the catalog does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdlProblem {
    /// What it is, for people.
    pub what: String,
    /// The line (from 1) where its statement begins.
    pub line: u32,
}

/// The catalog that a schema file describes, and what in it was not understood.
pub fn catalog_from_ddl(_sql: &str) -> (Catalog, Vec<DdlProblem>) {
    (Catalog::new(CatalogSource::Ddl), Vec::new())
}
