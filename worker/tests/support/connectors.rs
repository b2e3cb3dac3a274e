//! A source that counts for ever and a sink that keeps what it got, both by name, since the registry builds them from specs.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use connector::{
    BatchLimits, Capability, Delivery, DistributionKind, Error, ErrorKind, KeyRule, Listing, OptionDef,
    OptionKind, Polled, Registry, Rejected, Run, Sink, SinkKind, SinkWriter, Source, SourceKind, SplitReader,
};
use model::{
    Batch, Column, Creation, Cursor, Encode, Epoch, Format, FormatClause, ObjectId, OnError, Options,
    Position, RawRecord, SinkSpec, SourceSpec, SplitId, SqlType, Start, StartFrom, TaskId, Timestamp,
};

/// What one sink got, in order: the epoch that wrote it, and the number of the record.
#[derive(Default)]
pub struct Ledger {
    pub rows: Mutex<Vec<(Epoch, u64)>>,
    pub shares: Mutex<Vec<u32>>,
    /// While set, deliveries do not resolve.
    pub stuck: Mutex<bool>,
    /// The record of this number is refused.
    pub refused: Mutex<Option<u64>>,
}

impl Ledger {
    pub fn count(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    pub fn of(&self, epoch: Epoch) -> Vec<u64> {
        let rows = self.rows.lock().unwrap();
        rows.iter().filter(|(e, _)| *e == epoch).map(|(_, n)| *n).collect()
    }
}

static LEDGERS: LazyLock<Mutex<BTreeMap<String, Arc<Ledger>>>> = LazyLock::new(Mutex::default);

/// The ledger of one test.
pub fn ledger(name: &str) -> Arc<Ledger> {
    Arc::clone(LEDGERS.lock().unwrap().entry(name.to_owned()).or_default())
}

struct Counting {
    ledger: Arc<Ledger>,
    last: u64,
}

struct CountingReader {
    next: u64,
    last: u64,
}

#[async_trait]
impl Source for Counting {
    async fn start(&self) -> connector::Result<Start> {
        Ok(Start::all(StartFrom::Horizon))
    }
    async fn discover(&self) -> connector::Result<Listing> {
        Ok(Listing { creation: Creation(1), splits: vec![], now: None, retention: None })
    }
    async fn is_gone(&self, _: &SplitId) -> connector::Result<bool> {
        Ok(false)
    }
    async fn open(&self, _: &SplitId, from: &Position) -> connector::Result<Box<dyn SplitReader>> {
        let next = match from {
            Position::After(cursor) => cursor.as_str().parse::<u64>().unwrap() + 1,
            _ => 0,
        };
        Ok(Box::new(CountingReader { next, last: self.last }))
    }
    fn share(&self, _: &SplitId, readers: u32) {
        self.ledger.shares.lock().unwrap().push(readers);
    }
}

#[async_trait]
impl SplitReader for CountingReader {
    async fn next(&mut self) -> connector::Result<Polled> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if self.next > self.last {
            return Ok(Polled::End);
        }
        let record = RawRecord {
            cursor: Cursor::new(self.next.to_string()),
            key: Bytes::from_static(b"k"),
            payload: Bytes::copy_from_slice(self.next.to_string().as_bytes()),
            arrived_at: Timestamp(0),
        };
        self.next += 1;
        Ok(Polled::Records { records: vec![record], lag: Some(Duration::ZERO) })
    }
}

struct Keeping(Arc<Ledger>);
struct KeepingWriter(Arc<Ledger>, Epoch);

#[async_trait]
impl Sink for Keeping {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }
    async fn validate(&self) -> connector::Result<()> {
        Ok(())
    }
    async fn open(&self, _: &TaskId, run: &Run) -> connector::Result<Box<dyn SinkWriter>> {
        Ok(Box::new(KeepingWriter(Arc::clone(&self.0), run.epoch)))
    }
}

#[async_trait]
impl SinkWriter for KeepingWriter {
    async fn write(&mut self, batch: Batch) -> connector::Result<Delivery> {
        let (ledger, epoch) = (Arc::clone(&self.0), self.1);
        Ok(Box::pin(async move {
            while *ledger.stuck.lock().unwrap() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let refused = *ledger.refused.lock().unwrap();
            let mut rejected = vec![];
            for (row, cursor) in batch.cursors.iter().enumerate() {
                let number = cursor.as_str().parse().unwrap();
                if refused == Some(number) {
                    rejected.push(Rejected { row, error: Error::new(ErrorKind::Rejected, "not this one") });
                } else {
                    ledger.rows.lock().unwrap().push((epoch, number));
                }
            }
            Ok(rejected)
        }))
    }
    async fn flush(&mut self) -> connector::Result<()> {
        Ok(())
    }
}

const NAME: &[OptionDef] =
    &[OptionDef::new("ledger", OptionKind::Text), OptionDef::new("last", OptionKind::Text)];

/// A registry with the two fakes.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add_source(SourceKind {
        name: "counting",
        options: NAME,
        formats: &[(Format::Plain, Encode::Bytes)],
        include: &[],
        build: Arc::new(|spec: &SourceSpec| {
            let last = spec.options.get("last").map_or(u64::MAX, |n| n.parse().unwrap());
            Ok(Arc::new(Counting { ledger: ledger(spec.options.get("ledger").unwrap()), last }))
        }),
    });
    registry.add_sink(SinkKind {
        name: "keeping",
        options: NAME,
        formats: &[],
        format_required: false,
        key: KeyRule::Optional,
        distributions: DistributionKind::ALL,
        limits: BatchLimits { rows: 100, bytes: 1 << 20, linger: Duration::ZERO },
        build: Arc::new(|spec: &SinkSpec, _: &Options| {
            Ok(Arc::new(Keeping(ledger(spec.options.get("ledger").unwrap()))))
        }),
    });
    registry
}

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().copied().collect()
}

/// A source of numbers 0…`last`.
pub fn source(ledger: &str, last: u64) -> SourceSpec {
    SourceSpec {
        id: ObjectId::from_parts(1, 1),
        name: "numbers".to_owned(),
        connector: "counting".to_owned(),
        options: options(&[("ledger", ledger), ("last", &last.to_string())]),
        columns: vec![Column { name: "data".to_owned(), kind: SqlType::Bytea }],
        include: vec![],
        primary_key: vec![],
        format: FormatClause {
            format: Format::Plain,
            encode: Encode::Bytes,
            options: Options::default(),
            key_encode: None,
        },
        on_error: OnError::Skip,
        start: Start::all(StartFrom::Horizon),
        creation: Creation(1),
        created_at: Timestamp(0),
        revision: 1,
    }
}

/// The sink that keeps them.
pub fn sink(ledger: &str) -> SinkSpec {
    let source = source(ledger, 0);
    SinkSpec {
        id: ObjectId::from_parts(2, 2),
        name: "kept".to_owned(),
        source: source.id,
        source_name: source.name,
        query: None,
        columns: source.columns,
        connector: "keeping".to_owned(),
        options: options(&[("ledger", ledger), ("checkpoint_interval", "100ms")]),
        primary_key: vec![],
        format: None,
        on_error: OnError::Fail,
        distribution: model::Distribution::Split,
        paused: false,
        created_at: Timestamp(0),
        revision: 1,
        instance: 0,
    }
}

/// The task of one split of that sink.
pub fn task(split: &str) -> TaskId {
    TaskId::reads(ObjectId::from_parts(2, 2), SplitId::new(Creation(1), split))
}
