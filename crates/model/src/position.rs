//! Places in a split.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{SplitId, Timestamp};

/// Opaque place in a split, written and read by one connector. Its text is `offset` or `offset:sub`, where `sub` counts the
/// records inside one aggregated record. Outside their connector cursors may be equal or not, and are in no order. Cheap to
/// clone: every row of every sink has one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Arc<str>);

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl Cursor {
    /// Wraps the connector's text.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The whole text, as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part users know (for Kinesis the sequence number), without the place inside an aggregate.
    #[must_use]
    pub fn offset(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(offset, _)| offset)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where reading begins when nothing was read yet. `latest` is not here: it becomes `At` when the source is created and is
/// never evaluated again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// The oldest record that the split still holds.
    Horizon,
    /// The first record that arrived at or after this moment (the service's clock).
    At(Timestamp),
    /// This record itself, then what follows.
    AtCursor(Cursor),
}

/// How far a task is in its split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Nothing was delivered yet.
    Start(StartFrom),
    /// Everything up to and including this cursor was delivered (or dead-lettered).
    After(Cursor),
    /// The split is closed and everything in it was delivered. Final.
    End,
}

impl Position {
    /// True for `End`.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::End)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(StartFrom::Horizon) => f.write_str("start (horizon)"),
            Self::Start(StartFrom::At(at)) => write!(f, "start (at {at})"),
            Self::Start(StartFrom::AtCursor(cursor)) => write!(f, "start (at {cursor})"),
            Self::After(cursor) => write!(f, "after {cursor}"),
            Self::End => f.write_str("end"),
        }
    }
}

/// Where the splits of a source's first listing begin; every split discovered later begins at its horizon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// For every split that `splits` does not name.
    pub default: StartFrom,
    /// Exceptions, by the split's name (`scan.startup.sequence_number` lists).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub splits: BTreeMap<String, StartFrom>,
}

impl Start {
    /// One start for all splits.
    #[must_use]
    pub fn all(from: StartFrom) -> Self {
        Self { default: from, splits: BTreeMap::new() }
    }

    /// The start of one split of the first listing.
    #[must_use]
    pub fn of(&self, split: &SplitId) -> &StartFrom {
        self.splits.get(split.name()).unwrap_or(&self.default)
    }
}
