//! What others in this process may see of a worker: whether its session stands, and how each of its tasks is. Nothing here
//! decides anything.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{Epoch, TaskId};
use proto::v1;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    runs::from_wire,
    task::{Shown, Tenure},
};

/// How a worker stands with the coordinators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It looks for a leader that takes it. What it runs runs on.
    Seeking,
    /// The leader has sent it a list.
    Stands,
    /// It hands its tasks over and will end.
    Draining,
}

impl Standing {
    /// Why it takes no tasks; `None` if it does.
    #[must_use]
    pub fn waits_for(self) -> Option<&'static str> {
        match self {
            Self::Seeking => Some("a session with the leading coordinator"),
            Self::Stands => None,
            Self::Draining => Some("draining: it hands its tasks over"),
        }
    }
}

/// One task as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct TaskView {
    /// Its source.
    pub source: String,
    /// Its sink.
    pub sink: String,
    /// The split, or `partition 3`.
    pub task: String,
    /// `generation.revision`.
    pub epoch: String,
    /// `gated`, `running`, `retrying`, `draining`.
    pub state: &'static str,
    /// Everything before it is delivered.
    pub position: String,
    /// How far behind now, if the source has said.
    pub lag_ms: Option<u64>,
    /// Since when its oldest record has been waiting to be delivered.
    pub oldest_unacked_ms: Option<u64>,
    /// What it waits for, in words; empty when it waits for nothing.
    pub waits_for: String,
    /// What makes it wait, in one line, and until when.
    pub error: String,
    /// Until it tries again.
    pub retry_in_ms: Option<u64>,
    /// Totals of this run.
    pub records_read: u64,
    /// Of those, delivered.
    pub records_delivered: u64,
    /// Of those, skipped.
    pub records_skipped: u64,
    /// Of those, in the dead letters.
    pub records_dead_lettered: u64,
}

/// The runs of a worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct View(Arc<Mutex<BTreeMap<TaskId, Arc<Tenure>>>>);

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View")
    }
}

impl View {
    fn runs(&self) -> MutexGuard<'_, BTreeMap<TaskId, Arc<Tenure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, tenure: &Arc<Tenure>) {
        self.runs().insert(tenure.task.clone(), Arc::clone(tenure));
    }

    pub(crate) fn leave(&self, task: &TaskId, epoch: Epoch) {
        let mut runs = self.runs();
        if runs.get(task).is_some_and(|run| run.epoch == epoch) {
            runs.remove(task);
        }
    }

    /// So many of its tasks, and how many there are.
    #[must_use]
    pub fn tasks(&self, most: usize) -> (Vec<TaskView>, usize) {
        let (runs, all) = {
            let runs = self.runs();
            (runs.values().take(most).cloned().collect::<Vec<_>>(), runs.len())
        };
        let now = Instant::now();
        (runs.iter().map(|run| view(run, &run.shown, now)).collect(), all)
    }
}

fn view(run: &Tenure, shown: &Shown, now: Instant) -> TaskView {
    let report = shown.look(now);
    let state = report.state();
    let millis = |duration: Option<prost_types::Duration>| {
        duration.map(|duration| u64::try_from(from_wire(duration).as_millis()).unwrap_or(u64::MAX))
    };
    let gated = run.gate.saturating_duration_since(now);
    let waits_for = match state {
        v1::RunState::Gated if gated > Duration::ZERO => format!("{} ({gated:.1?})", report.waits_for),
        _ => report.waits_for,
    };
    TaskView {
        source: run.source_name.clone(),
        sink: run.sink.spec.name.clone(),
        task: run.task.work.to_string(),
        epoch: run.epoch.to_string(),
        state: match state {
            v1::RunState::Gated => "gated",
            v1::RunState::Retrying => "retrying",
            v1::RunState::Draining => "draining",
            v1::RunState::Failed => "failed",
            v1::RunState::Running | v1::RunState::Unspecified => "running",
        },
        position: shown.reached().position.to_string(),
        lag_ms: report.lag_ms,
        oldest_unacked_ms: millis(report.oldest_unacked),
        waits_for,
        error: report.error,
        retry_in_ms: millis(report.next_retry),
        records_read: report.records_read,
        records_delivered: report.records_delivered,
        records_skipped: report.records_skipped,
        records_dead_lettered: report.records_dead_lettered,
    }
}
