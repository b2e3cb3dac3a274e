//! What a fresh listing changes in the split table.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Checkpoint, Creation, ObjectId, Position, Split, SplitId, SplitRecord, SplitState, Start, StartFrom,
    Timestamp,
};

use super::Table;
use crate::{
    mutant,
    plan::{Desired, Observed},
};

/// What the discovery of one source remembers from one listing to the next, within a term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Splits that the previous complete listing lacked.
    pub missing: BTreeSet<SplitId>,
}

/// What a listing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Records to write: new splits, and known ones that are closed now or gone with their stream. Parents stand before their
    /// children: if only a part gets written, no child stands in the table without a parent that is still to come (I2).
    pub put: Vec<(SplitId, SplitRecord)>,
    /// Of `put`, those that the table did not have.
    pub discovered: Vec<SplitId>,
    /// Missing twice in a row: ask the service whether each is gone, then [`bury`] those that are.
    pub ask: Vec<SplitId>,
    /// Of `put`, those whose stream was deleted; see [`losses`].
    pub buried: Vec<SplitId>,
}

/// What a source says of its first listing.
#[derive(Clone, Copy, Debug)]
pub struct First<'a> {
    /// The stream that the source was created on.
    pub creation: Creation,
    /// Where the splits of that listing begin; pinned when the source was created.
    pub start: &'a Start,
    /// The listing was begun and is not wholly in the table.
    pub due: bool,
}

/// What time it is, by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The leader's: what happens to a split is compared with when a sink was made.
    pub ours: Timestamp,
    /// The service's: the close of a split is compared with the moment at which a reader had read it to its end.
    pub theirs: Timestamp,
}

impl From<Timestamp> for Now {
    fn from(at: Timestamp) -> Self {
        Self { ours: at, theirs: at }
    }
}

/// Merges a complete listing into the table. A split of the very first listing begins where the source's start says, also when
/// only a part of that listing was written before; one that is discovered later begins at its horizon, whatever the start was
/// (S2, S9). A stream that was deleted and made anew has another `creation`: every split of the old one is gone (S13).
#[must_use]
pub fn merge(
    table: &Table,
    (creation, listing): (Creation, &[Split]),
    source: First<'_>,
    remembered: &mut Remembered,
    at: impl Into<Now>,
) -> Merge {
    let at = at.into();
    let first = (source.due || table.is_empty()) && creation == source.creation;
    let mut merge = Merge::default();
    for split in listing {
        match table.get(&split.id) {
            None => {
                let start = match first {
                    true => source.start.of(&split.id).clone(),
                    false if mutant::on("children_at_latest") => StartFrom::At(at.ours),
                    false => StartFrom::Horizon,
                };
                merge.put.push((split.id.clone(), new_record(split, start, at)));
                merge.discovered.push(split.id.clone());
            }
            // A tombstone that a late listing shows again stays one; parents never change.
            Some(known) if split.closed && !known.closed && known.state == SplitState::Listed => {
                merge.put.push((split.id.clone(), closed(known, at.theirs)));
            }
            Some(_) => {}
        }
    }
    parents_first(&mut merge.put);
    let listed: BTreeSet<&SplitId> = listing.iter().map(|split| &split.id).collect();
    let mut missing = BTreeSet::new();
    for (id, record) in
        table.iter().filter(|(id, record)| record.state == SplitState::Listed && !listed.contains(id))
    {
        if id.creation() != creation {
            merge.put.push((id.clone(), gone(record, at.ours)));
            merge.buried.push(id.clone());
            continue;
        }
        if remembered.missing.contains(id) {
            merge.ask.push(id.clone());
        }
        missing.insert(id.clone());
    }
    remembered.missing = missing;
    merge
}

