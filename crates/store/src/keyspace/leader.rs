//! `/{cluster}/leader`: who leads. Lives as long as its lease; its create revision is the leadership (P5), so every
//! leader's write is guarded by it (I3).

use serde::{Deserialize, Serialize};

use super::{Keyspace, Kind, single};
use crate::Key;

/// The leader, as followers see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// Where its session and admin services listen.
    pub address: String,
}

/// The kind of this key.
pub struct LeaderKey;

impl Kind for LeaderKey {
    type Id = ();
    type Value = LeaderRecord;
    const WORD: &'static str = "leader";
    fn write((): &(), _: &mut String) {}
    fn read(segments: &[&str]) -> Option<()> {
        single(segments)
    }
}

impl Keyspace {
    /// The key of the leader.
    #[must_use]
    pub fn leader(&self) -> Key {
        self.key::<LeaderKey>(&())
    }
}
