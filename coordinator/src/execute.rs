//! Carries out the actions of a plan: one function per kind says what is guarded and what is written.
//!
//! Actions do not depend on each other's outcome, so many travel in one transaction; if one of its guards fails, each goes
//! alone, and those that lose are planned anew from the corrected memory. `Stop` writes nothing: the next list carries it (P7).

use std::time::Duration;

use logic::{
    mutant,
    plan::{Action, Assign},
};
use model::{Epoch, TaskId};
use opentelemetry::KeyValue;
use store::{AssignmentKey, CheckpointKey, Guard, Keyspace, ObjectKey, SplitKey, View, Write};

use crate::{
    error::ErrorKind,
    events::Level,
    term::{Outcome, State, Term},
};

/// Guards in one transaction: the store's limit, less one for the leader.
const GUARDS_MAX: usize = store::COMMIT_OPS_MAX - 1;

/// While a long plan is carried out, what is assigned so far reaches the workers this often.
const PUSH_EVERY: Duration = Duration::from_millis(500);

/// An action as a transaction.
struct Step {
    action: Action,
    guards: Vec<Guard>,
    writes: Vec<Write>,
}

/// Carries out a plan. `true` if something was done.
pub(crate) async fn all(term: &Term, actions: Vec<Action>) -> bool {
    let mut done = false;
    let mut pushed = term.clock.now();
    let mut batch: Vec<Step> = Vec::new();
    for action in actions {
        let step = {
            let mut state = term.state();
            if matches!(action, Action::Stop(_)) {
                stop(term, &mut state, &action);
                done = true;
                continue;
            }
            let memory = &state.memory;
            step(&memory.keys, &memory.view, action)
        };
        let Some(step) = step else { continue };
        if batch.iter().map(|s| s.guards.len()).sum::<usize>() + step.guards.len() > GUARDS_MAX {
            done |= commit(term, std::mem::take(&mut batch)).await;
            if term.clock.now().saturating_sub(pushed) >= PUSH_EVERY {
                term.push_lists();
                pushed = term.clock.now();
            }
        }
        batch.push(step);
    }
    done | commit(term, batch).await
}

/// One transaction for several steps, or, if that loses, one for each.
async fn commit(term: &Term, batch: Vec<Step>) -> bool {
    match batch.len() {
        0 => false,
        1 => commit_together(term, &batch).await == Some(true),
        _ => match commit_together(term, &batch).await {
            Some(true) => true,
            None => false,
            Some(false) => {
                let mut done = false;
                for step in batch {
                    done |= commit_together(term, &[step]).await == Some(true);
                }
                done
            }
        },
    }
}

/// `Some(true)` if it landed, `Some(false)` if a guard failed, nothing if the store did not answer.
async fn commit_together(term: &Term, steps: &[Step]) -> Option<bool> {
    let guards = steps.iter().flat_map(|step| step.guards.clone()).collect();
    let writes = steps.iter().flat_map(|step| step.writes.clone()).collect();
    match term.commit(guards, writes).await {
        Ok(Outcome::Done(revision)) => {
            let mut state = term.state();
            for step in steps {
                done(term, &mut state, &step.action, revision);
            }
            Some(true)
        }
        Ok(Outcome::Lost(_)) => Some(false),
        Err(error) => {
            if error.kind != ErrorKind::NotLeader {
                tracing::warn!(%error, "plan was not carried out");
            }
            None
        }
    }
}

/// What an action guards and writes; nothing if the memory says that there is nothing left to do.
fn step(keys: &Keyspace, view: &View, action: Action) -> Option<Step> {
    let (guards, writes) = match &action {
        Action::Assign(assign) => self::assign(keys, assign),
        Action::Stop(_) => return None,
        Action::Unassign { task, epoch, .. } => unassign(keys, task, *epoch),
        Action::DeleteCheckpoint { task, revision } => delete_checkpoint(keys, task, *revision),
        Action::DeleteSplit { source, split } => {
            let id = (*source, split.clone());
            let key = keys.key::<SplitKey>(&id);
            let guard = Guard::Unchanged(key.clone(), view.splits.get(&id)?.mod_revision);
            (vec![guard], vec![Write::Delete(key)])
        }
        Action::DeleteObject { id } => {
            let key = keys.key::<ObjectKey>(id);
            // What it registered outside goes first: nobody else would remove it.
            let object = view.objects.get(id).filter(|object| object.value.registration.is_none())?;
            let guard = Guard::Unchanged(key.clone(), object.mod_revision);
            (vec![guard], vec![Write::Delete(key)])
        }
    };
    Some(Step { action, guards, writes })
}

