//! Records that are made up: a source that needs nothing outside, for try-outs, tests and `shardwright selftest`.
//!
//! ```sql
//! CREATE SOURCE numbers (id BIGINT, color VARCHAR)
//! WITH (connector = 'datagen', datagen.rows.per.second = '100', datagen.split.num = '4',
//!       fields.id.kind = 'sequence', fields.id.start = '1', fields.id.end = '1000', fields.color.length = '8')
//! FORMAT PLAIN ENCODE JSON;
//! ```
//!
//! * It behaves like a stream that began when the source was created and keeps everything: row n arrived n / rate seconds after
//!   that. A sink that is created later, or a run that starts again at its checkpoint, reads what it has missed as fast as it can.
//! * The rows go round the splits: split i of k has rows i, i + k, i + 2k, … What a row holds depends on nothing but its number and
//!   the options, so that the same place of a split always gives the same bytes, the same key and the same arrival ([`rows`]).
//! * A `sequence` ends with its last value, and with the shortest of them the source: each split then ends for good, as a shard
//!   does, and has no children.
//! * Positions rest on the pace, on the number of splits and on that of rows: with another of these it is another stream, so that
//!   `ALTER SOURCE` refuses it. What the rows hold may be changed.
//! * Three files: there is nobody to talk to.

mod config;
mod reader;
mod rows;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use connector::{Error, ErrorKind, Listing, OptionError, Registry, Result, Source, SourceKind, SplitReader};
use model::{
    Creation, Encode, Format, IncludeKind, Position, SourceSpec, Split, SplitId, Start, StartFrom, Timestamp,
};

use self::{
    config::{Config, OPTIONS},
    reader::Reader,
    rows::{Lane, Rows},
};

/// The value of `connector`.
pub const NAME: &str = "datagen";

/// What each split's name begins with.
const SPLIT: &str = "split-";

/// Tells the time.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Adds the source to the registry.
pub fn register(registry: &mut Registry) {
    registry.add_source(SourceKind {
        name: NAME,
        options: &OPTIONS,
        formats: &[(Format::Plain, Encode::Json)],
        include: &[
            (IncludeKind::Key, "_rw_datagen_key"),
            (IncludeKind::Partition, "_rw_datagen_partition"),
            (IncludeKind::Offset, "_rw_datagen_offset"),
            (IncludeKind::Timestamp, "_rw_datagen_timestamp"),
            (IncludeKind::Payload, "_rw_datagen_payload"),
        ],
        build: Arc::new(|spec: &SourceSpec| build(spec, Arc::new(local)).map(|made| Arc::new(made) as _)),
    });
}

fn build(spec: &SourceSpec, clock: Clock) -> Result<Datagen, OptionError> {
    let config = Config::read(&spec.options, &spec.columns)?;
    Ok(Datagen { rows: Arc::new(Rows::new(config, spec.created_at)), clock })
}

struct Datagen {
    rows: Arc<Rows>,
    clock: Clock,
}

impl Datagen {
    fn split(&self, index: u64) -> SplitId {
        SplitId::new(self.creation(), &format!("{SPLIT}{index:04}"))
    }

    /// Which stream it is, see [`Rows::identity`]. Never 0, which is a stream that nobody has seen yet.
    fn creation(&self) -> Creation {
        Creation(i64::try_from(self.rows.identity() >> 16).unwrap_or(i64::MAX).max(1))
    }

    /// The lane of rows that `split` stands for, if it is one of ours.
    fn lane(&self, split: &SplitId) -> Option<Lane> {
        let index = split.name().strip_prefix(SPLIT)?.parse().ok()?;
        (split.creation() == self.creation()).then(|| self.rows.lane(index)).flatten()
    }
}

#[async_trait]
impl Source for Datagen {
    async fn start(&self) -> Result<Start> {
        Ok(Start::all(StartFrom::Horizon))
    }

    async fn discover(&self) -> Result<Listing> {
        let now = (self.clock)();
        let listed = |index| Split {
            id: self.split(index),
            parents: Vec::new(),
            range: None,
            closed: self.rows.lane(index).is_some_and(|lane| self.rows.is_complete(lane, now)),
        };
        let splits = (0..self.rows.splits()).map(listed).collect();
        Ok(Listing { creation: self.creation(), splits, now: Some(now), retention: None })
    }

    async fn is_gone(&self, split: &SplitId) -> Result<bool> {
        Ok(self.lane(split).is_none())
    }

    async fn open(&self, split: &SplitId, from: &Position) -> Result<Box<dyn SplitReader>> {
        let lane = self.lane(split).ok_or_else(|| {
            let text = format!("split `{split}` is none of those that the options of its source make");
            Error::new(ErrorKind::Config, text)
        })?;
        let next = self.rows.place(lane, from)?;
        Ok(Box::new(Reader::new(Arc::clone(&self.rows), lane, next, Arc::clone(&self.clock))))
    }

    fn share(&self, _: &SplitId, _: u32) {}
}

fn local() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
