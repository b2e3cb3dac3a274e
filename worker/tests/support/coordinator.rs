//! The coordinator's half of the session, by hand: it keeps what it hears and answers what the test allows.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{Epoch, Position, SinkSpec, SourceSpec, StartFrom, TaskId};
use proto::v1::{self, coordinator_message::Message as Down, session_server, worker_message::Message as Up};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

type Outbound = mpsc::Sender<Result<v1::CoordinatorMessage, Status>>;

/// How a fake coordinator behaves.
pub struct State {
    /// Revision in every message.
    pub revision: u64,
    /// Generation of the store in every message; unsaid by older coordinators.
    pub generation: u64,
    /// The protocol of the session; unsaid by older coordinators.
    pub protocol: u32,
    /// Whether heartbeats are answered.
    pub answers: bool,
    /// Whether progress is confirmed.
    pub commits: bool,
    /// Where a hello is sent instead.
    pub redirect: Option<String>,
    /// What a hello is refused with.
    pub refuse: Option<v1::Refused>,
    pub fence_after: Duration,
    /// What the gates assume; unsaid by older coordinators.
    pub last_breath: Option<Duration>,
    pub hellos: Vec<v1::Hello>,
    pub reports: Vec<v1::Report>,
    pub progress: Vec<v1::TaskProgress>,
    pub released: Vec<v1::Released>,
    pub ended: Vec<v1::SplitEnded>,
    pub drains: usize,
    heartbeat: u64,
    /// The stream has had a heartbeat that was answered, and so the list.
    listed: bool,
    out: Option<Outbound>,
    list: Option<v1::SetTasks>,
}

/// A fake coordinator on a port of its own.
pub struct Coordinator {
    pub state: Arc<Mutex<State>>,
    pub address: SocketAddr,
    cancel: CancellationToken,
}

struct Service(Arc<Mutex<State>>, CancellationToken);

impl State {
    fn send(&self, message: Down) {
        if let Some(out) = &self.out {
            let (leader_revision, leader_generation) = (self.revision, self.generation);
            let message =
                v1::CoordinatorMessage { leader_revision, leader_generation, message: Some(message) };
            out.try_send(Ok(message)).ok();
        }
    }

    fn send_list(&self) {
        if let Some(list) = &self.list {
            self.send(Down::SetTasks(v1::SetTasks { heartbeat: self.heartbeat, ..list.clone() }));
        }
    }

    fn hear(&mut self, message: Up) {
        match message {
            Up::Hello(hello) => {
                self.heartbeat = hello.heartbeat;
                self.listed = false;
                self.hellos.push(hello);
            }
            Up::Heartbeat(heartbeat) => {
                self.heartbeat = heartbeat.number;
                self.reports.extend(heartbeat.reports);
                if self.answers {
                    if !std::mem::replace(&mut self.listed, true) {
                        self.send_list();
                    }
                    self.send(Down::Answer(v1::HeartbeatAnswer { number: self.heartbeat, pace: None }));
                }
            }
            Up::Progress(progress) => {
                if self.commits {
                    self.send(Down::Committed(v1::Committed { tasks: progress.tasks.clone() }));
                }
                self.progress.extend(progress.tasks);
            }
            Up::Released(released) => self.released.push(released),
            Up::SplitEnded(ended) => self.ended.push(ended),
            Up::Drain(_) => self.drains += 1,
        }
    }
}

#[tonic::async_trait]
impl session_server::Session for Service {
    type AttachStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (out, stream) = mpsc::channel(256);
        let (shared, cancel) = (Arc::clone(&self.0), self.1.clone());
        tokio::spawn(async move {
            let mut inbound = request.into_inner();
            {
                let mut state = shared.lock().unwrap();
                state.out = Some(out);
                if let Some(leader) = state.redirect.clone() {
                    state.send(Down::Redirect(v1::Redirect { leader }));
                }
                if let Some(refused) = state.refuse.clone() {
                    state.send(Down::Refused(refused));
                }
                let duration = |d: Duration| Some(prost_types::Duration::try_from(d).unwrap());
                state.send(Down::Welcome(v1::Welcome {
                    heartbeat_interval: duration(Duration::from_millis(50)),
                    fence_after: duration(state.fence_after),
                    handoff_deadline: duration(Duration::from_secs(1)),
                    last_breath: state.last_breath.and_then(duration),
                    protocol: state.protocol,
                }));
            }
            loop {
                let message = tokio::select! {
                    () = cancel.cancelled() => break,
                    message = inbound.message() => message,
                };
                let Ok(Some(v1::WorkerMessage { message: Some(message) })) = message else { break };
                shared.lock().unwrap().hear(message);
            }
            shared.lock().unwrap().out = None;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Coordinator {
    /// One that answers and confirms, as the leader elected at `revision`.
    pub async fn start(revision: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            revision,
            generation: 0,
            protocol: 0,
            answers: true,
            commits: true,
            redirect: None,
            refuse: None,
            fence_after: Duration::from_millis(600),
            last_breath: None,
            hellos: vec![],
            reports: vec![],
            progress: vec![],
            released: vec![],
            ended: vec![],
            drains: 0,
            heartbeat: 0,
            listed: false,
            out: None,
            list: None,
        }));
        let cancel = CancellationToken::new();
        let service = session_server::SessionServer::new(Service(Arc::clone(&state), cancel.clone()));
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), cancel.clone().cancelled_owned());
        tokio::spawn(server);
        Self { state, address, cancel }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The process goes away.
    pub fn crash(&self) {
        self.cancel.cancel();
        self.state.lock().unwrap().out = None;
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    /// Sends a list, now and to every stream that comes.
    pub fn list(&self, list: v1::SetTasks) {
        self.with(|state| {
            state.list = Some(list);
            if state.answers {
                state.send_list();
            }
        });
    }

    /// Refuses the worker of the stream there is.
    pub fn refuse(&self, refused: v1::Refused) {
        self.with(|state| state.send(Down::Refused(refused)));
    }

    /// What was said of the end of an epoch.
    pub fn released(&self, epoch: Epoch) -> Vec<v1::Released> {
        self.with(|state| {
            let of = state.released.iter().filter(|r| r.epoch == Some(epoch.into()));
            of.cloned().collect()
        })
    }
}

/// A list under construction.
pub fn list(source: &SourceSpec, sink: &SinkSpec) -> v1::SetTasks {
    v1::SetTasks {
        sources: vec![serde_json::to_vec(source).unwrap()],
        sinks: vec![serde_json::to_vec(sink).unwrap()],
        ..v1::SetTasks::default()
    }
}

pub fn run(task: &TaskId, epoch: Epoch, source: &SourceSpec) -> v1::RunTask {
    v1::RunTask {
        partitions: None,
        task: Some(task.into()),
        epoch: Some(epoch.into()),
        source_id: source.id.to_string(),
        start: Some(proto::position_to_wire(&Position::Start(StartFrom::Horizon))),
        gate: None,
        readers: 1,
        caught_up_at_ms: None,
    }
}

pub fn stop(task: &TaskId, epoch: Epoch, deadline: Duration) -> v1::StopTask {
    v1::StopTask {
        task: Some(task.into()),
        epoch: Some(epoch.into()),
        deadline: Some(prost_types::Duration::try_from(deadline).unwrap()),
    }
}
