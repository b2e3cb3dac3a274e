//! Amazon Kinesis Data Streams as a source. A split is a shard, a cursor is a sequence number.
//!
//! ```sql
//! CREATE SOURCE clicks (id BIGINT, url VARCHAR) INCLUDE timestamp
//! WITH (connector = 'kinesis', stream = 'clicks', aws.region = 'eu-west-1', scan.startup.mode = 'latest')
//! FORMAT PLAIN ENCODE JSON;
//! ```
//!
//! * `latest` becomes the service's own time (less two seconds, as its clock is told in whole seconds) when the source is
//!   created, and is never evaluated again; shards found later begin at their oldest record, so a reshard loses nothing.
//! * Every reader of a shard in this process shares one [`pace`]; `read.share` leaves room for other consumers.
//! * KPL aggregates are opened; a position inside one is kept.
//! * A position that the stream no longer holds is reported as a gap ([`connector::SplitReader::gap`]), never passed over
//!   in silence.
//! * A stream that was deleted and created again under its name is another stream: its readers stop with an error (S13).
//!
//! * With `kinesis.consumer.mode = 'efo'` shards are pushed instead of polled ([`fanout`]).
//!
//! Limits: 5 reads and 2 MiB a second and shard, all polling consumers together, unless the options say otherwise.

mod client;
mod config;
mod fanout;
mod get_records;
mod loss;
mod meters;
mod pace;
mod place;
mod reader;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use aws_sdk_kinesis::config::SharedHttpClient;
use connector::{
    Error, ErrorKind, Listing, OptionError, Registrar, Registry, Result, Source, SourceKind, SplitReader,
};
use futures::{StreamExt, TryStreamExt, stream};
use model::{
    Cursor, Encode, Format, IncludeKind, Position, SourceSpec, SplitId, Start, StartFrom, Timestamp,
};
use tokio::time::Instant;

use self::{
    client::{Begin, Client, INVALID_ARGUMENT, NOT_FOUND, Summary},
    config::{Config, OPTIONS, Startup},
    fanout::Consumers,
    pace::Pace,
    place::Place,
    reader::Reader,
};

/// The value of `connector`.
pub const NAME: &str = "kinesis";

/// `Date` has whole seconds and arrival times are not monotonic (docs/kinesis.md 3.1).
const LATEST_MARGIN_MS: i64 = 2_000;
/// How long a look at the stream's creation holds for the readers that open meanwhile.
const CREATION_AGE_MAX: Duration = Duration::from_secs(5);
/// `GetShardIterator` calls at once while a start is looked up in every shard.
const LOOKUPS: usize = 16;

/// Adds the source to the registry.
pub fn register(registry: &mut Registry) {
    register_over(registry, None);
}

/// Adds the source to the registry; with `http`, every call to AWS goes through it and nothing is read from the environment
/// of the process if keys are given.
pub fn register_over(registry: &mut Registry, http: Option<SharedHttpClient>) {
    registry.add_source(SourceKind {
        name: NAME,
        options: &OPTIONS,
        formats: &[(Format::Plain, Encode::Json), (Format::Plain, Encode::Bytes)],
        include: &[
            (IncludeKind::Key, "_rw_kinesis_key"),
            (IncludeKind::Partition, "_rw_kinesis_partition"),
            (IncludeKind::Offset, "_rw_kinesis_offset"),
            (IncludeKind::Timestamp, "_rw_kinesis_timestamp"),
            (IncludeKind::Payload, "_rw_kinesis_payload"),
        ],
        build: Arc::new(move |spec: &SourceSpec| build(spec, http.clone())),
    });
}

fn build(spec: &SourceSpec, http: Option<SharedHttpClient>) -> Result<Arc<dyn Source>, OptionError> {
    let config = Config::read(&spec.options)?;
    let client = Client::new(&config, http);
    let consumers = config.fanout.clone().map(|fanout| Arc::new(Consumers::new(fanout)));
    let shared = Arc::new(Shared { client, config, seen: tokio::sync::Mutex::new(None) });
    Ok(Arc::new(Kinesis { shared, paces: Mutex::new(HashMap::new()), consumers }))
}

/// What the readers of a source share.
pub(crate) struct Shared {
    client: Client,
    config: Config,
    seen: tokio::sync::Mutex<Option<(Instant, Summary)>>,
}

impl Shared {
    /// Fails if the stream is not the one that `split` belongs to; else says since when the stream holds its records, if the
    /// service tells.
    async fn check_creation(&self, split: &SplitId) -> Result<Option<Timestamp>> {
        let mut seen = self.seen.lock().await;
        let Summary { creation, now, retention } = match *seen {
            Some((at, summary)) if at.elapsed() < CREATION_AGE_MAX => summary,
            _ => {
                let summary = self.client.summary().await?;
                *seen = Some((Instant::now(), summary));
                summary
            }
        };
        if creation == split.creation() {
            let kept = retention.and_then(|kept| i64::try_from(kept.as_millis()).ok());
            return Ok(kept.map(|kept| Timestamp(now.unwrap_or_else(local_millis) - kept)));
        }
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "stream `{}` was deleted and created again at {}; shard `{split}` belongs to the one of {}",
                self.client.stream(),
                Timestamp(creation.0),
                Timestamp(split.creation().0),
            ),
        ))
    }
}

