//! `/{cluster}/schema`: which layout of keys this is, and which generation of the store. Written by the leader only
//! (see [`crate::schema`]).

use serde::{Deserialize, Serialize};

use super::{Keyspace, Kind, single};
use crate::Key;

/// The layout and the life of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Schema {
    /// Version of the keys and values; a newer one than ours is refused.
    pub version: u32,
    /// Counts restores: the first half of every epoch.
    pub generation: u64,
}

/// The kind of this key.
pub struct SchemaKey;

impl Kind for SchemaKey {
    type Id = ();
    type Value = Schema;
    const WORD: &'static str = "schema";
    fn write((): &(), _: &mut String) {}
    fn read(segments: &[&str]) -> Option<()> {
        single(segments)
    }
}

impl Keyspace {
    /// The key of the schema.
    #[must_use]
    pub fn schema(&self) -> Key {
        self.key::<SchemaKey>(&())
    }
}
