//! Which worker gets which task: even, stable, and moving no more than it must.
//!
//! Called by `plan`. Separate questions: [`place`] finds a worker for tasks that have none (at once, I6), [`balance`] picks
//! running tasks to move for even counts, and [`exchange`] pairs to swap for even loads (both slowly: hysteresis, cooldown
//! and a cap, all from [`History`]).
//!
//! Both abstract a worker to a *quota*: its share of all tasks by capacity, rounded down, plus at most one of the tasks
//! that rounding left over. A world in which every worker is within its quota is even; nothing in it is moved.

mod loads;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use model::{SplitId, TaskId};

pub use loads::{Move, exchange};

/// No task is moved twice for evenness within this time.
pub const MOVE_COOLDOWN: Duration = Duration::from_secs(120);
/// The cap on moves counts over this time: a sixtieth of all tasks (so a tenth in a minute), but at least one.
pub const MOVE_WINDOW: Duration = Duration::from_secs(10);

/// Workers that take tasks, and the capacity of each (above 0).
pub type Seats = BTreeMap<String, u32>;

/// What the balancer did in this term. Kept by the coordinator, passed in with each plan.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Planned moves, oldest first.
    moves: VecDeque<(Duration, TaskId)>,
    /// Where a task ran before its worker went: it likes to go back there.
    homes: BTreeMap<TaskId, String>,
    /// Where an exchanged task shall go.
    targets: BTreeMap<TaskId, String>,
    /// When a worker was last left by a task.
    left_at: BTreeMap<String, Duration>,
}

impl History {
    /// A task was ordered to stop, to be moved for evenness: to this worker, or to any with room.
    pub fn moved(&mut self, task: TaskId, to: Option<String>, now: Duration) {
        match to {
            Some(to) => drop(self.targets.insert(task.clone(), to)),
            None => drop(self.targets.remove(&task)),
        }
        while self.moves.front().is_some_and(|(at, _)| *at + MOVE_COOLDOWN <= now) {
            self.moves.pop_front();
        }
        self.homes.remove(&task);
        self.moves.push_back((now, task));
    }

    /// A task had to leave this worker, which may come back.
    pub fn left(&mut self, task: TaskId, home: &str, now: Duration) {
        self.left_at.insert(home.to_owned(), now);
        self.homes.entry(task).or_insert_with(|| home.to_owned());
    }

    /// The workers that a task had to leave within this time.
    pub fn left_within(&self, grace: Duration, now: Duration) -> impl Iterator<Item = &str> {
        let recent = move |at: &Duration| *at + grace > now;
        self.left_at.iter().filter(move |(_, at)| recent(at)).map(|(worker, _)| worker.as_str())
    }

    /// A task runs somewhere: where it was on its way to is no longer asked.
    pub fn arrived(&mut self, task: &TaskId) {
        self.targets.remove(task);
    }

    /// A task is no more.
    pub fn forget(&mut self, task: &TaskId) {
        self.homes.remove(task);
        self.targets.remove(task);
    }

    /// Where a task is on its way to.
    #[must_use]
    pub fn target(&self, task: &TaskId) -> Option<&str> {
        self.targets.get(task).map(String::as_str)
    }

    /// Where a task likes to be, if it had to leave.
    #[must_use]
    pub fn home(&self, task: &TaskId) -> Option<&str> {
        self.homes.get(task).map(String::as_str)
    }

    /// How many of `tasks` tasks may be moved now.
    #[must_use]
    pub fn allowance(&self, tasks: usize, now: Duration) -> usize {
        let recent = self.moves.iter().filter(|(at, _)| *at + MOVE_WINDOW > now).count();
        (tasks / 60).max(1).saturating_sub(recent)
    }

    /// Whether a task was moved lately.
    #[must_use]
    pub fn cools_down(&self, task: &TaskId, now: Duration) -> bool {
        self.moves.iter().any(|(at, moved)| moved == task && *at + MOVE_COOLDOWN > now)
    }
}

