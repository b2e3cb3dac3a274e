//! `PutRecord` and `PutRecords`: each entry for itself, so that some may fail while others are stored.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    EntryFailure, Model, Refusal,
    answer::{Done, Members as _, blob},
    iterator::answer_stream,
    shard::shard_id,
    stream::Stream,
};

const ENTRIES_MAX: usize = 500;
const REQUEST_MAX: usize = 10 * 1024 * 1024;

struct Entry {
    key: String,
    hash_key: Option<u128>,
    data: Bytes,
}

impl Entry {
    fn read(entry: &Value) -> Result<Self, Refusal> {
        let key = entry.need("PartitionKey")?.to_owned();
        if !(1..=256).contains(&key.chars().count()) {
            return Err(Refusal::validation("PartitionKey must have 1 to 256 characters."));
        }
        let hash_key = match entry.text("ExplicitHashKey") {
            Some(text) => {
                Some(text.parse().map_err(|_| Refusal::argument("ExplicitHashKey is no hash key."))?)
            }
            None => None,
        };
        Ok(Self { key, hash_key, data: blob(&entry["Data"])?.into() })
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.data.len()
    }
}

impl Model {
    pub(super) fn put_record(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let failure = self.faults.take_entry(now, &mut self.random);
        let stream = self.stream(answer_stream(ask)?)?;
        let entry = Entry::read(ask)?;
        check_size(stream, &entry)?;
        let shard = stream.route(&entry.key, entry.hash_key);
        match store(stream, now, shard, entry, failure) {
            Ok(body) => Ok(Done::new(body, format!("{}/{shard} 1 record", stream.name))),
            Err(EntryFailure::Throughput) => Err(Refusal::throughput(&stream.name, &shard_id(shard))),
            Err(_) => Err(Refusal::internal()),
        }
    }

    pub(super) fn put_records(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let name = self.stream(answer_stream(ask)?)?.name.clone();
        let entries = entries(ask)?;
        let count = entries.len();
        let stream = &self.streams[&name];
        entries.iter().try_for_each(|entry| check_size(stream, entry))?;
        if entries.iter().map(Entry::bytes).sum::<usize>() > REQUEST_MAX {
            return Err(Refusal::argument("Records size exceeds 10 MB limit."));
        }
        let stream = self.streams.get_mut(&name).expect("looked up above");
        let mut failed = 0;
        let mut results = Vec::with_capacity(count);
        for entry in entries {
            let failure = self.faults.take_entry(now, &mut self.random);
            let shard = stream.route(&entry.key, entry.hash_key);
            results.push(store(stream, now, shard, entry, failure).unwrap_or_else(|failure| {
                failed += 1;
                let message = match failure {
                    EntryFailure::Throughput => Refusal::throughput(&name, &shard_id(shard)).message,
                    _ => "Internal service failure.".to_owned(),
                };
                json!({ "ErrorCode": failure.code(), "ErrorMessage": message })
            }));
        }
        if self.faults.take_lost_answer() {
            return Err(Refusal::internal());
        }
        let body = json!({ "FailedRecordCount": failed, "Records": results });
        let told = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        Ok(Done::new(body, format!("{name} {count} records{told}")))
    }
}

fn entries(ask: &Value) -> Result<Vec<Entry>, Refusal> {
    let entries = ask["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !(1..=ENTRIES_MAX).contains(&entries.len()) {
        return Err(Refusal::validation(format!("Records must have 1 to {ENTRIES_MAX} members.")));
    }
    entries.iter().map(Entry::read).collect()
}

fn check_size(stream: &Stream, entry: &Entry) -> Result<(), Refusal> {
    if entry.bytes() > stream.shape.record_max {
        return Err(Refusal::argument(format!(
            "A record of {} bytes exceeds the stream's maximum of {}.",
            entry.bytes(),
            stream.shape.record_max
        )));
    }
    Ok(())
}

/// Stores an entry, unless it was to fail or the shard's quota is used up.
fn store(
    stream: &mut Stream,
    now: Duration,
    shard: u32,
    entry: Entry,
    failure: Option<EntryFailure>,
) -> Result<Value, EntryFailure> {
    if let Some(failure) = failure {
        return Err(failure);
    }
    let bytes = entry.bytes();
    let quota =
        &mut stream.shards.get_mut(&shard).expect("records are routed to shards that are there").writes;
    if !quota.take(now, bytes) {
        return Err(EntryFailure::Throughput);
    }
    let number = stream.push(now, shard, entry.key, entry.data);
    Ok(json!({ "SequenceNumber": number.to_string(), "ShardId": shard_id(shard) }))
}
