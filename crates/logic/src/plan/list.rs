//! The whole task list of one process: what `SetTasks` carries (P7), with the gates as of its sending (P11).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Assignment, Epoch, ObjectId, Position, Release, TaskId};

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

/// The list of every process that has one: the assignments that name it, but for those that are over, and the epochs it must
/// stop: those ordered to, and those of predecessors it never told the end of (so their gates need not wait for its silence).
/// Their gates are left out: [`open_gates`]. A partition is told to stop once those who feed it have ended, so that it has
/// written all that they sent.
#[must_use]
pub fn lists(observed: &Observed) -> BTreeMap<String, TaskList> {
    let mut lists: BTreeMap<String, TaskList> = BTreeMap::new();
    let mut asked: BTreeSet<(TaskId, Epoch)> = BTreeSet::new();
    let released = |task: &TaskId, epoch| observed.heard.releases.contains_key(&(task.clone(), epoch));
    let feeds = |(task, (epoch, run)): &(&TaskId, &(Epoch, Assignment))| {
        run.partitions.is_some() && !released(task, *epoch)
    };
    let fed: BTreeSet<ObjectId> =
        observed.assignments.iter().filter(feeds).map(|(task, _)| task.sink).collect();
    for (task, (epoch, run)) in &observed.assignments {
        for old in run.predecessors.iter().filter(|old| old.release == Release::No) {
            let whose = whose(task, old);
            if !released(&whose, old.epoch) && asked.insert((whose.clone(), old.epoch)) {
                let order = StopOrder { task: whose, epoch: old.epoch, deadline: Duration::ZERO };
                lists.entry(old.process.clone()).or_default().stop.push(order);
            }
        }
        let ended = observed.checkpoints.get(task).is_some_and(|c| c.value.position.is_end());
        if released(task, *epoch) || ended {
            continue;
        }
        let successor = observed.heard.current(&run.worker).map(|(process, _)| process);
        let successor = successor
            .filter(|process| mutant::on("restart_under_old_epoch") && *process != run.process.as_str());
        for process in [Some(run.process.as_str()), successor].into_iter().flatten() {
            let list = lists.entry(process.to_owned()).or_default();
            match observed.stopping.get(&(task.clone(), *epoch)) {
                Some(order)
                    if order.deadline.is_zero() || !fed.contains(&task.sink) || task.split().is_some() =>
                {
                    let (task, deadline) = (task.clone(), order.deadline);
                    list.stop.push(StopOrder { task, epoch: *epoch, deadline });
                }
                _ => list.run.push(RunOrder {
                    task: task.clone(),
                    epoch: *epoch,
                    start: run.start.clone(),
                    gate: Duration::ZERO,
                    partitions: run.partitions,
                }),
            }
        }
    }
    lists
}

/// Computes the gates of a list as of now (P11).
pub fn open_gates(
    list: &mut TaskList,
    desired: &Desired,
    observed: &Observed,
    timing: &Timing,
    now: Duration,
) {
    for order in &mut list.run {
        // A split that sends to partitions has none: theirs holds its rows back.
        let writes = order.partitions.is_none();
        let gated = writes && desired.sinks.get(&order.task.sink).is_some_and(|sink| sink.gated);
        let run = observed.assignments.get(&order.task).filter(|_| gated);
        order.gate = run.map_or(Duration::ZERO, |(_, run)| {
            gate(&order.task, &run.predecessors, &observed.heard, timing, now)
        });
    }
}

/// The list of one process, with its gates as of now.
#[must_use]
pub fn list(
    desired: &Desired,
    observed: &Observed,
    process: &str,
    timing: &Timing,
    now: Duration,
) -> TaskList {
    let mut list = lists(observed).remove(process).unwrap_or_default();
    open_gates(&mut list, desired, observed, timing, now);
    list
}
