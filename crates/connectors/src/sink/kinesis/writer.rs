//! Batches to requests. One `write` is one `PutRecords` (several, one after the other, only if the encoded rows are much larger
//! than their columns), one attempt, no retry: what was not stored comes back row by row and the worker decides
//! (docs/kinesis.md 3.11).
//!
//! Order (I10): requests of one delivery go one after the other; the worker never has two requests with one key under way.
//! Inside a request the service may still store one key's records in another order. Sequence numbers tell: from the first
//! inversion of a key on, its records come back as not stored, so that they are written again and the last one is the last
//! value.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use connector::{Delivery, Error, ErrorKind, Rejected, Result, SinkWriter};
use formats::MessageEncoder;
use logic::mutant;
use model::Batch;
use opentelemetry::metrics::Counter;
use tokio::time::Instant;

use super::Shared;
use crate::aws::puts::{Entry, Put};

/// Records in one request (the service's limit).
pub(crate) const REQUEST_RECORDS: usize = 500;
/// Keys and data in one request. The service takes 10 MiB, older ones 5 MiB.
pub(crate) const REQUEST_BYTES: usize = 4 << 20;
/// Characters of a partition key, at most (the service's limit).
const KEY_MAX: usize = 256;
/// From this size on the service may refuse a record, and with it everything in its request: it is sent alone.
const LONELY: usize = 1 << 20;

static INVERSIONS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("shardwright")
        .u64_counter("sink_order_inversions")
        .with_description(
            "records sent again because the destination stored them before an earlier one of their key",
        )
        .build()
});

/// Writes for one run.
pub(crate) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) encoder: MessageEncoder,
    /// The largest record that the stream takes, if it said so.
    pub(super) record_max: Option<usize>,
}

