//! Who gets what: workers for tasks that have none, and moves of running tasks for evenness, as `assign` decides them. Also the
//! answer to those who ask what would move, and why nothing does.

use std::{collections::BTreeMap, time::Duration};

use model::{Assignment, TaskId};

use super::{
    super::{Action, Desired, Observed, Stop, StopReason, lanes::Lanes, words::seconds},
    Round, Vacancy,
};
use crate::{
    Timing,
    assign::{History, Move, Rules, Seat, Seats, Why, balance, exchange, largest_gain, place, spread},
    gate::Process,
};

/// What would move, for `EXPLAIN REBALANCE` and `REBALANCE`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rebalance {
    /// What a balancer without patience would move, the most urgent first.
    pub moves: Vec<Move>,
    /// Of those, how many the balancer would begin with by itself now.
    pub by_itself: usize,
    /// Why not all of it happens by itself, or why there is nothing to move; a line each.
    pub notes: Vec<String>,
    /// Nothing may be moved now, not even on demand: why.
    pub refused: Option<String>,
}

/// Why the balancer does nothing at all.
enum Hold {
    /// It does not know enough yet.
    Blind(String),
    /// It waits for somebody to come back.
    Patient(String),
}

impl<'a> Round<'a> {
    /// Workers that take tasks.
    pub(super) fn seats(&self) -> Seats {
        self.observed
            .heard
            .live(self.timing, self.now)
            .filter(|(_, p)| !p.draining && p.capacity > 0)
            .map(|(_, p)| (p.worker.clone(), Seat { capacity: p.capacity, zone: p.zone.clone() }))
            .collect()
    }

    /// A task is on its way from one run to the next: it counts where it is expected.
    pub(super) fn departs(&mut self, task: &TaskId, run: &Assignment, reason: StopReason) {
        let stays = matches!(reason, StopReason::Change | StopReason::Partitions);
        let back = || stays.then_some(run.worker.as_str());
        self.transit.expect(self.observed.history.target(task).or_else(back));
        self.on_the_way += 1;
    }

    /// A task that has no run and shall have one as soon as something comes true: it is expected where it was.
    pub(super) fn expected(&mut self, task: &TaskId, run: Option<&Assignment>) {
        let before = run.map(|run| run.worker.as_str());
        self.transit.expect(self.observed.history.target(task).or(before));
    }

    /// Finds an owner for every vacancy.
    pub(super) fn fill(&mut self, seats: &Seats) {
        let home = |task: &TaskId, vacancy: &Vacancy| {
            let history = &self.observed.history;
            let seated = |worker: &&str| seats.contains_key(*worker);
            let before = || vacancy.old.map(|(_, run)| run.worker.as_str()).filter(seated);
            let home = history.target(task).filter(seated).or_else(before).or_else(|| history.home(task));
            home.map(str::to_owned)
        };
        let homeless =
            self.vacant.iter().map(|(task, vacancy)| (task.clone(), home(task, vacancy))).collect();
        let mut placed = place(&homeless, &self.running, &self.transit, seats);
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

    /// Moves running tasks for evenness, when nobody is expected back.
    pub(super) fn even_out(&mut self, seats: &Seats) {
        if self.hold().is_some() {
            return;
        }
        for one in self.moves(seats, false) {
            let Some((epoch, run)) = self.observed.assignments.get(&one.task) else { continue };
            self.stop(&one.task, (*epoch, run), reason(&one.why));
            if let Some(Action::Stop(stop)) = self.plan.actions.last_mut() {
                stop.to = Some(one.to);
            }
        }
    }

    /// What to move now. `force`: as [`Rules::force`].
    fn moves(&self, seats: &Seats, force: bool) -> Vec<Move> {
        let rules = Rules { history: &self.observed.history, fixed: &self.fresh, now: self.now, force };
        let moves = balance(&self.running, &self.transit, seats, &rules);
        // What is where is looked at when counts are even and everybody has arrived.
        let calm = moves.is_empty() && self.on_the_way == 0 && (self.fresh.is_empty() || force);
        if !calm {
            return moves;
        }
        let moves = spread(&self.running, &self.transit, seats, &rules);
        if !moves.is_empty() {
            return moves;
        }
        exchange(&self.running, &self.transit, seats, &self.costs(), &rules)
    }

    /// What each run costs, as it reported.
    fn costs(&self) -> BTreeMap<&'a TaskId, f64> {
        self.observed.loads.iter().map(|(task, load)| (task, load.cost())).collect()
    }