/// Sorts records by the length of their longest line of ancestors among them, else keeps their order.
fn parents_first(put: &mut [(SplitId, SplitRecord)]) {
    let mut depths: BTreeMap<SplitId, usize> = put.iter().map(|(id, _)| (id.clone(), 0)).collect();
    // As many rounds as there are generations; a listing that goes in a circle ends nevertheless.
    for _ in 0..put.len() {
        let mut settled = true;
        for (id, record) in put.iter() {
            let parents = record.parents.iter().map(|name| SplitId::new(id.creation(), name));
            let depth = parents.filter_map(|parent| depths.get(&parent)).max().map_or(0, |depth| depth + 1);
            if depths.insert(id.clone(), depth) != Some(depth) {
                settled = false;
            }
        }
        if settled {
            break;
        }
    }
    put.sort_by_key(|(id, _)| depths[id]);
}

/// The tombstones of splits that the service itself calls gone.
#[must_use]
pub fn bury(table: &Table, confirmed: &[SplitId], at: Timestamp) -> Vec<(SplitId, SplitRecord)> {
    confirmed
        .iter()
        .filter_map(|id| Some((id.clone(), table.get(id)?)))
        .filter(|(_, record)| record.state == SplitState::Listed)
        .map(|(id, record)| (id, gone(record, at)))
        .collect()
}

/// A split that is gone before a sink was through with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The sink that misses records, perhaps.
    pub sink: ObjectId,
    /// The split that is gone.
    pub split: SplitId,
    /// How far the sink was: what came after it may be missing.
    pub delivered: Option<Position>,
    /// Until then nothing is missing.
    pub caught_up_at: Option<Timestamp>,
}

/// Whether a sink is through with a split: it was given its end, or it had everything at a moment when the split was closed
/// already and nothing could come any more.
pub(super) fn passed(record: Option<&SplitRecord>, checkpoint: Option<&Checkpoint>) -> bool {
    let Some(checkpoint) = checkpoint else { return false };
    let closed_at = record.and_then(|record| record.closed_at);
    checkpoint.position.is_end()
        || closed_at.zip(checkpoint.caught_up_at).is_some_and(|(closed, caught_up)| closed <= caught_up)
}

/// The sinks that had not passed these splits of `source` when they went (S7): one `DataLoss` event each. Ask it once, with
/// the splits that [`bury`] or [`Merge::buried`] named.
#[must_use]
pub fn losses(desired: &Desired, observed: &Observed, source: ObjectId, gone: &[SplitId]) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (sink, _) in desired.sinks.iter().filter(|(_, sink)| sink.source == source && !sink.dropping) {
        for split in gone {
            let task = model::TaskId::reads(*sink, split.clone());
            let checkpoint = observed.checkpoints.get(&task).map(|stored| &stored.value);
            let record = observed.splits.get(&source).and_then(|table| table.get(split));
            if !passed(record, checkpoint) {
                let delivered = checkpoint.map(|checkpoint| checkpoint.position.clone());
                let delivered = delivered.or_else(|| Some(Position::Start(record?.start.clone())));
                let caught_up_at = checkpoint.and_then(|checkpoint| checkpoint.caught_up_at);
                losses.push(Loss { sink: *sink, split: split.clone(), delivered, caught_up_at });
            }
        }
    }
    losses
}

fn new_record(split: &Split, start: StartFrom, at: Now) -> SplitRecord {
    SplitRecord {
        parents: split.parents.iter().map(|parent| parent.name().to_owned()).collect(),
        range: split.range,
        start,
        state: SplitState::Listed,
        closed: split.closed,
        closed_at: split.closed.then_some(at.theirs),
        discovered_at: at.ours,
        there_since: Some(at.theirs),
    }
}

fn closed(record: &SplitRecord, at: Timestamp) -> SplitRecord {
    SplitRecord { closed: true, closed_at: Some(at), ..record.clone() }
}

fn gone(record: &SplitRecord, at: Timestamp) -> SplitRecord {
    SplitRecord { state: SplitState::Gone { at }, closed: true, ..record.clone() }
}
