//! Which lane a run's checkpoints travel in: chosen with the assignment, kept for the whole epoch (P14).

use std::collections::BTreeMap;

use model::TaskId;

use super::Observed;
use crate::checkpoint::{LANE_TASKS_MAX, LaneId};

/// How many tasks each lane holds.
pub(super) struct Lanes<'a> {
    observed: &'a Observed,
    tasks: BTreeMap<LaneId, usize>,
}

impl<'a> Lanes<'a> {
    pub(super) fn of(observed: &'a Observed) -> Self {
        let mut tasks = BTreeMap::new();
        for (_, run) in
            observed.assignments.iter().filter(|(task, _)| task.split().is_some()).map(|(_, run)| run)
        {
            *tasks.entry((run.worker.clone(), run.lane)).or_default() += 1;
        }
        Self { observed, tasks }
    }

    /// The first lane of this worker with room; the task leaves the lane of its old run. A partition has no checkpoint.
    pub(super) fn take(&mut self, worker: &str, task: &TaskId) -> u32 {
        if task.split().is_none() {
            return 0;
        }
        if let Some((_, old)) = self.observed.assignments.get(task)
            && let Some(n) = self.tasks.get_mut(&(old.worker.clone(), old.lane))
        {
            *n = n.saturating_sub(1);
        }
        let mut lane = (worker.to_owned(), 0);
        while self.tasks.get(&lane).is_some_and(|n| *n >= LANE_TASKS_MAX) {
            lane.1 += 1;
        }
        let number = lane.1;
        *self.tasks.entry(lane).or_default() += 1;
        number
    }
}
