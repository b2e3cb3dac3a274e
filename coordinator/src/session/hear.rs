//! What a worker says, and what the term makes of it.

use std::time::Duration;

use logic::{
    assign::cost::Sample,
    checkpoint::{Moved, Verdict},
    gate::{Failure, Released},
    mutant,
    plan::{FORGIVEN_AFTER, RunReport},
};
use model::{Epoch, Position, TaskId, Timestamp};
use opentelemetry::KeyValue;
use proto::v1::{self, coordinator_message::Message, worker_message};
use store::{Guard, WorkerKey};
use tokio_util::sync::CancellationToken;

use super::{Outbound, Session, list::to_wire};
use crate::{
    events::Level,
    handle::BadRow,
    membership::{self, Verdict as JoinVerdict},
    term::{Failures, Outcome, State, Term},
};

/// How many bad records are kept for users to look at, of all sources.
const BAD_KEPT_ALL: usize = 10_000;
/// The same of one source: a bad one does not push out what others said.
const BAD_KEPT: usize = 1000;

impl Term {
    /// A stream said hello: it becomes a candidate and is welcomed. Its answer will make the join count (P1).
    pub(super) fn open_session(
        &self,
        hello: v1::Hello,
        protocol: u32,
        out: Outbound,
    ) -> (u64, CancellationToken) {
        let timing = &self.config.timing;
        let end = CancellationToken::new();
        let session = Session {
            heartbeat: hello.heartbeat,
            hello,
            joined: false,
            leaving: false,
            budget: (0, 0),
            cpu: (0.0, 0),
            heard_at: self.clock.now(),
            out,
            end: end.clone(),
            sent: None,
            strays: Vec::new(),
        };
        session.send(
            self.leader(),
            Message::Welcome(v1::Welcome {
                heartbeat_interval: Some(to_wire(timing.heartbeat)),
                fence_after: Some(to_wire(timing.fence_after)),
                handoff_deadline: Some(to_wire(timing.handoff_deadline)),
                last_breath: Some(to_wire(timing.last_breath())),
                protocol,
            }),
        );
        let mut state = self.state();
        state.session_next += 1;
        let id = state.session_next;
        state.sessions.insert(id, session);
        (id, end)
    }

    /// The stream is over. Whether its process is, only silence tells.
    pub(super) fn close_session(&self, id: u64) {
        let mut state = self.state();
        if let Some(session) = state.sessions.remove(&id)
            && session.joined
            && session.leaving
        {
            // An orderly stop ends its stream last: nobody needs to wait for its silence to be sure of what it released.
            self.nudge.notify_one();
        }
    }

    /// One message of a session.
    pub(super) async fn hear(&self, id: u64, message: worker_message::Message) {
        match message {
            worker_message::Message::Heartbeat(heartbeat) => self.heartbeat(id, heartbeat).await,
            worker_message::Message::Progress(progress) => {
                let mut state = self.state();
                if joined(&state, id) {
                    for mut progress in progress.tasks {
                        let traceparent = std::mem::take(&mut progress.traceparent);
                        let Some(moved) = moved(progress) else { continue };
                        state.trace(&moved.task, traceparent);
                        self.progress(&mut state, id, moved);
                    }
                    self.moved.notify_one();
                }
            }
            worker_message::Message::Released(released) => self.released(id, released),
            worker_message::Message::SplitEnded(ended) => {
                if let Ok(source) = ended.source_id.parse() {
                    self.state().wake_discovery(source);
                }
            }
            worker_message::Message::Drain(_) => self.leaving(id),
            worker_message::Message::Hello(_) => {
                if let Some(session) = self.state().sessions.get(&id) {
                    session.end.cancel();
                }
            }
        }
    }

    async fn heartbeat(&self, id: u64, heartbeat: v1::Heartbeat) {
        let must_join = {
            let mut state = self.state();
            let loaded = state.loaded;
            let Some(session) = state.sessions.get_mut(&id) else { return };
            session.heartbeat = session.heartbeat.max(heartbeat.number);
            session.budget = (heartbeat.budget_used, heartbeat.budget_size);
            session.cpu = (heartbeat.cpu, heartbeat.cores);
            session.heard_at = self.clock.now();
            loaded && !session.joined
        };
        if must_join && !self.join(id).await {
            return;
        }
        let mut state = self.state();
        let now = self.clock.now();
        let Some(session) = state.sessions.get(&id) else { return };
        let process = session.hello.process.clone();
        if session.joined || (mutant::on("list_before_loaded") && !state.loaded) {
            membership::heartbeat(&mut state.memory.observed.heard, &process, now);
            for report in heartbeat.reports {
                self.report(&mut state, &process, report);
            }
            if !self.send_list(&mut state, id) {
                return;
            }
        } else if state.loaded {
            // It loaded between the two looks: the next heartbeat joins.
            return;
        }
        let pace = state.checkpoint_pace(self);
        // A leader answers only while it is sure to be one (P3).
        if let Some(session) = state.sessions.get(&id)
            && self.may_answer()
        {
            let pace = Some(to_wire(pace));
            let answer = v1::HeartbeatAnswer { number: session.heartbeat, pace };
            session.send(self.leader(), Message::Answer(answer));
        }
    }

