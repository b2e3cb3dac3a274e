//! Evenness of what is read, where evenness of counts is not enough: a few hot splits beside many quiet ones.
//!
//! Called by `plan` when the counts are even. It exchanges tasks, so counts stay as they are, and only for a gain that is
//! worth the handoffs: the hotter of the two must lose more than 15 % of its load and half a megabyte a second.

use std::collections::BTreeMap;

use model::TaskId;

use super::{Rules, Seats};

/// The least gain, as a part of the hottest worker's load.
const GAIN_SHARE_MIN: f64 = 0.15;
/// The least gain, in bytes a second.
const GAIN_BYTES_MIN: f64 = 500_000.0;

/// A running task and the worker that shall have it.
pub type Move = (TaskId, String);

/// One worker and what it reads.
struct Side<'a> {
    name: &'a str,
    capacity: f64,
    bytes: f64,
    /// Its tasks that may move, each with what it reads.
    tasks: Vec<(&'a TaskId, f64)>,
}

/// The exchange between the hottest and the coolest worker that gains most, if any is worth it: a task of the one for a task
/// of the other. `bytes`: what each task reads a second.
#[must_use]
pub fn exchange(
    running: &BTreeMap<TaskId, String>,
    seats: &Seats,
    bytes: &BTreeMap<&TaskId, f64>,
    rules: &Rules<'_>,
) -> Vec<Move> {
    let mut sides: Vec<Side<'_>> = seats
        .iter()
        .filter(|(_, capacity)| **capacity > 0)
        .map(|(name, capacity)| side(name, f64::from(*capacity), running, bytes, rules))
        .collect();
    sides.sort_by(|a, b| (a.bytes / a.capacity).total_cmp(&(b.bytes / b.capacity)));
    let (Some(cool), Some(hot)) = (sides.first(), sides.last()) else { return Vec::new() };
    let before = hot.bytes / hot.capacity;
    // After giving `given` and getting `got`, the hotter of the two stands there.
    let after = |given: f64, got: f64| {
        let (hot_then, cool_then) = (hot.bytes - given + got, cool.bytes + given - got);
        (hot_then / hot.capacity).max(cool_then / cool.capacity)
    };
    let mut best: Option<(f64, &TaskId, &TaskId)> = None;
    for (give, given) in &hot.tasks {
        for (get, got) in &cool.tasks {
            let gain = before - after(*given, *got);
            if best.is_none_or(|(most, _, _)| gain > most) {
                best = Some((gain, give, get));
            }
        }
    }
    match best {
        Some((gain, give, get)) if gain > before * GAIN_SHARE_MIN && gain > GAIN_BYTES_MIN => {
            vec![(give.clone(), cool.name.to_owned()), (get.clone(), hot.name.to_owned())]
        }
        _ => Vec::new(),
    }
}

fn side<'a>(
    name: &'a str,
    capacity: f64,
    running: &'a BTreeMap<TaskId, String>,
    bytes: &BTreeMap<&TaskId, f64>,
    rules: &Rules<'_>,
) -> Side<'a> {
    let mine = running.iter().filter(|(_, worker)| *worker == name);
    let mine: Vec<(&TaskId, f64)> =
        mine.map(|(task, _)| (task, bytes.get(task).copied().unwrap_or(0.0))).collect();
    let may_move = |task: &TaskId| !rules.fixed.contains(task) && !rules.history.cools_down(task, rules.now);
    Side {
        name,
        capacity,
        bytes: mine.iter().map(|(_, bytes)| bytes).sum(),
        tasks: mine.into_iter().filter(|(task, _)| may_move(task)).collect(),
    }
}
