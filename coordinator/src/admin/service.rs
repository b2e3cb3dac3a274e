//! The gRPC surface: each call is answered here if this coordinator leads, else passed on.

use std::{sync::Arc, time::Duration};

use daemon::trace::FutureExt as _;
use futures::{StreamExt, stream};
use proto::v1::{self, admin_server::Admin, reset_position_request::To};
use sql::access::Call;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    error::{Error, ErrorKind},
    handle::{BadRow, Handle, Leader, ResetTo},
};

use super::{
    admit::{Admitted, Entrance, Rows, Visit},
    auth::Caller,
    permit,
    refuse::Refusal,
    replay::{Filling, Outcome, Replay, Seen},
    show, statement,
};

/// How many replies wait for a slow reader.
const REPLIES: usize = 16;

/// How long one who watches is believed to be who it was.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How often a drain is looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

type Answered<T> = Result<Response<T>, Status>;

/// See [`super::service`].
pub struct AdminService {
    handle: Handle,
    entrance: Entrance,
    replay: Arc<Replay>,
}

impl AdminService {
    pub(super) fn new(handle: Handle) -> Self {
        Self { entrance: Entrance::new(&handle), handle, replay: Arc::default() }
    }

    fn execute_here(&self, visit: Visit, request: v1::ExecuteRequest) -> Answered<Rows<v1::ExecuteReply>> {
        let v1::ExecuteRequest { statement: text, request_id } = request;
        let statements = match sql::parse(&text) {
            Ok(statements) => statements,
            Err(error) => return visit.rows(Err(Refusal::from(error).into())),
        };
        // Request ids are each caller's own: nobody gets the answer of another.
        let request_id = match request_id.as_str() {
            "" => request_id,
            id => format!("{}\n{id}", visit.caller.principal.owner().unwrap_or_default()),
        };
        let slot = match request_id.as_str() {
            "" => None,
            id => match self.replay.see(id, &text, visit.leader.revision()) {
                Seen::New(slot) => Some(slot),
                Seen::Before(slot) => {
                    let replies = async move { stream::iter(repeated(slot.wait_filled().await)) };
                    return visit.rows(Ok(stream::once(replies).flatten().boxed()));
                }
                Seen::Mismatch => {
                    let text = "this request id was used for other statements";
                    let status = proto::refusal(Code::InvalidArgument, "REQUEST_ID", text, &[]);
                    return visit.rows(Err(status));
                }
            },
        };
        let (sender, replies) = mpsc::channel(REPLIES);
        let (handle, replay) = (self.handle.clone(), Arc::clone(&self.replay));
        // A task of its own: a caller that goes away must not stop a statement between its parts.
        let filling = slot.map(Filling);
        let carried_out = async move {
            let mut visit = visit;
            let (statements, keep) = ((text.as_str(), statements), filling.is_some());
            let outcome = statement::run_all(&handle, &mut visit, statements, &sender, keep).await;
            visit.audit.end(outcome.error.as_ref().map_or(Ok(()), Err));
            if let Some(filling) = filling {
                replay.settle(&request_id, &outcome);
                filling.0.fill(outcome);
            }
        };
        tokio::spawn(carried_out.with_current_context());
        Ok(Response::new(ReceiverStream::new(replies).boxed()))
    }
}

