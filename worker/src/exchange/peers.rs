//! Reaching partitions: through the door of this process, or over gRPC with one connection for each other worker. Both give the
//! same two ends of a stream.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::Epoch;
use proto::{MESSAGE_BYTES_MAX, Wire, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use super::{
    door::{Door, Ends, Open, Said, stream},
    ipc::Encoder,
    part::Part,
};
use crate::trace;
use v1::{exchange_client::ExchangeClient, to_partition::Message};

/// How long another worker may take to answer at all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Encoded parts that wait for the connection.
const ENCODED: usize = 4;
const STREAM_WINDOW: u32 = 1 << 20;

/// Who writes a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) epoch: Epoch,
    pub(crate) process: String,
    /// `host:port`; empty if it is reached from within its process only.
    pub(crate) address: String,
    /// The name of its worker; empty if the leader does not say.
    pub(crate) worker: String,
}

/// A stream as its sender holds it: dropping it ends it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) parts: mpsc::Sender<Part>,
    pub(crate) said: mpsc::Receiver<Said>,
    _pump: Option<AbortOnDropHandle<()>>,
}

/// How this process reaches partitions.
pub(crate) struct Peers {
    process: String,
    door: Arc<Door>,
    wire: Wire,
    /// By address and worker: whoever listens where another did before must prove its own name.
    channels: Mutex<HashMap<(String, String), Channel>>,
}

impl Peers {
    pub(crate) fn new(process: String, door: Arc<Door>, wire: Wire) -> Self {
        Self { process, door, wire, channels: Mutex::default() }
    }

    pub(crate) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// A stream whose first answer says whether it stands. It ends when the partition or the connection does.
    pub(crate) fn open(&self, owner: &Owner, open: Open) -> Result<Line, String> {
        if owner.process == self.process {
            let (arrival, Ends { parts, said }) = stream(open);
            self.door.arrive(arrival);
            return Ok(Line { parts, said, _pump: None });
        }
        if owner.address.is_empty() {
            return Err("its worker serves no exchange".to_owned());
        }
        let channel = self.channel(owner)?;
        let ((parts, outgoing), (incoming, said)) =
            (mpsc::channel(super::door::PARTS_MAX), mpsc::channel(super::door::PARTS_MAX));
        let pump = tokio::spawn(pump(channel, open, outgoing, incoming));
        Ok(Line { parts, said, _pump: Some(AbortOnDropHandle::new(pump)) })
    }

    fn channel(&self, owner: &Owner) -> Result<Channel, String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (owner.address.clone(), owner.worker.clone());
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let endpoint = self
            .wire
            .endpoint(&owner.address)?
            .connect_timeout(DIAL_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3));
        let channel = self.wire.towards(&owner.worker).connect_lazy(&endpoint);
        channels.insert(key, channel.clone());
        Ok(channel)
    }
}

/// One stream over the wire, until either side or the connection ends.
async fn pump(channel: Channel, open: Open, mut parts: mpsc::Receiver<Part>, said: mpsc::Sender<Said>) {
    let (up, messages) = mpsc::channel(ENCODED);
    let away = |error: String| Said::Refused(super::door::Reason::NotHere, error);
    let mut encoder = match Encoder::new() {
        Ok(encoder) => encoder,
        Err(error) => {
            said.try_send(away(error.to_string())).ok();
            return;
        }
    };
    up.try_send(v1::ToPartition { message: Some(Message::Open((&open).into())) }).ok();
    let mut client = ExchangeClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let span = trace::calling("shardwright.v1.Exchange/Feed");
    let call = client.feed(trace::along(ReceiverStream::new(messages), span.as_ref())).await;
    drop(span);
    let mut answers = match call {
        Ok(response) => response.into_inner(),
        Err(status) => {
            said.try_send(away(format!("its worker cannot be reached: {}", status.message()))).ok();
            return;
        }
    };
    let sending = async {
        while let Some(part) = parts.recv().await {
            let encoded = match encoder.encode(&part) {
                Ok(encoded) => encoded,
                Err(error) => {
                    tracing::error!(%error, "a part cannot be encoded");
                    return;
                }
            };
            // Nothing of it is kept: what is lost on the way is read again.
            drop(part);
            if up.send(v1::ToPartition { message: Some(Message::Part(encoded)) }).await.is_err() {
                return;
            }
        }
    };
    let hearing = async {
        while let Ok(Some(message)) = answers.message().await {
            let Ok(heard) = Said::try_from(message) else { return };
            if said.send(heard).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = hearing => {}
    }
}
