//! The reconciler's heart: desired and observed in, actions out. Level, not edge: create, failover, rescale, reshard, drop and
//! restart are all differences between the two, and the plan of a settled world is empty (I5).
//!
//! Called by the coordinator on each nudge and tick. Keeps I2 (no child before its parents), I3 (guards travel with each
//! action), I6 (a ready split has an owner when a worker is alive), I7 (a dropped sink leaves no key) and P6, P9, P13, P15.
//!
//! One task's way:
//!
//! ```text
//!            ready, worker alive              wish gone, spec changed, drain, move
//!  (no key) ───── Assign ─────▶ running ─────────────── Stop ───────────────▶ stopping
//!     ▲                            │  End is checkpointed                        │ drained / stopped / given up
//!     │                            ▼                                             ▼
//!     └──── Unassign ◀─────────── over ◀─────────────────────────────────────── over ── Assign (new epoch) ─▶ running
//! ```
//!
//! A run that is over and has no successor keeps its key until its own moment and those of its predecessors have passed, so
//! that P9 forgets nobody; only then is it unassigned.

mod apply;
mod catalog;
mod lanes;
mod list;
mod partition;
mod task;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use model::{Assignment, Checkpoint, Epoch, ObjectId, SplitId, TaskId, Timestamp};

pub use list::{RunOrder, StopOrder, TaskList, list, lists, open_gates};
pub use task::{FORGIVEN_AFTER, Rebalance, rebalance};

use crate::{
    Timing,
    assign::{
        History,
        cost::{Load, Sample},
    },
    gate::Heard,
    lineage::Table,
};

/// What users asked for.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// By id.
    pub sources: BTreeMap<ObjectId, DesiredSource>,
    /// By id. A dropping sink stays here until nothing of it is left.
    pub sinks: BTreeMap<ObjectId, DesiredSink>,
}

/// A source, as far as the plan cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredSource {
    /// For messages.
    pub name: String,
    /// Of its spec.
    pub revision: u64,
    /// `DROP SOURCE` was durable.
    pub dropping: bool,
}

/// A sink, as far as the plan cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredSink {
    /// For messages.
    pub name: String,
    /// The source it reads.
    pub source: ObjectId,
    /// Of its spec. `RESUME`, `SET` and a reset make it grow.
    pub revision: u64,
    /// Of its spec: grows with each reset (a checkpoint may go back then).
    pub instance: u64,
    /// An operator paused it.
    pub paused: bool,
    /// `DROP SINK` was durable.
    pub dropping: bool,
    /// How many partitions it has: 0 unless it is distributed by key.
    pub partitions: u32,
    /// False for sinks that claim `fenced` and for `takeover = 'fast'`: their new owners have no gate (P10).
    pub gated: bool,
    /// Of its spec: splits gone before it count as ended.
    pub created_at: Timestamp,
}

impl Desired {
    /// The revision that a run of this sink must have: that of its source plus its own, so it grows when either does.
    /// `None` if the sink or its source is not there.
    #[must_use]
    pub fn spec_revision(&self, sink: ObjectId) -> Option<u64> {
        let sink = self.sinks.get(&sink)?;
        Some(self.sources.get(&sink.source)?.revision + sink.revision)
    }
}

/// A value of the store with the revision at which it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored<T> {
    /// What stands there.
    pub value: T,
    /// Its modification revision: the guard of the next write.
    pub revision: u64,
}

/// What is. A map that lacks a key says *absent*; `splits` without a source says *unknown* (not listed yet).
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The split table of each source, all creations.
    pub splits: BTreeMap<ObjectId, Table>,
    /// Durable positions.
    pub checkpoints: BTreeMap<TaskId, Stored<Checkpoint>>,
    /// Who runs what, with the epoch of each.
    pub assignments: BTreeMap<TaskId, (Epoch, Assignment)>,
    /// Sessions and answers of this term.
    pub heard: Heard,
    /// Orders to stop that were given in this term, and not yet forgotten.
    pub stopping: BTreeMap<(TaskId, Epoch), Stopping>,
    /// The newest report of each run.
    pub reports: BTreeMap<TaskId, RunReport>,
    /// The smoothed load of each task, over all its runs.
    pub loads: BTreeMap<TaskId, Load>,
    /// What the balancer did lately.
    pub history: History,
    /// The leader's wall clock, for tombstones.
    pub wall: Timestamp,
}

