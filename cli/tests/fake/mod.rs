//! A coordinator that answers from a script.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, stream};
use proto::{
    Protocols,
    v1::{
        AgreeReply, AgreeRequest, DescribeSplitReply, DescribeSplitRequest, DrainProgress,
        DrainWorkerRequest, Event, ExecuteReply, ExecuteRequest, ListErrorsReply, ListErrorsRequest,
        ListSplitsRequest, ListWorkersReply, ListWorkersRequest, PauseSinkReply, PauseSinkRequest,
        ResetPositionReply, ResetPositionRequest, ResultColumn, ResultSet, ResumeSinkReply,
        ResumeSinkRequest, RotateSecretsReply, RotateSecretsRequest, Row, ScaleReply, ScaleRequest,
        SinkStatus, SourceStatus, SplitStatus, StatusReply, StatusRequest, Value, WatchEventsRequest,
        WorkerStatus,
        admin_server::{Admin, AdminServer},
        execute_reply::Answer,
        versions_server::{Versions, VersionsServer},
    },
};
use tonic::{Code, Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Outcome<T> = Result<Response<T>, Status>;

/// The running fake.
pub struct Fake {
    /// Where it listens.
    pub url: String,
    /// The resets that were asked for.
    pub resets: Arc<Mutex<Vec<ResetPositionRequest>>>,
    _server: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// The same, of a release that speaks these protocols.
    #[allow(dead_code, reason = "not every file of tests meets other releases")]
    pub async fn speaking(from: u32, to: u32) -> Self {
        Self::serve(Some(Speaks(Protocols::said(from, to)))).await
    }

    async fn serve(versions: Option<Speaks>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let script = Script::default();
        let resets = Arc::clone(&script.resets);
        let service = AdminServer::new(script);
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .add_optional_service(versions.map(VersionsServer::new))
            .serve_with_incoming(incoming);
        Self { url, resets, _server: tokio::spawn(async move { server.await.unwrap() }) }
    }
}

/// What a coordinator of another release says to those who ask.
struct Speaks(Protocols);

#[tonic::async_trait]
impl Versions for Speaks {
    async fn agree(&self, request: Request<AgreeRequest>) -> Outcome<AgreeReply> {
        let AgreeRequest { protocol_from, protocol_to } = request.into_inner();
        let them = Protocols::said(protocol_from, protocol_to);
        let agreed = self.0.agree(them, ("the coordinator", "the caller"));
        let protocol = agreed.map_err(Status::failed_precondition)?;
        Ok(Response::new(AgreeReply { protocol, protocol_from: self.0.from(), protocol_to: self.0.to() }))
    }
}

#[derive(Default)]
struct Script {
    seen: Arc<Mutex<BTreeSet<String>>>,
    resets: Arc<Mutex<Vec<ResetPositionRequest>>>,
}

fn answers<T: Send + 'static>(all: Vec<Result<T, Status>>) -> Outcome<Answers<T>> {
    Ok(Response::new(Box::pin(stream::iter(all))))
}

fn reply(answer: Answer) -> Result<ExecuteReply, Status> {
    Ok(ExecuteReply { statement: 0, answer: Some(answer) })
}

fn tag(text: &str) -> Result<ExecuteReply, Status> {
    reply(Answer::Tag(text.to_owned()))
}

