//! Partitions of one sink that are together though others could have them: a worker joined empty while the sink was made, or died
//! and came back.
//!
//! Called by `plan` when counts are even. Each partition goes to the worker with the fewest of its sink, in exchange for a task
//! that reads a split, so counts stay as they are. It goes only if the worker that gets it has fewer even then, for its capacity,
//! so a spread sink is left alone.

use std::{cmp::Ordering, collections::BTreeMap};

use model::{ObjectId, TaskId};

use super::{FILL_COOLDOWN, Move, Rules, Running, Seats, Transit, Why, table::Table};

/// The exchanges that bring the partitions of each sink apart; all of a sink at once, since those who feed it start again once.
#[must_use]
pub fn spread(running: &Running, transit: &Transit, seats: &Seats, rules: &Rules<'_>) -> Vec<Move> {
    let mut table = Table::new(seats, running, transit, 0);
    table.look_closer(running, |_| false);
    let sinks: Vec<ObjectId> = table.sinks().map(|(sink, _)| sink).collect();
    let crowded: Vec<ObjectId> = sinks.into_iter().filter(|sink| ends(&table, *sink).is_some()).collect();
    if crowded.is_empty() {
        return Vec::new();
    }
    let mut by_worker: BTreeMap<usize, Vec<&TaskId>> = BTreeMap::new();
    for (task, worker) in running {
        if let Some(n) = table.find(worker).filter(|_| rules.may_move(task, FILL_COOLDOWN)) {
            by_worker.entry(n).or_default().push(task);
        }
    }
    let mut moves = Vec::new();
    for sink in crowded {
        while let Some(pair) = one(&mut table, &mut by_worker, sink) {
            moves.extend(pair);
        }
    }
    moves
}

/// The worker with most partitions of a sink for its capacity, and those that would have fewer even with one more; nothing if
/// there are none.
fn ends(table: &Table<'_>, sink: ObjectId) -> Option<(usize, Vec<usize>)> {
    let workers = 0..table.places.len();
    let has = |n: usize| (n, table.writes(n, sink));
    let fullest = workers.clone().max_by(|a, b| table.per_capacity(has(*a), has(*b)).then(b.cmp(a)))?;
    let takes =
        |n: &usize| table.per_capacity((*n, table.writes(*n, sink) + 1), has(fullest)) == Ordering::Less;
    let takers: Vec<usize> = workers.filter(takes).collect();
    (!takers.is_empty()).then_some((fullest, takers))
}

/// One partition from the worker with too many to the best of those that may have it.
fn one<'a>(
    table: &mut Table<'a>,
    by_worker: &mut BTreeMap<usize, Vec<&'a TaskId>>,
    sink: ObjectId,
) -> Option<Vec<Move>> {
    let (from, takers) = ends(table, sink)?;
    let partition = |task: &&TaskId| task.sink == sink && task.partition().is_some();
    let at = by_worker.get(&from)?.iter().position(partition)?;
    let reads = |task: &&TaskId| task.split().is_some();
    let gives_back = |n: usize| by_worker.get(&n).is_some_and(|tasks| tasks.iter().any(reads));
    let to = takers
        .into_iter()
        .filter(|n| gives_back(*n) || table.may_pass_on(from, *n))
        .min_by(|a, b| table.apart_of(sink, *a, *b))?;
    let task = by_worker.get_mut(&from)?.remove(at);
    let why = Why::Spread { has: table.writes(from, sink), other_has: table.writes(to, sink) };
    let (from_name, to_name) = (table.name(from).to_owned(), table.name(to).to_owned());
    let mut moves = vec![Move { task: task.clone(), from: from_name.clone(), to: to_name.clone(), why }];
    table.pass_on(from, to, task);
    if table.may_pass_on(from, to) {
        table.places[from].count -= 1;
        table.places[to].count += 1;
    } else if let Some(back) = by_worker.get_mut(&to)
        && let Some(at) = back.iter().position(reads)
    {
        let task = back.remove(at);
        moves.push(Move { task: task.clone(), from: to_name, to: from_name, why: Why::InReturn });
    }
    Some(moves)
}
