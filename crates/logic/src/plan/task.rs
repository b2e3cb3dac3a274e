//! What to do about each task: whether it shall run (the wish), whether it does (the run), and what makes them agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Assignment, Epoch, ObjectId, Position, Release, SplitId, StartFrom, TaskId};

use super::{
    Action, Assign, Desired, DesiredSink, Observed, Plan, Stop, StopReason, lanes::Lanes, words::seconds,
};
use crate::{
    Timing,
    assign::{Rules, Seats, balance, exchange, place},
    gate::{Failure, Process, RunEnd, gate, predecessor},
    lineage::{Standing, standing},
    mutant,
};

/// A run that only a human can mend is tried again after this long nevertheless.
const HUMAN_RETRY: Duration = Duration::from_secs(60);
/// A failed run is tried again after this long, doubled with each failure in a row …
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);

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
    /// Tasks that were asked to stop and shall run again.
    in_transit: usize,
}

/// Decides about every task.
pub(super) fn tasks(desired: &Desired, observed: &Observed, timing: &Timing, now: Duration) -> Plan {
    let mut round = Round {
        desired,
        observed,
        timing,
        now,
        plan: Plan::default(),
        vacant: BTreeMap::new(),
        running: BTreeMap::new(),
        fresh: BTreeSet::new(),
        in_transit: 0,
    };
    for (task, wish) in wishes(desired, observed) {
        round.look(task, wish);
    }
    let seats = round.seats();
    round.fill(&seats);
    round.even_out(&seats);
    round.plan
}

