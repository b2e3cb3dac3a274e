//! Identities that survive a rename: an object's ULID, and the creation moment of a stream.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// Identity of a catalog object (source, sink, …), made by the leader. A name maps to it; dropping frees the name at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(Ulid);

impl ObjectId {
    /// The id whose time part is `at_ms` and whose random part is `random` (80 bits are used).
    #[must_use]
    pub fn from_parts(at_ms: u64, random: u128) -> Self {
        Self(Ulid::from_parts(at_ms, random))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A text that is not the id it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not {1}")]
pub struct ParseIdError(pub String, pub &'static str);

impl FromStr for ObjectId {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(s).map(Self).map_err(|_| ParseIdError(s.to_owned(), "an object id"))
    }
}

/// When the stream behind a source was created, in milliseconds since 1970. A stream that is deleted and created again
/// under the same name has another one, so nothing of its ancestor is taken for its own (scenario S13).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Creation(pub i64);

impl fmt::Display for Creation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
