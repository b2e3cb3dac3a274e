//! Even counts: tasks of workers above their quota go to workers below it, and nobody else moves.
//!
//! All that one worker gets comes a few at a time, so that it opens a few readers at a time and few records stand still at once.
//! Tasks of one split go together where numbers allow.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
};

use model::TaskId;

use super::{FILL_COOLDOWN, Move, Rules, Running, Seats, Transit, Why, table::Table};

/// How many tasks may be on their way to one worker …
const FILL_MIN: usize = 4;
/// … or this part of its share, if that is more: a worker is filled in about as many rounds of handoffs.
const FILL_ROUNDS: usize = 16;

/// Tasks of one worker that like to move together.
struct Group<'a> {
    tasks: Vec<&'a TaskId>,
    rank: Rank,
    /// Tasks of the same split that stay.
    left_behind: u32,
}

/// How little is lost when a task goes, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It wants to go home.
    Home,
    /// A partition that is one too many here.
    TooMany,
    /// Its split is read at a worker with room.
    Beside,
    Any,
    /// Another partition: all who feed one start again when it moves.
    Partition,
}

/// A worker below its quota.
struct Receiver {
    n: usize,
    missing: usize,
    /// How many more may be on their way at once.
    pace: usize,
}

/// What is being decided.
struct Fill<'a> {
    table: Table<'a>,
    quotas: Vec<usize>,
    receivers: Vec<Receiver>,
    moves: Vec<Move>,
    /// Something waits for others to arrive first.
    paced: bool,
}

/// Picks running tasks to take from workers above their quota, each with the worker below its quota that shall have it.
#[must_use]
pub fn balance(running: &Running, transit: &Transit, seats: &Seats, rules: &Rules<'_>) -> Vec<Move> {
    let table = Table::new(seats, running, transit, 0);
    if table.places.is_empty() || table.is_even() {
        return Vec::new();
    }
    let quotas = table.quotas();
    let mut fill =
        Fill { receivers: receivers(&table, &quotas, rules), table, quotas, moves: Vec::new(), paced: false };
    fill.table.look_closer(running, |_| true);
    let mut of_giver: BTreeMap<usize, Vec<&TaskId>> = BTreeMap::new();
    for (task, worker) in running {
        if let Some(n) = fill.table.find(worker).filter(|n| fill.table.places[*n].count > fill.quotas[*n])
            && rules.may_move(task, FILL_COOLDOWN)
        {
            of_giver.entry(n).or_default().push(task);
        }
    }
    let mut givers: Vec<usize> = of_giver.keys().copied().collect();
    givers.sort_by_key(|n| Reverse(fill.table.places[*n].count - fill.quotas[*n]));
    for giver in givers {
        let tasks = of_giver.remove(&giver).unwrap_or_default();
        fill.give(giver, tasks, rules);
    }
    fill.moves
}

/// Workers below their quota, less what comes to them without being moved.
fn receivers(table: &Table<'_>, quotas: &[usize], rules: &Rules<'_>) -> Vec<Receiver> {
    let receiver = |n: usize| {
        let place = &table.places[n];
        let missing = quotas[n].saturating_sub(place.count);
        let pace = (quotas[n] / FILL_ROUNDS).max(FILL_MIN).saturating_sub(place.expected);
        (missing > 0).then_some(Receiver { n, missing, pace: if rules.force { usize::MAX } else { pace } })
    };
    let mut receivers: Vec<Receiver> = (0..table.places.len()).filter_map(receiver).collect();
    for _ in 0..table.homeless {
        if let Some(poorest) = receivers.iter_mut().max_by_key(|r| (r.missing, Reverse(r.n))) {
            poorest.missing = poorest.missing.saturating_sub(1);
        }
    }
    receivers.retain(|receiver| receiver.missing > 0);
    receivers
}

