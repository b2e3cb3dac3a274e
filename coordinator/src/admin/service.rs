//! The gRPC surface: each call is answered here if this coordinator leads, else passed on.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream, stream::BoxStream};
use proto::v1::{self, admin_server::Admin, reset_position_request::To};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    error::Error,
    handle::{BadRow, Handle, Leader, ResetTo},
};

use super::{
    forward::{Forward, Side},
    refuse::Refusal,
    replay::{Outcome, Replay, Seen},
    show, statement,
};

/// How many replies wait for a slow reader.
const REPLIES: usize = 16;

/// How often a drain is looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

type Answered<T> = Result<Response<T>, Status>;
type Rows<T> = BoxStream<'static, Result<T, Status>>;

/// See [`super::service`].
pub struct AdminService {
    handle: Handle,
    forward: Forward,
    replay: Arc<Replay>,
}

impl AdminService {
    pub(super) fn new(handle: Handle) -> Self {
        let forward = Forward::new(handle.clone());
        Self { handle, forward, replay: Arc::default() }
    }

    async fn side<T>(&self, request: &Request<T>) -> Result<Side, Status> {
        self.forward.side(request.metadata()).await
    }

    fn execute_here(
        &self,
        leader: Leader,
        request: v1::ExecuteRequest,
    ) -> Result<Rows<v1::ExecuteReply>, Status> {
        let v1::ExecuteRequest { statement: text, request_id } = request;
        let statements = sql::parse(&text).map_err(Refusal::from)?;
        let slot = match request_id.as_str() {
            "" => None,
            id => match self.replay.see(id, &text, leader.revision()) {
                Seen::New(slot) => Some(slot),
                Seen::Before(slot) => {
                    let replies = async move { stream::iter(repeated(slot.wait_filled().await)) };
                    return Ok(stream::once(replies).flatten().boxed());
                }
                Seen::Mismatch => {
                    let text = "this request id was used for other statements";
                    return Err(proto::refusal(Code::InvalidArgument, "REQUEST_ID", text, &[]));
                }
            },
        };
        let (sender, replies) = mpsc::channel(REPLIES);
        let (handle, replay) = (self.handle.clone(), Arc::clone(&self.replay));
        // A task of its own: a caller that goes away must not stop a statement between its parts.
        tokio::spawn(async move {
            let outcome =
                statement::run_all(&handle, &leader, (&text, statements), &sender, slot.is_some()).await;
            if let Some(slot) = slot {
                replay.settle(&request_id, &outcome);
                slot.fill(outcome);
            }
        });
        Ok(ReceiverStream::new(replies).boxed())
    }
}

fn repeated(outcome: Outcome) -> Vec<Result<v1::ExecuteReply, Status>> {
    outcome.replies.into_iter().map(Ok).chain(outcome.error.map(Err)).collect()
}

fn relay<T: Send + 'static>(answer: Answered<Streaming<T>>) -> Answered<Rows<T>> {
    answer.map(|response| response.map(StreamExt::boxed))
}

fn refused(error: Error) -> Status {
    Refusal::from(error).into()
}

#[tonic::async_trait]
impl Admin for AdminService {
    type ExecuteStream = Rows<v1::ExecuteReply>;
    type ListSplitsStream = Rows<v1::SplitStatus>;
    type DrainWorkerStream = Rows<v1::DrainProgress>;
    type WatchEventsStream = Rows<v1::Event>;

