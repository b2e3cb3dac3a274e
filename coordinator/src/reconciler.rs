//! Compares desired with observed and closes the gap: observe → `logic::plan` → execute → again (design idea "level, not
//! edge"). Woken by a nudge, a silence, or a tick; a wake-up carries nothing.
//!
//! Plans from a loaded memory only. The plan of a settled world is empty (I5), so the loop comes to rest by itself.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use logic::plan::plan;

use crate::{clock, events::Level, execute, term::Term};

/// How often the silence of workers is looked at: part of the time that a crash takes to heal.
const SILENCE_TICK: Duration = Duration::from_millis(100);

/// The tick while something waits for a moment to come (a gate, a retry, a drain).
const WAITING_TICK: Duration = Duration::from_millis(500);

/// Passes in a row that act, before the loop takes a breath: a plan that never settles must not take the processor.
const PASSES_MAX: u32 = 32;

/// The rest after a pass, for each task: several times what looking at it takes, so that among thousands of tasks the memory is
/// free for everybody else most of the time, whatever nudges come.
const REST_PER_TASK: Duration = Duration::from_micros(10);

/// A shorter rest is none.
const REST_MIN: Duration = Duration::from_millis(5);

/// Runs until the term ends.
pub(crate) async fn run(term: Arc<Term>) {
    let mut acted = 0;
    loop {
        acted = if pass(&term).await { acted + 1 } else { 0 };
        let (waits, tasks) = {
            let state = term.state();
            let observed = &state.memory.observed;
            (!state.waiting.is_empty() || !observed.stopping.is_empty(), observed.assignments.len())
        };
        let rest = REST_PER_TASK * u32::try_from(tasks).unwrap_or(u32::MAX);
        if rest >= REST_MIN {
            tokio::select! {
                biased;
                () = term.cancel.cancelled() => return,
                () = tokio::time::sleep(rest.min(WAITING_TICK)) => {}
            }
        }
        let tick = match acted {
            0 if waits => WAITING_TICK.min(term.config.reconcile_interval),
            0 => term.config.reconcile_interval,
            n if n < PASSES_MAX => Duration::ZERO,
            _ => WAITING_TICK,
        };
        tokio::select! {
            biased;
            () = term.cancel.cancelled() => return,
            () = term.nudge.notified() => {}
            () = tokio::time::sleep(tick) => {}
        }
    }
}

/// One comparison. `true` if something was done, so that the next one may find more.
async fn pass(term: &Term) -> bool {
    let actions = {
        let mut state = term.state();
        state.memory.observed.wall = clock::wall();
        let memory = &state.memory;
        let begun = Instant::now();
        let plan = plan(&memory.desired, &memory.observed, &term.config.timing, term.clock.now());
        term.meters.reconcile.record(begun.elapsed().as_secs_f64(), &[]);
        state.waiting = plan.waiting;
        plan.actions
    };
    if actions.is_empty() {
        term.push_lists();
        return false;
    }
    let done = execute::all(term, actions).await;
    term.push_lists();
    done
}

/// Wakes the reconciler when a worker has been silent for too long, and says so. Runs until the term ends.
pub(crate) async fn watch_silence(term: Arc<Term>) {
    let mut silent: BTreeSet<String> = BTreeSet::new();
    let mut tick = tokio::time::interval(SILENCE_TICK);
    loop {
        tokio::select! {
            biased;
            () = term.cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now_silent = silent_processes(&term);
        for (process, worker, leaving) in now_silent.iter().filter(|(process, ..)| !silent.contains(process))
        {
            let labels = [("worker", worker.as_str()), ("process", process.as_str())];
            if *leaving {
                term.events.tell(Level::Info, "worker_left", format!("worker `{worker}` left"), &labels);
            } else {
                let message = format!("worker `{worker}` is silent, its tasks go to others");
                term.events.tell(Level::Warn, "worker_lost", message, &labels);
            }
            term.nudge.notify_one();
        }
        silent = now_silent.into_iter().map(|(process, ..)| process).collect();
    }
}

/// The current process of each worker that has been silent for the session timeout: (process, worker, was it leaving).
fn silent_processes(term: &Term) -> Vec<(String, String, bool)> {
    let state = term.state();
    if !state.loaded {
        return Vec::new();
    }
    let heard = &state.memory.observed.heard;
    let (now, timeout) = (term.clock.now(), term.config.timing.session_timeout);
    // Workers that the store names and that this term has not heard count from its election.
    let unheard = state
        .memory
        .view
        .workers
        .iter()
        .filter(|(name, _)| heard.current(name).is_none())
        .map(|(name, record)| (record.value.process.clone(), name.clone(), false));
    let known = heard
        .processes
        .iter()
        .filter(|(id, process)| heard.current(&process.worker).is_some_and(|(current, _)| current == *id))
        .map(|(id, process)| (id.clone(), process.worker.clone(), process.draining));
    known.chain(unheard).filter(|(process, ..)| heard.last_heard(process) + timeout <= now).collect()
}
