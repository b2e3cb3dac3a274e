//! How the leader's memory changes when an action was carried out. The coordinator and the tests use the same.

use std::time::Duration;

use model::{Assignment, Checkpoint, Epoch, Release, TaskId};

use super::{Action, Observed, RunReport, StopReason, Stopping, Stored};
use crate::assign::cost::Load;

impl Observed {
    /// The action was carried out: its write landed, for an assignment at the revision that `epoch` names.
    pub fn apply(&mut self, action: &Action, epoch: Epoch, now: Duration) {
        match action {
            Action::Assign(assign) => {
                let new = &assign.assignment;
                for old in new.predecessors.iter().filter(|old| old.of.is_none() && old.worker != new.worker)
                {
                    if old.release == Release::No {
                        self.history.left(assign.task.clone(), &old.worker, now);
                    }
                }
                self.history.arrived(&assign.task);
                self.assignments.insert(assign.task.clone(), (epoch, new.clone()));
                self.prune(&assign.task);
            }
            Action::Stop(stop) => {
                match stop.reason {
                    StopReason::Move | StopReason::Load => {
                        let capped = stop.reason == StopReason::Load;
                        self.history.moved(stop.task.clone(), stop.to.clone(), capped, now);
                    }
                    StopReason::Drain => self.history.left(stop.task.clone(), &stop.worker, now),
                    _ => {}
                }
                let order = Stopping { at: now, deadline: stop.deadline, reason: stop.reason };
                self.stopping.insert((stop.task.clone(), stop.epoch), order);
            }
            Action::Unassign { task, .. } => {
                self.assignments.remove(task);
                self.reports.remove(task);
                self.loads.remove(task);
                self.history.forget(task);
                self.prune(task);
            }
            Action::DeleteCheckpoint { task, .. } => {
                self.checkpoints.remove(task);
            }
            Action::DeleteSplit { source, split } => {
                if let Some(table) = self.splits.get_mut(source) {
                    table.remove(split);
                }
            }
            Action::DeleteObject { id } => {
                self.splits.remove(id);
            }
        }
    }

    /// A run reported. The answer is what it had said before.
    pub fn reported(&mut self, task: TaskId, report: RunReport, now: Duration) -> Option<RunReport> {
        let load = match self.loads.get(&task) {
            Some(load) => load.then(report.sample, now),
            None => Load::first(report.sample, now),
        };
        self.loads.insert(task.clone(), load);
        self.reports.insert(task, report)
    }

    /// A checkpoint is durable at this revision.
    pub fn checkpointed(&mut self, task: TaskId, checkpoint: Checkpoint, revision: u64) {
        self.checkpoints.insert(task, Stored { value: checkpoint, revision });
    }

    /// Forgets what was heard of runs that no key names any more. What a predecessor list names is kept: it is the evidence
    /// for a gate.
    fn prune(&mut self, task: &TaskId) {
        let current = self.assignments.get(task);
        let siblings = || {
            let range = TaskId::writes(task.sink, 0)..=TaskId::writes(task.sink, u32::MAX);
            self.assignments.range(range).map(|(_, (_, run))| run)
        };
        let named = |epoch: Epoch| {
            let inherits = |run: &Assignment| run.predecessors.iter().any(|old| old.epoch == epoch);
            current.is_some_and(|(newest, run)| epoch >= *newest || inherits(run)) || siblings().any(inherits)
        };
        let range = (task.clone(), Epoch::default())
            ..=(task.clone(), Epoch { generation: u64::MAX, revision: u64::MAX });
        let old = |epochs: Vec<(TaskId, Epoch)>| epochs.into_iter().filter(|(_, epoch)| !named(*epoch));
        let releases: Vec<_> =
            old(self.heard.releases.range(range.clone()).map(|(k, _)| k.clone()).collect()).collect();
        let stops: Vec<_> = old(self.stopping.range(range).map(|(k, _)| k.clone()).collect()).collect();
        for key in releases {
            self.heard.releases.remove(&key);
        }
        for key in stops {
            self.stopping.remove(&key);
        }
    }
}