    async fn execute(&self, request: Request<v1::ExecuteRequest>) -> Answered<Self::ExecuteStream> {
        match self.side(&request).await? {
            Side::Here(leader) => self.execute_here(leader, request.into_inner()).map(Response::new),
            Side::There(mut client) => relay(client.execute(self.forward.passed_on(request)?).await),
        }
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answered<v1::StatusReply> {
        match self.side(&request).await? {
            Side::Here(leader) => Ok(Response::new(leader.status())),
            Side::There(mut client) => client.status(self.forward.passed_on(request)?).await,
        }
    }

    async fn list_workers(&self, request: Request<v1::ListWorkersRequest>) -> Answered<v1::ListWorkersReply> {
        match self.side(&request).await? {
            Side::Here(leader) => Ok(Response::new(v1::ListWorkersReply { workers: leader.workers() })),
            Side::There(mut client) => client.list_workers(self.forward.passed_on(request)?).await,
        }
    }

    async fn list_splits(&self, request: Request<v1::ListSplitsRequest>) -> Answered<Self::ListSplitsStream> {
        match self.side(&request).await? {
            Side::Here(leader) => list_splits(&leader, &request.into_inner()).map(Response::new),
            Side::There(mut client) => relay(client.list_splits(self.forward.passed_on(request)?).await),
        }
    }

    async fn describe_split(
        &self,
        request: Request<v1::DescribeSplitRequest>,
    ) -> Answered<v1::DescribeSplitReply> {
        match self.side(&request).await? {
            Side::Here(leader) => {
                let asked = request.into_inner();
                let sinks = leader.describe_split(&asked.source, &asked.split).map_err(refused)?;
                Ok(Response::new(v1::DescribeSplitReply { sinks }))
            }
            Side::There(mut client) => client.describe_split(self.forward.passed_on(request)?).await,
        }
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Answered<Self::DrainWorkerStream> {
        match self.side(&request).await? {
            Side::Here(leader) => {
                let asked = request.into_inner();
                leader.drain_worker(&asked.worker, asked.undo).await.map_err(refused)?;
                let (sender, replies) = mpsc::channel(REPLIES);
                tokio::spawn(tell_drain(leader, asked, sender));
                Ok(Response::new(ReceiverStream::new(replies).boxed()))
            }
            Side::There(mut client) => relay(client.drain_worker(self.forward.passed_on(request)?).await),
        }
    }

    async fn scale(&self, request: Request<v1::ScaleRequest>) -> Answered<v1::ScaleReply> {
        match self.side(&request).await? {
            Side::Here(leader) => Ok(Response::new(leader.scale())),
            Side::There(mut client) => client.scale(self.forward.passed_on(request)?).await,
        }
    }

    async fn list_errors(&self, request: Request<v1::ListErrorsRequest>) -> Answered<v1::ListErrorsReply> {
        match self.side(&request).await? {
            Side::Here(leader) => {
                let name = request.into_inner().name;
                let name = sql::ObjectName { schema: None, name, place: sql::Place::default() };
                let rows = show::bad_rows(&leader, &name).map_err(Refusal::from)?;
                let row = |row: BadRow| v1::BadRow {
                    source: row.source,
                    sink: row.sink,
                    split: row.split,
                    cursor: row.record.cursor,
                    error: row.record.error,
                    sample: row.record.sample,
                    at_ms: row.record.at_ms,
                    policy: row.record.policy,
                };
                Ok(Response::new(v1::ListErrorsReply { rows: rows.into_iter().map(row).collect() }))
            }
            Side::There(mut client) => client.list_errors(self.forward.passed_on(request)?).await,
        }
    }

    async fn pause_sink(&self, request: Request<v1::PauseSinkRequest>) -> Answered<v1::PauseSinkReply> {
        match self.side(&request).await? {
            Side::Here(leader) => {
                leader.pause_sink(&request.into_inner().sink).await.map_err(refused)?;
                Ok(Response::new(v1::PauseSinkReply {}))
            }
            Side::There(mut client) => client.pause_sink(self.forward.passed_on(request)?).await,
        }
    }

    async fn resume_sink(&self, request: Request<v1::ResumeSinkRequest>) -> Answered<v1::ResumeSinkReply> {
        match self.side(&request).await? {
            Side::Here(leader) => {
                leader.resume_sink(&request.into_inner().sink).await.map_err(refused)?;
                Ok(Response::new(v1::ResumeSinkReply {}))
            }
            Side::There(mut client) => client.resume_sink(self.forward.passed_on(request)?).await,
        }
    }

    async fn reset_position(
        &self,
        request: Request<v1::ResetPositionRequest>,
    ) -> Answered<v1::ResetPositionReply> {
        match self.side(&request).await? {
            Side::Here(leader) => {
                let asked = request.into_inner();
                let split = (!asked.split.is_empty()).then_some(asked.split.as_str());
                let to = match asked.to {
                    Some(To::Horizon(_)) => ResetTo::Horizon,
                    Some(To::TimestampMs(at)) => ResetTo::At(at),
                    Some(To::AfterCursor(cursor)) => ResetTo::After(cursor),
                    None => {
                        let text = "say where to: horizon, timestamp_ms or after_cursor";
                        return Err(proto::refusal(Code::InvalidArgument, "22023", text, &[]));
                    }
                };
                let tasks = leader.reset_position(&asked.sink, split, to).await.map_err(refused)?;
                Ok(Response::new(v1::ResetPositionReply { tasks }))
            }
            Side::There(mut client) => client.reset_position(self.forward.passed_on(request)?).await,
        }
    }

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answered<Self::WatchEventsStream> {
        match self.side(&request).await? {
            Side::Here(leader) => {
                let (sender, events) = mpsc::channel(REPLIES);
                tokio::spawn(tell_events(leader, request.into_inner(), sender));
                Ok(Response::new(ReceiverStream::new(events).boxed()))
            }
            Side::There(mut client) => relay(client.watch_events(self.forward.passed_on(request)?).await),
        }
    }
}

fn list_splits(leader: &Leader, asked: &v1::ListSplitsRequest) -> Result<Rows<v1::SplitStatus>, Status> {
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let (source, sink) = (some(&asked.source), some(&asked.sink));
    let missing = |kind: &str, name: &str| {
        let text = format!("Catalog error: {kind} \"{name}\" does not exist");
        proto::refusal(Code::NotFound, "42P01", text, &[("object", name)])
    };
    if let Some(name) = &source
        && leader.source(name).is_none()
    {
        return Err(missing("source", name));
    }
    if let Some(name) = &sink
        && leader.sink(name).is_none()
    {
        return Err(missing("sink", name));
    }
    let splits = leader.splits(source.as_deref(), sink.as_deref(), asked.ended);
    Ok(stream::iter(splits.into_iter().map(Ok)).boxed())
}

/// Tells how many tasks are left whenever that changes, until none is.
async fn tell_drain(
    leader: Leader,
    asked: v1::DrainWorkerRequest,
    replies: mpsc::Sender<Result<v1::DrainProgress, Status>>,
) {
    let mut told = None;
    loop {
        let progress = match leader.drain_progress(&asked.worker) {
            Ok(progress) => progress,
            Err(error) => {
                _ = replies.send(Err(refused(error))).await;
                return;
            }
        };
        let done = asked.undo || progress.tasks_left == 0;
        if told.as_ref() != Some(&progress) {
            if replies.send(Ok(progress.clone())).await.is_err() {
                return;
            }
            told = Some(progress);
        }
        if done {
            return;
        }
        tokio::select! {
            biased;
            () = leader.lost() => {
                _ = replies.send(Err(refused(Error::not_leader()))).await;
                return;
            }
            () = replies.closed() => return,
            () = tokio::time::sleep(DRAIN_LOOK) => {}
        }
    }
}

/// The kept events, then live ones. A reader that is too slow continues from what is kept.
async fn tell_events(
    leader: Leader,
    asked: v1::WatchEventsRequest,
    events: mpsc::Sender<Result<v1::Event, Status>>,
) {
    let mut after = asked.after_event;
    loop {
        let (kept, mut live) = leader.watch_events(after);
        for event in kept {
            after = event.number;
            if events.send(Ok(event)).await.is_err() {
                return;
            }
        }
        if !asked.follow {
            return;
        }
        loop {
            let next = tokio::select! {
                biased;
                () = events.closed() => return,
                () = leader.lost() => {
                    _ = events.send(Err(refused(Error::not_leader()))).await;
                    return;
                }
                next = live.recv() => next,
            };
            match next {
                Ok(event) if event.number <= after => {}
                Ok(event) => {
                    after = event.number;
                    if events.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}