fn rows() -> ResultSet {
    let column = |name: &str, kind: &str| ResultColumn { name: name.to_owned(), r#type: kind.to_owned() };
    let row = |values: [Option<&str>; 2]| Row {
        values: values.into_iter().map(|v| Value { text: v.map(str::to_owned) }).collect(),
    };
    ResultSet {
        columns: vec![column("name", "character varying"), column("lag", "bigint")],
        rows: vec![row([Some("a"), Some("5")]), row([Some("b,c"), None])],
    }
}

fn split() -> SplitStatus {
    SplitStatus {
        source: "clicks".to_owned(),
        sink: "k".to_owned(),
        split: "shardId-1".to_owned(),
        state: "pending".to_owned(),
        lag_ms: Some(1250),
        waits_for: "split 2 waits for 1".to_owned(),
        ..SplitStatus::default()
    }
}

#[tonic::async_trait]
impl Admin for Script {
    type ExecuteStream = Answers<ExecuteReply>;
    type ListSplitsStream = Answers<SplitStatus>;
    type DrainWorkerStream = Answers<DrainProgress>;
    type WatchEventsStream = Answers<Event>;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Outcome<Self::ExecuteStream> {
        let ExecuteRequest { statement, request_id } = request.into_inner();
        if statement.contains("TABEL") {
            let message = "sql parser error: expected SOURCE or SINK, found TABEL";
            let facts = [("line", "2"), ("column", "6"), ("hint", "did you mean `TABLE`?")];
            return Err(proto::refusal(Code::InvalidArgument, "42601", message, &facts));
        }
        if statement == "HANGS" {
            return Ok(Response::new(Box::pin(stream::pending())));
        }
        if statement == "BREAKS ONCE" {
            let broken = self.seen.lock().unwrap().insert(request_id);
            let second = if broken { Err(Status::unavailable("gone")) } else { tag("SECOND") };
            return answers(vec![tag("FIRST"), second]);
        }
        if statement.starts_with("SHOW") {
            return answers(vec![reply(Answer::Rows(rows()))]);
        }
        let notice = "source \"s\" already exists, skipping".to_owned();
        answers(vec![reply(Answer::Notice(notice)), tag("CREATE SOURCE")])
    }

    async fn status(&self, _: Request<StatusRequest>) -> Outcome<StatusReply> {
        let worker =
            WorkerStatus { name: "w1".to_owned(), state: "live".to_owned(), ..WorkerStatus::default() };
        Ok(Response::new(StatusReply {
            cluster: "test".to_owned(),
            leader: "http://127.0.0.1:7070".to_owned(),
            store: "embedded".to_owned(),
            workers: vec![worker],
            splits: vec![split()],
            sources: vec![SourceStatus { name: "clicks".to_owned(), ..SourceStatus::default() }],
            sinks: ["k", "other"]
                .map(|name| SinkStatus { name: name.to_owned(), ..SinkStatus::default() })
                .to_vec(),
            warnings: vec!["no worker is live".to_owned()],
            ..StatusReply::default()
        }))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Outcome<ListWorkersReply> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn list_splits(&self, _: Request<ListSplitsRequest>) -> Outcome<Self::ListSplitsStream> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn describe_split(&self, request: Request<DescribeSplitRequest>) -> Outcome<DescribeSplitReply> {
        let DescribeSplitRequest { source, split: name } = request.into_inner();
        if source == "hangs" {
            std::future::pending::<()>().await;
        }
        if name != "shardId-1" {
            let message = format!("Catalog error: split `{name}` of source `{source}` not found");
            return Err(proto::refusal(Code::NotFound, "42P01", message, &[]));
        }
        Ok(Response::new(DescribeSplitReply { sinks: vec![split()] }))
    }

    async fn drain_worker(&self, request: Request<DrainWorkerRequest>) -> Outcome<Self::DrainWorkerStream> {
        let step =
            |tasks_left, waits_for: &str| Ok(DrainProgress { tasks_left, waits_for: waits_for.to_owned() });
        if request.into_inner().undo {
            return answers(vec![]);
        }
        answers(vec![step(2, "handing over"), step(0, "")])
    }

    async fn scale(&self, _: Request<ScaleRequest>) -> Outcome<ScaleReply> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn rotate_secrets(&self, _: Request<RotateSecretsRequest>) -> Outcome<RotateSecretsReply> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn pause_sink(&self, _: Request<PauseSinkRequest>) -> Outcome<PauseSinkReply> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn list_errors(&self, _: Request<ListErrorsRequest>) -> Outcome<ListErrorsReply> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn resume_sink(&self, _: Request<ResumeSinkRequest>) -> Outcome<ResumeSinkReply> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn reset_position(&self, request: Request<ResetPositionRequest>) -> Outcome<ResetPositionReply> {
        let asked = request.into_inner();
        self.resets.lock().unwrap().push(asked.clone());
        if asked.sink == "live" {
            let message = "sink \"live\" is not paused: pause it first";
            return Err(proto::refusal(Code::FailedPrecondition, "55000", message, &[]));
        }
        Ok(Response::new(ResetPositionReply { tasks: if asked.split.is_empty() { 2 } else { 1 } }))
    }

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Outcome<Self::WatchEventsStream> {
        let after = request.into_inner().after_event;
        let event = |number: u64, kind: &str| Event {
            number,
            at_ms: 1000,
            kind: kind.to_owned(),
            level: "INFO".to_owned(),
            message: format!("worker w1: {kind}"),
            labels: [("worker".to_owned(), "w1".to_owned())].into(),
        };
        let all = [event(1, "worker_joined"), event(2, "worker_lost")];
        answers(all.into_iter().filter(|event| event.number > after).map(Ok).collect())
    }
}
