//! The runs of this process: what the leader's list says is compared with what runs here, and the difference is started and
//! stopped (P6, P7). An epoch that is over never runs again, and asked for it the worker says so again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use logic::mutant;
use model::{Epoch, TaskId};
use opentelemetry::KeyValue;
use proto::v1;
use tokio::{
    sync::watch,
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};

use crate::{
    fence::Fence,
    orders::{Order, Orders},
    progress::{Progress, Rate},
    task::{self, BuiltSource, Control, Ending, Failure, Shown},
    trace::Settling,
    view::View,
};

/// Ended epochs that are remembered; far more than a worker has tasks.
const OVER_MAX: usize = 16_384;
/// How often it is measured how old positions are.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// A run under way.
struct Active {
    epoch: Epoch,
    abort: AbortHandle,
    tell: watch::Sender<Option<Instant>>,
    /// When it will be dropped, once told to stop.
    deadline: Option<Instant>,
    shown: Arc<Shown>,
    progress: Progress,
    rate: Rate,
    /// What was reported last, when, and on which session.
    reported: Option<(v1::RunState, Instant, u64)>,
    /// What it reads; a partition reads nothing.
    source: Option<Arc<BuiltSource>>,
    labels: [KeyValue; 2],
    settling: Settling,
}

/// All runs of a worker.
pub(crate) struct Runs {
    orders: Orders,
    active: HashMap<TaskId, Active>,
    ids: HashMap<Id, TaskId>,
    joins: JoinSet<Ending>,
    over: HashMap<TaskId, (Epoch, v1::Released)>,
    forget: VecDeque<TaskId>,
    /// How often the leader wants to hear of a run in which nothing but numbers change.
    pace: Duration,
    /// What others see of them.
    view: View,
    measured_at: Instant,
}

impl Runs {
    pub(crate) fn new(orders: Orders, view: View) -> Self {
        Self {
            orders,
            active: HashMap::new(),
            ids: HashMap::new(),
            joins: JoinSet::new(),
            over: HashMap::new(),
            forget: VecDeque::new(),
            pace: Duration::ZERO,
            view,
            measured_at: Instant::now(),
        }
    }

    /// The leader's pace (see `HeartbeatAnswer`).
    pub(crate) fn keep_pace(&mut self, pace: Duration) {
        self.pace = pace;
    }