    /// A position. A run that is not the task's current one is told to stop at once.
    fn progress(&self, state: &mut State, id: u64, moved: Moved) {
        let run = (moved.task.clone(), moved.epoch);
        if state.take_progress(self, moved) != Verdict::Fenced {
            return;
        }
        if let Some(session) = state.sessions.get_mut(&id)
            && !session.strays.contains(&run)
        {
            let labels = [("task", run.0.to_string()), ("epoch", run.1.to_string())];
            let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
            self.events.tell(
                Level::Warn,
                "task_fenced",
                "a run that is not the current one moved on",
                &labels,
            );
            session.strays.push(run);
            state.memory.lists += 1;
            self.send_list(state, id);
        }
    }

    /// Makes a candidate's join count, or refuses it (P1). `false` if the session is over or must wait.
    async fn join(&self, id: u64) -> bool {
        let _one_at_a_time = self.joining.lock().await;
        let (hello, record, stored) = {
            let state = self.state();
            let Some(session) = state.sessions.get(&id) else { return false };
            let hello = session.hello.clone();
            let stored = state.memory.view.workers.get(&hello.worker).cloned();
            let record = membership::record_of(&hello, stored.as_ref().map(|s| &s.value));
            (hello, record, stored)
        };
        if !self.admits(id, &hello) {
            return false;
        }
        if self.sees_restore(&hello).await {
            return false;
        }
        // The record comes first: the next leader must know whom this name stood for.
        if stored.as_ref().is_none_or(|stored| stored.value != record) {
            let keys = self.state().memory.keys.clone();
            let key = keys.worker(&hello.worker);
            let guard = stored.map_or(Guard::Absent(key.clone()), |s| Guard::Unchanged(key, s.mod_revision));
            let write = keys.put::<WorkerKey>(&hello.worker, &record);
            match self.commit(vec![guard], vec![write]).await {
                Ok(Outcome::Done(_)) => {}
                Ok(Outcome::Lost(_)) => return false,
                Err(error) => {
                    tracing::warn!(worker = hello.worker, %error, "join was not stored");
                    return false;
                }
            }
        }
        if !self.admits(id, &hello) {
            return false;
        }
        self.joined(id, &hello, &record);
        true
    }

    /// Whether a process may join now; refuses it if not. One that waits may ask again, one that is over must not.
    fn admits(&self, id: u64, hello: &v1::Hello) -> bool {
        match self.verdict(id, hello) {
            JoinVerdict::Join => return true,
            JoinVerdict::Wait(why) => self.refuse(id, why, true),
            JoinVerdict::Over(why) => self.refuse(id, why, false),
        }
        false
    }

    fn verdict(&self, id: u64, hello: &v1::Hello) -> JoinVerdict {
        if hello.worker.is_empty() || hello.process.is_empty() {
            return JoinVerdict::Over("a hello must name its worker and its process".to_owned());
        }
        let state = self.state();
        // An instance runs one process at a time. Of two that have answered, the later one is the one whose hello came later, even
        // if the answer of the other, dead by now, came last.
        if !hello.instance.is_empty()
            && state.instances.get(&hello.instance).is_some_and(|newest| *newest > id)
        {
            let process = &hello.process;
            return JoinVerdict::Over(format!(
                "a later session of its instance has joined before process {process}"
            ));
        }
        let stored = state.memory.view.workers.get(&hello.worker).map(|stored| &stored.value);
        let heard = &state.memory.observed.heard;
        membership::may_join(heard, hello, stored, self.clock.now(), self.config.timing.session_timeout)
    }

    fn refuse(&self, id: u64, reason: String, retry: bool) {
        let mut state = self.state();
        if let Some(session) = state.sessions.remove(&id) {
            let worker = session.hello.worker.clone();
            self.events.tell(Level::Warn, "worker_refused", reason.as_str(), &[("worker", &worker)]);
            session.send(self.leader(), Message::Refused(v1::Refused { reason, retry }));
            session.end.cancel();
        }
    }

