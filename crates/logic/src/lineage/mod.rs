//! Splits form a graph, and for each sink a split may be read when that sink is through with its parents.
//!
//! Nothing of this is stored: readiness is derived from the split table and the sink's checkpoints, so nothing can disagree
//! (I2, P15). Called by `plan` (what may run), by the coordinator's discovery (`merge`, `bury`) and by status.

mod coverage;
mod merge;

use std::collections::{BTreeMap, BTreeSet};

use model::{ObjectId, Position, SplitId, SplitRecord, SplitState, TaskId, Timestamp};

pub use coverage::{holes, unlisted};
pub use merge::{First, Loss, Merge, Now, Remembered, bury, losses, merge};

use crate::{
    mutant,
    plan::{Desired, DesiredSink, Observed},
};

/// The splits of one source, of all creations of its stream.
pub type Table = BTreeMap<SplitId, SplitRecord>;

/// Where a split stands for one sink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may be read.
    Ready,
    /// These parents are not delivered yet.
    WaitsFor(Vec<SplitId>),
    /// Everything in it is delivered.
    Done,
    /// It is gone. `lost` if the sink was there before and had not passed it: records may be missing (progress state `gap`).
    Gone {
        /// Data loss.
        lost: bool,
    },
}

/// Where `split` stands for a sink. `None` if the source never listed it.
#[must_use]
pub fn standing(
    table: &Table,
    observed: &Observed,
    (id, sink): (ObjectId, &DesiredSink),
    split: &SplitId,
) -> Option<Standing> {
    let record = table.get(split)?;
    if ended(observed, id, split) {
        return Some(Standing::Done);
    }
    if let SplitState::Gone { at } = record.state {
        let task = TaskId::reads(id, split.clone());
        let checkpoint = observed.checkpoints.get(&task).map(|stored| &stored.value);
        let lost = sink.created_at < at && !merge::passed(Some(record), checkpoint);
        return Some(Standing::Gone { lost });
    }
    let waits = unfinished_parents(table, observed, id, (split, record));
    let ready = waits.is_empty() || mutant::on("no_parent_gate");
    Some(if ready { Standing::Ready } else { Standing::WaitsFor(waits) })
}

/// Since when a sink is owed what is in a split (the service's clock): at that moment everything was delivered. Where nothing of
/// the split is read yet, the moment at which it was there for sure, or at which the sink was made, if that was later (our clock):
/// what came after it is lost if it ages out first. `None` if nobody knows.
#[must_use]
pub fn owed_since(desired: &Desired, observed: &Observed, task: &TaskId) -> Option<Timestamp> {
    if let Some(checkpoint) = observed.checkpoints.get(task).map(|stored| &stored.value) {
        let unread = matches!(checkpoint.position, Position::Start(_)).then_some(checkpoint.at);
        return checkpoint.caught_up_at.or(unread);
    }
    let (sink, split) = (desired.sinks.get(&task.sink)?, task.split()?);
    let table = observed.splits.get(&sink.source)?;
    let record = table.get(split)?;
    // A parent ends when its child begins, and may have been seen to end long before the child was listed.
    let parents = record.parents.iter().map(|name| SplitId::new(split.creation(), name));
    let ends = parents.filter_map(|parent| {
        let checkpoint = observed.checkpoints.get(&TaskId::reads(task.sink, parent.clone()));
        let delivered = checkpoint.map(|stored| &stored.value).filter(|c| c.position.is_end()).map(|c| c.at);
        table.get(&parent).and_then(|parent| parent.closed_at).into_iter().chain(delivered).min()
    });
    if sink.created_at > record.discovered_at {
        return Some(sink.created_at);
    }
    ends.chain([record.there_since.unwrap_or(record.discovered_at)]).min()
}

fn ended(observed: &Observed, sink: ObjectId, split: &SplitId) -> bool {
    let task = TaskId::reads(sink, split.clone());
    observed.checkpoints.get(&task).is_some_and(|c| c.value.position.is_end())
}

/// The splits that a sink must deliver before this one (P15), sorted. A parent holds its children back while it is listed and
/// not ended, or gone while a run of it may still deliver what it had read. A gone parent passes the question on to its own
/// parents: nothing may overtake those either. A parent that is not in the table was gone before the source was created.
#[must_use]
pub fn unfinished_parents(
    table: &Table,
    observed: &Observed,
    sink: ObjectId,
    (split, record): (&SplitId, &SplitRecord),
) -> Vec<SplitId> {
    let mut unfinished = BTreeSet::new();
    let mut asked = BTreeSet::new();
    let mut ask: Vec<(&SplitId, &SplitRecord)> = vec![(split, record)];
    while let Some((split, record)) = ask.pop() {
        for name in &record.parents {
            let Some((parent, record)) = table.get_key_value(&SplitId::new(split.creation(), name)) else {
                continue;
            };
            let through = ended(observed, sink, parent) || (mutant::on("gate_reads_closed") && record.closed);
            if through || !asked.insert(parent) {
                continue;
            }
            let gone = matches!(record.state, SplitState::Gone { .. });
            let task = TaskId::reads(sink, parent.clone());
            if gone && !observed.assignments.contains_key(&task) {
                ask.push((parent, record));
            } else {
                unfinished.insert(parent.clone());
            }
        }
    }
    unfinished.into_iter().collect()
}
