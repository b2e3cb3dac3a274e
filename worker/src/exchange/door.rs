//! Where the streams to the partitions of this worker come in, from its own runs and from those of others: each is handed to
//! the run of its partition, or refused because that is not here (P16, P17). Whether it may stand is decided by that run alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{Epoch, ObjectId, SplitId, TaskId};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{credit::Pool, part::Part};

/// Parts that may be on their way to a partition in one stream; the bytes are bounded by its window.
pub(crate) const PARTS_MAX: usize = 256;
/// Messages on their way back; a stream that does not take them is dropped, and opened again it gets all acks (P20).
const SAID_MAX: usize = 1024;
/// Streams that wait to be looked at by the run of a partition.
const OPENS_MAX: usize = 1024;

/// Who wants to send what to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) sink: ObjectId,
    pub(crate) partition: u32,
    /// The run of the partition that the split's assignment names (P16).
    pub(crate) partition_epoch: Epoch,
    pub(crate) split: SplitId,
    pub(crate) split_epoch: Epoch,
    /// Number of the part that will be sent next (P19).
    pub(crate) next: u64,
}

/// Why a stream does not stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The named run of the partition is not here, not yet or not any more (P16, P17): ask again.
    NotHere,
    /// A newer run of the split was seen (P18).
    Older,
    /// Parts were lost on their way (P19).
    Gap,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotHere => "not_here",
            Self::Older => "older",
            Self::Gap => "gap",
        }
    }
}

/// What is durable of what one run sent to one partition (P20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) split: SplitId,
    pub(crate) split_epoch: Epoch,
    pub(crate) partition: u32,
    /// Every part before this one.
    pub(crate) below: u64,
    /// These as well.
    pub(crate) parts: Vec<u64>,
}

/// What a partition says to those who send to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The stream stands; so many bytes may be sent and not acked.
    Accepted(u64),
    /// That has changed.
    Window(u64),
    Acked(Acked),
    Refused(Reason, String),
    /// A row was refused by the destination: the run of the split ends.
    Failed {
        error: String,
        kind: String,
    },
}

/// A stream that comes in.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) open: Open,
    pub(crate) parts: mpsc::Receiver<Part>,
    pub(crate) said: mpsc::Sender<Said>,
}

/// The sender's two ends of a stream.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) parts: mpsc::Sender<Part>,
    pub(crate) said: mpsc::Receiver<Said>,
}

/// The two ends of a new stream.
pub(crate) fn stream(open: Open) -> (Arrival, Ends) {
    let ((parts_in, parts), (said, said_out)) = (mpsc::channel(PARTS_MAX), mpsc::channel(SAID_MAX));
    (Arrival { open, parts, said }, Ends { parts: parts_in, said: said_out })
}

type Runs = HashMap<TaskId, (Epoch, mpsc::Sender<Arrival>)>;

/// The runs of partitions in this process.
#[derive(Debug)]
pub(crate) struct Door {
    runs: Mutex<Runs>,
    pub(crate) pool: Arc<Pool>,
}

impl Door {
    pub(crate) fn new(pool: u64) -> Arc<Self> {
        Arc::new(Self { runs: Mutex::default(), pool: Pool::new(pool) })
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run `epoch` of a partition is here, until the entry is dropped.
    pub(crate) fn enter(self: &Arc<Self>, task: &TaskId, epoch: Epoch) -> (Entry, mpsc::Receiver<Arrival>) {
        let (sender, arrivals) = mpsc::channel(OPENS_MAX);
        self.runs().insert(task.clone(), (epoch, sender));
        (Entry { door: Arc::clone(self), task: task.clone(), epoch }, arrivals)
    }

    /// Hands a stream to the run of its partition, or says why it cannot.
    pub(crate) fn arrive(&self, arrival: Arrival) {
        let Open { sink, partition, .. } = &arrival.open;
        let run = self.runs().get(&TaskId::writes(*sink, *partition)).map(|(_, run)| run.clone());
        let away = match run {
            None => arrival,
            Some(run) => match run.try_send(arrival) {
                Ok(()) => return,
                Err(TrySendError::Full(arrival) | TrySendError::Closed(arrival)) => arrival,
            },
        };
        away.said.try_send(Said::Refused(Reason::NotHere, "it does not run here".to_owned())).ok();
    }
}

/// A run of a partition that is here.
#[derive(Debug)]
pub(crate) struct Entry {
    door: Arc<Door>,
    task: TaskId,
    epoch: Epoch,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut runs = self.door.runs();
        if runs.get(&self.task).is_some_and(|(epoch, _)| *epoch == self.epoch) {
            runs.remove(&self.task);
        }
    }
}
