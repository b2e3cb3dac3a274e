//! Which positions go into which checkpoint transaction, and which may not.
//!
//! Called by the coordinator's checkpointer. Keeps I3 (only the current epoch of a task moves its checkpoint), I4 (never back,
//! `End` is final) and the shape of P14: one transaction carries tasks of one lane, at most [`LANE_TASKS_MAX`].

use std::collections::BTreeMap;

use model::{Checkpoint, Epoch, Position, TaskId, Timestamp};

use crate::plan::Observed;

/// Tasks in one lane, and so in one transaction: the guards are one per task, the lane and the leader; etcd takes 128.
pub const LANE_TASKS_MAX: usize = 126;

/// The tasks whose checkpoints travel together: a worker and a number.
pub type LaneId = (String, u32);

/// A position that a run reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    /// Which task.
    pub task: TaskId,
    /// By which run.
    pub epoch: Epoch,
    /// Counts the moves within the run.
    pub serial: u64,
    /// Everything before it is delivered.
    pub position: Position,
    /// Records delivered by this run so far.
    pub records: u64,
    /// The last moment at which all that was read was acked and nothing more was there.
    pub caught_up_at: Option<Timestamp>,
}

/// What came of a reported position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It will be written, or something newer of the same run.
    Taken,
    /// The store has it already, or something newer of the same run: say `Committed` again, the first may be lost.
    Durable,
    /// That run is not the task's current one: stop it at once.
    Fenced,
}

/// One transaction. Guards: `Unchanged(assignment, epoch)` of each write, the lane, the leader; it also rewrites the lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Whose.
    pub lane: LaneId,
    /// Sorted by task; `checkpoint.epoch` is the guard.
    pub writes: Vec<(TaskId, Checkpoint)>,
}

/// The newest position of each task that is not durable yet.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    tasks: BTreeMap<TaskId, Moved>,
}

impl Pending {
    /// Takes a reported position, or says why not.
    pub fn offer(&mut self, observed: &Observed, moved: Moved) -> Verdict {
        if observed.assignments.get(&moved.task).is_none_or(|(epoch, _)| *epoch != moved.epoch) {
            return Verdict::Fenced;
        }
        let durable = observed.checkpoints.get(&moved.task).map(|stored| &stored.value);
        let behind =
            |c: &Checkpoint| c.position.is_end() || (c.epoch, c.serial) >= (moved.epoch, moved.serial);
        if durable.is_some_and(behind) {
            return Verdict::Durable;
        }
        match self.tasks.get(&moved.task) {
            Some(known) if (known.epoch, known.serial) >= (moved.epoch, moved.serial) => {}
            _ => drop(self.tasks.insert(moved.task.clone(), moved)),
        }
        Verdict::Taken
    }

    /// The next transaction of each lane, `End`s first, then by task. What is no longer the task's current run, or behind what
    /// is durable, is dropped. `at` is the leader's wall clock.
    pub fn groups(&mut self, observed: &Observed, at: Timestamp) -> Vec<Group> {
        let waiting = std::mem::take(&mut self.tasks);
        for moved in waiting.into_values() {
            self.offer(observed, moved);
        }
        let mut ordered: Vec<&Moved> = self.tasks.values().collect();
        ordered.sort_by_key(|moved| !moved.position.is_end());
        let mut lanes: BTreeMap<LaneId, Vec<(TaskId, Checkpoint)>> = BTreeMap::new();
        for moved in ordered {
            let Some((_, run)) = observed.assignments.get(&moved.task) else { continue };
            let writes = lanes.entry((run.worker.clone(), run.lane)).or_default();
            if writes.len() < LANE_TASKS_MAX {
                writes.push((moved.task.clone(), checkpoint(observed, moved, at)));
            }
        }
        lanes
            .into_iter()
            .map(|(lane, mut writes)| {
                writes.sort_by(|a, b| a.0.cmp(&b.0));
                Group { lane, writes }
            })
            .collect()
    }

    /// The position of this task that waits, if any.
    #[must_use]
    pub fn get(&self, task: &TaskId) -> Option<&Moved> {
        self.tasks.get(task)
    }

    /// Forgets a task: its run was fenced.
    pub fn forget(&mut self, task: &TaskId) {
        self.tasks.remove(task);
    }

    /// A write is durable: what is not newer waits no longer.
    pub fn committed(&mut self, task: &TaskId, written: &Checkpoint) {
        let done = |moved: &Moved| (moved.epoch, moved.serial) <= (written.epoch, written.serial);
        if self.tasks.get(task).is_some_and(done) {
            self.tasks.remove(task);
        }
    }

    /// Tasks that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// What is written for a position: the totals go on from the checkpoint before.
fn checkpoint(observed: &Observed, moved: &Moved, at: Timestamp) -> Checkpoint {
    let before = observed.checkpoints.get(&moved.task).map(|stored| &stored.value);
    let counted = before.filter(|c| c.epoch == moved.epoch).map_or(0, |c| c.run_records);
    Checkpoint {
        position: moved.position.clone(),
        epoch: moved.epoch,
        serial: moved.serial,
        caught_up_at: moved.caught_up_at.or(before.and_then(|c| c.caught_up_at)),
        records: before.map_or(0, |c| c.records) + moved.records.saturating_sub(counted),
        run_records: moved.records,
        at,
    }
}
