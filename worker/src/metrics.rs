//! What the worker counts, under the names of the manual.

use std::sync::Arc;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, ObservableGauge, UpDownCounter},
};

use crate::budget::Budget;

/// Instruments of the global meter; cheap to use, made once per worker.
pub(crate) struct Metrics {
    pub(crate) records_read: Counter<u64>,
    pub(crate) bytes_read: Counter<u64>,
    pub(crate) sink_records: Counter<u64>,
    pub(crate) sink_retry_records: Counter<u64>,
    pub(crate) sink_inflight: UpDownCounter<i64>,
    pub(crate) poison: Counter<u64>,
    pub(crate) dead_letter_records: Counter<u64>,
    pub(crate) checkpoint_age: Gauge<f64>,
    pub(crate) fenced_writes: Counter<u64>,
    pub(crate) exchange_parts: Counter<u64>,
    pub(crate) exchange_unacked: UpDownCounter<i64>,
    pub(crate) exchange_refused: Counter<u64>,
    _budget: ObservableGauge<f64>,
}

impl Metrics {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        let meter = global::meter("shardwright");
        let counter = |name: &'static str| meter.u64_counter(name).build();
        let budget = Arc::downgrade(budget);
        Self {
            records_read: counter("records_read"),
            bytes_read: counter("bytes_read"),
            sink_records: counter("sink_records"),
            sink_retry_records: counter("sink_retry_records"),
            sink_inflight: meter.i64_up_down_counter("sink_inflight").build(),
            poison: counter("poison"),
            dead_letter_records: counter("dead_letter_records"),
            checkpoint_age: meter.f64_gauge("checkpoint_age_seconds").build(),
            fenced_writes: counter("fenced_writes"),
            exchange_parts: counter("exchange_parts"),
            exchange_unacked: meter.i64_up_down_counter("exchange_unacked_bytes").build(),
            exchange_refused: counter("exchange_refused_opens"),
            _budget: meter
                .f64_observable_gauge("memory_budget_used_ratio")
                .with_callback(move |gauge| {
                    if let Some(budget) = budget.upgrade() {
                        #[allow(clippy::cast_precision_loss)]
                        gauge.observe(budget.used() as f64 / budget.size().max(1) as f64, &[]);
                    }
                })
                .build(),
        }
    }
}

/// Labels of a run.
pub(crate) fn labels(source: &str, sink: &str) -> [KeyValue; 2] {
    [KeyValue::new("source", source.to_owned()), KeyValue::new("sink", sink.to_owned())]
}
