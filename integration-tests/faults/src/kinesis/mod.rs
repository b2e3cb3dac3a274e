//! The proxy in front of a Kinesis endpoint.
//!
//! ```text
//! client ─ request ─► Call (operation, stream, shard) ─► Faults::decide ─┬─ delay, error, cut, never …
//!                                                                        └─► carried out: iterators wrapped, limits kept,
//!                                                                            listings and shard ends put right
//! ```
//!
//! Endpoints are spoken to in HTTP/1.1 and JSON; requests in CBOR and operations that need no care pass as they are, so only
//! rules by operation meet the former. Signatures are not made anew: the endpoint must not check them (emulators do not).
//! Answers that are streams pass unbuffered.

mod call;
mod fanout;
mod limit;
mod number;
mod put;
mod read;
mod shards;
mod upstream;
mod wire;

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::{JoinHandle, JoinSet},
};

use self::{
    call::Call,
    fanout::Subscriptions,
    limit::Meters,
    shards::FirstSeen,
    upstream::{Upstream, Upstreamed},
    wire::{Body, Cuttable, Scissors, error},
};
use crate::{Fault, Faults};

/// Who serves `SubscribeToShard`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fanout {
    /// The proxy, by reading the endpoint's shard: all start positions, continuation numbers that move, `ResourceInUse`,
    /// takeover after 5 s, an end after five minutes, child shards.
    #[default]
    Made,
    /// The endpoint; its stream passes unbuffered.
    Passed,
}

/// A proxy that runs; ends with this value.
pub struct Proxy {
    address: SocketAddr,
    faults: Faults,
    server: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    /// Starts one on a free loopback port, in front of the endpoint at `target` (`http://host:port`).
    ///
    /// # Errors
    /// When `target` is no such URL, or no port can be bound.
    pub async fn start(target: &str, faults: Faults) -> io::Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), target, faults, Fanout::Made).await
    }

    /// Starts one there.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub async fn listen(at: SocketAddr, target: &str, faults: Faults, fanout: Fanout) -> io::Result<Self> {
        let upstream =
            Upstream::new(target).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let front = Arc::new(Front {
            upstream,
            faults: faults.clone(),
            fanout,
            meters: Meters::default(),
            seen: FirstSeen::default(),
            subscriptions: Subscriptions::default(),
            read_at: Mutex::default(),
        });
        Ok(Self { address, faults, server: tokio::spawn(accept(listener, front)) })
    }

    /// `http://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its handle.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

async fn accept(listener: TcpListener, front: Arc<Front>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&front)));
                }
                // Out of descriptors, for example: what is open goes on, and one of them will end.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, front: Arc<Front>) {
    stream.set_nodelay(true).ok();
    let scissors = Scissors::default();
    let io = TokioIo::new(Cuttable::new(stream, scissors.clone()));
    let service = service_fn(|request| {
        let (front, scissors) = (Arc::clone(&front), scissors.clone());
        async move { Ok::<_, Infallible>(front.serve(request, scissors).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection(io, service);
    tokio::select! {
        _ = serving => {}
        () = scissors.cut() => {}
    }
}

/// What becomes of a call.
pub(crate) enum Reply {
    Answer(Response<Body>),
    /// The connection is reset.
    Cut,
    /// The caller waits for ever.
    Never,
}

/// What all connections share.
pub(crate) struct Front {
    upstream: Upstream,
    faults: Faults,
    fanout: Fanout,
    meters: Meters,
    seen: FirstSeen,
    subscriptions: Subscriptions,
    /// When a shard was last read, in ms since 1970: what a throttled reader lags behind.
    read_at: Mutex<HashMap<crate::faults::ShardKey, u64>>,
}

impl Front {
    async fn serve(self: Arc<Self>, request: Request<Incoming>, scissors: Scissors) -> Response<Body> {
        let reply = match Call::receive(request).await {
            Ok(call) => self.reply(call, &scissors).await,
            Err(reply) => reply,
        };
        match reply {
            Reply::Answer(answer) => return answer,
            Reply::Cut => scissors.close(),
            Reply::Never => {}
        }
        std::future::pending().await
    }

    async fn reply(self: &Arc<Self>, call: Call, scissors: &Scissors) -> Reply {
        let verdict = self.faults.decide(&call.operation, call.stream.as_deref(), call.shard.as_deref());
        tokio::time::sleep(verdict.delay).await;
        let done = || async {
            match self.carry_out(&call, &verdict.entries, scissors).await {
                Ok(answer) => Reply::Answer(answer),
                Err(reply) => reply,
            }
        };
        match &verdict.fault {
            None => done().await,
            Some(Fault::Error { code, status }) => Reply::Answer(error(*status, code, "injected")),
            Some(Fault::Empty) => Reply::Answer(self.empty(&call).await),
            Some(Fault::ExpireIterator) => Reply::Answer(read::expired()),
            Some(Fault::Cut) => Reply::Cut,
            Some(Fault::LoseAnswer) => {
                done().await;
                Reply::Cut
            }
            Some(Fault::SwallowAnswer) => {
                done().await;
                Reply::Never
            }
            // The others were taken out when the verdict was made.
            Some(_) => Reply::Never,
        }
    }

    async fn carry_out(
        self: &Arc<Self>,
        call: &Call,
        refuse: &[(String, crate::Entries)],
        scissors: &Scissors,
    ) -> Upstreamed {
        if call.json.is_null() {
            return self.upstream.pass(call).await;
        }
        match call.operation.as_str() {
            "GetShardIterator" => self.get_shard_iterator(call).await,
            "GetRecords" => self.get_records(call).await,
            "ListShards" => self.list_shards(call).await,
            "DescribeStream" | "DescribeStreamSummary" => self.describe_stream(call).await,
            "PutRecords" if !refuse.is_empty() => self.put_records(call, refuse).await,
            "SubscribeToShard" if self.fanout == Fanout::Made => self.subscribe(call, scissors).await,
            _ => self.upstream.pass(call).await,
        }
    }

    /// A success without records, at the same place.
    async fn empty(&self, call: &Call) -> Response<Body> {
        let lag = match &call.token {
            Some(token) => {
                let read_at = self.read_at.lock().await.get(&token.key()).copied();
                crate::faults::now_ms().saturating_sub(read_at.unwrap_or(token.made))
            }
            None => 0,
        };
        let next = call.token.as_ref().map(|token| token.renewed().encode());
        wire::answer(&json!({ "Records": [], "NextShardIterator": next, "MillisBehindLatest": lag }))
    }
}
