//! How the leader's memory changes when an action was carried out. The coordinator and the tests use the same.

use std::time::Duration;

use model::{Assignment, Checkpoint, Epoch, Predecessor, Release, TaskId};

use super::{Action, Observed, RunReport, StopReason, Stopping, Stored, partition::first};
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

    /// Whether a key names this run: its task's own, or one that has it among its predecessors. What was heard of any other run
    /// says nothing any more.
    #[must_use]
    pub fn names(&self, task: &TaskId, epoch: Epoch) -> bool {
        self.assignments.get(task).is_some_and(|(current, _)| *current == epoch) || self.inherits(task, epoch)
    }

    /// Whether a run of the sink has this one among its predecessors: of the same task, or of any other (P22).
    fn inherits(&self, task: &TaskId, epoch: Epoch) -> bool {
        let names = |other: &TaskId, run: &Assignment| {
            let is_it = |old: &Predecessor| {
                old.epoch == epoch && old.of.as_ref().unwrap_or(&other.work) == &task.work
            };
            run.predecessors.iter().any(is_it)
        };
        let own = self.assignments.get(task).is_some_and(|(_, run)| names(task, run));
        let mut all =
            self.assignments.range(first(task.sink)..).take_while(|(other, _)| other.sink == task.sink);
        own || all.any(|(other, (_, run))| names(other, run))
    }

    /// Forgets what was heard of runs that no key names any more. What a predecessor list names is kept: it is the evidence
    /// for a gate.
    fn prune(&mut self, task: &TaskId) {
        let current = self.assignments.get(task);
        let named =
            |epoch: Epoch| current.is_some_and(|(newest, _)| epoch >= *newest) || self.inherits(task, epoch);
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
