//! `/{cluster}/schema`: which layout of keys this is, and which generation of the store. Written by the leader only
//! (see [`crate::schema`]), and by whoever restores a backup ([`crate::Backup`]) while nobody leads.

use serde::{Deserialize, Serialize};

use super::{Keyspace, Kind, single};
use crate::Key;

/// The layout and the life of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Schema {
    /// Version of the keys and values.
    pub version: u32,
    /// The oldest layout whose releases may still work here: a change that only adds something leaves them in. 0: `version`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub readable_from: u32,
    /// Grows with each restore: the first half of every epoch.
    pub generation: u64,
    /// True from the beginning of a generation until a leader has seen to it that nothing of the former one is left: its
    /// assignments are removed, and no gate opens while a run of it, which no key names, may still write (I11).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begins: bool,
}

/// Serde asks for a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Schema {
    /// This layout and its first generation.
    #[must_use]
    pub fn first(version: u32) -> Self {
        Self { version, readable_from: 0, generation: 1, begins: false }
    }

    /// The oldest layout whose releases may work here.
    #[must_use]
    pub fn oldest_reader(&self) -> u32 {
        if self.readable_from == 0 { self.version } else { self.readable_from }
    }
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
