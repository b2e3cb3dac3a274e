//! The invariants of ARCHITECTURE.md as far as snapshots of the world can tell: one predicate for proptests, the simulation and
//! the coordinator in production (which counts and logs, never panics).
//!
//! It sees I2, I3, I4 and I7. What flows (I1, I8, I10, I11) is judged where it flows, and I5 and I6 by asking `plan` again.

use std::cmp::Ordering;

use model::{Checkpoint, ObjectId, TaskId};

use crate::{
    lineage::{Standing, standing, unfinished_parents},
    plan::{Desired, Observed},
};

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// `I1`…
    pub id: &'static str,
    /// What is wrong, with names.
    pub message: String,
}

/// One look at everything.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// What users asked for.
    pub desired: &'a Desired,
    /// What is.
    pub observed: &'a Observed,
}

/// Looks at the world, and at how it differs from an earlier look of the same term.
#[must_use]
pub fn check(world: World<'_>, earlier: Option<World<'_>>) -> Vec<Violation> {
    let mut violations = Vec::new();
    no_run_before_its_parents(world, &mut violations);
    nothing_left_behind(world, &mut violations);
    if let Some(earlier) = earlier {
        checkpoints_move_on(world, earlier, &mut violations);
        epochs_move_on(world, earlier, &mut violations);
    }
    violations
}

fn broken(violations: &mut Vec<Violation>, id: &'static str, message: String) {
    violations.push(Violation { id, message });
}

/// I2, of what runs.
fn no_run_before_its_parents(world: World<'_>, violations: &mut Vec<Violation>) {
    for (task, (epoch, _)) in &world.observed.assignments {
        let Some(sink) = world.desired.sinks.get(&task.sink).filter(|sink| !sink.dropping) else { continue };
        let Some(table) = world.observed.splits.get(&sink.source) else { continue };
        let stopping = world.observed.stopping.contains_key(&(task.clone(), *epoch))
            || world.observed.heard.releases.contains_key(&(task.clone(), *epoch));
        if let Some(Standing::WaitsFor(parents)) = task
            .split()
            .and_then(|split| standing(table, world.observed, (task.sink, sink), split))
            .filter(|_| !stopping)
        {
            broken(violations, "I2", format!("task {task} runs before its parents {parents:?} have ended"));
        }
    }
}

/// I7.
fn nothing_left_behind(world: World<'_>, violations: &mut Vec<Violation>) {
    let unknown = |sink: &ObjectId| !world.desired.sinks.contains_key(sink);
    for task in world.observed.assignments.keys().filter(|task| unknown(&task.sink)) {
        broken(violations, "I7", format!("assignment of task {task} outlives its sink"));
    }
    for task in world.observed.checkpoints.keys().filter(|task| unknown(&task.sink)) {
        broken(violations, "I7", format!("checkpoint of task {task} outlives its sink"));
    }
    for source in world.observed.splits.keys().filter(|id| !world.desired.sources.contains_key(id)) {
        broken(violations, "I7", format!("split table of source {source} outlives it"));
    }
}

/// I4, I3 and I2 of what moved. A reset (a new instance of the sink) may go back.
fn checkpoints_move_on(world: World<'_>, earlier: World<'_>, violations: &mut Vec<Violation>) {
    for (task, stored) in &world.observed.checkpoints {
        let instance = |world: World<'_>| world.desired.sinks.get(&task.sink).map(|sink| sink.instance);
        if instance(world) != instance(earlier) {
            continue;
        }
        let before = earlier.observed.checkpoints.get(task).map(|stored| &stored.value);
        let after = &stored.value;
        if before == Some(after) {
            continue;
        }
        if let Some(before) = before.filter(|before| goes_back(before, after)) {
            let (from, to) = (&before.position, &after.position);
            broken(violations, "I4", format!("checkpoint of task {task} went from {from} back to {to}"));
        }
        let owner = earlier.observed.assignments.get(task).map(|(epoch, _)| *epoch);
        if owner.is_some_and(|owner| after.epoch < owner) {
            broken(
                violations,
                "I3",
                format!("epoch {} moved the checkpoint of task {task} after it was replaced", after.epoch),
            );
        }
        let waited_for = unfinished_before(earlier, world, task);
        if !waited_for.is_empty() {
            broken(
                violations,
                "I2",
                format!("task {task} delivered before its parents {waited_for:?} ended"),
            );
        }
    }
}

/// The same move may be written twice: a first time by a transaction that its leader knew nothing more of.
fn goes_back(before: &Checkpoint, after: &Checkpoint) -> bool {
    match (after.epoch, after.serial).cmp(&(before.epoch, before.serial)) {
        Ordering::Less => true,
        Ordering::Equal => before.position != after.position,
        Ordering::Greater => before.position.is_end(),
    }
}

/// The parents of a split that had not ended at the later look: they cannot have when its checkpoint moved.
fn unfinished_before(earlier: World<'_>, world: World<'_>, task: &TaskId) -> Vec<model::SplitId> {
    let Some(sink) = world.desired.sinks.get(&task.sink).filter(|sink| !sink.dropping) else {
        return Vec::new();
    };
    let table = earlier.observed.splits.get(&sink.source);
    let Some((split, record)) = table.zip(task.split()).and_then(|(table, split)| table.get_key_value(split))
    else {
        return Vec::new();
    };
    let Some(table) = world.observed.splits.get(&sink.source) else { return Vec::new() };
    unfinished_parents(table, world.observed, task.sink, (split, record))
}

/// I3: the epochs of a task only grow.
fn epochs_move_on(world: World<'_>, earlier: World<'_>, violations: &mut Vec<Violation>) {
    for (task, (epoch, _)) in &world.observed.assignments {
        let before = earlier.observed.assignments.get(task).map(|(epoch, _)| *epoch);
        if before.is_some_and(|before| before > *epoch) {
            broken(violations, "I3", format!("task {task} went back to epoch {epoch}"));
        }
    }
}
