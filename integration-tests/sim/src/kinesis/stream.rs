//! A stream: its shards, how keys find them, and how they are split and merged.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use md5::{Digest, Md5};

use super::{
    consumer::Consumer,
    number::Number,
    quota::Calls,
    refusal::Refusal,
    shard::{Shard, shard_id, shard_index},
};

/// What a stream is made with.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many shards it begins with.
    pub shards: u32,
    /// How long records stay.
    pub retention: Duration,
    /// `MaxRecordSizeInKiB`, in bytes.
    pub record_max: usize,
    /// The distribution strategy AUTO: shards are chosen without regard to the key, and keys are not handed out (S19).
    pub auto: bool,
    /// How far back an arrival time may be off.
    pub wobble: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            shards: 1,
            retention: Duration::from_secs(24 * 3600),
            record_max: 1024 * 1024,
            auto: false,
            wobble: Duration::from_millis(20),
        }
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub name: String,
    pub shape: Shape,
    pub created: Duration,
    pub shards: BTreeMap<u32, Shard>,
    pub consumers: BTreeMap<String, Consumer>,
    pub describes: Calls,
    pub summaries: Calls,
    /// The open shards by the beginning of their range.
    open: BTreeMap<u128, u32>,
    stored: u64,
}

impl Stream {
    pub(super) fn new(name: &str, shape: Shape, created: Duration) -> Self {
        let mut stream = Self {
            name: name.to_owned(),
            shape,
            created,
            shards: BTreeMap::new(),
            consumers: BTreeMap::new(),
            describes: Calls::default(),
            summaries: Calls::default(),
            open: BTreeMap::new(),
            stored: 0,
        };
        for (first, last) in ranges(shape.shards) {
            stream.open_shard(created, (first, last), Vec::new());
        }
        stream
    }

    pub(super) fn arn(&self) -> String {
        super::arn(&self.name)
    }

    /// `StreamCreationTimestamp`: whole seconds.
    pub(super) fn created_at(&self) -> u64 {
        super::wall_ms(self.created) / 1000
    }

    /// The indexes of its open shards, in the order of their ranges.
    pub(super) fn open(&self) -> impl Iterator<Item = u32> {
        self.open.values().copied()
    }

    /// A shard that is there.
    pub(super) fn shard(&mut self, now: Duration, index: u32) -> Result<&mut Shard, Refusal> {
        let retention = self.shape.retention;
        let unknown = || no_shard(&shard_id(index), &self.name);
        let shard = self.shards.get_mut(&index).ok_or_else(unknown)?;
        shard.age(now, retention);
        if shard.gone { Err(unknown()) } else { Ok(shard) }
    }

    /// As [`Stream::shard`], by name.
    pub(super) fn shard_named(&mut self, now: Duration, id: &str) -> Result<&mut Shard, Refusal> {
        match shard_index(id) {
            Some(index) => self.shard(now, index),
            None => Err(no_shard(id, &self.name)),
        }
    }

    /// Lets go whatever is older than the retention, everywhere.
    pub(super) fn age(&mut self, now: Duration) {
        for shard in self.shards.values_mut() {
            shard.age(now, self.shape.retention);
        }
    }

    /// Which shard takes a record.
    pub(super) fn route(&self, key: &str, hash_key: Option<u128>) -> u32 {
        if self.shape.auto {
            let turn = usize::try_from(self.stored).unwrap_or(0) % self.open.len();
            return self.open.values().copied().nth(turn).expect("a remainder is below the length");
        }
        let hash = hash_key.unwrap_or_else(|| hash_of(key));
        *self.open.range(..=hash).next_back().expect("open shards cover all hash keys").1
    }

    /// Stores a record in an open shard.
    pub(super) fn push(&mut self, now: Duration, shard: u32, key: String, data: Bytes) -> Number {
        self.stored += 1;
        let wobble = u64::try_from(self.shape.wobble.as_millis()).unwrap_or(0);
        let late = self.stored.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let arrived = super::wall_ms(now).saturating_sub(late % (wobble + 1));
        let shard = self.shards.get_mut(&shard).expect("records are routed to shards that are there");
        shard.push(now, arrived.max(super::wall_ms(self.created)), key, data)
    }