/// Carries a change out to its end, in a task of its own: a caller that goes away, or whose deadline passes, must not stop it
/// half way.
async fn carried_out<T: Send + 'static>(
    change: impl Future<Output = Answered<T>> + Send + 'static,
) -> Answered<T> {
    match tokio::spawn(change.with_current_context()).await {
        Ok(answer) => answer,
        Err(error) => Err(refused(Error::new(ErrorKind::Unknown, format!("the call broke off: {error}")))),
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
        match self.entrance.admit(request, |_| Call::Execute).await? {
            Admitted::Here(visit, asked) => self.execute_here(visit, asked),
            Admitted::There(mut client, request) => relay(client.execute(request).await),
        }
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answered<v1::StatusReply> {
        match self.entrance.admit(request, |_| Call::Status).await? {
            Admitted::Here(visit, _) => {
                let status = visit.leader.status();
                visit.answer(Ok(status))
            }
            Admitted::There(mut client, request) => client.status(request).await,
        }
    }

    async fn list_workers(&self, request: Request<v1::ListWorkersRequest>) -> Answered<v1::ListWorkersReply> {
        match self.entrance.admit(request, |_| Call::ListWorkers).await? {
            Admitted::Here(visit, _) => {
                let workers = visit.leader.workers();
                visit.answer(Ok(v1::ListWorkersReply { workers }))
            }
            Admitted::There(mut client, request) => client.list_workers(request).await,
        }
    }

    async fn list_splits(&self, request: Request<v1::ListSplitsRequest>) -> Answered<Self::ListSplitsStream> {
        let call = self
            .entrance
            .admit(request, |asked| Call::ListSplits { source: &asked.source, sink: &asked.sink });
        match call.await? {
            Admitted::Here(visit, asked) => {
                let splits = list_splits(&visit.leader, &asked);
                visit.rows(splits)
            }
            Admitted::There(mut client, request) => relay(client.list_splits(request).await),
        }
    }

    async fn describe_split(
        &self,
        request: Request<v1::DescribeSplitRequest>,
    ) -> Answered<v1::DescribeSplitReply> {
        match self.entrance.admit(request, |asked| Call::DescribeSplit { source: &asked.source }).await? {
            Admitted::Here(visit, asked) => {
                let sinks = visit.leader.describe_split(&asked.source, &asked.split).map_err(refused);
                visit.answer(sinks.map(|sinks| v1::DescribeSplitReply { sinks }))
            }
            Admitted::There(mut client, request) => client.describe_split(request).await,
        }
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Answered<Self::DrainWorkerStream> {
        match self.entrance.admit(request, |_| Call::DrainWorker).await? {
            Admitted::Here(mut visit, asked) => {
                visit.audit.object(&asked.worker);
                let drained = async move {
                    if let Err(error) = visit.leader.drain_worker(&asked.worker, asked.undo).await {
                        return visit.rows(Err(refused(error)));
                    }
                    let (sender, replies) = mpsc::channel(REPLIES);
                    tokio::spawn(tell_drain(visit.leader.clone(), asked, sender));
                    visit.rows(Ok(ReceiverStream::new(replies).boxed()))
                };
                carried_out(drained).await
            }
            Admitted::There(mut client, request) => relay(client.drain_worker(request).await),
        }
    }

    async fn scale(&self, request: Request<v1::ScaleRequest>) -> Answered<v1::ScaleReply> {
        match self.entrance.admit(request, |_| Call::Scale).await? {
            Admitted::Here(visit, _) => {
                let scale = visit.leader.scale();
                visit.answer(Ok(scale))
            }
            Admitted::There(mut client, request) => client.scale(request).await,
        }
    }

    async fn rotate_secrets(
        &self,
        request: Request<v1::RotateSecretsRequest>,
    ) -> Answered<v1::RotateSecretsReply> {
        match self.entrance.admit(request, |_| Call::RotateSecrets).await? {
            Admitted::Here(visit, asked) if asked.look => {
                let standing = visit.leader.secrets();
                visit.answer(Ok(standing.into()))
            }
            Admitted::Here(visit, asked) => {
                let rotated = async move {
                    let standing = visit.leader.rotate_secrets(asked.all).await.map_err(refused);
                    visit.answer(standing.map(Into::into))
                };
                carried_out(rotated).await
            }
            Admitted::There(mut client, request) => client.rotate_secrets(request).await,
        }
    }

    async fn list_errors(&self, request: Request<v1::ListErrorsRequest>) -> Answered<v1::ListErrorsReply> {
        match self.entrance.admit(request, |asked| Call::ListErrors { name: &asked.name }).await? {
            Admitted::Here(visit, asked) => {
                let name = sql::ObjectName { schema: None, name: asked.name, place: sql::Place::default() };
                let rows = show::bad_rows(&visit.leader, &name).map_err(|error| Refusal::from(error).into());
                let rows = rows.map(|rows| rows.into_iter().map(bad_row).collect());
                visit.answer(rows.map(|rows| v1::ListErrorsReply { rows }))
            }
            Admitted::There(mut client, request) => client.list_errors(request).await,
        }
    }

    async fn pause_sink(&self, request: Request<v1::PauseSinkRequest>) -> Answered<v1::PauseSinkReply> {
        match self.entrance.admit(request, |asked| Call::PauseSink { sink: &asked.sink }).await? {
            Admitted::Here(visit, asked) => {
                let change = async move {
                    let paused = visit.leader.pause_sink(&asked.sink).await.map_err(refused);
                    visit.answer(paused.map(|()| v1::PauseSinkReply {}))
                };
                carried_out(change).await
            }
            Admitted::There(mut client, request) => client.pause_sink(request).await,
        }
    }

    async fn resume_sink(&self, request: Request<v1::ResumeSinkRequest>) -> Answered<v1::ResumeSinkReply> {
        match self.entrance.admit(request, |asked| Call::ResumeSink { sink: &asked.sink }).await? {
            Admitted::Here(visit, asked) => {
                let change = async move {
                    let resumed = visit.leader.resume_sink(&asked.sink).await.map_err(refused);
                    visit.answer(resumed.map(|()| v1::ResumeSinkReply {}))
                };
                carried_out(change).await
            }
            Admitted::There(mut client, request) => client.resume_sink(request).await,
        }
    }

    async fn reset_position(
        &self,
        request: Request<v1::ResetPositionRequest>,
    ) -> Answered<v1::ResetPositionReply> {
        match self.entrance.admit(request, |asked| Call::ResetPosition { sink: &asked.sink }).await? {
            Admitted::Here(visit, asked) => {
                let change = async move {
                    let tasks = reset_position(&visit.leader, asked).await;
                    visit.answer(tasks.map(|tasks| v1::ResetPositionReply { tasks }))
                };
                carried_out(change).await
            }
            Admitted::There(mut client, request) => client.reset_position(request).await,
        }
    }

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answered<Self::WatchEventsStream> {
        match self.entrance.admit(request, |_| Call::WatchEvents).await? {
            Admitted::Here(visit, asked) => {
                let (sender, events) = mpsc::channel(REPLIES);
                let watcher = (visit.leader.clone(), visit.caller.clone());
                tokio::spawn(tell_events(watcher, asked, sender));
                visit.rows(Ok(ReceiverStream::new(events).boxed()))
            }
            Admitted::There(mut client, request) => relay(client.watch_events(request).await),
        }
    }
}

fn bad_row(row: BadRow) -> v1::BadRow {
    v1::BadRow {
        source: row.source,
        sink: row.sink,
        split: row.split,
        cursor: row.record.cursor,
        error: row.record.error,
        sample: row.record.sample,
        at_ms: row.record.at_ms,
        policy: row.record.policy,
    }
}

async fn reset_position(leader: &Leader, asked: v1::ResetPositionRequest) -> Result<u32, Status> {
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
    leader.reset_position(&asked.sink, split, to).await.map_err(refused)
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
    (leader, caller): (Leader, Caller),
    asked: v1::WatchEventsRequest,
    events: mpsc::Sender<Result<v1::Event, Status>>,
) {
    let (mut after, mut looked) = (asked.after_event, Instant::now());
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
                    // The stream outlives the call's own look at who it is: a user is dropped, a token expires.
                    if looked.elapsed() > LOOK_AGAIN {
                        if let Err(refusal) = permit::call(&leader, &caller, Call::WatchEvents) {
                            _ = events.send(Err(refusal.into())).await;
                            return;
                        }
                        looked = Instant::now();
                    }
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
