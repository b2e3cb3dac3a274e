//! Tasks, their epochs, and what the metadata store keeps of them.

use std::{fmt, str::FromStr};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{Creation, ObjectId, ParseIdError, Position, Timestamp};

/// Identity of a split: the creation of its stream and its name (for Kinesis the shard id). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SplitId {
    creation: Creation,
    /// In place up to 24 bytes, which every shard id of Kinesis keeps to: the leader compares millions a second.
    name: CompactString,
}

impl SplitId {
    /// The split `name` of the stream created at `creation`.
    #[must_use]
    pub fn new(creation: Creation, name: &str) -> Self {
        Self { creation, name: name.into() }
    }

    /// When its stream was created.
    #[must_use]
    pub fn creation(&self) -> Creation {
        self.creation
    }

    /// Its name within the stream.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What users see: the name alone.
impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.creation, self.name)
    }
}

/// What a task does for its sink. Written out it is `creation/split` or `partition/n`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Work {
    /// Reads this split; it also writes what it read, unless the sink is distributed by key.
    Split(SplitId),
    /// Writes this partition of a sink that is distributed by key.
    Partition(u32),
}

/// What users see: the split's name, or `partition 3`.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split(split) => fmt::Display::fmt(split, f),
            Self::Partition(n) => write!(f, "partition {n}"),
        }
    }
}

impl From<Work> for String {
    fn from(work: Work) -> Self {
        match work {
            Work::Split(split) => format!("{split:?}"),
            Work::Partition(n) => format!("partition/{n}"),
        }
    }
}

impl TryFrom<String> for Work {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl FromStr for Work {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError(text.to_owned(), "the work of a task");
        let (kind, name) = text.split_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(bad)?;
        if kind == "partition" {
            return Ok(Self::Partition(name.parse().map_err(|_| bad())?));
        }
        let creation = Creation(kind.parse().map_err(|_| bad())?);
        Ok(Self::Split(SplitId::new(creation, name)))
    }
}

/// The unit of assignment, fencing and failure: one split read, or one partition written, for one sink.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The sink that it works for.
    pub sink: ObjectId,
    /// What it does.
    pub work: Work,
}

impl TaskId {
    /// The task that reads `split` for `sink`.
    #[must_use]
    pub fn reads(sink: ObjectId, split: SplitId) -> Self {
        Self { sink, work: Work::Split(split) }
    }

    /// The task that writes partition `n` of `sink`.
    #[must_use]
    pub fn writes(sink: ObjectId, n: u32) -> Self {
        Self { sink, work: Work::Partition(n) }
    }

    /// The split that it reads.
    #[must_use]
    pub fn split(&self) -> Option<&SplitId> {
        match &self.work {
            Work::Split(split) => Some(split),
            Work::Partition(_) => None,
        }
    }

    /// The partition that it writes.
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        match &self.work {
            Work::Split(_) => None,
            Work::Partition(n) => Some(*n),
        }
    }
}

/// `sink/creation/split` or `sink/partition/n`: also its key in the metadata store.
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.work {
            Work::Split(split) => write!(f, "{}/{split:?}", self.sink),
            Work::Partition(n) => write!(f, "{}/partition/{n}", self.sink),
        }
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (sink, work) = s.split_once('/').ok_or_else(|| ParseIdError(s.to_owned(), "a task id"))?;
        Ok(Self { sink: sink.parse()?, work: work.parse()? })
    }
}

/// The fencing token of a run: the store revision at which its assignment was written, after the generation of the store.
/// A restored store starts a new generation, so its smaller revisions are still newer. One epoch is one run (P6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// Counts restores of the metadata store.
    pub generation: u64,
    /// `mod_revision` of the assignment.
    pub revision: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.revision)
    }
}

/// How sure the leader is that a run is over (P9).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// Nothing was heard of its end.
    No,
    /// It ended, but a request of it may still land.
    Stopped,
    /// It ended and nothing of it can land any more.
    Drained,
}

/// An earlier run of a task whose last request may still land.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Predecessor {
    /// What it did, if it was a run of another task of the sink than the one that this is a predecessor of (P22).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Work>,
    /// The worker that ran it.
    pub worker: String,
    /// The process that ran it.
    pub process: String,
    /// What that process ran in (see [`WorkerRecord::instance`]).
    pub instance: String,
    /// Which run.
    pub epoch: Epoch,
    /// What was heard of its end when the assignment was written.
    pub release: Release,
}

/// "This worker owns this task": `/assignment/{task}`. Written once per run, never edited; its revision is the epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The worker's stable name.
    pub worker: String,
    /// The process of that worker; another process of the same worker never runs this epoch (P6).
    pub process: String,
    /// What that process runs in; see [`WorkerRecord::instance`].
    pub instance: String,
    /// Revision of the source's and the sink's spec that the run uses; a smaller one than the catalog's is moved.
    pub spec_revision: u64,
    /// The lane its checkpoints travel in, for the whole epoch (P14).
    pub lane: u32,
    /// Where the run starts: the checkpoint as of this write (P13).
    pub start: Position,
    /// Every earlier run whose moment has not passed (P9).
    pub predecessors: Vec<Predecessor>,
    /// Of a split task whose sink is distributed by key: the partitions that it sends to, named by the newest of their epochs
    /// (P16). Any change of any of them makes a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Epoch>,
}

/// Durable position of a task: `/checkpoint/{task}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Everything before it is delivered or dead-lettered (I1).
    pub position: Position,
    /// The run that moved it last.
    pub epoch: Epoch,
    /// Counts the moves within that run; (epoch, serial) never goes back (I4).
    pub serial: u64,
    /// The last moment at which the task had read everything and all of it was acked.
    pub caught_up_at: Option<Timestamp>,
    /// Records delivered by all runs so far, repeats included.
    pub records: u64,
    /// Of those, by the run `epoch`: what a run reports counts from its start, so a new leader knows what to add.
    #[serde(default)]
    pub run_records: u64,
    /// When it was written (the leader's clock).
    pub at: Timestamp,
    /// What the source let go before this task could read it, the newest such find. No later move takes it away, only a reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// Records that aged out before a task could read them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// What may be missing, in words, with the range of positions or of time.
    pub message: String,
    /// When it was first stored (the leader's clock).
    pub at: Timestamp,
}

/// A worker in the metadata store: `/worker/{name}`. A record without a lease: liveness is what the leader heard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// New at each start of the worker (P1).
    pub process: String,
    /// What runs one process at a time: a pod's UID, or the lock on a data directory.
    pub instance: String,
    /// Relative share of tasks; 1 for an ordinary worker.
    pub capacity: u32,
    /// The release it runs.
    pub version: String,
    /// Failure domain, empty if none was given.
    pub zone: String,
    /// Where others reach it, empty if nobody needs to.
    pub address: String,
    /// True while an operator wants it empty. A new process of the worker takes tasks again.
    #[serde(default)]
    pub draining: bool,
}
