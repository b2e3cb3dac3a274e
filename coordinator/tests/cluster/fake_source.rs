//! A source whose splits a test writes by hand, and a sink that takes everything; both keyed by the option `stream`, because a
//! kind of connector is made of plain functions.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

use async_trait::async_trait;
use connector::{
    BatchLimits, Capability, Delivery, DistributionKind, Error, ErrorKind, KeyRule, Listing, Registry,
    Result, Run, Sink, SinkKind, SinkWriter, Source, SourceKind, SplitReader,
};
use model::{
    Batch, Creation, Encode, Format, HashRange, Options, Position, SinkSpec, SourceSpec, Split, SplitId,
    Start, StartFrom, TaskId, Timestamp,
};

/// When every stream of the tests was created.
pub const CREATION: Creation = Creation(1_000);

/// Streams by name.
static STREAMS: LazyLock<Mutex<BTreeMap<String, Stream>>> = LazyLock::new(Mutex::default);

/// What the service would say of a stream.
#[derive(Clone, Default)]
pub struct Stream {
    /// Name, parents, range, closed.
    pub splits: Vec<Split>,
    /// Splits that the service says do not exist.
    pub gone: Vec<SplitId>,
    /// What a listing fails with.
    pub fails: Option<String>,
}

/// Changes a stream.
pub fn stream(name: &str, change: impl FnOnce(&mut Stream)) {
    change(STREAMS.lock().unwrap().entry(name.to_owned()).or_default());
}

/// The id of a split of any stream here.
pub fn split(name: &str) -> SplitId {
    SplitId::new(CREATION, name)
}

/// An open split without a range.
pub fn open(name: &str, parents: &[&str]) -> Split {
    let parents = parents.iter().map(|parent| split(parent)).collect();
    Split { id: split(name), parents, range: None, closed: false }
}

/// An open split that owns everything from `first` on to `last`.
pub fn ranged(name: &str, parents: &[&str], first: u128, last: u128) -> Split {
    Split { range: Some(HashRange { first, last }), ..open(name, parents) }
}

struct FakeSource(String);

#[async_trait]
impl Source for FakeSource {
    async fn start(&self) -> Result<Start> {
        Ok(Start::all(StartFrom::At(Timestamp(5_000))))
    }
    async fn discover(&self) -> Result<Listing> {
        let stream = STREAMS.lock().unwrap().get(&self.0).cloned().unwrap_or_default();
        match stream.fails {
            Some(why) => Err(Error::new(ErrorKind::Unavailable, why)),
            None => Ok(Listing { creation: CREATION, splits: stream.splits, now: None, retention: None }),
        }
    }
    async fn is_gone(&self, split: &SplitId) -> Result<bool> {
        Ok(STREAMS.lock().unwrap().get(&self.0).is_some_and(|stream| stream.gone.contains(split)))
    }
    async fn open(&self, _: &SplitId, _: &Position) -> Result<Box<dyn SplitReader>> {
        Err(Error::new(ErrorKind::Bug, "no coordinator reads"))
    }
    fn share(&self, _: &SplitId, _: u32) {}
}

struct FakeSink;

#[async_trait]
impl Sink for FakeSink {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }
    async fn validate(&self) -> Result<()> {
        Ok(())
    }
    async fn open(&self, _: &TaskId, _: &Run) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(FakeWriter))
    }
}

struct FakeWriter;

#[async_trait]
impl SinkWriter for FakeWriter {
    async fn write(&mut self, _: Batch) -> Result<Delivery> {
        Ok(Box::pin(std::future::ready(Ok(Vec::new()))))
    }
    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn build_source(spec: &SourceSpec) -> Result<Arc<dyn Source>, connector::OptionError> {
    Ok(Arc::new(FakeSource(spec.options.get("stream").unwrap_or_default().to_owned())))
}

fn build_sink(_: &SinkSpec, _: &Options) -> Result<Arc<dyn Sink>, connector::OptionError> {
    Ok(Arc::new(FakeSink))
}

/// A registry with both.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add_source(SourceKind {
        name: "fake",
        options: &[],
        formats: &[(Format::Plain, Encode::Bytes)],
        include: &[],
        build: Arc::new(build_source),
    });
    registry.add_sink(SinkKind {
        name: "fake",
        options: &[],
        formats: &[],
        format_required: false,
        key: KeyRule::Optional,
        distributions: DistributionKind::ALL,
        limits: BatchLimits { rows: 500, bytes: 1 << 20, linger: std::time::Duration::ZERO },
        build: Arc::new(build_sink),
    });
    registry
}
