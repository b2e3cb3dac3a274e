//! Everything one run needs, and how the session speaks to it.

use std::{ops::Deref, sync::Arc, time::Duration};

use connector::{Sink, SinkCommon, Source};
use logic::{mutant, outbox::Order};
use model::{Distribution, Epoch, Position, SinkSpec, SourceSpec, SplitId, TaskId, Timestamp};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{chunk::Failure, shown::Shown};
use crate::{
    budget::Budget,
    exchange::{Owner, Peers},
    fence::Fence,
    metrics::Metrics,
    reading::Readings,
};

/// A source as this process has it: shared by all its tasks.
pub(crate) struct BuiltSource {
    pub(crate) spec: SourceSpec,
    pub(crate) source: Arc<dyn Source>,
    /// Where records go that cannot be decoded.
    pub(crate) letters: Option<Arc<BuiltSink>>,
    /// What its runs read together.
    pub(crate) readings: Readings,
}

/// A sink as this process has it: shared by all its tasks.
pub(crate) struct BuiltSink {
    pub(crate) spec: SinkSpec,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) common: SinkCommon,
    /// Where rows go that it refuses.
    pub(crate) letters: Option<Arc<BuiltSink>>,
}

impl BuiltSink {
    /// The columns whose rows stay in order: without a key of its own, a sink that is distributed by key has that one.
    pub(crate) fn key(&self) -> &[String] {
        match &self.spec.distribution {
            Distribution::Key { columns, .. } if self.spec.primary_key.is_empty() => columns,
            _ => &self.spec.primary_key,
        }
    }

    pub(crate) fn order(&self) -> Order {
        match self.common.ordering {
            connector::Ordering::None => Order::Free,
            connector::Ordering::Key if self.key().is_empty() => Order::Whole,
            connector::Ordering::Key
                if self.sink.capability().piecemeal && !mutant::on("two_rows_of_a_key_in_a_request") =>
            {
                Order::Single
            }
            connector::Ordering::Key => Order::Key,
        }
    }
}

/// What all runs of a worker share.
pub(crate) struct Commons {
    pub(crate) budget: Arc<Budget>,
    pub(crate) reads: Semaphore,
    pub(crate) metrics: Metrics,
    pub(crate) write_attempt_timeout: Duration,
    pub(crate) last_breath: Duration,
    /// How long a run that ends by itself may take to let its requests finish.
    pub(crate) settle_deadline: Duration,
}

/// One run: one epoch of a task, for as long as this process has it (P6).
pub(crate) struct Tenure {
    pub(crate) task: TaskId,
    pub(crate) epoch: Epoch,
    /// Before it the run writes and acks nothing (P10).
    pub(crate) gate: Instant,
    pub(crate) source_name: String,
    pub(crate) sink: Arc<BuiltSink>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) shown: Arc<Shown>,
    pub(crate) commons: Arc<Commons>,
}

impl Tenure {
    pub(crate) fn run(&self) -> connector::Run {
        connector::Run { epoch: self.epoch, sink_instance: self.sink.spec.instance }
    }
}

/// The run of a task that reads a split.
pub(crate) struct Job {
    /// The split that it reads.
    pub(crate) split: SplitId,
    pub(crate) start: Position,
    /// The last moment at which everything in the split had been delivered.
    pub(crate) caught_up_at: Option<Timestamp>,
    pub(crate) source: Arc<BuiltSource>,
    pub(crate) tenure: Arc<Tenure>,
    /// Who writes what it reads, if it does not itself.
    pub(crate) partitions: Option<Partitions>,
}

impl Deref for Job {
    type Target = Tenure;
    fn deref(&self) -> &Tenure {
        &self.tenure
    }
}

/// The set of partitions that a run sends to, for its whole life (P16).
pub(crate) struct Partitions {
    /// In the order of their numbers.
    pub(crate) owners: Vec<Owner>,
    pub(crate) peers: Arc<Peers>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// Nothing is in flight and nothing can land any more (P8).
    pub(crate) drained: bool,
    /// Why, if nobody asked for it.
    pub(crate) failure: Option<Failure>,
}

impl Ending {
    pub(crate) fn drained() -> Self {
        Self { drained: true, failure: None }
    }

    /// Nothing was ever in flight.
    pub(crate) fn failed(failure: Failure) -> Self {
        Self { drained: true, failure: Some(failure) }
    }
}

/// The run's end of the wire to the session: `None` means go on, else drain until then.
#[derive(Clone, Debug)]
pub(crate) struct Control(watch::Receiver<Option<Instant>>);

impl Control {
    pub(crate) fn new() -> (watch::Sender<Option<Instant>>, Self) {
        let (tell, told) = watch::channel(None);
        (tell, Self(told))
    }

    /// Resolves, every time it is asked, once the run shall stop: by when. Cancel safe.
    pub(crate) async fn stopping(&mut self) -> Instant {
        match self.0.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_else(Instant::now),
            // The session is gone; so will be this run.
            Err(_) => Instant::now(),
        }
    }
}
