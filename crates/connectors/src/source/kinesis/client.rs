//! What a source asks the service, besides records: the stream's identity, its shards, iterators.

use std::time::Duration;

use aws_sdk_kinesis::{
    config::SharedHttpClient,
    primitives::DateTime,
    types::{Shard, ShardIteratorType},
};
use connector::{Error, ErrorKind, Result};
use model::{Creation, HashRange, Split, SplitId, Timestamp};

use super::config::Config;
use crate::aws::{Bulk, Service, ServiceDate};

/// One `GetRecords` may carry 10 MiB over a slow line (docs/kinesis.md 3.6).
const READ_ATTEMPT: Duration = Duration::from_secs(30);

/// The code of an answer that says: the iterator is older than five minutes.
pub(crate) const EXPIRED_ITERATOR: &str = "ExpiredIteratorException";
/// The code of an answer that says: this sequence number or moment is not one of this shard.
pub(crate) const INVALID_ARGUMENT: &str = "InvalidArgumentException";
/// The code of an answer that says: no such stream or shard.
pub(crate) const NOT_FOUND: &str = "ResourceNotFoundException";
/// The code of an answer that says: this page token is older than five minutes.
const EXPIRED_TOKEN: &str = "ExpiredNextTokenException";

/// A stream at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Summary {
    /// Tells this stream from an earlier one of the same name (S13).
    pub creation: Creation,
    /// The service's clock, in ms since 1970, whole seconds.
    pub now: Option<i64>,
    /// How long records are kept.
    pub retention: Option<Duration>,
}

/// Where an iterator begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    Horizon,
    At(Timestamp),
    AtNumber(String),
    AfterNumber(String),
}

/// The service, as a reader needs it.
pub(crate) struct Client {
    pub(super) service: Service,
}

impl Client {
    pub(crate) fn new(config: &Config, http: Option<SharedHttpClient>) -> Self {
        let limits = &config.access.limits;
        let read = if limits.attempt_given { limits.attempt } else { READ_ATTEMPT };
        Self { service: Service::new(config.access.clone(), Bulk::GetRecords, read, http) }
    }

    /// The stream's name, for messages.
    pub(crate) fn stream(&self) -> &str {
        &self.service.access().stream.name
    }

    /// What time it is at the service, as far as its answers told.
    pub(crate) fn now(&self) -> Timestamp {
        self.service.now()
    }

    /// Who the stream is, and what time it is there.
    pub(crate) async fn summary(&self) -> Result<Summary> {
        let stream = &self.service.access().stream;
        let date = ServiceDate::default();
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
                        .customize()
                        .interceptor(date.clone())
                        .send()
                },
            )
            .await?;
        let hours = answer.stream_description_summary().map(|summary| summary.retention_period_hours());
        let retention = hours.and_then(|hours| u64::try_from(hours).ok()).filter(|hours| *hours > 0);
        let retention = retention.map(|hours| Duration::from_secs(hours * 3600));
        let created =
            answer.stream_description_summary().and_then(|s| s.stream_creation_timestamp().to_millis().ok());
        let created = created.ok_or_else(|| {
            Error::new(ErrorKind::Bug, format!("stream `{}` was described without its creation", stream.name))
        })?;
        Ok(Summary { creation: Creation(created), now: date.millis(), retention })
    }

    /// Every shard that the service lists, all pages.
    pub(crate) async fn list_shards(&self, creation: Creation) -> Result<Vec<Split>> {
        let mut restarts = 0;
        loop {
            match self.list_all_pages(creation).await {
                // A token lives 300 s; a listing that took longer begins again.
                Err(error) if error.vendor_code() == Some(EXPIRED_TOKEN) && restarts < 3 => restarts += 1,
                outcome => return outcome,
            }
        }
    }

    async fn list_all_pages(&self, creation: Creation) -> Result<Vec<Split>> {
        let stream = &self.service.access().stream;
        let mut splits: Vec<Split> = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self
                .service
                .call(
                    "ListShards",
                    || format!("failed to list shards of stream `{}`", stream.name),
                    |client| {
                        let request = client.list_shards();
                        match &token {
                            // A token names the stream by itself and is refused together with its name.
                            Some(token) => request.next_token(token),
                            None => request.stream_name(&stream.name).set_stream_arn(stream.arn.clone()),
                        }
                        .send()
                    },
                )
                .await?;
            splits.extend(page.shards().iter().map(|shard| split(creation, shard)));
            match page.next_token {
                Some(next) if !next.is_empty() && Some(&next) != token.as_ref() => token = Some(next),
                _ => break,
            }
        }
        // A reshard between two pages may list a shard twice.
        splits.sort_by(|a, b| a.id.cmp(&b.id));
        splits.dedup_by(|a, b| a.id == b.id);
        Ok(splits)
    }

    /// An iterator of `shard`; it lives five minutes.
    pub(crate) async fn shard_iterator(&self, shard: &str, from: &Begin) -> Result<String> {
        let stream = &self.service.access().stream;
        let (kind, number, moment) = match from {
            Begin::Horizon => (ShardIteratorType::TrimHorizon, None, None),
            Begin::At(at) => (ShardIteratorType::AtTimestamp, None, Some(DateTime::from_millis(at.0))),
            Begin::AtNumber(n) => (ShardIteratorType::AtSequenceNumber, Some(n.clone()), None),
            Begin::AfterNumber(n) => (ShardIteratorType::AfterSequenceNumber, Some(n.clone()), None),
        };
        let answer = self
            .service
            .call(
                "GetShardIterator",
                || format!("failed to open shard `{shard}` of stream `{}`", stream.name),
                |client| {
                    client
                        .get_shard_iterator()
                        .stream_name(&stream.name)
                        .set_stream_arn(stream.arn.clone())
                        .shard_id(shard)
                        .shard_iterator_type(kind.clone())
                        .set_starting_sequence_number(number.clone())
                        .set_timestamp(moment)
                        .send()
                },
            )
            .await?;
        answer.shard_iterator.ok_or_else(|| {
            Error::new(ErrorKind::Bug, format!("shard `{shard}` of stream `{}` got no iterator", stream.name))
        })
    }
}

fn split(creation: Creation, shard: &Shard) -> Split {
    let id = |name: &str| SplitId::new(creation, name);
    let range = shard.hash_key_range().and_then(|range| {
        Some(HashRange {
            first: range.starting_hash_key().parse().ok()?,
            last: range.ending_hash_key().parse().ok()?,
        })
    });
    Split {
        id: id(shard.shard_id()),
        parents: [shard.parent_shard_id(), shard.adjacent_parent_shard_id()]
            .into_iter()
            .flatten()
            .filter(|name| !name.is_empty())
            .map(id)
            .collect(),
        range,
        closed: shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_some()),
    }
}