    fn joined(&self, id: u64, hello: &v1::Hello, record: &model::WorkerRecord) {
        let mut state = self.state();
        // The join ends every other session under this name (P1).
        let others: Vec<u64> = state
            .sessions
            .iter()
            .filter(|(other, s)| **other != id && s.joined && s.hello.worker == hello.worker)
            .map(|(other, _)| *other)
            .collect();
        let mut leaving = false;
        for other in others {
            if let Some(old) = state.sessions.remove(&other) {
                leaving |= old.leaving && old.hello.process == hello.process;
                old.end.cancel();
            }
        }
        state.instances.insert(hello.instance.clone(), id);
        let strays = strays(&state, hello);
        let back = state.memory.observed.heard.processes.contains_key(&hello.process);
        membership::join(&mut state.memory.observed.heard, &hello.worker, record, self.clock.now());
        state.memory.lists += 1;
        if let Some(session) = state.sessions.get_mut(&id) {
            session.joined = true;
            session.leaving = leaving;
            session.strays = strays;
        }
        if !back {
            let message = format!("worker `{}` joined", hello.worker);
            let labels = [("worker", hello.worker.as_str()), ("process", hello.process.as_str())];
            self.events.tell(Level::Info, "worker_joined", message, &labels);
        }
        self.nudge.notify_one();
    }

    /// An orderly stop: its tasks go to others, and it gets no new ones.
    fn leaving(&self, id: u64) {
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(&id).filter(|session| session.joined) else { return };
        session.leaving = true;
        let (worker, process) = (session.hello.worker.clone(), session.hello.process.clone());
        if let Some(process) = state.memory.observed.heard.processes.get_mut(&process)
            && !process.draining
        {
            process.draining = true;
            let message = format!("worker `{worker}` stops in order");
            self.events.tell(Level::Info, "worker_draining", message, &[("worker", &worker)]);
        }
        self.nudge.notify_one();
    }

    /// A run is over. Its last position is made durable first, and only then the run counts as released.
    fn released(&self, id: u64, mut released: v1::Released) {
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(&id).filter(|session| session.joined) else { return };
        let Some((task, epoch)) = run_of(released.task.as_ref(), released.epoch) else { return };
        session.strays.retain(|stray| *stray != (task.clone(), epoch));
        // Heard already, or of a run that nothing names any more.
        let observed = &state.memory.observed;
        if !observed.names(&task, epoch) || observed.heard.releases.contains_key(&(task.clone(), epoch)) {
            state.memory.lists += 1;
            return;
        }
        for record in std::mem::take(&mut released.bad) {
            state.keep_bad(&task, record);
        }
        let failure = state.failure(&task, &released, self.clock.now());
        let release = Released { drained: released.drained, at: self.clock.now(), failure };
        match released.final_progress.and_then(moved).filter(|last| last.task == task && last.epoch == epoch)
        {
            Some(last) => {
                state.release_after(self, last, release);
                self.moved.notify_one();
            }
            None => self.count_release(&mut state, (task, epoch), release),
        }
    }

    /// The run counts as released from now on.
    pub(crate) fn count_release(&self, state: &mut State, run: (TaskId, Epoch), release: Released) {
        let (task, epoch) = (run.0.to_string(), run.1.to_string());
        let labels = [("task", task.as_str()), ("epoch", epoch.as_str())];
        match &release.failure {
            Some(failure) => self.events.tell(Level::Warn, "task_failed", failure.message.as_str(), &labels),
            None => {
                let how = if release.drained { "drained" } else { "stopped" };
                self.events.tell(Level::Info, "task_released", format!("the run {how}"), &labels);
            }
        }
        if let Some(order) = state.memory.observed.stopping.get(&run) {
            let took = self.clock.now().saturating_sub(order.at);
            self.meters.handoff.record(took.as_secs_f64(), &[]);
        }
        state.memory.observed.heard.releases.entry(run).or_insert(release);
        state.memory.lists += 1;
        self.nudge.notify_one();
    }

    fn report(&self, state: &mut State, process: &str, mut report: v1::Report) {
        let Some((task, epoch)) = run_of(report.task.as_ref(), report.epoch) else { return };
        let ours = |(current, run): &(Epoch, model::Assignment)| *current == epoch && run.process == process;
        if !state.memory.observed.assignments.get(&task).is_some_and(ours) {
            return;
        }
        for record in std::mem::take(&mut report.bad) {
            state.keep_bad(&task, record);
        }
        let failed = (report.state() == v1::RunState::Failed).then(|| report.error.clone());
        let sample = Sample {
            bytes_per_second: report.bytes_per_second,
            records_per_second: report.records_per_second,
            lag: Duration::from_millis(report.lag_ms.unwrap_or(0)),
        };
        let seen = RunReport { epoch, failed, sample };
        let before = state.memory.observed.reported(task.clone(), seen.clone(), self.clock.now());
        if before.is_none_or(|before| before.failed.is_some() != seen.failed.is_some()) {
            if let Some(error) = &seen.failed {
                let task = task.to_string();
                self.events.tell(Level::Error, "task_failed", error.as_str(), &[("task", task.as_str())]);
            }
            self.nudge.notify_one();
        }
        state.reports.insert(task, report);
    }
}