/// One worker while tasks are dealt out.
#[derive(Default)]
struct Seat<'a> {
    capacity: u64,
    /// Its share, rounded down.
    floor: usize,
    tasks: BTreeSet<&'a TaskId>,
    /// How many of its tasks read each split.
    splits: BTreeMap<&'a SplitId, u32>,
}

impl<'a> Seat<'a> {
    fn take(&mut self, task: &'a TaskId) {
        self.tasks.insert(task);
        if let Some(split) = task.split() {
            *self.splits.entry(split).or_default() += 1;
        }
    }
}

/// All workers while tasks are dealt out.
struct Table<'a> {
    seats: BTreeMap<&'a str, Seat<'a>>,
    /// Tasks that rounding down left over: how many workers may still go one above their floor.
    extras: usize,
}

impl<'a> Table<'a> {
    /// `more`: tasks to come that run nowhere yet.
    fn new(seats: &'a Seats, running: &'a BTreeMap<TaskId, String>, more: usize) -> Self {
        let mut by_name: BTreeMap<&str, Seat> = seats
            .iter()
            .filter(|(_, capacity)| **capacity > 0)
            .map(|(name, capacity)| {
                (name.as_str(), Seat { capacity: u64::from(*capacity), ..Seat::default() })
            })
            .collect();
        for (task, worker) in running {
            if let Some(seat) = by_name.get_mut(worker.as_str()) {
                seat.take(task);
            }
        }
        let tasks = by_name.values().map(|seat| seat.tasks.len()).sum::<usize>() + more;
        let capacity: u64 = by_name.values().map(|seat| seat.capacity).sum();
        let mut extras = tasks;
        for seat in by_name.values_mut() {
            let share = tasks as u64 * seat.capacity / capacity;
            seat.floor = usize::try_from(share).unwrap_or(usize::MAX);
            extras -= seat.floor;
        }
        let taken = by_name.values().filter(|seat| seat.tasks.len() > seat.floor).count();
        Self { seats: by_name, extras: extras.saturating_sub(taken) }
    }

    fn has_room(&self, worker: &str) -> bool {
        self.seats.get(worker).is_some_and(|seat| {
            seat.tasks.len() < seat.floor || (seat.tasks.len() == seat.floor && self.extras > 0)
        })
    }

    fn take(&mut self, worker: &str, task: &'a TaskId) {
        let Some(seat) = self.seats.get_mut(worker) else { return };
        if seat.tasks.len() == seat.floor {
            self.extras = self.extras.saturating_sub(1);
        }
        seat.take(task);
    }

    /// Of the workers with room, the one that is emptiest for its capacity; the first by name of those.
    fn emptiest(&self) -> Option<&'a str> {
        // (tasks + 1) / capacity, compared without division
        self.seats
            .iter()
            .filter(|(name, _)| self.has_room(name))
            .min_by(|(_, a), (_, b)| {
                let (a_next, b_next) = (a.tasks.len() as u64 + 1, b.tasks.len() as u64 + 1);
                (a_next * b.capacity).cmp(&(b_next * a.capacity))
            })
            .map(|(name, _)| *name)
    }

    /// A worker with room that reads this split already; the one with the most tasks on it.
    fn beside(&self, split: &SplitId) -> Option<&'a str> {
        self.seats
            .iter()
            .filter(|(name, seat)| seat.splits.contains_key(split) && self.has_room(name))
            .max_by_key(|(name, seat)| (seat.splits[split], Reverse(**name)))
            .map(|(name, _)| *name)
    }
}

