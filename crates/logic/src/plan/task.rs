//! What to do about each task: whether it shall run (the wish), whether it does (the run), and what makes them agree.

mod even;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Assignment, Epoch, ObjectId, Position, Release, SplitId, StartFrom, TaskId, Work};

use super::{
    Action, Assign, Desired, DesiredSink, Observed, Plan, Stop, StopReason,
    lanes::Lanes,
    partition::{Set, barrier, inherited, sets},
    words::seconds,
};
pub use even::{Rebalance, rebalance};

use crate::{
    Timing,
    assign::Transit,
    gate::{Ends, Failure, RunEnd, gate, predecessor},
    lineage::{Standing, standing},
    mutant,
};

/// A run that only a human can mend is tried again after this long nevertheless.
const HUMAN_RETRY: Duration = Duration::from_secs(60);
/// A failed run is tried again after this long, doubled with each failure in a row …
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Failures further apart than this are not in a row.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(10 * RETRY_MAX.as_secs());

/// Whether a task shall run.
enum Wish {
    /// From here, if nothing is checkpointed.
    Run { start: Position },
    /// Everything in its split is delivered.
    Ended,
    /// Not now. The text is for those who ask why.
    Not(StopReason, String),
    /// Its source was not listed yet: leave it as it is.
    Unknown,
}

/// A task that needs an owner.
struct Vacancy<'a> {
    start: Position,
    old: Option<(Epoch, &'a Assignment)>,
    release: Release,
}

/// One pass over all tasks.
pub(super) struct Round<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    timing: &'a Timing,
    now: Duration,
    plan: Plan,
    vacant: BTreeMap<TaskId, Vacancy<'a>>,
    /// Tasks that run and are not asked to stop, with their workers.
    running: BTreeMap<TaskId, String>,
    /// Of those, the ones that got their worker in this round.
    fresh: BTreeSet<TaskId>,
    /// Tasks that have no run for a moment and shall have one again, by where they are expected.
    transit: Transit,
    /// Of those, the ones that were asked to stop.
    on_the_way: usize,
    /// Of the sinks that are distributed by key.
    sets: BTreeMap<ObjectId, Set>,
    ends: Ends<'a>,
}

/// Decides about every task.
pub(super) fn tasks(desired: &Desired, observed: &Observed, timing: &Timing, now: Duration) -> Plan {
    let mut round = looked(desired, observed, timing, now);
    let seats = round.seats();
    round.fill(&seats);
    round.even_out(&seats);
    round.plan
}

/// Every task looked at by itself; who gets what is still open.
fn looked<'a>(desired: &'a Desired, observed: &'a Observed, timing: &'a Timing, now: Duration) -> Round<'a> {
    let mut round = Round {
        desired,
        observed,
        timing,
        now,
        plan: Plan::default(),
        vacant: BTreeMap::new(),
        running: BTreeMap::new(),
        fresh: BTreeSet::new(),
        transit: Transit::default(),
        on_the_way: 0,
        sets: sets(desired, observed, timing, now),
        ends: Ends::new(&observed.heard, timing, now),
    };
    for (task, wish) in wishes(desired, observed) {
        round.look(task, wish);
    }
    round
}

/// Every task that shall exist or does, with the wish for it.
fn wishes(desired: &Desired, observed: &Observed) -> BTreeMap<TaskId, Wish> {
    let mut wishes = BTreeMap::new();
    for (id, sink) in &desired.sinks {
        for split in observed.splits.get(&sink.source).into_iter().flat_map(BTreeMap::keys) {
            let task = TaskId::reads(*id, split.clone());
            wishes.insert(task, wish(desired, observed, (*id, sink), split));
        }
        for n in 0..sink.partitions {
            wishes.insert(TaskId::writes(*id, n), writing(desired, sink));
        }
    }
    for task in observed.assignments.keys().filter(|task| !desired.sinks.contains_key(&task.sink)) {
        wishes.insert(task.clone(), Wish::Not(StopReason::Drop, "its sink is not in the catalog".to_owned()));
    }
    for task in observed.assignments.keys() {
        if let Some(sink) = desired.sinks.get(&task.sink).filter(|_| !wishes.contains_key(task)) {
            let wish = match &task.work {
                Work::Split(split) => wish(desired, observed, (task.sink, sink), split),
                Work::Partition(n) => {
                    let why = format!("sink {} has no partition {n} any more", sink.name);
                    Wish::Not(StopReason::Change, why)
                }
            };
            wishes.insert(task.clone(), wish);
        }
    }
    wishes
}

