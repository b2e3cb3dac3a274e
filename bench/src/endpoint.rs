//! The Kinesis endpoint that everything is measured against, and what is put into it.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    primitives::Blob,
    types::{PutRecordsRequestEntry, StreamStatus},
};
use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use ferrokinesis::store::StoreOptions;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::Mutex,
    task::JoinSet,
};

/// Bytes of a record, partition key not counted.
pub(crate) const RECORD_BYTES: usize = 562;

/// Records of one PutRecords: the service's limit.
const PUT_RECORDS_MAX: u64 = 500;

/// The largest request of the service: 10 MiB, in base64.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Fillers at work at the same time.
const FILLERS: u64 = 8;

/// Serves until it is killed; prints its URL first.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the endpoint")?;
    println!("http://{}", listener.local_addr()?);
    let options = StoreOptions {
        create_stream_ms: 0,
        delete_stream_ms: 0,
        update_stream_ms: 50,
        shard_limit: 1000,
        ..StoreOptions::default()
    };
    let (app, _store) = ferrokinesis::create_app(options);
    let turn = Arc::new(Mutex::new(()));
    let app = app.layer(middleware::from_fn(move |request, next| in_turn(Arc::clone(&turn), request, next)));
    ferrokinesis::serve_plain_http(listener, app, std::future::pending()).await.context("serving")
}

/// One request at a time. ferrokinesis 0.7.0 holds a map's read lock while a GetRecords waits for the records of its shard, and
/// a PutRecords blocks its thread on that map: with as many puts as threads, nobody is left to finish the read and everything
/// stands still for ever. In turn nobody waits. It also closes a gap in which a reader could pass a record that has its number
/// but is not in its shard yet.
async fn in_turn(turn: Arc<Mutex<()>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REQUEST_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let _turn = turn.lock().await;
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// An endpoint in a process of its own; killed with this value.
pub(crate) struct Endpoint {
    /// Its URL.
    pub(crate) url: String,
    _process: Child,
}

impl Endpoint {
    /// Starts one.
    pub(crate) async fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve-kinesis").stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("starting the endpoint")?;
        let output = process.stdout.take().context("the endpoint has no output")?;
        let mut lines = BufReader::new(output).lines();
        let url = tokio::time::timeout(Duration::from_secs(20), lines.next_line())
            .await
            .context("the endpoint is silent")??;
        Ok(Self { url: url.context("the endpoint ended")?, _process: process })
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        client(&self.url)
    }
}

/// A client of any endpoint.
pub(crate) fn client(url: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(Credentials::new("test", "test", None, None, "static"))
        .build();
    Client::from_conf(config)
}

/// Creates a stream and waits until it is active.
pub(crate) async fn create_stream(client: &Client, name: &str, shards: i32) -> Result<()> {
    client.create_stream().stream_name(name).shard_count(shards).send().await.context("creating a stream")?;
    active(client, name).await
}

/// Waits until a stream is active.
pub(crate) async fn active(client: &Client, name: &str) -> Result<()> {
    let wait = async {
        loop {
            let answer = client.describe_stream_summary().stream_name(name).send().await?;
            if answer.stream_description_summary().is_some_and(|s| *s.stream_status() == StreamStatus::Active)
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .with_context(|| format!("stream {name} stays inactive"))?
}

/// The names of the shards that are open.
pub(crate) async fn open_shards(client: &Client, stream: &str) -> Result<Vec<String>> {
    let answer = client.list_shards().stream_name(stream).send().await.context("listing shards")?;
    let open = answer.shards().iter().filter(|shard| {
        shard.sequence_number_range().is_none_or(|range| range.ending_sequence_number().is_none())
    });
    Ok(open.map(|shard| shard.shard_id().to_owned()).collect())
}

/// Fills a stream with numbered records of [`RECORD_BYTES`], spread evenly over its hash range.
pub(crate) async fn fill(client: &Client, stream: &str, records: u64) -> Result<()> {
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let (client, stream) = (client.clone(), stream.to_owned());
        let (first, last) = (records * filler / FILLERS, records * (filler + 1) / FILLERS);
        fillers.spawn(async move {
            for start in (first..last).step_by(PUT_RECORDS_MAX as usize) {
                put(&client, &stream, start..last.min(start + PUT_RECORDS_MAX)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = fillers.join_next().await {
        done??;
    }
    Ok(())
}

async fn put(client: &Client, stream: &str, numbers: std::ops::Range<u64>) -> Result<()> {
    let entries = numbers.map(|n| {
        // A multiplicative hash: neighbours land far apart.
        let hash = u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64;
        PutRecordsRequestEntry::builder()
            .partition_key(format!("user-{:06}", n % 1000))
            .explicit_hash_key(hash.to_string())
            .data(Blob::new(record(n)))
            .build()
    });
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let answer = client.put_records().stream_name(stream).set_records(Some(entries)).send().await;
    let refused = answer.context("putting records")?.failed_record_count().unwrap_or(0);
    ensure!(refused == 0, "the endpoint refused {refused} records");
    Ok(())
}

/// A record with eight typed fields.
fn record(n: u64) -> String {
    let head = format!(
        "{{\"id\":{n},\"user\":\"user-{:06}\",\"kind\":\"{}\",\"at\":\"2026-11-21T12:{:02}:{:02}.{:03}Z\",\"price\":{}.{:02},\"ok\":{},\"score\":0.{:06},\"note\":\"",
        n % 1000,
        ["click", "view", "order"][(n % 3) as usize],
        n / 60 % 60,
        n % 60,
        n % 1000,
        n % 500,
        n % 100,
        n.is_multiple_of(2),
        n * 7919 % 1_000_000,
    );
    let note = RECORD_BYTES - head.len() - 2;
    format!("{head}{}\"}}", "lorem ipsum dolor ".repeat(note / 18 + 1).split_at(note).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_json_of_the_promised_length() {
        for n in [0, 7, 399_999, 10_000_000] {
            let text = record(n);
            assert_eq!(text.len(), RECORD_BYTES);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value.as_object().unwrap().len(), 8);
            assert_eq!(value["id"], n);
        }
    }
}
