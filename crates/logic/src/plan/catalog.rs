//! What is left of dropped objects (I7) and of splits that nobody asks for any more.
//!
//! A dropped sink goes in this order: assignments (each after its run is over), checkpoints, the object. Its name went when the
//! statement was durable. A tombstone goes when every sink has passed it and a late listing cannot show it again.

use model::{ObjectId, SplitId, SplitRecord, SplitState, TaskId};

use super::{Action, Desired, Observed, Plan};
use crate::lineage::unfinished_parents;

/// How long a tombstone stays at least, in milliseconds: far longer than a listing can be late.
const TOMBSTONE_MS: i64 = 24 * 3600 * 1000;

/// Adds the deletes of dropped sinks and sources and of old tombstones.
pub(super) fn leftovers(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    tombstones(desired, observed, plan);
    checkpoints(desired, observed, plan);
    sinks(desired, observed, plan);
    sources(desired, observed, plan);
}

/// Deletes checkpoints that no run can move and nobody will read: of dropped sinks, and of splits without a record.
fn checkpoints(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    for (task, stored) in &observed.checkpoints {
        let unwanted = match desired.sinks.get(&task.sink) {
            None => true,
            Some(sink) if sink.dropping => true,
            Some(sink) => observed
                .splits
                .get(&sink.source)
                .is_some_and(|table| task.split().is_none_or(|split| !table.contains_key(split))),
        };
        if unwanted && !observed.assignments.contains_key(task) {
            let revision = stored.revision;
            plan.actions.push(Action::DeleteCheckpoint { task: task.clone(), revision });
        }
    }
}

fn sinks(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    for (id, _) in desired.sinks.iter().filter(|(_, sink)| sink.dropping) {
        let mine = |task: &TaskId| task.sink == *id;
        if !observed.assignments.keys().any(mine) && !observed.checkpoints.keys().any(mine) {
            plan.actions.push(Action::DeleteObject { id: *id });
        }
    }
}

/// A dropped source goes after the last of its sinks.
fn sources(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let read = |id: &ObjectId| desired.sinks.values().any(|sink| sink.source == *id);
    for (id, table) in &observed.splits {
        let unwanted = desired.sources.get(id).is_none_or(|source| source.dropping);
        if unwanted && !read(id) {
            plan.actions
                .extend(table.keys().map(|split| Action::DeleteSplit { source: *id, split: split.clone() }));
        }
    }
    for (id, _) in desired.sources.iter().filter(|(_, source)| source.dropping) {
        let empty = observed.splits.get(id).is_none_or(|table| table.is_empty());
        if empty && !read(id) {
            plan.actions.push(Action::DeleteObject { id: *id });
        }
    }
}

/// The record goes first; its checkpoints, now of a split without a record, follow.
fn tombstones(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    for (source, table) in &observed.splits {
        if desired.sources.get(source).is_none_or(|source| source.dropping) {
            continue;
        }
        for (split, record) in table {
            let SplitState::Gone { at } = record.state else { continue };
            if at.0 + TOMBSTONE_MS <= observed.wall.0 && passed(desired, observed, *source, (split, record)) {
                plan.actions.push(Action::DeleteSplit { source: *source, split: split.clone() });
            }
        }
    }
}

/// Whether every sink of the source is past this split: no run of it is left, and nothing before it is unfinished, so a child
/// is free to run with or without it.
fn passed(
    desired: &Desired,
    observed: &Observed,
    source: ObjectId,
    (split, record): (&SplitId, &SplitRecord),
) -> bool {
    desired.sinks.iter().filter(|(_, sink)| sink.source == source).all(|(id, _)| {
        let task = TaskId::reads(*id, split.clone());
        !observed.assignments.contains_key(&task)
            && unfinished_parents(&observed.splits[&source], observed, *id, (split, record)).is_empty()
    })
}