    pub(crate) fn fence(&self) -> &Arc<Fence> {
        &self.orders.fence
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Carries out a list and returns what must be answered to it.
    pub(crate) async fn apply(&mut self, list: v1::SetTasks, received: Instant) -> Vec<v1::Released> {
        let mut answers = Vec::new();
        self.orders.take(&list);
        let mut wanted: HashMap<TaskId, Epoch> = HashMap::new();
        for stop in &list.stop {
            let Some((task, epoch)) = named(stop.task.as_ref(), stop.epoch) else { continue };
            wanted.insert(task.clone(), epoch);
            let within = stop.deadline.map(from_wire).unwrap_or_default();
            answers.extend(self.stop(task, epoch, received + within));
        }
        for run in &list.run {
            if let Some((task, epoch)) = named(run.task.as_ref(), run.epoch) {
                wanted.insert(task, epoch);
            }
        }
        let unwanted = self.active.iter().filter(|(task, run)| wanted.get(*task) != Some(&run.epoch));
        let unwanted: Vec<TaskId> = unwanted.map(|(task, _)| task.clone()).collect();
        for task in unwanted {
            tracing::info!(%task, "a run that the leader does not list any more ends");
            answers.extend(self.drop_now(&task).await);
        }
        for run in list.run {
            answers.extend(self.want(run, received));
        }
        answers
    }

    /// P7: the answer at once if the epoch does not run here, else when its run has ended.
    fn stop(&mut self, task: TaskId, epoch: Epoch, deadline: Instant) -> Option<v1::Released> {
        if let Some(run) = self.active.get_mut(&task).filter(|run| run.epoch == epoch) {
            let deadline = run.deadline.map_or(deadline, |old| old.min(deadline));
            run.deadline = Some(deadline);
            run.tell.send_replace(Some(deadline));
            if deadline <= Instant::now() {
                run.abort.abort();
            }
            return None;
        }
        if let Some(released) = self.said(&task, epoch) {
            return Some(released);
        }
        // Never ran here, and now never will: nothing of it can be in flight.
        let released = self.end(&task, epoch, Ending::drained(), None);
        Some(released)
    }

    /// What was said of an epoch that is over. Of an older one than the newest that is over nothing is known any more.
    fn said(&self, task: &TaskId, epoch: Epoch) -> Option<v1::Released> {
        let newer_runs = self.active.get(task).is_some_and(|run| run.epoch > epoch);
        match self.over.get(task) {
            Some((over, released)) if *over == epoch => Some(released.clone()),
            Some((over, _)) if *over > epoch => Some(released(task, epoch, false)),
            _ if newer_runs => Some(released(task, epoch, false)),
            _ => None,
        }
    }

    fn want(&mut self, run: v1::RunTask, received: Instant) -> Option<v1::Released> {
        let (task, epoch) = named(run.task.as_ref(), run.epoch)?;
        if let Some(active) = self.active.get(&task) {
            if let (Some(split), Some(source)) = (task.split(), &active.source) {
                source.source.share(split, run.readers.max(1));
            }
            return None;
        }
        if let Some(released) = self.said(&task, epoch).filter(|_| !mutant::on("stopped_epoch_starts")) {
            return Some(released);
        }
        match self.orders.prepare(&task, epoch, run, received) {
            Ok(order) => {
                order.into_iter().for_each(|order| self.start(order));
                None
            }
            Err(failure) => Some(self.end(&task, epoch, Ending::failed(failure), None)),
        }
    }

    fn start(&mut self, order: Order) {
        let (tell, control) = Control::new();
        let tenure = Arc::clone(order.tenure());
        let (task, epoch, shown) = (tenure.task.clone(), tenure.epoch, Arc::clone(&tenure.shown));
        let start = shown.reached().position;
        let interval = tenure.sink.common.checkpoint_interval;
        let progress = Progress::new(&task, epoch, start.clone(), interval);
        let labels = task::labels(&tenure.source_name, &tenure.sink.spec.name);
        // It is there before it happens, so that the first time is seen as an increase.
        self.orders.commons.metrics.dead_letter_records.add(0, &labels);
        self.view.enter(&tenure);
        let (abort, source) = match order {
            Order::Reads(job) => {
                tracing::info!(%task, %epoch, %start, "a run starts");
                let source = Arc::clone(&job.source);
                (self.joins.spawn(task::run(Arc::from(job), control)), Some(source))
            }
            Order::Writes(tenure) => {
                tracing::info!(%task, %epoch, "a run of a partition starts");
                let door = Arc::clone(self.orders.peers.door());
                (self.joins.spawn(task::run_partition(tenure, door, control)), None)
            }
        };
        self.ids.insert(abort.id(), task.clone());
        let active = Active {
            epoch,
            abort,
            tell,
            deadline: None,
            shown,
            progress,
            rate: Rate::default(),
            reported: None,
            source,
            labels,
            settling: Settling::default(),
        };
        self.active.insert(task, active);
    }

    /// The next run that ends; never, while none runs. Cancel safe.
    pub(crate) async fn ended(&mut self) -> v1::Released {
        loop {
            match self.joins.join_next_with_id().await {
                Some(joined) => {
                    if let Some(released) = self.joined(joined) {
                        return released;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    fn joined(&mut self, joined: Result<(Id, Ending), tokio::task::JoinError>) -> Option<v1::Released> {
        let (id, ending) = match joined {
            Ok((id, ending)) => (id, ending),
            Err(error) => {
                let panicked = || Failure { error: "the run panicked".to_owned(), kind: "bug" };
                (error.id(), Ending { drained: false, failure: error.is_panic().then(panicked) })
            }
        };
        let task = self.ids.remove(&id)?;
        let mut run = self.active.remove(&task)?;
        self.view.leave(&task, run.epoch);
        let last = run.progress.last(run.shown.reached());
        Some(self.end(&task, run.epoch, ending, Some((last, run.shown.take_bad()))))
    }

    fn end(
        &mut self,
        task: &TaskId,
        epoch: Epoch,
        ending: Ending,
        last: Option<(Option<v1::TaskProgress>, Vec<v1::BadRecord>)>,
    ) -> v1::Released {
        let Ending { drained, failure } = ending;
        match &failure {
            Some(failure) => tracing::warn!(%task, %epoch, drained, error = failure.error, "a run failed"),
            None => tracing::info!(%task, %epoch, drained, "a run ended"),
        }
        let mut released = released(task, epoch, drained);
        (released.final_progress, released.bad) = last.unwrap_or_default();
        if let Some(failure) = failure {
            released.error = failure.error;
            released.error_kind = failure.kind.to_owned();
        }
        if self.over.insert(task.clone(), (epoch, released.clone())).is_none() {
            self.forget.push_back(task.clone());
        }
        if self.forget.len() > OVER_MAX {
            self.forget.pop_front().and_then(|oldest| self.over.remove(&oldest));
        }
        released
    }

    /// Drops a run and waits until nothing of it is left; also returns what else ended meanwhile.
    async fn drop_now(&mut self, task: &TaskId) -> Vec<v1::Released> {
        let mut ended = Vec::new();
        if let Some(run) = self.active.get(task) {
            run.abort.abort();
        }
        while self.active.contains_key(task) {
            let Some(joined) = self.joins.join_next_with_id().await else { break };
            ended.extend(self.joined(joined));
        }
        ended
    }

    /// P2: ends every run for good. New runs get a new fence. When this returns nothing of the old ones is left.
    pub(crate) async fn fence_all(&mut self) {
        self.orders.fence.end();
        let tasks: Vec<TaskId> = self.active.keys().cloned().collect();
        self.joins.abort_all();
        for task in tasks {
            self.drop_now(&task).await;
        }
        self.orders.fence = Fence::new();
    }

    /// Tells every run to drain by then.
    pub(crate) fn drain_all(&mut self, deadline: Instant) {
        for run in self.active.values_mut() {
            let deadline = run.deadline.map_or(deadline, |old| old.min(deadline));
            run.deadline = Some(deadline);
            run.tell.send_replace(Some(deadline));
        }
    }

    /// When the next run that was told to stop is out of time.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.active.values().filter_map(|run| run.deadline).min()
    }

    /// Drops the runs that are out of time.
    pub(crate) fn drop_late(&mut self, now: Instant) {
        for run in self.active.values().filter(|run| run.deadline.is_some_and(|at| at <= now)) {
            run.abort.abort();
        }
    }

    /// Every run under way, for the hello.
    pub(crate) fn running(&self) -> Vec<v1::Running> {
        let one = |(task, run): (&TaskId, &Active)| v1::Running {
            task: Some(task.into()),
            epoch: Some(run.epoch.into()),
        };
        self.active.iter().map(one).collect()
    }

    /// The positions that are due on session `link`.
    pub(crate) fn progress(&mut self, link: u64, now: Instant) -> Vec<v1::TaskProgress> {
        let pace = self.pace;
        let due = |run: &mut Active| {
            // Before the position is looked at, so that it covers them.
            run.settling.reached(run.shown.take_delivered());
            let mut message = run.progress.due(run.shown.reached(), link, (now, pace))?;
            run.settling.sent(&mut message);
            Some(message)
        };
        self.active.values_mut().filter_map(due).collect()
    }

    /// The leader says that these are durable.
    pub(crate) fn committed(&mut self, committed: &v1::Committed, now: Instant) {
        for one in &committed.tasks {
            let Some((task, epoch)) = named(one.task.as_ref(), one.epoch) else { continue };
            if let Some(run) = self.active.get_mut(&task).filter(|run| run.epoch == epoch) {
                run.progress.committed(one.serial, now);
                run.settling.committed(one.serial);
            }
        }
    }

    /// Splits whose end was seen since this was asked last.
    pub(crate) fn splits_ended(&self) -> Vec<v1::SplitEnded> {
        let ended = self.active.iter().filter(|(_, run)| run.shown.take_split_ended());
        let message = |(task, run): (&TaskId, &Active)| {
            let source_id = run.source.as_ref()?.spec.id.to_string();
            Some(v1::SplitEnded { source_id, split: task.work.to_string() })
        };
        ended.filter_map(message).collect()
    }

    /// Shows how long the oldest position of each sink has been waiting to become durable, whether anybody leads or not.
    pub(crate) fn measure(&mut self, now: Instant) {
        if now.saturating_duration_since(self.measured_at) < MEASURE_EVERY {
            return;
        }
        self.measured_at = now;
        let mut ages: BTreeMap<String, (&[KeyValue; 2], Duration)> = BTreeMap::new();
        for (_, run) in self.active.iter().filter(|(_, run)| run.source.is_some()) {
            let age = run.progress.age(&run.shown.reached(), now);
            let oldest = ages.entry(run.labels[1].value.to_string()).or_insert((&run.labels, age));
            oldest.1 = oldest.1.max(age);
        }
        let shown = ages.into_values().map(|(labels, age)| (labels.to_vec(), age.as_secs_f64()));
        self.orders.commons.metrics.checkpoint_age.show(shown.collect());
    }

    /// How every run is whose state is another than was said, or of which nothing was said for the leader's pace.
    pub(crate) fn reports(&mut self, link: u64, now: Instant) -> Vec<v1::Report> {
        // A beat that comes a little early must not make it every second one.
        let pace = self.pace.saturating_sub(Duration::from_millis(500));
        let report = |(task, run): (&TaskId, &mut Active)| {
            let totals = &run.shown.totals;
            let (records, bytes) =
                run.rate.seen(totals.read.load(Relaxed), totals.read_bytes.load(Relaxed), now);
            v1::Report {
                task: Some(task.into()),
                epoch: Some(run.epoch.into()),
                records_per_second: records,
                bytes_per_second: bytes,
                ..run.shown.report(now)
            }
        };
        let due = |run: &mut Active| {
            let (state, has_news) = run.shown.state();
            let known = |(said, at, on)| said == state && on == link && now < at + pace;
            let due = has_news || !run.reported.is_some_and(known);
            if due {
                run.reported = Some((state, now, link));
            }
            due
        };
        self.active.iter_mut().filter_map(|(task, run)| due(run).then(|| report((task, run)))).collect()
    }
}

fn released(task: &TaskId, epoch: Epoch, drained: bool) -> v1::Released {
    v1::Released { task: Some(task.into()), epoch: Some(epoch.into()), drained, ..v1::Released::default() }
}

fn named(task: Option<&v1::Task>, epoch: Option<v1::Epoch>) -> Option<(TaskId, Epoch)> {
    let task = TaskId::try_from(task?)
        .inspect_err(|error| tracing::error!(%error, "a task of the leader's list cannot be read"))
        .ok()?;
    Some((task, epoch?.into()))
}

/// A duration off the wire; a negative one is none.
pub(crate) fn from_wire(duration: prost_types::Duration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}
