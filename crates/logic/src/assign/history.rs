//! What the balancer did lately, and where tasks come from and go to. Kept by the leader for its term.

use std::{collections::BTreeMap, time::Duration};

use model::TaskId;

/// No task is moved twice for the sake of loads within this time.
pub const MOVE_COOLDOWN: Duration = Duration::from_secs(120);
/// No task is moved twice for even counts within this time; a worker that joins must not wait for the cooldown of loads.
pub const FILL_COOLDOWN: Duration = Duration::from_secs(15);
/// The cap on moves for the sake of loads counts over this time.
pub const CAP_WINDOW: Duration = Duration::from_secs(60);
/// The cap: one of this many tasks, but at least one exchange.
pub const CAP_SHARE: usize = 10;

/// What the balancer did in this term. Kept by the coordinator, passed in with each plan.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// When each task was moved last, and whether the cap counts it.
    moves: BTreeMap<TaskId, (Duration, bool)>,
    /// Where a task ran before its worker went: it likes to go back there.
    homes: BTreeMap<TaskId, String>,
    /// Where a moved task shall go.
    targets: BTreeMap<TaskId, String>,
    /// When a worker was last left by a task.
    left_at: BTreeMap<String, Duration>,
}

impl History {
    /// A task was ordered to stop, to be moved to this worker, or to any with room. `capped`: for the sake of loads.
    pub fn moved(&mut self, task: TaskId, to: Option<String>, capped: bool, now: Duration) {
        match to {
            Some(to) => drop(self.targets.insert(task.clone(), to)),
            None => drop(self.targets.remove(&task)),
        }
        self.moves.retain(|_, (at, _)| *at + MOVE_COOLDOWN > now);
        self.homes.remove(&task);
        self.moves.insert(task, (now, capped));
    }

    /// A task had to leave this worker, which may come back.
    pub fn left(&mut self, task: TaskId, home: &str, now: Duration) {
        self.left_at.insert(home.to_owned(), now);
        self.homes.entry(task).or_insert_with(|| home.to_owned());
    }

    /// The workers that a task had to leave within this time, and when.
    pub fn left_within(&self, grace: Duration, now: Duration) -> impl Iterator<Item = (&str, Duration)> {
        let recent = move |at: &Duration| *at + grace > now;
        self.left_at.iter().filter(move |(_, at)| recent(at)).map(|(worker, at)| (worker.as_str(), *at))
    }

    /// A task runs somewhere: where it was on its way to is no longer asked.
    pub fn arrived(&mut self, task: &TaskId) {
        self.targets.remove(task);
    }

    /// A task is no more.
    pub fn forget(&mut self, task: &TaskId) {
        self.homes.remove(task);
        self.targets.remove(task);
        self.moves.remove(task);
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

    /// How many of `tasks` tasks may be moved now for the sake of loads.
    #[must_use]
    pub fn allowance(&self, tasks: usize, now: Duration) -> usize {
        let recent = self.moves.values().filter(|(at, capped)| *capped && *at + CAP_WINDOW > now).count();
        (tasks / CAP_SHARE).max(2).saturating_sub(recent)
    }

    /// Whether a task was moved within this time.
    #[must_use]
    pub fn moved_within(&self, task: &TaskId, cooldown: Duration, now: Duration) -> bool {
        self.moves.get(task).is_some_and(|(at, _)| *at + cooldown > now)
    }

    /// How many tasks may not be moved yet for the sake of loads.
    #[must_use]
    pub fn cooling(&self, now: Duration) -> usize {
        self.moves.values().filter(|(at, _)| *at + MOVE_COOLDOWN > now).count()
    }
}
