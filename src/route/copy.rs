//! COPY over shards.

use std::sync::Arc;

use super::key::{KeyType, Written};
use super::placement::{Placement, ShardId};
use crate::sql::facts::CopyFacts;

/// How a COPY runs on all shards.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The form of its data.
    pub form: CopyFacts,
    /// It stores rows.
    pub into: bool,
    /// Where a row that is stored belongs; on every shard without it.
    pub key: Option<KeyField>,
}

/// The field that says where a row belongs.
#[derive(Debug, Clone)]
pub struct KeyField {
    /// Its place among the fields, from 0.
    pub index: usize,
    /// How many fields there are.
    pub fields: usize,
    pub(super) key: KeyType,
    pub(super) placement: Arc<Placement>,
}

impl KeyField {
    /// The shard of a row with this key.
    ///
    /// # Errors
    /// What is wrong with it: it cannot be read for sure, or has no place.
    pub fn shard_of(&self, written: Written<'_>) -> Result<ShardId, String> {
        let value = self.key.read(written)?;
        if !self.key.stores(&value) {
            return Err("the value is longer than the column".to_owned());
        }
        self.placement.shard_of(&value).ok_or_else(|| "no shard is named for this value".to_owned())
    }
}