/// Whether the partitions of a sink shall run.
fn writing(desired: &Desired, sink: &DesiredSink) -> Wish {
    let dropping = sink.dropping || desired.sources.get(&sink.source).is_none_or(|source| source.dropping);
    if dropping {
        Wish::Not(StopReason::Drop, format!("sink {} is being dropped", sink.name))
    } else if sink.paused {
        Wish::Not(StopReason::Pause, format!("sink {} is paused", sink.name))
    } else {
        // A partition has no position of its own: those who feed it have.
        Wish::Run { start: Position::Start(StartFrom::Horizon) }
    }
}

fn wish(
    desired: &Desired,
    observed: &Observed,
    (id, sink): (ObjectId, &DesiredSink),
    split: &SplitId,
) -> Wish {
    let dropping = sink.dropping || desired.sources.get(&sink.source).is_none_or(|source| source.dropping);
    if dropping {
        return Wish::Not(StopReason::Drop, format!("sink {} is being dropped", sink.name));
    }
    let Some(table) = observed.splits.get(&sink.source) else { return Wish::Unknown };
    match standing(table, observed, (id, sink), split) {
        None => Wish::Not(StopReason::Lineage, format!("split {split} was never listed")),
        Some(Standing::Done) => Wish::Ended,
        Some(Standing::Gone { lost }) => {
            let what = if lost { ", not all of it was delivered" } else { "" };
            Wish::Not(StopReason::Lineage, format!("split {split} is gone from the stream{what}"))
        }
        Some(Standing::WaitsFor(parents)) => {
            let word = if parents.len() == 1 { "parent" } else { "parents" };
            let names: Vec<&str> = parents.iter().map(SplitId::name).collect();
            let names = names.join(" and ");
            let text = format!("split {split} waits for {word} {names} of sink {}", sink.name);
            Wish::Not(StopReason::Lineage, text)
        }
        Some(Standing::Ready) if sink.paused => {
            Wish::Not(StopReason::Pause, format!("sink {} is paused", sink.name))
        }
        Some(Standing::Ready) => Wish::Run { start: Position::Start(table[split].start.clone()) },
    }
}

impl<'a> Round<'a> {
    fn look(&mut self, task: TaskId, wish: Wish) {
        let observed = self.observed;
        let Some((epoch, run)) = observed.assignments.get(&task) else {
            match wish {
                Wish::Run { start } => {
                    self.vacate(task, Vacancy { start, old: None, release: Release::Drained });
                }
                Wish::Not(_, why) => self.waits(task, why),
                Wish::Ended | Wish::Unknown => {}
            }
            return;
        };
        if matches!(wish, Wish::Ended) {
            // P12: an acked `End` has waited for all that could land, so nothing of this run or its predecessors can.
            self.plan.actions.push(Action::Unassign { task, epoch: *epoch, reason: StopReason::Lineage });
            return;
        }
        match self.ends.of(&task, (*epoch, run)) {
            RunEnd::Alive => self.alive(task, (*epoch, run), &wish),
            RunEnd::Silent(left) => {
                let why = format!("worker {} is silent, it is given up in {}", run.worker, seconds(left));
                self.plan.silent.insert(run.worker.clone());
                self.running.insert(task.clone(), run.worker.clone());
                self.waits(task, why);
            }
            RunEnd::Over(release) => self.over(task, (*epoch, run), release, wish),
        }
    }

    /// A task that needs an owner; one that may not have one yet waits (P17, P22).
    fn vacate(&mut self, task: TaskId, vacancy: Vacancy<'a>) {
        let set = self.sets.get(&task.sink).filter(|_| task.split().is_some());
        let lacks = set.and_then(|set| set.lacks.clone());
        match lacks.or_else(|| barrier(self.desired, self.observed, &task, (self.timing, self.now))) {
            Some(why) => {
                self.expected(&task, vacancy.old.map(|(_, run)| run));
                self.waits(task, why);
            }
            None => drop(self.vacant.insert(task, vacancy)),
        }
    }