struct Paced {
    readers: u32,
    pace: std::sync::Weak<Pace>,
}

struct Kinesis {
    shared: Arc<Shared>,
    paces: Mutex<HashMap<String, Paced>>,
    /// `None`: polling.
    consumers: Option<Arc<Consumers>>,
}

impl Kinesis {
    fn paces(&self) -> MutexGuard<'_, HashMap<String, Paced>> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self, split: &SplitId) -> Arc<Pace> {
        let mut paces = self.paces();
        // Shards come and go for ever: forget those that nobody reads and nobody spoke about.
        paces.retain(|_, paced| paced.readers > 1 || paced.pace.strong_count() > 0);
        let entry = paces
            .entry(split.name().to_owned())
            .or_insert_with(|| Paced { readers: 1, pace: std::sync::Weak::new() });
        entry.pace.upgrade().unwrap_or_else(|| {
            let pace = Arc::new(Pace::new(self.shared.config.quota, entry.readers));
            entry.pace = Arc::downgrade(&pace);
            pace
        })
    }

    /// A sequence number belongs to one shard, but the user gave only the number: every shard is asked.
    async fn find_number(&self, number: &str) -> Result<Start> {
        let client = &self.shared.client;
        let splits = client.list_shards(client.summary().await?.creation).await?;
        let from = Begin::AtNumber(number.to_owned());
        let takes = stream::iter(splits)
            .map(|split| {
                let from = &from;
                async move {
                    match client.shard_iterator(split.id.name(), from).await {
                        Ok(_) => Ok(Some(split.id.name().to_owned())),
                        Err(error) if error.vendor_code() == Some(INVALID_ARGUMENT) => {
                            tracing::info!(shard = %split.id, "has no such sequence number: begins at its oldest record");
                            Ok(None)
                        }
                        Err(error) => Err(error),
                    }
                }
            })
            .buffer_unordered(LOOKUPS)
            .try_filter_map(|found| async { Ok(found) });
        let at = StartFrom::AtCursor(Cursor::new(number));
        let splits: BTreeMap<String, StartFrom> =
            takes.map_ok(|shard| (shard, at.clone())).try_collect().await?;
        if splits.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "scan.startup.sequence_number {number} is not valid for any shard of stream \"{}\"",
                    client.stream()
                ),
            ));
        }
        Ok(Start { default: StartFrom::Horizon, splits })
    }
}

#[async_trait]
impl Source for Kinesis {
    async fn start(&self) -> Result<Start> {
        match &self.shared.config.startup {
            Startup::Earliest => Ok(Start::all(StartFrom::Horizon)),
            Startup::At(at) => Ok(Start::all(StartFrom::At(*at))),
            Startup::Latest => {
                let Summary { now, .. } = self.shared.client.summary().await?;
                let now = now.unwrap_or_else(|| {
                    tracing::warn!("the service did not say its time: the local clock is taken for `latest`");
                    local_millis()
                });
                Ok(Start::all(StartFrom::At(Timestamp(now - LATEST_MARGIN_MS))))
            }
            Startup::SequenceNumber(number) => self.find_number(number).await,
            Startup::SequenceNumbers(splits) => {
                Ok(Start { default: StartFrom::Horizon, splits: splits.clone() })
            }
        }
    }

    async fn discover(&self) -> Result<Listing> {
        let Summary { creation, retention, .. } = self.shared.client.summary().await?;
        let splits = self.shared.client.list_shards(creation).await?;
        Ok(Listing { creation, splits, now: Some(self.shared.client.now()), retention })
    }

    async fn is_gone(&self, split: &SplitId) -> Result<bool> {
        let client = &self.shared.client;
        match client.shard_iterator(split.name(), &Begin::Horizon).await {
            // A shard of that name may belong to a stream made since.
            Ok(_) => Ok(client.summary().await?.creation != split.creation()),
            // The same code means "no such stream"; then this second question fails and nothing counts as gone.
            Err(error) if error.vendor_code() == Some(NOT_FOUND) => {
                client.summary().await?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    async fn open(&self, split: &SplitId, from: &Position) -> Result<Box<dyn SplitReader>> {
        let place = Place::of(from)?;
        Ok(Box::new(Reader::new(Arc::clone(&self.shared), split.clone(), self.pace(split), place)))
    }

    fn share(&self, split: &SplitId, readers: u32) {
        let mut paces = self.paces();
        let entry = paces
            .entry(split.name().to_owned())
            .or_insert_with(|| Paced { readers, pace: std::sync::Weak::new() });
        entry.readers = readers;
        if let Some(pace) = entry.pace.upgrade() {
            pace.set_readers(readers);
        }
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.consumers.as_ref().map(|_| self as &dyn Registrar)
    }
}

fn local_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
