//! The coordinator's metrics, on the global OpenTelemetry meter. Names are those of the user's manual.

use opentelemetry::{
    global,
    metrics::{Counter, Gauge, Histogram},
};

/// One of each.
pub(crate) struct Meters {
    /// 1 while this coordinator leads.
    pub leader: Gauge<u64>,
    /// Elections won by this process.
    pub leader_changes: Counter<u64>,
    /// Since each worker was last heard, by `worker`.
    pub heartbeat_age: Gauge<f64>,
    /// Splits per state, by `state`.
    pub splits: Gauge<u64>,
    /// New owners of tasks that had one, by `reason`.
    pub moves: Counter<u64>,
    /// From the order to stop until the run was released.
    pub handoff: Histogram<f64>,
    /// From the last sign of life of an owner until its task had another.
    pub failover: Histogram<f64>,
    /// One comparison of what is wanted with what is.
    pub reconcile: Histogram<f64>,
    /// One checkpoint transaction, its retries included.
    pub checkpoint_write: Histogram<f64>,
    /// Splits that went before a sink was through with them, by `reason`.
    pub data_loss: Counter<u64>,
    /// From the end of the last parent until the child had an owner.
    pub child_start_delay: Histogram<f64>,
    /// Parts of the key space that no known split owns, by `source`.
    pub holes: Gauge<u64>,
    /// How many workers would be right.
    pub workers_wanted: Gauge<u64>,
    /// How far behind tasks are, by `quantile`: `p90`, `max`.
    pub lag: Gauge<f64>,
    /// The parts in use of what all workers have, by `resource`: `cpu`, `memory_budget`.
    pub used: Gauge<f64>,
    /// Splits that should be split.
    pub hot_splits: Gauge<u64>,
    /// Broken invariants found, by `id`.
    pub violations: Counter<u64>,
}

impl Meters {
    /// Registers them; the same names give the same instruments.
    pub fn new() -> Self {
        let meter = global::meter("shardwright");
        Self {
            leader: meter.u64_gauge("leader").build(),
            leader_changes: meter.u64_counter("leader_changes").build(),
            heartbeat_age: meter.f64_gauge("worker_heartbeat_age").with_unit("s").build(),
            splits: meter.u64_gauge("splits").build(),
            moves: meter.u64_counter("split_moves").build(),
            handoff: meter.f64_histogram("handoff").with_unit("s").build(),
            failover: meter.f64_histogram("failover").with_unit("s").build(),
            reconcile: meter.f64_histogram("reconcile").with_unit("s").build(),
            checkpoint_write: meter.f64_histogram("checkpoint_write").with_unit("s").build(),
            data_loss: meter.u64_counter("data_loss_detected").build(),
            child_start_delay: meter.f64_histogram("child_start_delay").with_unit("s").build(),
            holes: meter.u64_gauge("hash_coverage_holes").build(),
            workers_wanted: meter.u64_gauge("workers_wanted").build(),
            lag: meter.f64_gauge("task_lag").with_unit("s").build(),
            used: meter.f64_gauge("workers_used_ratio").build(),
            hot_splits: meter.u64_gauge("hot_splits").build(),
            violations: meter.u64_counter("invariant_violations").build(),
        }
    }
}
