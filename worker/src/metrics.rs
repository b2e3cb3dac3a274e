//! What the worker counts, under the names of docs/metrics.md.

use std::sync::Arc;

use daemon::Board;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, UpDownCounter},
};

use crate::budget::Budget;

/// Instruments of the global meter; cheap to use, made once per worker.
pub(crate) struct Metrics {
    pub(crate) records_read: Counter<u64>,
    pub(crate) bytes_read: Counter<u64>,
    pub(crate) sink_records: Counter<u64>,
    pub(crate) sink_retry_records: Counter<u64>,
    pub(crate) sink_partial_failures: Counter<u64>,
    pub(crate) sink_inflight: UpDownCounter<i64>,
    pub(crate) sink_flush: Histogram<f64>,
    pub(crate) poison: Counter<u64>,
    pub(crate) dead_letter_records: Counter<u64>,
    pub(crate) checkpoint_age: Board,
    pub(crate) fenced_writes: Counter<u64>,
    pub(crate) exchange_parts: Counter<u64>,
    pub(crate) exchange_unacked: UpDownCounter<i64>,
    pub(crate) exchange_refused: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        let meter = global::meter("shardwright");
        let counter =
            |name: &'static str, text: &'static str| meter.u64_counter(name).with_description(text).build();
        watch(budget);
        let fenced_writes = counter("fenced_writes", "writes that a destination refused from an old owner");
        // It is there before it happens, so that the first time is seen as an increase.
        fenced_writes.add(0, &[]);
        Self {
            records_read: counter("records_read", "records taken, once for each sink"),
            bytes_read: counter("bytes_read", "their bytes"),
            sink_records: counter("sink_records", "rows by what became of them"),
            sink_retry_records: counter("sink_retry_records", "rows that are sent again"),
            sink_partial_failures: counter(
                "sink_partial_failures",
                "rows that a destination did not take out of a request, by its code",
            ),
            sink_inflight: meter
                .i64_up_down_counter("sink_inflight")
                .with_description("requests under way")
                .build(),
            sink_flush: meter
                .f64_histogram("sink_flush")
                .with_unit("s")
                .with_description("a request, from its start to the answer for all its rows")
                .build(),
            poison: counter("poison", "records or rows that are not what they should be"),
            dead_letter_records: counter("dead_letter_records", "records put into the dead letters"),
            checkpoint_age: Board::new(
                "checkpoint_age",
                "s",
                "how long the oldest position of a sink here has been waiting to become durable",
            ),
            fenced_writes,
            exchange_parts: counter("exchange_parts", "parts of chunks that came to a partition"),
            exchange_unacked: meter
                .i64_up_down_counter("exchange_unacked")
                .with_unit("By")
                .with_description("bytes of parts that are not delivered yet")
                .build(),
            exchange_refused: counter("exchange_refused_opens", "streams that a partition refused"),
        }
    }
}

fn watch(budget: &Arc<Budget>) {
    let budget = Arc::downgrade(budget);
    // The instrument lives as long as the meter.
    let _ = global::meter("shardwright")
        .f64_observable_gauge("memory_budget_used_ratio")
        .with_description("part of the memory budget that records hold")
        .with_callback(move |gauge| {
            if let Some(budget) = budget.upgrade() {
                #[allow(clippy::cast_precision_loss)]
                gauge.observe(budget.used() as f64 / budget.size().max(1) as f64, &[]);
            }
        })
        .build();
}

/// Labels of a run.
pub(crate) fn labels(source: &str, sink: &str) -> [KeyValue; 2] {
    [KeyValue::new("source", source.to_owned()), KeyValue::new("sink", sink.to_owned())]
}