    /// Splits an open shard; the second child begins at `at`. Returns the children.
    pub(super) fn split(&mut self, now: Duration, index: u32, at: u128) -> Result<[u32; 2], Refusal> {
        let (first, last) = self.range_of_open(index)?;
        if at <= first || at > last {
            return Err(Refusal::argument(format!("NewStartingHashKey {at} is not inside the shard.")));
        }
        self.close(now, index);
        let low = self.open_shard(now, (first, at - 1), vec![index]);
        let high = self.open_shard(now, (at, last), vec![index]);
        Ok([low, high])
    }

    /// Splits an open shard into equal halves.
    pub(super) fn halve(&mut self, now: Duration, index: u32) -> Result<[u32; 2], Refusal> {
        let (first, last) = self.range_of_open(index)?;
        self.split(now, index, first + (last - first) / 2 + 1)
    }

    /// Merges two open neighbours. Returns the child.
    pub(super) fn merge(&mut self, now: Duration, index: u32, adjacent: u32) -> Result<u32, Refusal> {
        let (a, b) = (self.range_of_open(index)?, self.range_of_open(adjacent)?);
        let range = if a.1.checked_add(1) == Some(b.0) {
            (a.0, b.1)
        } else if b.1.checked_add(1) == Some(a.0) {
            (b.0, a.1)
        } else {
            return Err(Refusal::argument("Shards are not adjacent."));
        };
        self.close(now, index);
        self.close(now, adjacent);
        Ok(self.open_shard(now, range, vec![index, adjacent]))
    }

    /// Splits and merges until there are `target` equal shards. As the service does, this may leave short-lived shards between.
    pub(super) fn scale(&mut self, now: Duration, target: u32) -> Result<(), Refusal> {
        for (first, last) in ranges(target) {
            let index = *self.open.range(..=first).next_back().expect("open shards cover all hash keys").1;
            if self.range_of_open(index)?.0 != first {
                self.split(now, index, first)?;
            }
            if last < u128::MAX {
                let index = *self.open.range(..=last).next_back().expect("as above").1;
                if self.range_of_open(index)?.1 != last {
                    self.split(now, index, last + 1)?;
                }
            }
            let mut inside: Vec<u32> = self.open.range(first..=last).map(|(_, &index)| index).collect();
            while let [one, other, rest @ ..] = inside.as_slice() {
                let merged = self.merge(now, *one, *other)?;
                inside = [&[merged], rest].concat();
            }
        }
        Ok(())
    }

    fn range_of_open(&self, index: u32) -> Result<(u128, u128), Refusal> {
        match self.shards.get(&index) {
            Some(shard) if shard.closed.is_none() => Ok(shard.range),
            Some(shard) => Err(Refusal::argument(format!("Shard {} is closed.", shard.id()))),
            None => Err(no_shard(&shard_id(index), &self.name)),
        }
    }

    fn close(&mut self, now: Duration, index: u32) {
        let shard = self.shards.get_mut(&index).expect("whoever closes a shard has looked it up");
        shard.close(now);
        self.open.remove(&shard.range.0);
    }

    fn open_shard(&mut self, now: Duration, range: (u128, u128), parents: Vec<u32>) -> u32 {
        let index = self.shards.last_key_value().map_or(0, |(last, _)| last + 1);
        self.shards.insert(index, Shard::new(index, range, parents, now));
        self.open.insert(range.0, index);
        index
    }
}

/// All hash keys in equal parts.
fn ranges(parts: u32) -> impl Iterator<Item = (u128, u128)> {
    let parts = u128::from(parts.max(1));
    let step = u128::MAX / parts;
    (0..parts).map(move |i| (i * step, if i + 1 == parts { u128::MAX } else { (i + 1) * step - 1 }))
}

/// Where a partition key falls.
fn hash_of(key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(key.as_bytes()).into())
}

fn no_shard(id: &str, stream: &str) -> Refusal {
    let account = super::ACCOUNT;
    Refusal::not_found(format!("Shard {id} in stream {stream} under account {account} does not exist"))
}