/// Finds a worker for each task that has none: its home if that has room, else one that reads the same split and has room
/// (they can share one stream), else the emptiest. Empty if there is no seat. Running tasks stay where they are.
#[must_use]
pub fn place(
    homeless: &BTreeMap<TaskId, Option<String>>,
    running: &BTreeMap<TaskId, String>,
    seats: &Seats,
) -> BTreeMap<TaskId, String> {
    let mut table = Table::new(seats, running, homeless.len());
    let mut placed = BTreeMap::new();
    for (task, home) in homeless {
        if let Some(home) = home.as_deref().filter(|home| table.has_room(home)) {
            table.take(home, task);
            placed.insert(task.clone(), home.to_owned());
        }
    }
    let mut rest: Vec<&TaskId> = homeless.keys().filter(|task| !placed.contains_key(*task)).collect();
    rest.sort_by(|a, b| (&a.work, a.sink).cmp(&(&b.work, b.sink)));
    for task in rest {
        let Some(worker) = task.split().and_then(|split| table.beside(split)).or_else(|| table.emptiest())
        else {
            break;
        };
        table.take(worker, task);
        placed.insert(task.clone(), worker.to_owned());
    }
    placed
}

/// What holds the balancer back.
pub struct Rules<'a> {
    /// What it did lately.
    pub history: &'a History,
    /// Tasks that must stay.
    pub fixed: &'a BTreeSet<TaskId>,
    /// The present.
    pub now: Duration,
}

/// Picks running tasks to take from workers above their quota, at most what the rules allow. `more`: tasks on their way
/// from one worker to the next; they count as if they had arrived where they are missing.
#[must_use]
pub fn balance(
    running: &BTreeMap<TaskId, String>,
    more: usize,
    seats: &Seats,
    rules: &Rules<'_>,
) -> Vec<TaskId> {
    let Rules { history, fixed, now } = *rules;
    let table = Table::new(seats, running, more);
    let mut extras: usize = {
        let tasks = table.seats.values().map(|seat| seat.tasks.len()).sum::<usize>() + more;
        tasks.saturating_sub(table.seats.values().map(|seat| seat.floor).sum())
    };
    let mut fullest: Vec<(&str, &Seat)> = table.seats.iter().map(|(name, seat)| (*name, seat)).collect();
    fullest.sort_by_key(|(name, seat)| (Reverse(seat.tasks.len().saturating_sub(seat.floor)), *name));
    let mut excess: Vec<(&str, usize)> = Vec::new();
    let mut poor: Vec<&str> = Vec::new();
    for (name, seat) in fullest {
        let extra = usize::from(extras > 0);
        extras -= extra;
        let quota = seat.floor + extra;
        match seat.tasks.len().checked_sub(quota) {
            Some(0) => {}
            Some(over) => excess.push((name, over)),
            None => poor.push(name),
        }
    }
    let mut allowed = history.allowance(table.seats.values().map(|seat| seat.tasks.len()).sum(), now);
    let mut moves = Vec::new();
    for (name, over) in excess {
        let may_move = |task: &&TaskId| !fixed.contains(*task) && !history.cools_down(task, now);
        let mut candidates: Vec<&TaskId> = table.seats[name].tasks.iter().copied().filter(may_move).collect();
        candidates.sort_by_key(|task| dislike(&table, history, &poor, name, task));
        let take = over.min(allowed);
        let taken: Vec<TaskId> = candidates.into_iter().take(take).cloned().collect();
        allowed -= taken.len();
        moves.extend(taken);
    }
    moves
}

/// Orders the tasks of a worker by how little is lost when one goes: first those whose home is elsewhere and waits, then
/// those whose split is read at a worker with room, last those that share their split here.
fn dislike(table: &Table<'_>, history: &History, poor: &[&str], here: &str, task: &TaskId) -> (u8, u32) {
    let shared_here = task.split().and_then(|split| table.seats[here].splits.get(split)).map_or(0, |n| n - 1);
    let wanted_back = history.home(task).is_some_and(|home| poor.contains(&home));
    let reads = |name: &&str| task.split().is_some_and(|split| table.seats[name].splits.contains_key(split));
    let shared_there = poor.iter().any(reads);
    let rank = match (wanted_back, shared_there) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    };
    (rank, shared_here)
}
