//! The session with the leader: heartbeats, reports and progress up; the task list and checkpoint results down (P1–P8).
//!
//! One loop owns everything. What it must not do is wait: runs go on while it has no leader, and end, for good, when no
//! heartbeat was answered for `fence_after` (P2).
//!
//! ```text
//! waiting ─▶ dialing ─▶ attaching (hello) ─▶ linked ─▶ welcome ─▶ lists …
//!    ▲                                          │
//!    └───── broken, redirected, silent ◀────────┘        past the deadline: all runs end, whatever the phase
//! ```

use std::{collections::VecDeque, sync::Arc, time::Duration};

use connector::Registry;
use logic::{Timing, mutant};
use proto::v1::{self, coordinator_message::Message as Down, worker_message::Message as Up};
use proto::{Protocols, Wire};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Config, Error, Result,
    budget::Budget,
    cpu::Cpu,
    exchange::{Door, Peers},
    identity::Identity,
    link::{Phase, Reached, Targets, attach},
    metrics::Metrics,
    objects::Objects,
    orders::Orders,
    runs::{Runs, from_wire},
    task::Commons,
    view::{Standing, View},
};

/// How often due positions are looked for.
const PROGRESS_TICK: Duration = Duration::from_millis(100);

/// How often it is said that no coordinator is reached.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Heartbeats whose answers are still of interest.
const SENT_MAX: usize = 64;
/// After an orderly stop was announced: how long the leader may take to say what goes where.
const HANDOFF_PATIENCE: Duration = Duration::from_secs(2);

/// How this process reaches others and is reached.
pub(crate) struct Exchange {
    /// Where others reach its partitions; empty if they cannot.
    pub(crate) address: String,
    pub(crate) wire: Wire,
    pub(crate) door: Arc<Door>,
    pub(crate) served: Option<DropGuard>,
}

/// The one loop of a worker.
pub(crate) struct Session {
    config: Config,
    identity: Identity,
    cancel: CancellationToken,
    budget: Arc<Budget>,
    cpu: Cpu,
    runs: Runs,
    /// What others see of how it stands.
    standing: watch::Sender<Standing>,
    wake: Arc<Notify>,
    targets: Targets,
    exchange_address: String,
    /// The exchange is served for as long as this is here.
    _served: Option<DropGuard>,
    links: u64,
    /// The newest leader that was heard (P4): the generation of its store and its revision.
    leader: (u64, u64),
    heartbeat: u64,
    /// When the newest heartbeats of this stream were sent.
    sent: VecDeque<(u64, Instant)>,
    answered_at: Instant,
    heartbeat_interval: Duration,
    fence_after: Duration,
    next_heartbeat: Instant,
    /// When it was last said that no coordinator is reached.
    complained_at: Option<Instant>,
    /// When the loop looks at its deadlines next, whatever else happens.
    tick_at: Instant,
    /// The newest list names nothing.
    nothing_listed: bool,
    /// Some leader has sent this process a list: it spoke for its name.
    joined: bool,
    stopping: Option<Stopping>,
}

/// An orderly stop under way.
#[derive(Clone, Copy, Debug)]
struct Stopping {
    /// By then it is over.
    deadline: Instant,
    /// From then on runs drain without being asked to.
    patience: Instant,
    /// All runs have ended, since then.
    empty_since: Option<Instant>,
}

/// What woke the loop.
enum Event {
    Cancelled,
    Fenced,
    Ended(v1::Released),
    Link(Reached),
    Woken,
    Tick,
}

impl Session {
    pub(crate) fn new(
        config: Config,
        identity: Identity,
        (registry, exchange): (Registry, Exchange),
        (view, standing): (View, watch::Sender<Standing>),
        cancel: CancellationToken,
    ) -> Self {
        let budget = Budget::new(config.memory_budget);
        let timing = Timing::default();
        let commons = Commons {
            metrics: Metrics::new(&budget),
            budget: Arc::clone(&budget),
            reads: Semaphore::new(config.reads_concurrent_max.max(1)),
            write_attempt_timeout: config.write_attempt_timeout,
            last_breath: config.write_attempt_timeout + config.late_write_margin,
            settle_deadline: config.drain_deadline,
        };
        let wake = Arc::new(Notify::new());
        let now = Instant::now();
        let Exchange { address, wire, door, served } = exchange;
        let peers = Arc::new(Peers::new(identity.process.clone(), door, wire.clone()));
        let orders = Orders::new(Objects::new(registry), Arc::new(commons), peers, Arc::clone(&wake));
        Self {
            targets: Targets::new(config.coordinators.clone(), wire),
            cpu: Cpu::new(config.measure_cpu),
            exchange_address: address,
            _served: served,
            config,
            identity,
            cancel,
            budget,
            runs: Runs::new(orders, view),
            standing,
            wake,
            links: 0,
            leader: (0, 0),
            heartbeat: 0,
            sent: VecDeque::new(),
            answered_at: now,
            heartbeat_interval: timing.heartbeat,
            fence_after: timing.fence_after,
            next_heartbeat: now,
            complained_at: None,
            tick_at: now + PROGRESS_TICK,
            nothing_listed: true,
            joined: false,
            stopping: None,
        }
    }

