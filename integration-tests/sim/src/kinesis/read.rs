//! `GetRecords`.

use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};

use super::{
    Model, Number, Refusal, Throttle,
    answer::{self, Done, Members as _},
    describe::range,
    iterator::Iterator,
    quota::READS_PER_SECOND,
    shard::{Record, shard_id},
    stream::Stream,
};

const RECORDS_MAX: usize = 10_000;
const BYTES_MAX: usize = 10 * 1024 * 1024;

/// What one read brings.
struct Page<'a> {
    records: &'a [Record],
    bytes: usize,
    /// Where to read on.
    next: Number,
    /// How far behind that is.
    behind: Duration,
}

impl Model {
    pub(super) fn get_records(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let limit = match ask.get("Limit").and_then(Value::as_u64) {
            None => RECORDS_MAX,
            Some(limit @ 1..=10_000) => limit as usize,
            Some(limit) => {
                return Err(Refusal::validation(format!("Limit {limit} is not within 1 and 10000.")));
            }
        };
        let iterator = Iterator::open(ask.need("ShardIterator")?)?;
        let index = iterator.place.shard;
        let stream = self.streams.get_mut(&iterator.stream);
        let stream = stream.filter(|stream| stream.created_at() == iterator.created_at);
        let stream = stream.ok_or_else(|| Refusal::no_stream(&iterator.stream))?;
        let (name, auto) = (stream.name.clone(), stream.shape.auto);
        if iterator.is_expired(now, self.faults.expired) {
            return Err(Refusal::expired_iterator());
        }
        let silent = match self.faults.throttled(now, &name, index) {
            Some(Throttle::Error) => return Err(Refusal::throughput(&name, &shard_id(index))),
            throttled => throttled.is_some(),
        };
        let shard = stream.shard(now, index)?;
        let behind = !shard.from(iterator.place).is_empty();
        let silent = silent || behind && self.faults.take_empty_page(&name, index);
        let calls = shard.reads.take(now, READS_PER_SECOND);
        // Over its bytes a shard says so, or says nothing.
        let bytes = shard.read_bytes.open(now);
        let silent = silent || calls && !bytes && self.random.random_bool(0.3);
        if !(silent || calls && bytes) {
            return Err(Refusal::throughput(&name, &shard.id()));
        }
        let page = page(now, shard.from(iterator.place), iterator.place, if silent { 0 } else { limit });
        let (next, bytes) = (page.next, page.bytes);
        let records: Vec<Value> = page.records.iter().map(|r| answer::record(r, auto)).collect();
        let mut body = json!({ "Records": records, "MillisBehindLatest": millis(page.behind) });
        let told = page.records.last().map(|last| {
            format!(
                "{name}/{index} {} records {} to {}",
                records.len(),
                page.records[0].number.short(),
                last.number.short()
            )
        });
        let shard = stream.shard(now, index)?;
        shard.read_bytes.spend(now, bytes);
        // The end may come with the last records or in an answer of its own.
        let over = shard.closed.is_some() && shard.from(next).is_empty() && !silent;
        let note = if over && (told.is_none() || self.random.random_bool(0.5)) {
            body["ChildShards"] = children(stream, index);
            Some(format!("{}, the end", told.unwrap_or_else(|| format!("{name}/{index}"))))
        } else {
            body["NextShardIterator"] = Iterator { place: next, made: now, ..iterator }.token().into();
            self.empty_polls += u64::from(told.is_none());
            told
        };
        Ok(Done { body, subscription: None, note })
    }
}

/// At most `limit` of the records that follow, and 10 MiB.
fn page(now: Duration, rest: &[Record], place: Number, limit: usize) -> Page<'_> {
    let mut bytes = 0;
    let mut count = 0;
    for record in rest.iter().take(limit) {
        if count > 0 && bytes + record.bytes() > BYTES_MAX {
            break;
        }
        bytes += record.bytes();
        count += 1;
    }
    let records = &rest[..count];
    let next = records.last().map_or(place, |last| last.number.next());
    // Nothing follows: not behind. Otherwise as old as what was read last, or as what would be read next.
    let oldest = if count == rest.len() { None } else { Some(&rest[count.saturating_sub(1)]) };
    let behind = oldest.map_or(Duration::ZERO, |record| now.saturating_sub(record.stored));
    Page { records, bytes, next, behind }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `ChildShards`.
pub(super) fn children(stream: &Stream, parent: u32) -> Value {
    let children = stream.shards.values().filter(|shard| shard.parents.contains(&parent));
    children
        .map(|shard| {
            json!({
                "ShardId": shard.id(),
                "ParentShards": shard.parents.iter().map(|&index| shard_id(index)).collect::<Vec<_>>(),
                "HashKeyRange": range(shard),
            })
        })
        .collect()
}
