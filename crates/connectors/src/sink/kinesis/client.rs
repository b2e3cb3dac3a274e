//! `PutRecords`, and the two questions that a sink asks before it.

use std::time::Duration;

use aws_sdk_kinesis::config::SharedHttpClient;
use connector::{Error, ErrorKind, Result};
use tokio::{sync::Mutex, time::Instant};

use super::config::Config;
use crate::aws::{
    Bulk, Service, code_error,
    puts::{self, Entry, Put},
};

/// How long an answer about the largest record holds.
const RECORD_MAX_AGE: Duration = Duration::from_secs(60);
/// How long a run waits for that answer before it begins without it.
const RECORD_MAX_PATIENCE: Duration = Duration::from_secs(2);

/// The service, as a writer needs it.
pub(crate) struct Client {
    service: Service,
    record_max: Mutex<Option<(Instant, Option<usize>)>>,
}

impl Client {
    pub(crate) fn new(config: &Config, http: Option<SharedHttpClient>) -> Self {
        let service = Service::new(config.access.clone(), Bulk::PutRecords, config.attempt, http);
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

    /// Writes `entries` in one request; `judge` is shown what came of each, in their order.
    pub(crate) async fn put_records<T>(
        &self,
        entries: &[Entry],
        judge: impl Fn(&[Put<'_>]) -> T,
    ) -> Result<T> {
        let body = puts::ask(&self.service.access().stream, entries);
        let read = |body: &[u8]| {
            let puts = puts::read(body)?;
            Ok(if puts.len() == entries.len() { Ok(judge(&puts)) } else { Err(puts.len()) })
        };
        let answer = self.service.bulk_once(|| self.what(), body, read).await.map_err(refusal)?;
        answer.map_err(|got| {
            let (what, sent) = (self.what(), entries.len());
            let text =
                format!("{what}: request record count {sent} not match the response record count {got}");
            Error::new(ErrorKind::Bug, text)
        })
    }

    fn what(&self) -> String {
        format!("failed to write to stream `{}`", self.stream())
    }

    /// Why a record was not stored, from the code and the message of the service.
    pub(crate) fn failed(&self, code: &str, message: &str) -> Error {
        per_record(code_error(&self.what(), code, message, None))
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
