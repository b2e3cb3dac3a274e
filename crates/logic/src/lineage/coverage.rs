//! Whether the splits own the whole key space: a hole is a split that discovery has not seen (yet).

use std::collections::BTreeSet;

use model::{Creation, HashRange, SplitState};

use super::Table;

/// The parts of the key space that no *open* listed split owns. After a reshard it is not empty until the children are
/// listed: discovery asks again soon. Empty too when the source has no hash ranges.
#[must_use]
pub fn unlisted(table: &Table, creation: Creation) -> Vec<HashRange> {
    let ranges = table
        .iter()
        .filter(|(id, record)| {
            id.creation() == creation && !record.closed && record.state == SplitState::Listed
        })
        .map(|(_, record)| record.range);
    complement(ranges)
}

/// The parts of the key space that no youngest split owns, be it open, closed or gone: the audit (`hash_coverage_holes`).
/// A closed parent stands for its range until its children are known.
#[must_use]
pub fn holes(table: &Table, creation: Creation) -> Vec<HashRange> {
    let parents: BTreeSet<&str> = table
        .iter()
        .filter(|(id, _)| id.creation() == creation)
        .flat_map(|(_, record)| record.parents.iter().map(String::as_str))
        .collect();
    let youngest = table
        .iter()
        .filter(|(id, _)| id.creation() == creation && !parents.contains(id.name()))
        .map(|(_, record)| record.range);
    complement(youngest)
}

/// What `ranges` leave of 0…2¹²⁸−1. A split without a range, or none at all: nothing can be said, so nothing is missing.
fn complement(ranges: impl Iterator<Item = Option<HashRange>>) -> Vec<HashRange> {
    let Some(mut ranges) = ranges.collect::<Option<Vec<_>>>().filter(|ranges| !ranges.is_empty()) else {
        return Vec::new();
    };
    ranges.sort_by_key(|range| range.first);
    let mut holes = Vec::new();
    let mut next = Some(0_u128);
    for range in ranges {
        let Some(at) = next else { break };
        if range.first > at {
            holes.push(HashRange { first: at, last: range.first - 1 });
        }
        next = if range.last >= at { range.last.checked_add(1) } else { next };
    }
    if let Some(first) = next {
        holes.push(HashRange { first, last: u128::MAX });
    }
    holes
}
