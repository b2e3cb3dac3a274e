//! The Kinesis endpoint that everything is measured against, and what is put into it.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aws_sdk_kinesis::{Client, primitives::Blob, types::PutRecordsRequestEntry};
use axum::middleware;
use integration_tests::endpoint;
pub(crate) use integration_tests::endpoint::{client, create_stream};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
};

use crate::reads::{Watch, observe};

/// Bytes of a record, partition key not counted.
pub(crate) const RECORD_BYTES: usize = 562;

/// Records of one PutRecords: the service's limit.
const PUT_RECORDS_MAX: u64 = 500;

/// Shards of a stream that is read as fast as it goes.
pub(crate) const SHARDS: i32 = 8;

/// Shards that the endpoint holds at most, all streams.
const SHARDS_MAX: u32 = 30_000;

/// Fillers at work at the same time.
const FILLERS: u64 = 8;

/// Serves until it is killed; prints its URL first.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the endpoint")?;
    println!("http://{}", listener.local_addr()?);
    let options = endpoint::StoreOptions { shard_limit: SHARDS_MAX, ..endpoint::quick() };
    let watch = Arc::new(Mutex::new(Watch::default()));
    let layer = middleware::from_fn(move |request, next| observe(Arc::clone(&watch), request, next));
    endpoint::serve_app(listener, endpoint::app(options).layer(layer)).await
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

/// The names of the shards that are open.
pub(crate) async fn open_shards(client: &Client, stream: &str) -> Result<Vec<String>> {
    let open = endpoint::open_shards(client, stream).await?;
    Ok(open.iter().map(|shard| shard.shard_id().to_owned()).collect())
}

/// Creates a stream and fills it with numbered records of [`RECORD_BYTES`], spread evenly over its hash range.
pub(crate) async fn fill_new(client: Client, stream: &str, records: u64) -> Result<()> {
    create_stream(&client, stream, SHARDS).await?;
    let start = Instant::now();
    fill(&client, stream, records).await?;
    eprintln!("{records} records put in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

async fn fill(client: &Client, stream: &str, records: u64) -> Result<()> {
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
