//! An emulated service in this process, on a port of its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    primitives::Blob,
    types::{PutRecordsRequestEntry, ShardIteratorType, StreamStatus},
};
use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use connector::{SinkKind, Source, suite};
use ferrokinesis::{create_app, serve_plain_http, store::StoreOptions};
use model::{Options, SplitId};
use tokio::sync::oneshot;

use crate::{DEADLINE, fast_source, options, registry, rustls_ready};

/// The name of the stream that every test uses.
pub const STREAM: &str = "in";

/// A service with one stream. Stops when dropped.
pub struct Server {
    pub endpoint: String,
    pub client: Client,
    stream: String,
    outage: Arc<AtomicBool>,
    _stop: oneshot::Sender<()>,
}

/// Options without the delays of the real service.
pub fn quick() -> StoreOptions {
    StoreOptions {
        create_stream_ms: 0,
        delete_stream_ms: 0,
        update_stream_ms: 0,
        shard_limit: 1000,
        ..Default::default()
    }
}

impl Server {
    pub async fn start(options: StoreOptions, shards: i32) -> Self {
        rustls_ready();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (app, _store) = create_app(options);
        let outage = Arc::new(AtomicBool::new(false));
        let gate = middleware::from_fn_with_state(Arc::clone(&outage), pass_unless_away);
        // The library alone takes 2 MB, less than one PutRecords.
        let app = app.layer(axum::extract::DefaultBodyLimit::disable()).layer(gate);
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(serve_plain_http(listener, app, async {
            let _ = stopped.await;
        }));
        let client = client(&endpoint);
        let server = Self { endpoint, client, stream: STREAM.to_owned(), outage, _stop: stop };
        server.create(shards).await;
        server
    }

    /// A stream of its own on a server that somebody else runs.
    pub async fn guest(endpoint: &str, stream: String) -> Self {
        rustls_ready();
        let (stop, _) = oneshot::channel::<()>();
        let (endpoint, client) = (endpoint.to_owned(), client(endpoint));
        let server = Self { endpoint, client, stream, outage: Arc::default(), _stop: stop };
        server.create(1).await;
        server
    }

    pub async fn create(&self, shards: i32) {
        self.client.create_stream().stream_name(&self.stream).shard_count(shards).send().await.unwrap();
        self.active().await;
    }

    /// Waits until the stream takes another change.
    pub async fn active(&self) {
        let waiting = async {
            loop {
                let answer =
                    self.client.describe_stream_summary().stream_name(&self.stream).send().await.unwrap();
                if *answer.stream_description_summary().unwrap().stream_status() == StreamStatus::Active {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.expect("the stream is active in time");
    }

    /// Writes `payloads` under `key`, in order.
    pub async fn put(&self, key: &str, payloads: &[String]) {
        for payload in payloads {
            self.put_bytes(key, payload.as_bytes().to_vec()).await;
        }
    }

    pub async fn put_bytes(&self, key: &str, data: Vec<u8>) {
        self.client
            .put_record()
            .stream_name(&self.stream)
            .partition_key(key)
            .data(Blob::new(data))
            .send()
            .await
            .unwrap();
    }

    /// Writes many records quickly; keys `k0` … `k{keys-1}` in turn.
    pub async fn put_many(&self, n: usize, keys: usize, size: usize) {
        let numbers: Vec<usize> = (0..n).collect();
        for some in numbers.chunks((4_000_000 / size.max(1)).min(500)) {
            let entries = some.iter().map(|i| {
                let mut data = format!("{i} ").into_bytes();
                data.resize(size.max(data.len()), b'x');
                PutRecordsRequestEntry::builder()
                    .partition_key(format!("k{}", i % keys))
                    .data(Blob::new(data))
                    .build()
                    .unwrap()
            });
            let answer = self
                .client
                .put_records()
                .stream_name(&self.stream)
                .set_records(Some(entries.collect()))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.failed_record_count(), Some(0));
        }
    }

    pub async fn cut(&self, shard: &str) {
        let listed = self.client.list_shards().stream_name(&self.stream).send().await.unwrap();
        let found = listed.shards().iter().find(|s| s.shard_id() == shard).unwrap();
        let range = found.hash_key_range().unwrap();
        let number = |text: &str| text.parse::<u128>().unwrap();
        let (first, last) = (number(range.starting_hash_key()), number(range.ending_hash_key()));
        self.client
            .split_shard()
            .stream_name(&self.stream)
            .shard_to_split(shard)
            .new_starting_hash_key((first + (last - first) / 2 + 1).to_string())
            .send()
            .await
            .unwrap();
        self.active().await;
    }

    pub async fn merge(&self, a: &str, b: &str) {
        self.client
            .merge_shards()
            .stream_name(&self.stream)
            .shard_to_merge(a)
            .adjacent_shard_to_merge(b)
            .send()
            .await
            .unwrap();
        self.active().await;
    }
}

#[async_trait]
impl suite::source::Stream for Server {
    fn source(&self) -> Arc<dyn Source> {
        fast_source(&self.endpoint, &self.stream, &[])
    }
    async fn put(&self, key: &str, payloads: &[String]) {
        Server::put(self, key, payloads).await;
    }
    async fn cut(&self, split: &SplitId) {
        Server::cut(self, split.name()).await;
    }
}

fn client(endpoint: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIATEST", "secret", None, None, "test"))
        .endpoint_url(endpoint)
        .build();
    Client::from_conf(config)
}

async fn pass_unless_away(State(outage): State<Arc<AtomicBool>>, request: Request, next: Next) -> Response {
    if outage.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    next.run(request).await
}

#[async_trait]
impl suite::sink::Destination for Server {
    fn kind(&self) -> SinkKind {
        registry().sink("kinesis").unwrap().clone()
    }
    fn options(&self) -> Options {
        options(&self.endpoint, &self.stream, &[])
    }
    async fn read(&self) -> Option<Vec<Bytes>> {
        let shard = "shardId-000000000000";
        let answer = self
            .client
            .get_shard_iterator()
            .stream_name(&self.stream)
            .shard_id(shard)
            .shard_iterator_type(ShardIteratorType::TrimHorizon)
            .send()
            .await
            .unwrap();
        let (mut iterator, mut messages) = (answer.shard_iterator.unwrap(), Vec::new());
        loop {
            let answer = self.client.get_records().shard_iterator(iterator).send().await.unwrap();
            if answer.records.is_empty() {
                return Some(messages);
            }
            messages.extend(answer.records.into_iter().map(|r| Bytes::from(r.data.into_inner())));
            iterator = answer.next_shard_iterator.unwrap();
        }
    }
    async fn set_outage(&self, on: bool) -> bool {
        self.outage.store(on, Ordering::SeqCst);
        true
    }
    /// Larger than a record may be.
    fn poison(&self) -> Option<String> {
        Some("x".repeat((1 << 20) + 1))
    }
}
