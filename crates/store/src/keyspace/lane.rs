//! `/{cluster}/lane/{worker}/{n}`: the serial of the last checkpoint transaction of a lane. Each such transaction is
//! guarded by its lane and rewrites it, so one whose answer was lost cannot land after its successor (P14).

use serde::{Deserialize, Serialize};

use super::{Keyspace, Kind, segment};
use crate::Key;

/// How far a lane is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lane {
    /// Serial of the last transaction that landed.
    pub serial: u64,
}

/// The kind of this key.
pub struct LaneKey;

impl Kind for LaneKey {
    type Id = (String, u32);
    type Value = Lane;
    const WORD: &'static str = "lane";
    fn write((worker, n): &Self::Id, path: &mut String) {
        segment::push(path, worker);
        segment::push(path, &n.to_string());
    }
    fn read(segments: &[&str]) -> Option<Self::Id> {
        let [worker, n] = segments else { return None };
        Some((segment::decode(worker)?, segment::number(n)?))
    }
}

impl Keyspace {
    /// The key of lane `n` of a worker.
    #[must_use]
    pub fn lane(&self, worker: &str, n: u32) -> Key {
        self.key::<LaneKey>(&(worker.to_owned(), n))
    }
}
