//! A source and a sink that are there or not, as their options say.
//!
//! `reach = 'never'` makes every call of the outside fail; `stream` is the number of splits of the stream and the moment when it
//! was created (`'4@1000'`).

use std::sync::Arc;

use async_trait::async_trait;
use connector::{
    BatchLimits, Capability, Error, ErrorKind, KeyRule, Listing, OptionDef, OptionError, OptionKind, Reader,
    Registry, Result, Run, Sink, SinkKind, SinkWriter, Source, SourceKind, SplitReader,
};
use model::{
    Creation, Encode, Format, IncludeKind, Options, Position, SinkSpec, SourceSpec, Split, SplitId, Start,
    StartFrom, TaskId, Timestamp,
};

const OPTIONS: &[OptionDef] = &[
    OptionDef::new("stream", OptionKind::Text),
    OptionDef::new("reach", OptionKind::OneOf(&["always", "never"])),
    OptionDef::new("scan.startup.mode", OptionKind::OneOf(&["earliest", "latest", "timestamp"])),
    OptionDef::new("password", OptionKind::Text),
    OptionDef::new("validate", OptionKind::Boolean),
];

/// What `latest` is pinned to.
pub const PINNED: Timestamp = Timestamp(77_000);

struct Fake {
    reach: bool,
    mode: String,
    splits: u32,
    creation: Creation,
}

impl Fake {
    fn read(options: &Options) -> Result<Self, OptionError> {
        let mut reader = Reader::new(options, OPTIONS)?;
        let stream = reader.required("stream")?;
        let (splits, creation) = stream.split_once('@').unwrap_or((&stream, "1000"));
        let number =
            |text: &str| text.parse::<u32>().map_err(|_| OptionError::invalid("stream", "n@t", text));
        Ok(Self {
            reach: reader.one_of("reach")? != Some("never"),
            mode: reader.one_of("scan.startup.mode")?.unwrap_or("earliest").to_owned(),
            splits: number(splits)?,
            creation: Creation(number(creation)?.into()),
        })
    }

    fn ask(&self) -> Result<()> {
        if self.reach { Ok(()) } else { Err(Error::new(ErrorKind::Unavailable, "nobody is there")) }
    }
}

#[async_trait]
impl Source for Fake {
    async fn start(&self) -> Result<Start> {
        match self.mode.as_str() {
            "earliest" => Ok(Start::all(StartFrom::Horizon)),
            "timestamp" => Ok(Start::all(StartFrom::At(Timestamp(5)))),
            _ => self.ask().map(|()| Start::all(StartFrom::At(PINNED))),
        }
    }
    async fn discover(&self) -> Result<Listing> {
        self.ask()?;
        let split = |n: u32| Split {
            id: SplitId::new(self.creation, &format!("split-{n}")),
            parents: Vec::new(),
            range: None,
            closed: false,
        };
        Ok(Listing { creation: self.creation, splits: (0..self.splits).map(split).collect() })
    }
    async fn is_gone(&self, _: &SplitId) -> Result<bool> {
        Ok(false)
    }
    async fn open(&self, _: &SplitId, _: &Position) -> Result<Box<dyn SplitReader>> {
        Err(Error::new(ErrorKind::Bug, "no coordinator reads"))
    }
    fn share(&self, _: &SplitId, _: u32) {}
}

#[async_trait]
impl Sink for Fake {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }
    async fn validate(&self) -> Result<()> {
        self.ask()
    }
    async fn open(&self, _: &TaskId, _: &Run) -> Result<Box<dyn SinkWriter>> {
        Err(Error::new(ErrorKind::Bug, "no coordinator writes"))
    }
}

fn build_source(spec: &SourceSpec) -> Result<Arc<dyn Source>, OptionError> {
    Ok(Arc::new(Fake::read(&spec.options)?))
}

fn build_sink(_: &SinkSpec, own: &Options) -> Result<Arc<dyn Sink>, OptionError> {
    Ok(Arc::new(Fake::read(own)?))
}

/// A registry with both under the name `fake`.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add_source(SourceKind {
        name: "fake",
        options: OPTIONS,
        formats: &[(Format::Plain, Encode::Json)],
        include: &[(IncludeKind::Key, "_key")],
        build: Arc::new(build_source),
    });
    registry.add_sink(SinkKind {
        name: "fake",
        options: OPTIONS,
        formats: &[],
        format_required: false,
        key: KeyRule::Optional,
        limits: BatchLimits { rows: 500, bytes: 1 << 20, linger: std::time::Duration::ZERO },
        build: Arc::new(build_sink),
    });
    registry
}
