//! The live load, and the reader of the destination.
//!
//! A record carries the moment it was put, the destination is read as a consumer reads it (one GetRecords each 20 ms a
//! shard), so what is seen here includes up to that much of waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use aws_sdk_kinesis::{
    Client,
    primitives::Blob,
    types::{PutRecordsRequestEntry, ShardIteratorType},
};
use serde::Deserialize;
use tokio::{sync::watch, task::JoinSet};

use crate::endpoint;

const KEYS: u64 = 40;

/// Each key is put so often.
const ROUND: Duration = Duration::from_millis(50);

/// No handover takes so long.
pub(crate) const HEALED_DEADLINE: Duration = Duration::from_secs(60);

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// One record that was seen at the destination.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// When.
    pub(crate) seen: Instant,
    /// When it was put.
    pub(crate) put_ms: i64,
}

/// What has arrived since the last mark, by split of the source.
pub(crate) type Arrivals = BTreeMap<String, Vec<Arrival>>;

#[derive(Deserialize)]
struct Row {
    split: String,
    t: i64,
}

/// The load and the reader of the destination.
pub(crate) struct Live {
    arrivals: Arc<Mutex<Arrivals>>,
    changed: watch::Receiver<u64>,
    tasks: JoinSet<Result<()>>,
}

impl Live {
    /// Starts both, and a load that goes on until the end.
    pub(crate) async fn start(client: &Client, source: &str, destination: &str) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let arrivals = Arc::new(Mutex::new(Arrivals::new()));
        let (sender, changed) = watch::channel(0);
        let sender = Arc::new(sender);
        for shard in endpoint::open_shards(client, destination).await? {
            let ask = client.get_shard_iterator().stream_name(destination).shard_id(shard);
            let answer = ask.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
            let iterator = answer.shard_iterator().context("no iterator")?.to_owned();
            tasks.spawn(tail(client.clone(), iterator, arrivals.clone(), sender.clone()));
        }
        tasks.spawn(load(client.clone(), source.to_owned()));
        Ok(Self { arrivals, changed, tasks })
    }

    /// Stops both.
    pub(crate) fn stop(mut self) {
        self.tasks.abort_all();
    }

    /// Takes what has arrived since the last mark.
    pub(crate) fn mark(&self) -> (Mark, Arrivals) {
        let seen = std::mem::take(&mut *self.arrivals.lock().expect("nobody panics while holding this lock"));
        (Mark { at: Instant::now(), ms: now_ms() }, seen)
    }

    /// How long after the mark each of these splits delivered something that was put after it: a process that was killed at
    /// the mark cannot have done that.
    pub(crate) async fn first_after(&self, splits: &BTreeSet<String>, mark: Mark) -> Result<Vec<f64>> {
        let arrivals = self.until_each(splits, mark.ms).await?;
        let first = |split: &String| arrivals[split].iter().find(|arrival| arrival.put_ms > mark.ms);
        let spans =
            splits.iter().filter_map(first).map(|arrival| arrival.seen.duration_since(mark.at).as_secs_f64());
        Ok(spans.collect())
    }

    /// The longest time that each of these splits was silent since the mark, watched until it delivers what is put from now on.
    pub(crate) async fn longest_silence(
        &self,
        splits: &BTreeSet<String>,
        mark: Mark,
    ) -> Result<Vec<Silence>> {
        let arrivals = self.until_each(splits, now_ms()).await?;
        Ok(splits.iter().map(|split| Silence::longest(mark, &arrivals[split])).collect())
    }

    /// Waits until each split has delivered something that was put after this moment.
    async fn until_each(&self, splits: &BTreeSet<String>, put_after_ms: i64) -> Result<Arrivals> {
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                {
                    let arrivals = self.arrivals.lock().expect("nobody panics while holding this lock");
                    let newest = |split| arrivals.get(split).and_then(|seen| seen.last());
                    if splits.iter().all(|split| newest(split).is_some_and(|a| a.put_ms > put_after_ms)) {
                        return Ok(arrivals.clone());
                    }
                }
                changed.changed().await.context("the reader of the destination ended")?;
            }
        };
        tokio::time::timeout(HEALED_DEADLINE, wait).await.context("a split stays silent")?
    }
}

/// A time without an arrival; seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Silence {
    /// How long it was.
    pub(crate) length: f64,
    /// From the mark to its end.
    pub(crate) ended: f64,
}

impl Silence {
    /// The longest one from the mark to the last arrival.
    fn longest(mark: Mark, arrivals: &[Arrival]) -> Self {
        let (mut longest, mut since) = (Self::default(), mark.at);
        for Arrival { seen, .. } in arrivals {
            let length = seen.duration_since(since).as_secs_f64();
            if length > longest.length {
                longest = Self { length, ended: seen.duration_since(mark.at).as_secs_f64() };
            }
            since = *seen;
        }
        longest
    }
}

/// A moment, by both clocks.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    /// Of this process.
    pub(crate) at: Instant,
    /// Since 1970.
    pub(crate) ms: i64,
}

/// Puts every key once a round.
async fn load(client: Client, stream: String) -> Result<()> {
    let mut rounds = tokio::time::interval(ROUND);
    for n in 0_u64.. {
        rounds.tick().await;
        let t = now_ms();
        let entries = (0..KEYS).map(|key| {
            let data = format!("{{\"key\":\"key-{key:03}\",\"n\":{n},\"t\":{t}}}");
            PutRecordsRequestEntry::builder()
                .partition_key(format!("key-{key:03}"))
                .data(Blob::new(data))
                .build()
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        // While a shard is being split the service refuses some; the next round comes soon.
        client.put_records().stream_name(&stream).set_records(Some(entries)).send().await.ok();
    }
    Ok(())
}

/// Reads one shard of the destination for ever.
async fn tail(
    client: Client,
    mut iterator: String,
    arrivals: Arc<Mutex<Arrivals>>,
    changed: Arc<watch::Sender<u64>>,
) -> Result<()> {
    loop {
        let answer = client.get_records().shard_iterator(iterator).send().await?;
        let seen = Instant::now();
        if !answer.records().is_empty() {
            let mut arrivals = arrivals.lock().expect("nobody panics while holding this lock");
            for record in answer.records() {
                let row: Row = serde_json::from_slice(record.data().as_ref())?;
                arrivals.entry(row.split).or_default().push(Arrival { seen, put_ms: row.t });
            }
            changed.send_modify(|count| *count += 1);
        }
        iterator = answer.next_shard_iterator().context("the destination was resharded")?.to_owned();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_counts_from_the_mark_and_knows_its_end() {
        let mark = Mark { at: Instant::now(), ms: 0 };
        let after = |ms| Arrival { seen: mark.at + Duration::from_millis(ms), put_ms: 0 };
        let longest = |seen: &[u64]| {
            let arrivals: Vec<Arrival> = seen.iter().map(|ms| after(*ms)).collect();
            Silence::longest(mark, &arrivals)
        };
        assert_eq!(longest(&[500, 4500, 5000]), Silence { length: 4.0, ended: 4.5 });
        assert_eq!(longest(&[3000, 4000]), Silence { length: 3.0, ended: 3.0 });
        assert_eq!(longest(&[]), Silence::default());
    }
}
