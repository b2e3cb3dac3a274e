//! The coordinator's metrics, on the global OpenTelemetry meter, under the names of docs/metrics.md.
//!
//! What a leader sees of the cluster is on boards: they show what it measured last, and are wiped when its term ends, so that two
//! coordinators never tell of the same cluster.

use daemon::Board;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
};

/// One of each.
pub(crate) struct Meters {
    /// 1 while this coordinator leads.
    pub leader: Gauge<u64>,
    /// Elections won by this process.
    pub leader_changes: Counter<u64>,
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
    /// Splits and merges that were seen, by `kind`.
    pub reshards: Counter<u64>,
    /// From the end of the last parent until the child had an owner.
    pub child_start_delay: Histogram<f64>,
    /// Broken invariants found, by `id`.
    pub violations: Counter<u64>,
    /// What the leader sees.
    pub seen: Seen,
}

/// What a leader sees of its cluster.
pub(crate) struct Seen {
    /// Since each worker was last heard, by `worker`.
    pub heartbeat_age: Board,
    /// Splits per state, by `state`.
    pub splits: Board,
    /// Parts of the key space that no known split owns, by `source`.
    pub holes: Board,
    /// How many workers would be right.
    pub workers_wanted: Board,
    /// How far behind tasks are, by `quantile`: `p90`, `max`.
    pub lag: Board,
    /// How far behind the slowest task of each sink is, by `source`, `sink`.
    pub sink_lag: Board,
    /// How long a source keeps its records, if it says, by `source`.
    pub retention: Board,
    /// The parts in use of what all workers have, by `resource`: `cpu`, `memory_budget`.
    pub used: Board,
    /// Splits that should be split.
    pub hot_splits: Board,
}

impl Meters {
    /// Registers them. One for each coordinator.
    pub fn new() -> Self {
        let meter = global::meter("shardwright");
        let counter =
            |name: &'static str, text: &'static str| meter.u64_counter(name).with_description(text).build();
        let seconds = |name: &'static str, text: &'static str| {
            meter.f64_histogram(name).with_unit("s").with_description(text).build()
        };
        let meters = Self {
            leader: meter.u64_gauge("leader").with_description("1 on the coordinator that leads").build(),
            leader_changes: counter("leader_changes", "elections won"),
            moves: counter("split_moves", "tasks that got another owner"),
            handoff: seconds("handoff", "from the order to stop until the run was released"),
            failover: seconds("failover", "from the last sign of an owner until its task had another"),
            reconcile: seconds("reconcile", "one comparison of what is wanted with what is"),
            checkpoint_write: seconds("checkpoint_write", "one checkpoint transaction with its retries"),
            data_loss: counter("data_loss_detected", "records that were gone before they were read"),
            reshards: counter("reshard_events", "splits and merges of splits"),
            child_start_delay: seconds("child_start_delay", "from the end of the last parent to an owner"),
            violations: counter("invariant_violations", "invariants found broken"),
            seen: Seen {
                heartbeat_age: Board::new("worker_heartbeat_age", "s", "since each worker was heard"),
                splits: Board::new("splits", "", "splits of all sinks, and partitions, by state"),
                holes: Board::new("hash_coverage_holes", "", "parts of the hash range without a known split"),
                workers_wanted: Board::new("workers_wanted", "", "how many workers would be right"),
                lag: Board::new("task_lag", "s", "how far behind tasks are"),
                sink_lag: Board::new("sink_lag", "s", "how far behind the slowest task of a sink is"),
                retention: Board::new("source_retention", "s", "how long a source keeps its records"),
                used: Board::new("workers_used_ratio", "", "part in use of what all workers have"),
                hot_splits: Board::new("hot_splits", "", "splits that should be split"),
            },
        };
        // They are there before they happen, so that the first time is seen as an increase.
        for reason in ["split_gone", "gap"] {
            meters.data_loss.add(0, &[KeyValue::new("reason", reason)]);
        }
        for kind in ["split", "merge"] {
            meters.reshards.add(0, &[KeyValue::new("kind", kind)]);
        }
        // Those that can be seen from here (see `logic::invariant`).
        for id in ["I2", "I3", "I4", "I7"] {
            meters.violations.add(0, &[KeyValue::new("id", id)]);
        }
        meters
    }
}

impl Seen {
    /// Nobody here sees anything any more.
    pub fn wipe(&self) {
        let Self { heartbeat_age, splits, holes, workers_wanted, lag, sink_lag, retention, used, hot_splits } =
            self;
        for board in
            [heartbeat_age, splits, holes, workers_wanted, lag, sink_lag, retention, used, hot_splits]
        {
            board.clear();
        }
    }
}
