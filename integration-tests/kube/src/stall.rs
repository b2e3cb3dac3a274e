//! How long each shard stood still at a destination. A watcher reads the destination as it grows and notes when rows of each source
//! shard came; the longest time without any, within a period, is the shard's stall.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use aws_sdk_kinesis::{
    Client,
    types::{Shard, ShardIteratorType},
};
use integration_tests::endpoint;
use md5::{Digest, Md5};
use tokio::{task::JoinHandle, time::Instant};

/// Between two looks at the destination: no stall is told more exactly.
const LOOK: Duration = Duration::from_millis(20);

/// The longest time without a row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stall {
    /// Of this shard.
    pub shard: String,
    /// So long.
    pub lasted: Duration,
}

/// The longest gap between arrivals (in order) that has a part in a period; one that is still open ends with the period.
#[must_use]
pub fn longest(arrivals: &[Instant], from: Instant, to: Instant) -> Duration {
    let before = arrivals.iter().rev().find(|at| **at <= from).copied().unwrap_or(from);
    let within = arrivals.iter().filter(|at| **at > from && **at <= to).copied();
    let after = arrivals.iter().find(|at| **at > to).copied().unwrap_or(to);
    let mut longest = Duration::ZERO;
    let mut last = before;
    for at in within.chain([after]) {
        longest = longest.max(at.saturating_duration_since(last));
        last = at;
    }
    longest
}

/// Which shard a key belongs to.
#[derive(Clone)]
pub struct Shards(Vec<(u128, u128, String)>);

impl Shards {
    /// Among these.
    #[must_use]
    pub fn new(open: &[Shard]) -> Self {
        let range = |shard: &Shard| {
            let (first, last) = endpoint::hash_range(shard);
            (first, last, shard.shard_id().to_owned())
        };
        Self(open.iter().map(range).collect())
    }

    fn of(&self, key: &str) -> Option<&str> {
        let hash = u128::from_be_bytes(Md5::digest(key.as_bytes()).into());
        self.0.iter().find(|(first, last, _)| (*first..=*last).contains(&hash)).map(|(_, _, id)| id.as_str())
    }
}

type Seen = BTreeMap<String, Vec<Instant>>;

/// Watches a stream that a sink writes; ends with this value.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<Result<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Begins to watch.
    #[must_use]
    pub fn start(client: Client, stream: &str, shards: Shards) -> Self {
        let seen = Arc::new(Mutex::new(Seen::new()));
        let task = tokio::spawn(watch(client, stream.to_owned(), shards, Arc::clone(&seen)));
        Self { seen, task }
    }

    /// The worst stall of a period.
    ///
    /// # Errors
    /// When the stream cannot be read any more.
    pub fn worst(&self, from: Instant, to: Instant) -> Result<Stall> {
        anyhow::ensure!(!self.task.is_finished(), "the destination cannot be read any more");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let each =
            seen.iter().map(|(shard, at)| Stall { shard: shard.clone(), lasted: longest(at, from, to) });
        each.max_by_key(|stall| stall.lasted).context("no row has come at all")
    }

    /// How many shards have been seen.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

async fn watch(client: Client, stream: String, shards: Shards, seen: Arc<Mutex<Seen>>) -> Result<()> {
    let mut iterators = Vec::new();
    for shard in endpoint::shards(&client, &stream).await? {
        let first = client.get_shard_iterator().stream_name(&stream).shard_id(shard.shard_id());
        let first = first.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
        iterators.push(first.shard_iterator().context("an iterator")?.to_owned());
    }
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        for iterator in &mut iterators {
            let answer = client.get_records().shard_iterator(&*iterator).send().await?;
            let now = Instant::now();
            *iterator = answer.next_shard_iterator().context("the shard ended")?.to_owned();
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            for record in answer.records() {
                let Some(shard) =
                    key_of(record.data().as_ref()).and_then(|key| shards.of(&key).map(str::to_owned))
                else {
                    continue;
                };
                let arrivals = seen.entry(shard).or_default();
                if arrivals.last() != Some(&now) {
                    arrivals.push(now);
                }
            }
        }
    }
}

/// The key of a record of the load, which is also that of its items: `key-007-3` is of `key-007`.
fn key_of(row: &[u8]) -> Option<String> {
    let row: serde_json::Value = serde_json::from_slice(row).ok()?;
    let key = row["key"].as_str()?;
    Some(key.splitn(3, '-').take(2).collect::<Vec<_>>().join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_the_longest_gap_with_a_part_in_the_period() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let arrivals = [at(0), at(100), at(900), at(1000), at(1100), at(1600), at(1700)];
        let longest = |from, to| longest(&arrivals, at(from), at(to)).as_millis();
        assert_eq!(longest(950, 1150), 500, "it begins before the end");
        assert_eq!(longest(850, 1050), 800, "it ends after the beginning");
        assert_eq!(longest(1000, 1100), 500);
        assert_eq!(longest(0, 1700), 800);
        assert_eq!(longest(1650, 2700), 1000, "nothing came any more");
    }

    #[test]
    fn no_arrival_at_all_is_a_stall_of_the_whole_period() {
        let start = Instant::now();
        assert_eq!(longest(&[], start, start + Duration::from_secs(2)), Duration::from_secs(2));
    }

    #[test]
    fn an_item_is_of_the_shard_of_its_key() {
        assert_eq!(key_of(br#"{"key": "key-007", "n": 1}"#).unwrap(), "key-007");
        assert_eq!(key_of(br#"{"key": "key-007-3", "n": 1}"#).unwrap(), "key-007");
        assert_eq!(key_of(b"no"), None);
    }

    #[test]
    fn a_key_is_of_one_shard() {
        let half = u128::MAX / 2;
        let shards = Shards(vec![(0, half, "a".to_owned()), (half + 1, u128::MAX, "b".to_owned())]);
        let of_a = (0..100).filter(|n| shards.of(&format!("key-{n:03}")) == Some("a")).count();
        assert!((20..80).contains(&of_a), "{of_a}");
    }
}
