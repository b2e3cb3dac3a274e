//! What a leader does besides: looks at the invariants, measures, compacts the store's history, and forgets workers that are
//! long gone. Nothing here decides who runs what.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use logic::{
    invariant::{World, check},
    plan::{Desired, Observed},
    scale::Signals,
};
use model::{SourceSpec, WorkerRecord};
use opentelemetry::KeyValue;
use proto::v1;
use store::{Guard, LaneKey, WorkerKey, Write};

use crate::{
    balance,
    discovery::SourceState,
    events::Level,
    status,
    term::{Outcome, State, Term},
};

/// How often …
const TICK: Duration = Duration::from_secs(5);

/// … or this long for each task, if that is more: it looks at all of them.
const TICK_PER_TASK: Duration = Duration::from_millis(1);

/// How often the store is looked after, and how old the history is that it loses then.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);

/// How long a silent worker without tasks is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Runs until the term ends.
pub(crate) async fn run(term: Arc<Term>) {
    let mut earlier: Option<(Desired, Observed)> = None;
    let mut revisions: VecDeque<(Duration, u64)> = VecDeque::new();
    let mut maintained = None;
    let mut tick = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            () = term.cancel.cancelled() => return,
            () = tokio::time::sleep(tick) => {}
        }
        let (desired, observed) = {
            let state = term.state();
            (state.memory.desired.clone(), state.memory.observed.clone())
        };
        let tasks = u32::try_from(observed.assignments.len()).unwrap_or(u32::MAX);
        tick = TICK.max(TICK_PER_TASK * tasks);
        judge(&term, (&desired, &observed), earlier.as_ref());
        earlier = Some((desired, observed));
        measure(&term);
        remember_leaving(&term).await;
        term.settle_generation().await;
        let now = term.clock.now();
        revisions.push_back((now, term.state().memory.view.revision));
        if maintained.is_none_or(|at| now.saturating_sub(at) >= MAINTAIN_EVERY) {
            maintained = Some(now);
            maintain(&term, &mut revisions, now).await;
            forget(&term, now).await;
            let State { memory, failures, ended, .. } = &mut *term.state();
            let workers = &memory.view.workers;
            forget_processes(&mut memory.observed, |worker| workers.contains_key(worker), now);
            failures.retain(|task, _| memory.desired.sinks.contains_key(&task.sink));
            ended.retain(|task, _| memory.desired.sinks.contains_key(&task.sink));
        }
    }
}

/// Counts and logs broken invariants; each is told once for as long as it lasts.
fn judge(term: &Term, (desired, observed): (&Desired, &Observed), earlier: Option<&(Desired, Observed)>) {
    let earlier = earlier.map(|(desired, observed)| World { desired, observed });
    let found = check(World { desired, observed }, earlier);
    let mut state = term.state();
    for violation in &found {
        let text = format!("{}: {}", violation.id, violation.message);
        term.meters.violations.add(1, &[KeyValue::new("id", violation.id)]);
        if !state.violations.contains(&text) {
            term.events.tell(Level::Error, "invariant_broken", text, &[("id", violation.id)]);
        }
    }
    state.violations = found.iter().map(|v| format!("{}: {}", v.id, v.message)).collect();
}

fn measure(term: &Term) {
    let (mut per_state, ages) = {
        let state = term.state();
        let mut per_state: BTreeMap<String, u64> = BTreeMap::new();
        let splits = status::splits(term, &state, None, None, true);
        term.meters.seen.hot_splits.show_one(status::hot_splits(&splits) as f64);
        scale(term, &balance::signals(term, &state));
        sources(term, &state);
        sink_lags(term, &splits);
        for split in splits {
            *per_state.entry(split.state).or_default() += 1;
        }
        (per_state, ages(status::workers(term, &state), term.config.timing.session_timeout))
    };
    // A state that has become empty must say so.
    let seen = &term.meters.seen;
    let count = |known: &&'static str| {
        (vec![KeyValue::new("state", *known)], per_state.remove(*known).unwrap_or(0) as f64)
    };
    seen.splits.show(status::STATES.iter().map(count).collect());
    let age = |(worker, age)| (vec![KeyValue::new("worker", worker)], age);
    seen.heartbeat_age.show(ages.into_iter().map(age).collect());
}

