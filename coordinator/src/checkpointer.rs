//! Makes reported positions durable: few transactions, each of one lane, none of which can land after its successor (P14).
//!
//! ```text
//!   progress ─▶ pending ─▶ group (lane due) ─▶ transaction ─▶ done:    Committed to the worker, releases counted
//!                  ▲                                │
//!                  │                                ├▶ lost:    leader gone → the term ends, workers are told nothing
//!                  └── the rest, at once ◀──────────┤           assignment moved → that run is fenced
//!                  └── after reading the lane ◀─────┴▶ unknown: did it land? the lane's serial tells
//! ```
//!
//! Guards: the assignment of each task at its epoch (I3), the lane, the leader. What may be written is `logic::checkpoint`'s
//! decision (I4). Transactions of different lanes run side by side; of one lane one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use daemon::trace::{Span, SpanKind, What};
use logic::{
    checkpoint::{Group, LaneId, Moved, Pending, Verdict},
    gate::Released,
    mutant,
};
use model::{Checkpoint, Epoch, TaskId};
use opentelemetry::KeyValue;
use proto::v1;
use store::{AssignmentKey, CheckpointKey, Guard, Lane, LaneKey, Write};
use tokio::task::JoinSet;

use crate::{
    clock,
    error::{ErrorKind, Result},
    events::Level,
    memory::Memory,
    term::{Outcome, State, Term},
};

/// Puts a second that the store is spared more than: beyond it, checkpoints are spaced further apart.
const PUTS_PER_SECOND: f64 = 5000.0;

/// How long a lane waits after the store did not answer.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What waits to become durable.
#[derive(Default)]
pub(crate) struct Lanes {
    pending: Pending,
    /// Runs that count as released once their last position is durable.
    releases: BTreeMap<(TaskId, Epoch), Released>,
    /// Lanes that should not wait for their interval.
    urgent: BTreeSet<LaneId>,
    /// Lanes with a transaction under way.
    busy: BTreeSet<LaneId>,
    /// When each lane may go next.
    due: BTreeMap<LaneId, Duration>,
    /// The serial of the last transaction of each lane that was sent, landed or not: two never share one, or the landing of an
    /// earlier one, whose answer was lost, would be taken for that of a later one.
    serials: BTreeMap<LaneId, u64>,
    /// Spans of batches that wait for the checkpoint of their task: the newest of each, as their worker wrote it.
    traced: BTreeMap<TaskId, String>,
}

impl State {
    /// A run reports a position. What is durable already is said again; a run that is not the task's current one is fenced. A
    /// gap that comes with it is told once: by the leader that hears of it first, and again by its successor if it did not
    /// become durable.
    pub fn take_progress(&mut self, term: &Term, moved: Moved) -> Verdict {
        let run = (moved.task.clone(), moved.epoch);
        let end = moved.position.is_end();
        let gap = moved.gap.clone().filter(|gap| !self.knows_gap(&run.0, gap));
        let verdict = self.lanes.pending.offer(&self.memory.observed, moved.clone());
        if let Some(gap) = gap.filter(|_| verdict == Verdict::Taken) {
            term.gap(self, &run.0, &gap);
        }
        match verdict {
            Verdict::Taken if end => self.hurry(&run.0),
            Verdict::Taken => {}
            Verdict::Durable => {
                if let Some((_, assignment)) = self.memory.observed.assignments.get(&run.0) {
                    term.tell_committed(self, &assignment.process, vec![progress(&moved)]);
                }
            }
            Verdict::Fenced => {}
        }
        verdict
    }

    /// The next checkpoint of a task is part of this span.
    pub fn trace(&mut self, task: &TaskId, traceparent: String) {
        if !traceparent.is_empty() && daemon::trace::is_on() {
            self.lanes.traced.insert(task.clone(), traceparent);
        }
    }

    /// A run is over, and its last position must be durable before it counts as released.
    pub fn release_after(&mut self, term: &Term, last: Moved, release: Released) {
        let run = (last.task.clone(), last.epoch);
        match self.take_progress(term, last) {
            Verdict::Taken => {
                self.hurry(&run.0);
                self.lanes.releases.entry(run).or_insert(release);
            }
            Verdict::Durable | Verdict::Fenced => term.count_release(self, run, release),
        }
    }

    /// The least time between two transactions of a lane: more with more tasks than the store should be asked to write a second.
    pub fn checkpoint_pace(&self, term: &Term) -> Duration {
        let tasks = self.memory.observed.assignments.len() as f64;
        self.memory
            .checkpoint_interval(term.config.checkpoint_interval)
            .max(Duration::from_secs_f64(tasks / PUTS_PER_SECOND))
    }

    fn knows_gap(&self, task: &TaskId, gap: &str) -> bool {
        let stored = self.memory.observed.checkpoints.get(task).and_then(|stored| stored.value.gap.as_ref());
        stored.is_some_and(|stored| stored.message == gap)
            || self.lanes.pending.get(task).is_some_and(|moved| moved.gap.as_deref() == Some(gap))
    }

