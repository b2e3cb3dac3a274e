//! The whole task list of one process: what `SetTasks` carries (P7), with the gates as of its sending (P11).

use std::time::Duration;

use model::{Epoch, Position, Release, TaskId};

use super::{Desired, Observed};
use crate::{
    Timing,
    gate::{gate, whose},
    mutant,
};

/// Everything that one process shall run and stop.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskList {
    /// Sorted by task.
    pub run: Vec<RunOrder>,
    /// Epochs to stop; each is answered with drained or stopped, also if it never ran there.
    pub stop: Vec<StopOrder>,
}

/// One run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunOrder {
    /// Which task.
    pub task: TaskId,
    /// Which run.
    pub epoch: Epoch,
    /// Where it starts.
    pub start: Position,
    /// How long after receipt it may neither write nor ack (P10). Leave it out when asking whether a list has changed.
    pub gate: Duration,
    /// Of a split task whose sink is distributed by key: the partitions that it sends to (P16).
    pub partitions: Option<Epoch>,
}

/// One end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StopOrder {
    /// Which task.
    pub task: TaskId,
    /// Which run.
    pub epoch: Epoch,
    /// How long it may drain.
    pub deadline: Duration,
}

impl TaskList {
    /// Whether two lists ask for the same; their gates are computed anew each time and do not count.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let runs = |list: &Self| list.run.iter().map(|r| (r.task.clone(), r.epoch)).collect::<Vec<_>>();
        runs(self) == runs(other) && self.stop == other.stop
    }
}

/// The list of one process: the assignments that name it, but for those that are over, and the epochs it must stop: those
/// ordered to, and those of predecessors it never told the end of (so their gates need not wait for its silence).
#[must_use]
pub fn list(
    desired: &Desired,
    observed: &Observed,
    process: &str,
    timing: &Timing,
    now: Duration,
) -> TaskList {
    let mut list = TaskList::default();
    let released = |task: &TaskId, epoch| observed.heard.releases.contains_key(&(task.clone(), epoch));
    for (task, (epoch, run)) in &observed.assignments {
        for old in run.predecessors.iter().filter(|old| old.process == process) {
            let whose = whose(task, old);
            let known = list.stop.iter().any(|stop| stop.epoch == old.epoch && stop.task == whose);
            if old.release == Release::No && !released(&whose, old.epoch) && !known {
                list.stop.push(StopOrder { task: whose, epoch: old.epoch, deadline: Duration::ZERO });
            }
        }
        let ended = observed.checkpoints.get(task).is_some_and(|c| c.value.position.is_end());
        let named = run.process == process
            || (mutant::on("restart_under_old_epoch") && observed.heard.speaks_for(process, &run.worker));
        if !named || released(task, *epoch) || ended {
            continue;
        }
        match observed.stopping.get(&(task.clone(), *epoch)) {
            Some(order) => {
                list.stop.push(StopOrder { task: task.clone(), epoch: *epoch, deadline: order.deadline });
            }
            None => {
                // A split that sends to partitions has none: theirs holds its rows back.
                let writes = run.partitions.is_none();
                let gated = writes && desired.sinks.get(&task.sink).is_some_and(|sink| sink.gated);
                let gate = if gated {
                    gate(task, &run.predecessors, &observed.heard, timing, now)
                } else {
                    Duration::ZERO
                };
                let (start, partitions) = (run.start.clone(), run.partitions);
                list.run.push(RunOrder { task: task.clone(), epoch: *epoch, start, gate, partitions });
            }
        }
    }
    list
}