/// P13: the old assignment, the checkpoint that the start was read from (and the leader, as always).
fn assign(keys: &Keyspace, assign: &Assign) -> (Vec<Guard>, Vec<Write>) {
    let guard = |key, revision: Option<u64>| match revision {
        Some(revision) => Guard::Unchanged(key, revision),
        None => Guard::Absent(key),
    };
    let replaces = assign.replaces.map(|epoch| epoch.revision);
    let mut guards = vec![guard(keys.key::<AssignmentKey>(&assign.task), replaces)];
    if !mutant::on("assign_unguarded") {
        guards.push(guard(keys.key::<CheckpointKey>(&assign.task), assign.checkpoint));
    }
    (guards, vec![keys.put::<AssignmentKey>(&assign.task, &assign.assignment)])
}

fn unassign(keys: &Keyspace, task: &TaskId, epoch: Epoch) -> (Vec<Guard>, Vec<Write>) {
    let key = keys.key::<AssignmentKey>(task);
    (vec![Guard::Unchanged(key.clone(), epoch.revision)], vec![Write::Delete(key)])
}

fn delete_checkpoint(keys: &Keyspace, task: &TaskId, revision: u64) -> (Vec<Guard>, Vec<Write>) {
    let key = keys.key::<CheckpointKey>(task);
    let guards =
        vec![Guard::Unchanged(key.clone(), revision), Guard::Absent(keys.key::<AssignmentKey>(task))];
    (guards, vec![Write::Delete(key)])
}

/// The order is in the memory; the next list of that worker carries it.
pub(crate) fn stop(term: &Term, state: &mut State, action: &Action) {
    let Action::Stop(stop) = action else { return };
    let (task, epoch, reason) = (stop.task.to_string(), stop.epoch.to_string(), stop.reason.to_string());
    let labels = [("task", task.as_str()), ("epoch", &epoch), ("worker", &stop.worker), ("reason", &reason)];
    term.events.tell(Level::Info, "task_stopping", format!("a run is stopped ({reason})"), &labels);
    state.memory.observed.apply(action, stop.epoch, term.clock.now());
    state.memory.lists += 1;
}

/// The write landed: the memory follows, users are told.
fn done(term: &Term, state: &mut State, action: &Action, revision: u64) {
    let now = term.clock.now();
    let epoch = state.memory.view.epoch(revision);
    match action {
        Action::Assign(assign) => assigned(term, state, assign, epoch, now),
        Action::DeleteObject { id } => {
            state.discovery.remove(id);
            term.events.tell(Level::Info, "object_gone", format!("nothing of object {id} is left"), &[]);
        }
        Action::Unassign { task, .. } => drop(state.reports.remove(task)),
        Action::Stop(_) | Action::DeleteCheckpoint { .. } | Action::DeleteSplit { .. } => {}
    }
    state.memory.observed.apply(action, epoch, now);
}

fn assigned(term: &Term, state: &mut State, assign: &Assign, epoch: Epoch, now: Duration) {
    let run = &assign.assignment;
    let (task, epoch) = (assign.task.to_string(), epoch.to_string());
    let labels = [("task", task.as_str()), ("epoch", epoch.as_str()), ("worker", run.worker.as_str())];
    let message = match &assign.task.work {
        model::Work::Split(split) => format!("split `{split}` is read by `{}`", run.worker),
        model::Work::Partition(n) => format!("partition {n} is written by `{}`", run.worker),
    };
    term.events.tell(Level::Info, "task_assigned", message, &labels);
    state.reports.remove(&assign.task);
    state.memory.observed.reports.remove(&assign.task);
    if let Some(replaced) = assign.replaces {
        let key = (assign.task.clone(), replaced);
        let observed = &state.memory.observed;
        let reason = observed.stopping.get(&key).map(|order| order.reason.to_string());
        let released = observed.heard.releases.contains_key(&key);
        let reason = reason.unwrap_or_else(|| if released { "restart" } else { "failover" }.to_owned());
        if let Some(old) = run.predecessors.iter().find(|old| old.epoch == replaced).filter(|_| !released) {
            let silent = now.saturating_sub(observed.heard.last_heard(&old.process));
            term.meters.failover.record(silent.as_secs_f64(), &[]);
        }
        term.meters.moves.add(1, &[KeyValue::new("reason", reason)]);
    } else if let Some(ended) = state.parents_ended(&assign.task) {
        term.meters.child_start_delay.record(now.saturating_sub(ended).as_secs_f64(), &[]);
    }
}

impl State {
    /// When the last of a task's parents ended, if that was in this term.
    fn parents_ended(&self, task: &TaskId) -> Option<Duration> {
        let source = self.memory.desired.sinks.get(&task.sink)?.source;
        let split = task.split()?;
        let record = self.memory.observed.splits.get(&source)?.get(split)?;
        let parent = |name: &String| TaskId::reads(task.sink, model::SplitId::new(split.creation(), name));
        record.parents.iter().filter_map(|name| self.ended.get(&parent(name)).copied()).max()
    }
}
