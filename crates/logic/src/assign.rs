//! Which worker gets which task: even, stable, and moving no more than it must.
//!
//! Called by `plan`. Separate questions: [`place`] finds a worker for tasks that have none (at once, I6), [`balance`] picks
//! running tasks to move for even counts, [`spread`] pairs to swap so that the partitions of a sink are apart, and
//! [`exchange`] pairs to swap for even loads ([`cost`] says what a load is).
//!
//! Counts first: a worker has a *quota*, its share of all tasks by capacity, rounded down, plus at most one of the tasks that
//! rounding left over. A world in which every worker is within its quota is even; nothing in it is moved for counts. A worker
//! that joins is filled from those above their quota and from nobody else, a few tasks at a time. Loads are looked at when counts
//! are even, and slowly: hysteresis, cooldown and a cap, all from [`History`].
//!
//! Beyond numbers: tasks of one split like to be together (sinks of one source share a reader), partitions of one sink like to be
//! apart, on different workers first and in different zones next.

mod balance;
pub mod cost;
mod history;
mod loads;
mod spread;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use model::{SplitId, TaskId};

pub use balance::balance;
pub use history::{CAP_SHARE, CAP_WINDOW, FILL_COOLDOWN, History, MOVE_COOLDOWN};
pub use loads::{exchange, largest_gain};
pub use spread::spread;
use table::Table;

/// What a worker can take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Relative share of tasks; 0 takes none.
    pub capacity: u32,
    /// Failure domain, empty if none was given.
    pub zone: String,
}

/// Workers that take tasks, by name.
pub type Seats = BTreeMap<String, Seat>;

/// Which worker runs which task.
pub type Running = BTreeMap<TaskId, String>;

/// Tasks that run nowhere for a moment and shall run again: they count where they are expected.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transit {
    /// How many are expected at each worker.
    pub to: BTreeMap<String, usize>,
    /// How many will go wherever there is room.
    pub anywhere: usize,
}

impl Transit {
    /// One more, expected there.
    pub fn expect(&mut self, worker: Option<&str>) {
        match worker {
            Some(worker) => *self.to.entry(worker.to_owned()).or_default() += 1,
            None => self.anywhere += 1,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anywhere == 0 && self.to.is_empty()
    }
}

/// What holds the balancer back.
pub struct Rules<'a> {
    /// What it did lately.
    pub history: &'a History,
    /// Tasks that must stay.
    pub fixed: &'a BTreeSet<TaskId>,
    /// The present.
    pub now: Duration,
    /// `REBALANCE`: no cooldown, no cap, no pace, and any gain in bytes is enough. What is even stays even.
    pub force: bool,
}

impl Rules<'_> {
    fn may_move(&self, task: &TaskId, cooldown: Duration) -> bool {
        !self.fixed.contains(task) && (self.force || !self.history.moved_within(task, cooldown, self.now))
    }
}

/// A running task that shall go to another worker.
#[derive(Clone, PartialEq, Debug)]
pub struct Move {
    /// Which task.
    pub task: TaskId,
    /// The worker that has it.
    pub from: String,
    /// The worker that shall have it.
    pub to: String,
    /// Why.
    pub why: Why,
}

/// Why a task shall move.
#[derive(Clone, PartialEq, Debug)]
pub enum Why {
    /// Its worker has more than its share of tasks.
    Count {
        /// Tasks of its worker, those on their way to it included …
        has: usize,
        /// … and its share.
        share: usize,
        /// The same of the worker that gets it.
        other_has: usize,
        /// …
        other_share: usize,
    },
    /// Its worker has more partitions of the sink than others.
    Spread {
        /// That many …
        has: usize,
        /// … and the worker that gets it has this many.
        other_has: usize,
    },
    /// Its worker has more to do than others, in bytes a second.
    Load {
        /// The cost of all tasks there …
        has: f64,
        /// … what it will be …
        then: f64,
        /// … and the cost of all tasks of the worker that gets it.
        other_has: f64,
    },
    /// It goes the other way, so that counts stay even.
    InReturn,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: &f64| bytes / 1e6;
        match self {
            Self::Count { has, share, other_has, other_share } => {
                write!(f, "{has} tasks of a share of {share} there, {other_has} of {other_share} here")
            }
            Self::Spread { has, other_has } => {
                write!(f, "{has} partitions of the sink there, {other_has} here")
            }
            Self::Load { has, then, other_has } => {
                let (has, then, other) = (mb(has), mb(then), mb(other_has));
                write!(f, "a load of {has:.1} MB/s there becomes {then:.1}, {other:.1} here")
            }
            Self::InReturn => f.write_str("in return, so that counts stay even"),
        }
    }
}

/// Finds a worker for each task that has none: its home if that has room; else, for a partition, where the fewest of its sink are;
/// else, for a split, where the same split is read (they can share one stream); else the emptiest. Empty if there is no seat.
/// Running tasks stay where they are.
#[must_use]
pub fn place(
    homeless: &BTreeMap<TaskId, Option<String>>,
    running: &Running,
    transit: &Transit,
    seats: &Seats,
) -> Running {
    let mut placed = BTreeMap::new();
    if homeless.is_empty() {
        return placed;
    }
    let mut table = Table::new(seats, running, transit, homeless.len());
    let wanted: BTreeSet<&SplitId> = homeless.keys().filter_map(TaskId::split).collect();
    table.look_closer(running, |split| wanted.contains(split));
    for (task, home) in homeless {
        let home = home.as_deref().and_then(|home| table.find(home)).filter(|home| table.has_room(*home));
        if let Some(home) = home {
            table.take(home, task);
            placed.insert(task.clone(), table.name(home).to_owned());
        }
    }
    let mut rest: Vec<&TaskId> = homeless.keys().filter(|task| !placed.contains_key(*task)).collect();
    // Partitions first: they are the ones that care most for where the others are.
    rest.sort_by_key(|task| (task.partition().is_none(), &task.work, task.sink));
    for task in rest {
        let found = match task.split() {
            Some(split) => table.beside(split).or_else(|| table.emptiest()),
            None => table.apart(task),
        };
        let Some(found) = found else { break };
        table.take(found, task);
        placed.insert(task.clone(), table.name(found).to_owned());
    }
    placed
}
