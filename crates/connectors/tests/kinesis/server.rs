//! An emulated service in this process, on a port of its own.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    primitives::Blob,
    types::{PutRecordsRequestEntry, StreamStatus},
};
use connector::{Source, suite};
use ferrokinesis::{create_app, serve_plain_http, store::StoreOptions};
use model::SplitId;
use tokio::sync::oneshot;

use crate::{DEADLINE, fast_source, rustls_ready};

/// The name of the stream that every test uses.
pub const STREAM: &str = "in";

/// A running service with one stream. Stops when dropped.
pub struct Server {
    pub endpoint: String,
    pub client: Client,
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
        // The library alone takes 2 MB, less than one PutRecords.
        let app = app.layer(axum::extract::DefaultBodyLimit::disable());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(serve_plain_http(listener, app, async {
            let _ = stopped.await;
        }));
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("AKIATEST", "secret", None, None, "test"))
            .endpoint_url(&endpoint)
            .build();
        let server = Self { endpoint, client: Client::from_conf(config), _stop: stop };
        server.create(shards).await;
        server
    }

    pub async fn create(&self, shards: i32) {
        self.client.create_stream().stream_name(STREAM).shard_count(shards).send().await.unwrap();
        self.active().await;
    }

    /// Waits until the stream takes another change.
    pub async fn active(&self) {
        let waiting = async {
            loop {
                let answer = self.client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
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
            .stream_name(STREAM)
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
                .stream_name(STREAM)
                .set_records(Some(entries.collect()))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.failed_record_count(), Some(0));
        }
    }

    pub async fn cut(&self, shard: &str) {
        let listed = self.client.list_shards().stream_name(STREAM).send().await.unwrap();
        let found = listed.shards().iter().find(|s| s.shard_id() == shard).unwrap();
        let range = found.hash_key_range().unwrap();
        let number = |text: &str| text.parse::<u128>().unwrap();
        let (first, last) = (number(range.starting_hash_key()), number(range.ending_hash_key()));
        self.client
            .split_shard()
            .stream_name(STREAM)
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
            .stream_name(STREAM)
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
        fast_source(&self.endpoint, STREAM, &[])
    }
    async fn put(&self, key: &str, payloads: &[String]) {
        Server::put(self, key, payloads).await;
    }
    async fn cut(&self, split: &SplitId) {
        Server::cut(self, split.name()).await;
    }
}
