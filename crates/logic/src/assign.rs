//! Which worker gets which task: even, stable, and moving no more than it must.
//!
//! Called by `plan`. Two separate questions: [`place`] finds a worker for tasks that have none (at once, I6), [`balance`] picks
//! running tasks to move for evenness (slowly: hysteresis, cooldown, a cap, and the rejoin grace).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use model::TaskId;

/// What the balancer did in this term. Kept by the coordinator, passed in with each plan.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Planned moves, oldest first.
    moves: VecDeque<(Duration, TaskId)>,
    /// When a worker was last lost or left.
    left_at: Option<Duration>,
    /// Where a task ran before it lost its worker: it likes to go back there.
    homes: BTreeMap<TaskId, String>,
}

impl History {
    /// A task was ordered to stop, to be moved for evenness.
    pub fn moved(&mut self, task: TaskId, now: Duration) {
        self.moves.push_back((now, task));
    }

    /// A worker was given up, or left in order.
    pub fn worker_left(&mut self, now: Duration) {
        self.left_at = Some(now);
    }
}
