//! The Kinesis of the simulation: what the service is known to do, good and bad (docs/kinesis.md), as one plain state that is
//! told the true time with each call. It has no clock, no runtime and no randomness but its seed's.
//!
//! [`Model::serve`] answers the requests of the real SDK; [`http`] carries them there over the simulated network. The world
//! itself calls the rest: it loads records, reshards, commands faults ([`Model::throttle`] and its neighbours in `fault`), and
//! reads a stream back for the ledger.

mod aggregate;
mod answer;
mod consumer;
mod describe;
mod fault;
mod frame;
pub mod http;
mod iterator;
mod list;
mod number;
mod pipe;
mod push;
mod quota;
mod read;
mod refusal;
mod serve;
mod shard;
mod stream;
mod write;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use rand::{SeedableRng as _, rngs::StdRng};

pub use self::{
    answer::Answer,
    fault::{EntryFailure, Throttle},
    number::Number,
    push::{Push, Subscription},
    refusal::Refusal,
    serve::Request,
    shard::{Record, shard_id},
    stream::Shape,
};
use self::{fault::Faults, push::Subscriptions, stream::Stream};
use crate::os::EPOCH_MS;

/// Whose streams these are.
pub(super) const ACCOUNT: &str = "123456789012";
/// Where they are.
pub const REGION: &str = "eu-west-1";

/// The service's clock, in ms since 1970: it is always right.
fn wall_ms(now: Duration) -> u64 {
    EPOCH_MS + u64::try_from(now.as_millis()).expect("a simulation is shorter than 500 million years")
}

/// A stream's ARN.
fn arn(stream: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{stream}")
}

/// A shard's records, and how many of them the service has let go.
#[derive(Debug)]
pub struct ShardRecords<'a> {
    /// Its number in the stream.
    pub shard: u32,
    /// All it ever took, in order.
    pub records: &'a [Record],
    /// So many of the first are gone: trimmed, or with their stream.
    pub gone: usize,
}

/// The service.
#[derive(Debug)]
pub struct Model {
    streams: BTreeMap<String, Stream>,
    /// Streams of earlier lives, for the ledger.
    deleted: Vec<Stream>,
    faults: Faults,
    subscriptions: Subscriptions,
    random: StdRng,
    empty_polls: u64,
}

impl Model {
    /// A service without streams.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            streams: BTreeMap::new(),
            deleted: Vec::new(),
            faults: Faults::default(),
            subscriptions: Subscriptions::default(),
            random: StdRng::seed_from_u64(seed ^ 0x006b_696e_6573_6973),
            empty_polls: 0,
        }
    }

    /// Makes a stream, in place of any of that name.
    pub fn create(&mut self, now: Duration, name: &str, shape: Shape) {
        self.delete(name);
        // Creation times have whole seconds, and the service takes longer than one to delete a stream.
        let earlier = self.deleted.iter().filter(|stream| stream.name == name).map(|stream| stream.created);
        let created = earlier.max().map_or(now, |earlier| now.max(earlier + Duration::from_secs(1)));
        self.streams.insert(name.to_owned(), Stream::new(name, shape, created));
    }

    /// Deletes a stream with all that is in it.
    pub fn delete(&mut self, name: &str) {
        self.deleted.extend(self.streams.remove(name));
    }

    /// Stores a record without regard to quotas and faults. Returns the shard and the place.
    ///
    /// # Panics
    /// If there is no such stream.
    pub fn put(&mut self, now: Duration, stream: &str, key: &str, data: Bytes) -> (u32, Number) {
        let stream = self.streams.get_mut(stream).expect("the world loads streams that it made");
        let shard = stream.route(key, None);
        (shard, stream.push(now, shard, key.to_owned(), data))
    }

    /// Stores a KPL aggregate of records under the partition key of the first, as the producer library does when it believes
    /// that all of them belong to one shard.
    ///
    /// # Panics
    /// If there is no such stream, or no record.
    pub fn put_aggregate(&mut self, now: Duration, stream: &str, records: &[(&str, Bytes)]) -> (u32, Number) {
        self.put(now, stream, records[0].0, aggregate::of(records))
    }

    /// The open shards of a stream in the order of their hash keys; none if there is no stream.
    #[must_use]
    pub fn open_shards(&self, stream: &str) -> Vec<u32> {
        self.streams.get(stream).map(|stream| stream.open().collect()).unwrap_or_default()
    }

    /// Splits an open shard into halves. Returns the children.
    ///
    /// # Errors
    /// No such stream or open shard, or its range is one key.
    pub fn split(&mut self, now: Duration, stream: &str, shard: u32) -> Result<[u32; 2], Refusal> {
        self.stream(stream)?.halve(now, shard)
    }

    /// Merges two open shards. Returns the child.
    ///
    /// # Errors
    /// No such stream, or they are not open neighbours.
    pub fn merge(&mut self, now: Duration, stream: &str, shard: u32, adjacent: u32) -> Result<u32, Refusal> {
        self.stream(stream)?.merge(now, shard, adjacent)
    }

    /// `UpdateShardCount`: equal shards, with short-lived ones in between.
    ///
    /// # Errors
    /// No such stream.
    pub fn scale(&mut self, now: Duration, stream: &str, target: u32) -> Result<(), Refusal> {
        self.stream(stream)?.scale(now, target)
    }

    /// Everything that a stream of this name ever took, life by life, shard by shard in the order of their opening: so for
    /// each key in the order of arrival, as parents come before their children.
    pub fn records<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = ShardRecords<'a>> {
        let lives = self.deleted.iter().filter(move |life| life.name == stream).map(|life| (life, true));
        let lives = lives.chain(self.streams.get(stream).map(|life| (life, false)));
        lives.flat_map(|(life, dead)| {
            life.shards.values().map(move |shard| {
                let (records, trimmed) = shard.all();
                ShardRecords { shard: shard.index, records, gone: if dead { records.len() } else { trimmed } }
            })
        })
    }

    /// How many `GetRecords` brought nothing; they are not in the story.
    #[must_use]
    pub fn empty_polls(&self) -> u64 {
        self.empty_polls
    }

    /// A stream by its name or ARN.
    fn stream(&mut self, name: &str) -> Result<&mut Stream, Refusal> {
        let name = name.rsplit_once(":stream/").map_or(name, |(_, name)| name);
        self.streams.get_mut(name).ok_or_else(|| Refusal::no_stream(name))
    }
}