impl Term {
    /// A run found that records were gone before it could read them (S8).
    pub(crate) fn gap(&self, state: &State, task: &TaskId, gap: &str) {
        let Some(sink) = state.memory.sink(task.sink) else { return };
        let split = task.work.to_string();
        let labels = [("source", sink.source_name.as_str()), ("sink", &sink.name), ("split", &split)];
        let message = format!("split `{split}` for sink `{}`: {gap}", sink.name);
        self.events.tell(Level::Error, "data_loss", message, &labels);
        self.meters.data_loss.add(1, &[KeyValue::new("reason", "gap")]);
    }
}

impl State {
    fn keep_bad(&mut self, task: &TaskId, record: v1::BadRecord) {
        let Some(sink) = self.memory.sink(task.sink) else { return };
        let row = BadRow {
            source: sink.source_name.clone(),
            sink: sink.name.clone(),
            split: task.work.to_string(),
            record,
        };
        let same = |kept: &BadRow| kept.source == row.source;
        if self.bad.len() >= BAD_KEPT_ALL {
            self.bad.pop_front();
        } else if self.bad.iter().filter(|kept| same(kept)).count() >= BAD_KEPT
            && let Some(oldest) = self.bad.iter().position(same)
        {
            self.bad.remove(oldest);
        }
        self.bad.push_back(row);
    }

    /// Why a run ended by itself, and the how-many-th time in a row.
    fn failure(&mut self, task: &TaskId, released: &v1::Released, now: Duration) -> Option<Failure> {
        if released.error.is_empty() {
            return None;
        }
        let at = self.memory.observed.checkpoints.get(task).map_or(0, |checkpoint| checkpoint.revision);
        let count = in_a_row(self.failures.get(task), at, now);
        self.failures.insert(task.clone(), Failures { checkpoint: at, count, last: now });
        Some(Failure {
            needs_human: matches!(released.error_kind.as_str(), "config" | "denied" | "rejected"),
            message: released.error.clone(),
            count,
        })
    }
}

/// The how-many-th failure in a row another one is: a moved checkpoint starts the count anew, and so does a long time without
/// any, which is all that tells of a partition, since it has no checkpoint.
fn in_a_row(before: Option<&Failures>, checkpoint: u64, now: Duration) -> u32 {
    match before {
        Some(before) if before.checkpoint == checkpoint && now < before.last + FORGIVEN_AFTER => {
            before.count + 1
        }
        _ => 1,
    }
}

fn joined(state: &State, id: u64) -> bool {
    state.sessions.get(&id).is_some_and(|session| session.joined)
}

/// The runs that a process says it has and that are not assigned to it.
fn strays(state: &State, hello: &v1::Hello) -> Vec<(TaskId, Epoch)> {
    hello
        .running
        .iter()
        .filter_map(|run| run_of(run.task.as_ref(), run.epoch))
        .filter(|(task, epoch)| {
            let assigned = state.memory.observed.assignments.get(task);
            !assigned.is_some_and(|(current, run)| current == epoch && run.process == hello.process)
        })
        .collect()
}

pub(crate) fn run_of(task: Option<&v1::Task>, epoch: Option<v1::Epoch>) -> Option<(TaskId, Epoch)> {
    Some((TaskId::try_from(task?).ok()?, epoch?.into()))
}

/// A progress message in the model's words; nothing if it lacks something.
fn moved(progress: v1::TaskProgress) -> Option<Moved> {
    let (task, epoch) = run_of(progress.task.as_ref(), progress.epoch)?;
    Some(Moved {
        task,
        epoch,
        serial: progress.serial,
        position: Position::try_from(progress.position?).ok()?,
        records: progress.records,
        caught_up_at: progress.caught_up_at_ms.map(Timestamp),
        gap: Some(progress.gap).filter(|gap| !gap.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_in_a_row_while_the_checkpoint_stands_and_not_much_time_passes() {
        let before = Failures { checkpoint: 0, count: 6, last: Duration::from_secs(1000) };
        let next = |checkpoint, seconds| in_a_row(Some(&before), checkpoint, Duration::from_secs(seconds));
        assert_eq!(next(0, 1031), 7);
        assert_eq!(next(0, 1299), 7);
        assert_eq!(next(0, 1300), 1, "it ran for minutes in between");
        assert_eq!(next(9, 1031), 1, "it passed what it could not pass");
        assert_eq!(in_a_row(None, 0, Duration::ZERO), 1);
    }
}
