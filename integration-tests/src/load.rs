//! A keyed, numbered load: every record is `{"key": …, "n": …, "item": …, "step": …}` with n counting up from 0 within its key.
//! An item is a finer key, as an order of a customer is: each key takes its turns among a few, and `step` counts within the item.
//!
//! A request holds each key at most once, and a record that was refused is sent again before the next number of its key, so
//! the order within the source is never in doubt.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aws_sdk_kinesis::{Client, primitives::Blob, types::PutRecordsRequestEntry};
use tokio::{task::JoinHandle, time::Instant};

/// Items of each key.
const ITEMS: u64 = 7;

/// How many records of each item the source accepted, if it accepted so many of each key.
#[must_use]
pub fn items(sent: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let of_key = |(key, count): (&String, &u64)| {
        let (key, count) = (key.clone(), *count);
        (0..ITEMS).map(move |item| (format!("{key}-{item}"), (count + ITEMS - 1 - item) / ITEMS))
    };
    sent.iter().flat_map(of_key).filter(|(_, count)| *count > 0).collect()
}

/// How much to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Different keys; at most 500.
    pub keys: u64,
    /// Records a second, about.
    pub per_second: u64,
    /// Filler that makes a record larger, in bytes.
    pub padding: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { keys: 200, per_second: 1000, padding: 40 }
    }
}

/// A load under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<Result<BTreeMap<String, u64>>>,
}

impl Load {
    /// Starts sending.
    #[must_use]
    pub fn start(client: Client, stream: &str, plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let sender =
            Sender { client, stream: stream.to_owned(), plan, stop: stop.clone(), sent: sent.clone() };
        Self { stop, sent, task: tokio::spawn(sender.run()) }
    }

    /// A load that sends nothing: what is left where one was taken away.
    #[must_use]
    pub fn idle() -> Self {
        let task = tokio::spawn(async { Ok(BTreeMap::new()) });
        Self { stop: Arc::default(), sent: Arc::default(), task }
    }

    /// Records that the source has accepted so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops, and tells how many records of each key the source accepted.
    ///
    /// # Errors
    /// When the load itself failed: the endpoint refused what it should not.
    pub async fn stop(self) -> Result<BTreeMap<String, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the load ended badly")?
    }
}

struct Sender {
    client: Client,
    stream: String,
    plan: Plan,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Sender {
    async fn run(self) -> Result<BTreeMap<String, u64>> {
        let mut next: BTreeMap<String, u64> =
            (0..self.plan.keys).map(|k| (format!("key-{k:03}"), 0)).collect();
        let round = Duration::from_secs_f64(self.plan.keys as f64 / self.plan.per_second.max(1) as f64);
        let mut tick = tokio::time::interval(round);
        while !self.stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let batch: Vec<(String, u64)> = next.iter().map(|(k, n)| (k.clone(), *n)).collect();
            self.put_all(batch).await?;
            next.values_mut().for_each(|n| *n += 1);
        }
        Ok(next)
    }

    async fn put_all(&self, mut pending: Vec<(String, u64)>) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !pending.is_empty() {
            let refused = self.put(&pending).await?;
            self.sent.fetch_add((pending.len() - refused.len()) as u64, Ordering::Relaxed);
            pending = refused;
            if !pending.is_empty() {
                if Instant::now() > deadline {
                    bail!("{} records were refused for 30 s", pending.len());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    async fn put(&self, records: &[(String, u64)]) -> Result<Vec<(String, u64)>> {
        let filler = "x".repeat(self.plan.padding);
        let entries = records
            .iter()
            .map(|(key, n)| {
                let (item, step) = (n % ITEMS, n / ITEMS);
                let data = format!(
                    "{{\"key\":\"{key}\",\"n\":{n},\"item\":\"{key}-{item}\",\"step\":{step},\"filler\":\"{filler}\"}}"
                );
                PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let answer =
            self.client.put_records().stream_name(&self.stream).set_records(Some(entries)).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            // A whole request that the service refused wrote nothing (the stream is being resharded).
            Err(error) if error.as_service_error().is_some() => return Ok(records.to_vec()),
            Err(error) => return Err(error).context("putting records"),
        };
        Ok(records
            .iter()
            .zip(answer.records())
            .filter(|(_, result)| result.error_code().is_some())
            .map(|(record, _)| record.clone())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_share_the_records_of_their_key() {
        let sent = BTreeMap::from([("k".to_owned(), 9), ("l".to_owned(), 1), ("m".to_owned(), 0)]);
        let items = items(&sent);
        assert_eq!(items.values().sum::<u64>(), 10);
        assert_eq!((items["k-0"], items["k-1"], items["k-2"], items["l-0"]), (2, 2, 1, 1));
        assert_eq!(items.len(), 8);
    }
}
