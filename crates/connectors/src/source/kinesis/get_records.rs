//! The one call that carries the data. Alone in its file, because the codec behind it is what a reader's CPU time goes to.
//!
//! Data and keys move from the SDK's answer into [`Bytes`] without a copy.

use std::time::Duration;

use bytes::Bytes;
use connector::Result;
use model::Timestamp;

use super::client::Client;
use crate::aws::Lane;

/// A record of a shard, aggregates still closed.
#[derive(Debug)]
pub(crate) struct Record {
    /// Decimal, compared as a number; belongs to one shard.
    pub sequence_number: String,
    /// The partition key.
    pub key: Bytes,
    /// As written.
    pub data: Bytes,
    /// Not monotonic.
    pub arrived_at: Timestamp,
}

/// What one `GetRecords` brought.
#[derive(Debug)]
pub(crate) struct Answer {
    /// In the order of the shard; may be empty although there is more.
    pub records: Vec<Record>,
    /// Keys and data of `records`.
    pub bytes: usize,
    /// Where to go on; `None` when the shard is closed and `records` were its last.
    pub next: Option<String>,
    /// `MillisBehindLatest`.
    pub behind: Option<Duration>,
}

impl Client {
    /// Reads up to `limit` records at `iterator`.
    pub(crate) async fn get_records(&self, iterator: &str, limit: i32) -> Result<Answer> {
        let stream = &self.service.access().stream;
        let answer = self
            .service
            .call(
                Lane::Bulk,
                "GetRecords",
                || format!("failed to read stream `{}`", stream.name),
                |client| {
                    client
                        .get_records()
                        .set_stream_arn(stream.arn.clone())
                        .shard_iterator(iterator)
                        .limit(limit)
                        .send()
                },
            )
            .await?;
        let mut bytes = 0;
        let records = answer
            .records
            .into_iter()
            .map(|record| {
                // A stream that places records by itself (AUTO) may hand them out without a key.
                let key = Bytes::from(record.partition_key.unwrap_or_default().into_bytes());
                let data = Bytes::from(record.data.into_inner());
                bytes += key.len() + data.len();
                let arrived_at = record.approximate_arrival_timestamp.and_then(|at| at.to_millis().ok());
                Record {
                    sequence_number: record.sequence_number,
                    key,
                    data,
                    arrived_at: Timestamp(arrived_at.unwrap_or_default()),
                }
            })
            .collect();
        Ok(Answer {
            records,
            bytes,
            next: answer.next_shard_iterator.filter(|token| !token.is_empty()),
            behind: answer
                .millis_behind_latest
                .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default())),
        })
    }
}
