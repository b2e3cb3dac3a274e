//! A small world that carries out plans: a stream that is resharded, workers that die, pause and come back, leaders that
//! change. It knows the truth, and asserts after each step what the protocol promises: no child before its parents (I2), no
//! checkpoint back (I3, I4), no write of a new owner while something of an old one may land (I11), evenness.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{
    Creation, Cursor, Epoch, HashRange, ObjectId, Position, Split, SplitId, Start, StartFrom, TaskId,
    Timestamp,
};
use shardwright_logic::{
    Timing,
    checkpoint::{Moved, Pending},
    gate::{Failure, Process, Released},
    invariant::{World as Look, check},
    lineage::{First, Remembered, bury, merge},
    plan::{Action, Assign, Desired, DesiredSink, DesiredSource, Observed, Plan, StopReason, list, plan},
};

pub const SECOND: Duration = Duration::from_secs(1);

pub fn id(n: u64) -> ObjectId {
    ObjectId::from_parts(n, u128::from(n))
}

pub const CREATION: Creation = Creation(77);

pub fn split_id(name: &str) -> SplitId {
    SplitId::new(CREATION, name)
}

pub fn task(sink: u64, split: &str) -> TaskId {
    TaskId::reads(id(sink), split_id(split))
}

/// A shard as it truly is.
#[derive(Clone, Debug)]
pub struct Shard {
    pub parents: Vec<String>,
    pub range: HashRange,
    pub records: u64,
    pub closed: bool,
    pub trimmed: bool,
}

/// A run inside a worker.
#[derive(Clone, Debug)]
pub struct Run {
    pub at: u64,
    pub gate_until: Duration,
    pub ended: bool,
    pub serial: u64,
    /// The set of partitions that it sends to.
    pub sends_to: Option<Epoch>,
}

/// A worker process as it truly is.
#[derive(Clone, Debug)]
pub struct Worker {
    pub process: String,
    pub instance: String,
    pub capacity: u32,
    pub alive: bool,
    pub cut_off: bool,
    pub draining: bool,
    /// Sending of the newest answered heartbeat.
    pub answered: Duration,
    pub runs: BTreeMap<(TaskId, Epoch), Run>,
    pub stopped: BTreeMap<(TaskId, Epoch), bool>,
    /// Answers that the leader has not got yet.
    pub tell: BTreeMap<(TaskId, Epoch), (bool, Option<Failure>)>,
}

pub struct World {
    pub timing: Timing,
    pub now: Duration,
    pub desired: Desired,
    pub observed: Observed,
    pub pending: Pending,
    pub shards: BTreeMap<String, Shard>,
    pub workers: BTreeMap<String, Worker>,
    pub remembered: Remembered,
    revision: u64,
    processes: u64,
    truth: Truth,
    pub last_plan: Plan,
    /// Assignments made so far.
    pub assigned: u64,
    pub moves: u64,
}

impl World {
    /// One source, `sinks` sinks, `shards` open shards, `workers` workers that have joined.
    pub fn new(shards: u64, sinks: u64, workers: u64) -> Self {
        let mut world = Self {
            timing: Timing::default(),
            now: Duration::from_secs(1000),
            desired: Desired::default(),
            observed: Observed::default(),
            pending: Pending::default(),
            shards: BTreeMap::new(),
            workers: BTreeMap::new(),
            remembered: Remembered::default(),
            revision: 10,
            processes: 0,
            truth: Truth::default(),
            last_plan: Plan::default(),
            assigned: 0,
            moves: 0,
        };
        let source = DesiredSource { name: "clicks".into(), revision: 1, dropping: false };
        world.desired.sources.insert(id(1), source);
        for n in 0..sinks {
            world.desired.sinks.insert(id(100 + n), sink(n));
        }
        let width = u128::MAX / u128::from(shards);
        for n in 0..shards {
            let first = u128::from(n) * width + u128::from(n > 0);
            let last = if n + 1 == shards { u128::MAX } else { u128::from(n + 1) * width };
            world.shards.insert(format!("s{n:03}"), shard(vec![], HashRange { first, last }));
        }
        world.observed.heard.elected_at = world.now;
        for n in 0..workers {
            world.start_worker(&format!("w{n}"), true);
        }
        world.discover();
        world
    }

