//! Which positions go into which checkpoint transaction, and which may not.
//!
//! Called by the coordinator's checkpointer. Keeps I3 (only the current epoch of a task moves its checkpoint), I4 (never back,
//! `End` is final) and the shape of P14: one transaction carries tasks of one lane, at most [`LANE_TASKS_MAX`].

use std::collections::{BTreeMap, BTreeSet};

use model::{Checkpoint, Epoch, Gap, Position, TaskId, Timestamp};

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
    /// What the source had let go before this run could read it, if anything. Said with every move from then on.
    pub gap: Option<String>,
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

/// The newest position of each task that is not durable yet, by lane.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    tasks: BTreeMap<TaskId, (LaneId, Moved)>,
    lanes: BTreeMap<LaneId, BTreeSet<TaskId>>,
}

impl Pending {
    /// Takes a reported position, or says why not.
    pub fn offer(&mut self, observed: &Observed, moved: Moved) -> Verdict {
        let verdict = judge(observed, &moved);
        let Some((_, run)) = observed.assignments.get(&moved.task).filter(|_| verdict == Verdict::Taken)
        else {
            return verdict;
        };
        match self.tasks.get_mut(&moved.task) {
            Some((_, known)) if (known.epoch, known.serial) >= (moved.epoch, moved.serial) => {}
            Some((_, known)) if known.epoch == moved.epoch => *known = moved,
            _ => {
                self.forget(&moved.task);
                let lane = (run.worker.clone(), run.lane);
                self.lanes.entry(lane.clone()).or_default().insert(moved.task.clone());
                self.tasks.insert(moved.task.clone(), (lane, moved));
            }
        }
        Verdict::Taken
    }

    /// The lanes in which something waits.
    pub fn lanes(&self) -> impl Iterator<Item = &LaneId> {
        self.lanes.keys()
    }

    /// The next transaction of a lane, `End`s first. What is no longer the task's current run, or behind what is durable, is
    /// dropped. `at` is the leader's wall clock. `None` if nothing waits.
    pub fn group(&mut self, observed: &Observed, lane: &LaneId, at: Timestamp) -> Option<Group> {
        let tasks = self.lanes.get(lane)?;
        let stale =
            |task: &&TaskId| self.get(task).is_none_or(|moved| judge(observed, moved) != Verdict::Taken);
        for task in tasks.iter().filter(stale).cloned().collect::<Vec<_>>() {
            self.forget(&task);
        }
        let mut current: Vec<&Moved> =
            self.lanes.get(lane)?.iter().filter_map(|task| self.get(task)).collect();
        current.sort_by_key(|moved| !moved.position.is_end());
        current.truncate(LANE_TASKS_MAX);
        let mut writes: Vec<(TaskId, Checkpoint)> =
            current.into_iter().map(|moved| (moved.task.clone(), checkpoint(observed, moved, at))).collect();
        writes.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Group { lane: lane.clone(), writes })
    }

    /// The next transaction of every lane that may go now.
    pub fn groups(
        &mut self,
        observed: &Observed,
        at: Timestamp,
        mut may_go: impl FnMut(&LaneId) -> bool,
    ) -> Vec<Group> {
        let lanes: Vec<LaneId> = self.lanes().filter(|lane| may_go(lane)).cloned().collect();
        lanes.iter().filter_map(|lane| self.group(observed, lane, at)).collect()
    }

    /// The position of this task that waits, if any.
    #[must_use]
    pub fn get(&self, task: &TaskId) -> Option<&Moved> {
        self.tasks.get(task).map(|(_, moved)| moved)
    }

    /// Forgets a task: its run was fenced.
    pub fn forget(&mut self, task: &TaskId) {
        let Some((lane, _)) = self.tasks.remove(task) else { return };
        if let Some(tasks) = self.lanes.get_mut(&lane) {
            tasks.remove(task);
            if tasks.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    /// A write is durable: what is not newer waits no longer.
    pub fn committed(&mut self, task: &TaskId, written: &Checkpoint) {
        let done = |moved: &Moved| (moved.epoch, moved.serial) <= (written.epoch, written.serial);
        if self.get(task).is_some_and(done) {
            self.forget(task);
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

/// What a reported position is worth now.
fn judge(observed: &Observed, moved: &Moved) -> Verdict {
    let current = observed.assignments.get(&moved.task).is_some_and(|(epoch, _)| *epoch == moved.epoch);
    if !current {
        return Verdict::Fenced;
    }
    let durable = observed.checkpoints.get(&moved.task).map(|stored| &stored.value);
    let behind = |c: &Checkpoint| c.position.is_end() || (c.epoch, c.serial) >= (moved.epoch, moved.serial);
    if durable.is_some_and(behind) { Verdict::Durable } else { Verdict::Taken }
}

/// The newest gap: a run that finds what was found before says nothing new.
fn gap(before: Option<&Gap>, moved: &Moved, at: Timestamp) -> Option<Gap> {
    match &moved.gap {
        Some(message) if before.is_none_or(|before| before.message != *message) => {
            Some(Gap { message: message.clone(), at })
        }
        _ => before.cloned(),
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
        gap: gap(before.and_then(|c| c.gap.as_ref()), moved, at),
    }
}
