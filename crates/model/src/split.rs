//! Splits and their lineage.

use serde::{Deserialize, Serialize};

use crate::{SplitId, StartFrom, Timestamp};

/// The part of the key space that a split owns, both ends inclusive (for Kinesis the hash key range).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashRange {
    /// First hash.
    pub first: u128,
    /// Last hash.
    pub last: u128,
}

/// Written as two decimal texts: JSON readers lose 128-bit numbers.
impl Serialize for HashRange {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.first.to_string(), self.last.to_string()).serialize(s)
    }
}

impl<'de> Deserialize<'de> for HashRange {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (first, last) = <(String, String)>::deserialize(d)?;
        let number = |text: &str| text.parse::<u128>().map_err(serde::de::Error::custom);
        Ok(Self { first: number(&first)?, last: number(&last)? })
    }
}

/// A split as its source lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Its identity.
    pub id: SplitId,
    /// None for a root, one after a split, two after a merge. Parents may be gone from the listing.
    pub parents: Vec<SplitId>,
    /// What it owns of the key space, where the source says so.
    pub range: Option<HashRange>,
    /// True when nothing is written to it any more.
    pub closed: bool,
}

/// Whether a split is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitState {
    /// The source lists it.
    Listed,
    /// It was listed once and is gone: two full listings without it, and the service says that it does not exist. It counts
    /// as ended. The record stays as a tombstone until its children can no longer ask for it.
    Gone {
        /// When that was seen (the leader's clock).
        at: Timestamp,
    },
}

/// A split in the metadata store: `/split/{source}/{creation}/{split}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// Names of its parents, same creation.
    pub parents: Vec<String>,
    /// See [`Split::range`].
    pub range: Option<HashRange>,
    /// Where a sink that has no checkpoint begins.
    pub start: StartFrom,
    /// Whether it is still there.
    pub state: SplitState,
    /// See [`Split::closed`].
    pub closed: bool,
    /// When a listing first showed it closed (the service's clock); unknown for a split that went while it was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// When it was first listed (the leader's clock).
    pub discovered_at: Timestamp,
    /// The same moment by the service's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub there_since: Option<Timestamp>,
}