    /// Runs until cancelled and stopped in order, or refused for good.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut phase = Phase::Waiting(Instant::now());
        loop {
            if self.has_left(&mut phase) {
                return Ok(());
            }
            let event = self.next(&mut phase).await;
            match event {
                Event::Cancelled => self.begin_stop(&mut phase),
                Event::Fenced => self.fenced(&mut phase, "no heartbeat was answered in time").await,
                Event::Ended(released) => self.send(&mut phase, Up::Released(released)),
                Event::Link(reached) => self.linked(&mut phase, reached).await?,
                Event::Woken => self.progress(&mut phase),
                Event::Tick => self.tick(&mut phase),
            }
            self.show(&mut phase);
        }
    }

    fn show(&self, phase: &mut Phase) {
        let standing = match phase.link() {
            _ if self.stopping.is_some() => Standing::Draining,
            Some(link) if link.listed => Standing::Stands,
            _ => Standing::Seeking,
        };
        self.standing.send_if_modified(|shown| std::mem::replace(shown, standing) != standing);
    }

    async fn next(&mut self, phase: &mut Phase) -> Event {
        let fence = self.runs.fence().deadline().filter(|_| !mutant::on("late_answer_revives"));
        // Kept across events: a busy session must beat too.
        let tick = self.runs.next_deadline().map_or(self.tick_at, |at| at.min(self.tick_at));
        tokio::select! { biased;
            () = self.cancel.cancelled(), if self.stopping.is_none() => Event::Cancelled,
            () = sleep_until(fence.unwrap_or_else(Instant::now)), if fence.is_some() => Event::Fenced,
            released = self.runs.ended() => Event::Ended(released),
            () = sleep_until(tick) => Event::Tick,
            reached = phase.next() => Event::Link(reached),
            () = self.wake.notified() => Event::Woken,
        }
    }

    /// P2: the session and all runs are over; a later answer revives nothing.
    async fn fenced(&mut self, phase: &mut Phase, why: &str) {
        if !self.runs.is_empty() {
            tracing::error!(why, fence_after = ?self.fence_after, "the worker ends all its runs");
        }
        self.runs.fence_all().await;
        if phase.link().is_some() || matches!(phase, Phase::Attaching(_)) {
            self.sent.clear();
            *phase = self.targets.failed();
        }
    }

    async fn linked(&mut self, phase: &mut Phase, reached: Reached) -> Result<()> {
        match reached {
            Reached::Time => *phase = self.targets.dial(),
            Reached::Dialed(Ok(channel)) => {
                self.links += 1;
                self.sent.clear();
                let hello = self.hello();
                self.answered_at = Instant::now();
                *phase = attach(self.targets.wire(), channel, hello, self.links);
            }
            Reached::Attached(Ok(link)) => *phase = Phase::Linked(Box::new(link)),
            Reached::Dialed(Err(error)) | Reached::Attached(Err(error)) => {
                if self.may_complain() {
                    tracing::warn!(error, coordinators = ?self.config.coordinators, "no coordinator is reached, asking on");
                }
                *phase = self.targets.failed();
            }
            Reached::Message(None) => {
                tracing::info!(coordinator = self.targets.current(), "the session ended, asking again");
                *phase = self.targets.failed();
            }
            Reached::Message(Some(message)) => self.message(phase, message).await?,
        }
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.heartbeat += 1;
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((self.heartbeat, Instant::now()));
        self.next_heartbeat = Instant::now() + self.heartbeat_interval;
        self.heartbeat
    }

    fn hello(&mut self) -> v1::Hello {
        let (generation, revision) = self.leader;
        let heard = revision > 0;
        v1::Hello {
            exchange_address: self.exchange_address.clone(),
            worker: self.identity.worker.clone(),
            process: self.identity.process.clone(),
            instance: self.identity.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zone: self.config.zone.clone(),
            capacity: self.config.capacity,
            heartbeat: self.number(),
            running: self.runs.running(),
            protocol_from: Protocols::OURS.from(),
            protocol_to: Protocols::OURS.to(),
            newest_leader: heard.then_some(v1::Leader { generation, revision }),
        }
    }

    async fn message(&mut self, phase: &mut Phase, message: v1::CoordinatorMessage) -> Result<()> {
        let received = Instant::now();
        let Some(body) = message.message else { return Ok(()) };
        match body {
            Down::Redirect(redirect) => {
                tracing::debug!(leader = redirect.leader, "another coordinator leads");
                let known = !redirect.leader.is_empty() && redirect.leader != self.targets.current();
                *phase = self.targets.failed();
                self.targets.redirect(redirect.leader);
                if known {
                    *phase = self.targets.dial();
                }
                return Ok(());
            }
            Down::Refused(refused) => return self.refused(phase, refused),
            _ => {}
        }
        // P4: a deposed leader may still talk. After a restore revisions are small again, and the generation is another; a
        // coordinator of protocol 1 knows of none.
        let generation =
            if message.leader_generation == 0 { self.leader.0 } else { message.leader_generation };
        let leader = (generation, message.leader_revision);
        if leader < self.leader {
            return Ok(());
        }
        self.leader = leader;
        match body {
            Down::Welcome(welcome) => {
                self.breathes_in_time(&welcome)?;
                self.speaks(welcome.protocol)?;
                self.welcomed(phase, &welcome);
            }
            Down::Answer(answer) => {
                self.runs.keep_pace(answer.pace.map(from_wire).unwrap_or_default());
                if !self.answered(answer.number) {
                    self.fenced(phase, "an answer came too late").await;
                }
            }
            Down::SetTasks(list) => self.list(phase, list, received).await,
            Down::Committed(committed) => self.runs.committed(&committed, received),
            Down::Redirect(_) | Down::Refused(_) => {}
        }
        Ok(())
    }

    /// Whoever has never spoken for the name waits until it is free. Whoever has and is refused has lost it to another process:
    /// it must not come back, also if a new leader knows nothing of that (P1, P2).
    fn refused(&mut self, phase: &mut Phase, refused: v1::Refused) -> Result<()> {
        let waits = refused.retry && !self.joined;
        if waits || self.stopping.is_some() {
            if self.may_complain() {
                tracing::warn!(reason = refused.reason, "the coordinator refused this worker, asking again");
            }
            *phase = self.targets.failed();
            return Ok(());
        }
        Err(Error::Refused { worker: self.identity.worker.clone(), reason: refused.reason })
    }

    /// True once a minute.
    fn may_complain(&mut self) -> bool {
        let may = self.complained_at.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY);
        if may {
            self.complained_at = Some(Instant::now());
        }
        may
    }

    /// P10: the gates of others count on every request to be over by then.
    fn breathes_in_time(&self, welcome: &v1::Welcome) -> Result<()> {
        let own = self.config.write_attempt_timeout + self.config.late_write_margin;
        match welcome.last_breath.map(from_wire).filter(|allowed| own > *allowed) {
            None => Ok(()),
            Some(allowed) => Err(Error::Config(format!(
                "`worker.write_attempt_timeout` + `worker.late_write_margin` ({own:?}) exceed those of \
                 [coordinator.timing] ({allowed:?}): every worker and coordinator must agree on them"
            ))),
        }
    }

    /// A coordinator of before protocol 2 does not look at what a worker speaks, and one that is mistaken must be told.
    fn speaks(&self, protocol: u32) -> Result<()> {
        let them = Protocols::said(protocol, protocol);
        let us = format!("this worker (release {})", env!("CARGO_PKG_VERSION"));
        let theirs = format!("the coordinator at {}", self.targets.current());
        Protocols::OURS.agree(them, (&us, &theirs)).map(drop).map_err(Error::Config)
    }

    fn welcomed(&mut self, phase: &mut Phase, welcome: &v1::Welcome) {
        tracing::info!(coordinator = self.targets.current(), "the session stands");
        let positive = |d: Option<prost_types::Duration>| d.map(from_wire).filter(|d| !d.is_zero());
        self.heartbeat_interval = positive(welcome.heartbeat_interval).unwrap_or(self.heartbeat_interval);
        self.fence_after = positive(welcome.fence_after).unwrap_or(self.fence_after);
        if let Some(link) = phase.link() {
            link.welcomed = true;
        }
        // P1: the join counts once the process has answered in this stream.
        self.beat(phase);
    }

    /// P2: the deadline moves to the sending of this heartbeat plus `fence_after`. False: it had passed before.
    fn answered(&mut self, number: u64) -> bool {
        let Some((_, sent)) = self.sent.iter().find(|(n, _)| *n == number).copied() else {
            return self.runs.fence().holds();
        };
        let sent = if mutant::on("fence_from_answer") { Instant::now() } else { sent };
        self.sent.retain(|(n, _)| *n >= number);
        self.answered_at = Instant::now();
        self.runs.fence().extend(sent + self.fence_after)
    }

    async fn list(&mut self, phase: &mut Phase, list: v1::SetTasks, received: Instant) {
        let heartbeat =
            if mutant::on("list_answers_unseen_heartbeats") { self.heartbeat } else { list.heartbeat };
        if !self.answered(heartbeat) {
            return self.fenced(phase, "a list came past the deadline").await;
        }
        if self.runs.fence().deadline().is_none() {
            tracing::error!(heartbeat = list.heartbeat, "a list that answers no heartbeat is ignored");
            return;
        }
        self.joined = true;
        self.nothing_listed = list.run.is_empty() && list.stop.is_empty();
        let first = phase.link().is_some_and(|link| !std::mem::replace(&mut link.listed, true));
        if first {
            // Only now: a session that is welcomed and then refused is no reason to come back at once.
            self.targets.worked();
        }
        if first && self.stopping.is_some() {
            self.send(phase, Up::Drain(v1::Drain {}));
        }
        for released in self.runs.apply(list, received).await {
            self.send(phase, Up::Released(released));
        }
    }

    /// Never waits: a stream that takes no more is dead.
    fn send(&mut self, phase: &mut Phase, message: Up) {
        let Some(link) = phase.link() else { return };
        if link.up.try_send(v1::WorkerMessage { message: Some(message) }).is_err() {
            tracing::warn!("the session takes no more messages, asking again");
            *phase = self.targets.failed();
        }
    }

    fn beat(&mut self, phase: &mut Phase) {
        let now = Instant::now();
        let reports = self.runs.reports(self.links, now);
        let (budget_used, budget_size) = (self.budget.used(), self.budget.size());
        let number = self.number();
        let (cpu, cores) = self.cpu.rate();
        let beat = v1::Heartbeat { number, reports, budget_used, budget_size, cpu, cores };
        self.send(phase, Up::Heartbeat(beat));
    }

    fn progress(&mut self, phase: &mut Phase) {
        let Some(link) = phase.link().filter(|link| link.listed) else { return };
        let id = link.id;
        for ended in self.runs.splits_ended() {
            self.send(phase, Up::SplitEnded(ended));
        }
        let tasks = self.runs.progress(id, Instant::now());
        if !tasks.is_empty() {
            self.send(phase, Up::Progress(v1::Progress { tasks }));
        }
    }

    fn tick(&mut self, phase: &mut Phase) {
        let now = Instant::now();
        self.tick_at = now + PROGRESS_TICK;
        self.runs.drop_late(now);
        self.runs.measure(now);
        if let Some(stopping) = self.stopping {
            if now >= stopping.deadline {
                self.runs.drain_all(now);
                self.runs.drop_late(now);
            } else if now >= stopping.patience {
                self.runs.drain_all(stopping.deadline);
            }
        }
        let Some(link) = phase.link() else { return };
        // A leader that is merely silent may be dead: another one may lead before the fence is due.
        if now.saturating_duration_since(self.answered_at) >= self.fence_after / 2 {
            tracing::warn!(coordinator = self.targets.current(), "no answer, asking elsewhere");
            *phase = self.targets.failed();
            return;
        }
        if link.welcomed {
            if now >= self.next_heartbeat {
                self.beat(phase);
            }
            self.progress(phase);
        }
    }

    fn begin_stop(&mut self, phase: &mut Phase) {
        let now = Instant::now();
        tracing::info!(within = ?self.config.drain_deadline, "stopping: every task is handed over");
        let patience = now + HANDOFF_PATIENCE.min(self.config.drain_deadline / 4);
        let deadline = now + self.config.drain_deadline;
        self.stopping = Some(Stopping { deadline, patience, empty_since: None });
        self.send(phase, Up::Drain(v1::Drain {}));
    }

    /// True when an orderly stop is done: nothing runs, and the leader knows it or cannot be told in time.
    fn has_left(&mut self, phase: &mut Phase) -> bool {
        let known = self.nothing_listed && phase.link().is_some_and(|link| link.listed);
        let empty = self.runs.is_empty();
        let Some(stopping) = &mut self.stopping else { return false };
        if !empty {
            stopping.empty_since = None;
            return false;
        }
        let now = Instant::now();
        let since = *stopping.empty_since.get_or_insert(now);
        let waited = now.saturating_duration_since(since) >= HANDOFF_PATIENCE / 2;
        known || waited || now >= stopping.deadline + HANDOFF_PATIENCE
    }
}