    pub fn start_worker(&mut self, name: &str, same_instance: bool) {
        self.processes += 1;
        let n = self.processes;
        let instance = match self.workers.get(name) {
            Some(old) if same_instance => old.instance.clone(),
            _ => format!("i{n}"),
        };
        self.workers.insert(
            name.to_owned(),
            Worker {
                process: format!("p{n}"),
                instance,
                capacity: 1,
                alive: true,
                cut_off: false,
                draining: false,
                answered: self.now,
                runs: BTreeMap::new(),
                stopped: BTreeMap::new(),
                tell: BTreeMap::new(),
            },
        );
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) {
        let breath = self.timing.last_breath();
        let Some(worker) = self.workers.get_mut(name).filter(|worker| worker.alive) else { return };
        worker.alive = false;
        for key in std::mem::take(&mut worker.runs).into_keys() {
            self.truth.lands_until.insert(key, self.now + breath);
        }
    }

    pub fn reshard(&mut self, names: &[String]) {
        let parents: Vec<String> = names.iter().filter(|name| !self.shards[*name].closed).cloned().collect();
        if parents.is_empty() {
            return;
        }
        let n = self.shards.len();
        let whole = HashRange {
            first: parents.iter().map(|p| self.shards[p].range.first).min().unwrap(),
            last: parents.iter().map(|p| self.shards[p].range.last).max().unwrap(),
        };
        for parent in &parents {
            self.shards.get_mut(parent).unwrap().closed = true;
        }
        if parents.len() == 1 && whole.last > whole.first {
            let middle = whole.first + (whole.last - whole.first) / 2;
            let (low, high) = (
                HashRange { first: whole.first, last: middle },
                HashRange { first: middle + 1, last: whole.last },
            );
            self.shards.insert(format!("s{n:03}"), shard(parents.clone(), low));
            self.shards.insert(format!("s{:03}", n + 1), shard(parents, high));
        } else {
            self.shards.insert(format!("s{n:03}"), shard(parents, whole));
        }
    }

    pub fn open_shards(&self) -> Vec<String> {
        self.shards.iter().filter(|(_, shard)| !shard.closed).map(|(name, _)| name.clone()).collect()
    }

    /// Splits or merges: two neighbours if there are, by `pick`.
    pub fn split_at(&mut self, pick: usize) {
        let open = self.open_shards();
        self.reshard(&[open[pick % open.len()].clone()]);
    }

    pub fn merge_at(&mut self, pick: usize) {
        let mut open = self.open_shards();
        open.sort_by_key(|name| self.shards[name].range.first);
        if open.len() > 1 {
            let at = pick % (open.len() - 1);
            self.reshard(&open[at..at + 2]);
        }
    }

    /// Retention takes the oldest closed shard.
    pub fn trim_oldest(&mut self) {
        if let Some(shard) = self.shards.values_mut().find(|shard| shard.closed && !shard.trimmed) {
            shard.trimmed = true;
        }
    }

    /// A complete listing, merged; the service is asked about what is missing.
    pub fn discover(&mut self) {
        let listing: Vec<Split> = self
            .shards
            .iter()
            .filter(|(_, shard)| !shard.trimmed)
            .map(|(name, shard)| Split {
                id: split_id(name),
                parents: shard.parents.iter().map(|p| split_id(p)).collect(),
                range: Some(shard.range),
                closed: shard.closed,
            })
            .collect();
        let table = self.observed.splits.entry(id(1)).or_default();
        let start = Start::all(StartFrom::At(Timestamp(5)));
        let at = Timestamp(i64::try_from(self.now.as_millis()).unwrap());
        let merged = merge(
            table,
            (CREATION, &listing),
            First { creation: CREATION, start: &start, due: false },
            &mut self.remembered,
            at,
        );
        let first = table.is_empty();
        for (split, record) in merged.put {
            if !table.contains_key(&split) {
                let horizon = record.start == StartFrom::Horizon;
                assert_eq!(
                    horizon, !first,
                    "{split} must start at its horizon unless it is of the first listing"
                );
            }
            table.insert(split, record);
        }
        let gone: Vec<SplitId> =
            merged.ask.into_iter().filter(|split| self.shards[split.name()].trimmed).collect();
        table.extend(bury(table, &gone, at));
    }

    /// A new leader: it has heard nothing.
    pub fn change_leader(&mut self) {
        self.observed.heard = shardwright_logic::gate::Heard { elected_at: self.now, ..Default::default() };
        self.observed.stopping.clear();
        self.observed.reports.clear();
        self.observed.loads.clear();
        self.observed.history = Default::default();
        self.pending = Pending::default();
    }

