//! A record as the source handed it out, before decoding.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Cursor;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl fmt::Display for Timestamp {
    /// RFC 3339 with milliseconds; a moment that the calendar cannot write is printed as its number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_millis(self.0) {
            Some(at) => write!(f, "{}", at.format("%Y-%m-%dT%H:%M:%S%.3fZ")),
            None => write!(f, "{}", self.0),
        }
    }
}

/// One record of a split. Aggregates are already opened: this is what a user calls a record.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Its own place: a position `After(cursor)` continues with the next record.
    pub cursor: Cursor,
    /// The key under which it was written (for Kinesis the partition key, UTF-8).
    pub key: Bytes,
    /// Its bytes, as written.
    pub payload: Bytes,
    /// When the service took it. Not monotonic within a split.
    pub arrived_at: Timestamp,
}

impl RawRecord {
    /// Bytes that it holds in memory, roughly: what the byte budget counts.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.len() + self.payload.len() + self.cursor.as_str().len() + size_of::<Self>()
    }
}