/// Since when each worker was not heard. One that left in order is no worry: it is left out, until it is forgotten.
fn ages(workers: Vec<v1::WorkerStatus>, session_timeout: Duration) -> Vec<(String, f64)> {
    let age = |worker: v1::WorkerStatus| {
        let silent = worker.heard_ago.and_then(|ago| Duration::try_from(ago).ok()).unwrap_or_default();
        let left = worker.state == "drained" && silent >= session_timeout;
        (!left).then_some((worker.name, silent.as_secs_f64()))
    };
    workers.into_iter().filter_map(age).collect()
}

/// Stores of each worker that stops in order that it does: the next leader must not take its silence for a failure.
async fn remember_leaving(term: &Term) {
    let leaving: Vec<(Guard, Write)> = {
        let state = term.state();
        let memory = &state.memory;
        let leaves = |record: &WorkerRecord| {
            let process = memory.observed.heard.processes.get(&record.process);
            !record.draining && process.is_some_and(|process| process.draining)
        };
        let leaving = memory.view.workers.iter().filter(|(_, worker)| leaves(&worker.value));
        leaving
            .map(|(name, worker)| {
                let record = WorkerRecord { draining: true, ..worker.value.clone() };
                let guard = Guard::Unchanged(memory.keys.worker(name), worker.mod_revision);
                (guard, memory.keys.put::<WorkerKey>(name, &record))
            })
            .collect()
    };
    for (guard, write) in leaving {
        if let Err(error) = term.commit(vec![guard], vec![write]).await {
            tracing::warn!(%error, "it was not stored that a worker leaves");
            return;
        }
    }
}

/// What is known of each source.
fn sources(term: &Term, state: &State) {
    let of = |value: fn(&SourceState) -> Option<f64>| {
        let one = |spec: Arc<SourceSpec>| {
            Some((vec![KeyValue::new("source", spec.name.clone())], value(state.discovery.get(&spec.id)?)?))
        };
        state.memory.sources().into_iter().filter_map(one).collect()
    };
    let seen = &term.meters.seen;
    seen.holes.show(of(|source| source.listed_at.map(|_| source.holes as f64)));
    seen.retention.show(of(|source| source.retention.map(|kept| kept.as_secs_f64())));
}

/// How far behind the slowest task of each sink is.
fn sink_lags(term: &Term, splits: &[v1::SplitStatus]) {
    let mut lags: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for split in splits {
        if let Some(lag) = split.lag_ms {
            let slowest = lags.entry((&split.source, &split.sink)).or_default();
            *slowest = lag.max(*slowest);
        }
    }
    let labels = |source: &str, sink: &str| {
        vec![KeyValue::new("source", source.to_owned()), KeyValue::new("sink", sink.to_owned())]
    };
    let shown = lags.into_iter().map(|((source, sink), ms)| (labels(source, sink), ms as f64 / 1000.0));
    term.meters.seen.sink_lag.show(shown.collect());
}

/// What autoscalers look at.
fn scale(term: &Term, signals: &Signals) {
    let seen = &term.meters.seen;
    seen.workers_wanted.show_one(signals.wanted as f64);
    let lags = [("p90", signals.lag_p90), ("max", signals.lag_max)];
    let lag = |(quantile, lag): (&'static str, Duration)| {
        (vec![KeyValue::new("quantile", quantile)], lag.as_secs_f64())
    };
    seen.lag.show(lags.map(lag).to_vec());
    let used = [("cpu", signals.cpu), ("memory_budget", signals.budget)];
    seen.used.show(used.map(|(resource, part)| (vec![KeyValue::new("resource", resource)], part)).to_vec());
}

/// Compacts to where the history was a minute ago, and keeps what the store says of its health.
async fn maintain(term: &Term, revisions: &mut VecDeque<(Duration, u64)>, now: Duration) {
    let mut before = None;
    while let Some((at, revision)) = revisions.front().copied() {
        if now.saturating_sub(at) < MAINTAIN_EVERY {
            break;
        }
        before = Some(revision);
        revisions.pop_front();
    }
    match term.store.maintain(before.filter(|_| term.config.compact)).await {
        Ok(health) => {
            for alarm in &health.alarms {
                let message = format!("the store raises an alarm: {alarm}");
                term.events.tell(Level::Error, "store_alarm", message, &[]);
            }
            term.state().health = health;
        }
        Err(error) => tracing::warn!(%error, "store could not be looked after"),
    }
}

