//! A worker that speaks the session protocol and does nothing else: the test says what it reports.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{Epoch, Position, TaskId};
use proto::v1::{self, coordinator_message as down, session_client::SessionClient, worker_message as up};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::setup::until;

/// Everything that came down one session, in order.
#[derive(Default)]
pub struct Heard {
    pub messages: Vec<(u64, down::Message)>,
    pub over: bool,
}

/// One session of one process.
pub struct FakeWorker {
    pub name: String,
    up: mpsc::Sender<v1::WorkerMessage>,
    heard: Arc<Mutex<Heard>>,
    /// The newest heartbeat sent.
    beat: Arc<AtomicU64>,
    loops: Vec<JoinHandle<()>>,
}

/// How a fake worker behaves by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers each stop with `drained` at once.
    Obedient,
    /// Answers nothing but heartbeats.
    Stubborn,
}

impl FakeWorker {
    /// Connects, says hello, and sends heartbeats until dropped or silenced.
    pub async fn attach(url: &str, name: &str, process: &str, instance: &str, manner: Manner) -> Self {
        Self::attach_running(
            url,
            v1::Hello {
                worker: name.to_owned(),
                process: process.to_owned(),
                instance: instance.to_owned(),
                capacity: 1,
                version: "test".to_owned(),
                heartbeat: 1,
                ..v1::Hello::default()
            },
            manner,
        )
        .await
    }

    /// The same, with a hello of the caller's.
    pub async fn attach_running(url: &str, hello: v1::Hello, manner: Manner) -> Self {
        let name = hello.worker.clone();
        let mut client = SessionClient::connect(url.to_owned()).await.unwrap();
        let (up, stream) = mpsc::channel(64);
        up.send(message(up::Message::Hello(hello))).await.unwrap();
        let mut down = client.attach(ReceiverStream::new(stream)).await.unwrap().into_inner();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (seen, answers) = (Arc::clone(&heard), up.clone());
        let reader = tokio::spawn(async move {
            while let Some(Ok(v1::CoordinatorMessage { leader_revision, message: Some(one), .. })) =
                down.next().await
            {
                let stops = match &one {
                    down::Message::SetTasks(list) if manner == Manner::Obedient => list.stop.clone(),
                    _ => Vec::new(),
                };
                seen.lock().unwrap().messages.push((leader_revision, one));
                for stop in stops {
                    let released = v1::Released {
                        task: stop.task,
                        epoch: stop.epoch,
                        drained: true,
                        ..v1::Released::default()
                    };
                    answers.send(message(up::Message::Released(released))).await.ok();
                }
            }
            seen.lock().unwrap().over = true;
        });
        let (beats, beat) = (up.clone(), Arc::new(AtomicU64::new(1)));
        let newest = Arc::clone(&beat);
        let heart = tokio::spawn(async move {
            for number in 2.. {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let one = v1::Heartbeat { number, ..v1::Heartbeat::default() };
                if beats.send(message(up::Message::Heartbeat(one))).await.is_err() {
                    return;
                }
                newest.store(number, Ordering::SeqCst);
            }
        });
        Self { name, up, heard, beat, loops: vec![heart, reader] }
    }

    /// Sends a message.
    pub async fn say(&self, one: up::Message) {
        self.up.send(message(one)).await.unwrap();
    }

    /// No heartbeat comes any more; the stream stays open.
    pub fn fall_silent(&self) {
        self.loops[0].abort();
    }

    /// Looks at what came down.
    pub fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.lock().unwrap())
    }

    /// The newest list.
    pub fn list(&self) -> Option<v1::SetTasks> {
        self.heard(|heard| {
            heard.messages.iter().rev().find_map(|(_, one)| match one {
                down::Message::SetTasks(list) => Some(list.clone()),
                _ => None,
            })
        })
    }

    /// The runs of the newest list: split, epoch.
    pub fn runs(&self) -> Vec<(String, Epoch)> {
        let list = self.list().unwrap_or_default();
        list.run.into_iter().map(|run| (run.task.unwrap().split, run.epoch.unwrap().into())).collect()
    }

    /// The run of one split in the newest list.
    pub fn run_of(&self, split: &str) -> Option<v1::RunTask> {
        self.list()?.run.into_iter().find(|run| run.task.as_ref().is_some_and(|task| task.split == split))
    }

    /// Waits until the newest list has exactly these splits.
    pub async fn runs_exactly(&self, splits: &[&str]) -> Vec<(String, Epoch)> {
        let wanted = |worker: &Self| {
            worker.list().is_some()
                && worker.runs().iter().map(|(split, _)| split.as_str()).eq(splits.iter().copied())
        };
        until(&format!("{} runs {splits:?}", self.name), || wanted(self)).await;
        self.runs()
    }

    /// Reports a position of a run of the newest list.
    pub async fn progress(&self, run: &v1::RunTask, serial: u64, position: &Position) {
        let progress = progress(run, serial, position);
        self.say(up::Message::Progress(v1::Progress { tasks: vec![progress] })).await;
    }

    /// Waits until the coordinator has everything that was said: it answers a heartbeat that was sent later.
    pub async fn is_heard(&self) {
        // The newest one may be on its way into the channel.
        let later = self.beat.load(Ordering::SeqCst) + 2;
        until(&format!("heartbeat {later} of {} is answered", self.name), || {
            self.heard(|heard| {
                heard
                    .messages
                    .iter()
                    .any(|(_, one)| matches!(one, down::Message::Answer(answer) if answer.number >= later))
            })
        })
        .await;
    }

    /// Waits until a position is said to be durable.
    pub async fn committed(&self, split: &str, serial: u64) {
        until(&format!("{split} {serial} is committed"), || {
            self.heard(|heard| {
                heard.messages.iter().any(|(_, one)| {
                    matches!(one, down::Message::Committed(done) if done.tasks.iter().any(|task| {
                        task.serial == serial && task.task.as_ref().is_some_and(|task| task.split == split)
                    }))
                })
            })
        })
        .await;
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.loops.iter().for_each(JoinHandle::abort);
    }
}

/// A position as a worker reports it.
pub fn progress(run: &v1::RunTask, serial: u64, position: &Position) -> v1::TaskProgress {
    v1::TaskProgress {
        task: run.task.clone(),
        epoch: run.epoch,
        position: Some(proto::position_to_wire(position)),
        serial,
        records: serial * 10,
        caught_up_at_ms: None,
        gap: String::new(),
        traceparent: String::new(),
    }
}

/// The task of a run.
pub fn task(run: &v1::RunTask) -> TaskId {
    TaskId::try_from(run.task.as_ref().unwrap()).unwrap()
}

fn message(message: up::Message) -> v1::WorkerMessage {
    v1::WorkerMessage { message: Some(message) }
}
