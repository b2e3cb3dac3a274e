//! What a reader counts (docs/kinesis.md 5). The instruments are made once, at the first reader, on whatever meter the
//! process set.

use std::{sync::LazyLock, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram},
};

struct Instruments {
    behind: Gauge<u64>,
    records: Counter<u64>,
    user_records: Counter<u64>,
    bytes: Counter<u64>,
    seconds: Histogram<f64>,
    empty: Counter<u64>,
    throttled: Counter<u64>,
    hidden: Counter<u64>,
    expired: Counter<u64>,
    subscribed: Counter<u64>,
    silent: Counter<u64>,
    polls_instead: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = opentelemetry::global::meter("shardwright");
    let counter =
        |name: &'static str, text: &'static str| meter.u64_counter(name).with_description(text).build();
    Instruments {
        behind: meter
            .u64_gauge("kinesis_millis_behind_latest")
            .with_description("how far behind the tip of the shard the last answer was")
            .build(),
        records: counter("kinesis_records_read", "records as the shard holds them"),
        user_records: counter("kinesis_user_records", "records after aggregates were opened"),
        bytes: counter("kinesis_bytes_read", "keys and data of the records read"),
        seconds: meter
            .f64_histogram("get_records_seconds")
            .with_description("time of one GetRecords call")
            .build(),
        empty: counter("get_records_empty", "answers without a record"),
        throttled: counter("get_records_throttled", "reads that the service refused as too many"),
        hidden: counter("hidden_throttle_suspected", "empty answers in a row while the lag grew"),
        expired: counter("iterator_expired", "iterators that were too old when they were used"),
        subscribed: counter("fanout_subscribe", "calls of SubscribeToShard by outcome"),
        silent: counter("fanout_watchdog_restart", "subscriptions given up because nothing came"),
        polls_instead: counter("fanout_fallback", "changes from fan-out to polling"),
    }
});

/// The meters of one shard.
pub(crate) struct Meters {
    shard: [KeyValue; 2],
    stream: [KeyValue; 1],
}

impl Meters {
    pub(crate) fn new(stream: &str, shard: &str) -> Self {
        let stream = KeyValue::new("stream", stream.to_owned());
        Self { shard: [stream.clone(), KeyValue::new("shard", shard.to_owned())], stream: [stream] }
    }

    pub(crate) fn answered(&self, took: Duration, records: usize, bytes: usize, behind: Option<Duration>) {
        INSTRUMENTS.seconds.record(took.as_secs_f64(), &self.stream);
        if records == 0 {
            INSTRUMENTS.empty.add(1, &self.stream);
        }
        self.arrived(records, bytes, behind);
    }

    pub(crate) fn arrived(&self, records: usize, bytes: usize, behind: Option<Duration>) {
        let meters = &*INSTRUMENTS;
        if let Some(behind) = behind {
            meters.behind.record(u64::try_from(behind.as_millis()).unwrap_or(u64::MAX), &self.shard);
        }
        if records > 0 {
            meters.records.add(records as u64, &self.stream);
            meters.bytes.add(bytes as u64, &self.stream);
        }
    }

    pub(crate) fn handed_out(&self, user_records: usize) {
        INSTRUMENTS.user_records.add(user_records as u64, &self.stream);
    }

    pub(crate) fn throttled(&self) {
        INSTRUMENTS.throttled.add(1, &self.shard);
    }

    pub(crate) fn hidden_throttle(&self) {
        INSTRUMENTS.hidden.add(1, &self.shard);
    }

    pub(crate) fn iterator_expired(&self) {
        INSTRUMENTS.expired.add(1, &self.stream);
    }

    pub(crate) fn subscribed(&self, result: &str) {
        let [stream] = self.stream.clone();
        INSTRUMENTS.subscribed.add(1, &[stream, KeyValue::new("result", result.to_owned())]);
    }

    pub(crate) fn silent(&self) {
        INSTRUMENTS.silent.add(1, &self.shard);
    }

    pub(crate) fn polls_instead(&self) {
        INSTRUMENTS.polls_instead.add(1, &self.shard);
    }
}