    /// Time passes: fences close, heartbeats arrive, lists go out, runs deliver, checkpoints are written, plans are made.
    pub fn tick(&mut self, by: Duration) {
        self.now += by;
        self.observed.wall = Timestamp(i64::try_from(self.now.as_millis()).unwrap());
        self.fences();
        self.heartbeats();
        self.lists();
        self.deliver();
        let desired = self.desired.clone();
        let before = self.observed.clone();
        self.write_checkpoints();
        self.plan();
        self.lists();
        let broken = check(
            Look { desired: &self.desired, observed: &self.observed },
            Some(Look { desired: &desired, observed: &before }),
        );
        assert_eq!(broken, vec![]);
    }

    pub fn ticks(&mut self, n: u32) {
        for _ in 0..n {
            self.tick(SECOND);
        }
    }

    /// Time passes and heartbeats arrive; nothing else happens.
    pub fn beat(&mut self, by: Duration) {
        self.now += by;
        self.heartbeats();
    }

    fn fences(&mut self) {
        let breath = self.timing.last_breath();
        for worker in self.workers.values_mut().filter(|worker| worker.alive) {
            let fence = worker.answered + self.timing.fence_after;
            if fence > self.now {
                continue;
            }
            for key in std::mem::take(&mut worker.runs).into_keys() {
                self.truth.lands_until.insert(key.clone(), fence + breath);
                worker.stopped.insert(key.clone(), false);
                worker.tell.insert(key, (false, None));
            }
        }
    }

    fn heartbeats(&mut self) {
        for (name, worker) in self.workers.iter_mut().filter(|(_, w)| w.alive && !w.cut_off) {
            worker.answered = self.now;
            let heard = &mut self.observed.heard;
            // P1: a second live process under the same name is refused while the first is within the session timeout.
            let rival = heard.current(name).is_some_and(|(process, p)| {
                process != worker.process
                    && p.instance != worker.instance
                    && p.heard_at + self.timing.session_timeout > self.now
            });
            if rival && !heard.processes.contains_key(&worker.process) {
                continue;
            }
            let process = heard.processes.entry(worker.process.clone()).or_insert_with(|| Process {
                worker: name.clone(),
                instance: worker.instance.clone(),
                capacity: worker.capacity,
                zone: String::new(),
                joined_at: self.now,
                heard_at: self.now,
                draining: worker.draining,
            });
            (process.heard_at, process.draining) = (self.now, worker.draining);
            for ((task, epoch), (drained, failure)) in std::mem::take(&mut worker.tell) {
                // As the coordinator does: what is told of a run that no key names is not kept.
                if self.observed.names(&task, epoch) {
                    let released = Released { drained, at: self.now, failure };
                    self.observed.heard.releases.entry((task, epoch)).or_insert(released);
                }
            }
        }
    }

    fn lists(&mut self) {
        let breath = self.timing.last_breath();
        for worker in self.workers.values_mut().filter(|w| w.alive && !w.cut_off) {
            if !self.observed.heard.processes.contains_key(&worker.process) {
                continue;
            }
            let orders = list(&self.desired, &self.observed, &worker.process, &self.timing, self.now);
            let wanted: BTreeSet<(TaskId, Epoch)> =
                orders.run.iter().map(|r| (r.task.clone(), r.epoch)).collect();
            let gone: Vec<_> = worker.runs.keys().filter(|key| !wanted.contains(*key)).cloned().collect();
            for key in gone {
                let run = worker.runs.remove(&key).unwrap();
                let dropped =
                    orders.stop.iter().any(|s| (s.task.clone(), s.epoch) == key && s.deadline.is_zero());
                let drained = !dropped || run.ended;
                let until = if drained { self.now } else { self.now + breath };
                self.truth.lands_until.insert(key.clone(), until);
                worker.stopped.insert(key, drained);
            }
            for stop in orders.stop {
                let key = (stop.task, stop.epoch);
                let drained = *worker.stopped.entry(key.clone()).or_insert(false);
                worker.tell.entry(key).or_insert((drained, None));
            }
            for order in orders.run {
                let key = (order.task, order.epoch);
                if worker.stopped.contains_key(&key) {
                    worker.tell.entry(key).or_insert((false, None));
                    continue;
                }
                let at = match &order.start {
                    Position::Start(_) => 0,
                    Position::After(cursor) => cursor.as_str().parse().unwrap(),
                    Position::End => panic!("{} is assigned again after its end", key.0),
                };
                let gate_until = self.now + order.gate;
                let sends_to = order.partitions;
                worker.runs.entry(key).or_insert(Run { at, gate_until, ended: false, serial: 0, sends_to });
            }
        }
    }

