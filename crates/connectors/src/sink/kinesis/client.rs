//! `PutRecords`, and the two questions that a sink asks before it.

use std::time::Duration;

use aws_sdk_kinesis::{config::SharedHttpClient, primitives::Blob, types::PutRecordsRequestEntry};
use bytes::Bytes;
use connector::{Error, ErrorKind, Result};
use tokio::{sync::Mutex, time::Instant};

use super::config::Config;
use crate::aws::{Lane, Service, code_error};

/// How long an answer about the largest record holds.
const RECORD_MAX_AGE: Duration = Duration::from_secs(60);
/// How long a run waits for that answer before it begins without it.
const RECORD_MAX_PATIENCE: Duration = Duration::from_secs(2);

/// One record to write.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The partition key, 1…256 characters.
    pub key: String,
    /// May be empty: that is a tombstone.
    pub data: Bytes,
}

/// What came of one record.
#[derive(Debug)]
pub(crate) enum Put {
    /// It is in `shard` under `number` (decimal; compared as a number).
    Stored { shard: String, number: String },
    /// It is not.
    Failed(Error),
}

/// The service, as a writer needs it.
pub(crate) struct Client {
    service: Service,
    record_max: Mutex<Option<(Instant, Option<usize>)>>,
}

impl Client {
    pub(crate) fn new(config: &Config, http: Option<SharedHttpClient>) -> Self {
        let service = Service::new(config.access.clone(), config.attempt, http);
        Self { service, record_max: Mutex::new(None) }
    }

    /// The stream's name, for messages.
    pub(crate) fn stream(&self) -> &str {
        &self.service.access().stream.name
    }

    /// The stream is there and may be listed.
    pub(crate) async fn reach(&self) -> Result<()> {
        let stream = &self.service.access().stream;
        self.service
            .call(
                Lane::Ask,
                "ListShards",
                || format!("failed to list shards of stream `{}`", stream.name),
                |client| {
                    client
                        .list_shards()
                        .stream_name(&stream.name)
                        .set_stream_arn(stream.arn.clone())
                        .max_results(1)
                        .send()
                },
            )
            .await
            .map(|_| ())
    }

    /// The largest record (key and data) that the stream takes, if it says so soon. Asked when a run begins, at most once a
    /// minute, since it can be raised at any time; who may not ask lets the service decide.
    pub(crate) async fn record_max(&self) -> Option<usize> {
        let mut known = self.record_max.lock().await;
        match *known {
            Some((at, max)) if at.elapsed() < RECORD_MAX_AGE => max,
            _ => {
                let asking = tokio::time::timeout(RECORD_MAX_PATIENCE, self.ask_record_max());
                let max = asking.await.unwrap_or_default();
                *known = Some((Instant::now(), max));
                max
            }
        }
    }

    async fn ask_record_max(&self) -> Option<usize> {
        let stream = &self.service.access().stream;
        let answer = self
            .service
            .call(
                Lane::Ask,
                "DescribeStreamSummary",
                || format!("failed to describe stream `{}`", stream.name),
                |client| {
                    client
                        .describe_stream_summary()
                        .stream_name(&stream.name)
                        .set_stream_arn(stream.arn.clone())
                        .send()
                },
            )
            .await;
        match answer {
            Ok(answer) => answer
                .stream_description_summary()
                .and_then(|summary| summary.max_record_size_in_kib())
                .and_then(|kib| usize::try_from(kib).ok())
                .map(|kib| kib * 1024),
            Err(error) => {
                tracing::debug!(%error, "the largest record of the stream is not known: the service decides");
                None
            }
        }
    }

    /// Writes `entries` in one request; the answers are in their order.
    pub(crate) async fn put_records(&self, entries: Vec<Entry>) -> Result<Vec<Put>> {
        let stream = &self.service.access().stream;
        let sent = entries.len();
        let what = || format!("failed to write to stream `{}`", stream.name);
        let records: Vec<PutRecordsRequestEntry> = entries
            .into_iter()
            .map(|entry| {
                PutRecordsRequestEntry::builder()
                    .data(Blob::new(Vec::from(entry.data)))
                    .partition_key(entry.key)
                    .build()
                    .map_err(|e| Error::new(ErrorKind::Bug, what()).because(e))
            })
            .collect::<Result<_>>()?;
        let answer = self
            .service
            .call_once(Lane::Bulk, "PutRecords", what, |client| {
                client
                    .put_records()
                    .stream_name(&stream.name)
                    .set_stream_arn(stream.arn.clone())
                    .set_records(Some(records))
                    .send()
            })
            .await
            .map_err(refusal)?;
        let results = answer.records();
        if results.len() != sent {
            return Err(Error::new(
                ErrorKind::Bug,
                format!(
                    "{}: request record count {sent} not match the response record count {}",
                    what(),
                    results.len()
                ),
            ));
        }
        Ok(answer
            .records
            .into_iter()
            .map(|result| match (result.error_code, result.shard_id, result.sequence_number) {
                (None, Some(shard), Some(number)) => Put::Stored { shard, number },
                (code, ..) => {
                    let code = code.unwrap_or_else(|| "InternalFailure".to_owned());
                    let message = result.error_message.unwrap_or_default();
                    Put::Failed(per_record(code_error(&what(), &code, &message, None)))
                }
            })
            .collect())
    }
}

/// A whole request that the service finds wrong holds a record that it will never take: `on_error` and bisection decide.
fn refusal(error: Error) -> Error {
    match error.vendor_code() {
        Some(code @ ("InvalidArgumentException" | "ValidationException" | "SerializationException")) => {
            let code = code.to_owned();
            Error::new(ErrorKind::Rejected, error.to_string()).code(code)
        }
        _ => error,
    }
}

/// A code that nobody knows, on a single record, is about that record.
fn per_record(error: Error) -> Error {
    if error.kind() != ErrorKind::Config {
        return error;
    }
    let code = error.vendor_code().unwrap_or_default().to_owned();
    Error::new(ErrorKind::Rejected, error.to_string()).code(code)
}