    /// The rejoin grace: a worker was lost or left lately, or this leader has not had the time to hear everybody. Only the
    /// balancer waits for it.
    fn hold(&self) -> Option<Hold> {
        let Timing { session_timeout, rejoin_grace, .. } = *self.timing;
        let heard = &self.observed.heard;
        let left = |until: Duration| seconds(until.saturating_sub(self.now));
        if heard.elected_at + session_timeout > self.now {
            let wait = left(heard.elected_at + session_timeout);
            return Some(Hold::Blind(format!(
                "the leader is new and may not have heard every worker yet, {wait} left"
            )));
        }
        if let Some(worker) = self.plan.silent.first() {
            return Some(Hold::Blind(format!("worker {worker} is silent and not given up yet")));
        }
        let live: std::collections::BTreeSet<&str> =
            heard.live(self.timing, self.now).map(|(_, p)| p.worker.as_str()).collect();
        let until = |p: &Process| p.heard_at + session_timeout + rejoin_grace;
        let lost = heard.processes.values().map(|p| (p.worker.as_str(), until(p)));
        let gone = self.observed.history.left_within(rejoin_grace, self.now);
        let gone = gone.map(|(worker, at)| (worker, at + rejoin_grace));
        let (worker, until) = lost
            .chain(gone)
            .filter(|(worker, until)| *until > self.now && !live.contains(worker))
            .max_by_key(|(_, until)| *until)?;
        Some(Hold::Patient(format!("worker {worker} may come back within {}", left(until))))
    }
}

fn reason(why: &Why) -> StopReason {
    match why {
        Why::Count { .. } | Why::Spread { .. } => StopReason::Move,
        Why::Load { .. } | Why::InReturn => StopReason::Load,
    }
}

/// What would move if the balancer had no patience, and why it does not do all of that by itself. Call it with a fully loaded
/// view only. Its moves are stops with reason [`StopReason::Move`] or [`StopReason::Load`]: see [`Rebalance::orders`].
#[must_use]
pub fn rebalance(desired: &Desired, observed: &Observed, timing: &Timing, now: Duration) -> Rebalance {
    let mut round = super::looked(desired, observed, timing, now);
    let seats = round.seats();
    round.fill(&seats);
    let hold = round.hold();
    let mut found = Rebalance::default();
    let by_itself = if hold.is_none() { round.moves(&seats, false) } else { Vec::new() };
    match hold {
        Some(Hold::Blind(why)) => found.refused = Some(why),
        Some(Hold::Patient(why)) => found.notes.push(format!("the balancer waits: {why}")),
        None => {}
    }
    found.moves = exhausted(&mut round, &seats);
    found.by_itself = found.moves.iter().filter(|m| by_itself.iter().any(|own| own.task == m.task)).count();
    found.notes.extend(round.notes(&seats, &found));
    found
}

/// Moves without patience, again and again until there is nothing left to gain; each task goes once.
fn exhausted(round: &mut Round<'_>, seats: &Seats) -> Vec<Move> {
    let mut all: Vec<Move> = Vec::new();
    loop {
        let moves = round.moves(seats, true);
        if moves.is_empty() {
            return all;
        }
        for one in moves {
            round.running.insert(one.task.clone(), one.to.clone());
            round.fresh.insert(one.task.clone());
            all.push(one);
        }
    }
}

impl Rebalance {
    /// The orders that begin it: planned handoffs, as the balancer gives them.
    #[must_use]
    pub fn orders(&self, observed: &Observed, timing: &Timing) -> Vec<Action> {
        let order = |one: &Move| {
            let (epoch, run) = observed.assignments.get(&one.task)?;
            Some(Action::Stop(Stop {
                task: one.task.clone(),
                epoch: *epoch,
                worker: run.worker.clone(),
                process: run.process.clone(),
                deadline: timing.handoff_deadline,
                reason: reason(&one.why),
                to: Some(one.to.clone()),
            }))
        };
        self.moves.iter().filter_map(order).collect()
    }
}

impl Round<'_> {
    /// Why the balancer does not move what could be moved, or why there is nothing.
    fn notes(&self, seats: &Seats, found: &Rebalance) -> Vec<String> {
        let history: &History = &self.observed.history;
        let mut notes = Vec::new();
        if seats.len() < 2 {
            notes.push("fewer than two workers take tasks".to_owned());
            return notes;
        }
        if self.on_the_way > 0 {
            notes.push(format!(
                "{} tasks are on their way; loads are looked at when they have arrived",
                self.on_the_way
            ));
        }
        if found.moves.is_empty() {
            let (gain, share) = largest_gain(&self.running, seats, &self.costs());
            notes.push(format!(
                "nothing to move: every worker has its share of the tasks, and between the most and the least loaded no exchange \
                 is worth it (at best {:.1} MB/s, {:.0} %)",
                gain / 1e6,
                share * 100.0
            ));
            return notes;
        }
        let patient = found.moves.len() - found.by_itself;
        if patient == 0 {
            notes.push("all of it is about to happen by itself".to_owned());
            return notes;
        }
        let cooling = found
            .moves
            .iter()
            .filter(|m| history.moved_within(&m.task, crate::assign::MOVE_COOLDOWN, self.now));
        let cooling = cooling.count();
        if cooling > 0 {
            notes.push(format!("{cooling} of them were moved less than 2 min ago"));
        }
        let by_load = found.moves.iter().filter(|m| reason(&m.why) == StopReason::Load).count();
        if by_load > 0 && history.allowance(self.running.len(), self.now) < 2 {
            notes.push("loads are evened out by at most a tenth of the tasks a minute".to_owned());
        }
        if by_load > 0 {
            notes.push("by itself, the balancer moves for a gain of more than 15 % and 0.5 MB/s, one exchange a pair of workers".to_owned());
        }
        if by_load < patient {
            notes.push("a worker is filled a few tasks at a time".to_owned());
        }
        notes
    }
}
