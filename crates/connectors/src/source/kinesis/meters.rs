//! What a reader counts (docs/metrics.md). The instruments are made once, at the first reader, on whatever meter the process set.
//!
//! Shards come and go for ever: only a gauge of those that are read now has a label for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

/// A shard that is read now: how far behind, in ms, if an answer has said.
#[derive(Default)]
struct Shard(Mutex<Option<u64>>);

type Shards = BTreeMap<[String; 2], Weak<Shard>>;

/// By stream and shard, whoever reads it here.
static SHARDS: Mutex<Shards> = Mutex::new(BTreeMap::new());

fn shards() -> MutexGuard<'static, Shards> {
    SHARDS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Instruments {
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
    watch(&meter);
    Instruments {
        records: counter("kinesis_records_read", "records as the shard holds them"),
        user_records: counter("user_records", "records after aggregates were opened"),
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

/// Shows how far behind the shards are that are read now, and the one of each stream that is most.
fn watch(meter: &opentelemetry::metrics::Meter) {
    let behind = || {
        let shards = shards();
        let one = |([stream, shard], of): (&[String; 2], &Weak<Shard>)| {
            let behind = *of.upgrade()?.0.lock().unwrap_or_else(PoisonError::into_inner);
            Some((stream.clone(), shard.clone(), behind?))
        };
        shards.iter().filter_map(one).collect::<Vec<_>>()
    };
    // The instruments live as long as the meter.
    let _ = meter
        .u64_observable_gauge("kinesis_millis_behind_latest")
        .with_description("how far behind the tip of the shard the last answer was")
        .with_callback(move |gauge| {
            for (stream, shard, ms) in behind() {
                gauge.observe(ms, &[KeyValue::new("stream", stream), KeyValue::new("shard", shard)]);
            }
        })
        .build();
    let _ = meter
        .u64_observable_gauge("kinesis_millis_behind_latest_max")
        .with_description("the largest of the shards of a stream that are read here")
        .with_callback(move |gauge| {
            let mut largest: BTreeMap<String, u64> = BTreeMap::new();
            for (stream, _, ms) in behind() {
                let most = largest.entry(stream).or_default();
                *most = ms.max(*most);
            }
            for (stream, ms) in largest {
                gauge.observe(ms, &[KeyValue::new("stream", stream)]);
            }
        })
        .build();
}

/// The meters of one shard, while it is read.
pub(crate) struct Meters {
    shard: Arc<Shard>,
    stream: [KeyValue; 1],
}

impl Meters {
    pub(crate) fn new(stream: &str, shard: &str) -> Self {
        let mut shards = shards();
        shards.retain(|_, shard| shard.strong_count() > 0);
        let known = shards.entry([stream.to_owned(), shard.to_owned()]).or_default();
        let shard = known.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Shard::default());
            *known = Arc::downgrade(&new);
            new
        });
        Self { shard, stream: [KeyValue::new("stream", stream.to_owned())] }
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
            let ms = u64::try_from(behind.as_millis()).unwrap_or(u64::MAX);
            *self.shard.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ms);
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
        INSTRUMENTS.throttled.add(1, &self.stream);
    }

    pub(crate) fn hidden_throttle(&self) {
        INSTRUMENTS.hidden.add(1, &self.stream);
    }

    pub(crate) fn iterator_expired(&self) {
        INSTRUMENTS.expired.add(1, &self.stream);
    }

    pub(crate) fn subscribed(&self, result: &str) {
        let [stream] = self.stream.clone();
        INSTRUMENTS.subscribed.add(1, &[stream, KeyValue::new("result", result.to_owned())]);
    }

    pub(crate) fn silent(&self) {
        INSTRUMENTS.silent.add(1, &self.stream);
    }

    pub(crate) fn polls_instead(&self) {
        INSTRUMENTS.polls_instead.add(1, &self.stream);
    }
}
