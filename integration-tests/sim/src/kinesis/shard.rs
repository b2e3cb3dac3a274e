//! A shard: its place in the lineage, its records, and what of them is still there.

use std::time::Duration;

use bytes::Bytes;

use super::{
    number::Number,
    quota::{Calls, ReadBytes, Writes},
};

/// A record as it is stored.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its place.
    pub number: Number,
    /// The partition key.
    pub key: String,
    /// As written.
    pub data: Bytes,
    /// `ApproximateArrivalTimestamp`, in ms since 1970. Not monotonic.
    pub arrived: u64,
    /// True time.
    pub stored: Duration,
}

impl Record {
    /// What quotas count.
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + self.data.len()
    }
}

/// How a shard came to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub number: Number,
    pub at: Duration,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub index: u32,
    /// First and last hash key.
    pub range: (u128, u128),
    /// None, one after a split, two after a merge.
    pub parents: Vec<u32>,
    pub opened: Duration,
    pub closed: Option<Closed>,
    /// Past its retention: the service does not know it any more.
    pub gone: bool,
    pub reads: Calls,
    pub iterators: Calls,
    pub read_bytes: ReadBytes,
    pub writes: Writes,
    born: u64,
    count: u64,
    records: Vec<Record>,
    trimmed: usize,
}

impl Shard {
    pub(super) fn new(index: u32, range: (u128, u128), parents: Vec<u32>, opened: Duration) -> Self {
        Self {
            index,
            range,
            parents,
            opened,
            closed: None,
            gone: false,
            reads: Calls::default(),
            iterators: Calls::default(),
            read_bytes: ReadBytes::default(),
            writes: Writes::default(),
            born: super::wall_ms(opened),
            count: 1,
            records: Vec::new(),
            trimmed: 0,
        }
    }

    pub(super) fn id(&self) -> String {
        shard_id(self.index)
    }

    /// Where it begins: below all of its records.
    pub(super) fn first(&self) -> Number {
        Number { born: self.born, count: 0, shard: self.index }
    }

    /// Above everything that is in it, and not above anything that will be.
    pub(super) fn tip(&self) -> Number {
        Number { born: self.born, count: self.count, shard: self.index }
    }

    /// Whether a number may come from here.
    pub(super) fn owns(&self, number: Number) -> bool {
        let last = self.closed.map_or(self.tip(), |closed| closed.number);
        number.shard == self.index && number.born == self.born && number <= last
    }

    /// Stores a record.
    pub(super) fn push(&mut self, now: Duration, arrived: u64, key: String, data: Bytes) -> Number {
        let number = self.advance();
        self.records.push(Record { number, key, data, arrived, stored: now });
        number
    }

    /// Uses up a number. They rise by more than one, and a little irregularly, as the service's do.
    pub(super) fn advance(&mut self) -> Number {
        let number = self.tip();
        self.count += 1 + (self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61);
        number
    }

    pub(super) fn close(&mut self, now: Duration) {
        self.closed = Some(Closed { number: self.tip(), at: now });
    }

    /// What is there from a place on.
    pub(super) fn from(&self, place: Number) -> &[Record] {
        let first = self.records.partition_point(|record| record.number < place);
        &self.records[first.max(self.trimmed)..]
    }

    /// The place of the first record that arrived at this moment or later.
    pub(super) fn since(&self, arrived: u64) -> Number {
        let found = self.records[self.trimmed..].iter().find(|record| record.arrived >= arrived);
        found.map_or(self.tip(), |record| record.number)
    }

    /// Everything that ever was in it, and how much of that is gone.
    pub(super) fn all(&self) -> (&[Record], usize) {
        (&self.records, self.trimmed)
    }

    /// Lets go what is older than the retention.
    pub(super) fn age(&mut self, now: Duration, retention: Duration) {
        let Some(horizon) = now.checked_sub(retention) else { return };
        while self.records.get(self.trimmed).is_some_and(|record| record.stored < horizon) {
            self.trimmed += 1;
        }
        if self.closed.is_some_and(|closed| closed.at < horizon) {
            self.trimmed = self.records.len();
            self.gone = true;
        }
    }

    /// Lets go what is below a number; all of it makes a closed shard go. Returns how many records went.
    pub(super) fn trim(&mut self, below: Number) -> usize {
        let before = self.trimmed;
        self.trimmed = self.records.partition_point(|record| record.number < below).max(before);
        if self.closed.is_some_and(|closed| below >= closed.number) {
            self.gone = true;
        }
        self.trimmed - before
    }
}

/// A shard's name.
#[must_use]
pub fn shard_id(index: u32) -> String {
    format!("shardId-{index:012}")
}

/// The shard of a name.
pub(super) fn shard_index(id: &str) -> Option<u32> {
    id.strip_prefix("shardId-").and_then(|digits| digits.parse().ok())
}
