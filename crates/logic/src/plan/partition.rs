//! Sinks that are distributed by key: which set of partitions a split task sends to (P16), when one may be assigned (P17), and
//! what a new writer inherits when the map from rows to writers changes (P22).
//!
//! A set of partitions is named by the newest epoch among them. Any of them that starts again makes a newer one, so two sets of a
//! sink never share a name, and an assignment names hundreds of partitions in one number.
//!
//! ```text
//!  every partition runs at the catalog's revision ──▶ splits are assigned, naming the set
//!        ▲                                                      │ a partition gets a new epoch
//!        └────────── splits wait (P17) ◀── splits are stopped ◀─┘ (P16)
//! ```

use std::{collections::BTreeMap, time::Duration};

use model::{Assignment, Epoch, ObjectId, Predecessor, TaskId};

use super::{Desired, DesiredSink, Observed};
use crate::{
    Timing,
    gate::{RunEnd, predecessor},
    mutant,
};

/// The partitions of a sink as they are assigned now.
pub(super) struct Set {
    /// The name of the set as it is; `None` while no partition has a run.
    pub newest: Option<Epoch>,
    /// Why no split may be assigned to it (P17), in words; `None` when every partition runs at the wanted revision.
    pub lacks: Option<String>,
    /// A partition was told to stop. Those who feed it go first: then all that they sent is written, and nothing comes again.
    pub leaving: bool,
}

/// The set of each sink that is distributed by key.
pub(super) fn sets(
    desired: &Desired,
    observed: &Observed,
    timing: &Timing,
    now: Duration,
) -> BTreeMap<ObjectId, Set> {
    let keyed = desired.sinks.iter().filter(|(_, sink)| sink.partitions > 0);
    keyed.map(|(id, sink)| (*id, set(desired, observed, (*id, sink), (timing, now)))).collect()
}

fn set(
    desired: &Desired,
    observed: &Observed,
    (id, sink): (ObjectId, &DesiredSink),
    (timing, now): (&Timing, Duration),
) -> Set {
    let wanted = desired.spec_revision(id);
    let (mut newest, mut lacks) = (None, None);
    for n in 0..sink.partitions {
        let task = TaskId::writes(id, n);
        let run = observed.assignments.get(&task);
        newest = newest.max(run.map(|(epoch, _)| *epoch));
        let runs = run.is_some_and(|(epoch, run)| {
            Some(run.spec_revision) == wanted
                && !observed.stopping.contains_key(&(task.clone(), *epoch))
                && observed.heard.run_end(&task, (*epoch, run), timing, now) == RunEnd::Alive
        });
        if !runs && lacks.is_none() {
            lacks = Some(format!("partition {n} of sink {} has no writer yet", sink.name));
        }
    }
    if mutant::on("p17_split_before_partitions") {
        lacks = None;
    }
    let mut all = observed.assignments.range(TaskId::writes(id, 0)..=TaskId::writes(id, u32::MAX));
    let leaving = all.any(|(task, (epoch, run))| {
        observed.stopping.contains_key(&(task.clone(), *epoch))
            && !matches!(observed.heard.run_end(task, (*epoch, run), timing, now), RunEnd::Over(_))
    });
    Set { newest, lacks, leaving }
}

/// Whether a run writes to the destination itself: partitions do, and splits of sinks that are not distributed by key.
fn writes(task: &TaskId, run: &Assignment) -> bool {
    task.partition().is_some() || run.partitions.is_none()
}

/// The other tasks of the sink whose runs of an older revision may have written what `task` writes from now on: when the sink is,
/// or was, distributed by key, that is every one of them. `keyed`: it is now.
fn older<'a>(
    observed: &'a Observed,
    task: &'a TaskId,
    (keyed, revision): (bool, u64),
) -> impl Iterator<Item = (&'a TaskId, &'a (Epoch, Assignment))> {
    // Partitions sort behind the splits of their sink.
    let from = if keyed { first(task.sink) } else { TaskId::writes(task.sink, 0) };
    let mine = observed.assignments.range(from..).take_while(|(other, _)| other.sink == task.sink);
    mine.filter(move |(other, (_, run))| *other != task && run.spec_revision < revision && writes(other, run))
}

/// Sorts before every other task of the sink.
pub(super) fn first(sink: ObjectId) -> TaskId {
    TaskId::reads(sink, model::SplitId::new(model::Creation(i64::MIN), ""))
}

/// P22: a run of an older map that is not over yet, in words. No writer of the new map is assigned before.
pub(super) fn barrier(
    desired: &Desired,
    observed: &Observed,
    task: &TaskId,
    (timing, now): (&Timing, Duration),
) -> Option<String> {
    let (keyed, revision) = map_of(desired, task)?;
    older(observed, task, (keyed, revision))
        .find(|(other, (epoch, run))| {
            !matches!(observed.heard.run_end(other, (*epoch, run), timing, now), RunEnd::Over(_))
        })
        .map(|(other, (_, run))| {
            format!("{} of an older spec still runs on worker {}", other.work, run.worker)
        })
}

/// P22: what a new run of a writer must wait for besides its own earlier runs: all writers of older maps, and what those, or the
/// writers of this map that were assigned before it, had inherited in turn.
pub(super) fn inherited(
    desired: &Desired,
    observed: &Observed,
    task: &TaskId,
    old: Option<u64>,
    (timing, now): (&Timing, Duration),
) -> Vec<Predecessor> {
    let Some((keyed, revision)) = map_of(desired, task) else { return Vec::new() };
    if old == Some(revision) || mutant::on("p22_own_predecessors") {
        // Its own run of this map has inherited everything already.
        return Vec::new();
    }
    let mut all = Vec::new();
    for (other, (epoch, run)) in older(observed, task, (keyed, revision)) {
        if let RunEnd::Over(release) = observed.heard.run_end(other, (*epoch, run), timing, now) {
            all.push(foreign(other, predecessor(*epoch, run, release)));
        }
        all.extend(chain(observed, other, run));
    }
    let partitions = TaskId::writes(task.sink, 0)..=TaskId::writes(task.sink, u32::MAX);
    for (other, (_, run)) in observed.assignments.range(partitions).filter(|_| keyed) {
        if other != task && run.spec_revision == revision {
            all.extend(chain(observed, other, run));
        }
    }
    all
}

/// The predecessors of another task's run, as predecessors of this one.
fn chain<'a>(
    observed: &'a Observed,
    other: &'a TaskId,
    run: &'a Assignment,
) -> impl Iterator<Item = Predecessor> + 'a {
    run.predecessors.iter().cloned().map(|old| foreign(other, observed.heard.as_heard(other, old)))
}

fn foreign(other: &TaskId, run: Predecessor) -> Predecessor {
    let of = run.of.clone().or_else(|| Some(other.work.clone()));
    Predecessor { of, ..run }
}

/// Whether the sink of a task is distributed by key now, and at which revision; `None` for a split that does not write.
fn map_of(desired: &Desired, task: &TaskId) -> Option<(bool, u64)> {
    let keyed = desired.sinks.get(&task.sink)?.partitions > 0;
    let writer = task.partition().is_some() || !keyed;
    writer.then_some((keyed, desired.spec_revision(task.sink)?))
}
