//! An endpoint with a proxy in front of it, and a client that tries once.

use std::time::Duration;

use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::get_records::GetRecordsOutput,
    primitives::Blob,
    types::{PutRecordsRequestEntry, ShardIteratorType},
};
use faults::{Faults, kinesis::Proxy};
use shardwright_integration_tests::endpoint::{self, Endpoint};

pub const STREAM: &str = "orders";

/// An endpoint, and a proxy in front of it.
pub struct Front {
    /// The endpoint, if it is in this process, and its URL.
    pub _endpoint: Option<Endpoint>,
    pub url: String,
    pub stream: String,
    _proxy: Proxy,
    pub faults: Faults,
    /// Through the proxy, each call once, an answer within 2 s.
    pub client: Client,
}

pub async fn front(shards: i32) -> Front {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let endpoint = Endpoint::start(endpoint::quick()).await.unwrap();
    let url = endpoint.url();
    before(Some(endpoint), url, STREAM, shards).await
}

/// A proxy in front of the endpoint at `url`, with a new stream.
pub async fn before(endpoint: Option<Endpoint>, url: String, stream: &str, shards: i32) -> Front {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    endpoint::create_stream(&endpoint::client(&url), stream, shards).await.unwrap();
    let faults = Faults::new(1);
    let proxy = Proxy::start(&url, faults.clone()).await.unwrap();
    let client = client(&proxy.url());
    Front { _endpoint: endpoint, url, stream: stream.to_owned(), _proxy: proxy, faults, client }
}

pub fn client(url: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(Credentials::new(endpoint::ACCESS_KEY, "test", None, None, "static"))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(2)).build());
    Client::from_conf(config.build())
}

pub fn shard(number: u32) -> String {
    format!("shardId-{number:012}")
}

impl Front {
    /// Puts `n` records of different keys; the sequence numbers.
    pub async fn put(&self, n: usize) -> Vec<String> {
        let answer = self.put_through(&endpoint::client(&self.url), n).await;
        answer.iter().map(|code| code.clone().unwrap()).collect()
    }

    /// Puts `n` records through this client; sequence number or error code of each.
    pub async fn put_through(&self, client: &Client, n: usize) -> Vec<Result<String, String>> {
        let entry = |i: usize| {
            let key = format!("key-{i}");
            PutRecordsRequestEntry::builder().partition_key(&key).data(Blob::new(key)).build().unwrap()
        };
        let entries = (0..n).map(entry).collect();
        let answer =
            client.put_records().stream_name(&self.stream).set_records(Some(entries)).send().await.unwrap();
        let failed = answer.records().iter().filter(|r| r.error_code().is_some()).count();
        assert_eq!(usize::try_from(answer.failed_record_count().unwrap()).unwrap(), failed);
        let of = |r: &aws_sdk_kinesis::types::PutRecordsResultEntry| match r.error_code() {
            Some(code) => Err(code.to_owned()),
            None => Ok(r.sequence_number().unwrap().to_owned()),
        };
        answer.records().iter().map(of).collect()
    }

    pub async fn iterator(&self, shard: &str) -> String {
        let answer = self
            .client
            .get_shard_iterator()
            .stream_name(&self.stream)
            .shard_id(shard)
            .shard_iterator_type(ShardIteratorType::TrimHorizon)
            .send()
            .await
            .unwrap();
        answer.shard_iterator.unwrap()
    }

    /// Reads; the answer or the error's code, which is "none" when there was no answer.
    pub async fn read(&self, iterator: &str) -> Result<GetRecordsOutput, String> {
        self.client.get_records().shard_iterator(iterator).send().await.map_err(|error| code(&error))
    }

    /// The data of every record of a shard, and its last answer.
    pub async fn read_out(&self, shard: &str) -> (Vec<String>, GetRecordsOutput) {
        let mut iterator = self.iterator(shard).await;
        let mut all = Vec::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.read(&iterator).await.unwrap();
            let text =
                |r: &aws_sdk_kinesis::types::Record| String::from_utf8(r.data().as_ref().to_vec()).unwrap();
            all.extend(answer.records().iter().map(text));
            match answer.next_shard_iterator() {
                Some(next) if tokio::time::Instant::now() < deadline => iterator = next.to_owned(),
                _ => return (all, answer),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Splits the first open shard.
    pub async fn split(&self) {
        let client = endpoint::client(&self.url);
        let open = endpoint::open_shards(&client, &self.stream).await.unwrap();
        endpoint::split(&client, &self.stream, &open[0]).await.unwrap();
    }
}

/// The code of an error of the service; `none` when there was no answer.
pub fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    error.code().unwrap_or("none").to_owned()
}
