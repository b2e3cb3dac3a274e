//! The gRPC side of a session: opens it, feeds it, ends it. Decides nothing but when a stream is over.

use std::{sync::Arc, time::Duration};

use daemon::Peer;
use logic::mutant;
use proto::{
    Protocols,
    v1::{self, coordinator_message::Message, session_server, worker_message},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{OUTBOUND_MAX, Outbound};
use crate::{handle::Role, term::Term};

/// How long a stream may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Serves `Session`.
pub(crate) struct SessionService {
    /// Who leads.
    pub role: watch::Receiver<Role>,
    /// Ends with the server.
    pub cancel: CancellationToken,
}

#[tonic::async_trait]
impl session_server::Session for SessionService {
    type AttachStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        if let Some(peer) = &peer {
            let refused = |reason| proto::refusal(Code::Unauthenticated, "NOT_A_MEMBER", reason, &[]);
            peer.check_member().map_err(refused)?;
        }
        let (out, stream) = mpsc::channel(OUTBOUND_MAX);
        let role = self.role.borrow().clone();
        match role {
            Role::Leads(term) => {
                let cancel = self.cancel.clone();
                let inbound = (peer, request.into_inner());
                tokio::spawn(async move { converse(&term, inbound, out, cancel).await });
            }
            Role::Follows(leader) => {
                let redirect = v1::Redirect { leader: leader.unwrap_or_default() };
                let message = Some(Message::Redirect(redirect));
                // Cannot fail: the channel is new and its other end is in our hand.
                let _ =
                    out.try_send(Ok(v1::CoordinatorMessage { message, ..v1::CoordinatorMessage::default() }));
            }
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Hears one stream until it, its session or the term is over.
async fn converse(
    term: &Arc<Term>,
    (peer, mut inbound): (Option<Peer>, Streaming<v1::WorkerMessage>),
    out: Outbound,
    server: CancellationToken,
) {
    let hello = tokio::select! {
        biased;
        () = term.cancel.cancelled() => return,
        first = tokio::time::timeout(HELLO_WITHIN, inbound.message()) => match first {
            Ok(Ok(Some(v1::WorkerMessage { message: Some(worker_message::Message::Hello(hello)) }))) => hello,
            _ => {
                let text = "the first message of a session must be a hello";
                let status = proto::refusal(Code::InvalidArgument, "BAD_HELLO", text, &[]);
                let _ = out.try_send(Err(status));
                return;
            }
        },
    };
    let worker = hello.worker.clone();
    if let Some(Err(reason)) = peer.map(|peer| peer.check_name(&worker)) {
        tracing::warn!(?worker, reason, "a worker is refused");
        let text = format!("worker `{worker}`: {reason}");
        let _ = out.try_send(Err(proto::refusal(Code::PermissionDenied, "WRONG_NAME", text, &[])));
        return;
    }
    let them = Protocols::said(hello.protocol_from, hello.protocol_to);
    let theirs = format!("worker `{worker}` (release {})", hello.version);
    let protocol = match Protocols::OURS.agree(them, (crate::versions::NAME, &theirs)) {
        Ok(protocol) => protocol,
        Err(reason) => {
            term.refuse_stream(&worker, &out, reason);
            return;
        }
    };
    let (id, end) = term.open_session(hello, protocol, out);
    if mutant::on("late_hello_displaces") {
        tokio::time::sleep(Duration::from_millis(50)).await;
        term.hear(id, worker_message::Message::Heartbeat(v1::Heartbeat::default())).await;
    }
    loop {
        let message = tokio::select! {
            biased;
            () = term.cancel.cancelled() => break,
            () = server.cancelled() => break,
            () = end.cancelled() => break,
            message = inbound.message() => message,
        };
        match message {
            Ok(Some(v1::WorkerMessage { message: Some(message) })) => term.hear(id, message).await,
            Ok(Some(_)) => tracing::debug!(%worker, "message of a kind that this release does not know"),
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%worker, %status, "session broke");
                break;
            }
        }
    }
    term.close_session(id);
}