impl<'a> Fill<'a> {
    /// Takes what is above its quota from one worker, whole groups first.
    fn give(&mut self, giver: usize, tasks: Vec<&'a TaskId>, rules: &Rules<'_>) {
        let mut over = self.table.places[giver].count - self.quotas[giver];
        let mut rest = Vec::new();
        for group in self.groups(giver, tasks, rules) {
            let size = group.tasks.len();
            if over == 0 {
                break;
            }
            // With each that goes, fewer are too many.
            let enough = group.rank == Rank::TooMany && !self.too_many(giver, group.tasks[0]);
            if size > over || group.left_behind > 0 || group.rank == Rank::Partition {
                rest.push(group);
            } else if enough {
                rest.push(Group { rank: Rank::Partition, ..group });
            } else if let Some(to) = self.receiver(group.tasks[0], size, rules) {
                over -= size;
                for task in group.tasks {
                    self.send(giver, to, task);
                }
            } else {
                rest.push(group);
            }
        }
        if self.paced {
            return;
        }
        // What is left is too little for a whole group: one is broken up.
        rest.sort_by_key(|group| (group.rank, group.left_behind == 0, group.tasks.len()));
        for task in rest.into_iter().flat_map(|group| group.tasks) {
            if over == 0 {
                break;
            }
            if let Some(to) = self.receiver(task, 1, rules) {
                over -= 1;
                self.send(giver, to, task);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, task: &'a TaskId) {
        let why = Why::Count {
            has: self.table.places[from].count,
            share: self.quotas[from],
            other_has: self.table.places[to].count,
            other_share: self.quotas[to],
        };
        let (from_name, to_name) = (self.table.name(from).to_owned(), self.table.name(to).to_owned());
        self.moves.push(Move { task: task.clone(), from: from_name, to: to_name, why });
        if let Some(receiver) = self.receivers.iter_mut().find(|receiver| receiver.n == to) {
            receiver.missing -= 1;
            receiver.pace = receiver.pace.saturating_sub(1);
        }
        self.table.places[from].count -= 1;
        self.table.places[to].count += 1;
        self.table.pass_on(from, to, task);
    }

    /// The tasks of a worker by split, those first that are best to go.
    fn groups(&self, giver: usize, tasks: Vec<&'a TaskId>, rules: &Rules<'_>) -> Vec<Group<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut by_split: BTreeMap<_, usize> = BTreeMap::new();
        for task in tasks {
            let fresh = groups.len();
            let at = task.split().map_or(fresh, |split| *by_split.entry(split).or_insert(fresh));
            if at == fresh {
                groups.push(Group { tasks: Vec::new(), rank: self.rank(giver, task, rules), left_behind: 0 });
            }
            groups[at].tasks.push(task);
        }
        for group in &mut groups {
            if let Some(split) = group.tasks[0].split() {
                let here = self.table.reads(giver, split) as usize;
                group.left_behind = u32::try_from(here.saturating_sub(group.tasks.len())).unwrap_or(u32::MAX);
            }
        }
        groups.sort_by_key(|group| (group.rank, group.tasks.len()));
        groups
    }

    fn rank(&self, giver: usize, task: &TaskId, rules: &Rules<'_>) -> Rank {
        let poor = |n: usize| self.receivers.iter().any(|receiver| receiver.n == n);
        let home = rules.history.home(task).and_then(|home| self.table.find(home));
        match task.split() {
            _ if home.is_some_and(poor) => Rank::Home,
            None if self.too_many(giver, task) => Rank::TooMany,
            None => Rank::Partition,
            Some(split) if self.table.readers(split).any(|(n, _)| poor(n)) => Rank::Beside,
            Some(_) => Rank::Any,
        }
    }

    /// Whether some receiver would have fewer partitions of the sink even with this one more.
    fn too_many(&self, giver: usize, task: &TaskId) -> bool {
        let here = (giver, self.table.writes(giver, task.sink));
        let fewer = |r: &Receiver| {
            let there = (r.n, self.table.writes(r.n, task.sink) + 1);
            self.table.per_capacity(there, here) == Ordering::Less
        };
        self.receivers.iter().filter(|r| r.missing > 0).any(fewer)
    }

    /// Who shall have a group of this size: its home, else where the same split is read, or the fewest partitions of its sink
    /// are, else who misses most. Nobody, if nobody misses as many, or if enough are on their way to the one already.
    fn receiver(&mut self, task: &TaskId, size: usize, rules: &Rules<'_>) -> Option<usize> {
        let fits = |receiver: &&Receiver| receiver.missing >= size;
        let with_room = || self.receivers.iter().filter(fits);
        let home = rules.history.home(task).and_then(|home| self.table.find(home));
        let poorest = |a: &&Receiver, b: &&Receiver| {
            (a.pace == 0).cmp(&(b.pace == 0)).then_with(|| b.missing.cmp(&a.missing))
        };
        let found = with_room().find(|receiver| Some(receiver.n) == home).or_else(|| match task.split() {
            Some(split) => {
                let reads = |receiver: &&Receiver| self.table.reads(receiver.n, split) > 0;
                with_room().find(reads).or_else(|| with_room().min_by(poorest))
            }
            None => with_room().min_by(|a, b| self.table.apart_of(task.sink, a.n, b.n)),
        })?;
        if found.pace == 0 {
            self.paced = true;
            return None;
        }
        Some(found.n)
    }
}