/// Every task that shall exist or does, with the wish for it.
fn wishes(desired: &Desired, observed: &Observed) -> BTreeMap<TaskId, Wish> {
    let mut wishes = BTreeMap::new();
    for (id, sink) in &desired.sinks {
        for split in observed.splits.get(&sink.source).into_iter().flat_map(BTreeMap::keys) {
            let task = TaskId::reads(*id, split.clone());
            wishes.insert(task, wish(desired, observed, (*id, sink), split));
        }
    }
    for task in observed.assignments.keys().filter(|task| !desired.sinks.contains_key(&task.sink)) {
        wishes.insert(task.clone(), Wish::Not(StopReason::Drop, "its sink is not in the catalog".to_owned()));
    }
    for task in observed.assignments.keys() {
        if let Some(sink) = desired.sinks.get(&task.sink).filter(|_| !wishes.contains_key(task)) {
            let Some(split) = task.split() else { continue };
            wishes.insert(task.clone(), wish(desired, observed, (task.sink, sink), split));
        }
    }
    wishes
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
                    self.vacant.insert(task, Vacancy { start, old: None, release: Release::Drained });
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
        match observed.heard.run_end(&task, (*epoch, run), self.timing, self.now) {
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

    fn waits(&mut self, task: TaskId, why: String) {
        self.plan.waiting.insert(task, why);
    }

    /// A run that goes on: is there a reason to stop it?
    fn alive(&mut self, task: TaskId, (epoch, run): (Epoch, &'a Assignment), wish: &Wish) {
        if let Some(order) = self.observed.stopping.get(&(task.clone(), epoch)) {
            self.in_transit += usize::from(matches!(wish, Wish::Run { .. }));
            let overdue = order.at + order.deadline + self.timing.fence_after <= self.now;
            if overdue && !order.deadline.is_zero() {
                self.stop(&task, (epoch, run), StopReason::Fence);
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
        if let Some(reason) = reason {
            self.in_transit += usize::from(matches!(wish, Wish::Run { .. }));
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

    fn gate(&self, task: &TaskId, run: &Assignment) -> Duration {
        let gated = self.desired.sinks.get(&task.sink).is_some_and(|sink| sink.gated);
        let heard = &self.observed.heard;
        if gated { gate(task, &run.predecessors, heard, self.timing, self.now) } else { Duration::ZERO }
    }

    fn stop(&mut self, task: &TaskId, (epoch, run): (Epoch, &Assignment), reason: StopReason) {
        let fence = reason == StopReason::Fence;
        self.plan.actions.push(Action::Stop(Stop {
            task: task.clone(),
            epoch,
            worker: run.worker.clone(),
            process: run.process.clone(),
            deadline: if fence { Duration::ZERO } else { self.timing.handoff_deadline },
            reason,
            to: None,
        }));
    }

    /// A run that is over: shall there be another one?
    fn over(&mut self, task: TaskId, (epoch, run): (Epoch, &'a Assignment), release: Release, wish: Wish) {
        match wish {
            Wish::Run { start } => {
                if let Some((failure, left)) = self.backing_off(&task, epoch, run) {
                    self.waits(task, format!("failed: {}; next try in {}", failure.message, seconds(left)));
                    return;
                }
                self.vacant.insert(task, Vacancy { start, old: Some((epoch, run)), release });
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

    /// Workers that take tasks.
    fn seats(&self) -> Seats {
        self.observed
            .heard
            .live(self.timing, self.now)
            .filter(|(_, p)| !p.draining && p.capacity > 0)
            .map(|(_, p)| (p.worker.clone(), p.capacity))
            .collect()
    }

    /// Finds an owner for every vacancy.
    fn fill(&mut self, seats: &Seats) {
        let home = |task: &TaskId, vacancy: &Vacancy| {
            let history = &self.observed.history;
            let seated = |worker: &&str| seats.contains_key(*worker);
            let before = || vacancy.old.map(|(_, run)| run.worker.as_str()).filter(seated);
            let home = history.target(task).filter(seated).or_else(before).or_else(|| history.home(task));
            home.map(str::to_owned)
        };
        let homeless =
            self.vacant.iter().map(|(task, vacancy)| (task.clone(), home(task, vacancy))).collect();
        let mut placed = place(&homeless, &self.running, seats);
        let mut lanes = Lanes::of(self.observed);
        for (task, vacancy) in std::mem::take(&mut self.vacant) {
            let Some(worker) = placed.remove(&task) else {
                let nobody = self.observed.heard.live(self.timing, self.now).next().is_none();
                let why = if nobody { "no live worker" } else { "every live worker is draining" };
                self.waits(task, why.to_owned());
                continue;
            };
            self.assign(&task, vacancy, &worker, &mut lanes);
            self.running.insert(task.clone(), worker);
            self.fresh.insert(task);
        }
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
            predecessors.retain(|old| heard.moment(task, old, self.timing) > self.now);
        }
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
            partitions: None,
        };
        self.plan.actions.push(Action::Assign(Box::new(Assign {
            task: task.clone(),
            assignment,
            replaces: vacancy.old.map(|(epoch, _)| epoch),
            checkpoint: checkpoint.map(|stored| stored.revision),
        })));
    }

    /// Moves running tasks for evenness, when nobody is expected back.
    fn even_out(&mut self, seats: &Seats) {
        if self.someone_may_return() || !self.plan.silent.is_empty() {
            return;
        }
        let rules = Rules { history: &self.observed.history, fixed: &self.fresh, now: self.now };
        let mut moves: Vec<(TaskId, Option<String>)> = balance(&self.running, self.in_transit, seats, &rules)
            .into_iter()
            .map(|task| (task, None))
            .collect();
        // Loads are looked at when counts are even, and one exchange at a time.
        let calm = moves.is_empty() && self.in_transit == 0 && self.fresh.is_empty();
        if calm && rules.history.allowance(self.running.len(), self.now) > 0 {
            let exchanged = exchange(&self.running, seats, &self.loads(), &rules);
            moves.extend(exchanged.into_iter().map(|(task, to)| (task, Some(to))));
        }
        for (task, target) in moves {
            let Some((epoch, run)) = self.observed.assignments.get(&task) else { continue };
            self.stop(&task, (*epoch, run), StopReason::Move);
            if let Some(Action::Stop(stop)) = self.plan.actions.last_mut() {
                stop.to = target;
            }
        }
    }

    /// What each run reads a second, as it reported.
    fn loads(&self) -> BTreeMap<&'a TaskId, f64> {
        let current =
            |task: &TaskId, epoch| self.observed.assignments.get(task).is_some_and(|(e, _)| *e == epoch);
        let reports = self.observed.reports.iter().filter(|(task, report)| current(task, report.epoch));
        reports.map(|(task, report)| (task, report.bytes_per_second)).collect()
    }

    /// The rejoin grace: a worker was lost or left lately, or this leader has not had the time to hear everybody. Only the
    /// balancer waits for it.
    fn someone_may_return(&self) -> bool {
        let Timing { session_timeout, rejoin_grace, .. } = *self.timing;
        let heard = &self.observed.heard;
        let live: BTreeSet<&str> =
            heard.live(self.timing, self.now).map(|(_, p)| p.worker.as_str()).collect();
        let lost = |p: &Process| p.heard_at + session_timeout + rejoin_grace > self.now;
        let mut away = heard.processes.values().filter(|p| lost(p)).map(|p| p.worker.as_str());
        let mut left = self.observed.history.left_within(rejoin_grace, self.now);
        heard.elected_at + session_timeout > self.now
            || away.any(|worker| !live.contains(worker))
            || left.any(|worker| !live.contains(worker))
    }
}