    fn hurry(&mut self, task: &TaskId) {
        if let Some((_, run)) = self.memory.observed.assignments.get(task) {
            self.lanes.urgent.insert((run.worker.clone(), run.lane));
        }
    }
}

/// Runs until the term ends.
pub(crate) async fn run(term: Arc<Term>) {
    let mut transactions = JoinSet::new();
    loop {
        let next = start_due(&term, &mut transactions);
        tokio::select! {
            biased;
            () = term.cancel.cancelled() => return,
            Some(_) = transactions.join_next() => {}
            () = term.moved.notified() => {}
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// Starts a transaction for each lane whose time has come; says how long until the next is due.
fn start_due(term: &Arc<Term>, transactions: &mut JoinSet<()>) -> Duration {
    let mut state = term.state();
    let interval = state.checkpoint_pace(term);
    let State { memory, lanes, .. } = &mut *state;
    let now = term.clock.now();
    let mut next = Duration::from_secs(3600);
    let Lanes { pending, urgent, busy, due, .. } = lanes;
    // An `ALTER SINK` may have shortened it since.
    due.values_mut().for_each(|due| *due = (*due).min(now + interval));
    // Asked before a group is made: with many tasks, most wake-ups concern one lane of many.
    let may_go = |lane: &LaneId| {
        let due = due.get(lane).copied().unwrap_or(Duration::ZERO);
        let waits = due > now && !urgent.contains(lane);
        if waits && !busy.contains(lane) {
            next = next.min(due - now);
        }
        !waits && !busy.contains(lane)
    };
    for group in pending.groups(&memory.observed, clock::wall(), may_go) {
        urgent.remove(&group.lane);
        busy.insert(group.lane.clone());
        due.insert(group.lane.clone(), now + interval);
        transactions.spawn(transact(Arc::clone(term), group));
    }
    next
}

async fn transact(term: Arc<Term>, group: Group) {
    let lane = group.lane.clone();
    let started = tokio::time::Instant::now();
    let _spans = spans(&mut term.state().lanes, &group);
    if let Err(error) = write(&term, &group).await
        && error.kind != ErrorKind::NotLeader
    {
        tracing::warn!(%error, worker = lane.0, "checkpoint was not written, trying again");
        tokio::time::sleep(RETRY_AFTER).await;
        term.state().lanes.urgent.insert(lane.clone());
    }
    term.meters.checkpoint_write.record(started.elapsed().as_secs_f64(), &[]);
    term.state().lanes.busy.remove(&lane);
}

/// The transaction as a part of each batch that it makes durable; over when they are dropped.
fn spans(lanes: &mut Lanes, group: &Group) -> Vec<Span> {
    let traced = group.writes.iter().filter_map(|(task, _)| lanes.traced.remove(task));
    let what = || {
        let tasks = i64::try_from(group.writes.len()).unwrap_or(i64::MAX);
        What::new("checkpoint", SpanKind::Server).with([
            KeyValue::new("shardwright.tasks", tasks),
            KeyValue::new("shardwright.worker", group.lane.0.clone()),
        ])
    };
    traced.filter_map(|traceparent| Span::of_remote(&traceparent, what)).collect()
}

/// One transaction, until it is known whether it landed.
async fn write(term: &Term, group: &Group) -> Result<()> {
    let (guards, writes, serial) = transaction(&mut term.state(), group);
    let keep = |memory: &mut Memory, revision| memory.checkpointed(group, serial, revision);
    match term.try_commit(guards, &writes, keep).await {
        Ok(Outcome::Done(_)) => durable(term, group),
        Ok(Outcome::Lost(_)) => lost(term, group),
        Err(error) if error.kind == ErrorKind::Unknown => {
            tracing::warn!(%error, worker = group.lane.0, "answer of a checkpoint was lost, reading its lane");
            if mutant::on("unknown_counts_as_durable") || landed(term, &group.lane, serial, &writes).await? {
                durable(term, group);
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn transaction(state: &mut State, group: &Group) -> (Vec<Guard>, Vec<Write>, u64) {
    let State { memory, lanes, .. } = state;
    let keys = &memory.keys;
    let lane = memory.view.lanes.get(&group.lane);
    let lane_key = keys.key::<LaneKey>(&group.lane);
    let sent = lanes.serials.entry(group.lane.clone()).or_default();
    let serial = lane.map_or(0, |lane| lane.value.serial).max(*sent) + 1;
    *sent = serial;
    let assignment = |(task, checkpoint): &(TaskId, Checkpoint)| {
        Guard::Unchanged(keys.key::<AssignmentKey>(task), checkpoint.epoch.revision)
    };
    let lane_guard = match lane {
        Some(lane) => Guard::Unchanged(lane_key, lane.mod_revision),
        None => Guard::Absent(lane_key),
    };
    let mut guards: Vec<Guard> = Vec::with_capacity(group.writes.len() + 2);
    if !mutant::on("no_fence") {
        guards.extend(group.writes.iter().map(assignment));
    }
    if !mutant::on("no_lane") {
        guards.push(lane_guard);
    }
    let mut writes: Vec<Write> =
        group.writes.iter().map(|(task, checkpoint)| keys.put::<CheckpointKey>(task, checkpoint)).collect();
    writes.push(keys.put::<LaneKey>(&group.lane, &Lane { serial }));
    (guards, writes, serial)
}

/// Whether a transaction whose answer was lost has landed (P14). If not, it cannot any more once the next one of the lane has.
async fn landed(term: &Term, lane: &LaneId, serial: u64, writes: &[Write]) -> Result<bool> {
    let key = term.state().memory.keys.key::<LaneKey>(lane);
    let mut attempts: u32 = 0;
    let present = loop {
        match term.store.list(&key).await {
            Ok(present) => break present,
            Err(error) if term.cancel.is_cancelled() => return Err(error.into()),
            Err(error) => {
                attempts += 1;
                tracing::warn!(%error, attempts, worker = lane.0, "lane could not be read");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    };
    let mut state = term.state();
    if let Some(entry) = present.get(&key)
        && store::decode::<Lane>(&key, &entry.value)?.serial == serial
    {
        state.memory.apply(writes, entry.mod_revision);
        return Ok(true);
    }
    state.memory.correct(&[Guard::Absent(key)], &present);
    Ok(false)
}

/// These positions are durable: workers are told, what waited for it goes on.
fn durable(term: &Term, group: &Group) {
    let mut state = term.state();
    let mut told: BTreeMap<String, Vec<v1::TaskProgress>> = BTreeMap::new();
    for (task, checkpoint) in &group.writes {
        state.lanes.pending.committed(task, checkpoint);
        if let Some((_, run)) = state.memory.observed.assignments.get(task) {
            told.entry(run.process.clone()).or_default().push(written(task, checkpoint));
        }
        if checkpoint.position.is_end() {
            ended(term, &mut state, task);
        }
        let run = (task.clone(), checkpoint.epoch);
        let waits = state.lanes.pending.get(task).is_some_and(|moved| moved.epoch == checkpoint.epoch);
        if !waits && let Some(release) = state.lanes.releases.remove(&run) {
            term.count_release(&mut state, run, release);
        }
    }
    for (process, tasks) in told {
        term.tell_committed(&state, &process, tasks);
    }
}

/// The end of a split: its children may start, and there may be splits that nobody has listed yet.
fn ended(term: &Term, state: &mut State, task: &TaskId) {
    state.ended.insert(task.clone(), term.clock.now());
    let Some(sink) = state.memory.sink(task.sink) else { return };
    let message = format!("sink `{}` is through with split `{}`", sink.name, task.work);
    let split = task.work.to_string();
    let labels = [("sink", sink.name.as_str()), ("split", split.as_str())];
    term.events.tell(Level::Info, "split_ended", message, &labels);
    state.wake_discovery(sink.source);
    term.nudge.notify_one();
}

/// Some assignment of the group has moved (or the lane had): those runs are fenced, the rest goes again at once.
fn lost(term: &Term, group: &Group) {
    let mut state = term.state();
    for (task, checkpoint) in &group.writes {
        let current = state.memory.observed.assignments.get(task).map(|(epoch, _)| *epoch);
        if current == Some(checkpoint.epoch) {
            continue;
        }
        let run = (task.clone(), checkpoint.epoch);
        state.lanes.pending.forget(task);
        let labels = [("task", run.0.to_string()), ("epoch", run.1.to_string())];
        let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        term.events.tell(Level::Warn, "task_fenced", "a run that is not the current one moved on", &labels);
        if let Some(release) = state.lanes.releases.remove(&run) {
            term.count_release(&mut state, run, release);
        }
    }
    state.lanes.urgent.insert(group.lane.clone());
    drop(state);
    term.push_lists();
}

fn progress(moved: &Moved) -> v1::TaskProgress {
    v1::TaskProgress {
        task: Some((&moved.task).into()),
        epoch: Some(moved.epoch.into()),
        position: Some(proto::position_to_wire(&moved.position)),
        serial: moved.serial,
        records: moved.records,
        caught_up_at_ms: moved.caught_up_at.map(|at| at.0),
        gap: moved.gap.clone().unwrap_or_default(),
        traceparent: String::new(),
    }
}

fn written(task: &TaskId, checkpoint: &Checkpoint) -> v1::TaskProgress {
    v1::TaskProgress {
        task: Some(task.into()),
        epoch: Some(checkpoint.epoch.into()),
        position: Some(proto::position_to_wire(&checkpoint.position)),
        serial: checkpoint.serial,
        records: checkpoint.run_records,
        caught_up_at_ms: checkpoint.caught_up_at.map(|at| at.0),
        gap: checkpoint.gap.as_ref().map(|gap| gap.message.clone()).unwrap_or_default(),
        traceparent: String::new(),
    }
}
