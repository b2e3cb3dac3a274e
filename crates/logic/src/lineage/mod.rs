//! Splits form a graph, and for each sink a split may be read when that sink is through with its parents.
//!
//! Nothing of this is stored: readiness is derived from the split table and the sink's checkpoints, so nothing can disagree
//! (I2, P15). Called by `plan` (what may run), by the coordinator's discovery (`merge`, `bury`) and by status.

mod coverage;
mod merge;

use std::collections::BTreeMap;

use model::{ObjectId, SplitId, SplitRecord, SplitState, TaskId, Timestamp};

pub use coverage::{holes, unlisted};
pub use merge::{Loss, Merge, Remembered, bury, losses, merge};

use crate::plan::{DesiredSink, Observed};

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
    let view = View { table, observed, id };
    if view.ended(split) {
        return Some(Standing::Done);
    }
    if let SplitState::Gone { at } = record.state {
        return Some(Standing::Gone { lost: lost(at, sink) });
    }
    let mut waits = Vec::new();
    view.unfinished_parents(record, split, &mut waits);
    waits.sort();
    waits.dedup();
    Some(if waits.is_empty() { Standing::Ready } else { Standing::WaitsFor(waits) })
}

fn lost(gone_at: Timestamp, sink: &DesiredSink) -> bool {
    sink.created_at < gone_at
}

struct View<'a> {
    table: &'a Table,
    observed: &'a Observed,
    id: ObjectId,
}

impl View<'_> {
    fn task(&self, split: &SplitId) -> TaskId {
        TaskId { sink: self.id, split: split.clone() }
    }

    fn ended(&self, split: &SplitId) -> bool {
        self.observed.checkpoints.get(&self.task(split)).is_some_and(|c| c.value.position.is_end())
    }

    /// A parent holds its children back while it is listed and not ended, or gone while a run of it may still deliver what
    /// it had read. A gone parent passes the question on to its own parents: nothing may overtake those either.
    fn unfinished_parents(&self, record: &SplitRecord, split: &SplitId, waits: &mut Vec<SplitId>) {
        for name in &record.parents {
            let parent = SplitId::new(split.creation(), name);
            let Some(record) = self.table.get(&parent) else { continue };
            if self.ended(&parent) || waits.contains(&parent) {
                continue;
            }
            let gone = matches!(record.state, SplitState::Gone { .. });
            if !gone || self.observed.assignments.contains_key(&self.task(&parent)) {
                waits.push(parent);
            } else {
                self.unfinished_parents(record, &parent, waits);
            }
        }
    }
}
