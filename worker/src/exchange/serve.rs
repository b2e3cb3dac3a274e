//! Streams of other workers, over gRPC. What comes is decoded and handed on at once, whatever its partition does: a stream that
//! nobody takes from would stop the others of its connection. Its window bounds what can come.

use std::{io, sync::Arc};

use daemon::Peer;
use futures::{Stream, StreamExt as _};
use proto::{Duplex, MESSAGE_BYTES_MAX, Protocols, v1};
use tokio::time::{Duration, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming, codegen::BoxStream, transport::server::Connected};

use super::{
    door::{Door, Open, stream},
    ipc::Decoder,
    part::Part,
};
use v1::{exchange_server, to_partition::Message};

/// How long the first message of a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow control below the windows of the streams: large enough not to be felt.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

fn refused(code: Code, reason: &str, text: impl Into<String>) -> Status {
    proto::refusal(code, reason, text, &[])
}

struct Service {
    door: Arc<Door>,
    cancel: CancellationToken,
}

/// Serves the exchange on these connections until cancelled.
pub(crate) async fn serve<I, C>(incoming: I, door: Arc<Door>, cancel: CancellationToken)
where
    I: Stream<Item = io::Result<C>> + Send + 'static,
    C: Duplex + Connected<ConnectInfo: Clone + Send + Sync> + 'static,
{
    let service = exchange_server::ExchangeServer::new(Service { door, cancel: cancel.clone() })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(3)))
        .layer(daemon::GrpcCalls::default())
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, cancel.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the exchange is not served any more");
    }
}

#[tonic::async_trait]
impl exchange_server::Exchange for Service {
    type FeedStream = BoxStream<v1::FromPartition>;

    async fn feed(
        &self,
        request: Request<Streaming<v1::ToPartition>>,
    ) -> Result<Response<Self::FeedStream>, Status> {
        if let Some(peer) = request.extensions().get::<Peer>() {
            peer.check_member().map_err(|why| refused(Code::Unauthenticated, "NOT_A_MEMBER", why))?;
        }
        let mut messages = request.into_inner();
        let first = timeout(OPEN_TIMEOUT, messages.message()).await.map_err(|_| {
            refused(Code::DeadlineExceeded, "NOT_OPENED", "the stream was not opened in time")
        })??;
        let Some(Message::Open(open)) = first.and_then(|first| first.message) else {
            let text = "a stream begins with the partition that it goes to";
            return Err(refused(Code::InvalidArgument, "NOT_OPENED", text));
        };
        let them = Protocols::said(open.protocol_from, open.protocol_to);
        let names = ("this worker", "the worker that sends");
        let agreed = Protocols::OURS.agree(them, names);
        agreed.map_err(|why| refused(Code::FailedPrecondition, "PROTOCOL", why))?;
        let open = Open::try_from(open)
            .map_err(|bad| refused(Code::InvalidArgument, "BAD_OPEN", bad.to_string()))?;
        let (arrival, ends) = stream(open);
        self.door.arrive(arrival);
        let cancel = self.cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = pump(messages, ends.parts) => {}
            }
        });
        let said = ReceiverStream::new(ends.said).map(|said| Ok(said.into()));
        Ok(Response::new(Box::pin(said.take_until(self.cancel.clone().cancelled_owned()))))
    }
}

/// Ends when the sender or the partition does, or when something comes that is no part.
async fn pump(mut messages: Streaming<v1::ToPartition>, parts: tokio::sync::mpsc::Sender<Part>) {
    let mut decoder = Decoder::default();
    while let Ok(Some(message)) = messages.message().await {
        let Some(Message::Part(part)) = message.message else { return };
        match decoder.decode(part) {
            Ok(part) => {
                if parts.send(part).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "a part of another worker cannot be read");
                return;
            }
        }
    }
}
