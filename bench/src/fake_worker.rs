//! A worker that moves no data: it speaks the session protocol as a real one does, and says of each split that it gets that
//! it moves on every second.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use proto::v1::{self, coordinator_message as down, session_client::SessionClient, worker_message as up};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_stream::wrappers::ReceiverStream;

/// Heartbeats and progress both come so often, as those of a real worker.
const BEAT: Duration = Duration::from_secs(1);

/// Records that each split delivers in a second, as far as anybody is told.
const RECORDS: u64 = 50;

/// What all fake workers have seen together.
#[derive(Default)]
pub(crate) struct Seen {
    /// Splits that run, the newest list of each worker.
    pub(crate) running: AtomicUsize,
    /// Positions that were said to be durable.
    pub(crate) committed: AtomicU64,
}

/// One split, as far as this worker goes with it.
struct Run {
    epoch: Option<v1::Epoch>,
    serial: u64,
}

/// A fake worker with a session.
pub(crate) struct FakeWorker {
    up: mpsc::Sender<v1::WorkerMessage>,
    runs: BTreeMap<(String, String), (v1::Task, Run)>,
    seen: Arc<Seen>,
    beats: u64,
    /// How many beats pass between two words about a split whose state is as it was: the leader's pace.
    pace: u64,
}

/// Runs a fake worker until its session ends, which is an error. `late` is when its first second begins.
pub(crate) async fn run(url: String, number: u32, late: Duration, seen: Arc<Seen>) -> Result<()> {
    let mut client = SessionClient::connect(url).await?.max_decoding_message_size(proto::MESSAGE_BYTES_MAX);
    let (up, stream) = mpsc::channel(16);
    let name = format!("fake-{number:02}");
    let hello = v1::Hello {
        process: format!("{name}-process"),
        instance: format!("{name}-instance"),
        worker: name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capacity: 1,
        heartbeat: 1,
        ..v1::Hello::default()
    };
    let mut worker = FakeWorker { up, runs: BTreeMap::new(), seen, beats: 1, pace: 1 };
    worker.say(up::Message::Hello(hello)).await?;
    let mut inbound = client.attach(ReceiverStream::new(stream)).await?.into_inner();
    let start = Instant::now() + late;
    let mut heart = interval_at(start, BEAT);
    let mut progress = interval_at(start + BEAT / 2, BEAT);
    heart.set_missed_tick_behavior(MissedTickBehavior::Delay);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = inbound.message() => {
                let message = message?.context("the coordinator ended a session")?.message;
                worker.hear(message.context("an empty message")?).await?;
            }
            _ = heart.tick() => worker.heartbeat().await?,
            _ = progress.tick() => worker.progress().await?,
        }
    }
}

impl FakeWorker {
    async fn say(&self, message: up::Message) -> Result<()> {
        let message = v1::WorkerMessage { message: Some(message) };
        self.up.send(message).await.context("the session is over")
    }

    async fn hear(&mut self, message: down::Message) -> Result<()> {
        match message {
            down::Message::SetTasks(list) => self.take(list).await,
            down::Message::Committed(done) => {
                self.seen.committed.fetch_add(done.tasks.len() as u64, Ordering::Relaxed);
                Ok(())
            }
            // Its answer makes the join count (P1).
            down::Message::Welcome(_) => self.heartbeat().await,
            down::Message::Answer(answer) => {
                let pace = answer.pace.unwrap_or_default();
                self.pace = u64::try_from(pace.seconds).unwrap_or(0) + u64::from(pace.nanos > 0);
                self.pace = self.pace.max(1);
                Ok(())
            }
            down::Message::Redirect(_) => bail!("the coordinator does not lead"),
            down::Message::Refused(refused) => bail!("refused: {}", refused.reason),
        }
    }

    /// The whole list: what it had goes on, what is new begins, what is to stop has nothing in flight.
    async fn take(&mut self, list: v1::SetTasks) -> Result<()> {
        let before = self.runs.len();
        let mut known = std::mem::take(&mut self.runs);
        for v1::RunTask { task, epoch, .. } in list.run {
            let task = task.context("a run without its task")?;
            let key = (task.sink_id.clone(), task.split.clone());
            let run = known.remove(&key).filter(|(_, run)| run.epoch == epoch);
            self.runs.insert(key, run.unwrap_or((task, Run { epoch, serial: 0 })));
        }
        self.seen.running.fetch_add(self.runs.len(), Ordering::Relaxed);
        self.seen.running.fetch_sub(before, Ordering::Relaxed);
        for v1::StopTask { task, epoch, .. } in list.stop {
            let released = v1::Released { task, epoch, drained: true, ..v1::Released::default() };
            self.say(up::Message::Released(released)).await?;
        }
        Ok(())
    }

    async fn heartbeat(&mut self) -> Result<()> {
        self.beats += 1;
        let report = |(task, run): &(v1::Task, Run)| v1::Report {
            task: Some(task.clone()),
            epoch: run.epoch,
            state: v1::RunState::Running.into(),
            lag_ms: Some(run.serial % 1000),
            records_per_second: RECORDS as f64,
            bytes_per_second: RECORDS as f64 * 562.0,
            records_read: run.serial * RECORDS,
            records_delivered: run.serial * RECORDS,
            ..v1::Report::default()
        };
        let due = |(n, _): &(u64, _)| (self.beats + n).is_multiple_of(self.pace);
        let reports = (0..).zip(self.runs.values()).filter(due).map(|(_, run)| report(run)).collect();
        self.say(up::Message::Heartbeat(v1::Heartbeat {
            number: self.beats,
            reports,
            budget_used: 1 << 20,
            budget_size: 1 << 28,
            ..v1::Heartbeat::default()
        }))
        .await
    }

    async fn progress(&mut self) -> Result<()> {
        let move_on = |(task, run): &mut (v1::Task, Run)| {
            run.serial += 1;
            // As long as a sequence number of Kinesis.
            let cursor = format!("4959{:052}", run.serial * RECORDS);
            v1::TaskProgress {
                task: Some(task.clone()),
                epoch: run.epoch,
                position: Some(v1::Position { at: Some(v1::position::At::AfterCursor(cursor)) }),
                serial: run.serial,
                records: run.serial * RECORDS,
                caught_up_at_ms: None,
                gap: String::new(),
                traceparent: String::new(),
            }
        };
        let due = |(n, _): &(u64, _)| (self.beats + n).is_multiple_of(self.pace);
        let tasks: Vec<v1::TaskProgress> =
            (0..).zip(self.runs.values_mut()).filter(due).map(|(_, run)| move_on(run)).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        self.say(up::Message::Progress(v1::Progress { tasks })).await
    }
}