    fn waits(&mut self, task: TaskId, why: String) {
        self.plan.waiting.insert(task, why);
    }

    /// A run that goes on: is there a reason to stop it?
    fn alive(&mut self, task: TaskId, (epoch, run): (Epoch, &'a Assignment), wish: &Wish) {
        if let Some(order) = self.observed.stopping.get(&(task.clone(), epoch)) {
            if matches!(wish, Wish::Run { .. }) {
                self.departs(&task, run, order.reason);
            }
            let overdue = order.at + order.deadline + self.timing.fence_after <= self.now;
            if overdue && !order.deadline.is_zero() {
                self.stop(&task, (epoch, run), StopReason::Fence);
            } else if !order.deadline.is_zero() && self.sends_elsewhere(&task, run) {
                self.stop(&task, (epoch, run), StopReason::Partitions);
            }
            let why = format!("worker {} is draining this task ({})", run.worker, order.reason);
            self.waits(task, why);
            return;
        }
        let draining = self.observed.heard.processes.get(&run.process).is_some_and(|p| p.draining);
        let changed = self.desired.spec_revision(task.sink).is_some_and(|wanted| run.spec_revision < wanted);
        let reason = match wish {
            Wish::Not(reason, _) => Some(*reason),
            Wish::Run { .. } if draining => Some(StopReason::Drain),
            Wish::Run { .. } if changed => Some(StopReason::Change),
            _ if draining => Some(StopReason::Drain),
            _ => None,
        };
        let moves_on = || self.sends_elsewhere(&task, run) || self.feeds_leaving(&task);
        let reason = reason.or_else(|| moves_on().then_some(StopReason::Partitions));
        if let Some(reason) = reason {
            if matches!(wish, Wish::Run { .. }) {
                self.departs(&task, run, reason);
            }
            self.stop(&task, (epoch, run), reason);
            let why = format!("worker {} is draining this task ({reason})", run.worker);
            self.waits(task, why);
            return;
        }
        self.running.insert(task.clone(), run.worker.clone());
        let report = self.observed.reports.get(&task).filter(|report| report.epoch == epoch);
        if let Some(error) = report.and_then(|report| report.failed.as_ref()) {
            self.waits(task, format!("failed: {error}; RESUME tries again"));
            return;
        }
        let gate = self.gate(&task, run);
        if !gate.is_zero() {
            self.waits(task, format!("gate: {} until nothing of the old owner can land", seconds(gate)));
        }
    }

    /// A partition that the split feeds is about to stop.
    fn feeds_leaving(&self, task: &TaskId) -> bool {
        task.split().and_then(|_| self.sets.get(&task.sink)).is_some_and(|set| set.leaving)
    }

    /// P16: the set of partitions that the run sends to is not the current one any more.
    fn sends_elsewhere(&self, task: &TaskId, run: &Assignment) -> bool {
        let set = self.sets.get(&task.sink).filter(|_| task.split().is_some());
        let moved = set.is_some_and(|set| run.partitions.is_some() && run.partitions != set.newest);
        moved && !mutant::on("p16_not_named")
    }

    fn gate(&self, task: &TaskId, run: &Assignment) -> Duration {
        let gated =
            run.partitions.is_none() && self.desired.sinks.get(&task.sink).is_some_and(|sink| sink.gated);
        let heard = &self.observed.heard;
        if gated { gate(task, &run.predecessors, heard, self.timing, self.now) } else { Duration::ZERO }
    }

    fn stop(&mut self, task: &TaskId, (epoch, run): (Epoch, &Assignment), reason: StopReason) {
        // A run whose partitions have moved on has nothing that could still be acked.
        let at_once = reason == StopReason::Fence || self.sends_elsewhere(task, run);
        self.plan.actions.push(Action::Stop(Stop {
            task: task.clone(),
            epoch,
            worker: run.worker.clone(),
            process: run.process.clone(),
            deadline: if at_once { Duration::ZERO } else { self.timing.handoff_deadline },
            reason,
            to: None,
        }));
    }

    /// A run that is over: shall there be another one?
    fn over(&mut self, task: TaskId, (epoch, run): (Epoch, &'a Assignment), release: Release, wish: Wish) {
        match wish {
            Wish::Run { start } => {
                if let Some((failure, left)) = self.backing_off(&task, epoch, run) {
                    self.expected(&task, Some(run));
                    self.waits(task, format!("failed: {}; next try in {}", failure.message, seconds(left)));
                    return;
                }
                self.vacate(task, Vacancy { start, old: Some((epoch, run)), release });
            }
            Wish::Not(reason, why) => {
                // P9: the key is the memory of what may still land; a dropped sink has no successor that would care.
                let left = self.landing(&task, (epoch, run), release);
                if left.is_zero() || reason == StopReason::Drop {
                    self.plan.actions.push(Action::Unassign { task: task.clone(), epoch, reason });
                }
                self.waits(task, why);
            }
            Wish::Ended => {}
            Wish::Unknown => self.waits(task, "its source was not listed yet".to_owned()),
        }
    }

    /// How long something of this run or its predecessors may still land.
    fn landing(&self, task: &TaskId, (epoch, run): (Epoch, &Assignment), release: Release) -> Duration {
        let own = predecessor(epoch, run, release);
        let own = self.observed.heard.moment(task, &own, self.timing).saturating_sub(self.now);
        let before = gate(task, &run.predecessors, &self.observed.heard, self.timing, self.now);
        own.max(before)
    }

    /// A run that failed by itself waits before the next try; a changed spec (RESUME makes one) is a new chance at once.
    fn backing_off(&self, task: &TaskId, epoch: Epoch, run: &Assignment) -> Option<(&'a Failure, Duration)> {
        let released = self.observed.heard.releases.get(&(task.clone(), epoch))?;
        let failure = released.failure.as_ref()?;
        if self.desired.spec_revision(task.sink).is_some_and(|wanted| run.spec_revision < wanted) {
            return None;
        }
        let wait = if failure.needs_human {
            HUMAN_RETRY
        } else {
            RETRY_FIRST
                .saturating_mul(1_u32.checked_shl(failure.count.saturating_sub(1)).unwrap_or(u32::MAX))
                .min(RETRY_MAX)
        };
        let left = (released.at + wait).saturating_sub(self.now);
        (!left.is_zero()).then_some((failure, left))
    }

    fn assign(&mut self, task: &TaskId, vacancy: Vacancy, worker: &str, lanes: &mut Lanes) {
        let heard = &self.observed.heard;
        let Some((process, seat)) = heard.current(worker) else { return };
        let Some(spec_revision) = self.desired.spec_revision(task.sink) else { return };
        let mut predecessors = Vec::new();
        if let Some((epoch, run)) = vacancy.old {
            let chain = run.predecessors.iter().filter(|_| !mutant::on("first_owner_forgotten"));
            let chain = chain.cloned().map(|old| heard.as_heard(task, old));
            predecessors.extend(chain.chain([predecessor(epoch, run, vacancy.release)]));
        }
        let before = vacancy.old.map(|(_, run)| run.spec_revision);
        predecessors.extend(inherited(self.desired, self.observed, task, before, (self.timing, self.now)));
        predecessors.retain(|old| heard.moment(task, old, self.timing) > self.now);
        let mut seen = BTreeSet::new();
        predecessors.retain(|old| seen.insert((old.of.clone(), old.epoch)));
        let checkpoint = self.observed.checkpoints.get(task);
        let start = match vacancy.old {
            Some(_) if mutant::on("latest_evaluated_again") => {
                Position::Start(StartFrom::At(self.observed.wall))
            }
            _ => vacancy.start,
        };
        let assignment = Assignment {
            worker: worker.to_owned(),
            process: process.to_owned(),
            instance: seat.instance.clone(),
            spec_revision,
            lane: lanes.take(worker, task),
            start: checkpoint.map_or(start, |stored| stored.value.position.clone()),
            predecessors,
            partitions: self
                .sets
                .get(&task.sink)
                .filter(|_| task.split().is_some())
                .and_then(|set| set.newest),
        };
        self.plan.actions.push(Action::Assign(Box::new(Assign {
            task: task.clone(),
            assignment,
            replaces: vacancy.old.map(|(epoch, _)| epoch),
            checkpoint: checkpoint.map(|stored| stored.revision),
        })));
    }
}