/// Forgets what was heard of processes that are long over and that no assignment names. Of a worker whose record is still
/// `known`, the current one is kept.
fn forget_processes(observed: &mut Observed, known: impl Fn(&str) -> bool, now: Duration) {
    let named: BTreeSet<&str> = observed
        .assignments
        .values()
        .flat_map(|(_, run)| {
            std::iter::once(&run.process).chain(run.predecessors.iter().map(|old| &old.process))
        })
        .map(String::as_str)
        .collect();
    let heard = &observed.heard;
    let over: Vec<String> = heard
        .processes
        .iter()
        .filter(|(id, process)| {
            process.heard_at + FORGET_AFTER <= now
                && !named.contains(id.as_str())
                && !(known(&process.worker) && heard.speaks_for(id, &process.worker))
        })
        .map(|(id, _)| id.clone())
        .collect();
    for process in over {
        observed.heard.processes.remove(&process);
    }
}

/// Removes the records of workers that have been silent for long and that no task names, with their lanes.
async fn forget(term: &Term, now: Duration) {
    let gone: Vec<(String, Guard, Vec<Write>)> = {
        let state = term.state();
        state
            .memory
            .view
            .workers
            .iter()
            .filter(|(name, worker)| {
                let heard = state.memory.observed.heard.last_heard(&worker.value.process);
                heard + FORGET_AFTER <= now && !named(&state, name)
            })
            .map(|(name, worker)| {
                let keys = &state.memory.keys;
                let lanes = state.memory.view.lanes.keys().filter(|(owner, _)| owner == name);
                let mut writes: Vec<Write> = lanes.map(|lane| keys.delete::<LaneKey>(lane)).collect();
                writes.truncate(store::COMMIT_OPS_MAX - 1);
                writes.push(keys.delete::<WorkerKey>(name));
                (name.clone(), Guard::Unchanged(keys.worker(name), worker.mod_revision), writes)
            })
            .collect()
    };
    for (name, guard, writes) in gone {
        match term.commit(vec![guard], writes).await {
            Ok(Outcome::Done(_)) => {
                let message = format!("worker `{name}` is forgotten");
                term.events.tell(Level::Info, "worker_forgotten", message, &[("worker", &name)]);
            }
            // It is back.
            Ok(Outcome::Lost(_)) => {}
            Err(error) => {
                tracing::warn!(%error, worker = name, "worker could not be forgotten");
                return;
            }
        }
    }
}

fn named(state: &State, worker: &str) -> bool {
    state.memory.observed.assignments.values().any(|(_, run)| {
        run.worker == worker || run.predecessors.iter().any(|predecessor| predecessor.worker == worker)
    })
}

#[cfg(test)]
mod tests {
    use logic::gate::Process;

    use super::*;

    #[test]
    fn of_a_worker_that_is_forgotten_no_process_is_remembered() {
        let process = |worker: &str, heard_at| Process {
            worker: worker.to_owned(),
            instance: String::new(),
            capacity: 1,
            zone: String::new(),
            joined_at: Duration::ZERO,
            heard_at: Duration::from_secs(heard_at),
            draining: false,
        };
        let mut observed = Observed::default();
        for (id, worker, heard_at) in [("p1", "known", 5), ("p2", "gone", 5), ("p3", "gone-too", 300)] {
            observed.heard.processes.insert(id.to_owned(), process(worker, heard_at));
        }
        forget_processes(&mut observed, |worker| worker == "known", Duration::from_secs(605));
        let left: Vec<&str> = observed.heard.processes.keys().map(String::as_str).collect();
        assert_eq!(left, ["p1", "p3"]);
    }

    #[test]
    fn only_a_worker_that_left_in_order_is_silent_without_being_told_of() {
        let worker = |name: &str, state: &str, seconds| v1::WorkerStatus {
            name: name.to_owned(),
            state: state.to_owned(),
            heard_ago: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..v1::WorkerStatus::default()
        };
        let workers = vec![
            worker("left", "drained", 40),
            worker("empty", "drained", 1),
            worker("crashed", "dead", 40),
            worker("crashed-while-draining", "dead", 40),
        ];
        let shown: Vec<String> =
            ages(workers, Duration::from_secs(6)).into_iter().map(|(worker, _)| worker).collect();
        assert_eq!(shown, ["empty", "crashed", "crashed-while-draining"]);
    }
}