/// An order to stop a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stopping {
    /// When it was given.
    pub at: Duration,
    /// How long the run may drain; zero drops it at once.
    pub deadline: Duration,
    /// Why.
    pub reason: StopReason,
}

/// A run seen from inside.
#[derive(Clone, PartialEq, Debug)]
pub struct RunReport {
    /// Which run; a report of another epoch says nothing.
    pub epoch: Epoch,
    /// It stands still until a human acts: the error in one line.
    pub failed: Option<String>,
    /// How much it does, for the balancer.
    pub sample: Sample,
}

/// Why a run is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// Another worker shall have it: evenness of counts.
    Move,
    /// Another worker shall have it: evenness of loads.
    Load,
    /// Its worker is being emptied.
    Drain,
    /// Its sink is paused.
    Pause,
    /// Its spec changed: a new epoch follows.
    Change,
    /// A partition that it sends to has a new epoch, and so gets it (P16).
    Partitions,
    /// Its sink is being dropped.
    Drop,
    /// Its split is gone, or it must not run yet.
    Lineage,
    /// A newer epoch of the task exists, or it did not stop in time.
    Fence,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Move => "move",
            Self::Load => "load",
            Self::Drain => "drain",
            Self::Pause => "pause",
            Self::Change => "change",
            Self::Partitions => "partitions",
            Self::Drop => "drop",
            Self::Lineage => "lineage",
            Self::Fence => "fence",
        })
    }
}

/// One step towards the desired world. Every write is also guarded by the leader key (I3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Writes an assignment: a new epoch.
    Assign(Box<Assign>),
    /// Orders a run to stop: enters it into [`Observed::stopping`]; the worker's next list carries it (P7).
    Stop(Stop),
    /// Deletes an assignment, if it is still that epoch. Nothing of it can land any more, or nobody cares.
    Unassign {
        /// Whose.
        task: TaskId,
        /// Which run: the guard.
        epoch: Epoch,
        /// How its run ended, for the log: the split has ended, was paused, …
        reason: StopReason,
    },
    /// Deletes a checkpoint: its sink is being dropped, or its split is a tombstone that nobody asks for.
    /// Guards: the checkpoint at this revision, and no assignment.
    DeleteCheckpoint {
        /// Whose.
        task: TaskId,
        /// The guard.
        revision: u64,
    },
    /// Deletes a split's record: its source is being dropped, or it is a tombstone that nobody asks for.
    DeleteSplit {
        /// Of this source.
        source: ObjectId,
        /// Which.
        split: SplitId,
    },
    /// Deletes the object of a dropped sink or source: nothing else of it is left.
    DeleteObject {
        /// Which.
        id: ObjectId,
    },
}

/// A new owner for a task. Guards (P13): the old assignment (`replaces`, or absent), the checkpoint (or absent), the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assign {
    /// Which task.
    pub task: TaskId,
    /// What is written.
    pub assignment: Assignment,
    /// The assignment that it replaces; `None`: there must be none.
    pub replaces: Option<Epoch>,
    /// Revision of the checkpoint from which `start` was read; `None`: there must be none.
    pub checkpoint: Option<u64>,
}

/// An order to a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Which task.
    pub task: TaskId,
    /// Which run.
    pub epoch: Epoch,
    /// Whose list carries the order.
    pub worker: String,
    /// That process of it.
    pub process: String,
    /// How long it may drain; zero: drop at once (fenced).
    pub deadline: Duration,
    /// Why.
    pub reason: StopReason,
    /// Which worker shall have it next, if that is decided already.
    pub to: Option<String>,
}

/// What to do now, and why nothing is done about the rest.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order in which to do them. They do not depend on each other's outcome.
    pub actions: Vec<Action>,
    /// Why a task that is not simply running is where it is, in words.
    pub waiting: BTreeMap<TaskId, String>,
    /// Workers that hold tasks but were not heard yet in this term or lately; the balancer holds back for them.
    pub silent: BTreeSet<String>,
}

/// Compares desired with observed. Call it with a fully loaded view only.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, timing: &Timing, now: Duration) -> Plan {
    let mut plan = task::tasks(desired, observed, timing, now);
    catalog::leftovers(desired, observed, &mut plan);
    plan
}