/// An entry and the row it was made of.
struct Row {
    row: usize,
    entry: Entry,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<Delivery> {
        let encoded = self.encoder.encode(&batch).map_err(|e| Error::new(ErrorKind::Bug, e.to_string()))?;
        let mut rejected: Vec<Rejected> = encoded
            .refused
            .into_iter()
            .map(|refused| Rejected {
                row: refused.row,
                error: Error::new(ErrorKind::Rejected, refused.reason),
            })
            .collect();
        let mut rows = Vec::with_capacity(encoded.messages.len());
        for message in encoded.messages {
            match self.shared.entry(message.key, message.value, self.record_max) {
                Ok(entry) => rows.push(Row { row: message.row, entry }),
                Err(error) => rejected.push(Rejected { row: message.row, error }),
            }
        }
        let shared = Arc::clone(&self.shared);
        Ok(Box::pin(async move { deliver(&shared, requests(rows), rejected).await }))
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Shared {
    fn entry(&self, key: Option<Bytes>, data: Bytes, record_max: Option<usize>) -> Result<Entry> {
        let refuse = |text: String| Error::new(ErrorKind::Rejected, text);
        let entry = Entry::new(key.unwrap_or_default(), data)
            .map_err(|_| refuse(format!("partition key of sink `{}` is not text", self.sink)))?;
        let length = entry.key().chars().count();
        if !(1..=KEY_MAX).contains(&length) {
            return Err(refuse(format!(
                "partition key length {length} is outside 1..256 (sink `{}`)",
                self.sink
            )));
        }
        let size = entry.size();
        if let Some(most) = record_max.filter(|most| size > *most) {
            return Err(refuse(format!(
                "record of {size} bytes is larger than the {most} bytes that stream `{}` takes",
                self.client.stream()
            )));
        }
        if size >= LONELY && record_max.is_none() {
            tracing::warn!(sink = %self.sink, size, "a record of 1 MiB or more: the stream may refuse it");
        }
        Ok(entry)
    }
}

/// Cuts rows, in order, into requests within the limits.
fn requests(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut requests: Vec<Vec<Row>> = Vec::new();
    let (mut bytes, mut closed) = (0, true);
    for row in rows {
        let size = row.entry.size();
        let lonely = size >= LONELY;
        let fits = requests.last().is_some_and(|r| r.len() < REQUEST_RECORDS) && bytes + size < REQUEST_BYTES;
        if closed || lonely || !fits {
            requests.push(Vec::new());
            bytes = 0;
        }
        closed = lonely;
        bytes += size;
        if let Some(request) = requests.last_mut() {
            request.push(row);
        }
    }
    requests
}

async fn deliver(
    shared: &Shared,
    requests: Vec<Vec<Row>>,
    mut rejected: Vec<Rejected>,
) -> Result<Vec<Rejected>> {
    let began = Instant::now();
    let single = requests.len() <= 1;
    // An earlier part of this write may still land: that must be said (P12), so nothing is answered for the whole any more.
    let mut unsure = false;
    for request in requests {
        let left = shared.attempt.saturating_sub(began.elapsed());
        let (rows, entries): (Vec<usize>, Vec<Entry>) = request.into_iter().map(|r| (r.row, r.entry)).unzip();
        if unsure {
            let unsent =
                || Error::new(ErrorKind::Unavailable, "not sent: what became of an earlier part is unknown");
            rejected.extend(rows.iter().map(|row| Rejected { row: *row, error: unsent() }));
            continue;
        }
        match put(shared, &rows, &entries, left, began).await {
            Ok(mut failed) => rejected.append(&mut failed),
            // Bisection needs the whole batch, unless it is clear which row is meant.
            Err(error) if single || (error.kind() == ErrorKind::Rejected && rows.len() > 1) => {
                return Err(error);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Bug | ErrorKind::Fenced) => return Err(error),
            Err(error) => {
                unsure = error.ambiguous().is_some();
                rejected.extend(rows.iter().map(|row| Rejected { row: *row, error: again(&error) }));
            }
        }
    }
    Ok(rejected)
}

async fn put(
    shared: &Shared,
    rows: &[usize],
    entries: &[Entry],
    left: Duration,
    began: Instant,
) -> Result<Vec<Rejected>> {
    let timed_out = |ambiguous: bool| {
        let text = format!(
            "failed to write to stream `{}`: no answer within {:?}",
            shared.client.stream(),
            shared.attempt
        );
        let error = Error::new(ErrorKind::Unavailable, text);
        if ambiguous { error.ambiguous_since(began.into_std()) } else { error }
    };
    if left.is_zero() {
        return Err(timed_out(false));
    }
    let failed = |code: &str, message: &str| shared.client.failed(code, message);
    let judge = |puts: &[Put<'_>]| judge(rows, entries, puts, failed);
    match tokio::time::timeout(left, shared.client.put_records(entries, judge)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(timed_out(true)),
    }
}

fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    let copy = match error.vendor_code() {
        Some(code) => copy.code(code.to_owned()),
        None => copy,
    };
    match error.ambiguous() {
        Some(since) => copy.ambiguous_since(since),
        None => copy,
    }
}

/// Turns the answers of one request into rejected rows.
fn judge(
    rows: &[usize],
    entries: &[Entry],
    puts: &[Put<'_>],
    failed: impl Fn(&str, &str) -> Error,
) -> Vec<Rejected> {
    let mut rejected = Vec::new();
    // Per key: its shard and the largest number so far; `None` once an inversion was seen.
    let mut last: HashMap<&str, Option<(&str, &str)>> = HashMap::with_capacity(entries.len());
    for ((row, entry), put) in rows.iter().zip(entries).zip(puts) {
        let (shard, number) = match put.outcome() {
            Ok(place) => place,
            Err(_) if mutant::on("partial_put_counts_as_delivered") => continue,
            Err((code, message)) => {
                rejected.push(Rejected { row: *row, error: failed(code, message) });
                continue;
            }
        };
        let place = Some((shard, number));
        let in_order = match last.entry(entry.key()) {
            hash_map::Entry::Vacant(first) => {
                first.insert(place);
                true
            }
            hash_map::Entry::Occupied(mut last) => {
                // A reshard within the request: another shard's numbers say nothing about this one's.
                let ascends =
                    last.get().is_some_and(|(there, before)| there != shard || ascends(before, number));
                last.insert(place.filter(|_| ascends));
                ascends
            }
        };
        if !in_order {
            INVERSIONS.add(1, &[]);
            let text = "stored before an earlier record of its key: written again".to_owned();
            rejected.push(Rejected {
                row: *row,
                error: Error::new(ErrorKind::Unavailable, text).code("OrderInversion"),
            });
        }
    }
    rejected
}

/// Decimal numbers of up to 56 digits.
fn ascends(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    (a.len(), a) < (b.len(), b)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::aws::puts;

    fn entry(key: &str, data: Vec<u8>) -> Entry {
        Entry::new(Bytes::copy_from_slice(key.as_bytes()), data.into()).unwrap()
    }

    fn row(row: usize, size: usize) -> Row {
        Row { row, entry: entry("k", vec![0; size - 1]) }
    }

    fn shape(sizes: &[usize]) -> Vec<Vec<usize>> {
        let rows = sizes.iter().enumerate().map(|(i, size)| row(i, *size)).collect();
        requests(rows).iter().map(|r| r.iter().map(|r| r.row).collect()).collect()
    }

    #[test]
    fn requests_keep_the_limits_and_the_order() {
        let lengths: Vec<usize> =
            requests((0..1201).map(|i| row(i, 10)).collect()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [500, 500, 201]);
        assert_eq!(shape(&[900 << 10; 6]), [vec![0, 1, 2, 3], vec![4, 5]]);
        assert_eq!(shape(&[10, 1 << 20, 10, 10]), [vec![0], vec![1], vec![2, 3]], "a large record is alone");
        assert_eq!(shape(&[]), Vec::<Vec<usize>>::new());
    }

    fn stored(shard: &str, number: &str) -> Value {
        json!({"ShardId": shard, "SequenceNumber": number})
    }

    fn judged(keys: &[&str], puts: &[Value]) -> Vec<(usize, ErrorKind)> {
        let rows: Vec<usize> = (10..10 + keys.len()).collect();
        let entries: Vec<Entry> = keys.iter().map(|key| entry(key, Vec::new())).collect();
        let body = json!({"Records": puts}).to_string();
        let failed = |code: &str, message: &str| crate::aws::code_error("x", code, message, None);
        let rejected = judge(&rows, &entries, &puts::read(body.as_bytes()).unwrap(), failed);
        rejected.iter().map(|r| (r.row, r.error.kind())).collect()
    }

    #[test]
    fn from_an_inversion_on_the_key_is_written_again() {
        let puts = [stored("s", "100"), stored("s", "99"), stored("s", "5"), stored("s", "101")];
        assert_eq!(
            judged(&["a", "a", "b", "a"], &puts),
            [(11, ErrorKind::Unavailable), (13, ErrorKind::Unavailable)]
        );
        let puts = [stored("s", "100"), stored("t", "99")];
        assert_eq!(judged(&["a", "a"], &puts), [], "numbers of two shards are not compared");
    }

    #[test]
    fn only_failed_entries_come_back() {
        let throttled = json!({"ErrorCode": "ProvisionedThroughputExceededException"});
        let puts = [stored("s", "1"), throttled, stored("s", "2")];
        assert_eq!(judged(&["a", "b", "c"], &puts), [(11, ErrorKind::Throttled)]);
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(ascends("9", "10") && ascends("0009", "10") && !ascends("10", "9") && !ascends("7", "7"));
        let (a, b) = (
            "49590338271490256608559692538361571095921575989136588898",
            "49590338271490256608559692538361571095921575989136588899",
        );
        assert!(ascends(a, b) && !ascends(b, a));
    }
}
