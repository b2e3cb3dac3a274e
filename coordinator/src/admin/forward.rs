//! Calls that reach a coordinator that does not lead: found out who does, and passed on once. A header marks a passed-on call;
//! whoever gets one and does not lead either says so instead of passing it on again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use daemon::Peer;
use proto::v1::admin_client::AdminClient;
use tonic::{
    Code, Extensions, Request, Status,
    metadata::{BinaryMetadataValue, MetadataMap, MetadataValue},
    transport::Channel,
};

use crate::{
    error::ErrorKind,
    handle::{Handle, Leader},
};

use super::{
    auth::{self, CALLER_ADDRESS, CALLER_NAMES, PASSED_ON},
    refuse::Refusal,
};

/// How long a call waits for a leader to be there and loaded.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the connection to the leader may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Where a call is answered.
pub(super) enum Side {
    /// Here.
    Here(Leader),
    /// By another coordinator.
    There(AdminClient<Channel>),
}

/// Finds the side of each call.
#[derive(Clone)]
pub(super) struct Forward {
    handle: Handle,
    clients: Arc<Mutex<HashMap<String, AdminClient<Channel>>>>,
}

impl Forward {
    pub fn new(handle: Handle) -> Self {
        Self { handle, clients: Arc::default() }
    }

    /// Here if this coordinator leads, else the leader that it knows. Whoever passes a call on must be of the cluster.
    pub async fn side(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Side, Status> {
        if metadata.contains_key(PASSED_ON)
            && let Some(peer) = extensions.get::<Peer>()
        {
            let refused = |reason| proto::refusal(Code::Unauthenticated, "NOT_A_MEMBER", reason, &[]);
            peer.check_member().map_err(refused)?;
        }
        let error = match self.handle.leader(PATIENCE).await {
            Ok(leader) => return Ok(Side::Here(leader)),
            Err(error) if error.kind == ErrorKind::NotLeader => error,
            Err(error) => return Err(Refusal::from(error).into()),
        };
        if metadata.contains_key(PASSED_ON) {
            return Err(no_leader("the leadership is changing hands, ask again"));
        }
        match self.handle.leader_address() {
            Some(address) if address != self.handle.address() => self.client(&address).map(Side::There),
            _ => Err(no_leader(&error.to_string())),
        }
    }

    /// The request with the mark of this coordinator; its deadline goes along.
    pub fn passed_on<T>(&self, request: Request<T>) -> Result<Request<T>, Status> {
        let mut request = request;
        let mark = MetadataValue::try_from(self.handle.address())
            .map_err(|_| unfit("the address of this coordinator is not a header"))?;
        // What the caller said itself about who it is by another's word is its own word.
        request.metadata_mut().remove_bin(CALLER_NAMES);
        request.metadata_mut().remove(CALLER_ADDRESS);
        let names = auth::names_to_pass_on(request.extensions());
        if !names.is_empty() {
            request.metadata_mut().insert_bin(CALLER_NAMES, BinaryMetadataValue::from_bytes(&names));
        }
        let address = auth::address(request.extensions()).and_then(|from| from.ip().to_string().parse().ok());
        if let Some(address) = address {
            request.metadata_mut().insert(CALLER_ADDRESS, address);
        }
        request.metadata_mut().insert(PASSED_ON, mark);
        daemon::trace::inject_current(request.metadata_mut().as_mut());
        Ok(request)
    }

    /// One client per address: its channel connects when it is used and again when it broke.
    fn client(&self, address: &str) -> Result<AdminClient<Channel>, Status> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(address) {
            return Ok(client.clone());
        }
        let endpoint = self
            .handle
            .wire
            .endpoint(address)
            .map_err(|error| no_leader(&format!("the leader's address: {error}")))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let client = AdminClient::new(self.handle.wire.connect_lazy(&endpoint))
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        // Leaders are few: the addresses of all coordinators that ever led while this process ran.
        clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}

fn unfit(message: &str) -> Status {
    proto::refusal(Code::Internal, "XX000", message, &[])
}

fn no_leader(message: &str) -> Status {
    proto::refusal(Code::Unavailable, "NO_LEADER", message, &[])
}