    /// The partitions that run with an open gate.
    fn open_partitions(&self) -> BTreeSet<(TaskId, Epoch)> {
        let runs = self.workers.values().filter(|worker| worker.alive).flat_map(|worker| &worker.runs);
        runs.filter(|((task, _), run)| task.partition().is_some() && run.gate_until <= self.now)
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn deliver(&mut self) {
        let open = self.open_partitions();
        for worker in self.workers.values_mut().filter(|worker| worker.alive) {
            for ((task, epoch), run) in &mut worker.runs {
                if let Some(set) = run.sends_to {
                    assert!(run.gate_until <= self.now, "{task} sends to partitions and needs no gate");
                    let wanted = self.desired.sinks.get(&task.sink).map_or(0, |sink| sink.partitions);
                    let named: Vec<Epoch> = open
                        .iter()
                        .filter(|(p, e)| p.sink == task.sink && *e <= set)
                        .map(|(_, e)| *e)
                        .collect();
                    if named.len() != wanted as usize || named.iter().max() != Some(&set) {
                        continue;
                    }
                }
                if task.partition().is_some() {
                    if run.gate_until <= self.now {
                        self.truth.nothing_older_lands(&self.desired, (task, *epoch), self.now);
                    }
                    continue;
                }
                let shard = &self.shards[task.work.to_string().as_str()];
                if run.gate_until > self.now {
                    continue;
                }
                if !run.ended && !shard.trimmed {
                    may_write(&self.desired, &self.observed, &self.shards, task);
                    if run.sends_to.is_none() {
                        self.truth.nothing_older_lands(&self.desired, (task, *epoch), self.now);
                    }
                    run.at = (run.at + 5).min(shard.records);
                    run.ended = shard.closed && run.at == shard.records;
                    run.serial += 1;
                }
                // Progress is kept and sent again until it is known to be durable.
                if !worker.cut_off && run.serial > 0 {
                    let after = || Position::After(Cursor::new(run.at.to_string()));
                    self.pending.offer(
                        &self.observed,
                        Moved {
                            task: task.clone(),
                            epoch: *epoch,
                            serial: run.serial,
                            position: if run.ended { Position::End } else { after() },
                            records: run.at,
                            caught_up_at: None,
                            gap: None,
                        },
                    );
                }
            }
        }
    }

    fn write_checkpoints(&mut self) {
        for group in self.pending.groups(&self.observed, Timestamp(0), |_| true) {
            assert!(group.writes.len() <= 126);
            self.revision += 1;
            for (task, checkpoint) in group.writes {
                let (epoch, run) = &self.observed.assignments[&task];
                assert_eq!((*epoch, (run.worker.clone(), run.lane)), (checkpoint.epoch, group.lane.clone()));
                self.pending.committed(&task, &checkpoint);
                self.observed.checkpointed(task, checkpoint, self.revision);
            }
        }
    }

    /// Plans and carries out. I5: what was carried out is not planned again; only a delete may make room for more (the children
    /// of a split that is gone, the next stage of a drop), and that comes to an end.
    pub fn plan(&mut self) {
        for round in 0..8 {
            let plan = plan(&self.desired, &self.observed, &self.timing, self.now);
            // Splits may be assigned once their partitions are, and are stopped before them.
            let deletes = plan.actions.iter().any(|action| deletes(action) || writes_partition(action));
            self.carry_out(&plan);
            self.last_plan = plan;
            if !deletes {
                let again =
                    shardwright_logic::plan::plan(&self.desired, &self.observed, &self.timing, self.now);
                // What is even after this step may call for a move; that moves come to an end is asked of a settled world.
                let moves = |action: &&Action| matches!(action, Action::Stop(stop) if matches!(stop.reason.to_string().as_str(), "move" | "load"));
                let steady: Vec<&Action> = again.actions.iter().filter(|action| !moves(action)).collect();
                assert_eq!(steady, Vec::<&Action>::new(), "the plan is not idempotent");
                return;
            }
            assert!(round < 7, "the plan does not come to an end: {:?}", self.last_plan.actions);
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        for action in &plan.actions {
            self.revision += 1;
            let epoch = Epoch { generation: 1, revision: self.revision };
            match action {
                Action::Assign(assign) => {
                    self.judge(assign);
                    let run = &assign.assignment;
                    if run.partitions.is_none() {
                        self.truth.writers.insert(epoch, run.spec_revision);
                    }
                }
                Action::Stop(stop) => {
                    assert_eq!(self.observed.assignments[&stop.task].0, stop.epoch);
                    self.moves += u64::from(matches!(stop.reason, StopReason::Move | StopReason::Load));
                }
                Action::Unassign { task, epoch, .. } => {
                    assert_eq!(self.observed.assignments[task].0, *epoch);
                    self.nothing_lands(task);
                }
                Action::DeleteCheckpoint { task, revision } => {
                    assert_eq!(self.observed.checkpoints[task].revision, *revision);
                    assert!(!self.observed.assignments.contains_key(task));
                }
                Action::DeleteObject { id } => {
                    assert!(self.observed.assignments.keys().all(|task| task.sink != *id));
                    assert!(self.observed.checkpoints.keys().all(|task| task.sink != *id));
                    self.desired.sinks.remove(id);
                    self.desired.sources.remove(id);
                }
                Action::DeleteSplit { .. } => {}
            }
            self.observed.apply(action, epoch, self.now);
        }
    }

    /// P9: the key of a run goes only when nothing of it can land, or nobody cares.
    fn nothing_lands(&self, task: &TaskId) {
        if self.desired.sinks.get(&task.sink).is_none_or(|sink| sink.dropping || !sink.gated) {
            return;
        }
        for ((other, epoch), until) in &self.truth.lands_until {
            assert!(
                other != task || *until <= self.now || !self.truth.writers.contains_key(epoch),
                "{task} is unassigned while epoch {epoch} may land until {until:?}, now {:?}",
                self.now
            );
        }
    }

    /// P6, P13, P15 of an assignment about to be written.
    fn judge(&mut self, assign: &Assign) {
        self.assigned += 1;
        let run = &assign.assignment;
        let worker = &self.observed.heard.processes[&run.process];
        assert!(!worker.draining, "a draining worker was given {}", assign.task);
        assert!(worker.heard_at + self.timing.session_timeout > self.now);
        let old = self.observed.assignments.get(&assign.task);
        assert_eq!(assign.replaces, old.map(|(epoch, _)| *epoch));
        let stored = self.observed.checkpoints.get(&assign.task);
        assert_eq!(assign.checkpoint, stored.map(|stored| stored.revision));
        match stored {
            Some(stored) => assert_eq!(run.start, stored.value.position),
            None => assert!(matches!(run.start, Position::Start(_))),
        }
        if assign.task.partition().is_some() {
            return;
        }
        let shard = &self.shards[assign.task.work.to_string().as_str()];
        for parent in &shard.parents {
            let parent_task = TaskId::reads(assign.task.sink, split_id(parent));
            let ended =
                self.observed.checkpoints.get(&parent_task).is_some_and(|c| c.value.position.is_end());
            assert!(ended || self.shards[parent].trimmed, "{} is assigned before its parents", assign.task);
        }
        // P9: whoever may still land something is named.
        for ((task, epoch), until) in &self.truth.lands_until {
            if *task == assign.task && *until > self.now && self.truth.writers.contains_key(epoch) {
                assert!(
                    run.predecessors.iter().any(|old| old.epoch == *epoch),
                    "epoch {epoch} of {task} is forgotten"
                );
            }
        }
        let lane = self
            .observed
            .assignments
            .iter()
            .filter(|(task, (_, r))| **task != assign.task && (&r.worker, r.lane) == (&run.worker, run.lane))
            .count();
        assert!(lane < 126, "lane {} of {} is full", run.lane, run.worker);
    }

    /// Everything is repaired; the world must come to rest: every split delivered or gone, the rest running.
    pub fn settle(&mut self) {
        let names: Vec<String> = self.workers.keys().cloned().collect();
        for name in names {
            if !self.workers[&name].alive {
                self.start_worker(&name, true);
            }
            let worker = self.workers.get_mut(&name).unwrap();
            (worker.cut_off, worker.draining) = (false, false);
        }
        for sink in self.desired.sinks.values_mut().filter(|sink| sink.paused) {
            (sink.paused, sink.revision) = (false, sink.revision + 1);
        }
        self.discover();
        self.discover();
        self.discover();
        for _ in 0..600 {
            self.tick(SECOND);
            if self.is_settled() {
                break;
            }
        }
        assert!(self.is_settled(), "not settled: {:?} {:?}", self.last_plan, self.owners());
        self.ticks(120); // the balancer's time
        let (assigned, moves) = (self.assigned, self.moves);
        self.ticks(180);
        assert_eq!((assigned, moves), (self.assigned, self.moves), "a settled world is left alone");
        self.is_even();
    }

    pub fn is_settled(&self) -> bool {
        self.desired.sinks.iter().all(|(sink, wish)| {
            let writers = (0..wish.partitions).map(|n| TaskId::writes(*sink, n));
            let written =
                self.observed.assignments.keys().filter(|t| t.sink == *sink && t.partition().is_some());
            !wish.dropping
                && written.cloned().eq(writers)
                && self.shards.iter().all(|(name, shard)| {
                    let task = TaskId::reads(*sink, split_id(name));
                    let position = self.observed.checkpoints.get(&task).map(|c| &c.value.position);
                    let owned = self.observed.assignments.contains_key(&task);
                    if shard.trimmed || shard.closed {
                        !owned && (shard.trimmed || position == Some(&Position::End))
                    } else {
                        owned && position == Some(&Position::After(Cursor::new(shard.records.to_string())))
                    }
                })
        })
    }

    /// Tasks by worker.
    pub fn owners(&self) -> BTreeMap<String, usize> {
        let mut owners: BTreeMap<String, usize> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.alive && !worker.draining)
            .map(|(name, _)| (name.clone(), 0))
            .collect();
        for (_, run) in self.observed.assignments.values() {
            *owners.entry(run.worker.clone()).or_default() += 1;
        }
        owners
    }

    pub fn is_even(&self) {
        let owners = self.owners();
        let (least, most) = (owners.values().min().unwrap(), owners.values().max().unwrap());
        assert!(most - least <= 1, "uneven: {owners:?}");
    }

    pub fn owner(&self, task: &TaskId) -> Option<&str> {
        self.observed.assignments.get(task).map(|(_, run)| run.worker.as_str())
    }
}

/// The truth of I2.
fn may_write(desired: &Desired, observed: &Observed, shards: &BTreeMap<String, Shard>, task: &TaskId) {
    assert!(desired.sinks.contains_key(&task.sink), "{task} outlives its sink");
    for parent in &shards[task.work.to_string().as_str()].parents {
        let before = TaskId::reads(task.sink, split_id(parent));
        let ended = observed.checkpoints.get(&before).is_some_and(|c| c.value.position.is_end());
        assert!(ended || shards[parent].trimmed, "{task} delivers before its parent {parent} has ended");
    }
}

/// What may still land, and of which maps from rows to writers.
#[derive(Default)]
pub struct Truth {
    /// Until when a request of a run may land: the truth behind the gate.
    lands_until: BTreeMap<(TaskId, Epoch), Duration>,
    /// Of each run that writes: which revision of its spec it has.
    writers: BTreeMap<Epoch, u64>,
}

impl Truth {
    /// I11: nothing may land any more of an older run of the task, nor (P22) of any writer of an older map.
    fn nothing_older_lands(&self, desired: &Desired, (task, epoch): (&TaskId, Epoch), now: Duration) {
        if desired.sinks.get(&task.sink).is_some_and(|sink| !sink.gated) {
            return;
        }
        let map = |epoch: &Epoch| self.writers.get(epoch).copied();
        for ((other, older), until) in &self.lands_until {
            let keyed = other.partition().is_some() || task.partition().is_some();
            let other_map = other.sink == task.sink && keyed && map(older) < map(&epoch);
            let concerns = map(older).is_some() && (other == task || other_map);
            assert!(
                !concerns || *older >= epoch || *until <= now,
                "epoch {epoch} of {task} writes at {now:?} while epoch {older} of {other} may land until {until:?}"
            );
        }
    }
}

fn writes_partition(action: &Action) -> bool {
    match action {
        Action::Assign(assign) => assign.task.partition().is_some(),
        Action::Stop(stop) => stop.task.partition().is_some(),
        _ => false,
    }
}

fn deletes(action: &Action) -> bool {
    !matches!(action, Action::Assign(_) | Action::Stop(_))
}

pub fn sink(n: u64) -> DesiredSink {
    DesiredSink {
        partitions: 0,
        name: format!("out{n}"),
        source: id(1),
        revision: 1,
        instance: 0,
        paused: false,
        dropping: false,
        gated: true,
        created_at: Timestamp(0),
    }
}

fn shard(parents: Vec<String>, range: HashRange) -> Shard {
    Shard { parents, range, records: 23, closed: false, trimmed: false }
}
